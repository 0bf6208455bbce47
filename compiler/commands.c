#include "compiler/commands.h"

#include "passes/passes.h"

#include <errno.h>
#include <string.h>

void command_warning(void *user, const char *line) {
  (void)user;
  fprintf(stderr, "%s\n", line);
}

void command_print_notes(const sluice_text *lines) {
  if (!lines->length || lines->failed) return;
  for (const char *line = lines->data, *end; (end = strchr(line, '\n')); line = end + 1)
    fprintf(stderr, "note: tuning: %.*s\n", (int)(end - line), line);
}

sluice_status *command_find_dtype(const char *option, const char *name, sluice_dtype absent, sluice_dtype *out_dtype) {
  *out_dtype = absent;
  if (!name) return NULL;
  static const struct {
    const char *name;
    sluice_dtype dtype;
  } spellings[] = {{"float32", SLUICE_F32}, {"fp32", SLUICE_F32},      {"f32", SLUICE_F32},
                   {"float", SLUICE_F32},   {"bfloat16", SLUICE_BF16}, {"bf16", SLUICE_BF16}};
  for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++)
    if (strcmp(name, spellings[i].name) == 0) {
      *out_dtype = spellings[i].dtype;
      return NULL;
    }
  return sluice_error(SLUICE_USAGE, "--%s is '%s', expected float32 (fp32) or bfloat16 (bf16)", option, name);
}

void command_print_passes(FILE *out) {
  fprintf(out, "\nPasses, in the order of the standard pipeline (* may be disabled):\n");
  for (const pass_description *pass = pass_table; pass->name; pass++)
    fprintf(out, "  %c %-24s %s\n", pass->optional ? '*' : ' ', pass->name, pass->summary);
}

sluice_status *command_print_text(sluice_text *text, sluice_status *status) {
  if (!status && text->failed) status = sluice_out_of_memory();
  if (!status && text->length && fwrite(text->data, 1, text->length, stdout) != text->length)
    status = sluice_error(SLUICE_IO, "cannot write to standard output: %s", strerror(errno));
  sluice_text_free(text);
  return status;
}

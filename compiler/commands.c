#include "compiler/commands.h"

#include "passes/passes.h"

#include <errno.h>
#include <string.h>

void command_warning(void *user, const char *line) {
  (void)user;
  fprintf(stderr, "%s\n", line);
}

void command_print_passes(FILE *out) {
  fprintf(out, "\nPasses, in the order of the standard pipeline (* may be disabled):\n");
  for (const pass_description *pass = pass_table; pass->name; pass++)
    fprintf(out, "  %c %-24s %s\n", pass->optional ? '*' : ' ', pass->name, pass->summary);
}

sluice_status *command_print_text(sluice_text *text) {
  sluice_status *status = NULL;
  if (text->failed)
    status = sluice_out_of_memory();
  else if (text->length && fwrite(text->data, 1, text->length, stdout) != text->length)
    status = sluice_error(SLUICE_IO, "cannot write to standard output: %s", strerror(errno));
  sluice_text_free(text);
  return status;
}

#include "runtime/tools/prompt.h"

#include "sluice/memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void tool_prompt_free(tool_prompt *prompt) {
  sluice_release(prompt->ids);
  *prompt = (tool_prompt){0};
}

sluice_status *tool_read_file(const char *path, const char *what, sluice_text *text) {
  FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
  if (!file)
    return sluice_error(errno == ENOENT ? SLUICE_NOT_FOUND : SLUICE_IO, "%s: cannot read %s: %s", path, what,
                        strerror(errno));
  char part[65536];
  size_t count;
  while ((count = fread(part, 1, sizeof part, file)) > 0) sluice_text_append(text, part, count);
  const bool failed = ferror(file) != 0;
  if (file != stdin) fclose(file);
  if (failed) return sluice_error(SLUICE_IO, "%s: cannot read %s", path, what);
  sluice_text_append(text, "", 0);
  return text->failed ? sluice_out_of_memory() : NULL;
}

static bool is_separator(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == ',';
}

static sluice_status *parse_ids(const char *path, const sluice_text *text, tool_prompt *prompt) {
  const size_t capacity = text->length / 2 + 1;
  size_t at = 0;
  prompt->ids = sluice_allocate_array(capacity, sizeof *prompt->ids);
  if (!prompt->ids) return sluice_out_of_memory();
  for (;;) {
    while (at < text->length && is_separator(text->data[at])) at++;
    if (at == text->length) break;
    int64_t value = 0;
    const size_t start = at;
    for (; at < text->length && text->data[at] >= '0' && text->data[at] <= '9' && value <= INT32_MAX; at++)
      value = value * 10 + (text->data[at] - '0');
    if (at == start || value > INT32_MAX || (at < text->length && !is_separator(text->data[at])))
      return sluice_error(SLUICE_INVALID,
                          "%s: byte %zu: \"%.12s\" is no token id; expected non-negative integers separated by spaces, "
                          "commas or newlines",
                          path, start, text->data + start);
    prompt->ids[prompt->count++] = (int32_t)value;
  }
  if (!prompt->count) return sluice_error(SLUICE_INVALID, "%s: no token ids", path);
  return NULL;
}

sluice_status *tool_prompt_ids(const char *path, tool_prompt *out_prompt) {
  sluice_text text = {0};
  sluice_status *status = tool_read_file(path, "the token ids", &text);
  if (!status) status = parse_ids(path, &text, out_prompt);
  sluice_text_free(&text);
  return status;
}

sluice_status *tool_prompt_text(const sluice_tokenizer *tokenizer, const char *text, size_t length, bool special,
                                tool_prompt *out_prompt) {
  const sluice_encode_options options = {.added = special ? SLUICE_ADDED_ALL : SLUICE_ADDED_NONE, .post_process = true};
  sluice_encoder *encoder = NULL;
  const int32_t *ids;
  size_t count;
  SLUICE_TRY(sluice_encoder_create(tokenizer, &encoder));
  sluice_status *status = sluice_encode(encoder, text, length, &options, &ids, &count);
  if (!status && !count)
    status = sluice_error(SLUICE_INVALID, "the prompt is empty; expected text that gives a token at least");
  if (!status) {
    out_prompt->ids = sluice_allocate_array(count, sizeof *ids);
    if (out_prompt->ids) {
      memcpy(out_prompt->ids, ids, count * sizeof *ids);
      out_prompt->count = (uint32_t)count; /* at most one for each byte, and the few around them */
    } else {
      status = sluice_out_of_memory();
    }
  }
  sluice_encoder_free(encoder);
  return status;
}

sluice_status *tool_tokenizer_open(const char *path, const char *weights, sluice_tokenizer **out_tokenizer) {
  if (path) return sluice_tokenizer_open(path, out_tokenizer);
  if (strncmp(weights, "synthetic:", strlen("synthetic:")) == 0)
    return sluice_error(SLUICE_USAGE, "synthetic weights have no tokenizer beside them; name one with --tokenizer");
  return sluice_tokenizer_open(weights, out_tokenizer);
}

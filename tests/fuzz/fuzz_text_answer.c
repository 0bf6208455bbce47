/* libFuzzer: an answer. The first byte chooses the form of calls and whether reasoning is open; the rest is parsed at
 * once and byte by byte, which must give the same. */
#include "sluice/answer.h"
#include "sluice/memory.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

typedef struct log {
  sluice_text text;
  int last;
} log;

static sluice_status *record(void *user, const sluice_answer_event *event) {
  log *l = user;
  if ((int)event->kind != l->last || event->name) sluice_text_printf(&l->text, "|%d:", (int)event->kind);
  l->last = (int)event->kind;
  if (event->name) {
    sluice_json_document *arguments = NULL; /* what is said to be JSON must be */
    if (sluice_json_parse(event->text, event->length, "arguments", &arguments)) abort();
    sluice_json_free(arguments);
    sluice_text_printf(&l->text, "%s", event->name);
  }
  sluice_text_append(&l->text, event->text, event->length);
  return NULL;
}

static void parse(const uint8_t *data, size_t length, size_t part, uint8_t form, log *l) {
  const sluice_answer_options options = {.reasoning_begin = form & 4 ? "<think>" : "<mm:think>",
                                         .reasoning_end = form & 4 ? "</think>" : "</mm:think>",
                                         .starts_in_reasoning = (form & 2) != 0,
                                         .tools = form & 1 ? SLUICE_TOOLS_M2 : SLUICE_TOOLS_M3};
  sluice_answer_parser *parser;
  if (sluice_answer_create(&options, record, l, &parser)) abort();
  for (size_t at = 0; at < length; at += part)
    if (sluice_answer_feed(parser, (const char *)data + at, length - at < part ? length - at : part)) abort();
  if (sluice_answer_finish(parser)) abort();
  sluice_answer_free(parser);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length) {
  if (!length || length > 65536) return 0;
  log whole = {.last = -1}, bytes = {.last = -1};
  parse(data + 1, length - 1, length, data[0], &whole);
  parse(data + 1, length - 1, 1, data[0], &bytes);
  if (whole.text.length != bytes.text.length ||
      memcmp(whole.text.data ? whole.text.data : "", bytes.text.data ? bytes.text.data : "", whole.text.length) != 0)
    abort();
  sluice_text_free(&whole.text);
  sluice_text_free(&bytes.text);
  if (sluice_live_allocations()) abort();
  return 0;
}

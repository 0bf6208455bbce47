/* libFuzzer: the JSON reader. Every value and every message is touched, and what was read is written and read again. */
#include "sluice/json.h"
#include "sluice/memory.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

/* Writes strings that hold a NUL cut short, which is the writer's contract: such documents are not compared. */
static void write_value(sluice_text *text, const sluice_json_value *value, bool *has_nul) {
  switch (value->kind) {
  case SLUICE_JSON_NULL:
    sluice_text_printf(text, "null");
    break;
  case SLUICE_JSON_BOOL:
    sluice_text_printf(text, "%s", value->boolean ? "true" : "false");
    break;
  case SLUICE_JSON_NUMBER:
    sluice_text_json_double(text, value->number);
    break;
  case SLUICE_JSON_STRING:
    *has_nul |= strlen(value->string) != value->length;
    sluice_text_json_string(text, value->string);
    break;
  case SLUICE_JSON_ARRAY:
    sluice_text_printf(text, "[");
    for (size_t i = 0; i < value->length; i++) {
      if (i) sluice_text_printf(text, ",");
      write_value(text, &value->items[i], has_nul);
    }
    sluice_text_printf(text, "]");
    break;
  case SLUICE_JSON_OBJECT:
    sluice_text_printf(text, "{");
    for (size_t i = 0; i < value->length; i++) {
      if (i) sluice_text_printf(text, ",");
      *has_nul |= strlen(value->members[i].key) != value->members[i].key_length;
      sluice_text_json_string(text, value->members[i].key);
      sluice_text_printf(text, ":");
      write_value(text, &value->members[i].value, has_nul);
    }
    sluice_text_printf(text, "}");
    break;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length) {
  sluice_json_document *document = NULL;
  sluice_status *status = sluice_json_parse(length ? (const char *)data : "", length, "fuzz.json", &document);
  if (status) {
    char *report = sluice_status_format(status);
    if (!report || strncmp(report, "fuzz.json", 9) != 0) __builtin_trap();
    sluice_release(report);
    sluice_status_free(status);
    return 0;
  }
  sluice_text first = {0}, second = {0};
  bool has_nul = false;
  write_value(&first, sluice_json_root(document), &has_nul);
  if (!has_nul && !first.failed) {
    sluice_json_document *again = NULL;
    status = sluice_json_parse(first.data, first.length, "again.json", &again);
    if (status) __builtin_trap();
    write_value(&second, sluice_json_root(again), &has_nul);
    if (first.length != second.length || memcmp(first.data, second.data, first.length) != 0) __builtin_trap();
    sluice_json_free(again);
  }
  sluice_text_free(&first);
  sluice_text_free(&second);
  sluice_json_free(document);
  return 0;
}

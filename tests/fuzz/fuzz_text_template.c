/* libFuzzer: a template, then, behind a NUL, the JSON object of its variables (or none). */
#include "sluice/memory.h"
#include "sluice/template.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length) {
  static const char usual[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"tools\": null}";
  const sluice_template_limits limits = {.steps = 50000, .memory = 8 << 20, .output = 1 << 20};
  const char *text = (const char *)data, *end = length ? memchr(text, 0, length) : NULL;
  const char *json = end ? end + 1 : usual;
  const size_t json_length = end ? length - (size_t)(end + 1 - text) : sizeof usual - 1;
  sluice_json_document *variables = NULL;
  sluice_template *template = NULL;
  sluice_rendered rendered = {0};
  sluice_status *status = sluice_json_parse(json, json_length, "variables", &variables);
  if (!status) status = sluice_template_parse(text, end ? (size_t)(end - text) : length, "template", &template);
  if (!status) {
    const sluice_template_variables given = {.object = sluice_json_root(variables), .plain = true};
    status = sluice_template_render(template, &given, 1, 0, &limits, &rendered);
  }
  size_t at = 0;
  for (size_t i = 0; i < rendered.plain_count; i++) {
    if (rendered.plain[i].start < at || rendered.plain[i].end <= rendered.plain[i].start) abort();
    at = rendered.plain[i].end;
  }
  if (at > rendered.length) abort();
  sluice_status_free(status);
  sluice_rendered_free(&rendered);
  sluice_template_free(template);
  sluice_json_free(variables);
  if (sluice_live_allocations()) abort();
  return 0;
}

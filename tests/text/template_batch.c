/* Renders many templates at once, for tests/text/jinja_oracle.py: reads a JSON array of {"template", "variables",
 * "now"} and writes one line for each: a JSON object with "text" and "plain" (spans), or with "error".
 *
 * usage: template_batch CASES.json
 */
#include "sluice/memory.h"
#include "sluice/template.h"

#include <stdio.h>
#include <string.h>

static void put_text(sluice_text *out, const char *text, size_t length) {
  sluice_text_append(out, "\"", 1);
  for (size_t i = 0; i < length; i++) {
    if (text[i] == '"' || text[i] == '\\' || (unsigned char)text[i] < 32)
      sluice_text_printf(out, "\\u%04x", (unsigned)(unsigned char)text[i]);
    else
      sluice_text_append(out, text + i, 1);
  }
  sluice_text_append(out, "\"", 1);
}

static void put_error(sluice_text *out, const sluice_status *status) {
  const char *message = sluice_status_message(status);
  sluice_text_printf(out, "{\"code\": %d, \"error\": ", (int)sluice_status_code(status));
  put_text(out, message, strlen(message));
}

static void put_rendered(sluice_text *out, const sluice_rendered *rendered) {
  sluice_text_printf(out, "{\"text\": ");
  put_text(out, rendered->text, rendered->length);
  sluice_text_printf(out, ", \"plain\": [");
  for (size_t i = 0; i < rendered->plain_count; i++)
    sluice_text_printf(out, "%s[%zu, %zu]", i ? ", " : "", rendered->plain[i].start, rendered->plain[i].end);
  sluice_text_printf(out, "]");
}

static void run_case(const sluice_json_value *test, sluice_text *out) {
  const sluice_json_value *text = sluice_json_get(test, "template"), *now = sluice_json_get(test, "now");
  sluice_template *template = NULL;
  sluice_rendered rendered = {0};
  const sluice_template_variables variables = {.object = sluice_json_get(test, "variables"), .plain = true};
  sluice_status *status = sluice_template_parse(text->string, text->length, "case", &template);
  if (!status) status = sluice_template_render(template, &variables, 1, now ? now->integer : -1, NULL, &rendered);
  if (status)
    put_error(out, status);
  else
    put_rendered(out, &rendered);
  sluice_text_printf(out, "}\n");
  sluice_status_free(status);
  sluice_rendered_free(&rendered);
  sluice_template_free(template);
}

int main(int argc, char **argv) {
  sluice_json_document *cases = NULL;
  sluice_text out = {0};
  if (argc != 2) return 2;
  sluice_status *status = sluice_json_parse_file(argv[1], &cases);
  if (status) {
    sluice_status_print(status);
    sluice_status_free(status);
    return 1;
  }
  const sluice_json_value *root = sluice_json_root(cases);
  for (size_t i = 0; i < root->length; i++) {
    run_case(&root->items[i], &out);
    fwrite(out.data, 1, out.length, stdout);
    out.length = 0;
  }
  sluice_text_free(&out);
  sluice_json_free(cases);
  return sluice_live_allocations() == 0 && fflush(stdout) == 0 ? 0 : 1;
}

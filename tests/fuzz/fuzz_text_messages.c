/* libFuzzer: messages as a request has them, rendered by the templates of tests/templates. The first byte chooses the
 * template; what it gives is cut into reasoning, content and tool calls as an answer would be. */
#include "sluice/answer.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

enum { TEMPLATES = 5 };

/* A checkpoint's folder with one template; it is gone when this returns. */
static sluice_chat_template *open_template(const char *name) {
  char folder[] = "/tmp/fuzz_messages_XXXXXX", path[128], from[512];
  sluice_chat_template *template = NULL;
  if (!mkdtemp(folder)) abort();
  snprintf(path, sizeof path, "%s/chat_template.jinja", folder);
  snprintf(from, sizeof from, TEMPLATE_DIR "/%s.jinja", name);
  if (symlink(from, path) || sluice_chat_template_open(folder, NULL, false, &template)) abort();
  unlink(path);
  rmdir(folder);
  return template;
}

static sluice_status *ignore(void *user, const sluice_answer_event *event) {
  (void)user;
  if (event->text[event->length]) abort();
  return NULL;
}

static void parse_back(const sluice_chat_template *template, const sluice_rendered *rendered,
                       const sluice_json_value *tools) {
  sluice_answer_options options = sluice_answer_options_for(template, rendered->text, rendered->length);
  options.schemas = tools && tools->kind == SLUICE_JSON_ARRAY ? tools : NULL;
  sluice_answer_parser *parser;
  if (sluice_answer_create(&options, ignore, NULL, &parser) ||
      sluice_answer_feed(parser, rendered->text, rendered->length) || sluice_answer_finish(parser))
    abort();
  sluice_answer_free(parser);
}

static void render(const sluice_chat_template *template, const sluice_json_value *root) {
  const sluice_template_limits limits = {.steps = 50000, .memory = 8 << 20, .output = 1 << 18};
  sluice_chat_input input = {.messages = root, .generation_prompt = true, .now = 0, .limits = &limits};
  if (root->kind == SLUICE_JSON_OBJECT) {
    input.messages = sluice_json_get(root, "messages");
    input.tools = sluice_json_get(root, "tools");
    input.documents = sluice_json_get(root, "documents");
    input.variables = sluice_json_get(root, "chat_template_kwargs");
  }
  if (!input.messages || input.messages->kind != SLUICE_JSON_ARRAY) return;
  sluice_rendered rendered = {0};
  sluice_status *status = sluice_chat_template_render(template, &input, &rendered);
  size_t at = 0;
  for (size_t i = 0; i < rendered.plain_count; i++) {
    if (rendered.plain[i].start < at || rendered.plain[i].end <= rendered.plain[i].start) abort();
    at = rendered.plain[i].end;
  }
  if (at > rendered.length) abort();
  if (!status) parse_back(template, &rendered, input.tools);
  sluice_status_free(status);
  sluice_rendered_free(&rendered);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length) {
  static const char *const names[TEMPLATES] = {"chatml", "headers", "namespace", "parameters", "schemas"};
  static sluice_chat_template *templates[TEMPLATES];
  for (int i = 0; i < TEMPLATES; i++)
    if (!templates[i]) templates[i] = open_template(names[i]);
  if (!length) return 0;
  const size_t live = sluice_live_allocations();
  sluice_json_document *document = NULL;
  sluice_status *status = sluice_json_parse((const char *)data + 1, length - 1, "messages", &document);
  if (!status) render(templates[data[0] % TEMPLATES], sluice_json_root(document));
  sluice_status_free(status);
  sluice_json_free(document);
  if (sluice_live_allocations() != live) abort();
  return 0;
}

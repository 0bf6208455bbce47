#include "runtime/tools/conversation.h"

#include "sluice/memory.h"

#include <stdio.h>
#include <string.h>

/* Templates call it by several names; those that one does not know it ignores. */
static sluice_status *set_thinking(const char *thinking, conversation *c) {
  static const char *const variables[] = {
      "{\"thinking_mode\": \"disabled\", \"enable_thinking\": false, \"thinking\": false}",
      "{\"thinking_mode\": \"enabled\", \"enable_thinking\": true, \"thinking\": true}"};
  if (!thinking) return NULL;
  const bool on = strcmp(thinking, "on") == 0;
  if (!on && strcmp(thinking, "off") != 0)
    return sluice_error(SLUICE_USAGE, "--thinking is \"%s\", expected on or off", thinking);
  return sluice_json_parse(variables[on], strlen(variables[on]), "--thinking", &c->variables);
}

static sluice_status *read_tools(const char *path, conversation *c) {
  if (!path) return NULL;
  SLUICE_TRY(sluice_json_parse_file(path, &c->tools));
  const sluice_json_value *root = sluice_json_root(c->tools);
  if (root->kind == SLUICE_JSON_ARRAY) return NULL;
  return sluice_json_error(c->tools, root->offset, SLUICE_INVALID, "the tools are %s, expected an array",
                           sluice_json_kind_name(root->kind));
}

sluice_status *conversation_open(const conversation_options *options, conversation *out_conversation) {
  conversation *c = out_conversation;
  *c = (conversation){0};
  SLUICE_TRY(set_thinking(options->thinking, c));
  SLUICE_TRY(read_tools(options->tools, c));
  return sluice_chat_template_open(options->weights, options->name, c->tools != NULL, &c->template);
}

void conversation_close(conversation *c) {
  sluice_chat_template_close(c->template);
  sluice_json_free(c->tools);
  sluice_json_free(c->variables);
  sluice_text_free(&c->messages);
  *c = (conversation){0};
}

const sluice_json_value *conversation_tools(const conversation *c) {
  return c->tools ? sluice_json_root(c->tools) : NULL;
}

void conversation_add(conversation *c, const char *role, const char *text, size_t length, const char *more) {
  if (c->messages.length) sluice_text_append(&c->messages, ",\n ", 3);
  sluice_text_printf(&c->messages, "{\"role\": \"%s\", \"content\": ", role);
  sluice_text_json_bytes(&c->messages, text, length);
  sluice_text_printf(&c->messages, "%s}", more ? more : "");
}

sluice_status *conversation_render(const conversation *c, bool generation_prompt, sluice_rendered *out_rendered) {
  sluice_text list = {0};
  sluice_json_document *messages = NULL;
  *out_rendered = (sluice_rendered){0};
  sluice_text_printf(&list, "[%s]", c->messages.length ? c->messages.data : "");
  sluice_status *status = list.failed || c->messages.failed
                              ? sluice_out_of_memory()
                              : sluice_json_parse(list.data, list.length, "the conversation", &messages);
  sluice_text_free(&list);
  if (status) return status;
  const sluice_chat_input input = {.messages = sluice_json_root(messages),
                                   .tools = conversation_tools(c),
                                   .variables = c->variables ? sluice_json_root(c->variables) : NULL,
                                   .generation_prompt = generation_prompt,
                                   .now = -1};
  status = sluice_chat_template_render(c->template, &input, out_rendered);
  sluice_json_free(messages);
  return status;
}

sluice_status *conversation_encode(const sluice_tokenizer *tokenizer, const sluice_rendered *rendered,
                                   tool_prompt *out_prompt) {
  const sluice_encode_options options = {
      .added = SLUICE_ADDED_ALL, .plain = rendered->plain, .plain_count = rendered->plain_count};
  sluice_encoder *encoder = NULL;
  const int32_t *ids;
  size_t count;
  *out_prompt = (tool_prompt){0};
  SLUICE_TRY(sluice_encoder_create(tokenizer, &encoder));
  sluice_status *status = sluice_encode(encoder, rendered->text, rendered->length, &options, &ids, &count);
  if (!status) {
    out_prompt->ids = sluice_allocate_array(count, sizeof *ids);
    if (!out_prompt->ids) status = sluice_out_of_memory();
  }
  if (!status && count) memcpy(out_prompt->ids, ids, count * sizeof *ids);
  if (!status) out_prompt->count = (uint32_t)count;
  sluice_encoder_free(encoder);
  return status;
}

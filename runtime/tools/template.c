/* sluice-run template: messages to text, by the checkpoint's chat template. */
#include "runtime/tools/conversation.h"
#include "runtime/tools/options.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <string.h>

typedef struct template_options {
  conversation_options conversation;
  const char *tokenizer;
  bool no_generation_prompt, ids;
} template_options;

static sluice_status *print_ids(const template_options *options, const sluice_rendered *rendered) {
  sluice_tokenizer *tokenizer = NULL;
  tool_prompt prompt = {0};
  SLUICE_TRY(tool_tokenizer_open(options->tokenizer, options->conversation.weights, &tokenizer));
  sluice_status *status = conversation_encode(tokenizer, rendered, &prompt);
  for (uint32_t i = 0; !status && i < prompt.count; i++) printf("%s%d", i ? " " : "", prompt.ids[i]);
  if (!status) putchar('\n');
  tool_prompt_free(&prompt);
  sluice_tokenizer_close(tokenizer);
  return status;
}

/* An array of messages, or an object as a request has them: "messages", "tools", "documents", "chat_template_kwargs",
 * "add_generation_prompt". */
static sluice_status *fill_input(const sluice_json_document *file, const conversation *c, bool generation_prompt,
                                 sluice_chat_input *out_input) {
  const sluice_json_value *root = sluice_json_root(file);
  *out_input = (sluice_chat_input){.messages = root, .generation_prompt = generation_prompt, .now = -1};
  if (root->kind == SLUICE_JSON_OBJECT) {
    out_input->messages = sluice_json_get(root, "messages");
    out_input->tools = sluice_json_get(root, "tools");
    out_input->documents = sluice_json_get(root, "documents");
    out_input->variables = sluice_json_get(root, "chat_template_kwargs");
    const sluice_json_value *prompt = sluice_json_get(root, "add_generation_prompt");
    if (prompt && prompt->kind == SLUICE_JSON_BOOL) out_input->generation_prompt = prompt->boolean && generation_prompt;
  }
  if (!out_input->messages || out_input->messages->kind != SLUICE_JSON_ARRAY)
    return sluice_json_error(file, root->offset, SLUICE_INVALID,
                             "expected an array of messages, or an object with one as \"messages\"");
  if (c->tools) out_input->tools = conversation_tools(c);
  if (c->variables) out_input->variables = sluice_json_root(c->variables);
  return NULL;
}

static sluice_status *render(const template_options *options, const sluice_json_document *file, conversation *c) {
  sluice_chat_input input;
  sluice_rendered rendered;
  SLUICE_TRY(conversation_open(&options->conversation, c));
  SLUICE_TRY(fill_input(file, c, !options->no_generation_prompt, &input));
  SLUICE_TRY(sluice_chat_template_render(c->template, &input, &rendered));
  sluice_status *status = NULL;
  if (options->ids)
    status = print_ids(options, &rendered);
  else
    fwrite(rendered.text, 1, rendered.length, stdout);
  sluice_rendered_free(&rendered);
  return status;
}

/* The messages; "-" is standard input. */
static sluice_status *read_messages(const char *path, sluice_json_document **out_file) {
  sluice_text text = {0};
  SLUICE_TRY(tool_read_file(path, "the messages", &text));
  sluice_status *status = sluice_json_parse(text.data ? text.data : "", text.length, path, out_file);
  sluice_text_free(&text);
  return status;
}

sluice_status *command_template(int argc, char **argv) {
  template_options o = {0};
  const tool_option options[] = {
      {"--weights", TOOL_INPUT, &o.conversation.weights, "DIR", "the checkpoint, whose template it is"},
      {"--template-name", TOOL_TEXT, &o.conversation.name, "NAME", "which of several templates (default)"},
      {"--tools", TOOL_INPUT, &o.conversation.tools, "FILE.json", "an array of tools that the model may call"},
      {"--thinking", TOOL_TEXT, &o.conversation.thinking, "on|off", "ask for reasoning, or for none"},
      {"--no-generation-prompt", TOOL_FLAG, &o.no_generation_prompt, NULL, "do not begin an answer"},
      {"--ids", TOOL_FLAG, &o.ids, NULL, "print token ids instead of text"},
      {"--tokenizer", TOOL_INPUT, &o.tokenizer, "PATH", "the tokenizer's file or folder (the one beside the weights)"},
  };
  const tool_command command = {"sluice-run template --weights DIR MESSAGES.json|- [options]",
                                "Prints what the checkpoint's chat template makes of messages: an array, or an object "
                                "with \"messages\", \"tools\",\n\"documents\" and \"chat_template_kwargs\".\n",
                                options, sizeof options / sizeof options[0]};
  const char *path;
  bool help;
  SLUICE_TRY(tool_parse(&command, argc, argv, &path, &help));
  if (help) return NULL;
  if (!o.conversation.weights) return sluice_error(SLUICE_USAGE, "template needs --weights; see --help");
  if (o.tokenizer && !o.ids) return sluice_error(SLUICE_USAGE, "--tokenizer goes with --ids");
  sluice_json_document *file = NULL;
  SLUICE_TRY(read_messages(path, &file));
  conversation c = {0};
  sluice_status *status = render(&o, file, &c);
  conversation_close(&c);
  sluice_json_free(file);
  return status;
}

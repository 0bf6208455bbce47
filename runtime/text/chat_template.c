/* The template of a checkpoint: which text it is, and its special tokens. */
#include "sluice/memory.h"
#include "sluice/template.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_TEMPLATE_BYTES = 16 << 20 };

struct sluice_chat_template {
  sluice_template *template;
  sluice_text text;             /* of the template */
  sluice_json_document *tokens; /* an object: bos_token, ... */
};

/* ---- Files ---- */

/* `*out_found` stays false when there is no such file. */
static sluice_status *read_file(const char *path, sluice_text *text, bool *out_found) {
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  *out_found = file >= 0;
  if (file < 0 && (errno == ENOENT || errno == ENOTDIR)) return NULL;
  if (file < 0) return sluice_error(SLUICE_IO, "%s: %s", path, strerror(errno));
  struct stat info;
  sluice_status *status = NULL;
  if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode))
    status = sluice_error(SLUICE_INVALID, "%s: not a regular file", path);
  else if (info.st_size > MAX_TEMPLATE_BYTES)
    status = sluice_error(SLUICE_INVALID, "%s: a template of %lld bytes, expected at most %d", path,
                          (long long)info.st_size, MAX_TEMPLATE_BYTES);
  char part[65536];
  while (!status && text->length <= MAX_TEMPLATE_BYTES) {
    ssize_t count = read(file, part, sizeof part);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) status = sluice_error(SLUICE_IO, "%s: %s", path, strerror(errno));
    if (count <= 0) break;
    sluice_text_append(text, part, (size_t)count);
  }
  close(file);
  sluice_text_append(text, "", 0);
  return !status && text->failed ? sluice_out_of_memory() : status;
}

/* ---- Named templates ---- */

static const char *string_of(const sluice_json_value *value) {
  return value && value->kind == SLUICE_JSON_STRING ? value->string : NULL;
}

static const sluice_json_value *find_named(const sluice_json_value *list, const char *name) {
  for (size_t i = 0; i < list->length; i++) {
    const char *own = string_of(sluice_json_get(&list->items[i], "name"));
    if (own && strcmp(own, name) == 0) return sluice_json_get(&list->items[i], "template");
  }
  return NULL;
}

/* The template within tokenizer_config.json. */
static sluice_status *pick(const char *path, const sluice_json_value *config, const char *name, bool tools,
                           sluice_text *text) {
  const sluice_json_value *value = sluice_json_get(config, "chat_template");
  if (value && value->kind == SLUICE_JSON_ARRAY) {
    const sluice_json_value *list = value;
    value = find_named(list, name ? name : tools ? "tool_use" : "default");
    if (!value && !name) value = find_named(list, "default");
    if (!value)
      return sluice_error(SLUICE_NOT_FOUND, "%s: \"chat_template\" has no template named \"%s\"", path,
                          name ? name : "default");
  } else if (name) {
    return sluice_error(SLUICE_NOT_FOUND, "%s: it has no named templates, so none named \"%s\"", path, name);
  }
  if (!value)
    return sluice_error(SLUICE_NOT_FOUND,
                        "%s: no \"chat_template\" in it, and no chat_template.jinja beside it: the checkpoint has no "
                        "chat template; give one with --template",
                        path);
  if (value->kind != SLUICE_JSON_STRING)
    return sluice_error(SLUICE_INVALID, "%s: the chat template is %s, expected a string", path,
                        sluice_json_kind_name(value->kind));
  sluice_text_append(text, value->string, value->length);
  return NULL;
}

/* ---- Special tokens ---- */

static const char *token_text(const sluice_json_value *value) {
  if (value && value->kind == SLUICE_JSON_OBJECT) value = sluice_json_get(value, "content");
  return string_of(value);
}

static void put_member(sluice_text *text, const char *name) {
  if (text->length > 1) sluice_text_append(text, ", ", 2);
  sluice_text_json_string(text, name);
  sluice_text_append(text, ": ", 2);
}

static void write_tokens(const sluice_json_value *config, sluice_text *text) {
  static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                      "pad_token", "cls_token", "mask_token"};
  sluice_text_append(text, "{", 1);
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    const char *token = token_text(sluice_json_get(config, names[i]));
    if (!token) continue;
    put_member(text, names[i]);
    sluice_text_json_string(text, token);
  }
  const sluice_json_value *more = sluice_json_get(config, "additional_special_tokens");
  if (more && more->kind == SLUICE_JSON_ARRAY && more->length) {
    put_member(text, "additional_special_tokens");
    sluice_text_append(text, "[", 1);
    size_t written = 0;
    for (size_t i = 0; i < more->length; i++) {
      const char *token = token_text(&more->items[i]);
      if (!token) continue;
      if (written++) sluice_text_append(text, ", ", 2);
      sluice_text_json_string(text, token);
    }
    sluice_text_append(text, "]", 1);
  }
  sluice_text_append(text, "}", 1);
}

/* ---- Opening ---- */

static sluice_status *open_with(const char *directory, const char *template_path, const char *config_path,
                                const char *name, bool tools, sluice_chat_template *chat) {
  sluice_json_document *config = NULL;
  bool found;
  SLUICE_TRY(read_file(template_path, &chat->text, &found));
  sluice_status *status = sluice_json_parse_file(config_path, &config);
  if (status && sluice_status_code(status) == SLUICE_NOT_FOUND) {
    sluice_status_free(status);
    status = NULL;
    if (!found)
      return sluice_error(SLUICE_NOT_FOUND,
                          "%s: neither chat_template.jinja nor tokenizer_config.json is there: the checkpoint has no "
                          "chat template",
                          directory);
  }
  const sluice_json_value *root = config ? sluice_json_root(config) : NULL;
  if (!status && (!found || name)) {
    sluice_text_free(&chat->text);
    status = pick(config_path, root, name, tools, &chat->text);
  }
  sluice_text tokens = {0};
  if (!status) {
    write_tokens(root, &tokens);
    status = tokens.failed || chat->text.failed
                 ? sluice_out_of_memory()
                 : sluice_json_parse(tokens.data, tokens.length, config_path, &chat->tokens);
  }
  if (!status)
    status = sluice_template_parse(chat->text.data ? chat->text.data : "", chat->text.length,
                                   found && !name ? template_path : config_path, &chat->template);
  sluice_text_free(&tokens);
  sluice_json_free(config);
  return status;
}

sluice_status *sluice_chat_template_open(const char *directory, const char *name, bool tools,
                                         sluice_chat_template **out_template) {
  *out_template = NULL;
  sluice_chat_template *chat = sluice_allocate(sizeof *chat);
  char *template_path = sluice_format_string("%s/chat_template.jinja", directory);
  char *config_path = sluice_format_string("%s/tokenizer_config.json", directory);
  sluice_status *status = sluice_out_of_memory();
  if (chat && template_path && config_path)
    status = open_with(directory, template_path, config_path, name, tools, chat);
  sluice_release(template_path);
  sluice_release(config_path);
  if (status) {
    sluice_chat_template_close(chat);
    return status;
  }
  *out_template = chat;
  return NULL;
}

void sluice_chat_template_close(sluice_chat_template *chat) {
  if (!chat) return;
  sluice_template_free(chat->template);
  sluice_text_free(&chat->text);
  sluice_json_free(chat->tokens);
  sluice_release(chat);
}

/* ---- Rendering ---- */

sluice_status *sluice_chat_template_render(const sluice_chat_template *chat, const sluice_chat_input *input,
                                           sluice_rendered *out_rendered) {
  *out_rendered = (sluice_rendered){0};
  const sluice_json_value *messages = input->messages;
  if (!messages || messages->kind != SLUICE_JSON_ARRAY)
    return sluice_error(SLUICE_INVALID, "the messages are %s, expected an array",
                        messages ? sluice_json_kind_name(messages->kind) : "missing");
  for (size_t i = 0; i < messages->length; i++)
    if (messages->items[i].kind != SLUICE_JSON_OBJECT)
      return sluice_error(SLUICE_INVALID, "message %zu is %s, expected an object", i,
                          sluice_json_kind_name(messages->items[i].kind));
  const sluice_json_value none = {.kind = SLUICE_JSON_NULL};
  sluice_json_member members[] = {
      {.key = "messages", .key_length = 8, .value = *messages},
      {.key = "tools", .key_length = 5, .value = input->tools ? *input->tools : none},
      {.key = "documents", .key_length = 9, .value = input->documents ? *input->documents : none},
      {.key = "add_generation_prompt",
       .key_length = 21,
       .value = {.kind = SLUICE_JSON_BOOL, .boolean = input->generation_prompt}},
  };
  const sluice_json_value own = {.kind = SLUICE_JSON_OBJECT, .members = members, .length = 4};
  const sluice_template_variables variables[] = {{.object = sluice_json_root(chat->tokens)},
                                                 {.object = input->variables, .plain = true},
                                                 {.object = &own, .plain = true}};
  return sluice_template_render(chat->template, variables, 3, input->now, input->limits, out_rendered);
}

bool sluice_chat_template_mentions(const sluice_chat_template *chat, const char *words) {
  return chat->text.length && memmem(chat->text.data, chat->text.length, words, strlen(words)) != NULL;
}

sluice_tool_form sluice_chat_template_tools(const sluice_chat_template *chat) {
  if (sluice_chat_template_mentions(chat, "]<]minimax[>[")) return SLUICE_TOOLS_M3;
  if (sluice_chat_template_mentions(chat, "<minimax:tool_call>")) return SLUICE_TOOLS_M2;
  return SLUICE_TOOLS_NONE;
}

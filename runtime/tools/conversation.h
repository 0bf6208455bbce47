/* What `template` and `chat` share: the checkpoint's template with its settings, and messages as text and ids. */
#ifndef SLUICE_TOOLS_CONVERSATION_H
#define SLUICE_TOOLS_CONVERSATION_H

#include "runtime/tools/prompt.h"
#include "sluice/answer.h"

typedef struct conversation_options {
  const char *weights;
  const char *name;     /* of one of several templates; NULL: the usual one */
  const char *tools;    /* a JSON file; NULL: none */
  const char *thinking; /* "on", "off"; NULL: as the template has it */
} conversation_options;

typedef struct conversation {
  sluice_chat_template *template;
  sluice_json_document *tools, *variables; /* may be NULL */
  sluice_text messages;                    /* JSON objects, separated by commas */
} conversation;

/* Free with conversation_close in every case. */
SLUICE_MUST_USE sluice_status *conversation_open(const conversation_options *options, conversation *out_conversation);
void conversation_close(conversation *conversation);

/* The tools, or NULL. */
const sluice_json_value *conversation_tools(const conversation *conversation);

/* Appends {"role": role, "content": text} and, unless NULL, more members (", \"name\": ..."). */
void conversation_add(conversation *conversation, const char *role, const char *text, size_t length, const char *more);

/* Renders the messages, and encodes the text: added tokens of the template are tokens, those in messages are text. */
SLUICE_MUST_USE sluice_status *conversation_render(const conversation *conversation, bool generation_prompt,
                                                   sluice_rendered *out_rendered);
SLUICE_MUST_USE sluice_status *conversation_encode(const sluice_tokenizer *tokenizer, const sluice_rendered *rendered,
                                                   tool_prompt *out_prompt);

#endif

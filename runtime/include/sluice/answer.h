/* Answers parsed back: the text that a model writes, apart into reasoning, content and tool calls. Part of
 * libsluice_text.
 *
 * The text comes in pieces of any length, as it is generated; what is known for certain is told at once, and what may
 * be the beginning of a marker waits. However the text is cut into pieces, the words of one kind that follow each other
 * are the same, and so are the calls and their order.
 *
 *   reasoning  between the two markers; the newlines next to them do not belong to it
 *   content    everything else, without newlines behind the reasoning and before a tool call
 *   tool call  name, and arguments as a JSON object: each value as the schema of its parameter asks; without a schema,
 * as JSON when it is JSON, otherwise as a string
 *
 * A closing marker of reasoning at the very beginning is dropped: a prompt may have left it to the model. What looks
 * like a tool call and is none stays content, whole, and a note says why.
 *
 * The forms of tool calls, `M` being ]<]minimax[>[ and white space allowed between tags:
 *   M3  M<tool_call> M<invoke name="F"> M<key>value M</key> ... M</invoke> ... M</tool_call>
 *       A value is text or, for objects and arrays, elements: M<key>...M</key>, M<item>...M</item>.
 *   M2  <minimax:tool_call> <invoke name="F"> <parameter name="key">value</parameter> ... </invoke>
 * </minimax:tool_call> Entities (&lt; &gt; &amp; &quot; &apos; &#...;) in M3's values are decoded.
 */
#ifndef SLUICE_ANSWER_H
#define SLUICE_ANSWER_H

#include "sluice/template.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum sluice_answer_kind {
  SLUICE_ANSWER_REASONING,
  SLUICE_ANSWER_CONTENT,
  SLUICE_ANSWER_TOOL_CALL,
  SLUICE_ANSWER_NOTE, /* for the user, not from the model */
} sluice_answer_kind;

typedef struct sluice_answer_event {
  sluice_answer_kind kind;
  const char *text; /* words, or the arguments of a call; terminated; until the handler returns */
  size_t length;
  const char *name; /* of the tool; otherwise NULL */
} sluice_answer_event;

/* An error that it returns ends parsing and comes back from the call at hand. */
typedef sluice_status *sluice_answer_handler(void *user, const sluice_answer_event *event);

typedef struct sluice_answer_options {
  const char *reasoning_begin, *reasoning_end; /* "<mm:think>", "</mm:think>"; NULL: no reasoning is looked for */
  bool starts_in_reasoning;                    /* the prompt ends with reasoning_begin */
  sluice_tool_form tools;
  const sluice_json_value *schemas; /* the tools as a template gets them, or NULL; must outlive the parser */
} sluice_answer_options;

typedef struct sluice_answer_parser sluice_answer_parser;

SLUICE_MUST_USE sluice_status *sluice_answer_create(const sluice_answer_options *options,
                                                    sluice_answer_handler *handler, void *user,
                                                    sluice_answer_parser **out_parser);
void sluice_answer_free(sluice_answer_parser *parser); /* NULL is allowed */

/* The next `length` bytes. */
SLUICE_MUST_USE sluice_status *sluice_answer_feed(sluice_answer_parser *parser, const char *text, size_t length);
/* The end: what was waiting is told. */
SLUICE_MUST_USE sluice_status *sluice_answer_finish(sluice_answer_parser *parser);

/* The options that suit a template: its markers of reasoning, its form of tool calls. `prompt` is the rendered text. */
sluice_answer_options sluice_answer_options_for(const sluice_chat_template *template, const char *prompt,
                                                size_t length);

#ifdef __cplusplus
}
#endif
#endif

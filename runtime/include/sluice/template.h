/* Chat templates: messages to text. Part of libsluice_text.
 *
 *   sluice_template        one template, parsed: immutable, may be used from any number of threads
 *   sluice_chat_template   the template of a checkpoint with its special tokens; the same
 *
 * Templates are Jinja templates as Hugging Face transformers runs them (a sandbox in which nothing can be changed,
 * trim_blocks and lstrip_blocks on, `generation` blocks, `break` and `continue`, its own `tojson`, `raise_exception`,
 * `strftime_now`). What they give equals what Jinja2 gives, byte for byte; the part of Jinja that is understood, and
 * one known difference, are in docs/text.md, and everything else is an error with line and column.
 *
 * A template comes with a checkpoint, and both it and the messages may be hostile: steps, depth, memory and output are
 * limited, and nothing outside the given variables and the clock can be reached.
 */
#ifndef SLUICE_TEMPLATE_H
#define SLUICE_TEMPLATE_H

#include "sluice/json.h"
#include "sluice/status.h"
#include "sluice/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sluice_template sluice_template;
typedef struct sluice_chat_template sluice_chat_template;

/* 0: the default. */
typedef struct sluice_template_limits {
  uint64_t steps; /* expressions, statements and rounds of loops; long texts count more (50 million) */
  uint32_t depth; /* of calls and expressions in each other (2000) */
  size_t output;  /* bytes of text (128 MiB) */
  size_t memory;  /* bytes (1 GiB) */
} sluice_template_limits;

/* Parses `length` bytes of UTF-8. `file` names the text in errors (copied). */
SLUICE_MUST_USE sluice_status *sluice_template_parse(const char *text, size_t length, const char *file,
                                                     sluice_template **out_template);
void sluice_template_free(sluice_template *template); /* NULL is allowed */

/* The variables of one rendering: the members of these JSON objects, later ones before earlier ones of the same name.
 * The text of `plain` objects is the users': where it stands in the output is told by `rendered.plain`. */
typedef struct sluice_template_variables {
  const sluice_json_value *object; /* NULL: none */
  bool plain;
} sluice_template_variables;

typedef struct sluice_rendered {
  char *text; /* terminated; may hold NUL bytes inside */
  size_t length;
  sluice_span *plain; /* parts that came from plain variables, ascending and apart: see sluice_encode_options */
  size_t plain_count;
} sluice_rendered;

/* `now`: seconds since 1970 for strftime_now, in the local time zone; negative: the clock. `limits` NULL: the defaults.
 * An error that the template itself raises has the template's words as its message. */
SLUICE_MUST_USE sluice_status *sluice_template_render(const sluice_template *template,
                                                      const sluice_template_variables *variables, size_t variable_count,
                                                      int64_t now, const sluice_template_limits *limits,
                                                      sluice_rendered *out_rendered);
void sluice_rendered_free(sluice_rendered *rendered);

/* ---- The template of a checkpoint ---- */

/* How a model writes tool calls: see sluice/answer.h. */
typedef enum sluice_tool_form {
  SLUICE_TOOLS_NONE, /* the template knows no form that is understood here */
  SLUICE_TOOLS_M3,   /* ]<]minimax[>[<tool_call>, parameters as elements */
  SLUICE_TOOLS_M2,   /* <minimax:tool_call>, <parameter name="..."> */
} sluice_tool_form;

/* Reads the folder's chat_template.jinja or, without one, "chat_template" of tokenizer_config.json: a string, or a list
 * of objects with "name" and "template". `name` picks one of these; NULL: "default", or "tool_use" when there is one
 * and tools are given. The special tokens ("bos_token", ...) come from tokenizer_config.json when it is there. */
SLUICE_MUST_USE sluice_status *sluice_chat_template_open(const char *directory, const char *name, bool tools,
                                                         sluice_chat_template **out_template);
void sluice_chat_template_close(sluice_chat_template *template); /* NULL is allowed */

typedef struct sluice_chat_input {
  const sluice_json_value *messages;  /* an array of objects */
  const sluice_json_value *tools;     /* an array, or NULL */
  const sluice_json_value *documents; /* an array, or NULL */
  const sluice_json_value *variables; /* an object: what transformers calls chat_template_kwargs; or NULL */
  bool generation_prompt;             /* end with the start of an answer */
  int64_t now;                        /* as in sluice_template_render */
  const sluice_template_limits *limits;
} sluice_chat_input;

/* All text of messages, tools, documents and variables is plain. */
SLUICE_MUST_USE sluice_status *sluice_chat_template_render(const sluice_chat_template *template,
                                                           const sluice_chat_input *input,
                                                           sluice_rendered *out_rendered);

sluice_tool_form sluice_chat_template_tools(const sluice_chat_template *template);
/* Whether the template's text mentions `words` (of `length` bytes) anywhere. */
bool sluice_chat_template_mentions(const sluice_chat_template *template, const char *words);

#ifdef __cplusplus
}
#endif
#endif

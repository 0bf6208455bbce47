/* One tool call of an answer: its text to a name and JSON. */
#ifndef SLUICE_TEXT_TOOL_CALL_H
#define SLUICE_TEXT_TOOL_CALL_H

#include "sluice/answer.h"

typedef struct tool_syntax {
  sluice_tool_form form;
  const char *mark;        /* before every tag; "" for none */
  const char *begin, *end; /* of a block of calls */
  const char *call_begin, *call_end;
} tool_syntax;

const tool_syntax *tool_syntax_of(sluice_tool_form form); /* NULL for SLUICE_TOOLS_NONE */

typedef struct tool_call {
  sluice_text name, arguments; /* the arguments are a JSON object */
} tool_call;

/* Parses a call from its opening tag to its closing one. `*out_why` says why it is none; then `*out_call` is of no use.
 * Free with tool_call_free in every case. `schemas`: as sluice_answer_options has them. */
SLUICE_MUST_USE sluice_status *tool_call_parse(const tool_syntax *syntax, const sluice_json_value *schemas,
                                               const char *text, size_t length, tool_call *out_call,
                                               const char **out_why);
void tool_call_free(tool_call *call);

#endif

/* What generate starts from: token ids, or text and the tokenizer that makes ids of it. */
#ifndef SLUICE_TOOLS_PROMPT_H
#define SLUICE_TOOLS_PROMPT_H

#include "sluice/tokenizer.h"

typedef struct tool_prompt {
  int32_t *ids; /* owned */
  uint32_t count;
} tool_prompt;
void tool_prompt_free(tool_prompt *prompt);

/* Appends a file to `text`; "-" is standard input. `what` names it in errors: "the prompt". */
SLUICE_MUST_USE sluice_status *tool_read_file(const char *path, const char *what, sluice_text *text);

/* Reads ids separated by spaces, commas or newlines; "-" is standard input. */
SLUICE_MUST_USE sluice_status *tool_prompt_ids(const char *path, tool_prompt *out_prompt);

/* Encodes a text, with what the tokenizer puts around one. `special`: added tokens written in it are tokens. */
SLUICE_MUST_USE sluice_status *tool_prompt_text(const sluice_tokenizer *tokenizer, const char *text, size_t length,
                                                bool special, tool_prompt *out_prompt);

/* Opens the tokenizer: `path` if given, else the one beside the weights. */
SLUICE_MUST_USE sluice_status *tool_tokenizer_open(const char *path, const char *weights,
                                                   sluice_tokenizer **out_tokenizer);

#endif

/* The tokens of a prompt and of what was generated so far, as penalties want them. */
#ifndef SLUICE_TOOLS_SEEN_H
#define SLUICE_TOOLS_SEEN_H

#include "sluice/runtime.h"

typedef struct seen_tokens { /* zero: none, and nothing is kept */
  sluice_seen_token *list;   /* [count], in the order in which they were first seen */
  uint32_t count;
  uint32_t *places; /* [vocabulary]: of a token in `list`, plus one; 0: not there */
} seen_tokens;

/* `vocabulary` ids from 0 on. */
SLUICE_MUST_USE sluice_status *seen_tokens_create(uint32_t vocabulary, seen_tokens *out_seen);
/* Adds a token, one of the prompt or a new one. */
void seen_tokens_add(seen_tokens *seen, int32_t token, bool generated);
void seen_tokens_free(seen_tokens *seen);

#endif

/* Added tokens: strings that are one token wherever they stand in a text, found before anything else looks at it. Two
 * tries hold them, one for those looked for in the text as it is, one for those looked for after normalisation.
 */
#ifndef SLUICE_TEXT_ADDED_TOKENS_H
#define SLUICE_TEXT_ADDED_TOKENS_H

#include "sluice/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ADDED_TOKEN_MAX_BYTES 1024 /* so that looking for them is linear in the text */

typedef struct added_token {
  char *content; /* terminated, and may hold NUL bytes */
  size_t length;
  int32_t id;
  bool special;
  bool normalized;              /* looked for after normalisation */
  bool strip_left, strip_right; /* white space beside it belongs to it */
} added_token;

typedef struct added_trie {
  struct added_node *nodes; /* [count]; node 0 is the root */
  size_t count, capacity;
  bool starts[256]; /* bytes that some token begins with */
} added_trie;

typedef struct added_tokens {
  added_token *tokens; /* [count], ascending by id once finished */
  size_t count, capacity;
  added_trie raw, normalized;
} added_tokens;

/* Adds a token whose content is copied: 1 .. ADDED_TOKEN_MAX_BYTES bytes. */
SLUICE_MUST_USE sluice_status *added_tokens_add(added_tokens *added, const added_token *token);
/* Builds the tries, with the NFC of the tokens looked for after normalisation when `nfc`. Refuses two tokens of one id
 * or of one content. */
SLUICE_MUST_USE sluice_status *added_tokens_finish(added_tokens *added, bool nfc);
void added_tokens_free(added_tokens *added);

/* NULL when the id is no added token. */
const added_token *added_tokens_of_id(const added_tokens *added, int32_t id);

/* The longest token that starts at `at`, NULL when none does. */
const added_token *added_trie_longest(const added_tokens *added, const added_trie *trie, const char *text,
                                      size_t length, size_t at);

#endif

/* The tokens of a byte-level BPE model as bytes, and its merges.
 *
 *   bytes -> id      hash table with open addressing, twice as large whenever it is half full
 *   (left, right) -> rank, id of the merged token      the same, sized once
 */
#ifndef SLUICE_TEXT_VOCABULARY_H
#define SLUICE_TEXT_VOCABULARY_H

#include "sluice/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VOCABULARY_MAX_ID ((int32_t)1 << 22) /* one past the largest id allowed */

typedef struct vocabulary_token {
  uint32_t start;  /* in `bytes` */
  uint32_t length; /* VOCABULARY_ABSENT: no such token */
} vocabulary_token;
#define VOCABULARY_ABSENT UINT32_MAX

typedef struct vocabulary_slot {
  uint32_t hash; /* of the token's bytes */
  int32_t id;    /* -1: free */
} vocabulary_slot;

typedef struct vocabulary_pair {
  int32_t left, right; /* left -1: free */
  uint32_t rank;
  int32_t id;
} vocabulary_pair;

typedef struct vocabulary {
  char *bytes; /* of all tokens, one after the other */
  size_t byte_count, byte_capacity;
  vocabulary_token *tokens; /* [capacity] */
  int32_t size, capacity;   /* size: one more than the largest id */
  vocabulary_slot *slots;   /* [slot_mask + 1], at most half of them taken */
  size_t slot_mask, found_count;
  vocabulary_pair *pairs; /* [pair_mask + 1] */
  size_t pair_mask;
  int32_t byte_ids[256]; /* the tokens of single bytes, -1: none */
} vocabulary;

/* An empty vocabulary, with room for about `tokens` tokens to begin with; a zeroed one can only be freed. NULL or out
 * of memory. */
SLUICE_MUST_USE sluice_status *vocabulary_begin(vocabulary *v, size_t tokens);
void vocabulary_free(vocabulary *v);

/* Whether an id, which may be any, has a token. */
bool vocabulary_has(const vocabulary *v, int32_t id);
/* Sets the token of an id below VOCABULARY_MAX_ID. `find`: pieces of text may become it by their bytes, of which there
 * must not be a second such token. */
SLUICE_MUST_USE sluice_status *vocabulary_set(vocabulary *v, int32_t id, const char *bytes, size_t length, bool find);

/* The id of a token with these bytes, -1: none. */
int32_t vocabulary_find(const vocabulary *v, const char *bytes, size_t length);
/* The same for many, whose waits for memory overlap: tables and bytes do not fit the caches. At most
 * VOCABULARY_MOST_KEYS at a time. */
typedef struct vocabulary_key {
  const char *bytes;
  size_t length;
} vocabulary_key;
#define VOCABULARY_MOST_KEYS 64
void vocabulary_find_many(const vocabulary *v, const vocabulary_key *keys, size_t count, int32_t *ids);
/* ids[i]: the same for the first i + 1 bytes. */
void vocabulary_find_beginnings(const vocabulary *v, const char *bytes, size_t length, int32_t *ids);
/* The same for the bytes of one token followed by those of another. `guess` and the id behind it are looked at first.
 */
int32_t vocabulary_find_joined(const vocabulary *v, int32_t left, int32_t right, int32_t guess);

/* Sets the merges; of one pair the last one counts. */
SLUICE_MUST_USE sluice_status *vocabulary_set_pairs(vocabulary *v, const vocabulary_pair *pairs, size_t count);
/* NULL when the two do not merge. */
const vocabulary_pair *vocabulary_merge(const vocabulary *v, int32_t left, int32_t right);

#endif

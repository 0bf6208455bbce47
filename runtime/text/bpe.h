/* Byte-pair encoding of one piece of text. */
#ifndef SLUICE_TEXT_BPE_H
#define SLUICE_TEXT_BPE_H

#include "runtime/text/vocabulary.h"

typedef struct bpe_scratch {
  struct bpe_symbol *symbols; /* [capacity] */
  struct bpe_candidate *heap; /* [3 * capacity] */
  size_t capacity;
  /* What is known of each token of the vocabulary: whether the merges make it of its own bytes. */
  unsigned char *whole; /* [vocabulary.size] */
} bpe_scratch;

SLUICE_MUST_USE sluice_status *bpe_scratch_create(const vocabulary *v, bpe_scratch *scratch);
void bpe_scratch_free(bpe_scratch *scratch);

/* Writes the ids of `piece` (`length` bytes, 1 .. 2^31 - 1) to `ids`, which has room for `length` of them.
 * `ignore_merges`: a piece that is a token is that token. */
SLUICE_MUST_USE sluice_status *bpe_encode(const vocabulary *v, bool ignore_merges, bpe_scratch *scratch,
                                          const char *piece, size_t length, int32_t *ids, size_t *out_count);

#endif

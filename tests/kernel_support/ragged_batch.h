/* A ragged batch as the runtime prepares it (sluice/plan.h, enum sluice_input), with random page orders, and a paged
 * cache for it.
 *
 * Everything that no token has written is NaN, and the byte after the last page is not readable.
 */
#ifndef TESTS_RAGGED_BATCH_H
#define TESTS_RAGGED_BATCH_H

#include "kernel_support/kernel_harness.h"

/* A sequence of the batch: tokens that are in the cache already, and tokens of this step. */
typedef struct batch_sequence {
  int64_t past, tokens;
} batch_sequence;

typedef struct ragged_batch {
  int64_t sequence_count, tokens, tiles, page, stride, pool_pages;
  const batch_sequence *sequences;
  int32_t *position, *sequence, *page_table, *tile; /* SLUICE_INPUT_POSITIONS, SEQUENCE, PAGE_TABLE, TILES */
  int32_t sizes[SLUICE_SIZE_COUNT];
} ragged_batch;

/* `sequences` must outlive the batch. Tiles have at most `query_tile` tokens; some are cut short at random. */
ragged_batch *batch_create(random_state *random, const batch_sequence *sequences, int64_t count, int64_t page,
                           int64_t query_tile);
void batch_free(ragged_batch *batch);

/* Parts of a cache page; see docs/ir.md. */
typedef struct paged_cache {
  sluice_dtype dtype;
  int64_t page, kv_heads, head_dim, index_dim;
  int64_t page_bytes, value_offset, index_offset;
  unsigned char *data;
  size_t bytes; /* of the whole pool */
  unsigned char *mapping;
  size_t mapping_bytes;
} paged_cache;

/* index_dim 0: no index keys. */
paged_cache *cache_create(const ragged_batch *batch, sluice_dtype dtype, int64_t kv_heads, int64_t head_dim,
                          int64_t index_dim);
void cache_free(paged_cache *cache);

/* The place of one element of token `position` of a sequence: a pointer to it. */
void *cache_key(const paged_cache *cache, const ragged_batch *batch, int64_t sequence, int64_t position, int64_t head,
                int64_t d);
void *cache_value(const paged_cache *cache, const ragged_batch *batch, int64_t sequence, int64_t position, int64_t head,
                  int64_t d);
void *cache_index_key(const paged_cache *cache, const ragged_batch *batch, int64_t sequence, int64_t position,
                      int64_t d);

/* Fills keys, values and index keys of all tokens, past and new, with normal numbers times `scale`; with `whole` they
 * are whole numbers, so that dot products are exact. */
void cache_fill(paged_cache *cache, const ragged_batch *batch, random_state *random, double scale, bool whole);

#endif

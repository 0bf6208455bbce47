#include "kernel_support/ragged_batch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

static int32_t *integers(int64_t count) {
  int32_t *result = malloc((size_t)(count + 1) * sizeof *result);
  assert_non_null(result);
  return result;
}

ragged_batch *batch_create(random_state *random, const batch_sequence *sequences, int64_t count, int64_t page,
                           int64_t query_tile) {
  ragged_batch *b = calloc(1, sizeof *b);
  assert_non_null(b);
  b->sequences = sequences;
  b->sequence_count = count;
  b->page = page;
  int64_t used_pages = 0, longest = 0;
  for (int64_t s = 0; s < count; ++s) {
    int64_t pages = round_up(sequences[s].past + sequences[s].tokens, page) / page;
    b->tokens += sequences[s].tokens;
    used_pages += pages;
    if (pages > longest) longest = pages;
  }
  b->stride = longest + random_between(random, 0, 3);
  b->pool_pages = used_pages + random_between(random, 0, 2);
  b->position = integers(b->tokens);
  b->sequence = integers(b->tokens);
  b->page_table = integers(count * b->stride);
  b->tile = integers(b->tokens * 4);
  int32_t *order = integers(b->pool_pages);
  for (int64_t i = 0; i < b->pool_pages; ++i) order[i] = (int32_t)i;
  for (int64_t i = b->pool_pages - 1; i > 0; --i) {
    int64_t j = random_between(random, 0, i);
    int32_t other = order[i];
    order[i] = order[j];
    order[j] = other;
  }
  int64_t token = 0, next_page = 0, longest_tile = 0;
  for (int64_t s = 0; s < count; ++s) {
    int64_t end = sequences[s].past + sequences[s].tokens;
    for (int64_t p = 0; p < b->stride; ++p) b->page_table[s * b->stride + p] = p * page < end ? order[next_page++] : -1;
    for (int64_t i = 0; i < sequences[s].tokens;) {
      int64_t length = sequences[s].tokens - i;
      if (length > query_tile) length = query_tile;
      if (random_between(random, 0, 3) == 0) length = random_between(random, 1, length);
      int32_t *tile = b->tile + 4 * b->tiles++;
      tile[0] = (int32_t)(token + i);
      tile[1] = (int32_t)length;
      tile[2] = (int32_t)s;
      tile[3] = (int32_t)(sequences[s].past + i);
      if (length > longest_tile) longest_tile = length;
      i += length;
    }
    for (int64_t i = 0; i < sequences[s].tokens; ++i, ++token) {
      b->position[token] = (int32_t)(sequences[s].past + i);
      b->sequence[token] = (int32_t)s;
    }
  }
  free(order);
  b->sizes[SLUICE_SIZE_ONE] = 1;
  b->sizes[SLUICE_SIZE_TOKENS] = (int32_t)b->tokens;
  b->sizes[SLUICE_SIZE_SEQUENCES] = (int32_t)count;
  b->sizes[SLUICE_SIZE_TILES] = (int32_t)b->tiles;
  b->sizes[SLUICE_SIZE_PAGE_STRIDE] = (int32_t)b->stride;
  b->sizes[SLUICE_SIZE_CONTEXT] = (int32_t)(longest * page);
  b->sizes[SLUICE_SIZE_PAGES] = (int32_t)longest;
  b->sizes[SLUICE_SIZE_CACHE_PAGES] = (int32_t)b->pool_pages;
  b->sizes[SLUICE_SIZE_LONGEST] = (int32_t)longest_tile;
  return b;
}

void batch_free(ragged_batch *b) {
  free(b->position);
  free(b->sequence);
  free(b->page_table);
  free(b->tile);
  free(b);
}

paged_cache *cache_create(const ragged_batch *batch, sluice_dtype dtype, int64_t kv_heads, int64_t head_dim,
                          int64_t index_dim) {
  paged_cache *c = calloc(1, sizeof *c);
  assert_non_null(c);
  int64_t size = (int64_t)sluice_dtype_size(dtype), part = kv_heads * head_dim * batch->page * size;
  *c = (paged_cache){
      .dtype = dtype, .page = batch->page, .kv_heads = kv_heads, .head_dim = head_dim, .index_dim = index_dim};
  c->value_offset = round_up(part, 64);
  c->index_offset = round_up(c->value_offset + part, 64);
  int64_t used = index_dim ? c->index_offset + index_dim * batch->page * size : c->value_offset + part;
  c->page_bytes = round_up(used, 64);
  int64_t bytes = (batch->pool_pages - 1) * c->page_bytes + used, protection = sysconf(_SC_PAGESIZE);
  c->mapping_bytes = (size_t)(round_up(bytes, protection) + protection);
  c->mapping = mmap(NULL, c->mapping_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  assert_true(c->mapping != MAP_FAILED);
  size_t writable = c->mapping_bytes - (size_t)protection;
  memset(c->mapping, 0xff, writable);
  assert_int_equal(mprotect(c->mapping + writable, (size_t)protection, PROT_NONE), 0);
  c->data = c->mapping + writable - bytes;
  c->bytes = (size_t)bytes;
  return c;
}

void cache_free(paged_cache *c) {
  munmap(c->mapping, c->mapping_bytes);
  free(c);
}

static void *place(const paged_cache *c, const ragged_batch *batch, int64_t sequence, int64_t position, int64_t offset,
                   int64_t element) {
  int64_t page = batch->page_table[sequence * batch->stride + position / c->page];
  return c->data + page * c->page_bytes + offset + element * (int64_t)sluice_dtype_size(c->dtype);
}

void *cache_key(const paged_cache *c, const ragged_batch *batch, int64_t sequence, int64_t position, int64_t head,
                int64_t d) {
  return place(c, batch, sequence, position, 0, (head * c->head_dim + d) * c->page + position % c->page);
}

void *cache_value(const paged_cache *c, const ragged_batch *batch, int64_t sequence, int64_t position, int64_t head,
                  int64_t d) {
  return place(c, batch, sequence, position, c->value_offset, (head * c->page + position % c->page) * c->head_dim + d);
}

void *cache_index_key(const paged_cache *c, const ragged_batch *batch, int64_t sequence, int64_t position, int64_t d) {
  return place(c, batch, sequence, position, c->index_offset, d * c->page + position % c->page);
}

void cache_fill(paged_cache *c, const ragged_batch *batch, random_state *random, double scale, bool whole) {
#define NUMBER() (whole ? rint((double)random_normal(random) * scale) : (double)random_normal(random) * scale)
  for (int64_t s = 0; s < batch->sequence_count; ++s)
    for (int64_t j = 0; j < batch->sequences[s].past + batch->sequences[s].tokens; ++j) {
      for (int64_t h = 0; h < c->kv_heads; ++h)
        for (int64_t d = 0; d < c->head_dim; ++d) {
          element_put(cache_key(c, batch, s, j, h, d), c->dtype, 0, NUMBER());
          element_put(cache_value(c, batch, s, j, h, d), c->dtype, 0, NUMBER());
        }
      for (int64_t d = 0; d < c->index_dim; ++d) element_put(cache_index_key(c, batch, s, j, d), c->dtype, 0, NUMBER());
    }
#undef NUMBER
}

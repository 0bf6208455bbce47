/* attention, block_attention and select_attention against plain loops in double. */
#include "kernel_support/ragged_batch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST_CONTEXT = 1 << 14 };

typedef struct shape {
  int64_t heads, kv_heads, head_dim, page, query_tile, index_dim, k, init, local;
  const char *dtype;
} shape;

static sluice_dtype shape_dtype(const shape *s) {
  return strcmp(s->dtype, "f32") == 0 ? SLUICE_F32 : SLUICE_BF16;
}

static double shape_scale(const shape *s) {
  return 1 / sqrt((double)s->head_dim);
}

/* The offsets of cache_create. */
static void offsets(const shape *s, int64_t index_dim, int64_t *page_bytes, int64_t *value_offset,
                    int64_t *index_offset) {
  batch_sequence one = {0, 1};
  random_state random = {1};
  ragged_batch *batch = batch_create(&random, &one, 1, s->page, s->query_tile);
  paged_cache *cache = cache_create(batch, shape_dtype(s), s->kv_heads, s->head_dim, index_dim);
  *page_bytes = cache->page_bytes;
  *value_offset = cache->value_offset;
  *index_offset = cache->index_offset;
  cache_free(cache);
  batch_free(batch);
}

enum { MAX_PAGES = 512 };

static int add_kernel(kernel_harness *h, const char *family, uint32_t arguments, const shape *s) {
  int64_t page_bytes, value_offset, index_offset;
  offsets(s, s->index_dim, &page_bytes, &value_offset, &index_offset);
  return harness_add(h, family, arguments, "i:heads", s->heads, "i:kv_heads", s->kv_heads, "i:head_dim", s->head_dim,
                     "f:scale", shape_scale(s), "i:page", s->page, "i:page_bytes", page_bytes, "s:transposed", "keys",
                     "i:value_offset", value_offset, "s:dtype", s->dtype, "i:query_tile", s->query_tile, "i:k", s->k,
                     "i:init", s->init, "i:local", s->local, "i:index_dim", s->index_dim, "i:index_offset",
                     index_offset, "i:max_pages", (int64_t)MAX_PAGES, NULL);
}

/* Output of one head of one token over the keys that `list` (k ids, NULL: all blocks) allows. */
static void reference_head(const shape *s, const ragged_batch *batch, const paged_cache *cache, const void *q,
                           int64_t token, int64_t head, const int32_t *list, double *out, double *magnitude) {
  static double weight[MOST_CONTEXT];
  int64_t position = batch->position[token], sequence = batch->sequence[token];
  int64_t kv = head / (s->heads / s->kv_heads);
  double highest = -INFINITY, sum = 0;
  for (int64_t j = 0; j <= position; ++j) {
    bool allowed = !list;
    for (int64_t i = 0; list && i < s->k; ++i) allowed |= list[i] == j / s->page;
    weight[j] = -INFINITY;
    if (!allowed) continue;
    double dot = 0;
    for (int64_t d = 0; d < s->head_dim; ++d)
      dot += element_at(q, cache->dtype, (size_t)((token * s->heads + head) * s->head_dim + d)) *
             element_at(cache_key(cache, batch, sequence, j, kv, d), cache->dtype, 0);
    weight[j] = dot * shape_scale(s);
    highest = fmax(highest, weight[j]);
  }
  for (int64_t d = 0; d < s->head_dim; ++d) out[d] = magnitude[d] = 0;
  for (int64_t j = 0; j <= position; ++j) {
    double p = exp(weight[j] - highest);
    if (weight[j] == -INFINITY) continue;
    sum += p;
    for (int64_t d = 0; d < s->head_dim; ++d) {
      double value = p * element_at(cache_value(cache, batch, sequence, j, kv, d), cache->dtype, 0);
      out[d] += value;
      magnitude[d] += fabs(value);
    }
  }
  for (int64_t d = 0; d < s->head_dim; ++d) {
    out[d] = sum > 0 ? out[d] / sum : 0;
    magnitude[d] = sum > 0 ? magnitude[d] / sum : 0;
  }
}

static void check_output(const shape *s, const ragged_batch *batch, const paged_cache *cache, const void *q,
                         const void *out, const int32_t *blocks, const char *what) {
  double expected[256], magnitude[256];
  /* With bfloat16 a target may round the weights of the keys, each by half a unit in the last place. */
  double rounding = cache->dtype == SLUICE_BF16 ? 1.0 / 256 : 0;
  for (int64_t t = 0; t < batch->tokens; ++t)
    for (int64_t h = 0; h < s->heads; ++h) {
      int64_t kv = h / (s->heads / s->kv_heads);
      reference_head(s, batch, cache, q, t, h, blocks ? blocks + (t * s->kv_heads + kv) * s->k : NULL, expected,
                     magnitude);
      for (int64_t d = 0; d < s->head_dim; ++d)
        expect_close(out, cache->dtype, (size_t)((t * s->heads + h) * s->head_dim + d), expected[d],
                     2e-5 + rounding * magnitude[d], 1e-5, what);
    }
}

/* A random ascending list of distinct visible blocks for each token and kv head; neighbours often share blocks. */
static int32_t *random_lists(random_state *random, const shape *s, const ragged_batch *batch) {
  int32_t *lists = malloc((size_t)(batch->tokens * s->kv_heads * s->k) * sizeof *lists);
  assert_non_null(lists);
  for (int64_t t = 0; t < batch->tokens; ++t)
    for (int64_t g = 0; g < s->kv_heads; ++g) {
      int32_t *list = lists + (t * s->kv_heads + g) * s->k;
      int64_t seen = batch->position[t] / s->page + 1, count = 0;
      int64_t wanted = random_between(random, 0, seen < s->k ? seen : s->k);
      if (random_between(random, 0, 9)) wanted = seen < s->k ? seen : s->k;
      for (int64_t b = 0; b < seen && count < wanted; ++b)
        if (seen - b <= wanted - count || random_between(random, 0, seen - 1) < wanted) list[count++] = (int32_t)b;
      while (count < s->k) list[count++] = -1;
    }
  return lists;
}

static void run_shape(const char *target, const shape *s, const batch_sequence *sequences, int64_t count,
                      uint64_t seed) {
  random_state random = {seed};
  kernel_harness *h = harness_create(target);
  int dense = add_kernel(h, "attention", 5, s), sparse = add_kernel(h, "block_attention", 6, s);
  int fused = add_kernel(h, "select_attention", 7, s);
  int64_t page_bytes, value_offset, index_offset;
  offsets(s, s->index_dim, &page_bytes, &value_offset, &index_offset);
  int select = harness_add(h, "index_select", 5, "i:heads", s->kv_heads, "i:dim", s->index_dim, "i:k", s->k, "i:init",
                           s->init, "i:local", s->local, "i:page", s->page, "i:page_bytes", page_bytes, "s:transposed",
                           "keys", "i:index_offset", index_offset, "s:dtype", s->dtype, "i:query_tile", s->query_tile,
                           "i:max_pages", (int64_t)MAX_PAGES, NULL);
  harness_compile(h);
  sluice_dtype dtype = shape_dtype(s);
  ragged_batch *batch = batch_create(&random, sequences, count, s->page, s->query_tile);
  paged_cache *cache = cache_create(batch, dtype, s->kv_heads, s->head_dim, s->index_dim);
  assert_int_equal(cache->page_bytes, page_bytes);
  cache_fill(cache, batch, &random, 1.0, false);
  size_t elements = (size_t)(batch->tokens * s->heads * s->head_dim);
  size_t list_elements = (size_t)(batch->tokens * s->kv_heads * s->k);
  void *q = random_elements(&random, dtype, elements, 2.0);
  void *iq = random_elements(&random, dtype, (size_t)(batch->tokens * s->kv_heads * s->index_dim), 1.0);
  void *out = poisoned_elements(dtype, elements);
  void *tile = batch->tile, *table = batch->page_table;

  harness_run(h, dense, (void *[]){q, tile, table, cache->data, out}, batch->sizes, batch->tiles, s->kv_heads);
  check_output(s, batch, cache, q, out, NULL, "attention");

  int32_t *lists = random_lists(&random, s, batch);
  memset(out, 0xff, elements * sluice_dtype_size(dtype));
  harness_run(h, sparse, (void *[]){q, lists, tile, table, cache->data, out}, batch->sizes, batch->tiles, s->kv_heads);
  check_output(s, batch, cache, q, out, lists, "block_attention");

  int32_t *selected = poisoned_elements(SLUICE_F32, list_elements),
          *chosen = poisoned_elements(SLUICE_F32, list_elements);
  memset(out, 0xff, elements * sluice_dtype_size(dtype));
  harness_run(h, fused, (void *[]){q, iq, tile, table, cache->data, out, selected}, batch->sizes, batch->tiles,
              s->kv_heads);
  harness_run(h, select, (void *[]){iq, tile, table, cache->data, chosen}, batch->sizes, batch->tiles, s->kv_heads);
  assert_memory_equal(selected, chosen, list_elements * sizeof *selected);
  check_output(s, batch, cache, q, out, selected, "select_attention");

  free(selected);
  free(chosen);
  free(lists);
  free(q);
  free(iq);
  free(out);
  cache_free(cache);
  batch_free(batch);
  harness_free(h);
}

static const char *best_target(void) {
  const char *const *targets = harness_targets();
  while (targets[1]) targets++;
  return *targets;
}

static void shapes(void **state) {
  (void)state;
  static const shape list[] = {
      {4, 2, 64, 16, 16, 64, 4, 0, 1, "f32"},    {4, 2, 64, 16, 16, 64, 4, 0, 1, "bf16"},
      {8, 4, 128, 128, 16, 128, 4, 0, 1, "f32"}, {16, 1, 128, 128, 16, 128, 3, 1, 1, "bf16"},
      {4, 2, 32, 8, 7, 16, 4, 0, 1, "f32"},      {3, 3, 2, 20, 4, 2, 2, 0, 2, "f32"},
      {6, 2, 18, 24, 5, 10, 3, 1, 1, "bf16"},    {32, 1, 256, 17, 16, 30, 2, 0, 1, "f32"},
      {40, 1, 34, 32, 3, 32, 5, 0, 1, "f32"},    {2, 1, 96, 100, 1, 48, 16, 2, 1, "bf16"},
  };
  static const batch_sequence sequences[] = {{0, 1}, {0, 41}, {15, 1}, {16, 1}, {127, 3}, {300, 1}, {200, 35}, {1, 2}};
  for (size_t i = 0; i < sizeof list / sizeof *list; ++i) run_shape(best_target(), &list[i], sequences, 8, 100 + i);
}

static void levels(void **state) {
  (void)state;
  static const batch_sequence sequences[] = {{0, 33}, {77, 1}, {90, 5}};
  for (const char *const *target = harness_targets(); *target; ++target) {
    run_shape(*target, &(shape){4, 2, 32, 16, 16, 32, 3, 0, 1, "f32"}, sequences, 3, 7);
    run_shape(*target, &(shape){4, 2, 22, 12, 5, 18, 3, 0, 1, "bf16"}, sequences, 3, 8);
  }
}

/* Prefill in one step, in chunks, and token by token give the same bytes; dense and "all blocks selected" too. */
static void chunking(void **state) {
  (void)state;
  shape s = {4, 2, 64, 16, 16, 64, 8, 0, 1, "bf16"};
  enum { LENGTH = 100 };
  random_state random = {5};
  kernel_harness *h = harness_create(best_target());
  int dense = add_kernel(h, "attention", 5, &s), fused = add_kernel(h, "select_attention", 7, &s);
  harness_compile(h);
  size_t width = (size_t)(s.heads * s.head_dim), index_width = (size_t)(s.kv_heads * s.index_dim);
  uint16_t *q = random_elements(&random, SLUICE_BF16, LENGTH * width, 1.0);
  uint16_t *iq = random_elements(&random, SLUICE_BF16, LENGTH * index_width, 1.0);
  uint16_t *outputs[3][2];
  static const int64_t steps[3] = {LENGTH, 13, 1};
  for (int way = 0; way < 3; ++way) {
    for (int kind = 0; kind < 2; ++kind) outputs[way][kind] = poisoned_elements(SLUICE_BF16, LENGTH * width);
    for (int64_t at = 0; at < LENGTH; at += steps[way]) {
      batch_sequence one = {at, at + steps[way] < LENGTH ? steps[way] : LENGTH - at};
      random_state order = {(uint64_t)at};
      ragged_batch *batch = batch_create(&order, &one, 1, s.page, s.query_tile);
      paged_cache *cache = cache_create(batch, SLUICE_BF16, s.kv_heads, s.head_dim, s.index_dim);
      random_state same = {99};
      cache_fill(cache, batch, &same, 1.0, false);
      int32_t *blocks = poisoned_elements(SLUICE_F32, (size_t)(one.tokens * s.kv_heads * s.k));
      uint16_t *rows = q + (size_t)at * width, *index_rows = iq + (size_t)at * index_width;
      harness_run(h, dense,
                  (void *[]){rows, batch->tile, batch->page_table, cache->data, outputs[way][0] + (size_t)at * width},
                  batch->sizes, batch->tiles, s.kv_heads);
      harness_run(h, fused,
                  (void *[]){rows, index_rows, batch->tile, batch->page_table, cache->data,
                             outputs[way][1] + (size_t)at * width, blocks},
                  batch->sizes, batch->tiles, s.kv_heads);
      free(blocks);
      cache_free(cache);
      batch_free(batch);
    }
    for (int kind = 0; kind < 2; ++kind) assert_memory_equal(outputs[way][kind], outputs[0][0], LENGTH * width * 2);
  }
  for (int way = 0; way < 3; ++way)
    for (int kind = 0; kind < 2; ++kind) free(outputs[way][kind]);
  free(q);
  free(iq);
  harness_free(h);
}

/* Keys whose first element alone is not 0, so that many have exactly the same score. */
static void score_by_first_element(const shape *s, double query_even, double query_odd, double key_even,
                                   double key_odd) {
  enum { LENGTH = 60, DIM = 16, HEADS = 2 };
  batch_sequence one = {0, LENGTH};
  random_state random = {3};
  kernel_harness *h = harness_create(best_target());
  int dense = add_kernel(h, "attention", 5, s), sparse = add_kernel(h, "block_attention", 6, s);
  harness_compile(h);
  ragged_batch *batch = batch_create(&random, &one, 1, s->page, s->query_tile);
  paged_cache *cache = cache_create(batch, SLUICE_F32, 1, DIM, DIM);
  cache_fill(cache, batch, &random, 1.0, false);
  for (int64_t j = 0; j < LENGTH; ++j) {
    element_put(cache_key(cache, batch, 0, j, 0, 0), SLUICE_F32, 0, j % 2 ? key_odd : key_even);
    for (int64_t d = 1; d < DIM; ++d) element_put(cache_key(cache, batch, 0, j, 0, d), SLUICE_F32, 0, 0);
  }
  const size_t rows = (size_t)LENGTH * HEADS;
  void *q = random_elements(&random, SLUICE_F32, rows * DIM, 1.0), *out = poisoned_elements(SLUICE_F32, rows * DIM);
  for (size_t i = 0; i < rows; ++i) element_put(q, SLUICE_F32, i * DIM, i % 3 ? query_odd : query_even);
  void *tile = batch->tile, *table = batch->page_table;
  harness_run(h, dense, (void *[]){q, tile, table, cache->data, out}, batch->sizes, batch->tiles, 1);
  check_output(s, batch, cache, q, out, NULL, "attention, large scores");
  int32_t *lists = random_lists(&random, s, batch);
  memset(out, 0xff, rows * DIM * sizeof(float));
  harness_run(h, sparse, (void *[]){q, lists, tile, table, cache->data, out}, batch->sizes, batch->tiles, 1);
  check_output(s, batch, cache, q, out, lists, "block_attention, large scores");
  free(lists);
  free(q);
  free(out);
  cache_free(cache);
  batch_free(batch);
  harness_free(h);
}

/* Large scores of either sign: the running maximum keeps the exponents in range. */
static void large_scores(void **state) {
  (void)state;
  const shape s = {2, 1, 16, 16, 4, 16, 2, 0, 1, "f32"};
  score_by_first_element(&s, 1e3, -1e3, -1e4, 1e4);
}

/* Rows of which every key scores far below 0: the best of them has all weight, as anywhere. */
static void scores_far_below_zero(void **state) {
  (void)state;
  const shape s = {2, 1, 16, 16, 4, 16, 2, 0, 1, "f32"};
  score_by_first_element(&s, 4e16, 4e16, -1e16, -1e16); /* -1e32 */
  score_by_first_element(&s, 4e18, 8e18, -1e19, -2e19); /* -1e37 to -4e37 */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(shapes),
      cmocka_unit_test(levels),
      cmocka_unit_test(chunking),
      cmocka_unit_test(large_scores),
      cmocka_unit_test(scores_far_below_zero),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

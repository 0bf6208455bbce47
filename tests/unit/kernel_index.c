/* index_score, block_max, block_score, topk_blocks and index_select against plain loops. */
#include "kernel_support/ragged_batch.h"
#include "kernel_support/selection.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct shape {
  int64_t heads, dim, page, query_tile, k, init, local;
  const char *dtype;
} shape;

static const char *best_target(void) {
  const char *const *targets = harness_targets();
  while (targets[1]) targets++;
  return *targets;
}

static int add_topk(kernel_harness *h, int64_t heads, int64_t k, int64_t init, int64_t recent, int64_t block) {
  return harness_add(h, "topk_blocks", 3, "i:heads", heads, "i:k", k, "i:init", init, "i:local", recent, "i:block",
                     block, NULL);
}

/* Runs topk_blocks for one token and one head that sees `visible` blocks of 8 tokens. */
static void run_topk(kernel_harness *h, int kernel, const float *scores, int64_t visible, int32_t *list) {
  int32_t position = (int32_t)(visible * 8 - 1), sizes[SLUICE_SIZE_COUNT] = {0};
  sizes[SLUICE_SIZE_TOKENS] = 1;
  sizes[SLUICE_SIZE_PAGES] = (int32_t)visible;
  harness_run(h, kernel, (void *[]){(void *)(uintptr_t)scores, &position, list}, sizes, 1, 1);
}

/* m3.md 10.2 (h): all scores 0. The expectations are written out, not computed. */
static void forced_blocks(void **state) {
  (void)state;
  static const struct {
    int64_t init, local, visible;
    int32_t first[2], second[2]; /* ranges [from, to) of the expected ids, one after the other */
  } cases[] = {
      {8, 12, 0, {0, 0}, {0, 0}},    {8, 12, 8, {0, 8}, {0, 0}},    {8, 12, 16, {0, 16}, {0, 0}},
      {8, 12, 20, {0, 8}, {8, 16}},  {8, 12, 21, {0, 8}, {9, 17}},  {8, 12, 64, {0, 8}, {52, 60}},
      {20, 0, 15, {0, 15}, {0, 0}},  {20, 0, 32, {0, 16}, {0, 0}},  {20, 0, 64, {0, 16}, {0, 0}},
      {0, 1, 17, {0, 15}, {16, 17}}, {0, 1, 64, {0, 15}, {63, 64}}, {0, 1, 1, {0, 1}, {0, 0}},
      {1, 1, 40, {0, 15}, {39, 40}},
  };
  enum { CASES = sizeof cases / sizeof *cases };
  kernel_harness *h = harness_create(best_target());
  int kernel[CASES];
  for (int i = 0; i < CASES; ++i) kernel[i] = add_topk(h, 1, 16, cases[i].init, cases[i].local, 8);
  harness_compile(h);
  float scores[64] = {0};
  for (int i = 0; i < CASES; ++i) {
    int32_t found[16], expected[16];
    int at = 0;
    for (int32_t b = cases[i].first[0]; b < cases[i].first[1]; ++b) expected[at++] = b;
    for (int32_t b = cases[i].second[0]; b < cases[i].second[1]; ++b) expected[at++] = b;
    while (at < 16) expected[at++] = -1;
    run_topk(h, kernel[i], scores, cases[i].visible, found);
    assert_memory_equal(found, expected, sizeof expected);
  }
  harness_free(h);
}

static void order_of_scores(void **state) {
  (void)state;
  kernel_harness *h = harness_create(best_target());
  int three = add_topk(h, 1, 3, 0, 0, 8), four = add_topk(h, 1, 4, 0, 1, 8);
  static const int64_t k[] = {1, 2, 5, 16};
  int random_kernel[4][2];
  for (int i = 0; i < 4; ++i) {
    random_kernel[i][0] = add_topk(h, 1, k[i], 0, 1, 8);
    random_kernel[i][1] = add_topk(h, 1, k[i], 2, 3, 8);
  }
  harness_compile(h);
  int32_t list[16];
  /* Both zeros are equal; NaN of either sign is below -inf. */
  run_topk(h, three, (float[]){-0.0f, -1.0f, 0.0f, -0.0f, 0.0f}, 5, list);
  assert_memory_equal(list, ((int32_t[]){0, 2, 3}), 12);
  run_topk(h, three, (float[]){NAN, -INFINITY, -NAN, -INFINITY, 1.0f}, 5, list);
  assert_memory_equal(list, ((int32_t[]){1, 3, 4}), 12);
  run_topk(h, three, (float[]){NAN, -INFINITY, -NAN, NAN, 1.0f}, 5, list);
  assert_memory_equal(list, ((int32_t[]){0, 1, 4}), 12);
  run_topk(h, three, (float[]){-2.0f, INFINITY, 3.0f, 1e-45f, -1e-45f, 2.0f}, 6, list);
  assert_memory_equal(list, ((int32_t[]){1, 2, 5}), 12);
  run_topk(h, four, (float[]){5, 4, 3, 2, 1, 0}, 6, list);
  assert_memory_equal(list, ((int32_t[]){0, 1, 2, 5}), 16);
  run_topk(h, four, (float[]){NAN, NAN}, 2, list);
  assert_memory_equal(list, ((int32_t[]){0, 1, -1, -1}), 16);
  random_state random = {11};
  for (int round = 0; round < 2000; ++round) {
    int64_t visible = random_between(&random, 1, 90);
    float scores[90];
    double wide[90];
    for (int64_t b = 0; b < visible; ++b) {
      scores[b] = (float)random_between(&random, -4, 4) * (round % 2 ? 1.0f : random_normal(&random));
      if (random_between(&random, 0, 19) == 0) scores[b] = NAN;
      wide[b] = (double)scores[b];
    }
    int which = round % 4, forced = round / 4 % 2;
    int32_t expected[16];
    reference_selection(wide, visible, k[which], forced ? 2 : 0, forced ? 3 : 1, expected);
    run_topk(h, random_kernel[which][forced], scores, visible, list);
    assert_memory_equal(list, expected, (size_t)k[which] * 4);
  }
  harness_free(h);
}

/* block_score against block_max, which has been checked: the blocks that the tile's last token sees but its last
 * `local`, and nothing at all for tiles without a choice. Scores that are not written stay the NaNs that they were. */
static void check_best_scores(const shape *s, const ragged_batch *batch, const float *expected, const float *found,
                              double tolerance) {
  int64_t pages = batch->sizes[SLUICE_SIZE_PAGES];
  for (int64_t i = 0; i < batch->tiles; ++i) {
    const int32_t *tile = batch->tile + 4 * i;
    int64_t seen = (tile[3] + tile[1] - 1) / s->page + 1;
    for (int64_t row = tile[0] * s->heads; row < (tile[0] + tile[1]) * s->heads; ++row)
      for (int64_t b = 0; b < pages; ++b) {
        size_t at = (size_t)(row * pages + b);
        if (seen <= s->k || b >= seen - s->local) {
          if (memcmp(&found[at], "\xff\xff\xff\xff", 4) != 0)
            fail_msg("block_score wrote block %lld of row %lld of a tile that sees %lld blocks, k is %lld, %lld local",
                     (long long)b, (long long)row, (long long)seen, (long long)s->k, (long long)s->local);
        } else if (isinf(expected[at])) {
          assert_true(isinf(found[at]) && found[at] < 0);
        } else {
          expect_close(found, SLUICE_F32, at, (double)expected[at], tolerance, 0, "block_score");
        }
      }
  }
}

/* Whole numbers: every dot product is exact, and ties are frequent. */
static void run_shape(const char *target, const shape *s, const batch_sequence *sequences, int64_t count, bool whole,
                      uint64_t seed) {
  random_state random = {seed};
  sluice_dtype dtype = strcmp(s->dtype, "f32") == 0 ? SLUICE_F32 : SLUICE_BF16;
  ragged_batch *batch = batch_create(&random, sequences, count, s->page, s->query_tile);
  paged_cache *cache = cache_create(batch, dtype, 1, 4, s->dim);
  cache_fill(cache, batch, &random, 1.5, whole);
  kernel_harness *h = harness_create(target);
  int score = harness_add(h, "index_score", 5, "i:heads", s->heads, "i:dim", s->dim, "i:page", s->page, "i:page_bytes",
                          cache->page_bytes, "s:transposed", "keys", "i:index_offset", cache->index_offset, "s:dtype",
                          s->dtype, NULL);
  int best = harness_add(h, "block_score", 5, "i:heads", s->heads, "i:dim", s->dim, "i:k", s->k, "i:local", s->local,
                         "i:page", s->page, "i:page_bytes", cache->page_bytes, "s:transposed", "keys", "i:index_offset",
                         cache->index_offset, "s:dtype", s->dtype, "i:query_tile", s->query_tile, "i:many", 0,
                         "i:cache_first", (int64_t)0, NULL);
  int maximum = harness_add(h, "block_max", 3, "i:heads", s->heads, "i:block", s->page, NULL);
  int topk = add_topk(h, s->heads, s->k, s->init, s->local, s->page);
  int select = harness_add(h, "index_select", 5, "i:heads", s->heads, "i:dim", s->dim, "i:k", s->k, "i:init", s->init,
                           "i:local", s->local, "i:page", s->page, "i:page_bytes", cache->page_bytes, "s:transposed",
                           "keys", "i:index_offset", cache->index_offset, "s:dtype", s->dtype, "i:query_tile",
                           s->query_tile, "i:max_pages", (int64_t)batch->sizes[SLUICE_SIZE_PAGES], NULL);
  harness_compile(h);
  int64_t context = batch->sizes[SLUICE_SIZE_CONTEXT], pages = batch->sizes[SLUICE_SIZE_PAGES];
  size_t rows = (size_t)(batch->tokens * s->heads);
  void *iq = random_elements(&random, dtype, rows * (size_t)s->dim, 1.5);
  for (size_t i = 0; whole && i < rows * (size_t)s->dim; ++i) element_put(iq, dtype, i, rint(element_at(iq, dtype, i)));
  float *scores = poisoned_elements(SLUICE_F32, rows * (size_t)context);
  float *block_scores = poisoned_elements(SLUICE_F32, rows * (size_t)pages);
  float *best_scores = poisoned_elements(SLUICE_F32, rows * (size_t)pages);
  int32_t *unfused = poisoned_elements(SLUICE_F32, rows * (size_t)s->k);
  int32_t *split = poisoned_elements(SLUICE_F32, rows * (size_t)s->k);
  int32_t *fused = poisoned_elements(SLUICE_F32, rows * (size_t)s->k);
  harness_run(h, score, (void *[]){iq, batch->tile, batch->page_table, cache->data, scores}, batch->sizes, batch->tiles,
              s->heads);
  harness_run(h, maximum, (void *[]){scores, batch->position, block_scores}, batch->sizes, batch->tokens, s->heads);
  harness_run(h, best, (void *[]){iq, batch->tile, batch->page_table, cache->data, best_scores}, batch->sizes,
              batch->tiles, s->heads);
  harness_run(h, topk, (void *[]){best_scores, batch->position, split}, batch->sizes, batch->tokens, s->heads);
  harness_run(h, topk, (void *[]){block_scores, batch->position, unfused}, batch->sizes, batch->tokens, s->heads);
  harness_run(h, select, (void *[]){iq, batch->tile, batch->page_table, cache->data, fused}, batch->sizes, batch->tiles,
              s->heads);
  double *expected = malloc((size_t)pages * sizeof *expected);
  int32_t *list = malloc((size_t)s->k * sizeof *list);
  assert_true(expected && list);
  for (int64_t t = 0; t < batch->tokens; ++t)
    for (int64_t head = 0; head < s->heads; ++head) {
      size_t row = (size_t)(t * s->heads + head);
      for (int64_t b = 0; b < pages; ++b) expected[b] = -INFINITY;
      for (int64_t j = 0; j < context; ++j) {
        if (j > batch->position[t]) {
          assert_true(isinf(scores[row * (size_t)context + (size_t)j]) &&
                      scores[row * (size_t)context + (size_t)j] < 0);
          continue;
        }
        double dot = 0;
        for (int64_t d = 0; d < s->dim; ++d)
          dot += element_at(iq, dtype, row * (size_t)s->dim + (size_t)d) *
                 element_at(cache_index_key(cache, batch, batch->sequence[t], j, d), dtype, 0);
        expect_close(scores, SLUICE_F32, row * (size_t)context + (size_t)j, dot, whole ? 0 : 1e-4, 0, "index_score");
        if (dot > expected[j / s->page]) expected[j / s->page] = dot;
      }
      for (int64_t b = 0; b < pages; ++b) {
        float found = block_scores[row * (size_t)pages + (size_t)b];
        if (isinf(expected[b]))
          assert_true(isinf(found) && found < 0);
        else
          expect_close(block_scores, SLUICE_F32, row * (size_t)pages + (size_t)b, expected[b], whole ? 0 : 1e-4, 0,
                       "block_max");
        if (!whole) expected[b] = (double)found; /* near ties are decided by the rounded scores */
      }
      reference_selection(expected, batch->position[t] / s->page + 1, s->k, s->init, s->local, list);
      assert_memory_equal(unfused + row * (size_t)s->k, list, (size_t)s->k * 4);
      assert_memory_equal(fused + row * (size_t)s->k, list, (size_t)s->k * 4);
      assert_memory_equal(split + row * (size_t)s->k, list, (size_t)s->k * 4);
    }
  check_best_scores(s, batch, block_scores, best_scores, whole ? 0 : 1e-4);
  free(expected);
  free(list);
  free(iq);
  free(scores);
  free(block_scores);
  free(best_scores);
  free(split);
  free(unfused);
  free(fused);
  cache_free(cache);
  batch_free(batch);
  harness_free(h);
}

static void shapes(void **state) {
  (void)state;
  static const shape list[] = {
      {2, 64, 16, 16, 4, 0, 1, "f32"},  {4, 128, 128, 16, 4, 0, 1, "bf16"}, {2, 16, 8, 16, 4, 0, 1, "f32"},
      {1, 2, 20, 5, 3, 1, 1, "f32"},    {3, 30, 24, 7, 5, 2, 2, "bf16"},    {2, 64, 100, 1, 1, 0, 1, "f32"},
      {1, 32, 17, 16, 16, 1, 1, "f32"}, {2, 34, 32, 33, 2, 3, 3, "bf16"},
  };
  static const batch_sequence sequences[] = {{0, 1}, {0, 50}, {15, 1}, {16, 2}, {127, 3}, {700, 1}, {400, 37}};
  for (size_t i = 0; i < sizeof list / sizeof *list; ++i)
    for (int whole = 0; whole < 2; ++whole) run_shape(best_target(), &list[i], sequences, 7, whole, 30 + i);
}

/* Contexts that end just before, at and behind the k-th block, in shapes of all kinds. */
static void random_shapes(void **state) {
  (void)state;
  random_state random = {77};
  for (uint64_t round = 0; round < 16; ++round) {
    const shape s = {.heads = random_between(&random, 1, 5),
                     .dim = 2 * random_between(&random, 1, 40),
                     .page = random_between(&random, 4, 130),
                     .query_tile = random_between(&random, 1, 33),
                     .k = random_between(&random, 1, 6),
                     .init = random_between(&random, 0, 2),
                     .local = random_between(&random, 0, 2),
                     .dtype = round % 2 ? "bf16" : "f32"};
    const int64_t edge = s.k * s.page;
    const batch_sequence sequences[] = {
        {edge - 1, 1}, {edge, 1}, {edge - 2, 4},
        {0, edge},     {0, 1},    {random_between(&random, 0, 2 * edge), random_between(&random, 1, 40)}};
    run_shape(best_target(), &s, sequences, 6, round / 2 % 2, 100 + round);
  }
}

static void levels(void **state) {
  (void)state;
  static const batch_sequence sequences[] = {{0, 33}, {177, 1}, {190, 5}};
  for (const char *const *target = harness_targets(); *target; ++target) {
    run_shape(*target, &(shape){2, 32, 16, 16, 3, 0, 1, "f32"}, sequences, 3, true, 7);
    run_shape(*target, &(shape){2, 22, 12, 5, 3, 1, 1, "bf16"}, sequences, 3, true, 8);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(forced_blocks), cmocka_unit_test(order_of_scores), cmocka_unit_test(shapes),
      cmocka_unit_test(random_shapes), cmocka_unit_test(levels),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

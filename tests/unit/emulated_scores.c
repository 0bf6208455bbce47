/* The family block_score of both AMD targets in bfloat16, machine code on the interpreter (tests/amdgcn), against plain
 * sums in double: ragged batches, random pages, keys that nobody wrote, shapes that have a kernel of the target's own
 * and shapes that do not, several orders of waves. Every access is checked against the operands' bounds. Then what the
 * kernel is built for: keys read once, matrix instructions for most of the loop, no bank conflicts, no spills. */
#include "amdgcn/gcn.h"
#include "kernel_support/kernel_harness.h"
#include "kernel_support/ragged_batch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct shape {
  int64_t heads, dim, page, query_tile, k, local;
} shape;

typedef struct operand {
  void *data;
  size_t bytes;
} operand;

enum { LINE = 128, INDEX_OFFSET = 128, OPERANDS = 6 };

static void must(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

static size_t page_bytes(const shape *s) {
  return INDEX_OFFSET + (size_t)(s->page * s->dim) * 2;
}

static unsigned char *key_of(const shape *s, const ragged_batch *batch, const operand *cache, int64_t sequence,
                             int64_t position) {
  const int32_t entry = batch->page_table[sequence * batch->stride + position / s->page];
  return (unsigned char *)cache->data + (size_t)entry * page_bytes(s) + INDEX_OFFSET +
         (size_t)(position % s->page * s->dim) * 2;
}

/* All bits set, a NaN, where no key is. Pages begin with a line of memory, as in a pool, where their length permits. */
static operand fill_cache(random_state *random, const shape *s, const ragged_batch *batch, bool whole) {
  const size_t bytes = (size_t)batch->pool_pages * page_bytes(s);
  operand cache = {aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE), bytes};
  assert_non_null(cache.data);
  memset(cache.data, 0xff, bytes);
  for (int64_t q = 0; q < batch->sequence_count; q++)
    for (int64_t j = 0; j < batch->sequences[q].past + batch->sequences[q].tokens; j++)
      for (int64_t d = 0; d < s->dim; d++) {
        const double value = (double)random_normal(random);
        element_put(key_of(s, batch, &cache, q, j), SLUICE_BF16, (size_t)d, whole ? rint(value) : value);
      }
  return cache;
}

/* What a token's choice reads: all blocks that it sees but the last `local`, where there are more than k. */
static void check_token(const shape *s, const ragged_batch *batch, const operand *iq, const operand *cache,
                        const float *found, int64_t token, int64_t head, double tolerance) {
  const int64_t position = batch->position[token], visible = position / s->page + 1;
  const size_t row = (size_t)(token * s->heads + head);
  for (int64_t b = 0; visible > s->k && b < visible - s->local; b++) {
    double best = -INFINITY;
    for (int64_t j = b * s->page; j < (b + 1) * s->page && j <= position; j++) {
      const unsigned char *key = key_of(s, batch, cache, batch->sequence[token], j);
      double dot = 0;
      for (int64_t d = 0; d < s->dim; d++)
        dot += element_at(iq->data, SLUICE_BF16, row * (size_t)s->dim + (size_t)d) *
               element_at(key, SLUICE_BF16, (size_t)d);
      best = fmax(best, dot);
    }
    expect_close(found, SLUICE_F32, row * (size_t)batch->sizes[SLUICE_SIZE_PAGES] + (size_t)b, best, tolerance, 0,
                 "block_score");
  }
}

typedef struct measured {
  gcn_counts counts;
  gcn_profile profile;
  uint64_t read_once; /* bytes that loads with the hint "nt" read */
} measured;

/* Runs the kernel over the batch and checks all scores. `out_measured` may be NULL. */
static void try_batch(const char *target, const shape *s, const batch_sequence *sequences, int64_t count, bool whole,
                      uint64_t seed, measured *out_measured) {
  random_state random = {seed};
  kernel_harness *h = harness_create(target);
  harness_add(h, "block_score", 5, "i:heads", s->heads, "i:dim", s->dim, "i:k", s->k, "i:local", s->local, "i:page",
              s->page, "i:page_bytes", (int64_t)page_bytes(s), "s:transposed", "values", "i:index_offset",
              (int64_t)INDEX_OFFSET, "s:dtype", "bf16", "i:query_tile", s->query_tile, "i:cache_first", (int64_t)0,
              "i:many", (int64_t)0, NULL);
  code_object code = {0};
  must(harness_code(h, &code));
  assert_int_equal(code.kernels[0].spill_bytes, 0);
  gcn_machine *machine = NULL;
  gcn_module *module = NULL;
  must(gcn_machine_create(strcmp(target, "hip:gfx950") == 0 ? GCN_GFX950 : GCN_GFX942, &machine));
  must(gcn_module_load(machine, code.data, code.length, &module));
  ragged_batch *batch = batch_create(&random, sequences, count, s->page, s->query_tile);
  if (count == 1) { /* whole tiles */
    batch->tiles = (batch->tokens + s->query_tile - 1) / s->query_tile;
    for (int64_t i = 0; i < batch->tiles; i++) {
      const int64_t first = i * s->query_tile, left = batch->tokens - first;
      batch->tile[4 * i] = (int32_t)first;
      batch->tile[4 * i + 1] = (int32_t)(left < s->query_tile ? left : s->query_tile);
      batch->tile[4 * i + 2] = 0;
      batch->tile[4 * i + 3] = (int32_t)(sequences[0].past + first);
    }
    batch->sizes[SLUICE_SIZE_TILES] = (int32_t)batch->tiles;
  }
  batch->sizes[SLUICE_SIZE_TOKENS_PAGES] = (int32_t)batch->tokens * batch->sizes[SLUICE_SIZE_PAGES];
  const size_t rows = (size_t)(batch->tokens * s->heads), pages = (size_t)batch->sizes[SLUICE_SIZE_PAGES];
  operand cache = fill_cache(&random, s, batch, whole);
  operand iq = {random_elements(&random, SLUICE_BF16, rows * (size_t)s->dim, 1.0), rows * (size_t)s->dim * 2};
  for (size_t i = 0; whole && i < rows * (size_t)s->dim; i++)
    element_put(iq.data, SLUICE_BF16, i, rint(element_at(iq.data, SLUICE_BF16, i)));
  operand out = {poisoned_elements(SLUICE_F32, rows * pages), rows * pages * sizeof(float)};
  const operand operands[OPERANDS] = {
      iq,
      {batch->tile, (size_t)batch->tiles * 4 * sizeof(int32_t)},
      {batch->page_table, (size_t)(batch->sequence_count * batch->stride) * sizeof(int32_t)},
      cache,
      out,
      {batch->sizes, SLUICE_SIZE_COUNT * sizeof(int32_t)}};
  uint64_t kernarg[OPERANDS];
  for (size_t i = 0; i < OPERANDS; i++) {
    must(gcn_register(machine, operands[i].data, operands[i].bytes));
    kernarg[i] = (uint64_t)(uintptr_t)operands[i].data;
  }
  const kernel_info *info = &code.kernels[0];
  gcn_launch_options options = {
      .grid = {(uint32_t)sluice_plan_grid(&info->grid[0], (uint64_t)batch->sizes[info->grid[0].size]),
               (uint32_t)sluice_plan_grid(&info->grid[1], (uint64_t)batch->sizes[info->grid[1].size]), 1},
      .workgroup = {info->lanes, 1, 1},
      .kernarg = kernarg,
      .kernarg_bytes = sizeof kernarg,
      .seed = seed % 4,
      .instruction_limit = 40000000, /* none takes a tenth of it */
      .counts = out_measured ? &out_measured->counts : NULL,
      .profile = out_measured ? &out_measured->profile : NULL};
  must(gcn_launch(gcn_kernel_at(module, 0), &options));
  for (size_t i = 0; out_measured && i < out_measured->profile.count; i++) {
    const gcn_profile_entry *e = &out_measured->profile.entries[i];
    if (strstr(e->text, "_load_") && strstr(e->text, " nt")) out_measured->read_once += e->global_bytes;
  }
  for (int64_t t = 0; t < batch->tokens; t++)
    for (int64_t head = 0; head < s->heads; head++)
      check_token(s, batch, &iq, &cache, out.data, t, head, whole ? 0 : 1e-4);
  free(iq.data);
  free(cache.data);
  free(out.data);
  batch_free(batch);
  gcn_machine_free(machine);
  code_object_free(&code);
  harness_free(h);
}

static const char *const targets[] = {"hip:gfx942", "hip:gfx950"};

/* Steps of single tokens, steps of many, and both at once; contexts that end before, at and behind a page's end. */
static void shapes(void **state) {
  (void)state;
  static const shape list[] = {
      {4, 128, 128, 4, 2, 1}, {1, 128, 128, 4, 1, 0}, {2, 64, 16, 4, 4, 1}, {3, 32, 48, 5, 2, 2},
      {8, 128, 64, 2, 3, 1},  {5, 64, 80, 7, 2, 1},   {9, 64, 16, 4, 2, 1}, {2, 40, 16, 4, 2, 1},
  };
  static const batch_sequence single[] = {{700, 1}, {0, 1}, {127, 1}, {128, 1}, {511, 1}, {95, 1}};
  static const batch_sequence many[] = {{0, 90}, {300, 1}, {383, 2}, {200, 70}, {127, 3}, {47, 1}};
  for (size_t t = 0; t < 2; t++)
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
      try_batch(targets[t], &list[i], single, 6, i % 2, 20 + i, NULL);
      try_batch(targets[t], &list[i], many, 6, i % 2, 50 + i, NULL);
    }
}

static void random_shapes(void **state) {
  (void)state;
  random_state random = {3};
  for (uint64_t round = 0; round < 12; round++) {
    const shape s = {.heads = random_between(&random, 1, 8),
                     .dim = (int64_t)32 << random_between(&random, 0, 2),
                     .page = 16 * random_between(&random, 1, 8),
                     .query_tile = random_between(&random, 1, 8),
                     .k = random_between(&random, 1, 4),
                     .local = random_between(&random, 0, 2)};
    const bool alone = round % 3 == 0;
    const int64_t most = alone ? 1 : 60, edge = s.k * s.page;
    const batch_sequence sequences[] = {{edge - 1, 1},
                                        {edge, 1},
                                        {random_between(&random, 0, 3 * edge), random_between(&random, 1, most)},
                                        {random_between(&random, 0, 300), random_between(&random, 1, most)}};
    try_batch(targets[round % 2], &s, sequences, 4, round / 2 % 2, 200 + round, NULL);
  }
}

/* Decoding reads each byte of the keys once, and little else. */
static void decode_reads_once(void **state) {
  (void)state;
  static const shape s = {4, 128, 128, 4, 1, 1};
  static const batch_sequence sequences[] = {{128 * 24 - 1, 1}, {128 * 16 - 1, 1}};
  for (size_t t = 0; t < 2; t++) {
    measured m = {0};
    try_batch(targets[t], &s, sequences, 2, false, 4, &m);
    const uint64_t keys = (23 + 15) * (uint64_t)(s.page * s.dim) * 2;
    printf("%s: keys %llu bytes, read once %llu, lines touched %llu; %llu vector instructions a page of 4 waves\n",
           targets[t], (unsigned long long)keys, (unsigned long long)m.read_once,
           (unsigned long long)m.counts.global_lines * LINE, (unsigned long long)(m.counts.vector / (4 * 38)));
    assert_int_equal(m.read_once, keys);
    assert_true(m.counts.global_lines * LINE * 100 <= keys * 110);
    assert_int_equal(m.counts.lds_conflicts, 0);
    gcn_profile_free(&m.profile);
  }
}

/* The steady loop, from its machine code as it ran: its instructions are those that run once a page in every wave. A
 * SIMD that has one wave needs the matrix instructions' cycles, as many of its other instructions' issue as do not fit
 * among them, and for each part the latencies of the barrier and of LDS. */
static void prefill_multiplies(void **state) {
  (void)state;
  enum { ISSUE = 4, OF_PART = 32 + 128, PAGES = 9 };
  static const shape s = {4, 128, 128, 4, 1, 1};
  static const batch_sequence sequences[] = {{128 * PAGES, 64}};
  for (size_t t = 0; t < 2; t++) {
    measured m = {0};
    try_batch(targets[t], &s, sequences, 1, false, 0, &m);
    uint64_t matrix = 0, matrix_count = 0, others = 0, lds = 0;
    for (size_t i = 0; i < m.profile.count; i++) {
      const gcn_profile_entry *e = &m.profile.entries[i];
      assert_int_equal(e->lds_conflicts, 0);
      if (e->executions != 4 * PAGES) continue;
      matrix += e->matrix_cycles;
      matrix_count += e->matrix_cycles > 0;
      others += e->matrix_cycles == 0;
      lds += e->lds_cycles / e->executions;
    }
    const uint64_t free_slots = matrix / ISSUE - matrix_count;
    const uint64_t parts = (uint64_t)s.page / 32, beside = others > free_slots ? (others - free_slots) * ISSUE : 0;
    const uint64_t all = matrix + beside + parts * OF_PART;
    printf("%s: a page %llu cycles, matrix %llu, %llu other instructions, LDS %llu cycles of four waves\n", targets[t],
           (unsigned long long)all, (unsigned long long)matrix, (unsigned long long)others,
           (unsigned long long)(4 * lds));
    assert_int_equal(matrix_count, (t ? 1 : 2) * 8 * 4 * 4);
    assert_true(4 * lds <= matrix);
    assert_true(matrix * 100 >= all * 70);
    gcn_profile_free(&m.profile);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(shapes), cmocka_unit_test(random_shapes),
                                     cmocka_unit_test(decode_reads_once), cmocka_unit_test(prefill_multiplies)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

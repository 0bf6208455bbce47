/* Attention of both AMD targets, machine code on the interpreter (tests/amdgcn), against plain sums in double: families
 * attention and block_attention with shapes that have a kernel of the target's own and shapes that do not, and
 * attention_part and topk_attention_part with attention_merge, whose workgroups share the keys. Ragged batches, random
 * pages and lists, slots that nobody wrote, several orders of waves. Every access is checked against the operands'
 * bounds. */
#include "amdgcn/gcn.h"
#include "kernel_support/kernel_harness.h"
#include "kernel_support/ragged_batch.h"
#include "kernel_support/selection.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct shape {
  int64_t heads, kv_heads, head_dim, page, query_tile, k;
  sluice_dtype dtype;
  int64_t parts; /* workgroups that share the keys */
} shape;

enum { PART_ROWS = 16, INIT = 1, LOCAL = 1 };

enum { MOST_OPERANDS = 10 };

typedef struct operand {
  void *data;
  size_t bytes;
} operand;

static void must(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

static size_t plane(const shape *s) {
  return (size_t)(s->head_dim * s->page);
}

/* Keys lie as rows in a page, values transposed behind those of all kv heads. */
static double key_at(const shape *s, const operand *cache, int64_t page, int64_t kv, int64_t key, int64_t d) {
  size_t first = (size_t)(page * 2 * s->kv_heads + kv) * plane(s);
  return element_at(cache->data, s->dtype, first + (size_t)(key * s->head_dim + d));
}

static double value_at(const shape *s, const operand *cache, int64_t page, int64_t kv, int64_t key, int64_t d) {
  size_t first = (size_t)(page * 2 * s->kv_heads + s->kv_heads + kv) * plane(s);
  return element_at(cache->data, s->dtype, first + (size_t)(d * s->page + key));
}

typedef struct problem {
  const shape *shape;
  const ragged_batch *batch;
  operand q, cache, blocks, out;
} problem;

static bool has_block(const problem *p, int64_t token, int64_t kv, int64_t block, bool lists) {
  const int32_t *list = (const int32_t *)p->blocks.data + (token * p->shape->kv_heads + kv) * p->shape->k;
  for (int64_t i = 0; lists && i < p->shape->k; i++)
    if (list[i] == block) return true;
  return !lists;
}

static void check_head(const problem *p, int64_t token, int64_t head, bool lists) {
  const shape *s = p->shape;
  const int64_t kv = head / (s->heads / s->kv_heads), position = p->batch->position[token];
  const int32_t *table = p->batch->page_table + p->batch->sequence[token] * p->batch->sizes[SLUICE_SIZE_PAGE_STRIDE];
  double *weight = calloc((size_t)position + 1, sizeof *weight), highest = -INFINITY, sum = 0;
  assert_non_null(weight);
  for (int64_t j = 0; j <= position; j++) {
    double dot = 0;
    for (int64_t d = 0; d < s->head_dim; d++)
      dot += element_at(p->q.data, s->dtype, (size_t)((token * s->heads + head) * s->head_dim + d)) *
             key_at(s, &p->cache, table[j / s->page], kv, j % s->page, d);
    weight[j] = has_block(p, token, kv, j / s->page, lists) ? dot / sqrt((double)s->head_dim) : -INFINITY;
    highest = fmax(highest, weight[j]);
  }
  for (int64_t j = 0; j <= position; j++) sum += weight[j] = weight[j] == -INFINITY ? 0 : exp(weight[j] - highest);
  for (int64_t d = 0; d < s->head_dim; d++) {
    double expected = 0, magnitude = 0;
    for (int64_t j = 0; j <= position; j++) {
      if (weight[j] == 0) continue;
      double part = weight[j] * value_at(s, &p->cache, table[j / s->page], kv, j % s->page, d);
      expected += part;
      magnitude += fabs(part);
    }
    expected = sum > 0 ? expected / sum : 0;
    magnitude = sum > 0 ? magnitude / sum : 0;
    /* With bfloat16 weights of keys may be rounded, each by half a unit in the last place. */
    double rounding = s->dtype == SLUICE_BF16 ? 1.0 / 256 : 0;
    expect_close(p->out.data, s->dtype, (size_t)((token * s->heads + head) * s->head_dim + d), expected,
                 2e-5 + rounding * magnitude, 1e-5, lists ? "block_attention" : "attention");
  }
  free(weight);
}

/* `counts` and `profile` may be NULL. */
static void run(gcn_machine *machine, const gcn_kernel *kernel, const kernel_info *info, const operand *operands,
                size_t count, const ragged_batch *batch, uint64_t seed, gcn_counts *counts, gcn_profile *profile) {
  uint64_t kernarg[MOST_OPERANDS];
  for (size_t i = 0; i < count; i++) {
    must(gcn_register(machine, operands[i].data, operands[i].bytes));
    kernarg[i] = (uint64_t)(uintptr_t)operands[i].data;
  }
  gcn_launch_options options = {
      .grid = {(uint32_t)sluice_plan_grid(&info->grid[0], (uint64_t)batch->sizes[info->grid[0].size]),
               (uint32_t)sluice_plan_grid(&info->grid[1], (uint64_t)batch->sizes[info->grid[1].size]), 1},
      .workgroup = {info->lanes, 1, 1},
      .kernarg = kernarg,
      .kernarg_bytes = count * sizeof *kernarg,
      .seed = seed,
      .counts = counts,
      .profile = profile};
  must(gcn_launch(kernel, &options));
  for (size_t i = 0; i < count; i++) must(gcn_unregister(machine, operands[i].data));
}

static operand random_operand(random_state *random, sluice_dtype dtype, size_t elements) {
  return (operand){random_elements(random, dtype, elements, 1.0), elements * sluice_dtype_size(dtype)};
}

/* Ascending lists of distinct visible blocks, some shorter than k; neighbours often share blocks. */
static operand random_lists(random_state *random, const shape *s, const ragged_batch *batch) {
  const size_t count = (size_t)(batch->tokens * s->kv_heads * s->k);
  int32_t *lists = malloc(count * sizeof *lists);
  assert_non_null(lists);
  for (int64_t row = 0; row < batch->tokens * s->kv_heads; row++) {
    int64_t seen = batch->position[row / s->kv_heads] / s->page + 1, most = seen < s->k ? seen : s->k, n = 0;
    int64_t wanted = random_between(random, 0, 5) ? most : random_between(random, 0, most);
    for (int64_t b = 0; b < seen && n < wanted; b++)
      if (seen - b <= wanted - n || random_between(random, 0, seen - 1) < wanted) lists[row * s->k + n++] = (int32_t)b;
    while (n < s->k) lists[row * s->k + n++] = -1;
  }
  return (operand){lists, count * sizeof *lists};
}

static int add(kernel_harness *h, const char *family, uint32_t arguments, const shape *s) {
  return harness_add(h, family, arguments, "i:heads", s->heads, "i:kv_heads", s->kv_heads, "i:head_dim", s->head_dim,
                     "f:scale", 1 / sqrt((double)s->head_dim), "i:page", s->page, "i:page_bytes",
                     (int64_t)(2 * (size_t)s->kv_heads * plane(s) * sluice_dtype_size(s->dtype)), "i:value_offset",
                     (int64_t)((size_t)s->kv_heads * plane(s) * sluice_dtype_size(s->dtype)), "s:transposed", "values",
                     "s:dtype", s->dtype == SLUICE_F32 ? "f32" : "bf16", "i:query_tile", s->query_tile, "i:k", s->k,
                     "i:parts", s->parts, "i:part_rows", (int64_t)PART_ROWS, "i:init", (int64_t)INIT, "i:local",
                     (int64_t)LOCAL, NULL);
}

/* Kernels of a shape, and a batch with random contents for them. */
typedef struct setting {
  kernel_harness *harness;
  code_object code;
  gcn_machine *machine;
  gcn_module *module;
  ragged_batch *batch;
  problem p;
  operand tiles, table, positions, sequence, partials, sizes;
} setting;

/* NaN in all slots of a sequence's last page that nobody wrote. */
static void poison_unwritten(const setting *t, const shape *s) {
  const ragged_batch *b = t->batch;
  for (int64_t q = 0; q < b->sequence_count; q++)
    for (int64_t j = b->sequences[q].past + b->sequences[q].tokens; j % s->page; j++)
      for (int64_t kv = 0; kv < 2 * s->kv_heads; kv++)
        for (int64_t d = 0; d < s->head_dim; d++) {
          const size_t first =
              (size_t)((int64_t)b->page_table[q * b->stride + j / s->page] * 2 * s->kv_heads + kv) * plane(s);
          const int64_t slot = j % s->page, place = kv < s->kv_heads ? slot * s->head_dim + d : d * s->page + slot;
          element_put(t->p.cache.data, s->dtype, first + (size_t)place, NAN);
        }
}

static setting open_setting(const char *target, const shape *s, const char *const families[], const int arguments[],
                            const batch_sequence *sequences, int64_t count, uint64_t seed) {
  random_state random = {seed};
  setting t = {.harness = harness_create(target)};
  for (int i = 0; i < 2; i++) add(t.harness, families[i], (uint32_t)arguments[i], s);
  must(harness_code(t.harness, &t.code));
  must(gcn_machine_create(strcmp(target, "hip:gfx950") == 0 ? GCN_GFX950 : GCN_GFX942, &t.machine));
  must(gcn_module_load(t.machine, t.code.data, t.code.length, &t.module));
  ragged_batch *b = t.batch = batch_create(&random, sequences, count, s->page, s->query_tile);
  const size_t pages = (size_t)b->sizes[SLUICE_SIZE_CACHE_PAGES], rows = (size_t)(b->tokens * s->heads);
  t.p = (problem){.shape = s,
                  .batch = b,
                  .q = random_operand(&random, s->dtype, rows * (size_t)s->head_dim),
                  .cache = random_operand(&random, s->dtype, pages * 2 * (size_t)s->kv_heads * plane(s)),
                  .blocks = random_lists(&random, s, b),
                  .out = random_operand(&random, s->dtype, rows * (size_t)s->head_dim)};
  poison_unwritten(&t, s);
  const size_t partials = (size_t)(s->parts * PART_ROWS * (s->head_dim + 2));
  t.partials = (operand){poisoned_elements(SLUICE_F32, partials), partials * sizeof(float)};
  t.tiles = (operand){b->tile, (size_t)b->tiles * 4 * sizeof(int32_t)};
  t.table = (operand){b->page_table, (size_t)(b->sequence_count * b->stride) * sizeof(int32_t)};
  t.positions = (operand){b->position, (size_t)b->tokens * sizeof(int32_t)};
  t.sequence = (operand){b->sequence, (size_t)b->tokens * sizeof(int32_t)};
  t.sizes = (operand){b->sizes, SLUICE_SIZE_COUNT * sizeof(int32_t)};
  memset(t.p.out.data, 0xff, t.p.out.bytes);
  return t;
}

static void launch(setting *t, int kernel, const operand *operands, size_t count, uint64_t seed, gcn_counts *counts,
                   gcn_profile *profile) {
  run(t->machine, gcn_kernel_at(t->module, (uint32_t)kernel), &t->code.kernels[kernel], operands, count, t->batch, seed,
      counts, profile);
}

static void check(const setting *t, bool lists) {
  for (int64_t token = 0; token < t->batch->tokens; token++)
    for (int64_t head = 0; head < t->p.shape->heads; head++) check_head(&t->p, token, head, lists);
}

static void close_setting(setting *t) {
  free(t->p.q.data);
  free(t->p.cache.data);
  free(t->p.blocks.data);
  free(t->p.out.data);
  free(t->partials.data);
  batch_free(t->batch);
  gcn_machine_free(t->machine);
  code_object_free(&t->code);
  harness_free(t->harness);
}

static const char *const targets[] = {"hip:gfx942", "hip:gfx950"};

/* A NaN among a sequence's keys makes outputs of all later tokens NaN. */
static void check_damage(setting *t) {
  const shape *s = t->p.shape;
  const ragged_batch *b = t->batch;
  enum { DAMAGED = 5, POSITION = 2 };
  const int32_t page = b->page_table[DAMAGED * b->stride + POSITION / s->page];
  const size_t key = (size_t)((int64_t)page * 2 * s->kv_heads) * plane(s) + (size_t)(POSITION % s->page * s->head_dim);
  element_put(t->p.cache.data, s->dtype, key, NAN);
  const operand dense[] = {t->p.q, t->tiles, t->table, t->p.cache, t->p.out, t->sizes};
  launch(t, 0, dense, 6, 0, NULL, NULL);
  for (int64_t token = 0; token < b->tokens; token++) {
    const bool sees = b->sequence[token] == DAMAGED && b->position[token] >= POSITION;
    const size_t first = (size_t)(token * s->heads * s->head_dim);
    assert_int_equal(!!isnan(element_at(t->p.out.data, s->dtype, first)), sees);
  }
}

static const char *const tile_families[] = {"attention", "block_attention"};
static const int tile_arguments[] = {5, 6};

static void shapes(void **state) {
  (void)state;
  static const batch_sequence sequences[] = {{0, 1}, {0, 9}, {31, 2}, {127, 3}, {300, 1}, {257, 6}};
  static const shape list[] = {
      {16, 1, 128, 128, 4, 16, SLUICE_BF16, 0}, {10, 2, 64, 32, 3, 5, SLUICE_BF16, 0},
      {8, 1, 32, 64, 7, 3, SLUICE_BF16, 0},     {6, 2, 96, 32, 4, 16, SLUICE_BF16, 0},
      {4, 2, 64, 16, 2, 4, SLUICE_BF16, 0},     {4, 1, 64, 32, 2, 4, SLUICE_F32, 0},
  };
  for (size_t i = 0; i < 2 * sizeof list / sizeof *list; i++) {
    setting t = open_setting(targets[i % 2], &list[i / 2], tile_families, tile_arguments, sequences, 6, 10 + i);
    const operand dense[] = {t.p.q, t.tiles, t.table, t.p.cache, t.p.out, t.sizes};
    launch(&t, 0, dense, 6, i % 3, NULL, NULL);
    check(&t, false);
    memset(t.p.out.data, 0xff, t.p.out.bytes);
    const operand sparse[] = {t.p.q, t.p.blocks, t.tiles, t.table, t.p.cache, t.p.out, t.sizes};
    launch(&t, 1, sparse, 7, i % 3, NULL, NULL);
    check(&t, true);
    check_damage(&t);
    close_setting(&t);
  }
}

/* The tiles' loop of M3's shape, from its machine code as it ran: its instructions are those that run once a step of 32
 * keys. The wave is alone on its SIMD, which needs the matrix instructions' cycles, and for those of its other
 * instructions that do not fit among them their issue: four cycles, four times as many for exponentials, and none for
 * waits, which are no work of their own. */
static uint64_t places_of(const char *text) {
  if (strncmp(text, "v_exp_", 6) == 0) return 4;
  if (strncmp(text, "s_nop ", 6) == 0) return strtoul(text + 6, NULL, 10) + 1;
  return strncmp(text, "s_waitcnt", 9) != 0;
}

static void check_loop(const char *target, const char *family, const gcn_profile *profile, uint64_t steps) {
  enum { ISSUE = 4 };
  uint64_t matrix = 0, count = 0, others = 0;
  for (size_t i = 0; i < profile->count; i++) {
    const gcn_profile_entry *e = &profile->entries[i];
    if (e->executions != steps) continue;
    matrix += e->matrix_cycles;
    count += e->matrix_cycles > 0;
    if (!e->matrix_cycles) others += places_of(e->text);
    assert_int_equal(e->lds_cycles, 0);
  }
  const uint64_t places = matrix / ISSUE - count, all = matrix + (others > places ? others - places : 0) * ISSUE;
  printf("%s %s: a step %llu cycles, matrix %llu, %llu other instructions\n", target, family, (unsigned long long)all,
         (unsigned long long)matrix, (unsigned long long)others);
  assert_int_equal(count, strcmp(target, "hip:gfx950") == 0 ? 64 : 128);
  assert_true(matrix * 100 >= all * 70);
}

/* Four tokens behind 16 whole pages, all of which they attend, or 15 of them: each wave has four pages. */
static void prefill_multiplies(void **state) {
  (void)state;
  enum { PAGES = 16, STEPS_OF_PAGE = 4 };
  static const shape s = {16, 1, 128, 128, 4, PAGES, SLUICE_BF16, 0};
  static const batch_sequence sequences[] = {{128 * PAGES, 4}};
  for (size_t i = 0; i < 2; i++) {
    setting t = open_setting(targets[i], &s, tile_families, tile_arguments, sequences, 1, 3);
    t.batch->tiles = t.batch->sizes[SLUICE_SIZE_TILES] = 1;
    memcpy(t.batch->tile, (int32_t[]){0, 4, 0, 128 * PAGES}, 4 * sizeof(int32_t));
    for (int32_t j = 0; j < 4 * PAGES; j++) ((int32_t *)t.p.blocks.data)[j] = j % PAGES + 1;
    const operand dense[] = {t.p.q, t.tiles, t.table, t.p.cache, t.p.out, t.sizes};
    const operand sparse[] = {t.p.q, t.p.blocks, t.tiles, t.table, t.p.cache, t.p.out, t.sizes};
    for (int lists = 0; lists < 2; lists++) {
      gcn_profile profile = {0};
      assert_int_equal(t.code.kernels[lists].spill_bytes, 0);
      launch(&t, lists, lists ? sparse : dense, lists ? 7 : 6, 0, NULL, &profile);
      check(&t, lists);
      check_loop(targets[i], tile_families[lists], &profile, (PAGES - (uint64_t)lists) * STEPS_OF_PAGE);
      gcn_profile_free(&profile);
    }
    close_setting(&t);
  }
}

static const char *const split_families[] = {"attention_part", "attention_merge"};
static const int split_arguments[] = {7, 2};

/* Adds what the launch loads and stores to `counts`, unless that is NULL. */
static void run_counted(setting *t, int kernel, const operand *operands, size_t count, uint64_t seed,
                        gcn_counts *counts) {
  gcn_counts of_launch = {0};
  assert_int_equal(t->code.kernels[kernel].spill_bytes, 0);
  launch(t, kernel, operands, count, seed, counts ? &of_launch : NULL, NULL);
  if (!counts) return;
  counts->global_loaded += of_launch.global_loaded;
  counts->global_stored += of_launch.global_stored;
}

static void run_split(setting *t, uint64_t seed, gcn_counts *counts) {
  const operand part[] = {t->p.q, t->positions, t->sequence, t->table, t->p.cache, t->p.out, t->partials, t->sizes};
  const operand merge[] = {t->partials, t->p.out, t->sizes};
  run_counted(t, 0, part, 8, seed, counts);
  run_counted(t, 1, merge, 3, seed, counts);
}

/* One token and many, contexts that end before, at and behind a page's end; more shares than pages, and none. */
static void shared_keys(void **state) {
  (void)state;
  static const batch_sequence one[] = {{1023, 1}}, short_one[] = {{0, 1}},
                              some[] = {{700, 1}, {31, 1}, {0, 3}, {127, 1}, {128, 2}};
  static const struct {
    shape shape;
    const batch_sequence *sequences;
    int64_t count;
  } list[] = {
      {{16, 1, 128, 128, 1, 0, SLUICE_BF16, 7}, one, 1},     {{8, 2, 128, 128, 1, 0, SLUICE_BF16, 304}, some, 5},
      {{4, 4, 64, 64, 1, 0, SLUICE_BF16, 64}, one, 1},       {{12, 2, 96, 32, 1, 0, SLUICE_BF16, 80}, some, 5},
      {{16, 1, 32, 32, 1, 0, SLUICE_BF16, 1200}, one, 1},    {{2, 2, 64, 128, 1, 0, SLUICE_BF16, 9}, some, 5},
      {{16, 2, 128, 64, 1, 0, SLUICE_BF16, 2}, short_one, 1}};
  for (size_t i = 0; i < 2 * sizeof list / sizeof *list; i++) {
    setting t = open_setting(targets[i % 2], &list[i / 2].shape, split_families, split_arguments, list[i / 2].sequences,
                             list[i / 2].count, 40 + i);
    run_split(&t, i % 3, NULL);
    check(&t, false);
    close_setting(&t);
  }
}

/* Decoding reads each byte of keys and values once, and little else: partial results and queries are a part of it that
 * gets smaller with the number of pages of a share, here 4, which is the least, and 12. */
static void decode_reads_once(void **state) {
  (void)state;
  enum { PAGES = 24 };
  static const batch_sequence sequences[] = {{128 * PAGES - 1, 1}};
  static const struct {
    int64_t parts;
    uint64_t most; /* percent */
  } list[] = {{304, 110}, {2, 104}};
  for (size_t i = 0; i < 4; i++) {
    const shape s = {16, 1, 128, 128, 1, 0, SLUICE_BF16, list[i / 2].parts};
    setting t = open_setting(targets[i % 2], &s, split_families, split_arguments, sequences, 1, 4);
    gcn_counts counts = {0};
    run_split(&t, 0, &counts);
    const uint64_t keys = 2 * PAGES * (uint64_t)plane(&s) * 2, all = counts.global_loaded + counts.global_stored;
    printf("%s: %lld workgroups, keys and values %llu bytes; loaded %llu, stored %llu, %.3f times as many\n",
           targets[i % 2], (long long)s.parts, (unsigned long long)keys, (unsigned long long)counts.global_loaded,
           (unsigned long long)counts.global_stored, (double)all / (double)keys);
    assert_true(all * 100 <= keys * list[i / 2].most);
    close_setting(&t);
  }
}

static const char *const select_families[] = {"topk_attention_part", "attention_merge"};
static const int select_arguments[] = {9, 2};

/* Random scores; where nothing is chosen, and of the last blocks, NaN. The lists that the kernel writes are checked
 * against the specification's selection, and are what attention is checked for. */
static void run_selection(setting *t, uint64_t seed, gcn_counts *counts) {
  const shape *s = t->p.shape;
  const ragged_batch *b = t->batch;
  const int64_t pages = b->sizes[SLUICE_SIZE_PAGES], rows = b->tokens * s->kv_heads;
  random_state random = {seed + 1000};
  operand scores = {poisoned_elements(SLUICE_F32, (size_t)(rows * pages)), (size_t)(rows * pages) * sizeof(float)};
  double *wide = malloc((size_t)(rows * pages) * sizeof *wide);
  int32_t *expected = malloc((size_t)s->k * sizeof *expected);
  assert_true(wide && expected);
  for (int64_t row = 0; row < rows; row++) {
    const int64_t visible = b->position[row / s->kv_heads] / s->page + 1;
    for (int64_t j = 0; visible > s->k && j < visible - LOCAL; j++)
      element_put(scores.data, SLUICE_F32, (size_t)(row * pages + j), (double)random_between(&random, -9, 9));
    for (int64_t j = 0; j < pages; j++)
      wide[row * pages + j] = element_at(scores.data, SLUICE_F32, (size_t)(row * pages + j));
  }
  memset(t->p.blocks.data, 0x80, t->p.blocks.bytes);
  const operand part[] = {t->p.q,     scores,   t->positions, t->sequence, t->table,
                          t->p.cache, t->p.out, t->p.blocks,  t->partials, t->sizes};
  const operand merge[] = {t->partials, t->p.out, t->sizes};
  run_counted(t, 0, part, 10, seed, counts);
  run_counted(t, 1, merge, 3, seed, counts);
  for (int64_t row = 0; row < rows; row++) {
    const int64_t visible = b->position[row / s->kv_heads] / s->page + 1;
    reference_selection(wide + row * pages, visible, s->k, INIT, LOCAL, expected);
    assert_memory_equal((int32_t *)t->p.blocks.data + row * s->k, expected, (size_t)s->k * sizeof *expected);
  }
  free(scores.data);
  free(wide);
  free(expected);
}

/* Contexts with and without a choice; more shares than chosen blocks, and none; more blocks than a wave chooses. */
static void shared_blocks(void **state) {
  (void)state;
  static const batch_sequence one[] = {{2000, 1}}, some[] = {{700, 1}, {31, 1}, {0, 3}, {127, 1}, {1100, 2}};
  static const struct {
    shape shape;
    const batch_sequence *sequences;
    int64_t count;
  } list[] = {{{16, 1, 128, 128, 1, 5, SLUICE_BF16, 7}, one, 1},   {{8, 2, 128, 128, 1, 4, SLUICE_BF16, 304}, some, 5},
              {{4, 4, 64, 64, 1, 16, SLUICE_BF16, 64}, one, 1},    {{12, 2, 96, 32, 1, 7, SLUICE_BF16, 80}, some, 5},
              {{16, 1, 32, 32, 1, 16, SLUICE_BF16, 1200}, one, 1}, {{2, 2, 64, 128, 1, 2, SLUICE_BF16, 9}, some, 5},
              {{2, 1, 32, 32, 1, 66, SLUICE_BF16, 20}, one, 1}};
  for (size_t i = 0; i < 2 * sizeof list / sizeof *list; i++) {
    setting t = open_setting(targets[i % 2], &list[i / 2].shape, select_families, select_arguments,
                             list[i / 2].sequences, list[i / 2].count, 70 + i);
    run_selection(&t, i % 3, NULL);
    check(&t, true);
    close_setting(&t);
  }
}

/* M3's choice, 16 blocks of 128 keys, by a rank with one kv head: with 8 shares, then 4. */
static void sparse_decode_reads_once(void **state) {
  (void)state;
  static const batch_sequence sequences[] = {{128 * 40 - 1, 1}};
  static const struct {
    int64_t parts;
    uint64_t most; /* percent */
  } list[] = {{304, 120}, {4, 110}};
  for (size_t i = 0; i < 4; i++) {
    const shape s = {16, 1, 128, 128, 1, 16, SLUICE_BF16, list[i / 2].parts};
    setting t = open_setting(targets[i % 2], &s, select_families, select_arguments, sequences, 1, 4);
    gcn_counts counts = {0};
    run_selection(&t, 0, &counts);
    const uint64_t keys = 2 * 16 * (uint64_t)plane(&s) * 2, all = counts.global_loaded + counts.global_stored;
    printf(
        "%s: %lld workgroups, keys and values of 16 blocks %llu bytes; loaded %llu, stored %llu, %.3f times as many\n",
        targets[i % 2], (long long)s.parts, (unsigned long long)keys, (unsigned long long)counts.global_loaded,
        (unsigned long long)counts.global_stored, (double)all / (double)keys);
    assert_true(all * 100 <= keys * list[i / 2].most);
    close_setting(&t);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(shapes),
                                     cmocka_unit_test(shared_keys),
                                     cmocka_unit_test(prefill_multiplies),
                                     cmocka_unit_test(decode_reads_once),
                                     cmocka_unit_test(shared_blocks),
                                     cmocka_unit_test(sparse_decode_reads_once)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

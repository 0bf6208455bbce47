/* The families attention and block_attention of both AMD targets, machine code on the interpreter (tests/amdgcn),
 * against plain sums in double: ragged batches, random pages and lists, shapes that have a kernel of the target's own
 * and shapes that do not, several orders of waves. Every access is checked against the operands' bounds. */
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
  int64_t heads, kv_heads, head_dim, page, query_tile, k;
  sluice_dtype dtype;
} shape;

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

static void run(gcn_machine *machine, const gcn_kernel *kernel, const kernel_info *info, const operand *operands,
                size_t count, const ragged_batch *batch, int64_t kv_heads, uint64_t seed) {
  uint64_t kernarg[8];
  for (size_t i = 0; i < count; i++) {
    must(gcn_register(machine, operands[i].data, operands[i].bytes));
    kernarg[i] = (uint64_t)(uintptr_t)operands[i].data;
  }
  gcn_launch_options options = {.grid = {(uint32_t)batch->tiles, (uint32_t)kv_heads, 1},
                                .workgroup = {info->lanes, 1, 1},
                                .kernarg = kernarg,
                                .kernarg_bytes = count * sizeof *kernarg,
                                .seed = seed};
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
                     NULL);
}

static void try_shape(const char *target, const shape *s, uint64_t seed) {
  static const batch_sequence sequences[] = {{0, 1}, {0, 9}, {31, 2}, {127, 3}, {300, 1}, {257, 6}};
  random_state random = {seed};
  kernel_harness *h = harness_create(target);
  int kernels[2] = {add(h, "attention", 5, s), add(h, "block_attention", 6, s)};
  code_object code = {0};
  must(harness_code(h, &code));
  gcn_machine *machine = NULL;
  gcn_module *module = NULL;
  must(gcn_machine_create(strcmp(target, "hip:gfx950") == 0 ? GCN_GFX950 : GCN_GFX942, &machine));
  must(gcn_module_load(machine, code.data, code.length, &module));
  ragged_batch *batch = batch_create(&random, sequences, 6, s->page, s->query_tile);
  const size_t pages = (size_t)batch->sizes[SLUICE_SIZE_CACHE_PAGES], rows = (size_t)(batch->tokens * s->heads);
  problem p = {.shape = s,
               .batch = batch,
               .q = random_operand(&random, s->dtype, rows * (size_t)s->head_dim),
               .cache = random_operand(&random, s->dtype, pages * 2 * (size_t)s->kv_heads * plane(s)),
               .blocks = random_lists(&random, s, batch),
               .out = random_operand(&random, s->dtype, rows * (size_t)s->head_dim)};
  const operand tiles = {batch->tile, (size_t)batch->tiles * 4 * sizeof(int32_t)};
  const operand table = {batch->page_table,
                         (size_t)(batch->sizes[SLUICE_SIZE_SEQUENCES] * batch->sizes[SLUICE_SIZE_PAGE_STRIDE]) *
                             sizeof(int32_t)};
  const operand sizes = {batch->sizes, SLUICE_SIZE_COUNT * sizeof(int32_t)};
  for (int lists = 0; lists < 2; lists++) {
    const gcn_kernel *kernel = gcn_kernel_find(module, lists ? "block_attention_1" : "attention_0");
    assert_non_null(kernel);
    const operand dense[] = {p.q, tiles, table, p.cache, p.out, sizes};
    const operand sparse[] = {p.q, p.blocks, tiles, table, p.cache, p.out, sizes};
    memset(p.out.data, 0xff, p.out.bytes);
    run(machine, kernel, &code.kernels[kernels[lists]], lists ? sparse : dense, lists ? 7 : 6, batch, s->kv_heads,
        seed % 3);
    for (int64_t t = 0; t < batch->tokens; t++)
      for (int64_t head = 0; head < s->heads; head++) check_head(&p, t, head, lists);
  }
  free(p.q.data);
  free(p.cache.data);
  free(p.blocks.data);
  free(p.out.data);
  batch_free(batch);
  gcn_machine_free(machine);
  code_object_free(&code);
  harness_free(h);
}

static void shapes(void **state) {
  (void)state;
  static const shape list[] = {
      {16, 1, 128, 128, 4, 16, SLUICE_BF16}, {4, 2, 64, 32, 2, 5, SLUICE_BF16}, {8, 1, 32, 64, 7, 3, SLUICE_BF16},
      {3, 3, 96, 32, 4, 16, SLUICE_BF16},    {4, 2, 64, 16, 2, 4, SLUICE_BF16}, {4, 1, 64, 32, 2, 4, SLUICE_F32},
  };
  for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
    try_shape("hip:gfx942", &list[i], 10 + i);
    try_shape("hip:gfx950", &list[i], 30 + i);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(shapes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

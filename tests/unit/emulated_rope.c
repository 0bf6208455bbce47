/* The family norm_rope_append of both AMD targets, machine code on the interpreter (tests/amdgcn), against the host's,
 * which tests/unit/kernel_rope.c checks against plain C: heads whose parts the lanes of a wave share evenly, or some of
 * the lanes, or not at all. Every access is checked against the operands' bounds. */
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

enum { OPERANDS = 13, ARGUMENTS = 12, CACHE = 9, Q = 10, INDEX_Q = 11, SIZES = 12 };

typedef struct shape {
  int64_t heads, kv_heads, head_dim, index_heads, index_dim, rotary_dim, page;
  const char *dtype, *transposed;
} shape;

typedef struct operand {
  void *data;
  size_t bytes;
} operand;

static void must(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

static sluice_dtype dtype_of(const shape *s) {
  return strcmp(s->dtype, "f32") == 0 ? SLUICE_F32 : SLUICE_BF16;
}

static int64_t page_elements(const shape *s) {
  return s->page * (2 * s->kv_heads * s->head_dim + s->index_dim);
}

static int add(kernel_harness *h, const shape *s, bool many) {
  const int64_t element = (int64_t)sluice_dtype_size(dtype_of(s)),
                plane = s->page * s->kv_heads * s->head_dim * element;
  return harness_add(h, "norm_rope_append", ARGUMENTS, "i:heads", s->heads, "i:kv_heads", s->kv_heads, "i:head_dim",
                     s->head_dim, "i:index_heads", s->index_heads, "i:index_dim", s->index_dim, "i:rotary_dim",
                     s->rotary_dim, "f:eps", 1e-6, "i:page", s->page, "i:page_bytes", page_elements(s) * element,
                     "s:transposed", s->transposed, "i:value_offset", plane, "i:index_offset", 2 * plane, "s:dtype",
                     s->dtype, "s:weight_dtype", "bf16", "i:many", (int64_t)many, NULL);
}

static operand random_operand(random_state *random, sluice_dtype dtype, int64_t elements) {
  return (operand){random_elements(random, dtype, (size_t)elements, 1.0), (size_t)elements * sluice_dtype_size(dtype)};
}

static operand poisoned(sluice_dtype dtype, int64_t elements) {
  return (operand){poisoned_elements(dtype, (size_t)elements), (size_t)elements * sluice_dtype_size(dtype)};
}

/* What neither wrote is NaN in both. */
static void compare(const operand *found, const operand *expected, sluice_dtype dtype) {
  for (size_t i = 0; i < expected->bytes / sluice_dtype_size(dtype); i++) {
    const double value = element_at(expected->data, dtype, i), other = element_at(found->data, dtype, i);
    assert_int_equal(!!isnan(value), !!isnan(other));
    if (!isnan(value))
      expect_close(found->data, dtype, i, value, 2e-6, dtype == SLUICE_BF16 ? 1.0 / 128 : 2e-6, "rope");
  }
}

static void try_shape(const char *target, const shape *s, bool many, uint64_t seed) {
  static const batch_sequence sequences[] = {{0, 3}, {15, 2}, {40, 1}};
  random_state random = {seed};
  const sluice_dtype dtype = dtype_of(s);
  kernel_harness *h = harness_create(target), *host = harness_create(harness_targets()[0]);
  add(h, s, many);
  add(host, s, many);
  harness_compile(host);
  code_object code = {0};
  must(harness_code(h, &code));
  assert_int_equal(code.kernels[0].spill_bytes, 0);
  gcn_machine *machine = NULL;
  gcn_module *module = NULL;
  must(gcn_machine_create(strcmp(target, "hip:gfx950") == 0 ? GCN_GFX950 : GCN_GFX942, &machine));
  must(gcn_module_load(machine, code.data, code.length, &module));
  ragged_batch *b = batch_create(&random, sequences, 3, s->page, 1);
  const int64_t index = s->index_heads ? s->index_heads + 1 : 0, pool = b->pool_pages * page_elements(s);
  const int64_t width = (s->heads + 2 * s->kv_heads) * s->head_dim + index * s->index_dim;
  const operand operands[OPERANDS] = {random_operand(&random, dtype, b->tokens * width),
                                      random_operand(&random, SLUICE_F32, b->tokens * s->rotary_dim + 1),
                                      random_operand(&random, SLUICE_BF16, s->head_dim),
                                      random_operand(&random, SLUICE_BF16, s->head_dim),
                                      random_operand(&random, SLUICE_BF16, s->index_dim + 1),
                                      random_operand(&random, SLUICE_BF16, s->index_dim + 1),
                                      {b->position, (size_t)b->tokens * 4},
                                      {b->sequence, (size_t)b->tokens * 4},
                                      {b->page_table, (size_t)(b->sequence_count * b->stride) * 4},
                                      poisoned(dtype, pool),
                                      poisoned(dtype, b->tokens * s->heads * s->head_dim),
                                      poisoned(dtype, b->tokens * s->index_heads * s->index_dim + 1),
                                      {b->sizes, SLUICE_SIZE_COUNT * 4}};
  const operand expected[] = {poisoned(dtype, pool), poisoned(dtype, b->tokens * s->heads * s->head_dim),
                              poisoned(dtype, b->tokens * s->index_heads * s->index_dim + 1)};
  void *arguments[ARGUMENTS];
  for (int i = 0; i < ARGUMENTS; i++) arguments[i] = i < CACHE ? operands[i].data : expected[i - CACHE].data;
  harness_run(host, 0, arguments, b->sizes, b->tokens, 1);
  uint64_t kernarg[OPERANDS];
  for (int i = 0; i < OPERANDS; i++) {
    must(gcn_register(machine, operands[i].data, operands[i].bytes));
    kernarg[i] = (uint64_t)(uintptr_t)operands[i].data;
  }
  const kernel_info *info = &code.kernels[0];
  const gcn_launch_options options = {
      .grid = {(uint32_t)sluice_plan_grid(&info->grid[0], (uint64_t)b->sizes[info->grid[0].size]),
               (uint32_t)sluice_plan_grid(&info->grid[1], (uint64_t)b->sizes[info->grid[1].size]), 1},
      .workgroup = {info->lanes, 1, 1},
      .kernarg = kernarg,
      .kernarg_bytes = sizeof kernarg,
      .seed = seed % 3};
  must(gcn_launch(gcn_kernel_at(module, 0), &options));
  for (int i = CACHE; i <= INDEX_Q; i++) compare(&operands[i], &expected[i - CACHE], dtype);
  for (int i = 0; i < SIZES; i++)
    if (i < 6 || i >= CACHE) free(operands[i].data);
  for (int i = 0; i < 3; i++) free(expected[i].data);
  batch_free(b);
  gcn_machine_free(machine);
  code_object_free(&code);
  harness_free(h);
  harness_free(host);
}

static void shapes(void **state) {
  (void)state;
  static const shape list[] = {
      {8, 2, 128, 2, 128, 64, 16, "bf16", "values"}, {4, 2, 64, 0, 0, 32, 16, "bf16", "values"},
      {2, 1, 64, 1, 64, 64, 8, "f32", "keys"},       {3, 1, 96, 2, 64, 32, 16, "bf16", "values"},
      {2, 2, 128, 1, 64, 16, 16, "f32", "values"},   {2, 1, 32, 1, 32, 16, 8, "bf16", "keys"},
      {1, 1, 256, 1, 128, 128, 4, "bf16", "values"}, {2, 1, 80, 1, 72, 24, 8, "f32", "values"},
  };
  for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
    try_shape("hip:gfx942", &list[i], i % 2, 10 + i);
    try_shape("hip:gfx950", &list[i], i % 2 == 0, 30 + i);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(shapes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

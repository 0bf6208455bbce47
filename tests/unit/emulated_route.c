/* The family route of both AMD targets, which chooses experts and sorts their slots in one launch: machine code on the
 * interpreter (tests/amdgcn) against the host's topk_experts and sort_experts, which tests/unit/kernel_router.c checks
 * against plain C. Several orders of waves; every access is checked against the operands' bounds. */
#include "amdgcn/gcn.h"
#include "kernel_support/kernel_harness.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { OPERANDS = 8, HOST_TOPK = 0, HOST_SORT = 1, MOST_TOKENS = 64 };

typedef struct shape {
  int64_t experts, k, shared, tile_m, tokens; /* tokens that the kernel has room for */
} shape;

static void must(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

typedef struct routed {
  int32_t *counts, *order, *tiles, *experts;
  float *weights;
  size_t count_bytes, order_bytes, tile_bytes, expert_bytes;
} routed;

static void *zeros(size_t bytes) {
  void *memory = calloc(1, bytes);
  assert_non_null(memory);
  return memory;
}

static routed take_routed(const shape *s, int64_t tokens) {
  const size_t slots = (size_t)(tokens * (s->k + s->shared));
  routed r = {.count_bytes = (size_t)(1 + s->experts + s->shared + 1 + 2) * 4,
              .order_bytes = slots * 4,
              .tile_bytes = slots * 16,
              .expert_bytes = (size_t)(tokens * s->k) * 4};
  r.counts = zeros(r.count_bytes);
  r.order = zeros(r.order_bytes);
  r.tiles = zeros(r.tile_bytes);
  r.experts = zeros(r.expert_bytes);
  r.weights = zeros(r.expert_bytes);
  return r;
}

static void free_routed(routed *r) {
  free(r->counts);
  free(r->order);
  free(r->tiles);
  free(r->experts);
  free(r->weights);
}

/* Whole numbers make ties; now and then a NaN. */
static float *random_logits(random_state *random, size_t count, uint64_t kind) {
  float *logits = zeros(count * sizeof *logits);
  for (size_t i = 0; i < count; i++) {
    logits[i] = kind % 2 ? (float)random_between(random, -2, 2) : random_normal(random);
    if (kind % 3 == 2 && random_between(random, 0, 99) == 0) logits[i] = NAN;
  }
  return logits;
}

static void compare(const shape *s, const routed *found, const routed *expected, int64_t tokens) {
  assert_memory_equal(found->experts, expected->experts, expected->expert_bytes);
  for (int64_t i = 0; i < tokens * s->k; i++)
    if (isnan(expected->weights[i]))
      assert_true(isnan(found->weights[i]));
    else
      expect_close(found->weights, SLUICE_F32, (size_t)i, (double)expected->weights[i], 1e-6, 1e-6, "route");
  assert_memory_equal(found->counts, expected->counts, expected->count_bytes);
  assert_memory_equal(found->order, expected->order, expected->order_bytes);
  assert_memory_equal(found->tiles, expected->tiles, (size_t)expected->counts[0] * 16);
}

static void try_shape(const char *target, const shape *s, uint64_t seed) {
  kernel_harness *h = harness_create(target), *host = harness_create(harness_targets()[0]);
  harness_add(h, "route", 7, "i:experts", s->experts, "i:k", s->k, "i:shared", s->shared, "i:tile_m", s->tile_m,
              "i:tokens", s->tokens, NULL);
  harness_add(host, "topk_experts", 4, "i:experts", s->experts, "i:k", s->k, NULL);
  harness_add(host, "sort_experts", 4, "i:experts", s->experts, "i:k", s->k, "i:shared", s->shared, "i:tile_m",
              s->tile_m, NULL);
  harness_compile(host);
  code_object code = {0};
  must(harness_code(h, &code));
  assert_int_equal(code.kernels[0].spill_bytes, 0);
  gcn_machine *machine = NULL;
  gcn_module *module = NULL;
  must(gcn_machine_create(strcmp(target, "hip:gfx950") == 0 ? GCN_GFX950 : GCN_GFX942, &machine));
  must(gcn_module_load(machine, code.data, code.length, &module));
  random_state random = {seed};
  for (uint64_t round = 0; round < 3; round++) {
    const int64_t tokens = round == 0 ? s->tokens : random_between(&random, 1, s->tokens);
    float *logits = random_logits(&random, (size_t)(tokens * s->experts), round);
    float *bias = random_logits(&random, (size_t)s->experts, 1);
    int32_t sizes[SLUICE_SIZE_COUNT] = {[SLUICE_SIZE_TOKENS] = (int32_t)tokens, [SLUICE_SIZE_ONE] = 1};
    routed found = take_routed(s, tokens), expected = take_routed(s, tokens);
    harness_run(host, HOST_TOPK, (void *[]){logits, bias, expected.experts, expected.weights}, sizes, tokens, 1);
    harness_run(host, HOST_SORT, (void *[]){expected.experts, expected.counts, expected.order, expected.tiles}, sizes,
                1, 1);
    void *const operands[OPERANDS] = {logits,      bias,          found.counts,  found.order,
                                      found.tiles, found.experts, found.weights, sizes};
    const size_t bytes[OPERANDS] = {(size_t)(tokens * s->experts) * 4,
                                    (size_t)s->experts * 4,
                                    found.count_bytes,
                                    found.order_bytes,
                                    found.tile_bytes,
                                    found.expert_bytes,
                                    found.expert_bytes,
                                    sizeof sizes};
    uint64_t kernarg[OPERANDS];
    for (size_t i = 0; i < OPERANDS; i++) {
      must(gcn_register(machine, operands[i], bytes[i]));
      kernarg[i] = (uint64_t)(uintptr_t)operands[i];
    }
    const gcn_launch_options options = {.grid = {1, 1, 1},
                                        .workgroup = {code.kernels[0].lanes, 1, 1},
                                        .kernarg = kernarg,
                                        .kernarg_bytes = sizeof kernarg,
                                        .seed = round};
    must(gcn_launch(gcn_kernel_at(module, 0), &options));
    compare(s, &found, &expected, tokens);
    for (size_t i = 0; i < OPERANDS; i++) must(gcn_unregister(machine, operands[i]));
    free_routed(&found);
    free_routed(&expected);
    free(logits);
    free(bias);
  }
  gcn_machine_free(machine);
  code_object_free(&code);
  harness_free(h);
  harness_free(host);
}

static void shapes(void **state) {
  (void)state;
  static const shape list[] = {
      {128, 4, 1, 16, MOST_TOKENS}, {128, 8, 0, 16, 8}, {60, 3, 1, 32, 20}, {7, 7, 0, 16, 1}, {300, 6, 1, 128, 33}};
  for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
    try_shape("hip:gfx942", &list[i], 10 + i);
    try_shape("hip:gfx950", &list[i], 30 + i);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(shapes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

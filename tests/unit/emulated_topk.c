/* The family topk_blocks of both AMD targets, machine code on the interpreter (tests/amdgcn), against the selection as
 * the specification words it: few blocks to thousands, equal scores, NaN, forced blocks, several orders of waves. Every
 * access is checked against the operands' bounds, and what nobody scores is NaN. */
#include "amdgcn/gcn.h"
#include "kernel_support/kernel_harness.h"
#include "kernel_support/selection.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BLOCK = 8, OPERANDS = 4, MOST_CHOSEN = 70 };

static void must(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

typedef enum contents { NORMAL, WHOLE, EQUAL, MOSTLY_NAN, ASCENDING, CONTENTS } contents;

static float score_of(random_state *random, contents what, int64_t block) {
  switch (what) {
  case NORMAL:
    return random_normal(random);
  case WHOLE:
    return (float)random_between(random, -3, 3) * (random_between(random, 0, 3) ? 1.0f : -0.0f);
  case EQUAL:
    return random_between(random, 0, 300) ? 2.5f : 3.0f;
  case MOSTLY_NAN:
    return random_between(random, 0, 9) ? NAN : random_between(random, 0, 3) ? -INFINITY : INFINITY;
  default:
    return (float)block;
  }
}

typedef struct choice {
  int64_t heads, k, init, local;
} choice;

/* One launch: a token for each of `visible`, with contents of all kinds. Returns the instructions a wave took. */
static uint64_t try_choice(const char *target, const choice *c, const int64_t *visible, int64_t tokens, uint64_t seed) {
  random_state random = {seed};
  kernel_harness *h = harness_create(target);
  harness_add(h, "topk_blocks", 3, "i:heads", c->heads, "i:k", c->k, "i:init", c->init, "i:local", c->local, "i:block",
              (int64_t)BLOCK, NULL);
  code_object code = {0};
  must(harness_code(h, &code));
  const kernel_info *info = &code.kernels[0];
  assert_int_equal(info->spill_bytes, 0);
  gcn_machine *machine = NULL;
  gcn_module *module = NULL;
  must(gcn_machine_create(strcmp(target, "hip:gfx950") == 0 ? GCN_GFX950 : GCN_GFX942, &machine));
  must(gcn_module_load(machine, code.data, code.length, &module));
  int64_t pages = 0;
  for (int64_t t = 0; t < tokens; t++) pages = visible[t] > pages ? visible[t] : pages;
  const size_t rows = (size_t)(tokens * c->heads);
  float *scores = poisoned_elements(SLUICE_F32, rows * (size_t)pages);
  double *wide = malloc(rows * (size_t)pages * sizeof *wide);
  int32_t *positions = malloc((size_t)tokens * sizeof *positions), *lists = malloc(rows * (size_t)c->k * 4);
  int32_t expected[MOST_CHOSEN], sizes[SLUICE_SIZE_COUNT] = {0};
  assert_true(positions && lists && wide);
  for (int64_t t = 0; t < tokens; t++) {
    positions[t] = (int32_t)(visible[t] * BLOCK - 1 - random_between(&random, 0, BLOCK - 1));
    for (int64_t head = 0; head < c->heads; head++)
      for (int64_t b = 0; visible[t] > c->k && b < visible[t] - c->local; b++)
        scores[(t * c->heads + head) * pages + b] = score_of(&random, (contents)((t + head) % CONTENTS), b);
  }
  sizes[SLUICE_SIZE_TOKENS] = (int32_t)tokens;
  sizes[SLUICE_SIZE_PAGES] = (int32_t)pages;
  void *const operands[OPERANDS] = {scores, positions, lists, sizes};
  const size_t bytes[OPERANDS] = {rows * (size_t)pages * 4, (size_t)tokens * 4, rows * (size_t)c->k * 4, sizeof sizes};
  uint64_t kernarg[OPERANDS];
  for (size_t i = 0; i < OPERANDS; i++) {
    must(gcn_register(machine, operands[i], bytes[i]));
    kernarg[i] = (uint64_t)(uintptr_t)operands[i];
  }
  gcn_counts counts = {0};
  const gcn_launch_options options = {.grid = {(uint32_t)tokens, (uint32_t)c->heads, 1},
                                      .workgroup = {info->lanes, 1, 1},
                                      .kernarg = kernarg,
                                      .kernarg_bytes = sizeof kernarg,
                                      .seed = seed,
                                      .counts = &counts};
  for (size_t j = 0; j < rows * (size_t)pages; j++) wide[j] = (double)scores[j];
  must(gcn_launch(gcn_kernel_at(module, 0), &options));
  for (int64_t t = 0; t < tokens; t++)
    for (int64_t head = 0; head < c->heads; head++) {
      const int64_t row = t * c->heads + head;
      reference_selection(wide + row * pages, visible[t], c->k, c->init, c->local, expected);
      assert_memory_equal(lists + row * c->k, expected, (size_t)c->k * 4);
    }
  free(scores);
  free(wide);
  free(positions);
  free(lists);
  gcn_machine_free(machine);
  code_object_free(&code);
  harness_free(h);
  return counts.instructions / counts.waves;
}

static const char *const targets[] = {"hip:gfx942", "hip:gfx950"};

/* Registers keep up to 256, then 1024 blocks; beyond, scores are read twice. More than 64 chosen ones are the common
 * kernel's. */
static void choices(void **state) {
  (void)state;
  static const choice list[] = {{2, 16, 0, 1}, {5, 16, 1, 2}, {1, 1, 0, 0}, {3, 64, 0, 1}, {2, 5, 8, 12}};
  static const int64_t visible[] = {1, 2, 15, 16, 17, 18, 63, 64, 65, 66, 90, 200, 257, 258, 700, 1025, 1026, 2100};
  for (size_t i = 0; i < 2 * sizeof list / sizeof *list; i++)
    (void)try_choice(targets[i % 2], &list[i / 2], visible, sizeof visible / sizeof *visible, i);
  (void)try_choice(targets[0], &(choice){1, MOST_CHOSEN, 0, 1}, visible, 12, 0);
}

static void random_choices(void **state) {
  (void)state;
  random_state random = {5};
  for (uint64_t round = 0; round < 16; round++) {
    const choice c = {.heads = random_between(&random, 1, 4),
                      .k = random_between(&random, 1, 40),
                      .init = random_between(&random, 0, 3),
                      .local = random_between(&random, 0, 3)};
    int64_t visible[20];
    for (size_t i = 0; i < 20; i++) visible[i] = random_between(&random, 1, i < 16 ? 150 : 1500);
    (void)try_choice(targets[round % 2], &c, visible, 20, 100 + round);
  }
}

/* Context of 128K with blocks of 128, as many as M3 chooses: a wave's instructions, all of them. */
static void long_context(void **state) {
  (void)state;
  static const choice c = {1, 16, 0, 1};
  static const int64_t visible[] = {1024};
  for (size_t i = 0; i < 2; i++) {
    const uint64_t instructions = try_choice(targets[i], &c, visible, 1, 7);
    printf("%s: 16 of 1024 blocks, %llu instructions\n", targets[i], (unsigned long long)instructions);
    assert_true(instructions < 1500);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(choices), cmocka_unit_test(random_choices),
                                     cmocka_unit_test(long_context)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

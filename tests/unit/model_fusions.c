/* The same random models compiled without passes that may be left out: none of them, all of them but one, each one
 * alone, and random subsets compute what the reference does. */
#include "kernel_support/random_model.h"
#include "passes/passes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MOST = 32, SUBSETS = 6 };

static size_t optional_passes(const char **names) {
  size_t count = 0;
  for (const pass_description *pass = pass_table; pass->name; pass++)
    if (pass->optional && count < MOST) names[count++] = pass->name;
  return count;
}

/* A model with both kinds of attention and of MLP, so that every fusion finds what it looks for. */
static void create_with_every_kind(random_model *model) {
  bool sparse[2] = {false, false}, moe[2] = {false, false};
  random_model_create(model, 207);
  for (int64_t i = 0; i < model->dims.layers; i++) {
    sparse[model->layers[i].sparse_attention] = true;
    moe[model->layers[i].moe] = true;
  }
  assert_true(sparse[0] && sparse[1] && moe[0] && moe[1]);
}

static void check_without(const random_model *model, const char *const *disabled, size_t count,
                          random_model_counts *counts) {
  sluice_model *compiled = random_model_compile(model, disabled, count);
  random_model_check(model, compiled, 3, 0, counts);
  sluice_model_close(compiled);
}

static void expect_few_skipped(const random_model_counts *counts) {
  print_message("%llu rows, worst logit %.2g; %llu near-ties, %llu rows skipped after them\n",
                (unsigned long long)counts->rows, counts->worst_logit, (unsigned long long)counts->near_ties,
                (unsigned long long)counts->skipped_rows);
  assert_true(counts->skipped_rows * 50 <= counts->rows);
}

static void every_pass_can_be_left_out(void **state) {
  (void)state;
  const char *names[MOST];
  const size_t count = optional_passes(names);
  random_model_counts counts = {0};
  random_model model;
  assert_true(count > 0);
  create_with_every_kind(&model);
  check_without(&model, names, count, &counts);
  for (size_t i = 0; i < count; i++) check_without(&model, &names[i], 1, &counts);
  random_model_free(&model);
  expect_few_skipped(&counts);
}

static void every_pass_works_alone(void **state) {
  (void)state;
  const char *names[MOST], *others[MOST];
  const size_t count = optional_passes(names);
  random_model_counts counts = {0};
  random_model model;
  create_with_every_kind(&model);
  for (size_t i = 0; i < count; i++) {
    size_t n = 0;
    for (size_t j = 0; j < count; j++)
      if (j != i) others[n++] = names[j];
    check_without(&model, others, n, &counts);
  }
  random_model_free(&model);
  expect_few_skipped(&counts);
}

static void random_subsets_agree(void **state) {
  (void)state;
  const char *names[MOST], *disabled[MOST];
  const size_t count = optional_passes(names);
  random_model_counts counts = {0};
  random_state random = {7};
  for (uint64_t subset = 0; subset < SUBSETS; subset++) {
    random_model model;
    size_t n = 0;
    random_model_create(&model, 208 + subset);
    for (size_t i = 0; i < count; i++)
      if (random_bits(&random) % 2) disabled[n++] = names[i];
    check_without(&model, disabled, n, &counts);
    random_model_free(&model);
  }
  expect_few_skipped(&counts);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_pass_can_be_left_out),
                                     cmocka_unit_test(every_pass_works_alone), cmocka_unit_test(random_subsets_agree)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Random small models from config.json to logits, against the float64 reference: every logit, layer output, block,
 * expert and weight; the prompt in one step, in chunks, and beside other sequences. */
#include "kernel_support/random_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MODELS = 12 };

static void random_models_agree(void **state) {
  (void)state;
  random_model_counts counts = {0};
  for (uint64_t number = 0; number < MODELS; number++) {
    random_model model;
    random_model_create(&model, number);
    sluice_model *compiled = random_model_compile(&model, NULL, 0);
    random_model_check(&model, compiled, 1, 0, &counts);
    random_model_check(&model, compiled, 1, 90, &counts);
    random_model_check(&model, compiled, 3, 0, &counts);
    random_model_check(&model, compiled, 3, 23, &counts);
    sluice_model_close(compiled);
    random_model_free(&model);
  }
  print_message("%llu rows, worst logit %.2g; %llu selections, %llu near-ties, %llu rows skipped after them\n",
                (unsigned long long)counts.rows, counts.worst_logit, (unsigned long long)counts.selections,
                (unsigned long long)counts.near_ties, (unsigned long long)counts.skipped_rows);
  assert_true(counts.skipped_rows * 50 <= counts.rows);
}

/* One token a step, the way of decoding. */
static void single_tokens_agree(void **state) {
  (void)state;
  random_model_counts counts = {0};
  for (uint64_t number = 100; number < 102; number++) {
    random_model model;
    random_model_create(&model, number);
    sluice_model *compiled = random_model_compile(&model, NULL, 0);
    random_model_check(&model, compiled, 3, 1, &counts);
    sluice_model_close(compiled);
    random_model_free(&model);
  }
  assert_true(counts.skipped_rows * 50 <= counts.rows);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(random_models_agree), cmocka_unit_test(single_tokens_agree)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

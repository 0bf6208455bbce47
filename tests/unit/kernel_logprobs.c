/* The logprobs kernel against its definition in plain C and float64. */
#include "kernel_support/kernel_harness.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const int32_t vocabularies[] = {1, 7, 99, 1024, 1025, 5000, 200064};
enum { VOCABULARIES = sizeof vocabularies / sizeof *vocabularies, ROWS = 8 };

static kernel_harness *logprobs_kernels(const char *target) {
  kernel_harness *h = harness_create(target);
  for (int i = 0; i < VOCABULARIES; i++) harness_add(h, "logprobs", 4, "i:vocabulary", (int64_t)vocabularies[i], NULL);
  harness_compile(h);
  return h;
}

static const float *row_at_hand;

/* Likeliest first, of equal ones the lower id, NaN last. */
static int by_likelihood(const void *left, const void *right) {
  const int32_t a = *(const int32_t *)left, b = *(const int32_t *)right;
  const float x = row_at_hand[a], y = row_at_hand[b];
  if (isnan(x) != isnan(y)) return isnan(x) ? 1 : -1;
  if (x != y && !isnan(x)) return x > y ? -1 : 1;
  return a < b ? -1 : a > b;
}

static bool same(float a, float b) {
  return a == b || (isnan(a) && isnan(b));
}

static void check_row(const float *logits, int32_t n, uint32_t wanted, int32_t sampled, const sluice_logprob_row *found,
                      int32_t *order) {
  float largest = -INFINITY;
  double mass = 0;
  for (int32_t i = 0; i < n; i++)
    if (logits[i] > largest) largest = logits[i];
  for (int32_t i = 0; i < n; i++) {
    const double power = logits[i] == largest ? 0 : (double)logits[i] - (double)largest;
    if (!isnan(power)) mass += exp(power);
    order[i] = i;
  }
  assert_true(found->largest == largest);
  if (!(fabs(found->mass - mass) <= 1e-6 * mass)) fail_msg("mass %.9g, expected %.9g", found->mass, mass);
  assert_true(same(found->chosen, logits[sampled < 0 ? -1 - sampled : sampled]));
  row_at_hand = logits;
  qsort(order, (size_t)n, sizeof *order, by_likelihood);
  for (uint32_t k = 0; k < wanted && k < (uint32_t)n; k++)
    if (found->top[k].token != order[k] || !same(found->top[k].logit, logits[order[k]]))
      fail_msg("vocabulary %d, place %u: token %d (%g), expected %d (%g)", n, k, found->top[k].token,
               (double)found->top[k].logit, order[k], (double)logits[order[k]]);
  const sluice_logprob_row untouched = {.top = {{-9, 0}}};
  for (uint32_t k = wanted; k < SLUICE_MOST_LOGPROBS; k++)
    assert_int_equal(found->top[k].token, untouched.top[0].token);
}

static void fill(random_state *random, float *logits, int32_t n, int32_t kind) {
  for (int32_t i = 0; i < n; i++) {
    float logit = 3 * random_normal(random);
    if (kind == 1) logit = roundf(logit); /* many ties */
    if (kind == 2 && i % 3) logit = NAN;
    if (kind == 3) logit = i == n / 2 ? INFINITY : logit;
    if (kind == 4) logit = i % 2 ? 0.0f : -0.0f;
    if (kind == 5) logit = i % 5 ? -INFINITY : logit;
    if (kind == 6) logit = 0;
    logits[i] = logit;
  }
}

static void rows_follow_the_definition(void **state) {
  (void)state;
  random_state random = {1};
  static const uint32_t counts[ROWS] = {5, 20, 20, 3, 20, 20, 1, 0};
  for (const char *const *target = harness_targets(); *target; target++) {
    kernel_harness *h = logprobs_kernels(*target);
    for (int v = 0; v < VOCABULARIES; v++) {
      const int32_t n = vocabularies[v];
      float *logits = calloc((size_t)(ROWS * n), sizeof *logits);
      int32_t *order = calloc((size_t)n, sizeof *order);
      assert_true(logits && order);
      sluice_sampling_row sampling[ROWS] = {{0}};
      sluice_logprob_row found[ROWS + 1];
      int32_t sampled[ROWS];
      for (int32_t r = 0; r < ROWS; r++) {
        fill(&random, logits + (int64_t)r * n, n, r);
        sampling[r].logprobs = counts[r];
        sampled[r] = (int32_t)random_between(&random, 0, n - 1);
        if (r % 2) sampled[r] = -1 - sampled[r];
      }
      for (int32_t r = 0; r <= ROWS; r++) {
        memset(&found[r], 0, sizeof found[r]);
        for (uint32_t k = 0; k < SLUICE_MOST_LOGPROBS; k++) found[r].top[k].token = -9;
      }
      int32_t sizes[SLUICE_SIZE_COUNT] = {
          [SLUICE_SIZE_ONE] = 1, [SLUICE_SIZE_ROWS] = ROWS, [SLUICE_SIZE_LOGPROBS] = ROWS};
      void *arguments[] = {logits, sampling, sampled, found};
      harness_run(h, v, arguments, sizes, ROWS, 1);
      for (int32_t r = 0; r < ROWS; r++)
        if (counts[r]) check_row(logits + (int64_t)r * n, n, counts[r], sampled[r], &found[r], order);
      for (int32_t r = ROWS - 1; r <= ROWS; r++) /* a row that wants none, and what lies behind the last */
        assert_true(found[r].mass == 0 && found[r].top[0].token == -9);
      free(logits);
      free(order);
    }
    harness_free(h);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(rows_follow_the_definition)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

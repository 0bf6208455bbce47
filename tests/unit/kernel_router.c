/* router, router_logits, topk_experts, sort_experts and route against plain C or each other, with ties, NaN, and every
 * host level. */
#include "kernel_support/kernel_harness.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TOKENS = 33 };

static const int32_t *step_sizes(int32_t tokens) {
  static int32_t sizes[SLUICE_SIZE_COUNT];
  sizes[SLUICE_SIZE_ONE] = 1;
  sizes[SLUICE_SIZE_TOKENS] = tokens;
  return sizes;
}

/* Whether expert a comes before expert b: score, then lower id, NaN last. */
static bool preferred(const double *score, int64_t a, int64_t b) {
  if (isnan(score[a]) != isnan(score[b])) return isnan(score[b]);
  if (!isnan(score[a]) && score[a] != score[b]) return score[a] > score[b];
  return a < b;
}

/* The k preferred experts, ascending. Returns the margin to the next one. */
static double choose(const double *score, int64_t experts, int64_t k, int32_t *chosen) {
  int64_t count = 0;
  double lowest = INFINITY, highest = -INFINITY;
  for (int64_t a = 0; a < experts; a++) {
    int64_t rank = 0;
    for (int64_t b = 0; b < experts; b++) rank += preferred(score, b, a);
    if (rank < k) chosen[count++] = (int32_t)a;
    if (rank < k)
      lowest = fmin(lowest, score[a]);
    else
      highest = fmax(highest, score[a]);
  }
  return lowest - highest;
}

/* Of a token with a NaN among the scores all weights are NaN, whichever experts are chosen. */
static void expect_nan(const float *weights, int64_t count) {
  for (int64_t i = 0; i < count; i++) assert_true(isnan(weights[i]));
}

/* ---- topk_experts: the reference rounds like the kernel where scores tie, since the logits are multiples of 1/4 ----
 */

static const struct {
  int64_t experts, k;
} choices[] = {{1, 1}, {5, 5}, {8, 2}, {31, 3}, {128, 4}, {128, 8}, {257, 16}};
enum { CHOICES = sizeof choices / sizeof *choices };

static void topk_experts_follows_the_rule(void **state) {
  (void)state;
  random_state random = {1};
  for (const char *const *target = harness_targets(); *target; target++) {
    kernel_harness *h = harness_create(*target);
    for (int i = 0; i < CHOICES; i++)
      harness_add(h, "topk_experts", 4, "i:experts", choices[i].experts, "i:k", choices[i].k, NULL);
    harness_compile(h);
    for (int i = 0; i < CHOICES; i++) {
      const int64_t experts = choices[i].experts, k = choices[i].k;
      float *logits = random_elements(&random, SLUICE_F32, (size_t)(TOKENS * experts), 2);
      float *bias = random_elements(&random, SLUICE_F32, (size_t)experts, 0.3);
      /* Many equal scores: token 0 all equal, token 1 of four values, token 2, 3 and 6 with NaN. */
      for (int64_t e = 0; e < experts; e++) bias[e] = e % 3 ? 0 : bias[e];
      for (int64_t e = 0; e < experts; e++) {
        logits[e] = -0.0f;
        logits[experts + e] = (float)random_between(&random, 0, 3);
        if (e % 4) logits[2 * experts + e] = NAN;
        logits[3 * experts + e] = NAN;
        logits[4 * experts + e] = e % 2 ? INFINITY : -INFINITY;
        logits[5 * experts + e] = e % 2 ? 200.0f : -200.0f;
      }
      logits[6 * experts + experts / 2] = NAN;
      int32_t *found = poisoned_elements(SLUICE_F32, (size_t)(TOKENS * k));
      float *weights = poisoned_elements(SLUICE_F32, (size_t)(TOKENS * k));
      harness_run(h, i, (void *[]){logits, bias, found, weights}, step_sizes(TOKENS), TOKENS, 1);
      for (int64_t t = 0; t < TOKENS; t++) {
        double exact[512], sum = 0;
        int32_t expected[16];
        bool damaged = false;
        for (int64_t e = 0; e < experts; e++) {
          const double logit = (double)logits[t * experts + e];
          exact[e] = 1 / (1 + exp(-logit)) + (double)bias[e];
          damaged |= isnan(exact[e]);
        }
        const double margin = choose(exact, experts, k, expected);
        /* Equal logits with equal biases tie exactly in both; anything else is far apart. */
        if (margin > 0 && margin < 1e-6) fail_msg("the data has a near-tie of %g at token %lld", margin, (long long)t);
        for (int64_t s = 0; s < k; s++) assert_int_equal(found[t * k + s], expected[s]);
        for (int64_t s = 0; s < k; s++) sum += exact[expected[s]] - (double)bias[expected[s]];
        if (damaged || sum == 0) {
          expect_nan(weights + t * k, k);
          continue;
        }
        for (int64_t s = 0; s < k; s++)
          expect_close(weights, SLUICE_F32, (size_t)(t * k + s), (exact[expected[s]] - (double)bias[expected[s]]) / sum,
                       1e-7, 2e-6, "weight");
      }
      bias[experts / 2] = NAN;
      for (int64_t s = 0; s < TOKENS * k; s++) weights[s] = 0;
      harness_run(h, i, (void *[]){logits, bias, found, weights}, step_sizes(TOKENS), TOKENS, 1);
      expect_nan(weights, TOKENS * k);
      free(logits);
      free(bias);
      free(found);
      free(weights);
    }
    harness_free(h);
  }
}

/* ---- router ---- */

static const struct {
  int64_t width, experts, k, panel;
  const char *dtype;
} routers[] = {{1, 1, 1, 16, "f32"},    {99, 5, 2, 16, "bf16"},     {256, 8, 2, 32, "f32"},
               {257, 33, 4, 16, "f32"}, {6144, 128, 4, 32, "bf16"}, {512, 100, 8, 32, "bf16"}};
enum { ROUTERS = sizeof routers / sizeof *routers };

static void router_multiplies_and_chooses(void **state) {
  (void)state;
  random_state random = {2};
  int64_t compared = 0, near_ties = 0;
  for (const char *const *target = harness_targets(); *target; target++) {
    kernel_harness *h = harness_create(*target);
    for (int i = 0; i < ROUTERS; i++)
      harness_add(h, "router", 5, "i:width", routers[i].width, "i:experts", routers[i].experts, "i:k", routers[i].k,
                  "s:dtype", routers[i].dtype, "i:panel", routers[i].panel, NULL);
    harness_compile(h);
    for (int i = 0; i < ROUTERS; i++) {
      const int64_t width = routers[i].width, experts = routers[i].experts, k = routers[i].k, panel = routers[i].panel;
      const sluice_dtype dtype = strcmp(routers[i].dtype, "f32") == 0 ? SLUICE_F32 : SLUICE_BF16;
      const int64_t pairs = (width + 1) / 2, panels = (experts + panel - 1) / panel;
      void *x = random_elements(&random, dtype, (size_t)(TOKENS * width), 1);
      float *gate = random_elements(&random, SLUICE_F32, (size_t)(experts * width), 1 / sqrt((double)width));
      float *bias = random_elements(&random, SLUICE_F32, (size_t)experts, 0.1);
      float *packed = calloc((size_t)(panels * panel * pairs * 2), sizeof *packed);
      assert_non_null(packed);
      for (int64_t e = 0; e < experts; e++)
        for (int64_t c = 0; c < width; c++)
          packed[((e / panel * pairs + c / 2) * panel + e % panel) * 2 + c % 2] = gate[e * width + c];
      int32_t *found = poisoned_elements(SLUICE_F32, (size_t)(TOKENS * k));
      float *weights = poisoned_elements(SLUICE_F32, (size_t)(TOKENS * k));
      harness_run(h, i, (void *[]){x, packed, bias, found, weights}, step_sizes(TOKENS), TOKENS, 1);
      for (int64_t t = 0; t < TOKENS; t++) {
        double biased[512], score[512], sum = 0;
        int32_t expected[16];
        for (int64_t e = 0; e < experts; e++) {
          double logit = 0;
          for (int64_t c = 0; c < width; c++)
            logit += element_at(x, dtype, (size_t)(t * width + c)) * (double)gate[e * width + c];
          score[e] = 1 / (1 + exp(-logit));
          biased[e] = score[e] + (double)bias[e];
        }
        compared++;
        if (choose(biased, experts, k, expected) < 1e-5) {
          near_ties++;
          continue;
        }
        for (int64_t s = 0; s < k; s++) assert_int_equal(found[t * k + s], expected[s]);
        for (int64_t s = 0; s < k; s++) sum += score[expected[s]];
        for (int64_t s = 0; s < k; s++)
          expect_close(weights, SLUICE_F32, (size_t)(t * k + s), score[expected[s]] / sum, 1e-6, 2e-5, "weight");
      }
      /* One NaN in the row of the last expert, which then comes last: not chosen where there are others. */
      packed[((experts - 1) / panel * pairs * panel + (experts - 1) % panel) * 2] = NAN;
      for (int64_t s = 0; s < TOKENS * k; s++) weights[s] = 0;
      harness_run(h, i, (void *[]){x, packed, bias, found, weights}, step_sizes(TOKENS), TOKENS, 1);
      for (int64_t s = 0; s < TOKENS * k && k < experts; s++) assert_int_not_equal(found[s], experts - 1);
      expect_nan(weights, TOKENS * k);
      free(x);
      free(gate);
      free(bias);
      free(packed);
      free(found);
      free(weights);
    }
    harness_free(h);
  }
  print_message("%lld tokens, %lld of them near-ties\n", (long long)compared, (long long)near_ties);
  assert_true(near_ties * 100 <= compared);
}

/* ---- sort_experts ---- */

static void sort_experts_groups_slots(void **state) {
  (void)state;
  random_state random = {3};
  static const struct {
    int64_t experts, k, tile, shared;
  } shapes[] = {{1, 1, 8, 0}, {4, 2, 3, 0}, {128, 4, 16, 0}, {256, 8, 1, 0},
                {1, 1, 1, 1}, {4, 3, 3, 1}, {128, 4, 8, 1}};
  enum { SHAPES = sizeof shapes / sizeof *shapes };
  static const int32_t tokens[] = {0, 1, 2, 37, 500};
  kernel_harness *h = harness_create("host:x86-64");
  for (int i = 0; i < SHAPES; i++)
    harness_add(h, "sort_experts", 4, "i:experts", shapes[i].experts, "i:k", shapes[i].k, "i:shared", shapes[i].shared,
                "i:tile_m", shapes[i].tile, NULL);
  harness_compile(h);
  for (int i = 0; i < SHAPES; i++) {
    for (int n = 0; n < 5; n++) {
      const int64_t k = shapes[i].k, shared = shapes[i].shared, tile = shapes[i].tile;
      const int64_t experts = shapes[i].experts + shared, slots = tokens[n] * (k + shared);
      int32_t *expert = calloc((size_t)slots + 1, sizeof *expert);           /* of each slot */
      int32_t *chosen = calloc((size_t)(tokens[n] * k) + 1, sizeof *chosen); /* without the shared one */
      int32_t *counts = poisoned_elements(SLUICE_F32, (size_t)experts + 4);
      int32_t *order = poisoned_elements(SLUICE_F32, (size_t)slots),
              *tiles = poisoned_elements(SLUICE_F32, (size_t)slots * 4);
      assert_true(expert && chosen);
      /* Half of the experts, so that some get none and some many; the last step all to one. */
      for (int64_t c = 0; c < tokens[n] * k; c++)
        chosen[c] =
            n == 4 ? (int32_t)shapes[i].experts - 1 : (int32_t)random_between(&random, 0, (shapes[i].experts - 1) / 2);
      for (int64_t s = 0; s < slots; s++) {
        const int64_t token = s / (k + shared), choice = s % (k + shared);
        expert[s] = choice == k ? (int32_t)shapes[i].experts : chosen[token * k + choice];
      }
      harness_run(h, i, (void *[]){chosen, counts, order, tiles}, step_sizes(tokens[n]), 1, 1);
      int64_t place = 0, tile_count = 0;
      for (int32_t e = 0; e < experts; e++) {
        const int64_t first = place;
        assert_int_equal(counts[1 + e], place);
        for (int32_t s = 0; s < slots; s++)
          if (expert[s] == e) assert_int_equal(order[place++], s);
        for (int64_t p = first; p < place; p += tile, tile_count++) {
          assert_int_equal(tiles[tile_count * 4], e);
          assert_int_equal(tiles[tile_count * 4 + 1], p);
          assert_int_equal(tiles[tile_count * 4 + 2], place - p < tile ? place - p : tile);
          assert_int_equal(tiles[tile_count * 4 + 3], 0);
        }
      }
      assert_int_equal(counts[0], tile_count);
      assert_int_equal(counts[1 + experts], slots);
      assert_int_equal(counts[2 + experts], 0); /* tickets */
      assert_int_equal(counts[3 + experts], 0);
      assert_int_equal(counts[4 + experts], -1); /* untouched */
      assert_int_equal(order[slots], -1);
      assert_int_equal(tiles[tile_count * 4], -1);
      free(expert);
      free(chosen);
      free(counts);
      free(order);
      free(tiles);
    }
  }
  harness_free(h);
}

/* ---- route: writes what topk_experts and then sort_experts do ---- */

static void route_chooses_and_sorts(void **state) {
  (void)state;
  enum { MOST_TOKENS = 64 };
  static const struct {
    int64_t experts, k, tile, shared;
  } shapes[] = {{1, 1, 8, 0}, {5, 5, 3, 0}, {128, 4, 8, 1}, {257, 16, 16, 0}, {31, 3, 1, 1}, {40, 32, 16, 1}};
  enum { SHAPES = sizeof shapes / sizeof *shapes };
  static const int32_t tokens[] = {0, 1, 2, 37, MOST_TOKENS};
  random_state random = {17};
  for (const char *const *target = harness_targets(); *target; target++) {
    kernel_harness *h = harness_create(*target);
    for (int i = 0; i < SHAPES; i++) {
      const int64_t experts = shapes[i].experts, k = shapes[i].k, shared = shapes[i].shared, tile = shapes[i].tile;
      harness_add(h, "topk_experts", 4, "i:experts", experts, "i:k", k, NULL);
      harness_add(h, "sort_experts", 4, "i:experts", experts, "i:k", k, "i:shared", shared, "i:tile_m", tile, NULL);
      harness_add(h, "route", 7, "i:experts", experts, "i:k", k, "i:shared", shared, "i:tile_m", tile, "i:tokens",
                  (int64_t)MOST_TOKENS, NULL);
    }
    harness_compile(h);
    for (int i = 0; i < SHAPES; i++)
      for (size_t n = 0; n < sizeof tokens / sizeof *tokens; n++) {
        const int64_t experts = shapes[i].experts, k = shapes[i].k, slots = tokens[n] * (k + shapes[i].shared);
        float *logits = random_elements(&random, SLUICE_F32, (size_t)(tokens[n] * experts) + 1, 2);
        float *bias = random_elements(&random, SLUICE_F32, (size_t)experts, 0.3);
        for (int64_t e = 0; e < experts && tokens[n] > 2; e++) { /* ties, then NaN */
          logits[e] = (float)random_between(&random, 0, 2);
          if (e % 4) logits[2 * experts + e] = NAN;
        }
        if (tokens[n] > 2) logits[experts + experts / 2] = NAN; /* of token 1 one alone */
        for (int64_t e = 0; e < experts; e++) bias[e] = e % 3 ? 0 : bias[e];
        /* counts, order, expert_tiles, experts, weights, by both. */
        const size_t sizes[] = {(size_t)(experts + shapes[i].shared) + 4, (size_t)slots, (size_t)slots * 4,
                                (size_t)(tokens[n] * k), (size_t)(tokens[n] * k)};
        void *apart[5], *together[5];
        for (int o = 0; o < 5; o++) {
          apart[o] = poisoned_elements(SLUICE_F32, sizes[o]);
          together[o] = poisoned_elements(SLUICE_F32, sizes[o]);
        }
        const int32_t *step = step_sizes(tokens[n]);
        harness_run(h, 3 * i, (void *[]){logits, bias, apart[3], apart[4]}, step, tokens[n], 1);
        harness_run(h, 3 * i + 1, (void *[]){apart[3], apart[0], apart[1], apart[2]}, step, 1, 1);
        harness_run(h, 3 * i + 2,
                    (void *[]){logits, bias, together[0], together[1], together[2], together[3], together[4]}, step, 1,
                    1);
        for (int o = 0; o < 4; o++) assert_memory_equal(apart[o], together[o], (sizes[o] + 1) * sizeof(int32_t));
        for (size_t s = 0; s < sizes[4]; s++) {
          const float one = ((const float *)apart[4])[s], other = ((const float *)together[4])[s];
          assert_true(isnan(one) ? isnan(other) : fabsf(one - other) <= 2e-6f * one);
        }
        if (tokens[n] > 2) expect_nan((const float *)together[4] + k, k);
        assert_int_equal(((const uint32_t *)together[4])[sizes[4]], UINT32_MAX); /* untouched */
        for (int o = 0; o < 5; o++) free(apart[o]), free(together[o]);
        free(logits);
        free(bias);
      }
    harness_free(h);
  }
}

/* ---- router_logits ---- */

static void router_logits_are_products(void **state) {
  (void)state;
  static const struct {
    int64_t width, experts;
    const char *dtype;
  } cases[] = {{64, 8, "f32"}, {99, 5, "bf16"}, {1, 1, "f32"}, {256, 33, "bf16"}, {17, 128, "f32"}};
  enum { CASES = sizeof cases / sizeof *cases };
  static const int32_t steps[] = {1, 2, 7, 8, 9, 16, TOKENS};
  random_state random = {12};
  for (const char *const *target = harness_targets(); *target; target++) {
    kernel_harness *h = harness_create(*target);
    for (int i = 0; i < CASES; i++)
      harness_add(h, "router_logits", 3, "i:width", cases[i].width, "i:experts", cases[i].experts, "i:many",
                  (int64_t)(i % 2), "s:dtype", cases[i].dtype, NULL);
    harness_compile(h);
    for (int i = 0; i < CASES; i++) {
      const int64_t width = cases[i].width, experts = cases[i].experts;
      const sluice_dtype dtype = strcmp(cases[i].dtype, "f32") == 0 ? SLUICE_F32 : SLUICE_BF16;
      void *gate = random_elements(&random, SLUICE_F32, (size_t)(experts * width), 0.5);
      for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
        const int32_t tokens = steps[s];
        void *x = random_elements(&random, dtype, (size_t)(tokens * width), 1);
        void *logits = poisoned_elements(SLUICE_F32, (size_t)((tokens + 1) * experts));
        harness_run(h, i, (void *[]){x, gate, logits}, step_sizes(tokens), experts, (tokens + 1) / 2);
        for (int64_t t = 0; t < tokens; t++)
          for (int64_t e = 0; e < experts; e++) {
            double sum = 0, magnitude = 0;
            for (int64_t c = 0; c < width; c++) {
              const double product =
                  element_at(x, dtype, (size_t)(t * width + c)) * element_at(gate, SLUICE_F32, (size_t)(e * width + c));
              sum += product;
              magnitude += fabs(product);
            }
            expect_close(logits, SLUICE_F32, (size_t)(t * experts + e), sum, 1e-6 * magnitude, 0, "router_logits");
          }
        for (int64_t e = 0; e < experts; e++) /* nothing behind the last token */
          assert_true(isnan(element_at(logits, SLUICE_F32, (size_t)(tokens * experts + e))));
        free(x), free(logits);
      }
      free(gate);
    }
    harness_free(h);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(router_logits_are_products), cmocka_unit_test(topk_experts_follows_the_rule),
      cmocka_unit_test(router_multiplies_and_chooses), cmocka_unit_test(sort_experts_groups_slots),
      cmocka_unit_test(route_chooses_and_sorts)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

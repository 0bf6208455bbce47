/* The sample kernel against the definition of docs/sampling.md in plain C and float64. */
#include "kernel_support/kernel_harness.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the definition ---- */

static uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static double uniform(uint64_t seed, int32_t position) {
  const uint64_t step = 0x9e3779b97f4a7c15u;
  return (double)(mix(mix(seed + step) + ((uint64_t)position + 1) * step) >> 12) * 0x1p-52;
}

static int descending(const void *left, const void *right) {
  const float a = *(const float *)left, b = *(const float *)right;
  return a > b ? -1 : a < b;
}

static int32_t greedy(const float *logits, int32_t vocabulary) {
  int32_t best = -1;
  for (int32_t i = 0; i < vocabulary; i++)
    if (!isnan(logits[i]) && (best < 0 || logits[i] > logits[best])) best = i;
  return best < 0 ? 0 : best;
}

/* What the kernel writes for a token that was chosen: -1 - token where a logit of the row is NaN. */
static int32_t written(const float *logits, int32_t vocabulary, int32_t token) {
  for (int32_t i = 0; i < vocabulary; i++)
    if (isnan(logits[i])) return -1 - token;
  return token;
}

/* Changes a row's logits as the kernel does: float32, step by step. */
static void penalise(float *logits, const sluice_sampling_row *row, const sluice_seen_token *seen) {
  for (uint32_t i = 0; i < row->seen_count; i++) {
    const sluice_seen_token entry = seen[row->seen_first + i];
    float *logit = &logits[entry.token];
    *logit = *logit > 0 ? *logit / row->repetition_penalty : *logit * row->repetition_penalty;
    if (entry.count > 0) *logit -= row->presence_penalty + row->frequency_penalty * (float)entry.count;
  }
}

/* The token, or -1 when rounding could decide otherwise. */
static int32_t sample(const float *logits, int32_t vocabulary, const sluice_sampling_row *row) {
  const int32_t best = greedy(logits, vocabulary);
  if (!(row->temperature > 0) || isnan(logits[best])) return best;
  const double near = 1e-5;
  float *sorted = calloc((size_t)vocabulary, sizeof *sorted);
  double *mass = calloc((size_t)vocabulary, sizeof *mass);
  assert_true(sorted && mass);
  int32_t count = 0, result = -1, kept = -1;
  for (int32_t i = 0; i < vocabulary; i++)
    if (!isnan(logits[i])) sorted[count++] = logits[i];
  qsort(sorted, (size_t)count, sizeof *sorted, descending);
  float least = -INFINITY;
  if (row->top_k > 0 && row->top_k < count) least = sorted[row->top_k - 1];
  double total = 0, running = 0;
  float lowest = INFINITY; /* that min_p keeps */
  bool uncertain = false;
  for (int32_t i = 0; i < vocabulary; i++) {
    if (isnan(logits[i]) || logits[i] < least) continue;
    const double distance = logits[i] == logits[best] ? 0 : (double)logits[i] - (double)logits[best];
    mass[i] = exp(distance / (double)row->temperature);
    uncertain = uncertain || (distance != 0 && row->min_p > 0 && fabs(mass[i] - (double)row->min_p) < near);
    if (mass[i] < (double)row->min_p)
      mass[i] = 0;
    else if (row->min_p > 0 && logits[i] < lowest)
      lowest = logits[i];
    total += mass[i];
  }
  if (row->min_p > 0 && lowest > least) least = lowest;
  if (row->top_p > 0 && row->top_p < 1) {
    const double wanted = (double)row->top_p * total;
    for (int32_t n = 0; n < count && sorted[n] >= least;) {
      const float logit = sorted[n];
      for (; n < count && sorted[n] == logit; n++)
        running += exp((logit == logits[best] ? 0 : (double)logit - (double)logits[best]) / (double)row->temperature);
      uncertain = uncertain || fabs(running - wanted) < near * total;
      if (running >= wanted) {
        least = logit;
        break;
      }
    }
  }
  total = running = 0;
  for (int32_t i = 0; i < vocabulary; i++) {
    if (isnan(logits[i]) || logits[i] < least) mass[i] = 0;
    total += mass[i];
  }
  const double target = uniform(row->seed, row->position) * total;
  for (int32_t i = 0; i < vocabulary && result < 0; i++) {
    if (mass[i] <= 0) continue;
    running += mass[i];
    kept = i;
    uncertain = uncertain || fabs(running - target) < near * total;
    if (running > target) result = i;
  }
  free(sorted);
  free(mass);
  return uncertain ? -1 : result < 0 ? kept : result;
}

/* ---- the kernel ---- */

static const int32_t vocabularies[] = {1, 7, 99, 1024, 1025, 5000, 200064};
enum { VOCABULARIES = sizeof vocabularies / sizeof *vocabularies };

static kernel_harness *sample_kernels(const char *target) {
  kernel_harness *h = harness_create(target);
  for (int i = 0; i < VOCABULARIES; i++) harness_add(h, "sample", 3, "i:vocabulary", (int64_t)vocabularies[i], NULL);
  harness_compile(h);
  return h;
}

/* `sampling`: the rows, and behind them what was seen. */
static void run_sample(kernel_harness *h, int kernel, const float *logits, const sluice_sampling_row *sampling,
                       int32_t rows, int32_t *sampled) {
  int32_t sizes[SLUICE_SIZE_COUNT] = {[SLUICE_SIZE_ONE] = 1, [SLUICE_SIZE_ROWS] = rows};
  void *arguments[] = {(void *)(uintptr_t)logits, (void *)(uintptr_t)sampling, sampled};
  sampled[rows] = -7;
  harness_run(h, kernel, arguments, sizes, rows, 1);
  assert_int_equal(sampled[rows], -7);
}

/* Logits with a few large ones; `quantised`: many exact ties. */
static void fill(random_state *random, float *logits, int64_t count, bool quantised) {
  for (int64_t i = 0; i < count; i++) {
    logits[i] = 3 * random_normal(random);
    if (quantised) logits[i] = roundf(logits[i] * 2) / 2;
  }
}

static void greedy_takes_the_first_largest(void **state) {
  (void)state;
  random_state random = {1};
  enum { ROWS = 9 };
  const sluice_sampling_row sampling[ROWS] = {
      {.temperature = 0}, {.temperature = -1, .top_k = 3, .top_p = 0.5f}, {.temperature = NAN}};
  for (const char *const *target = harness_targets(); *target; target++) {
    kernel_harness *h = sample_kernels(*target);
    for (int v = 0; v < VOCABULARIES; v++) {
      const int64_t n = vocabularies[v];
      float *logits = calloc((size_t)(ROWS * n), sizeof *logits);
      assert_non_null(logits);
      fill(&random, logits, 4 * n, false);
      fill(&random, logits + 4 * n, 5 * n, true);
      for (int64_t i = 0; i < n; i++) {
        logits[n + i] = i % 3 ? NAN : logits[n + i];
        logits[2 * n + i] = NAN;
        logits[3 * n + i] = -INFINITY;
        logits[6 * n + i] = i % 2 ? 0.0f : -0.0f;
        logits[7 * n + i] = i == n - 1 ? INFINITY : logits[7 * n + i];
        logits[8 * n + i] = i ? -INFINITY : NAN;
      }
      int32_t found[ROWS + 1];
      run_sample(h, v, logits, sampling, ROWS, found);
      for (int64_t r = 0; r < ROWS; r++) {
        const float *row = logits + r * n;
        assert_int_equal(found[r], written(row, (int32_t)n, greedy(row, (int32_t)n)));
      }
      for (int64_t i = 0; i < n; i += n / 13 + 1) { /* a single NaN, wherever it is */
        const float before = logits[i];
        logits[i] = NAN;
        run_sample(h, v, logits, sampling, 1, found);
        assert_int_equal(found[0], -1 - greedy(logits, (int32_t)n));
        logits[i] = before;
      }
      run_sample(h, v, logits, sampling, 0, found); /* an empty step */
      free(logits);
    }
    harness_free(h);
  }
}

static void drawing_follows_the_definition(void **state) {
  (void)state;
  random_state random = {2};
  static const float temperatures[] = {1, 0.7f, 2.5f, 0.05f}, shares[] = {0, 0.9f, 0.5f, 1, 0.01f, 1.17549435e-38f};
  static const int32_t counts[] = {0, 1, 5, 40, 1000000};
  int compared = 0, uncertain = 0;
  for (const char *const *target = harness_targets(); *target; target++) {
    kernel_harness *h = sample_kernels(*target);
    for (int v = 0; v < VOCABULARIES; v++) {
      const int32_t n = vocabularies[v];
      enum { MOST = 100 };
      const int32_t rows = n > 10000 ? 8 : MOST;
      float *logits = calloc((size_t)rows * (size_t)n, sizeof *logits);
      assert_non_null(logits);
      sluice_sampling_row sampling[MOST];
      int32_t found[MOST + 1];
      for (int32_t r = 0; r < rows; r++) {
        fill(&random, logits + (int64_t)r * n, n, r % 3 == 0);
        sampling[r] = (sluice_sampling_row){.temperature = temperatures[random_between(&random, 0, 3)],
                                            .top_p = shares[random_between(&random, 0, 5)],
                                            .top_k = counts[random_between(&random, 0, 4)],
                                            .position = (int32_t)random_between(&random, 0, INT32_MAX),
                                            .seed = random_bits(&random)};
        for (int32_t i = 0; r % 5 == 1 && i < n; i += 2) logits[(int64_t)r * n + i] = NAN;
        for (int32_t i = 1; r % 7 == 2 && i < n; i += 3) logits[(int64_t)r * n + i] = -INFINITY;
      }
      run_sample(h, v, logits, sampling, rows, found);
      for (int32_t r = 0; r < rows; r++) {
        const int32_t token = sample(logits + (int64_t)r * n, n, &sampling[r]);
        const int32_t expected = written(logits + (int64_t)r * n, n, token);
        compared++;
        uncertain += token < 0;
        if (token >= 0 && found[r] != expected)
          fail_msg("%s, vocabulary %d, row %d (temperature %g, top_k %d, top_p %g): %d, expected %d", *target, n, r,
                   (double)sampling[r].temperature, sampling[r].top_k, (double)sampling[r].top_p, found[r], expected);
      }
      free(logits);
    }
    harness_free(h);
  }
  print_message("%d draws, %d too close to call\n", compared, uncertain);
  assert_true(uncertain * 50 < compared);
}

/* Rows with min_p, and with penalties for tokens that the rows list, more than there are lanes for in some. Logits are
 * changed to the bit. */
static void seen_tokens_are_penalised(void **state) {
  (void)state;
  random_state random = {3};
  static const float least[] = {0, 0.05f, 0.5f, 1}, repetitions[] = {1, 1.3f, 0.8f, 1000}, others[] = {0, 0.7f, -1.5f};
  int compared = 0, uncertain = 0, changed = 0;
  for (const char *const *target = harness_targets(); *target; target++) {
    kernel_harness *h = sample_kernels(*target);
    for (int v = 0; v < VOCABULARIES; v++) {
      const int32_t n = vocabularies[v];
      enum { MOST = 30 };
      const int32_t rows = n > 10000 ? 4 : MOST, listed = n < 3000 ? n : 3000;
      float *logits = calloc((size_t)rows * (size_t)n, sizeof *logits),
            *wanted = malloc((size_t)rows * (size_t)n * sizeof *wanted);
      struct {
        sluice_sampling_row rows[MOST];
        sluice_seen_token seen[MOST * 3000];
      } *input = calloc(1, sizeof *input);
      assert_true(logits && wanted && input);
      sluice_seen_token *seen = (sluice_seen_token *)(void *)&input->rows[rows];
      int32_t found[MOST + 1];
      uint32_t entries = 0;
      for (int32_t r = 0; r < rows; r++) {
        fill(&random, logits + (int64_t)r * n, n, r % 3 == 0);
        sluice_sampling_row *row = &input->rows[r];
        *row = (sluice_sampling_row){.temperature = r % 4 ? 0.8f : 0,
                                     .top_p = r % 5 ? 1 : 0.8f,
                                     .top_k = r % 7 ? 0 : 20,
                                     .position = r,
                                     .seed = random_bits(&random),
                                     .min_p = least[random_between(&random, 0, 3)],
                                     .repetition_penalty = repetitions[random_between(&random, 0, 3)],
                                     .presence_penalty = others[random_between(&random, 0, 2)],
                                     .frequency_penalty = others[random_between(&random, 0, 2)],
                                     .seen_first = entries,
                                     .seen_count = r % 6 ? (uint32_t)random_between(&random, 0, listed) : 0};
        const int32_t step = n / (listed > 0 ? listed : 1); /* apart, so each at most once */
        for (uint32_t i = 0; i < row->seen_count; i++)
          seen[entries++] = (sluice_seen_token){(int32_t)i * step, (int32_t)random_between(&random, 0, 3)};
      }
      memcpy(wanted, logits, (size_t)rows * (size_t)n * sizeof *wanted);
      for (int32_t r = 0; r < rows; r++) penalise(wanted + (int64_t)r * n, &input->rows[r], seen);
      changed += memcmp(wanted, logits, (size_t)rows * (size_t)n * sizeof *wanted) != 0;
      run_sample(h, v, logits, input->rows, rows, found);
      assert_memory_equal(logits, wanted, (size_t)rows * (size_t)n * sizeof *wanted);
      for (int32_t r = 0; r < rows; r++) {
        const int32_t token = sample(wanted + (int64_t)r * n, n, &input->rows[r]);
        compared++;
        uncertain += token < 0;
        if (token >= 0 && found[r] != token)
          fail_msg("%s, vocabulary %d, row %d (min_p %g, repetition %g, %u seen): %d, expected %d", *target, n, r,
                   (double)input->rows[r].min_p, (double)input->rows[r].repetition_penalty, input->rows[r].seen_count,
                   found[r], token);
      }
      free(logits);
      free(wanted);
      free(input);
    }
    harness_free(h);
  }
  print_message("%d rows, %d too close to call\n", compared, uncertain);
  assert_true(uncertain * 20 < compared && changed > 5);
}

/* What the definition says of the ends of its ranges. */
static void extremes_are_defined(void **state) {
  (void)state;
  kernel_harness *h = sample_kernels("host:x86-64");
  enum { ROWS = 64, N = 99, KERNEL = 2 };
  static float logits[ROWS * N];
  sluice_sampling_row sampling[ROWS];
  int32_t found[ROWS + 1];
  static const float cold[] = {1e-6f, 1e-45f, 1e-38f};
  for (int r = 0; r < ROWS; r++) {
    for (int i = 0; i < N; i++) logits[r * N + i] = i % 10 == 4 ? 2.0f : (float)(i % 7) / 8;
    sampling[r] = (sluice_sampling_row){.temperature = 1, .position = r, .seed = 5};
    if (r % 4 == 0) sampling[r].top_k = 1;                     /* ties with the k-th stay */
    if (r % 4 == 1) sampling[r].top_p = 1e-6f;                 /* ties with the last stay */
    if (r % 4 == 2) sampling[r].temperature = cold[r / 4 % 3]; /* only the largest have any mass */
    if (r % 4 == 3)
      for (int i = 4; i < N; i += 10) logits[r * N + i] = INFINITY; /* likewise */
  }
  run_sample(h, KERNEL, logits, sampling, ROWS, found);
  int distinct = 0;
  for (int r = 0; r < ROWS; r++) {
    assert_int_equal(found[r] % 10, 4);
    distinct += r && found[r] != found[0];
  }
  assert_true(distinct > 10); /* all ten were among the choices */

  for (int i = 0; i < ROWS * N; i++) logits[i] = i / N % 2 ? NAN : -INFINITY;
  for (int r = 0; r < ROWS; r++) sampling[r].temperature = r % 3 ? 1 : INFINITY;
  run_sample(h, KERNEL, logits, sampling, ROWS, found);
  for (int r = 0; r < ROWS; r++) {
    if (r % 2)
      assert_int_equal(found[r], -1); /* token 0 of a row with NaN */
    else
      assert_in_range(found[r], 0, N - 1);
  }
  harness_free(h);
}

static void frequencies_match_probabilities(void **state) {
  (void)state;
  kernel_harness *h = sample_kernels("host:x86-64");
  enum { ROWS = 30000, N = 7, KERNEL = 1 };
  static const float one[N] = {0.5f, -1, 2, 1.25f, -3, 0, 1.9f};
  float *logits = calloc(ROWS * N, sizeof *logits);
  sluice_sampling_row *sampling = calloc(ROWS, sizeof *sampling);
  int32_t *found = calloc(ROWS + 1, sizeof *found), counts[N] = {0};
  assert_true(logits && sampling && found);
  for (int r = 0; r < ROWS; r++) {
    memcpy(logits + (size_t)r * N, one, sizeof one);
    /* Half of the rows are one sequence, the others sequences of neighbouring seeds at one position. */
    const bool sequence = r < ROWS / 2;
    sampling[r] =
        (sluice_sampling_row){.temperature = 1.5f, .position = sequence ? r : 3, .seed = sequence ? 42 : (uint64_t)r};
  }
  run_sample(h, KERNEL, logits, sampling, ROWS, found);
  double total = 0;
  for (int i = 0; i < N; i++) total += exp((double)one[i] / 1.5);
  for (int r = 0; r < ROWS; r++) counts[found[r]]++;
  for (int i = 0; i < N; i++) {
    const double p = exp((double)one[i] / 1.5) / total, deviation = sqrt(ROWS * p * (1 - p));
    if (!(fabs(counts[i] - ROWS * p) < 4.5 * deviation))
      fail_msg("token %d: drawn %d times, expected %.0f +- %.0f", i, counts[i], ROWS * p, deviation);
  }
  free(logits);
  free(sampling);
  free(found);
  harness_free(h);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(greedy_takes_the_first_largest), cmocka_unit_test(drawing_follows_the_definition),
      cmocka_unit_test(seen_tokens_are_penalised), cmocka_unit_test(extremes_are_defined),
      cmocka_unit_test(frequencies_match_probabilities)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

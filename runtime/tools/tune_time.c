/* The candidates of one kernel: outputs compared with the default's, then rounds in which each is timed once. */
#include "runtime/tools/run.h"
#include "runtime/tools/tune.h"

#include "sluice/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_ROTATION ((uint64_t)160 << 20) /* where the size of the last cache is unknown */

enum { LEAST_ROUNDS = 7, MOST_ROUNDS = 200 };

/* Sums in another order differ by roundings: of bf16 an element in 2^8, and what of them is in sums. */
#define TOLERANCE 0x1p-6

typedef struct runner {
  bench_group group;
  bench_calls calls;
  bench_recording recording;
  bench_results results;
  double seconds[MOST_ROUNDS]; /* of a call */
  uint32_t rounds;
  bool live;
} runner;

typedef struct tuning {
  const tune_limits *limits;
  runner *runners;
  uint32_t count;
} tuning;

/* ---- Opening and checking ---- */

static double element(const bench_results *results, uint32_t item, uint64_t i) {
  const void *data = results->item[item].data;
  if (results->item[item].dtype == SLUICE_F32) return (double)((const float *)data)[i];
  if (results->item[item].dtype == SLUICE_BF16) return (double)sluice_f32_from_bf16(((const uint16_t *)data)[i]);
  return (double)((const int32_t *)data)[i];
}

/* Whether all elements are within TOLERANCE of the larger of the default's and their root mean square; indices are
 * equal. What the default leaves unwritten nobody has to write. */
static bool is_close(const bench_results *results, const bench_results *expected) {
  if (results->count != expected->count || results->unwritten > expected->unwritten) return false;
  for (uint32_t item = 0; item < results->count; item++) {
    const uint64_t count = expected->item[item].elements;
    if (results->item[item].elements != count || results->item[item].dtype != expected->item[item].dtype) return false;
    const bool exact = expected->item[item].dtype == SLUICE_I32;
    double squares = 0;
    for (uint64_t i = 0; i < count; i++) {
      const double right = element(expected, item, i);
      if (!isnan(right)) squares += right * right;
    }
    const double usual = exact ? 0 : sqrt(squares / (double)(count ? count : 1));
    for (uint64_t i = 0; i < count; i++) {
      const double right = element(expected, item, i), bound = exact ? 0 : TOLERANCE * fmax(fabs(right), usual);
      if (!isnan(right) && !(fabs(element(results, item, i) - right) <= bound)) return false;
    }
  }
  return true;
}

static bool is_exact(const bench_results *results, const bench_results *expected) {
  for (uint32_t item = 0; item < results->count; item++)
    if (memcmp(results->item[item].data, expected->item[item].data,
               (size_t)results->item[item].elements * sluice_dtype_size(results->item[item].dtype)) != 0)
      return false;
  return true;
}

static sluice_status *open_default(const tune_file *file, const tune_entry *entry, bench_random *random, runner *r) {
  sluice_model *model = file->candidates[0].model;
  const uint64_t cache = model->device->cache_bytes;
  SLUICE_TRY(tune_find_group(model, entry, &r->group));
  if (!r->group.count) return sluice_error(SLUICE_INTERNAL, "%s has no launch to time", entry->kernel);
  bench_cost cost = {0};
  for (uint32_t i = 0; i < r->group.count; i++)
    cost.bytes += bench_cost_of(&model->plan, r->group.launches[i], &entry->step, model->plan.header->experts).bytes;
  SLUICE_TRY(bench_calls_create(model, &r->group, &entry->step, random, (uint64_t)cost.bytes,
                                cache ? 4 * cache : DEFAULT_ROTATION, &r->calls));
  SLUICE_TRY(bench_results_take(&r->calls, &r->results));
  /* A shared expert with launches of its own leaves its place among the experts' rows free. */
  if (r->results.unwritten && strcmp(entry->kernel, "expert_gemm") != 0)
    return sluice_error(SLUICE_CHECK_FAILED, "the default of %s left %llu elements unwritten or not a number",
                        entry->kernel, (unsigned long long)r->results.unwritten);
  r->live = true;
  return NULL;
}

static sluice_status *open_other(sluice_model *model, const tune_entry *entry, const runner *usual, runner *r) {
  SLUICE_TRY(tune_find_group(model, entry, &r->group));
  if (!r->group.count) return sluice_error(SLUICE_UNSUPPORTED, "its bundle has no such launch");
  SLUICE_TRY(bench_calls_like(model, &r->group, &usual->calls, &r->calls));
  SLUICE_TRY(bench_results_take(&r->calls, &r->results));
  if (!is_close(&r->results, &usual->results))
    return sluice_error(SLUICE_CHECK_FAILED, "its output differs from the default's");
  r->live = true;
  return NULL;
}

/* A candidate that fails is left out. Not so one whose GPU has failed, which takes no more work at all. */
static sluice_status *open_runners(const tune_file *file, const tune_entry *entry, bench_random *random, tuning *t) {
  SLUICE_TRY(open_default(file, entry, random, &t->runners[0]));
  for (uint32_t i = 1; i < t->count; i++) {
    const tune_entry *own = tune_find_entry(&file->candidates[i], entry);
    if (!own) continue;
    sluice_status *status = open_other(file->candidates[i].model, own, &t->runners[0], &t->runners[i]);
    if (!status) continue;
    if (sluice_status_code(status) == SLUICE_DEVICE) return sluice_annotate(status, "candidate %u", i);
    t->limits->complain(t->limits->user, i, sluice_status_message(status));
    sluice_status_free(status);
  }
  for (uint32_t i = 0; i < t->count; i++)
    if (t->runners[i].live) SLUICE_TRY(bench_record(&t->runners[i].calls, &t->runners[i].recording));
  return NULL;
}

/* ---- Rounds ---- */

static double median_of(const runner *r) {
  double values[MOST_ROUNDS];
  memcpy(values, r->seconds, r->rounds * sizeof *values);
  return bench_median(values, r->rounds);
}

static double spread_of(const runner *r, double median) {
  double values[MOST_ROUNDS];
  for (uint32_t i = 0; i < r->rounds; i++) values[i] = fabs(r->seconds[i] - median);
  return bench_median(values, r->rounds);
}

/* The standard error of the median, of times that are spread normally: 1.2533 sigma / sqrt(n), sigma = 1.4826 spread.
 */
static double error_of(const runner *r, double median) {
  return 1.2533 * 1.4826 * spread_of(r, median) / sqrt(r->rounds);
}

/* Whether `slow` takes longer than `fast` by three standard errors. */
static bool is_slower(const runner *slow, const runner *fast) {
  const double a = median_of(slow), b = median_of(fast), ea = error_of(slow, a), eb = error_of(fast, b);
  return a - b > 3 * sqrt(ea * ea + eb * eb);
}

static uint32_t fastest(const tuning *t) {
  uint32_t best = 0;
  double least = INFINITY;
  for (uint32_t i = 0; i < t->count; i++) {
    const double median = t->runners[i].rounds ? median_of(&t->runners[i]) : INFINITY;
    if (median < least) {
      least = median;
      best = i;
    }
  }
  return best;
}

/* One replay of each that is left, another one first each time. */
static sluice_status *run_round(tuning *t, uint32_t round) {
  for (uint32_t i = 0; i < t->count; i++) {
    runner *r = &t->runners[(i + round) % t->count];
    if (!r->live) continue;
    double seconds;
    SLUICE_TRY(bench_replay(&r->recording, &seconds));
    r->seconds[r->rounds++] = seconds / (double)r->recording.count;
  }
  return NULL;
}

static sluice_status *run_rounds(tuning *t) {
  const double end = tool_now() + t->limits->seconds;
  double ignored;
  for (uint32_t i = 0; i < t->count; i++) /* warm up */
    if (t->runners[i].live) SLUICE_TRY(bench_replay(&t->runners[i].recording, &ignored));
  for (uint32_t round = 0, left = 2; round < MOST_ROUNDS && left > 1; round++) {
    SLUICE_TRY(run_round(t, round));
    if (round + 1 < LEAST_ROUNDS) continue;
    const uint32_t best = fastest(t);
    left = 0;
    for (uint32_t i = 0; i < t->count; i++) {
      runner *r = &t->runners[i];
      if (r->live && i != best && is_slower(r, &t->runners[best])) r->live = false;
      left += r->live;
    }
    if (t->limits->progress) t->limits->progress(t->limits->user, left, median_of(&t->runners[best]) * 1e6);
    if (tool_now() > end) break;
  }
  return NULL;
}

/* ---- The result ---- */

static void hash_output(const bench_results *results, char out_text[17]) {
  uint8_t digest[32], all[BENCH_RESULTS * 32];
  for (uint32_t i = 0; i < results->count; i++)
    sluice_sha256(results->item[i].data, (size_t)results->item[i].elements * sluice_dtype_size(results->item[i].dtype),
                  all + 32 * (size_t)i);
  sluice_sha256(all, 32 * (size_t)results->count, digest);
  for (int i = 0; i < 8; i++) snprintf(out_text + 2 * (size_t)i, 3, "%02x", digest[i]);
}

static void choose(const tuning *t, tune_result *result) {
  const runner *usual = &t->runners[0];
  result->winner = fastest(t);
  const runner *best = &t->runners[result->winner];
  /* not beaten by enough to be sure, or to care */
  if (!is_slower(usual, best) || median_of(best) > 0.99 * median_of(usual)) result->winner = 0;
  best = &t->runners[result->winner];
  result->runner_up = UINT32_MAX;
  result->clear = true;
  double least = INFINITY;
  for (uint32_t i = 0; i < t->count; i++) {
    const runner *r = &t->runners[i];
    if (!r->rounds) continue;
    const double median = median_of(r);
    result->times[i] = (tune_candidate_time){.timed = true,
                                             .exact = is_exact(&r->results, &usual->results),
                                             .median_us = median * 1e6,
                                             .spread_us = spread_of(r, median) * 1e6,
                                             .calls = r->rounds * r->recording.count};
    if (i == result->winner) continue;
    result->clear = result->clear && (result->winner == 0 || is_slower(r, best));
    if (median < least) {
      least = median;
      result->runner_up = i;
    }
  }
  hash_output(&best->results, result->output);
}

sluice_status *tune_time(const tune_file *file, const tune_entry *entry, const tune_limits *limits,
                         bench_random *random, tune_result *out_result) {
  *out_result = (tune_result){.winner = 0};
  tuning t = {.limits = limits, .count = file->count};
  t.runners = sluice_allocate_array(file->count, sizeof *t.runners);
  if (!t.runners) return sluice_out_of_memory();
  bench_cost cost = {0};
  sluice_status *status = open_runners(file, entry, random, &t);
  if (!status) status = run_rounds(&t);
  if (!status) status = bench_calls_cost(&t.runners[0].calls, &cost);
  if (!status) {
    choose(&t, out_result);
    out_result->floor_us = bench_floor_us(&cost, &limits->rates);
  }
  for (uint32_t i = t.count; i-- > 0;) { /* the default's memory last */
    runner *r = &t.runners[i];
    bench_recording_free(&r->recording);
    bench_results_free(&r->results);
    if (r->calls.model) bench_calls_free(&r->calls);
    sluice_release(r->group.launches);
  }
  sluice_release(t.runners);
  return status;
}

/* One kernel: a checked call, then timed calls on rotated copies of everything it touches; the memory's rate. */
#include "runtime/tools/bench.h"
#include "runtime/tools/run.h"

#include "sluice/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_ROTATION ((uint64_t)160 << 20) /* where the size of the last cache is unknown */

/* ---- Costs ---- */

bench_cost bench_cost_of(const sluice_plan *plan, uint32_t index, const bench_shape *shape, double experts) {
  const sluice_plan_launch *launch = &plan->launches[index];
  const sluice_plan_cost *cost = &launch->cost;
  bool by_rows = launch->grid[0].size == SLUICE_SIZE_ROWS || launch->grid[1].size == SLUICE_SIZE_ROWS;
  double sequences = shape->sequences, context = shape->context, tokens = shape->tokens;
  double rows = by_rows ? sequences : sequences * tokens;
  double limit = cost->key_limit ? (double)cost->key_limit : INFINITY;
  double keys = context + tokens;                              /* of a sequence */
  double limited = fmin(keys, fmax(limit, tokens));            /* each token selects its own block, at least */
  double pairs = tokens * context + tokens * (tokens + 1) / 2; /* (token, key it sees) */
  double below = fmin(fmax(limit - context, 0), tokens);       /* tokens that see at most `limit` keys */
  double limited_pairs = isinf(limit) ? pairs : below * context + below * (below + 1) / 2 + (tokens - below) * limit;
  bench_cost result = {.bytes = (double)cost->fixed_bytes, .flops = (double)cost->fixed_flops};
  result.bytes += rows * (double)cost->row_bytes + experts * (double)cost->expert_bytes;
  result.bytes += sequences * (keys * (double)cost->key_bytes + limited * (double)cost->limited_key_bytes);
  result.flops += rows * (double)cost->row_flops;
  result.flops += sequences * (pairs * (double)cost->key_flops + limited_pairs * (double)cost->limited_key_flops);
  return result;
}

static bench_cost cost_of_group(const sluice_plan *plan, const bench_group *group, const bench_shape *shape,
                                double experts) {
  bench_cost sum = {0};
  for (uint32_t i = 0; i < group->count; i++) {
    bench_cost cost = bench_cost_of(plan, group->launches[i], shape, experts);
    sum.bytes += cost.bytes;
    sum.flops += cost.flops;
  }
  return sum;
}

double bench_floor_us(const bench_cost *cost, const bench_rates *rates) {
  double floor = cost->bytes / rates->bytes;
  if (rates->flops > 0) floor = fmax(floor, cost->flops / rates->flops);
  return 1e6 * floor;
}

uint32_t bench_distinct(const int32_t *ids, size_t count, uint32_t experts, unsigned char *hit) {
  uint32_t distinct = 0;
  memset(hit, 0, experts);
  for (size_t i = 0; i < count; i++)
    if (ids[i] >= 0 && (uint32_t)ids[i] < experts) hit[ids[i]] = 1;
  for (uint32_t i = 0; i < experts; i++) distinct += hit[i];
  return distinct;
}

/* Distinct experts of a call, the mean over all copies, as their last calls routed. */
static sluice_status *count_experts(const bench_calls *calls, double *out_experts) {
  sluice_device *device = calls->model->device;
  const sluice_plan_header *header = calls->model->plan.header;
  uint32_t buffer = 0;
  *out_experts = 0;
  if (!bench_calls_experts(calls, &buffer)) return NULL;
  size_t count = (size_t)calls->extents.memory[SLUICE_SIZE_TOKENS] * calls->model->plan.buffers[buffer].width;
  unsigned char *hit = sluice_allocate(header->experts);
  sluice_status *status = hit ? NULL : sluice_out_of_memory();
  const sluice_plan_argument argument = {SLUICE_MEMORY_ARENA, buffer};
  for (uint32_t copy = 0; copy < calls->copies && !status; copy++) {
    status = device->driver->copy_out(device, calls->staging, bench_calls_address(calls, copy, &argument),
                                      count * sizeof(int32_t));
    if (status) break;
    *out_experts += bench_distinct((const int32_t *)(const void *)calls->staging, count, header->experts, hit);
  }
  *out_experts /= calls->copies;
  sluice_release(hit);
  return status;
}

/* ---- Timing ---- */

static int compare_doubles(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double bench_median(double *values, size_t count) {
  qsort(values, count, sizeof *values, compare_doubles);
  return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* Seconds of one call: the median of `repeat` replays of all copies, after one to warm up. */
static sluice_status *time_calls(const bench_calls *calls, uint64_t repeat, bench_result *result) {
  double *seconds = sluice_allocate_array((size_t)repeat + 1, sizeof *seconds);
  if (!seconds) return sluice_out_of_memory();
  bench_recording recording;
  sluice_status *status = bench_record(calls, &recording);
  for (uint64_t i = 0; i <= repeat && !status; i++) status = bench_replay(&recording, &seconds[i]);
  const uint64_t calls_of_replay = recording.count;
  bench_recording_free(&recording);
  if (!status) result->us = 1e6 * bench_median(seconds + 1, (size_t)repeat) / (double)calls_of_replay;
  result->copies = calls->copies;
  result->launches = bench_call_launches(calls);
  result->calls = repeat * calls_of_replay;
  sluice_release(seconds);
  return status;
}

/* One call whose results are looked at. */
static sluice_status *check(const bench_calls *calls, bench_phase phase) {
  bench_results results;
  SLUICE_TRY(bench_results_take(calls, &results));
  const uint64_t unwritten = results.unwritten;
  bench_results_free(&results);
  if (!unwritten) return NULL;
  return sluice_error(SLUICE_CHECK_FAILED, "kernel %s.%s left %llu elements unwritten or not a number",
                      bench_phase_name(phase), calls->group->name, (unsigned long long)unwritten);
}

sluice_status *bench_calls_cost(const bench_calls *calls, bench_cost *out_cost) {
  double experts;
  SLUICE_TRY(count_experts(calls, &experts));
  *out_cost = cost_of_group(&calls->model->plan, calls->group, &calls->shape, experts);
  return NULL;
}

static sluice_status *measure(const bench_calls *calls, bench_phase phase, uint64_t repeat, tool_trace *trace,
                              bench_result *result) {
  double start = tool_now();
  SLUICE_TRY(check(calls, phase));
  tool_trace_event(trace, TOOL_TRACK_BENCH, "check", start, NULL);
  start = tool_now();
  SLUICE_TRY(time_calls(calls, repeat, result));
  tool_trace_event(trace, TOOL_TRACK_BENCH, "time", start, NULL);
  return bench_calls_cost(calls, &result->cost);
}

sluice_status *bench_kernel_run(sluice_model *model, const bench_group *group, bench_phase phase,
                                const bench_shape *shape, uint64_t repeat, bench_random *random, tool_trace *trace,
                                bench_result *out_result) {
  const sluice_plan_header *header = model->plan.header;
  double start = tool_now(), experts = header->experts;
  if (header->experts) /* distinct ones to be expected of random routing */
    experts *= 1 - pow(1 - (double)header->experts_per_token / header->experts,
                       (double)shape->sequences * (double)shape->tokens);
  uint64_t touched = (uint64_t)cost_of_group(&model->plan, group, shape, experts).bytes;
  uint64_t rotation = model->device->cache_bytes ? 4 * model->device->cache_bytes : DEFAULT_ROTATION;
  bench_calls calls;
  SLUICE_TRY(bench_calls_create(model, group, shape, random, touched, rotation, &calls));
  tool_trace_event(trace, TOOL_TRACK_BENCH, "fill", start, NULL);
  sluice_status *status = measure(&calls, phase, repeat, trace, out_result);
  bench_calls_free(&calls);
  char name[80];
  snprintf(name, sizeof name, "%s.%s", bench_phase_name(phase), group->name);
  if (!status) tool_trace_event(trace, TOOL_TRACK_BENCH, name, start, NULL);
  return status;
}

/* ---- The rate of memory ---- */

#define RATE_BYTES ((uint64_t)1 << 30)
#define RATE_REPEATS 9

typedef struct sum_state {
  const uint64_t *data;
  uint64_t *sums; /* of each thread, a cache line apart */
} sum_state;

static void sum_part(void *user, unsigned thread, int64_t first, int64_t last) {
  const sum_state *state = user;
  uint64_t sums[8] = {0};
  for (int64_t i = first; i < last; i++)
    for (int j = 0; j < 8; j++) sums[j] += state->data[8 * i + j];
  for (int j = 0; j < 8; j++) state->sums[8 * thread] += sums[j];
}

static sluice_status *time_reading(sluice_device *device, const void *memory, uint64_t bytes, double *seconds) {
  sum_state state = {.data = memory};
  state.sums = sluice_allocate_array(sluice_threads_count(device->threads), 64);
  if (!state.sums) return sluice_out_of_memory();
  int64_t lines = (int64_t)(bytes / 64);
  for (int i = 0; i < RATE_REPEATS; i++) {
    double start = tool_now();
    sluice_threads_run(device->threads, lines, 1 << 14, sum_part, &state);
    seconds[i] = tool_now() - start;
  }
  sluice_release(state.sums);
  return NULL;
}

static sluice_status *time_copying(sluice_device *device, char *memory, uint64_t bytes, double *seconds) {
  uint64_t half = bytes / 2;
  for (int i = 0; i < RATE_REPEATS; i++) {
    double start = tool_now();
    SLUICE_TRY(device->driver->copy(device, memory + half, memory, half));
    SLUICE_TRY(device->driver->synchronize(device));
    seconds[i] = tool_now() - start;
  }
  return NULL;
}

sluice_status *bench_memory_rate(sluice_model *model, double *out_bytes_per_second) {
  sluice_device *device = model->device;
  uint64_t limit = device->host_memory ? RATE_BYTES / 2 : 8 * RATE_BYTES;
  uint64_t bytes = device->driver->available(device) / 2;
  bytes = (bytes < limit ? bytes : limit) / 4096 * 4096;
  if (!bytes) return sluice_error(SLUICE_OUT_OF_MEMORY, "%s has no memory left to measure its rate", device->name);
  double seconds[RATE_REPEATS];
  void *memory = NULL;
  bench_random *random = NULL;
  SLUICE_TRY(bench_random_create(&random));
  sluice_status *status = device->driver->allocate(device, bytes, &memory);
  if (!status) status = bench_random_fill(random, device, memory, bytes, SLUICE_BF16, 1);
  if (!status)
    status = device->host_memory ? time_reading(device, memory, bytes, seconds)
                                 : time_copying(device, memory, bytes, seconds);
  device->driver->release(device, memory);
  bench_random_free(random);
  if (!status) *out_bytes_per_second = (double)bytes / bench_median(seconds, RATE_REPEATS);
  return status;
}

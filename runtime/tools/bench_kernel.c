/* One kernel: a checked call on poisoned outputs, then timed calls on rotated copies of everything it touches. */
#include "runtime/tools/bench.h"
#include "runtime/tools/run.h"

#include "sluice/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_ROTATION ((uint64_t)160 << 20) /* where the size of the last cache is unknown */
#define GRAPH_CALLS 16u                        /* in a graph, at least, unless they take longer than GRAPH_SECONDS */
#define GRAPH_SECONDS 0.02

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

/* ---- Calling ---- */

static uint64_t grid_extent(const bench_calls *calls, const sluice_plan_extent *extent) {
  return sluice_plan_grid(extent, (uint64_t)calls->extents.sizes[extent->size]);
}

/* What runs as one launch from launch `first` of the group on: a launch, or a join that is all of the group's. */
typedef struct one_launch {
  uint32_t kernel, launches; /* of the group that it is */
  uint32_t argument_count;   /* of these */
  uint64_t grid[2];
} one_launch;

static void find_grid(const bench_calls *calls, const sluice_plan_launch *launch, uint64_t grid[2]) {
  for (int d = 0; d < 2; d++) grid[d] = grid_extent(calls, &launch->grid[d]);
}

static bool find_join(const bench_calls *calls, uint32_t first, one_launch *one) {
  const sluice_plan *plan = &calls->model->plan;
  const uint32_t *launches = calls->group->launches;
  const int32_t *sizes = calls->extents.sizes;
  const sluice_plan_join *join = calls->counters ? sluice_plan_find_join(plan, launches[first], sizes) : NULL;
  if (!join) return false;
  *one = (one_launch){.kernel = join->kernel, .grid = {0, 1}};
  for (uint32_t l = join->first_launch; l < join->first_launch + join->launch_count; l++) {
    if (!sluice_plan_runs(plan, &plan->launches[l], sizes)) continue;
    if (first + one->launches == calls->group->count || launches[first + one->launches] != l) return false;
    uint64_t grid[2];
    find_grid(calls, &plan->launches[l], grid);
    one->grid[0] += grid[0] * grid[1];
    one->argument_count += plan->kernels[plan->launches[l].kernel].argument_count;
    one->launches++;
  }
  return true;
}

static one_launch find_launch(const bench_calls *calls, uint32_t first) {
  one_launch one;
  if (find_join(calls, first, &one)) return one;
  const sluice_plan_launch *launch = &calls->model->plan.launches[calls->group->launches[first]];
  one = (one_launch){.kernel = launch->kernel, .launches = 1};
  one.argument_count = calls->model->plan.kernels[one.kernel].argument_count;
  find_grid(calls, launch, one.grid);
  return one;
}

static uint32_t count_launches(const bench_calls *calls) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < calls->group->count; count++) i += find_launch(calls, i).launches;
  return count;
}

/* Puts the group's launches into the queue, with the sizes of copy `copy`. */
static sluice_status *call(const bench_calls *calls, uint32_t copy, void *const *arguments) {
  sluice_device *device = calls->model->device;
  for (uint32_t i = 0; i < calls->group->count;) {
    const one_launch one = find_launch(calls, i);
    void *joined[SLUICE_JOIN_ARGUMENTS];
    void *const *given = arguments;
    uint32_t count = one.argument_count;
    if (one.launches > 1) {
      memcpy(joined, arguments, count * sizeof *joined);
      joined[count++] = calls->counters;
      given = joined;
    }
    if (one.grid[0] && one.grid[1])
      SLUICE_TRY(device->driver->launch(device, calls->model->code, one.kernel, given, count,
                                        bench_calls_sizes(calls, copy), one.grid));
    arguments += one.argument_count;
    i += one.launches;
  }
  return NULL;
}

static sluice_status *call_all(const bench_calls *calls) {
  for (uint32_t copy = 0; copy < calls->copies; copy++)
    SLUICE_TRY(call(calls, copy, calls->arguments + (size_t)copy * calls->argument_count));
  return NULL;
}

/* ---- Checking ---- */

/* The last operands of a kernel: results that it writes whole, then scratch that it may leave. */
typedef struct last_operands {
  uint32_t results, scratch;
} last_operands;

/* One result where the list does not say otherwise. */
static last_operands last_operands_of(const char *family) {
  static const struct {
    const char *family;
    last_operands last;
  } families[] = {{"router", {2, 0}},         {"topk_experts", {2, 0}},
                  {"route", {2, 0}},          {"select_attention", {2, 0}},
                  {"topk_attention", {2, 0}}, {"norm_rope_append", {2, 0}},
                  {"sort_experts", {3, 0}},   {"cache_append", {0, 0}},
                  {"attention_part", {1, 1}}, {"topk_attention_part", {2, 1}}};
  for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
    if (strcmp(family, families[i].family) == 0) return families[i].last;
  return (last_operands){1, 0};
}

typedef struct checked_output {
  char *memory; /* of the device */
  uint64_t elements;
  sluice_dtype dtype;
} checked_output;

/* No kernel writes this: a NaN, or an integer that is no index. */
static unsigned char poison_of(sluice_dtype dtype) {
  return dtype == SLUICE_I32 ? 0x80 : 0xff;
}

static void describe_output(const bench_calls *calls, const sluice_plan_argument *argument, checked_output *output) {
  const sluice_plan *plan = &calls->model->plan;
  if (argument->memory == SLUICE_MEMORY_OUTPUT) {
    bool logits = argument->index == SLUICE_OUTPUT_LOGITS;
    output->dtype = logits ? SLUICE_F32 : SLUICE_I32;
    output->elements = calls->extents.memory[SLUICE_SIZE_ROWS] * (logits ? plan->header->vocabulary : 1);
    if (argument->index == SLUICE_OUTPUT_LOGPROBS)
      output->elements = calls->extents.memory[SLUICE_SIZE_LOGPROBS] * sizeof(sluice_logprob_row) / sizeof(int32_t);
  } else if (argument->memory == SLUICE_MEMORY_ARENA) {
    const sluice_plan_buffer *buffer = &plan->buffers[argument->index];
    output->dtype = (sluice_dtype)buffer->dtype;
    output->elements = calls->extents.memory[buffer->size] * buffer->width;
  }
}

/* Gives `output` poisoned memory that is not used for anything else, with the room of the argument's. */
static sluice_status *poison(const bench_calls *calls, checked_output *output) {
  sluice_device *device = calls->model->device;
  uint64_t bytes = output->elements * sluice_dtype_size(output->dtype);
  void *host = sluice_allocate_aligned(64, (size_t)bytes), *memory = NULL;
  if (!host) return sluice_out_of_memory();
  memset(host, poison_of(output->dtype), (size_t)bytes);
  sluice_status *status = device->driver->allocate(device, (bytes + 255) / 256 * 256, &memory);
  output->memory = memory;
  if (!status) status = device->driver->copy_in(device, memory, host, bytes);
  sluice_release(host);
  return status;
}

static uint64_t count_unwritten(const checked_output *output, const void *data) {
  uint64_t count = 0;
  for (uint64_t i = 0; i < output->elements; i++) {
    if (output->dtype == SLUICE_F32)
      count += isnan(((const float *)data)[i]) != 0;
    else if (output->dtype == SLUICE_BF16)
      count += (((const uint16_t *)data)[i] & 0x7fff) > 0x7f80;
    else if (output->dtype == SLUICE_I32)
      count += ((const uint32_t *)data)[i] == 0x80808080u;
  }
  return count;
}

static sluice_status *check_output(const bench_calls *calls, const checked_output *output, uint64_t *unwritten) {
  sluice_device *device = calls->model->device;
  uint64_t bytes = output->elements * sluice_dtype_size(output->dtype);
  void *host = sluice_allocate_aligned(64, (size_t)bytes);
  if (!host) return sluice_out_of_memory();
  sluice_status *status = device->driver->copy_out(device, host, output->memory, bytes);
  if (!status) *unwritten += count_unwritten(output, host);
  sluice_release(host);
  return status;
}

/* One call on copy 0, in which the last launch writes its results to memory of their own. */
static sluice_status *check(const bench_calls *calls, bench_phase phase) {
  const sluice_plan *plan = &calls->model->plan;
  sluice_device *device = calls->model->device;
  const sluice_plan_launch *last = &plan->launches[calls->group->launches[calls->group->count - 1]];
  const sluice_plan_kernel *kernel = &plan->kernels[last->kernel];
  last_operands of_last = last_operands_of(sluice_plan_string(plan, kernel->family));
  if (of_last.results + of_last.scratch > kernel->argument_count) of_last = (last_operands){0, 0};
  const uint32_t results = of_last.results, before_end = results + of_last.scratch;
  checked_output outputs[4] = {0};
  void **arguments = sluice_allocate_array(calls->argument_count, sizeof *arguments);
  if (!arguments) return sluice_out_of_memory();
  memcpy(arguments, calls->arguments, calls->argument_count * sizeof *arguments);
  sluice_status *status = NULL;
  for (uint32_t i = 0; i < results && !status; i++) {
    uint32_t argument = kernel->argument_count - before_end + i;
    describe_output(calls, &plan->arguments[last->first_argument + argument], &outputs[i]);
    if (!outputs[i].elements) continue;
    status = poison(calls, &outputs[i]);
    arguments[calls->argument_count - before_end + i] = outputs[i].memory;
  }
  if (!status) status = call(calls, 0, arguments);
  if (!status) status = device->driver->synchronize(device);
  uint64_t unwritten = 0;
  for (uint32_t i = 0; i < results && !status; i++)
    if (outputs[i].elements) status = check_output(calls, &outputs[i], &unwritten);
  for (uint32_t i = 0; i < results; i++) device->driver->release(device, outputs[i].memory);
  sluice_release(arguments);
  if (!status && unwritten)
    status = sluice_error(SLUICE_CHECK_FAILED, "kernel %s.%s left %llu elements unwritten or not a number",
                          bench_phase_name(phase), calls->group->name, (unsigned long long)unwritten);
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

static sluice_status *replay(const bench_calls *calls, sluice_device_graph *graph, double *out_seconds) {
  sluice_device *device = calls->model->device;
  if (graph) return device->driver->time_graph(device, graph, out_seconds);
  double start = tool_now();
  SLUICE_TRY(call_all(calls));
  SLUICE_TRY(device->driver->synchronize(device));
  *out_seconds = tool_now() - start;
  return NULL;
}

/* How often a graph goes through all copies: so often that its own start is a small part, within GRAPH_SECONDS. */
static sluice_status *choose_rounds(const bench_calls *calls, uint32_t *out_rounds) {
  sluice_device *device = calls->model->device;
  double start = tool_now();
  SLUICE_TRY(call(calls, 0, calls->arguments));
  SLUICE_TRY(device->driver->synchronize(device));
  double most = GRAPH_SECONDS / ((tool_now() - start) * calls->copies);
  double rounds = ceil((double)GRAPH_CALLS / calls->copies);
  *out_rounds = (uint32_t)fmax(1, fmin(rounds, most));
  return NULL;
}

/* No graph, and one round, on devices without graphs. */
static sluice_status *record(const bench_calls *calls, sluice_device_graph **out_graph, uint32_t *out_rounds) {
  sluice_device *device = calls->model->device;
  *out_graph = NULL;
  *out_rounds = 1;
  if (!device->driver->graph_begin) return NULL;
  SLUICE_TRY(choose_rounds(calls, out_rounds));
  SLUICE_TRY(device->driver->graph_begin(device));
  sluice_status *status = NULL;
  for (uint32_t i = 0; i < *out_rounds && !status; i++) status = call_all(calls);
  if (!status) return device->driver->graph_end(device, out_graph);
  sluice_status_free(device->driver->graph_end(device, NULL));
  return status;
}

/* Seconds of one call: the median of `repeat` replays of all copies, after one to warm up. */
static sluice_status *time_calls(const bench_calls *calls, uint64_t repeat, bench_result *result) {
  sluice_device *device = calls->model->device;
  double *seconds = sluice_allocate_array((size_t)repeat + 1, sizeof *seconds);
  if (!seconds) return sluice_out_of_memory();
  sluice_device_graph *graph = NULL;
  uint32_t rounds = 1;
  sluice_status *status = record(calls, &graph, &rounds);
  for (uint64_t i = 0; i <= repeat && !status; i++) status = replay(calls, graph, &seconds[i]);
  if (device->driver->graph_release) device->driver->graph_release(device, graph);
  uint64_t calls_of_replay = (uint64_t)calls->copies * rounds;
  if (!status) result->us = 1e6 * bench_median(seconds + 1, (size_t)repeat) / (double)calls_of_replay;
  result->copies = calls->copies;
  result->launches = count_launches(calls);
  result->calls = repeat * calls_of_replay;
  sluice_release(seconds);
  return status;
}

static sluice_status *measure(const bench_calls *calls, bench_phase phase, uint64_t repeat, tool_trace *trace,
                              bench_result *result) {
  double start = tool_now(), experts = 0;
  SLUICE_TRY(check(calls, phase));
  tool_trace_event(trace, TOOL_TRACK_BENCH, "check", start, NULL);
  start = tool_now();
  SLUICE_TRY(time_calls(calls, repeat, result));
  tool_trace_event(trace, TOOL_TRACK_BENCH, "time", start, NULL);
  SLUICE_TRY(count_experts(calls, &experts));
  result->cost = cost_of_group(&calls->model->plan, calls->group, &calls->shape, experts);
  return NULL;
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

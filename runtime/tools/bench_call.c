/* One call of a group: its launches, its results in poisoned memory, and calls on all copies as a recording. */
#include "runtime/tools/bench.h"
#include "runtime/tools/run.h"

#include "sluice/memory.h"

#include <math.h>
#include <string.h>

#define GRAPH_CALLS 16u /* in a graph, at least, unless they take longer than GRAPH_SECONDS */
#define GRAPH_SECONDS 0.02

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

uint32_t bench_call_launches(const bench_calls *calls) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < calls->group->count; count++) i += find_launch(calls, i).launches;
  return count;
}

sluice_status *bench_call(const bench_calls *calls, uint32_t copy, void *const *arguments) {
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
    SLUICE_TRY(bench_call(calls, copy, calls->arguments + (size_t)copy * calls->argument_count));
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

static sluice_status *read_result(const bench_calls *calls, const checked_output *output, bench_results *results) {
  sluice_device *device = calls->model->device;
  uint64_t bytes = output->elements * sluice_dtype_size(output->dtype);
  void *data = sluice_allocate_aligned(64, (size_t)bytes);
  if (!data) return sluice_out_of_memory();
  results->item[results->count].data = data;
  results->item[results->count].elements = output->elements;
  results->item[results->count++].dtype = output->dtype;
  SLUICE_TRY(device->driver->copy_out(device, data, output->memory, bytes));
  results->unwritten += count_unwritten(output, data);
  return NULL;
}

void bench_results_free(bench_results *results) {
  for (uint32_t i = 0; i < results->count; i++) sluice_release(results->item[i].data);
  *results = (bench_results){.count = 0};
}

sluice_status *bench_results_take(const bench_calls *calls, bench_results *out_results) {
  *out_results = (bench_results){.count = 0};
  const sluice_plan *plan = &calls->model->plan;
  sluice_device *device = calls->model->device;
  const sluice_plan_launch *last = &plan->launches[calls->group->launches[calls->group->count - 1]];
  const sluice_plan_kernel *kernel = &plan->kernels[last->kernel];
  last_operands of_last = last_operands_of(sluice_plan_string(plan, kernel->family));
  if (of_last.results + of_last.scratch > kernel->argument_count) of_last = (last_operands){0, 0};
  const uint32_t results = of_last.results, before_end = results + of_last.scratch;
  checked_output outputs[BENCH_RESULTS] = {0};
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
  if (!status) status = bench_call(calls, 0, arguments);
  if (!status) status = device->driver->synchronize(device);
  for (uint32_t i = 0; i < results && !status; i++)
    if (outputs[i].elements) status = read_result(calls, &outputs[i], out_results);
  for (uint32_t i = 0; i < results; i++) device->driver->release(device, outputs[i].memory);
  sluice_release(arguments);
  if (status) bench_results_free(out_results);
  return status;
}

/* ---- Recording ---- */

sluice_status *bench_replay(const bench_recording *recording, double *out_seconds) {
  const bench_calls *calls = recording->calls;
  sluice_device *device = calls->model->device;
  if (recording->graph) return device->driver->time_graph(device, recording->graph, out_seconds);
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
  SLUICE_TRY(bench_call(calls, 0, calls->arguments));
  SLUICE_TRY(device->driver->synchronize(device));
  double most = GRAPH_SECONDS / ((tool_now() - start) * calls->copies);
  double rounds = ceil((double)GRAPH_CALLS / calls->copies);
  *out_rounds = (uint32_t)fmax(1, fmin(rounds, most));
  return NULL;
}

sluice_status *bench_record(const bench_calls *calls, bench_recording *out_recording) {
  sluice_device *device = calls->model->device;
  uint32_t rounds = 1;
  *out_recording = (bench_recording){.calls = calls, .count = calls->copies};
  if (!device->driver->graph_begin) return NULL;
  SLUICE_TRY(choose_rounds(calls, &rounds));
  SLUICE_TRY(device->driver->graph_begin(device));
  sluice_status *status = NULL;
  for (uint32_t i = 0; i < rounds && !status; i++) status = call_all(calls);
  out_recording->count *= rounds;
  if (!status) return device->driver->graph_end(device, &out_recording->graph);
  sluice_status_free(device->driver->graph_end(device, NULL));
  return status;
}

void bench_recording_free(bench_recording *recording) {
  if (!recording->calls) return;
  sluice_device *device = recording->calls->model->device;
  if (device->driver->graph_release) device->driver->graph_release(device, recording->graph);
  *recording = (bench_recording){.graph = NULL};
}

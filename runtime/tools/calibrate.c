/* sluice-run calibrate: the rates and latencies of a machine, as the kernels of a bundle reach them. */
#include "runtime/tools/bench.h"
#include "runtime/tools/options.h"
#include "runtime/tools/run.h"

#include "sluice/file.h"
#include "sluice/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* What kernels reach at best is what the machine gives. */
typedef struct calibration {
  sluice_device_facts facts;
  double copy_bytes, read_bytes, flops; /* a second */
  char read_kernel[80], flop_kernel[80];
  double launch_us, gap_us;
} calibration;

typedef struct calibrator {
  sluice_model *model;
  bench_random *random;
  double end;
  calibration result;
} calibrator;

/* Steps in which some kernel is bound by what is asked for: one token reads weights, thousands multiply. */
static const struct {
  bench_phase phase;
  bench_request request;
} steps[] = {
    {BENCH_DECODE, {1, 512, BENCH_UNSET, BENCH_UNSET}},
    {BENCH_DECODE, {8, 512, BENCH_UNSET, BENCH_UNSET}},
    {BENCH_PREFILL, {1, 0, 512, BENCH_UNSET}},
    {BENCH_PREFILL, {1, 0, 4096, BENCH_UNSET}},
};

static void note(calibration *c, const char *name, const bench_result *result) {
  const double seconds = result->us * 1e-6, bytes = result->cost.bytes / seconds, flops = result->cost.flops / seconds;
  /* What is small stays in a cache. */
  if (result->cost.bytes > 32e6 && bytes > c->read_bytes) {
    c->read_bytes = bytes;
    snprintf(c->read_kernel, sizeof c->read_kernel, "%s", name);
  }
  if (flops > c->flops) {
    c->flops = flops;
    snprintf(c->flop_kernel, sizeof c->flop_kernel, "%s", name);
  }
  const double each = result->us / (result->launches ? result->launches : 1);
  if (!(c->launch_us > 0) || each < c->launch_us) c->launch_us = each;
}

static sluice_status *run_step(calibrator *c, size_t step) {
  enum { REPEAT = 7 };
  const sluice_plan *plan = &c->model->plan;
  bench_shape shape;
  bench_request request = steps[step].request;
  if (request.context != BENCH_UNSET && request.context >= plan->header->max_context)
    request.context = plan->header->max_context / 2;
  if (steps[step].phase == BENCH_PREFILL && request.tokens > plan->header->max_context) return NULL;
  SLUICE_TRY(bench_shape_resolve(&request, steps[step].phase, false, plan, &shape));
  bench_extents extents;
  bench_shape_extents(&shape, plan, bench_runs_as_graph(c->model, &shape), &extents);
  bench_group_list list;
  SLUICE_TRY(bench_groups_all(plan, extents.sizes, &list));
  sluice_status *status = NULL;
  for (uint32_t i = 0; i < list.count && !status; i++) {
    const bench_group *group = &list.groups[i];
    bench_result result;
    char name[80];
    if (tool_now() > c->end && c->result.launch_us > 0) break;
    snprintf(name, sizeof name, "%s.%s", bench_phase_name(steps[step].phase), group->name);
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[Kcalibrating: %s", name);
    status = bench_kernel_run(c->model, group, steps[step].phase, &shape, REPEAT, c->random, NULL, &result);
    if (!status) note(&c->result, name, &result);
    if (!status || sluice_status_code(status) != SLUICE_OUT_OF_MEMORY) continue;
    sluice_status_free(status); /* what has no room here is not what the rates are measured with */
    status = NULL;
  }
  bench_group_list_free(&list);
  return status;
}

/* Copies of a few bytes, each of what the one before wrote: what it takes to begin behind something else. */
static sluice_status *measure_gap(calibrator *c) {
  enum { COPIES = 200, REPEATS = 9 };
  sluice_device *device = c->model->device;
  void *memory = NULL;
  double values[REPEATS];
  SLUICE_TRY(device->driver->allocate(device, 4096, &memory));
  sluice_status *status = NULL;
  for (int r = 0; r < REPEATS && !status; r++) {
    const double start = tool_now();
    for (int i = 0; i < COPIES && !status; i++)
      status = device->driver->copy(device, (char *)memory + 2048 * ((i + 1) % 2), (char *)memory + 2048 * (i % 2), 64);
    if (!status) status = device->driver->synchronize(device);
    values[r] = (tool_now() - start) / (double)COPIES;
  }
  device->driver->release(device, memory);
  if (!status) c->result.gap_us = fmax(1e6 * bench_median(values, REPEATS), 1e-3);
  return status;
}

static sluice_status *write_result(const calibrator *c, const char *path) {
  const calibration *r = &c->result;
  sluice_text text = {0};
  sluice_text_printf(&text, "{\n  \"gpu\": ");
  sluice_text_json_string(&text, r->facts.product);
  sluice_text_printf(&text, ",\n  \"target\": \"%s\",\n  \"driver\": ", c->model->target);
  sluice_text_json_string(&text, r->facts.driver);
  sluice_text_printf(
      &text,
      ",\n  \"processors\": %u,\n  \"clock_mhz\": %u,\n  \"memory_mhz\": %u,\n  \"memory_bytes\": %llu,\n"
      "  \"sluice\": \"%s\",\n",
      r->facts.processors, r->facts.clock_mhz, r->facts.memory_mhz, (unsigned long long)r->facts.memory_bytes,
      sluice_version());
  sluice_text_printf(&text,
                     "  \"copy_gigabytes_second\": %.1f,\n  \"read_gigabytes_second\": %.1f,\n  \"read_by\": \"%s\",\n"
                     "  \"matrix_teraflops\": %.3f,\n  \"matrix_by\": \"%s\",\n  \"launch_us\": %.3f,\n"
                     "  \"gap_us\": %.3f\n}\n",
                     r->copy_bytes * 1e-9, r->read_bytes * 1e-9, r->read_kernel, r->flops * 1e-12, r->flop_kernel,
                     r->launch_us, r->gap_us);
  sluice_status *status = text.failed ? sluice_out_of_memory() : NULL;
  sluice_pending_file file;
  if (!status) status = sluice_pending_open(&file, path);
  if (!status) status = sluice_pending_close(&file, sluice_pending_write(&file, text.data, text.length));
  if (!status) fputs(text.data, stdout);
  sluice_text_free(&text);
  return status;
}

static sluice_status *run(calibrator *c, const char *output) {
  SLUICE_TRY(bench_random_create(&c->random));
  SLUICE_TRY(c->model->device->driver->describe(c->model->device, &c->result.facts));
  SLUICE_TRY(bench_memory_rate(c->model, &c->result.copy_bytes));
  SLUICE_TRY(measure_gap(c));
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) SLUICE_TRY(run_step(c, i));
  if (isatty(STDERR_FILENO)) fputs("\r\033[K", stderr);
  if (!(c->result.read_bytes > 0)) c->result.read_bytes = c->result.copy_bytes;
  return write_result(c, output);
}

sluice_status *command_calibrate(int argc, char **argv) {
  const char *device = NULL, *output = NULL, *file;
  uint64_t threads = 0;
  double seconds = 60;
  const tool_option options[] = {
      {"-o", TOOL_OUTPUT, &output, "FILE", "the rates, for sluice tune --rates"},
      {"--device", TOOL_TEXT, &device, "D", "host, cuda:N, hip:N (host)"},
      {"--seconds", TOOL_REAL, &seconds, "S", "begin no kernel after so many (60)"},
      {"--threads", TOOL_COUNT, &threads, "N", "threads on the host (0: one for each core)"},
  };
  const tool_command command = {
      "sluice-run calibrate FILE.sluice -o GPU.json [options]",
      "Measures the rates of this machine with the kernels of a bundle, for the cost model of \"sluice tune\": memory\n"
      "copied within the device, memory read and arithmetic by the kernels that are best at it, the shortest launch\n"
      "in a graph, and the gap between operations that wait for each other. A bundle of a large model in bfloat16\n"
      "reaches the most.\n",
      options, sizeof options / sizeof options[0]};
  bool help;
  SLUICE_TRY(tool_parse(&command, argc, argv, &file, &help));
  if (help) return NULL;
  if (!output) return sluice_error(SLUICE_USAGE, "-o GPU.json is missing; see --help");
  if (!(seconds > 0)) return sluice_error(SLUICE_USAGE, "--seconds must be positive");
  calibrator c = {.end = tool_now() + seconds};
  SLUICE_TRY(tool_open_model(file, &(tool_model_options){.device = device, .threads = threads}, &c.model));
  sluice_status *status = run(&c, output);
  bench_random_free(c.random);
  sluice_model_close(c.model);
  return status;
}

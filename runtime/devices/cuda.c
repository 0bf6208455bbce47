/* NVIDIA GPUs as a device: code is a cubin or PTX, the queue is one stream, a launch is programmatically dependent on
 * the one before it (every kernel waits for its predecessor before it touches memory, backends/nvptx).
 */
#include "runtime/devices/cuda.h"
#include "runtime/devices/nvtx.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <string.h>

enum { MOST_ARGUMENTS = SLUICE_JOIN_ARGUMENTS + 1 }; /* with the sizes */

typedef struct cuda_device {
  sluice_device base;
  cuda_driver driver;
  int device, capability; /* capability: 90 for 9.0 */
  cuda_context context;   /* NULL until retained */
  bool is_queue;          /* of another device, which owns the driver, the context and the threads */
  cuda_stream stream;
  cuda_stream transfers; /* NULL for a queue */
  cuda_event start, end;
  uint32_t *mark; /* page-locked */
  nvtx_ranges ranges;
} cuda_device;

struct sluice_loaded_code {
  cuda_module module;
  cuda_function *functions; /* as in the plan */
  const sluice_plan *plan;
};

struct sluice_device_graph {
  cuda_graph_exec graph;
};

typedef struct cuda_staging {
  sluice_staging base;
  cuda_event sent;
} cuda_staging;

static cuda_device *of(const sluice_device *device) {
  return (cuda_device *)(uintptr_t)device;
}

/* Makes the device's context current on this thread; its failure shows in the next call. */
static cuda_device *enter(const sluice_device *device) {
  cuda_device *d = of(device);
  (void)d->driver.context_set(d->context);
  return d;
}

#define TRY(call, what) SLUICE_TRY(cuda_check(&d->driver, d->driver.call, what))

/* ---- Memory ---- */

static uint64_t cuda_available(const sluice_device *device) {
  cuda_device *d = enter(device);
  size_t free_bytes = 0, total = 0;
  return d->driver.memory_info(&free_bytes, &total) ? 0 : free_bytes;
}

static sluice_status *cuda_allocate(sluice_device *device, uint64_t bytes, void **out_memory) {
  cuda_device *d = enter(device);
  *out_memory = NULL;
  cuda_pointer memory = 0;
  cuda_result result = d->driver.memory_allocate(&memory, bytes ? (size_t)bytes : 64);
  if (result == CUDA_OUT_OF_MEMORY) {
    size_t free_bytes = 0, total = 0;
    (void)d->driver.memory_info(&free_bytes, &total);
    return sluice_error(SLUICE_OUT_OF_MEMORY, "%s: asked for %llu bytes, %llu of %llu are free", device->name,
                        (unsigned long long)bytes, (unsigned long long)free_bytes, (unsigned long long)total);
  }
  SLUICE_TRY(cuda_check(&d->driver, result, "allocating device memory"));
  *out_memory = (void *)(uintptr_t)memory;
  return NULL;
}

static void cuda_release(sluice_device *device, void *memory) {
  if (memory) (void)enter(device)->driver.memory_free((cuda_pointer)(uintptr_t)memory);
}

static sluice_status *cuda_synchronize(sluice_device *device) {
  cuda_device *d = enter(device);
  return cuda_check(&d->driver, d->driver.stream_synchronize(d->stream), "running the queue");
}

static sluice_status *cuda_enqueue_in(sluice_device *device, void *to, const void *from, uint64_t bytes) {
  cuda_device *d = enter(device);
  if (bytes) TRY(copy_in((cuda_pointer)(uintptr_t)to, from, (size_t)bytes, d->stream), "copying to the device");
  return NULL;
}

static sluice_status *cuda_enqueue_out(sluice_device *device, void *to, const void *from, uint64_t bytes) {
  cuda_device *d = enter(device);
  if (bytes) TRY(copy_out(to, (cuda_pointer)(uintptr_t)from, (size_t)bytes, d->stream), "copying from the device");
  return NULL;
}

static sluice_status *cuda_copy_in(sluice_device *device, void *to, const void *from, uint64_t bytes) {
  SLUICE_TRY(cuda_enqueue_in(device, to, from, bytes));
  return cuda_synchronize(device);
}

static sluice_status *cuda_copy_out(sluice_device *device, void *to, const void *from, uint64_t bytes) {
  SLUICE_TRY(cuda_enqueue_out(device, to, from, bytes));
  return cuda_synchronize(device);
}

static sluice_status *cuda_copy(sluice_device *device, void *to, const void *from, uint64_t bytes) {
  cuda_device *d = enter(device);
  if (bytes)
    TRY(copy((cuda_pointer)(uintptr_t)to, (cuda_pointer)(uintptr_t)from, (size_t)bytes, d->stream),
        "copying within the device");
  return NULL;
}

static sluice_status *cuda_allocate_locked(sluice_device *device, uint64_t bytes, void **out_memory) {
  cuda_device *d = enter(device);
  *out_memory = NULL;
  TRY(host_allocate(out_memory, bytes ? (size_t)bytes : 64, 0), "allocating page-locked host memory");
  return NULL;
}

static void cuda_release_locked(sluice_device *device, void *memory) {
  if (memory) (void)enter(device)->driver.host_free(memory);
}

/* ---- Staging ---- */

static void cuda_staging_release(sluice_device *device, sluice_staging *base) {
  if (!base) return;
  cuda_device *d = enter(device);
  cuda_staging *staging = (cuda_staging *)base;
  if (staging->sent) {
    (void)d->driver.event_synchronize(staging->sent);
    (void)d->driver.event_destroy(staging->sent);
  }
  cuda_release_locked(device, base->memory);
  sluice_release(staging);
}

static sluice_status *cuda_staging_create(sluice_device *device, uint64_t bytes, sluice_staging **out_staging) {
  cuda_device *d = enter(device);
  *out_staging = NULL;
  cuda_staging *staging = sluice_allocate(sizeof *staging);
  if (!staging) return sluice_out_of_memory();
  void *memory = NULL;
  sluice_status *status = cuda_allocate_locked(device, bytes, &memory);
  staging->base.memory = memory;
  if (!status)
    status =
        cuda_check(&d->driver, d->driver.event_create(&staging->sent, CUDA_EVENT_DISABLE_TIMING), "creating an event");
  if (status) {
    cuda_staging_release(device, &staging->base);
    return status;
  }
  *out_staging = &staging->base;
  return NULL;
}

static sluice_status *cuda_staging_send(sluice_device *device, sluice_staging *base, uint64_t offset, void *to,
                                        uint64_t bytes) {
  cuda_device *d = enter(device);
  cuda_staging *staging = (cuda_staging *)base;
  TRY(copy_in((cuda_pointer)(uintptr_t)to, base->memory + offset, (size_t)bytes, d->transfers),
      "copying weights to the device");
  TRY(event_record(staging->sent, d->transfers), "recording an event");
  return NULL;
}

static sluice_status *cuda_staging_wait(sluice_device *device, sluice_staging *base) {
  cuda_device *d = enter(device);
  TRY(event_synchronize(((cuda_staging *)base)->sent), "copying weights to the device");
  return NULL;
}

/* ---- Code ---- */

static unsigned cuda_preference(const sluice_device *device, const char *target) {
  return strcmp(target, device->target) == 0;
}

static void cuda_unload(sluice_device *device, sluice_loaded_code *code) {
  if (!code) return;
  if (code->module) (void)enter(device)->driver.module_unload(code->module);
  sluice_release(code->functions);
  sluice_release(code);
}

/* The cubin, or else the PTX, which the driver translates. */
static sluice_status *load_module(cuda_device *d, const sluice_code_sections *sections, cuda_module *out_module) {
  cuda_result result = CUDA_NO_BINARY_FOR_GPU;
  if (sections->binary) result = d->driver.module_load(out_module, sections->binary, 0, NULL, NULL);
  bool unsuitable = result == CUDA_NO_BINARY_FOR_GPU || result == CUDA_UNSUPPORTED_PTX_VERSION;
  if (!unsuitable || !sections->assembly) return cuda_check(&d->driver, result, "loading the bundle's code");
  char log[2048] = "";
  int names[] = {CUDA_JIT_ERROR_LOG, CUDA_JIT_ERROR_LOG_BYTES};
  void *values[] = {log, (void *)(uintptr_t)sizeof log};
  char *text = sluice_copy_string(sections->assembly, sections->assembly_length);
  if (!text) return sluice_out_of_memory();
  result = d->driver.module_load(out_module, text, 2, names, values);
  sluice_release(text);
  log[sizeof log - 1] = 0;
  log[strcspn(log, "\n")] = 0;
  return sluice_annotate(cuda_check(&d->driver, result, "translating the bundle's PTX"), "%s",
                         log[0] ? log : "the driver's log is empty");
}

/* How much of a processor's memory is shared memory, in percent of the most; the rest is L1 cache. That is changed only
 * while nothing runs there, so a kernel that asks for another part than the one before it starts no workgroup early:
 * all ask for the same, but for those that need the cache more (docs/kernels.md, "One division of memory"). */
enum { USUAL_CARVEOUT = 40, SMALLEST_CARVEOUT = 0 };

static sluice_status *find_functions(cuda_device *d, sluice_loaded_code *code) {
  const sluice_plan *plan = code->plan;
  for (uint32_t i = 0; i < plan->header->kernels.count; i++) {
    const sluice_plan_kernel *kernel = &plan->kernels[i];
    const char *name = sluice_plan_string(plan, kernel->name);
    if (kernel->argument_count >= MOST_ARGUMENTS)
      return sluice_error(SLUICE_INVALID, "kernel \"%s\" has %u arguments, at most %d are possible", name,
                          kernel->argument_count, MOST_ARGUMENTS - 1);
    if (d->driver.module_function(&code->functions[i], code->module, name))
      return sluice_error(SLUICE_INVALID, "the bundle's code lacks the kernel \"%s\" of its plan", name);
    /* Clusters of more than 8 workgroups must be asked for; kernels without clusters do not mind. */
    (void)d->driver.function_attribute(code->functions[i], CUDA_FUNCTION_NON_PORTABLE_CLUSTER, 1);
    const int carveout = kernel->cache_first ? SMALLEST_CARVEOUT : USUAL_CARVEOUT;
    SLUICE_TRY(sluice_annotate(
        cuda_check(&d->driver, d->driver.function_attribute(code->functions[i], CUDA_FUNCTION_CARVEOUT, carveout),
                   "asking for a division of memory"),
        "kernel \"%s\"", name));
    if (kernel->workgroup_bytes > 48 * 1024)
      SLUICE_TRY(
          sluice_annotate(cuda_check(&d->driver,
                                     d->driver.function_attribute(code->functions[i], CUDA_FUNCTION_MAX_DYNAMIC_SHARED,
                                                                  (int)kernel->workgroup_bytes),
                                     "asking for shared memory"),
                          "kernel \"%s\" with %u bytes of workgroup memory", name, kernel->workgroup_bytes));
  }
  return NULL;
}

static sluice_status *cuda_load(sluice_device *device, const sluice_code_sections *sections, const sluice_plan *plan,
                                sluice_loaded_code **out_code) {
  cuda_device *d = enter(device);
  *out_code = NULL;
  sluice_loaded_code *code = sluice_allocate(sizeof *code);
  if (!code) return sluice_out_of_memory();
  code->plan = plan;
  code->functions = sluice_allocate_array((size_t)plan->header->kernels.count, sizeof *code->functions);
  sluice_status *status = code->functions ? load_module(d, sections, &code->module) : sluice_out_of_memory();
  if (!status) status = find_functions(d, code);
  if (status) {
    cuda_unload(device, code);
    return status;
  }
  *out_code = code;
  return NULL;
}

/* ---- Launches ---- */

static sluice_status *cuda_launch(sluice_device *device, sluice_loaded_code *code, uint32_t kernel,
                                  void *const *arguments, uint32_t argument_count, const int32_t *sizes,
                                  const uint64_t grid[2]) {
  cuda_device *d = enter(device);
  if (grid[0] > device->largest_grid[0] || grid[1] > device->largest_grid[1])
    return sluice_error(SLUICE_INVALID, "a launch of %llu x %llu workgroups; %s takes at most %llu x %llu",
                        (unsigned long long)grid[0], (unsigned long long)grid[1], device->name,
                        (unsigned long long)device->largest_grid[0], (unsigned long long)device->largest_grid[1]);
  void *parameters[MOST_ARGUMENTS];
  for (uint32_t i = 0; i < argument_count; i++) parameters[i] = (void *)(uintptr_t)&arguments[i];
  parameters[argument_count] = &sizes;
  cuda_launch_attribute attribute = {.id = CUDA_LAUNCH_PROGRAMMATIC_SERIALIZATION,
                                     .value = {.programmatic_serialization = 1}};
  const cuda_launch_config config = {.grid_x = (unsigned)grid[0],
                                     .grid_y = (unsigned)grid[1],
                                     .grid_z = 1,
                                     .block_x = code->plan->kernels[kernel].lanes,
                                     .block_y = 1,
                                     .block_z = 1,
                                     .shared_bytes = code->plan->kernels[kernel].workgroup_bytes,
                                     .stream = d->stream,
                                     .attributes = &attribute,
                                     .attribute_count = 1};
  return cuda_check(&d->driver, d->driver.launch(&config, code->functions[kernel], parameters, NULL),
                    "launching a kernel");
}

/* ---- Graphs ---- */

static sluice_status *cuda_graph_begin(sluice_device *device) {
  cuda_device *d = enter(device);
  TRY(capture_begin(d->stream, CUDA_CAPTURE_THREAD_LOCAL), "recording a graph");
  return NULL;
}

static sluice_status *cuda_graph_end(sluice_device *device, sluice_device_graph **out_graph) {
  cuda_device *d = enter(device);
  cuda_graph recorded = NULL;
  sluice_device_graph *graph = NULL;
  sluice_status *status = cuda_check(&d->driver, d->driver.capture_end(d->stream, &recorded), "recording a graph");
  if (!status && out_graph) {
    graph = sluice_allocate(sizeof *graph);
    status = graph ? cuda_check(&d->driver, d->driver.graph_instantiate(&graph->graph, recorded, 0), "making a graph")
                   : sluice_out_of_memory();
  }
  if (recorded) (void)d->driver.graph_destroy(recorded);
  if (status) {
    sluice_release(graph);
    graph = NULL;
  }
  if (out_graph) *out_graph = graph;
  return status;
}

static sluice_status *cuda_graph_launch(sluice_device *device, sluice_device_graph *graph) {
  cuda_device *d = enter(device);
  TRY(graph_launch(graph->graph, d->stream), "launching a graph");
  return NULL;
}

static void cuda_graph_release(sluice_device *device, sluice_device_graph *graph) {
  if (!graph) return;
  (void)enter(device)->driver.graph_exec_destroy(graph->graph);
  sluice_release(graph);
}

static sluice_status *cuda_time_graph(sluice_device *device, sluice_device_graph *graph, double *out_seconds) {
  cuda_device *d = enter(device);
  float milliseconds = 0;
  TRY(event_record(d->start, d->stream), "recording an event");
  TRY(graph_launch(graph->graph, d->stream), "launching a graph");
  TRY(event_record(d->end, d->stream), "recording an event");
  TRY(event_synchronize(d->end), "running a graph");
  TRY(event_elapsed(&milliseconds, d->start, d->end), "reading the device's clock");
  *out_seconds = (double)milliseconds * 1e-3;
  return NULL;
}

/* ---- Marks and ranges ---- */

static sluice_status *cuda_mark(sluice_device *device) {
  cuda_device *d = enter(device);
  device->marks++;
  if (!d->driver.write_value) return NULL;
  TRY(write_value(d->stream, (cuda_pointer)(uintptr_t)d->mark, device->marks, 0), "marking the queue");
  return NULL;
}

static uint32_t cuda_last_mark(const sluice_device *device) {
  const cuda_device *d = of(device);
  return d->driver.write_value ? *(volatile uint32_t *)d->mark : device->marks;
}

static void cuda_range_push(sluice_device *device, const char *name) {
  if (of(device)->ranges.push) (void)of(device)->ranges.push(name);
}

static void cuda_range_pop(sluice_device *device) {
  if (of(device)->ranges.pop) (void)of(device)->ranges.pop();
}

/* ---- Opening ---- */

static void cuda_close(sluice_device *device) {
  cuda_device *d = of(device);
  if (d->context) {
    enter(device);
    if (d->mark) (void)d->driver.host_free(d->mark);
    if (d->start) (void)d->driver.event_destroy(d->start);
    if (d->end) (void)d->driver.event_destroy(d->end);
    if (d->stream) (void)d->driver.stream_destroy(d->stream);
    if (d->transfers) (void)d->driver.stream_destroy(d->transfers);
    if (!d->is_queue) (void)d->driver.context_release(d->device);
  }
  if (!d->is_queue) {
    cuda_driver_close(&d->driver);
    if (device->threads) sluice_threads_close(device->threads);
  }
  sluice_release(d);
}

/* What a queue has of its own. */
static sluice_status *create_queue(cuda_device *d) {
  TRY(context_set(d->context), "opening the GPU");
  TRY(stream_create(&d->stream, CUDA_STREAM_NON_BLOCKING), "creating a stream");
  TRY(event_create(&d->start, 0), "creating an event");
  TRY(event_create(&d->end, 0), "creating an event");
  void *mark = NULL;
  TRY(host_allocate(&mark, sizeof *d->mark, 0), "allocating page-locked host memory");
  d->mark = mark;
  *d->mark = 0;
  return NULL;
}

static sluice_status *cuda_open_queue(sluice_device *device, sluice_device **out_queue) {
  *out_queue = NULL;
  cuda_device *queue = sluice_allocate(sizeof *queue);
  if (!queue) return sluice_out_of_memory();
  *queue = *of(device);
  queue->is_queue = true;
  queue->stream = queue->transfers = NULL;
  queue->start = queue->end = NULL;
  queue->mark = NULL;
  queue->base.marks = 0;
  sluice_status *status = create_queue(queue);
  if (status)
    cuda_close(&queue->base);
  else
    *out_queue = &queue->base;
  return status;
}

static const sluice_device_driver cuda_device_driver = {
    .close = cuda_close,
    .open_queue = cuda_open_queue,
    .preference = cuda_preference,
    .available = cuda_available,
    .allocate = cuda_allocate,
    .release = cuda_release,
    .copy_in = cuda_copy_in,
    .copy_out = cuda_copy_out,
    .copy = cuda_copy,
    .load_code = cuda_load,
    .unload_code = cuda_unload,
    .launch = cuda_launch,
    .synchronize = cuda_synchronize,
    .allocate_locked = cuda_allocate_locked,
    .release_locked = cuda_release_locked,
    .enqueue_in = cuda_enqueue_in,
    .enqueue_out = cuda_enqueue_out,
    .staging_create = cuda_staging_create,
    .staging_send = cuda_staging_send,
    .staging_wait = cuda_staging_wait,
    .staging_release = cuda_staging_release,
    .graph_begin = cuda_graph_begin,
    .graph_end = cuda_graph_end,
    .graph_launch = cuda_graph_launch,
    .graph_release = cuda_graph_release,
    .time_graph = cuda_time_graph,
    .mark = cuda_mark,
    .last_mark = cuda_last_mark,
    .range_push = cuda_range_push,
    .range_pop = cuda_range_pop,
};

/* "cuda:sm_90a" where the architecture has instructions of its own ("a"), which is what we build for. */
static void name_device(cuda_device *d, const char *product) {
  const char *suffix = d->capability == 90 ? "a" : "";
  snprintf(d->base.target, sizeof d->base.target, "cuda:sm_%d%s", d->capability, suffix);
  snprintf(d->base.name, sizeof d->base.name, "cuda:sm_%d (%s)", d->capability, product);
}

static sluice_status *open_all(cuda_device *d, const char *library, unsigned index, unsigned threads) {
  SLUICE_TRY(sluice_threads_create(threads, &d->base.threads));
  SLUICE_TRY(cuda_driver_open(library, &d->driver));
  d->ranges = nvtx_find();
  int count = 0, major = 0, minor = 0, cache = 0;
  char product[96] = "";
  TRY(device_count(&count), "counting GPUs");
  if (index >= (unsigned)count)
    return sluice_error(SLUICE_NOT_FOUND, "there is no device cuda:%u: the NVIDIA driver finds %d GPU%s", index, count,
                        count == 1 ? "" : "s");
  TRY(device_get(&d->device, (int)index), "finding the GPU");
  TRY(device_name(product, (int)sizeof product - 1, d->device), "asking for the GPU's name");
  TRY(device_attribute(&major, CUDA_ATTRIBUTE_CAPABILITY_MAJOR, d->device), "asking for the GPU's architecture");
  TRY(device_attribute(&minor, CUDA_ATTRIBUTE_CAPABILITY_MINOR, d->device), "asking for the GPU's architecture");
  TRY(device_attribute(&cache, CUDA_ATTRIBUTE_L2_CACHE_SIZE, d->device), "asking for the GPU's cache");
  d->capability = major * 10 + minor;
  d->base.cache_bytes = (uint64_t)cache;
  d->base.largest_grid[0] = INT32_MAX;
  d->base.largest_grid[1] = UINT16_MAX;
  name_device(d, product);
  TRY(context_retain(&d->context, d->device), "opening the GPU");
  SLUICE_TRY(create_queue(d));
  TRY(stream_create(&d->transfers, CUDA_STREAM_NON_BLOCKING), "creating a stream");
  return NULL;
}

sluice_status *sluice_cuda_open_library(const char *library, unsigned index, unsigned threads,
                                        sluice_device **out_device) {
  *out_device = NULL;
  cuda_device *d = sluice_allocate(sizeof *d);
  if (!d) return sluice_out_of_memory();
  d->base.driver = &cuda_device_driver;
  sluice_status *status = open_all(d, library, index, threads);
  if (status) {
    cuda_close(&d->base);
    return status;
  }
  *out_device = &d->base;
  return NULL;
}

sluice_status *sluice_cuda_open(unsigned index, unsigned threads, sluice_device **out_device) {
  return sluice_cuda_open_library(NULL, index, threads, out_device);
}

/* GPUs as devices, whoever made them: the queue is one stream, a step's graph is a recording of it. */
#include "runtime/devices/gpu.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <string.h>

struct sluice_device_graph {
  gpu_graph_exec graph;
};

typedef struct gpu_staging {
  sluice_staging base;
  gpu_event sent;
} gpu_staging;

static gpu_device *of(const sluice_device *device) {
  return (gpu_device *)(uintptr_t)device;
}

/* Makes the device's context current on this thread; its failure shows in the next call. */
static gpu_device *enter(const sluice_device *device) {
  gpu_device *d = of(device);
  (void)d->vendor->enter(d);
  return d;
}

#define TRY(call, what) SLUICE_TRY(gpu_check(&d->driver, d->driver.call, what))

/* ---- Memory ---- */

static sluice_status *gpu_describe(sluice_device *device, sluice_device_facts *out_facts) {
  gpu_device *d = enter(device);
  *out_facts = (sluice_device_facts){.processors = 0};
  int version = 0, processors = 0, clock = 0, memory_clock = 0;
  size_t free_bytes = 0, total = 0;
  TRY(device_name(out_facts->product, (int)sizeof out_facts->product - 1, d->device), "asking for the GPU's name");
  TRY(driver_version(&version), "asking for the driver's version");
  TRY(device_attribute(&processors, d->vendor->processors_attribute, d->device), "asking for the GPU's processors");
  TRY(device_attribute(&clock, d->vendor->clock_attribute, d->device), "asking for the GPU's clock");
  TRY(device_attribute(&memory_clock, d->vendor->memory_clock_attribute, d->device), "asking for the memory's clock");
  TRY(memory_info(&free_bytes, &total), "asking for the GPU's memory");
  d->vendor->describe_version(version, out_facts->driver, sizeof out_facts->driver);
  out_facts->processors = (uint32_t)processors;
  out_facts->clock_mhz = (uint32_t)clock / 1000;
  out_facts->memory_mhz = (uint32_t)memory_clock / 1000;
  out_facts->memory_bytes = total;
  return NULL;
}

static uint64_t gpu_available(const sluice_device *device) {
  gpu_device *d = enter(device);
  size_t free_bytes = 0, total = 0;
  return d->driver.memory_info(&free_bytes, &total) ? 0 : free_bytes;
}

static sluice_status *gpu_allocate(sluice_device *device, uint64_t bytes, void **out_memory) {
  gpu_device *d = enter(device);
  *out_memory = NULL;
  gpu_pointer memory = 0;
  gpu_result result = d->driver.memory_allocate(&memory, bytes ? (size_t)bytes : 64);
  if (result == GPU_OUT_OF_MEMORY) {
    size_t free_bytes = 0, total = 0;
    (void)d->driver.memory_info(&free_bytes, &total);
    return sluice_error(SLUICE_OUT_OF_MEMORY, "%s: asked for %llu bytes, %llu of %llu are free", device->name,
                        (unsigned long long)bytes, (unsigned long long)free_bytes, (unsigned long long)total);
  }
  SLUICE_TRY(gpu_check(&d->driver, result, "allocating device memory"));
  *out_memory = (void *)(uintptr_t)memory;
  return NULL;
}

static void gpu_release(sluice_device *device, void *memory) {
  if (memory) (void)enter(device)->driver.memory_free((gpu_pointer)(uintptr_t)memory);
}

static sluice_status *gpu_synchronize(sluice_device *device) {
  gpu_device *d = enter(device);
  return gpu_check(&d->driver, d->driver.stream_synchronize(d->stream), "running the queue");
}

static sluice_status *gpu_enqueue_in(sluice_device *device, void *to, const void *from, uint64_t bytes) {
  gpu_device *d = enter(device);
  if (bytes) TRY(copy_in((gpu_pointer)(uintptr_t)to, from, (size_t)bytes, d->stream), "copying to the device");
  return NULL;
}

static sluice_status *gpu_enqueue_out(sluice_device *device, void *to, const void *from, uint64_t bytes) {
  gpu_device *d = enter(device);
  if (bytes) TRY(copy_out(to, (gpu_pointer)(uintptr_t)from, (size_t)bytes, d->stream), "copying from the device");
  return NULL;
}

static sluice_status *gpu_copy_in(sluice_device *device, void *to, const void *from, uint64_t bytes) {
  SLUICE_TRY(gpu_enqueue_in(device, to, from, bytes));
  return gpu_synchronize(device);
}

static sluice_status *gpu_copy_out(sluice_device *device, void *to, const void *from, uint64_t bytes) {
  SLUICE_TRY(gpu_enqueue_out(device, to, from, bytes));
  return gpu_synchronize(device);
}

static sluice_status *gpu_copy(sluice_device *device, void *to, const void *from, uint64_t bytes) {
  gpu_device *d = enter(device);
  if (bytes)
    TRY(copy((gpu_pointer)(uintptr_t)to, (gpu_pointer)(uintptr_t)from, (size_t)bytes, d->stream),
        "copying within the device");
  return NULL;
}

static sluice_status *gpu_allocate_locked(sluice_device *device, uint64_t bytes, void **out_memory) {
  gpu_device *d = enter(device);
  *out_memory = NULL;
  TRY(host_allocate(out_memory, bytes ? (size_t)bytes : 64, 0), "allocating page-locked host memory");
  return NULL;
}

static void gpu_release_locked(sluice_device *device, void *memory) {
  if (memory) (void)enter(device)->driver.host_free(memory);
}

/* ---- Staging ---- */

static void gpu_staging_release(sluice_device *device, sluice_staging *base) {
  if (!base) return;
  gpu_device *d = enter(device);
  gpu_staging *staging = (gpu_staging *)base;
  if (staging->sent) {
    (void)d->driver.event_synchronize(staging->sent);
    (void)d->driver.event_destroy(staging->sent);
  }
  gpu_release_locked(device, base->memory);
  sluice_release(staging);
}

static sluice_status *gpu_staging_create(sluice_device *device, uint64_t bytes, sluice_staging **out_staging) {
  gpu_device *d = enter(device);
  *out_staging = NULL;
  gpu_staging *staging = sluice_allocate(sizeof *staging);
  if (!staging) return sluice_out_of_memory();
  void *memory = NULL;
  sluice_status *status = gpu_allocate_locked(device, bytes, &memory);
  staging->base.memory = memory;
  if (!status)
    status =
        gpu_check(&d->driver, d->driver.event_create(&staging->sent, GPU_EVENT_DISABLE_TIMING), "creating an event");
  if (status) {
    gpu_staging_release(device, &staging->base);
    return status;
  }
  *out_staging = &staging->base;
  return NULL;
}

static sluice_status *gpu_staging_send(sluice_device *device, sluice_staging *base, uint64_t offset, void *to,
                                       uint64_t bytes) {
  gpu_device *d = enter(device);
  gpu_staging *staging = (gpu_staging *)base;
  TRY(copy_in((gpu_pointer)(uintptr_t)to, base->memory + offset, (size_t)bytes, d->transfers),
      "copying weights to the device");
  TRY(event_record(staging->sent, d->transfers), "recording an event");
  return NULL;
}

static sluice_status *gpu_staging_wait(sluice_device *device, sluice_staging *base) {
  gpu_device *d = enter(device);
  TRY(event_synchronize(((gpu_staging *)base)->sent), "copying weights to the device");
  return NULL;
}

/* ---- Code ---- */

static unsigned gpu_preference(const sluice_device *device, const char *target) {
  return strcmp(target, device->target) == 0;
}

static void gpu_unload(sluice_device *device, sluice_loaded_code *code) {
  if (!code) return;
  if (code->module) (void)enter(device)->driver.module_unload(code->module);
  sluice_release(code->functions);
  sluice_release(code);
}

static sluice_status *find_functions(gpu_device *d, sluice_loaded_code *code) {
  const sluice_plan *plan = code->plan;
  for (uint32_t i = 0; i < plan->header->kernels.count; i++) {
    const sluice_plan_kernel *kernel = &plan->kernels[i];
    const char *name = sluice_plan_string(plan, kernel->name);
    if (kernel->argument_count >= GPU_MOST_ARGUMENTS)
      return sluice_error(SLUICE_INVALID, "kernel \"%s\" has %u arguments, at most %d are possible", name,
                          kernel->argument_count, GPU_MOST_ARGUMENTS - 1);
    if (d->driver.module_function(&code->functions[i], code->module, name))
      return sluice_error(SLUICE_INVALID, "the bundle's code lacks the kernel \"%s\" of its plan", name);
    if (d->vendor->prepare) SLUICE_TRY(d->vendor->prepare(d, code->functions[i], kernel, name));
  }
  return NULL;
}

static sluice_status *gpu_load(sluice_device *device, const sluice_code_sections *sections, const sluice_plan *plan,
                               sluice_loaded_code **out_code) {
  gpu_device *d = enter(device);
  *out_code = NULL;
  sluice_loaded_code *code = sluice_allocate(sizeof *code);
  if (!code) return sluice_out_of_memory();
  code->plan = plan;
  code->functions = sluice_allocate_array((size_t)plan->header->kernels.count, sizeof *code->functions);
  sluice_status *status = code->functions ? d->vendor->load(d, sections, &code->module) : sluice_out_of_memory();
  if (!status) status = find_functions(d, code);
  if (status) {
    gpu_unload(device, code);
    return status;
  }
  *out_code = code;
  return NULL;
}

/* ---- Launches ---- */

static sluice_status *gpu_launch(sluice_device *device, sluice_loaded_code *code, uint32_t kernel,
                                 void *const *arguments, uint32_t argument_count, const int32_t *sizes,
                                 const uint64_t grid[2]) {
  gpu_device *d = enter(device);
  if (grid[0] > device->largest_grid[0] || grid[1] > device->largest_grid[1])
    return sluice_error(SLUICE_INVALID, "a launch of %llu x %llu workgroups; %s takes at most %llu x %llu",
                        (unsigned long long)grid[0], (unsigned long long)grid[1], device->name,
                        (unsigned long long)device->largest_grid[0], (unsigned long long)device->largest_grid[1]);
  void *parameters[GPU_MOST_ARGUMENTS];
  for (uint32_t i = 0; i < argument_count; i++) parameters[i] = (void *)(uintptr_t)&arguments[i];
  parameters[argument_count] = &sizes;
  const unsigned of_grid[] = {(unsigned)grid[0], (unsigned)grid[1]};
  return gpu_check(&d->driver,
                   d->vendor->launch(d, code->functions[kernel], &code->plan->kernels[kernel], of_grid, parameters),
                   "launching a kernel");
}

/* ---- Graphs ---- */

static sluice_status *gpu_graph_begin(sluice_device *device) {
  gpu_device *d = enter(device);
  TRY(capture_begin(d->stream, GPU_CAPTURE_THREAD_LOCAL), "recording a graph");
  return NULL;
}

static sluice_status *gpu_graph_end(sluice_device *device, sluice_device_graph **out_graph) {
  gpu_device *d = enter(device);
  gpu_graph recorded = NULL;
  sluice_device_graph *graph = NULL;
  sluice_status *status = gpu_check(&d->driver, d->driver.capture_end(d->stream, &recorded), "recording a graph");
  if (!status && out_graph) {
    graph = sluice_allocate(sizeof *graph);
    status = graph ? gpu_check(&d->driver, d->driver.graph_instantiate(&graph->graph, recorded, 0), "making a graph")
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

static sluice_status *gpu_graph_launch(sluice_device *device, sluice_device_graph *graph) {
  gpu_device *d = enter(device);
  TRY(graph_launch(graph->graph, d->stream), "launching a graph");
  return NULL;
}

static void gpu_graph_release(sluice_device *device, sluice_device_graph *graph) {
  if (!graph) return;
  (void)enter(device)->driver.graph_exec_destroy(graph->graph);
  sluice_release(graph);
}

static sluice_status *gpu_time_graph(sluice_device *device, sluice_device_graph *graph, double *out_seconds) {
  gpu_device *d = enter(device);
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

static sluice_status *gpu_mark(sluice_device *device) {
  gpu_device *d = enter(device);
  device->marks++;
  if (!d->driver.write_value) return NULL;
  TRY(write_value(d->stream, (gpu_pointer)(uintptr_t)d->mark, device->marks, 0), "marking the queue");
  return NULL;
}

static uint32_t gpu_last_mark(const sluice_device *device) {
  const gpu_device *d = of(device);
  return d->driver.write_value ? *(volatile uint32_t *)d->mark : device->marks;
}

static void gpu_range_push(sluice_device *device, const char *name) {
  if (of(device)->ranges.push) (void)of(device)->ranges.push(name);
}

static void gpu_range_pop(sluice_device *device) {
  if (of(device)->ranges.pop) (void)of(device)->ranges.pop();
}

/* ---- Opening ---- */

static void gpu_close(sluice_device *device) {
  gpu_device *d = of(device);
  if (d->opened) {
    enter(device);
    if (d->mark) (void)d->driver.host_free(d->mark);
    if (d->start) (void)d->driver.event_destroy(d->start);
    if (d->end) (void)d->driver.event_destroy(d->end);
    if (d->stream) (void)d->driver.stream_destroy(d->stream);
    if (d->transfers) (void)d->driver.stream_destroy(d->transfers);
    if (!d->is_queue) d->vendor->close(d);
  }
  if (!d->is_queue) {
    gpu_driver_close(&d->driver);
    sluice_release(d->own);
    if (device->threads) sluice_threads_close(device->threads);
  }
  sluice_release(d);
}

/* What a queue has of its own. */
static sluice_status *create_queue(gpu_device *d) {
  SLUICE_TRY(gpu_check(&d->driver, d->vendor->enter(d), "opening the GPU"));
  TRY(stream_create(&d->stream, GPU_STREAM_NON_BLOCKING), "creating a stream");
  TRY(event_create(&d->start, 0), "creating an event");
  TRY(event_create(&d->end, 0), "creating an event");
  void *mark = NULL;
  TRY(host_allocate(&mark, sizeof *d->mark, 0), "allocating page-locked host memory");
  d->mark = mark;
  *d->mark = 0;
  return NULL;
}

static sluice_status *gpu_open_queue(sluice_device *device, sluice_device **out_queue) {
  *out_queue = NULL;
  gpu_device *queue = sluice_allocate(sizeof *queue);
  if (!queue) return sluice_out_of_memory();
  *queue = *of(device);
  queue->is_queue = true;
  queue->stream = queue->transfers = NULL;
  queue->start = queue->end = NULL;
  queue->mark = NULL;
  queue->base.marks = 0;
  sluice_status *status = create_queue(queue);
  if (status)
    gpu_close(&queue->base);
  else
    *out_queue = &queue->base;
  return status;
}

static const sluice_device_driver gpu_device_driver = {
    .close = gpu_close,
    .open_queue = gpu_open_queue,
    .preference = gpu_preference,
    .describe = gpu_describe,
    .available = gpu_available,
    .allocate = gpu_allocate,
    .release = gpu_release,
    .copy_in = gpu_copy_in,
    .copy_out = gpu_copy_out,
    .copy = gpu_copy,
    .load_code = gpu_load,
    .unload_code = gpu_unload,
    .launch = gpu_launch,
    .synchronize = gpu_synchronize,
    .allocate_locked = gpu_allocate_locked,
    .release_locked = gpu_release_locked,
    .enqueue_in = gpu_enqueue_in,
    .enqueue_out = gpu_enqueue_out,
    .staging_create = gpu_staging_create,
    .staging_send = gpu_staging_send,
    .staging_wait = gpu_staging_wait,
    .staging_release = gpu_staging_release,
    .graph_begin = gpu_graph_begin,
    .graph_end = gpu_graph_end,
    .graph_launch = gpu_graph_launch,
    .graph_release = gpu_graph_release,
    .time_graph = gpu_time_graph,
    .mark = gpu_mark,
    .last_mark = gpu_last_mark,
    .range_push = gpu_range_push,
    .range_pop = gpu_range_pop,
};

static sluice_status *open_all(gpu_device *d, const char *library, unsigned index, unsigned threads) {
  SLUICE_TRY(sluice_threads_create(threads, &d->base.threads));
  d->own = sluice_allocate(d->vendor->own_bytes);
  if (!d->own) return sluice_out_of_memory();
  SLUICE_TRY(gpu_driver_open(d->vendor->library, library, d->own, &d->driver));
  d->ranges = nvtx_find();
  int count = 0, cache = 0;
  char product[96] = "";
  TRY(device_count(&count), "counting GPUs");
  if (index >= (unsigned)count)
    return sluice_error(SLUICE_NOT_FOUND, "there is no device %s:%u: the %s finds %d GPU%s", d->vendor->kind, index,
                        d->vendor->library->product, count, count == 1 ? "" : "s");
  TRY(device_get(&d->device, (int)index), "finding the GPU");
  TRY(device_name(product, (int)sizeof product - 1, d->device), "asking for the GPU's name");
  TRY(device_attribute(&cache, d->vendor->cache_attribute, d->device), "asking for the GPU's cache");
  d->base.cache_bytes = (uint64_t)cache;
  for (unsigned i = 0; i < 2; i++) d->base.largest_grid[i] = d->vendor->largest_grid[i];
  d->opened = true;
  SLUICE_TRY(d->vendor->open(d, product));
  SLUICE_TRY(create_queue(d));
  TRY(stream_create(&d->transfers, GPU_STREAM_NON_BLOCKING), "creating a stream");
  return NULL;
}

sluice_status *gpu_open(const gpu_vendor *vendor, const char *library, unsigned index, unsigned threads,
                        sluice_device **out_device) {
  *out_device = NULL;
  gpu_device *d = sluice_allocate(sizeof *d);
  if (!d) return sluice_out_of_memory();
  d->base.driver = &gpu_device_driver;
  d->vendor = vendor;
  sluice_status *status = open_all(d, library, index, threads);
  if (status) {
    gpu_close(&d->base);
    return status;
  }
  *out_device = &d->base;
  return NULL;
}

/* NVIDIA GPUs: code is a cubin or PTX, a launch is programmatically dependent on the one before it (every kernel waits
 * for its predecessor before it touches memory, backends/nvptx).
 */
#include "runtime/devices/cuda.h"
#include "runtime/devices/gpu.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <string.h>

static const gpu_own_entry own_entries[] = {{"cuDevicePrimaryCtxRetain", offsetof(cuda_entries, context_retain)},
                                            {"cuDevicePrimaryCtxRelease_v2", offsetof(cuda_entries, context_release)},
                                            {"cuCtxSetCurrent", offsetof(cuda_entries, context_set)},
                                            {"cuGetErrorName", offsetof(cuda_entries, error_name)},
                                            {"cuGetErrorString", offsetof(cuda_entries, error_text)},
                                            {"cuFuncSetAttribute", offsetof(cuda_entries, function_attribute)},
                                            {"cuLaunchKernelEx", offsetof(cuda_entries, launch)},
                                            {NULL, 0}};

/* ---- The library ---- */

static void describe(const gpu_driver *driver, gpu_result result, const char **out_name, const char **out_text) {
  const cuda_entries *entries = driver->own;
  if (entries->error_name(result, out_name)) *out_name = NULL;
  if (entries->error_text(result, out_text)) *out_text = NULL;
}

static sluice_status *start(gpu_driver *driver) {
  int version = 0;
  SLUICE_TRY(gpu_check(driver, driver->driver_version(&version), "asking for the NVIDIA driver's version"));
  if (version < CUDA_OLDEST_DRIVER)
    return sluice_error(SLUICE_UNSUPPORTED,
                        "the NVIDIA driver supports CUDA %d.%d; CUDA %d.%d (driver 555) or newer is needed: install a "
                        "newer driver",
                        version / 1000, version % 1000 / 10, CUDA_OLDEST_DRIVER / 1000, CUDA_OLDEST_DRIVER % 1000 / 10);
  gpu_result result = driver->init(0);
  if (result == GPU_NO_DEVICE) return sluice_error(SLUICE_NOT_FOUND, "the NVIDIA driver finds no GPU in this machine");
  return gpu_check(driver, result, "starting the NVIDIA driver");
}

static const char *const paths[] = {"libcuda.so.1", "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
                                    "/usr/local/nvidia/lib64/libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1", NULL};

static const gpu_library library = {
    .product = "NVIDIA driver",
    .paths = paths,
    .advice = "install the driver",
    .too_old = "it is older than CUDA 12.5 (driver 555); install a newer driver",
    .own = own_entries,
    .describe = describe,
    .start = start,
};

/* ---- The device ---- */

static const cuda_entries *entries_of(const gpu_device *device) {
  return device->own;
}

/* The target is "cuda:sm_90a" where the architecture has instructions of its own ("a"), which is what we build for. */
static sluice_status *open_device(gpu_device *d, const char *product) {
  int major = 0, minor = 0;
  static const char what[] = "asking for the GPU's architecture";
  SLUICE_TRY(
      gpu_check(&d->driver, d->driver.device_attribute(&major, CUDA_ATTRIBUTE_CAPABILITY_MAJOR, d->device), what));
  SLUICE_TRY(
      gpu_check(&d->driver, d->driver.device_attribute(&minor, CUDA_ATTRIBUTE_CAPABILITY_MINOR, d->device), what));
  const int capability = major * 10 + minor;
  snprintf(d->base.target, sizeof d->base.target, "cuda:sm_%d%s", capability, capability == 90 ? "a" : "");
  snprintf(d->base.name, sizeof d->base.name, "cuda:sm_%d (%s)", capability, product);
  return gpu_check(&d->driver, entries_of(d)->context_retain(&d->context, d->device), "opening the GPU");
}

static void close_device(gpu_device *d) {
  if (d->context) (void)entries_of(d)->context_release(d->device);
}

static gpu_result enter_device(const gpu_device *d) {
  return entries_of(d)->context_set(d->context);
}

/* ---- Code ---- */

/* The cubin, or else the PTX, which the driver translates. */
static sluice_status *load_module(gpu_device *d, const sluice_code_sections *sections, gpu_module *out_module) {
  gpu_result result = GPU_NO_BINARY;
  if (sections->binary) result = d->driver.module_load(out_module, sections->binary, 0, NULL, NULL);
  bool unsuitable = result == GPU_NO_BINARY || result == CUDA_UNSUPPORTED_PTX_VERSION;
  if (!unsuitable || !sections->assembly) return gpu_check(&d->driver, result, "loading the bundle's code");
  char log[2048] = "";
  int names[] = {CUDA_JIT_ERROR_LOG, CUDA_JIT_ERROR_LOG_BYTES};
  void *values[] = {log, (void *)(uintptr_t)sizeof log};
  char *text = sluice_copy_string(sections->assembly, sections->assembly_length);
  if (!text) return sluice_out_of_memory();
  result = d->driver.module_load(out_module, text, 2, names, values);
  sluice_release(text);
  log[sizeof log - 1] = 0;
  log[strcspn(log, "\n")] = 0;
  return sluice_annotate(gpu_check(&d->driver, result, "translating the bundle's PTX"), "%s",
                         log[0] ? log : "the driver's log is empty");
}

/* How much of a processor's memory is shared memory, in percent of the most; the rest is L1 cache. That is changed only
 * while nothing runs there, so a kernel that asks for another part than the one before it starts no workgroup early:
 * all ask for the same, but for those that need the cache more (docs/kernels.md, "One division of memory"). */
enum { USUAL_CARVEOUT = 40, SMALLEST_CARVEOUT = 0, USUAL_SHARED_BYTES = 48 * 1024 };

static sluice_status *prepare(gpu_device *d, gpu_function function, const sluice_plan_kernel *kernel,
                              const char *name) {
  const cuda_entries *entries = entries_of(d);
  /* Clusters of more than 8 workgroups must be asked for; kernels without clusters do not mind. */
  (void)entries->function_attribute(function, CUDA_FUNCTION_NON_PORTABLE_CLUSTER, 1);
  const int carveout = kernel->cache_first ? SMALLEST_CARVEOUT : USUAL_CARVEOUT;
  SLUICE_TRY(
      sluice_annotate(gpu_check(&d->driver, entries->function_attribute(function, CUDA_FUNCTION_CARVEOUT, carveout),
                                "asking for a division of memory"),
                      "kernel \"%s\"", name));
  if (kernel->workgroup_bytes <= USUAL_SHARED_BYTES) return NULL;
  gpu_result result =
      entries->function_attribute(function, CUDA_FUNCTION_MAX_DYNAMIC_SHARED, (int)kernel->workgroup_bytes);
  return sluice_annotate(gpu_check(&d->driver, result, "asking for shared memory"),
                         "kernel \"%s\" with %u bytes of workgroup memory", name, kernel->workgroup_bytes);
}

static gpu_result launch(const gpu_device *d, gpu_function function, const sluice_plan_kernel *kernel,
                         const unsigned grid[2], void **parameters) {
  cuda_launch_attribute attribute = {.id = CUDA_LAUNCH_PROGRAMMATIC_SERIALIZATION,
                                     .value = {.programmatic_serialization = 1}};
  const cuda_launch_config config = {.grid_x = grid[0],
                                     .grid_y = grid[1],
                                     .grid_z = 1,
                                     .block_x = kernel->lanes,
                                     .block_y = 1,
                                     .block_z = 1,
                                     .shared_bytes = kernel->workgroup_bytes,
                                     .stream = d->stream,
                                     .attributes = &attribute,
                                     .attribute_count = 1};
  return entries_of(d)->launch(&config, function, parameters, NULL);
}

static void describe_version(int version, char *out_text, size_t length) {
  snprintf(out_text, length, "CUDA %d.%d", version / 1000, version % 1000 / 10);
}

static const gpu_vendor vendor = {
    .library = &library,
    .kind = "cuda",
    .own_bytes = sizeof(cuda_entries),
    .cache_attribute = CUDA_ATTRIBUTE_L2_CACHE_SIZE,
    .processors_attribute = CUDA_ATTRIBUTE_PROCESSORS,
    .clock_attribute = CUDA_ATTRIBUTE_CLOCK_RATE,
    .memory_clock_attribute = CUDA_ATTRIBUTE_MEMORY_CLOCK_RATE,
    .describe_version = describe_version,
    .largest_grid = {INT32_MAX, UINT16_MAX},
    .open = open_device,
    .close = close_device,
    .enter = enter_device,
    .load = load_module,
    .prepare = prepare,
    .launch = launch,
};

sluice_status *sluice_cuda_open_library(const char *path, unsigned index, unsigned threads,
                                        sluice_device **out_device) {
  return gpu_open(&vendor, path, index, threads, out_device);
}

sluice_status *sluice_cuda_open(unsigned index, unsigned threads, sluice_device **out_device) {
  return sluice_cuda_open_library(NULL, index, threads, out_device);
}

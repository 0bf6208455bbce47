/* AMD GPUs: code is a code object for one processor (gfx942, gfx950), launches of a queue run one after another. Not
 * yet run on hardware: tests execute it over a double of the library that interprets the machine code.
 */
#include "runtime/devices/hip.h"
#include "runtime/devices/gpu.h"
#include "sluice/memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const gpu_own_entry own_entries[] = {{"hipSetDevice", offsetof(hip_entries, set_device)},
                                            {"hipGetErrorName", offsetof(hip_entries, error_name)},
                                            {"hipGetErrorString", offsetof(hip_entries, error_text)},
                                            {"hipGetDeviceProperties", offsetof(hip_entries, properties)},
                                            {"hipDeviceGetPCIBusId", offsetof(hip_entries, bus_id)},
                                            {"hipModuleLaunchKernel", offsetof(hip_entries, launch)},
                                            {NULL, 0}};

/* ---- The library ---- */

static void describe(const gpu_driver *driver, gpu_result result, const char **out_name, const char **out_text) {
  const hip_entries *entries = driver->own;
  *out_name = entries->error_name(result);
  *out_text = entries->error_text(result);
}

static sluice_status *start(gpu_driver *driver) {
  gpu_result result = driver->init(0);
  if (result == GPU_NO_DEVICE || result == HIP_INVALID_DEVICE)
    return sluice_error(SLUICE_NOT_FOUND, "AMD's HIP library finds no GPU in this machine");
  SLUICE_TRY(gpu_check(driver, result, "starting AMD's HIP library"));
  int version = 0;
  SLUICE_TRY(gpu_check(driver, driver->driver_version(&version), "asking for the HIP library's version"));
  if (version >= HIP_OLDEST_VERSION) return NULL;
  return sluice_error(SLUICE_UNSUPPORTED,
                      "the HIP library is version %d.%d; 5.2 or newer is needed: install a newer ROCm",
                      version / 10000000, version / 100000 % 100);
}

/* By the soname of ROCm 7, 6 and 5, then without a version; each from the loader's path and from ROCm's folder. */
static const char *const paths[] = {"libamdhip64.so.7",
                                    "/opt/rocm/lib/libamdhip64.so.7",
                                    "libamdhip64.so.6",
                                    "/opt/rocm/lib/libamdhip64.so.6",
                                    "libamdhip64.so",
                                    "/opt/rocm/lib/libamdhip64.so",
                                    NULL};

static const gpu_library library = {
    .hip = true,
    .product = "HIP library of AMD's driver",
    .paths = paths,
    .advice = "install ROCm 6 or 7",
    .too_old = "it is older than ROCm 5.2; install ROCm 6 or 7",
    .own = own_entries,
    .describe = describe,
    .start = start,
};

/* ---- The device ---- */

static const hip_entries *entries_of(const gpu_device *device) {
  return device->own;
}

/* The processor's name, "gfx942", of "gfx942:sramecc+:xnack-". It is a string somewhere in hipDeviceProp_t, whose
 * layout changes between versions: so it is searched for, in more bytes than any version has. */
static sluice_status *find_processor(gpu_device *d, const char *product, char processor[16]) {
  enum { MORE_BYTES = 16384 };
  char *properties = sluice_allocate(MORE_BYTES);
  if (!properties) return sluice_out_of_memory();
  bool found = false;
  gpu_result result = entries_of(d)->properties(properties, d->device);
  for (const char *at = properties;
       !result && !found && (at = memmem(at, (size_t)(properties + MORE_BYTES - at), "gfx", 3)); at += 3) {
    size_t length = 3 + strspn(at + 3, "0123456789abcdef");
    found = length > 5 && length < 16 && (at[length] == ':' || at[length] == 0);
    if (found) snprintf(processor, 16, "%.*s", (int)length, at);
  }
  sluice_release(properties);
  SLUICE_TRY(gpu_check(&d->driver, result, "asking for the GPU's properties"));
  if (found) return NULL;
  return sluice_error(SLUICE_DEVICE, "the HIP library does not say which processor device hip:%d (%s) has", d->device,
                      product);
}

/* One word from a file that the kernel driver has for the GPU; empty where there is none. */
static void read_word(const char *bus_id, const char *file, char word[16]) {
  char path[128];
  snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/%s", bus_id, file);
  word[0] = 0;
  int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return;
  ssize_t length = read(descriptor, word, 15);
  close(descriptor);
  word[length < 0 ? 0 : length] = 0;
  word[strspn(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")] = 0;
}

/* "CPX, NPS4": how the GPU is divided. In CPX each of its eight dies is a device of its own, with an eighth of the
 * processors and of the memory's rate; with NPS4 a device's memory is a quarter of the whole. SPX and NPS1, all in one
 * piece, are what a large model wants. */
static void find_partition(gpu_device *d, char partition[40]) {
  char bus_id[32] = "", compute[16], memory[16];
  partition[0] = 0;
  if (entries_of(d)->bus_id(bus_id, (int)sizeof bus_id, d->device)) return;
  read_word(bus_id, "current_compute_partition", compute);
  read_word(bus_id, "current_memory_partition", memory);
  if (compute[0]) snprintf(partition, 40, ", %s%s%s", compute, memory[0] ? ", " : "", memory);
}

static gpu_result enter_device(const gpu_device *d) {
  return entries_of(d)->set_device(d->device);
}

static sluice_status *open_device(gpu_device *d, const char *product) {
  char processor[16] = "", partition[40];
  SLUICE_TRY(gpu_check(&d->driver, enter_device(d), "opening the GPU"));
  SLUICE_TRY(find_processor(d, product, processor));
  find_partition(d, partition);
  snprintf(d->base.target, sizeof d->base.target, "hip:%s", processor);
  snprintf(d->base.name, sizeof d->base.name, "hip:%s (%s%s)", processor, product, partition);
  return NULL;
}

static void close_device(gpu_device *d) {
  (void)d;
}

/* ---- Code ---- */

static sluice_status *load_module(gpu_device *d, const sluice_code_sections *sections, gpu_module *out_module) {
  if (!sections->binary)
    return sluice_error(SLUICE_INVALID, "the bundle has a plan but no code for %s", d->base.target);
  gpu_result result = d->driver.module_load(out_module, sections->binary, 0, NULL, NULL);
  return gpu_check(&d->driver, result, "loading the bundle's code");
}

/* Workgroup memory is of a size that the code object states; none is added by the launch. */
static gpu_result launch(const gpu_device *d, gpu_function function, const sluice_plan_kernel *kernel,
                         const unsigned grid[2], void **parameters) {
  return entries_of(d)->launch(function, grid[0], grid[1], 1, kernel->lanes, 1, 1, 0, d->stream, parameters, NULL);
}

static void describe_version(int version, char *out_text, size_t length) {
  snprintf(out_text, length, "HIP %d.%d", version / 10000000, version % 10000000 / 100000);
}

static const gpu_vendor vendor = {
    .library = &library,
    .kind = "hip",
    .own_bytes = sizeof(hip_entries),
    .cache_attribute = HIP_ATTRIBUTE_L2_CACHE_SIZE,
    .processors_attribute = HIP_ATTRIBUTE_PROCESSORS,
    .clock_attribute = HIP_ATTRIBUTE_CLOCK_RATE,
    .memory_clock_attribute = HIP_ATTRIBUTE_MEMORY_CLOCK_RATE,
    .describe_version = describe_version,
    .largest_grid = {UINT32_MAX / 1024, UINT16_MAX}, /* fewer than 2^32 lanes in x, 1024 of a workgroup */
    .open = open_device,
    .close = close_device,
    .enter = enter_device,
    .load = load_module,
    .launch = launch,
};

sluice_status *sluice_hip_open_library(const char *path, unsigned index, unsigned threads, sluice_device **out_device) {
  return gpu_open(&vendor, path, index, threads, out_device);
}

sluice_status *sluice_hip_open(unsigned index, unsigned threads, sluice_device **out_device) {
  return sluice_hip_open_library(NULL, index, threads, out_device);
}

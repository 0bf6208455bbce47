/* What the devices "cuda" and "hip" share (gpu.c): memory, copies, staging, graphs, marks, over the entries that both
 * drivers have (gpu_driver.h). What differs is a table of the vendor's (cuda.c, hip.c).
 */
#ifndef SLUICE_RUNTIME_DEVICES_GPU_H
#define SLUICE_RUNTIME_DEVICES_GPU_H

#include "runtime/device.h"
#include "runtime/devices/gpu_driver.h"
#include "runtime/devices/nvtx.h"

enum { GPU_MOST_ARGUMENTS = SLUICE_JOIN_ARGUMENTS + 1 }; /* of a kernel, with the sizes */

typedef struct gpu_device gpu_device;

struct sluice_loaded_code {
  gpu_module module;
  gpu_function *functions; /* as in the plan */
  const sluice_plan *plan;
};

typedef struct gpu_vendor {
  const gpu_library *library;
  const char *kind; /* "cuda": before the colon in a device's name */
  size_t own_bytes; /* of the vendor's table of entries */
  int cache_attribute;
  int processors_attribute, clock_attribute, memory_clock_attribute; /* clocks in kHz */
  void (*describe_version)(int version, char *out_text, size_t length);
  uint64_t largest_grid[2];
  /* Fills in `target`, `name` and what the vendor keeps in `opened`, from device->device and the product's name. */
  sluice_status *(*open)(gpu_device *device, const char *product);
  void (*close)(gpu_device *device);             /* undoes `open`; also after its failure */
  gpu_result (*enter)(const gpu_device *device); /* makes the GPU the calling thread's */
  sluice_status *(*load)(gpu_device *device, const sluice_code_sections *sections, gpu_module *out_module);
  /* What a kernel needs before its first launch; NULL: nothing. */
  sluice_status *(*prepare)(gpu_device *device, gpu_function function, const sluice_plan_kernel *kernel,
                            const char *name);
  gpu_result (*launch)(const gpu_device *device, gpu_function function, const sluice_plan_kernel *kernel,
                       const unsigned grid[2], void **parameters);
} gpu_vendor;

struct gpu_device {
  sluice_device base;
  const gpu_vendor *vendor;
  gpu_driver driver;
  void *own;     /* the vendor's table of entries */
  void *context; /* for the vendor's use */
  int device;
  bool opened;   /* `open` was called */
  bool is_queue; /* of another device, which owns the driver, the context and the threads */
  gpu_stream stream;
  gpu_stream transfers; /* NULL for a queue */
  gpu_event start, end;
  uint32_t *mark; /* page-locked */
  nvtx_ranges ranges;
};

/* Opens GPU `index`, with the library at `library` (NULL: the system's). */
SLUICE_MUST_USE sluice_status *gpu_open(const gpu_vendor *vendor, const char *library, unsigned index, unsigned threads,
                                        sluice_device **out_device);

/* sluice_cuda_open and sluice_hip_open with the library at `library`, for tests; NULL: the system's. */
SLUICE_MUST_USE sluice_status *sluice_cuda_open_library(const char *library, unsigned index, unsigned threads,
                                                        sluice_device **out_device);
SLUICE_MUST_USE sluice_status *sluice_hip_open_library(const char *library, unsigned index, unsigned threads,
                                                       sluice_device **out_device);

#endif

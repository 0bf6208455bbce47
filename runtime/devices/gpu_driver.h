/* The driver library of a GPU's vendor, opened at run time: our own declarations of the few entries that we use.
 *
 * CUDA's driver API and HIP have nearly the same entries, with the same values and layouts: GPU_ENTRIES lists those
 * that agree in their parameters, once, with both names. What differs is in cuda.c and hip.c. tests/unit/runtime_cuda.c
 * and runtime_hip.c compare the declarations with <cuda.h> and <hip/hip_runtime_api.h> where those headers exist.
 */
#ifndef SLUICE_RUNTIME_DEVICES_GPU_DRIVER_H
#define SLUICE_RUNTIME_DEVICES_GPU_DRIVER_H

#include "sluice/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int gpu_result;
typedef unsigned long long gpu_pointer;
typedef void *gpu_module, *gpu_function, *gpu_stream, *gpu_event, *gpu_graph, *gpu_graph_exec;

/* Values that both have in common. */
enum {
  GPU_SUCCESS = 0,
  GPU_OUT_OF_MEMORY = 2,
  GPU_NO_DEVICE = 100,
  GPU_NO_BINARY = 209, /* the code is not for this GPU */
  GPU_STREAM_NON_BLOCKING = 1,
  GPU_CAPTURE_THREAD_LOCAL = 1,
  GPU_EVENT_DISABLE_TIMING = 2,
};

/* Each entry: name here, in libcuda, in libamdhip64, parameters. */
/* clang-format off */
#define GPU_ENTRIES(entry) \
  entry(init, "cuInit", "hipInit", (unsigned flags)) \
  entry(driver_version, "cuDriverGetVersion", "hipDriverGetVersion", (int *out_version)) \
  entry(device_count, "cuDeviceGetCount", "hipGetDeviceCount", (int *out_count)) \
  entry(device_get, "cuDeviceGet", "hipDeviceGet", (int *out_device, int ordinal)) \
  entry(device_name, "cuDeviceGetName", "hipDeviceGetName", (char *out_name, int length, int device)) \
  entry(device_attribute, "cuDeviceGetAttribute", "hipDeviceGetAttribute", (int *out_value, int attribute, int device)) \
  entry(memory_info, "cuMemGetInfo_v2", "hipMemGetInfo", (size_t *out_free, size_t *out_total)) \
  entry(memory_allocate, "cuMemAlloc_v2", "hipMalloc", (gpu_pointer *out_memory, size_t bytes)) \
  entry(memory_free, "cuMemFree_v2", "hipFree", (gpu_pointer memory)) \
  entry(host_allocate, "cuMemHostAlloc", "hipHostMalloc", (void **out_memory, size_t bytes, unsigned flags)) \
  entry(host_free, "cuMemFreeHost", "hipHostFree", (void *memory)) \
  entry(copy_in, "cuMemcpyHtoDAsync_v2", "hipMemcpyHtoDAsync", \
        (gpu_pointer to, const void *from, size_t bytes, gpu_stream stream)) \
  entry(copy_out, "cuMemcpyDtoHAsync_v2", "hipMemcpyDtoHAsync", \
        (void *to, gpu_pointer from, size_t bytes, gpu_stream stream)) \
  entry(copy, "cuMemcpyDtoDAsync_v2", "hipMemcpyDtoDAsync", \
        (gpu_pointer to, gpu_pointer from, size_t bytes, gpu_stream stream)) \
  entry(stream_create, "cuStreamCreate", "hipStreamCreateWithFlags", (gpu_stream *out_stream, unsigned flags)) \
  entry(stream_destroy, "cuStreamDestroy_v2", "hipStreamDestroy", (gpu_stream stream)) \
  entry(stream_synchronize, "cuStreamSynchronize", "hipStreamSynchronize", (gpu_stream stream)) \
  entry(event_create, "cuEventCreate", "hipEventCreateWithFlags", (gpu_event *out_event, unsigned flags)) \
  entry(event_destroy, "cuEventDestroy_v2", "hipEventDestroy", (gpu_event event)) \
  entry(event_record, "cuEventRecord", "hipEventRecord", (gpu_event event, gpu_stream stream)) \
  entry(event_synchronize, "cuEventSynchronize", "hipEventSynchronize", (gpu_event event)) \
  entry(event_elapsed, "cuEventElapsedTime", "hipEventElapsedTime", \
        (float *out_milliseconds, gpu_event start, gpu_event end)) \
  entry(module_load, "cuModuleLoadDataEx", "hipModuleLoadDataEx", \
        (gpu_module *out_module, const void *image, unsigned options, int *names, void **values)) \
  entry(module_unload, "cuModuleUnload", "hipModuleUnload", (gpu_module module)) \
  entry(module_function, "cuModuleGetFunction", "hipModuleGetFunction", \
        (gpu_function *out_function, gpu_module module, const char *name)) \
  entry(capture_begin, "cuStreamBeginCapture_v2", "hipStreamBeginCapture", (gpu_stream stream, int mode)) \
  entry(capture_end, "cuStreamEndCapture", "hipStreamEndCapture", (gpu_stream stream, gpu_graph *out_graph)) \
  entry(graph_instantiate, "cuGraphInstantiateWithFlags", "hipGraphInstantiateWithFlags", \
        (gpu_graph_exec *out_graph, gpu_graph graph, unsigned long long flags)) \
  entry(graph_launch, "cuGraphLaunch", "hipGraphLaunch", (gpu_graph_exec graph, gpu_stream stream)) \
  entry(graph_destroy, "cuGraphDestroy", "hipGraphDestroy", (gpu_graph graph)) \
  entry(graph_exec_destroy, "cuGraphExecDestroy", "hipGraphExecDestroy", (gpu_graph_exec graph))
/* May be absent. */
#define GPU_OPTIONAL_ENTRIES(entry) \
  entry(write_value, "cuStreamWriteValue32_v2", "hipStreamWriteValue32", \
        (gpu_stream stream, gpu_pointer address, uint32_t value, unsigned flags))
/* clang-format on */

/* An entry that one vendor alone has. */
typedef struct gpu_own_entry {
  const char *symbol;
  size_t offset; /* of the function pointer in the vendor's table */
} gpu_own_entry;

typedef struct gpu_driver gpu_driver;

/* What differs between the libraries. */
typedef struct gpu_library {
  bool hip;                 /* which names of GPU_ENTRIES */
  const char *product;      /* for messages: "NVIDIA driver" */
  const char *const *paths; /* where the library usually is, most wanted first; ends with NULL */
  const char *advice;       /* what to do where there is none */
  const char *too_old;      /* what lacks an entry, and what to do */
  const gpu_own_entry *own; /* ends with a NULL symbol */
  /* Name and text of a result; either may be left NULL. */
  void (*describe)(const gpu_driver *driver, gpu_result result, const char **out_name, const char **out_text);
  /* Checks the version and starts the library. */
  sluice_status *(*start)(gpu_driver *driver);
} gpu_library;

struct gpu_driver {
  const gpu_library *of;
  void *library;
  void *own; /* the vendor's table, where gpu_own_entry.offset points into; belongs to the caller */
#define GPU_ENTRY(name, cuda, hip, parameters) gpu_result(*name) parameters;
  GPU_ENTRIES(GPU_ENTRY)
  GPU_OPTIONAL_ENTRIES(GPU_ENTRY)
#undef GPU_ENTRY
};

/* Opens the library at `path` (NULL: from the usual places), looks up all entries and starts it. SLUICE_NOT_FOUND with
 * every path tried and why; SLUICE_UNSUPPORTED when it is too old; SLUICE_DEVICE when it does not start. Nothing stays
 * open after an error. */
SLUICE_MUST_USE sluice_status *gpu_driver_open(const gpu_library *of, const char *path, void *own,
                                               gpu_driver *out_driver);
void gpu_driver_close(gpu_driver *driver);

/* NULL for success; otherwise an SLUICE_DEVICE error (SLUICE_OUT_OF_MEMORY for that) with what was attempted and the
 * library's name and text of the result. */
SLUICE_MUST_USE sluice_status *gpu_check(const gpu_driver *driver, gpu_result result, const char *what);

#endif

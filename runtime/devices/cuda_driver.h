/* The NVIDIA driver library, opened at run time: our own declarations of the few entries that we use, with the values
 * and layouts of <cuda.h> (tests/unit/cuda_declarations.c compares them where that header exists).
 */
#ifndef SLUICE_RUNTIME_DEVICES_CUDA_DRIVER_H
#define SLUICE_RUNTIME_DEVICES_CUDA_DRIVER_H

#include "sluice/status.h"

#include <stddef.h>
#include <stdint.h>

typedef int cuda_result;
typedef unsigned long long cuda_pointer;
typedef void *cuda_context, *cuda_module, *cuda_function, *cuda_stream, *cuda_event, *cuda_graph, *cuda_graph_exec;

enum {
  CUDA_SUCCESS_ = 0,
  CUDA_OUT_OF_MEMORY = 2,
  CUDA_NO_DEVICE = 100,
  CUDA_NO_BINARY_FOR_GPU = 209,
  CUDA_UNSUPPORTED_PTX_VERSION = 222,
  CUDA_ATTRIBUTE_L2_CACHE_SIZE = 38,
  CUDA_ATTRIBUTE_CAPABILITY_MAJOR = 75,
  CUDA_ATTRIBUTE_CAPABILITY_MINOR = 76,
  CUDA_FUNCTION_MAX_DYNAMIC_SHARED = 8,
  CUDA_FUNCTION_CARVEOUT = 9, /* preferred, in percent of the largest shared memory */
  CUDA_FUNCTION_NON_PORTABLE_CLUSTER = 14,
  CUDA_STREAM_NON_BLOCKING = 1,
  CUDA_CAPTURE_THREAD_LOCAL = 1,
  CUDA_JIT_ERROR_LOG = 5,
  CUDA_JIT_ERROR_LOG_BYTES = 6,
  CUDA_LAUNCH_PROGRAMMATIC_SERIALIZATION = 6,
  CUDA_EVENT_DISABLE_TIMING = 2,
};

typedef struct cuda_launch_attribute {
  int id;
  char padding[4];
  union {
    char bytes[64];
    int programmatic_serialization;
  } value;
} cuda_launch_attribute;

typedef struct cuda_launch_config {
  unsigned grid_x, grid_y, grid_z;
  unsigned block_x, block_y, block_z;
  unsigned shared_bytes;
  cuda_stream stream;
  cuda_launch_attribute *attributes;
  unsigned attribute_count;
} cuda_launch_config;

/* Each entry: name in this table, name in the library, parameters. */
#define CUDA_REQUIRED(entry)                                                                                           \
  entry(init, "cuInit", (unsigned flags)) entry(driver_version, "cuDriverGetVersion", (int *out_version)) entry(       \
      device_count, "cuDeviceGetCount",                                                                                \
      (int *out_count)) entry(device_get, "cuDeviceGet",                                                               \
                              (int *out_device, int ordinal)) entry(device_name, "cuDeviceGetName",                    \
                                                                    (char *out_name, int length, int device))          \
      entry(device_attribute, "cuDeviceGetAttribute", (int *out_value, int attribute, int device)) entry(              \
          context_retain, "cuDevicePrimaryCtxRetain",                                                                  \
          (cuda_context * out_context, int device)) entry(context_release, "cuDevicePrimaryCtxRelease_v2",             \
                                                          (int device)) entry(context_set, "cuCtxSetCurrent",          \
                                                                              (cuda_context context))                  \
          entry(error_name, "cuGetErrorName", (cuda_result result, const char **out_text)) entry(                      \
              error_text,                                                                                              \
              "cuGetErrorString",                                                                                      \
              (cuda_result result,                                                                                     \
               const char **out_text)) entry(memory_info, "cuMemGetInfo_v2", (size_t *out_free, size_t *out_total))    \
              entry(memory_allocate, "cuMemAlloc_v2", (cuda_pointer * out_memory, size_t bytes)) entry(                \
                  memory_free, "cuMemFree_v2",                                                                         \
                  (cuda_pointer memory)) entry(host_allocate, "cuMemHostAlloc",                                        \
                                               (void **out_memory, size_t bytes, unsigned flags))                      \
                  entry(host_free, "cuMemFreeHost", (void *memory)) entry(                                             \
                      copy_in, "cuMemcpyHtoDAsync_v2",                                                                 \
                      (cuda_pointer to, const void *from, size_t bytes, cuda_stream stream))                           \
                      entry(copy_out, "cuMemcpyDtoHAsync_v2",                                                          \
                            (void *to, cuda_pointer from, size_t bytes, cuda_stream stream))                           \
                          entry(copy, "cuMemcpyDtoDAsync_v2",                                                          \
                                (cuda_pointer to, cuda_pointer from, size_t bytes, cuda_stream stream))                \
                              entry(                                                                                   \
                                  stream_create, "cuStreamCreate",                                                     \
                                  (cuda_stream * out_stream,                                                           \
                                   unsigned flags)) entry(stream_destroy, "cuStreamDestroy_v2", (cuda_stream stream))  \
                                  entry(stream_synchronize, "cuStreamSynchronize", (cuda_stream stream)) entry(        \
                                      event_create,                                                                    \
                                      "cuEventCreate",                                                                 \
                                      (cuda_event * out_event,                                                         \
                                       unsigned flags)) entry(event_destroy, "cuEventDestroy_v2", (cuda_event event))  \
                                      entry(event_record, "cuEventRecord", (cuda_event event, cuda_stream stream))     \
                                          entry(event_synchronize, "cuEventSynchronize", (cuda_event event)) entry(    \
                                              event_elapsed, "cuEventElapsedTime",                                     \
                                              (float *out_milliseconds, cuda_event start, cuda_event end))             \
                                              entry(module_load, "cuModuleLoadDataEx",                                 \
                                                    (cuda_module * out_module, const void *image, unsigned options,    \
                                                     int *names,                                                       \
                                                     void **values)) entry(module_unload, "cuModuleUnload",            \
                                                                           (cuda_module module))                       \
                                                  entry(module_function, "cuModuleGetFunction",                        \
                                                        (cuda_function * out_function, cuda_module module,             \
                                                         const char *name))                                            \
                                                      entry(function_attribute, "cuFuncSetAttribute",                  \
                                                            (cuda_function function, int attribute, int value))        \
                                                          entry(launch, "cuLaunchKernelEx",                            \
                                                                (const cuda_launch_config *config,                     \
                                                                 cuda_function function, void **parameters,            \
                                                                 void **extra))                                        \
                                                              entry(capture_begin, "cuStreamBeginCapture_v2",          \
                                                                    (cuda_stream stream, int mode))                    \
                                                                  entry(capture_end, "cuStreamEndCapture",             \
                                                                        (cuda_stream stream, cuda_graph * out_graph))  \
                                                                      entry(graph_instantiate,                         \
                                                                            "cuGraphInstantiateWithFlags",             \
                                                                            (cuda_graph_exec * out_graph,              \
                                                                             cuda_graph graph,                         \
                                                                             unsigned long long flags))                \
                                                                          entry(graph_launch, "cuGraphLaunch",         \
                                                                                (cuda_graph_exec graph,                \
                                                                                 cuda_stream stream))                  \
                                                                              entry(graph_destroy, "cuGraphDestroy",   \
                                                                                    (cuda_graph graph))                \
                                                                                  entry(graph_exec_destroy,            \
                                                                                        "cuGraphExecDestroy",          \
                                                                                        (cuda_graph_exec graph))
#define CUDA_OPTIONAL(entry)                                                                                           \
  entry(write_value, "cuStreamWriteValue32_v2",                                                                        \
        (cuda_stream stream, cuda_pointer address, uint32_t value, unsigned flags))

typedef struct cuda_driver {
  void *library;
#define CUDA_ENTRY(name, symbol, parameters) cuda_result(*name) parameters;
  CUDA_REQUIRED(CUDA_ENTRY)
  CUDA_OPTIONAL(CUDA_ENTRY)
#undef CUDA_ENTRY
} cuda_driver;

/* The oldest driver that runs our code: CUDA 12.3, for PTX 8.3. */
#define CUDA_OLDEST_DRIVER 12030

/* Opens the library at `path` (NULL: libcuda.so.1, from the usual places), looks up all entries and initialises the
 * driver. SLUICE_NOT_FOUND with every path tried and why; SLUICE_UNSUPPORTED when the driver is too old; SLUICE_DEVICE
 * when it does not start. Nothing stays open after an error. */
SLUICE_MUST_USE sluice_status *cuda_driver_open(const char *path, cuda_driver *out_driver);
void cuda_driver_close(cuda_driver *driver);

/* NULL for success; otherwise an SLUICE_DEVICE error (SLUICE_OUT_OF_MEMORY for that) with what was attempted and the
 * driver's name and text of the result. */
SLUICE_MUST_USE sluice_status *cuda_check(const cuda_driver *driver, cuda_result result, const char *what);

#endif

/* What NVIDIA's driver library has besides gpu_driver.h, declared by us. */
#ifndef SLUICE_RUNTIME_DEVICES_CUDA_H
#define SLUICE_RUNTIME_DEVICES_CUDA_H

#include "runtime/devices/gpu_driver.h"

enum {
  CUDA_UNSUPPORTED_PTX_VERSION = 222,
  CUDA_ATTRIBUTE_CLOCK_RATE = 13,
  CUDA_ATTRIBUTE_PROCESSORS = 16,
  CUDA_ATTRIBUTE_MEMORY_CLOCK_RATE = 36,
  CUDA_ATTRIBUTE_L2_CACHE_SIZE = 38,
  CUDA_ATTRIBUTE_CAPABILITY_MAJOR = 75,
  CUDA_ATTRIBUTE_CAPABILITY_MINOR = 76,
  CUDA_FUNCTION_MAX_DYNAMIC_SHARED = 8,
  CUDA_FUNCTION_CARVEOUT = 9, /* preferred, in percent of the largest shared memory */
  CUDA_FUNCTION_NON_PORTABLE_CLUSTER = 14,
  CUDA_JIT_ERROR_LOG = 5,
  CUDA_JIT_ERROR_LOG_BYTES = 6,
  CUDA_LAUNCH_PROGRAMMATIC_SERIALIZATION = 6,
  CUDA_OLDEST_DRIVER = 12050, /* that runs our code: CUDA 12.5, for PTX 8.5 */
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
  gpu_stream stream;
  cuda_launch_attribute *attributes;
  unsigned attribute_count;
} cuda_launch_config;

/* Entries that HIP lacks or has otherwise. */
typedef struct cuda_entries {
  gpu_result (*context_retain)(void **out_context, int device);
  gpu_result (*context_release)(int device);
  gpu_result (*context_set)(void *context);
  gpu_result (*error_name)(gpu_result result, const char **out_text);
  gpu_result (*error_text)(gpu_result result, const char **out_text);
  gpu_result (*function_attribute)(gpu_function function, int attribute, int value);
  gpu_result (*launch)(const cuda_launch_config *config, gpu_function function, void **parameters, void **extra);
} cuda_entries;

#endif

/* What AMD's HIP library has besides gpu_driver.h, declared by us. */
#ifndef SLUICE_RUNTIME_DEVICES_HIP_H
#define SLUICE_RUNTIME_DEVICES_HIP_H

#include "runtime/devices/gpu_driver.h"

enum {
  HIP_INVALID_DEVICE = 101,
  HIP_ATTRIBUTE_CLOCK_RATE = 5,
  HIP_ATTRIBUTE_L2_CACHE_SIZE = 19,
  HIP_ATTRIBUTE_MEMORY_CLOCK_RATE = 60,
  HIP_ATTRIBUTE_PROCESSORS = 63,
  HIP_OLDEST_VERSION = 50200000,
};

/* Entries that CUDA lacks or has otherwise. */
typedef struct hip_entries {
  gpu_result (*set_device)(int device);
  const char *(*error_name)(gpu_result result);
  const char *(*error_text)(gpu_result result);
  gpu_result (*properties)(void *out_properties, int device);
  gpu_result (*bus_id)(char *out_id, int length, int device);
  gpu_result (*launch)(gpu_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                       unsigned block_y, unsigned block_z, unsigned shared_bytes, gpu_stream stream, void **parameters,
                       void **extra);
} hip_entries;

#endif

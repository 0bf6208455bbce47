/* The cuda device over a given driver library, for tests. */
#ifndef SLUICE_RUNTIME_DEVICES_CUDA_H
#define SLUICE_RUNTIME_DEVICES_CUDA_H

#include "runtime/device.h"
#include "runtime/devices/cuda_driver.h"

/* sluice_cuda_open with the library at `library`; NULL: the system's. */
SLUICE_MUST_USE sluice_status *sluice_cuda_open_library(const char *library, unsigned index, unsigned threads,
                                                        sluice_device **out_device);

#endif

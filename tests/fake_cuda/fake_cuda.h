/* A double of the NVIDIA driver: device memory is the host's, "kernels" are host kernels (sluice_host_kernel) of the
 * shared object that stands in for the cubin. What a test wants of it is set through fake_cuda_control, found by dlsym
 * in the library that the runtime has opened.
 */
#ifndef TESTS_FAKE_CUDA_H
#define TESTS_FAKE_CUDA_H

#include "support/driver_double.h"

typedef struct fake_cuda_state {
  DRIVER_DOUBLE_FIELDS
  int version, devices, major, minor; /* of the driver; of its GPUs */
  int refuse_binary;                  /* 1: images that are no PTX do not suit the GPU */
  const char *log;                    /* what translating PTX writes to its log; with it, translating fails */
  /* What happened. */
  int graph_launches, captures; /* graphs run; recordings begun */
  int copies_in, copies_out;    /* run outside of graphs */
  unsigned last_grid[2], last_block, last_shared;
  int last_carveout, divisions; /* of the last launch; how many launches had another one than the launch before */
  /* As a profiler: the library is one for NVTX, too. */
  int ranges, open_ranges;   /* begun; begun and not yet ended */
  char outer[32], inner[32]; /* names of the last ones at depth 0 and 1 */
} fake_cuda_state;

/* Back to a working driver with one H100; counts of what happened to zero, but not `live`. */
typedef fake_cuda_state *fake_cuda_control_function(void);

#endif

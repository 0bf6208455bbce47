/* What the runtime asks of a device. One driver for each kind of device; the session knows no other details.
 *
 * A driver extends `sluice_device` by its own state. Entries marked "optional" are NULL on devices without.
 *
 * A `sluice_device` is a queue for launches, `copy`, `enqueue_in`, `enqueue_out` and graphs: what is put in runs in
 * order, and the functions may return before it is done. All other functions are complete when they return. The model
 * opens a device; each session then opens a queue of its own on it (open_queue), with the same memory and code.
 *
 * Threads: functions are called with one queue from one thread at a time, but for staging_send and staging_wait, and
 * with different queues of a device from any threads at once. Code is loaded while there are no other queues. A device
 * without open_queue has functions that any number of threads may call at once.
 */
#ifndef SLUICE_RUNTIME_DEVICE_H
#define SLUICE_RUNTIME_DEVICE_H

#include "runtime/threads.h"
#include "sluice/plan.h"
#include "sluice/status.h"

#include <stdbool.h>

typedef struct sluice_device sluice_device;
typedef struct sluice_loaded_code sluice_loaded_code;   /* loaded code of one plan; defined by each driver */
typedef struct sluice_device_graph sluice_device_graph; /* recorded work; defined by each driver */

/* The code sections of a bundle for one target; `binary` or `assembly` may be absent (NULL). */
typedef struct sluice_code_sections {
  const void *binary;
  size_t binary_length;
  const char *assembly; /* not terminated */
  size_t assembly_length;
} sluice_code_sections;

/* Page-locked host memory from which the device copies at the bus's speed while the host goes on. A driver extends it.
 */
typedef struct sluice_staging {
  char *memory;
} sluice_staging;

/* What a device is, for records of what was measured on it; 0: unknown. */
typedef struct sluice_device_facts {
  char product[96];               /* "NVIDIA H200"; of a host its CPU */
  char driver[64];                /* "CUDA 12.8": what its driver supports; of a host its kernel */
  uint32_t processors;            /* of a host its threads */
  uint32_t clock_mhz, memory_mhz; /* the highest */
  uint64_t memory_bytes;
} sluice_device_facts;

typedef struct sluice_device_driver {
  void (*close)(sluice_device *device);

  /* Another queue on the device; closed before it. Optional. */
  sluice_status *(*open_queue)(sluice_device *device, sluice_device **out_queue);

  /* How well the device runs code built for `target`: 0 not at all, otherwise larger is better. */
  unsigned (*preference)(const sluice_device *device, const char *target);

  sluice_status *(*describe)(sluice_device *device, sluice_device_facts *out_facts);

  /* Bytes that can still be allocated. */
  uint64_t (*available)(const sluice_device *device);

  /* Memory of the device, aligned to 64 bytes at least, contents undefined. */
  sluice_status *(*allocate)(sluice_device *device, uint64_t bytes, void **out_memory);
  void (*release)(sluice_device *device, void *memory); /* NULL is allowed */
  /* Ordinary copies, after all that is in the queue. */
  sluice_status *(*copy_in)(sluice_device *device, void *device_memory, const void *host_memory, uint64_t bytes);
  sluice_status *(*copy_out)(sluice_device *device, void *host_memory, const void *device_memory, uint64_t bytes);
  /* Within the device, in the queue. */
  sluice_status *(*copy)(sluice_device *device, void *to, const void *from, uint64_t bytes);

  /* Loads the code of a plan and looks up every kernel of it. */
  sluice_status *(*load_code)(sluice_device *device, const sluice_code_sections *sections, const sluice_plan *plan,
                              sluice_loaded_code **out_code);
  void (*unload_code)(sluice_device *device, sluice_loaded_code *code); /* NULL is allowed */

  /* Puts kernel `kernel` of the plan over grid[0] x grid[1] workgroups (at least one) into the queue. `arguments` are
   * addresses in device memory, and so is `sizes`: the kernel reads the step's SLUICE_SIZE_COUNT sizes when it runs. */
  sluice_status *(*launch)(sluice_device *device, sluice_loaded_code *code, uint32_t kernel, void *const *arguments,
                           uint32_t argument_count, const int32_t *sizes, const uint64_t grid[2]);
  /* Waits until the queue is empty. */
  sluice_status *(*synchronize)(sluice_device *device);

  /* ---- Devices with memory of their own; all NULL on those with the host's ---- */

  /* Page-locked host memory. Without it, and when the system refuses it, there is an error: there is no fallback. */
  sluice_status *(*allocate_locked)(sluice_device *device, uint64_t bytes, void **out_memory);
  void (*release_locked)(sluice_device *device, void *memory); /* NULL is allowed */
  /* Copies in the queue; `host_memory` is page-locked. */
  sluice_status *(*enqueue_in)(sluice_device *device, void *device_memory, const void *host_memory, uint64_t bytes);
  sluice_status *(*enqueue_out)(sluice_device *device, void *host_memory, const void *device_memory, uint64_t bytes);

  /* Staging for large transfers, beside the queue: fill `memory`, send parts of it, wait before filling it again.
   * staging_send and staging_wait may be called from several threads at once, each with a staging of its own. They are
   * the device's: a queue of open_queue has none. */
  sluice_status *(*staging_create)(sluice_device *device, uint64_t bytes, sluice_staging **out_staging);
  sluice_status *(*staging_send)(sluice_device *device, sluice_staging *staging, uint64_t offset, void *device_memory,
                                 uint64_t bytes);
  sluice_status *(*staging_wait)(sluice_device *device, sluice_staging *staging); /* for all that was sent from it */
  void (*staging_release)(sluice_device *device, sluice_staging *staging);        /* waits first; NULL is allowed */

  /* ---- Graphs: all optional, all there or none ---- */

  /* Between begin and end the queue's work (launches, enqueue_in, enqueue_out) is recorded and not run; nothing else
   * may be called but `launch` and the enqueue functions. A graph runs with the addresses, grids and byte counts that
   * were recorded; contents of memory, page-locked memory included, are read when it runs. graph_end ends the recording
   * also when it fails; with `out_graph` NULL it throws the recording away (for use after an error). A graph must be
   * released before the code that it launches is unloaded. */
  sluice_status *(*graph_begin)(sluice_device *device);
  sluice_status *(*graph_end)(sluice_device *device, sluice_device_graph **out_graph);
  sluice_status *(*graph_launch)(sluice_device *device, sluice_device_graph *graph); /* puts it into the queue */
  void (*graph_release)(sluice_device *device, sluice_device_graph *graph);          /* NULL is allowed */
  /* Runs a graph and waits for it: seconds on the device from its start to its end, by the device's clock. */
  sluice_status *(*time_graph)(sluice_device *device, sluice_device_graph *graph, double *out_seconds);

  /* ---- For messages and profilers: optional, each on its own ---- */

  /* `mark` counts `marks` up and puts that number into the queue; `last_mark` is the last number that the queue has
   * passed, also after the device has failed. So the launch behind a failure is known. */
  sluice_status *(*mark)(sluice_device *device);
  uint32_t (*last_mark)(const sluice_device *device);
  /* Nested ranges on the profiler's time line of the calling thread. */
  void (*range_push)(sluice_device *device, const char *name);
  void (*range_pop)(sluice_device *device);
} sluice_device_driver;

struct sluice_device {
  const sluice_device_driver *driver;
  char name[128];           /* what the machine is: "host:x86-64-v3", "cuda:sm_90 (NVIDIA H100 80GB HBM3)" */
  char target[32];          /* what to compile for: "host:x86-64-v3", "cuda:sm_90a" */
  bool host_memory;         /* device memory is the host's: no copies are needed */
  uint64_t cache_bytes;     /* of the last level of cache, 0: unknown */
  uint64_t largest_grid[2]; /* workgroups of a launch, in x and in y */
  uint32_t marks;           /* put into the queue so far; wraps around */
  sluice_threads *threads;  /* pool for work on the host (packing weights); owned by the device */
};

/* Range functions that do nothing where the device has none. */
static inline void sluice_range_push(sluice_device *device, const char *name) {
  if (device->driver->range_push) device->driver->range_push(device, name);
}
static inline void sluice_range_pop(sluice_device *device) {
  if (device->driver->range_pop) device->driver->range_pop(device);
}

/* Opens "host" with `threads` threads (0: one for each core). */
SLUICE_MUST_USE sluice_status *sluice_host_open(unsigned threads, sluice_device **out_device);

/* Opens GPU `index` of the NVIDIA driver, with `threads` threads for loading weights (0: one for each core). */
SLUICE_MUST_USE sluice_status *sluice_cuda_open(unsigned index, unsigned threads, sluice_device **out_device);

/* The same for GPU `index` of AMD's HIP library. */
SLUICE_MUST_USE sluice_status *sluice_hip_open(unsigned index, unsigned threads, sluice_device **out_device);

#endif

/* What the runtime asks of a device. One driver for each kind of device; the session knows no other details.
 *
 * A driver extends `sluice_device` by its own state. All functions are called from one thread at a time.
 */
#ifndef SLUICE_RUNTIME_DEVICE_H
#define SLUICE_RUNTIME_DEVICE_H

#include "runtime/threads.h"
#include "sluice/plan.h"
#include "sluice/status.h"

#include <stdbool.h>

typedef struct sluice_device sluice_device;
typedef struct sluice_loaded_code sluice_loaded_code; /* loaded code of one plan; defined by each driver */

typedef struct sluice_device_driver {
  void (*close)(sluice_device *device);

  /* How well the device runs code built for `target`: 0 not at all, otherwise larger is better. */
  unsigned (*preference)(const sluice_device *device, const char *target);

  /* Bytes that can still be allocated. */
  uint64_t (*available)(const sluice_device *device);

  /* Memory of the device, aligned to 64 bytes at least, contents undefined. */
  sluice_status *(*allocate)(sluice_device *device, uint64_t bytes, void **out_memory);
  void (*release)(sluice_device *device, void *memory); /* NULL is allowed */
  sluice_status *(*copy_in)(sluice_device *device, void *device_memory, const void *host_memory, uint64_t bytes);
  sluice_status *(*copy_out)(sluice_device *device, void *host_memory, const void *device_memory, uint64_t bytes);
  sluice_status *(*copy)(sluice_device *device, void *to, const void *from, uint64_t bytes); /* within the device */

  /* Loads a code object and looks up every kernel of `plan`. */
  sluice_status *(*load_code)(sluice_device *device, const void *code, size_t length, const sluice_plan *plan,
                              sluice_loaded_code **out_code);
  void (*unload_code)(sluice_device *device, sluice_loaded_code *code); /* NULL is allowed */

  /* Runs kernel `kernel` of the plan over grid[0] x grid[1] workgroups (none: nothing happens); may return before it is
   * done. Launches run in order. `arguments` are addresses in device memory; `sizes` is host memory. */
  sluice_status *(*launch)(sluice_device *device, sluice_loaded_code *code, uint32_t kernel, void *const *arguments,
                           uint32_t argument_count, const int32_t *sizes, const uint64_t grid[2]);
  /* Waits for all launches. */
  sluice_status *(*synchronize)(sluice_device *device);
} sluice_device_driver;

struct sluice_device {
  const sluice_device_driver *driver;
  char name[64];           /* what the machine is, as a target: "host:x86-64-v3" */
  bool host_memory;        /* device memory is the host's: no copies are needed */
  sluice_threads *threads; /* pool for work on the host (packing weights); owned by the device */
};

/* Opens "host" with `threads` threads (0: one for each core). */
SLUICE_MUST_USE sluice_status *sluice_host_open(unsigned threads, sluice_device **out_device);

#endif

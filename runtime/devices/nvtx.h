/* Ranges on a profiler's time line, by the protocol of NVTX 3: there is no library to link; a profiler names its own in
 * NVTX_INJECTION64_PATH, and that library asks for tables of functions and puts its own into them. These are our own
 * declarations of the part of <nvtx3/nvToolsExt.h> that is used.
 */
#ifndef SLUICE_RUNTIME_DEVICES_NVTX_H
#define SLUICE_RUNTIME_DEVICES_NVTX_H

#include <stddef.h>
#include <stdint.h>

typedef void nvtx_function(void);

enum {
  NVTX_TABLE_CALLBACKS = 1, /* of export tables */
  NVTX_TABLE_VERSION = 3,
  NVTX_OUR_VERSION = 3,
  NVTX_MODULE_CORE = 1,
  NVTX_MODULES = 7,
  NVTX_CORE_RANGE_PUSH = 9, /* int (const char *) */
  NVTX_CORE_RANGE_POP = 11, /* int (void) */
  NVTX_MOST_FUNCTIONS = 16, /* of a module, number 0 is none */
};

typedef struct nvtx_callbacks {
  size_t struct_size;
  /* The places of a module's functions, and how many they are; 0: no such module. */
  int (*module_functions)(int module, nvtx_function ****out_places, unsigned *out_count);
} nvtx_callbacks;

typedef struct nvtx_version {
  size_t struct_size;
  uint32_t version, reserved;
  void (*set_profiler_version)(uint32_t version);
} nvtx_version;

typedef const void *nvtx_export_table(uint32_t table);
/* What a profiler's library exports as "InitializeInjectionNvtx2"; 0: it failed. */
typedef int nvtx_initialize(nvtx_export_table *tables);

typedef struct nvtx_ranges {
  int (*push)(const char *name); /* NULL: no profiler */
  int (*pop)(void);
} nvtx_ranges;

/* The ranges of the profiler that watches this process, if any. The first call loads its library, for good. */
nvtx_ranges nvtx_find(void);

#endif

/* An interpreter of AMD CDNA code objects: it executes the machine code of gfx942 (MI300X) and gfx950 (MI355X) kernels
 * on the host, without AMD hardware or ROCm.
 *
 * A machine is one GPU. Modules are code objects (HSA ELF files, version 5 or 6) loaded into it, kernels are found in
 * them by name, and gcn_launch runs a grid of workgroups to its end before it returns. Global memory is the host's own:
 * a device pointer is a host pointer, and every access is checked against the live allocations of the machine.
 *
 * What is exact: integer and IEEE arithmetic, conversions, memory, control flow; matrix instructions follow the
 * rounding that has been published for CDNA3 (matrix.c). What is not: exp, log, sin, cos, rcp, rsq and sqrt are rounded
 * correctly, where hardware may be one unit off. There is no timing, only counts.
 *
 * Besides wrong results it reports what hardware would show only now and then (gcn_fault_kind). Schedules are
 * deterministic: the same launch with the same seed gives the same results, counts and faults.
 *
 * Threads: one call at a time on a machine and its modules; different machines are independent. */
#ifndef TESTS_AMDGCN_GCN_H
#define TESTS_AMDGCN_GCN_H

#include <sluice/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct gcn_machine gcn_machine;
typedef struct gcn_module gcn_module;
typedef struct gcn_kernel gcn_kernel;

typedef enum gcn_target { GCN_GFX942, GCN_GFX950 } gcn_target;

/* ---- Machine and memory ---- */

SLUICE_MUST_USE sluice_status *gcn_machine_create(gcn_target target, gcn_machine **out);
void gcn_machine_free(gcn_machine *machine); /* with its modules and allocations; NULL is allowed */
gcn_target gcn_machine_target(const gcn_machine *machine);

/* New memory, 256-byte aligned and filled with the poison pattern; released by gcn_release or with the machine. Bytes
 * directly before and after it belong to no allocation. */
SLUICE_MUST_USE sluice_status *gcn_allocate(gcn_machine *machine, size_t bytes, void **out);
SLUICE_MUST_USE sluice_status *gcn_release(gcn_machine *machine, void *pointer);

/* Makes memory of the caller visible to kernels, and hides it again. It may not overlap what is visible already. */
SLUICE_MUST_USE sluice_status *gcn_register(gcn_machine *machine, void *pointer, size_t bytes);
SLUICE_MUST_USE sluice_status *gcn_unregister(gcn_machine *machine, void *pointer);

/* Whether [pointer, pointer + bytes) lies inside one live allocation: for copies made by the host. */
bool gcn_is_allocated(const gcn_machine *machine, const void *pointer, size_t bytes);

/* ---- Code objects ---- */

/* What the code object's metadata says about a kernel. */
typedef struct gcn_kernel_info {
  const char *name;
  uint32_t kernarg_bytes;       /* explicit and hidden arguments */
  uint32_t explicit_bytes;      /* up to the end of the last argument that is not hidden */
  uint32_t lds_bytes;           /* static; a launch may add dynamic ones behind them */
  uint32_t scratch_bytes;       /* a lane */
  uint32_t sgprs, vgprs, agprs; /* vgprs counts both kinds, agprs those of them that are accumulation registers */
  uint32_t sgpr_spills, vgpr_spills;
  uint32_t wavefront_lanes; /* 64 */
  uint32_t max_workgroup_lanes;
  uint32_t arguments; /* explicit ones, see gcn_kernel_argument */
} gcn_kernel_info;

typedef struct gcn_argument {
  const char *name; /* "" when the metadata has none */
  uint32_t offset, bytes;
  bool is_pointer; /* to global memory */
} gcn_argument;

/* The GPU that a code object says it is for. */
SLUICE_MUST_USE sluice_status *gcn_code_object_target(const void *data, size_t bytes, gcn_target *out);

/* Loads a code object. `data` is copied. A file that is malformed, or built for another GPU or wave size, is refused.
 */
SLUICE_MUST_USE sluice_status *gcn_module_load(gcn_machine *machine, const void *data, size_t bytes, gcn_module **out);
void gcn_module_unload(gcn_module *module); /* NULL is allowed */

uint32_t gcn_kernel_count(const gcn_module *module);
const gcn_kernel *gcn_kernel_at(const gcn_module *module, uint32_t index);
const gcn_kernel *gcn_kernel_find(const gcn_module *module, const char *name); /* NULL: none of that name */
const gcn_kernel_info *gcn_kernel_describe(const gcn_kernel *kernel);
const gcn_argument *gcn_kernel_argument(const gcn_kernel *kernel, uint32_t index);

/* ---- Launching ---- */

typedef enum gcn_fault_kind {
  GCN_FAULT_NONE,
  GCN_FAULT_UNKNOWN_INSTRUCTION, /* the interpreter does not have it, or bytes that are no instruction */
  GCN_FAULT_GLOBAL_BOUNDS,       /* an address outside every live allocation, or misaligned where that matters */
  GCN_FAULT_LDS_BOUNDS,
  GCN_FAULT_SCRATCH_BOUNDS,
  GCN_FAULT_PC,    /* a jump out of the code object */
  GCN_FAULT_TRAP,  /* s_trap */
  GCN_FAULT_LIMIT, /* more instructions than the launch allows: an endless loop, or a wait for nobody */
  /* What hardware would show only sometimes: */
  GCN_FAULT_OUTSTANDING_READ, /* a register is read while a load or store into it is on its way: s_waitcnt is missing */
  GCN_FAULT_OUTSTANDING_WRITE, /* a register is written while a load into it is on its way */
  GCN_FAULT_HAZARD,            /* too few wait states (s_nop) between two instructions */
  GCN_FAULT_MASKED_MFMA,       /* a matrix instruction, or another that ignores EXEC, with lanes switched off */
  GCN_FAULT_LDS_RACE,          /* two waves at one byte of LDS, one of them writing, with no barrier between */
  GCN_FAULT_DIVERGENT_BARRIER, /* s_barrier with lanes switched off, or not reached by a wave that has ended */
  GCN_FAULT_GLOBAL_RACE, /* read before the writer, another workgroup, has made it visible: no wait, no write-back to
                            memory from the writer's die, no invalidation by the reader */
} gcn_fault_kind;

const char *gcn_fault_name(gcn_fault_kind kind); /* "LDS race" */

/* Where a launch failed. */
typedef struct gcn_fault {
  gcn_fault_kind kind;
  uint64_t offset;       /* of the instruction, in bytes from the kernel's first */
  char instruction[128]; /* its text */
  uint32_t workgroup[3];
  uint32_t wave; /* in the workgroup */
  int lane;      /* -1 where it concerns the whole wave */
} gcn_fault;

/* What was executed, over all waves of a launch. */
typedef struct gcn_counts {
  uint64_t workgroups, waves, instructions;
  uint64_t vector; /* VALU instructions, matrix instructions not among them */
  uint64_t scalar; /* SALU instructions, branches not among them */
  uint64_t branches, waits, nops, barriers;
  uint64_t scalar_loads;          /* SMEM instructions */
  uint64_t matrix, matrix_cycles; /* instructions, and cycles that they hold the matrix unit of one SIMD */
  uint64_t vector_memory;         /* global, flat, buffer and scratch instructions */
  uint64_t global_loaded, global_stored, global_atomics; /* bytes, bytes, lanes */
  uint64_t direct_to_lds;                                /* bytes, not among global_loaded */
  uint64_t global_lines;                                 /* 128-byte lines touched, counted once an instruction */
  uint64_t scratch_loaded, scratch_stored;               /* bytes */
  uint64_t lds;                                          /* LDS instructions */
  uint64_t lds_loaded, lds_stored;                       /* bytes */
  uint64_t lds_cycles;                                   /* phases that these need when no bank is asked twice */
  uint64_t lds_conflicts;                                /* cycles more than that: bank conflicts */
} gcn_counts;

/* The same for one instruction of the kernel, in the order of its code. */
typedef struct gcn_profile_entry {
  uint64_t offset;     /* from the kernel's first byte */
  const char *text;    /* belongs to the module */
  uint64_t executions; /* waves that issued it */
  uint64_t lds_cycles, lds_conflicts;
  uint64_t global_bytes, global_lines;
  uint32_t matrix_cycles; /* of one execution */
} gcn_profile_entry;

typedef struct gcn_profile {
  gcn_profile_entry *entries; /* the caller frees with gcn_profile_free */
  size_t count;
} gcn_profile;

void gcn_profile_free(gcn_profile *profile);

typedef struct gcn_launch_options {
  uint32_t grid[3];      /* in workgroups; 0 counts as 1 */
  uint32_t workgroup[3]; /* in lanes; 0 counts as 1 */
  uint32_t dynamic_lds;  /* bytes */
  const void *kernarg;   /* explicit arguments at the offsets of gcn_argument; hidden ones are filled in */
  size_t kernarg_bytes;  /* at least explicit_bytes */
  /* Order of waves and workgroups. 0: in order, each wave as far as the next barrier. Anything else: waves and
   * workgroups in turns of random length, different for every seed. */
  uint64_t seed;
  bool unchecked;             /* skip what only sometimes shows on hardware (OUTSTANDING_READ and below): faster */
  uint64_t instruction_limit; /* over all waves; 0: 2^33 */
  gcn_counts *counts;         /* added to, not cleared; may be NULL */
  gcn_profile *profile;       /* replaced; may be NULL */
  gcn_fault *fault;           /* written when the launch fails in a wave; may be NULL */
} gcn_launch_options;

/* Runs a kernel. On an error memory holds what was stored up to it; the message names kind, instruction, offset,
 * workgroup, wave and lane. */
SLUICE_MUST_USE sluice_status *gcn_launch(const gcn_kernel *kernel, const gcn_launch_options *options);

#endif

/* The module and the kernel that are being made: what every piece of emitting code passes along.
 *
 * An emitter builds one module. A family (families.h) calls `kernel_begin` (launch.h), which gives it its arguments,
 * the step's sizes and the coordinates of the workgroup, emits the body of ONE workgroup with what build.h and lanes.h
 * have, and calls `kernel_end`. How workgroups and lanes are run is the target's business (atoms.h): on the host a
 * workgroup is one lane, `kernel_begin` opens the loop over workgroups, and barriers vanish; on a GPU the coordinates
 * are block indices.
 *
 * LLVM cannot report most misuse: it crashes. Therefore this code runs in a forked child (backend_compile).
 */
#ifndef BACKENDS_COMMON_EMITTER_H
#define BACKENDS_COMMON_EMITTER_H

#include "backends/common/kernel.h"
#include "backends/common/target.h"
#include "sluice/plan.h"

#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>

typedef LLVMValueRef V;
typedef LLVMTypeRef T;

/* A part of a joined kernel becomes a function, which is inlined. Its workgroups wait for those of other parts, and
 * count themselves when they are done. */
typedef struct joined_part {
  V function;
  sluice_plan_extent grid[2];
  unsigned lanes;
  uint32_t waits, late, argument_count; /* waits, late: see kernel_part */
} joined_part;

typedef struct joined_kernel {
  joined_part parts[SLUICE_JOIN_PARTS];
  unsigned count, at; /* at: the part at hand */
  V counters;         /* of the part at hand: i32[count], workgroups of each part that are done */
  V counted_before;   /* local of the last part: its workgroups that had counted themselves before this one */
} joined_kernel;

typedef struct emitter {
  LLVMContextRef context;
  LLVMModuleRef module;
  LLVMBuilderRef builder;
  LLVMTargetMachineRef machine;
  const char *target; /* canonical name */
  const target_facts *facts;
  const struct atoms *atoms;
  T i1, i8, i16, i32, i64, f32, f64, pointer, nothing;
  /* the kernel at hand */
  const kernel_spec *spec;
  joined_kernel *joined; /* that it is a part of, or NULL */
  V function;
  LLVMBasicBlockRef entry;           /* allocas go to its start */
  V argument[KERNEL_MOST_ARGUMENTS]; /* pointers, as in docs/ir.md */
  V x, y;                            /* workgroup coordinates, i64 */
  V sizes;                           /* i32[SLUICE_SIZE_COUNT] */
  V workgroup;                       /* workgroup memory, see workgroup_take */
  uint64_t workgroup_bytes;          /* taken so far */
  V reduce_memory;                   /* of atoms.reduce, NULL until used */
  /* what its kernel_shape (launch.h) asked for */
  sluice_plan_extent grid[2];
  unsigned lanes; /* of the workgroup */
  unsigned workgroups_per_processor;
  bool cache_first, releases_next;
  unsigned vector; /* f32 elements of a vector in this kernel. Every row and every part of one that the kernel reads in
                      vectors starts at a multiple of this many elements where the target wants aligned vectors. */
  V first, last, index; /* host: the range of workgroups and the loop variable */
  LLVMBasicBlockRef loop_head, loop_exit;
  sluice_status *status; /* first error; families check attributes through it */
  char declined[192];    /* why the target's own kernel did not take this one; "" */
} emitter;

#endif

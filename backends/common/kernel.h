/* What the compiler asks of a backend: a list of kernels, each a family and its attributes (docs/ir.md, "kernel ops"),
 * to be compiled for one target into one code object. Nothing here knows MLIR or JSON.
 */
#ifndef BACKENDS_COMMON_KERNEL_H
#define BACKENDS_COMMON_KERNEL_H

#include "backends/common/target.h"
#include "sluice/dtype.h"
#include "sluice/plan.h"
#include "sluice/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum kernel_attribute_kind { KERNEL_INTEGER, KERNEL_FLOAT, KERNEL_STRING } kernel_attribute_kind;

typedef struct kernel_attribute {
  const char *name;
  kernel_attribute_kind kind;
  int64_t integer;
  double number;
  const char *string;
} kernel_attribute;

/* A part of a joined kernel (docs/ir.md, "kernel.join"): all workgroups of another kernel. */
typedef struct kernel_part {
  uint32_t kernel; /* index into the specs */
  uint32_t waits;  /* bit i: for part i, an earlier one, to be done */
  uint32_t late;   /* of these, those that only the kernel's first operand comes from */
} kernel_part;

enum { KERNEL_MOST_ARGUMENTS = 24 }; /* of one that is not joined */

typedef struct kernel_spec {
  const char *family; /* op name without "kernel." */
  const char *symbol; /* name in the code object: the family, "_" and a number */
  const kernel_attribute *attributes;
  size_t attribute_count;
  uint32_t argument_count;
  const kernel_part *parts; /* family "join": its arguments are those of the parts in turn, then the counters */
  size_t part_count;        /* 0: no joined kernel */
} kernel_spec;

typedef struct kernel_info { /* per kernel, in the order of the specs */
  uint32_t workgroup_bytes;
  uint32_t lanes;
  uint32_t registers;
  uint32_t spill_bytes;
  uint64_t code_bytes;
  bool cache_first;           /* see sluice_plan_kernel */
  sluice_plan_extent grid[2]; /* of its launches */
} kernel_info;

/* How far code generation goes: LLVM IR after optimisation (text), assembly (text), a relocatable object, or what the
 * runtime loads. */
typedef enum code_form { CODE_LLVM_IR, CODE_ASSEMBLY, CODE_OBJECT, CODE_LINKED } code_form;

typedef struct backend_options {
  code_form form;
  const char *save_directory; /* NULL, or an existing directory that gets kernels.ll, kernels.s, kernels.so */
} backend_options;

typedef struct code_object { /* free with code_object_free */
  void *data;
  size_t length;  /* 0: what the runtime loads could not be made here, but `assembly` can be loaded instead */
  char *assembly; /* PTX, for targets whose driver can translate it; NULL for the others */
  size_t assembly_length;
  kernel_info *kernels;
  size_t kernel_count;
} code_object;

void code_object_free(code_object *code);

/* Compiles `specs` for the canonical `target`. Code generation runs in forked children, since LLVM aborts on its own
 * errors; a child that dies becomes an SLUICE_INTERNAL error that names the kernel. Deterministic. */
SLUICE_MUST_USE sluice_status *backend_compile(const char *target, const kernel_spec *specs, size_t count,
                                               const backend_options *options, code_object *out_code);

/* Attribute access for emitters. A missing attribute or a wrong kind is recorded as an internal error in `*status` (the
 * first one stays) and 0 / "" comes back, so that an emitter reads all attributes first and checks once. */
int64_t kernel_integer(const kernel_spec *spec, const char *name, sluice_status **status);
double kernel_float(const kernel_spec *spec, const char *name, sluice_status **status);
const char *kernel_string(const kernel_spec *spec, const char *name, sluice_status **status);
/* "f32" or "bf16". */
sluice_dtype kernel_dtype(const kernel_spec *spec, const char *name, sluice_status **status);

#endif

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

/* A kernel for products with a number of rows in [from, to]. */
typedef struct gemm_range {
  uint32_t tile_m, slice; /* rows of x and columns of out of one workgroup */
  uint32_t from, to;
  /* At most so many workgroups share a product's columns, each with at most `slice` at a time, those of both matrices
   * of a pair counted; 0: each slice has a workgroup. */
  uint32_t workgroups;
  /* For experts: the shared expert's products are launches of their own, tiled as these or, where they share columns,
   * as other products with so many rows; otherwise it is one more expert. */
  bool apart;
} gemm_range;
enum { MOST_GEMM_RANGES = 6 };

/* What choose-tiles and lowering need to know of a target. */
typedef struct target_tiles {
  uint32_t gemm_tile_m; /* rows of x of one workgroup */
  uint32_t gemm_panel;  /* rows of w in a panel = columns of out of one workgroup */
  uint32_t expert_tile_m;
  /* Products of bf16 with matrix instructions, when the depth is a multiple of 32: weights lie in panels of
   * matrix_panel rows and groups of 8 columns; 0: the target has none. Ranges ascend and cover everything, the last one
   * ends with UINT32_MAX; for experts they are of the step's tokens. */
  uint32_t matrix_panel;
  gemm_range ranges[MOST_GEMM_RANGES], expert_ranges[MOST_GEMM_RANGES];
  uint32_t query_tile;  /* tokens of a query tile */
  bool split_selection; /* block scores go through memory: scoring, choosing and attention are launches of their own */
  /* With split_selection: scores of steps whose contexts have more pages than this prefer the cache, at the price of
   * sharing no processor with the attention before them; 0: there is no such choice. */
  uint32_t resident_pages;
  bool split_router; /* the router's logits and its choice are launches of their own */
  /* Steps of at most so many tokens have another kernel for the logits than larger ones; 0: all have the same. */
  uint32_t router_few;
  uint32_t route_tokens; /* steps of at most this many tokens choose and sort in one launch; 0: none do */
  uint32_t join_tokens;  /* steps of at most this many tokens join launches; 0: none do */
  /* Attention in bf16 has kernels with matrix instructions, where heads have matrix_head_dim dimensions, groups at most
   * matrix_group heads, and pages 16, 32, 64 or 128 tokens; 0: no such kernels. Dense attention shares its keys among
   * at most attention_parts workgroups, each with a partial result of f32 [matrix_group][matrix_head_dim + 2] (outputs,
   * then maximum and sum). Sparse attention shares the blocks of a token and kv head among the workgroups of a cluster,
   * the more the fewer of them a step has, of which a processor has room for `resident` at least. */
  uint32_t matrix_head_dim, matrix_group, attention_parts, cluster_count;
  struct {
    uint32_t size;
    uint32_t heads; /* for steps of at most so many tokens times kv heads; ascending, the last one for all others */
    uint32_t resident;
  } clusters[6];
  bool transposed_values; /* pages hold values transposed and keys as rows, not the other way round */
} target_tiles;
SLUICE_MUST_USE sluice_status *target_default_tiles(const char *target, target_tiles *out_tiles);

/* Attribute access for emitters. A missing attribute or a wrong kind is recorded as an internal error in `*status` (the
 * first one stays) and 0 / "" comes back, so that an emitter reads all attributes first and checks once. */
int64_t kernel_integer(const kernel_spec *spec, const char *name, sluice_status **status);
double kernel_float(const kernel_spec *spec, const char *name, sluice_status **status);
const char *kernel_string(const kernel_spec *spec, const char *name, sluice_status **status);
/* "f32" or "bf16". */
sluice_dtype kernel_dtype(const kernel_spec *spec, const char *name, sluice_status **status);

#endif

/* The IR: contexts, the two dialects (docs/ir.md), building, reading and verifying operations, all over MLIR's C API.
 *
 * Ownership follows MLIR: a context owns types, attributes and locations; a module owns its operations.
 * One thread at a time per context (multithreading of the context is off).
 */
#ifndef IR_IR_H
#define IR_IR_H

#include "sluice/status.h"

#include <mlir-c/BuiltinAttributes.h>
#include <mlir-c/BuiltinTypes.h>
#include <mlir-c/IR.h>
#include <stdbool.h>

typedef struct ir_context ir_context;

/* A context with `func` and our dialects loaded. Diagnostics of MLIR (parser, verifier, passes) are collected; the
 * first error becomes the status of the call that failed (see ir_take_error). */
SLUICE_MUST_USE sluice_status *ir_context_create(ir_context **out_context);
void ir_context_destroy(ir_context *context);
MlirContext ir_mlir(const ir_context *context);

/* The first error diagnostic since the last call, as a status with its file:line:col; `fallback` when there was none.
 */
SLUICE_MUST_USE sluice_status *ir_take_error(ir_context *context, sluice_code code, const char *fallback);

bool ir_has_error(const ir_context *context); /* an error waits to be taken */
/* Records that memory was short where no status can be returned: the next ir_verify fails with it. */
void ir_note_out_of_memory(ir_context *context);

/* Parses a module from text and verifies it (MLIR's verifier, then ours). */
SLUICE_MUST_USE sluice_status *ir_parse(ir_context *context, const char *text, size_t length, const char *file,
                                        MlirModule *out_module);
/* Textual form, freed with sluice_release. NULL when memory is short. */
char *ir_print(MlirModule module);

/* Everything IRDL cannot say: shapes, attribute relations, cache parts, domains. Works on both dialects. */
SLUICE_MUST_USE sluice_status *ir_verify(ir_context *context, MlirModule module);

/* ---- building ---- */
typedef struct ir_builder {
  ir_context *context;
  MlirBlock block;      /* operations are appended here, or */
  MlirOperation before; /* inserted before this one, when not null */
  MlirLocation location;
} ir_builder;

typedef struct ir_attribute {
  const char *name;
  MlirAttribute value;
} ir_attribute;

/* ir_integers and ir_strings give an empty array when memory is short; the next ir_verify or pass then fails. */
MlirAttribute ir_integer(ir_context *context, int64_t value); /* i64 */
MlirAttribute ir_float(ir_context *context, double value);    /* f64 */
MlirAttribute ir_string(ir_context *context, const char *text);
MlirAttribute ir_integers(ir_context *context, const int64_t *values, size_t count);    /* array of i64 */
MlirAttribute ir_strings(ir_context *context, const char *const *values, size_t count); /* array of strings */

/* Creates and inserts "name"(operands) {attributes} : results. Does not verify. */
MlirOperation ir_create(ir_builder *builder, const char *name, const MlirValue *operands, size_t operand_count,
                        const MlirType *results, size_t result_count, const ir_attribute *attributes,
                        size_t attribute_count);
static inline MlirValue ir_result(MlirOperation operation, intptr_t index) {
  return mlirOperationGetResult(operation, index);
}

/* ---- types ---- */
MlirType ir_batch_type(ir_context *context);  /* !model.batch */
MlirType ir_cache_type(ir_context *context);  /* !model.cache */
MlirType ir_buffer_type(ir_context *context); /* !kernel.buffer */
/* tensor<d0 x d1 x ... x element>; a negative dimension is `?`. */
MlirType ir_tensor(MlirType element, const int64_t *dimensions, size_t rank);
MlirType ir_f32(ir_context *context);
MlirType ir_bf16(ir_context *context);
MlirType ir_i32(ir_context *context);

/* ---- reading ---- */
bool ir_is(MlirOperation operation, const char *name);
MlirStringRef ir_name(MlirOperation operation);
bool ir_is_launch(
    MlirOperation operation); /* of kernel ops: one that a step runs, neither memory nor a note on others */
bool ir_has(MlirOperation operation, const char *name);
int64_t ir_get_integer(MlirOperation operation, const char *name);      /* 0 when absent */
double ir_get_float(MlirOperation operation, const char *name);         /* 0 when absent */
MlirStringRef ir_get_string(MlirOperation operation, const char *name); /* empty when absent */
/* The operation that defines `value`; null for block arguments. */
MlirOperation ir_definition(MlirValue value);
/* Number of operand uses of all results. */
size_t ir_use_count(MlirValue value);
/* The single user of `value`, null unless there is exactly one use. */
MlirOperation ir_single_user(MlirValue value);
int64_t ir_dimension(MlirValue value, intptr_t index); /* -1 for `?` */
intptr_t ir_rank(MlirValue value);

/* Of model.experts and model.experts_shared: */
enum { IR_EXPERTS_SHARED = 6 };                /* the first of the shared expert's three weights */
bool ir_experts_shared(MlirOperation experts); /* whether it is the second, and has them */
/* Elements of the counts of kernel.sort_experts, for `experts` with the shared one. */
int64_t ir_experts_counts(int64_t experts);
intptr_t ir_experts_residual(MlirOperation experts); /* operand, -1: none */

/* Whether `op` is the kernel.expert_gemm that is the "first" or the "second" of two products that overlap. */
bool ir_overlaps(MlirOperation op, const char *which);

/* ---- effects (ir/purity.c): one row for each op ---- */
bool ir_is_pure(MlirOperation operation); /* no effect but its results: may be merged and dropped */

/* The first func.func named `name`, null when there is none. */
MlirOperation ir_function(MlirModule module, const char *name);
MlirBlock ir_body(MlirOperation function);

#endif

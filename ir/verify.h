/* What the verifiers of the two dialects share. Every check that fails reports one error at the op, through MLIR's
 * diagnostics, of the form "'model.linear' op: x has 64 columns, expected 128, the columns of w", and returns false.
 */
#ifndef IR_VERIFY_H
#define IR_VERIFY_H

#include "ir/ir.h"

/* What is known of the cache of a layer, from the ops that write it; 0: not known yet. */
typedef struct verify_layer {
  int64_t layer, kv_heads, head_dim, index_dim;
} verify_layer;

typedef struct verify_state {
  ir_context *context;
  MlirOperation op;    /* at hand */
  MlirType activation; /* `A` of docs/ir.md: model.dtype, or what the first op that shows it has; null: not known */
  int64_t page;        /* model.page, 0: not given */
  int64_t vocabulary;  /* model.vocabulary, 0: not given */
  int64_t query_tile;  /* model.query_tile, 0: not given */
  verify_layer *layers;
  size_t layer_count, layer_capacity;
  bool out_of_memory;
} verify_state;

bool verify_fail(verify_state *state, const char *format, ...) SLUICE_PRINTF(2, 3);

/* Checks the attributes of the op against a list of "NAME:KIND", separated by spaces: all there, of the right type and
 * in their domain, and no others but those with a dot in their name (annotations of passes). Kinds:
 *   positive   i64 > 0             count    i64 >= 0             layer    i64 >= -1        even     i64 > 0, even
 *   number     f64, finite         positive_number  f64, finite, > 0
 *   text       not empty           dtype    "f32" or "bf16"      element  "f32", "bf16" or "i32"
 *   size       a step extent       rows     "tokens" or "rows"   flag     i64, 0 or 1
 *   multiple   i64 >= 0, a multiple of 64    positive_multiple   i64 > 0, a multiple of 64
 *   strings    array of strings, not empty   integers            array of i64, not empty
 *   A|B|C      one of these strings */
bool verify_attributes(verify_state *state, const char *list);

/* One op of the dialect; its operand and result counts and attribute names are right (IRDL). */
bool verify_model_op(verify_state *state);
bool verify_kernel_op(verify_state *state);

#endif

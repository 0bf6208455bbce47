/* choose-tiles: the tile of every op that becomes a launch with one, from the target's defaults. */
#include "passes/lowering.h"

static void annotate(pass_state *state, MlirOperation op, const char *name, int64_t value) {
  mlirOperationSetAttributeByName(op, mlirStringRefCreateFromCString(name), ir_integer(state->context, value));
}

/* Panels of the weights from operand `first` on: for matrix instructions where all of them allow it. */
static void choose_panel(pass_state *state, MlirOperation op, const target_tiles *tiles, intptr_t first) {
  bool matrix = tiles->matrix_panel > 0;
  MlirValue x = mlirOperationGetOperand(op, 0);
  matrix &= mlirTypeIsABF16(mlirShapedTypeGetElementType(mlirValueGetType(x)));
  for (intptr_t i = first; i < mlirOperationGetNumOperands(op); i++) {
    MlirOperation definition = ir_definition(mlirOperationGetOperand(op, i));
    if (!ir_is(definition, "model.weight") && !ir_is(definition, "model.concat_weights")) continue;
    MlirValue w = mlirOperationGetOperand(op, i);
    matrix &=
        mlirTypeIsABF16(mlirShapedTypeGetElementType(mlirValueGetType(w))) && ir_dimension(w, ir_rank(w) - 1) % 32 == 0;
  }
  annotate(state, op, "tile.panel", matrix ? tiles->matrix_panel : tiles->gemm_panel);
  annotate(state, op, "tile.group", matrix ? 8 : 2);
}

bool attention_has_matrix_kernels(const target_tiles *tiles, MlirOperation op, int64_t page) {
  MlirValue q = mlirOperationGetOperand(op, 0);
  const int64_t heads = ir_get_integer(op, "heads"), kv_heads = ir_get_integer(op, "kv_heads");
  if (!tiles->matrix_head_dim || !mlirTypeIsABF16(mlirShapedTypeGetElementType(mlirValueGetType(q)))) return false;
  return (page == 16 || page == 32 || page == 64 || page == 128) &&
         ir_dimension(q, 1) == heads * tiles->matrix_head_dim && heads <= kv_heads * tiles->matrix_group;
}

bool pass_choose_tiles(pass_state *state, MlirModule module) {
  static const char *const products[] = {"model.linear", "model.linear_add", "model.linear_swiglu", "model.lm_head"};
  static const char *const expert_products[] = {"model.expert_linear", "model.experts", "model.experts_shared"};
  static const char *const queries[] = {"model.attention", "model.block_attention", "model.select_attention",
                                        "model.index_select", "model.index_score"};
  MlirOperation function = ir_function(module, "step");
  if (mlirOperationIsNull(function)) return true;
  target_tiles tiles;
  state->status = target_default_tiles(state->target, &tiles);
  if (state->status) return false;
  const int64_t page = ir_get_integer(function, "model.page");
  MlirOperation op = mlirBlockGetFirstOperation(ir_body(function));
  for (; !mlirOperationIsNull(op); op = mlirOperationGetNextInBlock(op)) {
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
      if (ir_is(op, products[i])) {
        annotate(state, op, "tile.m", tiles.gemm_tile_m);
        choose_panel(state, op, &tiles, 1);
      }
    for (size_t i = 0; i < sizeof expert_products / sizeof *expert_products; i++)
      if (ir_is(op, expert_products[i])) {
        annotate(state, op, "tile.m", tiles.expert_tile_m);
        choose_panel(state, op, &tiles, ir_is(op, "model.expert_linear") ? 2 : 3);
      }
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++)
      if (ir_is(op, queries[i])) annotate(state, op, "tile.query", tiles.query_tile);
    if (ir_is(op, "model.attention") && attention_has_matrix_kernels(&tiles, op, page)) {
      annotate(state, op, "tile.parts", tiles.attention_parts);
      annotate(state, op, "tile.part_rows", tiles.matrix_group);
    }
    if (ir_is(op, "model.router")) annotate(state, op, "tile.panel", tiles.gemm_panel);
  }
  return true;
}

/* fuse-router: the router's product, in float32, and topk_experts become router. */
#include "passes/fusions.h"
#include "passes/rewrite.h"
#include "sluice/memory.h"

static void fuse(pass_state *state, MlirOperation top) {
  MlirOperation linear = rewrite_made_by(rewrite_operand(top, 0), "model.linear");
  if (mlirOperationIsNull(linear)) return;
  MlirValue gate = rewrite_operand(linear, 1);
  const char *reason = NULL;
  if (!rewrite_used_once(ir_result(linear, 0)))
    reason = "the router's logits are used elsewhere";
  else if (!mlirTypeIsAF32(mlirShapedTypeGetElementType(mlirValueGetType(gate))))
    reason = "the gate's weight is not float32";
  if (reason) {
    pass_remark_add(state, top, false, "%s", reason);
    return;
  }
  MlirValue operands[] = {rewrite_operand(linear, 0), gate, rewrite_operand(top, 1)};
  MlirType types[] = {mlirValueGetType(ir_result(top, 0)), mlirValueGetType(ir_result(top, 1))};
  ir_attribute attribute = rewrite_attribute(top, "k");
  ir_builder builder = rewrite_builder(state, top);
  MlirOperation fused = ir_create(&builder, "model.router", operands, 3, types, 2, &attribute, 1);
  pass_remark_add(state, fused, true, "product and selection in one launch");
  rewrite_replace(ir_result(top, 0), ir_result(fused, 0));
  rewrite_replace(ir_result(top, 1), ir_result(fused, 1));
  mlirOperationDestroy(top);
  mlirOperationDestroy(linear);
}

bool pass_fuse_router(pass_state *state, MlirModule module) {
  rewrite_list ops;
  if (!rewrite_collect(state, module, "model.topk_experts", &ops)) return false;
  for (size_t i = 0; i < ops.count; i++) fuse(state, ops.items[i]);
  sluice_release(ops.items);
  return true;
}

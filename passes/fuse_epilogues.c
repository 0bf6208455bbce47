/* fuse-epilogues: linear then add becomes linear_add; two linears of one x, then swiglu_oai, become linear_swiglu. What
 * would be written and read again stays in registers. */
#include "passes/fusions.h"
#include "passes/rewrite.h"
#include "sluice/memory.h"

/* The linear that makes `value` and that nothing else looks at; null otherwise. */
static MlirOperation private_linear(MlirValue value) {
  MlirOperation linear = rewrite_made_by(value, "model.linear");
  return !mlirOperationIsNull(linear) && rewrite_used_once(value) ? linear : (MlirOperation){NULL};
}

static void fuse_swiglu(pass_state *state, MlirOperation op) {
  MlirOperation gate = rewrite_made_by(rewrite_operand(op, 0), "model.linear");
  MlirOperation up = rewrite_made_by(rewrite_operand(op, 1), "model.linear");
  if (mlirOperationIsNull(gate) || mlirOperationIsNull(up)) return; /* experts, or not after products */
  const char *reason = NULL;
  if (!rewrite_used_once(ir_result(gate, 0)) || !rewrite_used_once(ir_result(up, 0)))
    reason = "gate or up is used elsewhere";
  else if (!mlirValueEqual(rewrite_operand(gate, 0), rewrite_operand(up, 0)))
    reason = "gate and up read different values";
  else if (!rewrite_same_type(rewrite_operand(gate, 1), rewrite_operand(up, 1)))
    reason = "the weights of gate and up differ in shape or type";
  if (reason) {
    pass_remark_add(state, op, false, "activation: %s", reason);
    return;
  }
  MlirValue operands[] = {rewrite_operand(gate, 0), rewrite_operand(gate, 1), rewrite_operand(up, 1)};
  MlirType type = mlirValueGetType(ir_result(op, 0));
  ir_attribute attributes[] = {rewrite_attribute(op, "alpha"), rewrite_attribute(op, "limit")};
  ir_builder builder = rewrite_builder(state, op);
  MlirOperation fused = ir_create(&builder, "model.linear_swiglu", operands, 3, &type, 1, attributes, 2);
  pass_remark_add(state, fused, true, "gate, up and activation");
  rewrite_replace(ir_result(op, 0), ir_result(fused, 0));
  mlirOperationDestroy(op);
  mlirOperationDestroy(gate);
  mlirOperationDestroy(up);
}

static void fuse_add(pass_state *state, MlirOperation op) {
  intptr_t side = 1;
  MlirOperation linear = private_linear(rewrite_operand(op, 1));
  if (mlirOperationIsNull(linear)) linear = private_linear(rewrite_operand(op, side = 0));
  if (mlirOperationIsNull(linear)) return;
  if (!rewrite_same_type(ir_result(linear, 0), ir_result(op, 0))) {
    pass_remark_add(state, op, false, "addition: the product has another type than the sum");
    return;
  }
  MlirValue operands[] = {rewrite_operand(linear, 0), rewrite_operand(linear, 1), rewrite_operand(op, 1 - side)};
  MlirType type = mlirValueGetType(ir_result(op, 0));
  ir_builder builder = rewrite_builder(state, op);
  MlirOperation fused = ir_create(&builder, "model.linear_add", operands, 3, &type, 1, NULL, 0);
  pass_remark_add(state, fused, true, "product and addition");
  rewrite_replace(ir_result(op, 0), ir_result(fused, 0));
  mlirOperationDestroy(op);
  mlirOperationDestroy(linear);
}

bool pass_fuse_epilogues(pass_state *state, MlirModule module) {
  static const struct {
    const char *name;
    void (*fuse)(pass_state *state, MlirOperation op);
  } anchors[] = {{"model.swiglu_oai", fuse_swiglu}, {"model.add", fuse_add}};
  for (size_t a = 0; a < REWRITE_COUNT(anchors); a++) {
    rewrite_list ops;
    if (!rewrite_collect(state, module, anchors[a].name, &ops)) return false;
    for (size_t i = 0; i < ops.count; i++) anchors[a].fuse(state, ops.items[i]);
    sluice_release(ops.items);
  }
  return true;
}

/* fuse-select-attend: index_select and the block_attention over its blocks become select_attention. */
#include "passes/fusions.h"
#include "passes/rewrite.h"
#include "sluice/memory.h"

/* Whether the blocks are read by this attention alone, besides observers. */
static bool used_by_alone(MlirValue blocks, MlirOperation attention) {
  for (MlirOpOperand use = mlirValueGetFirstUse(blocks); !mlirOpOperandIsNull(use);
       use = mlirOpOperandGetNextUse(use)) {
    MlirOperation user = mlirOpOperandGetOwner(use);
    if (!mlirOperationEqual(user, attention) && !ir_is(user, "model.observe")) return false;
  }
  return true;
}

/* Observers of `blocks` go behind `op`, which will make the value that they look at. */
static void move_observers(MlirValue blocks, MlirOperation op) {
  for (MlirOpOperand use = mlirValueGetFirstUse(blocks); !mlirOpOperandIsNull(use);
       use = mlirOpOperandGetNextUse(use)) {
    MlirOperation user = mlirOpOperandGetOwner(use);
    if (ir_is(user, "model.observe") && mlirOperationIsBeforeInBlock(user, op)) mlirOperationMoveAfter(user, op);
  }
}

static void fuse(pass_state *state, MlirOperation attention) {
  MlirOperation select = rewrite_made_by(rewrite_operand(attention, 3), "model.index_select");
  if (mlirOperationIsNull(select)) {
    pass_remark_add(state, attention, false, "the blocks do not come from index_select");
    return;
  }
  MlirValue cache = rewrite_operand(attention, 1), batch = rewrite_operand(attention, 2), blocks = ir_result(select, 0);
  const char *reason = NULL;
  if (!used_by_alone(blocks, attention))
    reason = "the blocks are used elsewhere";
  else if (!mlirValueEqual(rewrite_operand(select, 1), cache) || !mlirValueEqual(rewrite_operand(select, 2), batch))
    reason = "selection and attention see different caches or batches";
  else if (!rewrite_same_attribute(select, attention, "layer") || !rewrite_same_attribute(select, attention, "block"))
    reason = "selection and attention are of different layers or block sizes";
  else if (ir_get_integer(select, "heads") != ir_get_integer(attention, "kv_heads"))
    reason = "there are not as many index heads as key heads";
  if (reason) {
    pass_remark_add(state, attention, false, "%s", reason);
    return;
  }
  MlirValue operands[] = {rewrite_operand(attention, 0), rewrite_operand(select, 0), cache, batch};
  MlirType types[] = {mlirValueGetType(ir_result(attention, 0)), mlirValueGetType(blocks)};
  const ir_attribute attributes[] = {rewrite_attribute(attention, "layer"),
                                     rewrite_attribute(attention, "heads"),
                                     rewrite_attribute(attention, "kv_heads"),
                                     rewrite_attribute(attention, "scale"),
                                     {"index_heads", rewrite_attribute(select, "heads").value},
                                     {"index_dim", rewrite_attribute(select, "dim").value},
                                     rewrite_attribute(select, "block"),
                                     rewrite_attribute(select, "k"),
                                     rewrite_attribute(select, "init"),
                                     rewrite_attribute(select, "local")};
  ir_builder builder = rewrite_builder(state, attention);
  MlirOperation fused =
      ir_create(&builder, "model.select_attention", operands, 4, types, 2, attributes, REWRITE_COUNT(attributes));
  pass_remark_add(state, fused, true, "selection and attention in one launch");
  move_observers(blocks, fused);
  rewrite_replace(ir_result(attention, 0), ir_result(fused, 0));
  mlirOperationDestroy(attention);
  rewrite_replace(blocks, ir_result(fused, 1));
  mlirOperationDestroy(select);
}

bool pass_fuse_select_attend(pass_state *state, MlirModule module) {
  rewrite_list ops;
  if (!rewrite_collect(state, module, "model.block_attention", &ops)) return false;
  for (size_t i = 0; i < ops.count; i++) fuse(state, ops.items[i]);
  sluice_release(ops.items);
  return true;
}

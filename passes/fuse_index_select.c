/* fuse-index-select: index_score, block_max and topk_blocks become index_select, which keeps token scores in registers.
 */
#include "passes/fusions.h"
#include "passes/rewrite.h"
#include "sluice/memory.h"

/* Whether an op between the two writes the cache: a read that moves behind it would be one of an overwritten value. */
static bool cache_written_between(MlirOperation from, MlirOperation to) {
  for (MlirOperation op = mlirOperationGetNextInBlock(from); !mlirOperationIsNull(op) && !mlirOperationEqual(op, to);
       op = mlirOperationGetNextInBlock(op))
    if (ir_is(op, "model.cache_append") || ir_is(op, "model.norm_rope_append")) return true;
  return false;
}

static void fuse(pass_state *state, MlirOperation top) {
  MlirOperation maximum = rewrite_made_by(rewrite_operand(top, 0), "model.block_max");
  if (mlirOperationIsNull(maximum)) return;
  MlirOperation score = rewrite_made_by(rewrite_operand(maximum, 0), "model.index_score");
  if (mlirOperationIsNull(score)) return;
  MlirValue batch = rewrite_operand(score, 2);
  const char *reason = NULL;
  if (!rewrite_used_once(ir_result(score, 0)) || !rewrite_used_once(ir_result(maximum, 0)))
    reason = "token or block scores are used elsewhere";
  else if (!mlirValueEqual(rewrite_operand(maximum, 1), batch) || !mlirValueEqual(rewrite_operand(top, 1), batch))
    reason = "the ops are of different batches";
  else if (!rewrite_same_attribute(maximum, top, "block"))
    reason = "the block sizes differ";
  else if (cache_written_between(score, top))
    reason = "the cache is written between scoring and selection";
  if (reason) {
    pass_remark_add(state, top, false, "%s", reason);
    return;
  }
  MlirValue operands[] = {rewrite_operand(score, 0), rewrite_operand(score, 1), batch};
  MlirType type = mlirValueGetType(ir_result(top, 0));
  const ir_attribute attributes[] = {rewrite_attribute(score, "layer"), rewrite_attribute(score, "heads"),
                                     rewrite_attribute(score, "dim"),   rewrite_attribute(top, "block"),
                                     rewrite_attribute(top, "k"),       rewrite_attribute(top, "init"),
                                     rewrite_attribute(top, "local")};
  ir_builder builder = rewrite_builder(state, top);
  MlirOperation fused =
      ir_create(&builder, "model.index_select", operands, 3, &type, 1, attributes, REWRITE_COUNT(attributes));
  pass_remark_add(state, fused, true, "token scores never reach memory");
  rewrite_replace(ir_result(top, 0), ir_result(fused, 0));
  mlirOperationDestroy(top);
  mlirOperationDestroy(maximum);
  mlirOperationDestroy(score);
}

bool pass_fuse_index_select(pass_state *state, MlirModule module) {
  rewrite_list ops;
  if (!rewrite_collect(state, module, "model.topk_blocks", &ops)) return false;
  for (size_t i = 0; i < ops.count; i++) fuse(state, ops.items[i]);
  sluice_release(ops.items);
  return true;
}

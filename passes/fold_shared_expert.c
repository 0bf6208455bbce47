/* fold-shared-expert: the shared expert, a linear_swiglu and a linear_add whose sum is the residual of experts, becomes
 * one more expert of these, which every token has (experts_shared): two launches less, and its products run beside
 * those of the routed experts. */
#include "passes/fusions.h"
#include "passes/rewrite.h"
#include "sluice/memory.h"

typedef struct group {
  MlirOperation experts, hidden, sum; /* experts, linear_swiglu, linear_add */
} group;

/* Whether `shared` [N][K] is like a matrix of `experts` [E][N][K]. */
static bool same_matrix(MlirValue shared, MlirValue experts) {
  return rewrite_same_element(shared, experts) && ir_dimension(shared, 0) == ir_dimension(experts, 1) &&
         ir_dimension(shared, 1) == ir_dimension(experts, 2);
}

/* False: the residual is none of a shared expert. */
static bool find_group(MlirOperation experts, group *g) {
  intptr_t residual = ir_experts_residual(experts);
  if (residual < 0) return false;
  g->experts = experts;
  g->sum = rewrite_made_by(rewrite_operand(experts, residual), "model.linear_add");
  if (mlirOperationIsNull(g->sum)) return false;
  g->hidden = rewrite_made_by(rewrite_operand(g->sum, 0), "model.linear_swiglu");
  return !mlirOperationIsNull(g->hidden);
}

static const char *why_not(const group *g) {
  if (!rewrite_used_once(ir_result(g->sum, 0)) || !rewrite_used_once(ir_result(g->hidden, 0)))
    return "the shared expert's values are used elsewhere";
  if (!mlirValueEqual(rewrite_operand(g->hidden, 0), rewrite_operand(g->experts, 0)))
    return "the shared expert and the routed ones read different values";
  if (!same_matrix(rewrite_operand(g->hidden, 1), rewrite_operand(g->experts, 3)) ||
      !same_matrix(rewrite_operand(g->sum, 1), rewrite_operand(g->experts, 5)))
    return "the shared expert's weights differ from those of a routed one in shape or type";
  if (!rewrite_same_attribute(g->hidden, g->experts, "alpha") ||
      !rewrite_same_attribute(g->hidden, g->experts, "limit"))
    return "the shared expert's activation differs from that of the routed ones";
  return NULL;
}

static void fold(pass_state *state, const group *g) {
  MlirValue operands[IR_EXPERTS_SHARED + 4];
  for (intptr_t i = 0; i < IR_EXPERTS_SHARED; i++) operands[i] = rewrite_operand(g->experts, i);
  operands[IR_EXPERTS_SHARED] = rewrite_operand(g->hidden, 1);
  operands[IR_EXPERTS_SHARED + 1] = rewrite_operand(g->hidden, 2);
  operands[IR_EXPERTS_SHARED + 2] = rewrite_operand(g->sum, 1);
  operands[IR_EXPERTS_SHARED + 3] = rewrite_operand(g->sum, 2);
  MlirType type = mlirValueGetType(ir_result(g->experts, 0));
  const ir_attribute attributes[] = {rewrite_attribute(g->experts, "alpha"), rewrite_attribute(g->experts, "limit"),
                                     rewrite_attribute(g->experts, "scale")};
  ir_builder builder = rewrite_builder(state, g->experts);
  MlirOperation folded =
      ir_create(&builder, "model.experts_shared", operands, REWRITE_COUNT(operands), &type, 1, attributes, 3);
  pass_remark_add(state, folded, true, "the shared expert among the routed ones");
  rewrite_replace(ir_result(g->experts, 0), ir_result(folded, 0));
  mlirOperationDestroy(g->experts);
  mlirOperationDestroy(g->sum);
  mlirOperationDestroy(g->hidden);
}

bool pass_fold_shared_expert(pass_state *state, MlirModule module) {
  rewrite_list ops;
  if (!rewrite_collect(state, module, "model.experts", &ops)) return false;
  for (size_t i = 0; i < ops.count; i++) {
    group g;
    if (!find_group(ops.items[i], &g)) continue;
    const char *reason = why_not(&g);
    if (reason)
      pass_remark_add(state, ops.items[i], false, "%s", reason);
    else
      fold(state, &g);
  }
  sluice_release(ops.items);
  return true;
}

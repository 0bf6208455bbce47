/* fuse-experts: gate, up and down products of the routed experts, the activation between them, the weighted sum and the
 * addition after it become experts: one sort, two products, one sum. */
#include "passes/fusions.h"
#include "passes/rewrite.h"
#include "sluice/memory.h"

typedef struct group {
  MlirOperation combine, down, swiglu, gate, up;
  MlirOperation add; /* null: none */
  MlirValue residual;
} group;

static MlirOperation private_op(MlirValue value, const char *name) {
  MlirOperation op = rewrite_made_by(value, name);
  return !mlirOperationIsNull(op) && rewrite_used_once(value) ? op : (MlirOperation){NULL};
}

static const char *read_group(MlirOperation combine, group *g) {
  g->combine = combine;
  g->down = private_op(rewrite_operand(combine, 0), "model.expert_linear");
  if (mlirOperationIsNull(g->down)) return "the summed values are no private expert product";
  g->swiglu = private_op(rewrite_operand(g->down, 0), "model.swiglu_oai");
  if (mlirOperationIsNull(g->swiglu)) return "the last product's operand is no private activation";
  g->gate = private_op(rewrite_operand(g->swiglu, 0), "model.expert_linear");
  g->up = private_op(rewrite_operand(g->swiglu, 1), "model.expert_linear");
  if (mlirOperationIsNull(g->gate) || mlirOperationIsNull(g->up)) return "gate or up is no private expert product";
  MlirValue experts = rewrite_operand(g->gate, 1);
  if (!mlirValueEqual(rewrite_operand(g->up, 1), experts) || !mlirValueEqual(rewrite_operand(g->down, 1), experts))
    return "the products are of different selections";
  if (!mlirValueEqual(rewrite_operand(g->gate, 0), rewrite_operand(g->up, 0)) ||
      ir_rank(rewrite_operand(g->gate, 0)) != 2)
    return "gate and up read different values";
  if (!rewrite_same_type(rewrite_operand(g->gate, 2), rewrite_operand(g->up, 2)))
    return "the weights of gate and up differ in shape or type";
  MlirOperation user = ir_single_user(ir_result(combine, 0));
  if (ir_is(user, "model.add") && rewrite_same_type(ir_result(user, 0), ir_result(combine, 0))) {
    g->add = user;
    bool first = mlirValueEqual(rewrite_operand(user, 0), ir_result(combine, 0));
    g->residual = rewrite_operand(user, first ? 1 : 0);
  }
  return NULL;
}

static void fuse(pass_state *state, const group *g) {
  bool added = !mlirOperationIsNull(g->add);
  MlirOperation place = added ? g->add : g->combine;
  MlirValue operands[7] = {rewrite_operand(g->gate, 0), rewrite_operand(g->gate, 1), rewrite_operand(g->combine, 1),
                           rewrite_operand(g->gate, 2), rewrite_operand(g->up, 2),   rewrite_operand(g->down, 2)};
  if (added) operands[6] = g->residual;
  MlirType type = mlirValueGetType(ir_result(place, 0));
  const ir_attribute attributes[] = {rewrite_attribute(g->swiglu, "alpha"), rewrite_attribute(g->swiglu, "limit"),
                                     rewrite_attribute(g->combine, "scale")};
  ir_builder builder = rewrite_builder(state, place);
  MlirOperation fused = ir_create(&builder, "model.experts", operands, added ? 7 : 6, &type, 1, attributes, 3);
  pass_remark_add(state, fused, true,
                  added ? "products, activation, sum and addition" : "products, activation and sum");
  rewrite_replace(ir_result(place, 0), ir_result(fused, 0));
  if (added) mlirOperationDestroy(g->add);
  mlirOperationDestroy(g->combine);
  mlirOperationDestroy(g->down);
  mlirOperationDestroy(g->swiglu);
  mlirOperationDestroy(g->gate);
  mlirOperationDestroy(g->up);
}

bool pass_fuse_experts(pass_state *state, MlirModule module) {
  rewrite_list ops;
  if (!rewrite_collect(state, module, "model.combine", &ops)) return false;
  for (size_t i = 0; i < ops.count; i++) {
    group g = {.add = {NULL}};
    const char *reason = read_group(ops.items[i], &g);
    if (reason)
      pass_remark_add(state, ops.items[i], false, "%s", reason);
    else
      fuse(state, &g);
  }
  sluice_release(ops.items);
  return true;
}

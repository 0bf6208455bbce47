/* canonicalise: one form for what can be written in several.
 *   slice of all columns -> its operand          slice of a slice -> one slice
 *   add -> the operand that was made first comes first, so that equal sums are found by cse and the residual is first
 *   collective of a group of one -> its operand
 * Inner ops come before outer ones, so that one walk is enough. */
#include "passes/fusions.h"
#include "passes/rewrite.h"
#include "sluice/memory.h"

static void replace_and_erase(MlirOperation op, MlirValue value) {
  rewrite_replace(ir_result(op, 0), value);
  mlirOperationDestroy(op);
}

static void fold_slice(pass_state *state, MlirOperation op) {
  MlirValue x = rewrite_operand(op, 0), result = ir_result(op, 0);
  if (rewrite_same_type(x, result)) {
    replace_and_erase(op, x);
    return;
  }
  MlirOperation inner = rewrite_made_by(x, "model.slice");
  if (mlirOperationIsNull(inner)) return;
  ir_builder builder = rewrite_builder(state, op);
  MlirValue source = rewrite_operand(inner, 0);
  MlirType type = mlirValueGetType(result);
  int64_t offset = ir_get_integer(inner, "offset") + ir_get_integer(op, "offset");
  MlirOperation slice = ir_create(&builder, "model.slice", &source, 1, &type, 1,
                                  &(ir_attribute){"offset", ir_integer(state->context, offset)}, 1);
  replace_and_erase(op, ir_result(slice, 0));
}

/* Whether `a` is made after `b`. Arguments are made first. */
static bool made_after(MlirValue a, MlirValue b) {
  MlirOperation a_op = ir_definition(a), b_op = ir_definition(b);
  if (mlirOperationIsNull(a_op))
    return mlirOperationIsNull(b_op) && mlirBlockArgumentGetArgNumber(a) > mlirBlockArgumentGetArgNumber(b);
  if (mlirOperationIsNull(b_op)) return true;
  if (mlirOperationEqual(a_op, b_op)) return mlirOpResultGetResultNumber(a) > mlirOpResultGetResultNumber(b);
  return mlirOperationIsBeforeInBlock(b_op, a_op);
}

static void order_add(MlirOperation op) {
  MlirValue a = rewrite_operand(op, 0), b = rewrite_operand(op, 1);
  if (!made_after(a, b)) return;
  mlirOperationSetOperand(op, 0, b);
  mlirOperationSetOperand(op, 1, a);
}

bool pass_canonicalise(pass_state *state, MlirModule module) {
  rewrite_list ops;
  if (!rewrite_collect(state, module, NULL, &ops)) return false;
  for (size_t i = 0; i < ops.count; i++) {
    MlirOperation op = ops.items[i];
    if (ir_is(op, "model.slice"))
      fold_slice(state, op);
    else if (ir_is(op, "model.add"))
      order_add(op);
    else if ((ir_is(op, "model.all_reduce") || ir_is(op, "model.all_gather") || ir_is(op, "model.all_to_all")) &&
             ir_get_integer(op, "group") == 1)
      replace_and_erase(op, rewrite_operand(op, 0));
  }
  sluice_release(ops.items);
  return true;
}

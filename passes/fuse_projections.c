/* fuse-projections: q, k, v and the index projections of a layer, linears of one x, become one product with the weights
 * stacked in that order, and slices of its result. */
#include "passes/fusions.h"
#include "passes/rewrite.h"
#include "sluice/memory.h"

enum { MOST = 5 };

/* The linear that `value` comes from, through a norm and a rotation; null otherwise. */
static MlirOperation projection_of(MlirValue value) {
  MlirOperation op = ir_definition(value);
  if (ir_is(op, "model.rope")) op = ir_definition(rewrite_operand(op, 0));
  if (ir_is(op, "model.head_norm")) op = ir_definition(rewrite_operand(op, 0));
  return ir_is(op, "model.linear") ? op : (MlirOperation){NULL};
}

/* The projections in order; the number of them, 0 when some are missing. */
static size_t find_projections(const rewrite_attention *a, MlirOperation linears[MOST]) {
  if (a->ambiguous || mlirOperationIsNull(a->key) || mlirOperationIsNull(a->value) || mlirOperationIsNull(a->query))
    return 0;
  size_t count = 0;
  linears[count++] = projection_of(rewrite_operand(a->query, 0));
  linears[count++] = projection_of(rewrite_operand(a->key, 2));
  linears[count++] = projection_of(rewrite_operand(a->value, 2));
  if (!mlirOperationIsNull(a->index) && !mlirOperationIsNull(a->index_key)) {
    linears[count++] = projection_of(rewrite_operand(a->index, a->index_operand));
    linears[count++] = projection_of(rewrite_operand(a->index_key, 2));
  }
  for (size_t i = 0; i < count; i++)
    if (mlirOperationIsNull(linears[i])) return 0;
  return count;
}

/* Why the linears cannot be one; NULL when they can. */
static const char *obstacle(const MlirOperation linears[MOST], size_t count) {
  MlirValue x = rewrite_operand(linears[0], 0), w = rewrite_operand(linears[0], 1);
  for (size_t i = 1; i < count; i++) {
    for (size_t j = 0; j < i; j++)
      if (mlirOperationEqual(linears[i], linears[j])) return "two of the projections are one";
    if (!mlirValueEqual(rewrite_operand(linears[i], 0), x)) return "the projections read different values";
    if (!rewrite_same_element(rewrite_operand(linears[i], 1), w)) return "the weights have different types";
    if (!rewrite_same_element(ir_result(linears[i], 0), ir_result(linears[0], 0)))
      return "the results have different types";
  }
  return NULL;
}

static MlirValue stack_weights(pass_state *state, ir_builder *builder, const MlirOperation linears[MOST],
                               size_t count) {
  MlirValue all = rewrite_operand(linears[0], 1);
  for (size_t i = 1; i < count; i++) {
    MlirValue operands[] = {all, rewrite_operand(linears[i], 1)};
    int64_t shape[] = {ir_dimension(all, 0) + ir_dimension(operands[1], 0), ir_dimension(all, 1)};
    MlirType type = ir_tensor(mlirShapedTypeGetElementType(mlirValueGetType(all)), shape, 2);
    all = ir_result(ir_create(builder, "model.concat_weights", operands, 2, &type, 1, NULL, 0), 0);
  }
  (void)state;
  return all;
}

static void fuse(pass_state *state, const MlirOperation linears[MOST], size_t count) {
  MlirOperation place = linears[0];
  for (size_t i = 1; i < count; i++)
    if (mlirOperationIsBeforeInBlock(linears[i], place)) place = linears[i];
  for (size_t i = 0; i < count; i++)
    if (!rewrite_make_available(rewrite_operand(linears[i], 1), place)) {
      pass_remark_add(state, place, false, "a weight is made after the first projection");
      return;
    }
  ir_builder builder = rewrite_builder(state, place);
  MlirValue operands[] = {rewrite_operand(place, 0), stack_weights(state, &builder, linears, count)};
  MlirType element = mlirShapedTypeGetElementType(mlirValueGetType(ir_result(place, 0)));
  MlirType type = ir_tensor(element, (int64_t[]){-1, ir_dimension(operands[1], 0)}, 2);
  MlirOperation product = ir_create(&builder, "model.linear", operands, 2, &type, 1, NULL, 0);
  pass_remark_add(state, product, true, "%d projections in one product", (int)count);
  int64_t offset = 0;
  for (size_t i = 0; i < count; i++) {
    MlirValue whole = ir_result(product, 0), old = ir_result(linears[i], 0);
    MlirType slice_type = mlirValueGetType(old);
    ir_attribute attribute = {"offset", ir_integer(state->context, offset)};
    MlirOperation slice = ir_create(&builder, "model.slice", &whole, 1, &slice_type, 1, &attribute, 1);
    offset += ir_dimension(old, 1);
    rewrite_replace(old, ir_result(slice, 0));
  }
  for (size_t i = 0; i < count; i++) mlirOperationDestroy(linears[i]);
}

bool pass_fuse_projections(pass_state *state, MlirModule module) {
  rewrite_attentions attentions;
  if (!rewrite_collect_attentions(state, module, &attentions)) return false;
  for (size_t i = 0; i < attentions.count; i++) {
    MlirOperation linears[MOST];
    size_t count = find_projections(&attentions.items[i], linears);
    const char *reason = count ? obstacle(linears, count) : NULL;
    if (count == 0 || reason) {
      MlirOperation where = attentions.items[i].query;
      if (!mlirOperationIsNull(where) && reason) pass_remark_add(state, where, false, "%s", reason);
      continue;
    }
    fuse(state, linears, count);
  }
  sluice_release(attentions.items);
  return true;
}

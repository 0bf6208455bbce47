/* cse: of pure ops that agree in name, operands, attributes and result types the first stays. Functions have one block,
 * so that the first one dominates the others. */
#include "passes/fusions.h"
#include "passes/rewrite.h"
#include "sluice/memory.h"

static uint64_t mix(uint64_t hash, const void *pointer) {
  hash = (hash ^ (uint64_t)(uintptr_t)pointer) * UINT64_C(0x9E3779B97F4A7C15);
  return hash ^ (hash >> 29);
}

static uint64_t hash_op(MlirOperation op) {
  uint64_t hash = mix(0, mlirIdentifierStr(mlirOperationGetName(op)).data);
  hash = mix(hash, mlirOperationGetBlock(op).ptr);
  for (intptr_t i = 0; i < mlirOperationGetNumOperands(op); i++) hash = mix(hash, mlirOperationGetOperand(op, i).ptr);
  for (intptr_t i = 0; i < mlirOperationGetNumResults(op); i++)
    hash = mix(hash, mlirValueGetType(mlirOperationGetResult(op, i)).ptr);
  for (intptr_t i = 0; i < mlirOperationGetNumAttributes(op); i++)
    hash = mix(hash, mlirOperationGetAttribute(op, i).attribute.ptr);
  return hash;
}

static bool equal_ops(MlirOperation a, MlirOperation b) {
  if (!mlirIdentifierEqual(mlirOperationGetName(a), mlirOperationGetName(b)) ||
      mlirOperationGetBlock(a).ptr != mlirOperationGetBlock(b).ptr ||
      mlirOperationGetNumOperands(a) != mlirOperationGetNumOperands(b) ||
      mlirOperationGetNumResults(a) != mlirOperationGetNumResults(b) ||
      mlirOperationGetNumAttributes(a) != mlirOperationGetNumAttributes(b))
    return false;
  for (intptr_t i = 0; i < mlirOperationGetNumOperands(a); i++)
    if (!mlirValueEqual(mlirOperationGetOperand(a, i), mlirOperationGetOperand(b, i))) return false;
  for (intptr_t i = 0; i < mlirOperationGetNumResults(a); i++)
    if (!rewrite_same_type(mlirOperationGetResult(a, i), mlirOperationGetResult(b, i))) return false;
  for (intptr_t i = 0; i < mlirOperationGetNumAttributes(a); i++) {
    MlirNamedAttribute x = mlirOperationGetAttribute(a, i), y = mlirOperationGetAttribute(b, i);
    if (!mlirIdentifierEqual(x.name, y.name) || !mlirAttributeEqual(x.attribute, y.attribute)) return false;
  }
  return true;
}

bool pass_eliminate_common(pass_state *state, MlirModule module) {
  rewrite_list ops;
  if (!rewrite_collect(state, module, NULL, &ops)) return false;
  size_t slots = 64;
  while (slots < ops.count * 2) slots *= 2;
  MlirOperation *table = sluice_allocate_array(slots, sizeof *table);
  if (!table) {
    sluice_release(ops.items);
    state->status = sluice_out_of_memory();
    return false;
  }
  for (size_t i = 0; i < ops.count; i++) {
    MlirOperation op = ops.items[i];
    if (!ir_is_pure(op)) continue;
    size_t slot = (size_t)hash_op(op) & (slots - 1);
    while (!mlirOperationIsNull(table[slot]) && !equal_ops(table[slot], op)) slot = (slot + 1) & (slots - 1);
    if (mlirOperationIsNull(table[slot])) {
      table[slot] = op;
      continue;
    }
    for (intptr_t j = 0; j < mlirOperationGetNumResults(op); j++)
      rewrite_replace(mlirOperationGetResult(op, j), mlirOperationGetResult(table[slot], j));
    mlirOperationDestroy(op);
  }
  sluice_release(table);
  sluice_release(ops.items);
  return true;
}

/* Building: attributes, types, operations. */
#include "ir/ir.h"
#include "sluice/memory.h"

static MlirStringRef string_ref(const char *text) {
  return mlirStringRefCreateFromCString(text);
}

MlirAttribute ir_integer(ir_context *context, int64_t value) {
  return mlirIntegerAttrGet(mlirIntegerTypeGet(ir_mlir(context), 64), value);
}

MlirAttribute ir_float(ir_context *context, double value) {
  return mlirFloatAttrDoubleGet(ir_mlir(context), mlirF64TypeGet(ir_mlir(context)), value);
}

MlirAttribute ir_string(ir_context *context, const char *text) {
  return mlirStringAttrGet(ir_mlir(context), string_ref(text));
}

/* The array of `values` or of `texts`. */
static MlirAttribute array(ir_context *context, const int64_t *values, const char *const *texts, size_t count) {
  MlirAttribute few[64], *elements = few;
  if (count > sizeof few / sizeof few[0]) elements = sluice_allocate_array(count, sizeof *elements);
  if (!elements) {
    ir_note_out_of_memory(context);
    return mlirArrayAttrGet(ir_mlir(context), 0, NULL);
  }
  for (size_t i = 0; i < count; i++)
    elements[i] = values ? ir_integer(context, values[i]) : ir_string(context, texts[i]);
  MlirAttribute result = mlirArrayAttrGet(ir_mlir(context), (intptr_t)count, elements);
  if (elements != few) sluice_release(elements);
  return result;
}

MlirAttribute ir_integers(ir_context *context, const int64_t *values, size_t count) {
  return array(context, values, NULL, count);
}

MlirAttribute ir_strings(ir_context *context, const char *const *values, size_t count) {
  return array(context, NULL, values, count);
}

MlirOperation ir_create(ir_builder *builder, const char *name, const MlirValue *operands, size_t operand_count,
                        const MlirType *results, size_t result_count, const ir_attribute *attributes,
                        size_t attribute_count) {
  MlirOperationState state = mlirOperationStateGet(string_ref(name), builder->location);
  mlirOperationStateAddOperands(&state, (intptr_t)operand_count, operands);
  mlirOperationStateAddResults(&state, (intptr_t)result_count, results);
  for (size_t i = 0; i < attribute_count; i++) {
    MlirIdentifier key = mlirIdentifierGet(ir_mlir(builder->context), string_ref(attributes[i].name));
    MlirNamedAttribute named = mlirNamedAttributeGet(key, attributes[i].value);
    mlirOperationStateAddAttributes(&state, 1, &named);
  }
  MlirOperation operation = mlirOperationCreate(&state);
  if (mlirOperationIsNull(builder->before))
    mlirBlockAppendOwnedOperation(builder->block, operation);
  else
    mlirBlockInsertOwnedOperationBefore(mlirOperationGetBlock(builder->before), builder->before, operation);
  return operation;
}

MlirType ir_tensor(MlirType element, const int64_t *dimensions, size_t rank) {
  int64_t shape[8];
  if (rank > sizeof shape / sizeof shape[0]) rank = sizeof shape / sizeof shape[0];
  for (size_t i = 0; i < rank; i++) shape[i] = dimensions[i] < 0 ? mlirShapedTypeGetDynamicSize() : dimensions[i];
  return mlirRankedTensorTypeGet((intptr_t)rank, shape, element, mlirAttributeGetNull());
}

MlirType ir_f32(ir_context *context) {
  return mlirF32TypeGet(ir_mlir(context));
}
MlirType ir_bf16(ir_context *context) {
  return mlirBF16TypeGet(ir_mlir(context));
}
MlirType ir_i32(ir_context *context) {
  return mlirIntegerTypeGet(ir_mlir(context), 32);
}

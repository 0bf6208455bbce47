/* Reading operations and values. */
#include "ir/ir.h"

#include <string.h>

static MlirAttribute attribute(MlirOperation operation, const char *name) {
  return mlirOperationGetAttributeByName(operation, mlirStringRefCreateFromCString(name));
}

MlirStringRef ir_name(MlirOperation operation) {
  return mlirIdentifierStr(mlirOperationGetName(operation));
}

bool ir_is_launch(MlirOperation operation) {
  static const char prefix[] = "kernel.";
  MlirStringRef name = ir_name(operation);
  return name.length > sizeof prefix - 1 && memcmp(name.data, prefix, sizeof prefix - 1) == 0 &&
         mlirOperationGetNumResults(operation) == 0 && !ir_is(operation, "kernel.observe") &&
         !ir_is(operation, "kernel.join");
}

bool ir_is(MlirOperation operation, const char *name) {
  if (mlirOperationIsNull(operation)) return false;
  MlirStringRef found = ir_name(operation);
  return found.length == strlen(name) && memcmp(found.data, name, found.length) == 0;
}

bool ir_has(MlirOperation operation, const char *name) {
  return !mlirAttributeIsNull(attribute(operation, name));
}

int64_t ir_get_integer(MlirOperation operation, const char *name) {
  MlirAttribute value = attribute(operation, name);
  return !mlirAttributeIsNull(value) && mlirAttributeIsAInteger(value) ? mlirIntegerAttrGetValueInt(value) : 0;
}

double ir_get_float(MlirOperation operation, const char *name) {
  MlirAttribute value = attribute(operation, name);
  return !mlirAttributeIsNull(value) && mlirAttributeIsAFloat(value) ? mlirFloatAttrGetValueDouble(value) : 0;
}

MlirStringRef ir_get_string(MlirOperation operation, const char *name) {
  MlirAttribute value = attribute(operation, name);
  return !mlirAttributeIsNull(value) && mlirAttributeIsAString(value) ? mlirStringAttrGetValue(value)
                                                                      : mlirStringRefCreate("", 0);
}

MlirOperation ir_definition(MlirValue value) {
  return mlirValueIsAOpResult(value) ? mlirOpResultGetOwner(value) : (MlirOperation){NULL};
}

size_t ir_use_count(MlirValue value) {
  size_t count = 0;
  for (MlirOpOperand use = mlirValueGetFirstUse(value); !mlirOpOperandIsNull(use); use = mlirOpOperandGetNextUse(use))
    count++;
  return count;
}

MlirOperation ir_single_user(MlirValue value) {
  MlirOpOperand use = mlirValueGetFirstUse(value);
  if (mlirOpOperandIsNull(use) || !mlirOpOperandIsNull(mlirOpOperandGetNextUse(use))) return (MlirOperation){NULL};
  return mlirOpOperandGetOwner(use);
}

intptr_t ir_rank(MlirValue value) {
  MlirType type = mlirValueGetType(value);
  return mlirTypeIsAShaped(type) && mlirShapedTypeHasRank(type) ? (intptr_t)mlirShapedTypeGetRank(type) : 0;
}

int64_t ir_experts_counts(int64_t experts) {
  return 1 + experts + 1 + 2; /* tiles; first places; their end; tickets */
}

bool ir_experts_shared(MlirOperation experts) {
  return ir_is(experts, "model.experts_shared");
}

intptr_t ir_experts_residual(MlirOperation experts) {
  intptr_t residual = IR_EXPERTS_SHARED + (ir_experts_shared(experts) ? 3 : 0);
  return residual < mlirOperationGetNumOperands(experts) ? residual : -1;
}

bool ir_overlaps(MlirOperation op, const char *which) {
  if (!ir_is(op, "kernel.expert_gemm") || !ir_has(op, "overlap")) return false;
  return mlirStringRefEqual(ir_get_string(op, "overlap"), mlirStringRefCreateFromCString(which));
}

int64_t ir_dimension(MlirValue value, intptr_t index) {
  MlirType type = mlirValueGetType(value);
  if (index < 0 || index >= ir_rank(value) || mlirShapedTypeIsDynamicDim(type, index)) return -1;
  return mlirShapedTypeGetDimSize(type, index);
}

MlirOperation ir_function(MlirModule module, const char *name) {
  MlirOperation operation = mlirBlockGetFirstOperation(mlirModuleGetBody(module));
  for (; !mlirOperationIsNull(operation); operation = mlirOperationGetNextInBlock(operation)) {
    if (!ir_is(operation, "func.func")) continue;
    MlirStringRef found = ir_get_string(operation, "sym_name");
    if (found.length == strlen(name) && memcmp(found.data, name, found.length) == 0) return operation;
  }
  return (MlirOperation){NULL};
}

MlirBlock ir_body(MlirOperation function) {
  return mlirRegionGetFirstBlock(mlirOperationGetRegion(function, 0));
}

/* Building: attributes, types, operations. */
#include "ir/ir.h"

#include <mlir-c/Support.h>

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

/* Arrays grow one element at a time, so that no memory of ours is needed; they have tens of elements at most. */
static MlirAttribute appended(ir_context *context, MlirAttribute array, MlirAttribute element) {
  enum { CHUNK = 64 };
  MlirAttribute elements[CHUNK];
  intptr_t count = mlirArrayAttrGetNumElements(array);
  if (count >= CHUNK) return array;
  for (intptr_t i = 0; i < count; i++) elements[i] = mlirArrayAttrGetElement(array, i);
  elements[count] = element;
  return mlirArrayAttrGet(ir_mlir(context), count + 1, elements);
}

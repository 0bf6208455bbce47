#include "passes/launches.h"

#include "sluice/plan.h"

#include <string.h>

int64_t launch_item(MlirOperation launch, const char *name, intptr_t index) {
  MlirAttribute array = mlirOperationGetAttributeByName(launch, mlirStringRefCreateFromCString(name));
  return mlirIntegerAttrGetValueInt(mlirArrayAttrGetElement(array, index));
}

bool launch_steps(MlirOperation launch, step_range *range) {
  static const char name[] = "launch.range";
  *range = (step_range){0, UINT32_MAX};
  if (!ir_has(launch, name)) return true;
  *range = (step_range){launch_item(launch, name, 1), launch_item(launch, name, 2)};
  return launch_item(launch, name, 0) == SLUICE_SIZE_TOKENS;
}

ir_attribute launch_steps_attribute(pass_state *state, step_range range) {
  const int64_t values[] = {SLUICE_SIZE_TOKENS, range.from, range.to};
  return (ir_attribute){"launch.range", ir_integers(state->context, values, 3)};
}

bool launch_memory_overlaps(MlirOperation a, MlirOperation b) {
  if (!ir_is(a, "kernel.arena") || !ir_is(b, "kernel.arena")) return false;
  MlirStringRef size = ir_get_string(a, "size"), other = ir_get_string(b, "size");
  int64_t first = ir_get_integer(a, "offset"), second = ir_get_integer(b, "offset");
  return size.length == other.length && memcmp(size.data, other.data, size.length) == 0 &&
         first < second + ir_get_integer(b, "bytes") && second < first + ir_get_integer(a, "bytes");
}

#include "passes/launches.h"

#include "ir/ranges.h"

#include <string.h>

int64_t launch_item(MlirOperation launch, const char *name, intptr_t index) {
  MlirAttribute array = mlirOperationGetAttributeByName(launch, mlirStringRefCreateFromCString(name));
  return mlirIntegerAttrGetValueInt(mlirArrayAttrGetElement(array, index));
}

bool launch_steps(MlirOperation launch, step_range *range) {
  step_ranges ranges;
  *range = (step_range){0, UINT32_MAX};
  if (ir_ranges(launch, &ranges)) return false;
  if (ranges.count == 0) return true;
  *range = (step_range){ranges.items[0].from, ranges.items[0].to};
  return ranges.count == 1 && ranges.items[0].size == SLUICE_SIZE_TOKENS;
}

ir_attribute launch_steps_attribute(pass_state *state, step_range range) {
  const sluice_plan_range tokens = {SLUICE_SIZE_TOKENS, (uint32_t)range.from, (uint32_t)range.to};
  return (ir_attribute){"launch.range", ir_ranges_attribute(state->context, &tokens, 1)};
}

bool launch_memory_overlaps(MlirOperation a, MlirOperation b) {
  if (!ir_is(a, "kernel.arena") || !ir_is(b, "kernel.arena")) return false;
  MlirStringRef size = ir_get_string(a, "size"), other = ir_get_string(b, "size");
  int64_t first = ir_get_integer(a, "offset"), second = ir_get_integer(b, "offset");
  return size.length == other.length && memcmp(size.data, other.data, size.length) == 0 &&
         first < second + ir_get_integer(b, "bytes") && second < first + ir_get_integer(a, "bytes");
}

#include "ir/ranges.h"

#include <string.h>

static MlirAttribute attribute_of(MlirOperation op) {
  return mlirOperationGetAttributeByName(op, mlirStringRefCreateFromCString("launch.range"));
}

/* One range from the three items of `array` from `first` on. */
static const char *read_range(MlirAttribute array, intptr_t first, sluice_plan_range *out) {
  MlirAttribute size = mlirArrayAttrGetElement(array, first);
  if (!mlirAttributeIsAString(size)) return "expected a size, from, to, for each size";
  MlirStringRef name = mlirStringAttrGetValue(size);
  if (!sluice_size_find(name.data, name.length, &out->size)) return "one of its sizes has no such name";
  int64_t ends[2];
  for (intptr_t i = 0; i < 2; i++) {
    MlirAttribute end = mlirArrayAttrGetElement(array, first + 1 + i);
    if (!mlirAttributeIsAInteger(end)) return "expected a size, from, to, for each size";
    ends[i] = mlirIntegerAttrGetValueInt(end);
  }
  if (ends[0] < 0 || ends[0] > ends[1] || ends[1] > UINT32_MAX) return "expected from <= to < 2^32";
  out->from = (uint32_t)ends[0];
  out->to = (uint32_t)ends[1];
  return NULL;
}

const char *ir_ranges(MlirOperation op, step_ranges *out) {
  step_ranges ranges = {.count = 0};
  *out = ranges;
  MlirAttribute array = attribute_of(op);
  if (mlirAttributeIsNull(array)) return NULL;
  if (!mlirAttributeIsAArray(array) || mlirArrayAttrGetNumElements(array) == 0 ||
      mlirArrayAttrGetNumElements(array) % 3)
    return "expected a size, from, to, for each size";
  for (intptr_t i = 0; i < mlirArrayAttrGetNumElements(array); i += 3) {
    if (ranges.count == SLUICE_SIZE_COUNT) return "it has more ranges than there are sizes";
    const sluice_plan_range *before = ranges.count ? &ranges.items[ranges.count - 1] : NULL;
    sluice_plan_range *range = &ranges.items[ranges.count++];
    const char *wrong = read_range(array, i, range);
    if (wrong) return wrong;
    if (before && range->size <= before->size) return "expected each size once, in the order of docs/ir.md";
  }
  *out = ranges;
  return NULL;
}

MlirAttribute ir_ranges_attribute(ir_context *context, const sluice_plan_range *ranges, uint32_t count) {
  MlirAttribute items[3 * SLUICE_SIZE_COUNT];
  for (uint32_t i = 0; i < count; i++) {
    items[3 * i] = ir_string(context, sluice_size_name(ranges[i].size));
    items[3 * i + 1] = ir_integer(context, ranges[i].from);
    items[3 * i + 2] = ir_integer(context, ranges[i].to);
  }
  return mlirArrayAttrGet(ir_mlir(context), 3 * (intptr_t)count, items);
}

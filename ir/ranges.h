/* The attribute launch.range of kernel ops: the steps that run a launch, as the ranges of a plan. In the IR a flat
 * array,
 * ["tokens", 1, 8, "pages", 0, 128]: size, first and last value, sizes in the order of their numbers. */
#ifndef IR_RANGES_H
#define IR_RANGES_H

#include "ir/ir.h"
#include "sluice/plan.h"

typedef struct step_ranges {
  sluice_plan_range items[SLUICE_SIZE_COUNT];
  uint32_t count; /* 0: every step */
} step_ranges;

/* NULL, or what is wrong with the attribute; then, as without it, `out` is every step. */
const char *ir_ranges(MlirOperation op, step_ranges *out);
MlirAttribute ir_ranges_attribute(ir_context *context, const sluice_plan_range *ranges, uint32_t count);

#endif

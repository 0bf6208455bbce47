/* What passes over kernel ops share: in which steps a launch runs, and whether values lie in the same memory. */
#ifndef PASSES_LAUNCHES_H
#define PASSES_LAUNCHES_H

#include "passes/passes.h"

/* Steps of so many tokens, both included. */
typedef struct step_range {
  int64_t from, to;
} step_range;

/* The steps that run `launch`, all of them where it has no launch.range. False: the range is not of tokens. */
bool launch_steps(MlirOperation launch, step_range *range);
/* The attribute launch.range of a launch that `range` of steps run. */
ir_attribute launch_steps_attribute(pass_state *state, step_range range);

/* Element `index` of an attribute that is an array of integers. */
int64_t launch_item(MlirOperation launch, const char *name, intptr_t index);

/* Whether two kernel.arena share memory; false when one of them is something else. */
bool launch_memory_overlaps(MlirOperation a, MlirOperation b);

#endif

/* Whether the target has what a kernel wants. */
#ifndef BACKENDS_COMMON_LIMITS_H
#define BACKENDS_COMMON_LIMITS_H

#include "backends/common/emitter.h"

/* Sets e->status (SLUICE_UNSUPPORTED) when the kernel that was emitted last wants more lanes, workgroup memory or
 * workgroups than there are; the message names the kernel, its shape and the limit. Of a grid that grows with the step
 * only what its smallest step has is looked at: the runtime checks each step. */
void check_limits(emitter *e);

#endif

/* A kernel family, and everything that it uses. */
#ifndef BACKENDS_COMMON_EMIT_H
#define BACKENDS_COMMON_EMIT_H

#include "backends/common/build.h"
#include "backends/common/lanes.h"
#include "backends/common/launch.h"

/* Emits one kernel for any target. Returns with e->status set when the attributes make no sense. */
typedef void kernel_family(emitter *e, const kernel_spec *spec);

/* NULL for a name that is in no table (backends/common/families.c). */
kernel_family *kernel_family_find(const char *name);

#endif

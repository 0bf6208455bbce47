/* What the families that read rows of logits share. */
#ifndef BACKENDS_COMMON_LOGITS_H
#define BACKENDS_COMMON_LOGITS_H

#include "backends/common/emit.h"

/* An i32 that orders like the logit; -0 equals 0, NaN is below everything. Vectors, too. */
V logit_key(emitter *e, V logit);

/* A field of a structure in memory. */
V logit_field(emitter *e, T type, V structure, size_t offset);

#endif

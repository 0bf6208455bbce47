/* The copy engine: whole pieces of global memory go to workgroup memory without passing through registers, and a
 * barrier in workgroup memory (mbarrier) tells when they are there.
 */
#ifndef BACKENDS_NVPTX_BULK_H
#define BACKENDS_NVPTX_BULK_H

#include "backends/common/emit.h"

enum { BULK_BARRIER_BYTES = 8 };

/* By one lane, before a barrier of the workgroup that all lanes pass before they wait. */
void bulk_barrier_init(emitter *e, V barrier);
/* By one lane, when `barrier` has no other copy under way: `bytes`, a multiple of 16, between multiples of 16. The
 * workgroup's own reads of `to` must be done (a barrier lies between them and this). */
void bulk_copy(emitter *e, V to, V from, int64_t bytes, V barrier);
/* By any lane: until the copy number 2i + `parity` (i64) of this barrier has arrived, counted from 0. Nobody may be
 * more than one copy behind. */
void bulk_wait(emitter *e, V barrier, V parity);

#endif

/* The copy engine: whole pieces of global memory go to workgroup memory without passing through registers, and a
 * barrier in workgroup memory (mbarrier) tells when they are there.
 */
#ifndef BACKENDS_NVPTX_BULK_H
#define BACKENDS_NVPTX_BULK_H

#include "backends/nvptx/mma.h"

enum { BULK_BARRIER_BYTES = 8 };

/* By one lane, before a barrier of the workgroup that all lanes pass before they wait. The barrier's phase ends when
 * there were `arrivals` of them and all expected bytes: bulk_expect is one, bulk_arrive and copies_arrive are others.
 */
void bulk_barrier_init(emitter *e, V barrier, unsigned arrivals);
/* By one lane, when `barrier` has no other copy under way: `bytes`, a multiple of 16, between multiples of 16. The
 * workgroup's own reads of `to` must be done (a barrier lies between them and this). */
void bulk_copy(emitter *e, V to, V from, int64_t bytes, V barrier);
/* The same in two steps, for several pieces that arrive at one barrier: by one lane `bytes` (i64) of all of them, and
 * by any lanes, before or after, each piece. */
void bulk_expect(emitter *e, V barrier, V bytes);
void bulk_piece(emitter *e, V to, V from, int64_t bytes, V barrier, reading how);
void bulk_arrive(emitter *e, V barrier);
/* Arrives when all of the lane's copy_async so far are there. */
void copies_arrive(emitter *e, V barrier);
/* By any lane: until the copy number 2i + `parity` (i64) of this barrier has arrived, counted from 0. Nobody may be
 * more than one copy behind. */
void bulk_wait(emitter *e, V barrier, V parity);

/* Each lane's own copies: 16 bytes (aligned) from global to workgroup memory where `wanted` (i1). `commit` ends a group
 * of them; `wait` returns when all of a lane's groups but the last `left` are there. */
void copy_async(emitter *e, V to, V from, V wanted);
/* The same of the first `bytes` (i32, 0 to 16) of the 16; the others become zero. */
void copy_async_part(emitter *e, V to, V from, V bytes);
void copy_async_commit(emitter *e);
void copy_async_wait(emitter *e, unsigned left);
/* All lanes of a warp; what each wrote before, the others see behind it. */
void warp_barrier(emitter *e);

#endif

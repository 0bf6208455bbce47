/* Sharing work and memory among the lanes of a workgroup. */
#ifndef BACKENDS_COMMON_LANES_H
#define BACKENDS_COMMON_LANES_H

#include "backends/common/atoms.h"
#include "backends/common/build.h"

loop lane_loop(emitter *e, V from, V to); /* every index of [from, to) in one of the lanes */

/* Elementwise work on a row of `width` elements, spread over lanes and vectors: calls `body` with an offset (i64) and a
 * vector width; first full vectors, then single elements. */
typedef void row_body(emitter *e, V offset, unsigned vector, void *user);
void row_loop(emitter *e, int64_t width, row_body *body, void *user);

/* Where a lane's vectors of e->vector elements of a row are, in the order of row_loop, when they are few enough to stay
 * in registers. Beyond the row an offset is that of its last vector. */
enum { MOST_ROW_PLACES = 4 };
typedef struct row_places {
  int64_t count;
  V offset[MOST_ROW_PLACES]; /* i64 */
  V inside[MOST_ROW_PLACES]; /* i1: of the row */
} row_places;
/* False when they are more, or the row is not made of whole vectors. */
bool find_row_places(emitter *e, int64_t width, row_places *out);

/* `bytes` of workgroup memory (64-byte aligned, undefined contents), shared by the lanes of a workgroup. */
V workgroup_take(emitter *e, uint64_t bytes);
/* What it takes for `bytes`. */
uint64_t workgroup_rounded(uint64_t bytes);
/* part[at] + part[at + stride] + ..., `count` f32 of workgroup memory, added in this order: what several waves have of
 * a sum. */
V add_parts(emitter *e, V part, V at, int64_t stride, unsigned count);

/* One of two values (f32, f64 or i64) from both. */
V combine(emitter *e, V a, V b, reduction operation);
/* What each wave has, in all its lanes, from all waves of the workgroup through workgroup memory, in their order: the
 * second half of atoms.reduce on targets with waves. */
V combine_waves(emitter *e, V value, reduction operation);

/* Prefetches `bytes` at `pointer`, all lanes of the workgroup together; what all workgroups share, the first one of the
 * launch alone. Nothing where the target cannot. */
void prefetch(emitter *e, V pointer, int64_t bytes);
void prefetch_shared(emitter *e, V pointer, int64_t bytes);

#endif

/* Planes: 128 rows of 128 bf16 on their way to matrix instructions. In memory a row is 256 bytes; in workgroup memory a
 * plane is two operands of wgmma.h, "swizzled", for the first 64 columns and the others. Whole ones are brought by the
 * copy engine; rows that lie anywhere, and parts of rows, are copied by the lanes of a warpgroup.
 */
#ifndef BACKENDS_NVPTX_PLANES_H
#define BACKENDS_NVPTX_PLANES_H

#include "backends/nvptx/tensor_map.h"
#include "backends/nvptx/wgmma.h"

enum {
  PLANE_ROWS = 128,
  PLANE_COLUMNS = 128,
  PLANE_ROW_BYTES = PLANE_COLUMNS * 2,
  PLANE_HALF_BYTES = PLANE_ROWS * SWIZZLE_ROW_BYTES,
  PLANE_BYTES = 2 * PLANE_HALF_BYTES,
  PLANE_PIECES = PLANE_ROW_BYTES / 16,        /* of a row, 16 bytes each */
  PLANE_COPY_ROWS = WARPGROUP / PLANE_PIECES, /* rows that the lanes copy pieces of at a time */
  PLANE_COPIES = PLANE_ROWS / PLANE_COPY_ROWS,
};

/* A lane has piece `piece` of rows own_row, own_row + PLANE_COPY_ROWS, ... */
typedef struct plane_copier {
  V piece, own_row; /* i64 */
  V from, to;       /* i64, bytes: of the first of them, in memory and in workgroup memory */
} plane_copier;
plane_copier plane_copier_open(emitter *e);
/* The map of memory that is rows of planes from `base` on; see tensor_map_make. */
V plane_map_make(emitter *e, V base, V scratch);
/* By the workgroup's first lane: the plane whose first row is the map's row number `row` (i32), to a multiple of 1024
 * of workgroup memory. PLANE_BYTES arrive at `barrier`. */
void plane_fetch(emitter *e, V map, V to, V row, V barrier);

/* Rows behind each other; the first `bytes` (i32, 0 to 16) of each of the lane's pieces, the others become zero. */
void plane_copy(emitter *e, const plane_copier *c, V to, V from, V bytes);
/* Rows anywhere: `row` gives where row number `number` (i64) begins. */
void plane_copy_rows(emitter *e, const plane_copier *c, V to, V (*row)(emitter *e, V number, void *user), void *user);

/* Bytes from a plane's begin to its columns 16 step, ... */
int64_t plane_step(unsigned step);

/* A ring of stages that one warpgroup fills and others empty: where one of them is. Locals, i32. */
typedef struct ring_place {
  V stage, parity;
  int32_t stages;
} ring_place;
ring_place ring_place_open(emitter *e, int32_t stages);
V ring_stage(emitter *e, const ring_place *at);  /* i64 */
V ring_parity(emitter *e, const ring_place *at); /* i64: what a reader waits for (bulk_wait) */
V ring_room(emitter *e, const ring_place *at);   /* i64: what a writer waits for */
void ring_step(emitter *e, const ring_place *at);

/* A local of i32, a number that is never negative, as i64. */
V local_number(emitter *e, V local_i32);

/* `count` barriers of workgroup memory that lie one behind the other; number `number` (i64) of them; what one lane does
 * for them before a barrier of the workgroup, see bulk_barrier_init. */
V barriers_take(emitter *e, unsigned count);
V barrier_at(emitter *e, V barriers, V number);
void barriers_init(emitter *e, V barriers, unsigned count, unsigned arrivals);

#endif

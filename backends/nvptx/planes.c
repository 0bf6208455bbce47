#include "backends/nvptx/planes.h"

V plane_map_make(emitter *e, V base, V scratch) {
  tensor_shape shape = {.base = base, .rows = int64(e, INT32_MAX), .columns = PLANE_COLUMNS, .box_rows = PLANE_ROWS};
  return tensor_map_make(e, &shape, scratch);
}

void plane_fetch(emitter *e, V map, V to, V row, V barrier) {
  for (int32_t half = 0; half < PLANE_COLUMNS / BOX_COLUMNS; half++)
    tensor_box(e, map, byte_offset(e, to, int64(e, (int64_t)half * PLANE_HALF_BYTES)), int32(e, half * BOX_COLUMNS),
               row, barrier);
}

plane_copier plane_copier_open(emitter *e) {
  V lane = and_(e, e->atoms->lane(e), int64(e, WARPGROUP - 1));
  plane_copier c = {.piece = and_(e, lane, int64(e, PLANE_PIECES - 1)), .own_row = lshr(e, lane, int64(e, 4))};
  c.from = add(e, mul(e, c.own_row, int64(e, PLANE_ROW_BYTES)), mul(e, c.piece, int64(e, 16)));
  V swizzled = LLVMBuildXor(e->builder, and_(e, c.piece, int64(e, 7)), c.own_row, ""); /* own_row is less than 8 */
  c.to = add(e, mul(e, c.own_row, int64(e, SWIZZLE_ROW_BYTES)), mul(e, swizzled, int64(e, 16)));
  c.to = add(e, c.to, mul(e, lshr(e, c.piece, int64(e, 3)), int64(e, PLANE_HALF_BYTES)));
  return c;
}

void plane_copy(emitter *e, const plane_copier *c, V to, V from, V bytes) {
  V first_to = byte_offset(e, to, c->to), first_from = byte_offset(e, from, c->from);
  for (unsigned i = 0; i < PLANE_COPIES; i++)
    copy_async_part(e, byte_offset(e, first_to, int64(e, i * PLANE_COPY_ROWS * SWIZZLE_ROW_BYTES)),
                    byte_offset(e, first_from, int64(e, i * PLANE_COPY_ROWS * PLANE_ROW_BYTES)), bytes);
}

void plane_copy_rows(emitter *e, const plane_copier *c, V to, V (*row)(emitter *e, V number, void *user), void *user) {
  V first_to = byte_offset(e, to, c->to), at = mul(e, c->piece, int64(e, 16));
  for (unsigned i = 0; i < PLANE_COPIES; i++)
    copy_async_part(e, byte_offset(e, first_to, int64(e, i * PLANE_COPY_ROWS * SWIZZLE_ROW_BYTES)),
                    byte_offset(e, row(e, add(e, c->own_row, int64(e, i * PLANE_COPY_ROWS)), user), at), int32(e, 16));
}

int64_t plane_step(unsigned step) {
  const unsigned in_half = PLANE_COLUMNS / 2 / WGMMA_DEPTH;
  return (int64_t)(step / in_half) * PLANE_HALF_BYTES + (int64_t)(step % in_half) * WGMMA_DEPTH * 2;
}

ring_place ring_place_open(emitter *e, int32_t stages) {
  return (ring_place){
      .stage = local_set(e, e->i32, int32(e, 0)), .parity = local_set(e, e->i32, int32(e, 0)), .stages = stages};
}

V local_number(emitter *e, V local_i32) {
  return LLVMBuildZExt(e->builder, get(e, e->i32, local_i32), e->i64, "");
}

V ring_stage(emitter *e, const ring_place *at) {
  return local_number(e, at->stage);
}

V ring_parity(emitter *e, const ring_place *at) {
  return local_number(e, at->parity);
}

V ring_room(emitter *e, const ring_place *at) {
  return LLVMBuildXor(e->builder, local_number(e, at->parity), int64(e, 1), "");
}

void ring_step(emitter *e, const ring_place *at) {
  V after = add(e, get(e, e->i32, at->stage), int32(e, 1)), ends = icmp(e, LLVMIntEQ, after, int32(e, at->stages));
  set(e, at->stage, select_(e, ends, int32(e, 0), after));
  V flip = LLVMBuildZExt(e->builder, ends, e->i32, "");
  set(e, at->parity, LLVMBuildXor(e->builder, get(e, e->i32, at->parity), flip, ""));
}

V barriers_take(emitter *e, unsigned count) {
  return workgroup_take(e, (uint64_t)count * BULK_BARRIER_BYTES);
}

void barriers_init(emitter *e, V barriers, unsigned count, unsigned arrivals) {
  for (int64_t i = 0; i < count; i++) bulk_barrier_init(e, barrier_at(e, barriers, int64(e, i)), arrivals);
}

V barrier_at(emitter *e, V barriers, V number) {
  return byte_offset(e, barriers, mul(e, number, int64(e, BULK_BARRIER_BYTES)));
}

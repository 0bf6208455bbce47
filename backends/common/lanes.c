#include "backends/common/lanes.h"

loop lane_loop(emitter *e, V from, V to) {
  return loop_begin(e, add(e, from, e->atoms->lane(e)), to, int64(e, e->lanes));
}

void row_loop(emitter *e, int64_t width, row_body *body, void *user) {
  V lane = e->atoms->lane(e);
  unsigned vector = e->vector;
  int64_t step = (int64_t)vector * e->lanes, full = width / vector * vector;
  if (full) {
    loop l = loop_begin(e, mul(e, lane, int64(e, vector)), int64(e, full), int64(e, step));
    body(e, l.index, vector, user);
    loop_end(e, &l);
  }
  if (full < width) {
    loop l = loop_begin(e, add(e, lane, int64(e, full)), int64(e, width), int64(e, e->lanes));
    body(e, l.index, 1, user);
    loop_end(e, &l);
  }
}

bool find_row_places(emitter *e, int64_t width, row_places *out) {
  const int64_t vector = e->vector, at_a_time = vector * e->lanes;
  out->count = (width + at_a_time - 1) / at_a_time;
  if (e->lanes == 1 || vector == 1 || width % vector || out->count > MOST_ROW_PLACES) return false;
  for (int64_t i = 0; i < out->count; i++) {
    V at = add(e, mul(e, e->atoms->lane(e), int64(e, vector)), int64(e, i * at_a_time));
    out->inside[i] = icmp(e, LLVMIntSLT, at, int64(e, width));
    out->offset[i] = imin(e, at, int64(e, width - vector));
  }
  return true;
}

void prefetch(emitter *e, V pointer, int64_t bytes) {
  if (!e->atoms->prefetch) return;
  const int64_t line = e->facts->line_bytes;
  loop lines = lane_loop(e, int64(e, 0), int64(e, (bytes + line - 1) / line));
  e->atoms->prefetch(e, byte_offset(e, pointer, mul(e, lines.index, int64(e, line))));
  loop_end(e, &lines);
}

void prefetch_shared(emitter *e, V pointer, int64_t bytes) {
  if (!e->atoms->prefetch) return;
  branch first = if_begin(e, icmp(e, LLVMIntEQ, or_(e, e->x, e->y), int64(e, 0)));
  prefetch(e, pointer, bytes);
  if_end(e, &first);
}

uint64_t workgroup_rounded(uint64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

V workgroup_take(emitter *e, uint64_t bytes) {
  V at = byte_offset(e, e->workgroup, int64(e, (int64_t)e->workgroup_bytes));
  e->workgroup_bytes += workgroup_rounded(bytes);
  return at;
}

V add_parts(emitter *e, V part, V at, int64_t stride, unsigned count) {
  V sum = load_f32(e, SLUICE_F32, part, at, 1);
  for (unsigned i = 1; i < count; i++)
    sum = fadd_(e, sum, load_f32(e, SLUICE_F32, part, add(e, at, int64(e, i * stride)), 1));
  return sum;
}

V combine(emitter *e, V a, V b, reduction operation) {
  bool integers = LLVMTypeOf(a) == e->i64;
  switch (operation) {
  case REDUCE_ADD:
    return integers ? add(e, a, b) : fadd_(e, a, b);
  case REDUCE_MAX:
    return integers ? imax(e, a, b) : fmax_(e, a, b);
  case REDUCE_MIN:
    break;
  }
  return integers ? imin(e, a, b) : fmin_(e, a, b);
}

V combine_waves(emitter *e, V value, reduction operation) {
  const unsigned wave = e->facts->wave, waves = e->lanes / wave;
  if (waves <= 1) return value;
  T type = LLVMTypeOf(value);
  if (!e->reduce_memory) e->reduce_memory = workgroup_take(e, e->facts->most_lanes / wave * sizeof(double));
  V me = e->atoms->lane(e);
  e->atoms->barrier(e); /* the memory's last readers are done */
  branch first = if_begin(e, icmp(e, LLVMIntEQ, and_(e, me, int64(e, wave - 1)), int64(e, 0)));
  store(e, value, element(e, type, e->reduce_memory, lshr(e, me, int64(e, __builtin_ctz(wave)))));
  if_end(e, &first);
  e->atoms->barrier(e);
  V result = load(e, type, element(e, type, e->reduce_memory, int64(e, 0)));
  for (unsigned i = 1; i < waves; i++)
    result = combine(e, result, load(e, type, element(e, type, e->reduce_memory, int64(e, i))), operation);
  return result;
}

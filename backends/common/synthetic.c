/* Making synthetic weights where they will lie (docs/synthetic.md): one workgroup makes one piece, each lane a unit of
 * at most 16 bytes at a time, so that the lanes of a wave write one run of memory.
 *
 * All elements of a unit are computed as one vector. Their indices in the tensor differ from that of the first one by
 * the same numbers in every unit, so an element costs one addition and two multiplications of 64 bits. */
#include "backends/common/families.h"

#include <stddef.h>

static const int64_t STEP = (int64_t)0x9e3779b97f4a7c15u;

typedef struct piece {
  V to;    /* pointer */
  V start; /* i64: the state before the first mixing, of the first element */
  V panel_bytes, group_bytes;
  V units;
  V row_units, groups, panel, row_elements, rows, columns, group; /* i32 */
  V factor;
  V is_f32; /* i1 */
} piece;

#define FIELD(type, name) load(e, type, byte_offset(e, at, int64(e, offsetof(sluice_synthetic_piece, name))))

static V widen(emitter *e, V i32_value) {
  return LLVMBuildZExt(e->builder, i32_value, vector_type(e->i64, width_of(i32_value)), "");
}

static piece load_piece(emitter *e, V at) {
  V first = FIELD(e->i64, first);
  return (piece){.to = byte_offset(e, e->argument[1], FIELD(e->i64, to)),
                 .start = add(e, FIELD(e->i64, base), mul(e, add(e, first, int64(e, 1)), int64(e, STEP))),
                 .panel_bytes = FIELD(e->i64, panel_bytes),
                 .group_bytes = widen(e, FIELD(e->i32, group_bytes)),
                 .units = widen(e, FIELD(e->i32, units)),
                 .row_units = FIELD(e->i32, row_units),
                 .groups = FIELD(e->i32, groups),
                 .panel = FIELD(e->i32, panel),
                 .row_elements = FIELD(e->i32, row_elements),
                 .rows = FIELD(e->i32, rows),
                 .columns = FIELD(e->i32, columns),
                 .group = FIELD(e->i32, group),
                 .factor = FIELD(e->f32, factor),
                 .is_f32 = icmp(e, LLVMIntEQ, FIELD(e->i32, dtype), int32(e, SLUICE_F32))};
}

static V xor_shifted(emitter *e, V z, int64_t bits) {
  return LLVMBuildXor(e->builder, z, lshr(e, z, splat(e, int64(e, bits), width_of(z))), "");
}

/* The weight's bits as f32, rounded to bf16, from the state before the first mixing. */
static V weight_bits(emitter *e, V z, V factor) {
  unsigned width = width_of(z);
  T words = vector_type(e->i32, width);
  z = mul(e, xor_shifted(e, z, 30), int64(e, (int64_t)0xbf58476d1ce4e5b9u));
  z = mul(e, xor_shifted(e, z, 27), int64(e, (int64_t)0x94d049bb133111ebu));
  z = xor_shifted(e, z, 31);
  V low = to_i32(e, z), high = to_i32(e, lshr(e, z, int64(e, 32)));
  V sum = add(e, add(e, and_(e, low, int32(e, 0xffff)), lshr(e, low, int32(e, 16))),
              add(e, and_(e, high, int32(e, 0xffff)), lshr(e, high, int32(e, 16))));
  /* sum - 131070 as a float: 2^23 + sum is exact, and so is the difference. */
  V shifted = bitcast(e, add(e, sum, int32(e, 0x4b000000)), vector_type(e->f32, width));
  V value = fmul_(e, fsub_(e, shifted, float32(e, 8388608 + 131070)), factor);
  V bits = bitcast(e, value, words); /* finite, so no NaN to look after */
  V odd = and_(e, lshr(e, bits, int32(e, 16)), int32(e, 1));
  return and_(e, add(e, bits, add(e, odd, int32(e, 0x7fff))), int32(e, (int32_t)0xffff0000u));
}

static void make_units(emitter *e, const piece *p, unsigned unit) {
  V numbers[8];
  for (unsigned i = 0; i < unit; i++) numbers[i] = int32(e, (int32_t)i);
  V number = unit == 1 ? numbers[0] : LLVMConstVector(numbers, unit);
  V unit_rows = udiv(e, int32(e, (int32_t)unit), p->group);
  V row_in_unit = udiv(e, number, p->group), column_in_unit = urem(e, number, p->group);
  V distance = add(e, mul(e, widen(e, row_in_unit), widen(e, p->row_elements)), widen(e, column_in_unit));
  V steps = mul(e, distance, int64(e, STEP));

  loop l = lane_loop(e, int64(e, 0), p->units);
  V index = to_i32(e, l.index);
  V t = udiv(e, index, p->row_units), in_group = sub(e, index, mul(e, t, p->row_units));
  V panel = udiv(e, t, p->groups), group = sub(e, t, mul(e, panel, p->groups));
  V row = add(e, mul(e, panel, p->panel), mul(e, in_group, unit_rows)), column = mul(e, group, p->group);
  V elements = add(e, mul(e, widen(e, row), widen(e, p->row_elements)), widen(e, column));
  V z = add(e, add(e, p->start, mul(e, elements, int64(e, STEP))), steps);
  /* What is left of rows may be negative behind the last panel's. */
  V inside = and_(e, icmp(e, LLVMIntSLT, row_in_unit, sub(e, p->rows, row)),
                  icmp(e, LLVMIntSLT, column_in_unit, sub(e, p->columns, column)));
  V bits = select_(e, inside, weight_bits(e, z, p->factor), int32(e, 0));
  V to =
      byte_offset(e, p->to, add(e, mul(e, widen(e, panel), p->panel_bytes), mul(e, widen(e, group), p->group_bytes)));
  V halves = LLVMBuildTrunc(e->builder, lshr(e, bits, int32(e, 16)), vector_type(e->i16, unit), "");
  V place = mul(e, widen(e, in_group), int64(e, unit));
  if (unit <= 4) {
    branch f32 = if_begin(e, p->is_f32);
    store(e, bits, element(e, e->i32, to, place));
    if_else(e, &f32);
    store(e, halves, element(e, e->i16, to, place));
    if_end(e, &f32);
  } else {
    store(e, halves, element(e, e->i16, to, place));
  }
  loop_end(e, &l);
}

void family_synthesize(emitter *e, const kernel_spec *spec) {
  kernel_begin(e, spec, each(SLUICE_SIZE_TOKENS, 0));
  V at = byte_offset(e, e->argument[0], mul(e, e->x, int64(e, sizeof(sluice_synthetic_piece))));
  V unit = FIELD(e->i32, unit);
  for (unsigned width = 8; width; width /= 2) {
    branch fits = if_begin(e, icmp(e, LLVMIntEQ, unit, int32(e, (int32_t)width)));
    const piece p = load_piece(e, at);
    make_units(e, &p, width);
    if_end(e, &fits);
  }
  kernel_end(e);
}

#include "backends/common/tile.h"

/* A block of the product: `rows` rows, `vectors` vectors of columns, accumulators in local variables. */
typedef struct block {
  const tile_product *product;
  unsigned height, vectors;
  V first_row;          /* i64 */
  V row[16];            /* row index of C, clamped to the last valid row */
  V a[16];              /* row pointers of A */
  V column;             /* first column, i64 */
  V accumulator[16][8]; /* local variables */
} block;

enum { MAX_HEIGHT = 16, MAX_VECTORS = 8 };

static T float_vector(const emitter *e) {
  return vector_type(e->f32, e->vector);
}

static V fetch_a(emitter *e, const block *b, unsigned row, V depth) {
  return splat(e, load_f32(e, b->product->a_dtype, b->a[row], depth, 1), e->vector);
}

static void multiply_add(emitter *e, const block *b, unsigned row, unsigned vector, V a, V w) {
  V slot = b->accumulator[row][vector];
  set(e, slot, fma_(e, a, w, get(e, float_vector(e), slot)));
}

/* Where the block's part of a pair lies in the panel, in elements. */
static V pair_place(emitter *e, const block *b, V pair) {
  V start = mul(e, pair, int64(e, b->product->max_columns * 2));
  return add(e, start, mul(e, b->column, int64(e, 2)));
}

/* One pair of columns (2 * pair, 2 * pair + 1) of a packed panel; `both` false: only the first of the two. */
static void packed_step(emitter *e, const block *b, V pair, bool both) {
  unsigned lanes = e->vector;
  V even[MAX_VECTORS], odd[MAX_VECTORS], base = pair_place(e, b, pair);
  for (unsigned j = 0; j < b->vectors; j++) {
    V index = add(e, base, int64(e, (int64_t)j * lanes * 2));
    if (b->product->b_dtype == SLUICE_BF16) {
      /* A pair is one 32-bit word: the even column in its low half. */
      T words = vector_type(e->i32, lanes);
      V both_halves = load(e, words, element_of(e, SLUICE_BF16, b->product->b, index));
      even[j] = bitcast(e, shl(e, both_halves, int32(e, 16)), float_vector(e));
      odd[j] = bitcast(e, and_(e, both_halves, int32(e, (int32_t)0xffff0000)), float_vector(e));
    } else {
      V low = load_f32(e, SLUICE_F32, b->product->b, index, lanes);
      V high = load_f32(e, SLUICE_F32, b->product->b, add(e, index, int64(e, lanes)), lanes);
      V pick_even[16], pick_odd[16];
      for (unsigned i = 0; i < lanes; i++) {
        pick_even[i] = int32(e, (int32_t)(2 * i));
        pick_odd[i] = int32(e, (int32_t)(2 * i + 1));
      }
      even[j] = LLVMBuildShuffleVector(e->builder, low, high, LLVMConstVector(pick_even, lanes), "");
      odd[j] = LLVMBuildShuffleVector(e->builder, low, high, LLVMConstVector(pick_odd, lanes), "");
    }
  }
  V depth = mul(e, pair, int64(e, 2));
  for (unsigned i = 0; i < b->height; i++) {
    V first = fetch_a(e, b, i, depth);
    for (unsigned j = 0; j < b->vectors; j++) multiply_add(e, b, i, j, first, even[j]);
    if (!both) continue;
    V second = fetch_a(e, b, i, add(e, depth, int64(e, 1)));
    for (unsigned j = 0; j < b->vectors; j++) multiply_add(e, b, i, j, second, odd[j]);
  }
}

/* A pair of columns of a packed panel where the target multiplies pairs of bf16. */
static void dot_step(emitter *e, const block *b, V pair, bool both) {
  unsigned lanes = e->vector;
  T words = vector_type(e->i32, lanes);
  V w[MAX_VECTORS], base = pair_place(e, b, pair), depth = mul(e, pair, int64(e, 2));
  for (unsigned j = 0; j < b->vectors; j++) {
    V index = add(e, base, int64(e, (int64_t)j * lanes * 2));
    w[j] = load(e, words, element_of(e, SLUICE_BF16, b->product->b, index));
    /* What lies beyond the last column may be anything, also NaN. */
    if (!both) w[j] = and_(e, w[j], int32(e, 0xffff));
  }
  for (unsigned i = 0; i < b->height; i++) {
    V at = element_of(e, SLUICE_BF16, b->a[i], depth), a;
    if (both) {
      a = LLVMBuildLoad2(e->builder, e->i32, at, "");
      LLVMSetAlignment(a, 2);
    } else {
      a = LLVMBuildZExt(e->builder, load(e, e->i16, at), e->i32, "");
    }
    a = splat(e, a, lanes);
    for (unsigned j = 0; j < b->vectors; j++) {
      V slot = b->accumulator[i][j];
      set(e, slot, e->atoms->dot_bf16(e, get(e, float_vector(e), slot), a, w[j]));
    }
  }
}

static void plain_step(emitter *e, const block *b, V depth) {
  unsigned lanes = e->vector;
  V w[MAX_VECTORS];
  V base = add(e, mul(e, depth, b->product->b_stride), b->column);
  for (unsigned j = 0; j < b->vectors; j++)
    w[j] = load_f32(e, b->product->b_dtype, b->product->b, add(e, base, int64(e, (int64_t)j * lanes)), lanes);
  for (unsigned i = 0; i < b->height; i++) {
    V a = fetch_a(e, b, i, depth);
    for (unsigned j = 0; j < b->vectors; j++) multiply_add(e, b, i, j, a, w[j]);
  }
}

static V c_index(emitter *e, const block *b, unsigned row, unsigned vector) {
  V index = add(e, mul(e, b->row[row], int64(e, b->product->c_stride)), b->column);
  return add(e, index, int64(e, (int64_t)vector * e->vector));
}

static void emit_block(emitter *e, block *b) {
  const tile_product *p = b->product;
  V last = sub(e, p->rows, int64(e, 1));
  for (unsigned i = 0; i < b->height; i++) {
    b->row[i] = imin(e, add(e, b->first_row, int64(e, i)), last);
    b->a[i] = p->a_row(e, b->row[i], p->user);
    for (unsigned j = 0; j < b->vectors; j++) {
      V zero = LLVMConstNull(float_vector(e));
      V start = p->accumulate ? load_f32(e, SLUICE_F32, p->c, c_index(e, b, i, j), e->vector) : zero;
      b->accumulator[i][j] = local_set(e, float_vector(e), start);
    }
  }
  if (p->b_stride) {
    loop l = loop_begin(e, int64(e, 0), p->depth, int64(e, 1));
    plain_step(e, b, l.index);
    loop_end(e, &l);
  } else {
    bool pairs_of_bf16 = e->atoms->dot_bf16 && p->a_dtype == SLUICE_BF16 && p->b_dtype == SLUICE_BF16;
    void (*step)(emitter *, const block *, V, bool) = pairs_of_bf16 ? dot_step : packed_step;
    V pairs = lshr(e, p->depth, int64(e, 1));
    loop l = loop_begin(e, int64(e, 0), pairs, int64(e, 1));
    step(e, b, l.index, true);
    loop_end(e, &l);
    branch odd = if_begin(e, icmp(e, LLVMIntNE, and_(e, p->depth, int64(e, 1)), int64(e, 0)));
    step(e, b, pairs, false);
    if_end(e, &odd);
  }
  /* A clamped row is computed again with the same result, and stored again: harmless, except where the product is added
   * to C, which was read before any of these stores. */
  for (unsigned i = 0; i < b->height; i++)
    for (unsigned j = 0; j < b->vectors; j++)
      store_f32(e, SLUICE_F32, get(e, float_vector(e), b->accumulator[i][j]), p->c, c_index(e, b, i, j));
}

/* All rows for the columns of one block: full blocks of `height` rows, then what is left in a block of half the height,
 * or of one row, so that a single token costs a single row. */
static void emit_rows(emitter *e, const tile_product *p, unsigned height, unsigned vectors, V column) {
  V full = mul(e, udiv(e, p->rows, int64(e, height)), int64(e, height));
  loop l = loop_begin(e, int64(e, 0), full, int64(e, height));
  emit_block(e, &(block){.product = p, .height = height, .vectors = vectors, .first_row = l.index, .column = column});
  loop_end(e, &l);
  unsigned half = (height + 1) / 2;
  V left = sub(e, p->rows, full);
  branch more = if_begin(e, icmp(e, LLVMIntSGT, left, int64(e, 1)));
  loop h = loop_begin(e, full, p->rows, int64(e, half));
  emit_block(e, &(block){.product = p, .height = half, .vectors = vectors, .first_row = h.index, .column = column});
  loop_end(e, &h);
  if_else(e, &more);
  branch one = if_begin(e, icmp(e, LLVMIntEQ, left, int64(e, 1)));
  emit_block(e, &(block){.product = p, .height = 1, .vectors = vectors, .first_row = full, .column = column});
  if_end(e, &one);
  if_end(e, &more);
}

/* Rows of a block so that accumulators, one row of B and a broadcast element of A stay in registers. */
static unsigned block_height(const emitter *e, unsigned vectors) {
  unsigned height = (e->facts->registers - vectors - 2) / vectors;
  if (height < 1) return 1; /* a wide panel on a target with few registers: slow, but right */
  return height > 6 && vectors > 1 ? 6 : height > 12 ? 12 : height;
}

/* ---- workgroups of several lanes ----
 *
 * Each lane computes elements of one column in LANE_ROWS rows at a time; neighbouring lanes have neighbouring columns.
 * A chain of LANE_CHAIN fused multiply-adds in f32 is added to a sum in f64 before the next one begins: so the error
 * does not grow with the depth. */

enum { LANE_ROWS = 4, LANE_STEPS = 4, LANE_CHAIN = 32 };

typedef struct lane_block {
  const tile_product *product;
  V row[LANE_ROWS], a[LANE_ROWS]; /* clamped to the last valid row */
  V column;
  V accumulator[LANE_ROWS]; /* f32 */
} lane_block;

/* The element of B at (depth, column). */
static V fetch_b(emitter *e, const tile_product *p, V depth, V column) {
  V at;
  if (p->b_stride && p->b_transposed) {
    at = add(e, mul(e, column, p->b_stride), depth);
  } else if (p->b_stride) {
    at = add(e, mul(e, depth, p->b_stride), column);
  } else {
    V pair = mul(e, lshr(e, depth, int64(e, 1)), int64(e, p->max_columns));
    at = add(e, mul(e, add(e, pair, column), int64(e, 2)), and_(e, depth, int64(e, 1)));
  }
  return load_f32(e, p->b_dtype, p->b, at, 1);
}

static void lane_steps(emitter *e, const lane_block *b, V depth, unsigned count) {
  for (unsigned step = 0; step < count; step++) {
    V at = add(e, depth, int64(e, step));
    V w = fetch_b(e, b->product, at, b->column);
    for (unsigned i = 0; i < LANE_ROWS; i++)
      set(e, b->accumulator[i],
          fma_(e, load_f32(e, b->product->a_dtype, b->a[i], at, 1), w, get(e, e->f32, b->accumulator[i])));
  }
}

static V to_f64(emitter *e, V f32_value) {
  return LLVMBuildFPExt(e->builder, f32_value, e->f64, "");
}

static void lanes_multiply(emitter *e, const tile_product *p) {
  V blocks = ceil_div(e, p->rows, LANE_ROWS), last = sub(e, p->rows, int64(e, 1));
  loop places = lane_loop(e, int64(e, 0), mul(e, blocks, p->columns));
  lane_block b = {.product = p, .column = urem(e, places.index, p->columns)};
  V first = mul(e, udiv(e, places.index, p->columns), int64(e, LANE_ROWS)), sum[LANE_ROWS];
  for (unsigned i = 0; i < LANE_ROWS; i++) {
    b.row[i] = imin(e, add(e, first, int64(e, i)), last);
    b.a[i] = p->a_row(e, b.row[i], p->user);
    V at = add(e, mul(e, b.row[i], int64(e, p->c_stride)), b.column);
    V before = p->accumulate ? load_f32(e, SLUICE_F32, p->c, at, 1) : float32(e, 0);
    sum[i] = local_set(e, e->f64, to_f64(e, before));
    b.accumulator[i] = local(e, e->f32);
  }
  loop chains = loop_begin(e, int64(e, 0), p->depth, int64(e, LANE_CHAIN));
  for (unsigned i = 0; i < LANE_ROWS; i++) set(e, b.accumulator[i], float32(e, 0));
  V end = imin(e, add(e, chains.index, int64(e, LANE_CHAIN)), p->depth);
  V length = sub(e, end, chains.index);
  V whole = add(e, chains.index, mul(e, udiv(e, length, int64(e, LANE_STEPS)), int64(e, LANE_STEPS)));
  loop steps = loop_begin(e, chains.index, whole, int64(e, LANE_STEPS));
  lane_steps(e, &b, steps.index, LANE_STEPS);
  loop_end(e, &steps);
  loop rest = loop_begin(e, whole, end, int64(e, 1));
  lane_steps(e, &b, rest.index, 1);
  loop_end(e, &rest);
  for (unsigned i = 0; i < LANE_ROWS; i++)
    set(e, sum[i], fadd_(e, get(e, e->f64, sum[i]), to_f64(e, get(e, e->f32, b.accumulator[i]))));
  loop_end(e, &chains);
  for (unsigned i = 0; i < LANE_ROWS; i++) {
    V at = add(e, mul(e, b.row[i], int64(e, p->c_stride)), b.column);
    store_f32(e, SLUICE_F32, LLVMBuildFPTrunc(e->builder, get(e, e->f64, sum[i]), e->f32, ""), p->c, at);
  }
  loop_end(e, &places);
}

void tile_multiply(emitter *e, const tile_product *p) {
  if (e->lanes > 1) {
    lanes_multiply(e, p);
    return;
  }
  unsigned lanes = e->vector;
  if (!p->b_stride) {
    if (p->max_columns < lanes || p->max_columns % lanes) {
      if (!e->status)
        e->status = sluice_error(SLUICE_INTERNAL, "%s: a panel of %lld rows: expected whole vectors of %u",
                                 e->spec->symbol, (long long)p->max_columns, lanes);
      return;
    }
    /* As many vectors at once as leave room for several rows, then what is left. */
    int64_t most = e->facts->registers / 8, panel = p->max_columns / lanes, wide = panel / most * most;
    if (wide) {
      loop l = loop_begin(e, int64(e, 0), int64(e, wide * lanes), int64(e, most * lanes));
      emit_rows(e, p, block_height(e, (unsigned)most), (unsigned)most, l.index);
      loop_end(e, &l);
    }
    if (wide < panel)
      emit_rows(e, p, block_height(e, (unsigned)(panel - wide)), (unsigned)(panel - wide), int64(e, wide * lanes));
    return;
  }
  unsigned vectors = e->facts->registers / 8; /* 4 of 32, 2 of 16 */
  int64_t wide = (int64_t)vectors * lanes;
  V full = int64(e, 0);
  if (p->max_columns >= wide) {
    full = mul(e, udiv(e, p->columns, int64(e, wide)), int64(e, wide));
    loop l = loop_begin(e, int64(e, 0), full, int64(e, wide));
    emit_rows(e, p, block_height(e, vectors), vectors, l.index);
    loop_end(e, &l);
  }
  if (p->max_columns % wide == 0 && LLVMIsConstant(p->columns)) return;
  loop l = loop_begin(e, full, p->columns, int64(e, lanes));
  emit_rows(e, p, block_height(e, 1), 1, l.index);
  loop_end(e, &l);
}

/* Products with many rows of x, at the rate of the matrix units: x and w pass through LDS.
 *
 * A workgroup of 8 waves makes up to 256 rows of x times 256 rows of w, its depth in steps of 32 or 64 columns. Both
 * come in parts of 128 rows, and a wave multiplies 64 rows of each part of x with 32 of each part of w:
 *
 *     part of x, 128 rows            part of w, 128 rows (8 panels)
 *     [ waves 0..3 | waves 4..7 ]    [ waves 0, 4 | 1, 5 | 2, 6 | 3, 7 ]
 *
 * A step has a phase for each part of x. A phase is a memory half (LDS to registers) and a matrix half, and the two
 * groups of waves 0..3 and 4..7, of which every SIMD has one wave each, are always in different halves. A barrier ends
 * each half:
 *
 *     waves 0..3   read  multiply  read  multiply  read  ...
 *     waves 4..7         read  multiply  read  multiply  ...
 *     loads          *     w     *     w     *     w          *: ask, w: wait
 *
 * LDS is a ring of parts. When both groups have read a phase's parts, both ask for the parts that come next in their
 * places: the first group in its memory half, the other in its matrix half. All waits are one half later, and count:
 * what was asked for after the parts that the next phase reads stays on its way. Behind the last step that one is
 * loaded again, which keeps the counts.
 *
 * A step's panel of w is, as it lies in memory, the operands of mfma_16x16 lane by lane. Rows of x lie in LDS one after
 * the other, the 16-byte vectors of each in another order (`swizzle`), so that no bank is asked for twice at a time.
 */
#include "backends/amdgcn/amdgcn.h"
#include "backends/amdgcn/buffer.h"
#include "backends/amdgcn/direct.h"
#include "backends/amdgcn/mfma.h"
#include "backends/common/gemm.h"

enum {
  X_WAVES = 2,
  W_WAVES = 4,
  WAVES = X_WAVES * W_WAVES,
  TILE = 16,
  X_TILES = 4, /* of a wave, in a part */
  W_TILES = 2,
  PART = 128, /* rows */
  MOST_PARTS = 2,
  MOST_PLACES = 10, /* of parts in LDS */
  VECTOR = 16,      /* bytes */
  STEP = 32,        /* depth of mfma_16x16 */
  MOST_STEPS = 2,
  MOST_LOADS = 4,
};

/* A part that passes through LDS, in the order of loading. */
typedef struct part {
  bool of_x;
  unsigned number, phase; /* that reads it */
} part;

typedef struct product {
  const gemm_stream *given;
  gemm_round round;
  unsigned parts[2], count, phases; /* parts[of_x] of a step, together; a phase for each part of x */
  part part[2 * MOST_PARTS];
  unsigned places;            /* of parts in LDS */
  int64_t depth, steps;       /* columns of a step; steps of a round */
  unsigned loads, load_bytes; /* of a wave for each part; of one */
  int64_t part_bytes;         /* in LDS */
  V lane, wave;               /* i64 */
  V memory;                   /* LDS */
  V first, first_before;      /* locals, i32: offset of the step's first part; of that of the step before */
  V rows, weights;            /* buffers */
  V row_offset[MOST_PARTS][MOST_LOADS], panel_offset[MOST_PARTS], lane_offset; /* i32: what the wave loads */
  V x_at[MOST_STEPS], w_at;                                                    /* i32: what the lane reads, in a part */
  V x[X_TILES][MOST_STEPS], w[MOST_PARTS][W_TILES][MOST_STEPS];                /* operands */
  V sum[MOST_PARTS][MOST_PARTS][X_TILES][W_TILES];                             /* locals; of x, of w */
} product;

static T sum_type(const emitter *e) {
  return LLVMVectorType(e->f32, 4);
}

/* ---- shape ---- */

/* In the order of loading: that of reading. */
static void list_parts(product *p) {
  p->phases = p->parts[true];
  p->part[p->count++] = (part){true, 0, 0};
  for (unsigned w = 0; w < p->parts[false]; w++) p->part[p->count++] = (part){false, w, 0};
  for (unsigned x = 1; x < p->parts[true]; x++) p->part[p->count++] = (part){true, x, x};
}

/* Columns of a step, where a load is of `bytes`; and parts of such steps that LDS has room for. */
static int64_t depth_of_step(int64_t k, unsigned bytes) {
  return bytes == VECTOR && k % (2 * STEP) == 0 ? 2 * STEP : STEP;
}

static int64_t most_places(const char *target, const kernel_question *q) {
  const int64_t part_bytes = PART * depth_of_step(q->k, amdgcn_direct_bytes(target)) * 2;
  const int64_t places = amdgcn_backend.facts(target)->workgroup_bytes / part_bytes;
  return places < MOST_PLACES ? places : MOST_PLACES;
}

/* LDS is full of parts. */
void amdgcn_stream_complete(const char *target, const kernel_question *q, kernel_variant *v) {
  v->choice[CHOOSE_LANES] = WAVES * AMDGCN_WAVE;
  v->choice[CHOOSE_STAGES] = most_places(target, q);
}

illegal_choice amdgcn_stream_relate(const char *target, const kernel_question *q, const int64_t v[]) {
  if (q->n == 0) return (illegal_choice){0};
  const int64_t most = MOST_PARTS * PART / (q->pairs ? 2 : 1), places = most_places(target, q);
  if (v[CHOOSE_SLICE] > most) return (illegal_choice){CHOOSE_SLICE, "at most", most};
  return v[CHOOSE_STAGES] == places ? (illegal_choice){0} : (illegal_choice){CHOOSE_STAGES, "just", places};
}

static bool choose_shape(emitter *e, product *p) {
  const gemm_stream *g = p->given;
  const int64_t columns = g->panels * g->matrices * TILE;
  p->parts[true] = (unsigned)((g->tile_m + PART - 1) / PART);
  p->parts[false] = (unsigned)((columns + PART - 1) / PART);
  if (p->parts[true] > MOST_PARTS || p->parts[false] > MOST_PARTS) {
    e->status = sluice_error(SLUICE_INTERNAL, "kernel %s: %lld by %lld rows do not fit in registers", e->spec->symbol,
                             (long long)g->tile_m, (long long)columns);
    return false;
  }
  const unsigned bytes = direct_bytes(e);
  p->depth = depth_of_step(g->k, bytes);
  p->steps = g->k / p->depth;
  p->part_bytes = PART * p->depth * 2;
  p->load_bytes = bytes * AMDGCN_WAVE;
  p->loads = (unsigned)(p->part_bytes / WAVES / p->load_bytes);
  p->places = g->stages;
  list_parts(p);
  return true;
}

/* ---- memory to LDS ---- */

/* Where vector `vector` of row `row` of x lies among the vectors of its row. With rows of 8 vectors two rows fill the
 * banks of gfx950 once; pairs of rows differ:
 *
 *     row 0, 1    0 1 2 3 4 5 6 7
 *     row 2, 3    1 0 3 2 5 4 7 6
 *     row 4, 5    2 3 0 1 6 7 4 5   ...
 */
static V swizzle(emitter *e, const product *p, V row, V vector) {
  V turn = and_(e, lshr(e, row, int64(e, 1)), int64(e, p->depth / 8 - 1));
  return LLVMBuildXor(e->builder, vector, turn, "");
}

/* What the wave loads of each part: 16 rows of x, of which a row behind the last one is the last one; and a panel of w,
 * likewise. */
static void find_sources(emitter *e, product *p) {
  const gemm_stream *g = p->given;
  const int64_t row_bytes = p->depth * 2;
  p->rows = buffer_open(e, g->x);
  p->weights = buffer_open(e, p->round.weights);
  V place = mul(e, p->lane, int64(e, direct_bytes(e)));
  p->lane_offset = to_i32(e, place);
  V last = sub(e, p->round.rows, int64(e, 1));
  for (unsigned number = 0; number < p->parts[true]; number++)
    for (unsigned i = 0; i < p->loads; i++) {
      V at = add(e, place, int64(e, i * p->load_bytes));
      V within = udiv(e, at, int64(e, row_bytes));
      V vector = swizzle(e, p, within, udiv(e, urem(e, at, int64(e, row_bytes)), int64(e, VECTOR)));
      V byte = add(e, mul(e, vector, int64(e, VECTOR)), urem(e, at, int64(e, VECTOR)));
      V row = add(e, add(e, mul(e, p->wave, int64(e, TILE)), within), int64(e, number * PART));
      V distance = byte_distance(e, g->x, g->x_row(e, imin(e, row, last), g->user));
      p->row_offset[number][i] = to_i32(e, add(e, distance, byte));
    }
  for (unsigned number = 0; number < p->parts[false]; number++) {
    V panel = add(e, p->wave, int64(e, number * WAVES));
    panel = imin(e, panel, sub(e, mul(e, p->round.panels, int64(e, g->matrices)), int64(e, 1)));
    p->panel_offset[number] = to_i32(e, mul(e, panel, int64(e, g->k * TILE * 2)));
  }
}

/* Offset in LDS of part `which` of the step whose first part is at `first`. */
static V place_of(emitter *e, const product *p, V first, unsigned which) {
  V end = int32(e, (int32_t)(p->places * p->part_bytes)),
    at = add(e, first, int32(e, (int32_t)(which * p->part_bytes)));
  if (p->places % p->count == 0 && which < p->count) return at; /* a step's parts lie one behind the other */
  return select_(e, icmp(e, LLVMIntSGE, at, end), sub(e, at, end), at);
}

/* Part `which` of step `step` to `place`. */
static void load_part(emitter *e, const product *p, unsigned which, V step, V place) {
  const part *q = &p->part[which];
  V mine = add(e, place, to_i32(e, mul(e, p->wave, int64(e, p->part_bytes / WAVES))));
  V to = LLVMBuildGEP2(e->builder, e->i8, p->memory, &mine, 1, "");
  V from = to_i32(e, mul(e, step, int64(e, p->depth * 2 * (q->of_x ? 1 : TILE))));
  for (unsigned i = 0; i < p->loads; i++) {
    if (q->of_x) {
      V further = int32(e, (int32_t)(i * p->load_bytes));
      direct_load(e, p->rows, LLVMBuildGEP2(e->builder, e->i8, to, &further, 1, ""), p->row_offset[q->number][i], from,
                  0);
    } else {
      direct_load(e, p->weights, to, p->lane_offset, add(e, p->panel_offset[q->number], from), i * p->load_bytes);
    }
  }
}

/* Loads over what phase `phase` of step `step` has read: the parts that are a whole ring behind. `first` is the place
 * of the step's first part. */
static void load_over(emitter *e, const product *p, unsigned phase, V step, V first) {
  for (unsigned i = 0; i < p->count; i++) {
    if (p->part[i].phase != phase) continue;
    const unsigned next = i + p->places;
    V of_step = imin(e, add(e, step, int64(e, next / p->count)), int64(e, p->steps - 1));
    load_part(e, p, next % p->count, of_step, place_of(e, p, first, i));
  }
}

/* The parts that are read in phases 0 .. phase - 1. */
static unsigned parts_before(const product *p, unsigned phase) {
  unsigned count = 0;
  for (unsigned i = 0; i < p->count; i++) count += p->part[i].phase < phase;
  return count;
}

/* Waits for what the phase behind `phase` reads. Asked for so far, from this step on, are the parts of the whole ring
 * and those that took the places of the phases before this one. */
static void wait_for_next(emitter *e, const product *p, unsigned phase) {
  const unsigned asked = p->places + parts_before(p, phase);
  const bool last = phase + 1 == p->phases;
  const unsigned wanted = last ? p->count + parts_before(p, 1) : parts_before(p, phase + 2);
  direct_wait(e, (asked - wanted) * p->loads);
}

/* The ring, but for the places of the last phase, as if a step had been before the first one. */
static void fill(emitter *e, const product *p) {
  const unsigned last = p->count - parts_before(p, p->phases - 1);
  for (unsigned i = 0; i < p->places - last; i++) {
    const int64_t step = i / p->count;
    load_part(e, p, i % p->count, int64(e, step < p->steps ? step : p->steps - 1),
              int32(e, (int32_t)(i * p->part_bytes)));
  }
  direct_wait(e, (p->places - last - parts_before(p, 1)) * p->loads);
  direct_barrier(e);
}

/* ---- LDS to registers to sums ---- */

static void find_operands(emitter *e, product *p) {
  V row = fragment_lane_part(e, &mfma_16x16.b, FRAGMENT_COLUMN, p->lane);
  V vector = lshr(e, fragment_lane_part(e, &mfma_16x16.b, FRAGMENT_DEPTH, p->lane), int64(e, 3));
  V x_wave = udiv(e, p->wave, int64(e, W_WAVES)), w_wave = urem(e, p->wave, int64(e, W_WAVES));
  V first = mul(e, add(e, mul(e, x_wave, int64(e, X_TILES * TILE)), row), int64(e, p->depth * 2));
  for (unsigned s = 0; s < p->depth / STEP; s++) {
    V place = swizzle(e, p, row, add(e, vector, int64(e, s * STEP / 8)));
    p->x_at[s] = to_i32(e, add(e, first, mul(e, place, int64(e, VECTOR))));
  }
  V panel = mul(e, w_wave, int64(e, W_TILES * TILE * p->depth * 2));
  p->w_at = to_i32(e, add(e, panel, mul(e, p->lane, int64(e, VECTOR))));
}

static void read_parts(emitter *e, product *p, unsigned phase, V first) {
  const int64_t tile_bytes = TILE * p->depth * 2;
  for (unsigned i = 0; i < p->count; i++) {
    const part *q = &p->part[i];
    if (q->phase != phase) continue;
    V place = place_of(e, p, first, i);
    for (unsigned t = 0; t < (q->of_x ? X_TILES : W_TILES); t++)
      for (unsigned s = 0; s < p->depth / STEP; s++) {
        if (q->of_x)
          p->x[t][s] = direct_read(e, p->memory, add(e, p->x_at[s], place), t * tile_bytes);
        else
          p->w[q->number][t][s] =
              direct_read(e, p->memory, add(e, p->w_at, place), t * tile_bytes + s * AMDGCN_WAVE * VECTOR);
      }
  }
}

static void multiply_parts(emitter *e, const product *p, unsigned phase) {
  for (unsigned s = 0; s < p->depth / STEP; s++)
    for (unsigned m = 0; m < X_TILES; m++)
      for (unsigned w = 0; w < p->parts[false]; w++)
        for (unsigned n = 0; n < W_TILES; n++) {
          V sum = p->sum[phase][w][m][n];
          set(e, sum, mfma_16x16.multiply(e, p->w[w][n][s], p->x[m][s], get(e, sum_type(e), sum)));
        }
}

/* The same i32, which the compiler takes for one it has not seen: nothing is kept that was made of it before. */
typedef enum register_kind { IN_VECTOR, IN_SCALAR } register_kind;
static V made_anew(emitter *e, V word, register_kind kind) {
  T type = LLVMFunctionType(e->i32, &e->i32, 1, 0);
  const char *constraints = kind == IN_SCALAR ? "=s,0" : "=v,0";
  V nothing = LLVMGetInlineAsm(type, "", 0, constraints, 4, 1, 0, LLVMInlineAsmDialectATT, 0);
  return LLVMBuildCall2(e->builder, type, nothing, &word, 1, "");
}

/* Loads among matrix instructions, evenly. */
static void mix(emitter *e, const product *p, unsigned phase) {
  const unsigned loads = (parts_before(p, phase + 1) - parts_before(p, phase)) * p->loads;
  const unsigned multiplied = X_TILES * W_TILES * p->parts[false] * (unsigned)(p->depth / STEP);
  for (unsigned i = 0; i < loads; i++) {
    direct_schedule(e, DIRECT_LOADS, 1);
    direct_schedule(e, MATRIX_INSTRUCTIONS, multiplied * mfma_instructions(e) / loads);
  }
}

/* A step of the first group of waves or, `late`, of the second. */
static void run_step(emitter *e, product *p, V step, bool late) {
  /* A place that is read again has been loaded again, which the compiler does not see (direct.h). */
  V first = made_anew(e, get(e, e->i32, p->first), IN_SCALAR), before = get(e, e->i32, p->first_before);
  for (unsigned phase = 0; phase < p->phases; phase++) {
    read_parts(e, p, phase, first);
    wave_order(e);
    if (late)
      wait_for_next(e, p, phase);
    else if (phase > 0)
      load_over(e, p, phase - 1, step, first);
    else
      load_over(e, p, p->phases - 1, sub(e, step, int64(e, 1)), before);
    direct_wait_reads(e);
    direct_barrier(e);
    wave_priority(e, 1);
    if (late) load_over(e, p, phase, step, first);
    multiply_parts(e, p, phase);
    if (late) mix(e, p, phase);
    wave_priority(e, 0);
    if (!late) wait_for_next(e, p, phase);
    direct_barrier(e);
  }
  set(e, p->first_before, first);
  V next = add(e, first, int32(e, (int32_t)(p->count * p->part_bytes)));
  V end = int32(e, (int32_t)(p->places * p->part_bytes));
  set(e, p->first, select_(e, icmp(e, LLVMIntSGE, next, end), sub(e, next, end), next));
}

static void run_steps(emitter *e, product *p, bool late) {
  loop steps = loop_begin(e, int64(e, 0), int64(e, p->steps), int64(e, 1));
  run_step(e, p, steps.index, late);
  loop_end(e, &steps);
}

/* ---- results ---- */

/* A lane has 4 neighbouring columns of a row in each tile, which it finishes together or, where rows of the result are
 * no multiples of them, fewer at a time. */
static unsigned columns_at_a_time(const emitter *e) {
  return e->vector < 4 ? e->vector : 4;
}

/* Row of the lane's results in tile `m` of part `x`. */
static V result_row(emitter *e, const product *p, unsigned x, unsigned m) {
  V first = mul(e, udiv(e, p->wave, int64(e, W_WAVES)), int64(e, X_TILES * TILE));
  V row = add(e, first, fragment_lane_part(e, &mfma_16x16.c, FRAGMENT_COLUMN, p->lane));
  return add(e, row, int64(e, x * PART + m * TILE));
}

/* First column of the lane's results in tile `n` of part `w`, from `lane_column` on. */
static V result_column(emitter *e, const product *p, unsigned w, unsigned n, V lane_column) {
  V tile = mul(e, urem(e, p->wave, int64(e, W_WAVES)), int64(e, W_TILES));
  tile = udiv(e, add(e, tile, int64(e, w * WAVES + n)), int64(e, p->given->matrices));
  return add(e, add(e, p->round.column, mul(e, tile, int64(e, TILE))), lane_column);
}

typedef V fetched_columns[X_TILES][MOST_PARTS][W_TILES][4];

/* What else the results in tiles [from, to) of part `x` are made of, all on its way at a time; beyond the last row or
 * column it is the last one's again. */
static void fetch_tiles(emitter *e, const product *p, unsigned x, unsigned from, unsigned to, V lane_column,
                        fetched_columns fetched) {
  const gemm_stream *g = p->given;
  const unsigned width = columns_at_a_time(e);
  V last_row = sub(e, p->round.rows, int64(e, 1)), last_column = int64(e, g->n - width);
  for (unsigned m = from; m < to; m++)
    for (unsigned w = 0; w < p->parts[false]; w++)
      for (unsigned n = 0; n < W_TILES; n += g->matrices)
        for (unsigned i = 0; i < 4; i += width) {
          V column = add(e, result_column(e, p, w, n, lane_column), int64(e, i));
          V row = imin(e, result_row(e, p, x, m), last_row);
          fetched[m][w][n][i] = g->fetch(e, row, imin(e, column, last_column), width, g->user);
        }
}

/* The 4 columns from `column` on; `sums` are the tile's of each matrix. */
static void finish_columns(emitter *e, const product *p, V row, V column, const V sums[2], const V fetched[4]) {
  const gemm_stream *g = p->given;
  const unsigned width = columns_at_a_time(e);
  V end = imin(e, add(e, p->round.column, mul(e, p->round.panels, int64(e, TILE))), int64(e, g->n));
  for (unsigned first = 0; first < 4; first += width) {
    V at = add(e, column, int64(e, first)), values[2] = {NULL, NULL};
    for (unsigned m = 0; m < g->matrices; m++) {
      V pick[4], all = get(e, sum_type(e), sums[m]);
      for (unsigned i = 0; i < width; i++)
        pick[i] = LLVMBuildExtractElement(e->builder, all, int32(e, (int32_t)(first + i)), "");
      values[m] = width == 1 ? pick[0] : vector_of(e, pick, width);
    }
    branch inside = if_begin(e, icmp(e, LLVMIntSLT, at, end));
    g->finish(e, row, at, values, fetched[first], g->user);
    if_end(e, &inside);
  }
}

/* Single columns are too many to be fetched for all tiles of a part. */
static void finish(emitter *e, const product *p) {
  const gemm_stream *g = p->given;
  const unsigned together = columns_at_a_time(e) == 4 ? X_TILES : 1;
  for (unsigned x = 0; x < p->parts[true]; x++) {
    fetched_columns fetched;
    for (unsigned m = 0; m < X_TILES; m++) {
      /* Columns are made anew for each row of tiles, not kept in registers from one to the next. */
      V first = fragment_lane_part(e, &mfma_16x16.c, FRAGMENT_ROW, p->lane);
      first = to_i64(e, made_anew(e, to_i32(e, first), IN_VECTOR));
      if (m % together == 0) fetch_tiles(e, p, x, m, m + together, first, fetched);
      V row = result_row(e, p, x, m);
      branch inside = if_begin(e, icmp(e, LLVMIntSLT, row, p->round.rows));
      for (unsigned w = 0; w < p->parts[false]; w++)
        for (unsigned n = 0; n < W_TILES; n += g->matrices) {
          const V sums[2] = {p->sum[x][w][m][n], p->sum[x][w][m][n + g->matrices - 1]};
          finish_columns(e, p, row, result_column(e, p, w, n, first), sums, fetched[m][w][n]);
        }
      if_end(e, &inside);
    }
  }
}

/* ---- rounds ---- */

static void run_round(emitter *e, product *p) {
  for (unsigned x = 0; x < p->parts[true]; x++)
    for (unsigned w = 0; w < p->parts[false]; w++)
      for (unsigned m = 0; m < X_TILES; m++)
        for (unsigned n = 0; n < W_TILES; n++) set(e, p->sum[x][w][m][n], LLVMConstNull(sum_type(e)));
  find_sources(e, p);
  fill(e, p);
  V before = int32(e, (int32_t)((p->places - p->count) * p->part_bytes));
  set(e, p->first, int32(e, 0));
  set(e, p->first_before, before);
  branch group = if_begin(e, icmp(e, LLVMIntSLT, p->wave, int64(e, W_WAVES)));
  run_steps(e, p, false);
  direct_barrier(e); /* the other group's last half */
  if_else(e, &group);
  load_over(e, p, p->phases - 1, int64(e, -1), before);
  direct_barrier(e);
  run_steps(e, p, true);
  if_end(e, &group);
  direct_wait(e, 0); /* LDS is the next round's, or another workgroup's */
  direct_barrier(e);
  finish(e, p);
}

static void multiply(emitter *e, const gemm_stream *g) {
  product p = {.given = g};
  if (!choose_shape(e, &p)) return;
  if (g->early) await_previous(e);
  V lane = e->atoms->lane(e);
  p.lane = and_(e, lane, int64(e, AMDGCN_WAVE - 1));
  p.wave = amdgcn_wave(e);
  p.memory = direct_memory(e, workgroup_take(e, (uint64_t)(p.places * p.part_bytes)));
  p.first = local(e, e->i32);
  p.first_before = local(e, e->i32);
  for (unsigned x = 0; x < p.parts[true]; x++)
    for (unsigned w = 0; w < p.parts[false]; w++)
      for (unsigned m = 0; m < X_TILES; m++)
        for (unsigned n = 0; n < W_TILES; n++) p.sum[x][w][m][n] = local(e, sum_type(e));
  find_operands(e, &p);
  loop rounds = loop_begin(e, g->first, g->end, int64(e, g->stride));
  g->locate(e, rounds.index, &p.round, g->user);
  run_round(e, &p);
  loop_end(e, &rounds);
}

const gemm_stream_engine amdgcn_gemm_stream = {.multiply = multiply};

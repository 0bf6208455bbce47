/* Products with few rows of x: the weights stream once from memory through registers, at its speed.
 *
 * A workgroup computes tile_m rows of x (the n side of mma.m16n8k16) times a slice of w (the m side). Its warps share
 * the depth: in steps of 32 columns, UNROLL steps at a time, warp after warp. A lane reads 16 bytes, 8 columns of one
 * row of w, straight from global memory: neighbouring groups of 8 columns of neighbouring rows lie together in the
 * panel, so a warp's reads are whole lines, each byte is read once, and many reads are in flight before the first is
 * used. Of the 8 columns, the first 4 feed one mma and the last 4 the next; x is read in the same order, so no value
 * changes its lane. Then the warps' sums are added in workgroup memory, in the order of the warps.
 */
#include "backends/common/gemm.h"
#include "backends/nvptx/mma.h"
#include "backends/nvptx/own_kernels.h"

enum { STEP = 32, MOST_WARPS = 8, MOST_TILES = 8, MOST_UNROLL = 8 };

typedef struct split {
  unsigned warps, unroll; /* warps * unroll divides the number of steps */
} split;

void nvptx_rows_complete(const kernel_question *q, kernel_variant *v) {
  const int64_t steps = q->k / STEP, *choice = v->choice;
  /* Words in flight for each lane: 16-row tiles of w, of each matrix, two vectors each, and tiles of x. */
  const int64_t vectors = (q->pairs ? 2 : 1) * (choice[CHOOSE_SLICE] / 16) * 2 + choice[CHOOSE_TILE_M] / 8;
  split s = {.warps = 1, .unroll = 1};
  while (s.warps < MOST_WARPS && steps % (s.warps * 2) == 0) s.warps *= 2;
  while (s.unroll < MOST_UNROLL && s.unroll * vectors * 2 <= 16 && steps % (s.warps * s.unroll * 2) == 0) s.unroll *= 2;
  v->choice[CHOOSE_LANES] = s.warps * 32;
  v->choice[CHOOSE_STAGES] = s.unroll;
}

illegal_choice nvptx_rows_relate(const char *target, const kernel_question *q, const int64_t v[]) {
  (void)target;
  if (q->n == 0) return (illegal_choice){0};
  const int64_t most = MOST_TILES / (q->pairs ? 2 : 1) * 16, steps = q->k / STEP, warps = v[CHOOSE_LANES] / 32;
  if (v[CHOOSE_SLICE] > most) return (illegal_choice){CHOOSE_SLICE, "at most", most};
  if (steps % warps) return (illegal_choice){CHOOSE_LANES, "32 times a divisor of", steps};
  if (steps / warps % v[CHOOSE_STAGES]) return (illegal_choice){CHOOSE_STAGES, "a divisor of", steps / warps};
  return (illegal_choice){0};
}

typedef struct tiles {
  unsigned m, n; /* 16-row tiles of w over all matrices, 8-row tiles of x */
  V accumulator[MOST_TILES][MOST_TILES][4];
} tiles;

/* What a lane multiplies at a time: locals of 4 words, which the next loads overwrite as soon as they are used. */
typedef struct operands {
  V low[MOST_TILES][MOST_UNROLL][4], high[MOST_TILES][MOST_UNROLL][4]; /* rows g and g + 8 of each tile of w */
  V x[MOST_TILES][MOST_UNROLL][4];
} operands;

typedef struct batch {
  const gemm_product *product;
  const tiles *tiles;
  const split *split;
  const V *w, *x; /* a lane's first vector of each tile of w, and of each of its rows of x */
} batch;

static void take_slots(emitter *e, const batch *b, operands *o) {
  for (unsigned u = 0; u < b->split->unroll; u++)
    for (unsigned i = 0; i < 4; i++) {
      for (unsigned m = 0; m < b->tiles->m; m++) {
        o->low[m][u][i] = local(e, e->i32);
        o->high[m][u][i] = local(e, e->i32);
      }
      for (unsigned n = 0; n < b->tiles->n; n++) o->x[n][u][i] = local(e, e->i32);
    }
}

static void load_weights(emitter *e, const batch *b, V step, operands *o) {
  const gemm_product *p = b->product;
  const int64_t step_bytes = STEP / 8 * p->panel * 16;
  V place = mul(e, step, int64(e, step_bytes));
  for (unsigned u = 0; u < b->split->unroll; u++)
    for (unsigned m = 0; m < b->tiles->m; m++) {
      V at = byte_offset(e, b->w[m], place);
      int64_t offset = u * step_bytes;
      load_words_into(e, byte_offset(e, at, int64(e, offset)), READ_PAST_L1, o->low[m][u]);
      load_words_into(e, byte_offset(e, at, int64(e, offset + 8 * 16)), READ_PAST_L1, o->high[m][u]);
    }
}

static void load_rows(emitter *e, const batch *b, V step, operands *o) {
  V place = mul(e, step, int64(e, STEP * 2));
  for (unsigned u = 0; u < b->split->unroll; u++)
    for (unsigned n = 0; n < b->tiles->n; n++)
      load_words_into(e, byte_offset(e, byte_offset(e, b->x[n], place), int64(e, u * STEP * 2)), READ, o->x[n][u]);
}

/* The products of one vector of w's rows g and g + 8 and one of x. */
static void multiply_add(emitter *e, V slots[4], const V low[4], const V high[4], const V x[4]) {
  V sum[4], rows[4];
  for (unsigned i = 0; i < 4; i++) sum[i] = get(e, e->f32, slots[i]);
  for (unsigned i = 0; i < 4; i++) rows[i] = get(e, e->i32, x[i]);
  for (unsigned half = 0; half < 2; half++) {
    V a[] = {get(e, e->i32, low[2 * half]), get(e, e->i32, high[2 * half]), get(e, e->i32, low[2 * half + 1]),
             get(e, e->i32, high[2 * half + 1])};
    mma_bf16(e, sum, a, &rows[2 * half]);
  }
  for (unsigned i = 0; i < 4; i++) set(e, slots[i], sum[i]);
}

/* Adds up the warps' tiles: partial[warp][tile of w][tile of x][value][lane] into c. */
static void add_up(emitter *e, const gemm_product *p, const tiles *t, const lane_place *lane, unsigned warps) {
  int64_t values = (int64_t)t->m * t->n * 4 * 32;
  V partial = workgroup_take(e, (uint64_t)(values * warps) * sizeof(float));
  V mine = add(e, mul(e, lane->warp, int64(e, values)), lane->lane);
  for (unsigned m = 0; m < t->m; m++)
    for (unsigned n = 0; n < t->n; n++)
      for (unsigned i = 0; i < 4; i++)
        store_f32(e, SLUICE_F32, get(e, e->f32, t->accumulator[m][n][i]), partial,
                  add(e, mine, int64(e, ((m * t->n + n) * 4 + i) * 32)));
  e->atoms->barrier(e);
  loop each = lane_loop(e, int64(e, 0), int64(e, values));
  V sum = add_parts(e, partial, each.index, values, warps);
  V source = and_(e, each.index, int64(e, 31)), value = and_(e, lshr(e, each.index, int64(e, 5)), int64(e, 3));
  V tile = lshr(e, each.index, int64(e, 7)), m = udiv(e, tile, int64(e, t->n)), n = urem(e, tile, int64(e, t->n));
  /* value 0, 1: row g of w, rows 2t, 2t + 1 of x; value 2, 3: row g + 8. */
  V column = add(e, lshr(e, source, int64(e, 2)), mul(e, lshr(e, value, int64(e, 1)), int64(e, 8)));
  V row = add(e, mul(e, and_(e, source, int64(e, 3)), int64(e, 2)), and_(e, value, int64(e, 1)));
  row = add(e, row, mul(e, n, int64(e, 8)));
  int64_t of_matrix = p->slice / 16;
  V within = add(e, mul(e, urem(e, m, int64(e, of_matrix)), int64(e, 16)), column);
  V at = add(e, mul(e, row, int64(e, p->slice)), within);
  /* The matrices' tiles c lie one after another. */
  V matrix = udiv(e, m, int64(e, of_matrix));
  store_f32(e, SLUICE_F32, sum, p->c[0], add(e, at, mul(e, matrix, int64(e, p->tile_m * p->slice))));
  loop_end(e, &each);
}

static void multiply(emitter *e, const gemm_product *p) {
  const split s = {p->lanes / 32, p->stages};
  lane_place lane = lane_place_of(e);
  tiles t = {.m = p->matrices * (unsigned)(p->slice / 16), .n = (unsigned)(p->tile_m / 8)};
  if (t.m > MOST_TILES || t.n > MOST_TILES || s.unroll > MOST_UNROLL) {
    e->status =
        sluice_error(SLUICE_INTERNAL, "kernel %s: %u by %u tiles do not fit in registers", e->spec->symbol, t.m, t.n);
    return;
  }
  for (unsigned m = 0; m < t.m; m++)
    for (unsigned n = 0; n < t.n; n++)
      for (unsigned i = 0; i < 4; i++) t.accumulator[m][n][i] = local_set(e, e->f32, float32(e, 0));

  /* A lane's first vector of each tile of w, and of each of its rows of x. Where the matrix ends within the slice, the
   * tiles behind are its last panel's again. */
  V first = mul(e, add(e, mul(e, lane.t, int64(e, p->panel)), lane.g), int64(e, 16)), w[MOST_TILES], x[MOST_TILES];
  const unsigned of_matrix = (unsigned)(p->slice / 16), of_panel = (unsigned)(p->panel / 16);
  V last = sub(e, p->panels, int64(e, 1));
  for (unsigned m = 0; m < t.m; m++) {
    const unsigned matrix = m / of_matrix, panel = m % of_matrix / of_panel;
    V number = panel ? imin(e, int64(e, panel), last) : int64(e, 0);
    number = add(e, mul(e, number, int64(e, p->matrices)), int64(e, matrix));
    V at = add(e, first, mul(e, number, int64(e, p->k * p->panel * 2)));
    w[m] = byte_offset(e, p->weights, add(e, at, int64(e, m % of_panel * 16 * 16)));
  }
  for (unsigned n = 0; n < t.n; n++) {
    V row = imin(e, add(e, lane.g, int64(e, 8 * n)), sub(e, p->rows, int64(e, 1)));
    x[n] = byte_offset(e, p->x_row(e, row, p->user), mul(e, lane.t, int64(e, 16)));
  }
  const batch b = {.product = p, .tiles = &t, .split = &s, .w = w, .x = x};
  operands held = {.x = {{{NULL}}}};
  take_slots(e, &b, &held);
  V first_step = mul(e, lane.warp, int64(e, s.unroll)), stride = int64(e, s.warps * s.unroll);
  load_weights(e, &b, first_step, &held);
  if (p->early) await_previous(e);
  load_rows(e, &b, first_step, &held);
  loop steps = loop_begin(e, first_step, int64(e, p->k / STEP), stride);
  for (unsigned u = 0; u < s.unroll; u++)
    for (unsigned m = 0; m < t.m; m++)
      for (unsigned n = 0; n < t.n; n++)
        multiply_add(e, t.accumulator[m][n], held.low[m][u], held.high[m][u], held.x[n][u]);
  V following = add(e, steps.index, stride);
  branch more = if_begin(e, icmp(e, LLVMIntSLT, following, int64(e, p->k / STEP)));
  load_weights(e, &b, following, &held);
  load_rows(e, &b, following, &held);
  if_end(e, &more);
  loop_end(e, &steps);
  add_up(e, p, &t, &lane, s.warps);
}

const gemm_engine nvptx_gemm = {.multiply = multiply};

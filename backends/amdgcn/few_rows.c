/* Products with few rows of x: the weights stream once from memory through registers, at its speed.
 *
 * A workgroup computes tile_m rows of x (columns of a fragment) times a slice of w (its rows). Its waves share the
 * depth: in steps of 32 columns, `unroll` steps at a time, wave after wave. A lane reads 16 bytes, 8 columns of one row
 * of w, which is what it has of an operand of mfma_16x16; the panel's layout makes the reads of a wave one line of 1024
 * bytes. x is read the same way. So no value changes its lane, weights do not pass through LDS, and the reads of the
 * next steps are under way while these are multiplied. Then the waves' sums are added in LDS, in the order of the
 * waves.
 */
#include "backends/amdgcn/amdgcn.h"
#include "backends/amdgcn/buffer.h"
#include "backends/amdgcn/mfma.h"
#include "backends/common/gemm.h"

enum {
  STEP = 32,
  TILE = 16,
  VECTOR = 16, /* bytes */
  MOST_WAVES = 4,
  MOST_TILES = 8,
  MOST_UNROLL = 8,
  IN_FLIGHT = 16, /* vectors of a lane that are on their way at a time */
};

typedef struct split {
  unsigned waves, unroll; /* waves * unroll divides the number of steps */
} split;

void amdgcn_rows_complete(const kernel_question *q, kernel_variant *v) {
  const int64_t steps = q->k / STEP;
  const int64_t vectors =
      (q->pairs ? 2 : 1) * (v->choice[CHOOSE_SLICE] / TILE) + (v->choice[CHOOSE_TILE_M] + TILE - 1) / TILE;
  split s = {.waves = 1, .unroll = 1};
  while (s.waves < MOST_WAVES && steps % (s.waves * 2) == 0) s.waves *= 2;
  while (s.unroll < MOST_UNROLL && s.unroll * vectors * 2 <= IN_FLIGHT && steps % (s.waves * s.unroll * 2) == 0)
    s.unroll *= 2;
  v->choice[CHOOSE_LANES] = (int64_t)s.waves * AMDGCN_WAVE;
  v->choice[CHOOSE_STAGES] = s.unroll;
}

illegal_choice amdgcn_rows_relate(const char *target, const kernel_question *q, const int64_t v[]) {
  (void)target;
  if (q->n == 0) return (illegal_choice){0};
  const int64_t most = MOST_TILES / (q->pairs ? 2 : 1) * TILE, steps = q->k / STEP;
  const int64_t waves = v[CHOOSE_LANES] / AMDGCN_WAVE;
  if (v[CHOOSE_SLICE] > most) return (illegal_choice){CHOOSE_SLICE, "at most", most};
  if (steps % waves) return (illegal_choice){CHOOSE_LANES, "64 times a divisor of", steps};
  if (steps / waves % v[CHOOSE_STAGES]) return (illegal_choice){CHOOSE_STAGES, "a divisor of", steps / waves};
  return (illegal_choice){0};
}

typedef struct product {
  const gemm_product *given;
  split split;
  unsigned m, n;                     /* tiles of w, over all matrices; of x */
  V lane, wave;                      /* i64 */
  V weights, rows;                   /* buffers */
  V w[MOST_TILES];                   /* i32: where the lane's first vector of each tile of w is */
  V x[MOST_TILES];                   /* and of its row of each tile of x */
  V sum[MOST_TILES][MOST_TILES];     /* locals, f32 vectors */
  V w_next[MOST_TILES][MOST_UNROLL]; /* locals: what is multiplied next */
  V x_next[MOST_TILES][MOST_UNROLL];
} product;

static T operand_type(const emitter *e) {
  return LLVMVectorType(e->i16, 8);
}

static T sum_type(const emitter *e) {
  return LLVMVectorType(e->f32, 4);
}

/* Weights are read by nobody else, or long after: they need not stay in a cache. */
static void load_steps(emitter *e, product *p, V step) {
  const int64_t w_bytes = STEP / 8 * p->given->panel * VECTOR, x_bytes = STEP * 2;
  V w_at = to_i32(e, mul(e, step, int64(e, w_bytes))), x_at = to_i32(e, mul(e, step, int64(e, x_bytes)));
  for (unsigned u = 0; u < p->split.unroll; u++) {
    for (unsigned m = 0; m < p->m; m++)
      set(e, p->w_next[m][u], buffer_load(e, p->weights, p->w[m], w_at, u * w_bytes, BUFFER_READ_ONCE));
    for (unsigned n = 0; n < p->n; n++)
      set(e, p->x_next[n][u], buffer_load(e, p->rows, p->x[n], x_at, u * x_bytes, BUFFER_READ));
  }
}

static void multiply_steps(emitter *e, product *p) {
  for (unsigned u = 0; u < p->split.unroll; u++)
    for (unsigned n = 0; n < p->n; n++) {
      V x = get(e, operand_type(e), p->x_next[n][u]);
      for (unsigned m = 0; m < p->m; m++) {
        V w = get(e, operand_type(e), p->w_next[m][u]);
        set(e, p->sum[m][n], mfma_16x16.multiply(e, w, x, get(e, sum_type(e), p->sum[m][n])));
      }
    }
}

/* Adds up the waves' tiles, partial[wave][tile of w][tile of x][lane][element], into c. */
static void add_up(emitter *e, const product *p) {
  const gemm_product *g = p->given;
  const int64_t tile = TILE * TILE, values = (int64_t)p->m * p->n * tile;
  V partial = workgroup_take(e, (uint64_t)(values * p->split.waves) * sizeof(float));
  V mine = add(e, mul(e, p->wave, int64(e, values)), mul(e, p->lane, int64(e, 4)));
  for (unsigned m = 0; m < p->m; m++)
    for (unsigned n = 0; n < p->n; n++)
      store(e, get(e, sum_type(e), p->sum[m][n]),
            element(e, e->f32, partial, add(e, mine, int64(e, (m * p->n + n) * tile))));
  e->atoms->barrier(e);
  const int64_t of_matrix = g->slice / TILE;
  loop each = lane_loop(e, int64(e, 0), int64(e, values / 4));
  V from = mul(e, each.index, int64(e, 4)), total = NULL;
  for (unsigned w = 0; w < p->split.waves; w++) {
    V part = load_f32(e, SLUICE_F32, partial, add(e, from, int64(e, w * values)), 4);
    total = total ? fadd_(e, total, part) : part;
  }
  V lane = and_(e, each.index, int64(e, AMDGCN_WAVE - 1)), number = lshr(e, each.index, int64(e, 6));
  V m = udiv(e, number, int64(e, p->n)), n = urem(e, number, int64(e, p->n));
  V row = add(e, mul(e, n, int64(e, TILE)), fragment_lane_part(e, &mfma_16x16.c, FRAGMENT_COLUMN, lane));
  V column = add(e, mul(e, urem(e, m, int64(e, of_matrix)), int64(e, TILE)),
                 fragment_lane_part(e, &mfma_16x16.c, FRAGMENT_ROW, lane));
  branch inside = if_begin(e, icmp(e, LLVMIntSLT, row, int64(e, g->tile_m)));
  /* The matrices' tiles c lie one after another. */
  V at = add(e, mul(e, row, int64(e, g->slice)), column);
  at = add(e, at, mul(e, udiv(e, m, int64(e, of_matrix)), int64(e, g->tile_m * g->slice)));
  store_f32(e, SLUICE_F32, total, g->c[0], at);
  if_end(e, &inside);
  loop_end(e, &each);
}

/* Where the lane's vectors begin. Where the matrix ends within the slice, the tiles behind are its last panel's again;
 * likewise rows of x. */
static void find_operands(emitter *e, product *p) {
  const gemm_product *g = p->given;
  const unsigned of_matrix = (unsigned)(g->slice / TILE), of_panel = (unsigned)(g->panel / TILE);
  V row = fragment_lane_part(e, &mfma_16x16.a, FRAGMENT_ROW, p->lane);
  V depth = fragment_lane_part(e, &mfma_16x16.a, FRAGMENT_DEPTH, p->lane);
  V group = lshr(e, depth, int64(e, 3)), last = sub(e, g->panels, int64(e, 1));
  V first = mul(e, add(e, mul(e, group, int64(e, g->panel)), row), int64(e, VECTOR));
  p->weights = buffer_open(e, g->weights);
  p->rows = buffer_open(e, g->x);
  for (unsigned m = 0; m < p->m; m++) {
    const unsigned matrix = m / of_matrix, panel = m % of_matrix / of_panel;
    V number = panel ? imin(e, int64(e, panel), last) : int64(e, 0);
    number = add(e, mul(e, number, int64(e, g->matrices)), int64(e, matrix));
    V at = add(e, first, mul(e, number, int64(e, g->k * g->panel * 2)));
    p->w[m] = to_i32(e, add(e, at, int64(e, m % of_panel * TILE * VECTOR)));
  }
  for (unsigned n = 0; n < p->n; n++) {
    V number = imin(e, add(e, row, int64(e, n * TILE)), sub(e, g->rows, int64(e, 1)));
    p->x[n] = to_i32(e, add(e, byte_distance(e, g->x, g->x_row(e, number, g->user)), mul(e, depth, int64(e, 2))));
  }
}

static void multiply(emitter *e, const gemm_product *g) {
  product p = {.given = g,
               .split = {g->lanes / AMDGCN_WAVE, g->stages},
               .m = g->matrices * (unsigned)(g->slice / TILE),
               .n = (unsigned)((g->tile_m + TILE - 1) / TILE)};
  if (p.m > MOST_TILES || p.n > MOST_TILES || p.split.unroll > MOST_UNROLL) {
    e->status =
        sluice_error(SLUICE_INTERNAL, "kernel %s: %u by %u tiles do not fit in registers", e->spec->symbol, p.m, p.n);
    return;
  }
  V lane = e->atoms->lane(e);
  p.lane = and_(e, lane, int64(e, AMDGCN_WAVE - 1));
  p.wave = amdgcn_wave(e);
  for (unsigned m = 0; m < p.m; m++)
    for (unsigned n = 0; n < p.n; n++) p.sum[m][n] = local_set(e, sum_type(e), LLVMConstNull(sum_type(e)));
  for (unsigned u = 0; u < p.split.unroll; u++) {
    for (unsigned m = 0; m < p.m; m++) p.w_next[m][u] = local(e, operand_type(e));
    for (unsigned n = 0; n < p.n; n++) p.x_next[n][u] = local(e, operand_type(e));
  }
  find_operands(e, &p);
  V first = mul(e, p.wave, int64(e, p.split.unroll)), stride = int64(e, p.split.waves * p.split.unroll);
  load_steps(e, &p, first);
  V last = int64(e, g->k / STEP - p.split.unroll);
  loop steps = loop_begin(e, first, int64(e, g->k / STEP), stride);
  multiply_steps(e, &p);
  load_steps(e, &p, imin(e, add(e, steps.index, stride), last)); /* behind the last ones, those again */
  loop_end(e, &steps);
  add_up(e, &p);
}

const gemm_engine amdgcn_gemm = {.multiply = multiply};

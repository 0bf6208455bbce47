/* norm_rope_append of many tokens. A lane has a few neighbouring dimensions of each of its wave's heads; the partner of
 * a rotated dimension, half of them further on, is in another lane:
 *
 *     a head of 128 dimensions, 64 of them rotated, in a wave of 32 lanes
 *     lane         0  1  ...  7 | 8  9  ... 15 | 16 17 ... 31
 *     dimensions   0..3      31 | 32        63 | 64       127
 *                  a, with b of lane + 8       |  stay
 */
#include "backends/common/rope_tokens.h"

enum { BATCH = 12 /* heads that a wave has in registers */, MOST_GROUPS = 8 };

/* A head of the wave, loaded. */
typedef struct wave_head {
  V x, index; /* f32 vector; i64: number in its group */
  V real;     /* i1, the same in all lanes; NULL: always */
} wave_head;

typedef struct mover {
  const head_sizes *sizes;
  unsigned vector;
  int64_t waves;
  V wave, lane, at;     /* i64: the wave's number; the lane in it; its first dimension */
  V cosine, sine;       /* f32 vectors, of the lane's dimensions */
  V is_low, is_rotated; /* i1: the lane has a, has a or b */
  unsigned partner;     /* distance of lanes */
} mover;

static bool is_power(int64_t value) {
  return value > 0 && (value & (value - 1)) == 0;
}

unsigned token_lanes(const emitter *e, int64_t dim, int64_t rotary_dim) {
  const int64_t wave = e->facts->wave, lanes = e->facts->lanes, vector = wave > 1 ? dim / wave : 0,
                half = rotary_dim / 2;
  if (!e->atoms->exchange || !is_power(lanes / wave) || vector < 1 || dim % wave || !is_power(vector) ||
      vector > e->facts->vector || half % vector || !is_power(half / vector) || half / vector >= wave)
    return 0;
  return (unsigned)lanes;
}

static mover open_mover(emitter *e, const head_sizes *s) {
  const int64_t wave = e->facts->wave, half = s->rotary_dim / 2;
  mover m = {.sizes = s, .vector = (unsigned)(s->dim / wave), .waves = e->lanes / wave};
  V lane = e->atoms->lane(e);
  m.wave = udiv(e, lane, int64(e, wave));
  m.lane = and_(e, lane, int64(e, wave - 1));
  m.at = mul(e, m.lane, int64(e, m.vector));
  m.partner = (unsigned)(half / m.vector);
  m.is_low = icmp(e, LLVMIntULT, m.at, int64(e, half));
  m.is_rotated = icmp(e, LLVMIntULT, m.at, int64(e, s->rotary_dim));
  V angle = and_(e, m.at, int64(e, half - 1));
  m.cosine = load_f32(e, SLUICE_F32, s->table, angle, m.vector);
  m.sine = load_f32(e, SLUICE_F32, s->table, add(e, angle, int64(e, half)), m.vector);
  return m;
}

/* Head number `turn` of the wave in a group whose first head is the token's head number `first`. */
static wave_head load_head(emitter *e, const mover *m, const head_group *group, int64_t first, int64_t turn) {
  V own = and_(e, sub(e, m->wave, int64(e, first)), int64(e, m->waves - 1));
  wave_head h = {.index = add(e, own, int64(e, turn * m->waves))};
  if ((turn + 1) * m->waves > group->count) h.real = icmp(e, LLVMIntULT, h.index, int64(e, group->count));
  V inside = h.real ? imin(e, h.index, int64(e, group->count - 1)) : h.index;
  V head = mul(e, add(e, inside, int64(e, first)), int64(e, m->sizes->dim));
  h.x = load_f32(e, m->sizes->dtype, m->sizes->from, add(e, head, m->at), m->vector);
  return h;
}

static V norm_head(emitter *e, const mover *m, V x, V weight) {
  const head_sizes *s = m->sizes;
  V sum = vector_reduce(e, fmul_(e, x, x), REDUCE_ADD);
  V mean = fdiv_(e, e->atoms->reduce_wave(e, sum, REDUCE_ADD), float32(e, (double)s->dim));
  V scale = splat(e, e->atoms->rsqrt(e, fadd_(e, mean, float32(e, s->epsilon))), m->vector);
  return fmul_(e, fmul_(e, x, scale), fadd_(e, weight, splat(e, float32(e, 1), m->vector)));
}

static V partner_of(emitter *e, const mover *m, V x) {
  if (m->vector == 1) return e->atoms->exchange(e, x, m->partner);
  V result = LLVMGetPoison(LLVMTypeOf(x));
  for (int32_t i = 0; i < (int32_t)m->vector; i++) {
    V one = LLVMBuildExtractElement(e->builder, x, int32(e, i), "");
    result = LLVMBuildInsertElement(e->builder, result, e->atoms->exchange(e, one, m->partner), int32(e, i), "");
  }
  return result;
}

static V rotate_head(emitter *e, const mover *m, V x) {
  V own = fmul_(e, x, m->cosine), other = fmul_(e, partner_of(e, m, x), m->sine);
  V turned = select_(e, m->is_low, fsub_(e, own, other), fadd_(e, own, other));
  return select_(e, m->is_rotated, turned, x);
}

static void store_head(emitter *e, const mover *m, const head_group *group, V index, V x) {
  const sluice_dtype dtype = m->sizes->dtype;
  V to = element_of(e, dtype, group->to, mul(e, index, int64(e, group->to_step)));
  if (group->stride == 1) {
    store_f32(e, dtype, x, to, m->at);
    return;
  }
  for (unsigned i = 0; i < m->vector; i++) {
    V one = m->vector == 1 ? x : LLVMBuildExtractElement(e->builder, x, int32(e, (int32_t)i), "");
    store_f32(e, dtype, one, to, mul(e, add(e, m->at, int64(e, i)), int64(e, group->stride)));
  }
}

static void finish_head(emitter *e, const mover *m, const head_group *group, V weight, const wave_head *h) {
  branch real = {0};
  if (h->real) real = if_begin(e, h->real);
  V x = h->x;
  if (weight) x = norm_head(e, m, x, weight);
  if (group->rotated) x = rotate_head(e, m, x);
  store_head(e, m, group, h->index, x);
  if (h->real) if_end(e, &real);
}

/* Loads up to BATCH heads of the wave, from turn *turn of group *group on, then finishes them. */
static void move_batch(emitter *e, const mover *m, const head_group *groups, unsigned count, const int64_t first[],
                       unsigned *group, int64_t *turn) {
  wave_head heads[BATCH];
  V weight[BATCH];
  const head_group *of[BATCH];
  unsigned loaded = 0;
  for (; loaded < BATCH && *group < count; ++*turn) {
    const head_group *g = &groups[*group];
    if (*turn * m->waves >= g->count) {
      ++*group;
      *turn = -1;
      continue;
    }
    of[loaded] = g;
    weight[loaded] = loaded && of[loaded - 1] == g ? weight[loaded - 1]
                     : g->norm                     ? load_f32(e, m->sizes->weight_dtype, g->norm, m->at, m->vector)
                                                   : NULL;
    heads[loaded++] = load_head(e, m, g, first[*group], *turn);
  }
  for (unsigned i = 0; i < loaded; i++) finish_head(e, m, of[i], weight[i], &heads[i]);
}

void move_token_heads(emitter *e, const head_sizes *sizes, const head_group *groups, unsigned count) {
  const mover m = open_mover(e, sizes);
  int64_t first[MOST_GROUPS] = {0}, turn = 0;
  for (unsigned i = 1; i < count && i < MOST_GROUPS; i++) first[i] = first[i - 1] + groups[i - 1].count;
  for (unsigned group = 0; group < count;) move_batch(e, &m, groups, count, first, &group, &turn);
}

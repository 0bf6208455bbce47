/* route: topk_experts and sort_experts of a small step by one workgroup, in one launch. A wave of lanes chooses for a
 * token, each lane with its share of the experts; the choices stay in workgroup memory for the sort. */
#include "backends/common/families.h"
#include "backends/common/router.h"

enum { MOST_CHOSEN = 32, MOST_KEY_BYTES = 32 << 10, AT_ONCE = 8 };

typedef struct routing {
  int64_t experts, k;
  int64_t per_lane;           /* experts of a lane: its number in the wave, and every wave-th after it */
  int64_t at_once;            /* of these; divides per_lane. All of them: the keys stay in registers */
  V lane;                     /* in the wave */
  V keys;                     /* workgroup memory, i64[per_lane][lanes]: each lane its own */
  V bias;                     /* f32[experts] */
  V chosen;                   /* workgroup memory, i32[tokens][k] */
  V out_experts, out_weights; /* [tokens][k] */
} routing;

static V own_key(emitter *e, const routing *r, V number) {
  return element(e, e->i64, r->keys, add(e, mul(e, number, int64(e, e->lanes)), e->atoms->lane(e)));
}

/* Returns 0, or NaN if one of the lane's scores is NaN. */
static V make_keys(emitter *e, const routing *r, V logits) {
  V nothing = local_set(e, e->f32, float32(e, 0));
  loop each = loop_begin(e, int64(e, 0), int64(e, r->per_lane), int64(e, r->at_once));
  V number[AT_ONCE], expert[AT_ONCE], logit[AT_ONCE], bias[AT_ONCE];
  for (int64_t i = 0; i < r->at_once; i++) {
    number[i] = add(e, each.index, int64(e, i));
    expert[i] = add(e, mul(e, number[i], int64(e, e->facts->wave)), r->lane);
    V inside = imin(e, expert[i], int64(e, r->experts - 1));
    logit[i] = load_f32(e, SLUICE_F32, logits, inside, 1);
    bias[i] = load_f32(e, SLUICE_F32, r->bias, inside, 1);
  }
  for (int64_t i = 0; i < r->at_once; i++) {
    V key = expert_key(e, fadd_(e, sigmoid(e, logit[i]), bias[i]), expert[i]);
    set(e, nothing, keep_nan(e, key, get(e, e->f32, nothing)));
    key = select_(e, icmp(e, LLVMIntSLT, expert[i], int64(e, r->experts)), key, int64(e, INT64_MIN));
    store(e, key, own_key(e, r, number[i]));
  }
  loop_end(e, &each);
  return get(e, e->f32, nothing);
}

/* The largest key of the wave below `bound`. */
static V largest_below(emitter *e, const routing *r, V bound) {
  V best = local_set(e, e->i64, int64(e, INT64_MIN));
  loop each = loop_begin(e, int64(e, 0), int64(e, r->per_lane), int64(e, r->at_once));
  for (int64_t i = 0; i < r->at_once; i++) {
    V key = load(e, e->i64, own_key(e, r, add(e, each.index, int64(e, i))));
    V eligible = select_(e, icmp(e, LLVMIntSLT, key, bound), key, int64(e, INT64_MIN));
    set(e, best, imax(e, get(e, e->i64, best), eligible));
  }
  loop_end(e, &each);
  return e->atoms->reduce_wave(e, get(e, e->i64, best), REDUCE_MAX);
}

/* The k preferred experts, ascending; the same in every lane of the wave. */
static void choose(emitter *e, const routing *r, V expert[MOST_CHOSEN]) {
  V bound = int64(e, INT64_MAX);
  for (int64_t i = 0; i < r->k; i++) {
    bound = largest_below(e, r, bound);
    expert[i] = expert_of_key(e, bound);
  }
  for (int64_t last = r->k - 1; last > 0; last--)
    for (int64_t i = 0; i < last; i++) {
      V low = imin(e, expert[i], expert[i + 1]), high = imax(e, expert[i], expert[i + 1]);
      expert[i] = low;
      expert[i + 1] = high;
    }
}

/* Writes the choices and their shares of the sum of their scores, which are added to `sum` in this order. */
static void write_choices(emitter *e, const routing *r, V token, V logits, V sum, V expert[MOST_CHOSEN]) {
  V score[MOST_CHOSEN] = {NULL}, first = mul(e, token, int64(e, r->k));
  for (int64_t i = 0; i < r->k; i++) {
    score[i] = sigmoid(e, load_f32(e, SLUICE_F32, logits, expert[i], 1));
    sum = fadd_(e, sum, score[i]);
  }
  branch writer = if_begin(e, icmp(e, LLVMIntEQ, r->lane, int64(e, 0)));
  for (int64_t i = 0; i < r->k; i++) {
    V at = add(e, first, int64(e, i));
    store_i32(e, expert[i], r->chosen, at);
    store_i32(e, expert[i], r->out_experts, at);
    store_f32(e, SLUICE_F32, fdiv_(e, score[i], sum), r->out_weights, at);
  }
  if_end(e, &writer);
}

/* Waves for a step of at most `tokens` tokens. */
static unsigned waves_for(const emitter *e, int64_t tokens, int64_t per_lane) {
  const unsigned most = e->facts->most_lanes / e->facts->wave;
  unsigned waves = 1;
  while (2 * waves <= most && waves < tokens && 2 * waves * e->facts->wave * per_lane * 8 <= MOST_KEY_BYTES) waves *= 2;
  return waves;
}

/* Operands: logits, bias, counts, order, expert_tiles, experts, weights. */
void family_route(emitter *e, const kernel_spec *spec) {
  expert_sort o = read_expert_sort(e, spec);
  const int64_t tokens = kernel_integer(spec, "tokens", &e->status), wave = e->facts->wave;
  if (!e->status && (o.k > MOST_CHOSEN || tokens < 1 || tokens * o.k > MOST_KEY_BYTES / 4))
    e->status = sluice_error(SLUICE_INTERNAL, "%s: %lld experts for each of %lld tokens: expected at most %d",
                             spec->symbol, (long long)o.k, (long long)tokens, MOST_CHOSEN);
  if (e->status) return;
  routing r = {.experts = o.experts, .k = o.k, .per_lane = (o.experts + wave - 1) / wave};
  r.at_once = r.per_lane < AT_ONCE ? r.per_lane : AT_ONCE;
  r.per_lane = (r.per_lane + r.at_once - 1) / r.at_once * r.at_once;
  kernel_shape shape = each(SLUICE_SIZE_ONE, 0);
  shape.lanes = waves_for(e, tokens, r.per_lane) * e->facts->wave;
  shape.begins_early = true;
  kernel_begin(e, spec, shape);
  prefetch_shared(e, e->argument[1], o.experts * (int64_t)sizeof(float));
  await_previous(e);
  r.lane = and_(e, e->atoms->lane(e), int64(e, wave - 1));
  r.keys = workgroup_take(e, (uint64_t)(r.per_lane * e->lanes) * sizeof(int64_t));
  r.chosen = workgroup_take(e, (uint64_t)(tokens * o.k) * sizeof(int32_t));
  r.bias = e->argument[1];
  r.out_experts = e->argument[5];
  r.out_weights = e->argument[6];
  o.expert_of = r.chosen;
  o.counts = e->argument[2];
  o.order = e->argument[3];
  o.tiles = e->argument[4];
  o.tokens = size_of(e, SLUICE_SIZE_TOKENS);
  o.chosen = mul(e, o.tokens, int64(e, o.k));
  o.most = tokens * o.k;

  V first = udiv(e, e->atoms->lane(e), int64(e, wave)), waves = int64(e, e->lanes / e->facts->wave);
  loop token = loop_begin(e, first, o.tokens, waves);
  V logits = element(e, e->f32, e->argument[0], mul(e, token.index, int64(e, o.experts)));
  V expert[MOST_CHOSEN] = {NULL};
  V nothing = e->atoms->reduce_wave(e, make_keys(e, &r, logits), REDUCE_ADD);
  choose(e, &r, expert);
  write_choices(e, &r, token.index, logits, nothing, expert);
  loop_end(e, &token);
  e->atoms->barrier(e);
  sort_slots(e, &o);
  kernel_end(e);
}

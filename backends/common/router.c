/* The router of mixture-of-experts layers (m3.md 2.11): router, router_logits, topk_experts. */
#include "backends/common/router.h"
#include "backends/common/families.h"
#include "backends/common/tile.h"

#include <math.h>

enum { MAX_EXPERTS = 4096 };

/* ---- the choice of one token ---- */

typedef struct choice {
  int64_t experts, k;
  V logits, bias; /* f32[experts] */
  V scores;       /* f32[experts]: sigmoid of the logits; workgroup memory, may be `logits` */
  V keys;         /* i64[experts, rounded up to whole vectors]: workgroup memory */
} choice;

/* 0, 1, ... as a vector of i64. */
static V counting(emitter *e, unsigned width) {
  if (width == 1) return int64(e, 0);
  V values[32];
  for (unsigned i = 0; i < width; i++) values[i] = int64(e, i);
  return LLVMConstVector(values, width);
}

V expert_key(emitter *e, V biased, V id) {
  unsigned width = width_of(biased);
  T integers = vector_type(e->i32, width), wide = vector_type(e->i64, width);
  V bits = bitcast(e, fadd_(e, biased, float32(e, 0)), integers); /* -0 + 0 = 0 */
  V sign = LLVMBuildAShr(e->builder, bits, splat(e, int32(e, 31), width), "");
  V ordered = LLVMBuildXor(e->builder, bits, and_(e, sign, int32(e, INT32_MAX)), "");
  ordered = select_(e, fcmp(e, LLVMRealUNO, biased, biased), splat(e, int32(e, INT32_MIN), width), ordered);
  V upper = shl(e, LLVMBuildSExt(e->builder, ordered, wide, ""), int64(e, 32));
  return or_(e, upper, sub(e, int64(e, UINT32_MAX), id));
}

V expert_of_key(emitter *e, V key) {
  return sub(e, int64(e, UINT32_MAX), and_(e, key, int64(e, UINT32_MAX)));
}

V keep_nan(emitter *e, V key, V sum) {
  const int64_t least_number = ((int64_t)INT32_MIN + 1) * ((int64_t)1 << 32);
  return select_(e, icmp(e, LLVMIntSLT, key, int64(e, least_number)), float32(e, NAN), sum);
}

static void key_body(emitter *e, V offset, unsigned vector, void *user) {
  const choice *c = user;
  V score = sigmoid(e, load_f32(e, SLUICE_F32, c->logits, offset, vector));
  store_f32(e, SLUICE_F32, score, c->scores, offset);
  V biased = fadd_(e, score, load_f32(e, SLUICE_F32, c->bias, offset, vector));
  V key = expert_key(e, biased, add(e, counting(e, vector), offset));
  store(e, key, element(e, e->i64, c->keys, offset));
}

/* The largest key below `bound`, found by all lanes. */
static V largest_below(emitter *e, const choice *c, V bound) {
  const unsigned vector = e->lanes > 1 ? 1 : e->vector;
  T wide = vector_type(e->i64, vector);
  V least = splat(e, int64(e, INT64_MIN), vector);
  V best = local_set(e, wide, least);
  loop each = loop_begin(e, mul(e, e->atoms->lane(e), int64(e, vector)), int64(e, c->experts),
                         int64(e, (int64_t)vector * e->lanes));
  V keys = load(e, wide, element(e, e->i64, c->keys, each.index));
  V eligible = select_(e, icmp(e, LLVMIntSLT, keys, bound), keys, least);
  set(e, best, imax(e, get(e, wide, best), eligible));
  loop_end(e, &each);
  V result = get(e, wide, best);
  if (vector > 1) result = intrinsic(e, "llvm.vector.reduce.smax", &wide, 1, &result, 1);
  return e->atoms->reduce(e, result, REDUCE_MAX);
}

/* Writes the experts whose key reaches `least`, ascending, and their shares of the sum of their scores. */
static void list_in_turn(emitter *e, const choice *c, V least, V out_experts, V out_weights) {
  V place = local_set(e, e->i64, int64(e, 0));
  V sum = local_set(e, e->f32, float32(e, 0));
  loop each = loop_begin(e, int64(e, 0), int64(e, c->experts), int64(e, 1));
  V key = load(e, e->i64, element(e, e->i64, c->keys, each.index));
  set(e, sum, keep_nan(e, key, get(e, e->f32, sum)));
  branch chosen = if_begin(e, icmp(e, LLVMIntSGE, key, least));
  V at = get(e, e->i64, place);
  V score = load_f32(e, SLUICE_F32, c->scores, each.index, 1);
  store_i32(e, each.index, out_experts, at);
  store_f32(e, SLUICE_F32, score, out_weights, at);
  set(e, sum, fadd_(e, get(e, e->f32, sum), score));
  set(e, place, add(e, at, int64(e, 1)));
  if_end(e, &chosen);
  loop_end(e, &each);

  loop slots = loop_begin(e, int64(e, 0), int64(e, c->k), int64(e, 1));
  V share = fdiv_(e, load_f32(e, SLUICE_F32, out_weights, slots.index, 1), get(e, e->f32, sum));
  store_f32(e, SLUICE_F32, share, out_weights, slots.index);
  loop_end(e, &slots);
}

/* The same with several lanes: each places its experts by counting the chosen ones before them. Sums go in the same
 * order. */
static void list_at_once(emitter *e, const choice *c, V least, V out_experts, V out_weights) {
  enum { AT_ONCE = 8 };
  V listed = workgroup_take(e, (uint64_t)c->k * sizeof(float)); /* scores in order */
  V nothing = local_set(e, e->f32, float32(e, 0));              /* 0, or NaN */
  loop mine = lane_loop(e, int64(e, 0), int64(e, c->experts));
  V key = load(e, e->i64, element(e, e->i64, c->keys, mine.index));
  set(e, nothing, keep_nan(e, key, get(e, e->f32, nothing)));
  branch chosen = if_begin(e, icmp(e, LLVMIntSGE, key, least));
  V place = local_set(e, e->i64, int64(e, 0));
  loop before = loop_begin(e, int64(e, 0), mine.index, int64(e, AT_ONCE));
  for (unsigned i = 0; i < AT_ONCE; i++) {
    V other = add(e, before.index, int64(e, i)), inside = imin(e, other, int64(e, c->experts - 1));
    V reaches = icmp(e, LLVMIntSGE, load(e, e->i64, element(e, e->i64, c->keys, inside)), least);
    V counts = and_(e, reaches, icmp(e, LLVMIntSLT, other, mine.index));
    set(e, place, add(e, get(e, e->i64, place), LLVMBuildZExt(e->builder, counts, e->i64, "")));
  }
  loop_end(e, &before);
  store_i32(e, mine.index, out_experts, get(e, e->i64, place));
  store_f32(e, SLUICE_F32, load_f32(e, SLUICE_F32, c->scores, mine.index, 1), listed, get(e, e->i64, place));
  if_end(e, &chosen);
  loop_end(e, &mine);
  V first = e->atoms->reduce(e, get(e, e->f32, nothing), REDUCE_ADD);
  e->atoms->barrier(e);
  loop slots = lane_loop(e, int64(e, 0), int64(e, c->k));
  V sum = local_set(e, e->f32, first);
  loop all = loop_begin(e, int64(e, 0), int64(e, c->k), int64(e, 1));
  set(e, sum, fadd_(e, get(e, e->f32, sum), load_f32(e, SLUICE_F32, listed, all.index, 1)));
  loop_end(e, &all);
  V share = fdiv_(e, load_f32(e, SLUICE_F32, listed, slots.index, 1), get(e, e->f32, sum));
  store_f32(e, SLUICE_F32, share, out_weights, slots.index);
  loop_end(e, &slots);
}

/* Takes `c`'s k experts with the largest sigmoid + bias and writes them in ascending order, with their share of the sum
 * of the unbiased scores; NaN for all of them if sigmoid + bias of any expert is NaN. */
static void choose(emitter *e, choice *c, V out_experts, V out_weights) {
  const int64_t vector = e->vector;
  row_loop(e, c->experts, key_body, c);
  V first_lane = icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0));
  branch padding = if_begin(e, first_lane);
  for (int64_t i = c->experts; i % vector; i++) store(e, int64(e, INT64_MIN), element(e, e->i64, c->keys, int64(e, i)));
  if_end(e, &padding);
  e->atoms->barrier(e);
  V least = local_set(e, e->i64, int64(e, INT64_MAX)); /* becomes the k-th key */
  loop passes = loop_begin(e, int64(e, 0), int64(e, c->k), int64(e, 1));
  set(e, least, largest_below(e, c, get(e, e->i64, least)));
  loop_end(e, &passes);

  if (e->lanes == 1)
    list_in_turn(e, c, get(e, e->i64, least), out_experts, out_weights);
  else
    list_at_once(e, c, get(e, e->i64, least), out_experts, out_weights);
}

static V take_keys(emitter *e, int64_t experts) {
  const int64_t vector = e->vector;
  return workgroup_take(e, (uint64_t)((experts + vector - 1) / vector * vector) * sizeof(int64_t));
}

bool expert_counts_are_valid(emitter *e, const kernel_spec *spec, int64_t experts, int64_t k) {
  if (!e->status && (experts < 1 || experts > MAX_EXPERTS || k < 1 || k > experts))
    e->status = sluice_error(SLUICE_INTERNAL, "%s: %lld of %lld experts: expected 1 to %d experts", spec->symbol,
                             (long long)k, (long long)experts, MAX_EXPERTS);
  return !e->status;
}

void family_topk_experts(emitter *e, const kernel_spec *spec) {
  choice c = {.experts = kernel_integer(spec, "experts", &e->status), .k = kernel_integer(spec, "k", &e->status)};
  if (!expert_counts_are_valid(e, spec, c.experts, c.k)) return;
  kernel_begin(e, spec, each(SLUICE_SIZE_TOKENS, c.experts));
  V slot = mul(e, e->x, int64(e, c.k));
  c.logits = element(e, e->f32, e->argument[0], mul(e, e->x, int64(e, c.experts)));
  c.bias = e->argument[1];
  c.scores = workgroup_take(e, (uint64_t)c.experts * sizeof(float));
  c.keys = take_keys(e, c.experts);
  choose(e, &c, element(e, e->i32, e->argument[2], slot), element(e, e->f32, e->argument[3], slot));
  kernel_end(e);
}

/* ---- logits ---- */

enum { LOGIT_TOKENS = 2 }; /* tokens for which a workgroup reads its expert's weights once */

typedef struct logits_row {
  sluice_dtype dtype;
  V gate;                                               /* the expert's weights */
  V x[LOGIT_TOKENS];                                    /* the tokens' rows */
  V vector_sum[LOGIT_TOKENS], scalar_sum[LOGIT_TOKENS]; /* locals */
} logits_row;

static void logits_body(emitter *e, V offset, unsigned vector, void *user) {
  const logits_row *row = user;
  V w = load_f32(e, SLUICE_F32, row->gate, offset, vector);
  for (unsigned i = 0; i < LOGIT_TOKENS; i++) {
    V slot = vector > 1 ? row->vector_sum[i] : row->scalar_sum[i];
    set(e, slot, fma_(e, load_f32(e, row->dtype, row->x[i], offset, vector), w, get(e, LLVMTypeOf(w), slot)));
  }
}

bool read_router_logits(emitter *e, const kernel_spec *spec, router_logits *out) {
  *out = (router_logits){.experts = kernel_integer(spec, "experts", &e->status),
                         .width = kernel_integer(spec, "width", &e->status),
                         .dtype = kernel_dtype(spec, "dtype", &e->status)};
  return expert_counts_are_valid(e, spec, out->experts, 1);
}

/* The weights are in the lanes' registers before the wait, and all of a lane's elements of x come at once. The same
 * sums, in the same order, as with row_loop. Returns false for rows that do not fit. */
static bool logits_in_registers(emitter *e, const logits_row *row, int64_t width) {
  row_places p;
  if (!find_row_places(e, width, &p)) return false;
  V weight[MOST_ROW_PLACES], x[LOGIT_TOKENS][MOST_ROW_PLACES], zero = LLVMConstNull(vector_type(e->f32, e->vector));
  for (int64_t i = 0; i < p.count; i++) weight[i] = load_f32(e, SLUICE_F32, row->gate, p.offset[i], e->vector);
  await_previous(e);
  for (unsigned t = 0; t < LOGIT_TOKENS; t++)
    for (int64_t i = 0; i < p.count; i++) x[t][i] = load_f32(e, row->dtype, row->x[t], p.offset[i], e->vector);
  for (unsigned t = 0; t < LOGIT_TOKENS; t++) {
    V sum = zero;
    for (int64_t i = 0; i < p.count; i++) sum = select_(e, p.inside[i], fma_(e, x[t][i], weight[i], sum), sum);
    set(e, row->vector_sum[t], sum);
  }
  return true;
}

/* A workgroup for each expert and LOGIT_TOKENS tokens; the last tokens are computed several times where there are
 * fewer.
 */
void family_router_logits(emitter *e, const kernel_spec *spec) {
  router_logits r;
  if (!read_router_logits(e, spec, &r)) return;
  kernel_begin(e, spec,
               (kernel_shape){.x = {SLUICE_SIZE_ONE, 1, (uint32_t)r.experts, 0},
                              .y = {SLUICE_SIZE_TOKENS, LOGIT_TOKENS, 1, 0},
                              .rows = {r.width},
                              .begins_early = true});
  logits_row row = {.dtype = r.dtype};
  row.gate = element(e, e->f32, e->argument[1], mul(e, e->x, int64(e, r.width)));
  T vector = vector_type(e->f32, e->vector);
  V last = sub(e, size_of(e, SLUICE_SIZE_TOKENS), int64(e, 1)), first = mul(e, e->y, int64(e, LOGIT_TOKENS));
  for (unsigned i = 0; i < LOGIT_TOKENS; i++) {
    V token = imin(e, add(e, first, int64(e, i)), last);
    row.x[i] = element_of(e, row.dtype, e->argument[0], mul(e, token, int64(e, r.width)));
    row.vector_sum[i] = local_set(e, vector, LLVMConstNull(vector));
    row.scalar_sum[i] = local_set(e, e->f32, float32(e, 0));
  }
  if (!logits_in_registers(e, &row, r.width)) {
    branch first_row = if_begin(e, icmp(e, LLVMIntEQ, e->y, int64(e, 0)));
    prefetch(e, row.gate, r.width * (int64_t)sizeof(float));
    if_end(e, &first_row);
    await_previous(e);
    row_loop(e, r.width, logits_body, &row);
  }
  /* The waves' sums, added in their order. */
  const unsigned wave = e->facts->wave, waves = e->lanes / wave;
  V partial = workgroup_take(e, (uint64_t)waves * LOGIT_TOKENS * sizeof(float)), lane = e->atoms->lane(e);
  V own = mul(e, udiv(e, lane, int64(e, wave)), int64(e, LOGIT_TOKENS));
  for (unsigned i = 0; i < LOGIT_TOKENS; i++) {
    V sum = vector_reduce(e, get(e, vector, row.vector_sum[i]), REDUCE_ADD);
    sum = e->atoms->reduce_wave(e, fadd_(e, sum, get(e, e->f32, row.scalar_sum[i])), REDUCE_ADD);
    store_f32(e, SLUICE_F32, sum, partial, add(e, own, int64(e, i))); /* the same from all lanes of a wave */
  }
  e->atoms->barrier(e);
  loop each = lane_loop(e, int64(e, 0), int64(e, LOGIT_TOKENS));
  V sum = add_parts(e, partial, each.index, LOGIT_TOKENS, waves);
  V token = imin(e, add(e, first, each.index), last);
  store_f32(e, SLUICE_F32, sum, e->argument[2], add(e, mul(e, token, int64(e, r.experts)), e->x));
  loop_end(e, &each);
  kernel_end(e);
}

/* ---- logits and choice at once ---- */

static V token_row(emitter *e, V row, void *user) {
  (void)e, (void)row;
  return user;
}

void family_router(emitter *e, const kernel_spec *spec) {
  choice c = {.experts = kernel_integer(spec, "experts", &e->status), .k = kernel_integer(spec, "k", &e->status)};
  const int64_t width = kernel_integer(spec, "width", &e->status);
  const int64_t panel = kernel_integer(spec, "panel", &e->status);
  const sluice_dtype dtype = kernel_dtype(spec, "dtype", &e->status);
  if (!expert_counts_are_valid(e, spec, c.experts, c.k)) return;
  if (width < 1 || panel < 1 || panel % e->vector) {
    e->status = sluice_error(SLUICE_INTERNAL, "%s: rows of %lld, panels of %lld: expected whole vectors of %u",
                             spec->symbol, (long long)width, (long long)panel, e->vector);
    return;
  }
  const int64_t panels = (c.experts + panel - 1) / panel, panel_elements = (width + 1) / 2 * 2 * panel;
  kernel_begin(e, spec, each(SLUICE_SIZE_TOKENS, c.experts));
  c.logits = workgroup_take(e, (uint64_t)(panels * panel) * sizeof(float));
  c.scores = c.logits;
  c.keys = take_keys(e, c.experts);
  c.bias = e->argument[2];
  V x = element_of(e, dtype, e->argument[0], mul(e, e->x, int64(e, width)));
  loop each = loop_begin(e, int64(e, 0), int64(e, panels), int64(e, 1));
  tile_multiply(e, &(tile_product){
                       .a_row = token_row,
                       .user = x,
                       .a_dtype = dtype,
                       .b = element(e, e->f32, e->argument[1], mul(e, each.index, int64(e, panel_elements))),
                       .b_dtype = SLUICE_F32,
                       .c = element(e, e->f32, c.logits, mul(e, each.index, int64(e, panel))),
                       .c_stride = panel,
                       .rows = int64(e, 1),
                       .depth = int64(e, width),
                       .columns = int64(e, panel),
                       .max_columns = panel,
                   });
  loop_end(e, &each);
  e->atoms->barrier(e);
  V slot = mul(e, e->x, int64(e, c.k));
  choose(e, &c, element(e, e->i32, e->argument[3], slot), element(e, e->f32, e->argument[4], slot));
  kernel_end(e);
}

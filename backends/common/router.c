/* The router of mixture-of-experts layers (m3.md 2.11): router, topk_experts, and sort_experts, which groups the chosen
 * slots by expert for expert_gemm. */
#include "backends/common/families.h"
#include "backends/common/tile.h"

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

/* Keys order experts by preference: the selection score in the upper half, as an integer that orders like the float
 * with NaN below everything, and in the lower half the complement of the id. All keys differ, so no tie is left. */
static void key_body(emitter *e, V offset, unsigned vector, void *user) {
  const choice *c = user;
  T integers = vector_type(e->i32, vector), wide = vector_type(e->i64, vector);
  V score = sigmoid(e, load_f32(e, SLUICE_F32, c->logits, offset, vector));
  store_f32(e, SLUICE_F32, score, c->scores, offset);
  V biased = fadd_(e, score, load_f32(e, SLUICE_F32, c->bias, offset, vector));
  V bits = bitcast(e, fadd_(e, biased, float32(e, 0)), integers); /* -0 + 0 = 0 */
  V sign = LLVMBuildAShr(e->builder, bits, splat(e, int32(e, 31), vector), "");
  V ordered = LLVMBuildXor(e->builder, bits, and_(e, sign, int32(e, INT32_MAX)), "");
  ordered = select_(e, fcmp(e, LLVMRealUNO, biased, biased), splat(e, int32(e, INT32_MIN), vector), ordered);
  V upper = shl(e, LLVMBuildSExt(e->builder, ordered, wide, ""), int64(e, 32));
  V lower = sub(e, int64(e, UINT32_MAX), add(e, counting(e, vector), offset));
  store(e, or_(e, upper, lower), element(e, e->i64, c->keys, offset));
}

/* The largest key below `bound`. */
static V largest_below(emitter *e, const choice *c, V bound) {
  const unsigned vector = e->atoms->vector;
  T wide = vector_type(e->i64, vector);
  V least = splat(e, int64(e, INT64_MIN), vector);
  V best = local_set(e, wide, least);
  loop each = loop_begin(e, int64(e, 0), int64(e, c->experts), int64(e, vector));
  V keys = load(e, wide, element(e, e->i64, c->keys, each.index));
  V eligible = select_(e, icmp(e, LLVMIntSLT, keys, bound), keys, least);
  set(e, best, imax(e, get(e, wide, best), eligible));
  loop_end(e, &each);
  V result = get(e, wide, best);
  return vector == 1 ? result : intrinsic(e, "llvm.vector.reduce.smax", &wide, 1, &result, 1);
}

/* Takes `c`'s k experts with the largest sigmoid + bias and writes them in ascending order, with their share of the sum
 * of the unbiased scores. */
static void choose(emitter *e, choice *c, V out_experts, V out_weights) {
  const unsigned vector = e->atoms->vector;
  row_loop(e, c->experts, key_body, c);
  e->atoms->barrier(e);
  V first_lane = icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0));
  branch serial = if_begin(e, first_lane);
  for (int64_t i = c->experts; i % vector; i++) store(e, int64(e, INT64_MIN), element(e, e->i64, c->keys, int64(e, i)));
  V least = local_set(e, e->i64, int64(e, INT64_MAX)); /* becomes the k-th key */
  loop passes = loop_begin(e, int64(e, 0), int64(e, c->k), int64(e, 1));
  set(e, least, largest_below(e, c, get(e, e->i64, least)));
  loop_end(e, &passes);

  V place = local_set(e, e->i64, int64(e, 0));
  V sum = local_set(e, e->f32, float32(e, 0));
  loop each = loop_begin(e, int64(e, 0), int64(e, c->experts), int64(e, 1));
  V key = load(e, e->i64, element(e, e->i64, c->keys, each.index));
  branch chosen = if_begin(e, icmp(e, LLVMIntSGE, key, get(e, e->i64, least)));
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
  if_end(e, &serial);
}

static V take_keys(emitter *e, int64_t experts) {
  const int64_t vector = e->atoms->vector;
  return workgroup_take(e, (uint64_t)((experts + vector - 1) / vector * vector) * sizeof(int64_t));
}

static bool counts_are_valid(emitter *e, const kernel_spec *spec, int64_t experts, int64_t k) {
  if (!e->status && (experts < 1 || experts > MAX_EXPERTS || k < 1 || k > experts))
    e->status = sluice_error(SLUICE_INTERNAL, "%s: %lld of %lld experts: expected 1 to %d experts", spec->symbol,
                             (long long)k, (long long)experts, MAX_EXPERTS);
  return !e->status;
}

void family_topk_experts(emitter *e, const kernel_spec *spec) {
  choice c = {.experts = kernel_integer(spec, "experts", &e->status), .k = kernel_integer(spec, "k", &e->status)};
  if (!counts_are_valid(e, spec, c.experts, c.k)) return;
  kernel_begin(e, spec, SLUICE_SIZE_TOKENS, 1, 1);
  V slot = mul(e, e->x, int64(e, c.k));
  c.logits = element(e, e->f32, e->argument[0], mul(e, e->x, int64(e, c.experts)));
  c.bias = e->argument[1];
  c.scores = workgroup_take(e, (uint64_t)c.experts * sizeof(float));
  c.keys = take_keys(e, c.experts);
  choose(e, &c, element(e, e->i32, e->argument[2], slot), element(e, e->f32, e->argument[3], slot));
  kernel_end(e);
}

/* ---- router ---- */

static V token_row(emitter *e, V row, void *user) {
  (void)e, (void)row;
  return user;
}

void family_router(emitter *e, const kernel_spec *spec) {
  choice c = {.experts = kernel_integer(spec, "experts", &e->status), .k = kernel_integer(spec, "k", &e->status)};
  const int64_t width = kernel_integer(spec, "width", &e->status);
  const int64_t panel = kernel_integer(spec, "panel", &e->status);
  const sluice_dtype dtype = kernel_dtype(spec, "dtype", &e->status);
  if (!counts_are_valid(e, spec, c.experts, c.k)) return;
  if (width < 1 || panel < 1 || panel % e->atoms->vector) {
    e->status = sluice_error(SLUICE_INTERNAL, "%s: rows of %lld, panels of %lld: expected whole vectors of %u",
                             spec->symbol, (long long)width, (long long)panel, e->atoms->vector);
    return;
  }
  const int64_t panels = (c.experts + panel - 1) / panel, panel_elements = (width + 1) / 2 * 2 * panel;
  kernel_begin(e, spec, SLUICE_SIZE_TOKENS, 1, 1);
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

/* ---- sort_experts ---- */

/* A stable counting sort of the slots by expert. One lane does it: a slot costs a few nanoseconds, and the order must
 * not depend on anything but the slots. */
void family_sort_experts(emitter *e, const kernel_spec *spec) {
  const int64_t experts = kernel_integer(spec, "experts", &e->status);
  const int64_t k = kernel_integer(spec, "k", &e->status);
  const int64_t tile_m = kernel_integer(spec, "tile_m", &e->status);
  if (!counts_are_valid(e, spec, experts, k)) return;
  if (tile_m < 1) {
    e->status = sluice_error(SLUICE_INTERNAL, "%s: tiles of %lld slots", spec->symbol, (long long)tile_m);
    return;
  }
  kernel_begin(e, spec, SLUICE_SIZE_ONE, 1, 1);
  branch serial = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  V zero = int64(e, 0), one = int64(e, 1);
  V expert_of = e->argument[0], counts = e->argument[1], order = e->argument[2], tiles = e->argument[3];
  V next = workgroup_take(e, (uint64_t)experts * sizeof(int32_t)); /* slots of an expert, then its next place */
  V slots = mul(e, size_of(e, SLUICE_SIZE_TOKENS), int64(e, k));

  loop clear = loop_begin(e, zero, int64(e, experts), one);
  store_i32(e, zero, next, clear.index);
  loop_end(e, &clear);
  loop count = loop_begin(e, zero, slots, one);
  V counted = load_i32(e, expert_of, count.index);
  store_i32(e, add(e, load_i32(e, next, counted), one), next, counted);
  loop_end(e, &count);

  V start = local_set(e, e->i64, zero), tile_count = local_set(e, e->i64, zero);
  loop each = loop_begin(e, zero, int64(e, experts), one);
  V first = get(e, e->i64, start), end = add(e, first, load_i32(e, next, each.index));
  store_i32(e, first, counts, add(e, each.index, one));
  store_i32(e, first, next, each.index);
  set(e, start, end);
  loop tile = loop_begin(e, first, end, int64(e, tile_m));
  V number = get(e, e->i64, tile_count), entry = mul(e, number, int64(e, 4));
  store_i32(e, each.index, tiles, entry);
  store_i32(e, tile.index, tiles, add(e, entry, one));
  store_i32(e, imin(e, sub(e, end, tile.index), int64(e, tile_m)), tiles, add(e, entry, int64(e, 2)));
  store_i32(e, zero, tiles, add(e, entry, int64(e, 3)));
  set(e, tile_count, add(e, number, one));
  loop_end(e, &tile);
  loop_end(e, &each);
  store_i32(e, get(e, e->i64, tile_count), counts, zero);
  store_i32(e, slots, counts, int64(e, experts + 1));

  loop place = loop_begin(e, zero, slots, one);
  V expert = load_i32(e, expert_of, place.index), to = load_i32(e, next, expert);
  store_i32(e, place.index, order, to);
  store_i32(e, add(e, to, one), next, expert);
  loop_end(e, &place);
  if_end(e, &serial);
  kernel_end(e);
}

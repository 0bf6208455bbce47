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
  loop mine = lane_loop(e, int64(e, 0), int64(e, c->experts));
  V key = load(e, e->i64, element(e, e->i64, c->keys, mine.index));
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
  e->atoms->barrier(e);
  loop slots = lane_loop(e, int64(e, 0), int64(e, c->k));
  V sum = local_set(e, e->f32, float32(e, 0));
  loop all = loop_begin(e, int64(e, 0), int64(e, c->k), int64(e, 1));
  set(e, sum, fadd_(e, get(e, e->f32, sum), load_f32(e, SLUICE_F32, listed, all.index, 1)));
  loop_end(e, &all);
  V share = fdiv_(e, load_f32(e, SLUICE_F32, listed, slots.index, 1), get(e, e->f32, sum));
  store_f32(e, SLUICE_F32, share, out_weights, slots.index);
  loop_end(e, &slots);
}

/* Takes `c`'s k experts with the largest sigmoid + bias and writes them in ascending order, with their share of the sum
 * of the unbiased scores. */
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

static bool counts_are_valid(emitter *e, const kernel_spec *spec, int64_t experts, int64_t k) {
  if (!e->status && (experts < 1 || experts > MAX_EXPERTS || k < 1 || k > experts))
    e->status = sluice_error(SLUICE_INTERNAL, "%s: %lld of %lld experts: expected 1 to %d experts", spec->symbol,
                             (long long)k, (long long)experts, MAX_EXPERTS);
  return !e->status;
}

void family_topk_experts(emitter *e, const kernel_spec *spec) {
  choice c = {.experts = kernel_integer(spec, "experts", &e->status), .k = kernel_integer(spec, "k", &e->status)};
  if (!counts_are_valid(e, spec, c.experts, c.k)) return;
  kernel_begin(e, spec, each(SLUICE_SIZE_TOKENS));
  V slot = mul(e, e->x, int64(e, c.k));
  c.logits = element(e, e->f32, e->argument[0], mul(e, e->x, int64(e, c.experts)));
  c.bias = e->argument[1];
  c.scores = workgroup_take(e, (uint64_t)c.experts * sizeof(float));
  c.keys = take_keys(e, c.experts);
  choose(e, &c, element(e, e->i32, e->argument[2], slot), element(e, e->f32, e->argument[3], slot));
  kernel_end(e);
}

/* ---- router ---- */

/* ---- logits ---- */

/* Tokens for which a workgroup reads its expert's weights once. */
enum { LOGIT_TOKENS = 8 };

typedef struct logits_row {
  sluice_dtype dtype;
  V gate;            /* the expert's weights */
  V x[LOGIT_TOKENS]; /* the tokens' rows */
  V vector_sum[LOGIT_TOKENS], scalar_sum[LOGIT_TOKENS];
} logits_row;

static void logits_body(emitter *e, V offset, unsigned vector, void *user) {
  const logits_row *row = user;
  V w = load_f32(e, SLUICE_F32, row->gate, offset, vector);
  for (unsigned i = 0; i < LOGIT_TOKENS; i++) {
    V slot = vector > 1 ? row->vector_sum[i] : row->scalar_sum[i];
    set(e, slot, fma_(e, load_f32(e, row->dtype, row->x[i], offset, vector), w, get(e, LLVMTypeOf(w), slot)));
  }
}

/* Operands: x, gate (rows f32), logits f32 [T][experts]. A workgroup is an expert and LOGIT_TOKENS tokens; the last
 * ones of a step are computed again where there are fewer. */
void family_router_logits(emitter *e, const kernel_spec *spec) {
  const int64_t experts = kernel_integer(spec, "experts", &e->status);
  const int64_t width = kernel_integer(spec, "width", &e->status);
  logits_row row = {.dtype = kernel_dtype(spec, "dtype", &e->status)};
  if (!counts_are_valid(e, spec, experts, 1)) return;
  kernel_shape shape = {.x = {SLUICE_SIZE_ONE, 1, (uint32_t)experts, 0}, .y = {SLUICE_SIZE_TOKENS, LOGIT_TOKENS, 1, 0}};
  kernel_begin(e, spec, shape);
  T vector = vector_type(e->f32, e->vector);
  row.gate = element(e, e->f32, e->argument[1], mul(e, e->x, int64(e, width)));
  V token[LOGIT_TOKENS], last = sub(e, size_of(e, SLUICE_SIZE_TOKENS), int64(e, 1));
  for (unsigned i = 0; i < LOGIT_TOKENS; i++) {
    token[i] = imin(e, add(e, mul(e, e->y, int64(e, LOGIT_TOKENS)), int64(e, i)), last);
    row.x[i] = element_of(e, row.dtype, e->argument[0], mul(e, token[i], int64(e, width)));
    row.vector_sum[i] = local_set(e, vector, LLVMConstNull(vector));
    row.scalar_sum[i] = local_set(e, e->f32, float32(e, 0));
  }
  row_loop(e, width, logits_body, &row);
  for (unsigned i = 0; i < LOGIT_TOKENS; i++) {
    V sum = vector_reduce(e, get(e, vector, row.vector_sum[i]), REDUCE_ADD);
    sum = e->atoms->reduce(e, fadd_(e, sum, get(e, e->f32, row.scalar_sum[i])), REDUCE_ADD);
    store_f32(e, SLUICE_F32, sum, e->argument[2], add(e, mul(e, token[i], int64(e, experts)), e->x));
  }
  kernel_end(e);
}

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
  if (width < 1 || panel < 1 || panel % e->vector) {
    e->status = sluice_error(SLUICE_INTERNAL, "%s: rows of %lld, panels of %lld: expected whole vectors of %u",
                             spec->symbol, (long long)width, (long long)panel, e->vector);
    return;
  }
  const int64_t panels = (c.experts + panel - 1) / panel, panel_elements = (width + 1) / 2 * 2 * panel;
  kernel_begin(e, spec, each(SLUICE_SIZE_TOKENS));
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

/* A stable counting sort of the chosen slots by expert. With a shared expert each token has one slot more than it has
 * choices, its last; these slots follow all others, and need no sorting. */
typedef struct sorting {
  int64_t experts, k, tile_m;
  bool shared;
  V expert_of, counts, order, tiles; /* operands */
  V next;                            /* workgroup memory, i32[experts]: slots of an expert, then its next place */
  V tokens, chosen;                  /* choices of all tokens */
} sorting;

/* The slot of choice `number`. */
static V slot_of(emitter *e, const sorting *o, V number) {
  return o->shared ? add(e, number, udiv(e, number, int64(e, o->k))) : number;
}

/* The tiles of the shared expert. */
static V shared_tiles(emitter *e, const sorting *o) {
  return o->shared ? ceil_div(e, o->tokens, o->tile_m) : int64(e, 0);
}

static void write_tile(emitter *e, const sorting *o, V number, V expert, V first, V end) {
  V entry = mul(e, number, int64(e, 4));
  store_i32(e, expert, o->tiles, entry);
  store_i32(e, first, o->tiles, add(e, entry, int64(e, 1)));
  store_i32(e, imin(e, sub(e, end, first), int64(e, o->tile_m)), o->tiles, add(e, entry, int64(e, 2)));
  store_i32(e, int64(e, 0), o->tiles, add(e, entry, int64(e, 3)));
}

/* The counts behind those of the chosen experts, of which there are `tiles`. */
static void finish_counts(emitter *e, const sorting *o, V tiles) {
  store_i32(e, add(e, tiles, shared_tiles(e, o)), o->counts, int64(e, 0));
  store_i32(e, o->chosen, o->counts, int64(e, o->experts + 1));
  if (o->shared) store_i32(e, add(e, o->chosen, o->tokens), o->counts, int64(e, o->experts + 2));
}

/* The shared expert's places in `order`, and its tiles, behind all others. */
static void add_shared_slots(emitter *e, const sorting *o) {
  V end = add(e, o->chosen, o->tokens), tiles = shared_tiles(e, o);
  V first_tile = sub(e, load_i32(e, o->counts, int64(e, 0)), tiles);
  loop token = lane_loop(e, int64(e, 0), o->tokens);
  V slot = add(e, mul(e, token.index, int64(e, o->k + 1)), int64(e, o->k));
  store_i32(e, slot, o->order, add(e, o->chosen, token.index));
  loop_end(e, &token);
  loop tile = lane_loop(e, int64(e, 0), tiles);
  V first = add(e, o->chosen, mul(e, tile.index, int64(e, o->tile_m)));
  write_tile(e, o, add(e, first_tile, tile.index), int64(e, o->experts), first, end);
  loop_end(e, &tile);
}

static void count_in_one_pass(emitter *e, const sorting *o) {
  V zero = int64(e, 0), one = int64(e, 1);
  loop clear = loop_begin(e, zero, int64(e, o->experts), one);
  store_i32(e, zero, o->next, clear.index);
  loop_end(e, &clear);
  loop count = loop_begin(e, zero, o->chosen, one);
  V counted = load_i32(e, o->expert_of, count.index);
  store_i32(e, add(e, load_i32(e, o->next, counted), one), o->next, counted);
  loop_end(e, &count);
}

static void place_in_one_pass(emitter *e, const sorting *o) {
  V one = int64(e, 1);
  loop place = loop_begin(e, int64(e, 0), o->chosen, one);
  V expert = load_i32(e, o->expert_of, place.index), to = load_i32(e, o->next, expert);
  store_i32(e, slot_of(e, o, place.index), o->order, to);
  store_i32(e, add(e, to, one), o->next, expert);
  loop_end(e, &place);
}

/* Several lanes: each goes over all choices for its experts, and counts them, or, with `order`, places them. */
static void scan_by_expert(emitter *e, const sorting *o, V order) {
  enum { AT_ONCE = 4 }; /* independent reads */
  V last = sub(e, o->chosen, int64(e, 1));
  loop experts = lane_loop(e, int64(e, 0), int64(e, o->experts));
  V place = local_set(e, e->i64, order ? load_i32(e, o->next, experts.index) : int64(e, 0));
  loop choices = loop_begin(e, int64(e, 0), o->chosen, int64(e, AT_ONCE));
  V expert[AT_ONCE];
  for (unsigned i = 0; i < AT_ONCE; i++)
    expert[i] = load_i32(e, o->expert_of, imin(e, add(e, choices.index, int64(e, i)), last));
  for (unsigned i = 0; i < AT_ONCE; i++) {
    V number = add(e, choices.index, int64(e, i));
    V wanted = and_(e, icmp(e, LLVMIntEQ, expert[i], experts.index), icmp(e, LLVMIntSLE, number, last));
    branch mine = if_begin(e, wanted);
    if (order) store_i32(e, slot_of(e, o, number), order, get(e, e->i64, place));
    set(e, place, add(e, get(e, e->i64, place), int64(e, 1)));
    if_end(e, &mine);
  }
  loop_end(e, &choices);
  if (!order) store_i32(e, get(e, e->i64, place), o->next, experts.index);
  loop_end(e, &experts);
}

/* Several lanes: list_tiles for each expert at once, from the sums over the experts before it. */
static void list_tiles_by_expert(emitter *e, const sorting *o) {
  enum { AT_ONCE = 8 };
  V one = int64(e, 1), all = int64(e, o->experts);
  V first_of = workgroup_take(e, (uint64_t)o->experts * sizeof(int32_t));
  loop experts = lane_loop(e, int64(e, 0), add(e, all, one)); /* the one past the last writes the sums */
  V first = local_set(e, e->i64, int64(e, 0)), tiles = local_set(e, e->i64, int64(e, 0));
  loop before = loop_begin(e, int64(e, 0), experts.index, int64(e, AT_ONCE));
  for (unsigned i = 0; i < AT_ONCE; i++) {
    V other = add(e, before.index, int64(e, i));
    V count = load_i32(e, o->next, imin(e, other, sub(e, all, one)));
    count = select_(e, icmp(e, LLVMIntSLT, other, experts.index), count, int64(e, 0));
    set(e, first, add(e, get(e, e->i64, first), count));
    set(e, tiles, add(e, get(e, e->i64, tiles), ceil_div(e, count, o->tile_m)));
  }
  loop_end(e, &before);
  V start = get(e, e->i64, first);
  branch real = if_begin(e, icmp(e, LLVMIntSLT, experts.index, all));
  store_i32(e, start, o->counts, add(e, experts.index, one));
  store_i32(e, start, first_of, experts.index);
  V end = add(e, start, load_i32(e, o->next, experts.index));
  loop tile = loop_begin(e, start, end, int64(e, o->tile_m));
  write_tile(e, o, get(e, e->i64, tiles), experts.index, tile.index, end);
  set(e, tiles, add(e, get(e, e->i64, tiles), one));
  loop_end(e, &tile);
  if_else(e, &real);
  finish_counts(e, o, get(e, e->i64, tiles));
  if_end(e, &real);
  loop_end(e, &experts);
  e->atoms->barrier(e);
  loop copy = lane_loop(e, int64(e, 0), all);
  store_i32(e, load_i32(e, first_of, copy.index), o->next, copy.index);
  loop_end(e, &copy);
}

/* From the counts in `next`: the experts' first places, which stay in `next`, and the expert tiles. */
static void list_tiles(emitter *e, const sorting *o) {
  V zero = int64(e, 0), one = int64(e, 1);
  V start = local_set(e, e->i64, zero), tile_count = local_set(e, e->i64, zero);
  loop each = loop_begin(e, zero, int64(e, o->experts), one);
  V first = get(e, e->i64, start), end = add(e, first, load_i32(e, o->next, each.index));
  store_i32(e, first, o->counts, add(e, each.index, one));
  store_i32(e, first, o->next, each.index);
  set(e, start, end);
  loop tile = loop_begin(e, first, end, int64(e, o->tile_m));
  V number = get(e, e->i64, tile_count);
  write_tile(e, o, number, each.index, tile.index, end);
  set(e, tile_count, add(e, number, one));
  loop_end(e, &tile);
  loop_end(e, &each);
  finish_counts(e, o, get(e, e->i64, tile_count));
}

void family_sort_experts(emitter *e, const kernel_spec *spec) {
  const int64_t experts = kernel_integer(spec, "experts", &e->status);
  const int64_t k = kernel_integer(spec, "k", &e->status);
  const int64_t tile_m = kernel_integer(spec, "tile_m", &e->status);
  const bool shared = kernel_integer(spec, "shared", &e->status) != 0;
  if (!counts_are_valid(e, spec, experts, k)) return;
  if (tile_m < 1) {
    e->status = sluice_error(SLUICE_INTERNAL, "%s: tiles of %lld slots", spec->symbol, (long long)tile_m);
    return;
  }
  kernel_begin(e, spec, each(SLUICE_SIZE_ONE));
  V tokens = size_of(e, SLUICE_SIZE_TOKENS);
  sorting o = {.experts = experts,
               .k = k,
               .tile_m = tile_m,
               .shared = shared,
               .expert_of = e->argument[0],
               .counts = e->argument[1],
               .order = e->argument[2],
               .tiles = e->argument[3],
               .next = workgroup_take(e, (uint64_t)experts * sizeof(int32_t)),
               .tokens = tokens,
               .chosen = mul(e, tokens, int64(e, k))};
  if (e->lanes == 1)
    count_in_one_pass(e, &o);
  else
    scan_by_expert(e, &o, NULL);
  e->atoms->barrier(e);
  if (e->lanes == 1)
    list_tiles(e, &o);
  else
    list_tiles_by_expert(e, &o);
  e->atoms->barrier(e);
  if (e->lanes == 1)
    place_in_one_pass(e, &o);
  else
    scan_by_expert(e, &o, o.order);
  if (shared) add_shared_slots(e, &o);
  kernel_end(e);
}

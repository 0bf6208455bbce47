#include "backends/amdgcn/attend.h"
#include "backends/amdgcn/amdgcn.h"
#include "backends/amdgcn/mfma.h"

#include <math.h>

enum {
  STEP = 32,   /* depth of an instruction */
  VECTOR = 16, /* bytes */
  MOST_HALVES = 2,
  LANE_KEYS = 8,  /* of 32, whose scores a lane has */
  HEADROOM = 8,   /* the maximum moves on when a score exceeds it by a factor of 2^HEADROOM */
  MERGED = 8 * 4, /* fragments of dimensions times fragments of columns that are merged at a time, at most: 36 KB */
  PADDING = 4,    /* f32, so that rows begin in different banks */
};

bool attender_read(emitter *e, attender *a) {
  a->heads = attribute(e, "heads");
  a->kv_heads = attribute(e, "kv_heads");
  a->head_dim = attribute(e, "head_dim");
  a->page = attribute(e, "page");
  a->page_bytes = attribute(e, "page_bytes");
  a->value_offset = attribute(e, "value_offset");
  a->factor = attribute_float(e, "scale") * LOG2_E;
  if (e->status) return false;
  if (attribute_dtype(e, "dtype") != SLUICE_BF16) return decline(e, "elements are f32, expected bf16");
  if (!attribute_is(e, "transposed", "values")) return decline(e, "pages hold keys transposed, expected values");
  if (a->head_dim % STEP || a->head_dim > STEP * ATTEND_MOST_STEPS)
    return decline(e, "heads have %lld dimensions, expected a multiple of %d, at most %d", (long long)a->head_dim, STEP,
                   STEP * ATTEND_MOST_STEPS);
  if (a->page % ATTEND_KEYS)
    return decline(e, "pages have %lld tokens, expected a multiple of %d", (long long)a->page, ATTEND_KEYS);
  a->group = a->heads / a->kv_heads;
  if (a->group > ATTEND_COLUMNS)
    return decline(e, "%lld heads share a kv head, expected at most %d", (long long)a->group, ATTEND_COLUMNS);
  a->steps = (unsigned)(a->head_dim / STEP);
  a->dims = (unsigned)(a->head_dim / 16);
  a->halves = 1;
  a->reading = BUFFER_READ;
  return true;
}

void attender_place(emitter *e, attender *a) {
  a->lane = and_(e, e->atoms->lane(e), int64(e, AMDGCN_WAVE - 1));
  a->wave = amdgcn_wave(e);
  a->column = fragment_lane_part(e, &mfma_16x16.c, FRAGMENT_COLUMN, a->lane);
  a->lane_group = lshr(e, a->lane, int64(e, 4));
}

static T operand_type(const emitter *e) {
  return LLVMVectorType(e->i16, 8);
}

static T result_type(const emitter *e) {
  return LLVMVectorType(e->f32, 4);
}

static T pair_type(const emitter *e) {
  return LLVMVectorType(e->f32, 2);
}

static V extract(emitter *e, V vector, unsigned i) {
  return LLVMBuildExtractElement(e->builder, vector, int32(e, (int32_t)i), "");
}

/* Eight weights, rounded to nearest, as an operand. Where the chip has no conversion ties go up and NaN may become a
 * number: the sum of the weights stays NaN. */
static V round_eight(emitter *e, V low, V high) {
  if (amdgcn_is_gfx950(e)) {
    T bf16 = LLVMVectorType(LLVMBFloatTypeInContext(e->context), LANE_KEYS);
    V value[LANE_KEYS];
    for (unsigned i = 0; i < LANE_KEYS; i++) value[i] = extract(e, i < 4 ? low : high, i % 4);
    return bitcast(e, LLVMBuildFPTrunc(e->builder, vector_of(e, value, LANE_KEYS), bf16, ""), operand_type(e));
  }
  enum { HALF = 0x8000, UPPER_HALVES = 0x07060302 };
  V word[LANE_KEYS / 2];
  for (unsigned i = 0; i < LANE_KEYS / 2; i++) {
    V pair[2];
    for (unsigned j = 0; j < 2; j++) {
      V value = extract(e, i < 2 ? low : high, 2 * i % 4 + j);
      pair[j] = add(e, bitcast(e, value, e->i32), int32(e, HALF));
    }
    V arguments[] = {pair[1], pair[0], int32(e, UPPER_HALVES)};
    word[i] = intrinsic(e, "llvm.amdgcn.perm", NULL, 0, arguments, 3);
  }
  return bitcast(e, vector_of(e, word, LANE_KEYS / 2), operand_type(e));
}

/* Row of a token's head in the step's buffers: `pair` counts pairs of a token and a head of the kv head. */
static V row_of_pair(emitter *e, const attender *a, const attended_tokens *t, V token, V pair) {
  V head = add(e, mul(e, a->kv_head, int64(e, a->group)), urem(e, pair, int64(e, a->group)));
  return add(e, mul(e, add(e, t->first, token), int64(e, a->heads)), head);
}

/* Bytes of a row of queries in workgroup memory, so that rows begin in different banks. */
static int64_t query_row(const attender *a) {
  return a->head_dim * 2 + VECTOR;
}

V attend_take_queries(emitter *e, const attender *a, unsigned fragments) {
  return workgroup_take(e, (uint64_t)(fragments * ATTEND_COLUMNS * query_row(a)));
}

/* Rows of the tokens' pairs to workgroup memory. Has a barrier. */
static void copy_queries(emitter *e, const attender *a, const attended_tokens *t, V queries) {
  const int64_t pieces = a->head_dim * 2 / VECTOR;
  loop each = lane_loop(e, int64(e, 0), mul(e, t->count, int64(e, a->group * pieces)));
  V pair = udiv(e, each.index, int64(e, pieces)), piece = urem(e, each.index, int64(e, pieces));
  V row = row_of_pair(e, a, t, udiv(e, pair, int64(e, a->group)), pair), within = mul(e, piece, int64(e, VECTOR));
  V from = byte_offset(e, a->q, add(e, mul(e, row, int64(e, a->head_dim * 2)), within));
  store(e, load(e, operand_type(e), from),
        byte_offset(e, queries, add(e, mul(e, pair, int64(e, query_row(a))), within)));
  loop_end(e, &each);
  e->atoms->barrier(e);
}

void attend_open(emitter *e, const attender *a, const attended_tokens *t, V queries, attended_sums *s) {
  s->tokens = t;
  if (queries) copy_queries(e, a, t, queries);
  for (unsigned f = 0; f < t->fragments; f++) {
    V pair = add(e, a->column, int64(e, f * ATTEND_COLUMNS)), token = udiv(e, pair, int64(e, a->group));
    V inside = imin(e, token, sub(e, t->count, int64(e, 1))), row = row_of_pair(e, a, t, inside, pair);
    V at = add(e, mul(e, row, int64(e, a->head_dim * 2)), mul(e, a->lane_group, int64(e, VECTOR)));
    if (queries) {
      V copied = imin(e, pair, sub(e, mul(e, t->count, int64(e, a->group)), int64(e, 1)));
      at = add(e, mul(e, copied, int64(e, query_row(a))), mul(e, a->lane_group, int64(e, VECTOR)));
    }
    V rows = queries ? queries : a->q;
    for (unsigned i = 0; i < a->steps; i++)
      s->query[f][i] = load(e, operand_type(e), byte_offset(e, rows, add(e, at, int64(e, i * STEP * 2))));
    s->position[f] = select_(e, icmp(e, LLVMIntSLT, token, t->count), add(e, t->position, token), int64(e, -1));
    s->bit[f] = shl(e, int32(e, 1), to_i32(e, inside));
    s->maximum[f] = local_set(e, e->f32, float32(e, -INFINITY));
    s->limit[f] = local_set(e, e->f32, float32(e, -INFINITY));
    s->base[f] = local_set(e, e->f32, float32(e, 0));
    s->sum[f] = local_set(e, pair_type(e), LLVMConstNull(pair_type(e)));
    for (unsigned i = 0; i < a->dims; i++) s->out[f][i] = local_set(e, result_type(e), LLVMConstNull(result_type(e)));
  }
}

/* The largest, or the sum, of all lanes with the same column. */
static V over_groups(emitter *e, V value, reduction operation) {
  for (unsigned distance = ATTEND_COLUMNS; distance < AMDGCN_WAVE; distance *= 2) {
    V other = e->atoms->exchange(e, value, distance);
    value = operation == REDUCE_MAX ? fmax_(e, value, other) : fadd_(e, value, other);
  }
  return value;
}

/* ---- keys and values ---- */

/* Operands of a step, locals: two fragments of keys for each half, and the dimensions' values. */
typedef struct step_operands {
  V keys[MOST_HALVES][2][ATTEND_MOST_STEPS];
  V values[MOST_HALVES][ATTEND_MOST_DIMS];
} step_operands;

static step_operands take_operands(emitter *e, const attender *a) {
  step_operands o = {.keys = {{{NULL}}}};
  for (unsigned half = 0; half < a->halves; half++) {
    for (unsigned f = 0; f < 2; f++)
      for (unsigned i = 0; i < a->steps; i++) o.keys[half][f][i] = local(e, operand_type(e));
    for (unsigned i = 0; i < a->dims; i++) o.values[half][i] = local(e, operand_type(e));
  }
  return o;
}

/* The kv head's plane of keys in a page; values are value_offset behind it. */
static V open_page(emitter *e, const attender *a, V page) {
  return buffer_open(e, byte_offset(e, page, mul(e, a->kv_head, int64(e, a->head_dim * a->page * 2))));
}

static void load_keys(emitter *e, const attender *a, V plane, V key, const step_operands *o) {
  V row = a->column; /* of K, as lane % 16 is of the result */
  V number = add(e, mul(e, lshr(e, row, int64(e, 2)), int64(e, 8)), and_(e, row, int64(e, 3)));
  V at = add(e, mul(e, number, int64(e, a->head_dim * 2)), mul(e, a->lane_group, int64(e, VECTOR)));
  V first = to_i32(e, mul(e, key, int64(e, a->head_dim * 2)));
  for (unsigned half = 0; half < a->halves; half++)
    for (unsigned f = 0; f < 2; f++)
      for (unsigned i = 0; i < a->steps; i++) {
        const int64_t constant = (half * ATTEND_KEYS + f * 4) * a->head_dim * 2 + i * STEP * 2;
        set(e, o->keys[half][f][i], buffer_load(e, plane, to_i32(e, at), first, constant, a->reading));
      }
}

/* Halves of a line are read one behind the other. */
static void load_values(emitter *e, const attender *a, V plane, V key, const step_operands *o) {
  V at = add(e, mul(e, a->column, int64(e, a->page * 2)), mul(e, a->lane_group, int64(e, VECTOR)));
  V first = to_i32(e, add(e, mul(e, key, int64(e, 2)), int64(e, a->value_offset)));
  for (unsigned i = 0; i < a->dims; i++)
    for (unsigned half = 0; half < a->halves; half++) {
      const int64_t constant = i * 16 * a->page * 2 + half * ATTEND_KEYS * 2;
      set(e, o->values[half][i], buffer_load(e, plane, to_i32(e, at), first, constant, a->reading));
    }
}

/* Values that nobody wrote may be NaN, which no weight of zero makes good: those of keys beyond number `seen` (i64) of
 * the step become zero. */
static void clear_unseen(emitter *e, const attender *a, const step_operands *o, V seen) {
  branch partly = if_begin(e, icmp(e, LLVMIntSLT, seen, int64(e, a->halves * ATTEND_KEYS - 1)));
  V left = to_i32(e, sub(e, seen, mul(e, a->lane_group, int64(e, LANE_KEYS))));
  for (unsigned half = 0; half < a->halves; half++) {
    V mask = LLVMGetPoison(operand_type(e));
    for (int32_t i = 0; i < LANE_KEYS; i++) {
      V is_seen = icmp(e, LLVMIntSGE, left, int32(e, (int32_t)(half * ATTEND_KEYS) + i));
      mask = LLVMBuildInsertElement(e->builder, mask, LLVMBuildSExt(e->builder, is_seen, e->i16, ""), int32(e, i), "");
    }
    for (unsigned i = 0; i < a->dims; i++) {
      V slot = o->values[half][i];
      set(e, slot, and_(e, get(e, operand_type(e), slot), mask));
    }
  }
  if_end(e, &partly);
}

/* ---- a step ---- */

/* The scores of a lane's keys of one fragment of columns: element i of [half][part] is key 8 g + 4 part + i of the
 * half.
 */
typedef struct lane_scores {
  V of[MOST_HALVES][2];
} lane_scores;

static lane_scores score_keys(emitter *e, const attender *a, const attended_sums *s, unsigned f,
                              const step_operands *o) {
  lane_scores r = {.of = {{NULL}}};
  for (unsigned half = 0; half < a->halves; half++)
    for (unsigned part = 0; part < 2; part++) {
      r.of[half][part] = LLVMConstNull(result_type(e));
      for (unsigned i = 0; i < a->steps; i++)
        r.of[half][part] =
            mfma_16x16.multiply(e, get(e, operand_type(e), o->keys[half][part][i]), s->query[f][i], r.of[half][part]);
    }
  return r;
}

/* Keys beyond number `seen` (i32, of the lane) have no score. */
static void hide_unseen(emitter *e, const attender *a, V seen, lane_scores *r) {
  for (unsigned half = 0; half < a->halves; half++)
    for (unsigned i = 0; i < LANE_KEYS; i++) {
      V sees = icmp(e, LLVMIntSGE, seen, int32(e, (int32_t)(half * ATTEND_KEYS + i))), *of = &r->of[half][i / 4];
      V score = select_(e, sees, extract(e, *of, i % 4), float32(e, -INFINITY));
      *of = LLVMBuildInsertElement(e->builder, *of, score, int32(e, (int32_t)i % 4), "");
    }
}

/* Any number where a score is NaN: the output will be. To say so saves instructions that would quiet it. */
static V largest_of(emitter *e, const attender *a, const lane_scores *r) {
  V largest = NULL;
  for (unsigned i = 0; i < a->halves * LANE_KEYS; i++) {
    V score = extract(e, r->of[i / LANE_KEYS][i / 4 % 2], i % 4);
    if (largest) score = fmax_(e, largest, score);
    if (largest) LLVMSetFastMathFlags(score, LLVMFastMathNoNaNs);
    largest = score;
  }
  return LLVMBuildFreeze(e->builder, largest, "");
}

/* Moves the maximum of those columns on whose largest score is above their limit, and scales what was added up. */
static void move_maximum(emitter *e, const attender *a, const attended_sums *s, unsigned f, V largest) {
  V before = get(e, e->f32, s->maximum[f]), factor = float32(e, a->factor);
  V here = over_groups(e, largest, REDUCE_MAX);
  V grows = fcmp(e, LLVMRealOGT, here, get(e, e->f32, s->limit[f]));
  V now = select_(e, grows, here, before), base = fmul_(e, now, factor);
  V decay = e->atoms->exp2(e, fsub_(e, fmul_(e, before, factor), base));
  decay = select_(e, grows, decay, float32(e, 1));
  set(e, s->maximum[f], now);
  set(e, s->limit[f], fadd_(e, now, float32(e, (double)HEADROOM / a->factor)));
  set(e, s->base[f], select_(e, grows, base, get(e, e->f32, s->base[f])));
  set(e, s->sum[f], fmul_(e, get(e, pair_type(e), s->sum[f]), splat(e, decay, 2)));
  for (unsigned i = 0; i < a->dims; i++)
    set(e, s->out[f][i], fmul_(e, get(e, result_type(e), s->out[f][i]), splat(e, decay, 4)));
}

/* In one branch for all `count` fragments from `first` on, which is hardly ever taken: the maximum stays while scores
 * exceed it by less than 2^HEADROOM, which neither weights nor sums mind. */
static void move_maxima(emitter *e, const attender *a, const attended_sums *s, unsigned first, unsigned count,
                        const lane_scores r[]) {
  V any = NULL, largest[ATTEND_MOST_FRAGMENTS];
  for (unsigned i = 0; i < count; i++) {
    largest[i] = largest_of(e, a, &r[i]);
    V exceeds = fcmp(e, LLVMRealOGT, largest[i], get(e, e->f32, s->limit[first + i]));
    any = any ? or_(e, any, exceeds) : exceeds;
  }
  V mask = intrinsic(e, "llvm.amdgcn.ballot", &e->i64, 1, &any, 1);
  branch moves = if_begin(e, icmp(e, LLVMIntNE, mask, int64(e, 0)));
  for (unsigned i = 0; i < count; i++) move_maximum(e, a, s, first + i, largest[i]);
  if_end(e, &moves);
}

static V half_of(emitter *e, V four, int32_t first) {
  V pick[] = {int32(e, first), int32(e, first + 1)};
  return LLVMBuildShuffleVector(e->builder, four, LLVMGetPoison(LLVMTypeOf(four)), LLVMConstVector(pick, 2), "");
}

/* Adds the values of the keys, weighted by their scores. */
static void add_values(emitter *e, const attender *a, const attended_sums *s, unsigned f, const step_operands *o,
                       const lane_scores *r) {
  V factor = splat(e, float32(e, a->factor), 4);
  V base = splat(e, LLVMBuildFNeg(e->builder, get(e, e->f32, s->base[f]), ""), 4);
  for (unsigned half = 0; half < a->halves; half++) {
    V weight[2], sum = get(e, pair_type(e), s->sum[f]);
    for (unsigned part = 0; part < 2; part++) {
      weight[part] = e->atoms->exp2(e, fma_(e, r->of[half][part], factor, base));
      sum = fadd_(e, sum, fadd_(e, half_of(e, weight[part], 0), half_of(e, weight[part], 2)));
    }
    set(e, s->sum[f], sum);
    V weights = round_eight(e, weight[0], weight[1]);
    for (unsigned i = 0; i < a->dims; i++)
      set(e, s->out[f][i],
          mfma_16x16.multiply(e, get(e, operand_type(e), o->values[half][i]), weights,
                              get(e, result_type(e), s->out[f][i])));
  }
}

/* Where the wave's next keys are: loaded as soon as the registers are free. plane NULL: nowhere. */
typedef struct next_keys {
  V plane, key;
} next_keys;

/* All columns see all keys. */
static void attend_whole(emitter *e, const attender *a, const attended_sums *s, const step_operands *o,
                         const next_keys *next) {
  lane_scores r[ATTEND_MOST_FRAGMENTS];
  for (unsigned f = 0; f < s->tokens->fragments; f++) r[f] = score_keys(e, a, s, f, o);
  if (next->plane) load_keys(e, a, next->plane, next->key, o);
  move_maxima(e, a, s, 0, s->tokens->fragments, r);
  for (unsigned f = 0; f < s->tokens->fragments; f++) add_values(e, a, s, f, o, &r[f]);
  if (next->plane) load_values(e, a, next->plane, next->key, o);
}

/* Whether all lanes of a fragment are of one token. */
static bool is_of_one_token(const attender *a) {
  return a->group == ATTEND_COLUMNS;
}

/* i1: whether the lane's token wants the block; of a fragment of one token in a scalar register. */
static V wants_block(emitter *e, const attender *a, const attended_sums *s, unsigned f, V mask) {
  V bit = is_of_one_token(a) ? int32(e, (int32_t)(1u << f)) : s->bit[f];
  return icmp(e, LLVMIntNE, and_(e, mask, bit), int32(e, 0));
}

/* One fragment, whose lanes see the keys up to number `seen` (i32, of the lane's), or those of lanes that want them
 * (i1), all of them; the other one is NULL. Nothing is done where no lane sees any. */
static void attend_fragment(emitter *e, const attender *a, const attended_sums *s, unsigned f, const step_operands *o,
                            V seen, V wants) {
  V any = seen ? icmp(e, LLVMIntSGE, seen, int32(e, 0)) : wants;
  if (seen || !is_of_one_token(a))
    any = icmp(e, LLVMIntNE, intrinsic(e, "llvm.amdgcn.ballot", &e->i64, 1, &any, 1), int64(e, 0));
  branch wanted = if_begin(e, any);
  lane_scores r = score_keys(e, a, s, f, o);
  if (seen)
    hide_unseen(e, a, seen, &r);
  else if (!is_of_one_token(a))
    for (unsigned half = 0; half < a->halves; half++)
      for (unsigned part = 0; part < 2; part++)
        r.of[half][part] = select_(e, wants, r.of[half][part], splat(e, float32(e, -INFINITY), 4));
  move_maxima(e, a, s, f, 1, &r);
  add_values(e, a, s, f, o, &r);
  if_end(e, &wanted);
}

/* Some columns do not see all keys, or do not want the block. */
static void attend_partly(emitter *e, const attender *a, const attended_sums *s, const step_operands *o, V start,
                          V mask) {
  V last = add(e, s->tokens->position, sub(e, s->tokens->count, int64(e, 1)));
  clear_unseen(e, a, o, sub(e, last, start));
  V first = add(e, start, mul(e, a->lane_group, int64(e, LANE_KEYS)));
  for (unsigned f = 0; f < s->tokens->fragments; f++) {
    V seen = to_i32(e, imin(e, sub(e, s->position[f], first), int64(e, MOST_HALVES * ATTEND_KEYS)));
    if (mask) seen = select_(e, wants_block(e, a, s, f, mask), seen, int32(e, -1));
    attend_fragment(e, a, s, f, o, seen, NULL);
  }
}

void attend_keys(emitter *e, const attender *a, const attended_sums *s, V page, V block, V key, V mask) {
  const step_operands o = take_operands(e, a);
  V plane = open_page(e, a, page);
  load_keys(e, a, plane, key, &o);
  load_values(e, a, plane, key, &o);
  V start = add(e, mul(e, block, int64(e, a->page)), key);
  V end = add(e, start, int64(e, a->halves * ATTEND_KEYS - 1));
  V is_whole = icmp(e, LLVMIntSLE, end, s->tokens->position);
  if (s->tokens->fragments > 1 || mask) { /* edges only: pages that are whole go another way */
    attend_partly(e, a, s, &o, start, mask);
    return;
  }
  branch whole = if_begin(e, is_whole);
  attend_whole(e, a, s, &o, &(next_keys){NULL, NULL});
  if_else(e, &whole);
  attend_partly(e, a, s, &o, start, NULL);
  if_end(e, &whole);
}

/* A page whose first keys are in `o`, or on their way; then the first of page `following` are. `mask`: see attend_keys.
 */
static void attend_page(emitter *e, const attender *a, const attended_sums *s, const step_operands *o, V here,
                        V following, V mask) {
  const int64_t keys = a->halves * ATTEND_KEYS;
  loop key = loop_begin(e, int64(e, 0), int64(e, a->page), int64(e, keys));
  V after = add(e, key.index, int64(e, keys)), ends = icmp(e, LLVMIntEQ, after, int64(e, a->page));
  const next_keys next = {open_page(e, a, select_(e, ends, following, here)), select_(e, ends, int64(e, 0), after)};
  if (mask) {
    for (unsigned f = 0; f < s->tokens->fragments; f++)
      attend_fragment(e, a, s, f, o, NULL, wants_block(e, a, s, f, mask));
    load_keys(e, a, next.plane, next.key, o);
    load_values(e, a, next.plane, next.key, o);
  } else {
    attend_whole(e, a, s, o, &next);
  }
  loop_end(e, &key);
}

void attend_pages(emitter *e, const attender *a, const attended_sums *s, const page_list *list) {
  const step_operands o = take_operands(e, a);
  branch any = if_begin(e, icmp(e, LLVMIntSLT, a->wave, list->count));
  V page = local_set(e, e->pointer, list->find(e, a->wave, list->user));
  V first = open_page(e, a, get(e, e->pointer, page));
  load_keys(e, a, first, int64(e, 0), &o);
  load_values(e, a, first, int64(e, 0), &o);
  loop each = loop_begin(e, a->wave, list->count, int64(e, ATTEND_WAVES));
  V here = get(e, e->pointer, page), mask = list->mask ? list->mask(e, each.index, list->user) : NULL;
  V behind = add(e, each.index, int64(e, ATTEND_WAVES)); /* behind the last page it is the last one again */
  V following = list->find(e, select_(e, icmp(e, LLVMIntSLT, behind, list->count), behind, each.index), list->user);
  attend_page(e, a, s, &o, here, following, mask);
  set(e, page, following);
  loop_end(e, &each);
  if_end(e, &any);
}

/* ---- the waves' results ---- */

/* Fragments of dimensions that are merged at a time. */
static unsigned dims_at_once(const attender *a, unsigned fragments) {
  const unsigned most = MERGED / 4 / fragments;
  return a->dims < most ? a->dims : most;
}

attend_memory attend_take_memory(emitter *e, const attender *a, unsigned most_fragments) {
  uint64_t most = 0;
  for (unsigned f = 1; f <= most_fragments; f++) {
    const uint64_t outputs = (uint64_t)f * ATTEND_COLUMNS * (dims_at_once(a, f) * 16 + PADDING);
    if (outputs > most) most = outputs;
  }
  const uint64_t columns = (uint64_t)most_fragments * ATTEND_COLUMNS;
  return (attend_memory){.maxima = workgroup_take(e, ATTEND_WAVES * columns * sizeof(float)),
                         .totals = workgroup_take(e, ATTEND_WAVES * columns * sizeof(float)),
                         .outputs = workgroup_take(e, ATTEND_WAVES * most * sizeof(float))};
}

/* A column's weights for the waves' sums, the maximum they refer to (times the factor), and the total. */
typedef struct column_weights {
  V of_wave[ATTEND_WAVES], maximum, total;
} column_weights;

static column_weights weigh_waves(emitter *e, const attender *a, const attend_memory *m, V pair, int64_t columns) {
  column_weights w = {.total = float32(e, 0)};
  V maximum = NULL, factor = float32(e, a->factor);
  for (unsigned i = 0; i < ATTEND_WAVES; i++) {
    w.of_wave[i] = load_f32(e, SLUICE_F32, m->maxima, add(e, pair, int64(e, i * columns)), 1);
    maximum = i ? fmax_(e, maximum, w.of_wave[i]) : w.of_wave[i];
  }
  w.maximum = fmul_(e, maximum, factor);
  maximum = select_(e, fcmp(e, LLVMRealOEQ, maximum, float32(e, -INFINITY)), float32(e, 0), maximum);
  for (unsigned i = 0; i < ATTEND_WAVES; i++) {
    w.of_wave[i] = e->atoms->exp2(e, fmul_(e, fsub_(e, w.of_wave[i], maximum), factor));
    V part = load_f32(e, SLUICE_F32, m->totals, add(e, pair, int64(e, i * columns)), 1);
    w.total = fadd_(e, w.total, fmul_(e, part, w.of_wave[i]));
  }
  return w;
}

/* A wave's maxima and sums, then its outputs of the dimensions' fragments [from, from + dims). */
static void store_sums(emitter *e, const attender *a, const attended_sums *s, const attend_memory *m) {
  const int64_t columns = s->tokens->fragments * ATTEND_COLUMNS;
  for (unsigned f = 0; f < s->tokens->fragments; f++) {
    V at = add(e, add(e, mul(e, a->wave, int64(e, columns)), a->column), int64(e, f * ATTEND_COLUMNS));
    store_f32(e, SLUICE_F32, get(e, e->f32, s->maximum[f]), m->maxima, at); /* the same in all groups */
    V pair = get(e, pair_type(e), s->sum[f]), sum = fadd_(e, extract(e, pair, 0), extract(e, pair, 1));
    store_f32(e, SLUICE_F32, over_groups(e, sum, REDUCE_ADD), m->totals, at);
  }
}

static void store_outputs(emitter *e, const attender *a, const attended_sums *s, const attend_memory *m, unsigned from,
                          unsigned dims) {
  const int64_t columns = s->tokens->fragments * ATTEND_COLUMNS, row = dims * 16 + PADDING;
  for (unsigned f = 0; f < s->tokens->fragments; f++) {
    V pair = add(e, add(e, mul(e, a->wave, int64(e, columns)), a->column), int64(e, f * ATTEND_COLUMNS));
    V at = add(e, mul(e, pair, int64(e, row)), mul(e, a->lane_group, int64(e, 4)));
    for (unsigned i = 0; i < dims; i++)
      store(e, get(e, result_type(e), s->out[f][from + i]),
            element(e, e->f32, m->outputs, add(e, at, int64(e, i * 16))));
  }
}

/* Where the merged results go. */
typedef struct merge_target {
  V partial; /* or NULL */
  int64_t rows;
} merge_target;

/* The outputs of the dimensions' fragments [from, from + dims) of all pairs; lanes have four neighbours each. */
static void write_outputs(emitter *e, const attender *a, const attended_tokens *t, const attend_memory *m,
                          const merge_target *to, unsigned from, unsigned dims) {
  enum { AT_ONCE = 4 };
  const int64_t columns = t->fragments * ATTEND_COLUMNS, pieces = dims * 16 / AT_ONCE, stride = dims * 16 + PADDING;
  T four = LLVMVectorType(e->f32, AT_ONCE);
  loop each = lane_loop(e, int64(e, 0), int64(e, columns * pieces));
  V pair = udiv(e, each.index, int64(e, pieces)), token = udiv(e, pair, int64(e, a->group));
  V dim = mul(e, urem(e, each.index, int64(e, pieces)), int64(e, AT_ONCE));
  branch real = if_begin(e, icmp(e, LLVMIntSLT, token, t->count));
  const column_weights w = weigh_waves(e, a, m, pair, columns);
  V value = LLVMConstNull(four);
  for (unsigned i = 0; i < ATTEND_WAVES; i++) {
    V place = add(e, mul(e, add(e, pair, int64(e, i * columns)), int64(e, stride)), dim);
    V part = load(e, four, element(e, e->f32, m->outputs, place));
    value = fadd_(e, value, fmul_(e, part, splat(e, w.of_wave[i], AT_ONCE)));
  }
  dim = add(e, dim, int64(e, from * 16));
  if (to->partial) {
    store_f32(e, SLUICE_F32, value, to->partial, add(e, mul(e, pair, int64(e, a->head_dim)), dim));
    V at = add(e, pair, int64(e, to->rows * a->head_dim));
    branch first = if_begin(e, icmp(e, LLVMIntEQ, dim, int64(e, 0)));
    store_f32(e, SLUICE_F32, w.maximum, to->partial, at);
    store_f32(e, SLUICE_F32, w.total, to->partial, add(e, at, int64(e, to->rows)));
    if_end(e, &first);
  } else {
    /* A token without any block has no weights: its output is zero. */
    V none = fcmp(e, LLVMRealOEQ, w.total, float32(e, 0));
    V scale = select_(e, none, float32(e, 0), fdiv_(e, float32(e, 1), w.total));
    V row = row_of_pair(e, a, t, token, pair);
    store_f32(e, SLUICE_BF16, fmul_(e, value, splat(e, scale, AT_ONCE)), a->out,
              add(e, mul(e, row, int64(e, a->head_dim)), dim));
  }
  if_end(e, &real);
  loop_end(e, &each);
}

void attend_close(emitter *e, const attender *a, const attended_sums *s, const attend_memory *memory, V partial,
                  int64_t rows) {
  const merge_target to = {partial, rows};
  const unsigned at_once = dims_at_once(a, s->tokens->fragments);
  store_sums(e, a, s, memory);
  for (unsigned from = 0; from < a->dims; from += at_once) {
    const unsigned dims = a->dims - from < at_once ? a->dims - from : at_once;
    store_outputs(e, a, s, memory, from, dims);
    e->atoms->barrier(e);
    write_outputs(e, a, s->tokens, memory, &to, from, dims);
    e->atoms->barrier(e);
  }
}

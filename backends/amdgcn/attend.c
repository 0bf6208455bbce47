#include "backends/amdgcn/attend.h"
#include "backends/amdgcn/amdgcn.h"
#include "backends/amdgcn/mfma.h"

#include <math.h>

enum {
  STEP = 32,   /* depth of an instruction */
  VECTOR = 16, /* bytes */
  MOST_HALVES = 2,
  LANE_KEYS = 8,  /* of 32, whose scores a lane has */
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

static V extract(emitter *e, V vector, unsigned i) {
  return LLVMBuildExtractElement(e->builder, vector, int32(e, (int32_t)i), "");
}

/* The rounded pair's words of 8 f32, as an operand. */
static V round_eight(emitter *e, const V value[LANE_KEYS]) {
  T bf16 = LLVMVectorType(LLVMBFloatTypeInContext(e->context), LANE_KEYS);
  return bitcast(e, LLVMBuildFPTrunc(e->builder, vector_of(e, value, LANE_KEYS), bf16, ""), operand_type(e));
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
    s->sum[f] = local_set(e, e->f32, float32(e, 0));
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

/* Operands of a step: two fragments of keys for each half, and the dimensions' values. */
typedef struct step_operands {
  V keys[MOST_HALVES][2][ATTEND_MOST_STEPS];
  V values[MOST_HALVES][ATTEND_MOST_DIMS]; /* locals */
} step_operands;

/* Halves of a line are read one behind the other. */
static step_operands load_step(emitter *e, const attender *a, V page, V key) {
  step_operands o;
  V buffer = buffer_open(e, byte_offset(e, page, mul(e, a->kv_head, int64(e, a->head_dim * a->page * 2))));
  V row = a->column; /* of K, as lane % 16 is of the result */
  V number = add(e, mul(e, lshr(e, row, int64(e, 2)), int64(e, 8)), and_(e, row, int64(e, 3)));
  V at = add(e, mul(e, number, int64(e, a->head_dim * 2)), mul(e, a->lane_group, int64(e, 16)));
  V first = to_i32(e, mul(e, key, int64(e, a->head_dim * 2)));
  for (unsigned half = 0; half < a->halves; half++)
    for (unsigned f = 0; f < 2; f++)
      for (unsigned i = 0; i < a->steps; i++)
        o.keys[half][f][i] = buffer_load(e, buffer, to_i32(e, at), first,
                                         (half * ATTEND_KEYS + f * 4) * a->head_dim * 2 + i * STEP * 2, a->reading);
  at = add(e, mul(e, a->column, int64(e, a->page * 2)), mul(e, a->lane_group, int64(e, 16)));
  first = to_i32(e, add(e, mul(e, key, int64(e, 2)), int64(e, a->value_offset)));
  for (unsigned i = 0; i < a->dims; i++)
    for (unsigned half = 0; half < a->halves; half++)
      o.values[half][i] = local_set(
          e, operand_type(e),
          buffer_load(e, buffer, to_i32(e, at), first, i * 16 * a->page * 2 + half * ATTEND_KEYS * 2, a->reading));
  return o;
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

/* Weights of a lane's keys from their scores, which they replace; updates maximum and sum, and scales what was added up
 * so far where the maximum has grown. */
static void weigh(emitter *e, const attender *a, const attended_sums *s, unsigned f, V *score, unsigned count) {
  V largest = score[0];
  for (unsigned i = 1; i < count; i++) largest = fmax_(e, largest, score[i]);
  V before = get(e, e->f32, s->maximum[f]);
  V now = fmax_(e, before, over_groups(e, largest, REDUCE_MAX));
  set(e, s->maximum[f], now);
  V factor = float32(e, a->factor);
  /* A column that has seen no key yet has no maximum: any number will do. */
  V base = fmul_(e, select_(e, fcmp(e, LLVMRealOEQ, now, float32(e, -INFINITY)), float32(e, 0), now), factor);
  V sum = NULL;
  for (unsigned i = 0; i < count; i++) {
    score[i] = e->atoms->exp2(e, fsub_(e, fmul_(e, score[i], factor), base));
    sum = sum ? fadd_(e, sum, score[i]) : score[i];
  }
  V decay = e->atoms->exp2(e, fsub_(e, fmul_(e, before, factor), base));
  set(e, s->sum[f], fadd_(e, fmul_(e, get(e, e->f32, s->sum[f]), decay), sum));
  for (unsigned i = 0; i < a->dims; i++)
    set(e, s->out[f][i], fmul_(e, get(e, result_type(e), s->out[f][i]), splat(e, decay, 4)));
}

/* Of fragment f, the scores of a lane's keys: of the half, 8 g + i. */
static void score_keys(emitter *e, const attender *a, const attended_sums *s, unsigned f, const step_operands *o,
                       V seen, V *score) {
  for (unsigned half = 0; half < a->halves; half++) {
    V result[2] = {LLVMConstNull(result_type(e)), LLVMConstNull(result_type(e))};
    for (unsigned i = 0; i < a->steps; i++)
      for (unsigned part = 0; part < 2; part++)
        result[part] = mfma_16x16.multiply(e, o->keys[half][part][i], s->query[f][i], result[part]);
    for (unsigned i = 0; i < LANE_KEYS; i++) {
      V sees = icmp(e, LLVMIntSGE, seen, int32(e, (int32_t)(half * ATTEND_KEYS + i)));
      score[half * LANE_KEYS + i] = select_(e, sees, extract(e, result[i / 4], i % 4), float32(e, -INFINITY));
    }
  }
}

void attend_keys(emitter *e, const attender *a, const attended_sums *s, V page, V block, V key, V mask) {
  const step_operands o = load_step(e, a, page, key);
  V start = add(e, mul(e, block, int64(e, a->page)), key);
  V last = add(e, s->tokens->position, sub(e, s->tokens->count, int64(e, 1)));
  clear_unseen(e, a, &o, sub(e, last, start));
  V first = add(e, start, mul(e, a->lane_group, int64(e, LANE_KEYS)));
  for (unsigned f = 0; f < s->tokens->fragments; f++) {
    V seen = to_i32(e, imin(e, sub(e, s->position[f], first), int64(e, MOST_HALVES * ATTEND_KEYS)));
    if (mask) seen = select_(e, icmp(e, LLVMIntNE, and_(e, mask, s->bit[f]), int32(e, 0)), seen, int32(e, -1));
    V score[MOST_HALVES * LANE_KEYS] = {NULL};
    score_keys(e, a, s, f, &o, seen, score);
    weigh(e, a, s, f, score, a->halves * LANE_KEYS);
    for (unsigned half = 0; half < a->halves; half++) {
      V weights = round_eight(e, &score[half * LANE_KEYS]);
      for (unsigned i = 0; i < a->dims; i++)
        set(e, s->out[f][i],
            mfma_16x16.multiply(e, get(e, operand_type(e), o.values[half][i]), weights,
                                get(e, result_type(e), s->out[f][i])));
    }
  }
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
    store_f32(e, SLUICE_F32, over_groups(e, get(e, e->f32, s->sum[f]), REDUCE_ADD), m->totals, at);
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

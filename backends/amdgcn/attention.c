/* Attention in bf16 with matrix instructions: the families attention (all keys) and block_attention (lists of blocks).
 *
 * A workgroup has a query tile, at most TILE_TOKENS tokens at a time, and one kv head. Its waves share the pages: each
 * attends every fourth of them with a running maximum of its own, and in the end their results are merged in LDS, in
 * the order of the waves. Keys and values go from memory straight to registers, each by one wave, so nothing is read
 * twice and nothing waits for a barrier until the end.
 *
 *   scores^T = K Q^T    rows: 32 keys in two fragments, columns: 16 pairs of a token and a head
 *   out^T   += V^T P^T  rows: dimensions, depth: the same 32 keys
 *
 * The result of the first product is the second operand of the second one, in the same lanes: a lane of group g = lane
 * / 16 holds rows 4 g .. 4 g + 3 of each of the two fragments, and as an operand wants depths 8 g .. 8 g + 7. So row r
 * of fragment f is made to be key 8 (r / 4) + 4 f + r % 4 of the 32:
 *
 *     fragment 0, group 1: rows 4 5 6 7  = keys  8  9 10 11
 *     fragment 1, group 1: rows 4 5 6 7  = keys 12 13 14 15     together keys 8 .. 15, depths 8 .. 15
 *
 * Only the order in which rows of K are read depends on it. Values lie transposed in the page, so that 8 keys of a
 * dimension are one read of 16 bytes.
 */
#include "backends/common/attention.h"
#include "backends/amdgcn/amdgcn.h"
#include "backends/amdgcn/buffer.h"
#include "backends/amdgcn/mfma.h"

#include <math.h>

enum {
  WAVES = 4,
  TILE_TOKENS = 4, /* that a workgroup attends at a time */
  COLUMNS = 16,    /* of a fragment: pairs of a token and a head */
  MOST_FRAGMENTS = 4,
  KEYS = 32, /* of a step */
  STEP = 32, /* depth of an instruction */
  MOST_STEPS = 4,
  MOST_DIMS = 8, /* fragments of dimensions */
  MOST_BLOCKS = 64,
  DIMS_AT_ONCE = 2, /* fragments of dimensions that are merged together: 32 KB for 64 columns */
};

typedef struct attender {
  int64_t heads, kv_heads, group, head_dim, page, page_bytes, value_offset;
  int64_t k;            /* blocks of a list; 0: all keys */
  double factor;        /* of scores, so that weights are powers of two */
  unsigned steps, dims; /* head_dim / STEP, head_dim / 16 */
  V lane, wave;         /* i64 */
  V column, lane_group; /* of the lane: its column of a fragment, and lane / 16 */
  query_tile tile;
  V q, cache, out, blocks;
  V list, masks, list_length; /* workgroup memory: the union of the tokens' lists, and who wants each; i32 */
} attender;

/* What a wave has of `fragments` columns of 16; locals. */
typedef struct sums {
  unsigned fragments;
  V query[MOST_FRAGMENTS][MOST_STEPS]; /* values: operands */
  V position[MOST_FRAGMENTS];          /* i64: of the lane's token; -1 where there is none */
  V bit[MOST_FRAGMENTS];               /* i32: of the lane's token in masks */
  V maximum[MOST_FRAGMENTS], sum[MOST_FRAGMENTS];
  V out[MOST_FRAGMENTS][MOST_DIMS];
} sums;

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
static V round_eight(emitter *e, const V value[8]) {
  T bf16 = LLVMVectorType(LLVMBFloatTypeInContext(e->context), 8);
  return bitcast(e, LLVMBuildFPTrunc(e->builder, vector_of(e, value, 8), bf16, ""), operand_type(e));
}

/* The first of `count` tokens is `first` of the tile. */
static void open_sums(emitter *e, const attender *a, V first, V count, sums *s) {
  for (unsigned f = 0; f < s->fragments; f++) {
    V pair = add(e, a->column, int64(e, f * COLUMNS));
    V token = udiv(e, pair, int64(e, a->group)), head = urem(e, pair, int64(e, a->group));
    V real = icmp(e, LLVMIntSLT, token, count);
    V inside = imin(e, token, sub(e, count, int64(e, 1)));
    V row = mul(e, add(e, add(e, a->tile.first, first), inside), int64(e, a->heads));
    row = add(e, row, add(e, mul(e, e->y, int64(e, a->group)), head));
    V at = add(e, mul(e, row, int64(e, a->head_dim)), mul(e, a->lane_group, int64(e, 8)));
    for (unsigned i = 0; i < a->steps; i++)
      s->query[f][i] = load(e, operand_type(e), element_of(e, SLUICE_BF16, a->q, add(e, at, int64(e, i * STEP))));
    V position = add(e, add(e, a->tile.position, first), token);
    s->position[f] = select_(e, real, position, int64(e, -1));
    s->bit[f] = shl(e, int32(e, 1), to_i32(e, inside));
    s->maximum[f] = local_set(e, e->f32, float32(e, -INFINITY));
    s->sum[f] = local_set(e, e->f32, float32(e, 0));
    for (unsigned i = 0; i < a->dims; i++) s->out[f][i] = local_set(e, result_type(e), LLVMConstNull(result_type(e)));
  }
}

/* The largest of all lanes with the same column. */
static V over_groups(emitter *e, V value, reduction operation) {
  for (unsigned distance = COLUMNS; distance < AMDGCN_WAVE; distance *= 2) {
    V other = e->atoms->exchange(e, value, distance);
    value = operation == REDUCE_MAX ? fmax_(e, value, other) : fadd_(e, value, other);
  }
  return value;
}

/* Weights of 8 keys of a lane's column from their scores; updates maximum and sum, and scales what was added up so far
 * where the maximum has grown. */
static V weigh(emitter *e, const attender *a, const sums *s, unsigned f, const V score[8]) {
  V largest = score[0];
  for (unsigned i = 1; i < 8; i++) largest = fmax_(e, largest, score[i]);
  V before = get(e, e->f32, s->maximum[f]);
  V now = fmax_(e, before, over_groups(e, largest, REDUCE_MAX));
  set(e, s->maximum[f], now);
  V factor = float32(e, a->factor);
  /* A column that has seen no key yet has no maximum: any number will do. */
  V base = fmul_(e, select_(e, fcmp(e, LLVMRealOEQ, now, float32(e, -INFINITY)), float32(e, 0), now), factor);
  V weight[8], sum = NULL;
  for (unsigned i = 0; i < 8; i++) {
    weight[i] = e->atoms->exp2(e, fsub_(e, fmul_(e, score[i], factor), base));
    sum = sum ? fadd_(e, sum, weight[i]) : weight[i];
  }
  V decay = e->atoms->exp2(e, fsub_(e, fmul_(e, before, factor), base));
  set(e, s->sum[f], fadd_(e, fmul_(e, get(e, e->f32, s->sum[f]), decay), sum));
  for (unsigned i = 0; i < a->dims; i++)
    set(e, s->out[f][i], fmul_(e, get(e, result_type(e), s->out[f][i]), splat(e, decay, 4)));
  return round_eight(e, weight);
}

/* Operands of a step: two fragments of keys, and the dimensions' values. */
typedef struct step_operands {
  V keys[2][MOST_STEPS], values[MOST_DIMS];
} step_operands;

static step_operands load_step(emitter *e, const attender *a, V page, V key) {
  step_operands o;
  V plane = mul(e, e->y, int64(e, a->head_dim * a->page * 2));
  V buffer = buffer_open(e, byte_offset(e, page, plane));
  V row = a->column; /* of K, as lane % 16 is of the result */
  V number = add(e, mul(e, lshr(e, row, int64(e, 2)), int64(e, 8)), and_(e, row, int64(e, 3)));
  V at = add(e, mul(e, number, int64(e, a->head_dim * 2)), mul(e, a->lane_group, int64(e, 16)));
  V first = to_i32(e, mul(e, key, int64(e, a->head_dim * 2)));
  for (unsigned f = 0; f < 2; f++)
    for (unsigned i = 0; i < a->steps; i++)
      o.keys[f][i] = buffer_load(e, buffer, to_i32(e, at), first, f * 4 * a->head_dim * 2 + i * STEP * 2, BUFFER_READ);
  at = add(e, mul(e, a->column, int64(e, a->page * 2)), mul(e, a->lane_group, int64(e, 16)));
  first = to_i32(e, add(e, mul(e, key, int64(e, 2)), int64(e, a->value_offset)));
  for (unsigned i = 0; i < a->dims; i++)
    o.values[i] = buffer_load(e, buffer, to_i32(e, at), first, i * 16 * a->page * 2, BUFFER_READ);
  return o;
}

/* KEYS keys from number `key` of page `block` on, for the fragments whose mask has their bit (NULL: all). */
static void attend_step(emitter *e, const attender *a, const sums *s, const step_operands *o, V block, V key, V mask) {
  V first = add(e, add(e, mul(e, block, int64(e, a->page)), key), mul(e, a->lane_group, int64(e, 8)));
  for (unsigned f = 0; f < s->fragments; f++) {
    V result[2] = {LLVMConstNull(result_type(e)), LLVMConstNull(result_type(e))};
    for (unsigned i = 0; i < a->steps; i++)
      for (unsigned part = 0; part < 2; part++)
        result[part] = mfma_16x16.multiply(e, o->keys[part][i], s->query[f][i], result[part]);
    V seen = to_i32(e, imin(e, sub(e, s->position[f], first), int64(e, KEYS)));
    if (mask) seen = select_(e, icmp(e, LLVMIntNE, and_(e, mask, s->bit[f]), int32(e, 0)), seen, int32(e, -1));
    V score[8];
    for (unsigned i = 0; i < 8; i++)
      score[i] = select_(e, icmp(e, LLVMIntSGE, seen, int32(e, (int32_t)i)), extract(e, result[i / 4], i % 4),
                         float32(e, -INFINITY));
    V weights = weigh(e, a, s, f, score);
    for (unsigned i = 0; i < a->dims; i++)
      set(e, s->out[f][i], mfma_16x16.multiply(e, o->values[i], weights, get(e, result_type(e), s->out[f][i])));
  }
}

static void attend_block(emitter *e, const attender *a, const sums *s, V block, V mask, V last_position) {
  V page = cache_page(e, &a->tile, a->cache, block, a->page_bytes);
  V keys = imin(e, sub(e, add(e, last_position, int64(e, 1)), mul(e, block, int64(e, a->page))), int64(e, a->page));
  loop key = loop_begin(e, int64(e, 0), keys, int64(e, KEYS));
  step_operands o = load_step(e, a, page, key.index);
  attend_step(e, a, s, &o, block, key.index, mask);
  loop_end(e, &key);
}

/* ---- the waves' results ---- */

/* A column's weights for the waves' sums, and one over its total. */
typedef struct column_weights {
  V of_wave[WAVES], scale;
} column_weights;

static column_weights weigh_waves(emitter *e, const attender *a, V maxima, V totals, V pair, int64_t columns) {
  column_weights w;
  V maximum = NULL, total = float32(e, 0);
  for (unsigned i = 0; i < WAVES; i++) {
    w.of_wave[i] = load_f32(e, SLUICE_F32, maxima, add(e, pair, int64(e, i * columns)), 1);
    maximum = i ? fmax_(e, maximum, w.of_wave[i]) : w.of_wave[i];
  }
  maximum = select_(e, fcmp(e, LLVMRealOEQ, maximum, float32(e, -INFINITY)), float32(e, 0), maximum);
  for (unsigned i = 0; i < WAVES; i++) {
    w.of_wave[i] = e->atoms->exp2(e, fmul_(e, fsub_(e, w.of_wave[i], maximum), float32(e, a->factor)));
    V part = load_f32(e, SLUICE_F32, totals, add(e, pair, int64(e, i * columns)), 1);
    total = fadd_(e, total, fmul_(e, part, w.of_wave[i]));
  }
  /* A token without any block has no weights: its output is zero. */
  V none = fcmp(e, LLVMRealOEQ, total, float32(e, 0));
  w.scale = select_(e, none, float32(e, 0), fdiv_(e, float32(e, 1), total));
  return w;
}

/* Dimensions [16 first, 16 (first + count)): from all waves' outputs, f32[wave][dimension][column], to the tokens'. */
static void write_dims(emitter *e, const attender *a, V first_token, V count, const V memory[3], unsigned first,
                       unsigned dims, int64_t columns) {
  enum { AT_ONCE = 4 };
  loop each = lane_loop(e, int64(e, 0), int64(e, columns * dims * 16 / AT_ONCE));
  V pair = urem(e, each.index, int64(e, columns));
  V dim = mul(e, udiv(e, each.index, int64(e, columns)), int64(e, AT_ONCE)), value[AT_ONCE];
  V token = udiv(e, pair, int64(e, a->group)), head = urem(e, pair, int64(e, a->group));
  branch real = if_begin(e, icmp(e, LLVMIntSLT, token, count));
  column_weights w = weigh_waves(e, a, memory[0], memory[1], pair, columns);
  for (unsigned j = 0; j < AT_ONCE; j++) {
    value[j] = float32(e, 0);
    for (unsigned i = 0; i < WAVES; i++) {
      V place = mul(e, add(e, dim, int64(e, i * dims * 16 + j)), int64(e, columns));
      V part = load_f32(e, SLUICE_F32, memory[2], add(e, place, pair), 1);
      value[j] = fadd_(e, value[j], fmul_(e, part, w.of_wave[i]));
    }
    value[j] = fmul_(e, value[j], w.scale);
  }
  V row = mul(e, add(e, add(e, a->tile.first, first_token), token), int64(e, a->heads));
  row = add(e, row, add(e, mul(e, e->y, int64(e, a->group)), head));
  V at = add(e, mul(e, row, int64(e, a->head_dim)), add(e, dim, int64(e, first * 16)));
  store_f32(e, SLUICE_BF16, vector_of(e, value, AT_ONCE), a->out, at);
  if_end(e, &real);
  loop_end(e, &each);
}

/* Merges the waves' sums in LDS, some dimensions at a time: maxima and totals are f32[wave][column]. */
static void close_sums(emitter *e, const attender *a, const sums *s, V first, V count, const V memory[3]) {
  const int64_t columns = s->fragments * COLUMNS;
  V mine = mul(e, a->wave, int64(e, columns));
  for (unsigned f = 0; f < s->fragments; f++) {
    V at = add(e, add(e, mine, a->column), int64(e, f * COLUMNS));
    store_f32(e, SLUICE_F32, get(e, e->f32, s->maximum[f]), memory[0], at); /* the same in all groups */
    store_f32(e, SLUICE_F32, over_groups(e, get(e, e->f32, s->sum[f]), REDUCE_ADD), memory[1], at);
  }
  for (unsigned from = 0; from < a->dims; from += DIMS_AT_ONCE) {
    const unsigned dims = a->dims - from < DIMS_AT_ONCE ? a->dims - from : DIMS_AT_ONCE;
    for (unsigned f = 0; f < s->fragments; f++)
      for (unsigned i = 0; i < dims; i++)
        for (unsigned j = 0; j < 4; j++) {
          V dim = add(e, mul(e, a->lane_group, int64(e, 4)), int64(e, i * 16 + j));
          V place = mul(e, add(e, mul(e, a->wave, int64(e, dims * 16)), dim), int64(e, columns));
          place = add(e, place, add(e, a->column, int64(e, f * COLUMNS)));
          store_f32(e, SLUICE_F32, extract(e, get(e, result_type(e), s->out[f][from + i]), j), memory[2], place);
        }
    e->atoms->barrier(e);
    write_dims(e, a, first, count, memory, from, dims, columns);
    e->atoms->barrier(e);
  }
}

/* ---- lists ---- */

/* The union of the tokens' lists, ascending, with a bit for each token that wants a block. One lane has one entry; it
 * counts the smaller ones that are the first of their number. */
static void unite_lists(emitter *e, const attender *a, V first, V count, V entries) {
  V all = mul(e, count, int64(e, a->k)), lane = e->atoms->lane(e);
  loop clear = lane_loop(e, int64(e, 0), all);
  V token = udiv(e, clear.index, int64(e, a->k)), slot = urem(e, clear.index, int64(e, a->k));
  V list = add(e, mul(e, add(e, add(e, a->tile.first, first), token), int64(e, a->kv_heads)), e->y);
  V id = load_i32(e, a->blocks, add(e, mul(e, list, int64(e, a->k)), slot));
  store_i32(e, select_(e, icmp(e, LLVMIntSLT, id, int64(e, 0)), int64(e, INT32_MAX), id), entries, clear.index);
  store_i32(e, int64(e, 0), a->masks, clear.index);
  loop_end(e, &clear);
  branch one = if_begin(e, icmp(e, LLVMIntEQ, lane, int64(e, 0)));
  store_i32(e, int64(e, 0), a->list_length, int64(e, 0));
  if_end(e, &one);
  e->atoms->barrier(e);
  loop each = lane_loop(e, int64(e, 0), all);
  V mine = load_i32(e, entries, each.index), place = local_set(e, e->i64, int64(e, 0));
  V is_first = local_set(e, e->i1, LLVMConstInt(e->i1, 1, 0));
  loop other = loop_begin(e, int64(e, 0), all, int64(e, 1));
  V theirs = load_i32(e, entries, other.index);
  /* Lists are ascending: an entry is the first of its number if no list before its own has it. */
  V before = icmp(e, LLVMIntSLT, other.index, each.index);
  set(e, is_first,
      and_(e, get(e, e->i1, is_first),
           LLVMBuildNot(e->builder, and_(e, before, icmp(e, LLVMIntEQ, theirs, mine)), "")));
  V leads = local_set(e, e->i1, LLVMConstInt(e->i1, 1, 0));
  loop earlier = loop_begin(e, int64(e, 0), other.index, int64(e, 1));
  set(e, leads, and_(e, get(e, e->i1, leads), icmp(e, LLVMIntNE, load_i32(e, entries, earlier.index), theirs)));
  loop_end(e, &earlier);
  V counts = and_(e, get(e, e->i1, leads), icmp(e, LLVMIntSLT, theirs, mine));
  set(e, place, add(e, get(e, e->i64, place), LLVMBuildZExt(e->builder, counts, e->i64, "")));
  loop_end(e, &other);
  branch real = if_begin(e, icmp(e, LLVMIntNE, mine, int64(e, INT32_MAX)));
  V at = get(e, e->i64, place), bit = shl(e, int32(e, 1), to_i32(e, udiv(e, each.index, int64(e, a->k))));
  LLVMBuildAtomicRMW(e->builder, LLVMAtomicRMWBinOpOr, element(e, e->i32, a->masks, at), bit,
                     LLVMAtomicOrderingMonotonic, 0);
  branch leader = if_begin(e, get(e, e->i1, is_first));
  store_i32(e, mine, a->list, at);
  LLVMBuildAtomicRMW(e->builder, LLVMAtomicRMWBinOpAdd, a->list_length, int32(e, 1), LLVMAtomicOrderingMonotonic, 0);
  if_end(e, &leader);
  if_end(e, &real);
  loop_end(e, &each);
  e->atoms->barrier(e);
}

/* ---- families ---- */

/* False when the common kernel has to do. */
static bool read_shape(emitter *e, bool lists, attender *a) {
  a->heads = attribute(e, "heads");
  a->kv_heads = attribute(e, "kv_heads");
  a->head_dim = attribute(e, "head_dim");
  a->page = attribute(e, "page");
  a->page_bytes = attribute(e, "page_bytes");
  a->value_offset = attribute(e, "value_offset");
  a->factor = attribute_float(e, "scale") * LOG2_E;
  a->k = lists ? attribute(e, "k") : 0;
  if (e->status) return false;
  if (attribute_dtype(e, "dtype") != SLUICE_BF16) return decline(e, "elements are f32, expected bf16");
  if (!attribute_is(e, "transposed", "values")) return decline(e, "pages hold keys transposed, expected values");
  if (a->head_dim % STEP || a->head_dim > STEP * MOST_STEPS)
    return decline(e, "heads have %lld dimensions, expected a multiple of %d, at most %d", (long long)a->head_dim, STEP,
                   STEP * MOST_STEPS);
  if (a->page % KEYS) return decline(e, "pages have %lld tokens, expected a multiple of %d", (long long)a->page, KEYS);
  a->group = a->heads / a->kv_heads;
  if (a->group > COLUMNS || COLUMNS % a->group)
    return decline(e, "%lld heads share a kv head, expected 1, 2, 4, 8 or 16", (long long)a->group);
  if (a->k * TILE_TOKENS > MOST_BLOCKS)
    return decline(e, "lists have %lld blocks, expected at most %d", (long long)a->k, MOST_BLOCKS / TILE_TOKENS);
  a->steps = (unsigned)(a->head_dim / STEP);
  a->dims = (unsigned)(a->head_dim / 16);
  return true;
}

/* Tokens [first, first + count) of the tile, count <= tokens. */
static void attend_tokens(emitter *e, const attender *a, V first, V count, int64_t tokens, V memory[4]) {
  sums s = {.fragments = (unsigned)((tokens * a->group + COLUMNS - 1) / COLUMNS)};
  open_sums(e, a, first, count, &s);
  V last = add(e, add(e, a->tile.position, first), sub(e, count, int64(e, 1)));
  if (a->k) {
    unite_lists(e, a, first, count, memory[3]);
    loop each = loop_begin(e, a->wave, load_i32(e, a->list_length, int64(e, 0)), int64(e, WAVES));
    V block = load_i32(e, a->list, each.index);
    attend_block(e, a, &s, block, to_i32(e, load_i32(e, a->masks, each.index)), last);
    loop_end(e, &each);
  } else {
    loop each = loop_begin(e, a->wave, add(e, udiv(e, last, int64(e, a->page)), int64(e, 1)), int64(e, WAVES));
    attend_block(e, a, &s, each.index, NULL, last);
    loop_end(e, &each);
  }
  close_sums(e, a, &s, first, count, memory);
}

/* Operands: q, [blocks,] tiles, page_table, cache, out. */
static bool emit_attention(emitter *e, const kernel_spec *spec, bool lists) {
  attender a = {0};
  if (!read_shape(e, lists, &a)) return false;
  kernel_shape shape = each_of(SLUICE_SIZE_TILES, a.kv_heads, 1);
  shape.lanes = WAVES * AMDGCN_WAVE;
  kernel_begin(e, spec, shape);
  V *argument = e->argument + (lists ? 1 : 0);
  a.q = e->argument[0];
  a.blocks = lists ? e->argument[1] : NULL;
  a.tile = query_tile_load(e, argument[1], argument[2]);
  a.cache = argument[3];
  a.out = argument[4];
  a.lane = and_(e, e->atoms->lane(e), int64(e, AMDGCN_WAVE - 1));
  a.wave = amdgcn_wave(e);
  a.column = fragment_lane_part(e, &mfma_16x16.c, FRAGMENT_COLUMN, a.lane);
  a.lane_group = lshr(e, a.lane, int64(e, 4));
  const uint64_t columns = (uint64_t)(TILE_TOKENS * a.group + COLUMNS - 1) / COLUMNS * COLUMNS;
  V memory[4] = {workgroup_take(e, WAVES * columns * sizeof(float)), workgroup_take(e, WAVES * columns * sizeof(float)),
                 workgroup_take(e, WAVES * columns * DIMS_AT_ONCE * 16 * sizeof(float)), NULL};
  if (lists) {
    memory[3] = workgroup_take(e, MOST_BLOCKS * sizeof(int32_t));
    a.list = workgroup_take(e, MOST_BLOCKS * sizeof(int32_t));
    a.masks = workgroup_take(e, MOST_BLOCKS * sizeof(int32_t));
    a.list_length = workgroup_take(e, sizeof(int32_t));
  }
  branch single = if_begin(e, icmp(e, LLVMIntEQ, a.tile.count, int64(e, 1)));
  attend_tokens(e, &a, int64(e, 0), int64(e, 1), 1, memory);
  if_else(e, &single);
  loop each = loop_begin(e, int64(e, 0), a.tile.count, int64(e, TILE_TOKENS));
  V count = imin(e, sub(e, a.tile.count, each.index), int64(e, TILE_TOKENS));
  attend_tokens(e, &a, each.index, count, TILE_TOKENS, memory);
  loop_end(e, &each);
  if_end(e, &single);
  kernel_end(e);
  return true;
}

bool amdgcn_attention(emitter *e, const kernel_spec *spec) {
  return emit_attention(e, spec, false);
}

bool amdgcn_block_attention(emitter *e, const kernel_spec *spec) {
  return emit_attention(e, spec, true);
}

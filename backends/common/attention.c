/* Softmax attention over the paged cache (m3.md 2.9): families attention (all keys), block_attention (a list of blocks
 * for each token) and select_attention (index_select, then block_attention).
 *
 * A workgroup is a query tile and a kv head. Its rows are the query heads of that group for the tokens of the tile,
 * token after token: row = token * group + head in group. Rows are taken in chunks of whole tokens that keep queries,
 * scores and outputs in the nearest caches. A chunk goes over pages of keys; on each page
 *
 *     S = Q K, masked
 *     P = exp2(S - m)                      m: the largest score so far
 *     O = O * exp2(old m - m) + P V
 *     l = l * exp2(old m - m) + sum of P
 *
 * and at the end O / l is rounded once (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"; tiled
 * over keys by Dao et al. 2022, "FlashAttention"). scale * log2(e) is part of Q, so that exp2 serves as exp; where the
 * target multiplies pairs of bf16, Q stays as it is, S is scaled, and P is rounded to bf16 for its product.
 *
 * Lists of blocks go the same way: the lists of a chunk's tokens are walked together in ascending order, and
 * neighbouring tokens that chose the same block are taken in one product.
 *
 * Keys beyond the sequence may be NaN. Scores of keys that a row does not see are overwritten with -inf; values are
 * read only up to the last key that some row sees, and those have all been written.
 */
#include "backends/common/attention.h"
#include "backends/common/families.h"

#include <math.h>

/* Rows of a chunk: enough for full register blocks, few enough that queries, scores and outputs stay close. Where a
 * workgroup has no room for so many, whole tokens fewer. */
enum { CHUNK_ROWS = 48 };

typedef struct attention_sizes {
  int64_t heads, kv_heads, group, head_dim;
  int64_t page, page_bytes, value_offset;
  int64_t query_tile;
  int64_t chunk_tokens; /* tokens of a chunk */
  int64_t k;            /* length of a list of blocks, 0 without lists */
  double query_scale;   /* scale * log2(e), where queries are scaled; */
  double score_scale;   /* or here, where they must stay as they are: the other is 1 */
  sluice_dtype dtype;
  bool pairs;           /* products go over pairs of bf16 */
  bool transposed_keys; /* [dim][page], and values [page][dim]; or keys [page][dim] and values [dim][page] */
} attention_sizes;

/* Workgroup memory of a chunk, in parts. */
typedef enum chunk_part {
  QUERIES, /* f32 [rows][head_dim] */
  SCORES,  /* f32 [rows][padded page] */
  OUTPUTS, /* f32 [rows][padded head_dim] */
  MAXIMA,  /* f32 [rows] */
  SUMS,    /* f32 [rows] */
  CURSORS, /* i32 [lanes][tokens]: each lane's place in the token's list of blocks */
  /* where products go over pairs of bf16: the page's keys and values in pairs, and rows rounded to bf16 */
  KEY_PANEL,
  VALUE_PANEL,
  ROUNDED,
  CHUNK_PARTS
} chunk_part;

typedef struct chunk_memory {
  V queries, scores, outputs, maxima, sums;
  V cursors;                         /* of this lane */
  V key_panel, value_panel, rounded; /* NULL without pairs */
} chunk_memory;

static void chunk_sizes(const emitter *e, const attention_sizes *s, uint64_t bytes[CHUNK_PARTS]) {
  const uint64_t rows = (uint64_t)(s->chunk_tokens * s->group), dim = (uint64_t)s->head_dim;
  const uint64_t panel = s->pairs ? (uint64_t)s->page * dim * 2 : 0;
  const uint64_t widest = (uint64_t)padded_row(s->page > s->head_dim ? s->page : s->head_dim);
  bytes[QUERIES] = rows * dim * sizeof(float);
  bytes[SCORES] = rows * (uint64_t)padded_row(s->page) * sizeof(float);
  bytes[OUTPUTS] = rows * (uint64_t)padded_row(s->head_dim) * sizeof(float);
  bytes[MAXIMA] = bytes[SUMS] = rows * sizeof(float);
  bytes[CURSORS] = (uint64_t)s->chunk_tokens * sizeof(int32_t) * e->facts->lanes;
  bytes[KEY_PANEL] = bytes[VALUE_PANEL] = panel;
  bytes[ROUNDED] = s->pairs ? rows * widest * 2 : 0;
}

/* Whether a workgroup of the target has room for a chunk. */
static bool chunk_fits(const emitter *e, const attention_sizes *s) {
  uint64_t bytes[CHUNK_PARTS], all = 0;
  chunk_sizes(e, s, bytes);
  for (int i = 0; i < CHUNK_PARTS; i++) all += workgroup_rounded(bytes[i]);
  return all <= e->facts->workgroup_bytes;
}

static bool attention_read(emitter *e, const kernel_spec *spec, attention_sizes *s) {
  s->heads = kernel_integer(spec, "heads", &e->status);
  s->kv_heads = kernel_integer(spec, "kv_heads", &e->status);
  s->head_dim = kernel_integer(spec, "head_dim", &e->status);
  s->page = kernel_integer(spec, "page", &e->status);
  s->page_bytes = kernel_integer(spec, "page_bytes", &e->status);
  s->value_offset = kernel_integer(spec, "value_offset", &e->status);
  s->query_tile = kernel_integer(spec, "query_tile", &e->status);
  s->query_scale = kernel_float(spec, "scale", &e->status) * LOG2_E;
  s->score_scale = 1;
  s->dtype = kernel_dtype(spec, "dtype", &e->status);
  s->transposed_keys = attribute_is(e, "transposed", "keys");
  if (e->status) return false;
  if (s->heads < 1 || s->kv_heads < 1 || s->heads % s->kv_heads || s->head_dim < 1 || s->page < 1 ||
      s->query_tile < 1) {
    e->status = sluice_error(
        SLUICE_INTERNAL,
        "%s: %lld heads over %lld kv heads of %lld, pages of %lld tokens: expected positive sizes and whole "
        "groups of heads",
        spec->symbol, (long long)s->heads, (long long)s->kv_heads, (long long)s->head_dim, (long long)s->page);
    return false;
  }
  s->group = s->heads / s->kv_heads;
  s->pairs = rows_pair_up(e, s->dtype, s->head_dim, s->page) && rows_pair_up(e, s->dtype, s->page, s->head_dim);
  if (s->pairs) {
    s->score_scale = s->query_scale;
    s->query_scale = 1;
  }
  s->chunk_tokens = s->group < CHUNK_ROWS ? CHUNK_ROWS / s->group : 1;
  if (s->chunk_tokens > s->query_tile) s->chunk_tokens = s->query_tile;
  while (s->chunk_tokens > 1 && !chunk_fits(e, s)) s->chunk_tokens--;
  return true;
}

static chunk_memory take_memory(emitter *e, const attention_sizes *s) {
  uint64_t bytes[CHUNK_PARTS];
  V part[CHUNK_PARTS];
  chunk_sizes(e, s, bytes);
  for (int i = 0; i < CHUNK_PARTS; i++) {
    part[i] = bytes[i] ? workgroup_take(e, bytes[i]) : NULL;
    if (i == CURSORS) part[i] = element(e, e->i32, part[i], mul(e, e->atoms->lane(e), int64(e, s->chunk_tokens)));
  }
  return (chunk_memory){.queries = part[QUERIES],
                        .scores = part[SCORES],
                        .outputs = part[OUTPUTS],
                        .maxima = part[MAXIMA],
                        .sums = part[SUMS],
                        .cursors = part[CURSORS],
                        .key_panel = part[KEY_PANEL],
                        .value_panel = part[VALUE_PANEL],
                        .rounded = part[ROUNDED]};
}

/* Keys of page `index` that come before position `end`. */
static V keys_before(emitter *e, const attention_sizes *s, V index, V end) {
  return imin(e, sub(e, end, mul(e, index, int64(e, s->page))), int64(e, s->page));
}

/* Prepares a page for attend_page calls that see no key from position `end` on. */
static void open_page(emitter *e, const attention_sizes *s, const chunk_memory *m, V page_pointer, V index, V kv_head,
                      V end) {
  if (!s->pairs) return;
  V plane = mul(e, kv_head, int64(e, s->head_dim * s->page));
  V values = byte_offset(e, page_pointer, int64(e, s->value_offset));
  rows_pack(e, element_of(e, s->dtype, page_pointer, plane), int64(e, s->head_dim), s->page, m->key_panel);
  rows_pack(e, element_of(e, s->dtype, values, plane), keys_before(e, s, index, end), s->head_dim, m->value_panel);
}

/* ---- softmax of one row on one page ---- */

typedef struct softmax_row {
  V scores;  /* the row */
  V visible; /* keys of the page that the row sees, i64 */
  double scale;
} softmax_row;

static V masked(emitter *e, const softmax_row *row, V column, unsigned width) {
  V lanes[64];
  for (unsigned i = 0; i < width; ++i) lanes[i] = int32(e, (int32_t)i);
  V columns = splat(e, to_i32(e, column), width);
  if (width > 1) columns = add(e, columns, LLVMConstVector(lanes, width));
  V score = load_f32(e, SLUICE_F32, row->scores, column, width);
  if (row->scale != 1) score = fmul_(e, score, float32(e, row->scale));
  return select_(e, icmp(e, LLVMIntSLT, columns, splat(e, to_i32(e, row->visible), width)), score,
                 splat(e, float32(e, -INFINITY), width));
}

/* Turns a row of scores into weights and brings its maximum, sum and output up to date. */
static void softmax_update(emitter *e, const attention_sizes *s, const chunk_memory *m, V row, V visible) {
  unsigned width = e->vector;
  T vector = vector_type(e->f32, width);
  V stride = int64(e, padded_row(s->page)), end = int64(e, (s->page + width - 1) / width * width);
  softmax_row r = {
      .scores = element(e, e->f32, m->scores, mul(e, row, stride)), .visible = visible, .scale = s->score_scale};
  V maxima = local_set(e, vector, splat(e, float32(e, NO_SCORE), width));
  loop find = loop_begin(e, int64(e, 0), end, int64(e, width));
  set(e, maxima, fmax_(e, get(e, vector, maxima), masked(e, &r, find.index, width)));
  loop_end(e, &find);
  V before = load_f32(e, SLUICE_F32, m->maxima, row, 1);
  V highest = fmax_(e, before, vector_reduce(e, get(e, vector, maxima), REDUCE_MAX));
  V decay = e->atoms->exp2(e, fsub_(e, before, highest));
  store_f32(e, SLUICE_F32, highest, m->maxima, row);

  V sums = local_set(e, vector, splat(e, float32(e, 0.0), width));
  loop weigh = loop_begin(e, int64(e, 0), end, int64(e, width));
  V weight = e->atoms->exp2(e, fsub_(e, masked(e, &r, weigh.index, width), splat(e, highest, width)));
  store_f32(e, SLUICE_F32, weight, r.scores, weigh.index);
  set(e, sums, fadd_(e, get(e, vector, sums), weight));
  loop_end(e, &weigh);
  V sum = vector_reduce(e, get(e, vector, sums), REDUCE_ADD);
  V total = load_f32(e, SLUICE_F32, m->sums, row, 1);
  store_f32(e, SLUICE_F32, fma_(e, total, decay, sum), m->sums, row);

  branch moved = if_begin(e, fcmp(e, LLVMRealUNE, decay, float32(e, 1.0)));
  V output = element(e, e->f32, m->outputs, mul(e, row, int64(e, padded_row(s->head_dim))));
  loop rescale = loop_begin(e, int64(e, 0), int64(e, padded_row(s->head_dim)), int64(e, width));
  V value = load_f32(e, SLUICE_F32, output, rescale.index, width);
  store_f32(e, SLUICE_F32, fmul_(e, value, splat(e, decay, width)), output, rescale.index);
  loop_end(e, &rescale);
  if_end(e, &moved);
}

/* One page for `count` tokens of the chunk from token `first` on; `position` is that of token `first`. */
static void attend_page(emitter *e, const attention_sizes *s, const chunk_memory *m, V page_pointer, V page_index,
                        V kv_head, V first, V count, V position) {
  V first_row = mul(e, first, int64(e, s->group)), rows = mul(e, count, int64(e, s->group));
  V plane = mul(e, kv_head, int64(e, s->head_dim * s->page));
  V before =
      sub(e, position, mul(e, page_index, int64(e, s->page))); /* keys of the page before the first token's own */
  e->atoms->barrier(e);
  rows_multiply(e,
                &(rows_product){.from = element(e, e->f32, m->queries, mul(e, first_row, int64(e, s->head_dim))),
                                .from_stride = s->head_dim,
                                .to = element(e, e->f32, m->scores, mul(e, first_row, int64(e, padded_row(s->page)))),
                                .rows = rows,
                                .depth = int64(e, s->head_dim),
                                .max_depth = s->head_dim,
                                .matrix = element_of(e, s->dtype, page_pointer, plane),
                                .dtype = s->dtype,
                                .transposed = !s->transposed_keys,
                                .columns = s->page,
                                .panel = m->key_panel,
                                .rounded = m->rounded});
  e->atoms->barrier(e);
  loop row = lane_loop(e, int64(e, 0), rows);
  V visible = add(e, before, add(e, udiv(e, row.index, int64(e, s->group)), int64(e, 1)));
  softmax_update(e, s, m, add(e, first_row, row.index), imax(e, imin(e, visible, int64(e, s->page)), int64(e, 0)));
  loop_end(e, &row);
  e->atoms->barrier(e);
  V values = byte_offset(e, page_pointer, int64(e, s->value_offset));
  rows_multiply(
      e, &(rows_product){.from = element(e, e->f32, m->scores, mul(e, first_row, int64(e, padded_row(s->page)))),
                         .from_stride = padded_row(s->page),
                         .to = element(e, e->f32, m->outputs, mul(e, first_row, int64(e, padded_row(s->head_dim)))),
                         .rows = rows,
                         .depth = keys_before(e, s, page_index, add(e, position, count)),
                         .max_depth = s->page,
                         .matrix = element_of(e, s->dtype, values, plane),
                         .dtype = s->dtype,
                         .transposed = !s->transposed_keys,
                         .columns = s->head_dim,
                         .accumulate = true,
                         .panel = m->value_panel,
                         .rounded = m->rounded});
}

/* ---- a chunk ---- */

typedef struct chunk {
  V token;    /* its first token, as a row of the step's buffers */
  V count;    /* tokens */
  V position; /* of its first token */
} chunk;

static void chunk_open(emitter *e, const attention_sizes *s, const chunk_memory *m, const chunk *c, V kv_head, V q) {
  e->atoms->barrier(e); /* the chunk before is stored */
  loop token = loop_begin(e, int64(e, 0), c->count, int64(e, 1));
  V head = add(e, mul(e, add(e, c->token, token.index), int64(e, s->heads)), mul(e, kv_head, int64(e, s->group)));
  rows_copy copy = {.from = element_of(e, s->dtype, q, mul(e, head, int64(e, s->head_dim))),
                    .to = element(e, e->f32, m->queries, mul(e, token.index, int64(e, s->group * s->head_dim))),
                    .dtype = s->dtype,
                    .from_stride = s->head_dim,
                    .to_stride = s->head_dim,
                    .width = s->head_dim,
                    .scale = s->query_scale};
  rows_to_f32(e, &copy, int64(e, s->group));
  store_i32(e, int64(e, 0), m->cursors, token.index);
  loop_end(e, &token);
  loop row = lane_loop(e, int64(e, 0), mul(e, c->count, int64(e, s->group)));
  store_f32(e, SLUICE_F32, float32(e, NO_SCORE), m->maxima, row.index);
  store_f32(e, SLUICE_F32, float32(e, 0.0), m->sums, row.index);
  V output = element(e, e->f32, m->outputs, mul(e, row.index, int64(e, padded_row(s->head_dim))));
  loop clear = loop_begin(e, int64(e, 0), int64(e, padded_row(s->head_dim)), int64(e, e->vector));
  store_f32(e, SLUICE_F32, splat(e, float32(e, 0.0), e->vector), output, clear.index);
  loop_end(e, &clear);
  loop_end(e, &row);
}

typedef struct output_row {
  V from, to, factor;
  sluice_dtype dtype;
} output_row;

static void output_body(emitter *e, V offset, unsigned vector, void *user) {
  const output_row *row = user;
  V value = load_f32(e, SLUICE_F32, row->from, offset, vector);
  store_f32(e, row->dtype, fmul_(e, value, splat(e, row->factor, vector)), row->to, offset);
}

static void chunk_close(emitter *e, const attention_sizes *s, const chunk_memory *m, const chunk *c, V kv_head, V out) {
  e->atoms->barrier(e);
  loop token = loop_begin(e, int64(e, 0), c->count, int64(e, 1));
  V first_head = add(e, mul(e, add(e, c->token, token.index), int64(e, s->heads)), mul(e, kv_head, int64(e, s->group)));
  loop head = loop_begin(e, int64(e, 0), int64(e, s->group), int64(e, 1));
  V row = add(e, mul(e, token.index, int64(e, s->group)), head.index);
  V sum = load_f32(e, SLUICE_F32, m->sums, row, 1);
  /* A token without any block has no weights: its output is zero. */
  V nothing = fcmp(e, LLVMRealOEQ, sum, float32(e, 0.0));
  output_row r = {.from = element(e, e->f32, m->outputs, mul(e, row, int64(e, padded_row(s->head_dim)))),
                  .to = element_of(e, s->dtype, out, mul(e, add(e, first_head, head.index), int64(e, s->head_dim))),
                  .factor = select_(e, nothing, float32(e, 0.0), fdiv_(e, float32(e, 1.0), sum)),
                  .dtype = s->dtype};
  row_loop(e, s->head_dim, output_body, &r);
  loop_end(e, &head);
  loop_end(e, &token);
}

/* All pages up to that of the chunk's last token. */
static void attend_all(emitter *e, const attention_sizes *s, const chunk_memory *m, const query_tile *tile,
                       const chunk *c, V kv_head, V cache) {
  V keys = add(e, c->position, c->count);
  loop page = loop_begin(e, int64(e, 0), ceil_div(e, keys, s->page), int64(e, 1));
  V page_pointer = cache_page(e, tile, cache, page.index, s->page_bytes);
  open_page(e, s, m, page_pointer, page.index, kv_head, keys);
  attend_page(e, s, m, page_pointer, page.index, kv_head, int64(e, 0), c->count, c->position);
  loop_end(e, &page);
}

/* The block that token `token` of the chunk takes next, INT32_MAX when its list is at its end. */
static V next_block(emitter *e, const attention_sizes *s, const chunk_memory *m, V lists, V list_stride, V token) {
  V cursor = load_i32(e, m->cursors, token);
  V place = imin(e, cursor, int64(e, s->k - 1));
  V block = load_i32(e, lists, add(e, mul(e, token, list_stride), place));
  V ended = or_(e, icmp(e, LLVMIntSGE, cursor, int64(e, s->k)), icmp(e, LLVMIntSLT, block, int64(e, 0)));
  return select_(e, ended, int64(e, INT32_MAX), block);
}

/* The blocks of the tokens' lists, lowest first. */
static void attend_lists(emitter *e, const attention_sizes *s, const chunk_memory *m, const query_tile *tile,
                         const chunk *c, V kv_head, V cache, V blocks) {
  V list_stride = int64(e, s->kv_heads * s->k);
  V first_list = add(e, mul(e, c->token, int64(e, s->kv_heads)), kv_head);
  V lists = element(e, e->i32, blocks, mul(e, first_list, int64(e, s->k)));
  LLVMBasicBlockRef round = LLVMAppendBasicBlockInContext(e->context, e->function, "round");
  LLVMBuildBr(e->builder, round);
  LLVMPositionBuilderAtEnd(e->builder, round);
  V lowest = local_set(e, e->i64, int64(e, INT32_MAX));
  loop scan = loop_begin(e, int64(e, 0), c->count, int64(e, 1));
  set(e, lowest, imin(e, get(e, e->i64, lowest), next_block(e, s, m, lists, list_stride, scan.index)));
  loop_end(e, &scan);
  V block = get(e, e->i64, lowest);
  LLVMBasicBlockRef some = LLVMAppendBasicBlockInContext(e->context, e->function, "block");
  LLVMBasicBlockRef none = LLVMAppendBasicBlockInContext(e->context, e->function, "ended");
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntNE, block, int64(e, INT32_MAX)), some, none);
  LLVMPositionBuilderAtEnd(e->builder, some);
  V page_pointer = cache_page(e, tile, cache, block, s->page_bytes);
  open_page(e, s, m, page_pointer, block, kv_head, add(e, c->position, c->count));
  /* Runs of neighbours that take the block. One token beyond the last ends the last run. */
  V run = local_set(e, e->i64, int64(e, 0));
  V last = c->count;
  loop token = loop_begin(e, int64(e, 0), add(e, last, int64(e, 1)), int64(e, 1));
  V taken = local_set(e, e->i1, LLVMConstInt(e->i1, 0, 0));
  branch inside = if_begin(e, icmp(e, LLVMIntSLT, token.index, last));
  set(e, taken, icmp(e, LLVMIntEQ, next_block(e, s, m, lists, list_stride, token.index), block));
  if_end(e, &inside);
  branch takes = if_begin(e, get(e, e->i1, taken));
  set(e, run, add(e, get(e, e->i64, run), int64(e, 1)));
  store_i32(e, add(e, load_i32(e, m->cursors, token.index), int64(e, 1)), m->cursors, token.index);
  if_else(e, &takes);
  V length = get(e, e->i64, run);
  branch ends = if_begin(e, icmp(e, LLVMIntSGT, length, int64(e, 0)));
  V start = sub(e, token.index, length);
  attend_page(e, s, m, page_pointer, block, kv_head, start, length, add(e, c->position, start));
  set(e, run, int64(e, 0));
  if_end(e, &ends);
  if_end(e, &takes);
  loop_end(e, &token);
  LLVMBuildBr(e->builder, round);
  LLVMPositionBuilderAtEnd(e->builder, none);
}

/* Attention of the whole tile; over lists when `blocks` is there. */
static void attend_tile(emitter *e, const attention_sizes *s, const query_tile *tile, V q, V cache, V out, V blocks) {
  chunk_memory m = take_memory(e, s);
  loop each = loop_begin(e, int64(e, 0), tile->count, int64(e, s->chunk_tokens));
  chunk c = {.token = add(e, tile->first, each.index),
             .count = imin(e, sub(e, tile->count, each.index), int64(e, s->chunk_tokens)),
             .position = add(e, tile->position, each.index)};
  chunk_open(e, s, &m, &c, e->y, q);
  if (blocks)
    attend_lists(e, s, &m, tile, &c, e->y, cache, blocks);
  else
    attend_all(e, s, &m, tile, &c, e->y, cache);
  chunk_close(e, s, &m, &c, e->y, out);
  loop_end(e, &each);
}

/* ---- families ---- */

static kernel_shape shape_of(const attention_sizes *s) {
  kernel_shape shape = each_of(SLUICE_SIZE_TILES, s->kv_heads, s->head_dim);
  shape.rows[1] = s->page;
  return shape;
}

void family_attention(emitter *e, const kernel_spec *spec) {
  attention_sizes s = {0};
  if (!attention_read(e, spec, &s)) return;
  kernel_begin(e, spec, shape_of(&s));
  V *argument = e->argument; /* q, tiles, page_table, cache, out */
  query_tile tile = query_tile_load(e, argument[1], argument[2]);
  attend_tile(e, &s, &tile, argument[0], argument[3], argument[4], NULL);
  kernel_end(e);
}

static bool list_read(emitter *e, const kernel_spec *spec, attention_sizes *s) {
  s->k = kernel_integer(spec, "k", &e->status);
  if (!attention_read(e, spec, s)) return false;
  if (s->k >= 1) return true;
  e->status = sluice_error(SLUICE_INTERNAL, "%s: k is %lld: expected at least 1", spec->symbol, (long long)s->k);
  return false;
}

void family_block_attention(emitter *e, const kernel_spec *spec) {
  attention_sizes s = {0};
  if (!list_read(e, spec, &s)) return;
  kernel_begin(e, spec, shape_of(&s));
  V *argument = e->argument; /* q, blocks, tiles, page_table, cache, out */
  query_tile tile = query_tile_load(e, argument[2], argument[3]);
  attend_tile(e, &s, &tile, argument[0], argument[4], argument[5], argument[1]);
  kernel_end(e);
}

void family_select_attention(emitter *e, const kernel_spec *spec) {
  attention_sizes s = {0};
  if (!list_read(e, spec, &s)) return;
  index_selection selection = {.heads = s.kv_heads, .dim = kernel_integer(spec, "index_dim", &e->status)};
  if (!index_selection_read(e, spec, &selection)) return;
  kernel_shape shape = shape_of(&s);
  shape.rows[2] = selection.dim;
  kernel_begin(e, spec, shape);
  V *argument = e->argument; /* q, iq, tiles, page_table, cache, out, blocks */
  query_tile tile = query_tile_load(e, argument[2], argument[3]);
  index_selection_emit(e, &selection, &tile, e->y, argument[1], argument[4], argument[6]);
  attend_tile(e, &s, &tile, argument[0], argument[4], argument[5], argument[6]);
  kernel_end(e);
}

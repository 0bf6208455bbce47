/* The index branch of sparse attention: which blocks of keys a token attends to (m3.md 2.7 and 2.8). Families
 * index_score, block_max, topk_blocks, and index_select, which is the three of them without token scores in memory. */
#include "backends/common/attention.h"
#include "backends/common/families.h"
#include "backends/common/tile.h"

#include <math.h>

/* Rows of queries that index_score takes at once. */
enum { SCORE_ROWS = 16 };

/* ---- shared with attention ---- */

query_tile query_tile_load(emitter *e, V tiles, V page_table) {
  V entry = mul(e, e->x, int64(e, 4));
  V row = load_i32(e, tiles, add(e, entry, int64(e, 2)));
  return (query_tile){
      .first = load_i32(e, tiles, entry),
      .count = load_i32(e, tiles, add(e, entry, int64(e, 1))),
      .position = load_i32(e, tiles, add(e, entry, int64(e, 3))),
      .page_table = element(e, e->i32, page_table, mul(e, row, size_of(e, SLUICE_SIZE_PAGE_STRIDE))),
  };
}

V cache_page(emitter *e, const query_tile *tile, V cache, V index, int64_t page_bytes) {
  return byte_offset(e, cache, mul(e, load_i32(e, tile->page_table, index), int64(e, page_bytes)));
}

void span_loop(emitter *e, V from, V to, row_body *body, void *user) {
  unsigned width = e->facts->aligned_vectors ? 1 : e->vector; /* `from` may be anything */
  V middle = from;
  if (width > 1) {
    V length = imax(e, sub(e, to, from), int64(e, 0));
    middle = add(e, from, mul(e, udiv(e, length, int64(e, width)), int64(e, width)));
    loop vectors = loop_begin(e, from, middle, int64(e, width));
    body(e, vectors.index, width, user);
    loop_end(e, &vectors);
  }
  loop rest = loop_begin(e, middle, to, int64(e, 1));
  body(e, rest.index, 1, user);
  loop_end(e, &rest);
}

int64_t padded_row(int64_t width) {
  return (width + 15) / 16 * 16;
}

static void copy_body(emitter *e, V offset, unsigned vector, void *user) {
  const rows_copy *row = user;
  V value = load_f32(e, row->dtype, row->from, offset, vector);
  if (row->scale != 1.0) value = fmul_(e, value, splat(e, float32(e, row->scale), vector));
  store_f32(e, SLUICE_F32, value, row->to, offset);
}

void rows_to_f32(emitter *e, const rows_copy *copy, V rows) {
  loop each = loop_begin(e, int64(e, 0), rows, int64(e, 1));
  rows_copy row = *copy;
  row.from = element_of(e, copy->dtype, copy->from, mul(e, each.index, int64(e, copy->from_stride)));
  row.to = element(e, e->f32, copy->to, mul(e, each.index, int64(e, copy->to_stride)));
  row_loop(e, copy->width, copy_body, &row);
  loop_end(e, &each);
}

static V product_row(emitter *e, V row, void *user) {
  const rows_product *product = user;
  return element(e, e->f32, product->from, mul(e, row, int64(e, product->from_stride)));
}

/* ---- products of pairs of bf16 ---- */

bool rows_pair_up(const emitter *e, sluice_dtype dtype, int64_t rows, int64_t columns) {
  return e->atoms->dot_bf16 && dtype == SLUICE_BF16 && rows % 2 == 0 && columns % e->vector == 0;
}

static V pair_row(emitter *e, V row, void *user) {
  const rows_product *product = user;
  return element_of(e, SLUICE_BF16, product->from, mul(e, row, int64(e, product->from_stride)));
}

typedef struct row_round {
  V from, to;
} row_round;

static void round_body(emitter *e, V offset, unsigned vector, void *user) {
  const row_round *row = user;
  store_f32(e, SLUICE_BF16, load_f32(e, SLUICE_F32, row->from, offset, vector), row->to, offset);
}

void rows_pack(emitter *e, V matrix, V depth, int64_t columns, V panel) {
  unsigned width = e->vector;
  T halves = vector_type(e->i16, width), words = vector_type(e->i32, width);
  loop pair = loop_begin(e, int64(e, 0), ceil_div(e, depth, 2), int64(e, 1));
  V first = mul(e, pair.index, int64(e, 2 * columns));
  loop column = loop_begin(e, int64(e, 0), int64(e, columns), int64(e, width));
  V at = add(e, first, column.index);
  V low = load(e, halves, element_of(e, SLUICE_BF16, matrix, at));
  V high = load(e, halves, element_of(e, SLUICE_BF16, matrix, add(e, at, int64(e, columns))));
  low = LLVMBuildZExt(e->builder, low, words, "");
  high = shl(e, LLVMBuildZExt(e->builder, high, words, ""), int32(e, 16));
  store(e, or_(e, low, high), element_of(e, SLUICE_BF16, panel, add(e, first, mul(e, column.index, int64(e, 2)))));
  loop_end(e, &column);
  loop_end(e, &pair);
}

static void multiply_pairs(emitter *e, const rows_product *product) {
  int64_t stride = padded_row(product->max_depth);
  loop each = loop_begin(e, int64(e, 0), product->rows, int64(e, 1));
  row_round row = {.from = element(e, e->f32, product->from, mul(e, each.index, int64(e, product->from_stride))),
                   .to = element_of(e, SLUICE_BF16, product->rounded, mul(e, each.index, int64(e, stride)))};
  row_loop(e, product->max_depth, round_body, &row);
  loop_end(e, &each);
  rows_product rows = *product;
  rows.from = product->rounded;
  rows.from_stride = stride;
  tile_multiply(e, &(tile_product){.a_row = pair_row,
                                   .user = &rows,
                                   .a_dtype = SLUICE_BF16,
                                   .b = product->panel,
                                   .b_dtype = SLUICE_BF16,
                                   .c = product->to,
                                   .c_stride = padded_row(product->columns),
                                   .accumulate = product->accumulate,
                                   .rows = product->rows,
                                   .depth = product->depth,
                                   .columns = int64(e, product->columns),
                                   .max_columns = product->columns});
}

void rows_multiply(emitter *e, const rows_product *product) {
  if (product->panel) {
    multiply_pairs(e, product);
    return;
  }
  if (product->transposed && e->lanes == 1 && !e->status)
    e->status = sluice_error(SLUICE_INTERNAL, "%s: a page whose keys are rows needs a target with several lanes",
                             e->spec->symbol);
  rows_product rows = *product;
  tile_product tile = {.a_row = product_row,
                       .user = &rows,
                       .a_dtype = SLUICE_F32,
                       .b = product->matrix,
                       .b_dtype = product->dtype,
                       .b_stride = int64(e, product->transposed ? product->max_depth : product->columns),
                       .b_transposed = product->transposed,
                       .c = product->to,
                       .c_stride = padded_row(product->columns),
                       .accumulate = product->accumulate,
                       .rows = product->rows,
                       .depth = product->depth,
                       .columns = int64(e, product->columns),
                       .max_columns = product->columns};
  if (e->lanes == 1 && product->columns % e->vector != 0) {
    /* The product reads whole vectors, which could lead out of the last page: it gets a copy with padded rows. */
    int64_t stride = padded_row(product->columns);
    rows_copy copy = {.from = product->matrix,
                      .to = workgroup_take(e, (uint64_t)(product->max_depth * stride) * sizeof(float)),
                      .dtype = product->dtype,
                      .from_stride = product->columns,
                      .to_stride = stride,
                      .width = product->columns,
                      .scale = 1.0};
    rows_to_f32(e, &copy, product->depth);
    tile.b = copy.to;
    tile.b_dtype = SLUICE_F32;
    tile.b_stride = int64(e, stride);
  }
  tile_multiply(e, &tile);
}

/* ---- maximum over the visible keys of a block ---- */

typedef struct maximum {
  V from; /* f32 */
  V vector_slot, scalar_slot;
} maximum;

static void maximum_body(emitter *e, V offset, unsigned vector, void *user) {
  const maximum *m = user;
  V slot = vector > 1 ? m->vector_slot : m->scalar_slot;
  V value = load_f32(e, SLUICE_F32, m->from, offset, vector);
  set(e, slot, fmax_(e, get(e, vector_type(e->f32, vector), slot), value));
}

/* The maximum of `count` scores at `from`, -inf for none; NaN loses. */
static V span_maximum(emitter *e, V from, V count) {
  unsigned width = e->vector;
  T vector = vector_type(e->f32, width);
  V lowest = float32(e, -INFINITY);
  maximum m = {.from = from};
  m.vector_slot = local_set(e, vector, splat(e, lowest, width));
  m.scalar_slot = local_set(e, e->f32, lowest);
  span_loop(e, int64(e, 0), count, maximum_body, &m);
  V result = get(e, e->f32, m.scalar_slot);
  if (width > 1) result = fmax_(e, result, vector_reduce(e, get(e, vector, m.vector_slot), REDUCE_MAX));
  return result;
}

/* ---- the choice among block scores ---- */

/* Finds the largest score below `limit` in the order (score descending, then lower id; NaN lowest). A score and its
 * block id become one integer that has this order: the float's bits made monotonic, then the complement of the id. As
 * no two of them are equal, the next choice is the largest one below the last choice, and nothing needs to be marked as
 * taken. */
typedef struct search {
  V scores; /* f32, by block id */
  V limit;  /* i64 */
  V vector_slot, scalar_slot;
} search;

static void search_body(emitter *e, V offset, unsigned vector, void *user) {
  const search *s = user;
  T wide = vector_type(e->i64, vector), narrow = vector_type(e->i32, vector);
  V score = load_f32(e, SLUICE_F32, s->scores, offset, vector);
  score = fadd_(e, score, splat(e, float32(e, 0.0), vector)); /* -0 becomes +0: they are equal */
  V bits = bitcast(e, score, narrow);
  V sign = LLVMBuildAShr(e->builder, bits, splat(e, int32(e, 31), vector), "");
  V ordered = LLVMBuildXor(e->builder, bits, and_(e, sign, splat(e, int32(e, INT32_MAX), vector)), "");
  ordered = select_(e, fcmp(e, LLVMRealUNO, score, score), splat(e, int32(e, INT32_MIN + 1), vector), ordered);
  V id = splat(e, offset, vector);
  if (vector > 1) {
    V lanes[64];
    for (unsigned i = 0; i < vector; ++i) lanes[i] = int64(e, i);
    id = add(e, id, LLVMConstVector(lanes, vector));
  }
  V key = shl(e, LLVMBuildSExt(e->builder, ordered, wide, ""), splat(e, int64(e, 32), vector));
  key = or_(e, key, sub(e, splat(e, int64(e, UINT32_MAX), vector), id));
  V below = icmp(e, LLVMIntSLT, key, splat(e, s->limit, vector));
  key = select_(e, below, key, splat(e, int64(e, INT64_MIN), vector));
  V slot = vector > 1 ? s->vector_slot : s->scalar_slot;
  set(e, slot, imax(e, get(e, wide, slot), key));
}

/* The id of the best block in [from, to) whose key is below *limit (a local i64 variable), which becomes its key. */
static V next_best(emitter *e, V scores, V from, V to, V limit) {
  unsigned width = e->vector;
  T wide = vector_type(e->i64, width);
  search s = {.scores = scores, .limit = get(e, e->i64, limit)};
  s.vector_slot = local_set(e, wide, splat(e, int64(e, INT64_MIN), width));
  s.scalar_slot = local_set(e, e->i64, int64(e, INT64_MIN));
  if (e->lanes == 1) {
    span_loop(e, from, to, search_body, &s);
  } else {
    loop ids = lane_loop(e, from, to);
    search_body(e, ids.index, 1, &s);
    loop_end(e, &ids);
  }
  V best = get(e, e->i64, s.scalar_slot);
  if (width > 1) {
    V vector = get(e, wide, s.vector_slot);
    best = imax(e, best, intrinsic(e, "llvm.vector.reduce.smax", &wide, 1, &vector, 1));
  }
  best = e->atoms->reduce(e, best, REDUCE_MAX);
  set(e, limit, best);
  return sub(e, int64(e, UINT32_MAX), and_(e, best, int64(e, UINT32_MAX)));
}

/* Puts `id` into the ascending list out[from .. at). */
static void insert_ascending(emitter *e, V out, V from, V at, V id) {
  V place = local_set(e, e->i64, at);
  LLVMBasicBlockRef head = LLVMAppendBasicBlockInContext(e->context, e->function, "insert");
  LLVMBasicBlockRef test = LLVMAppendBasicBlockInContext(e->context, e->function, "test");
  LLVMBasicBlockRef shift = LLVMAppendBasicBlockInContext(e->context, e->function, "shift");
  LLVMBasicBlockRef exit = LLVMAppendBasicBlockInContext(e->context, e->function, "inserted");
  LLVMBuildBr(e->builder, head);
  LLVMPositionBuilderAtEnd(e->builder, head);
  V here = get(e, e->i64, place);
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntSGT, here, from), test, exit);
  LLVMPositionBuilderAtEnd(e->builder, test);
  V before = sub(e, here, int64(e, 1));
  V other = load_i32(e, out, before);
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntSGT, other, id), shift, exit);
  LLVMPositionBuilderAtEnd(e->builder, shift);
  store_i32(e, other, out, here);
  set(e, place, before);
  LLVMBuildBr(e->builder, head);
  LLVMPositionBuilderAtEnd(e->builder, exit);
  store_i32(e, id, out, get(e, e->i64, place));
}

/* What the forced blocks of a token leave to choose. Block ids come in the order of the output. */
typedef struct choice {
  V initial;    /* ids [0, initial) are forced */
  V candidates; /* ids [initial, candidates) compete for `free` places */
  V free;
  V recent; /* ids [candidates, candidates + recent) are forced */
} choice;

/* m3.md 2.8: forced blocks count against k; when they exceed it, the first blocks come before the recent ones, and
 * lower ids before higher ones. `visible` is the number of blocks that the token sees. */
static choice choose_forced(emitter *e, V visible, int64_t k, int64_t init, int64_t local_blocks) {
  V places = int64(e, k);
  choice c;
  c.initial = imin(e, imin(e, int64(e, init), visible), places);
  c.candidates = imax(e, sub(e, visible, int64(e, local_blocks)), c.initial);
  V left = sub(e, places, c.initial);
  c.recent = imin(e, sub(e, visible, c.candidates), left);
  c.free = imin(e, sub(e, left, c.recent), sub(e, c.candidates, c.initial));
  return c;
}

static void write_ids(emitter *e, V out, V at, V id, V count) {
  loop each = lane_loop(e, int64(e, 0), count);
  store_i32(e, add(e, id, each.index), out, add(e, at, each.index));
  loop_end(e, &each);
}

void choose_blocks(emitter *e, V scores, V visible, int64_t k, int64_t init, int64_t local_blocks, V out) {
  choice c = choose_forced(e, visible, k, init, local_blocks);
  write_ids(e, out, int64(e, 0), int64(e, 0), c.initial);
  V chosen = add(e, c.initial, c.free);
  branch all = if_begin(e, icmp(e, LLVMIntEQ, c.free, sub(e, c.candidates, c.initial)));
  write_ids(e, out, c.initial, c.initial, c.free);
  if_else(e, &all);
  V limit = local_set(e, e->i64, int64(e, INT64_MAX));
  loop each = loop_begin(e, c.initial, chosen, int64(e, 1));
  V id = next_best(e, scores, c.initial, c.candidates, limit);
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  insert_ascending(e, out, c.initial, each.index, id);
  if_end(e, &first);
  loop_end(e, &each);
  if_end(e, &all);
  write_ids(e, out, chosen, c.candidates, c.recent);
  loop tail = lane_loop(e, add(e, chosen, c.recent), int64(e, k));
  store_i32(e, int64(e, -1), out, tail.index);
  loop_end(e, &tail);
}

V visible_blocks(emitter *e, V position, int64_t block) {
  return udiv(e, add(e, position, int64(e, block)), int64(e, block));
}

V settled_pages(emitter *e, V position, V row, int64_t page) {
  return udiv(e, imax(e, sub(e, position, row), int64(e, 0)), int64(e, page));
}

/* ---- families ---- */

static bool sizes_positive(emitter *e, const kernel_spec *spec, int64_t a, int64_t b, int64_t c) {
  if (e->status) return false;
  if (a >= 1 && b >= 1 && c >= 1) return true;
  e->status = sluice_error(SLUICE_INTERNAL, "%s: sizes %lld, %lld, %lld: expected positive numbers", spec->symbol,
                           (long long)a, (long long)b, (long long)c);
  return false;
}

static kernel_shape shape_of(int64_t heads, int64_t dim, int64_t page) {
  kernel_shape shape = each_of(SLUICE_SIZE_TILES, heads, dim);
  shape.rows[1] = page;
  return shape;
}

typedef struct mask_row {
  V from, to; /* f32 */
  V visible;  /* columns below it stay, the others become -inf */
} mask_row;

static void mask_body(emitter *e, V offset, unsigned vector, void *user) {
  const mask_row *row = user;
  V value = row->from ? load_f32(e, SLUICE_F32, row->from, offset, vector) : NULL;
  V lowest = splat(e, float32(e, -INFINITY), vector);
  if (value) {
    V column = splat(e, offset, vector);
    if (vector > 1) {
      V lanes[64];
      for (unsigned i = 0; i < vector; ++i) lanes[i] = int64(e, i);
      column = add(e, column, LLVMConstVector(lanes, vector));
    }
    value = select_(e, icmp(e, LLVMIntSLT, column, splat(e, row->visible, vector)), value, lowest);
  }
  store_f32(e, SLUICE_F32, value ? value : lowest, row->to, offset);
}

/* A page's scores of several rows, to first->to + start, `stride` apart; first->visible is the position of the first
 * row. `products` NULL: no key of the page is visible. */
static void mask_rows(emitter *e, const mask_row *first, V products, V rows, int64_t page, V start, V stride) {
  loop row = loop_begin(e, int64(e, 0), rows, int64(e, 1));
  mask_row mask = {.from = NULL};
  if (products) mask.from = element(e, e->f32, products, mul(e, row.index, int64(e, padded_row(page))));
  mask.to = element(e, e->f32, first->to, add(e, mul(e, row.index, stride), start));
  if (products) mask.visible = sub(e, add(e, add(e, first->visible, row.index), int64(e, 1)), start);
  row_loop(e, page, mask_body, &mask);
  loop_end(e, &row);
}

void family_index_score(emitter *e, const kernel_spec *spec) {
  int64_t heads = kernel_integer(spec, "heads", &e->status);
  int64_t dim = kernel_integer(spec, "dim", &e->status);
  int64_t page = kernel_integer(spec, "page", &e->status);
  int64_t page_bytes = kernel_integer(spec, "page_bytes", &e->status);
  int64_t index_offset = kernel_integer(spec, "index_offset", &e->status);
  sluice_dtype dtype = kernel_dtype(spec, "dtype", &e->status);
  bool transposed = attribute_is(e, "transposed", "keys");
  if (!sizes_positive(e, spec, heads, dim, page)) return;
  kernel_begin(e, spec, shape_of(heads, dim, page));
  V queries = workgroup_take(e, (uint64_t)(SCORE_ROWS * dim) * sizeof(float));
  V products = workgroup_take(e, (uint64_t)(SCORE_ROWS * padded_row(page)) * sizeof(float));
  query_tile tile = query_tile_load(e, e->argument[1], e->argument[2]);
  V context = size_of(e, SLUICE_SIZE_CONTEXT);
  loop some = loop_begin(e, int64(e, 0), tile.count, int64(e, SCORE_ROWS));
  V rows = imin(e, sub(e, tile.count, some.index), int64(e, SCORE_ROWS));
  V token = add(e, tile.first, some.index);
  V position = add(e, tile.position, some.index);
  V from = element_of(e, dtype, e->argument[0], mul(e, add(e, mul(e, token, int64(e, heads)), e->y), int64(e, dim)));
  rows_copy copy = {.from = from,
                    .to = queries,
                    .dtype = dtype,
                    .from_stride = heads * dim,
                    .to_stride = dim,
                    .width = dim,
                    .scale = 1.0};
  e->atoms->barrier(e);
  rows_to_f32(e, &copy, rows);
  V out = element(e, e->f32, e->argument[4], mul(e, add(e, mul(e, token, int64(e, heads)), e->y), context));
  V out_stride = mul(e, context, int64(e, heads));
  V seen = visible_blocks(e, sub(e, add(e, position, rows), int64(e, 1)), page);
  loop pages = loop_begin(e, int64(e, 0), size_of(e, SLUICE_SIZE_PAGES), int64(e, 1));
  V start = mul(e, pages.index, int64(e, page));
  branch visible = if_begin(e, icmp(e, LLVMIntSLT, pages.index, seen));
  V keys = byte_offset(e, cache_page(e, &tile, e->argument[3], pages.index, page_bytes), int64(e, index_offset));
  e->atoms->barrier(e);
  rows_multiply(e, &(rows_product){.from = queries,
                                   .from_stride = dim,
                                   .to = products,
                                   .rows = rows,
                                   .depth = int64(e, dim),
                                   .max_depth = dim,
                                   .matrix = keys,
                                   .dtype = dtype,
                                   .transposed = !transposed,
                                   .columns = page});
  e->atoms->barrier(e);
  const mask_row place = {.to = out, .visible = position};
  mask_rows(e, &place, products, rows, page, start, out_stride);
  if_else(e, &visible);
  mask_rows(e, &place, NULL, rows, page, start, out_stride);
  if_end(e, &visible);
  loop_end(e, &pages);
  loop_end(e, &some);
  kernel_end(e);
}

void family_block_max(emitter *e, const kernel_spec *spec) {
  int64_t heads = kernel_integer(spec, "heads", &e->status);
  int64_t block = kernel_integer(spec, "block", &e->status);
  if (!sizes_positive(e, spec, heads, block, 1)) return;
  kernel_begin(e, spec, each_of(SLUICE_SIZE_TOKENS, heads, 0));
  V row = add(e, mul(e, e->x, int64(e, heads)), e->y);
  V pages = size_of(e, SLUICE_SIZE_PAGES);
  V from = element(e, e->f32, e->argument[0], mul(e, row, size_of(e, SLUICE_SIZE_CONTEXT)));
  V to = element(e, e->f32, e->argument[2], mul(e, row, pages));
  V keys = add(e, load_i32(e, e->argument[1], e->x), int64(e, 1));
  loop each = lane_loop(e, int64(e, 0), pages);
  V start = mul(e, each.index, int64(e, block));
  V count = imin(e, sub(e, keys, start), int64(e, block));
  store_f32(e, SLUICE_F32, span_maximum(e, element(e, e->f32, from, start), imax(e, count, int64(e, 0))), to,
            each.index);
  loop_end(e, &each);
  kernel_end(e);
}

void family_topk_blocks(emitter *e, const kernel_spec *spec) {
  int64_t heads = kernel_integer(spec, "heads", &e->status);
  int64_t k = kernel_integer(spec, "k", &e->status);
  int64_t init = kernel_integer(spec, "init", &e->status);
  int64_t local_blocks = kernel_integer(spec, "local", &e->status);
  int64_t block = kernel_integer(spec, "block", &e->status);
  if (!sizes_positive(e, spec, heads, k, block)) return;
  kernel_begin(e, spec, each_of(SLUICE_SIZE_TOKENS, heads, 0));
  V row = add(e, mul(e, e->x, int64(e, heads)), e->y);
  V scores = element(e, e->f32, e->argument[0], mul(e, row, size_of(e, SLUICE_SIZE_PAGES)));
  V out = element(e, e->i32, e->argument[2], mul(e, row, int64(e, k)));
  V visible = visible_blocks(e, load_i32(e, e->argument[1], e->x), block);
  choose_blocks(e, scores, visible, k, init, local_blocks, out);
  kernel_end(e);
}

bool index_selection_read(emitter *e, const kernel_spec *spec, index_selection *selection) {
  selection->k = kernel_integer(spec, "k", &e->status);
  selection->init = kernel_integer(spec, "init", &e->status);
  selection->local = kernel_integer(spec, "local", &e->status);
  selection->page = kernel_integer(spec, "page", &e->status);
  selection->page_bytes = kernel_integer(spec, "page_bytes", &e->status);
  selection->index_offset = kernel_integer(spec, "index_offset", &e->status);
  selection->query_tile = kernel_integer(spec, "query_tile", &e->status);
  selection->max_pages = kernel_integer(spec, "max_pages", &e->status);
  selection->transposed = attribute_is(e, "transposed", "keys");
  selection->dtype = kernel_dtype(spec, "dtype", &e->status);
  return sizes_positive(e, spec, selection->heads, selection->dim, selection->k) &&
         sizes_positive(e, spec, selection->page, selection->query_tile, selection->max_pages);
}

/* The largest score of each page for the tokens of `tile` and index head `head`: scores[token * stride + page], for
 * pages below `seen`. Takes workgroup memory. */
static void score_pages(emitter *e, const index_selection *selection, const query_tile *tile, V head, V iq, V cache,
                        V seen, V scores, V stride) {
  int64_t heads = selection->heads, dim = selection->dim, page = selection->page;
  V queries = workgroup_take(e, (uint64_t)(selection->query_tile * dim) * sizeof(float));
  V products = workgroup_take(e, (uint64_t)(selection->query_tile * padded_row(page)) * sizeof(float));
  V first_row = add(e, mul(e, tile->first, int64(e, heads)), head);
  rows_copy copy = {.from = element_of(e, selection->dtype, iq, mul(e, first_row, int64(e, dim))),
                    .to = queries,
                    .dtype = selection->dtype,
                    .from_stride = heads * dim,
                    .to_stride = dim,
                    .width = dim,
                    .scale = 1.0};
  rows_to_f32(e, &copy, tile->count);
  loop pages = loop_begin(e, int64(e, 0), seen, int64(e, 1));
  V keys =
      byte_offset(e, cache_page(e, tile, cache, pages.index, selection->page_bytes), int64(e, selection->index_offset));
  e->atoms->barrier(e);
  rows_multiply(e, &(rows_product){.from = queries,
                                   .from_stride = dim,
                                   .to = products,
                                   .rows = tile->count,
                                   .depth = int64(e, dim),
                                   .max_depth = dim,
                                   .matrix = keys,
                                   .dtype = selection->dtype,
                                   .transposed = !selection->transposed,
                                   .columns = page});
  e->atoms->barrier(e);
  V before = sub(e, add(e, tile->position, int64(e, 1)), mul(e, pages.index, int64(e, page)));
  loop row = lane_loop(e, int64(e, 0), tile->count);
  V visible = imax(e, imin(e, add(e, before, row.index), int64(e, page)), int64(e, 0));
  V best = span_maximum(e, element(e, e->f32, products, mul(e, row.index, int64(e, padded_row(page)))), visible);
  store_f32(e, SLUICE_F32, best, scores, add(e, mul(e, row.index, stride), pages.index));
  loop_end(e, &row);
  loop_end(e, &pages);
}

/* Operands: iq, tiles, page_table, cache, maxima f32 [T][heads][PAGES]. While a tile's blocks all fit into a list of k,
 * nothing is chosen and no scores are written; nor are they for the last `local` blocks, which are chosen anyway. */
void family_block_score(emitter *e, const kernel_spec *spec) {
  index_selection s = {.heads = kernel_integer(spec, "heads", &e->status),
                       .dim = kernel_integer(spec, "dim", &e->status),
                       .k = kernel_integer(spec, "k", &e->status),
                       .local = kernel_integer(spec, "local", &e->status),
                       .page = kernel_integer(spec, "page", &e->status),
                       .page_bytes = kernel_integer(spec, "page_bytes", &e->status),
                       .index_offset = kernel_integer(spec, "index_offset", &e->status),
                       .query_tile = kernel_integer(spec, "query_tile", &e->status),
                       .transposed = attribute_is(e, "transposed", "keys"),
                       .dtype = kernel_dtype(spec, "dtype", &e->status)};
  if (!sizes_positive(e, spec, s.heads, s.dim, s.page) || !sizes_positive(e, spec, s.k, s.query_tile, 1)) return;
  kernel_shape shape = shape_of(s.heads, s.dim, s.page);
  shape.cache_first = attribute(e, "cache_first") != 0;
  kernel_begin(e, spec, shape);
  query_tile tile = query_tile_load(e, e->argument[1], e->argument[2]);
  V end = add(e, tile.position, tile.count), pages = size_of(e, SLUICE_SIZE_PAGES);
  V seen = visible_blocks(e, sub(e, end, int64(e, 1)), s.page);
  V row = add(e, mul(e, tile.first, int64(e, s.heads)), e->y);
  branch scored = if_begin(e, icmp(e, LLVMIntSGT, seen, int64(e, s.k)));
  score_pages(e, &s, &tile, e->y, e->argument[0], e->argument[3], sub(e, seen, int64(e, s.local)),
              element(e, e->f32, e->argument[4], mul(e, row, pages)), mul(e, pages, int64(e, s.heads)));
  if_end(e, &scored);
  kernel_end(e);
}

void index_selection_emit(emitter *e, const index_selection *selection, const query_tile *tile, V head, V iq, V cache,
                          V blocks) {
  int64_t heads = selection->heads, k = selection->k, page = selection->page;
  int64_t score_stride = padded_row(selection->max_pages);
  V scores = workgroup_take(e, (uint64_t)(selection->query_tile * score_stride) * sizeof(float));
  V end = add(e, tile->position, tile->count);
  V seen = visible_blocks(e, sub(e, end, int64(e, 1)), page);
  V first_row = add(e, mul(e, tile->first, int64(e, heads)), head);

  /* While every visible block fits into the list, scores decide nothing. */
  branch scored = if_begin(e, icmp(e, LLVMIntSGT, seen, int64(e, k)));
  score_pages(e, selection, tile, head, iq, cache, seen, scores, int64(e, score_stride));
  if_end(e, &scored);

  loop token = loop_begin(e, int64(e, 0), tile->count, int64(e, 1));
  V out = element(e, e->i32, blocks, mul(e, add(e, first_row, mul(e, token.index, int64(e, heads))), int64(e, k)));
  choose_blocks(e, element(e, e->f32, scores, mul(e, token.index, int64(e, score_stride))),
                visible_blocks(e, add(e, tile->position, token.index), page), k, selection->init, selection->local,
                out);
  loop_end(e, &token);
}

void family_index_select(emitter *e, const kernel_spec *spec) {
  index_selection selection = {.heads = kernel_integer(spec, "heads", &e->status),
                               .dim = kernel_integer(spec, "dim", &e->status)};
  if (!index_selection_read(e, spec, &selection)) return;
  kernel_begin(e, spec, shape_of(selection.heads, selection.dim, selection.page));
  query_tile tile = query_tile_load(e, e->argument[1], e->argument[2]);
  index_selection_emit(e, &selection, &tile, e->y, e->argument[0], e->argument[3], e->argument[4]);
  kernel_end(e);
}

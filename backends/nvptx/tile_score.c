/* Scores of blocks of keys for many tokens (m3.md 2.7, 2.8), at the rate of the tensor cores: family block_score.
 *
 * Work is a line of items: four query tiles beside each other and a chunk of pages. A query tile has 16 tokens, which
 * with their index heads are at most 64 rows of Q, A of a warpgroup's matrix instructions; the 128 keys of a page are
 * B. Items of one chunk follow each other, so that all workgroups read the same pages at about the same time, from
 * memory once.
 *
 *     producer        pages of keys into a ring; the rows of Q of the next item beside those of this one
 *     two warpgroups  two query tiles each, in turns: while the tensor cores multiply one's rows by a page, the lanes
 *                     find the largest scores of the other
 *
 * Scores never leave registers: of a row what is kept is the maximum over the keys of a page that its token sees. A
 * quad of lanes keeps a row's maxima of four pages, one in each lane, and stores them together.
 *
 * The four tiles of an item may be of several sequences: then each run of tiles of one sequence walks its own pages.
 */
#include "backends/common/attention.h"
#include "backends/nvptx/nvptx.h"
#include "backends/nvptx/own_kernels.h"
#include "backends/nvptx/planes.h"

#include <math.h>

enum {
  DIM = PLANE_COLUMNS,
  PAGE = PLANE_ROWS,
  CONSUMERS = 2,      /* warpgroups */
  TILES_OF_GROUP = 2, /* of a warpgroup */
  TILES = CONSUMERS * TILES_OF_GROUP,
  TILE_ROWS = WGMMA_ROWS,
  LARGEST_CHUNK = 32, /* pages, a multiple of TOGETHER */
  TOGETHER = 4,       /* pages whose maxima are stored together */
  QUERIES = 2,        /* items whose Q there is room for */
  STAGES = 3,
  QUERY_BYTES = CONSUMERS * PLANE_BYTES,
  LANES = (CONSUMERS + 1) * WARPGROUP,
  PRODUCER_REGISTERS = 40,
  CONSUMER_REGISTERS = 232,
};

typedef struct scorer {
  int64_t heads, k, local, page_bytes, index_offset, query_tile;
  V iq, tiles, page_table, cache, out;
  V queries, ring; /* workgroup memory */
  V full, empty, queries_full, queries_empty;
  V map; /* of the cache's rows */
  V warpgroup, warp;
  lane_place lane;
  ring_place at, turn; /* in the ring, and among the items' Q */
} scorer;

/* ---- items ---- */

/* Four tiles from number `first` on, and pages of chunk `chunk`; i32. */
typedef struct score_item {
  V first, chunk;
} score_item;

static V groups_of_step(emitter *e) {
  return to_i32(e, ceil_div(e, size_of(e, SLUICE_SIZE_TILES), TILES));
}

/* Pages of a chunk: as many as give each processor an item, a multiple of TOGETHER; i32. */
static V chunk_of_step(emitter *e) {
  V all = mul(e, to_i32(e, size_of(e, SLUICE_SIZE_PAGES)), groups_of_step(e));
  V share = udiv(e, all, int32(e, (int32_t)(e->facts->processors * TOGETHER)));
  return mul(e, imax(e, imin(e, share, int32(e, LARGEST_CHUNK / TOGETHER)), int32(e, 1)), int32(e, TOGETHER));
}

static V items_of_step(emitter *e) {
  V chunk = chunk_of_step(e), pages = to_i32(e, size_of(e, SLUICE_SIZE_PAGES));
  V chunks = udiv(e, sub(e, add(e, pages, chunk), int32(e, 1)), chunk);
  return to_i64(e, mul(e, groups_of_step(e), chunks));
}

static score_item find_item(emitter *e, V number) {
  V groups = groups_of_step(e), at = to_i32(e, number);
  return (score_item){.first = mul(e, urem(e, at, groups), int32(e, TILES)), .chunk = udiv(e, at, groups)};
}

/* A tile of the item: its place in SLUICE_INPUT_TILES, clamped to the last one. */
typedef struct score_tile {
  V first, count, sequence, position; /* i32: row of the first token, tokens, row of the page table, position */
  V real;                             /* i1: not clamped */
} score_tile;

static score_tile load_tile(emitter *e, const scorer *s, V number) {
  V last = sub(e, to_i32(e, size_of(e, SLUICE_SIZE_TILES)), int32(e, 1));
  V at = LLVMBuildZExt(e->builder, imin(e, number, last), e->i64, "");
  V entry = load(e, vector_type(e->i32, 4), element(e, e->i32, s->tiles, mul(e, at, int64(e, 4)))), part[4];
  for (int32_t i = 0; i < 4; i++) part[i] = LLVMBuildExtractElement(e->builder, entry, int32(e, i), "");
  return (score_tile){.first = part[0],
                      .count = part[1],
                      .sequence = part[2],
                      .position = part[3],
                      .real = icmp(e, LLVMIntSLE, number, last)};
}

/* Pages of the tile that are scored, the first so many: not where there is nothing to choose, nor those that are chosen
 * whatever their score. i32. */
static V scored_pages(emitter *e, const scorer *s, const score_tile *tile) {
  V last = sub(e, add(e, tile->position, tile->count), int32(e, 1));
  V seen = add(e, lshr(e, last, int32(e, 7)), int32(e, 1));
  V chosen = and_(e, tile->real, icmp(e, LLVMIntSGT, seen, int32(e, (int32_t)s->k)));
  return select_(e, chosen, imax(e, sub(e, seen, int32(e, (int32_t)s->local)), int32(e, 0)), int32(e, 0));
}

/* Tiles of an item that are of one sequence: from its number `from` to before `to`, and the pages of the chunk that any
 * of them has scored. i32. */
typedef struct score_run {
  V from, to, sequence, page, end;
} score_run;

static score_run find_run(emitter *e, const scorer *s, const score_item *item, V from) {
  V to = local_set(e, e->i32, from), pages = local_set(e, e->i32, int32(e, 0));
  score_tile head = load_tile(e, s, add(e, item->first, from));
  for (int32_t i = 0; i < TILES; i++) {
    score_tile tile = load_tile(e, s, add(e, item->first, int32(e, i)));
    V same = and_(e, icmp(e, LLVMIntEQ, get(e, e->i32, to), int32(e, i)), icmp(e, LLVMIntSGE, int32(e, i), from));
    /* Those that there are not belong to the last run. */
    same = and_(e, same,
                or_(e, icmp(e, LLVMIntEQ, tile.sequence, head.sequence), LLVMBuildNot(e->builder, tile.real, "")));
    set(e, to, select_(e, same, int32(e, i + 1), get(e, e->i32, to)));
    V scored = select_(e, same, scored_pages(e, s, &tile), int32(e, 0));
    set(e, pages, imax(e, get(e, e->i32, pages), scored));
  }
  V chunk = chunk_of_step(e), first = mul(e, item->chunk, chunk);
  return (score_run){.from = from,
                     .to = get(e, e->i32, to),
                     .sequence = head.sequence,
                     .page = first,
                     .end = imin(e, get(e, e->i32, pages), add(e, first, chunk))};
}

/* The runs of an item, one after the other: for producer and consumers alike. */
typedef void run_body(emitter *e, const scorer *s, const score_item *item, const score_run *run, void *user);

static void each_run(emitter *e, const scorer *s, const score_item *item, run_body *body, void *user) {
  V from = local_set(e, e->i32, int32(e, 0));
  LLVMBasicBlockRef look = LLVMAppendBasicBlockInContext(e->context, e->function, "run");
  LLVMBasicBlockRef done = LLVMAppendBasicBlockInContext(e->context, e->function, "runs");
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, look);
  score_run run = find_run(e, s, item, get(e, e->i32, from));
  branch some = if_begin(e, icmp(e, LLVMIntSLT, run.page, run.end));
  body(e, s, item, &run, user);
  if_end(e, &some);
  set(e, from, run.to);
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntSLT, run.to, int32(e, TILES)), look, done);
  LLVMPositionBuilderAtEnd(e->builder, done);
}

/* Whether any page of the item is scored. */
static V is_wanted(emitter *e, const scorer *s, const score_item *item) {
  V pages = int32(e, 0);
  for (int32_t i = 0; i < TILES; i++) {
    score_tile tile = load_tile(e, s, add(e, item->first, int32(e, i)));
    pages = imax(e, pages, scored_pages(e, s, &tile));
  }
  return icmp(e, LLVMIntSLT, mul(e, item->chunk, chunk_of_step(e)), pages);
}

/* ---- the producer ---- */

typedef struct query_rows {
  const scorer *s;
  V first, last; /* i64: rows of iq: a tile's first and last */
  V second_first, second_last;
} query_rows;

/* Row `number` of a plane: 64 of a tile, 64 of the next. Rows that there are not are the tile's last one. */
static V query_row(emitter *e, V number, void *user) {
  const query_rows *q = user;
  V second = icmp(e, LLVMIntSGE, number, int64(e, TILE_ROWS)), at = and_(e, number, int64(e, TILE_ROWS - 1));
  V first = select_(e, second, q->second_first, q->first), last = select_(e, second, q->second_last, q->last);
  return byte_offset(e, q->s->iq, mul(e, imin(e, add(e, first, at), last), int64(e, PLANE_ROW_BYTES)));
}

static void copy_queries(emitter *e, const scorer *s, const score_item *item, const plane_copier *c) {
  V turn = ring_stage(e, &s->turn);
  bulk_wait(e, barrier_at(e, s->queries_empty, turn), ring_room(e, &s->turn));
  V to = byte_offset(e, s->queries, mul(e, turn, int64(e, QUERY_BYTES)));
  for (int32_t plane = 0; plane < CONSUMERS; plane++) {
    V bound[2 * TILES_OF_GROUP];
    for (int32_t i = 0; i < TILES_OF_GROUP; i++) {
      score_tile tile = load_tile(e, s, add(e, item->first, int32(e, plane * TILES_OF_GROUP + i)));
      bound[2 * i] = mul(e, to_i64(e, tile.first), int64(e, s->heads));
      bound[2 * i + 1] = sub(e, add(e, bound[2 * i], mul(e, to_i64(e, tile.count), int64(e, s->heads))), int64(e, 1));
    }
    query_rows rows = {.s = s, .first = bound[0], .last = bound[1], .second_first = bound[2], .second_last = bound[3]};
    plane_copy_rows(e, c, byte_offset(e, to, int64(e, plane * PLANE_BYTES)), query_row, &rows);
  }
  copies_arrive(e, barrier_at(e, s->queries_full, turn));
  ring_step(e, &s->turn);
}

static V page_number(emitter *e, const scorer *s, const score_run *run, V page) {
  V row = mul(e, to_i64(e, run->sequence), size_of(e, SLUICE_SIZE_PAGE_STRIDE));
  V inside = imin(e, page, sub(e, run->end, int32(e, 1)));
  return load_i32(e, s->page_table, add(e, row, LLVMBuildZExt(e->builder, inside, e->i64, "")));
}

static void fill_run(emitter *e, const scorer *s, const score_item *item, const score_run *run, void *user) {
  (void)item;
  (void)user;
  V next = local_set(e, e->i64, page_number(e, s, run, run->page));
  loop page = loop_begin(e, to_i64(e, run->page), to_i64(e, run->end), int64(e, 1));
  V row = mul(e, get(e, e->i64, next), int64(e, s->page_bytes / PLANE_ROW_BYTES));
  row = to_i32(e, add(e, row, int64(e, s->index_offset / PLANE_ROW_BYTES)));
  set(e, next, page_number(e, s, run, to_i32(e, add(e, page.index, int64(e, 1))))); /* there when it is wanted */
  V stage = ring_stage(e, &s->at), full = barrier_at(e, s->full, stage);
  bulk_wait(e, barrier_at(e, s->empty, stage), ring_room(e, &s->at));
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  bulk_expect(e, full, int64(e, PLANE_BYTES));
  plane_fetch(e, s->map, byte_offset(e, s->ring, mul(e, stage, int64(e, PLANE_BYTES))), row, full);
  if_end(e, &first);
  ring_step(e, &s->at);
  loop_end(e, &page);
}

static void produce(emitter *e, const scorer *s) {
  registers_release(e, PRODUCER_REGISTERS);
  plane_copier c = plane_copier_open(e);
  loop number = loop_begin(e, e->x, items_of_step(e), extent_of(e, &e->grid[0]));
  score_item item = find_item(e, number.index);
  branch wanted = if_begin(e, is_wanted(e, s, &item));
  copy_queries(e, s, &item, &c);
  each_run(e, s, &item, fill_run, NULL);
  if_end(e, &wanted);
  loop_end(e, &number);
  copy_async_commit(e);
  copy_async_wait(e, 0);
}

/* ---- the consumers ---- */

/* One of a warpgroup's tiles. */
typedef struct scored_tile {
  wgmma_sums scores;
  V kept[2];    /* locals, f32: of rows g and g + 8, the maximum of the lane's page of four */
  V limit;      /* local, i32: pages that are stored, the first so many; 0 while the tile is of no run */
  V visible[2]; /* locals, i32: keys of the sequence that the row's token sees */
  V row[2];     /* locals, i32: rows of the scores, -1: there is no such row */
} scored_tile;

typedef struct reader {
  const scorer *s;
  V first_lane; /* i1 */
  scored_tile tile[TILES_OF_GROUP];
} reader;

static reader open_reader(emitter *e, const scorer *s) {
  reader r = {.s = s};
  r.first_lane = icmp(e, LLVMIntEQ, and_(e, e->atoms->lane(e), int64(e, WARPGROUP - 1)), int64(e, 0));
  for (unsigned i = 0; i < TILES_OF_GROUP; i++) {
    scored_tile *t = &r.tile[i];
    t->scores = wgmma_take(e, PAGE);
    t->limit = local_set(e, e->i32, int32(e, 0));
    for (unsigned k = 0; k < 2; k++) {
      t->kept[k] = local_set(e, e->f32, float32(e, 0));
      t->visible[k] = local_set(e, e->i32, int32(e, 0));
      t->row[k] = local_set(e, e->i32, int32(e, -1));
    }
  }
  return r;
}

/* What the lane has to know of tile `i` for a run. */
static void open_tile(emitter *e, const reader *r, const score_item *item, const score_run *run, unsigned i) {
  const scorer *s = r->s;
  const scored_tile *t = &r->tile[i];
  V number = add(e, mul(e, to_i32(e, s->warpgroup), int32(e, TILES_OF_GROUP)), int32(e, (int32_t)i));
  score_tile tile = load_tile(e, s, add(e, item->first, number));
  V inside = and_(e, icmp(e, LLVMIntSGE, number, run->from), icmp(e, LLVMIntSLT, number, run->to));
  set(e, t->limit, select_(e, inside, scored_pages(e, s, &tile), int32(e, 0)));
  for (unsigned k = 0; k < 2; k++) {
    V row = add(e, to_i32(e, add(e, mul(e, s->warp, int64(e, 16)), s->lane.g)), int32(e, (int32_t)(8 * k)));
    V token = udiv(e, row, int32(e, (int32_t)s->heads));
    V real = icmp(e, LLVMIntSLT, token, tile.count);
    V at = add(e, mul(e, tile.first, int32(e, (int32_t)s->heads)), row);
    set(e, t->row[k], select_(e, real, at, int32(e, -1)));
    set(e, t->visible[k], add(e, add(e, tile.position, token), int32(e, 1)));
  }
}

static void issue(emitter *e, const reader *r, unsigned i, V stage) {
  const scorer *s = r->s;
  V rows = add(e, mul(e, ring_stage(e, &s->turn), int64(e, QUERY_BYTES)), mul(e, s->warpgroup, int64(e, PLANE_BYTES)));
  rows = add(e, rows, int64(e, i * TILE_ROWS * SWIZZLE_ROW_BYTES));
  V q = renewed(e, wgmma_swizzled_operand(e, shared_address(e, byte_offset(e, s->queries, rows))));
  V ring = byte_offset(e, s->ring, mul(e, stage, int64(e, PLANE_BYTES)));
  V keys = renewed(e, wgmma_swizzled_operand(e, shared_address(e, ring)));
  wgmma_begin(e);
  for (unsigned step = 0; step < DIM / WGMMA_DEPTH; step++)
    wgmma(e, &r->tile[i].scores, wgmma_operand_at(e, q, plane_step(step)), wgmma_operand_at(e, keys, plane_step(step)),
          step > 0);
  wgmma_commit(e);
}

static void settle(emitter *e, const reader *r, unsigned i) {
  wgmma_wait(e, 0);
  wgmma_settle(e, &r->tile[i].scores);
}

/* Keys of the page that rows do not see. */
static void mask(emitter *e, const reader *r, const scored_tile *t, V page) {
  V before = mul(e, page, int32(e, PAGE)), left[2];
  for (unsigned k = 0; k < 2; k++)
    left[k] = sub(e, sub(e, get(e, e->i32, t->visible[k]), before), to_i32(e, mul(e, r->s->lane.t, int64(e, 2))));
  V partly = icmp(e, LLVMIntSLT, imin(e, left[0], left[1]), int32(e, PAGE));
  V votes[] = {int32(e, -1), partly};
  branch masks = if_begin(e, intrinsic(e, "llvm.nvvm.vote.any.sync", NULL, 0, votes, 2));
  for (unsigned i = 0; i < PAGE / 2; i++) {
    V sees = icmp(e, LLVMIntSGT, left[i / 2 % 2], int32(e, (int32_t)(i / 4 * 8 + i % 2)));
    V slot = t->scores.value[i];
    set(e, slot, select_(e, sees, get(e, e->f32, slot), float32(e, -INFINITY)));
  }
  if_end(e, &masks);
}

/* The largest of a row's scores, in all lanes of a quad: several chains at a time. */
static V largest(emitter *e, const scored_tile *t, unsigned k) {
  enum { CHAINS = 4 };
  V chain[CHAINS];
  for (unsigned i = 0; i < PAGE / 4; i++) {
    V score = get(e, e->f32, t->scores.value[i / 2 * 4 + 2 * k + i % 2]);
    chain[i % CHAINS] = i < CHAINS ? score : fmax_(e, chain[i % CHAINS], score);
  }
  V all = fmax_(e, fmax_(e, chain[0], chain[1]), fmax_(e, chain[2], chain[3]));
  for (unsigned distance = 1; distance < 4; distance *= 2) all = fmax_(e, all, exchange_f32(e, all, distance));
  return all;
}

/* The lanes' maxima of the four pages up to `page`. */
static void store_kept(emitter *e, const reader *r, const scored_tile *t, V page) {
  V own = or_(e, and_(e, page, int32(e, ~(TOGETHER - 1))), to_i32(e, r->s->lane.t));
  V real = and_(e, icmp(e, LLVMIntSLE, own, page), icmp(e, LLVMIntSLT, own, get(e, e->i32, t->limit)));
  for (unsigned k = 0; k < 2; k++) {
    V row = get(e, e->i32, t->row[k]);
    branch stores = if_begin(e, and_(e, real, icmp(e, LLVMIntSGE, row, int32(e, 0))));
    V at = add(e, mul(e, to_i64(e, row), size_of(e, SLUICE_SIZE_PAGES)), to_i64(e, own));
    store_f32(e, SLUICE_F32, get(e, e->f32, t->kept[k]), r->s->out, at);
    if_end(e, &stores);
  }
}

/* Brings a tile's scores of `page` (i32) to memory. */
static void reduce(emitter *e, const reader *r, unsigned i, V page, const score_run *run) {
  const scored_tile *t = &r->tile[i];
  mask(e, r, t, page);
  V mine = icmp(e, LLVMIntEQ, and_(e, page, int32(e, TOGETHER - 1)), to_i32(e, r->s->lane.t));
  for (unsigned k = 0; k < 2; k++) set(e, t->kept[k], select_(e, mine, largest(e, t, k), get(e, e->f32, t->kept[k])));
  V next = add(e, page, int32(e, 1));
  V ends = or_(e, icmp(e, LLVMIntEQ, and_(e, next, int32(e, TOGETHER - 1)), int32(e, 0)),
               icmp(e, LLVMIntEQ, next, run->end));
  branch stores = if_begin(e, ends);
  store_kept(e, r, t, page);
  if_end(e, &stores);
}

/* The first tile's products of the page in the stage at hand. */
static void open_page(emitter *e, const reader *r) {
  const scorer *s = r->s;
  V stage = ring_stage(e, &s->at);
  bulk_wait(e, barrier_at(e, s->full, stage), ring_parity(e, &s->at));
  issue(e, r, 0, stage);
}

/* Scores of page `page` (i64), whose first products are under way. While a tile's scores are looked at, the products of
 * the next one are under way; those of the page behind where there are `more`. */
static void read_page(emitter *e, const reader *r, const score_run *run, V page, bool more) {
  const scorer *s = r->s;
  V stage = ring_stage(e, &s->at), number = to_i32(e, page);
  settle(e, r, 0);
  issue(e, r, 1, stage);
  reduce(e, r, 0, number, run);
  settle(e, r, 1);
  branch first = if_begin(e, r->first_lane);
  bulk_arrive(e, barrier_at(e, s->empty, stage));
  if_end(e, &first);
  ring_step(e, &s->at);
  if (more) open_page(e, r);
  reduce(e, r, 1, number, run);
}

static void read_run(emitter *e, const scorer *s, const score_item *item, const score_run *run, void *user) {
  const reader *r = user;
  (void)s;
  for (unsigned i = 0; i < TILES_OF_GROUP; i++) open_tile(e, r, item, run, i);
  open_page(e, r);
  V last = to_i64(e, sub(e, run->end, int32(e, 1)));
  loop page = loop_begin(e, to_i64(e, run->page), last, int64(e, 1));
  read_page(e, r, run, page.index, true);
  loop_end(e, &page);
  read_page(e, r, run, last, false);
}

static void consume(emitter *e, scorer *s) {
  registers_claim(e, CONSUMER_REGISTERS);
  s->warpgroup = sub(e, s->warpgroup, int64(e, 1));
  reader r = open_reader(e, s);
  loop number = loop_begin(e, e->x, items_of_step(e), extent_of(e, &e->grid[0]));
  score_item item = find_item(e, number.index);
  branch wanted = if_begin(e, is_wanted(e, s, &item));
  bulk_wait(e, barrier_at(e, s->queries_full, ring_stage(e, &s->turn)), ring_parity(e, &s->turn));
  async_fence(e);
  each_run(e, s, &item, read_run, &r);
  branch first = if_begin(e, r.first_lane);
  bulk_arrive(e, barrier_at(e, s->queries_empty, ring_stage(e, &s->turn)));
  if_end(e, &first);
  ring_step(e, &s->turn);
  if_end(e, &wanted);
  loop_end(e, &number);
}

/* ---- the family ---- */

static bool read(emitter *e, scorer *s) {
  *s = (scorer){.heads = attribute(e, "heads"),
                .k = attribute(e, "k"),
                .local = attribute(e, "local"),
                .page_bytes = attribute(e, "page_bytes"),
                .index_offset = attribute(e, "index_offset"),
                .query_tile = attribute(e, "query_tile")};
  const int64_t dim = attribute(e, "dim"), page = attribute(e, "page");
  if (e->status) return false;
  if (attribute_dtype(e, "dtype") != SLUICE_BF16) return decline(e, "elements are f32, expected bf16");
  if (!attribute_is(e, "transposed", "values")) return decline(e, "pages hold keys transposed, expected values");
  if (dim != DIM) return decline(e, "index keys have %lld dimensions, expected %d", (long long)dim, DIM);
  if (page != PAGE) return decline(e, "pages have %lld tokens, expected %d", (long long)page, PAGE);
  if (s->query_tile * s->heads > TILE_ROWS)
    return decline(e, "a query tile has %lld rows, expected at most %d", (long long)(s->query_tile * s->heads),
                   TILE_ROWS);
  if (s->page_bytes % PLANE_ROW_BYTES || s->index_offset % PLANE_ROW_BYTES)
    return decline(e, "pages are not made of whole rows of %d bytes", PLANE_ROW_BYTES);
  return true;
}

static void init_barriers(emitter *e, const scorer *s) {
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  barriers_init(e, s->full, STAGES, 1);
  barriers_init(e, s->empty, STAGES, CONSUMERS);
  barriers_init(e, s->queries_full, QUERIES, WARPGROUP);
  barriers_init(e, s->queries_empty, QUERIES, CONSUMERS);
  if_end(e, &first);
  e->atoms->barrier(e);
}

/* Operands: iq, tiles, page_table, cache, maxima. */
bool nvptx_tile_score(emitter *e, const kernel_spec *spec) {
  scorer s;
  if (!read(e, &s)) return false;
  kernel_begin(e, spec, (kernel_shape){.x = {SLUICE_SIZE_ONE, 1, e->facts->processors, 0}, .lanes = LANES});
  s.iq = e->argument[0];
  s.tiles = e->argument[1];
  s.page_table = e->argument[2];
  s.cache = e->argument[3];
  s.out = e->argument[4];
  s.queries = workgroup_take(e, (uint64_t)QUERIES * QUERY_BYTES); /* first: a swizzle wants multiples of 1024 bytes */
  s.ring = workgroup_take(e, (uint64_t)STAGES * PLANE_BYTES);
  s.full = barriers_take(e, STAGES);
  s.empty = barriers_take(e, STAGES);
  s.queries_full = barriers_take(e, QUERIES);
  s.queries_empty = barriers_take(e, QUERIES);
  s.map = plane_map_make(e, s.cache, s.ring);
  init_barriers(e, &s);
  s.lane = lane_place_of(e);
  V warp = uniform_warp(e, &s.lane);
  s.warpgroup = lshr(e, warp, int64(e, 2));
  s.warp = and_(e, warp, int64(e, 3));
  s.at = ring_place_open(e, STAGES);
  s.turn = ring_place_open(e, QUERIES);
  branch role = if_begin(e, icmp(e, LLVMIntEQ, s.warpgroup, int64(e, 0)));
  produce(e, &s);
  if_else(e, &role);
  consume(e, &s);
  if_end(e, &role);
  kernel_end(e);
  return true;
}

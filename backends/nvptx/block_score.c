/* Scores of blocks of keys for sparse attention (m3.md 2.7, 2.8): family block_score with matrix instructions.
 *
 * In steps of few tokens all pages of index keys that are to be scored, tile after tile, are one line, of which each
 * workgroup takes an equal piece. The copy engine brings its pages to a ring in workgroup memory, some pages ahead; the
 * first of them before the kernel waits for the launch before it, as far as their keys were there before this step.
 *
 * With many tokens the keys come from the L2 cache, and a workgroup is a page and a tile: what counts is how many of
 * them run beside each other.
 *
 * A warp has 32 keys of a page, which are the m side of mma.m16n8k16. The queries of all heads and tokens of the tile
 * are the n side, 8 columns at a time. Scores never leave registers: what is kept is their maximum over the keys that a
 * token sees.
 */
#include "backends/common/attention.h"
#include "backends/nvptx/bulk.h"
#include "backends/nvptx/mma.h"
#include "backends/nvptx/skeletons.h"

#include <math.h>

enum {
  KEYS = 32,
  STEP = 32,
  MOST_STEPS = 4,
  /* More than half of a processor's memory, so that no two workgroups share one while others idle; and little enough
   * to leave room for a workgroup of the launch before or behind this one. */
  RING_BYTES = 116 * 1024,
  MOST_REGISTERS = 128, /* leaves room likewise */
  MOST_SLOTS = 8,
};

typedef struct scorer {
  int64_t heads, dim, k, local, page, page_bytes, index_offset, query_tile, workgroups;
  unsigned steps, warps;
  int64_t columns;           /* at most, rounded up to whole steps of 8 */
  int64_t slots, slot_bytes; /* of the ring */
  lane_place lane;
  V ring, barriers, source; /* source: what the lane that fills a slot copies to it next; a local */
} scorer;

/* A page's index keys. */
typedef struct page_keys {
  V keys;
  V arrival, parity; /* in workgroup memory, to which they are copied: see bulk_wait; NULL in global memory */
} page_keys;

/* A page to be scored: its tile's number and its own; locals. */
typedef struct cursor {
  V tile, page;
} cursor;

static V load_tile(emitter *e, V number, query_tile *tile) {
  V x = e->x;
  e->x = number;
  *tile = query_tile_load(e, e->argument[1], e->argument[2]);
  e->x = x;
  return add(e, tile->position, tile->count);
}

/* Pages of a tile that ends at position `end`: none where all its blocks are chosen anyway, else all but the last few,
 * which are. */
static V scored_pages(emitter *e, const scorer *s, V end) {
  V seen = visible_blocks(e, sub(e, end, int64(e, 1)), s->page);
  return select_(e, icmp(e, LLVMIntSGT, seen, int64(e, s->k)), imax(e, sub(e, seen, int64(e, s->local)), int64(e, 0)),
                 int64(e, 0));
}

/* Moves on to later tiles while `page` lies beyond its tile's last page. There must be such a page. */
static query_tile settle(emitter *e, const scorer *s, const cursor *at) {
  LLVMBasicBlockRef look = LLVMAppendBasicBlockInContext(e->context, e->function, "look");
  LLVMBasicBlockRef beyond = LLVMAppendBasicBlockInContext(e->context, e->function, "beyond");
  LLVMBasicBlockRef inside = LLVMAppendBasicBlockInContext(e->context, e->function, "inside");
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, look);
  query_tile tile;
  V number = get(e, e->i64, at->tile), page = get(e, e->i64, at->page);
  V pages = scored_pages(e, s, load_tile(e, number, &tile));
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntSLT, page, pages), inside, beyond);
  LLVMPositionBuilderAtEnd(e->builder, beyond);
  set(e, at->tile, add(e, number, int64(e, 1)));
  set(e, at->page, sub(e, page, pages));
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, inside);
  return tile;
}

static V warp_reduce(emitter *e, const char *name, V value) {
  V arguments[] = {value, int32(e, -1)};
  return intrinsic(e, name, NULL, 0, arguments, 2);
}

static V shuffle(emitter *e, const char *name, V value, int32_t lane, int32_t clamp) {
  V arguments[] = {int32(e, -1), value, int32(e, lane), int32(e, clamp)};
  return intrinsic(e, name, NULL, 0, arguments, 4);
}

/* i32: pages of tile `first` + lane. */
static V pages_of_lane(emitter *e, const scorer *s, V first, V tiles) {
  query_tile tile;
  V number = add(e, first, s->lane.lane);
  V pages = scored_pages(e, s, load_tile(e, imin(e, number, sub(e, tiles, int64(e, 1))), &tile));
  return to_i32(e, select_(e, icmp(e, LLVMIntSLT, number, tiles), pages, int64(e, 0)));
}

static V count_pages(emitter *e, const scorer *s, V tiles) {
  V own = local_set(e, e->i32, int32(e, 0));
  loop chunk = loop_begin(e, int64(e, 0), tiles, int64(e, 32));
  set(e, own, add(e, get(e, e->i32, own), pages_of_lane(e, s, chunk.index, tiles)));
  loop_end(e, &chunk);
  return to_i64(e, warp_reduce(e, "llvm.nvvm.redux.sync.add", get(e, e->i32, own)));
}

/* The page that `start` pages of all tiles lie before. Each warp finds it for itself: lanes add up the pages of 32
 * tiles at a time, and tiles whose sum does not exceed `start` are passed. */
static void find_page(emitter *e, const scorer *s, V tiles, V start, const cursor *out) {
  V passed = local_set(e, e->i32, int32(e, 0)), before = local_set(e, e->i32, int32(e, 0));
  V sum = local_set(e, e->i32, int32(e, 0)), wanted = to_i32(e, start);
  loop chunk = loop_begin(e, int64(e, 0), tiles, int64(e, 32));
  V up_to = pages_of_lane(e, s, chunk.index, tiles);
  for (int32_t distance = 1; distance < 32; distance *= 2) {
    V other = shuffle(e, "llvm.nvvm.shfl.sync.up.i32", up_to, distance, 0);
    V has = icmp(e, LLVMIntSGE, s->lane.lane, int64(e, distance));
    up_to = add(e, up_to, select_(e, has, other, int32(e, 0)));
  }
  up_to = add(e, up_to, get(e, e->i32, sum));
  V passes = icmp(e, LLVMIntULE, up_to, wanted);
  set(e, passed, add(e, get(e, e->i32, passed), LLVMBuildZExt(e->builder, passes, e->i32, "")));
  set(e, before, select_(e, passes, up_to, get(e, e->i32, before))); /* sums ascend */
  set(e, sum, shuffle(e, "llvm.nvvm.shfl.sync.idx.i32", up_to, 31, 31));
  loop_end(e, &chunk);
  V skipped = warp_reduce(e, "llvm.nvvm.redux.sync.umax", get(e, e->i32, before));
  set(e, out->tile, to_i64(e, warp_reduce(e, "llvm.nvvm.redux.sync.add", get(e, e->i32, passed))));
  set(e, out->page, sub(e, start, to_i64(e, skipped)));
}

static V slot_of(emitter *e, const scorer *s, V slot) {
  return byte_offset(e, s->ring, mul(e, slot, int64(e, s->slot_bytes)));
}

static V barrier_of(emitter *e, const scorer *s, V slot) {
  return byte_offset(e, s->barriers, mul(e, slot, int64(e, BULK_BARRIER_BYTES)));
}

/* The index keys of the page at `at` are what the lane copies next. */
static query_tile aim(emitter *e, const scorer *s, const cursor *at) {
  query_tile tile = settle(e, s, at);
  V page = cache_page(e, &tile, e->argument[3], get(e, e->i64, at->page), s->page_bytes);
  set(e, s->source, byte_offset(e, page, int64(e, s->index_offset)));
  return tile;
}

static void aim_at_following(emitter *e, const scorer *s, const cursor *at) {
  set(e, at->page, add(e, get(e, e->i64, at->page), int64(e, s->slots)));
  aim(e, s, at);
}

static void fill(emitter *e, const scorer *s, V slot) {
  bulk_copy(e, slot_of(e, s, slot), get(e, e->pointer, s->source), s->slot_bytes, barrier_of(e, s, slot));
}

/* The queries (columns) 8n + g of the tile, as B of each step. */
static void load_queries(emitter *e, const scorer *s, V first_query, V count, V n, V slots[MOST_STEPS][4]) {
  const lane_place *lane = &s->lane;
  V column = imin(e, add(e, mul(e, n, int64(e, 8)), lane->g), sub(e, count, int64(e, 1)));
  V row = byte_offset(e, first_query, add(e, mul(e, column, int64(e, s->dim * 2)), mul(e, lane->t, int64(e, 16))));
  for (unsigned step = 0; step < s->steps; step++) {
    words loaded = load_words(e, byte_offset(e, row, int64(e, step * STEP * 2)), false);
    for (unsigned i = 0; i < 4; i++) set(e, slots[step][i], loaded.word[i]);
  }
}

static V maximum_over_keys(emitter *e, V value) {
  for (unsigned distance = 4; distance < 32; distance *= 2) value = fmax_(e, value, exchange_f32(e, value, distance));
  return value;
}

/* The scores of the warp's 32 keys for all columns: their maxima to maxima[warp][column]. */
static void score_page(emitter *e, const scorer *s, const query_tile *tile, V number, const page_keys *from, V maxima) {
  const lane_place *lane = &s->lane;
  bool global = !from->parity;
  V queries = mul(e, tile->count, int64(e, s->heads)), first_row = mul(e, tile->first, int64(e, s->heads));
  V first_query = element_of(e, SLUICE_BF16, e->argument[0], mul(e, first_row, int64(e, s->dim)));
  V first_key = add(e, mul(e, lane->warp, int64(e, KEYS)), lane->g), blocks = ceil_div(e, queries, 8);
  V query[MOST_STEPS][4];
  for (unsigned step = 0; step < s->steps; step++)
    for (unsigned i = 0; i < 4; i++) query[step][i] = local(e, e->i32);
  if (!global) {
    load_queries(e, s, first_query, queries, int64(e, 0), query);
    bulk_wait(e, from->arrival, from->parity);
  }
  V mine = byte_offset(e, from->keys, add(e, mul(e, first_key, int64(e, s->dim * 2)), mul(e, lane->t, int64(e, 16))));
  words key[4][MOST_STEPS]; /* rows g, g + 8, g + 16, g + 24 of the warp's keys */
  for (unsigned step = 0; step < s->steps; step++)
    for (unsigned m = 0; m < 4; m++)
      key[m][step] = load_words(e, byte_offset(e, mine, int64(e, m * 8 * s->dim * 2 + step * STEP * 2)), global);
  if (global) load_queries(e, s, first_query, queries, int64(e, 0), query);

  V key_position = add(e, mul(e, number, int64(e, s->page)), first_key);
  loop n = loop_begin(e, int64(e, 0), blocks, int64(e, 1));
  V best[2] = {float32(e, -INFINITY), float32(e, -INFINITY)};
  V column = add(e, mul(e, n.index, int64(e, 8)), mul(e, lane->t, int64(e, 2)));
  V position[2], b[MOST_STEPS][4]; /* positions of the columns' tokens */
  for (unsigned i = 0; i < 2; i++)
    position[i] = add(e, tile->position, udiv(e, add(e, column, int64(e, i)), int64(e, s->heads)));
  for (unsigned step = 0; step < s->steps; step++)
    for (unsigned i = 0; i < 4; i++) b[step][i] = get(e, e->i32, query[step][i]);
  V sum[2][4]; /* two chains of products, side by side */
  for (unsigned m = 0; m < 2; m++)
    for (unsigned i = 0; i < 4; i++) sum[m][i] = float32(e, 0);
  for (unsigned step = 0; step < s->steps; step++)
    for (unsigned half = 0; half < 2; half++)
      for (unsigned m = 0; m < 2; m++) {
        const words *low = &key[2 * m][step], *high = &key[2 * m + 1][step];
        V a[] = {low->word[2 * half], high->word[2 * half], low->word[2 * half + 1], high->word[2 * half + 1]};
        mma_bf16(e, sum[m], a, &b[step][2 * half]);
      }
  branch more = if_begin(e, icmp(e, LLVMIntSLT, add(e, n.index, int64(e, 1)), blocks));
  load_queries(e, s, first_query, queries, add(e, n.index, int64(e, 1)), query);
  if_end(e, &more);
  for (unsigned m = 0; m < 2; m++)
    for (unsigned i = 0; i < 4; i++) {
      V at = add(e, key_position, int64(e, 16 * m + 8 * (i / 2)));
      V score = select_(e, icmp(e, LLVMIntSLE, at, position[i % 2]), sum[m][i], float32(e, -INFINITY));
      best[i % 2] = fmax_(e, best[i % 2], score);
    }
  V place = add(e, mul(e, lane->warp, int64(e, s->columns)), column);
  for (unsigned i = 0; i < 2; i++) {
    V over_keys = maximum_over_keys(e, best[i]);
    store_f32(e, SLUICE_F32, over_keys, maxima, add(e, place, int64(e, i))); /* the same from all lanes of one t */
  }
  loop_end(e, &n);
}

/* Writes the maxima over all warps. */
static void store_scores(emitter *e, const scorer *s, const query_tile *tile, V number, V maxima) {
  V pages = size_of(e, SLUICE_SIZE_PAGES), first_row = mul(e, tile->first, int64(e, s->heads));
  loop each = lane_loop(e, int64(e, 0), mul(e, tile->count, int64(e, s->heads)));
  V result = load_f32(e, SLUICE_F32, maxima, each.index, 1);
  for (unsigned w = 1; w < s->warps; w++)
    result = fmax_(e, result, load_f32(e, SLUICE_F32, maxima, add(e, each.index, int64(e, w * s->columns)), 1));
  store_f32(e, SLUICE_F32, result, e->argument[4], add(e, mul(e, add(e, first_row, each.index), pages), number));
  loop_end(e, &each);
}

static bool read(emitter *e, scorer *s) {
  *s = (scorer){.heads = attribute(e, "heads"),
                .dim = attribute(e, "dim"),
                .k = attribute(e, "k"),
                .local = attribute(e, "local"),
                .page = attribute(e, "page"),
                .page_bytes = attribute(e, "page_bytes"),
                .index_offset = attribute(e, "index_offset"),
                .query_tile = attribute(e, "query_tile"),
                .workgroups = attribute(e, "workgroups")};
  if (e->status || attribute_dtype(e, "dtype") != SLUICE_BF16 || !attribute_is(e, "transposed", "values")) return false;
  if (s->dim % STEP || s->dim > STEP * MOST_STEPS || s->page % KEYS || s->page > 1024) return false;
  s->steps = (unsigned)(s->dim / STEP);
  s->warps = (unsigned)(s->page / KEYS);
  s->columns = (s->query_tile * s->heads + 7) / 8 * 8;
  s->slot_bytes = s->page * s->dim * 2;
  s->slots = RING_BYTES / s->slot_bytes < MOST_SLOTS ? RING_BYTES / s->slot_bytes : MOST_SLOTS;
  if (s->slots < 2) s->workgroups = 0;
  return true;
}

/* A workgroup for a page and a tile. */
static void score_one_page(emitter *e, const scorer *s, V maxima) {
  V page = e->x;
  query_tile tile;
  V pages = scored_pages(e, s, load_tile(e, e->y, &tile));
  branch scored = if_begin(e, icmp(e, LLVMIntSLT, page, pages));
  V keys = byte_offset(e, cache_page(e, &tile, e->argument[3], page, s->page_bytes), int64(e, s->index_offset));
  score_page(e, s, &tile, page, &(page_keys){.keys = keys}, maxima);
  e->atoms->barrier(e);
  store_scores(e, s, &tile, page, maxima);
  if_end(e, &scored);
}

/* A workgroup for a piece of the line of all pages; `maxima` has room for two pages. */
static void score_piece(emitter *e, scorer *s, V maxima) {
  s->ring = workgroup_take(e, RING_BYTES);
  s->barriers = workgroup_take(e, (uint64_t)s->slots * BULK_BARRIER_BYTES);
  s->source = local(e, e->pointer);
  V tiles = size_of(e, SLUICE_SIZE_TILES), all = count_pages(e, s, tiles), zero = int64(e, 0);
  V first = udiv(e, mul(e, e->x, all), int64(e, s->workgroups));
  V last = udiv(e, mul(e, add(e, e->x, int64(e, 1)), all), int64(e, s->workgroups)), count = sub(e, last, first);
  const cursor scored = {.tile = local(e, e->i64), .page = local(e, e->i64)};
  const cursor filled = {.tile = local(e, e->i64), .page = local(e, e->i64)};
  find_page(e, s, tiles, first, &scored);

  /* A slot is filled by one lane of the last warp. Pages that this step writes to come after the wait: those from the
   * position of the sequence's first new token, at most `first` before the tile's. */
  V slot = s->lane.lane, of_last_warp = icmp(e, LLVMIntEQ, s->lane.warp, int64(e, s->warps - 1));
  V fills = and_(e, of_last_warp, icmp(e, LLVMIntSLT, slot, int64(e, s->slots)));
  V late = local_set(e, e->i1, LLVMConstInt(e->i1, 0, 0));
  branch filler = if_begin(e, fills);
  bulk_barrier_init(e, barrier_of(e, s, slot));
  branch used = if_begin(e, icmp(e, LLVMIntSLT, slot, count));
  set(e, filled.tile, get(e, e->i64, scored.tile));
  set(e, filled.page, add(e, get(e, e->i64, scored.page), slot));
  query_tile tile = aim(e, s, &filled);
  V settled = udiv(e, imax(e, sub(e, tile.position, tile.first), zero), int64(e, s->page));
  branch early = if_begin(e, icmp(e, LLVMIntSLT, get(e, e->i64, filled.page), settled));
  fill(e, s, slot);
  if_else(e, &early);
  set(e, late, LLVMConstInt(e->i1, 1, 0));
  if_end(e, &early);
  if_end(e, &used);
  if_end(e, &filler);
  e->atoms->wait(e);
  branch filled_late = if_begin(e, get(e, e->i1, late));
  fill(e, s, slot);
  if_end(e, &filled_late);
  branch aims = if_begin(e, and_(e, fills, icmp(e, LLVMIntSLT, add(e, slot, int64(e, s->slots)), count)));
  aim_at_following(e, s, &filled);
  if_end(e, &aims);
  e->atoms->barrier(e);

  loop n = loop_begin(e, zero, count, int64(e, 1));
  V place = urem(e, n.index, int64(e, s->slots));
  V maxima_here = element(e, e->f32, maxima, mul(e, and_(e, n.index, int64(e, 1)), int64(e, s->columns * s->warps)));
  tile = settle(e, s, &scored);
  V page = get(e, e->i64, scored.page);
  page_keys keys = {.keys = slot_of(e, s, place),
                    .arrival = barrier_of(e, s, place),
                    .parity = and_(e, udiv(e, n.index, int64(e, s->slots)), int64(e, 1))};
  score_page(e, s, &tile, page, &keys, maxima_here);
  e->atoms->barrier(e); /* the slot is read, and the maxima are written */
  V next = add(e, n.index, int64(e, s->slots)), following = add(e, next, int64(e, s->slots));
  V refills = and_(e, and_(e, fills, icmp(e, LLVMIntEQ, slot, place)), icmp(e, LLVMIntSLT, next, count));
  branch refill = if_begin(e, refills);
  fill(e, s, slot);
  branch again = if_begin(e, icmp(e, LLVMIntSLT, following, count));
  aim_at_following(e, s, &filled);
  if_end(e, &again);
  if_end(e, &refill);
  store_scores(e, s, &tile, page, maxima_here);
  set(e, scored.page, add(e, page, int64(e, 1)));
  loop_end(e, &n);
}

bool nvptx_block_score(emitter *e, const kernel_spec *spec) {
  scorer s;
  if (!read(e, &s)) return false;
  bool pieces = s.workgroups > 0;
  kernel_shape shape = {.lanes = s.warps * 32, .early = pieces};
  shape.x = pieces ? (sluice_plan_extent){SLUICE_SIZE_ONE, 1, (uint32_t)s.workgroups, 0}
                   : (sluice_plan_extent){SLUICE_SIZE_PAGE_STRIDE, 1, 1, 0};
  if (!pieces) shape.y = (sluice_plan_extent){SLUICE_SIZE_TILES, 1, 1, 0};
  kernel_begin(e, spec, shape);
  s.lane = lane_place_of(e);
  V maxima = workgroup_take(e, (uint64_t)(s.columns * s.warps) * (pieces ? 2 : 1) * sizeof(float)); /* [warp][column] */
  if (pieces) {
    most_registers(e, MOST_REGISTERS);
    score_piece(e, &s, maxima);
  } else {
    score_one_page(e, &s, maxima);
  }
  kernel_end(e);
  return true;
}

/* Scores of blocks of keys for sparse attention (m3.md 2.7, 2.8): family block_score with matrix instructions.
 *
 * Work is a line of items, a page of index keys and a query tile each; workgroups take them in turn. Each warp
 * has 32 of a page's keys, which are the m side of mma.m16n8k16 and stay in registers: every key is read once from
 * memory, all of a page's reads are in flight at once, and the next page's as soon as those at hand are multiplied. The
 * queries of all heads and tokens of the tile are the n side, 8 at a time. Scores never leave registers: what is kept
 * is their maximum over the keys that a token sees.
 *
 * Long contexts ask for as much cache as there is, which their reads in flight need, and their keys are the first to
 * leave the L2 cache. Short ones divide a processor's memory as attention does, so that both run on one at a time.
 *
 * Keys that were there before this step are read before the kernel waits for the launch before it, the first of them in
 * turns: a burst would stand in the queues before what that launch still reads.
 */
#include "backends/common/attention.h"
#include "backends/nvptx/mma.h"
#include "backends/nvptx/nvptx.h"
#include "backends/nvptx/own_kernels.h"

#include <math.h>

enum {
  KEYS = 32,
  STEP = 32,
  MOST_STEPS = 4,
  WORKGROUPS = 8448, /* sixteen times as many as run at once: a share of the items is done soon enough that ends are
                        even, and is long enough that starting is nothing; half as many for short
                        contexts */
};

/* When workgroups read early, in cycles from their start. Those numbered up to PACED, which start at once (two on each
 * of 132 processors), have a turn each. In a step of one tile, attention before it reads once, and for a short time:
 * then all but the first wait until that is over. Where it has one kv head, it leaves room for more of them. */
enum {
  TURN = 29,
  PACED = 264,
  ALONE_TURN = 22,
  ALONE_AT_ONCE = 64,
  ALONE_PAUSE = 4500,
  ALONE_PACED_ONE_HEAD = 400,
  ALONE_AT_ONCE_ONE_HEAD = 24,
};

typedef struct scorer {
  int64_t heads, dim, k, local, page, page_bytes, index_offset, query_tile;
  unsigned steps, warps;
  bool cache_first;
} scorer;

/* The queries (columns) 8n + g of the tile, as B of each step. */
static void load_queries(emitter *e, const scorer *s, V first_query, V count, V n, const lane_place *lane, words *out) {
  V column = imin(e, add(e, mul(e, n, int64(e, 8)), lane->g), sub(e, count, int64(e, 1)));
  V row = byte_offset(e, first_query, add(e, mul(e, column, int64(e, s->dim * 2)), mul(e, lane->t, int64(e, 16))));
  for (unsigned step = 0; step < s->steps; step++)
    out[step] = load_words(e, byte_offset(e, row, int64(e, step * STEP * 2)), READ);
}

/* What a lane has of its warp's keys: rows g, g + 8, g + 16, g + 24, words of each step; locals. */
typedef struct page_keys {
  V word[4][MOST_STEPS][4];
} page_keys;

static void load_keys(emitter *e, const scorer *s, V first, const page_keys *keys) {
  for (unsigned step = 0; step < s->steps; step++)
    for (unsigned m = 0; m < 4; m++) {
      V at = byte_offset(e, first, int64(e, m * 8 * s->dim * 2 + step * STEP * 2));
      load_words_into(e, at, s->cache_first ? READ_ONCE : READ_PAST_L1, keys->word[m][step]);
    }
}

static V clock_now(emitter *e) {
  return assembly(e, e->i64, "mov.u64 $0, %clock64;", "=l,~{memory}", NULL, 0, ASSEMBLY_EFFECT);
}

/* Sleeps until it is the turn of this workgroup, which began at clock `began`, among those that read early. */
static void await_turn(emitter *e, const scorer *s, V began) {
  V alone = icmp(e, LLVMIntEQ, size_of(e, SLUICE_SIZE_TILES), int64(e, 1));
  const int64_t most = s->heads == 1 ? ALONE_PACED_ONE_HEAD : PACED;
  const int64_t at_once = s->heads == 1 ? ALONE_AT_ONCE_ONE_HEAD : ALONE_AT_ONCE;
  V paced = select_(e, alone, int64(e, most), int64(e, PACED));
  V turn = select_(e, icmp(e, LLVMIntSLT, e->x, paced), e->x, int64(e, 0));
  V pause = select_(e, icmp(e, LLVMIntSLT, turn, int64(e, at_once)), int64(e, 0), int64(e, ALONE_PAUSE));
  V delay = select_(e, alone, add(e, mul(e, turn, int64(e, ALONE_TURN)), pause), mul(e, turn, int64(e, TURN)));
  V end = add(e, began, delay);
  LLVMBasicBlockRef look = LLVMAppendBasicBlockInContext(e->context, e->function, "early");
  LLVMBasicBlockRef nap = LLVMAppendBasicBlockInContext(e->context, e->function, "nap");
  LLVMBasicBlockRef there = LLVMAppendBasicBlockInContext(e->context, e->function, "there");
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, look);
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntSLT, clock_now(e), end), nap, there);
  LLVMPositionBuilderAtEnd(e->builder, nap);
  assembly(e, e->nothing, "nanosleep.u32 32;", "~{memory}", NULL, 0, ASSEMBLY_EFFECT); /* up to twice as long */
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, there);
}

/* A page of a tile that has to be scored: its number among all items, of which there may be none so large; the tile;
 * the page in its sequence; its keys. */
enum { NUMBER, FIRST, COUNT, POSITION, PAGE, ITEM_FIELDS };

typedef struct page_item {
  V field[ITEM_FIELDS]; /* i64 */
  V keys;
} page_item;

/* Locals that hold one; numbers take half the room. */
typedef struct item_slot {
  V field[ITEM_FIELDS]; /* i32 */
  V keys;
} item_slot;

static item_slot take_slot(emitter *e) {
  item_slot slot = {.keys = local(e, e->pointer)};
  for (unsigned i = 0; i < ITEM_FIELDS; i++) slot.field[i] = local(e, e->i32);
  return slot;
}

static page_item get_item(emitter *e, const item_slot *slot) {
  page_item item = {.keys = get(e, e->pointer, slot->keys)};
  for (unsigned i = 0; i < ITEM_FIELDS; i++) item.field[i] = to_i64(e, get(e, e->i32, slot->field[i]));
  return item;
}

static void set_item(emitter *e, const item_slot *slot, const page_item *item) {
  for (unsigned i = 0; i < ITEM_FIELDS; i++) set(e, slot->field[i], to_i32(e, item->field[i]));
  set(e, slot->keys, item->keys);
}

/* Workgroups of the launch: so far apart are the items of one. */
static V stride_of(emitter *e) {
  return extent_of(e, &e->grid[0]);
}

static V items_of_step(emitter *e) {
  return mul(e, size_of(e, SLUICE_SIZE_TILES), size_of(e, SLUICE_SIZE_PAGES));
}

static V is_item(emitter *e, V number) {
  return icmp(e, LLVMIntSLT, number, items_of_step(e));
}

/* The first of the workgroup's items from number `from` on that is wanted: not where there is nothing to choose, nor
 * beyond what the tile sees, nor where blocks are chosen whatever their score. */
static void find_item(emitter *e, const scorer *s, V from, const item_slot *slot) {
  LLVMBasicBlockRef look = LLVMAppendBasicBlockInContext(e->context, e->function, "look");
  LLVMBasicBlockRef inside = LLVMAppendBasicBlockInContext(e->context, e->function, "inside");
  LLVMBasicBlockRef found = LLVMAppendBasicBlockInContext(e->context, e->function, "found");
  LLVMBasicBlockRef beyond = LLVMAppendBasicBlockInContext(e->context, e->function, "beyond");
  LLVMBasicBlockRef end = LLVMAppendBasicBlockInContext(e->context, e->function, "end");
  set(e, slot->field[NUMBER], to_i32(e, from));
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, look);
  V number = to_i64(e, get(e, e->i32, slot->field[NUMBER]));
  LLVMBuildCondBr(e->builder, is_item(e, number), inside, end);
  LLVMPositionBuilderAtEnd(e->builder, inside);
  V pages = to_i32(e, size_of(e, SLUICE_SIZE_PAGES)), at = to_i32(e, number);
  V tile_number = udiv(e, at, pages), page = to_i64(e, sub(e, at, mul(e, tile_number, pages))), x = e->x;
  e->x = to_i64(e, tile_number);
  query_tile tile = query_tile_load(e, e->argument[1], e->argument[2]);
  e->x = x;
  V seen = udiv(e, add(e, add(e, tile.position, tile.count), int64(e, s->page - 1)), int64(e, s->page));
  V wanted =
      and_(e, icmp(e, LLVMIntSGT, seen, int64(e, s->k)), icmp(e, LLVMIntSLT, page, sub(e, seen, int64(e, s->local))));
  LLVMBuildCondBr(e->builder, wanted, found, beyond);
  LLVMPositionBuilderAtEnd(e->builder, beyond);
  set(e, slot->field[NUMBER], to_i32(e, add(e, number, stride_of(e))));
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, found);
  V keys = byte_offset(e, cache_page(e, &tile, e->argument[3], page, s->page_bytes), int64(e, s->index_offset));
  set_item(e, slot, &(page_item){.field = {number, tile.first, tile.count, tile.position, page}, .keys = keys});
  LLVMBuildBr(e->builder, end);
  LLVMPositionBuilderAtEnd(e->builder, end);
}

static V maximum_over_keys(emitter *e, V value) {
  for (unsigned distance = 4; distance < 32; distance *= 2) value = fmax_(e, value, exchange_f32(e, value, distance));
  return value;
}

/* The lane's part of a page's keys. */
static V own_keys(emitter *e, const scorer *s, const lane_place *lane, V keys) {
  V row = add(e, mul(e, lane->warp, int64(e, KEYS)), lane->g);
  return byte_offset(e, keys, add(e, mul(e, row, int64(e, s->dim * 2)), mul(e, lane->t, int64(e, 16))));
}

/* The largest of the warp's scores for each column, into maxima[warp][column]. */
static void score_keys(emitter *e, const scorer *s, const page_keys *keys, const page_item *item,
                       const lane_place *lane, V maxima, int64_t columns) {
  V queries = mul(e, item->field[COUNT], int64(e, s->heads)),
    first_row = mul(e, item->field[FIRST], int64(e, s->heads));
  V first_query = element_of(e, SLUICE_BF16, e->argument[0], mul(e, first_row, int64(e, s->dim)));
  V first_key = add(e, mul(e, lane->warp, int64(e, KEYS)), lane->g);
  V key_position = add(e, mul(e, item->field[PAGE], int64(e, s->page)), first_key);
  loop n = loop_begin(e, int64(e, 0), ceil_div(e, queries, 8), int64(e, 1));
  words query[MOST_STEPS];
  load_queries(e, s, first_query, queries, n.index, lane, query);
  V best[2] = {float32(e, -INFINITY), float32(e, -INFINITY)};
  V column = add(e, mul(e, n.index, int64(e, 8)), mul(e, lane->t, int64(e, 2)));
  V last[2]; /* of the columns' tokens: the last of the lane's keys that they see, counted from its first */
  for (unsigned i = 0; i < 2; i++) {
    V position = add(e, item->field[POSITION], udiv(e, add(e, column, int64(e, i)), int64(e, s->heads)));
    last[i] = to_i32(e, sub(e, position, key_position));
  }
  V sum[2][4];
  for (unsigned m = 0; m < 2; m++)
    for (unsigned i = 0; i < 4; i++) sum[m][i] = float32(e, 0);
  for (unsigned step = 0; step < s->steps; step++)
    for (unsigned half = 0; half < 2; half++)
      for (unsigned m = 0; m < 2; m++) { /* two sums in turn: a product does not wait for the one before */
        V a[4];
        for (unsigned i = 0; i < 4; i++) a[i] = get(e, e->i32, keys->word[2 * m + i % 2][step][2 * half + i / 2]);
        mma_bf16(e, sum[m], a, &query[step].word[2 * half]);
      }
  for (unsigned m = 0; m < 2; m++)
    for (unsigned i = 0; i < 4; i++) {
      V seen = icmp(e, LLVMIntSGE, last[i % 2], int32(e, (int32_t)(16 * m + 8 * (i / 2))));
      best[i % 2] = fmax_(e, best[i % 2], select_(e, seen, sum[m][i], float32(e, -INFINITY)));
    }
  V place = add(e, mul(e, lane->warp, int64(e, columns)), column);
  for (unsigned i = 0; i < 2; i++) {
    V over_keys = maximum_over_keys(e, best[i]);
    store_f32(e, SLUICE_F32, over_keys, maxima, add(e, place, int64(e, i))); /* the same from all lanes of one t */
  }
  loop_end(e, &n);
}

static void store_scores(emitter *e, const scorer *s, const page_item *item, V maxima, int64_t columns) {
  V pages = size_of(e, SLUICE_SIZE_PAGES), first_row = mul(e, item->field[FIRST], int64(e, s->heads));
  loop each = lane_loop(e, int64(e, 0), mul(e, item->field[COUNT], int64(e, s->heads)));
  V result = load_f32(e, SLUICE_F32, maxima, each.index, 1);
  for (unsigned w = 1; w < s->warps; w++)
    result = fmax_(e, result, load_f32(e, SLUICE_F32, maxima, add(e, each.index, int64(e, w * columns)), 1));
  store_f32(e, SLUICE_F32, result, e->argument[4],
            add(e, mul(e, add(e, first_row, each.index), pages), item->field[PAGE]));
  loop_end(e, &each);
}

static bool read_scorer(emitter *e, scorer *out) {
  scorer s = {.heads = attribute(e, "heads"),
              .dim = attribute(e, "dim"),
              .k = attribute(e, "k"),
              .local = attribute(e, "local"),
              .page = attribute(e, "page"),
              .page_bytes = attribute(e, "page_bytes"),
              .index_offset = attribute(e, "index_offset"),
              .query_tile = attribute(e, "query_tile"),
              .cache_first = attribute(e, "cache_first") != 0};
  if (e->status) return false;
  if (attribute_dtype(e, "dtype") != SLUICE_BF16) return decline(e, "elements are f32, expected bf16");
  if (!attribute_is(e, "transposed", "values")) return decline(e, "pages hold keys transposed, expected values");
  if (s.dim % STEP || s.dim > STEP * MOST_STEPS)
    return decline(e, "index keys have %lld dimensions, expected a multiple of %d, at most %d", (long long)s.dim, STEP,
                   STEP * MOST_STEPS);
  if (s.page % KEYS || s.page > 1024)
    return decline(e, "pages have %lld tokens, expected a multiple of %d, at most 1024", (long long)s.page, KEYS);
  s.steps = (unsigned)(s.dim / STEP);
  s.warps = (unsigned)(s.page / KEYS);
  *out = s;
  return true;
}

/* Registers of a lane with which two workgroups fit beside one of topk_attention's clusters. */
#define MOST_REGISTERS "120"

/* Keys of pages that this step does not write are read before the wait. */
static void load_first_keys(emitter *e, const scorer *s, const page_item *item, V mine, V began, page_keys *keys,
                            item_slot *next) {
  V settled = settled_pages(e, item->field[POSITION], item->field[FIRST], s->page);
  branch early = if_begin(e, icmp(e, LLVMIntSLT, item->field[PAGE], settled));
  await_turn(e, s, began);
  load_keys(e, s, mine, keys);
  find_item(e, s, add(e, item->field[NUMBER], stride_of(e)), next);
  await_previous(e);
  if_else(e, &early);
  await_previous(e);
  load_keys(e, s, mine, keys);
  find_item(e, s, add(e, item->field[NUMBER], stride_of(e)), next);
  if_end(e, &early);
}

bool nvptx_block_score(emitter *e, const kernel_spec *spec) {
  scorer s = {0};
  if (attribute(e, "many")) return nvptx_tile_score(e, spec);
  if (!read_scorer(e, &s)) return false;
  kernel_shape shape = {.x = {SLUICE_SIZE_TOKENS_PAGES, 1, 1, s.cache_first ? WORKGROUPS : WORKGROUPS / 2},
                        .lanes = s.warps * 32,
                        .begins_early = true,
                        .cache_first = s.cache_first};
  kernel_begin(e, spec, shape);
  nvptx_string_attribute(e, "nvvm.maxnreg", MOST_REGISTERS);
  V began = clock_now(e);
  lane_place lane = lane_place_of(e);
  item_slot now = take_slot(e), next = take_slot(e);
  find_item(e, &s, e->x, &now);
  page_item item = get_item(e, &now);
  V none = LLVMBuildNot(e->builder, is_item(e, item.field[NUMBER]), "");
  /* A workgroup without work ends at once, but for the first: the launch must not end before the one before it. */
  branch idle = if_begin(e, and_(e, icmp(e, LLVMIntEQ, e->x, int64(e, 0)), none));
  await_previous(e);
  if_end(e, &idle);
  branch scored = if_begin(e, is_item(e, item.field[NUMBER]));
  page_keys keys;
  for (unsigned m = 0; m < 4; m++)
    for (unsigned step = 0; step < s.steps; step++)
      for (unsigned i = 0; i < 4; i++) keys.word[m][step][i] = local(e, e->i32);
  V mine = own_keys(e, &s, &lane, item.keys);
  load_first_keys(e, &s, &item, mine, began, &keys, &next);

  const int64_t columns = (s.query_tile * s.heads + 7) / 8 * 8;
  V maxima = workgroup_take(e, (uint64_t)(columns * s.warps) * sizeof(float)); /* [warp][column] */
  LLVMBasicBlockRef again = LLVMAppendBasicBlockInContext(e->context, e->function, "again");
  LLVMBasicBlockRef done = LLVMAppendBasicBlockInContext(e->context, e->function, "done");
  LLVMBuildBr(e->builder, again);
  LLVMPositionBuilderAtEnd(e->builder, again);
  item = get_item(e, &now);
  score_keys(e, &s, &keys, &item, &lane, maxima, columns);
  page_item following = get_item(e, &next);
  V more = is_item(e, following.field[NUMBER]);
  branch goes_on = if_begin(e, more);
  load_keys(e, &s, own_keys(e, &s, &lane, following.keys), &keys);
  if_end(e, &goes_on);
  e->atoms->barrier(e);
  store_scores(e, &s, &item, maxima, columns);
  set_item(e, &now, &following);
  branch looks = if_begin(e, more);
  find_item(e, &s, add(e, following.field[NUMBER], stride_of(e)), &next);
  e->atoms->barrier(e); /* the maxima are read */
  if_end(e, &looks);
  LLVMBuildCondBr(e->builder, more, again, done);
  LLVMPositionBuilderAtEnd(e->builder, done);
  if_end(e, &scored);
  kernel_end(e);
  return true;
}

/* Attention of many tokens over the paged cache, at the rate of the tensor cores: families attention (all keys) and
 * block_attention (a list of blocks for each token).
 *
 * A workgroup stays on its processor and takes item after item: 8 neighbouring tokens of a query tile and a kv head. Of
 * its three warpgroups one brings data in and two multiply. Each of these has 4 tokens, a warp a token, and its 16 rows
 * are the token's query heads, so that which keys a row sees is the same in a warp.
 *
 *     producer      walks the pages that any of the 8 tokens wants, in ascending order, each once:
 *                   keys, values, keys, values, ... into a ring of stages in workgroup memory
 *     warpgroup     S = Q K of the next page runs in the tensor cores together with O = O + P V of this one; meanwhile
 *                   lanes turn S into the weights P. Pages that none of its 4 tokens wants it passes over
 *
 * Lists are merged as they are walked. A lane of a warp has some entries of one token's list; the next page is the
 * smallest entry of all lanes that is larger than the last one, and a vote says whose lists have it:
 *
 *     token 0:  3  7  9         page   3     7     8     9
 *     token 1:  3  8  9         tokens 0 1   0     1     0 1
 *
 * Softmax is the running one (Milakov and Gimelshein 2018; over tiles of keys Dao et al. 2022). The maximum that
 * weights are relative to moves on only when a larger one exceeds it by a factor of 2^8 (Dao's FlashAttention-4): until
 * then weights and sums stay far below what bf16 and f32 hold, and the sums need not be scaled.
 *
 * Planes are brought by the copy engine. Values nobody wrote yet may be NaN, which no weight of zero makes good. They
 * lie behind the last token's key: of such a plane the producer's lanes copy what was written, and fill up with zeros.
 */
#include "backends/common/attention.h"
#include "backends/nvptx/nvptx.h"
#include "backends/nvptx/own_kernels.h"
#include "backends/nvptx/planes.h"

#include <math.h>

enum {
  DIM = PLANE_COLUMNS,
  PAGE = PLANE_ROWS,
  TOKENS = 8, /* of an item */
  TOKEN_ROWS = 16,
  CONSUMERS = 2, /* warpgroups, 4 tokens each */
  ROWS = TOKENS * TOKEN_ROWS,
  GROUP_ROWS_BYTES = WGMMA_ROWS * SWIZZLE_ROW_BYTES,
  QUERIES = 2, /* items whose Q there is room for */
  STAGES = 5,
  LANES = (CONSUMERS + 1) * WARPGROUP,
  LANES_OF_TOKEN = WARP / TOKENS, /* that have a token's list */
  MOST_ENTRIES = 8,               /* of a list in a lane */
  PRODUCER_REGISTERS = 40,
  CONSUMER_REGISTERS = 232,
  LARGER = 8, /* log2 of the factor by which scores exceed the maximum at most */
};

typedef struct tiler {
  int64_t heads, kv_heads, group, page_bytes, value_offset, query_tile;
  int64_t k;    /* length of a list, 0: all pages */
  double scale; /* scale * log2(e) */
  V q, blocks, tiles, page_table, cache, out;
  V queries, ring, entries; /* workgroup memory; entries: i32 [STAGES][2], page and vote, beside keys */
  V full, empty, queries_full, queries_empty;
  V map;           /* of the cache's rows */
  lane_place lane; /* of the workgroup */
  V warpgroup, warp;
  ring_place at, turn; /* in the ring, and among the items' Q */
} tiler;

/* 8 tokens and a kv head. */
typedef struct work_item {
  V first, count, position; /* i64: row of the first token; tokens, may be none; position of the first */
  V page_table, kv_head;
} work_item;

static V stage_of(emitter *e, const tiler *a, V stage) {
  return byte_offset(e, a->ring, mul(e, stage, int64(e, PLANE_BYTES)));
}

static int64_t items_of_tile(const tiler *a) {
  return (a->query_tile + TOKENS - 1) / TOKENS;
}

static V items_of_step(emitter *e, const tiler *a) {
  return mul(e, size_of(e, SLUICE_SIZE_TILES), int64(e, items_of_tile(a) * a->kv_heads));
}

/* Items of a kv head follow each other, those with the longest contexts, the last tiles of a prompt, first. */
static work_item find_item(emitter *e, const tiler *a, V number) {
  V of_head = to_i32(e, mul(e, size_of(e, SLUICE_SIZE_TILES), int64(e, items_of_tile(a)))), at = to_i32(e, number);
  V kv_head = udiv(e, at, of_head), place = sub(e, sub(e, of_head, int32(e, 1)), urem(e, at, of_head));
  V x = e->x;
  e->x = to_i64(e, udiv(e, place, int32(e, (int32_t)items_of_tile(a))));
  query_tile tile = query_tile_load(e, a->tiles, a->page_table);
  e->x = x;
  V skipped = mul(e, to_i64(e, urem(e, place, int32(e, (int32_t)items_of_tile(a)))), int64(e, TOKENS));
  V count = imax(e, imin(e, sub(e, tile.count, skipped), int64(e, TOKENS)), int64(e, 0));
  return (work_item){.first = add(e, tile.first, skipped),
                     .count = count,
                     .position = add(e, tile.position, skipped),
                     .page_table = tile.page_table,
                     .kv_head = to_i64(e, kv_head)};
}

/* ---- the producer ---- */

/* The pages of an item in ascending order. */
typedef struct walk {
  V entry[MOST_ENTRIES]; /* locals, i32: of the lane's token's list, INT32_MAX where there is none */
  unsigned entries;
  V page, vote; /* locals, i32: the page at hand, INT32_MAX at the end; the lanes whose lists have it */
  V end;        /* i32: all pages: how many there are */
} walk;

static V entries_of_lane(emitter *e, const tiler *a, const work_item *item, V token, V part, unsigned i) {
  const unsigned entries = (unsigned)((a->k + LANES_OF_TOKEN - 1) / LANES_OF_TOKEN);
  V place = add(e, mul(e, part, int64(e, entries)), int64(e, i));
  V list = add(e, mul(e, add(e, item->first, token), int64(e, a->kv_heads)), item->kv_head);
  V value = load(e, e->i32, element(e, e->i32, a->blocks, add(e, mul(e, list, int64(e, a->k)), place)));
  V real = and_(e, icmp(e, LLVMIntSLT, place, int64(e, a->k)), icmp(e, LLVMIntSGE, value, int32(e, 0)));
  return select_(e, real, value, int32(e, INT32_MAX));
}

/* The next page of the lists after the one at hand. */
static void step_lists(emitter *e, const walk *w) {
  V last = get(e, e->i32, w->page), least = int32(e, INT32_MAX), all = int32(e, -1);
  for (unsigned i = 0; i < w->entries; i++) {
    V entry = get(e, e->i32, w->entry[i]);
    V later = select_(e, icmp(e, LLVMIntSGT, entry, last), entry, int32(e, INT32_MAX));
    least = imin(e, least, later);
  }
  V arguments[] = {least, all};
  V page = intrinsic(e, "llvm.nvvm.redux.sync.min", NULL, 0, arguments, 2), has = LLVMConstInt(e->i1, 0, 0);
  for (unsigned i = 0; i < w->entries; i++) has = or_(e, has, icmp(e, LLVMIntEQ, get(e, e->i32, w->entry[i]), page));
  V votes[] = {all, has};
  set(e, w->page, page);
  set(e, w->vote, intrinsic(e, "llvm.nvvm.vote.ballot.sync", NULL, 0, votes, 2));
}

static void step_walk(emitter *e, const tiler *a, const walk *w) {
  if (a->k) {
    step_lists(e, w);
    return;
  }
  V next = add(e, get(e, e->i32, w->page), int32(e, 1));
  set(e, w->page, select_(e, icmp(e, LLVMIntSLT, next, w->end), next, int32(e, INT32_MAX)));
}

static walk open_walk(emitter *e, const tiler *a, const work_item *item) {
  walk w = {.page = local_set(e, e->i32, int32(e, -1))};
  V lanes = mul(e, sub(e, int64(e, TOKENS), item->count), int64(e, LANES_OF_TOKEN));
  w.vote = local_set(e, e->i32, lshr(e, int32(e, -1), to_i32(e, lanes)));
  w.end = to_i32(e, visible_blocks(e, sub(e, add(e, item->position, item->count), int64(e, 1)), PAGE));
  if (a->k) {
    V token = lshr(e, a->lane.lane, int64(e, 2)), part = and_(e, a->lane.lane, int64(e, LANES_OF_TOKEN - 1));
    w.entries = (unsigned)((a->k + LANES_OF_TOKEN - 1) / LANES_OF_TOKEN);
    for (unsigned i = 0; i < w.entries; i++) w.entry[i] = local_set(e, e->i32, int32(e, INT32_MAX));
    branch real = if_begin(e, icmp(e, LLVMIntSLT, token, item->count));
    for (unsigned i = 0; i < w.entries; i++) set(e, w.entry[i], entries_of_lane(e, a, item, token, part, i));
    if_end(e, &real);
  }
  step_walk(e, a, &w);
  return w;
}

/* The page of the cache that the walk is at, if it is not at its end. */
static V page_at(emitter *e, const work_item *item, const walk *w) {
  V at = get(e, e->i32, w->page);
  at = select_(e, icmp(e, LLVMIntEQ, at, int32(e, INT32_MAX)), int32(e, 0), at);
  return load_i32(e, item->page_table, LLVMBuildZExt(e->builder, at, e->i64, ""));
}

static void await_room(emitter *e, const tiler *a) {
  bulk_wait(e, barrier_at(e, a->empty, ring_stage(e, &a->at)), ring_room(e, &a->at));
}

/* Row `number` of Q: a token's heads, the last of which stands for those that there are not, as the last token does. */
typedef struct query_rows {
  const tiler *a;
  const work_item *item;
} query_rows;

static V query_row(emitter *e, V number, void *user) {
  const query_rows *q = user;
  const tiler *a = q->a;
  V token = imin(e, lshr(e, number, int64(e, 4)), sub(e, q->item->count, int64(e, 1)));
  V head = imin(e, and_(e, number, int64(e, TOKEN_ROWS - 1)), int64(e, a->group - 1));
  head = add(e, head, mul(e, q->item->kv_head, int64(e, a->group)));
  V row = add(e, mul(e, add(e, q->item->first, token), int64(e, a->heads)), head);
  return byte_offset(e, a->q, mul(e, row, int64(e, PLANE_ROW_BYTES)));
}

static void copy_queries(emitter *e, const tiler *a, const work_item *item, const plane_copier *c) {
  V turn = ring_stage(e, &a->turn);
  bulk_wait(e, barrier_at(e, a->queries_empty, turn), ring_room(e, &a->turn));
  query_rows rows = {a, item};
  plane_copy_rows(e, c, byte_offset(e, a->queries, mul(e, turn, int64(e, PLANE_BYTES))), query_row, &rows);
  copies_arrive(e, barrier_at(e, a->queries_full, turn));
  ring_step(e, &a->turn);
}

/* Says beside the stage at hand what it holds, before its keys arrive. */
static void write_entry(emitter *e, const tiler *a, V page, V vote) {
  V stage = ring_stage(e, &a->at);
  V first = icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0));
  branch writes = if_begin(e, first);
  V pair[] = {page, vote};
  store(e, vector_of(e, pair, 2), byte_offset(e, a->entries, mul(e, stage, int64(e, 8))));
  if_end(e, &writes);
}

/* One lane of each warp says that the stage at hand is all there is, or will be when what it waits for has come. */
static void hand_over(emitter *e, const tiler *a) {
  branch first = if_begin(e, icmp(e, LLVMIntEQ, a->lane.lane, int64(e, 0)));
  bulk_arrive(e, barrier_at(e, a->full, ring_stage(e, &a->at)));
  if_end(e, &first);
  ring_step(e, &a->at);
}

/* The plane from row `row` (i32) of the cache on, to the stage at hand, which is free. */
static void fetch(emitter *e, const tiler *a, V row) {
  V stage = ring_stage(e, &a->at), full = barrier_at(e, a->full, stage);
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  bulk_expect(e, full, int64(e, PLANE_BYTES));
  plane_fetch(e, a->map, stage_of(e, a, stage), row, full);
  if_end(e, &first);
}

/* The same of values, of which only the first `keys` (i32) of each row were written. */
static void copy_values(emitter *e, const tiler *a, const plane_copier *c, V row, V keys) {
  V stage = ring_stage(e, &a->at), full = barrier_at(e, a->full, stage);
  V from = byte_offset(e, a->cache, mul(e, to_i64(e, row), int64(e, PLANE_ROW_BYTES)));
  V left = sub(e, keys, to_i32(e, mul(e, c->piece, int64(e, 8)))); /* piece p holds keys 8p to 8p + 7 */
  V bytes = imax(e, imin(e, mul(e, left, int32(e, 2)), int32(e, 16)), int32(e, 0));
  plane_copy(e, c, stage_of(e, a, stage), from, bytes);
  copy_async_commit(e);
  copy_async_wait(e, 0);
  async_fence(e);
  warp_barrier(e);
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  bulk_arrive(e, full);
  if_end(e, &first);
}

static void fill_item(emitter *e, const tiler *a, const work_item *item, const plane_copier *c) {
  copy_queries(e, a, item, c);
  walk w = open_walk(e, a, item);
  V next_page = local_set(e, e->i64, page_at(e, item, &w));
  V end = to_i32(e, add(e, item->position, item->count)); /* keys from here on nobody wrote */
  V plane = to_i32(e, mul(e, item->kv_head, int64(e, PLANE_ROWS)));
  LLVMBasicBlockRef look = LLVMAppendBasicBlockInContext(e->context, e->function, "walk");
  LLVMBasicBlockRef page = LLVMAppendBasicBlockInContext(e->context, e->function, "page");
  LLVMBasicBlockRef done = LLVMAppendBasicBlockInContext(e->context, e->function, "walked");
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, look);
  V number = get(e, e->i32, w.page), vote = get(e, e->i32, w.vote);
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntNE, number, int32(e, INT32_MAX)), page, done);
  LLVMPositionBuilderAtEnd(e->builder, page);
  V row = to_i32(e, mul(e, get(e, e->i64, next_page), int64(e, a->page_bytes / PLANE_ROW_BYTES)));
  V keys = add(e, row, plane), values = add(e, keys, int32(e, (int32_t)(a->value_offset / PLANE_ROW_BYTES)));
  step_walk(e, a, &w); /* early: what is loaded for the next page is there when it is wanted */
  set(e, next_page, page_at(e, item, &w));
  await_room(e, a);
  write_entry(e, a, number, vote);
  fetch(e, a, keys);
  hand_over(e, a);
  await_room(e, a);
  V written = sub(e, end, mul(e, number, int32(e, PAGE)));
  branch partly = if_begin(e, icmp(e, LLVMIntSLT, written, int32(e, PAGE)));
  copy_values(e, a, c, values, written);
  if_else(e, &partly);
  fetch(e, a, values);
  if_end(e, &partly);
  hand_over(e, a);
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, done);
  await_room(e, a);
  write_entry(e, a, int32(e, INT32_MAX), int32(e, 0));
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  bulk_arrive(e, barrier_at(e, a->full, ring_stage(e, &a->at)));
  if_end(e, &first);
  hand_over(e, a);
}

static void produce(emitter *e, const tiler *a) {
  registers_release(e, PRODUCER_REGISTERS);
  plane_copier c = plane_copier_open(e);
  loop number = loop_begin(e, e->x, items_of_step(e, a), extent_of(e, &e->grid[0]));
  work_item item = find_item(e, a, number.index);
  branch real = if_begin(e, icmp(e, LLVMIntSGT, item.count, int64(e, 0)));
  fill_item(e, a, &item, &c);
  if_end(e, &real);
  loop_end(e, &number);
  copy_async_commit(e);
  copy_async_wait(e, 0);
}

/* ---- the consumers ---- */

typedef struct attender {
  const tiler *a;
  V first_lane;               /* i1: the warp's */
  V token_lanes, group_lanes; /* i32: lanes of the walk that have the warp's token, and any of the warpgroup's */
  V position;                 /* i32: of the warp's token */
  wgmma_sums scores, output;
  V weight[PAGE / WGMMA_DEPTH][4];      /* locals, i32: P, as the instruction takes it */
  V maximum[2], sum[2];                 /* locals: rows g and g + 8; the sum is of the lane's own weights */
  V decay[2], decays;                   /* locals: what the output shrinks by, and whether it does */
  V pending, value_stage, value_parity; /* locals, i32: whether there are weights whose values were not added, and the
                                           place of these in the ring */
} attender;

/* By each warp: those of a warpgroup meet at its products alone, and one that passes over pages may be far ahead. */
static void release_stage(emitter *e, const attender *t, V stage) {
  branch first = if_begin(e, t->first_lane);
  bulk_arrive(e, barrier_at(e, t->a->empty, stage));
  if_end(e, &first);
}

static void multiply_keys(emitter *e, const attender *t, V stage) {
  const tiler *a = t->a;
  V rows =
      add(e, mul(e, ring_stage(e, &a->turn), int64(e, PLANE_BYTES)), mul(e, a->warpgroup, int64(e, GROUP_ROWS_BYTES)));
  V q = renewed(e, wgmma_swizzled_operand(e, shared_address(e, byte_offset(e, a->queries, rows))));
  V keys = renewed(e, wgmma_swizzled_operand(e, shared_address(e, stage_of(e, a, stage))));
  for (unsigned step = 0; step < DIM / WGMMA_DEPTH; step++) {
    wgmma(e, &t->scores, wgmma_operand_at(e, q, plane_step(step)), wgmma_operand_at(e, keys, plane_step(step)),
          step > 0);
  }
  wgmma_commit(e);
}

static void multiply_values(emitter *e, const attender *t) {
  V values =
      renewed(e, wgmma_swizzled_operand(e, shared_address(e, stage_of(e, t->a, local_number(e, t->value_stage)))));
  for (unsigned step = 0; step < PAGE / WGMMA_DEPTH; step++) {
    V weight[4];
    for (unsigned i = 0; i < 4; i++) weight[i] = get(e, e->i32, t->weight[step][i]);
    wgmma_registers(e, &t->output, weight, wgmma_operand_at(e, values, plane_step(step)));
  }
  wgmma_commit(e);
}

static void await_values(emitter *e, const attender *t) {
  bulk_wait(e, barrier_at(e, t->a->full, local_number(e, t->value_stage)), local_number(e, t->value_parity));
}

/* Keys of the page that the warp's token does not see: those behind its own, all when its list has not the page. */
static void mask_scores(emitter *e, const attender *t, V page, V vote) {
  V wanted = icmp(e, LLVMIntNE, and_(e, vote, t->token_lanes), int32(e, 0));
  V seen = select_(e, wanted, sub(e, t->position, mul(e, page, int32(e, PAGE))), int32(e, -1));
  branch partly = if_begin(e, icmp(e, LLVMIntSLT, seen, int32(e, PAGE - 1)));
  V left = sub(e, seen, to_i32(e, mul(e, t->a->lane.t, int64(e, 2))));
  for (unsigned i = 0; i < PAGE / 2; i++) {
    V sees = icmp(e, LLVMIntSGE, left, int32(e, (int32_t)(i / 4 * 8 + i % 2)));
    V slot = t->scores.value[i];
    set(e, slot, select_(e, sees, get(e, e->f32, slot), float32(e, -INFINITY)));
  }
  if_end(e, &partly);
}

/* Moves the rows' maxima on where a score exceeds one of the warp's by a factor of 2^LARGER. */
static void move_maxima(emitter *e, const attender *t) {
  V highest[2], grows = NULL;
  for (unsigned r = 0; r < 2; r++) {
    highest[r] = get(e, e->f32, t->scores.value[2 * r]);
    for (unsigned i = 1; i < PAGE / 4; i++)
      highest[r] = fmax_(e, highest[r], get(e, e->f32, t->scores.value[i / 2 * 4 + 2 * r + i % 2]));
    for (unsigned distance = 1; distance < 4; distance *= 2)
      highest[r] = fmax_(e, highest[r], exchange_f32(e, highest[r], distance));
    V before = get(e, e->f32, t->maximum[r]);
    V larger = fcmp(e, LLVMRealOGT, highest[r], fadd_(e, before, float32(e, (double)LARGER / t->a->scale)));
    grows = grows ? or_(e, grows, larger) : larger;
  }
  V arguments[] = {int32(e, -1), grows};
  set(e, t->decays, intrinsic(e, "llvm.nvvm.vote.any.sync", NULL, 0, arguments, 2));
  branch moves = if_begin(e, get(e, e->i1, t->decays));
  for (unsigned r = 0; r < 2; r++) {
    V before = get(e, e->f32, t->maximum[r]), after = fmax_(e, before, highest[r]);
    V difference = fmul_(e, fsub_(e, before, after), float32(e, t->a->scale));
    V none = fcmp(e, LLVMRealOEQ, before, float32(e, -INFINITY)); /* not -inf - -inf */
    V decay = select_(e, none, float32(e, 0), e->atoms->exp2(e, difference));
    set(e, t->decay[r], decay);
    set(e, t->sum[r], fmul_(e, get(e, e->f32, t->sum[r]), decay));
    set(e, t->maximum[r], after);
  }
  if_end(e, &moves);
}

/* Scores become weights, relative to the maxima, and are added up. */
static void weigh_scores(emitter *e, const attender *t) {
  V shift[2];
  for (unsigned r = 0; r < 2; r++) {
    V maximum = get(e, e->f32, t->maximum[r]);
    V none = fcmp(e, LLVMRealOEQ, maximum, float32(e, -INFINITY));
    shift[r] = fmul_(e, select_(e, none, float32(e, 0), maximum), float32(e, -t->a->scale));
  }
  for (unsigned i = 0; i < PAGE / 2; i++) {
    const unsigned r = i / 2 % 2;
    V score = get(e, e->f32, t->scores.value[i]);
    V weight = exp2_flushed(e, fma_(e, score, float32(e, t->a->scale), shift[r]));
    set(e, t->scores.value[i], weight);
    set(e, t->sum[r], fadd_(e, get(e, e->f32, t->sum[r]), weight));
  }
}

static void weigh(emitter *e, const attender *t, V page, V vote) {
  mask_scores(e, t, page, vote);
  move_maxima(e, t);
  weigh_scores(e, t);
}

static void settle_output(emitter *e, const attender *t) {
  wgmma_wait(e, 0);
  wgmma_settle(e, &t->output);
}

/* Waits for the products under way, and shrinks the output where the maxima moved. The wait stands on both sides of the
 * branch, which ends the block of the exponentials: ptxas moves a wait in front of those that stand in one block with
 * it, and then nothing runs beside the products. */
static void await_output(emitter *e, const attender *t) {
  branch shrinks = if_begin(e, get(e, e->i1, t->decays));
  settle_output(e, t);
  for (unsigned i = 0; i < DIM / 2; i++) {
    V value = get(e, e->f32, t->output.value[i]);
    set(e, t->output.value[i], fmul_(e, value, get(e, e->f32, t->decay[i / 2 % 2])));
  }
  if_else(e, &shrinks);
  settle_output(e, t);
  if_end(e, &shrinks);
}

/* Behind the products that used the weights before. */
static void take_weights(emitter *e, const attender *t) {
  for (unsigned step = 0; step < PAGE / WGMMA_DEPTH; step++)
    for (unsigned i = 0; i < 4; i++) {
      const unsigned first = 8 * step + 2 * i;
      V low = get(e, e->f32, t->scores.value[first]), high = get(e, e->f32, t->scores.value[first + 1]);
      set(e, t->weight[step][i], pack_bf16(e, low, high));
    }
}

/* Where the values of the page at hand, whose keys lie in the stage at hand, will be. */
static void note_values(emitter *e, const attender *t) {
  ring_step(e, &t->a->at);
  set(e, t->value_stage, get(e, e->i32, t->a->at.stage));
  set(e, t->value_parity, get(e, e->i32, t->a->at.parity));
  set(e, t->pending, int32(e, 1));
  ring_step(e, &t->a->at);
}

/* Weights of a page while no product is under way. */
static void attend_first(emitter *e, const attender *t, V page, V vote) {
  V stage = ring_stage(e, &t->a->at);
  wgmma_begin(e);
  multiply_keys(e, t, stage);
  wgmma_wait(e, 0);
  wgmma_settle(e, &t->scores);
  release_stage(e, t, stage);
  weigh(e, t, page, vote);
  await_output(e, t);
  take_weights(e, t);
  note_values(e, t);
}

/* Weights of a page, beside the values of the one before. */
static void attend_next(emitter *e, const attender *t, V page, V vote) {
  V stage = ring_stage(e, &t->a->at);
  await_values(e, t);
  wgmma_begin(e);
  multiply_keys(e, t, stage);
  multiply_values(e, t);
  wgmma_wait(e, 1);
  wgmma_settle(e, &t->scores);
  release_stage(e, t, stage);
  weigh(e, t, page, vote);
  await_output(e, t);
  release_stage(e, t, local_number(e, t->value_stage));
  take_weights(e, t);
  note_values(e, t);
}

static void add_pending(emitter *e, const attender *t) {
  await_values(e, t);
  wgmma_begin(e);
  multiply_values(e, t);
  settle_output(e, t);
  release_stage(e, t, local_number(e, t->value_stage));
  set(e, t->pending, int32(e, 0));
}

/* Keys and values of a page that nobody here wants. Both have arrived when they are released: an early arrival would
 * count for the turn before. */
static void pass_over(emitter *e, const attender *t) {
  for (unsigned plane = 0; plane < 2; plane++) {
    V stage = ring_stage(e, &t->a->at);
    if (plane) bulk_wait(e, barrier_at(e, t->a->full, stage), ring_parity(e, &t->a->at));
    release_stage(e, t, stage);
    ring_step(e, &t->a->at);
  }
}

/* The ring's next page; i1: whether there is one. */
static V attend_page(emitter *e, const attender *t) {
  V stage = ring_stage(e, &t->a->at);
  bulk_wait(e, barrier_at(e, t->a->full, stage), ring_parity(e, &t->a->at));
  V entry = load(e, vector_type(e->i32, 2), byte_offset(e, t->a->entries, mul(e, stage, int64(e, 8))));
  V page = LLVMBuildExtractElement(e->builder, entry, int32(e, 0), "");
  V vote = LLVMBuildExtractElement(e->builder, entry, int32(e, 1), "");
  V wanted = icmp(e, LLVMIntNE, and_(e, vote, t->group_lanes), int32(e, 0));
  branch pending = if_begin(e, icmp(e, LLVMIntNE, get(e, e->i32, t->pending), int32(e, 0)));
  branch both = if_begin(e, wanted);
  attend_next(e, t, page, vote);
  if_else(e, &both);
  add_pending(e, t);
  if_end(e, &both);
  if_else(e, &pending);
  branch one = if_begin(e, wanted);
  attend_first(e, t, page, vote);
  if_end(e, &one);
  if_end(e, &pending);
  V more = icmp(e, LLVMIntNE, page, int32(e, INT32_MAX));
  branch unwanted = if_begin(e, and_(e, more, LLVMBuildNot(e->builder, wanted, "")));
  pass_over(e, t);
  if_end(e, &unwanted);
  return more;
}

/* Rows g and g + 8 are heads; 16 bytes of each for a lane at a time. */
static void store_output(emitter *e, const attender *t, const work_item *item, V token) {
  const tiler *a = t->a;
  for (unsigned r = 0; r < 2; r++) {
    V sum = get(e, e->f32, t->sum[r]);
    for (unsigned distance = 1; distance < 4; distance *= 2) sum = fadd_(e, sum, exchange_f32(e, sum, distance));
    /* A token without any block has no weights: its output is zero. */
    V none = fcmp(e, LLVMRealOEQ, sum, float32(e, 0));
    V factor = select_(e, none, float32(e, 0), fdiv_(e, float32(e, 1), sum));
    V head = add(e, a->lane.g, int64(e, 8 * r));
    V real = and_(e, icmp(e, LLVMIntSLT, head, int64(e, a->group)), icmp(e, LLVMIntSLT, token, item->count));
    V row = add(e, mul(e, add(e, item->first, token), int64(e, a->heads)), mul(e, item->kv_head, int64(e, a->group)));
    V to = byte_offset(e, a->out,
                       add(e, mul(e, add(e, row, head), int64(e, PLANE_ROW_BYTES)), mul(e, a->lane.t, int64(e, 16))));
    for (unsigned four = 0; four < DIM / 32; four++) {
      V word[4];
      for (unsigned i = 0; i < 4; i++) {
        const unsigned at = 4 * (four * 4 + i) + 2 * r;
        V low = fmul_(e, get(e, e->f32, t->output.value[at]), factor);
        word[i] = pack_bf16(e, low, fmul_(e, get(e, e->f32, t->output.value[at + 1]), factor));
      }
      exchange_in_quad(e, &a->lane, word);
      branch stores = if_begin(e, real);
      LLVMSetAlignment(LLVMBuildStore(e->builder, vector_of(e, word, 4), byte_offset(e, to, int64(e, four * 64))), 16);
      if_end(e, &stores);
    }
  }
}

static void open_attender(emitter *e, attender *t) {
  t->scores = wgmma_take(e, PAGE);
  t->output = wgmma_take(e, DIM);
  for (unsigned step = 0; step < PAGE / WGMMA_DEPTH; step++)
    for (unsigned i = 0; i < 4; i++) t->weight[step][i] = local(e, e->i32);
  for (unsigned r = 0; r < 2; r++) {
    t->maximum[r] = local(e, e->f32);
    t->sum[r] = local(e, e->f32);
    t->decay[r] = local_set(e, e->f32, float32(e, 1));
  }
  t->decays = local(e, e->i1);
  t->pending = local(e, e->i32);
  t->value_stage = local_set(e, e->i32, int32(e, 0));
  t->value_parity = local_set(e, e->i32, int32(e, 0));
}

static void attend_item(emitter *e, attender *t, const work_item *item) {
  const tiler *a = t->a;
  V token = add(e, mul(e, a->warpgroup, int64(e, TOKENS / CONSUMERS)), a->warp);
  V lanes = int32(e, (1 << LANES_OF_TOKEN) - 1);
  t->token_lanes = shl(e, lanes, to_i32(e, mul(e, token, int64(e, LANES_OF_TOKEN))));
  t->group_lanes = shl(e, int32(e, 0xffff), to_i32(e, mul(e, a->warpgroup, int64(e, WARP / CONSUMERS))));
  t->position = to_i32(e, add(e, item->position, token));
  wgmma_set_zero(e, &t->output);
  for (unsigned r = 0; r < 2; r++) {
    set(e, t->maximum[r], float32(e, -INFINITY));
    set(e, t->sum[r], float32(e, 0));
  }
  set(e, t->pending, int32(e, 0));
  bulk_wait(e, barrier_at(e, a->queries_full, ring_stage(e, &a->turn)), ring_parity(e, &a->turn));
  async_fence(e);
  LLVMBasicBlockRef again = LLVMAppendBasicBlockInContext(e->context, e->function, "again");
  LLVMBasicBlockRef done = LLVMAppendBasicBlockInContext(e->context, e->function, "attended");
  LLVMBuildBr(e->builder, again);
  LLVMPositionBuilderAtEnd(e->builder, again);
  V more = attend_page(e, t);
  LLVMBuildCondBr(e->builder, more, again, done);
  LLVMPositionBuilderAtEnd(e->builder, done);
  release_stage(e, t, ring_stage(e, &a->at)); /* that of the end */
  ring_step(e, &a->at);
  branch first = if_begin(e, t->first_lane);
  bulk_arrive(e, barrier_at(e, a->queries_empty, ring_stage(e, &a->turn)));
  if_end(e, &first);
  ring_step(e, &a->turn);
}

/* What the item is, and who the lane, is found out again: so it needs no registers meanwhile. */
static void finish_item(emitter *e, const attender *t, V number) {
  tiler a = *t->a;
  attender again = *t;
  again.a = &a;
  a.lane = lane_place_from(e, renewed(e, e->atoms->lane(e)));
  V token = sub(e, a.lane.warp, int64(e, WARPGROUP / WARP));
  work_item item = find_item(e, &a, renewed(e, number));
  store_output(e, &again, &item, token);
}

static void consume(emitter *e, tiler *a) {
  registers_claim(e, CONSUMER_REGISTERS);
  a->warpgroup = sub(e, a->warpgroup, int64(e, 1));
  attender t = {.a = a};
  t.first_lane = icmp(e, LLVMIntEQ, a->lane.lane, int64(e, 0));
  open_attender(e, &t);
  loop number = loop_begin(e, e->x, items_of_step(e, a), extent_of(e, &e->grid[0]));
  work_item item = find_item(e, a, number.index);
  branch real = if_begin(e, icmp(e, LLVMIntSGT, item.count, int64(e, 0)));
  attend_item(e, &t, &item);
  finish_item(e, &t, number.index);
  if_end(e, &real);
  loop_end(e, &number);
}

/* ---- families ---- */

static bool read(emitter *e, tiler *a) {
  a->heads = attribute(e, "heads");
  a->kv_heads = attribute(e, "kv_heads");
  a->page_bytes = attribute(e, "page_bytes");
  a->value_offset = attribute(e, "value_offset");
  a->query_tile = attribute(e, "query_tile");
  a->scale = attribute_float(e, "scale") * LOG2_E;
  const int64_t head_dim = attribute(e, "head_dim"), page = attribute(e, "page");
  if (e->status) return false;
  if (attribute_dtype(e, "dtype") != SLUICE_BF16) return decline(e, "elements are f32, expected bf16");
  if (!attribute_is(e, "transposed", "values")) return decline(e, "pages hold keys transposed, expected values");
  if (head_dim != DIM) return decline(e, "heads have %lld dimensions, expected %d", (long long)head_dim, DIM);
  if (page != PAGE) return decline(e, "pages have %lld tokens, expected %d", (long long)page, PAGE);
  if (a->page_bytes % PLANE_ROW_BYTES || a->value_offset % PLANE_ROW_BYTES)
    return decline(e, "pages are not made of whole rows of %d bytes", PLANE_ROW_BYTES);
  if (a->scale <= 0) return decline(e, "the scale is %g, expected more than 0", a->scale);
  a->group = a->heads / a->kv_heads;
  if (a->group > TOKEN_ROWS)
    return decline(e, "a kv head has %lld query heads, expected at most %d", (long long)a->group, TOKEN_ROWS);
  if (a->k > (int64_t)MOST_ENTRIES * LANES_OF_TOKEN)
    return decline(e, "lists have %lld blocks, expected at most %d", (long long)a->k, MOST_ENTRIES * LANES_OF_TOKEN);
  return true;
}

static void init_barriers(emitter *e, const tiler *a) {
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  barriers_init(e, a->full, STAGES, WARPGROUP / WARP + 1); /* a lane of each warp, and the one that fetches */
  barriers_init(e, a->empty, STAGES, CONSUMERS * WARPGROUP / WARP);
  barriers_init(e, a->queries_full, QUERIES, WARPGROUP);
  barriers_init(e, a->queries_empty, QUERIES, CONSUMERS * WARPGROUP / WARP);
  if_end(e, &first);
  e->atoms->barrier(e);
}

static void emit_kernel(emitter *e, const kernel_spec *spec, tiler *a, unsigned operands_before_tiles) {
  kernel_begin(e, spec, (kernel_shape){.x = {SLUICE_SIZE_ONE, 1, e->facts->processors, 0}, .lanes = LANES});
  V *argument = e->argument + operands_before_tiles;
  a->q = e->argument[0];
  if (a->k) a->blocks = e->argument[1];
  a->tiles = argument[0];
  a->page_table = argument[1];
  a->cache = argument[2];
  a->out = argument[3];
  a->queries = workgroup_take(e, (uint64_t)QUERIES * PLANE_BYTES); /* first: a swizzle wants multiples of 1024 bytes */
  a->ring = workgroup_take(e, (uint64_t)STAGES * PLANE_BYTES);
  a->entries = workgroup_take(e, (uint64_t)STAGES * 8);
  a->full = barriers_take(e, STAGES);
  a->empty = barriers_take(e, STAGES);
  a->queries_full = barriers_take(e, QUERIES);
  a->queries_empty = barriers_take(e, QUERIES);
  a->map = plane_map_make(e, a->cache, a->ring);
  init_barriers(e, a);
  a->lane = lane_place_of(e);
  V warp = uniform_warp(e, &a->lane);
  a->warpgroup = lshr(e, warp, int64(e, 2));
  a->warp = and_(e, warp, int64(e, 3));
  a->at = ring_place_open(e, STAGES);
  a->turn = ring_place_open(e, QUERIES);
  branch role = if_begin(e, icmp(e, LLVMIntEQ, a->warpgroup, int64(e, 0)));
  produce(e, a);
  if_else(e, &role);
  consume(e, a);
  if_end(e, &role);
  kernel_end(e);
}

/* Operands: q, tiles, page_table, cache, out. */
bool nvptx_tile_attention(emitter *e, const kernel_spec *spec) {
  tiler a = {.k = 0};
  if (!read(e, &a)) return false;
  emit_kernel(e, spec, &a, 1);
  return true;
}

/* Operands: q, blocks, tiles, page_table, cache, out. */
bool nvptx_tile_block_attention(emitter *e, const kernel_spec *spec) {
  tiler a = {.k = attribute(e, "k")};
  if (!read(e, &a)) return false;
  emit_kernel(e, spec, &a, 2);
  return true;
}

/* Scores of blocks of keys for sparse attention (m3.md 2.7, 2.8): family block_score with matrix instructions.
 *
 * A workgroup is a page of index keys and a query tile. Each warp has 32 keys, which are the m side of mma.m16n8k16 and
 * stay in registers: every key is read once from memory, all of a page's reads are in flight at once. The queries of
 * all heads and tokens of the tile are the n side, 8 at a time. Scores never leave registers: what is kept is their
 * maximum over the keys that a token sees.
 *
 * Keys that were there before this step are read before the kernel waits for the launch before it, the first of them no
 * faster than memory delivers: a burst would stand in the queues before what that launch still reads.
 */
#include "backends/common/attention.h"
#include "backends/nvptx/mma.h"
#include "backends/nvptx/nvptx.h"
#include "backends/nvptx/skeletons.h"

#include <math.h>

enum {
  KEYS = 32,
  STEP = 32,
  MOST_STEPS = 4,
  PACED = 264,         /* workgroups that start at once: two on each of 132 processors */
  MEMORY_BYTES = 3000, /* that memory delivers in a nanosecond */
};

typedef struct scorer {
  int64_t heads, dim, k, local, page, page_bytes, index_offset, query_tile;
  unsigned steps, warps;
} scorer;

/* The queries (columns) 8n + g of the tile, as B of each step. */
static void load_queries(emitter *e, const scorer *s, V first_query, V count, V n, const lane_place *lane, words *out) {
  V column = imin(e, add(e, mul(e, n, int64(e, 8)), lane->g), sub(e, count, int64(e, 1)));
  V row = byte_offset(e, first_query, add(e, mul(e, column, int64(e, s->dim * 2)), mul(e, lane->t, int64(e, 16))));
  for (unsigned step = 0; step < s->steps; step++)
    out[step] = load_words(e, byte_offset(e, row, int64(e, step * STEP * 2)), false);
}

/* What a lane has of its warp's keys: rows g, g + 8, g + 16, g + 24, words of each step; locals. */
typedef struct page_keys {
  V word[4][MOST_STEPS][4];
} page_keys;

static void load_keys(emitter *e, const scorer *s, V first, const page_keys *keys) {
  for (unsigned step = 0; step < s->steps; step++)
    for (unsigned m = 0; m < 4; m++) {
      V at = byte_offset(e, first, int64(e, m * 8 * s->dim * 2 + step * STEP * 2));
      load_words_into(e, at, true, keys->word[m][step]);
    }
}

/* Sleeps until it is the turn of page number `place` of those that are read early. */
static void await_turn(emitter *e, const scorer *s, V place) {
  V turn = select_(e, icmp(e, LLVMIntSLT, place, int64(e, PACED)), place, int64(e, 0));
  V nanoseconds = to_i32(e, udiv(e, mul(e, turn, int64(e, s->page * s->dim * 2)), int64(e, MEMORY_BYTES)));
  assembly(e, e->nothing, "nanosleep.u32 $0;", "r,~{memory}", &nanoseconds, 1, ASSEMBLY_EFFECT);
}

static V maximum_over_keys(emitter *e, V value) {
  for (unsigned distance = 4; distance < 32; distance *= 2) value = fmax_(e, value, exchange_f32(e, value, distance));
  return value;
}

bool nvptx_block_score(emitter *e, const kernel_spec *spec) {
  scorer s = {.heads = attribute(e, "heads"),
              .dim = attribute(e, "dim"),
              .k = attribute(e, "k"),
              .local = attribute(e, "local"),
              .page = attribute(e, "page"),
              .page_bytes = attribute(e, "page_bytes"),
              .index_offset = attribute(e, "index_offset"),
              .query_tile = attribute(e, "query_tile")};
  if (e->status || attribute_dtype(e, "dtype") != SLUICE_BF16 || !attribute_is(e, "transposed", "values")) return false;
  if (s.dim % STEP || s.dim > STEP * MOST_STEPS || s.page % KEYS || s.page > 1024) return false;
  s.steps = (unsigned)(s.dim / STEP);
  s.warps = (unsigned)(s.page / KEYS);
  kernel_shape shape = {
      .x = {SLUICE_SIZE_PAGE_STRIDE, 1, 1, 0}, .y = {SLUICE_SIZE_TILES, 1, 1, 0}, .lanes = s.warps * 32, .early = true};
  kernel_begin(e, spec, shape);
  /* So that two workgroups fit beside one of topk_attention's clusters. The kernel of one head would spill. */
  if (s.heads > 1) nvptx_string_attribute(e, "nvvm.maxnreg", "104");
  V page = e->x, number = e->y, zero = int64(e, 0);
  e->x = e->y; /* the tile's number */
  query_tile tile = query_tile_load(e, e->argument[1], e->argument[2]);
  e->x = page;
  V end = add(e, tile.position, tile.count);
  V seen = udiv(e, add(e, end, int64(e, s.page - 1)), int64(e, s.page));
  V wanted =
      and_(e, icmp(e, LLVMIntSGT, seen, int64(e, s.k)), icmp(e, LLVMIntSLT, page, sub(e, seen, int64(e, s.local))));
  /* A workgroup without work ends at once, but for the first: the launch must not end before the one before it. */
  V first_of_all = icmp(e, LLVMIntEQ, or_(e, page, number), zero);
  branch idle = if_begin(e, and_(e, first_of_all, LLVMBuildNot(e->builder, wanted, "")));
  e->atoms->wait(e);
  if_end(e, &idle);
  branch scored = if_begin(e, wanted);
  lane_place lane = lane_place_of(e);
  V keys = byte_offset(e, cache_page(e, &tile, e->argument[3], page, s.page_bytes), int64(e, s.index_offset));
  V first_key = add(e, mul(e, lane.warp, int64(e, KEYS)), lane.g);
  V mine = byte_offset(e, keys, add(e, mul(e, first_key, int64(e, s.dim * 2)), mul(e, lane.t, int64(e, 16))));
  page_keys keys_of_lane;
  for (unsigned m = 0; m < 4; m++)
    for (unsigned step = 0; step < s.steps; step++)
      for (unsigned i = 0; i < 4; i++) keys_of_lane.word[m][step][i] = local(e, e->i32);
  branch early = if_begin(e, icmp(e, LLVMIntSLT, page, settled_pages(e, tile.position, tile.first, s.page)));
  await_turn(e, &s, add(e, mul(e, number, seen), page));
  load_keys(e, &s, mine, &keys_of_lane);
  e->atoms->wait(e);
  if_else(e, &early);
  e->atoms->wait(e);
  load_keys(e, &s, mine, &keys_of_lane);
  if_end(e, &early);
  V key[4][MOST_STEPS][4];
  for (unsigned m = 0; m < 4; m++)
    for (unsigned step = 0; step < s.steps; step++)
      for (unsigned i = 0; i < 4; i++) key[m][step][i] = get(e, e->i32, keys_of_lane.word[m][step][i]);

  V queries = mul(e, tile.count, int64(e, s.heads)), first_row = mul(e, tile.first, int64(e, s.heads));
  V first_query = element_of(e, SLUICE_BF16, e->argument[0], mul(e, first_row, int64(e, s.dim)));
  int64_t columns = (s.query_tile * s.heads + 7) / 8 * 8;
  V maxima = workgroup_take(e, (uint64_t)(columns * s.warps) * sizeof(float)); /* [warp][column] */
  V key_position = add(e, mul(e, page, int64(e, s.page)), first_key);
  loop n = loop_begin(e, int64(e, 0), ceil_div(e, queries, 8), int64(e, 1));
  words query[MOST_STEPS];
  load_queries(e, &s, first_query, queries, n.index, &lane, query);
  V best[2] = {float32(e, -INFINITY), float32(e, -INFINITY)};
  V column = add(e, mul(e, n.index, int64(e, 8)), mul(e, lane.t, int64(e, 2)));
  V position[2]; /* of the columns' tokens */
  for (unsigned i = 0; i < 2; i++)
    position[i] = add(e, tile.position, udiv(e, add(e, column, int64(e, i)), int64(e, s.heads)));
  for (unsigned m = 0; m < 2; m++) {
    V sum[4];
    for (unsigned i = 0; i < 4; i++) sum[i] = float32(e, 0);
    for (unsigned step = 0; step < s.steps; step++)
      for (unsigned half = 0; half < 2; half++) {
        const V *low = key[2 * m][step], *high = key[2 * m + 1][step];
        V a[] = {low[2 * half], high[2 * half], low[2 * half + 1], high[2 * half + 1]};
        mma_bf16(e, sum, a, &query[step].word[2 * half]);
      }
    for (unsigned i = 0; i < 4; i++) {
      V at = add(e, key_position, int64(e, 16 * m + 8 * (i / 2)));
      V score = select_(e, icmp(e, LLVMIntSLE, at, position[i % 2]), sum[i], float32(e, -INFINITY));
      best[i % 2] = fmax_(e, best[i % 2], score);
    }
  }
  V place = add(e, mul(e, lane.warp, int64(e, columns)), column);
  for (unsigned i = 0; i < 2; i++) {
    V over_keys = maximum_over_keys(e, best[i]);
    store_f32(e, SLUICE_F32, over_keys, maxima, add(e, place, int64(e, i))); /* the same from all lanes of one t */
  }
  loop_end(e, &n);
  e->atoms->barrier(e);
  V pages = size_of(e, SLUICE_SIZE_PAGES);
  loop each = lane_loop(e, int64(e, 0), queries);
  V result = load_f32(e, SLUICE_F32, maxima, each.index, 1);
  for (unsigned w = 1; w < s.warps; w++)
    result = fmax_(e, result, load_f32(e, SLUICE_F32, maxima, add(e, each.index, int64(e, w * columns)), 1));
  store_f32(e, SLUICE_F32, result, e->argument[4], add(e, mul(e, add(e, first_row, each.index), pages), page));
  loop_end(e, &each);
  if_end(e, &scored);
  kernel_end(e);
  return true;
}

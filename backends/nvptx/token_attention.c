/* Attention over the paged cache with matrix instructions (m3.md 2.9): families topk_attention (sparse: the choice of
 * blocks, then attention over them), attention_part and attention_merge (dense).
 *
 * A token and a kv head at a time; the blocks of a token are shared among the workgroups of a cluster when there are
 * few tokens. In a workgroup each warp has 16 keys of a block for S = Q K, with the 16 query heads of the group as m
 * and the keys as n, and some of the dimensions for O = P V, as n. Between the two, the rows' maxima and the weights P
 * go through the workgroup's memory, where Q stays. Keys are rows in the page and values columns, so both come straight
 * from memory to the register that mma wants, in whole sectors, and all of a block's reads are in flight at once. Which
 * key is which column of S, and which one a step of P V, is free: it is chosen so that a lane's are neighbours.
 *
 * A row has one running maximum and a sum for each warp (Milakov and Gimelshein 2018); what the workgroups of a cluster
 * have is brought together in its memory ("split-K" of Dao et al. 2023, "Flash-Decoding").
 */
#include "backends/common/attention.h"
#include "backends/nvptx/bulk.h"
#include "backends/nvptx/cluster.h"
#include "backends/nvptx/mma.h"
#include "backends/nvptx/nvptx.h"
#include "backends/nvptx/own_kernels.h"
#include "backends/nvptx/topk.h"

#include <math.h>

enum { MOST_CLUSTER = 16, ROWS = 16, KEYS = 16, DIM = 128, DIM_TILES = DIM / 8, CHUNKS = DIM / 32, MOST_WARPS = 8 };

enum { PADDING = 64, QUERY_BYTES = DIM * 2 + PADDING }; /* so that rows read at a time are in different banks */

/* What all warps share, in workgroup memory. */
typedef struct exchange {
  V queries;      /* bf16 [ROWS][DIM], rows QUERY_BYTES apart */
  V weights;      /* bf16 [ROWS][page], rows `row_bytes` apart */
  V maxima, sums; /* f32 [ROWS][warps]: of the block's scores; of all weights so far */
  int64_t row_bytes;
} exchange;

typedef struct decoder {
  int64_t heads, kv_heads, group, page, page_bytes, value_offset, k, cluster;
  int64_t parts; /* of dense attention: workgroups, and so the most partial results */
  double scale;  /* scale * log2(e) */
  unsigned warps;
  unsigned tiles;  /* of 8 dimensions of the output, in each warp */
  unsigned chains; /* partial sums of a product, 1 or 2: with two a step waits less for the one before */
  lane_place lane;
  V kv_head, position;
  exchange shared;
  V maximum[2], sum[2], output[DIM_TILES][4]; /* locals: rows g and g + 8; the sum is of the lane's own weights */
} decoder;

static bool read(emitter *e, decoder *d) {
  d->heads = attribute(e, "heads");
  d->kv_heads = attribute(e, "kv_heads");
  d->page = attribute(e, "page");
  d->page_bytes = attribute(e, "page_bytes");
  d->value_offset = attribute(e, "value_offset");
  d->scale = attribute_float(e, "scale") * LOG2_E;
  const int64_t head_dim = attribute(e, "head_dim");
  if (e->status) return false;
  if (attribute_dtype(e, "dtype") != SLUICE_BF16) return decline(e, "elements are f32, expected bf16");
  if (!attribute_is(e, "transposed", "values")) return decline(e, "pages hold keys transposed, expected values");
  if (head_dim != DIM) return decline(e, "heads have %lld dimensions, expected %d", (long long)head_dim, DIM);
  d->group = d->heads / d->kv_heads;
  if (d->group > ROWS)
    return decline(e, "a kv head has %lld query heads, expected at most %d", (long long)d->group, ROWS);
  d->warps = (unsigned)(d->page / KEYS);
  if (d->page % KEYS || d->warps < 1 || d->warps > MOST_WARPS || d->warps & (d->warps - 1))
    return decline(e, "pages have %lld tokens, expected 16, 32, 64 or 128", (long long)d->page);
  d->tiles = DIM_TILES / d->warps;
  d->chains = d->cluster > 1 ? 2 : 1;
  return true;
}

static void take_exchange(emitter *e, decoder *d) {
  d->shared.row_bytes = d->page * 2 + PADDING;
  d->shared.queries = workgroup_take(e, ROWS * QUERY_BYTES);
  d->shared.weights = workgroup_take(e, (uint64_t)(ROWS * d->shared.row_bytes));
  d->shared.maxima = workgroup_take(e, ROWS * d->warps * sizeof(float));
  d->shared.sums = workgroup_take(e, ROWS * d->warps * sizeof(float));
}

/* Rows of Q on their way to workgroup memory: see await_queries. Rows beyond the group repeat its last. */
static void copy_queries(emitter *e, const decoder *d, V q, V token) {
  enum { PIECE = 16, PIECES = DIM * 2 / PIECE };
  V first_head = add(e, mul(e, token, int64(e, d->heads)), mul(e, d->kv_head, int64(e, d->group)));
  loop each = lane_loop(e, int64(e, 0), int64(e, ROWS * PIECES));
  V row = udiv(e, each.index, int64(e, PIECES)), at = mul(e, urem(e, each.index, int64(e, PIECES)), int64(e, PIECE));
  V head = add(e, first_head, imin(e, row, int64(e, d->group - 1)));
  copy_async(e, byte_offset(e, d->shared.queries, add(e, mul(e, row, int64(e, QUERY_BYTES)), at)),
             byte_offset(e, q, add(e, mul(e, head, int64(e, DIM * 2)), at)), LLVMConstInt(e->i1, 1, 0));
  loop_end(e, &each);
  copy_async_commit(e);
}

/* Has a barrier. */
static void await_queries(emitter *e) {
  copy_async_wait(e, 0);
  e->atoms->barrier(e);
}

/* What a lane has of a block: locals of words. The next block's overwrite them as soon as they are used. */
typedef struct block_words {
  V key[2][CHUNKS][4];   /* column g of S's tile j is key 4 (g / 2) + 2 j + g % 2 of the warp: so a lane's columns 2t,
                            2t + 1 of both tiles are keys 4t .. 4t + 3 */
  V value[DIM_TILES][2]; /* [tile of dimensions][step of 16 keys]: B of P V, 2 of the step's keys each */
} block_words;

static block_words take_words(emitter *e) {
  block_words w;
  for (unsigned j = 0; j < 2; j++)
    for (unsigned c = 0; c < CHUNKS; c++)
      for (unsigned i = 0; i < 4; i++) w.key[j][c][i] = local(e, e->i32);
  for (unsigned n = 0; n < DIM_TILES; n++)
    for (unsigned i = 0; i < 2; i++) w.value[n][i] = local(e, e->i32);
  return w;
}

/* Which of a block's keys are a lane's k positions in a step of P V is free as well: of `steps` steps at a time, 4
 * steps neighbouring keys, the first 4 in the first step. */
static unsigned steps_at_a_time(const decoder *d) {
  return d->warps > 1 ? 2 : 1;
}

/* The lane's first key in step `step` of P V is own_key + key_of_step. */
static V own_key(emitter *e, const decoder *d) {
  return mul(e, d->lane.t, int64(e, 4 * steps_at_a_time(d)));
}

static int64_t key_of_step(const decoder *d, unsigned step) {
  unsigned place = step % steps_at_a_time(d);
  return (step - place) * KEYS + place * 4;
}

/* A kv head's keys and values of a block. */
typedef struct block_planes {
  V keys, values;
  V arrival[2], parity; /* in workgroup memory, to which they are copied: see bulk_wait; NULL in global memory */
} block_planes;

static block_planes planes_of_page(emitter *e, const decoder *d, V base) {
  V keys = byte_offset(e, base, mul(e, d->kv_head, int64(e, d->page * DIM * 2)));
  return (block_planes){.keys = keys, .values = byte_offset(e, keys, int64(e, d->value_offset))};
}

static void load_keys(emitter *e, const decoder *d, const block_planes *from, const block_words *to) {
  const lane_place *lane = &d->lane;
  if (from->parity) bulk_wait(e, from->arrival[0], from->parity);
  V pair = add(e, mul(e, lshr(e, lane->g, int64(e, 1)), int64(e, 4)), and_(e, lane->g, int64(e, 1)));
  V key_row = mul(e, add(e, mul(e, lane->warp, int64(e, KEYS)), pair), int64(e, DIM * 2));
  V keys = byte_offset(e, from->keys, add(e, key_row, mul(e, lane->t, int64(e, 16))));
  for (unsigned c = 0; c < CHUNKS; c++)
    for (unsigned j = 0; j < 2; j++)
      load_words_into(e, byte_offset(e, keys, int64(e, j * 2 * DIM * 2 + c * 64)), from->parity ? READ : READ_PAST_L1,
                      to->key[j][c]);
}

/* As many words of two steps as of one at a time: 16 bytes, or 8. */
static void load_values(emitter *e, const decoder *d, const block_planes *from, const block_words *to) {
  const lane_place *lane = &d->lane;
  if (from->parity) bulk_wait(e, from->arrival[1], from->parity);
  V dimension = add(e, mul(e, lane->warp, int64(e, d->tiles * 8)), lane->g);
  V first =
      byte_offset(e, from->values, mul(e, add(e, mul(e, dimension, int64(e, d->page)), own_key(e, d)), int64(e, 2)));
  const unsigned together = steps_at_a_time(d);
  for (unsigned n = 0; n < d->tiles; n++)
    for (unsigned step = 0; step < d->warps; step += together) {
      V at = byte_offset(e, first, int64(e, (n * 8 * d->page + key_of_step(d, step)) * 2));
      words loaded = together == 2 ? load_words(e, at, from->parity ? READ : READ_PAST_L1) : load_two_words(e, at);
      for (unsigned i = 0; i < 2 * together; i++) set(e, to->value[n * d->warps + step + i / 2][i % 2], loaded.word[i]);
    }
}

/* Values that nobody wrote yet may be NaN, which no weight of zero makes good: those of keys beyond number `seen` of
 * the block become zero. */
static void clear_unseen(emitter *e, const decoder *d, V seen, const block_words *w) {
  branch partly = if_begin(e, icmp(e, LLVMIntSLT, seen, int64(e, d->page - 1)));
  V left = to_i32(e, sub(e, seen, own_key(e, d)));
  for (unsigned step = 0; step < d->warps; step++)
    for (unsigned i = 0; i < 2; i++) {
      V key = int32(e, (int32_t)key_of_step(d, step) + 2 * (int32_t)i);
      V low = select_(e, icmp(e, LLVMIntSGE, left, key), int32(e, 0xffff), int32(e, 0));
      V high = select_(e, icmp(e, LLVMIntSGT, left, key), int32(e, (int32_t)0xffff0000), int32(e, 0));
      for (unsigned n = 0; n < d->tiles; n++) {
        V word = w->value[n * d->warps + step][i];
        set(e, word, and_(e, get(e, e->i32, word), or_(e, low, high)));
      }
    }
  if_end(e, &partly);
}

/* The block that a workgroup goes on with: its place in the list, if there are so many. */
typedef struct following {
  const block_choice *choice;
  V place, exists;
} following;

static block_planes planes_of_choice(emitter *e, const decoder *d, const block_choice *choice, V place) {
  V page = load_i32(e, choice->pages, place);
  return planes_of_page(e, d, byte_offset(e, e->argument[5], mul(e, page, int64(e, d->page_bytes))));
}

/* A lane's two rows: g and g + 8. */
static V own_row(emitter *e, const decoder *d, unsigned r) {
  return add(e, d->lane.g, int64(e, 8 * r));
}

/* Of the keys of this warp, scores[j][i]: rows g (i < 2) and g + 8, keys 4t + 2j + i % 2. */
static void multiply_keys(emitter *e, const decoder *d, const block_words *w, V score[2][4]) {
  V part[2][2][4];
  for (unsigned half = 0; half < 2; half++)
    for (unsigned j = 0; j < 2; j++)
      for (unsigned i = 0; i < 4; i++) part[half][j][i] = float32(e, 0);
  for (unsigned c = 0; c < CHUNKS; c++) {
    words query[2]; /* 8 neighbouring dimensions of each 32 for a lane */
    for (unsigned r = 0; r < 2; r++) {
      V at = add(e, mul(e, own_row(e, d, r), int64(e, QUERY_BYTES)), mul(e, d->lane.t, int64(e, 16)));
      query[r] = load_words(e, byte_offset(e, d->shared.queries, add(e, at, int64(e, c * 64))), READ);
    }
    for (unsigned half = 0; half < 2; half++) {
      const V *low = &query[0].word[2 * half], *high = &query[1].word[2 * half],
              a[] = {low[0], high[0], low[1], high[1]};
      for (unsigned j = 0; j < 2; j++) {
        V b[2];
        for (unsigned i = 0; i < 2; i++) b[i] = get(e, e->i32, w->key[j][c][2 * half + i]);
        mma_bf16(e, part[half % d->chains][j], a, b);
      }
    }
  }
  for (unsigned j = 0; j < 2; j++)
    for (unsigned i = 0; i < 4; i++)
      score[j][i] = d->chains == 2 ? fadd_(e, part[0][j][i], part[1][j][i]) : part[0][j][i];
}

/* Of f32 [ROWS][warps], all of a row. */
static void load_of_warps(emitter *e, const decoder *d, V table, V row, V out[MOST_WARPS]) {
  V first = mul(e, row, int64(e, d->warps));
  const unsigned width = d->warps < 4 ? d->warps : 4;
  for (unsigned at = 0; at < d->warps; at += width) {
    V some = load_f32(e, SLUICE_F32, table, add(e, first, int64(e, at)), width);
    for (unsigned i = 0; i < width; i++)
      out[at + i] = width > 1 ? LLVMBuildExtractElement(e->builder, some, int32(e, (int32_t)i), "") : some;
  }
}

/* One warp's number for a row, the same in all four lanes. */
static void store_of_warp(emitter *e, const decoder *d, V table, unsigned r, V value) {
  V place = add(e, mul(e, own_row(e, d, r), int64(e, d->warps)), d->lane.warp);
  branch first = if_begin(e, icmp(e, LLVMIntEQ, d->lane.t, int64(e, 0)));
  store_f32(e, SLUICE_F32, value, table, place);
  if_end(e, &first);
}

/* Turns scores into weights relative to the row's largest score so far, which all warps agree on, and into pairs of
 * bf16 in workgroup memory. `out_decay` is what the results before shrink by. Has two barriers; the weights of a block
 * may be overwritten from the next one's first barrier on. */
static void weigh(emitter *e, const decoder *d, V score[2][4], V seen, V out_decay[2]) {
  const lane_place *lane = &d->lane;
  V first_key = add(e, mul(e, lane->warp, int64(e, KEYS)), mul(e, lane->t, int64(e, 4)));
  V left = to_i32(e, sub(e, seen, first_key));
  V highest[2] = {NULL, NULL};
  for (unsigned j = 0; j < 2; j++)
    for (unsigned i = 0; i < 4; i++) {
      V sees = icmp(e, LLVMIntSGE, left, int32(e, (int32_t)(2 * j + i % 2)));
      score[j][i] = select_(e, sees, fmul_(e, score[j][i], float32(e, d->scale)), float32(e, -INFINITY));
      highest[i / 2] = highest[i / 2] ? fmax_(e, highest[i / 2], score[j][i]) : score[j][i];
    }
  for (unsigned r = 0; r < 2; r++) {
    for (unsigned distance = 1; distance < 4; distance *= 2)
      highest[r] = fmax_(e, highest[r], exchange_f32(e, highest[r], distance));
    store_of_warp(e, d, d->shared.maxima, r, highest[r]);
  }
  e->atoms->barrier(e);
  for (unsigned r = 0; r < 2; r++) {
    V before = get(e, e->f32, d->maximum[r]), all[MOST_WARPS];
    highest[r] = before;
    load_of_warps(e, d, d->shared.maxima, own_row(e, d, r), all);
    for (unsigned w = 0; w < d->warps; w++) highest[r] = fmax_(e, highest[r], all[w]);
    out_decay[r] = e->atoms->exp2(e, fsub_(e, before, highest[r]));
    set(e, d->maximum[r], highest[r]);
    V sum = fmul_(e, get(e, e->f32, d->sum[r]), out_decay[r]);
    V weight[4]; /* of keys 4t .. 4t + 3 */
    for (unsigned i = 0; i < 4; i++) {
      weight[i] = e->atoms->exp2(e, fsub_(e, score[i / 2][2 * r + i % 2], highest[r]));
      sum = fadd_(e, sum, weight[i]);
    }
    set(e, d->sum[r], sum);
    V pairs[] = {pack_bf16(e, weight[0], weight[1]), pack_bf16(e, weight[2], weight[3])};
    V at = byte_offset(e, d->shared.weights, mul(e, own_row(e, d, r), int64(e, d->shared.row_bytes)));
    store(e, vector_of(e, pairs, 2), byte_offset(e, at, mul(e, first_key, int64(e, 2))));
    for (unsigned distance = 1; distance < 4; distance *= 2) sum = fadd_(e, sum, exchange_f32(e, sum, distance));
    store_of_warp(e, d, d->shared.sums, r, sum);
  }
  e->atoms->barrier(e);
}

/* The warp's dimensions of the output, over all keys of the block. */
static void multiply_values(emitter *e, const decoder *d, const block_words *w, const V decay[2]) {
  V output[2][DIM_TILES][4];
  for (unsigned n = 0; n < d->tiles; n++)
    for (unsigned i = 0; i < 4; i++) {
      output[0][n][i] = fmul_(e, get(e, e->f32, d->output[n][i]), decay[i / 2]);
      output[1][n][i] = float32(e, 0);
    }
  const unsigned together = steps_at_a_time(d);
  for (unsigned step = 0; step < d->warps; step += together) {
    words weight[2]; /* of rows g and g + 8 */
    for (unsigned r = 0; r < 2; r++) {
      V at = byte_offset(e, d->shared.weights, mul(e, own_row(e, d, r), int64(e, d->shared.row_bytes)));
      at = byte_offset(e, at, add(e, mul(e, own_key(e, d), int64(e, 2)), int64(e, key_of_step(d, step) * 2)));
      weight[r] = together == 2 ? load_words(e, at, READ) : load_two_words(e, at);
    }
    for (unsigned i = 0; i < together; i++) {
      V p[] = {weight[0].word[2 * i], weight[1].word[2 * i], weight[0].word[2 * i + 1], weight[1].word[2 * i + 1]};
      for (unsigned n = 0; n < d->tiles; n++) {
        V b[2];
        for (unsigned half = 0; half < 2; half++) b[half] = get(e, e->i32, w->value[n * d->warps + step + i][half]);
        mma_bf16(e, output[(step + i) % d->chains][n], p, b);
      }
    }
  }
  for (unsigned n = 0; n < d->tiles; n++)
    for (unsigned i = 0; i < 4; i++)
      set(e, d->output[n][i], d->chains == 2 ? fadd_(e, output[0][n][i], output[1][n][i]) : output[0][n][i]);
}

/* One block, whose number is `index` and whose keys are loaded. Its values are too, unless `late` says where to load
 * them when they are wanted. `next` is NULL where none follows. */
static void attend_block(emitter *e, const decoder *d, const block_words *w, V index, const block_planes *late,
                         const following *next) {
  V score[2][4], decay[2];
  multiply_keys(e, d, w, score);
  if (next) {
    branch more = if_begin(e, next->exists);
    block_planes planes = planes_of_choice(e, d, next->choice, next->place);
    load_keys(e, d, &planes, w);
    if_end(e, &more);
  }
  V seen = sub(e, d->position, mul(e, index, int64(e, d->page))); /* keys up to this number are seen */
  weigh(e, d, score, seen, decay);
  if (late) load_values(e, d, late, w);
  clear_unseen(e, d, seen, w);
  multiply_values(e, d, w, decay);
  if (next) {
    branch more = if_begin(e, next->exists);
    block_planes planes = planes_of_choice(e, d, next->choice, next->place);
    load_values(e, d, &planes, w);
    if_end(e, &more);
  }
}

/* The sum of a row's weights, of all warps, behind the last block; 0 if there was none: `any` (i1) is whether there was
 * a block. NaN stays, whatever the maximum, which passes over it. */
static V row_sum(emitter *e, const decoder *d, unsigned r, V any) {
  V all[MOST_WARPS], sum = NULL;
  load_of_warps(e, d, d->shared.sums, own_row(e, d, r), all);
  for (unsigned w = 0; w < d->warps; w++) sum = sum ? fadd_(e, sum, all[w]) : all[w];
  return select_(e, any, sum, float32(e, 0));
}

/* The first of the lane's two neighbouring columns in tile n. */
static V own_column(emitter *e, const decoder *d, unsigned n) {
  V first = add(e, mul(e, d->lane.warp, int64(e, d->tiles * 8)), mul(e, d->lane.t, int64(e, 2)));
  return add(e, first, int64(e, 8 * n));
}

/* The workgroups of a cluster each finish ROWS / cluster rows, which all others send them: [sender][row][PADDED], a
 * row's outputs, its maximum and its sum. Rows beyond the group are not sent. */
enum { PADDED = DIM + 4 };

static inbox open_inbox(emitter *e, const decoder *d, V rank) {
  int64_t share = ROWS / d->cluster;
  V rows = sub(e, int64(e, d->group), mul(e, rank, int64(e, share)));
  rows = imax(e, imin(e, rows, int64(e, share)), int64(e, 0));
  return inbox_open(e, ROWS * PADDED * sizeof(float), mul(e, rows, int64(e, d->cluster * (DIM + 2) * 4)));
}

/* `any`: see row_sum. Lanes of even t send row g, those of odd t row g + 8: 4 columns, two of them the neighbour's. */
static void send_rows(emitter *e, const decoder *d, const inbox *box, V rank, V any) {
  int64_t share = ROWS / d->cluster;
  V odd = and_(e, d->lane.t, int64(e, 1)), is_odd = icmp(e, LLVMIntEQ, odd, int64(e, 1));
  V row = add(e, d->lane.g, mul(e, odd, int64(e, 8)));
  V rows[DIM_TILES];
  for (unsigned n = 0; n < d->tiles; n++) {
    V own[4], passed[2];
    for (unsigned i = 0; i < 4; i++) own[i] = get(e, e->f32, d->output[n][i]);
    for (unsigned i = 0; i < 2; i++) passed[i] = exchange_f32(e, select_(e, is_odd, own[i], own[2 + i]), 1);
    V four[] = {select_(e, is_odd, passed[0], own[0]), select_(e, is_odd, passed[1], own[1]),
                select_(e, is_odd, own[2], passed[0]), select_(e, is_odd, own[3], passed[1])};
    rows[n] = vector_of(e, four, 4);
  }
  V sums[2];
  for (unsigned r = 0; r < 2; r++) sums[r] = row_sum(e, d, r, any);
  inbox_wait_all_open(e);
  branch real = if_begin(e, icmp(e, LLVMIntSLT, row, int64(e, d->group)));
  V to = udiv(e, row, int64(e, share));
  V slot = add(e, mul(e, rank, int64(e, share)), urem(e, row, int64(e, share)));
  V at = mul(e, slot, int64(e, PADDED * 4));
  V first = sub(e, own_column(e, d, 0), mul(e, odd, int64(e, 2)));
  for (unsigned n = 0; n < d->tiles; n++)
    inbox_send(e, box, to, add(e, at, mul(e, add(e, first, int64(e, 8 * n)), int64(e, 4))), rows[n]);
  branch one =
      if_begin(e, and_(e, icmp(e, LLVMIntULT, d->lane.t, int64(e, 2)), icmp(e, LLVMIntEQ, d->lane.warp, int64(e, 0))));
  V both[] = {select_(e, is_odd, get(e, e->f32, d->maximum[1]), get(e, e->f32, d->maximum[0])),
              select_(e, is_odd, sums[1], sums[0])};
  inbox_send(e, box, to, add(e, at, int64(e, DIM * 4)), vector_of(e, both, 2));
  if_end(e, &one);
  if_end(e, &real);
}

/* Finishes the rows that came, if any are this workgroup's. */
static void merge_cluster(emitter *e, const decoder *d, const inbox *box, V rank, V token, V out) {
  int64_t share = ROWS / d->cluster;
  V first_row = mul(e, rank, int64(e, share));
  branch any = if_begin(e, icmp(e, LLVMIntSLT, first_row, int64(e, d->group)));
  inbox_receive(e, box);
  V rows = imin(e, int64(e, share), sub(e, int64(e, d->group), first_row));
  loop each = lane_loop(e, int64(e, 0), mul(e, rows, int64(e, DIM)));
  V row = udiv(e, each.index, int64(e, DIM)), column = urem(e, each.index, int64(e, DIM));
  V maxima[MOST_CLUSTER], place[MOST_CLUSTER], highest = NULL;
  for (unsigned c = 0; c < (unsigned)d->cluster; c++) {
    place[c] = element(e, e->f32, box->memory, mul(e, add(e, row, int64(e, c * share)), int64(e, PADDED)));
    maxima[c] = load_f32(e, SLUICE_F32, place[c], int64(e, DIM), 1);
    highest = highest ? fmax_(e, highest, maxima[c]) : maxima[c];
  }
  V sum = float32(e, 0), output = float32(e, 0);
  for (unsigned c = 0; c < (unsigned)d->cluster; c++) {
    V factor = e->atoms->exp2(e, fsub_(e, maxima[c], highest));
    sum = fma_(e, load_f32(e, SLUICE_F32, place[c], int64(e, DIM + 1), 1), factor, sum);
    output = fma_(e, load_f32(e, SLUICE_F32, place[c], column, 1), factor, output);
  }
  V result = fdiv_(e, output, sum);
  V head =
      add(e, add(e, mul(e, token, int64(e, d->heads)), mul(e, d->kv_head, int64(e, d->group))), add(e, first_row, row));
  store_f32(e, SLUICE_BF16, result, out, add(e, mul(e, head, int64(e, DIM)), column));
  loop_end(e, &each);
  if_end(e, &any);
}

/* A token's row of the page table. */
static V page_row(emitter *e, V sequence, V page_table, V token) {
  return element(e, e->i32, page_table, mul(e, load_i32(e, sequence, token), size_of(e, SLUICE_SIZE_PAGE_STRIDE)));
}

/* Where token `token` is: operands positions, sequence and page_table are `place`[0 .. 2]. All of them are inputs of
 * the step. */
static query_tile find_token(emitter *e, decoder *d, V token, const V place[3]) {
  query_tile tile = {
      .first = token, .position = load_i32(e, place[0], token), .page_table = page_row(e, place[1], place[2], token)};
  d->position = tile.position;
  d->lane = lane_place_of(e);
  return tile;
}

/* Queries, to be awaited, and an empty result for the token. */
static void open_token(emitter *e, decoder *d, V q, V token) {
  copy_queries(e, d, q, token);
  for (unsigned r = 0; r < 2; r++) {
    d->maximum[r] = local_set(e, e->f32, float32(e, NO_SCORE));
    d->sum[r] = local_set(e, e->f32, float32(e, 0));
  }
  for (unsigned n = 0; n < d->tiles; n++)
    for (unsigned i = 0; i < 4; i++) d->output[n][i] = local_set(e, e->f32, float32(e, 0));
}

/* Finished rows of one token and kv head, which saw a block. */
static void store_output(emitter *e, const decoder *d, V token, V out) {
  V first_head = add(e, mul(e, token, int64(e, d->heads)), mul(e, d->kv_head, int64(e, d->group)));
  for (unsigned r = 0; r < 2; r++) {
    V row = own_row(e, d, r), factor = fdiv_(e, float32(e, 1), row_sum(e, d, r, LLVMConstInt(e->i1, 1, 0)));
    branch real = if_begin(e, icmp(e, LLVMIntSLT, row, int64(e, d->group)));
    for (unsigned n = 0; n < d->tiles; n++) {
      V pair[2];
      for (unsigned i = 0; i < 2; i++) pair[i] = fmul_(e, get(e, e->f32, d->output[n][2 * r + i]), factor);
      V at = add(e, mul(e, add(e, first_head, row), int64(e, DIM)), own_column(e, d, n));
      store(e, pack_bf16(e, pair[0], pair[1]), element_of(e, SLUICE_BF16, out, at));
    }
    if_end(e, &real);
  }
}

/* Registers of a lane: too many for a second workgroup on the processor, few enough for two of block_score. */
#define ALONE_REGISTERS "136"

/* Operands: q, maxima, positions, sequence, page_table, cache, out, blocks. Clusters of workgroups in x, one for each
 * kv head, tokens in y. Every workgroup of a cluster makes the choice for itself: that is sooner done than handed on.
 */
bool nvptx_topk_attention(emitter *e, const kernel_spec *spec) {
  decoder d = {.k = attribute(e, "k"), .cluster = attribute(e, "cluster")};
  if (!read(e, &d)) return false;
  block_choice choice = {.k = d.k, .init = attribute(e, "init"), .local_blocks = attribute(e, "local")};
  int64_t per_processor = attribute(e, "per_processor");
  if (e->status) return false;
  if (d.cluster < 1 || d.cluster > MOST_CLUSTER || ROWS % d.cluster)
    return decline(e, "clusters have %lld workgroups, expected 1, 2, 4, 8 or 16", (long long)d.cluster);
  kernel_shape shape = {.x = {SLUICE_SIZE_ONE, 1, (uint32_t)(d.cluster * d.kv_heads), 0},
                        .y = {SLUICE_SIZE_TOKENS, 1, 1, 0},
                        .lanes = d.warps * 32,
                        .begins_early = true,
                        .workgroups_per_processor = (unsigned)per_processor};
  kernel_begin(e, spec, shape);
  if (shape.workgroups_per_processor == 1) nvptx_string_attribute(e, "nvvm.maxnreg", ALONE_REGISTERS);
  V *argument = e->argument, rank = int64(e, 0), token = e->y;
  inbox box = {NULL, NULL};
  if (d.cluster > 1) {
    cluster_size(e, (unsigned)d.cluster);
    rank = cluster_rank(e);
    box = open_inbox(e, &d, rank);
  }
  d.kv_head = udiv(e, e->x, int64(e, d.cluster));
  query_tile tile = find_token(e, &d, token, &argument[2]);
  V row = add(e, mul(e, token, int64(e, d.kv_heads)), d.kv_head);
  choice.scores = element(e, e->f32, argument[1], mul(e, row, size_of(e, SLUICE_SIZE_PAGES)));
  choice.visible = visible_blocks(e, tile.position, d.page);
  choice.page_table = tile.page_table;
  topk_begin(e, &choice);
  take_exchange(e, &d);
  await_previous(e);
  open_token(e, &d, argument[0], token);
  topk_choose(e, &choice);

  block_words w = take_words(e);
  branch any = if_begin(e, icmp(e, LLVMIntSLT, rank, choice.used));
  block_planes planes = planes_of_choice(e, &d, &choice, rank);
  load_keys(e, &d, &planes, &w);
  load_values(e, &d, &planes, &w);
  if_end(e, &any);
  branch first = if_begin(e, icmp(e, LLVMIntEQ, rank, int64(e, 0)));
  topk_write(e, &choice, element(e, e->i32, argument[7], mul(e, row, int64(e, d.k))));
  if_end(e, &first);
  await_queries(e);
  loop place = loop_begin(e, rank, choice.used, int64(e, d.cluster));
  V after = add(e, place.index, int64(e, d.cluster));
  following next = {.choice = &choice, .place = after, .exists = icmp(e, LLVMIntSLT, after, choice.used)};
  attend_block(e, &d, &w, load_i32(e, choice.list, place.index), NULL, d.cluster < d.k ? &next : NULL);
  loop_end(e, &place);
  if (d.cluster > 1) {
    send_rows(e, &d, &box, rank, icmp(e, LLVMIntSLT, rank, choice.used));
    merge_cluster(e, &d, &box, rank, token, argument[6]);
  } else {
    store_output(e, &d, token, argument[6]);
  }
  kernel_end(e);
  return true;
}

/* ---- dense attention ---- */

/* PART: f32 of a partial result, [part_rows][head_dim + 2], see docs/ir.md. */
enum { PART = ROWS * (DIM + 2), MOST_SHARES = 64 };

static bool read_parts(emitter *e, int64_t *out_parts) {
  const int64_t rows = attribute(e, "part_rows");
  *out_parts = attribute(e, "parts");
  if (e->status) return false;
  if (rows != ROWS) return decline(e, "partial results have %lld rows, expected %d", (long long)rows, ROWS);
  return *out_parts > 0 || decline(e, "no workgroup shares the keys");
}

/* How many workgroups share a token's keys: all `parts` are used while there are few tokens and heads. */
static V shares_of(emitter *e, int64_t kv_heads, int64_t parts) {
  V heads = mul(e, size_of(e, SLUICE_SIZE_TOKENS), int64(e, kv_heads));
  return imax(e, imin(e, udiv(e, int64(e, parts), imax(e, heads, int64(e, 1))), int64(e, MOST_SHARES)), int64(e, 1));
}

static void store_partial(emitter *e, const decoder *d, V any, V partial) {
  for (unsigned r = 0; r < 2; r++) {
    V row = own_row(e, d, r), sum = row_sum(e, d, r, any);
    for (unsigned n = 0; n < d->tiles; n++) {
      V pair[] = {get(e, e->f32, d->output[n][2 * r]), get(e, e->f32, d->output[n][2 * r + 1])};
      store_f32(e, SLUICE_F32, vector_of(e, pair, 2), partial, add(e, mul(e, row, int64(e, DIM)), own_column(e, d, n)));
    }
    V at = add(e, row, int64(e, ROWS * DIM));
    branch one = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), mul(e, d->lane.g, int64(e, 4))));
    store_f32(e, SLUICE_F32, get(e, e->f32, d->maximum[r]), partial, at);
    store_f32(e, SLUICE_F32, sum, partial, add(e, at, int64(e, ROWS)));
    if_end(e, &one);
  }
}

/* A work item: a share of the pages of a token and a kv head, those with numbers share, share + shares, ... */
typedef struct part {
  V token, kv_head, share, position;
  V pages;
} part;

static part part_of(emitter *e, const decoder *d, V item, V shares) {
  V head = udiv(e, item, shares);
  part p = {.token = udiv(e, head, int64(e, d->kv_heads)),
            .kv_head = urem(e, head, int64(e, d->kv_heads)),
            .share = urem(e, item, shares)};
  p.position = load_i32(e, e->argument[1], p.token);
  V pages = visible_blocks(e, p.position, d->page);
  p.pages = udiv(e, sub(e, add(e, pages, sub(e, shares, int64(e, 1))), p.share), shares);
  return p;
}

/* Blocks on their way through workgroup memory. All blocks of a workgroup's items are one line; slot i, which lane i of
 * the last warp fills, gets the blocks i, i + SLOTS, ... of it. */
enum { SLOTS = 2 };

typedef struct block_ring {
  V blocks, barriers; /* [SLOTS] keys, then values; [SLOTS][2] */
  int64_t plane_bytes;
  V shares, items;
  V fills;             /* whether this lane fills a slot */
  V item, index;       /* locals: the next block of the lane's slot, by its item and its place among the item's */
  V source, is_source; /* locals: its keys, and whether there is one */
} block_ring;

static V slot_planes(emitter *e, const block_ring *r, V slot) {
  return byte_offset(e, r->blocks, mul(e, slot, int64(e, 2 * r->plane_bytes)));
}

static V slot_barrier(emitter *e, const block_ring *r, V slot, unsigned plane) {
  return byte_offset(e, r->barriers,
                     add(e, mul(e, slot, int64(e, 2 * BULK_BARRIER_BYTES)), int64(e, plane * BULK_BARRIER_BYTES)));
}

/* Finds the next block of the lane's slot. Returns whether steps before this one filled it. */
static V aim(emitter *e, const decoder *d, const block_ring *r) {
  LLVMBasicBlockRef look = LLVMAppendBasicBlockInContext(e->context, e->function, "look");
  LLVMBasicBlockRef inside = LLVMAppendBasicBlockInContext(e->context, e->function, "inside");
  LLVMBasicBlockRef beyond = LLVMAppendBasicBlockInContext(e->context, e->function, "beyond");
  LLVMBasicBlockRef found = LLVMAppendBasicBlockInContext(e->context, e->function, "found");
  LLVMBasicBlockRef end = LLVMAppendBasicBlockInContext(e->context, e->function, "end");
  V old = local_set(e, e->i1, LLVMConstInt(e->i1, 0, 0));
  set(e, r->is_source, LLVMConstInt(e->i1, 0, 0));
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, look);
  V item = get(e, e->i64, r->item), index = get(e, e->i64, r->index);
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntSLT, item, r->items), inside, end);
  LLVMPositionBuilderAtEnd(e->builder, inside);
  part p = part_of(e, d, item, r->shares);
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntSLT, index, p.pages), found, beyond);
  LLVMPositionBuilderAtEnd(e->builder, beyond);
  set(e, r->item, add(e, item, int64(e, d->parts)));
  set(e, r->index, sub(e, index, p.pages));
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, found);
  V number = add(e, p.share, mul(e, index, r->shares));
  query_tile tile = {.page_table = page_row(e, e->argument[2], e->argument[3], p.token)};
  V page = cache_page(e, &tile, e->argument[4], number, d->page_bytes);
  set(e, r->source, byte_offset(e, page, mul(e, p.kv_head, int64(e, r->plane_bytes))));
  set(e, r->is_source, LLVMConstInt(e->i1, 1, 0));
  set(e, old, icmp(e, LLVMIntSLT, number, settled_pages(e, p.position, p.token, d->page)));
  LLVMBuildBr(e->builder, end);
  LLVMPositionBuilderAtEnd(e->builder, end);
  return get(e, e->i1, old);
}

static void fill(emitter *e, const decoder *d, const block_ring *r, V slot) {
  V to = slot_planes(e, r, slot), from = get(e, e->pointer, r->source);
  bulk_copy(e, to, from, r->plane_bytes, slot_barrier(e, r, slot, 0));
  bulk_copy(e, byte_offset(e, to, int64(e, r->plane_bytes)), byte_offset(e, from, int64(e, d->value_offset)),
            r->plane_bytes, slot_barrier(e, r, slot, 1));
}

static void aim_at_following(emitter *e, const decoder *d, const block_ring *r) {
  set(e, r->index, add(e, get(e, e->i64, r->index), int64(e, SLOTS)));
  aim(e, d, r);
}

/* Waits for the launch before this one; the first blocks are on their way before, as far as this step does not write to
 * them. */
static block_ring open_ring(emitter *e, const decoder *d, V shares, V items) {
  block_ring r = {.plane_bytes = d->page * DIM * 2, .shares = shares, .items = items};
  r.blocks = workgroup_take(e, (uint64_t)(2 * SLOTS * r.plane_bytes));
  r.barriers = workgroup_take(e, 2 * SLOTS * BULK_BARRIER_BYTES);
  V slot = d->lane.lane;
  r.item = local_set(e, e->i64, e->x);
  r.index = local_set(e, e->i64, slot);
  r.source = local(e, e->pointer);
  r.is_source = local_set(e, e->i1, LLVMConstInt(e->i1, 0, 0));
  r.fills =
      and_(e, icmp(e, LLVMIntEQ, d->lane.warp, int64(e, d->warps - 1)), icmp(e, LLVMIntSLT, slot, int64(e, SLOTS)));
  V late = local_set(e, e->i1, LLVMConstInt(e->i1, 0, 0));
  branch first_lane = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  for (unsigned i = 0; i < SLOTS; i++)
    for (unsigned plane = 0; plane < 2; plane++) bulk_barrier_init(e, slot_barrier(e, &r, int64(e, i), plane), 1);
  if_end(e, &first_lane);
  e->atoms->barrier(e);
  branch filler = if_begin(e, r.fills);
  V old = aim(e, d, &r);
  branch early = if_begin(e, old);
  fill(e, d, &r, slot);
  if_else(e, &early);
  set(e, late, get(e, e->i1, r.is_source));
  if_end(e, &early);
  if_end(e, &filler);
  await_previous(e);
  branch filled_late = if_begin(e, get(e, e->i1, late));
  fill(e, d, &r, slot);
  if_end(e, &filled_late);
  branch aims = if_begin(e, r.fills);
  aim_at_following(e, d, &r);
  if_end(e, &aims);
  return r;
}

/* Behind a barrier after the last use of slot `slot`. */
static void refill(emitter *e, const decoder *d, const block_ring *r, V slot) {
  V mine = and_(e, r->fills, icmp(e, LLVMIntEQ, d->lane.lane, slot));
  branch fills = if_begin(e, and_(e, mine, get(e, e->i1, r->is_source)));
  fill(e, d, r, slot);
  aim_at_following(e, d, r);
  if_end(e, &fills);
}

/* Operands: q, positions, sequence, page_table, cache, out, partials. Workgroups take work items in turn. With one
 * share the output is written at once; else a partial result for each item. */
bool nvptx_attention_part(emitter *e, const kernel_spec *spec) {
  decoder d = {0};
  if (!read(e, &d) || !read_parts(e, &d.parts)) return false;
  kernel_shape shape = {.x = {SLUICE_SIZE_ONE, 1, (uint32_t)d.parts, 0}, .lanes = d.warps * 32, .begins_early = true};
  kernel_begin(e, spec, shape);
  V *argument = e->argument, shares = shares_of(e, d.kv_heads, d.parts);
  V items = mul(e, mul(e, size_of(e, SLUICE_SIZE_TOKENS), int64(e, d.kv_heads)), shares);
  d.lane = lane_place_of(e);
  take_exchange(e, &d);
  block_ring ring = open_ring(e, &d, shares, items);
  block_words w = take_words(e);
  V number = local_set(e, e->i64, int64(e, 0)); /* blocks so far */
  loop item = loop_begin(e, e->x, items, int64(e, d.parts));
  part p = part_of(e, &d, item.index, shares);
  d.kv_head = p.kv_head;
  query_tile tile = find_token(e, &d, p.token, &argument[1]);
  open_token(e, &d, argument[0], tile.first);
  await_queries(e);
  loop block = loop_begin(e, int64(e, 0), p.pages, int64(e, 1));
  V n = get(e, e->i64, number), slot = urem(e, n, int64(e, SLOTS)), keys = slot_planes(e, &ring, slot);
  block_planes planes = {.keys = keys,
                         .values = byte_offset(e, keys, int64(e, ring.plane_bytes)),
                         .arrival = {slot_barrier(e, &ring, slot, 0), slot_barrier(e, &ring, slot, 1)},
                         .parity = and_(e, udiv(e, n, int64(e, SLOTS)), int64(e, 1))};
  load_keys(e, &d, &planes, &w);
  attend_block(e, &d, &w, add(e, p.share, mul(e, block.index, shares)), &planes, NULL);
  e->atoms->barrier(e);
  refill(e, &d, &ring, slot);
  set(e, number, add(e, n, int64(e, 1)));
  loop_end(e, &block);
  branch alone = if_begin(e, icmp(e, LLVMIntEQ, shares, int64(e, 1)));
  store_output(e, &d, tile.first, argument[5]);
  if_else(e, &alone);
  store_partial(e, &d, icmp(e, LLVMIntSGT, p.pages, int64(e, 0)),
                element(e, e->f32, argument[6], mul(e, item.index, int64(e, PART))));
  if_end(e, &alone);
  loop_end(e, &item);
  kernel_end(e);
  return true;
}

/* Operands: partials, out. A workgroup is a token and a head. */
bool nvptx_attention_merge(emitter *e, const kernel_spec *spec) {
  enum { AT_ONCE = 16 };
  int64_t heads = attribute(e, "heads"), kv_heads = attribute(e, "kv_heads"), head_dim = attribute(e, "head_dim"),
          parts;
  if (!read_parts(e, &parts)) return false;
  if (head_dim != DIM) return decline(e, "heads have %lld dimensions, expected %d", (long long)head_dim, DIM);
  if (attribute_dtype(e, "dtype") != SLUICE_BF16) return decline(e, "elements are f32, expected bf16");
  kernel_shape shape = each_of(SLUICE_SIZE_TOKENS, heads, 0);
  shape.lanes = DIM;
  kernel_begin(e, spec, shape);
  V shares = shares_of(e, kv_heads, parts), group = int64(e, heads / kv_heads);
  branch shared = if_begin(e, icmp(e, LLVMIntSGT, shares, int64(e, 1)));
  V head = add(e, mul(e, e->x, int64(e, kv_heads)), udiv(e, e->y, group)), row = urem(e, e->y, group);
  V first = element(e, e->f32, e->argument[0], mul(e, mul(e, head, shares), int64(e, PART)));
  /* A lane has a share's maximum and sum first, then a column of all shares. */
  V lane = e->atoms->lane(e), factors = workgroup_take(e, MOST_SHARES * sizeof(float));
  V own = element(e, e->f32, first, mul(e, imin(e, lane, sub(e, shares, int64(e, 1))), int64(e, PART)));
  V maximum_at = add(e, row, int64(e, ROWS * DIM)), maximum = load_f32(e, SLUICE_F32, own, maximum_at, 1);
  V sum = load_f32(e, SLUICE_F32, own, add(e, maximum_at, int64(e, ROWS)), 1);
  V factor = e->atoms->exp2(e, fsub_(e, maximum, e->atoms->reduce(e, maximum, REDUCE_MAX)));
  factor = select_(e, icmp(e, LLVMIntSLT, lane, shares), factor, float32(e, 0));
  sum = e->atoms->reduce(e, fmul_(e, sum, factor), REDUCE_ADD);
  branch has_factor = if_begin(e, icmp(e, LLVMIntSLT, lane, int64(e, MOST_SHARES)));
  store_f32(e, SLUICE_F32, factor, factors, lane);
  if_end(e, &has_factor);
  e->atoms->barrier(e);
  V at_column = element(e, e->f32, first, add(e, mul(e, row, int64(e, DIM)), lane));
  V output = local_set(e, e->f32, float32(e, 0));
  loop some = loop_begin(e, int64(e, 0), shares, int64(e, AT_ONCE));
  V values[AT_ONCE], total = get(e, e->f32, output);
  for (unsigned i = 0; i < AT_ONCE; i++) { /* factors beyond the last share are 0 */
    V share = imin(e, add(e, some.index, int64(e, i)), sub(e, shares, int64(e, 1)));
    values[i] = load_f32(e, SLUICE_F32, at_column, mul(e, share, int64(e, PART)), 1);
  }
  for (unsigned i = 0; i < AT_ONCE; i++) {
    V of_share = load_f32(e, SLUICE_F32, factors, add(e, some.index, int64(e, i)), 1);
    total = fma_(e, values[i], of_share, total);
  }
  set(e, output, total);
  loop_end(e, &some);
  V at = add(e, mul(e, add(e, mul(e, e->x, int64(e, heads)), e->y), int64(e, DIM)), lane);
  store_f32(e, SLUICE_BF16, fdiv_(e, get(e, e->f32, output), sum), e->argument[1], at);
  if_end(e, &shared);
  kernel_end(e);
  return true;
}

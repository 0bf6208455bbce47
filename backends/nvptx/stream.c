/* Products whose weights stream through workgroup memory: families gemm and expert_gemm, with panels of 16 rows.
 *
 * A workgroup has a share of the panels and goes through the depth once for as many of them as it can hold sums of, a
 * round, in chunks. Chunks come by the copy engine into a ring, several of them under way at any time, the first ones
 * before the kernel waits for the launch before it; the rows of x for the same columns come with them through
 * asynchronous copies. So memory is busy from the kernel's start to its end, whatever the lanes do. They share a
 * chunk's depth: each warp multiplies its steps of 16 columns of all panels and rows (w is the m side of mma.m16n8k16,
 * x the n side), and the warps' sums are added in workgroup memory at the end, in the order of the warps.
 *
 * Both operands lie in groups of 8 columns, 16 bytes of a row, row after row: 8 rows of a group are what ldmatrix takes
 * as a matrix. The rows of x are exchanged within eights, so that neighbouring groups are stored to different banks.
 *
 * Each workgroup begins at another chunk, or all would ask for the same lines of x at the same time.
 */
#include "backends/common/gemm.h"
#include "backends/nvptx/bulk.h"
#include "backends/nvptx/mma.h"
#include "backends/nvptx/own_kernels.h"
#include "backends/nvptx/wide.h"

#include <string.h>

enum {
  PANEL = 16,  /* facts->matrix.columns */
  STEP = 16,   /* columns of an mma */
  GROUP = 8,   /* columns of a vector */
  VECTOR = 16, /* bytes */
  MOST_WARPS = 8,
  MOST_TILES = 6, /* panels that a workgroup holds sums of */
  MOST_ROW_TILES = 8,
  MOST_SLOTS = 6,
  LARGEST_CHUNK = 256,
  MEMORY = 162 * 1024, /* what 164 KB of shared memory, one of its possible sizes, leave a workgroup */
  SUM_MEMORY = 24 * 1024,
  MOST_ELEMENTS = 8, /* of the result, that a lane finishes at a time */
};

typedef struct streamer {
  const gemm_stream *product;
  unsigned warps, depth_parts, row_parts; /* warps = depth_parts * row_parts */
  unsigned tiles, row_tiles;              /* panels of all matrices; tiles of 8 rows of x of a warp */
  unsigned at_once;                       /* tiles of each matrix whose sums are added together */
  int64_t chunk, chunks, slots;
  int64_t piece_bytes, weight_bytes, x_bytes; /* of a slot: of a panel, of all panels, of x */
  V ring, x_ring, barriers, sums;
  lane_place lane;
  V depth_part, row_part, turn; /* turn: the chunk to begin with */
} streamer;

enum { MOST_ROWS_OF_LANE = 8 };

/* A place in the line of chunks of all rounds: locals. */
typedef struct cursor {
  V round, chunk;
  V weights, tiles, rows;     /* of the round; tiles: panels of all matrices */
  V x_row[MOST_ROWS_OF_LANE]; /* that the lane copies parts of */
} cursor;

static int64_t slot_bytes(const gemm_stream *p, int64_t chunk) {
  return chunk * 2 * (p->panels * PANEL * p->matrices + p->tile_m);
}

static unsigned row_parts_of(int64_t tile_m) {
  const unsigned row_tiles = (unsigned)(tile_m / GROUP);
  unsigned parts = row_tiles <= 2 ? 1 : row_tiles <= 8 ? 2 : 4;
  while (row_tiles % parts) parts /= 2; /* all warps have as many tiles of rows */
  return parts;
}

/* The largest chunk of columns, LARGEST_CHUNK at most. */
static int64_t largest_chunk(int64_t k) {
  int64_t largest = 2 * STEP;
  while (largest < LARGEST_CHUNK && k % (largest * 2) == 0) largest *= 2;
  return largest;
}

/* Sets all that follows from the product, but for the slots: of those it returns how many there is room for. */
static int64_t divide(streamer *s) {
  const gemm_stream *p = s->product;
  const int64_t few = 3;
  s->tiles = (unsigned)p->panels * p->matrices;
  s->row_parts = row_parts_of(p->tile_m);
  s->warps = p->lanes / 32;
  s->depth_parts = s->warps / s->row_parts;
  s->row_tiles = (unsigned)(p->tile_m / GROUP) / s->row_parts;
  int64_t sum_bytes = (int64_t)p->matrices * s->depth_parts * PANEL * p->tile_m * (int64_t)sizeof(float);
  s->at_once = (unsigned)p->panels;
  const int64_t sum_memory = p->single ? MEMORY / 2 : SUM_MEMORY;
  while (s->at_once > 1 &&
         (s->at_once * sum_bytes > sum_memory || s->at_once * PANEL * p->tile_m > MOST_ELEMENTS * 32 * s->warps))
    s->at_once--;
  /* Behind the last round nothing is in the ring. */
  int64_t ring = p->single ? MEMORY : MEMORY - s->at_once * sum_bytes;
  s->chunk = largest_chunk(p->k);
  while (s->chunk > s->depth_parts * STEP && slot_bytes(p, s->chunk) * few > ring) s->chunk /= 2;
  s->slots = p->stages;
  s->chunks = p->k / s->chunk;
  s->piece_bytes = s->chunk * 2 * PANEL;
  s->weight_bytes = s->tiles * s->piece_bytes;
  s->x_bytes = s->chunk * 2 * p->tile_m;
  return ring / slot_bytes(p, s->chunk);
}

/* The product that a variant makes, as far as it matters here. */
static gemm_stream product_of(const kernel_question *q, const int64_t choice[]) {
  const int64_t panels = choice[CHOOSE_SLICE] / PANEL, all = (q->n + PANEL - 1) / PANEL;
  return (gemm_stream){.n = q->n,
                       .k = q->k,
                       .tile_m = choice[CHOOSE_TILE_M],
                       .matrices = q->pairs ? 2 : 1,
                       .panels = panels,
                       .lanes = (unsigned)choice[CHOOSE_LANES],
                       .stages = (unsigned)choice[CHOOSE_STAGES],
                       .single = strcmp(q->family, "gemm") == 0 &&
                                 (all + choice[CHOOSE_WORKGROUPS] - 1) / choice[CHOOSE_WORKGROUPS] <= panels};
}

/* Eight warps, or as many as there are steps in a chunk; all the chunks that there is room for. */
void nvptx_stream_complete(const kernel_question *q, kernel_variant *v) {
  const unsigned row_parts = row_parts_of(v->choice[CHOOSE_TILE_M]), most = MOST_WARPS / row_parts;
  const unsigned steps = (unsigned)(largest_chunk(q->k) / STEP);
  v->choice[CHOOSE_LANES] = 32 * row_parts * (steps < most ? steps : most);
  const gemm_stream product = product_of(q, v->choice);
  streamer s = {.product = &product};
  const int64_t room = divide(&s);
  v->choice[CHOOSE_STAGES] = room < MOST_SLOTS ? room : MOST_SLOTS;
}

/* Rows of x that a lane copies a vector of, for each chunk; neighbouring lanes have neighbouring vectors of a row. */
static unsigned rows_of_lane(const streamer *s) {
  const int64_t vectors = s->product->tile_m * s->chunk / GROUP, at_a_time = s->warps * 32;
  return (unsigned)((vectors + at_a_time - 1) / at_a_time);
}

/* Whether a lane can hold its share of a chunk of x and of the results. */
static bool fits_lanes(const streamer *s) {
  return rows_of_lane(s) <= MOST_ROWS_OF_LANE && PANEL * s->product->tile_m <= MOST_ELEMENTS * 32 * s->warps &&
         s->row_tiles <= MOST_ROW_TILES;
}

illegal_choice nvptx_stream_relate(const char *target, const kernel_question *q, const int64_t v[]) {
  (void)target;
  if (q->n == 0) return (illegal_choice){0};
  const gemm_stream product = product_of(q, v);
  const unsigned row_parts = row_parts_of(product.tile_m), warps = product.lanes / 32;
  const int64_t steps = largest_chunk(q->k) / STEP, most = MOST_TILES / product.matrices * PANEL;
  if (v[CHOOSE_SLICE] > most) return (illegal_choice){CHOOSE_SLICE, "at most", most};
  if (warps % row_parts) return (illegal_choice){CHOOSE_LANES, "a multiple of", 32 * row_parts};
  if (steps % (warps / row_parts)) return (illegal_choice){CHOOSE_LANES, "a divisor of", 32 * row_parts * steps};
  streamer s = {.product = &product};
  const int64_t room = divide(&s);
  if (!fits_lanes(&s)) return (illegal_choice){CHOOSE_LANES, "more than", v[CHOOSE_LANES]};
  if (v[CHOOSE_STAGES] > room) return (illegal_choice){CHOOSE_STAGES, "at most", room};
  return (illegal_choice){0};
}

static V at_slot(emitter *e, V base, V slot, int64_t bytes) {
  return byte_offset(e, base, mul(e, slot, int64(e, bytes)));
}

static V row_of_lane(emitter *e, const streamer *s, unsigned i) {
  const int64_t groups = s->chunk / GROUP;
  return add(e, udiv(e, e->atoms->lane(e), int64(e, groups)), int64(e, i * (s->warps * 32 / groups)));
}

static void open_round(emitter *e, const streamer *s, const cursor *c) {
  const gemm_stream *p = s->product;
  gemm_round round;
  p->locate(e, get(e, e->i64, c->round), &round, p->user);
  set(e, c->weights, round.weights);
  set(e, c->tiles, mul(e, round.panels, int64(e, p->matrices)));
  set(e, c->rows, round.rows);
  for (unsigned i = 0; i < rows_of_lane(s); i++) {
    V row = imin(e, row_of_lane(e, s, i), sub(e, round.rows, int64(e, 1)));
    set(e, c->x_row[i], p->x_row(e, row, p->user));
  }
}

static cursor start(emitter *e, const streamer *s) {
  cursor c = {.round = local_set(e, e->i64, s->product->first), .chunk = local_set(e, e->i64, s->turn)};
  c.weights = local(e, e->pointer);
  c.tiles = local(e, e->i64);
  c.rows = local(e, e->i64);
  for (unsigned i = 0; i < rows_of_lane(s); i++) c.x_row[i] = local(e, e->pointer);
  open_round(e, s, &c);
  return c;
}

static V is_inside(emitter *e, const streamer *s, const cursor *c) {
  return icmp(e, LLVMIntSLT, get(e, e->i64, c->round), s->product->end);
}

static void advance(emitter *e, const streamer *s, const cursor *c) {
  V next = add(e, get(e, e->i64, c->chunk), int64(e, 1));
  next = select_(e, icmp(e, LLVMIntEQ, next, int64(e, s->chunks)), int64(e, 0), next);
  set(e, c->chunk, next);
  branch over = if_begin(e, icmp(e, LLVMIntEQ, next, s->turn));
  set(e, c->round, add(e, get(e, e->i64, c->round), int64(e, s->product->stride)));
  branch another = if_begin(e, is_inside(e, s, c));
  open_round(e, s, c);
  if_end(e, &another);
  if_end(e, &over);
}

/* Asks for the weights at the cursor, if it is not at the end. */
static void fill_weights(emitter *e, const streamer *s, const cursor *c, V slot) {
  branch fills = if_begin(e, and_(e, is_inside(e, s, c), icmp(e, LLVMIntEQ, s->lane.warp, int64(e, 0))));
  V barrier = at_slot(e, s->barriers, slot, BULK_BARRIER_BYTES), tiles = get(e, e->i64, c->tiles);
  branch announces = if_begin(e, icmp(e, LLVMIntEQ, s->lane.lane, int64(e, 0)));
  bulk_expect(e, barrier, mul(e, tiles, int64(e, s->piece_bytes)));
  if_end(e, &announces);
  branch copies = if_begin(e, icmp(e, LLVMIntSLT, s->lane.lane, tiles));
  V at = mul(e, get(e, e->i64, c->chunk), int64(e, s->piece_bytes));
  at = add(e, at, mul(e, s->lane.lane, int64(e, s->product->k * 2 * PANEL)));
  V to = byte_offset(e, at_slot(e, s->ring, slot, s->weight_bytes), mul(e, s->lane.lane, int64(e, s->piece_bytes)));
  bulk_piece(e, to, byte_offset(e, get(e, e->pointer, c->weights), at), s->piece_bytes, barrier,
             s->product->alone ? READ_ONCE : READ_PAST_L1);
  if_end(e, &copies);
  if_end(e, &fills);
}

/* Asks for the rows of x at the cursor; always one group of copies, if an empty one. */
static void fill_rows(emitter *e, const streamer *s, const cursor *c, V slot) {
  const int64_t groups = s->chunk / GROUP;
  branch inside = if_begin(e, is_inside(e, s, c));
  V group = and_(e, e->atoms->lane(e), int64(e, groups - 1)), swap = and_(e, group, int64(e, GROUP - 1));
  V from = mul(e, add(e, mul(e, get(e, e->i64, c->chunk), int64(e, groups)), group), int64(e, VECTOR));
  V to = byte_offset(e, at_slot(e, s->x_ring, slot, s->x_bytes), mul(e, group, int64(e, s->product->tile_m * VECTOR)));
  for (unsigned i = 0; i < rows_of_lane(s); i++) {
    V row = row_of_lane(e, s, i), place = LLVMBuildXor(e->builder, row, swap, "");
    copy_async(e, byte_offset(e, to, mul(e, place, int64(e, VECTOR))),
               byte_offset(e, get(e, e->pointer, c->x_row[i]), from),
               icmp(e, LLVMIntSLT, row, get(e, e->i64, c->rows)));
  }
  if_end(e, &inside);
  copy_async_commit(e);
}

/* Multiplies what a warp has of the slot, of its tiles of rows the first `row_tiles`. */
static void multiply(emitter *e, const streamer *s, V slot, unsigned row_tiles, V sums[MOST_TILES][MOST_ROW_TILES][4]) {
  const gemm_stream *p = s->product;
  /* Lane i of ldmatrix names row i % 8 of matrix i / 8: of w rows 0 to 7 and 8 to 15 of a group, then of the next; of x
   * a group and the next, then those of the next 8 rows. */
  V matrix = lshr(e, s->lane.lane, int64(e, 3)), row = and_(e, s->lane.lane, int64(e, 7));
  V low = and_(e, matrix, int64(e, 1)), high = lshr(e, matrix, int64(e, 1));
  V group = mul(e, s->depth_part, int64(e, STEP / GROUP));
  V w_row = add(e, mul(e, add(e, group, high), int64(e, PANEL)), add(e, mul(e, low, int64(e, 8)), row));
  V w = shared_address(e, byte_offset(e, at_slot(e, s->ring, slot, s->weight_bytes), mul(e, w_row, int64(e, VECTOR))));
  V x_group = add(e, group, low);
  V x_tile = add(e, mul(e, s->row_part, int64(e, s->row_tiles)), s->row_tiles > 1 ? high : int64(e, 0));
  V x_row = add(e, mul(e, x_group, int64(e, p->tile_m)), mul(e, x_tile, int64(e, 8)));
  V x_rows =
      shared_address(e, byte_offset(e, at_slot(e, s->x_ring, slot, s->x_bytes), mul(e, x_row, int64(e, VECTOR))));
  const int64_t stride = s->depth_parts * STEP; /* columns from one step of the warp to the next */
  for (int64_t column = 0; column < s->chunk; column += stride) {
    V b[MOST_ROW_TILES][2];
    const int64_t groups = column / GROUP;
    V swap = and_(e, add(e, x_group, int64(e, groups)), int64(e, GROUP - 1));
    V x = add(e, x_rows, to_i32(e, mul(e, LLVMBuildXor(e->builder, row, swap, ""), int64(e, VECTOR))));
    for (unsigned n = 0; n < row_tiles; n += 2) {
      const unsigned count = n + 1 < row_tiles ? 4 : 2;
      V at = add(e, x, int32(e, (int32_t)((groups * p->tile_m + n * 8) * VECTOR))), loaded[4];
      load_matrices(e, at, count, loaded);
      for (unsigned i = 0; i < count; i++) b[n + i / 2][i % 2] = loaded[i];
    }
    for (unsigned m = 0; m < s->tiles; m++) {
      V a[4];
      load_matrices(e, add(e, w, int32(e, (int32_t)(m * s->piece_bytes + groups * PANEL * VECTOR))), 4, a);
      for (unsigned n = 0; n < row_tiles; n++) {
        V sum[4];
        for (unsigned i = 0; i < 4; i++) sum[i] = get(e, e->f32, sums[m][n][i]);
        mma_bf16(e, sum, a, b[n]);
        for (unsigned i = 0; i < 4; i++) set(e, sums[m][n][i], sum[i]);
      }
    }
  }
}

/* Few rows in a large tile, of an expert say, are the first row part's first two tiles. */
static void multiply_rows(emitter *e, const streamer *s, V slot, V rows, V sums[MOST_TILES][MOST_ROW_TILES][4]) {
  const unsigned few = 2;
  if (s->row_tiles <= few) {
    multiply(e, s, slot, s->row_tiles, sums);
    return;
  }
  branch many = if_begin(e, icmp(e, LLVMIntSGT, rows, int64(e, few * 8)));
  multiply(e, s, slot, s->row_tiles, sums);
  if_else(e, &many);
  branch first = if_begin(e, icmp(e, LLVMIntEQ, s->row_part, int64(e, 0)));
  multiply(e, s, slot, few, sums);
  if_end(e, &first);
  if_end(e, &many);
}

/* Adds up the warps' sums of the panels [from, from + count) of a round and finishes their columns. In memory:
 * [panel][matrix][part of the depth][tile of rows][value i][lane]; lane and i change places within a quad, so that
 * neighbouring columns are read from different banks. */
static void add_up(emitter *e, const streamer *s, const gemm_round *round, unsigned from, unsigned count,
                   V sums[MOST_TILES][MOST_ROW_TILES][4]) {
  const gemm_stream *p = s->product;
  const int64_t part = PANEL * p->tile_m, all = count * part, at_a_time = s->warps * 32;
  V lane = e->atoms->lane(e), row[MOST_ELEMENTS], column[MOST_ELEMENTS], at[MOST_ELEMENTS], fetched[MOST_ELEMENTS];
  unsigned elements = 0;
  for (int64_t i = 0; i < all && elements < MOST_ELEMENTS; i += at_a_time, elements++) {
    V index = add(e, lane, int64(e, i)), panel = udiv(e, index, int64(e, part));
    V within = urem(e, index, int64(e, part)), c = and_(e, within, int64(e, PANEL - 1));
    V r = lshr(e, within, int64(e, 4));
    column[elements] = add(e, add(e, round->column, int64(e, from * PANEL)), add(e, mul(e, panel, int64(e, PANEL)), c));
    row[elements] = r;
    V value = add(e, mul(e, lshr(e, c, int64(e, 3)), int64(e, 2)), and_(e, r, int64(e, 1)));
    V t = LLVMBuildXor(e->builder, and_(e, lshr(e, r, int64(e, 1)), int64(e, 3)), value, "");
    V place = add(e, mul(e, and_(e, c, int64(e, 7)), int64(e, 4)), t);
    place = add(e, place, mul(e, add(e, mul(e, lshr(e, r, int64(e, 3)), int64(e, 4)), value), int64(e, 32)));
    at[elements] = add(e, place, mul(e, panel, int64(e, part * p->matrices * s->depth_parts)));
    /* Clamped: an element beyond the end is not stored. */
    V last_row = sub(e, round->rows, int64(e, 1));
    fetched[elements] = p->fetch(e, imin(e, r, last_row), imin(e, column[elements], int64(e, p->n - 1)), 1, p->user);
  }
  for (unsigned m = 0; m < count * p->matrices; m++)
    for (unsigned n = 0; n < s->row_tiles; n++)
      for (unsigned i = 0; i < 4; i++) {
        V tile = add(e, mul(e, s->row_part, int64(e, s->row_tiles)), int64(e, n));
        V place = add(e, mul(e, add(e, mul(e, tile, int64(e, 4)), int64(e, i)), int64(e, 32)),
                      LLVMBuildXor(e->builder, s->lane.lane, int64(e, i), ""));
        place = add(e, place, mul(e, add(e, int64(e, m * s->depth_parts), s->depth_part), int64(e, part)));
        store_f32(e, SLUICE_F32, get(e, e->f32, sums[from * p->matrices + m][n][i]), s->sums, place);
      }
  e->atoms->barrier(e);
  V end = add(e, round->column, mul(e, round->panels, int64(e, PANEL)));
  for (unsigned i = 0; i < elements; i++) {
    V inside = and_(e, icmp(e, LLVMIntSLT, row[i], round->rows), icmp(e, LLVMIntSLT, column[i], int64(e, p->n)));
    inside = and_(e, inside, icmp(e, LLVMIntSLT, column[i], end));
    if (all % at_a_time)
      inside = and_(e, inside, icmp(e, LLVMIntSLT, add(e, lane, int64(e, i * at_a_time)), int64(e, all)));
    branch real = if_begin(e, inside);
    V total[2] = {NULL, NULL};
    for (unsigned m = 0; m < p->matrices; m++)
      total[m] = add_parts(e, s->sums, add(e, at[i], int64(e, m * part * s->depth_parts)), part, s->depth_parts);
    p->finish(e, row[i], column[i], total, fetched[i], p->user);
    if_end(e, &real);
  }
}

/* Workgroup memory and the lane's part of the work; false when they do not suffice. */
static bool open_streamer(emitter *e, streamer *out) {
  streamer s = *out;
  const gemm_stream *p = s.product;
  const int64_t room = divide(&s);
  if (s.tiles > MOST_TILES || !fits_lanes(&s) || s.slots < 2 || s.slots > room) {
    e->status = sluice_error(SLUICE_INTERNAL, "kernel %s: %u panels of %lld columns and %lld rows do not fit",
                             e->spec->symbol, s.tiles, (long long)p->k, (long long)p->tile_m);
    return false;
  }
  s.depth_part = urem(e, s.lane.warp, int64(e, s.depth_parts));
  s.row_part = udiv(e, s.lane.warp, int64(e, s.depth_parts));
  s.turn = udiv(e, mul(e, e->x, int64(e, s.chunks)), int64(e, p->workgroups));
  const uint64_t ring_bytes = (uint64_t)(s.slots * (s.weight_bytes + s.x_bytes));
  const uint64_t sum_bytes = (uint64_t)s.at_once * p->matrices * s.depth_parts * PANEL * (uint64_t)p->tile_m * 4;
  s.ring = workgroup_take(e, p->single && sum_bytes > ring_bytes ? sum_bytes : ring_bytes);
  s.x_ring = byte_offset(e, s.ring, int64(e, s.slots * s.weight_bytes));
  s.barriers = workgroup_take(e, (uint64_t)s.slots * BULK_BARRIER_BYTES);
  s.sums = p->single ? s.ring : workgroup_take(e, sum_bytes);
  *out = s;
  return true;
}

/* Fills all slots but one; x is not there before the wait. */
static cursor fill_first(emitter *e, const streamer *s) {
  const gemm_stream *p = s->product;
  V ahead = int64(e, s->slots - 1);
  cursor line = start(e, s);
  loop begun = loop_begin(e, int64(e, 0), ahead, int64(e, 1));
  fill_weights(e, s, &line, begun.index);
  if (!p->early) fill_rows(e, s, &line, begun.index);
  advance(e, s, &line);
  loop_end(e, &begun);
  if (p->early) {
    await_previous(e);
    line = start(e, s);
    loop rows = loop_begin(e, int64(e, 0), ahead, int64(e, 1));
    fill_rows(e, s, &line, rows.index);
    advance(e, s, &line);
    loop_end(e, &rows);
  }
  return line;
}

static void stream(emitter *e, const gemm_stream *p) {
  if (p->turns) {
    wide_multiply(e, p);
    return;
  }
  streamer s = {.product = p, .lane = lane_place_of(e)};
  if (!open_streamer(e, &s)) return;
  branch first_lane = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  for (int64_t i = 0; i < s.slots; i++)
    bulk_barrier_init(e, at_slot(e, s.barriers, int64(e, i), BULK_BARRIER_BYTES), 1);
  if_end(e, &first_lane);
  e->atoms->barrier(e);
  cursor line = fill_first(e, &s);
  V slot = local_set(e, e->i64, int64(e, 0)), parity = local_set(e, e->i64, int64(e, 0));
  V sums[MOST_TILES][MOST_ROW_TILES][4];
  for (unsigned m = 0; m < s.tiles; m++)
    for (unsigned n = 0; n < s.row_tiles; n++)
      for (unsigned i = 0; i < 4; i++) sums[m][n][i] = local(e, e->f32);
  loop number = loop_begin(e, p->first, p->end, int64(e, p->stride));
  for (unsigned m = 0; m < s.tiles; m++)
    for (unsigned n = 0; n < s.row_tiles; n++)
      for (unsigned i = 0; i < 4; i++) set(e, sums[m][n][i], float32(e, 0));
  gemm_round round;
  p->locate(e, number.index, &round, p->user);
  loop depth = loop_begin(e, int64(e, 0), int64(e, s.chunks), int64(e, 1));
  V now = get(e, e->i64, slot);
  copy_async_wait(e, (unsigned)s.slots - 2);
  bulk_wait(e, at_slot(e, s.barriers, now, BULK_BARRIER_BYTES), get(e, e->i64, parity));
  e->atoms->barrier(e); /* the rows that other lanes asked for are there, and the slot before this one is read */
  V begins = icmp(e, LLVMIntEQ, now, int64(e, 0));
  V before = select_(e, begins, int64(e, s.slots - 1), sub(e, now, int64(e, 1)));
  fill_weights(e, &s, &line, before);
  fill_rows(e, &s, &line, before);
  advance(e, &s, &line);
  multiply_rows(e, &s, now, round.rows, sums);
  V after = add(e, now, int64(e, 1)), ends = icmp(e, LLVMIntEQ, after, int64(e, s.slots));
  set(e, slot, select_(e, ends, int64(e, 0), after));
  V flipped = LLVMBuildXor(e->builder, get(e, e->i64, parity), LLVMBuildZExt(e->builder, ends, e->i64, ""), "");
  set(e, parity, flipped);
  loop_end(e, &depth);
  p->locate(e, number.index, &round, p->user); /* again: filling slots located others */
  for (unsigned from = 0; from < (unsigned)p->panels; from += s.at_once) {
    unsigned left = (unsigned)p->panels - from;
    if (from || p->single) e->atoms->barrier(e); /* the panels before are finished, the ring is read */
    add_up(e, &s, &round, from, left < s.at_once ? left : s.at_once, sums);
  }
  loop_end(e, &number);
}

const gemm_stream_engine nvptx_gemm_stream = {.multiply = stream};

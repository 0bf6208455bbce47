/* Products of many rows, at the rate of the tensor cores: tiles in turns of the families gemm and expert_gemm.
 *
 * A workgroup stays on its processor and makes one tile after the other: up to 256 rows of w times up to 192 rows of x.
 * Of its three warpgroups one brings data in and two multiply; each of these has half of the tile's sums in registers.
 *
 *     producer   w: pieces of panels by the copy engine     x: rows by asynchronous copies, 16 bytes each
 *                     \                                    /
 *                      a ring of stages in workgroup memory, 64 columns of all rows each
 *                     /                                    \
 *     warpgroups  A = 64 rows of w, half of each of 8 panels    B = the rows of x
 *
 * w is the instruction's A, because the number of B's rows is free: a tile of 40 rows of x takes little more than a
 * fifth of the time of one of 192, and experts have any number. Rows of x may lie anywhere, so that experts need no
 * permuted copy of them.
 *
 * A panel's piece of 64 columns is 8 groups of 16 rows of 16 bytes, one behind the other. Its rows 0 to 7 of a group
 * are what the instruction takes as 8 rows of A, its rows 8 to 15 others. An instruction takes the same half of 8
 * panels:
 *
 *     one matrix     warpgroup 0: panels 0 to 7, both halves          warpgroup 1: panels 8 to 15
 *     gate and up    warpgroup 0: half 0 of all 16 panels, of which every other one is a gate's; warpgroup 1: half 1
 *
 * so that a lane has the gate and the up value of the same column. Sums of w's row are in one lane for neighbouring
 * rows of x; memory wants neighbouring columns of out together. So blocks of 8 x 8 results, rounded to bf16, are
 * transposed by movmatrix, and four of them change places in each quad of lanes: then a lane has 16 bytes of a row.
 */
#include "backends/nvptx/wide.h"
#include "backends/nvptx/own_kernels.h"
#include "backends/nvptx/planes.h"

enum {
  PANEL = 16,
  GROUP = 8,
  HALF_BYTES = 128,  /* 8 rows of a group */
  GROUP_BYTES = 256, /* a group of a panel */
  DEPTH = 64,        /* columns of a stage */
  PIECE_BYTES = PANEL * DEPTH * 2,
  WEIGHT_BYTES = WIDE_PANELS * PIECE_BYTES, /* of a stage */
  X_BYTES = WIDE_ROWS * SWIZZLE_ROW_BYTES,
  STAGE_BYTES = WEIGHT_BYTES + X_BYTES,
  STAGES = WIDE_STAGES,
  CONSUMERS = 2,
  LANES = (CONSUMERS + 1) * WARPGROUP,
  COPY_ROWS = WARPGROUP / 8, /* rows of x that the producer's lanes copy pieces of at a time */
  COPIES = WIDE_ROWS / COPY_ROWS,
  PRODUCER_REGISTERS = 56,
  CONSUMER_REGISTERS = 224,
  LEAST_ROW_STEP = 16,
  NUMBERS = 8, /* rounds whose numbers are known to all: more than the producer can be ahead of the slowest consumer,
                  which is by a stage for each round at least */
};

_Static_assert((int)LANES == (int)WIDE_LANES, "the warpgroups have all lanes");

typedef struct wide {
  const gemm_stream *product;
  V ring, full, empty; /* workgroup memory: stages; barriers of each */
  lane_place lane;
  V warpgroup, warp;       /* warp: its number in the warpgroup; i64, the same in all lanes of a warp */
  V numbers, numbers_full; /* workgroup memory: i32[NUMBERS] of rounds that were drawn, and a barrier for each */
  ring_place at, turn;     /* in the ring; among the numbers */
} wide;

static V stage_memory(emitter *e, const wide *w, V stage) {
  return byte_offset(e, w->ring, mul(e, stage, int64(e, STAGE_BYTES)));
}

/* ---- rounds ---- */

typedef void round_body(emitter *e, const wide *w, V number, void *user);

/* The rounds of the workgroup, by all lanes of a warpgroup. */
static void each_round(emitter *e, const wide *w, round_body *body, void *user) {
  const gemm_stream *p = w->product;
  if (!p->ticket) {
    loop number = loop_begin(e, p->first, p->end, int64(e, p->stride));
    body(e, w, number.index, user);
    loop_end(e, &number);
    return;
  }
  LLVMBasicBlockRef look = LLVMAppendBasicBlockInContext(e->context, e->function, "drawn");
  LLVMBasicBlockRef inside = LLVMAppendBasicBlockInContext(e->context, e->function, "round");
  LLVMBasicBlockRef done = LLVMAppendBasicBlockInContext(e->context, e->function, "rounds");
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, look);
  V turn = ring_stage(e, &w->turn);
  bulk_wait(e, barrier_at(e, w->numbers_full, turn), ring_parity(e, &w->turn));
  V number = load_i32(e, w->numbers, turn);
  ring_step(e, &w->turn);
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntSLT, number, p->end), inside, done);
  LLVMPositionBuilderAtEnd(e->builder, inside);
  body(e, w, number, user);
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, done);
}

/* The first lane draws a number: a local of i32, which it alone has. */
static V draw_number(emitter *e, const gemm_stream *p) {
  V number = local_set(e, e->i32, int32(e, 0)), argument = p->ticket;
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  set(e, number,
      assembly(e, e->i32, "atom.global.relaxed.gpu.add.u32 $0, [$1], 1;", "=r,l,~{memory}", &argument, 1,
               ASSEMBLY_EFFECT));
  if_end(e, &first);
  return number;
}

/* The first lane tells all of the workgroup the number (i32) of the round behind those that its warpgroup knows of. */
static void tell_number(emitter *e, const wide *w, V number) {
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  V turn = ring_stage(e, &w->turn);
  store(e, number, element(e, e->i32, w->numbers, turn));
  bulk_arrive(e, barrier_at(e, w->numbers_full, turn));
  if_end(e, &first);
}

/* ---- the producer ---- */

/* Its lane has piece `piece` of rows own_row, own_row + COPY_ROWS, ... of x. */
typedef struct copier {
  V piece, own_row; /* i64 */
  V place;          /* of row own_row's piece in a stage's x, bytes */
  V row[COPIES];    /* locals, i32: bytes from x to the piece's place in the rows of the round */
} copier;

static copier open_copier(emitter *e) {
  V lane = and_(e, e->atoms->lane(e), int64(e, WARPGROUP - 1));
  copier c = {.piece = and_(e, lane, int64(e, 7)), .own_row = lshr(e, lane, int64(e, 3))};
  V swizzled = LLVMBuildXor(e->builder, c.piece, and_(e, c.own_row, int64(e, 7)), "");
  c.place = add(e, mul(e, c.own_row, int64(e, SWIZZLE_ROW_BYTES)), mul(e, swizzled, int64(e, 16)));
  for (unsigned i = 0; i < COPIES; i++) c.row[i] = local(e, e->i32);
  return c;
}

/* Rows beyond the tile's are its last one: they are multiplied, but not stored. */
static void find_rows(emitter *e, const gemm_stream *p, const gemm_round *round, const copier *c) {
  V last = sub(e, round->rows, int64(e, 1)), offset = mul(e, c->piece, int64(e, 16));
  V x = LLVMBuildPtrToInt(e->builder, p->x, e->i64, "");
  for (unsigned i = 0; i < COPIES; i++) {
    V row = imin(e, add(e, c->own_row, int64(e, i * COPY_ROWS)), last);
    V from_x = sub(e, LLVMBuildPtrToInt(e->builder, p->x_row(e, row, p->user), e->i64, ""), x);
    set(e, c->row[i], to_i32(e, add(e, from_x, offset)));
  }
}

/* All of the round's stages, one after the other, as soon as there is room. */
static void fill_round(emitter *e, const wide *w, const gemm_round *round, const copier *c) {
  const gemm_stream *p = w->product;
  find_rows(e, p, round, c);
  V pieces = mul(e, round->panels, int64(e, p->matrices));
  V leads = icmp(e, LLVMIntEQ, w->warp, int64(e, 0));
  V copies = and_(e, leads, icmp(e, LLVMIntSLT, w->lane.lane, pieces));
  V announces = and_(e, leads, icmp(e, LLVMIntEQ, w->lane.lane, int64(e, 0)));
  V weights = byte_offset(e, round->weights, mul(e, w->lane.lane, int64(e, p->k * 2 * PANEL)));
  loop depth = loop_begin(e, int64(e, 0), int64(e, p->k / DEPTH), int64(e, 1));
  V stage = ring_stage(e, &w->at), full = barrier_at(e, w->full, stage), memory = stage_memory(e, w, stage);
  bulk_wait(e, barrier_at(e, w->empty, stage), ring_room(e, &w->at));
  branch announced = if_begin(e, announces);
  bulk_expect(e, full, mul(e, pieces, int64(e, PIECE_BYTES)));
  if_end(e, &announced);
  branch copied = if_begin(e, copies);
  bulk_piece(e, byte_offset(e, memory, mul(e, w->lane.lane, int64(e, PIECE_BYTES))),
             byte_offset(e, weights, mul(e, depth.index, int64(e, PIECE_BYTES))), PIECE_BYTES, full,
             p->alone ? READ_ONCE : READ_PAST_L1);
  if_end(e, &copied);
  V to = byte_offset(e, memory, add(e, c->place, int64(e, WEIGHT_BYTES)));
  V from = byte_offset(e, p->x, mul(e, depth.index, int64(e, DEPTH * 2)));
  for (unsigned i = 0; i < COPIES; i++)
    copy_async(e, byte_offset(e, to, int64(e, i * COPY_ROWS * SWIZZLE_ROW_BYTES)),
               byte_offset(e, from, local_number(e, c->row[i])),
               icmp(e, LLVMIntSLT, int64(e, i * COPY_ROWS), round->rows));
  copies_arrive(e, full);
  ring_step(e, &w->at);
  loop_end(e, &depth);
}

static void produce_round(emitter *e, const wide *w, V number, void *user) {
  const gemm_stream *p = w->product;
  gemm_round round;
  p->locate(e, number, &round, p->user);
  V next = p->ticket ? draw_number(e, p) : NULL; /* early: it is there when the round is filled */
  fill_round(e, w, &round, user);
  if (next) tell_number(e, w, get(e, e->i32, next));
}

static void produce(emitter *e, const wide *w) {
  registers_release(e, PRODUCER_REGISTERS);
  copier c = open_copier(e);
  if (w->product->ticket) tell_number(e, w, get(e, e->i32, draw_number(e, w->product)));
  each_round(e, w, produce_round, &c);
  copy_async_commit(e);
  copy_async_wait(e, 0); /* nobody ends with copies under way */
}

/* ---- the consumers ---- */

/* The warpgroup's two operands of w: bytes from the stage's begin, and from one panel of an operand to its next. */
typedef struct weight_place {
  V first;
  int64_t second, stride;
} weight_place;

static weight_place find_weights(emitter *e, const wide *w) {
  const bool pair = w->product->matrices == 2;
  const int64_t of_warpgroup = pair ? HALF_BYTES : (int64_t)WIDE_PANELS / CONSUMERS * PIECE_BYTES;
  return (weight_place){.first = mul(e, w->warpgroup, int64(e, of_warpgroup)),
                        .second = pair ? PIECE_BYTES : HALF_BYTES,
                        .stride = pair ? (int64_t)2 * PIECE_BYTES : PIECE_BYTES};
}

/* Multiplies a round's depth for the first `rows` rows of x. */
static void multiply_round(emitter *e, const wide *w, const weight_place *place, const wgmma_sums all[2],
                           unsigned rows) {
  const gemm_stream *p = w->product;
  wgmma_sums sums[2] = {all[0], all[1]};
  for (unsigned i = 0; i < 2; i++) {
    sums[i].columns = rows;
    wgmma_set_zero(e, &sums[i]);
  }
  V before = local_set(e, e->i32, int32(e, -1)); /* the stage whose products are under way */
  V first_lane = icmp(e, LLVMIntEQ, and_(e, e->atoms->lane(e), int64(e, WARPGROUP - 1)), int64(e, 0));
  loop depth = loop_begin(e, int64(e, 0), int64(e, p->k / DEPTH), int64(e, 1));
  V stage = ring_stage(e, &w->at);
  bulk_wait(e, barrier_at(e, w->full, stage), ring_parity(e, &w->at));
  async_fence(e);
  V memory = shared_address(e, stage_memory(e, w, stage));
  V a = wgmma_core_operand(e, add(e, memory, to_i32(e, place->first)), GROUP_BYTES, place->stride);
  V b = wgmma_swizzled_operand(e, add(e, memory, int32(e, WEIGHT_BYTES)));
  wgmma_begin(e);
  for (int64_t step = 0; step < DEPTH / WGMMA_DEPTH; step++)
    for (unsigned i = 0; i < 2; i++)
      wgmma(e, &sums[i], wgmma_operand_at(e, a, step * 2 * GROUP_BYTES + i * place->second),
            wgmma_operand_at(e, b, step * WGMMA_DEPTH * 2), true);
  wgmma_commit(e);
  wgmma_wait(e, 1);
  V done = get(e, e->i32, before);
  branch releases = if_begin(e, and_(e, first_lane, icmp(e, LLVMIntSGE, done, int32(e, 0))));
  bulk_arrive(e, barrier_at(e, w->empty, local_number(e, before)));
  if_end(e, &releases);
  set(e, before, get(e, e->i32, w->at.stage));
  ring_step(e, &w->at);
  loop_end(e, &depth);
  wgmma_wait(e, 0);
  for (unsigned i = 0; i < 2; i++) wgmma_settle(e, &sums[i]);
  branch last = if_begin(e, first_lane);
  bulk_arrive(e, barrier_at(e, w->empty, local_number(e, before)));
  if_end(e, &last);
}

/* A block of 8 x 8 bf16: a lane's word holds row g, columns 2t and 2t + 1; then column g, rows 2t and 2t + 1. */
static V transpose(emitter *e, V word) {
  return assembly(e, e->i32, "movmatrix.sync.aligned.m8n8.trans.b16 $0, $1;", "=r,r", &word, 1, ASSEMBLY_CONVERGENT);
}

/* Where a lane's 16 bytes of a block row go: four blocks of 8 rows of x and 8 columns of out each. */
typedef struct out_piece {
  V at;     /* i64: element of out */
  V inside; /* i1 */
} out_piece;

static out_piece find_piece(emitter *e, const wide *w, const gemm_round *round, V row, V panel, V half) {
  const gemm_stream *p = w->product;
  V inside = and_(e, icmp(e, LLVMIntSLT, row, round->rows), icmp(e, LLVMIntSLT, panel, round->panels));
  V column = add(e, mul(e, panel, int64(e, PANEL)), mul(e, half, int64(e, GROUP)));
  column = select_(e, inside, add(e, round->column, column), int64(e, 0));
  V base = p->out_place(e, imin(e, row, sub(e, round->rows, int64(e, 1))), p->user);
  return (out_piece){.at = add(e, base, column), .inside = inside};
}

static void store_words(emitter *e, const gemm_stream *p, const out_piece *piece, const V word[4]) {
  V value = LLVMGetPoison(LLVMVectorType(e->i32, 4));
  for (int32_t i = 0; i < 4; i++) value = LLVMBuildInsertElement(e->builder, value, word[i], int32(e, i), "");
  branch real = if_begin(e, piece->inside);
  LLVMSetAlignment(LLVMBuildStore(e->builder, value, element_of(e, SLUICE_BF16, p->out, piece->at)), 16);
  if_end(e, &real);
}

/* Adds the residual to four blocks of results: block i is value[i], rows g of the columns 2t, 2t + 1 of x. */
static void add_residual(emitter *e, const wide *w, const out_piece *piece, V value[4][2]) {
  V loaded = load(e, LLVMVectorType(e->i32, 4), element_of(e, SLUICE_BF16, w->product->residual, piece->at)), word[4];
  for (int32_t i = 0; i < 4; i++) word[i] = LLVMBuildExtractElement(e->builder, loaded, int32(e, i), "");
  exchange_in_quad(e, &w->lane, word);
  for (unsigned i = 0; i < 4; i++) {
    V pair = transpose(e, word[i]);
    V low = bitcast(e, shl(e, pair, int32(e, 16)), e->f32);
    V high = bitcast(e, and_(e, pair, int32(e, (int32_t)0xffff0000)), e->f32);
    value[i][0] = fadd_(e, value[i][0], low);
    value[i][1] = fadd_(e, value[i][1], high);
  }
}

static void finish_blocks(emitter *e, const wide *w, const out_piece *piece, V value[4][2]) {
  if (w->product->residual) add_residual(e, w, piece, value);
  V word[4];
  for (unsigned i = 0; i < 4; i++) word[i] = transpose(e, pack_bf16(e, value[i][0], value[i][1]));
  exchange_in_quad(e, &w->lane, word);
  store_words(e, w->product, piece, word);
}

/* Results of f32, one by one: of a row of x a lane has up to four, columns apart that are the same for all rows. Eight
 * lanes have neighbouring columns, so what is written is whole sectors. */
static void finish_elements(emitter *e, const wide *w, const gemm_round *round, const wgmma_sums sums[2]) {
  const gemm_stream *p = w->product;
  const bool pair = p->matrices == 2;
  V panel = mul(e, w->warp, int64(e, 2));
  if (!pair) panel = add(e, panel, mul(e, w->warpgroup, int64(e, WIDE_PANELS / CONSUMERS)));
  V column = add(e, round->column, add(e, mul(e, panel, int64(e, PANEL)), w->lane.g));
  if (pair) column = add(e, column, mul(e, w->warpgroup, int64(e, GROUP)));
  V inside[2];
  for (unsigned k = 0; k < 2; k++) inside[k] = icmp(e, LLVMIntSLT, add(e, panel, int64(e, k)), round->panels);
  for (unsigned number = 0; number < WIDE_ROWS / 4; number++) { /* rows of the lane */
    V row = add(e, mul(e, w->lane.t, int64(e, 2)), int64(e, number / 2 * 8 + number % 2));
    branch real = if_begin(e, icmp(e, LLVMIntSLT, row, round->rows));
    V at = add(e, p->out_place(e, row, p->user), column);
    for (unsigned k = 0; k < 2; k++) {
      const unsigned value = number / 2 * 4 + k * 2 + number % 2;
      branch panel_real = if_begin(e, inside[k]);
      for (unsigned i = 0; i < (pair ? 1 : 2); i++) {
        V both[2] = {get(e, e->f32, sums[i].value[value]), pair ? get(e, e->f32, sums[1].value[value]) : NULL};
        V place = add(e, at, int64(e, k * PANEL + i * GROUP));
        store_f32(e, p->out_dtype, p->result(e, both, p->user), p->out, place);
      }
      if_end(e, &panel_real);
    }
    if_end(e, &real);
  }
}

/* One matrix: blocks are those of two panels beside each other, both halves, for 8 rows of x. */
static void finish_single(emitter *e, const wide *w, const gemm_round *round, const wgmma_sums sums[2]) {
  const gemm_stream *p = w->product;
  V panel = add(e, mul(e, w->warpgroup, int64(e, WIDE_PANELS / CONSUMERS)), mul(e, w->warp, int64(e, 2)));
  panel = add(e, panel, lshr(e, w->lane.t, int64(e, 1)));
  V half = and_(e, w->lane.t, int64(e, 1));
  for (unsigned j = 0; j < WIDE_ROWS / 8; j++) {
    branch some = if_begin(e, icmp(e, LLVMIntSLT, int64(e, j * 8), round->rows));
    out_piece piece = find_piece(e, w, round, add(e, int64(e, j * 8), w->lane.g), panel, half);
    V value[4][2];
    for (unsigned block = 0; block < 4; block++)
      for (unsigned i = 0; i < 2; i++) {
        V one[2] = {get(e, e->f32, sums[block % 2].value[4 * j + block / 2 * 2 + i]), NULL};
        value[block][i] = p->result(e, one, p->user);
      }
    finish_blocks(e, w, &piece, value);
    if_end(e, &some);
  }
}

/* Gate and up: blocks are those of two panels of out, one half, for 16 rows of x. */
static void finish_pair(emitter *e, const wide *w, const gemm_round *round, const wgmma_sums sums[2]) {
  const gemm_stream *p = w->product;
  V panel = add(e, mul(e, w->warp, int64(e, 2)), and_(e, w->lane.t, int64(e, 1)));
  V row = add(e, mul(e, lshr(e, w->lane.t, int64(e, 1)), int64(e, 8)), w->lane.g);
  for (unsigned j = 0; j < WIDE_ROWS / 8; j += 2) {
    branch some = if_begin(e, icmp(e, LLVMIntSLT, int64(e, j * 8), round->rows));
    out_piece piece = find_piece(e, w, round, add(e, int64(e, j * 8), row), panel, w->warpgroup);
    V value[4][2];
    for (unsigned block = 0; block < 4; block++)
      for (unsigned i = 0; i < 2; i++) {
        const unsigned at = 4 * (j + block / 2) + block % 2 * 2 + i;
        V both[2] = {get(e, e->f32, sums[0].value[at]), get(e, e->f32, sums[1].value[at])};
        value[block][i] = p->result(e, both, p->user);
      }
    finish_blocks(e, w, &piece, value);
    if_end(e, &some);
  }
}

static void finish_round(emitter *e, const wide *open, const wgmma_sums sums[2], V number) {
  wide again = *open, *w = &again;
  V lane = renewed(e, e->atoms->lane(e));
  w->lane = lane_place_from(e, lane);
  w->warp = and_(e, w->lane.warp, int64(e, 3));
  w->warpgroup = sub(e, lshr(e, w->lane.warp, int64(e, 2)), int64(e, 1));
  gemm_round located, *round = &located;
  w->product->locate(e, renewed(e, number), round, w->product->user);
  if (w->product->out_dtype != SLUICE_BF16)
    finish_elements(e, w, round, sums);
  else if (w->product->matrices == 2)
    finish_pair(e, w, round, sums);
  else
    finish_single(e, w, round, sums);
}

static void consume_round(emitter *e, const wide *w, V number, void *user) {
  const gemm_stream *p = w->product;
  const weight_place *place = user;
  gemm_round round;
  p->locate(e, number, &round, p->user);
  wgmma_sums sums[2] = {wgmma_take(e, WIDE_ROWS), wgmma_take(e, WIDE_ROWS)};
  branch fits[WIDE_ROWS / LEAST_ROW_STEP];
  const unsigned row_step = (unsigned)p->row_step;
  unsigned choices = 0;
  for (unsigned rows = row_step; rows < WIDE_ROWS; rows += row_step, choices++) {
    fits[choices] = if_begin(e, icmp(e, LLVMIntSLE, round.rows, int64(e, rows)));
    multiply_round(e, w, place, sums, rows);
    for (unsigned i = 0; i < 2; i++) /* nobody asks for the others */
      for (unsigned other = rows / 2; other < WIDE_ROWS / 2; other++)
        set(e, sums[i].value[other], LLVMGetPoison(e->f32));
    if_else(e, &fits[choices]);
  }
  multiply_round(e, w, place, sums, WIDE_ROWS);
  while (choices) if_end(e, &fits[--choices]);
  finish_round(e, w, sums, number);
}

static void consume(emitter *e, wide *w) {
  registers_claim(e, CONSUMER_REGISTERS);
  w->warpgroup = sub(e, w->warpgroup, int64(e, 1));
  weight_place place = find_weights(e, w);
  each_round(e, w, consume_round, &place);
}

void wide_multiply(emitter *e, const gemm_stream *p) {
  if (p->k % DEPTH || p->n % PANEL || p->tile_m > WIDE_ROWS || p->panels * p->matrices > WIDE_PANELS ||
      p->row_step < LEAST_ROW_STEP) {
    e->status = sluice_error(SLUICE_INTERNAL, "kernel %s: no product in turns has depth %lld and %lld columns",
                             e->spec->symbol, (long long)p->k, (long long)p->n);
    return;
  }
  wide w = {.product = p, .lane = lane_place_of(e)};
  w.ring = workgroup_take(e, (uint64_t)STAGES * STAGE_BYTES); /* first of all: x wants multiples of 1024 bytes */
  w.full = barriers_take(e, STAGES);
  w.empty = barriers_take(e, STAGES);
  w.numbers = workgroup_take(e, NUMBERS * sizeof(int32_t));
  w.numbers_full = barriers_take(e, NUMBERS);
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  barriers_init(e, w.full, STAGES, WARPGROUP + 1);
  barriers_init(e, w.empty, STAGES, CONSUMERS);
  barriers_init(e, w.numbers_full, NUMBERS, 1);
  if_end(e, &first);
  e->atoms->barrier(e);
  V warp = uniform_warp(e, &w.lane);
  w.warpgroup = lshr(e, warp, int64(e, 2));
  w.warp = and_(e, warp, int64(e, 3));
  w.at = ring_place_open(e, STAGES);
  w.turn = ring_place_open(e, NUMBERS);
  branch role = if_begin(e, icmp(e, LLVMIntEQ, w.warpgroup, int64(e, 0)));
  produce(e, &w);
  if_else(e, &role);
  consume(e, &w);
  if_end(e, &role);
}

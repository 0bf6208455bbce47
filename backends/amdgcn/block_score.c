/* Scores of blocks of keys for sparse attention (m3.md 2.7, 2.8): family block_score in bf16.
 *
 * Steps whose tiles have one token each (decoding) read keys once, from memory straight to registers, and multiply
 * them with vector instructions: with few rows of queries a matrix unit would idle. An item is a tile and a page; all
 * of a page's reads are on their way at once, 16 bytes a lane, so that a wave's read is one piece of 1024 bytes:
 *
 *     lane      0 .. 15     16 .. 31    32 .. 47    48 .. 63         (128 dimensions: 16 lanes a key)
 *     read 0    key 0       key 1       key 2       key 3            wave 0; waves 1 to 3 have keys 4 to 15
 *     read 1    key 16      key 17      key 18      key 19
 *
 * A lane multiplies its 8 dimensions by those of each head's query, lanes of a key are added up by DPP, and the largest
 * over the keys that the token sees stays in registers until the waves meet in LDS, once a page.
 *
 * All other steps use matrix instructions. An item is a group of neighbouring tiles and some pages; tiles of one
 * sequence are one run of tokens, of which each wave has 64 columns (pairs of a token and a head). Their queries stay
 * in registers, keys come through LDS in parts of at most 32, loaded straight to it, two parts in turn, and are read by
 * all waves. A column belongs to one wave, so nothing but keys passes between waves.
 */
#include "backends/amdgcn/amdgcn.h"
#include "backends/amdgcn/buffer.h"
#include "backends/amdgcn/direct.h"
#include "backends/amdgcn/mfma.h"
#include "backends/common/attention.h"

#include <math.h>

enum {
  WAVES = 4,
  VECTOR = 16,    /* bytes */
  MOST_READS = 8, /* of a page, for a lane */
  MOST_HEADS = 8,
  ROWS = 16,     /* keys of a fragment */
  COLUMNS = 16,  /* of a fragment */
  FRAGMENTS = 4, /* of a wave's columns */
  STEP = 32,     /* depth of an instruction */
  MOST_STEPS = 4,
  MOST_PART = 32, /* keys */
  PARTS_IN_LDS = 2,
  GROUP_COLUMNS = WAVES * FRAGMENTS * COLUMNS,
  MOST_PAGES = 16, /* of an item of many tokens */
  AT_ONCE = 4,     /* workgroups that a processor may have work for */
};

typedef struct scorer {
  int64_t heads, dim, k, local, page, page_bytes, index_offset, query_tile;
  unsigned key_lanes, reads; /* one token: lanes of a key; reads of a page */
  unsigned steps, part;      /* many tokens: dim / STEP; keys of a part */
  int64_t group;             /* tiles */
  V lane, wave;              /* i64 */
  V tiles, pages;            /* sizes of the step */
} scorer;

/* Field `field` of tile `number`: its first token, tokens, row of the page table, position (SLUICE_INPUT_TILES). */
enum { FIRST, COUNT, TABLE, POSITION };

static V tile_field(emitter *e, V number, int64_t field) {
  return amdgcn_load_input(e, e->argument[1], add(e, mul(e, number, int64(e, 4)), int64(e, field)));
}

/* Index keys of page `page` of the sequence in row `table`. */
static V keys_of_page(emitter *e, const scorer *s, V table, V page) {
  V entry = amdgcn_load_input(e, e->argument[2], add(e, mul(e, table, size_of(e, SLUICE_SIZE_PAGE_STRIDE)), page));
  return byte_offset(e, e->argument[3], add(e, mul(e, entry, int64(e, s->page_bytes)), int64(e, s->index_offset)));
}

/* Pages below it are scored for a tile or run that ends with the token at `last`; none where nothing is chosen. */
static V scored_pages(emitter *e, const scorer *s, V last) {
  V seen = visible_blocks(e, last, s->page);
  V scored = imax(e, sub(e, seen, int64(e, s->local)), int64(e, 0));
  return select_(e, icmp(e, LLVMIntSGT, seen, int64(e, s->k)), scored, int64(e, 0));
}

/* ---- one token ---- */

/* A tile and a page; locals, i64 and a pointer. `number` counts all of the step's. */
typedef struct token_item {
  V number, token, position, page, keys;
} token_item;

static V items_of_step(emitter *e, const scorer *s) {
  return mul(e, s->tiles, s->pages);
}

/* The first of the workgroup's items from number `from` on that is wanted, or a number behind all of them. */
static void find_item(emitter *e, const scorer *s, V from, const token_item *item) {
  LLVMBasicBlockRef look = LLVMAppendBasicBlockInContext(e->context, e->function, "look");
  LLVMBasicBlockRef inside = LLVMAppendBasicBlockInContext(e->context, e->function, "inside");
  LLVMBasicBlockRef found = LLVMAppendBasicBlockInContext(e->context, e->function, "found");
  LLVMBasicBlockRef beyond = LLVMAppendBasicBlockInContext(e->context, e->function, "beyond");
  LLVMBasicBlockRef end = LLVMAppendBasicBlockInContext(e->context, e->function, "end");
  set(e, item->number, from);
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, look);
  V number = get(e, e->i64, item->number);
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntSLT, number, items_of_step(e, s)), inside, end);
  LLVMPositionBuilderAtEnd(e->builder, inside);
  V narrow = to_i32(e, number), pages = to_i32(e, s->pages), quotient = udiv(e, narrow, pages);
  V tile = to_i64(e, quotient), page = to_i64(e, sub(e, narrow, mul(e, quotient, pages)));
  V position = tile_field(e, tile, POSITION);
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntSLT, page, scored_pages(e, s, position)), found, beyond);
  LLVMPositionBuilderAtEnd(e->builder, beyond);
  set(e, item->number, add(e, number, extent_of(e, &e->grid[0])));
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, found);
  set(e, item->token, tile_field(e, tile, FIRST));
  set(e, item->position, position);
  set(e, item->page, page);
  set(e, item->keys, keys_of_page(e, s, tile_field(e, tile, TABLE), page));
  LLVMBuildBr(e->builder, end);
  LLVMPositionBuilderAtEnd(e->builder, end);
}

/* Number of the lane's key in read `read`; behind the page its last key again. */
static V key_of_read(emitter *e, const scorer *s, unsigned read) {
  const int64_t keys = AMDGCN_WAVE / s->key_lanes;
  V key = add(e, mul(e, s->wave, int64(e, keys)), udiv(e, s->lane, int64(e, s->key_lanes)));
  return imin(e, add(e, key, int64(e, read * WAVES * keys)), int64(e, s->page - 1));
}

/* Eight bf16 as four pairs: of float32, or where the chip multiplies pairs of bf16, of these. */
static void pairs_of(emitter *e, V eight, V pair[4]) {
  T words = LLVMVectorType(e->i32, 4), two = LLVMVectorType(LLVMBFloatTypeInContext(e->context), 2);
  V all = bitcast(e, eight, words);
  for (unsigned i = 0; i < 4; i++) {
    V word = LLVMBuildExtractElement(e->builder, all, int32(e, (int32_t)i), "");
    if (amdgcn_is_gfx950(e)) {
      pair[i] = bitcast(e, word, two);
      continue;
    }
    V low = bitcast(e, shl(e, word, int32(e, 16)), e->f32);
    V high = bitcast(e, and_(e, word, int32(e, (int32_t)0xffff0000)), e->f32);
    pair[i] = vector_of(e, (V[]){low, high}, 2);
  }
}

static V multiply_pairs(emitter *e, const V a[4], const V b[4]) {
  if (amdgcn_is_gfx950(e)) {
    V sum = float32(e, 0), no_clamp = LLVMConstInt(e->i1, 0, 0);
    for (unsigned i = 0; i < 4; i++)
      sum = intrinsic(e, "llvm.amdgcn.fdot2.f32.bf16", NULL, 0, (V[]){a[i], b[i], sum, no_clamp}, 4);
    return sum;
  }
  V sum = fmul_(e, a[0], b[0]);
  for (unsigned i = 1; i < 4; i++) sum = fma_(e, a[i], b[i], sum);
  return fadd_(e, LLVMBuildExtractElement(e->builder, sum, int32(e, 0), ""),
               LLVMBuildExtractElement(e->builder, sum, int32(e, 1), ""));
}

/* What a lane has of its token's queries, and of the page's keys. */
typedef struct token_operands {
  V query[MOST_HEADS], key[MOST_READS];
} token_operands;

/* A token's queries, bf16 [head][dim], on their way: the workgroup's lanes share the reads. */
enum { MOST_ROUNDS = 2 };
typedef struct token_queries {
  int64_t words;
  unsigned rounds;
  V word[MOST_ROUNDS];
} token_queries;

static token_queries ask_queries(emitter *e, const scorer *s, V token) {
  token_queries q = {.words = s->heads * s->dim / 2};
  q.rounds = (unsigned)((q.words + e->lanes - 1) / e->lanes);
  V row = element(e, e->i32, e->argument[0], mul(e, token, int64(e, q.words)));
  for (unsigned i = 0; i < q.rounds; i++) {
    V at = imin(e, add(e, e->atoms->lane(e), int64(e, (int64_t)i * e->lanes)), int64(e, q.words - 1));
    q.word[i] = load(e, e->i32, element(e, e->i32, row, at));
  }
  return q;
}

/* What a lane wants of them, through workgroup memory. Has a barrier. */
static void take_queries(emitter *e, const scorer *s, const token_queries *q, V memory, V query[MOST_HEADS]) {
  for (unsigned i = 0; i < q->rounds; i++) {
    V at = add(e, e->atoms->lane(e), int64(e, (int64_t)i * e->lanes));
    branch inside = if_begin(e, icmp(e, LLVMIntSLT, at, int64(e, q->words)));
    store(e, q->word[i], element(e, e->i32, memory, at));
    if_end(e, &inside);
  }
  e->atoms->barrier(e);
  V within = mul(e, urem(e, s->lane, int64(e, s->key_lanes)), int64(e, VECTOR));
  for (unsigned h = 0; h < s->heads; h++)
    query[h] = load(e, LLVMVectorType(e->i16, 8), byte_offset(e, memory, add(e, within, int64(e, h * s->dim * 2))));
}

static void load_keys(emitter *e, const scorer *s, V keys, V key[MOST_READS]) {
  V within = mul(e, urem(e, s->lane, int64(e, s->key_lanes)), int64(e, VECTOR)), buffer = buffer_open(e, keys);
  for (unsigned i = 0; i < s->reads; i++) {
    V at = add(e, mul(e, key_of_read(e, s, i), int64(e, s->dim * 2)), within);
    key[i] = buffer_load(e, buffer, to_i32(e, at), int32(e, 0), 0, BUFFER_READ_ONCE);
  }
}

/* The wave's largest score of each head, in all lanes. `last`: the number in the page of the last key that is seen. */
static void score_keys(emitter *e, const scorer *s, const token_operands *o, V last, V best[MOST_HEADS]) {
  V query[MOST_HEADS][4];
  for (unsigned h = 0; h < s->heads; h++) {
    pairs_of(e, o->query[h], query[h]);
    best[h] = float32(e, -INFINITY);
  }
  for (unsigned i = 0; i < s->reads; i++) {
    V key[4], seen = icmp(e, LLVMIntSLE, key_of_read(e, s, i), last);
    pairs_of(e, o->key[i], key);
    for (unsigned h = 0; h < s->heads; h++) {
      V score = amdgcn_reduce_row(e, multiply_pairs(e, key, query[h]), s->key_lanes, REDUCE_ADD);
      best[h] = fmax_(e, best[h], select_(e, seen, score, float32(e, -INFINITY)));
    }
  }
  for (unsigned h = 0; h < s->heads; h++)
    for (unsigned distance = s->key_lanes; distance < AMDGCN_WAVE; distance *= 2)
      best[h] = fmax_(e, best[h], e->atoms->exchange(e, best[h], distance));
}

static token_item take_item(emitter *e) {
  return (token_item){local(e, e->i64), local(e, e->i64), local(e, e->i64), local(e, e->i64), local(e, e->pointer)};
}

/* What the waves have of an item, f32 [wave][head] in workgroup memory, becomes its scores. Has a barrier. */
static void store_best(emitter *e, const scorer *s, V token, V page, const V best[MOST_HEADS], V memory) {
  for (unsigned h = 0; h < s->heads; h++)
    store_f32(e, SLUICE_F32, best[h], memory, add(e, mul(e, s->wave, int64(e, s->heads)), int64(e, h)));
  e->atoms->barrier(e);
  loop head = lane_loop(e, int64(e, 0), int64(e, s->heads));
  V result = NULL;
  for (unsigned w = 0; w < WAVES; w++) {
    V part = load_f32(e, SLUICE_F32, memory, add(e, head.index, int64(e, w * s->heads)), 1);
    result = result ? fmax_(e, result, part) : part;
  }
  V row = add(e, mul(e, token, int64(e, s->heads)), head.index);
  store_f32(e, SLUICE_F32, result, e->argument[4], add(e, mul(e, row, s->pages), page));
  loop_end(e, &head);
}

/* All items of single tokens. While a page's keys come, the next item is looked up. Between two uses of `best` or of
 * `queries` there is the other one's barrier. */
static void score_tokens(emitter *e, const scorer *s, V queries, V best) {
  token_item now = take_item(e), next = take_item(e);
  LLVMBasicBlockRef again = LLVMAppendBasicBlockInContext(e->context, e->function, "again");
  LLVMBasicBlockRef body = LLVMAppendBasicBlockInContext(e->context, e->function, "item");
  LLVMBasicBlockRef done = LLVMAppendBasicBlockInContext(e->context, e->function, "done");
  find_item(e, s, e->x, &now);
  LLVMBuildBr(e->builder, again);
  LLVMPositionBuilderAtEnd(e->builder, again);
  V number = get(e, e->i64, now.number);
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntSLT, number, items_of_step(e, s)), body, done);
  LLVMPositionBuilderAtEnd(e->builder, body);
  V token = get(e, e->i64, now.token), page = get(e, e->i64, now.page);
  V last = sub(e, get(e, e->i64, now.position), mul(e, page, int64(e, s->page)));
  token_operands o;
  const token_queries asked = ask_queries(e, s, token);
  load_keys(e, s, get(e, e->pointer, now.keys), o.key);
  find_item(e, s, add(e, number, extent_of(e, &e->grid[0])), &next);
  take_queries(e, s, &asked, queries, o.query);
  V highest[MOST_HEADS];
  score_keys(e, s, &o, last, highest);
  store_best(e, s, token, page, highest, best);
  set(e, now.number, get(e, e->i64, next.number));
  set(e, now.token, get(e, e->i64, next.token));
  set(e, now.position, get(e, e->i64, next.position));
  set(e, now.page, get(e, e->i64, next.page));
  set(e, now.keys, get(e, e->pointer, next.keys));
  LLVMBuildBr(e->builder, again);
  LLVMPositionBuilderAtEnd(e->builder, done);
}

/* ---- many tokens ---- */

static T operand_type(const emitter *e) {
  return LLVMVectorType(e->i16, 8);
}

/* Neighbouring tokens of one sequence, and the pages [from, to) of theirs to be scored. */
typedef struct token_run {
  V first, tokens, position, table, from, to;
} token_run;

/* What a wave keeps while it goes over pages. */
typedef struct run_state {
  V query[FRAGMENTS][MOST_STEPS]; /* operands */
  V position[FRAGMENTS];          /* i64, of the lane's columns' tokens */
  V best[FRAGMENTS];              /* locals, f32 */
  V column, lane_group;           /* lane % 16, lane / 16 */
  V to, from[MOST_STEPS];         /* LDS: where the wave loads to; i32: where the lane reads each step of a part */
  V which;                        /* local, i32: bytes of LDS before the part that is read next */
  V source[MOST_PART];            /* i32: where in a part the lane's loads are */
  unsigned loads;
} run_state;

static int64_t part_bytes(const scorer *s) {
  return s->part * s->dim * 2;
}

/* Place of a vector of a row in LDS: rows change the order of theirs, so that the lanes that LDS serves at a time (16
 * rows, one or two of their vectors) ask for all banks once. */
static V place_of(emitter *e, const scorer *s, V row, V vector) {
  const int64_t row_bytes = s->dim * 2, banks = amdgcn_is_gfx950(e) ? 256 : 128;
  const int64_t rows = banks > row_bytes ? banks / row_bytes : 1; /* that fill the banks once */
  return LLVMBuildXor(e->builder, vector, urem(e, udiv(e, row, int64(e, rows)), int64(e, row_bytes / VECTOR)), "");
}

static void open_loads(emitter *e, const scorer *s, V memory, run_state *r) {
  const int64_t wave_bytes = AMDGCN_WAVE * (int64_t)direct_bytes(e), row_bytes = s->dim * 2;
  V lane = mul(e, s->lane, int64(e, direct_bytes(e)));
  V offset = to_i32(e, mul(e, s->wave, int64(e, wave_bytes)));
  r->to = LLVMBuildGEP2(e->builder, e->i8, memory, &offset, 1, "");
  r->loads = (unsigned)((part_bytes(s) + WAVES * wave_bytes - 1) / (WAVES * wave_bytes));
  for (unsigned i = 0; i < r->loads; i++) {
    V at = add(e, add(e, mul(e, s->wave, int64(e, wave_bytes)), lane), int64(e, i * WAVES * wave_bytes));
    V row = udiv(e, at, int64(e, row_bytes)), within = urem(e, at, int64(e, row_bytes));
    V vector = place_of(e, s, row, udiv(e, within, int64(e, VECTOR)));
    V from = add(e, mul(e, row, int64(e, row_bytes)), mul(e, vector, int64(e, VECTOR)));
    r->source[i] = to_i32(e, add(e, from, urem(e, within, int64(e, VECTOR))));
  }
  for (unsigned i = 0; i < s->steps; i++) {
    V place = place_of(e, s, r->column, add(e, r->lane_group, int64(e, i * STEP / 8)));
    r->from[i] = to_i32(e, add(e, mul(e, r->column, int64(e, row_bytes)), mul(e, place, int64(e, VECTOR))));
  }
}

/* Part `number` of a page, to the part of LDS that begins at byte `at` (i32). */
static void load_part(emitter *e, const scorer *s, const run_state *r, V keys, unsigned number, V at) {
  const int64_t wave_bytes = AMDGCN_WAVE * (int64_t)direct_bytes(e), all = WAVES * wave_bytes;
  V buffer = buffer_open(e, keys), to = LLVMBuildGEP2(e->builder, e->i8, r->to, &at, 1, "");
  V from = int32(e, (int32_t)(number * part_bytes(s)));
  for (unsigned i = 0; i < r->loads; i++) {
    V step = int32(e, (int32_t)(i * all)), place = LLVMBuildGEP2(e->builder, e->i8, to, &step, 1, "");
    const int64_t left = part_bytes(s) - i * all;
    branch some = {0};
    if (left < all) some = if_begin(e, icmp(e, LLVMIntSLT, s->wave, int64(e, left / wave_bytes)));
    direct_load(e, buffer, place, r->source[i], from, 0);
    if (left < all) if_end(e, &some);
  }
}

/* The queries of columns 64 w .. 64 w + 63; behind the last column that one again. */
static void open_run(emitter *e, const scorer *s, const token_run *run, run_state *r) {
  V columns = mul(e, run->tokens, int64(e, s->heads)), last = sub(e, columns, int64(e, 1));
  for (unsigned f = 0; f < FRAGMENTS; f++) {
    V column = add(e, add(e, mul(e, s->wave, int64(e, FRAGMENTS * COLUMNS)), r->column), int64(e, f * COLUMNS));
    column = imin(e, column, last);
    V row = add(e, mul(e, run->first, int64(e, s->heads)), column);
    V at = add(e, mul(e, row, int64(e, s->dim)), mul(e, r->lane_group, int64(e, 8)));
    for (unsigned i = 0; i < s->steps; i++)
      r->query[f][i] =
          load(e, operand_type(e), element_of(e, SLUICE_BF16, e->argument[0], add(e, at, int64(e, i * STEP))));
    r->position[f] = add(e, run->position, udiv(e, column, int64(e, s->heads)));
  }
}

/* The same number, of which the compiler knows nothing: a place of LDS that is read again has been loaded again, which
 * it does not see (direct.h). */
static V made_anew(emitter *e, V number) {
  T type = LLVMFunctionType(e->i32, &e->i32, 1, 0);
  V nothing = LLVMGetInlineAsm(type, "", 0, "=s,0", 4, 1, 0, LLVMInlineAsmDialectATT, 0);
  return LLVMBuildCall2(e->builder, type, nothing, &number, 1, "");
}

/* Multiplies the part in LDS. `first_key` (i64): position of its first key; NULL: all tokens see all of them. */
static void multiply_part(emitter *e, const scorer *s, const run_state *r, V memory, V first_key) {
  V at = made_anew(e, get(e, e->i32, r->which));
  for (unsigned rows = 0; rows < s->part / ROWS; rows++) {
    V key[MOST_STEPS];
    for (unsigned i = 0; i < s->steps; i++)
      key[i] = direct_read(e, memory, add(e, r->from[i], at), rows * ROWS * s->dim * 2);
    for (unsigned f = 0; f < FRAGMENTS; f++) {
      V sum = LLVMConstNull(LLVMVectorType(e->f32, 4)), best = get(e, e->f32, r->best[f]);
      for (unsigned i = 0; i < s->steps; i++) sum = mfma_16x16.multiply(e, key[i], r->query[f][i], sum);
      V last = NULL; /* of the lane's keys that are seen */
      if (first_key) {
        V own = add(e, add(e, first_key, mul(e, r->lane_group, int64(e, 4))), int64(e, rows * ROWS));
        last = to_i32(e, imax(e, imin(e, sub(e, r->position[f], own), int64(e, 4)), int64(e, -1)));
      }
      for (unsigned i = 0; i < 4; i++) {
        V score = LLVMBuildExtractElement(e->builder, sum, int32(e, (int32_t)i), "");
        if (last) score = select_(e, icmp(e, LLVMIntSGE, last, int32(e, (int32_t)i)), score, float32(e, -INFINITY));
        best = fmax_(e, best, score);
      }
      set(e, r->best[f], best);
    }
  }
}

/* All parts of a page, whose first one is on its way; `next` are the keys of the page behind it. */
static void score_page(emitter *e, const scorer *s, const run_state *r, V memory, V keys, V next, V busy, V first_key) {
  const unsigned parts = (unsigned)(s->page / s->part);
  for (unsigned p = 0; p < parts; p++) {
    direct_wait(e, 0);
    direct_barrier(e); /* the part is there, and the one before it has been read */
    V at = get(e, e->i32, r->which), other = sub(e, int32(e, (int32_t)part_bytes(s)), at);
    load_part(e, s, r, p + 1 < parts ? keys : next, p + 1 < parts ? p + 1 : 0, other);
    branch works = if_begin(e, busy);
    multiply_part(e, s, r, memory, first_key ? add(e, first_key, int64(e, p * s->part)) : NULL);
    direct_wait_reads(e);
    if_end(e, &works);
    set(e, r->which, other);
  }
}

/* The wave's 64 columns' scores of a page: lane l has column l. */
static void store_scores(emitter *e, const scorer *s, const token_run *run, const run_state *r, V page) {
  V mine = NULL;
  for (unsigned f = 0; f < FRAGMENTS; f++) {
    V best = get(e, e->f32, r->best[f]);
    for (unsigned distance = COLUMNS; distance < AMDGCN_WAVE; distance *= 2)
      best = fmax_(e, best, e->atoms->exchange(e, best, distance));
    mine = mine ? select_(e, icmp(e, LLVMIntEQ, r->lane_group, int64(e, f)), best, mine) : best;
    set(e, r->best[f], float32(e, -INFINITY));
  }
  V column = add(e, mul(e, s->wave, int64(e, FRAGMENTS * COLUMNS)), s->lane);
  branch real = if_begin(e, icmp(e, LLVMIntSLT, column, mul(e, run->tokens, int64(e, s->heads))));
  V row = add(e, mul(e, run->first, int64(e, s->heads)), column);
  store_f32(e, SLUICE_F32, mine, e->argument[4], add(e, mul(e, row, s->pages), page));
  if_end(e, &real);
}

static void score_run(emitter *e, const scorer *s, const token_run *run, run_state *r, V memory) {
  V busy = icmp(e, LLVMIntSLT, mul(e, s->wave, int64(e, FRAGMENTS * COLUMNS)), mul(e, run->tokens, int64(e, s->heads)));
  V at = get(e, e->i32, r->which), keys = local_set(e, e->pointer, keys_of_page(e, s, run->table, run->from));
  load_part(e, s, r, get(e, e->pointer, keys), 0, at);
  open_run(e, s, run, r);
  loop page = loop_begin(e, run->from, run->to, int64(e, 1));
  V here = get(e, e->pointer, keys), last = sub(e, run->to, int64(e, 1));
  V next = keys_of_page(e, s, run->table, imin(e, add(e, page.index, int64(e, 1)), last));
  V first_key = mul(e, page.index, int64(e, s->page));
  branch all = if_begin(e, icmp(e, LLVMIntSLE, add(e, first_key, int64(e, s->page - 1)), run->position));
  score_page(e, s, r, memory, here, next, busy, NULL);
  if_else(e, &all);
  score_page(e, s, r, memory, here, next, busy, first_key);
  if_end(e, &all);
  branch works = if_begin(e, busy);
  store_scores(e, s, run, r, page.index);
  if_end(e, &works);
  set(e, keys, next);
  loop_end(e, &page);
  direct_wait(e, 0); /* the part behind the last one */
  direct_barrier(e);
}

/* The run that begins with tile `number` and ends before tile `end`, its pages from `from` to `to` at most. */
static token_run find_run(emitter *e, const scorer *s, V number, V end, V from, V to) {
  token_run run = {.first = tile_field(e, number, FIRST),
                   .position = tile_field(e, number, POSITION),
                   .table = tile_field(e, number, TABLE),
                   .from = from};
  V tokens = local_set(e, e->i64, tile_field(e, number, COUNT)), same = local_set(e, e->i1, LLVMConstInt(e->i1, 1, 0));
  loop other = loop_begin(e, add(e, number, int64(e, 1)), end, int64(e, 1));
  V joins = icmp(e, LLVMIntEQ, tile_field(e, other.index, TABLE), run.table);
  joins = and_(e, joins, get(e, e->i1, same));
  V count = get(e, e->i64, tokens);
  set(e, tokens, select_(e, joins, add(e, count, tile_field(e, other.index, COUNT)), count));
  set(e, same, joins);
  loop_end(e, &other);
  run.tokens = get(e, e->i64, tokens);
  V last = sub(e, add(e, run.position, run.tokens), int64(e, 1));
  run.to = imin(e, to, scored_pages(e, s, last));
  return run;
}

/* Tiles [first, end), of which those of a sequence are neighbours. */
static void score_group(emitter *e, const scorer *s, V first, V end, V from, V to, run_state *r, V memory) {
  loop tile = loop_begin(e, first, end, int64(e, 1));
  V before = tile_field(e, imax(e, sub(e, tile.index, int64(e, 1)), first), TABLE);
  V leads = icmp(e, LLVMIntNE, before, tile_field(e, tile.index, TABLE));
  branch begins = if_begin(e, or_(e, leads, icmp(e, LLVMIntEQ, tile.index, first)));
  token_run run = find_run(e, s, tile.index, end, from, to);
  branch some = if_begin(e, icmp(e, LLVMIntSLT, run.from, run.to));
  score_run(e, s, &run, r, memory);
  if_end(e, &some);
  if_end(e, &begins);
  loop_end(e, &tile);
}

/* All items of groups. Those that share pages are on one die: item i is on die i % dies, like its pages' number. Few
 * items have few pages each, so that there are enough of them. */
static void score_groups(emitter *e, const scorer *s, V memory) {
  const int64_t dies = e->facts->dies, enough = 2 * (int64_t)e->facts->processors;
  run_state r = {.column = and_(e, s->lane, int64(e, COLUMNS - 1)),
                 .lane_group = lshr(e, s->lane, int64(e, 4)),
                 .which = local_set(e, e->i32, int32(e, 0))};
  for (unsigned f = 0; f < FRAGMENTS; f++) r.best[f] = local_set(e, e->f32, float32(e, -INFINITY));
  V lds = direct_memory(e, memory);
  open_loads(e, s, lds, &r);
  V groups = ceil_div(e, s->tiles, s->group);
  V share = udiv(e, mul(e, groups, s->pages), int64(e, enough));
  share = imax(e, imin(e, share, int64(e, MOST_PAGES)), int64(e, 1));
  V shares = udiv(e, sub(e, add(e, s->pages, share), int64(e, 1)), share);
  V of_die = mul(e, groups, int64(e, dies)), items = mul(e, ceil_div(e, shares, dies), of_die);
  loop item = loop_begin(e, e->x, items, extent_of(e, &e->grid[0]));
  V pages = mul(e, udiv(e, item.index, of_die), int64(e, dies));
  V from = mul(e, add(e, pages, urem(e, item.index, int64(e, dies))), share);
  V first = mul(e, urem(e, udiv(e, item.index, int64(e, dies)), groups), int64(e, s->group));
  V end = imin(e, add(e, first, int64(e, s->group)), s->tiles);
  score_group(e, s, first, end, from, imin(e, add(e, from, share), s->pages), &r, lds);
  loop_end(e, &item);
}

/* ---- the family ---- */

/* False when the common kernel has to do. */
static bool read_scorer(emitter *e, scorer *out) {
  scorer s = {.heads = attribute(e, "heads"),
              .dim = attribute(e, "dim"),
              .k = attribute(e, "k"),
              .local = attribute(e, "local"),
              .page = attribute(e, "page"),
              .page_bytes = attribute(e, "page_bytes"),
              .index_offset = attribute(e, "index_offset"),
              .query_tile = attribute(e, "query_tile")};
  if (e->status) return false;
  if (attribute_dtype(e, "dtype") != SLUICE_BF16) return decline(e, "elements are f32, expected bf16");
  if (!attribute_is(e, "transposed", "values")) return decline(e, "pages hold keys transposed, expected values");
  if (s.dim != 32 && s.dim != 64 && s.dim != 128)
    return decline(e, "index keys have %lld dimensions, expected 32, 64 or 128", (long long)s.dim);
  s.key_lanes = (unsigned)(s.dim * 2 / VECTOR);
  s.reads = (unsigned)((s.page * s.key_lanes + WAVES * AMDGCN_WAVE - 1) / (WAVES * AMDGCN_WAVE));
  if (s.page % ROWS || s.reads > MOST_READS)
    return decline(e, "pages have %lld tokens, expected a multiple of %d, at most %d", (long long)s.page, ROWS,
                   MOST_READS * WAVES * AMDGCN_WAVE / (int)s.key_lanes);
  if (s.heads > MOST_HEADS || s.heads * s.query_tile > GROUP_COLUMNS)
    return decline(e, "%lld heads and tiles of %lld tokens, expected at most %d heads and together %d",
                   (long long)s.heads, (long long)s.query_tile, MOST_HEADS, GROUP_COLUMNS);
  s.steps = (unsigned)(s.dim / STEP);
  s.part = s.page % MOST_PART ? ROWS : MOST_PART;
  s.group = GROUP_COLUMNS / (s.heads * s.query_tile);
  *out = s;
  return true;
}

/* Operands: iq, tiles, page_table, cache, maxima. */
bool amdgcn_block_score(emitter *e, const kernel_spec *spec) {
  scorer s = {0};
  if (!read_scorer(e, &s)) return false;
  kernel_shape shape = {.x = {SLUICE_SIZE_TOKENS_PAGES, 1, 1, AT_ONCE * e->facts->processors},
                        .lanes = WAVES * AMDGCN_WAVE};
  kernel_begin(e, spec, shape);
  V lane = e->atoms->lane(e);
  s.lane = and_(e, lane, int64(e, AMDGCN_WAVE - 1));
  s.wave = amdgcn_wave(e);
  s.tiles = size_of(e, SLUICE_SIZE_TILES);
  s.pages = size_of(e, SLUICE_SIZE_PAGES);
  V memory = workgroup_take(e, (uint64_t)(PARTS_IN_LDS * part_bytes(&s)));
  V queries = workgroup_take(e, (uint64_t)(s.heads * s.dim) * 2);
  V best = workgroup_take(e, (uint64_t)(WAVES * s.heads) * sizeof(float));
  if (attribute(e, "many")) {
    score_groups(e, &s, memory);
  } else {
    branch single = if_begin(e, icmp(e, LLVMIntEQ, s.tiles, size_of(e, SLUICE_SIZE_TOKENS)));
    score_tokens(e, &s, queries, best);
    if_else(e, &single);
    score_groups(e, &s, memory);
    if_end(e, &single);
  }
  kernel_end(e);
  return true;
}

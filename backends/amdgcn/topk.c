/* Finding the k largest of many scores in the registers of one wave: family topk_blocks, and the first step of sparse
 * attention of few tokens.
 *
 * A score and its block id make one key, larger for what is chosen first; no two are equal. Blocks are dealt out to the
 * 64 lanes, block after block. A bound that the maxima of just `wanted` lanes reach (or some more, when they are equal)
 * is found bit by bit, from the top:
 *
 *     lanes' maxima   0111  1010  0011  1100  1001      wanted: 2
 *     1000            reached by 3: kept
 *     1100            reached by 1: not kept
 *     1010            reached by 2: this is the bound
 *
 * So at least `wanted` keys reach it, and hardly more: another one only where a lane has two of them. Those are listed,
 * ascending by id, as a ballot says for each 64 blocks who has one; a lane then has one key of the list, counts how
 * many are larger, and goes where the ballot of the chosen puts it. No barrier is needed, and scores are read once
 * where registers can keep them, else twice. Should the list be too short (thousands of equal scores, say), blocks are
 * chosen one after the other, as on the host.
 */
#include "backends/amdgcn/topk.h"
#include "backends/amdgcn/amdgcn.h"

enum { MOST_KEPT = 16, FEW_KEPT = 4 }; /* scores of a lane at a time */

/* A score's bits, made monotonic as an unsigned number; NaN is lowest, and still more than 0, which stands for no
 * score.
 */
static V ordered_bits(emitter *e, V score) {
  V bits = bitcast(e, score, e->i32);
  bits = select_(e, icmp(e, LLVMIntEQ, bits, int32(e, INT32_MIN)), int32(e, 0), bits); /* -0 is 0 */
  V sign = LLVMBuildAShr(e->builder, bits, int32(e, 31), "");
  V ordered = LLVMBuildXor(e->builder, bits, or_(e, sign, int32(e, INT32_MIN)), "");
  return select_(e, fcmp(e, LLVMRealUNO, score, score), int32(e, 1), ordered);
}

/* ---- over the wave ---- */

static V unsigned_max(emitter *e, V a, V b) {
  return select_(e, icmp(e, LLVMIntUGT, a, b), a, b);
}

/* A bit for each lane, i64. */
static V ballot(emitter *e, V condition) {
  return intrinsic(e, "llvm.amdgcn.ballot", &e->i64, 1, &condition, 1);
}

/* How many lanes of the mask (i64), i32. */
static V lanes_of(emitter *e, V mask) {
  V count = intrinsic(e, "llvm.ctpop", &e->i64, 1, &mask, 1);
  return to_i32(e, count);
}

/* How many of them have lower numbers than this lane, i32. */
static V lanes_below(emitter *e, V mask) {
  V low[] = {to_i32(e, mask), int32(e, 0)};
  V below = intrinsic(e, "llvm.amdgcn.mbcnt.lo", NULL, 0, low, 2);
  V high[] = {to_i32(e, lshr(e, mask, int64(e, 32))), below};
  return intrinsic(e, "llvm.amdgcn.mbcnt.hi", NULL, 0, high, 2);
}

static V lane_of_wave(emitter *e) {
  return and_(e, e->atoms->lane(e), int64(e, AMDGCN_WAVE - 1));
}

static V of_lane(emitter *e, V word, V lane) {
  V arguments[] = {word, lane};
  return intrinsic(e, "llvm.amdgcn.readlane", &e->i32, 1, arguments, 2);
}

/* The largest number (i32, unsigned), or one between it and the next, that `own` reaches in at least `wanted` (i32)
 * lanes; 1 where there is none. */
static V find_bound(emitter *e, V own, V wanted) {
  LLVMBasicBlockRef look = LLVMAppendBasicBlockInContext(e->context, e->function, "look");
  LLVMBasicBlockRef goes_on = LLVMAppendBasicBlockInContext(e->context, e->function, "goes_on");
  LLVMBasicBlockRef found = LLVMAppendBasicBlockInContext(e->context, e->function, "found");
  V bound = local_set(e, e->i32, int32(e, 0)), bit = local_set(e, e->i32, int32(e, INT32_MIN));
  LLVMBuildBr(e->builder, look);
  LLVMPositionBuilderAtEnd(e->builder, look);
  V tried = or_(e, get(e, e->i32, bound), get(e, e->i32, bit));
  V count = lanes_of(e, ballot(e, icmp(e, LLVMIntUGE, own, tried)));
  set(e, bound, select_(e, icmp(e, LLVMIntSGE, count, wanted), tried, get(e, e->i32, bound)));
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntEQ, count, wanted), found, goes_on);
  LLVMPositionBuilderAtEnd(e->builder, goes_on);
  V next = lshr(e, get(e, e->i32, bit), int32(e, 1));
  set(e, bit, next);
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntNE, next, int32(e, 0)), look, found);
  LLVMPositionBuilderAtEnd(e->builder, found);
  return unsigned_max(e, get(e, e->i32, bound), int32(e, 1));
}

/* ---- scores ---- */

/* `count` of the lane's scores as ordered bits, of the blocks first + lane, first + lane + 64, ...; 0 beyond the last.
 */
typedef struct scan {
  V first; /* i32: of the lane */
  unsigned count;
  V bits[MOST_KEPT];
} scan;

/* All reads are under way at once. */
static void read_scores(emitter *e, const wave_choice *c, V first, unsigned count, scan *s) {
  s->first = to_i32(e, add(e, first, lane_of_wave(e)));
  s->count = count;
  V last = to_i32(e, sub(e, c->to, int64(e, 1))), score[MOST_KEPT], id[MOST_KEPT];
  for (unsigned i = 0; i < count; i++) {
    id[i] = add(e, s->first, int32(e, (int32_t)i * AMDGCN_WAVE));
    V inside = LLVMBuildZExt(e->builder, imin(e, id[i], last), e->i64, "");
    score[i] = load_f32(e, SLUICE_F32, c->scores, inside, 1);
  }
  for (unsigned i = 0; i < count; i++)
    s->bits[i] = select_(e, icmp(e, LLVMIntSLE, id[i], last), ordered_bits(e, score[i]), int32(e, 0));
}

static V largest_of(emitter *e, const scan *s, V best) {
  for (unsigned i = 0; i < s->count; i++) best = unsigned_max(e, best, s->bits[i]);
  return best;
}

/* Puts the keys that reach the bound behind the `listed` ones (local, i32), which it moves on; those for which there is
 * no room are only counted. */
static void list_keys(emitter *e, const wave_choice *c, const scan *s, V bound, V listed) {
  for (unsigned i = 0; i < s->count; i++) {
    V reaches = icmp(e, LLVMIntUGE, s->bits[i], bound), mask = ballot(e, reaches);
    V before = get(e, e->i32, listed), place = add(e, before, lanes_below(e, mask));
    branch mine = if_begin(e, and_(e, reaches, icmp(e, LLVMIntULT, place, int32(e, AMDGCN_WAVE))));
    V id = add(e, s->first, int32(e, (int32_t)i * AMDGCN_WAVE));
    V key = shl(e, LLVMBuildZExt(e->builder, s->bits[i], e->i64, ""), int64(e, 32));
    key = or_(e, key, LLVMBuildZExt(e->builder, LLVMBuildNot(e->builder, id, ""), e->i64, ""));
    store(e, key, element(e, e->i64, c->keys, LLVMBuildZExt(e->builder, place, e->i64, "")));
    if_end(e, &mine);
    set(e, listed, add(e, before, lanes_of(e, mask)));
  }
}

/* Each lane keeps its scores, `count` of them. */
static void list_at_once(emitter *e, const wave_choice *c, unsigned count, V listed) {
  scan s;
  read_scores(e, c, c->from, count, &s);
  V bound = find_bound(e, largest_of(e, &s, int32(e, 0)), to_i32(e, c->wanted));
  list_keys(e, c, &s, bound, listed);
}

static void list_in_turns(emitter *e, const wave_choice *c, V listed) {
  V own = local_set(e, e->i32, int32(e, 0)), step = int64(e, AMDGCN_WAVE * MOST_KEPT);
  scan s;
  loop look = loop_begin(e, c->from, c->to, step);
  read_scores(e, c, look.index, MOST_KEPT, &s);
  set(e, own, largest_of(e, &s, get(e, e->i32, own)));
  loop_end(e, &look);
  V bound = find_bound(e, get(e, e->i32, own), to_i32(e, c->wanted));
  loop again = loop_begin(e, c->from, c->to, step);
  read_scores(e, c, again.index, MOST_KEPT, &s);
  list_keys(e, c, &s, bound, listed);
  loop_end(e, &again);
}

/* Of the listed keys, at most one for each lane and ascending by id, those that fewer than `wanted` exceed go to the
 * list. */
static void choose_listed(emitter *e, const wave_choice *c, V listed) {
  V lane = lane_of_wave(e), real = icmp(e, LLVMIntULT, to_i32(e, lane), listed);
  V key = load(e, e->i64, element(e, e->i64, c->keys, lane));
  V low = to_i32(e, key), high = to_i32(e, lshr(e, key, int64(e, 32)));
  V rank = local_set(e, e->i32, int32(e, 0));
  loop each = loop_begin(e, int64(e, 0), to_i64(e, listed), int64(e, 1));
  V other = shl(e, LLVMBuildZExt(e->builder, of_lane(e, high, to_i32(e, each.index)), e->i64, ""), int64(e, 32));
  other = or_(e, other, LLVMBuildZExt(e->builder, of_lane(e, low, to_i32(e, each.index)), e->i64, ""));
  V larger = LLVMBuildZExt(e->builder, icmp(e, LLVMIntUGT, other, key), e->i32, "");
  set(e, rank, add(e, get(e, e->i32, rank), larger));
  loop_end(e, &each);
  V is_chosen = and_(e, real, icmp(e, LLVMIntSLT, get(e, e->i32, rank), to_i32(e, c->wanted)));
  V place = lanes_below(e, ballot(e, is_chosen));
  branch chosen = if_begin(e, is_chosen);
  V slot = add(e, c->from, to_i64(e, place)); /* behind the forced ids, of which there are `from` */
  store(e, LLVMBuildNot(e->builder, low, ""), element(e, e->i32, c->list, slot));
  if_end(e, &chosen);
}

/* ---- all of it ---- */

void amdgcn_topk_begin(emitter *e, wave_choice *c) {
  V places = int64(e, c->k);
  V initial = imin(e, imin(e, int64(e, c->init), c->visible), places);
  V candidates = imax(e, sub(e, c->visible, int64(e, c->local_blocks)), initial);
  V recent = imin(e, sub(e, c->visible, candidates), sub(e, places, initial));
  c->from = initial;
  c->to = candidates;
  c->wanted = imin(e, sub(e, sub(e, places, initial), recent), sub(e, candidates, initial));
  c->used = add(e, add(e, initial, c->wanted), recent);
  c->choice =
      and_(e, icmp(e, LLVMIntSLT, c->wanted, sub(e, candidates, initial)), icmp(e, LLVMIntSGT, c->wanted, int64(e, 0)));
  c->list = workgroup_take(e, (uint64_t)c->k * sizeof(int32_t));
  c->keys = workgroup_take(e, AMDGCN_WAVE * sizeof(int64_t));
  c->overflow = workgroup_take(e, sizeof(int32_t));
}

/* All competing ids where there is no choice; of the others' places, those of the forced. */
static void list_forced(emitter *e, const wave_choice *c) {
  V lane = lane_of_wave(e), chosen = add(e, c->from, c->wanted);
  V id = select_(e, icmp(e, LLVMIntSLT, lane, chosen), lane, add(e, c->to, sub(e, lane, chosen)));
  id = select_(e, icmp(e, LLVMIntSLT, lane, c->used), id, int64(e, -1));
  branch inside = if_begin(e, icmp(e, LLVMIntSLT, lane, int64(e, c->k)));
  store_i32(e, id, c->list, lane);
  if_end(e, &inside);
  branch first = if_begin(e, icmp(e, LLVMIntEQ, lane, int64(e, 0)));
  store_i32(e, int64(e, 0), c->overflow, int64(e, 0));
  if_end(e, &first);
}

/* Whether no lane has more than `count` of the competing blocks. */
static V are_at_most(emitter *e, const wave_choice *c, unsigned count) {
  return icmp(e, LLVMIntSLE, sub(e, c->to, c->from), int64(e, AMDGCN_WAVE * (int64_t)count));
}

static void choose_by_wave(emitter *e, const wave_choice *c) {
  list_forced(e, c);
  branch choose = if_begin(e, c->choice);
  V listed = local_set(e, e->i32, int32(e, 0));
  branch few = if_begin(e, are_at_most(e, c, FEW_KEPT));
  list_at_once(e, c, FEW_KEPT, listed);
  if_else(e, &few);
  branch kept = if_begin(e, are_at_most(e, c, MOST_KEPT));
  list_at_once(e, c, MOST_KEPT, listed);
  if_else(e, &kept);
  list_in_turns(e, c, listed);
  if_end(e, &kept);
  if_end(e, &few);
  V count = get(e, e->i32, listed);
  branch fit = if_begin(e, icmp(e, LLVMIntSLE, count, int32(e, AMDGCN_WAVE)));
  choose_listed(e, c, count);
  if_else(e, &fit);
  store_i32(e, int64(e, 1), c->overflow, int64(e, 0));
  if_end(e, &fit);
  if_end(e, &choose);
}

static void choose_one_by_one(emitter *e, const wave_choice *c) {
  choose_blocks(e, c->scores, c->visible, c->k, c->init, c->local_blocks, c->list);
  e->atoms->barrier(e);
}

void amdgcn_topk_choose(emitter *e, const wave_choice *c) {
  if (c->k > AMDGCN_TOPK_MOST) {
    choose_one_by_one(e, c);
    return;
  }
  branch first = if_begin(e, icmp(e, LLVMIntEQ, amdgcn_wave(e), int64(e, 0)));
  choose_by_wave(e, c);
  if_end(e, &first);
  e->atoms->barrier(e);
  V overflow = to_i32(e, load_i32(e, c->overflow, int64(e, 0)));
  overflow = intrinsic(e, "llvm.amdgcn.readfirstlane", &e->i32, 1, &overflow, 1);
  branch one_by_one = if_begin(e, icmp(e, LLVMIntNE, overflow, int32(e, 0)));
  choose_one_by_one(e, c);
  if_end(e, &one_by_one);
}

/* Operands: maxima, positions, blocks. A workgroup is a wave, for a token and an index head. */
bool amdgcn_topk_blocks(emitter *e, const kernel_spec *spec) {
  const int64_t heads = attribute(e, "heads"), block = attribute(e, "block");
  wave_choice c = {.k = attribute(e, "k"), .init = attribute(e, "init"), .local_blocks = attribute(e, "local")};
  if (e->status) return false;
  if (c.k > AMDGCN_TOPK_MOST)
    return decline(e, "%lld blocks are chosen, expected at most %d", (long long)c.k, AMDGCN_TOPK_MOST);
  kernel_shape shape = each_of(SLUICE_SIZE_TOKENS, heads, 0);
  shape.lanes = AMDGCN_WAVE;
  kernel_begin(e, spec, shape);
  V row = add(e, mul(e, e->x, int64(e, heads)), e->y);
  c.scores = element(e, e->f32, e->argument[0], mul(e, row, size_of(e, SLUICE_SIZE_PAGES)));
  c.visible = visible_blocks(e, amdgcn_load_input(e, e->argument[1], e->x), block);
  amdgcn_topk_begin(e, &c);
  amdgcn_topk_choose(e, &c);
  V lane = e->atoms->lane(e), out = element(e, e->i32, e->argument[2], mul(e, row, int64(e, c.k)));
  branch inside = if_begin(e, icmp(e, LLVMIntSLT, lane, int64(e, c.k)));
  store_i32(e, load_i32(e, c.list, lane), out, lane);
  if_end(e, &inside);
  kernel_end(e);
  return true;
}

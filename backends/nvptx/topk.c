/* Finding the k largest of many scores by search on their bits.
 *
 * A score and its block id make one integer, larger for what is chosen first; no two are equal. The k-th largest is
 * found by dividing the range between the lowest and the highest into quarters: how many keys reach each boundary? One
 * barrier for each round, and an end as soon as exactly k reach one. Then those that reach it are listed, and put in
 * order by counting how many ids are smaller.
 */
#include "backends/nvptx/topk.h"
#include "backends/nvptx/skeletons.h"

enum {
  SCORE_BITS = 32,
  ID_BITS = 22,       /* 2^22 blocks of 128 keys: far beyond any context */
  MOST_STAGED = 8192, /* competing scores that are kept in workgroup memory */
  ROUNDS = 30,        /* each divides by four what has 54 bits at first */
};

typedef struct finder {
  const block_choice *choice;
  V from, to; /* ids that compete */
  V bits;     /* i32[MOST_STAGED] in workgroup memory: their scores' ordered bits; NULL: read from memory each time */
  V counts;   /* i32[ROUNDS][4] in workgroup memory, zero: keys counted in each round; the last row: extremes */
} finder;

/* A score's bits, made monotonic as an unsigned number; NaN is lowest. */
static V ordered_bits(emitter *e, V score) {
  V bits = bitcast(e, fadd_(e, score, float32(e, 0)), e->i32); /* -0 is 0 */
  V sign = LLVMBuildAShr(e->builder, bits, int32(e, 31), "");
  V ordered = LLVMBuildXor(e->builder, bits, or_(e, sign, int32(e, INT32_MIN)), "");
  return select_(e, fcmp(e, LLVMRealUNO, score, score), int32(e, 0), ordered);
}

static V bits_of(emitter *e, const finder *f, V id) {
  if (f->bits) return load(e, e->i32, element(e, e->i32, f->bits, sub(e, id, f->from)));
  return ordered_bits(e, load_f32(e, SLUICE_F32, f->choice->scores, id, 1));
}

/* The key of block `id`: its score's bits, then the complement of the id. */
static V key_of(emitter *e, const finder *f, V id) {
  V upper = shl(e, LLVMBuildZExt(e->builder, bits_of(e, f, id), e->i64, ""), int64(e, ID_BITS));
  return or_(e, upper, sub(e, int64(e, ((int64_t)1 << ID_BITS) - 1), id));
}

static V is_first_lane_of_warp(emitter *e) {
  return icmp(e, LLVMIntEQ, and_(e, e->atoms->lane(e), int64(e, 31)), int64(e, 0));
}

static V warp_reduce(emitter *e, const char *name, V value) {
  V arguments[] = {value, int32(e, -1)};
  return intrinsic(e, name, NULL, 0, arguments, 2);
}

/* Stages the competing scores, and finds the bits of the lowest and the highest. Ends with a barrier. */
static void scan_scores(emitter *e, const finder *f, V *out_lowest, V *out_highest) {
  V low = local_set(e, e->i32, int32(e, -1)), high = local_set(e, e->i32, int32(e, 0));
  loop ids = lane_loop(e, f->from, f->to);
  V bits = ordered_bits(e, load_f32(e, SLUICE_F32, f->choice->scores, ids.index, 1));
  if (f->bits) store(e, bits, element(e, e->i32, f->bits, sub(e, ids.index, f->from)));
  V lower = icmp(e, LLVMIntULT, bits, get(e, e->i32, low)), higher = icmp(e, LLVMIntUGT, bits, get(e, e->i32, high));
  set(e, low, select_(e, lower, bits, get(e, e->i32, low)));
  set(e, high, select_(e, higher, bits, get(e, e->i32, high)));
  loop_end(e, &ids);
  V lowest = warp_reduce(e, "llvm.nvvm.redux.sync.umin", get(e, e->i32, low));
  V highest = warp_reduce(e, "llvm.nvvm.redux.sync.umax", get(e, e->i32, high));
  V row = element(e, e->i32, f->counts, int64(e, 4 * ROUNDS));
  branch first = if_begin(e, is_first_lane_of_warp(e));
  /* The complement of the lowest, so that zero is a beginning for both. */
  LLVMBuildAtomicRMW(e->builder, LLVMAtomicRMWBinOpUMax, row, LLVMBuildNot(e->builder, lowest, ""),
                     LLVMAtomicOrderingMonotonic, 0);
  LLVMBuildAtomicRMW(e->builder, LLVMAtomicRMWBinOpUMax, element(e, e->i32, row, int64(e, 1)), highest,
                     LLVMAtomicOrderingMonotonic, 0);
  if_end(e, &first);
  e->atoms->barrier(e);
  *out_lowest = LLVMBuildNot(e->builder, load(e, e->i32, row), "");
  *out_highest = load(e, e->i32, element(e, e->i32, row, int64(e, 1)));
}

/* How many competing keys reach each of `least` (rising): a barrier, then every lane knows. */
static void count_reaching(emitter *e, const finder *f, const V least[3], V round, V count[3]) {
  V own[3];
  for (unsigned i = 0; i < 3; i++) own[i] = local_set(e, e->i32, int32(e, 0));
  loop ids = lane_loop(e, f->from, f->to);
  V key = key_of(e, f, ids.index);
  for (unsigned i = 0; i < 3; i++) {
    V reached = LLVMBuildZExt(e->builder, icmp(e, LLVMIntUGE, key, least[i]), e->i32, "");
    set(e, own[i], add(e, get(e, e->i32, own[i]), reached));
  }
  loop_end(e, &ids);
  V of_warp[3], row = element(e, e->i32, f->counts, mul(e, round, int64(e, 4)));
  for (unsigned i = 0; i < 3; i++) of_warp[i] = warp_reduce(e, "llvm.nvvm.redux.sync.add", get(e, e->i32, own[i]));
  branch first = if_begin(e, is_first_lane_of_warp(e));
  for (unsigned i = 0; i < 3; i++)
    LLVMBuildAtomicRMW(e->builder, LLVMAtomicRMWBinOpAdd, element(e, e->i32, row, int64(e, i)), of_warp[i],
                       LLVMAtomicOrderingMonotonic, 0);
  if_end(e, &first);
  e->atoms->barrier(e);
  V all = load(e, LLVMVectorType(e->i32, 4), row);
  for (int32_t i = 0; i < 3; i++) count[i] = LLVMBuildExtractElement(e->builder, all, int32(e, i), "");
}

/* Lists the `wanted` (>= 1, fewer than compete) best ids, unordered, from list[at] on; `next` is an i32 of workgroup
 * memory that holds `at`. */
static void find_best(emitter *e, const finder *f, V wanted, V next) {
  V lowest, highest, wanted_words = to_i32(e, wanted);
  scan_scores(e, f, &lowest, &highest);
  /* The search goes on in [least, beyond): enough keys reach the one, too few the other. */
  V least = local_set(e, e->i64, shl(e, LLVMBuildZExt(e->builder, lowest, e->i64, ""), int64(e, ID_BITS)));
  V above = add(e, LLVMBuildZExt(e->builder, highest, e->i64, ""), int64(e, 1));
  V beyond = local_set(e, e->i64, shl(e, above, int64(e, ID_BITS)));
  V done = local_set(e, e->i1, LLVMConstInt(e->i1, 0, 0));
  loop rounds = loop_begin(e, int64(e, 0), int64(e, ROUNDS), int64(e, 1));
  branch open = if_begin(e, LLVMBuildNot(e->builder, get(e, e->i1, done), ""));
  V low = get(e, e->i64, least), width = sub(e, get(e, e->i64, beyond), low);
  V candidate[3], reached[3];
  for (unsigned i = 0; i < 3; i++) /* rounded up: above `low` as long as there is room */
    candidate[i] = add(e, low, lshr(e, add(e, mul(e, width, int64(e, i + 1)), int64(e, 3)), int64(e, 2)));
  count_reaching(e, f, candidate, rounds.index, reached);
  V exact = icmp(e, LLVMIntULE, width, int64(e, 1));
  for (unsigned i = 3; i-- > 0;) {
    V enough = icmp(e, LLVMIntUGE, reached[i], wanted_words);
    set(e, beyond, select_(e, enough, get(e, e->i64, beyond), candidate[i]));
  }
  for (unsigned i = 0; i < 3; i++) { /* the largest candidate that enough keys reach */
    V enough = icmp(e, LLVMIntUGE, reached[i], wanted_words);
    set(e, least, select_(e, enough, candidate[i], get(e, e->i64, least)));
    exact = or_(e, exact, icmp(e, LLVMIntEQ, reached[i], wanted_words));
  }
  set(e, done, exact);
  if_end(e, &open);
  loop_end(e, &rounds);
  /* Keys differ, so that exactly `wanted` reach. */
  loop ids = lane_loop(e, f->from, f->to);
  branch chosen = if_begin(e, icmp(e, LLVMIntUGE, key_of(e, f, ids.index), get(e, e->i64, least)));
  V place = LLVMBuildAtomicRMW(e->builder, LLVMAtomicRMWBinOpAdd, next, int32(e, 1), LLVMAtomicOrderingMonotonic, 0);
  store_i32(e, ids.index, f->choice->list, to_i64(e, place));
  if_end(e, &chosen);
  loop_end(e, &ids);
}

/* The same when every lane has at most one key: a key's rank is the number of larger ones. Ids come out in order. */
static void choose_by_rank(emitter *e, const finder *f, V wanted) {
  enum { AT_ONCE = 4 };
  T pair = LLVMVectorType(e->i64, 2);
  V lane = e->atoms->lane(e), competing = sub(e, f->to, f->from);
  V mine = icmp(e, LLVMIntSLT, lane, competing), key = local_set(e, e->i64, int64(e, 0)); /* no key is zero */
  finder unstaged = *f;
  unstaged.bits = NULL;
  branch has = if_begin(e, mine);
  set(e, key, key_of(e, &unstaged, add(e, f->from, lane)));
  if_end(e, &has);
  store(e, get(e, e->i64, key), element(e, e->i64, f->bits, lane));
  e->atoms->barrier(e);
  V own = get(e, e->i64, key), rank = local_set(e, e->i32, int32(e, 0));
  loop others = loop_begin(e, int64(e, 0), competing, int64(e, 2 * AT_ONCE));
  for (unsigned i = 0; i < AT_ONCE; i++) {
    V keys = load(e, pair, element(e, e->i64, f->bits, add(e, others.index, int64(e, 2 * i))));
    for (int32_t j = 0; j < 2; j++) {
      V larger = icmp(e, LLVMIntUGT, LLVMBuildExtractElement(e->builder, keys, int32(e, j), ""), own);
      set(e, rank, add(e, get(e, e->i32, rank), LLVMBuildZExt(e->builder, larger, e->i32, "")));
    }
  }
  loop_end(e, &others);
  V chosen = and_(e, mine, icmp(e, LLVMIntULT, get(e, e->i32, rank), to_i32(e, wanted)));
  V vote[] = {int32(e, -1), chosen};
  V mask = intrinsic(e, "llvm.nvvm.vote.ballot.sync", NULL, 0, vote, 2);
  V place = and_(e, lane, int64(e, 31)), warp = lshr(e, lane, int64(e, 5));
  V below = sub(e, shl(e, int32(e, 1), to_i32(e, place)), int32(e, 1));
  V before = and_(e, mask, below);
  before = intrinsic(e, "llvm.ctpop", &e->i32, 1, &before, 1);
  branch first = if_begin(e, is_first_lane_of_warp(e));
  store(e, intrinsic(e, "llvm.ctpop", &e->i32, 1, &mask, 1), element(e, e->i32, f->counts, warp));
  if_end(e, &first);
  e->atoms->barrier(e);
  V at = add(e, f->from, to_i64(e, before)); /* forced ids come first, and there are `from` of them */
  for (unsigned w = 0; w < e->lanes / 32; w++) {
    V count = to_i64(e, load(e, e->i32, element(e, e->i32, f->counts, int64(e, w))));
    at = add(e, at, select_(e, icmp(e, LLVMIntSLT, int64(e, w), warp), count, int64(e, 0)));
  }
  branch write = if_begin(e, chosen);
  store_i32(e, add(e, f->from, lane), f->choice->list, at);
  if_end(e, &write);
}

void topk_choose(emitter *e, const block_choice *c) {
  V places = int64(e, c->k), zero = int64(e, 0), lane = e->atoms->lane(e);
  V initial = imin(e, imin(e, int64(e, c->init), c->visible), places);
  V candidates = imax(e, sub(e, c->visible, int64(e, c->local_blocks)), initial);
  V recent = imin(e, sub(e, c->visible, candidates), sub(e, places, initial));
  V competing = sub(e, candidates, initial);
  V wanted = imin(e, sub(e, sub(e, places, initial), recent), competing);
  V chosen = add(e, initial, wanted);
  finder f = {.choice = c,
              .from = initial,
              .to = candidates,
              .bits = workgroup_take(e, MOST_STAGED * sizeof(int32_t)),
              .counts = workgroup_take(e, 4 * (ROUNDS + 1) * sizeof(int32_t))};
  V next = workgroup_take(e, sizeof(int32_t));
  loop clear = lane_loop(e, zero, int64(e, 4 * (ROUNDS + 1)));
  store_i32(e, zero, f.counts, clear.index);
  loop_end(e, &clear);
  branch first = if_begin(e, icmp(e, LLVMIntEQ, lane, zero));
  store_i32(e, initial, next, zero);
  if_end(e, &first);
  V order = workgroup_take(e, (uint64_t)c->k * sizeof(int32_t));
  V all = icmp(e, LLVMIntEQ, wanted, competing); /* nothing to choose: ids from `initial` on */
  /* What is forced, in place; then what competes. */
  loop slots = lane_loop(e, zero, places);
  V id = select_(e, icmp(e, LLVMIntSLT, slots.index, initial), slots.index,
                 add(e, candidates, sub(e, slots.index, chosen)));
  id = select_(e, icmp(e, LLVMIntSLT, slots.index, add(e, chosen, recent)), id, int64(e, -1));
  V inside = and_(e, icmp(e, LLVMIntSGE, slots.index, initial), icmp(e, LLVMIntSLT, slots.index, chosen));
  id = select_(e, inside, slots.index, id);
  store_i32(e, id, c->list, slots.index);
  loop_end(e, &slots);
  e->atoms->barrier(e);
  branch choose = if_begin(e, and_(e, LLVMBuildNot(e->builder, all, ""), icmp(e, LLVMIntSGT, wanted, zero)));
  branch ranked = if_begin(e, icmp(e, LLVMIntSLE, competing, int64(e, e->lanes)));
  choose_by_rank(e, &f, wanted);
  if_else(e, &ranked);
  branch few = if_begin(e, icmp(e, LLVMIntSLE, competing, int64(e, MOST_STAGED)));
  find_best(e, &f, wanted, next);
  if_else(e, &few);
  finder far = f;
  far.bits = NULL;
  find_best(e, &far, wanted, next);
  if_end(e, &few);
  e->atoms->barrier(e);
  /* Each id goes to the place that as many smaller ids leave it. */
  loop unordered = loop_begin(e, add(e, initial, lane), chosen, int64(e, e->lanes));
  V mine = load_i32(e, c->list, unordered.index), smaller = local_set(e, e->i64, initial);
  loop others = loop_begin(e, initial, chosen, int64(e, 1));
  V less = icmp(e, LLVMIntSLT, load_i32(e, c->list, others.index), mine);
  set(e, smaller, add(e, get(e, e->i64, smaller), LLVMBuildZExt(e->builder, less, e->i64, "")));
  loop_end(e, &others);
  store_i32(e, mine, order, get(e, e->i64, smaller));
  loop_end(e, &unordered);
  e->atoms->barrier(e);
  loop ordered = loop_begin(e, add(e, initial, lane), chosen, int64(e, e->lanes));
  store_i32(e, load_i32(e, order, ordered.index), c->list, ordered.index);
  loop_end(e, &ordered);
  if_end(e, &ranked);
  if_end(e, &choose);
  e->atoms->barrier(e);
}

bool nvptx_topk_blocks(emitter *e, const kernel_spec *spec) {
  int64_t heads = attribute(e, "heads"), k = attribute(e, "k"), block = attribute(e, "block");
  block_choice c = {.k = k, .init = attribute(e, "init"), .local_blocks = attribute(e, "local")};
  if (e->status || heads < 1 || k < 1 || block < 1) return false;
  kernel_begin(e, spec, each_of(SLUICE_SIZE_TOKENS, heads));
  V row = add(e, mul(e, e->x, int64(e, heads)), e->y);
  c.scores = element(e, e->f32, e->argument[0], mul(e, row, size_of(e, SLUICE_SIZE_PAGES)));
  c.visible = ceil_div(e, add(e, load_i32(e, e->argument[1], e->x), int64(e, 1)), block);
  c.list = workgroup_take(e, (uint64_t)k * sizeof(int32_t));
  topk_choose(e, &c);
  loop copy = lane_loop(e, int64(e, 0), int64(e, k));
  store_i32(e, load_i32(e, c.list, copy.index), e->argument[2], add(e, mul(e, row, int64(e, k)), copy.index));
  loop_end(e, &copy);
  kernel_end(e);
  return true;
}

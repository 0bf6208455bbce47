/* Finding the k largest of many scores.
 *
 * A score and its block id make one key, larger for what is chosen first; no two are equal. Blocks are dealt out to at
 * least k groups. The smallest of the groups' maxima is a bound that at least k keys reach, and hardly more than three
 * times as many: when groups are filled at random, a sixteenth of them each, 54 keys on average are seen before every
 * group has one. Neighbouring blocks, whose scores are alike, are in different groups. The keys that reach the bound
 * are listed, and it is counted for each how many of them are larger: that is its place.
 *
 * So there are three barriers, whatever the number of scores; they are read once where each lane can keep its own, else
 * twice, the second time from the L1 cache. Should more keys reach the bound than the list has room for (thousands of
 * equal scores, say), they are chosen one after the other as on the host.
 */
#include "backends/nvptx/topk.h"
#include "backends/common/attention.h"
#include "backends/nvptx/skeletons.h"

enum {
  WARP_LANES = 32,
  MOST_GROUPS = 32,
  IN_TURN = 16, /* scores that a lane reads at a time where it cannot keep all */
  MOST_LISTED = 256,
  RANKED = 8, /* keys that a lane compares with one at a time */
};

/* A score's bits, made monotonic as an unsigned number; NaN is lowest. */
static V ordered_bits(emitter *e, V score) {
  V bits = bitcast(e, fadd_(e, score, float32(e, 0)), e->i32); /* -0 is 0 */
  V sign = LLVMBuildAShr(e->builder, bits, int32(e, 31), "");
  V ordered = LLVMBuildXor(e->builder, bits, or_(e, sign, int32(e, INT32_MIN)), "");
  return select_(e, fcmp(e, LLVMRealUNO, score, score), int32(e, 0), ordered);
}

/* The key: a score's bits, then the complement of the id (i32). */
static V key_of(emitter *e, V bits, V id) {
  V upper = shl(e, LLVMBuildZExt(e->builder, bits, e->i64, ""), int64(e, 32));
  return or_(e, upper, LLVMBuildZExt(e->builder, LLVMBuildNot(e->builder, id, ""), e->i64, ""));
}

static V id_of(emitter *e, V key) {
  return sub(e, int64(e, UINT32_MAX), and_(e, key, int64(e, UINT32_MAX)));
}

static V larger_of(emitter *e, V a, V b) {
  return select_(e, icmp(e, LLVMIntUGT, a, b), a, b);
}

/* `count` of the lane's competing scores: from block `first` on. */
typedef struct scan {
  unsigned count;
  V id[IN_TURN], inside[IN_TURN], bits[IN_TURN];
} scan;

/* Block numbers are words here: the arithmetic is a good part of what many scores cost. */
static V id_at(emitter *e, V first, unsigned i) {
  return add(e, to_i32(e, first), int32(e, (int32_t)(i * e->lanes)));
}

static scan read_scores(emitter *e, const block_choice *c, V first, unsigned count) {
  scan s = {.count = count};
  V last = to_i32(e, sub(e, c->to, int64(e, 1)));
  for (unsigned i = 0; i < count; i++) {
    s.id[i] = id_at(e, first, i);
    s.inside[i] = icmp(e, LLVMIntSLE, s.id[i], last);
    V at = LLVMBuildZExt(e->builder, select_(e, s.inside[i], s.id[i], last), e->i64, "");
    s.bits[i] = load_f32(e, SLUICE_F32, c->scores, at, 1); /* no branch: all are under way at once */
  }
  for (unsigned i = 0; i < count; i++) s.bits[i] = select_(e, s.inside[i], ordered_bits(e, s.bits[i]), int32(e, 0));
  return s;
}

static V first_of_lane(emitter *e, const block_choice *c) {
  return add(e, c->from, e->atoms->lane(e));
}

static V largest_of(emitter *e, const scan *s, V best) {
  for (unsigned i = 0; i < s->count; i++) best = larger_of(e, best, s->bits[i]);
  return best;
}

/* Bits that at least `wanted` of the competing scores reach; `own` is the largest of the lane's. Has a barrier. */
static V find_bound(emitter *e, const block_choice *c, V own) {
  unsigned groups = 1, warps = e->lanes / WARP_LANES;
  while (groups < MOST_GROUPS && (int64_t)groups < c->k) groups *= 2;
  for (unsigned distance = WARP_LANES / 2; distance >= groups; distance /= 2)
    own = larger_of(e, own, exchange_i32(e, own, distance));
  store(e, own, element(e, e->i32, c->maxima, e->atoms->lane(e)));
  e->atoms->barrier(e);
  V group = and_(e, e->atoms->lane(e), int64(e, WARP_LANES - 1));
  V maximum = load(e, e->i32, element(e, e->i32, c->maxima, group));
  for (unsigned w = 1; w < warps; w++) {
    V other = load(e, e->i32, element(e, e->i32, c->maxima, add(e, group, int64(e, w * WARP_LANES))));
    maximum = larger_of(e, maximum, other);
  }
  V arguments[] = {maximum, int32(e, -1)};
  V bound = intrinsic(e, "llvm.nvvm.redux.sync.umin", NULL, 0, arguments, 2);
  /* One for each of the wanted, if there are as many groups. */
  return select_(e, icmp(e, LLVMIntSLE, c->wanted, int64(e, groups)), bound, int32(e, 0));
}

static V population(emitter *e, V mask) {
  T type = e->i32;
  return intrinsic(e, "llvm.ctpop", &type, 1, &mask, 1);
}

/* Lists the keys that reach the bound, and pages of theirs that are known; keys beyond MOST_LISTED are only counted. A
 * warp takes places for all of its keys at once. All lanes of it come here together. */
static void list_keys(emitter *e, const block_choice *c, const scan *s, V bound, const V *page) {
  V reached[IN_TURN], place[IN_TURN], found = int32(e, 0);
  V before = intrinsic(e, "llvm.nvvm.read.ptx.sreg.lanemask.lt", NULL, 0, NULL, 0);
  for (unsigned i = 0; i < s->count; i++) {
    reached[i] = and_(e, s->inside[i], icmp(e, LLVMIntUGE, s->bits[i], bound));
    V vote[] = {int32(e, -1), reached[i]};
    V mask = intrinsic(e, "llvm.nvvm.vote.ballot.sync", NULL, 0, vote, 2);
    place[i] = add(e, found, population(e, and_(e, mask, before)));
    found = add(e, found, population(e, mask));
  }
  V taken = local_set(e, e->i32, int32(e, 0));
  branch first = if_begin(e, and_(e, icmp(e, LLVMIntEQ, before, int32(e, 0)), icmp(e, LLVMIntUGT, found, int32(e, 0))));
  set(e, taken, LLVMBuildAtomicRMW(e->builder, LLVMAtomicRMWBinOpAdd, c->count, found, LLVMAtomicOrderingMonotonic, 0));
  if_end(e, &first);
  V from_first[] = {int32(e, -1), get(e, e->i32, taken), int32(e, 0), int32(e, 31)};
  V start = intrinsic(e, "llvm.nvvm.shfl.sync.idx.i32", NULL, 0, from_first, 4);
  for (unsigned i = 0; i < s->count; i++) {
    V at = add(e, start, place[i]);
    branch room = if_begin(e, and_(e, reached[i], icmp(e, LLVMIntULT, at, int32(e, MOST_LISTED))));
    store(e, key_of(e, s->bits[i], s->id[i]), element(e, e->i64, c->keys, to_i64(e, at)));
    if (page) store(e, get(e, e->i32, page[i]), element(e, e->i32, c->listed_pages, to_i64(e, at)));
    if_end(e, &room);
  }
}

static void set_slot(emitter *e, const block_choice *c, V slot, V id) {
  store_i32(e, id, c->list, slot);
  if (c->page_table) store_i32(e, load_i32(e, c->page_table, id), c->pages, slot);
}

/* The page of the listed key `number`, whose block is `id`. */
static V page_of_listed(emitter *e, const block_choice *c, V number, V id) {
  V page = local_set(e, e->i64, load_i32(e, c->listed_pages, number));
  branch unknown = if_begin(e, LLVMBuildNot(e->builder, c->once, ""));
  V at = element(e, e->i32, c->page_table, id);
  /* Assembly, or the two loads would be made one whose kind of memory is not known. */
  set(e, page, to_i64(e, assembly(e, e->i32, "ld.global.nc.u32 $0, [$1];", "=r,l", &at, 1, ASSEMBLY_EFFECT)));
  if_end(e, &unknown);
  return get(e, e->i64, page);
}

/* Those of the `listed` keys that fewer than `wanted` exceed, in their order. Four lanes share a key. */
static void rank_keys(emitter *e, const block_choice *c, V listed) {
  enum { SHARE = 4 };
  T pair = LLVMVectorType(e->i64, 2);
  V all = mul(e, ceil_div(e, listed, WARP_LANES / SHARE), int64(e, WARP_LANES)); /* whole warps */
  loop own = lane_loop(e, int64(e, 0), all);
  V number = lshr(e, own.index, int64(e, 2)), part = and_(e, own.index, int64(e, SHARE - 1));
  V key = load(e, e->i64, element(e, e->i64, c->keys, number)); /* 0 beyond the listed */
  V real = icmp(e, LLVMIntSLT, number, listed), id = select_(e, real, id_of(e, key), int64(e, 0));
  V page = c->page_table ? page_of_listed(e, c, number, id) : NULL; /* under way meanwhile */
  V rank = local_set(e, e->i32, int32(e, 0));
  loop others = loop_begin(e, mul(e, part, int64(e, 2)), listed, int64(e, RANKED * SHARE));
  V sum = get(e, e->i32, rank);
  for (unsigned i = 0; i < RANKED / 2; i++) {
    V keys = load(e, pair, element(e, e->i64, c->keys, add(e, others.index, int64(e, i * 2 * SHARE))));
    for (int32_t j = 0; j < 2; j++) {
      V larger = icmp(e, LLVMIntUGT, LLVMBuildExtractElement(e->builder, keys, int32(e, j), ""), key);
      sum = add(e, sum, LLVMBuildZExt(e->builder, larger, e->i32, ""));
    }
  }
  set(e, rank, sum);
  loop_end(e, &others);
  sum = get(e, e->i32, rank);
  for (unsigned distance = 1; distance < SHARE; distance *= 2) sum = add(e, sum, exchange_i32(e, sum, distance));
  V place = to_i64(e, sum), first = icmp(e, LLVMIntEQ, part, int64(e, 0));
  branch chosen = if_begin(e, and_(e, and_(e, first, real), icmp(e, LLVMIntSLT, place, c->wanted)));
  V slot = add(e, c->from, place); /* behind the forced ids, of which there are `from` */
  store_i32(e, id, c->list, slot);
  if (page) store_i32(e, page, c->pages, slot);
  if_end(e, &chosen);
  loop_end(e, &own);
}

/* Pages of the lane's blocks, if it has so few of them. */
static void read_pages(emitter *e, block_choice *c) {
  for (unsigned i = 0; i < TOPK_AT_ONCE; i++) c->page[i] = local_set(e, e->i32, int32(e, 0));
  branch all = if_begin(e, and_(e, c->choice, c->once));
  V last = to_i32(e, sub(e, c->to, int64(e, 1)));
  for (unsigned i = 0; i < TOPK_AT_ONCE; i++) {
    V at = LLVMBuildZExt(e->builder, imin(e, id_at(e, first_of_lane(e, c), i), last), e->i64, "");
    set(e, c->page[i], load(e, e->i32, element(e, e->i32, c->page_table, at)));
  }
  if_end(e, &all);
}

void topk_begin(emitter *e, block_choice *c) {
  V places = int64(e, c->k), zero = int64(e, 0);
  V initial = imin(e, imin(e, int64(e, c->init), c->visible), places);
  V candidates = imax(e, sub(e, c->visible, int64(e, c->local_blocks)), initial);
  V recent = imin(e, sub(e, c->visible, candidates), sub(e, places, initial));
  V wanted = imin(e, sub(e, sub(e, places, initial), recent), sub(e, candidates, initial));
  c->from = initial;
  c->to = candidates;
  c->wanted = wanted;
  c->list = workgroup_take(e, (uint64_t)c->k * sizeof(int32_t));
  if (c->page_table) c->pages = workgroup_take(e, (uint64_t)c->k * sizeof(int32_t));
  c->maxima = workgroup_take(e, e->lanes * sizeof(int32_t));
  c->keys = workgroup_take(e, MOST_LISTED * sizeof(int64_t));
  if (c->page_table) c->listed_pages = workgroup_take(e, MOST_LISTED * sizeof(int32_t));
  c->count = workgroup_take(e, sizeof(int32_t));
  c->choice = and_(e, icmp(e, LLVMIntSLT, wanted, sub(e, candidates, initial)), icmp(e, LLVMIntSGT, wanted, zero));
  c->once = icmp(e, LLVMIntSLE, sub(e, candidates, initial), int64(e, (int64_t)e->lanes * TOPK_AT_ONCE));
  if (c->page_table) read_pages(e, c);
  /* What nobody lists is no key: zero. */
  loop clear = lane_loop(e, zero, int64(e, MOST_LISTED));
  store(e, zero, element(e, e->i64, c->keys, clear.index));
  loop_end(e, &clear);
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), zero));
  store_i32(e, zero, c->count, zero);
  if_end(e, &first);
  /* All competing ids where there is no choice; of the others' places, those of the forced. */
  V chosen = add(e, initial, wanted);
  c->used = add(e, chosen, recent);
  loop slots = lane_loop(e, zero, places);
  V before = icmp(e, LLVMIntSLT, slots.index, chosen);
  V id = select_(e, before, slots.index, add(e, candidates, sub(e, slots.index, chosen)));
  branch used = if_begin(e, icmp(e, LLVMIntSLT, slots.index, c->used));
  set_slot(e, c, slots.index, id);
  if_else(e, &used);
  store_i32(e, int64(e, -1), c->list, slots.index);
  if_end(e, &used);
  loop_end(e, &slots);
  e->atoms->barrier(e);
}

/* Each lane keeps its scores, and has had its pages before there were any. */
static void list_at_once(emitter *e, const block_choice *c) {
  scan s = read_scores(e, c, first_of_lane(e, c), TOPK_AT_ONCE);
  V bound = find_bound(e, c, largest_of(e, &s, int32(e, 0)));
  list_keys(e, c, &s, bound, c->page_table ? c->page : NULL);
}

/* Scores are read twice, the second time from the L1 cache. */
static void list_in_turns(emitter *e, const block_choice *c) {
  V own = local_set(e, e->i32, int32(e, 0)), step = int64(e, e->lanes * IN_TURN);
  loop look = loop_begin(e, first_of_lane(e, c), c->to, step);
  scan s = read_scores(e, c, look.index, IN_TURN);
  set(e, own, largest_of(e, &s, get(e, e->i32, own)));
  loop_end(e, &look);
  V bound = find_bound(e, c, get(e, e->i32, own));
  loop again = loop_begin(e, c->from, c->to, step); /* the same turns for all lanes, who vote */
  s = read_scores(e, c, add(e, again.index, e->atoms->lane(e)), IN_TURN);
  list_keys(e, c, &s, bound, NULL);
  loop_end(e, &again);
}

/* Behind the listing. */
static void choose_listed(emitter *e, const block_choice *c) {
  e->atoms->barrier(e);
  V listed = load_i32(e, c->count, int64(e, 0));
  branch fit = if_begin(e, icmp(e, LLVMIntSLE, listed, int64(e, MOST_LISTED)));
  rank_keys(e, c, listed);
  if_else(e, &fit);
  choose_blocks(e, c->scores, c->visible, c->k, c->init, c->local_blocks, c->list);
  e->atoms->barrier(e);
  if (c->page_table) {
    loop slots = lane_loop(e, int64(e, 0), int64(e, c->k)); /* all of them: there was a choice */
    set_slot(e, c, slots.index, load_i32(e, c->list, slots.index));
    loop_end(e, &slots);
  }
  if_end(e, &fit);
  e->atoms->barrier(e);
}

void topk_choose(emitter *e, const block_choice *c) {
  branch choose = if_begin(e, c->choice);
  branch once = if_begin(e, c->once);
  list_at_once(e, c);
  if_else(e, &once);
  list_in_turns(e, c);
  if_end(e, &once);
  choose_listed(e, c);
  if_end(e, &choose);
}

void topk_write(emitter *e, const block_choice *c, V out) {
  loop slots = lane_loop(e, int64(e, 0), int64(e, c->k));
  V id = load_i32(e, c->list, slots.index), place = local_set(e, e->i64, int64(e, 0));
  branch used = if_begin(e, icmp(e, LLVMIntSGE, id, int64(e, 0)));
  loop others = loop_begin(e, int64(e, 0), int64(e, c->k), int64(e, 1));
  V less = icmp(e, LLVMIntULT, load_i32(e, c->list, others.index), id); /* -1 is no less */
  set(e, place, add(e, get(e, e->i64, place), LLVMBuildZExt(e->builder, less, e->i64, "")));
  loop_end(e, &others);
  if_else(e, &used);
  set(e, place, slots.index);
  if_end(e, &used);
  store_i32(e, id, out, get(e, e->i64, place));
  loop_end(e, &slots);
}

bool nvptx_topk_blocks(emitter *e, const kernel_spec *spec) {
  int64_t heads = attribute(e, "heads"), k = attribute(e, "k"), block = attribute(e, "block");
  block_choice c = {.k = k, .init = attribute(e, "init"), .local_blocks = attribute(e, "local")};
  if (e->status || heads < 1 || k < 1 || block < 1) return false;
  kernel_begin(e, spec, each_of(SLUICE_SIZE_TOKENS, heads));
  V row = add(e, mul(e, e->x, int64(e, heads)), e->y);
  c.scores = element(e, e->f32, e->argument[0], mul(e, row, size_of(e, SLUICE_SIZE_PAGES)));
  c.visible = visible_blocks(e, load_i32(e, e->argument[1], e->x), block);
  topk_begin(e, &c);
  topk_choose(e, &c);
  topk_write(e, &c, element(e, e->i32, e->argument[2], mul(e, row, int64(e, k))));
  kernel_end(e);
  return true;
}

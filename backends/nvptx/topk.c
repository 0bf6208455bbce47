/* Finding the k largest of many scores.
 *
 * A score and its block id make one key, larger for what is chosen first; no two are equal. Blocks are dealt out to at
 * least k groups. The smallest of the groups' maxima is a bound that at least k keys reach, and hardly more than three
 * times as many: when groups are filled at random, a sixteenth of them each, 54 keys on average are seen before every
 * group has one. Neighbouring blocks, whose scores are alike, are in different groups. The keys that reach the bound
 * are listed, and each counts how many of them are larger: that is its place.
 *
 * So scores are read twice, the second time from the L1 cache, and there are three barriers, whatever their number.
 * Should more keys reach the bound than the list has room for (thousands of equal scores, say), they are chosen one
 * after the other as on the host.
 */
#include "backends/nvptx/topk.h"
#include "backends/common/attention.h"
#include "backends/nvptx/skeletons.h"

enum {
  WARP_LANES = 32,
  MOST_GROUPS = 32,
  AT_ONCE = 8, /* scores that a lane reads before it looks at the first */
  MOST_LISTED = 256,
  RANKED = 8, /* keys that a lane compares with its own at a time */
};

/* A score's bits, made monotonic as an unsigned number; NaN is lowest. */
static V ordered_bits(emitter *e, V score) {
  V bits = bitcast(e, fadd_(e, score, float32(e, 0)), e->i32); /* -0 is 0 */
  V sign = LLVMBuildAShr(e->builder, bits, int32(e, 31), "");
  V ordered = LLVMBuildXor(e->builder, bits, or_(e, sign, int32(e, INT32_MIN)), "");
  return select_(e, fcmp(e, LLVMRealUNO, score, score), int32(e, 0), ordered);
}

/* The key: a score's bits, then the complement of the id. */
static V key_of(emitter *e, V bits, V id) {
  V upper = shl(e, LLVMBuildZExt(e->builder, bits, e->i64, ""), int64(e, 32));
  return or_(e, upper, sub(e, int64(e, UINT32_MAX), id));
}

static V id_of(emitter *e, V key) {
  return sub(e, int64(e, UINT32_MAX), and_(e, key, int64(e, UINT32_MAX)));
}

static V larger_of(emitter *e, V a, V b) {
  return select_(e, icmp(e, LLVMIntUGT, a, b), a, b);
}

/* The lane's part of the competing scores, AT_ONCE at a time. */
typedef struct scan {
  loop batch;
  V id[AT_ONCE], inside[AT_ONCE], bits[AT_ONCE];
} scan;

static scan scan_begin(emitter *e, const block_choice *c) {
  scan s = {.batch = loop_begin(e, add(e, c->from, e->atoms->lane(e)), c->to, int64(e, e->lanes * AT_ONCE))};
  V last = sub(e, c->to, int64(e, 1));
  for (unsigned i = 0; i < AT_ONCE; i++) {
    s.id[i] = add(e, s.batch.index, int64(e, i * e->lanes));
    s.inside[i] = icmp(e, LLVMIntSLE, s.id[i], last);
    s.bits[i] =
        load_f32(e, SLUICE_F32, c->scores, imin(e, s.id[i], last), 1); /* no branch: all are under way at once */
  }
  for (unsigned i = 0; i < AT_ONCE; i++) s.bits[i] = ordered_bits(e, s.bits[i]);
  return s;
}

/* Bits that at least `wanted` of the competing scores reach. Has a barrier. */
static V find_bound(emitter *e, const block_choice *c) {
  unsigned groups = 1, warps = e->lanes / WARP_LANES;
  while (groups < MOST_GROUPS && (int64_t)groups < c->k) groups *= 2;
  V own = local_set(e, e->i32, int32(e, 0));
  scan s = scan_begin(e, c);
  V best = get(e, e->i32, own);
  for (unsigned i = 0; i < AT_ONCE; i++) best = larger_of(e, best, select_(e, s.inside[i], s.bits[i], int32(e, 0)));
  set(e, own, best);
  loop_end(e, &s.batch);
  V of_group = get(e, e->i32, own);
  for (unsigned distance = WARP_LANES / 2; distance >= groups; distance /= 2)
    of_group = larger_of(e, of_group, exchange_i32(e, of_group, distance));
  store(e, of_group, element(e, e->i32, c->maxima, e->atoms->lane(e)));
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

/* Lists the keys that reach the bound; those beyond MOST_LISTED are only counted. */
static void list_keys(emitter *e, const block_choice *c, V bound) {
  scan s = scan_begin(e, c);
  for (unsigned i = 0; i < AT_ONCE; i++) {
    branch reached = if_begin(e, and_(e, s.inside[i], icmp(e, LLVMIntUGE, s.bits[i], bound)));
    V at = LLVMBuildAtomicRMW(e->builder, LLVMAtomicRMWBinOpAdd, c->count, int32(e, 1), LLVMAtomicOrderingMonotonic, 0);
    branch room = if_begin(e, icmp(e, LLVMIntULT, at, int32(e, MOST_LISTED)));
    store(e, key_of(e, s.bits[i], s.id[i]), element(e, e->i64, c->keys, to_i64(e, at)));
    if_end(e, &room);
    if_end(e, &reached);
  }
  loop_end(e, &s.batch);
}

static void set_slot(emitter *e, const block_choice *c, V slot, V id) {
  store_i32(e, id, c->list, slot);
  if (c->page_table) store_i32(e, load_i32(e, c->page_table, id), c->pages, slot);
}

/* Those of the `listed` keys that fewer than `wanted` exceed, in their order. */
static void rank_keys(emitter *e, const block_choice *c, V listed) {
  T pair = LLVMVectorType(e->i64, 2);
  loop own = lane_loop(e, int64(e, 0), listed);
  V key = load(e, e->i64, element(e, e->i64, c->keys, own.index)), rank = local_set(e, e->i32, int32(e, 0));
  V id = id_of(e, key), page = c->page_table ? load_i32(e, c->page_table, id) : NULL; /* under way meanwhile */
  loop others = loop_begin(e, int64(e, 0), listed, int64(e, RANKED));
  V sum = get(e, e->i32, rank);
  for (unsigned i = 0; i < RANKED; i += 2) {
    V keys = load(e, pair, element(e, e->i64, c->keys, add(e, others.index, int64(e, i))));
    for (int32_t j = 0; j < 2; j++) {
      V larger = icmp(e, LLVMIntUGT, LLVMBuildExtractElement(e->builder, keys, int32(e, j), ""), key);
      sum = add(e, sum, LLVMBuildZExt(e->builder, larger, e->i32, ""));
    }
  }
  set(e, rank, sum);
  loop_end(e, &others);
  V place = to_i64(e, get(e, e->i32, rank));
  branch chosen = if_begin(e, icmp(e, LLVMIntSLT, place, c->wanted));
  V slot = add(e, c->from, place); /* behind the forced ids, of which there are `from` */
  store_i32(e, id, c->list, slot);
  if (page) store_i32(e, page, c->pages, slot);
  if_end(e, &chosen);
  loop_end(e, &own);
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
  c->count = workgroup_take(e, sizeof(int32_t));
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

void topk_choose(emitter *e, const block_choice *c) {
  branch choose = if_begin(
      e, and_(e, icmp(e, LLVMIntSLT, c->wanted, sub(e, c->to, c->from)), icmp(e, LLVMIntSGT, c->wanted, int64(e, 0))));
  list_keys(e, c, find_bound(e, c));
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

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
 * equal scores, say), or too few (NaN reaches none), they are chosen one after the other as on the host.
 */
#include "backends/nvptx/topk.h"
#include "backends/common/attention.h"
#include "backends/nvptx/own_kernels.h"

#include <math.h>
#include <stdio.h>

enum {
  WARP_LANES = 32,
  MOST_GROUPS = 32,
  MOST_KEPT = 32, /* scores that a lane reads at a time: a word has a bit for each */
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

/* The score of such bits; the lowest one of all for those of NaN. */
static V score_of_bits(emitter *e, V bits) {
  V sign = LLVMBuildAShr(e->builder, LLVMBuildNot(e->builder, bits, ""), int32(e, 31), "");
  V score = bitcast(e, LLVMBuildXor(e->builder, bits, or_(e, sign, int32(e, INT32_MIN)), ""), e->f32);
  return select_(e, icmp(e, LLVMIntEQ, bits, int32(e, 0)), float32(e, -INFINITY), score);
}

/* The key: a score's bits, then the complement of the id (i32). */
static V key_of(emitter *e, V bits, V id) {
  V upper = shl(e, LLVMBuildZExt(e->builder, bits, e->i64, ""), int64(e, 32));
  return or_(e, upper, LLVMBuildZExt(e->builder, LLVMBuildNot(e->builder, id, ""), e->i64, ""));
}

static V id_of(emitter *e, V key) {
  return sub(e, int64(e, UINT32_MAX), and_(e, key, int64(e, UINT32_MAX)));
}

/* `count` of the lane's competing scores, of the blocks first, first + lanes, ...; NaN beyond the last. */
typedef struct scan {
  V first; /* i64 */
  unsigned count;
  V score[MOST_KEPT];
} scan;

/* All reads are under way at once. Three instructions for a score: there are up to 8192, and arithmetic is what they
 * cost. */
static scan read_scores(emitter *e, const block_choice *c, V first, unsigned count) {
  scan s = {.first = first, .count = count};
  V left = to_i32(e, sub(e, sub(e, c->to, int64(e, 1)), first)), base = element(e, e->f32, c->scores, first);
  for (unsigned i = 0; i < count; i++) {
    char text[160];
    snprintf(text, sizeof text,
             "{\n\t.reg .pred inside;\n\tsetp.ge.s32 inside, $1, %u;\n\tmov.b32 $0, 0f7fc00000;\n\t"
             "@inside ld.global.f32 $0, [$2+%u];\n\t}",
             i * e->lanes, i * e->lanes * (unsigned)sizeof(float));
    V arguments[] = {left, base};
    s.score[i] = assembly(e, e->f32, text, "=f,r,l,~{memory}", arguments, 2, ASSEMBLY_EFFECT);
  }
  return s;
}

static V first_of_lane(emitter *e, const block_choice *c) {
  return add(e, c->from, e->atoms->lane(e));
}

static V largest_of(emitter *e, const scan *s, V best) {
  for (unsigned i = 0; i < s->count; i++) best = fmax_(e, best, s->score[i]);
  return best;
}

/* A score that at least `wanted` of the competing ones reach, NaN apart; `own` is the largest of the lane's. Has a
 * barrier. */
static V find_bound(emitter *e, const block_choice *c, V own) {
  unsigned groups = 1, warps = e->lanes / WARP_LANES;
  while (groups < MOST_GROUPS && (int64_t)groups < c->k) groups *= 2;
  for (unsigned distance = WARP_LANES / 2; distance >= groups; distance /= 2)
    own = fmax_(e, own, exchange_f32(e, own, distance));
  store_f32(e, SLUICE_F32, own, c->maxima, e->atoms->lane(e));
  e->atoms->barrier(e);
  V group = and_(e, e->atoms->lane(e), int64(e, WARP_LANES - 1));
  V maximum = load_f32(e, SLUICE_F32, c->maxima, group, 1);
  for (unsigned w = 1; w < warps; w++)
    maximum = fmax_(e, maximum, load_f32(e, SLUICE_F32, c->maxima, add(e, group, int64(e, w * WARP_LANES)), 1));
  V arguments[] = {ordered_bits(e, maximum), int32(e, -1)};
  V least = intrinsic(e, "llvm.nvvm.redux.sync.umin", NULL, 0, arguments, 2);
  /* One for each of the wanted, if there are as many groups. */
  V known = icmp(e, LLVMIntSLE, c->wanted, int64(e, groups));
  return select_(e, known, score_of_bits(e, least), float32(e, -INFINITY));
}

/* Lists the keys that reach the bound; those beyond MOST_LISTED are only counted. A lane has few if any: it reads their
 * scores again. */
static void list_keys(emitter *e, const block_choice *c, const scan *s, V bound) {
  V reached = int32(e, 0);
  for (unsigned i = 0; i < s->count; i++) {
    V bit = select_(e, fcmp(e, LLVMRealOGE, s->score[i], bound), int32(e, (int32_t)(1u << i)), int32(e, 0));
    reached = or_(e, reached, bit);
  }
  T word = e->i32;
  V rest = local_set(e, word, reached);
  branch some = if_begin(e, icmp(e, LLVMIntNE, reached, int32(e, 0)));
  V count = population(e, reached);
  V place = LLVMBuildAtomicRMW(e->builder, LLVMAtomicRMWBinOpAdd, c->count, count, LLVMAtomicOrderingMonotonic, 0);
  V end = imin(e, add(e, place, count), int32(e, MOST_LISTED));
  loop each = loop_begin(e, to_i64(e, place), to_i64(e, end), int64(e, 1));
  V bits = get(e, word, rest), number[] = {bits, LLVMConstInt(e->i1, 1, 0)};
  set(e, rest, and_(e, bits, sub(e, bits, int32(e, 1))));
  V i = to_i64(e, intrinsic(e, "llvm.cttz", &word, 1, number, 2));
  V id = add(e, s->first, mul(e, i, int64(e, e->lanes)));
  V score = load_f32(e, SLUICE_F32, c->scores, id, 1);
  store(e, key_of(e, ordered_bits(e, score), to_i32(e, id)), element(e, e->i64, c->keys, each.index));
  loop_end(e, &each);
  if_end(e, &some);
}

static void set_slot(emitter *e, const block_choice *c, V slot, V id) {
  store_i32(e, id, c->list, slot);
  if (c->page_table) store_i32(e, load_i32(e, c->page_table, id), c->pages, slot);
}

/* The page of block `id`, one of the competing. */
static V page_of(emitter *e, const block_choice *c, V id) {
  V page = local(e, e->i64);
  branch known = if_begin(e, c->once);
  set(e, page, load_i32(e, c->row, sub(e, id, c->from)));
  if_else(e, &known);
  V at = element(e, e->i32, c->page_table, id);
  /* Assembly, or the two loads would be made one whose kind of memory is not known. */
  set(e, page, to_i64(e, assembly(e, e->i32, "ld.global.nc.u32 $0, [$1];", "=r,l", &at, 1, ASSEMBLY_EFFECT)));
  if_end(e, &known);
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
  V page = c->page_table ? page_of(e, c, select_(e, real, id, c->from)) : NULL; /* under way meanwhile */
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

/* Whether no lane has more than `count` of the competing blocks. */
static V are_at_most(emitter *e, const block_choice *c, unsigned count) {
  return icmp(e, LLVMIntSLE, sub(e, c->to, c->from), int64(e, (int64_t)e->lanes * count));
}

/* The row of the page table to workgroup memory, where it has room for it. Ends without a barrier. */
static void read_pages(emitter *e, const block_choice *c) {
  branch all = if_begin(e, and_(e, c->choice, c->once));
  V last = sub(e, sub(e, c->to, c->from), int64(e, 1)), at[TOPK_AT_ONCE], page[TOPK_AT_ONCE];
  for (unsigned i = 0; i < TOPK_AT_ONCE; i++) { /* no branch: all are under way at once */
    at[i] = add(e, e->atoms->lane(e), int64(e, i * e->lanes));
    page[i] = load_i32(e, c->page_table, add(e, c->from, imin(e, at[i], last)));
  }
  for (unsigned i = 0; i < TOPK_AT_ONCE; i++) {
    branch inside = if_begin(e, icmp(e, LLVMIntSLE, at[i], last));
    store_i32(e, page[i], c->row, at[i]);
    if_end(e, &inside);
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
  if (c->page_table) c->row = workgroup_take(e, e->lanes * TOPK_AT_ONCE * sizeof(int32_t));
  c->count = workgroup_take(e, sizeof(int32_t));
  c->choice = and_(e, icmp(e, LLVMIntSLT, wanted, sub(e, candidates, initial)), icmp(e, LLVMIntSGT, wanted, zero));
  c->once = are_at_most(e, c, TOPK_AT_ONCE);
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

/* Each lane keeps its scores, `count` of them. */
static void list_at_once(emitter *e, const block_choice *c, unsigned count) {
  scan s = read_scores(e, c, first_of_lane(e, c), count);
  V bound = find_bound(e, c, largest_of(e, &s, float32(e, -INFINITY)));
  list_keys(e, c, &s, bound);
}

/* Scores are read twice, the second time from the L1 cache. */
static void list_in_turns(emitter *e, const block_choice *c) {
  V own = local_set(e, e->f32, float32(e, -INFINITY)), step = int64(e, e->lanes * MOST_KEPT);
  loop look = loop_begin(e, first_of_lane(e, c), c->to, step);
  scan s = read_scores(e, c, look.index, MOST_KEPT);
  set(e, own, largest_of(e, &s, get(e, e->f32, own)));
  loop_end(e, &look);
  V bound = find_bound(e, c, get(e, e->f32, own));
  loop again = loop_begin(e, first_of_lane(e, c), c->to, step);
  s = read_scores(e, c, again.index, MOST_KEPT);
  list_keys(e, c, &s, bound);
  loop_end(e, &again);
}

/* Behind the listing. */
static void choose_listed(emitter *e, const block_choice *c) {
  e->atoms->barrier(e);
  V listed = load_i32(e, c->count, int64(e, 0));
  V enough = icmp(e, LLVMIntSGE, listed, c->wanted); /* but for NaN it is */
  branch fit = if_begin(e, and_(e, enough, icmp(e, LLVMIntSLE, listed, int64(e, MOST_LISTED))));
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
  list_at_once(e, c, TOPK_AT_ONCE);
  if_else(e, &once);
  branch kept = if_begin(e, are_at_most(e, c, MOST_KEPT));
  list_at_once(e, c, MOST_KEPT);
  if_else(e, &kept);
  list_in_turns(e, c);
  if_end(e, &kept);
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
  if (e->status) return false;
  if (heads < 1 || k < 1 || block < 1) return decline(e, "heads, k and block must be positive");
  kernel_begin(e, spec, each_of(SLUICE_SIZE_TOKENS, heads, 0));
  V row = add(e, mul(e, e->x, int64(e, heads)), e->y);
  c.scores = element(e, e->f32, e->argument[0], mul(e, row, size_of(e, SLUICE_SIZE_PAGES)));
  c.visible = visible_blocks(e, load_i32(e, e->argument[1], e->x), block);
  topk_begin(e, &c);
  topk_choose(e, &c);
  topk_write(e, &c, element(e, e->i32, e->argument[2], mul(e, row, int64(e, k))));
  kernel_end(e);
  return true;
}

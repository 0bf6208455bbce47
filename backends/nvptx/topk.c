/* Finding the k largest of many scores by bisection on their bits.
 *
 * A score and its block id make one integer, larger for what is chosen first; no two are equal. The k-th largest is
 * found bit by bit from the top: how many keys reach the bits found so far and the next one? One barrier for each bit,
 * and an end as soon as exactly k reach. Then those that reach are listed, and put in order by counting how many ids
 * are smaller.
 */
#include "backends/nvptx/topk.h"
#include "backends/nvptx/skeletons.h"

enum {
  SCORE_BITS = 32,
  ID_BITS = 22,       /* 2^22 blocks of 128 keys: far beyond any context */
  MOST_STAGED = 2048, /* competing scores that are kept in workgroup memory */
};

typedef struct finder {
  const block_choice *choice;
  V from, to; /* ids that compete */
  V counts;   /* i32[2][3][32] in workgroup memory: what each warp counted */
  V bits;     /* i32[MOST_STAGED] in workgroup memory */
} finder;

/* A score's bits, made monotonic as an unsigned number; NaN is lowest. */
static V ordered_bits(emitter *e, V score) {
  V bits = bitcast(e, fadd_(e, score, float32(e, 0)), e->i32); /* -0 is 0 */
  V sign = LLVMBuildAShr(e->builder, bits, int32(e, 31), "");
  V ordered = LLVMBuildXor(e->builder, bits, or_(e, sign, int32(e, INT32_MIN)), "");
  return select_(e, fcmp(e, LLVMRealUNO, score, score), int32(e, 0), ordered);
}

/* The scores that compete, as ordered bits in workgroup memory. Ends with a barrier. */
static void stage_scores(emitter *e, const finder *f) {
  loop ids = lane_loop(e, f->from, f->to);
  V score = load_f32(e, SLUICE_F32, f->choice->scores, ids.index, 1);
  store(e, ordered_bits(e, score), element(e, e->i32, f->bits, sub(e, ids.index, f->from)));
  loop_end(e, &ids);
  e->atoms->barrier(e);
}

/* The key of block `id`: its score's bits, then the complement of the id. */
static V key_of(emitter *e, const finder *f, V id) {
  V staged = icmp(e, LLVMIntSLT, sub(e, f->to, f->from), int64(e, MOST_STAGED + 1));
  V bits = local(e, e->i32);
  branch near = if_begin(e, staged);
  set(e, bits, load(e, e->i32, element(e, e->i32, f->bits, sub(e, id, f->from))));
  if_else(e, &near);
  set(e, bits, ordered_bits(e, load_f32(e, SLUICE_F32, f->choice->scores, id, 1)));
  if_end(e, &near);
  V upper = shl(e, LLVMBuildZExt(e->builder, get(e, e->i32, bits), e->i64, ""), int64(e, ID_BITS));
  return or_(e, upper, sub(e, int64(e, ((int64_t)1 << ID_BITS) - 1), id));
}

/* How many competing keys reach each of `least` (rising): a barrier, then every lane knows. `round` alternates between
 * two places. */
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
  V lane = e->atoms->lane(e), place = mul(e, and_(e, round, int64(e, 1)), int64(e, 3 * 32));
  V of_warp[3];
  for (unsigned i = 0; i < 3; i++) {
    V arguments[] = {get(e, e->i32, own[i]), int32(e, -1)};
    of_warp[i] = intrinsic(e, "llvm.nvvm.redux.sync.add", NULL, 0, arguments, 2);
  }
  branch first = if_begin(e, icmp(e, LLVMIntEQ, and_(e, lane, int64(e, 31)), int64(e, 0)));
  for (unsigned i = 0; i < 3; i++)
    store(e, of_warp[i],
          element(e, e->i32, f->counts, add(e, place, add(e, lshr(e, lane, int64(e, 5)), int64(e, 32 * i)))));
  if_end(e, &first);
  e->atoms->barrier(e);
  for (unsigned i = 0; i < 3; i++) {
    count[i] = int32(e, 0);
    for (unsigned w = 0; w < e->lanes / 32; w++)
      count[i] = add(e, count[i], load(e, e->i32, element(e, e->i32, f->counts, add(e, place, int64(e, 32 * i + w)))));
  }
}

/* Lists the `wanted` (>= 1, fewer than compete) best ids, unordered, from list[at] on. */
static void find_best(emitter *e, const finder *f, V wanted, V at) {
  branch few = if_begin(e, icmp(e, LLVMIntSLE, sub(e, f->to, f->from), int64(e, MOST_STAGED)));
  stage_scores(e, f);
  if_end(e, &few);
  V least = local_set(e, e->i64, int64(e, 0)), done = local_set(e, e->i1, LLVMConstInt(e->i1, 0, 0));
  V wanted_words = to_i32(e, wanted);
  loop rounds = loop_begin(e, int64(e, 0), int64(e, (SCORE_BITS + ID_BITS) / 2), int64(e, 1));
  branch open = if_begin(e, LLVMBuildNot(e->builder, get(e, e->i1, done), ""));
  V low = sub(e, int64(e, SCORE_BITS + ID_BITS - 2), mul(e, rounds.index, int64(e, 2)));
  V candidate[3], reached[3], before = get(e, e->i64, least);
  for (unsigned i = 0; i < 3; i++) candidate[i] = or_(e, before, shl(e, int64(e, i + 1), low));
  count_reaching(e, f, candidate, rounds.index, reached);
  for (unsigned i = 0; i < 3; i++) { /* the largest candidate that enough keys reach */
    V enough = icmp(e, LLVMIntUGE, reached[i], wanted_words);
    set(e, least, select_(e, enough, candidate[i], get(e, e->i64, least)));
    V exact = icmp(e, LLVMIntEQ, reached[i], wanted_words);
    set(e, done, or_(e, get(e, e->i1, done), exact));
  }
  if_end(e, &open);
  loop_end(e, &rounds);
  /* Keys differ, so that after all bits exactly `wanted` reach. */
  V next = workgroup_take(e, sizeof(int32_t));
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  store_i32(e, at, next, int64(e, 0));
  if_end(e, &first);
  e->atoms->barrier(e);
  loop ids = lane_loop(e, f->from, f->to);
  branch chosen = if_begin(e, icmp(e, LLVMIntUGE, key_of(e, f, ids.index), get(e, e->i64, least)));
  V place = LLVMBuildAtomicRMW(e->builder, LLVMAtomicRMWBinOpAdd, next, int32(e, 1), LLVMAtomicOrderingMonotonic, 0);
  store_i32(e, ids.index, f->choice->list, to_i64(e, place));
  if_end(e, &chosen);
  loop_end(e, &ids);
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
              .counts = workgroup_take(e, 2 * 3 * 32 * sizeof(int32_t)),
              .bits = workgroup_take(e, MOST_STAGED * sizeof(int32_t))};
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
  find_best(e, &f, wanted, initial);
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

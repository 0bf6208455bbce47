/* sort_experts: the slots of a step, grouped by expert for expert_gemm. */
#include "backends/common/families.h"
#include "backends/common/router.h"

enum { MOST_LANES = 1024 };

/* The slot of choice `number`. */
static V slot_of(emitter *e, const expert_sort *o, V number) {
  return o->shared ? add(e, number, udiv(e, number, int64(e, o->k))) : number;
}

/* The tiles of the shared expert. */
static V shared_tiles(emitter *e, const expert_sort *o) {
  return o->shared ? ceil_div(e, o->tokens, o->tile_m) : int64(e, 0);
}

static void write_tile(emitter *e, const expert_sort *o, V number, V expert, V first, V end) {
  V entry = mul(e, number, int64(e, 4));
  store_i32(e, expert, o->tiles, entry);
  store_i32(e, first, o->tiles, add(e, entry, int64(e, 1)));
  store_i32(e, imin(e, sub(e, end, first), int64(e, o->tile_m)), o->tiles, add(e, entry, int64(e, 2)));
  store_i32(e, int64(e, 0), o->tiles, add(e, entry, int64(e, 3)));
}

/* The counts behind those of the chosen experts, of which there are `tiles`, and no ticket drawn yet. */
static void finish_counts(emitter *e, const expert_sort *o, V tiles) {
  store_i32(e, add(e, tiles, shared_tiles(e, o)), o->counts, int64(e, 0));
  store_i32(e, o->chosen, o->counts, int64(e, o->experts + 1));
  if (o->shared) store_i32(e, add(e, o->chosen, o->tokens), o->counts, int64(e, o->experts + 2));
  for (unsigned i = 0; i < EXPERT_TICKETS; i++)
    store_i32(e, int64(e, 0), o->counts, int64(e, o->experts + o->shared + 2 + i));
}

/* The shared expert's places in `order`, and its tiles, behind all others. */
static void add_shared_slots(emitter *e, const expert_sort *o) {
  V end = add(e, o->chosen, o->tokens), tiles = shared_tiles(e, o);
  V first_tile = sub(e, load_i32(e, o->counts, int64(e, 0)), tiles);
  loop token = lane_loop(e, int64(e, 0), o->tokens);
  V slot = add(e, mul(e, token.index, int64(e, o->k + 1)), int64(e, o->k));
  store_i32(e, slot, o->order, add(e, o->chosen, token.index));
  loop_end(e, &token);
  loop tile = lane_loop(e, int64(e, 0), tiles);
  V first = add(e, o->chosen, mul(e, tile.index, int64(e, o->tile_m)));
  write_tile(e, o, add(e, first_tile, tile.index), int64(e, o->experts), first, end);
  loop_end(e, &tile);
}

static void count_in_one_pass(emitter *e, const expert_sort *o) {
  V zero = int64(e, 0), one = int64(e, 1);
  loop clear = loop_begin(e, zero, int64(e, o->experts), one);
  store_i32(e, zero, o->next, clear.index);
  loop_end(e, &clear);
  loop count = loop_begin(e, zero, o->chosen, one);
  V counted = load_i32(e, o->expert_of, count.index);
  store_i32(e, add(e, load_i32(e, o->next, counted), one), o->next, counted);
  loop_end(e, &count);
}

static void place_in_one_pass(emitter *e, const expert_sort *o) {
  V one = int64(e, 1);
  loop place = loop_begin(e, int64(e, 0), o->chosen, one);
  V expert = load_i32(e, o->expert_of, place.index), to = load_i32(e, o->next, expert);
  store_i32(e, slot_of(e, o, place.index), o->order, to);
  store_i32(e, add(e, to, one), o->next, expert);
  loop_end(e, &place);
}

/* Several lanes: each counts its choices. Has a barrier. */
static void count_by_choice(emitter *e, const expert_sort *o) {
  loop clear = lane_loop(e, int64(e, 0), int64(e, o->experts));
  store_i32(e, int64(e, 0), o->next, clear.index);
  loop_end(e, &clear);
  e->atoms->barrier(e);
  loop each = lane_loop(e, int64(e, 0), o->chosen);
  V counter = element(e, e->i32, o->next, load_i32(e, o->expert_of, each.index));
  LLVMBuildAtomicRMW(e->builder, LLVMAtomicRMWBinOpAdd, counter, int32(e, 1), LLVMAtomicOrderingMonotonic, 0);
  loop_end(e, &each);
}

enum {
  RUN = 32, /* choices that are compared with each other: a word has a bit for each */
  MOST_RUNS = MOST_LANES / RUN,
  MOST_PLACES = 8192, /* of all runs and experts */
};

/* Which of the RUN words at `run` equal the i32 `value`, a bit for each; *out_less: which are less, unless NULL. */
static V compare_words(emitter *e, V run, V value, V *out_less) {
  enum { WIDTH = 4 };
  V equal = int32(e, 0), less = int32(e, 0), none = int32(e, 0);
  for (int32_t i = 0; i < RUN; i += WIDTH) {
    V four = load(e, LLVMVectorType(e->i32, WIDTH), element(e, e->i32, run, int64(e, i)));
    for (int32_t j = 0; j < WIDTH; j++) {
      V word = LLVMBuildExtractElement(e->builder, four, int32(e, j), ""), bit = int32(e, (int32_t)(1u << (i + j)));
      equal = or_(e, equal, select_(e, icmp(e, LLVMIntEQ, word, value), bit, none));
      if (out_less) less = or_(e, less, select_(e, icmp(e, LLVMIntSLT, word, value), bit, none));
    }
  }
  if (out_less) *out_less = less;
  return equal;
}

/* Several lanes: rounds of one choice for each lane. A choice's place is behind those of the same expert in rounds
 * before, in the round's runs before its own, and before it in its run. */
static void place_in_rounds(emitter *e, const expert_sort *o) {
  const int64_t room = MOST_PLACES / o->experts, most = room < MOST_RUNS ? room : MOST_RUNS;
  const int64_t runs = most < 1 ? 1 : most < e->lanes / RUN ? most : e->lanes / RUN, choices = runs * RUN;
  V round = workgroup_take(e, (uint64_t)e->lanes * sizeof(int32_t));
  V places = workgroup_take(e, (uint64_t)(runs * o->experts) * sizeof(int32_t)); /* [run][expert] */
  V lane = e->atoms->lane(e), run = udiv(e, lane, int64(e, RUN)), within = to_i32(e, and_(e, lane, int64(e, RUN - 1)));
  loop rounds = loop_begin(e, int64(e, 0), o->chosen, int64(e, choices));
  V number = add(e, rounds.index, lane), inside = icmp(e, LLVMIntSLT, number, o->chosen);
  inside = and_(e, inside, icmp(e, LLVMIntSLT, lane, int64(e, choices)));
  V loaded = load_i32(e, o->expert_of, imin(e, number, sub(e, o->chosen, int64(e, 1))));
  V own = to_i32(e, select_(e, inside, loaded, int64(e, -1)));
  store(e, own, element(e, e->i32, round, lane));
  loop clear = lane_loop(e, int64(e, 0), int64(e, runs * o->experts));
  store_i32(e, int64(e, 0), places, clear.index);
  loop_end(e, &clear);
  e->atoms->barrier(e);
  V own_run = element(e, e->i32, round, and_(e, lane, int64(e, -RUN))), same = compare_words(e, own_run, own, NULL);
  V before = sub(e, shl(e, int32(e, 1), within), int32(e, 1));
  V rank = population(e, and_(e, same, before)), place = add(e, mul(e, run, int64(e, o->experts)), loaded);
  branch first = if_begin(e, and_(e, inside, icmp(e, LLVMIntEQ, rank, int32(e, 0))));
  store(e, population(e, same), element(e, e->i32, places, place));
  if_end(e, &first);
  e->atoms->barrier(e);
  loop experts = lane_loop(e, int64(e, 0), int64(e, o->experts)); /* counts become places */
  V next = load_i32(e, o->next, experts.index), at[MOST_RUNS], count[MOST_RUNS];
  for (int64_t r = 0; r < runs; r++) {
    at[r] = add(e, experts.index, int64(e, r * o->experts));
    count[r] = load_i32(e, places, at[r]);
  }
  for (int64_t r = 0; r < runs; r++) {
    store_i32(e, next, places, at[r]);
    next = add(e, next, count[r]);
  }
  store_i32(e, next, o->next, experts.index);
  loop_end(e, &experts);
  e->atoms->barrier(e);
  branch real = if_begin(e, inside);
  store_i32(e, slot_of(e, o, number), o->order, add(e, load_i32(e, places, place), to_i64(e, rank)));
  if_end(e, &real);
  e->atoms->barrier(e);
  loop_end(e, &rounds);
}

/* Several lanes: list_tiles for each expert at once, from the sums over the experts before it. */
static void list_tiles_by_expert(emitter *e, const expert_sort *o) {
  enum { AT_ONCE = 8 };
  V one = int64(e, 1), all = int64(e, o->experts);
  V first_of = workgroup_take(e, (uint64_t)o->experts * sizeof(int32_t));
  loop experts = lane_loop(e, int64(e, 0), add(e, all, one)); /* the one past the last writes the sums */
  V first = local_set(e, e->i64, int64(e, 0)), tiles = local_set(e, e->i64, int64(e, 0));
  loop before = loop_begin(e, int64(e, 0), experts.index, int64(e, AT_ONCE));
  for (unsigned i = 0; i < AT_ONCE; i++) {
    V other = add(e, before.index, int64(e, i));
    V count = load_i32(e, o->next, imin(e, other, sub(e, all, one)));
    count = select_(e, icmp(e, LLVMIntSLT, other, experts.index), count, int64(e, 0));
    set(e, first, add(e, get(e, e->i64, first), count));
    set(e, tiles, add(e, get(e, e->i64, tiles), ceil_div(e, count, o->tile_m)));
  }
  loop_end(e, &before);
  V start = get(e, e->i64, first);
  branch real = if_begin(e, icmp(e, LLVMIntSLT, experts.index, all));
  store_i32(e, start, o->counts, add(e, experts.index, one));
  store_i32(e, start, first_of, experts.index);
  V end = add(e, start, load_i32(e, o->next, experts.index));
  loop tile = loop_begin(e, start, end, int64(e, o->tile_m));
  write_tile(e, o, get(e, e->i64, tiles), experts.index, tile.index, end);
  set(e, tiles, add(e, get(e, e->i64, tiles), one));
  loop_end(e, &tile);
  if_else(e, &real);
  finish_counts(e, o, get(e, e->i64, tiles));
  if_end(e, &real);
  loop_end(e, &experts);
  e->atoms->barrier(e);
  loop copy = lane_loop(e, int64(e, 0), all);
  store_i32(e, load_i32(e, first_of, copy.index), o->next, copy.index);
  loop_end(e, &copy);
}

/* From the counts in `next`: the experts' first places, which stay in `next`, and the expert tiles. */
static void list_tiles(emitter *e, const expert_sort *o) {
  V zero = int64(e, 0), one = int64(e, 1);
  V start = local_set(e, e->i64, zero), tile_count = local_set(e, e->i64, zero);
  loop each = loop_begin(e, zero, int64(e, o->experts), one);
  V first = get(e, e->i64, start), end = add(e, first, load_i32(e, o->next, each.index));
  store_i32(e, first, o->counts, add(e, each.index, one));
  store_i32(e, first, o->next, each.index);
  set(e, start, end);
  loop tile = loop_begin(e, first, end, int64(e, o->tile_m));
  V number = get(e, e->i64, tile_count);
  write_tile(e, o, number, each.index, tile.index, end);
  set(e, tile_count, add(e, number, one));
  loop_end(e, &tile);
  loop_end(e, &each);
  finish_counts(e, o, get(e, e->i64, tile_count));
}

/* At most RUN choices: a lane for each compares it with all others, and knows its place and its tile's number. */
static void sort_few(emitter *e, const expert_sort *o) {
  V run = workgroup_take(e, RUN * sizeof(int32_t)), starts = workgroup_take(e, RUN * sizeof(int32_t));
  V lane = e->atoms->lane(e), inside = icmp(e, LLVMIntSLT, lane, o->chosen), one = int32(e, 1);
  V loaded = load_i32(e, o->expert_of, imin(e, lane, sub(e, o->chosen, int64(e, 1))));
  V expert = select_(e, inside, to_i32(e, loaded), int32(e, INT32_MAX)); /* what is no choice is behind all */
  branch mine = if_begin(e, icmp(e, LLVMIntSLT, lane, int64(e, RUN)));
  store(e, expert, element(e, e->i32, run, lane));
  if_end(e, &mine);
  e->atoms->barrier(e);
  V less, equal = compare_words(e, run, expert, &less), number = and_(e, to_i32(e, lane), int32(e, RUN - 1));
  V rank = population(e, and_(e, equal, sub(e, shl(e, one, number), one))), first = population(e, less);
  V starts_tile = icmp(e, LLVMIntEQ, urem(e, rank, int32(e, (int32_t)o->tile_m)), int32(e, 0));
  V of_starts = local_set(e, e->i32, int32(e, 0)); /* a bit for each choice that starts a tile */
  branch own = if_begin(e, icmp(e, LLVMIntSLT, lane, int64(e, RUN)));
  store(e, select_(e, and_(e, inside, starts_tile), shl(e, one, number), int32(e, 0)),
        element(e, e->i32, starts, lane));
  if_end(e, &own);
  e->atoms->barrier(e);
  loop words = loop_begin(e, int64(e, 0), int64(e, RUN), int64(e, 1));
  set(e, of_starts, or_(e, get(e, e->i32, of_starts), load(e, e->i32, element(e, e->i32, starts, words.index))));
  loop_end(e, &words);
  V all = get(e, e->i32, of_starts), place = add(e, first, rank);
  branch chosen = if_begin(e, inside);
  store_i32(e, slot_of(e, o, lane), o->order, to_i64(e, place));
  branch begins = if_begin(e, starts_tile);
  V before = add(e, population(e, and_(e, all, less)), udiv(e, rank, int32(e, (int32_t)o->tile_m)));
  write_tile(e, o, to_i64(e, before), loaded, to_i64(e, place), to_i64(e, add(e, first, population(e, equal))));
  if_end(e, &begins);
  if_end(e, &chosen);
  branch leader = if_begin(e, icmp(e, LLVMIntEQ, lane, int64(e, 0)));
  finish_counts(e, o, to_i64(e, population(e, all)));
  if_end(e, &leader);
  loop experts = lane_loop(e, int64(e, 0), int64(e, o->experts));
  V below;
  (void)compare_words(e, run, to_i32(e, experts.index), &below); /* LLVM drops what is not used */
  store(e, population(e, below), element(e, e->i32, o->counts, add(e, experts.index, int64(e, 1))));
  loop_end(e, &experts);
  if (o->shared) e->atoms->barrier(e); /* the number of tiles is read again */
}

void sort_slots(emitter *e, expert_sort *o) {
  if (e->lanes >= RUN && o->most > 0 && o->most <= RUN) {
    sort_few(e, o);
    if (o->shared) add_shared_slots(e, o);
    return;
  }
  o->next = workgroup_take(e, (uint64_t)o->experts * sizeof(int32_t));
  if (e->lanes == 1)
    count_in_one_pass(e, o);
  else
    count_by_choice(e, o);
  e->atoms->barrier(e);
  if (e->lanes == 1)
    list_tiles(e, o);
  else
    list_tiles_by_expert(e, o);
  e->atoms->barrier(e);
  if (e->lanes == 1)
    place_in_one_pass(e, o);
  else
    place_in_rounds(e, o);
  if (o->shared) add_shared_slots(e, o);
}

expert_sort read_expert_sort(emitter *e, const kernel_spec *spec) {
  expert_sort o = {.experts = kernel_integer(spec, "experts", &e->status),
                   .k = kernel_integer(spec, "k", &e->status),
                   .tile_m = kernel_integer(spec, "tile_m", &e->status),
                   .shared = kernel_integer(spec, "shared", &e->status) != 0};
  if (expert_counts_are_valid(e, spec, o.experts, o.k) && o.tile_m < 1)
    e->status = sluice_error(SLUICE_INTERNAL, "%s: tiles of %lld slots", spec->symbol, (long long)o.tile_m);
  return o;
}

void family_sort_experts(emitter *e, const kernel_spec *spec) {
  expert_sort o = read_expert_sort(e, spec);
  if (e->status) return;
  kernel_shape shape = each(SLUICE_SIZE_ONE, 0);
  shape.lanes = MOST_LANES; /* one workgroup has all there is to do */
  kernel_begin(e, spec, shape);
  o.expert_of = e->argument[0];
  o.counts = e->argument[1];
  o.order = e->argument[2];
  o.tiles = e->argument[3];
  o.tokens = size_of(e, SLUICE_SIZE_TOKENS);
  o.chosen = mul(e, o.tokens, int64(e, o.k));
  sort_slots(e, &o);
  kernel_end(e);
}

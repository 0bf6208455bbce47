/* sort_experts: the slots of a step, grouped by expert for expert_gemm. */
#include "backends/common/families.h"
#include "backends/common/router.h"

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

/* The counts behind those of the chosen experts, of which there are `tiles`. */
static void finish_counts(emitter *e, const expert_sort *o, V tiles) {
  store_i32(e, add(e, tiles, shared_tiles(e, o)), o->counts, int64(e, 0));
  store_i32(e, o->chosen, o->counts, int64(e, o->experts + 1));
  if (o->shared) store_i32(e, add(e, o->chosen, o->tokens), o->counts, int64(e, o->experts + 2));
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

/* Several lanes: each goes over all choices for its experts, and counts them, or, with `order`, places them. In i32,
 * without branches but for the store: every lane does this for all choices of the step. */
static void scan_by_expert(emitter *e, const expert_sort *o, V order) {
  enum { AT_ONCE = 8 }; /* independent reads */
  T word = e->i32;
  V last = sub(e, o->chosen, int64(e, 1)), last_word = to_i32(e, last);
  loop experts = lane_loop(e, int64(e, 0), int64(e, o->experts));
  V wanted = to_i32(e, experts.index);
  V first = order ? load(e, word, element(e, word, o->next, experts.index)) : int32(e, 0);
  V place = local_set(e, word, first);
  loop choices = loop_begin(e, int64(e, 0), o->chosen, int64(e, AT_ONCE));
  V expert[AT_ONCE];
  for (unsigned i = 0; i < AT_ONCE; i++)
    expert[i] = load(e, word, element(e, word, o->expert_of, imin(e, add(e, choices.index, int64(e, i)), last)));
  for (unsigned i = 0; i < AT_ONCE; i++) {
    V number = add(e, to_i32(e, choices.index), int32(e, (int32_t)i));
    V found = and_(e, icmp(e, LLVMIntEQ, expert[i], wanted), icmp(e, LLVMIntSLE, number, last_word));
    if (order) {
      branch mine = if_begin(e, found);
      store_i32(e, slot_of(e, o, to_i64(e, number)), order, to_i64(e, get(e, word, place)));
      if_end(e, &mine);
    }
    set(e, place, add(e, get(e, word, place), LLVMBuildZExt(e->builder, found, word, "")));
  }
  loop_end(e, &choices);
  if (!order) store(e, get(e, word, place), element(e, word, o->next, experts.index));
  loop_end(e, &experts);
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

void sort_slots(emitter *e, expert_sort *o) {
  o->next = workgroup_take(e, (uint64_t)o->experts * sizeof(int32_t));
  if (e->lanes == 1)
    count_in_one_pass(e, o);
  else
    scan_by_expert(e, o, NULL);
  e->atoms->barrier(e);
  if (e->lanes == 1)
    list_tiles(e, o);
  else
    list_tiles_by_expert(e, o);
  e->atoms->barrier(e);
  if (e->lanes == 1)
    place_in_one_pass(e, o);
  else
    scan_by_expert(e, o, o->order);
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
  kernel_begin(e, spec, each(SLUICE_SIZE_ONE));
  o.expert_of = e->argument[0];
  o.counts = e->argument[1];
  o.order = e->argument[2];
  o.tiles = e->argument[3];
  o.tokens = size_of(e, SLUICE_SIZE_TOKENS);
  o.chosen = mul(e, o.tokens, int64(e, o.k));
  sort_slots(e, &o);
  kernel_end(e);
}

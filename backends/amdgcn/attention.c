/* Attention of query tiles in bf16: the families attention (all keys) and block_attention (lists of blocks).
 *
 * A workgroup has a query tile, at most TILE_TOKENS tokens at a time, and one kv head. Its waves share the pages: each
 * attends every fourth of them. With lists of blocks the pages are those of the union of the tokens' lists. attend.h
 * tells the rest.
 */
#include "backends/amdgcn/amdgcn.h"
#include "backends/amdgcn/attend.h"

enum {
  TILE_TOKENS = 4, /* that a workgroup attends at a time */
  MOST_BLOCKS = 64,
};

typedef struct tile_attention {
  attender a;
  int64_t k; /* blocks of a list; 0: all keys */
  query_tile tile;
  V cache, blocks;
  V list, masks, list_length; /* workgroup memory: the union of the tokens' lists, and who wants each; i32 */
  V entries;                  /* workgroup memory: the lists */
} tile_attention;

/* ---- lists ---- */

/* The union of the tokens' lists, ascending, with a bit for each token that wants a block. One lane has one entry; it
 * counts the smaller ones that are the first of their number. */
static void unite_lists(emitter *e, const tile_attention *t, V first, V count, V entries) {
  V all = mul(e, count, int64(e, t->k)), lane = e->atoms->lane(e);
  loop clear = lane_loop(e, int64(e, 0), all);
  V token = udiv(e, clear.index, int64(e, t->k)), slot = urem(e, clear.index, int64(e, t->k));
  V list = add(e, mul(e, add(e, add(e, t->tile.first, first), token), int64(e, t->a.kv_heads)), t->a.kv_head);
  V id = load_i32(e, t->blocks, add(e, mul(e, list, int64(e, t->k)), slot));
  store_i32(e, select_(e, icmp(e, LLVMIntSLT, id, int64(e, 0)), int64(e, INT32_MAX), id), entries, clear.index);
  store_i32(e, int64(e, 0), t->masks, clear.index);
  loop_end(e, &clear);
  branch one = if_begin(e, icmp(e, LLVMIntEQ, lane, int64(e, 0)));
  store_i32(e, int64(e, 0), t->list_length, int64(e, 0));
  if_end(e, &one);
  e->atoms->barrier(e);
  loop each = lane_loop(e, int64(e, 0), all);
  V mine = load_i32(e, entries, each.index), place = local_set(e, e->i64, int64(e, 0));
  V is_first = local_set(e, e->i1, LLVMConstInt(e->i1, 1, 0));
  loop other = loop_begin(e, int64(e, 0), all, int64(e, 1));
  V theirs = load_i32(e, entries, other.index);
  /* Lists are ascending: an entry is the first of its number if no list before its own has it. */
  V before = icmp(e, LLVMIntSLT, other.index, each.index);
  set(e, is_first,
      and_(e, get(e, e->i1, is_first),
           LLVMBuildNot(e->builder, and_(e, before, icmp(e, LLVMIntEQ, theirs, mine)), "")));
  V leads = local_set(e, e->i1, LLVMConstInt(e->i1, 1, 0));
  loop earlier = loop_begin(e, int64(e, 0), other.index, int64(e, 1));
  set(e, leads, and_(e, get(e, e->i1, leads), icmp(e, LLVMIntNE, load_i32(e, entries, earlier.index), theirs)));
  loop_end(e, &earlier);
  V counts = and_(e, get(e, e->i1, leads), icmp(e, LLVMIntSLT, theirs, mine));
  set(e, place, add(e, get(e, e->i64, place), LLVMBuildZExt(e->builder, counts, e->i64, "")));
  loop_end(e, &other);
  branch real = if_begin(e, icmp(e, LLVMIntNE, mine, int64(e, INT32_MAX)));
  V at = get(e, e->i64, place), bit = shl(e, int32(e, 1), to_i32(e, udiv(e, each.index, int64(e, t->k))));
  LLVMBuildAtomicRMW(e->builder, LLVMAtomicRMWBinOpOr, element(e, e->i32, t->masks, at), bit,
                     LLVMAtomicOrderingMonotonic, 0);
  branch leader = if_begin(e, get(e, e->i1, is_first));
  store_i32(e, mine, t->list, at);
  LLVMBuildAtomicRMW(e->builder, LLVMAtomicRMWBinOpAdd, t->list_length, int32(e, 1), LLVMAtomicOrderingMonotonic, 0);
  if_end(e, &leader);
  if_end(e, &real);
  loop_end(e, &each);
  e->atoms->barrier(e);
}

/* ---- families ---- */

static void attend_block(emitter *e, const tile_attention *t, const attended_sums *s, V block, V mask) {
  const attender *a = &t->a;
  V page = cache_page(e, &t->tile, t->cache, block, a->page_bytes);
  V end = add(e, s->tokens->position, s->tokens->count);
  V keys = imin(e, sub(e, end, mul(e, block, int64(e, a->page))), int64(e, a->page));
  loop key = loop_begin(e, int64(e, 0), keys, int64(e, a->halves * ATTEND_KEYS));
  attend_keys(e, a, s, page, block, key.index, mask);
  loop_end(e, &key);
}

/* Tokens [first, first + count) of the tile, count <= tokens. */
static void attend_tokens(emitter *e, const tile_attention *t, V first, V count, int64_t tokens,
                          const attend_memory *memory) {
  const attender *a = &t->a;
  const attended_tokens some = {.first = add(e, t->tile.first, first),
                                .count = count,
                                .position = add(e, t->tile.position, first),
                                .fragments = (unsigned)((tokens * a->group + ATTEND_COLUMNS - 1) / ATTEND_COLUMNS)};
  attended_sums s;
  attend_open(e, a, &some, NULL, &s);
  if (t->k) {
    unite_lists(e, t, first, count, t->entries);
    loop each = loop_begin(e, a->wave, load_i32(e, t->list_length, int64(e, 0)), int64(e, ATTEND_WAVES));
    V block = load_i32(e, t->list, each.index);
    attend_block(e, t, &s, block, to_i32(e, load_i32(e, t->masks, each.index)));
    loop_end(e, &each);
  } else {
    V last = add(e, some.position, sub(e, count, int64(e, 1)));
    loop each = loop_begin(e, a->wave, add(e, udiv(e, last, int64(e, a->page)), int64(e, 1)), int64(e, ATTEND_WAVES));
    attend_block(e, t, &s, each.index, NULL);
    loop_end(e, &each);
  }
  attend_close(e, a, &s, memory, NULL, 0);
}

/* Operands: q, [blocks,] tiles, page_table, cache, out. */
static bool emit_attention(emitter *e, const kernel_spec *spec, bool lists) {
  tile_attention t = {.k = lists ? attribute(e, "k") : 0};
  if (!attender_read(e, &t.a)) return false;
  if (t.k * TILE_TOKENS > MOST_BLOCKS)
    return decline(e, "lists have %lld blocks, expected at most %d", (long long)t.k, MOST_BLOCKS / TILE_TOKENS);
  kernel_shape shape = each_of(SLUICE_SIZE_TILES, t.a.kv_heads, 1);
  shape.lanes = ATTEND_WAVES * AMDGCN_WAVE;
  kernel_begin(e, spec, shape);
  V *argument = e->argument + (lists ? 1 : 0);
  t.a.q = e->argument[0];
  t.a.out = argument[4];
  t.a.kv_head = e->y;
  attender_place(e, &t.a);
  t.blocks = lists ? e->argument[1] : NULL;
  t.tile = query_tile_load(e, argument[1], argument[2]);
  t.cache = argument[3];
  const attend_memory memory =
      attend_take_memory(e, &t.a, (unsigned)((TILE_TOKENS * t.a.group + ATTEND_COLUMNS - 1) / ATTEND_COLUMNS));
  if (lists) {
    t.entries = workgroup_take(e, MOST_BLOCKS * sizeof(int32_t));
    t.list = workgroup_take(e, MOST_BLOCKS * sizeof(int32_t));
    t.masks = workgroup_take(e, MOST_BLOCKS * sizeof(int32_t));
    t.list_length = workgroup_take(e, sizeof(int32_t));
  }
  branch single = if_begin(e, icmp(e, LLVMIntEQ, t.tile.count, int64(e, 1)));
  attend_tokens(e, &t, int64(e, 0), int64(e, 1), 1, &memory);
  if_else(e, &single);
  loop each = loop_begin(e, int64(e, 0), t.tile.count, int64(e, TILE_TOKENS));
  V count = imin(e, sub(e, t.tile.count, each.index), int64(e, TILE_TOKENS));
  attend_tokens(e, &t, each.index, count, TILE_TOKENS, &memory);
  loop_end(e, &each);
  if_end(e, &single);
  kernel_end(e);
  return true;
}

bool amdgcn_attention(emitter *e, const kernel_spec *spec) {
  return emit_attention(e, spec, false);
}

bool amdgcn_block_attention(emitter *e, const kernel_spec *spec) {
  return emit_attention(e, spec, true);
}

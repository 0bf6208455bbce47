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
enum { ALL, WHOLE, LENGTHS };

typedef struct tile_attention {
  attender a;
  int64_t k; /* blocks of a list; 0: all keys */
  query_tile tile;
  V cache, blocks;
  V list, masks; /* workgroup memory: the union of the tokens' lists, and who wants each; i32 */
  V lengths;     /* workgroup memory: how many there are of it, and of pages that all tokens see whole */
} tile_attention;

/* ---- lists ---- */

static V to_scalar(emitter *e, V word) {
  return intrinsic(e, "llvm.amdgcn.readfirstlane", &e->i32, 1, &word, 1);
}

static V of_lane(emitter *e, V word, V lane) {
  V arguments[] = {word, lane};
  return intrinsic(e, "llvm.amdgcn.readlane", &e->i32, 1, arguments, 2);
}

static V ballot(emitter *e, V condition) {
  return intrinsic(e, "llvm.amdgcn.ballot", &e->i64, 1, &condition, 1);
}

/* Entry number `lane` of the tokens' lists, one list behind the other; INT32_MAX where there is none. i32 */
static V entry_of_lane(emitter *e, const tile_attention *t, V first, V count) {
  V lane = t->a.lane, token = udiv(e, lane, int64(e, t->k)), slot = urem(e, lane, int64(e, t->k));
  V id = local_set(e, e->i32, int32(e, INT32_MAX));
  branch inside = if_begin(e, icmp(e, LLVMIntSLT, token, count));
  V list = add(e, mul(e, add(e, add(e, t->tile.first, first), token), int64(e, t->a.kv_heads)), t->a.kv_head);
  V found = to_i32(e, load_i32(e, t->blocks, add(e, mul(e, list, int64(e, t->k)), slot)));
  set(e, id, select_(e, icmp(e, LLVMIntSLT, found, int32(e, 0)), int32(e, INT32_MAX), found));
  if_end(e, &inside);
  return get(e, e->i32, id);
}

/* The union of the tokens' lists, ascending, with a bit for each token that wants a block, by the first wave: a lane
 * has one entry. It looks at all of them in turn; the first of its number goes to the place that as many smaller ones,
 * each counted once, leave to it. Blocks with numbers below `whole` are seen whole by all tokens. */
static void unite_lists(emitter *e, const tile_attention *t, V first, V count, V whole) {
  branch wave = if_begin(e, icmp(e, LLVMIntEQ, t->a.wave, int64(e, 0)));
  V mine = entry_of_lane(e, t, first, count), same = local_set(e, e->i64, int64(e, 0));
  V entries = mul(e, count, int64(e, t->k));
  loop each = loop_begin(e, int64(e, 0), entries, int64(e, 1));
  V equal = icmp(e, LLVMIntEQ, of_lane(e, mine, to_i32(e, each.index)), mine), bit = shl(e, int64(e, 1), each.index);
  set(e, same, or_(e, get(e, e->i64, same), select_(e, equal, bit, int64(e, 0))));
  loop_end(e, &each);
  V all = get(e, e->i64, same), real = icmp(e, LLVMIntNE, mine, int32(e, INT32_MAX));
  V earlier = and_(e, all, sub(e, shl(e, int64(e, 1), t->a.lane), int64(e, 1)));
  V leads = and_(e, real, icmp(e, LLVMIntEQ, earlier, int64(e, 0))), leaders = ballot(e, leads);
  V place = local_set(e, e->i32, int32(e, 0));
  loop other = loop_begin(e, int64(e, 0), entries, int64(e, 1));
  V counts = and_(e, lshr(e, leaders, other.index), int64(e, 1));
  V smaller = icmp(e, LLVMIntSLT, of_lane(e, mine, to_i32(e, other.index)), mine);
  set(e, place, add(e, get(e, e->i32, place), select_(e, smaller, to_i32(e, counts), int32(e, 0))));
  loop_end(e, &other);
  V mask = int32(e, 0);
  for (int64_t i = 0; i < TILE_TOKENS; i++) {
    const uint64_t of_list = ((UINT64_C(2) << (t->k - 1)) - 1) << (i * t->k % MOST_BLOCKS);
    V wants = icmp(e, LLVMIntNE, and_(e, all, int64(e, (int64_t)of_list)), int64(e, 0));
    mask = or_(e, mask, select_(e, wants, int32(e, 1 << i), int32(e, 0)));
  }
  branch leader = if_begin(e, leads);
  V at = to_i64(e, get(e, e->i32, place));
  store(e, mine, element(e, e->i32, t->list, at));
  store(e, mask, element(e, e->i32, t->masks, at));
  if_end(e, &leader);
  V seen_whole = and_(e, leads, icmp(e, LLVMIntSLT, mine, to_i32(e, whole)));
  V lengths[LENGTHS] = {[ALL] = leaders, [WHOLE] = ballot(e, seen_whole)};
  for (unsigned i = 0; i < LENGTHS; i++)
    store_i32(e, intrinsic(e, "llvm.ctpop", &e->i64, 1, &lengths[i], 1), t->lengths, int64(e, i));
  if_end(e, &wave);
  e->atoms->barrier(e);
}

/* ---- pages ---- */

/* Number of the block at place `index`. */
static V block_at(emitter *e, const tile_attention *t, V index) {
  return t->k ? to_i64(e, to_scalar(e, to_i32(e, load_i32(e, t->list, index)))) : index;
}

static V find_page(emitter *e, V index, void *user) {
  const tile_attention *t = user;
  V page = amdgcn_load_input(e, t->tile.page_table, block_at(e, t, index));
  return byte_offset(e, t->cache, mul(e, page, int64(e, t->a.page_bytes)));
}

static V find_mask(emitter *e, V index, void *user) {
  const tile_attention *t = user;
  return to_scalar(e, to_i32(e, load_i32(e, t->masks, index)));
}

/* The pages from place `from` on, which end behind what some token sees: the waves take them in turn. */
static void attend_edges(emitter *e, tile_attention *t, const attended_sums *s, V from, V to) {
  const attender *a = &t->a;
  V turn = and_(e, sub(e, a->wave, from), int64(e, ATTEND_WAVES - 1));
  loop each = loop_begin(e, add(e, from, turn), to, int64(e, ATTEND_WAVES));
  V block = block_at(e, t, each.index), page = find_page(e, each.index, t);
  V end = add(e, s->tokens->position, s->tokens->count);
  V keys = imin(e, sub(e, end, mul(e, block, int64(e, a->page))), int64(e, a->page));
  loop key = loop_begin(e, int64(e, 0), keys, int64(e, a->halves * ATTEND_KEYS));
  attend_keys(e, a, s, page, block, key.index, t->k ? find_mask(e, each.index, t) : NULL);
  loop_end(e, &key);
  loop_end(e, &each);
}

/* ---- families ---- */

/* Tokens [first, first + count) of the tile, count <= tokens. */
static void attend_tokens(emitter *e, tile_attention *t, V first, V count, int64_t tokens,
                          const attend_memory *memory) {
  const attender *a = &t->a;
  const attended_tokens some = {.first = add(e, t->tile.first, first),
                                .count = count,
                                .position = add(e, t->tile.position, first),
                                .fragments = (unsigned)((tokens * a->group + ATTEND_COLUMNS - 1) / ATTEND_COLUMNS)};
  attended_sums s;
  attend_open(e, a, &some, NULL, &s);
  V last = add(e, some.position, sub(e, count, int64(e, 1)));
  V whole = udiv(e, add(e, some.position, int64(e, 1)), int64(e, a->page)); /* pages that all tokens see whole */
  V all = add(e, udiv(e, last, int64(e, a->page)), int64(e, 1));
  if (t->k) {
    unite_lists(e, t, first, count, whole);
    whole = to_i64(e, to_scalar(e, to_i32(e, load_i32(e, t->lengths, int64(e, WHOLE)))));
    all = to_i64(e, to_scalar(e, to_i32(e, load_i32(e, t->lengths, int64(e, ALL)))));
  }
  attend_pages(e, a, &s, &(page_list){whole, find_page, t->k && tokens > 1 ? find_mask : NULL, t});
  attend_edges(e, t, &s, whole, all);
  attend_close(e, a, &s, memory, NULL, 0);
}

/* Workgroup i of a launch starts on die i mod 8. Tiles and kv heads are numbered so that a die has one kv head, or as
 * few as there are: its cache then holds keys that all its workgroups read. */
static void place_by_die(emitter *e, int64_t kv_heads) {
  const int64_t dies = e->facts->dies, of_head = dies / kv_heads; /* dies that have a kv head */
  if (kv_heads > dies || dies % kv_heads || of_head == dies) return;
  V tiles = size_of(e, SLUICE_SIZE_TILES), number = add(e, mul(e, e->y, tiles), e->x);
  V rounds = udiv(e, tiles, int64(e, of_head)), even = mul(e, rounds, int64(e, dies));
  V is_even = icmp(e, LLVMIntSLT, number, even), rest = sub(e, number, even); /* the last tiles: head after head */
  V die = urem(e, number, int64(e, dies)), round = mul(e, udiv(e, number, int64(e, dies)), int64(e, of_head));
  V last = add(e, mul(e, rounds, int64(e, of_head)), udiv(e, rest, int64(e, kv_heads)));
  e->x = select_(e, is_even, add(e, round, urem(e, die, int64(e, of_head))), last);
  e->y = select_(e, is_even, udiv(e, die, int64(e, of_head)), urem(e, rest, int64(e, kv_heads)));
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
  place_by_die(e, t.a.kv_heads);
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
    t.list = workgroup_take(e, MOST_BLOCKS * sizeof(int32_t));
    t.masks = workgroup_take(e, MOST_BLOCKS * sizeof(int32_t));
    t.lengths = workgroup_take(e, LENGTHS * sizeof(int32_t));
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

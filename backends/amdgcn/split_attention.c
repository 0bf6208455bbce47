/* Attention of few tokens, whose keys are shared among workgroups: families attention_part (all keys),
 * topk_attention_part (the choice of blocks, then attention to them), and attention_merge.
 *
 * One token and its kv heads are few workgroups for some 300 compute units. So each pair of them has shares, and an
 * item is a share: of all pages, those number share, share + shares, ... . Waves take 64 keys at a time, whole lines of
 * keys and values:
 *
 *     page        0              1              2              3              4    ...     (2 shares, pages of 128)
 *     share       0              1              0              1              0
 *     wave      0    1         0    1         2    3         2    3         0    1
 *
 * What a share leaves, f32, goes to memory; a launch of its own merges the shares of a token and head. A partial result
 * is as long as 16 keys: a share has four pages or more, where there are so many, or it would cost more than it saves.
 * Chosen blocks are few and all of them should be on their way at once: a share has two or more. What remains has no
 * pages and says so with a sum of zero. Every share of a sparse item makes the choice
 * for itself: that is sooner done than a launch of its own.
 */
#include "backends/amdgcn/amdgcn.h"
#include "backends/amdgcn/attend.h"
#include "backends/amdgcn/topk.h"

#include <math.h>

enum { MOST_SHARES = 256, LEAST_PAGES = 4, LEAST_BLOCKS = 2 };

typedef struct splitter {
  attender a;
  int64_t parts, rows; /* workgroups; rows of a partial result */
  int64_t k;           /* blocks that are chosen; 0: all are attended */
  V cache, partials;
} splitter;

/* Of a share, where there are so many. */
static int64_t least_pages(const splitter *s) {
  return s->k ? LEAST_BLOCKS : LEAST_PAGES;
}

/* How many workgroups share the keys of a token and head: all `parts` are used while there are few of these, and
 * enough pages. */
static V shares_of(emitter *e, const splitter *s) {
  V heads = imax(e, mul(e, size_of(e, SLUICE_SIZE_TOKENS), int64(e, s->a.kv_heads)), int64(e, 1));
  V pages = size_of(e, SLUICE_SIZE_PAGES);
  if (s->k) pages = imin(e, pages, int64(e, s->k));
  V most = imin(e, udiv(e, pages, int64(e, least_pages(s))), int64(e, MOST_SHARES));
  return imax(e, imin(e, udiv(e, int64(e, s->parts), heads), most), int64(e, 1));
}

static bool read_parts(emitter *e, int64_t group, splitter *s) {
  s->parts = attribute(e, "parts");
  s->rows = attribute(e, "part_rows");
  if (e->status) return false;
  if (s->rows < group)
    return decline(e, "partial results have %lld rows, expected at least %lld", (long long)s->rows, (long long)group);
  return s->parts > 0 || decline(e, "no workgroup shares the keys");
}

/* f32 of a partial result, see docs/ir.md. */
static int64_t part_length(int64_t rows, int64_t head_dim) {
  return rows * (head_dim + 2);
}

/* An item: of the `pages` that a token attends, number `share`, share + shares, ..., for a kv head. i64 */
typedef struct item {
  V number, token, kv_head, position, page_table;
  V share, shares, pages;
  V list; /* i32 in workgroup memory: the pages' numbers; NULL: these are all */
} item;

/* The workgroup's item. */
static V item_number(emitter *e) {
  return add(e, e->x, mul(e, e->y, int64(e, e->grid[0].factor)));
}

/* Whether there is one. */
static branch begin_item(emitter *e, const splitter *s, V shares) {
  V items = mul(e, mul(e, size_of(e, SLUICE_SIZE_TOKENS), int64(e, s->a.kv_heads)), shares);
  return if_begin(e, icmp(e, LLVMIntSLT, item_number(e), items));
}

/* `positions`: the number of the operand; sequence and page_table are behind it. Shares beyond `shares` have no
 * pages. */
static item find_item(emitter *e, const splitter *s, V shares, unsigned positions) {
  V *place = &e->argument[positions], number = item_number(e), head = udiv(e, number, shares);
  item i = {.number = number,
            .token = udiv(e, head, int64(e, s->a.kv_heads)),
            .kv_head = urem(e, head, int64(e, s->a.kv_heads)),
            .share = urem(e, number, shares)};
  i.position = amdgcn_load_input(e, place[0], i.token);
  V sequence = amdgcn_load_input(e, place[1], i.token);
  i.page_table = element(e, e->i32, place[2], mul(e, sequence, size_of(e, SLUICE_SIZE_PAGE_STRIDE)));
  i.pages = visible_blocks(e, i.position, s->a.page);
  if (s->k) i.pages = imin(e, i.pages, int64(e, s->k));
  i.shares = imax(e, imin(e, shares, udiv(e, i.pages, int64(e, least_pages(s)))), int64(e, 1));
  return i;
}

/* The number of the item's page number `index`, in a scalar register. */
static V block_of(emitter *e, const item *i, V index) {
  if (!i->list) return index;
  V block = load(e, e->i32, element(e, e->i32, i->list, index));
  return to_i64(e, intrinsic(e, "llvm.amdgcn.readfirstlane", &e->i32, 1, &block, 1));
}

/* All keys of an item: the waves take 32 * halves at a time in turn. */
static void attend_item(emitter *e, const splitter *s, const item *i, const attended_sums *sums) {
  const attender *a = &s->a;
  const int64_t keys = a->halves * ATTEND_KEYS, steps = a->page / keys;
  V left = add(e, sub(e, i->pages, i->share), sub(e, i->shares, int64(e, 1)));
  V all = mul(e, udiv(e, left, i->shares), int64(e, steps));
  loop step = loop_begin(e, a->wave, all, int64(e, ATTEND_WAVES));
  V index = add(e, i->share, mul(e, udiv(e, step.index, int64(e, steps)), i->shares)), block = block_of(e, i, index);
  V key = mul(e, urem(e, step.index, int64(e, steps)), int64(e, keys));
  V first = add(e, mul(e, block, int64(e, a->page)), key);
  branch seen = if_begin(e, icmp(e, LLVMIntSLE, first, i->position));
  V page = amdgcn_load_input(e, i->page_table, block);
  attend_keys(e, a, sums, byte_offset(e, s->cache, mul(e, page, int64(e, a->page_bytes))), block, key, NULL);
  if_end(e, &seen);
  loop_end(e, &step);
}

/* The maxima and sums of a share without pages. */
static void store_nothing(emitter *e, const splitter *s, V partial) {
  loop each = lane_loop(e, int64(e, 0), int64(e, s->a.group));
  V at = add(e, each.index, int64(e, s->rows * s->a.head_dim));
  store_f32(e, SLUICE_F32, float32(e, -INFINITY), partial, at);
  store_f32(e, SLUICE_F32, float32(e, 0), partial, add(e, at, int64(e, s->rows)));
  loop_end(e, &each);
}

/* ---- the families ---- */

/* Opens the kernel, with operands as attention_part has them from `positions` on. There are workgroups for all items:
 * `parts` of them in x, and as many times so many as pairs of a token and a kv head fill. */
static void open_splitter(emitter *e, const kernel_spec *spec, splitter *s, unsigned positions) {
  const int64_t kv_heads = s->a.kv_heads, width = s->parts > kv_heads ? s->parts : kv_heads;
  kernel_begin(e, spec,
               (kernel_shape){.x = {SLUICE_SIZE_ONE, 1, (uint32_t)width, 0},
                              .y = {SLUICE_SIZE_TOKENS, (uint32_t)(width / kv_heads), 1, 0},
                              .lanes = ATTEND_WAVES * AMDGCN_WAVE});
  s->a.q = e->argument[0];
  s->cache = e->argument[positions + 3];
  s->a.out = e->argument[positions + 4];
  s->partials = e->argument[spec->argument_count - 1];
  s->a.halves = s->a.page % (2 * ATTEND_KEYS) ? 1 : 2;
  s->a.reading = BUFFER_READ_ONCE;
  attender_place(e, &s->a);
}

static V partial_of(emitter *e, const splitter *s, const item *i) {
  return element(e, e->f32, s->partials, mul(e, i->number, int64(e, part_length(s->rows, s->a.head_dim))));
}

/* An item that has pages: its partial result, or the output where nothing is shared. */
static void make_item(emitter *e, splitter *s, const item *i, V shares, V queries, const attend_memory *memory) {
  s->a.kv_head = i->kv_head;
  const attended_tokens token = {i->token, int64(e, 1), i->position, 1};
  attended_sums sums;
  attend_open(e, &s->a, &token, queries, &sums);
  attend_item(e, s, i, &sums);
  branch alone = if_begin(e, icmp(e, LLVMIntEQ, shares, int64(e, 1)));
  attend_close(e, &s->a, &sums, memory, NULL, 0);
  if_else(e, &alone);
  attend_close(e, &s->a, &sums, memory, partial_of(e, s, i), s->rows);
  if_end(e, &alone);
}

/* Operands: q, positions, sequence, page_table, cache, out, partials. */
bool amdgcn_attention_part(emitter *e, const kernel_spec *spec) {
  splitter s = {.parts = 0};
  if (!attender_read(e, &s.a) || !read_parts(e, s.a.group, &s)) return false;
  open_splitter(e, spec, &s, 1);
  const attend_memory memory = attend_take_memory(e, &s.a, 1);
  V shares = shares_of(e, &s), queries = attend_take_queries(e, &s.a, 1);
  branch exists = begin_item(e, &s, shares);
  const item i = find_item(e, &s, shares, 1);
  branch has_pages = if_begin(e, icmp(e, LLVMIntSLT, i.share, i.shares));
  make_item(e, &s, &i, shares, queries, &memory);
  if_else(e, &has_pages);
  store_nothing(e, &s, partial_of(e, &s, &i));
  if_end(e, &has_pages);
  if_end(e, &exists);
  kernel_end(e);
  return true;
}

/* Chooses the item's blocks; the first of its shares writes them down. */
static void choose_pages(emitter *e, const splitter *s, wave_choice *c, item *i) {
  V row = add(e, mul(e, i->token, int64(e, s->a.kv_heads)), i->kv_head);
  c->scores = element(e, e->f32, e->argument[1], mul(e, row, size_of(e, SLUICE_SIZE_PAGES)));
  c->visible = visible_blocks(e, i->position, s->a.page);
  amdgcn_topk_begin(e, c);
  amdgcn_topk_choose(e, c);
  i->list = c->list;
  branch first = if_begin(e, icmp(e, LLVMIntEQ, i->share, int64(e, 0)));
  loop slots = lane_loop(e, int64(e, 0), int64(e, c->k));
  store_i32(e, load_i32(e, c->list, slots.index), e->argument[7], add(e, mul(e, row, int64(e, c->k)), slots.index));
  loop_end(e, &slots);
  if_end(e, &first);
}

/* Operands: q, maxima, positions, sequence, page_table, cache, out, blocks, partials. */
bool amdgcn_topk_attention_part(emitter *e, const kernel_spec *spec) {
  splitter s = {.k = attribute(e, "k")};
  wave_choice choice = {.k = s.k, .init = attribute(e, "init"), .local_blocks = attribute(e, "local")};
  if (!attender_read(e, &s.a) || !read_parts(e, s.a.group, &s)) return false;
  open_splitter(e, spec, &s, 2);
  const attend_memory memory = attend_take_memory(e, &s.a, 1);
  V shares = shares_of(e, &s), queries = attend_take_queries(e, &s.a, 1);
  branch exists = begin_item(e, &s, shares);
  item i = find_item(e, &s, shares, 2);
  branch has_pages = if_begin(e, icmp(e, LLVMIntSLT, i.share, i.shares));
  choose_pages(e, &s, &choice, &i);
  make_item(e, &s, &i, shares, queries, &memory);
  if_else(e, &has_pages);
  store_nothing(e, &s, partial_of(e, &s, &i));
  if_end(e, &has_pages);
  if_end(e, &exists);
  kernel_end(e);
  return true;
}

/* ---- the merge ---- */

/* Sums of the shares' outputs, of four neighbouring columns: groups of lanes take the shares in turn. */
static V add_shares(emitter *e, const splitter *s, V first, V used, V factors, V group, int64_t groups) {
  enum { AT_ONCE = 4 };
  T four = LLVMVectorType(e->f32, 4);
  V total = local_set(e, four, LLVMConstNull(four)), length = int64(e, part_length(s->rows, s->a.head_dim));
  loop some = loop_begin(e, group, used, int64(e, AT_ONCE * groups));
  V part[AT_ONCE], sum = get(e, four, total);
  for (unsigned i = 0; i < AT_ONCE; i++) { /* all reads are under way at once */
    part[i] = local_set(e, four, LLVMConstNull(four));
    V share = add(e, some.index, int64(e, (int64_t)i * groups));
    branch inside = if_begin(e, icmp(e, LLVMIntSLT, share, used));
    set(e, part[i], load(e, four, element(e, e->f32, first, mul(e, share, length))));
    if_end(e, &inside);
  }
  for (unsigned i = 0; i < AT_ONCE; i++) {
    V share = imin(e, add(e, some.index, int64(e, (int64_t)i * groups)), int64(e, MOST_SHARES - 1));
    V factor = load_f32(e, SLUICE_F32, factors, share, 1); /* 0 where there is no share */
    sum = fma_(e, get(e, four, part[i]), splat(e, factor, 4), sum);
  }
  set(e, total, sum);
  loop_end(e, &some);
  return get(e, four, total);
}

/* A share's weight, one for each lane, goes to `factors`. `out_used` is how many have any, which are the first;
 * `out_sum` is of all weights. */
static void weigh_shares(emitter *e, const splitter *s, V first, V row, V shares, V factors, V *out_used, V *out_sum) {
  V lane = e->atoms->lane(e), own = mul(e, lane, int64(e, part_length(s->rows, s->a.head_dim)));
  own = add(e, own, add(e, row, int64(e, s->rows * s->a.head_dim)));
  V maximum_slot = local_set(e, e->f32, float32(e, -INFINITY)), sum_slot = local_set(e, e->f32, float32(e, 0));
  branch real = if_begin(e, icmp(e, LLVMIntSLT, lane, shares));
  set(e, maximum_slot, load_f32(e, SLUICE_F32, first, own, 1));
  set(e, sum_slot, load_f32(e, SLUICE_F32, first, add(e, own, int64(e, s->rows)), 1));
  if_end(e, &real);
  V maximum = get(e, e->f32, maximum_slot), sum = get(e, e->f32, sum_slot);
  V highest = e->atoms->reduce(e, maximum, REDUCE_MAX);
  highest = select_(e, fcmp(e, LLVMRealOEQ, highest, float32(e, -INFINITY)), float32(e, 0), highest);
  V factor = e->atoms->exp2(e, fsub_(e, maximum, highest)), has_any = fcmp(e, LLVMRealUNE, sum, float32(e, 0));
  V count = e->atoms->reduce(e, select_(e, has_any, float32(e, 1), float32(e, 0)), REDUCE_ADD);
  store_f32(e, SLUICE_F32, factor, factors, lane);
  *out_used = LLVMBuildFPToSI(e->builder, count, e->i64, "");
  *out_sum = e->atoms->reduce(e, fmul_(e, sum, factor), REDUCE_ADD);
}

/* Operands: partials, out. A workgroup is a token and a head. */
bool amdgcn_attention_merge(emitter *e, const kernel_spec *spec) {
  splitter s = {.a = {.heads = attribute(e, "heads"),
                      .kv_heads = attribute(e, "kv_heads"),
                      .head_dim = attribute(e, "head_dim")}};
  s.k = attribute(e, "k");
  if (e->status) return false;
  s.a.group = s.a.heads / s.a.kv_heads;
  if (!read_parts(e, s.a.group, &s)) return false;
  if (attribute_dtype(e, "dtype") != SLUICE_BF16) return decline(e, "elements are f32, expected bf16");
  if (s.a.head_dim % 32 || s.a.head_dim > 128)
    return decline(e, "heads have %lld dimensions, expected a multiple of 32, at most 128", (long long)s.a.head_dim);
  kernel_shape shape = each_of(SLUICE_SIZE_TOKENS, s.a.heads, 0);
  shape.lanes = MOST_SHARES;
  kernel_begin(e, spec, shape);
  V shares = shares_of(e, &s), lane = e->atoms->lane(e), used, sum;
  const int64_t pieces = s.a.head_dim / 4, groups = MOST_SHARES / pieces;
  V factors = workgroup_take(e, MOST_SHARES * sizeof(float));
  V sums = workgroup_take(e, (uint64_t)(groups * s.a.head_dim) * sizeof(float));
  branch shared = if_begin(e, icmp(e, LLVMIntSGT, shares, int64(e, 1)));
  V head = add(e, mul(e, e->x, int64(e, s.a.kv_heads)), udiv(e, e->y, int64(e, s.a.group)));
  V row = urem(e, e->y, int64(e, s.a.group)), length = int64(e, part_length(s.rows, s.a.head_dim));
  V first = element(e, e->f32, e->argument[0], mul(e, mul(e, head, shares), length));
  weigh_shares(e, &s, first, row, shares, factors, &used, &sum);
  e->atoms->barrier(e);
  V group = udiv(e, lane, int64(e, pieces)), column = mul(e, urem(e, lane, int64(e, pieces)), int64(e, 4));
  branch adds = if_begin(e, icmp(e, LLVMIntSLT, group, int64(e, groups)));
  V at = element(e, e->f32, first, add(e, mul(e, row, int64(e, s.a.head_dim)), column));
  V total = add_shares(e, &s, at, used, factors, group, groups);
  store_f32(e, SLUICE_F32, total, sums, add(e, mul(e, group, int64(e, s.a.head_dim)), column));
  if_end(e, &adds);
  e->atoms->barrier(e);
  branch writes = if_begin(e, icmp(e, LLVMIntSLT, lane, int64(e, s.a.head_dim)));
  V value = float32(e, 0);
  for (unsigned i = 0; i < groups; i++)
    value = fadd_(e, value, load_f32(e, SLUICE_F32, sums, add(e, lane, int64(e, (int64_t)i * s.a.head_dim)), 1));
  V none = fcmp(e, LLVMRealOEQ, sum, float32(e, 0));
  value = select_(e, none, float32(e, 0), fdiv_(e, value, sum));
  V out = add(e, mul(e, add(e, mul(e, e->x, int64(e, s.a.heads)), e->y), int64(e, s.a.head_dim)), lane);
  store_f32(e, SLUICE_BF16, value, e->argument[1], out);
  if_end(e, &writes);
  if_end(e, &shared);
  kernel_end(e);
  return true;
}

#include "backends/common/configuration.h"
#include "backends/common/backend.h"
#include "sluice/memory.h"

#include <string.h>

/* Columns of w that lie together where no matrix instructions are used. */
enum { PAIR = 2, MOST_CHOICES = 10 };

typedef struct record {
  kernel_question question;
  kernel_variants variants;
} record;

/* A question that was asked for all sizes. */
typedef struct asked_question {
  kernel_question question;
  bool recorded;
} asked_question;

typedef struct asked_list {
  asked_question *items;
  size_t count, capacity;
} asked_list;

struct configuration {
  const char *target; /* the caller's */
  const target_facts *facts;
  target_tiles tiles;
  void (*complete)(const char *target, const kernel_question *question, kernel_variant *variant);
  bool invariant; /* see configuration_make_invariant */
  record *records;
  size_t count, capacity;
  asked_list *asked; /* grows as questions are answered */
};

const char *choice_name(kernel_choice choice) {
#define CHOICE_TEXT(name, text) text,
  static const char *const names[] = {KERNEL_CHOICES(CHOICE_TEXT)};
#undef CHOICE_TEXT
  return names[choice];
}

static const char *const schedule_names[] = {
#define SCHEDULE_TEXT(name, text) text,
    KERNEL_SCHEDULES(SCHEDULE_TEXT)
#undef SCHEDULE_TEXT
};

const char *schedule_name(kernel_schedule schedule) {
  return (size_t)schedule < SCHEDULE_COUNT ? schedule_names[schedule] : "?";
}

kernel_schedule schedule_find(const char *name, size_t length) {
  size_t i = 0;
  while (i < SCHEDULE_COUNT && (strlen(schedule_names[i]) != length || memcmp(schedule_names[i], name, length) != 0))
    i++;
  return (kernel_schedule)i;
}

sluice_status *configuration_open(const char *target, configuration **out_configuration) {
  const backend *b = backend_find(target);
  if (!b) return sluice_error(SLUICE_UNSUPPORTED, "no kernels are known for target '%s'", target);
  configuration *c = sluice_allocate(sizeof *c);
  asked_list *asked = sluice_allocate(sizeof *asked);
  if (!c || !asked) {
    sluice_release(c);
    sluice_release(asked);
    return sluice_out_of_memory();
  }
  *c = (configuration){
      .target = target, .facts = b->facts(target), .tiles = b->tiles(target), .complete = b->complete, .asked = asked};
  *out_configuration = c;
  return NULL;
}

void configuration_close(configuration *c) {
  if (!c) return;
  sluice_release(c->asked->items);
  sluice_release(c->asked);
  sluice_release(c->records);
  sluice_release(c);
}

void configuration_make_invariant(configuration *c) {
  const backend *b = backend_find(c->target);
  if (b->invariant_tiles) c->tiles = b->invariant_tiles(c->target);
  c->invariant = true;
}

const target_facts *configuration_facts(const configuration *c) {
  return c->facts;
}

bool question_same_shape(const kernel_question *a, const kernel_question *b) {
  return strcmp(a->family, b->family) == 0 && a->n == b->n && a->k == b->k && a->pairs == b->pairs &&
         a->matrix == b->matrix && a->heads == b->heads && a->kv_heads == b->kv_heads && a->head_dim == b->head_dim &&
         a->page == b->page;
}

/* ---- what is legal ---- */

sluice_status *configuration_check(const configuration *c, const kernel_question *question,
                                   const kernel_variants *variants) {
  for (size_t i = 0; i < variants->count; i++) {
    const kernel_variant *v = &variants->item[i];
    if (v->from > v->to || (i && v->from <= v[-1].to))
      return sluice_error(SLUICE_INVALID, "configuration of %s for %s: variant %zu is for sizes %u to %u, behind %u",
                          question->family, c->target, i, v->from, v->to, i ? v[-1].to : 0);
    SLUICE_TRY(legal_check(c->target, question, v));
  }
  return NULL;
}

bool variants_cover(const kernel_variants *variants, uint32_t from, uint32_t to) {
  uint64_t next = from;
  for (size_t i = 0; i < variants->count; i++) {
    if (variants->item[i].from != next) return false;
    next = (uint64_t)variants->item[i].to + 1;
  }
  return next == (uint64_t)to + 1;
}

const kernel_variant *variants_at(const kernel_variants *variants, uint32_t size) {
  for (size_t i = 0; i < variants->count; i++)
    if (variants->item[i].from <= size && size <= variants->item[i].to) return &variants->item[i];
  return NULL;
}

/* The part of `v` in [from, to], if any, as one more of `out`. */
static bool append_part(kernel_variants *out, const kernel_variant *v, uint32_t from, uint32_t to) {
  kernel_variant part = *v;
  if (part.from < from) part.from = from;
  if (part.to > to) part.to = to;
  if (part.from > part.to) return true;
  if (out->count == MOST_VARIANTS) return false;
  out->item[out->count++] = part;
  return true;
}

bool variants_replace(kernel_variants *variants, const kernel_variant *part) {
  kernel_variants result = {.count = 0};
  bool room = true;
  for (size_t i = 0; i < variants->count && part->from > 0; i++)
    room = room && append_part(&result, &variants->item[i], 0, part->from - 1);
  room = room && append_part(&result, part, 0, UINT32_MAX);
  for (size_t i = 0; i < variants->count && part->to < UINT32_MAX; i++)
    room = room && append_part(&result, &variants->item[i], part->to + 1, UINT32_MAX);
  if (room) *variants = result;
  return room;
}

void variants_merge(kernel_variants *variants) {
  size_t count = 0;
  for (size_t i = 0; i < variants->count; i++) {
    kernel_variant *last = count ? &variants->item[count - 1] : NULL;
    const kernel_variant *v = &variants->item[i];
    if (last && memcmp(last->choice, v->choice, sizeof v->choice) == 0 && v->from - last->to == 1)
      last->to = v->to;
    else
      variants->item[count++] = *v;
  }
  variants->count = count;
}

/* `of` cut at the ends of `other`. */
static bool cut_at_ends(const kernel_variants *of, const kernel_variants *other, kernel_variants *out) {
  out->count = 0;
  for (size_t i = 0; i < of->count; i++)
    for (size_t j = 0; j < other->count; j++)
      if (!append_part(out, &of->item[i], other->item[j].from, other->item[j].to)) return false;
  return true;
}

bool variants_align(kernel_variants *a, kernel_variants *b) {
  kernel_variants aligned_a, aligned_b;
  if (!cut_at_ends(a, b, &aligned_a) || !cut_at_ends(b, a, &aligned_b)) return false;
  *a = aligned_a;
  *b = aligned_b;
  return true;
}

/* ---- defaults ---- */

void configuration_complete(const configuration *c, const kernel_question *question, kernel_variant *variant) {
  if (variant->choice[CHOOSE_SCHEDULE] != SCHEDULE_TILES && c->complete) {
    c->complete(c->target, question, variant);
    return;
  }
  variant->choice[CHOOSE_LANES] = c->facts->lanes;
  variant->choice[CHOOSE_STAGES] = 1;
}

static kernel_variant *add_variant(kernel_variants *out, uint32_t from, uint32_t to) {
  kernel_variant *v = &out->item[out->count++];
  *v = (kernel_variant){.from = from, .to = to};
  return v;
}

/* Sets the slice of a variant whose workgroups share a product's columns: rounds of as many panels as the range allows,
 * about equally long. `shares`: the panels are shared evenly among the workgroups, and where there may be several tiles
 * of rows, each of which has workgroups of its own, among so many that each has one round; otherwise a workgroup has
 * rounds of several tiles. */
static void stream_rounds(kernel_variant *v, const kernel_question *q, const gemm_range *range, uint32_t panel,
                          bool shares) {
  const uint32_t panels = (uint32_t)((q->n + panel - 1) / panel), most = range->slice / panel / (q->pairs ? 2 : 1);
  uint32_t workgroups = range->workgroups;
  if (shares && v->to > range->tile_m) { /* half a round for each processor, or whole ones */
    const uint32_t whole = (panels + most - 1) / most, few = workgroups / 2;
    workgroups = whole > few ? whole : few;
  }
  if (shares && workgroups > panels) workgroups = panels;
  const uint32_t share = shares ? (panels + workgroups - 1) / workgroups : panels;
  const uint32_t rounds = (share + most - 1) / most;
  v->choice[CHOOSE_WORKGROUPS] = workgroups;
  v->choice[CHOOSE_SLICE] = (int64_t)((share + rounds - 1) / rounds) * panel;
}

static bool suits(const kernel_question *q, const gemm_range *range) {
  if (!range->turn_multiple) return true;
  return q->n % range->turn_multiple == 0 && q->k % range->turn_multiple == 0 && q->n >= range->turn_least &&
         q->k >= range->turn_least;
}

/* The last size of a range, which goes on where those behind it do not suit the product. */
static uint32_t end_of_range(const kernel_question *q, const gemm_range *range) {
  while (range->to != UINT32_MAX && !suits(q, range + 1)) range++;
  return range->to;
}

/* Which steps of the depth a wave of the schedule `rows` has follows from its lanes and stages: the least of all
 * variants, which are powers of two that divide the depth, become those of each. */
static void add_alike(kernel_variants *variants) {
  static const kernel_choice choices[] = {CHOOSE_LANES, CHOOSE_STAGES};
  for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
    int64_t least = INT64_MAX;
    for (size_t v = 0; v < variants->count; v++)
      if (variants->item[v].choice[choices[i]] < least) least = variants->item[v].choice[choices[i]];
    for (size_t v = 0; v < variants->count; v++) variants->item[v].choice[choices[i]] = least;
  }
}

static void product_defaults(const configuration *c, const kernel_question *q, bool experts, kernel_variants *out) {
  const target_tiles *t = &c->tiles;
  if (!q->matrix || !t->matrix_panel || q->k % c->facts->matrix.depth) {
    kernel_variant *v = add_variant(out, q->from, q->to);
    v->choice[CHOOSE_TILE_M] = experts ? t->expert_tile_m : t->gemm_tile_m;
    v->choice[CHOOSE_PANEL] = v->choice[CHOOSE_SLICE] = t->gemm_panel;
    v->choice[CHOOSE_GROUP] = PAIR;
    configuration_complete(c, q, v);
    return;
  }
  const gemm_range *range = experts ? t->expert_ranges : t->ranges;
  for (bool last = false; !last; range++) {
    last = range->to == UINT32_MAX;
    const uint32_t to = end_of_range(q, range);
    if (!suits(q, range) || to < q->from || range->from > q->to || range->from > to) continue;
    const uint32_t from = out->count && range->from > q->from ? range->from : q->from;
    kernel_variant *v = add_variant(out, from, to < q->to ? to : q->to);
    v->choice[CHOOSE_TILE_M] = range->tile_m;
    v->choice[CHOOSE_PANEL] = t->matrix_panel;
    v->choice[CHOOSE_GROUP] = c->facts->matrix.group;
    v->choice[CHOOSE_SLICE] = range->slice;
    v->choice[CHOOSE_APART] = experts && range->apart;
    v->choice[CHOOSE_SCHEDULE] = !range->workgroups     ? SCHEDULE_ROWS
                                 : range->turn_multiple ? SCHEDULE_TURNS
                                                        : SCHEDULE_STREAM;
    const bool one_tile = range->to <= range->tile_m;
    if (range->workgroups) stream_rounds(v, q, range, t->matrix_panel, !experts && (!range->turn_multiple || one_tile));
    configuration_complete(c, q, v);
  }
  if (c->invariant) add_alike(out);
}

static void gemm_defaults(const configuration *c, const kernel_question *q, kernel_variants *out) {
  product_defaults(c, q, false, out);
}

static void expert_gemm_defaults(const configuration *c, const kernel_question *q, kernel_variants *out) {
  product_defaults(c, q, true, out);
}

/* One or two variants: up to `few`, and beyond, where `choice` is 1. Without `few` there is one, where it is `alone`.
 */
static void few_and_many(uint32_t few, kernel_choice choice, int64_t alone, kernel_variants *out) {
  if (few) add_variant(out, 0, few);
  add_variant(out, few ? few + 1 : 0, UINT32_MAX)->choice[choice] = few ? 1 : alone;
}

static void router_defaults(const configuration *c, const kernel_question *q, kernel_variants *out) {
  (void)q;
  if (c->tiles.split_router)
    few_and_many(c->tiles.router_few, CHOOSE_MANY, 1, out);
  else
    add_variant(out, 0, UINT32_MAX);
  for (size_t i = 0; i < out->count; i++) {
    out->item[i].choice[CHOOSE_SPLIT] = c->tiles.split_router;
    out->item[i].choice[CHOOSE_PANEL] = c->tiles.gemm_panel;
  }
}

static void norm_rope_append_defaults(const configuration *c, const kernel_question *q, kernel_variants *out) {
  /* They add up squares in another order, and float32 is the same in steps of all sizes. */
  few_and_many(q->matrix ? c->tiles.rope_few : 0, CHOOSE_MANY, 0, out);
}

static void attention_defaults(const configuration *c, const kernel_question *q, kernel_variants *out) {
  (void)q;
  add_variant(out, 0, UINT32_MAX)->choice[CHOOSE_QUERY_TILE] = c->tiles.query_tile;
}

/* Whether attention has kernels with matrix instructions. */
static bool has_matrix_attention(const configuration *c, const kernel_question *q) {
  const target_tiles *t = &c->tiles;
  const int64_t page = q->page;
  return t->matrix_head_dim && q->matrix && (page == 16 || page == 32 || page == 64 || page == 128) &&
         page >= t->matrix_page && q->head_dim <= t->matrix_head_dim && q->head_dim % t->matrix_head_step == 0 &&
         q->heads <= q->kv_heads * t->matrix_group;
}

/* Steps of more tokens than this attend in tiles of many. */
static uint32_t few_tokens(const configuration *c, const kernel_question *q) {
  const target_tiles *t = &c->tiles;
  return t->many_tokens && (!t->many_page || q->page == t->many_page) ? t->many_tokens : UINT32_MAX;
}

static void attention_part_defaults(const configuration *c, const kernel_question *q, kernel_variants *out) {
  if (!has_matrix_attention(c, q)) return;
  const uint32_t few = few_tokens(c, q);
  kernel_variant *v = add_variant(out, 0, few);
  v->choice[CHOOSE_PARTS] = c->tiles.attention_parts;
  v->choice[CHOOSE_PART_ROWS] = c->tiles.matrix_group;
  v->choice[CHOOSE_SCHEDULE] = SCHEDULE_PARTS;
  if (few < UINT32_MAX) add_variant(out, few + 1, UINT32_MAX);
}

static void block_score_defaults(const configuration *c, const kernel_question *q, kernel_variants *out) {
  if (!c->tiles.split_selection) {
    add_variant(out, 0, UINT32_MAX);
    return;
  }
  few_and_many(q->matrix ? c->tiles.cache_first_pages : 0, CHOOSE_CACHE_FIRST, 0, out);
  const target_tiles *t = &c->tiles;
  const bool many = q->matrix && t->many_tokens && q->page == t->many_page && q->head_dim == t->matrix_head_dim &&
                    q->heads * t->query_tile <= t->many_rows;
  for (size_t i = 0; i < out->count; i++) {
    out->item[i].choice[CHOOSE_SPLIT] = 1;
    out->item[i].choice[CHOOSE_FEW] = many ? t->many_tokens : 0;
    out->item[i].choice[CHOOSE_MANY] = t->many_scores;
  }
}

static void topk_attention_defaults(const configuration *c, const kernel_question *q, kernel_variants *out) {
  const target_tiles *t = &c->tiles;
  if (!t->cluster_count || !has_matrix_attention(c, q)) return;
  const uint32_t few = few_tokens(c, q);
  uint32_t from = 0;
  for (uint32_t i = 0; i < t->cluster_count && from <= few; i++) {
    uint32_t to = i + 1 == t->cluster_count ? few : t->clusters[i].heads / (uint32_t)q->kv_heads;
    if (to == 0 || to < from) continue;
    if (to > few) to = few;
    kernel_variant *v = add_variant(out, from, to);
    v->choice[CHOOSE_SCHEDULE] = SCHEDULE_CLUSTER;
    v->choice[CHOOSE_CLUSTER] = t->clusters[i].size;
    v->choice[CHOOSE_PER_PROCESSOR] = t->clusters[i].per_processor;
    if (to == UINT32_MAX) return;
    from = to + 1;
  }
  if (few < UINT32_MAX) add_variant(out, few + 1, UINT32_MAX);
}

static void route_defaults(const configuration *c, const kernel_question *q, kernel_variants *out) {
  (void)q;
  if (c->tiles.route_tokens) add_variant(out, 0, c->tiles.route_tokens);
}

static void join_defaults(const configuration *c, const kernel_question *q, kernel_variants *out) {
  (void)q;
  if (c->tiles.join_tokens) add_variant(out, 0, c->tiles.join_tokens);
}

static void cache_defaults(const configuration *c, const kernel_question *q, kernel_variants *out) {
  (void)q;
  add_variant(out, 0, UINT32_MAX)->choice[CHOOSE_TRANSPOSED] = c->tiles.transposed_values;
}

#define PRODUCT_CHOICES                                                                                                \
  CHOOSE_SCHEDULE, CHOOSE_TILE_M, CHOOSE_PANEL, CHOOSE_GROUP, CHOOSE_SLICE, CHOOSE_WORKGROUPS, CHOOSE_LANES,           \
      CHOOSE_STAGES

/* All families that have something to choose. */
static const struct family {
  const char *name;
  void (*choose)(const configuration *c, const kernel_question *q, kernel_variants *out);
  kernel_choice choices[MOST_CHOICES];
  size_t count;
} families[] = {
    {"gemm", gemm_defaults, {PRODUCT_CHOICES}, 8},
    {"expert_gemm", expert_gemm_defaults, {PRODUCT_CHOICES, CHOOSE_APART}, 9},
    {"router", router_defaults, {CHOOSE_SPLIT, CHOOSE_PANEL, CHOOSE_MANY}, 3},
    {"norm_rope_append", norm_rope_append_defaults, {CHOOSE_MANY}, 1},
    {"attention", attention_defaults, {CHOOSE_QUERY_TILE}, 1},
    {"attention_part", attention_part_defaults, {CHOOSE_SCHEDULE, CHOOSE_PARTS, CHOOSE_PART_ROWS}, 3},
    {"block_score", block_score_defaults, {CHOOSE_SPLIT, CHOOSE_CACHE_FIRST, CHOOSE_FEW, CHOOSE_MANY}, 4},
    {"topk_attention", topk_attention_defaults, {CHOOSE_SCHEDULE, CHOOSE_CLUSTER, CHOOSE_PER_PROCESSOR}, 3},
    {"route", route_defaults, {0}, 0},
    {"join", join_defaults, {0}, 0},
    {"cache", cache_defaults, {CHOOSE_TRANSPOSED}, 1},
};

static const struct family *find_family(const char *name) {
  for (size_t i = 0; i < sizeof families / sizeof *families; i++)
    if (strcmp(families[i].name, name) == 0) return &families[i];
  return NULL;
}

size_t family_choices(const char *family, const kernel_choice **out_choices) {
  const struct family *f = find_family(family);
  *out_choices = f ? f->choices : NULL;
  return f ? f->count : 0;
}

/* ---- asking ---- */

sluice_status *configuration_add(configuration *c, const kernel_question *question, const kernel_variants *variants) {
  if (!find_family(question->family))
    return sluice_error(SLUICE_INVALID, "a configuration of '%s': there is nothing to choose", question->family);
  SLUICE_TRY(configuration_check(c, question, variants));
  if (!variants_cover(variants, question->from, question->to))
    return sluice_error(SLUICE_INVALID, "configuration of %s for %s: its variants leave out some of the sizes %u to %u",
                        question->family, c->target, question->from, question->to);
  if (c->count == c->capacity) {
    const size_t capacity = c->capacity ? c->capacity * 2 : 16;
    record *grown = sluice_reallocate_array(c->records, capacity, sizeof *grown);
    if (!grown) return sluice_out_of_memory();
    c->records = grown;
    c->capacity = capacity;
  }
  c->records[c->count++] = (record){*question, *variants};
  return NULL;
}

/* The part of `from` that lies in the question's sizes. */
static void cut(const kernel_question *q, const kernel_variants *from, kernel_variants *out) {
  for (size_t i = 0; i < from->count; i++) {
    kernel_variant v = from->item[i];
    if (v.to < q->from || v.from > q->to) continue;
    if (v.from < q->from) v.from = q->from;
    if (v.to > q->to) v.to = q->to;
    out->item[out->count++] = v;
  }
}

const kernel_question *configuration_asked(const configuration *c, size_t index, bool *out_recorded) {
  if (index >= c->asked->count) return NULL;
  *out_recorded = c->asked->items[index].recorded;
  return &c->asked->items[index].question;
}

static sluice_status *note_question(asked_list *asked, const kernel_question *question, bool recorded) {
  if (question->from != 0 || question->to != UINT32_MAX) return NULL;
  for (size_t i = 0; i < asked->count; i++)
    if (question_same_shape(&asked->items[i].question, question)) {
      asked->items[i].recorded = recorded; /* records may have come since */
      return NULL;
    }
  if (asked->count == asked->capacity) {
    const size_t capacity = asked->capacity ? asked->capacity * 2 : 16;
    asked_question *grown = sluice_reallocate_array(asked->items, capacity, sizeof *grown);
    if (!grown) return sluice_out_of_memory();
    asked->items = grown;
    asked->capacity = capacity;
  }
  asked->items[asked->count++] = (asked_question){*question, recorded};
  return NULL;
}

sluice_status *configuration_find(const configuration *c, const kernel_question *question,
                                  kernel_variants *out_variants) {
  *out_variants = (kernel_variants){.count = 0};
  for (size_t i = c->invariant ? 0 : c->count; i-- > 0;) {
    const record *r = &c->records[i];
    if (!question_same_shape(&r->question, question) || r->question.from > question->from ||
        r->question.to < question->to)
      continue;
    cut(question, &r->variants, out_variants);
    return note_question(c->asked, question, true);
  }
  kernel_variants all = {.count = 0};
  const struct family *f = find_family(question->family);
  if (f) f->choose(c, question, &all);
  cut(question, &all, out_variants);
  SLUICE_TRY(note_question(c->asked, question, false));
  return configuration_check(c, question, out_variants);
}

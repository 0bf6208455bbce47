#include "backends/common/legal.h"
#include "backends/common/backend.h"

#include <string.h>

/* ---- what all targets can do ---- */

static bool is_multiple(int64_t value, int64_t of) {
  return of && value % of == 0;
}

/* Products in tiles without matrix instructions (gemm.c): a panel is a vector or several, on the host what registers
 * hold of it. */
static illegal_choice relate_tiles(const char *target, const kernel_question *q, const int64_t v[]) {
  (void)q;
  const target_facts *facts = backend_find(target)->facts(target);
  const int64_t vector = facts->vector;
  if (!is_multiple(v[CHOOSE_PANEL], vector)) return (illegal_choice){CHOOSE_PANEL, "a multiple of", vector};
  if (facts->lanes == 1 && v[CHOOSE_PANEL] > 4 * vector) return (illegal_choice){CHOOSE_PANEL, "at most", 4 * vector};
  if (v[CHOOSE_SLICE] != v[CHOOSE_PANEL]) return (illegal_choice){CHOOSE_SLICE, "the panel,", v[CHOOSE_PANEL]};
  if (v[CHOOSE_LANES] != facts->lanes) return (illegal_choice){CHOOSE_LANES, "those of the target,", facts->lanes};
  return (illegal_choice){0};
}

#define TILED                                                                                                          \
  {CHOOSE_TILE_M, 1, 256, 1}, {CHOOSE_PANEL, 4, 256, 4}, {CHOOSE_GROUP, 2, 2, 1}, {CHOOSE_SLICE, 4, 256, 4},           \
      {CHOOSE_LANES, 1, 1024, 1}, {CHOOSE_STAGES, 1, 1, 1}

static const family_schedule common[] = {
    {"gemm", SCHEDULE_TILES, {TILED}, relate_tiles},
    {"expert_gemm", SCHEDULE_TILES, {TILED, {CHOOSE_APART, 0, 1, 1}}, relate_tiles},
    {"router", SCHEDULE_TILES, {{CHOOSE_SPLIT, 0, 1, 1}, {CHOOSE_PANEL, 4, 256, 4}, {CHOOSE_MANY, 0, 1, 1}}, NULL},
    {"norm_rope_append", SCHEDULE_TILES, {{CHOOSE_MANY, 0, 1, 1}}, NULL},
    {"attention", SCHEDULE_TILES, {{CHOOSE_QUERY_TILE, 1, 64, 1}}, NULL},
    {"block_score",
     SCHEDULE_TILES,
     {{CHOOSE_SPLIT, 0, 1, 1}, {CHOOSE_CACHE_FIRST, 0, 1, 1}, {CHOOSE_FEW, 0, UINT32_MAX, 1}, {CHOOSE_MANY, 0, 1, 1}},
     NULL},
    {"route", SCHEDULE_TILES, {{0}}, NULL},
    {"join", SCHEDULE_TILES, {{0}}, NULL},
    {"cache", SCHEDULE_TILES, {{CHOOSE_TRANSPOSED, 0, 1, 1}}, NULL},
    NO_SCHEDULE};

/* ---- rows ---- */

/* The rows of a family in turn: the target's own, then the common ones. NULL: no more. `at` begins with 0. */
static const family_schedule *next_row(const backend *b, const char *family, size_t *at) {
  size_t seen = 0;
  const family_schedule *const tables[] = {b->schedules, common};
  for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
    for (const family_schedule *row = tables[t]; row && row->family; row++)
      if (strcmp(row->family, family) == 0 && seen++ == *at) {
        ++*at;
        return row;
      }
  return NULL;
}

static const choice_values *values_of(const family_schedule *row, kernel_choice choice) {
  for (size_t i = 0; i < MOST_LEGAL && row->values[i].step; i++)
    if (row->values[i].choice == choice) return &row->values[i];
  return NULL;
}

/* What is wrong with one value. */
static illegal_choice check_value(const choice_values *values, kernel_choice choice, int64_t found) {
  const choice_values none = {choice, 0, 0, 1}, *v = values ? values : &none;
  if (found != v->least && v->least == v->most) return (illegal_choice){choice, "just", v->least};
  if (found < v->least) return (illegal_choice){choice, "at least", v->least};
  if (found > v->most) return (illegal_choice){choice, "at most", v->most};
  if ((found - v->least) % v->step == 0) return (illegal_choice){0};
  return (illegal_choice){
      choice, v->least % v->step ? "a distance from the least that is a multiple of" : "a multiple of", v->step};
}

static illegal_choice check_row(const family_schedule *row, const char *target, const kernel_question *q,
                                const int64_t choice[]) {
  const kernel_choice *choices;
  const size_t count = family_choices(row->family, &choices);
  for (size_t i = 0; i < count; i++) {
    if (choices[i] == CHOOSE_SCHEDULE) continue;
    const illegal_choice wrong = check_value(values_of(row, choices[i]), choices[i], choice[choices[i]]);
    if (wrong.expected) return wrong;
  }
  return row->relate ? row->relate(target, q, choice) : (illegal_choice){0};
}

bool legal_has(const char *target, const char *family, kernel_schedule schedule) {
  const backend *b = backend_find(target);
  size_t at = 0;
  for (const family_schedule *row; b && (row = next_row(b, family, &at));)
    if (row->schedule == schedule) return true;
  return false;
}

sluice_status *legal_check(const char *target, const kernel_question *question, const kernel_variant *variant) {
  const backend *b = backend_find(target);
  if (!b) return sluice_error(SLUICE_UNSUPPORTED, "no kernels are known for target '%s'", target);
  const int64_t *choice = variant->choice;
  illegal_choice wrong = {0};
  size_t at = 0;
  bool found = false;
  for (const family_schedule *row; (row = next_row(b, question->family, &at));) {
    if ((int64_t)row->schedule != choice[CHOOSE_SCHEDULE]) continue;
    wrong = check_row(row, target, question, choice);
    if (!wrong.expected) return NULL;
    found = true;
  }
  if (!found)
    return sluice_error(SLUICE_INVALID, "configuration of %s for %s: there is no schedule '%s'", question->family,
                        target, schedule_name((kernel_schedule)choice[CHOOSE_SCHEDULE]));
  return sluice_error(SLUICE_INVALID, "configuration of %s for %s, schedule '%s': '%s' is %lld, expected %s %lld",
                      question->family, target, schedule_name((kernel_schedule)choice[CHOOSE_SCHEDULE]),
                      choice_name(wrong.choice), (long long)choice[wrong.choice], wrong.expected,
                      (long long)wrong.number);
}

/* ---- all of them ---- */

typedef struct enumeration {
  const family_schedule *row;
  const char *target;
  const kernel_question *question;
  kernel_variant variant;
  legal_visit *visit;
  void *user;
  size_t count;
} enumeration;

/* The value behind `value`: all when there are few, else about twice as large, and the last. */
static int64_t following(const choice_values *v, int64_t value) {
  enum { FEW = 16 };
  if ((v->most - v->least) / v->step < FEW) return value + v->step;
  if (value == v->most) return v->most + 1;
  const int64_t twice = value < 1 ? v->least + v->step : v->least + (2 * value - v->least) / v->step * v->step;
  const int64_t next = twice > value ? twice : value + v->step, last = v->most - (v->most - v->least) % v->step;
  return next < last ? next : last;
}

/* All values of choice `i` of the row and those behind it; false: `visit` has ended it. */
static bool enumerate_from(enumeration *e, size_t i) { // NOLINT(misc-no-recursion): as deep as a row has choices
  const choice_values *v = &e->row->values[i];
  if (i == MOST_LEGAL || v->step == 0) {
    if (check_row(e->row, e->target, e->question, e->variant.choice).expected) return true;
    e->count++;
    return e->visit(&e->variant, e->user);
  }
  for (int64_t value = v->least; value <= v->most; value = following(v, value)) {
    e->variant.choice[v->choice] = value;
    if (!enumerate_from(e, i + 1)) return false;
  }
  return true;
}

size_t legal_enumerate(const char *target, const kernel_question *question, legal_visit *visit, void *user) {
  const backend *b = backend_find(target);
  size_t at = 0, count = 0;
  for (const family_schedule *row; b && (row = next_row(b, question->family, &at));) {
    enumeration e = {.row = row,
                     .target = target,
                     .question = question,
                     .variant = {.from = question->from, .to = question->to},
                     .visit = visit,
                     .user = user};
    e.variant.choice[CHOOSE_SCHEDULE] = row->schedule;
    const bool goes_on = enumerate_from(&e, 0);
    count += e.count;
    if (!goes_on) break;
  }
  return count;
}

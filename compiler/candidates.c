/* Enumerates what is legal (backends/common/legal.h) and keeps what the cost model likes best. */
#include "compiler/candidates.h"

#include "backends/common/legal.h"

#include <string.h>

typedef struct search {
  const char *target;
  const target_facts *facts;
  const machine_rates *rates;
  const kernel_variant *usual; /* the default */
  size_t most;
  candidate_list *list;
} search;

static bool same_choices(const kernel_variant *a, const kernel_variant *b) {
  return memcmp(a->choice, b->choice, sizeof a->choice) == 0;
}

/* Whether they differ in lanes and stages at most. */
static bool alike(const kernel_variant *a, const kernel_variant *b) {
  for (int i = 0; i < CHOICE_COUNT; i++)
    if (i != CHOOSE_LANES && i != CHOOSE_STAGES && a->choice[i] != b->choice[i]) return false;
  return true;
}

/* Memory, and of experts the tiles and what is one of them, stay as they are. */
static bool keeps_memory(const search *s, const kernel_variant *v) {
  static const kernel_choice fixed[] = {CHOOSE_PANEL, CHOOSE_GROUP, CHOOSE_SPLIT, CHOOSE_QUERY_TILE};
  for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
    if (v->choice[fixed[i]] != s->usual->choice[fixed[i]]) return false;
  if (strcmp(s->list->question.family, "expert_gemm") != 0) return true;
  /* A shared expert that is one of the others has no kernels whose workgroups share columns. */
  return v->choice[CHOOSE_TILE_M] == s->usual->choice[CHOOSE_TILE_M] &&
         v->choice[CHOOSE_APART] == s->usual->choice[CHOOSE_APART] &&
         (v->choice[CHOOSE_APART] || !v->choice[CHOOSE_WORKGROUPS]);
}

/* Keeps the list sorted; the default stays first. */
static void offer(search *s, const kernel_variant *v) {
  candidate_list *list = s->list;
  if (same_choices(v, s->usual) || !keeps_memory(s, v)) return;
  const double seconds = cost_of_variant(s->facts, s->rates, &list->question, v, &list->step);
  size_t similar = 0, at = list->count, last = 0;
  for (size_t i = 1; i < list->count; i++) {
    if (same_choices(&list->item[i].variant, v)) return;
    if (alike(&list->item[i].variant, v)) {
      similar++;
      last = i;
    }
  }
  if (similar >= 2) { /* in the place of the worse of its kind, if at all */
    if (list->item[last].seconds <= seconds) return;
    memmove(&list->item[last], &list->item[last + 1], (list->count - last - 1) * sizeof list->item[0]);
    at = --list->count;
  }
  while (at > 1 && list->item[at - 1].seconds > seconds) at--;
  if (at >= s->most) return;
  if (list->count == s->most) list->count--;
  memmove(&list->item[at + 1], &list->item[at], (list->count - at) * sizeof list->item[0]);
  list->item[at].variant = *v;
  list->item[at].seconds = seconds;
  list->count++;
}

/* Numbers of workgroups and of parts are many: those are looked at that go with the number of processors. */
static void offer_numbers(search *s, const kernel_variant *v, kernel_choice choice) {
  const int64_t processors = s->facts->processors ? s->facts->processors : 1;
  const int64_t numbers[] = {s->usual->choice[choice], processors / 2, processors, 2 * processors, 4 * processors};
  kernel_variant other = *v;
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    other.choice[choice] = numbers[i];
    sluice_status *illegal = legal_check(s->target, &s->list->question, &other);
    if (!illegal) offer(s, &other);
    sluice_status_free(illegal);
  }
}

/* A legal_visit. */
static bool visit(const kernel_variant *variant, void *user) {
  search *s = user;
  static const kernel_choice numbers[] = {CHOOSE_WORKGROUPS, CHOOSE_PARTS};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    const int64_t number = variant->choice[numbers[i]];
    if (number > 1) return true;
    if (number == 1) {
      offer_numbers(s, variant, numbers[i]);
      return true;
    }
  }
  offer(s, variant);
  return true;
}

sluice_status *candidates_find(const char *target, const configuration *defaults, const machine_rates *rates,
                               const kernel_question *question, uint32_t from, uint32_t to, const cost_step *step,
                               size_t most, candidate_list *out) {
  *out = (candidate_list){.question = *question, .step = *step};
  kernel_variants variants;
  SLUICE_TRY(configuration_find(defaults, question, &variants));
  const kernel_variant *found = variants_at(&variants, to);
  if (!found) return NULL;
  kernel_variant usual = *found;
  const bool experts = strcmp(question->family, "expert_gemm") == 0;
  if (!experts || usual.from < from) usual.from = from;
  usual.to = to;
  kernel_question bucket = *question;
  bucket.from = usual.from;
  bucket.to = to;
  search s = {.target = target,
              .facts = configuration_facts(defaults),
              .rates = rates,
              .usual = &usual,
              .most = most < MOST_CANDIDATES ? most : MOST_CANDIDATES,
              .list = out};
  out->item[out->count].seconds = cost_of_variant(s.facts, rates, question, &usual, step);
  out->item[out->count++].variant = usual;
  (void)legal_enumerate(target, &bucket, visit, &s);
  if (out->count == 1) out->count = 0;
  return NULL;
}

#include "runtime/text/split.h"

/* Backtracking of one match is stopped after this many steps, and 64 for each byte of the text: the expressions of
 * released models need less than 4 a byte. */
#define MATCH_STEPS 1000000u
#define MATCH_STEPS_A_BYTE 64u
#define MATCH_HEAP_KIB (256u * 1024)
#define JIT_STACK_BYTES ((size_t)1 << 20)

sluice_status *split_scratch_create(split_scratch *scratch) {
  *scratch = (split_scratch){
      .data = pcre2_match_data_create(1, NULL),
      .context = pcre2_match_context_create(NULL),
  };
  if (!scratch->data || !scratch->context) {
    split_scratch_free(scratch);
    return sluice_out_of_memory();
  }
  pcre2_set_heap_limit(scratch->context, MATCH_HEAP_KIB);
  scratch->stack = pcre2_jit_stack_create(32768, JIT_STACK_BYTES, NULL); /* NULL: machine code does with 32 KB */
  pcre2_jit_stack_assign(scratch->context, NULL, scratch->stack);
  return NULL;
}

void split_scratch_free(split_scratch *scratch) {
  pcre2_match_data_free(scratch->data);
  pcre2_match_context_free(scratch->context);
  pcre2_jit_stack_free(scratch->stack);
  *scratch = (split_scratch){0};
}

/* The first match at or after `at`; *start is `length` when there is none. */
static sluice_status *find(const split_step *step, split_scratch *scratch, const char *text, size_t length, size_t at,
                           size_t *start, size_t *end) {
  int found =
      pcre2_match(step->code, (PCRE2_SPTR)text, length, at, PCRE2_NO_UTF_CHECK, scratch->data, scratch->context);
  if (found == PCRE2_ERROR_JIT_STACKLIMIT)
    found = pcre2_match(step->code, (PCRE2_SPTR)text, length, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, scratch->data,
                        scratch->context);
  *start = *end = length;
  if (found == PCRE2_ERROR_NOMATCH) return NULL;
  if (found == PCRE2_ERROR_NOMEMORY) return sluice_out_of_memory();
  if (found < 0)
    return sluice_error(SLUICE_INVALID,
                        "the tokenizer's regular expression takes more steps than %u and %u for each of %zu bytes to "
                        "match at byte %zu; it is one of those that backtrack without end",
                        MATCH_STEPS, MATCH_STEPS_A_BYTE, length, at);
  const PCRE2_SIZE *places = pcre2_get_ovector_pointer(scratch->data);
  *start = places[0], *end = places[1];
  return NULL;
}

typedef struct walk {
  const split_step *steps;
  size_t step_count;
  split_scratch *scratch;
  split_sink *sink;
  void *user;
} walk;

static sluice_status *cut(const walk *w, size_t step, const char *text, size_t length);

/* The piece at hand, which later parts of the text may join. */
typedef struct piece {
  size_t start, end;
  bool last_matched; /* its last part is a match */
} piece;

static bool joins(split_behavior behavior, const piece *p, bool matched) {
  switch (behavior) {
  case SPLIT_MERGED_WITH_PREVIOUS:
    return matched && !p->last_matched;
  case SPLIT_MERGED_WITH_NEXT:
    return !matched && p->last_matched;
  case SPLIT_CONTIGUOUS:
    return matched == p->last_matched;
  case SPLIT_REMOVED:
  case SPLIT_ISOLATED:
    break;
  }
  return false;
}

static sluice_status *give(const walk *w, size_t step, const char *text, const piece *p) {
  return p->end > p->start ? cut(w, step + 1, text + p->start, p->end - p->start) : NULL;
}

/* Takes the next part of the text, a match or what lies between two. */
static sluice_status *take(const walk *w, size_t step, const char *text, size_t start, size_t end, bool matched,
                           piece *p) {
  const split_step *s = &w->steps[step];
  if (start == end) return NULL;
  matched = matched != s->invert;
  if (s->behavior == SPLIT_REMOVED && matched) return NULL;
  if (p->end > p->start && p->end == start && joins(s->behavior, p, matched)) {
    p->end = end;
    p->last_matched = matched;
    return NULL;
  }
  const piece before = *p;
  *p = (piece){.start = start, .end = end, .last_matched = matched};
  return give(w, step, text, &before);
}

/* Cuts by the steps from `step` on. Deep by as many calls as there are steps. */
static sluice_status *cut(const walk *w, size_t step, const char *text, size_t length) {
  if (step == w->step_count) return w->sink(w->user, text, length);
  piece p = {0};
  for (size_t at = 0; at < length;) {
    size_t start, end;
    SLUICE_TRY(find(&w->steps[step], w->scratch, text, length, at, &start, &end));
    SLUICE_TRY(take(w, step, text, at, start, false, &p));
    SLUICE_TRY(take(w, step, text, start, end, true, &p));
    at = end;
  }
  return give(w, step, text, &p);
}

sluice_status *split_text(const split_step *steps, size_t step_count, split_scratch *scratch, const char *text,
                          size_t length, split_sink *sink, void *user) {
  const uint64_t limit = MATCH_STEPS + (uint64_t)MATCH_STEPS_A_BYTE * length;
  pcre2_set_match_limit(scratch->context, limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX);
  const walk w = {.steps = steps, .step_count = step_count, .scratch = scratch, .sink = sink, .user = user};
  return length ? cut(&w, 0, text, length) : NULL;
}

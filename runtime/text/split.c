#include "runtime/text/split.h"

/* What matching may cost, in characters looked at and steps of backtracking, for a text and each step: so the time is
 * linear in the text whatever the expression. Those of released models need less than 8 a byte. */
#define TEXT_COST 1000000u
#define TEXT_COST_A_BYTE 16u

/* A match is looked for within a short window first. Only when it looked at the window's end may what lies behind it
 * change the outcome: then it is tried again, from the same place alone, in a window four times as long, and what was
 * looked at is added to the text's cost. So an expression that reads far ahead and takes little, whose time would grow
 * with the square of the text, is found out after a few such matches.
 *
 *   text     T h e   c o m p i l e r ' s   t o k e n s ...
 *                    ^ at                  ^ at + window
 */
#define FIRST_WINDOW 256u
#define STEPS_A_BYTE 4u /* of backtracking, at first; eight times more whenever they do not do */

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

typedef struct walk {
  const split_step *steps;
  size_t step_count;
  split_scratch *scratch;
  split_sink *sink;
  void *user;
  uint64_t cost_left; /* of the whole text */
  size_t text_length;
} walk;

static sluice_status *spend(walk *w, uint64_t cost, size_t at) {
  if (cost <= w->cost_left) {
    w->cost_left -= cost;
    return NULL;
  }
  return sluice_error(SLUICE_INVALID,
                      "the tokenizer's regular expression takes more steps than %u and %u for each of %zu bytes to "
                      "match, at byte %zu of a piece; it is one of those that backtrack or look ahead without end",
                      TEXT_COST, TEXT_COST_A_BYTE, w->text_length, at);
}

/* An attempt to match: where it begins, and what it may look at. */
typedef struct attempt {
  size_t at, end; /* of the window; cuts no character */
  size_t window;
  uint32_t steps_a_byte;
} attempt;

static void set_window(attempt *a, const char *text, size_t length, size_t window) {
  a->window = window;
  a->end = window < length - a->at ? a->at + window : length;
  while (a->end < length && ((unsigned char)text[a->end] & 0xC0) == 0x80) a->end--;
}

static void begin(attempt *a, const char *text, size_t length, size_t at) {
  *a = (attempt){.at = at, .steps_a_byte = STEPS_A_BYTE};
  set_window(a, text, length, FIRST_WINDOW);
}

static uint64_t steps_of(const attempt *a) {
  return (uint64_t)a->steps_a_byte * (a->end - a->at < FIRST_WINDOW ? FIRST_WINDOW : a->end - a->at);
}

/* What pcre2_match says. In a longer window than the first one a match may begin at a->at only. */
static int match(const split_step *step, const split_scratch *scratch, const char *text, size_t length,
                 const attempt *a) {
  const uint64_t steps = steps_of(a);
  const uint32_t options = PCRE2_NO_UTF_CHECK | (a->end < length ? PCRE2_PARTIAL_HARD : 0);
  pcre2_set_match_limit(scratch->context, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
  pcre2_set_offset_limit(scratch->context, a->window > FIRST_WINDOW ? a->at : PCRE2_UNSET);
  int found = pcre2_match(step->code, (PCRE2_SPTR)text, a->end, a->at, options, scratch->data, scratch->context);
  if (found == PCRE2_ERROR_JIT_STACKLIMIT)
    found = pcre2_match(step->code, (PCRE2_SPTR)text, a->end, a->at, options | PCRE2_NO_JIT, scratch->data,
                        scratch->context);
  return found;
}

static size_t next_character(const char *text, size_t length, size_t at) {
  do at++;
  while (at < length && ((unsigned char)text[at] & 0xC0) == 0x80);
  return at;
}

/* After an attempt that found no match: where and how the next one is made. */
static sluice_status *go_on(walk *w, int found, const char *text, size_t length, attempt *a) {
  const bool longer = a->window > FIRST_WINDOW;
  if (found == PCRE2_ERROR_NOMATCH) {
    if (longer) SLUICE_TRY(spend(w, a->end - a->at, a->at));
    begin(a, text, length, longer ? next_character(text, length, a->at) : a->end);
    return NULL;
  }
  if (found == PCRE2_ERROR_PARTIAL) {
    const size_t started = pcre2_get_ovector_pointer(w->scratch->data)[0];
    if (started > a->at) { /* nothing begins before that */
      begin(a, text, length, started);
      return NULL;
    }
    SLUICE_TRY(spend(w, a->end - a->at, a->at));
    set_window(a, text, length, 4 * a->window);
    return NULL;
  }
  if (found == PCRE2_ERROR_NOMEMORY) return sluice_out_of_memory();
  if (found != PCRE2_ERROR_MATCHLIMIT && found != PCRE2_ERROR_HEAPLIMIT && found != PCRE2_ERROR_DEPTHLIMIT)
    return sluice_error(SLUICE_INTERNAL, "PCRE2 fails with the error %d", found);
  SLUICE_TRY(spend(w, found == PCRE2_ERROR_MATCHLIMIT ? steps_of(a) : UINT64_MAX, a->at));
  a->steps_a_byte *= 8; /* within 32 bits: the cost is spent before */
  return NULL;
}

/* The first match at or after `at`; *start is `length` when there is none. */
static sluice_status *find(walk *w, const split_step *step, const char *text, size_t length, size_t at, size_t *start,
                           size_t *end) {
  attempt a;
  *start = *end = length;
  for (begin(&a, text, length, at); a.at < length;) {
    const int found = match(step, w->scratch, text, length, &a);
    if (found > 0) {
      const PCRE2_SIZE *places = pcre2_get_ovector_pointer(w->scratch->data);
      *start = places[0], *end = places[1];
      return a.window > FIRST_WINDOW ? spend(w, a.end - a.at, a.at) : NULL;
    }
    SLUICE_TRY(go_on(w, found, text, length, &a));
  }
  return NULL;
}

static sluice_status *cut(walk *w, size_t step, const char *text, size_t length);

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

static sluice_status *give(walk *w, size_t step, const char *text, const piece *p) {
  return p->end > p->start ? cut(w, step + 1, text + p->start, p->end - p->start) : NULL;
}

/* Takes the next part of the text, a match or what lies between two. */
static sluice_status *take(walk *w, size_t step, const char *text, size_t start, size_t end, bool matched, piece *p) {
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
static sluice_status *cut(walk *w, size_t step, const char *text, size_t length) {
  if (step == w->step_count) return w->sink(w->user, text, length);
  piece p = {0};
  for (size_t at = 0; at < length;) {
    size_t start, end;
    SLUICE_TRY(find(w, &w->steps[step], text, length, at, &start, &end));
    SLUICE_TRY(take(w, step, text, at, start, false, &p));
    SLUICE_TRY(take(w, step, text, start, end, true, &p));
    at = end;
  }
  return give(w, step, text, &p);
}

sluice_status *split_text(const split_step *steps, size_t step_count, split_scratch *scratch, const char *text,
                          size_t length, split_sink *sink, void *user) {
  walk w = {.steps = steps,
            .step_count = step_count,
            .scratch = scratch,
            .sink = sink,
            .user = user,
            .cost_left = (TEXT_COST + (uint64_t)TEXT_COST_A_BYTE * length) * (step_count + 1),
            .text_length = length};
  return length ? cut(&w, 0, text, length) : NULL;
}

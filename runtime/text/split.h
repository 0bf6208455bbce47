/* A step of the pre-tokenizer: cuts text where an expression matches. */
#ifndef SLUICE_TEXT_SPLIT_H
#define SLUICE_TEXT_SPLIT_H

#include "sluice/status.h"

#include <pcre2.h>
#include <stdbool.h>
#include <stddef.h>

/* What becomes of a match. */
typedef enum split_behavior {
  SPLIT_REMOVED,              /* it is dropped */
  SPLIT_ISOLATED,             /* a piece of its own */
  SPLIT_MERGED_WITH_PREVIOUS, /* joins the piece before it */
  SPLIT_MERGED_WITH_NEXT,     /* joins the piece after it */
  SPLIT_CONTIGUOUS,           /* joins matches that touch it; what is between matches is a piece */
} split_behavior;

typedef struct split_step {
  pcre2_code *code;
  split_behavior behavior;
  bool invert; /* what lies between matches is the match */
} split_step;

/* Compiles an expression written for Oniguruma (Ruby's syntax), as tokenizer.json has them. What PCRE2 would read
 * otherwise, and what could match nothing at all, is refused by name. */
SLUICE_MUST_USE sluice_status *split_compile(const char *expression, size_t length, pcre2_code **out_code);
/* Compiles a string to be found as it is. */
SLUICE_MUST_USE sluice_status *split_compile_literal(const char *string, size_t length, pcre2_code **out_code);

/* Scratch memory to match with; one thread at a time. */
typedef struct split_scratch {
  pcre2_match_data *data;
  pcre2_match_context *context;
  pcre2_jit_stack *stack;
} split_scratch;
SLUICE_MUST_USE sluice_status *split_scratch_create(split_scratch *scratch);
void split_scratch_free(split_scratch *scratch);

/* Gets each piece in order: never empty. */
typedef sluice_status *split_sink(void *user, const char *piece, size_t length);

/* Cuts `length` bytes of valid UTF-8 in `steps`, each cutting the pieces of the one before. */
SLUICE_MUST_USE sluice_status *split_text(const split_step *steps, size_t step_count, split_scratch *scratch,
                                          const char *text, size_t length, split_sink *sink, void *user);

#endif

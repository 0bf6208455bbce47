/* What a target can do: the legal values of every choice of a family, in one table. Configurations are checked against
 * it, kernel ops are verified against it, and a tuner's candidates are what `legal_enumerate` lists of it.
 *
 *     family  schedule   tile_m          slice           lanes           stages      ...
 *     gemm    stream     8, 16 ... 128   16, 32 ... 96   32, 64 ... 256  2 ... 6     fits(): what relates them
 *     gemm    turns      192             128, 256        384             2 ... 4
 *
 * A row stands for all combinations of its values that its `relate` allows. Knows neither LLVM nor MLIR.
 */
#ifndef BACKENDS_COMMON_LEGAL_H
#define BACKENDS_COMMON_LEGAL_H

#include "backends/common/configuration.h"

/* least, least + step, ... most; step 0 ends a list. */
typedef struct choice_values {
  kernel_choice choice;
  int64_t least, most, step;
} choice_values;

/* A choice that does not go with the others, and what would: `expected` and a number, as in "a multiple of", 8. Without
 * `expected` all is well. */
typedef struct illegal_choice {
  kernel_choice choice;
  const char *expected;
  int64_t number;
} illegal_choice;

enum { MOST_LEGAL = 10 };
typedef struct family_schedule {
  const char *family;
  kernel_schedule schedule;
  choice_values values[MOST_LEGAL]; /* of the family's other choices; 0 is the legal value of one that is not listed */
  /* What relates choices to each other and to the shape; NULL: nothing. Of a question without a shape (n and head_dim
   * 0, as where variants are read back from the IR) only what does not need one is looked at. */
  illegal_choice (*relate)(const char *target, const kernel_question *question, const int64_t choice[]);
} family_schedule;

/* Ends a table of them. */
#define NO_SCHEDULE {.family = NULL}

/* SLUICE_INVALID unless the target has the choices of `variant` for `question`; SLUICE_UNSUPPORTED: no such target. */
SLUICE_MUST_USE sluice_status *legal_check(const char *target, const kernel_question *question,
                                           const kernel_variant *variant);

/* Whether the target has kernels of the family with this schedule. */
bool legal_has(const char *target, const char *family, kernel_schedule schedule);

/* Calls `visit` for every legal combination of choices until it returns false: row by row of the table, the last choice
 * of a row first. Of a choice with more than 16 values those are taken that are about twice the one before, and the
 * last. `variant` has the question's sizes. Returns how many were visited. */
typedef bool legal_visit(const kernel_variant *variant, void *user);
size_t legal_enumerate(const char *target, const kernel_question *question, legal_visit *visit, void *user);

#endif

/* The configurations of a kernel that are worth timing. */
#ifndef COMPILER_CANDIDATES_H
#define COMPILER_CANDIDATES_H

#include "compiler/cost_model.h"

enum { MOST_CANDIDATES = 16 };

/* A kernel in one bucket of sizes. Candidate 0 is the target's default. */
typedef struct candidate_list {
  kernel_question question; /* for all sizes */
  cost_step step;           /* that stands for the bucket */
  size_t count;
  struct {
    kernel_variant variant; /* of the bucket's sizes */
    double seconds;         /* that the cost model expects */
  } item[MOST_CANDIDATES];
} candidate_list;

/* The default and the `most` - 1 legal configurations that the cost model likes best and that leave memory as the
 * default has it, for sizes [from, to]. Of configurations that differ in lanes and stages alone, at most two are taken.
 * No candidates: the target has no such kernel for these sizes, or nothing to choose in it. For experts the bucket is
 * cut to the default's range: all products of one sort have the same tiles. */
SLUICE_MUST_USE sluice_status *candidates_find(const char *target, const configuration *defaults,
                                               const machine_rates *rates, const kernel_question *question,
                                               uint32_t from, uint32_t to, const cost_step *step, size_t most,
                                               candidate_list *out);

#endif

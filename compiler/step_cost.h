/* What a step costs, from the cost records of a plan: bytes, FLOPs, and the least time that a machine of given rates
 * takes for them. A step's launches run one after another, so its time is the sum of theirs. */
#ifndef COMPILER_STEP_COST_H
#define COMPILER_STEP_COST_H

#include "compiler/links.h"
#include "sluice/plan.h"

typedef struct step_shape {
  uint64_t tokens, sequences, context; /* `tokens` in all; each sequence ends at `context` tokens */
  uint64_t keys;                       /* sum over the tokens of the keys each sees */
  uint64_t distinct_keys;              /* the same keys, counted once for each sequence */
} step_shape;

/* The tokens of each sequence are its last ones. At least a token for each sequence. */
step_shape step_shape_of(uint64_t tokens, uint64_t sequences, uint64_t context);
/* What the ranges and buffers of launches are of, see sluice_plan_launch. */
void step_sizes(const sluice_plan *plan, const step_shape *shape, int32_t out_sizes[SLUICE_SIZE_COUNT]);

typedef struct step_rates { /* 0: unknown */
  double bandwidth, flops;  /* bytes and FLOPs a second */
  links links;
} step_rates;

/* Of a launch or of many. The time is the sum of three: that of memory where it takes longer than arithmetic, that of
 * arithmetic elsewhere, and that of exchanges between ranks. */
typedef struct step_cost {
  double bytes, flops;
  double memory_seconds, arithmetic_seconds, links_seconds;
  uint64_t launches, exchanges;
} step_cost;

step_cost step_cost_of_launch(const sluice_plan *plan, const sluice_plan_launch *launch, const step_shape *shape,
                              const step_rates *rates);
void step_cost_add(step_cost *sum, const step_cost *one);
/* All launches of such a step. */
step_cost step_cost_of_step(const sluice_plan *plan, const step_shape *shape, const step_rates *rates);
double step_cost_seconds(const step_cost *cost);

/* Bytes on one device: weights, pages of the cache for `sequences` sequences of `context` tokens, and the arena for
 * steps of `tokens` tokens. */
typedef struct step_memory {
  uint64_t weights, cache, arena;
} step_memory;
step_memory step_memory_of(const sluice_plan *plan, uint64_t sequences, uint64_t context, uint64_t tokens);

#endif

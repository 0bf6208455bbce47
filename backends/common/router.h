/* What the router's kernels share: the order of preference among experts, and the sort of the slots by expert. */
#ifndef BACKENDS_COMMON_ROUTER_H
#define BACKENDS_COMMON_ROUTER_H

/* Behind the counts of a sort: numbers that the two products behind it may draw their work by, see docs/ir.md. */
enum { EXPERT_TICKETS = 2 };

#include "backends/common/emit.h"

/* Sets e->status unless 1 <= k <= experts and there are not too many of them. */
bool expert_counts_are_valid(emitter *e, const kernel_spec *spec, int64_t experts, int64_t k);

/* Keys order experts by preference: the selection score in the upper half, as an integer that orders like the float
 * with NaN below everything, and in the lower half the complement of the id. All keys differ, so no tie is left. f32
 * and i64, scalars or vectors. */
V expert_key(emitter *e, V biased, V id);
V expert_of_key(emitter *e, V key);

/* `sum`, or NaN where `key` is that of a NaN. No such expert need be among the chosen ones, so a token's sum of scores
 * also takes in this: that a gate or an activation is damaged shows in the weights, and so in the logits. Scalars. */
V keep_nan(emitter *e, V key, V sum);

/* The family router_logits: x, gate (rows f32), logits f32 [tokens][experts]. */
typedef struct router_logits {
  int64_t experts, width;
  sluice_dtype dtype; /* of x */
} router_logits;
bool read_router_logits(emitter *e, const kernel_spec *spec, router_logits *out);

/* A stable counting sort of the chosen slots by expert. With a shared expert each token has one slot more than it has
 * choices, its last; these slots follow all others, and need no sorting. */
typedef struct expert_sort {
  int64_t experts, k, tile_m;
  bool shared;
  V expert_of;            /* i32[tokens * k]: the choices */
  V counts, order, tiles; /* what it writes, see docs/ir.md */
  int64_t most;           /* choices at most; 0: not known */
  V next;                 /* its workgroup memory, i32[experts]: choices of an expert, then its next place */
  V tokens, chosen;       /* choices of all tokens */
} expert_sort;

/* The attributes; sets e->status when they make no sense. */
expert_sort read_expert_sort(emitter *e, const kernel_spec *spec);
void sort_slots(emitter *e, expert_sort *o);

#endif

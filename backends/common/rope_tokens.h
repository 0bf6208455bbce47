/* The second kernel of norm_rope_append, for steps of many tokens: a workgroup has a token. */
#ifndef BACKENDS_COMMON_ROPE_TOKENS_H
#define BACKENDS_COMMON_ROPE_TOKENS_H

#include "backends/common/families.h"

/* Heads of a token that are treated alike and lie beside each other in the projection. */
typedef struct head_group {
  int64_t count;
  V norm; /* [dim] offsets of the norm's weights, or NULL: not normed */
  bool rotated;
  V to;            /* the first one's first element at the destination */
  int64_t to_step; /* elements from a head to the next */
  int64_t stride;  /* elements between neighbours of a head */
} head_group;

/* All heads have `dim` dimensions, the first `rotary_dim` of which are rotated; `from` is the token's projection,
 * `table` its row of the rope table. */
typedef struct head_sizes {
  sluice_dtype dtype, weight_dtype;
  int64_t dim, rotary_dim;
  double epsilon;
  V from, table;
} head_sizes;

/* Lanes of a workgroup that has a token; 0: the heads do not come out even among the lanes of this target. */
unsigned token_lanes(const emitter *e, int64_t dim, int64_t rotary_dim);

/* The groups' heads go around the waves. What a wave reads it asks for before it works on any of it. Sums are those of
 * the kernel that has a wave for each head, bit for bit. */
void move_token_heads(emitter *e, const head_sizes *sizes, const head_group *groups, unsigned count);

#endif

/* The whole text model in float64, written from the model's specification alone and shared by no kernel: what the tests
 * compare the compiled models with. Plain loops; the only liberty is a dot product with eight partial sums.
 *
 * Everything is float64 except the angle of the rotary embedding, which the model defines as a product of two float32
 * numbers, rounded to float32.
 */
#ifndef TESTS_SUPPORT_REFERENCE_H
#define TESTS_SUPPORT_REFERENCE_H

#include "sluice/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct reference_layer {
  bool sparse_attention;
  int64_t index_dim, block, top_k_blocks, init_blocks, local_blocks; /* when sparse_attention; kv_heads index heads */
  bool moe;
  int64_t experts, experts_per_token, expert_width, shared_width; /* when moe; shared_width 0: no shared expert */
  double routed_scale;
  int64_t dense_width; /* when not moe */
} reference_layer;

typedef struct reference_dims {
  int64_t hidden, layers, heads, kv_heads, head_dim, vocabulary, rotary_dim;
  double eps, rope_theta, swiglu_alpha, swiglu_limit;
  const reference_layer *layer; /* `layers` of them; must outlive the model */
} reference_dims;

/* Fills `out` with the row-major elements of the checkpoint tensor `name`. */
typedef void reference_weights(void *user, const char *name, const int64_t *shape, unsigned rank, float *out);

/* reference_weights of the synthetic checkpoint; `user` points to its seed, a uint64_t. */
void reference_synthetic(void *user, const char *name, const int64_t *shape, unsigned rank, float *out);

typedef struct reference_model reference_model;
reference_model *reference_create(const reference_dims *dims, reference_weights *weights,
                                  void *user); /* NULL: memory */
void reference_free(reference_model *model);

/* What one layer of one sequence did; every array has a row for each token of the sequence. */
typedef struct reference_trace {
  double *out;           /* [T][hidden]: the residual stream after the layer */
  int32_t *blocks;       /* [T][kv_heads][top_k_blocks], ascending, -1 tail; NULL without sparse attention */
  double *block_margin;  /* [T][kv_heads]: score of the worst block chosen freely minus that of the best one left out;
                            INFINITY when there was nothing to choose */
  int32_t *experts;      /* [T][experts_per_token], ascending; NULL without experts */
  double *weights;       /* [T][experts_per_token], of those experts */
  double *expert_margin; /* [T], likewise, of sigmoid + bias */
} reference_trace;

typedef struct reference_sequence {
  const reference_model *model;
  int64_t length, capacity;
  double *logits;         /* [T][vocabulary] */
  reference_trace *layer; /* one for each layer */
  struct reference_cache *cache;
} reference_sequence;

/* An empty sequence of at most `capacity` tokens; NULL when memory is short. */
reference_sequence *reference_sequence_create(const reference_model *model, int64_t capacity);
void reference_sequence_free(reference_sequence *sequence);

/* Feeds `count` more tokens (a prompt, or one token of decoding). */
void reference_feed(reference_sequence *sequence, const int32_t *tokens, int64_t count);

/* The greedy token after position `position`: the largest logit, then the lowest id. */
int32_t reference_greedy(const reference_sequence *sequence, int64_t position);

#endif

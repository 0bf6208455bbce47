/* Small models with random dimensions, compiled in this process and compared with the float64 reference. */
#ifndef TESTS_RANDOM_MODEL_H
#define TESTS_RANDOM_MODEL_H

#include "kernel_support/kernel_harness.h"
#include "sluice/runtime.h"
#include "support/reference.h"

enum { RANDOM_LAYERS = 4, RANDOM_SEQUENCES = 3 };

typedef struct random_model {
  reference_dims dims;
  reference_layer layers[RANDOM_LAYERS];
  uint64_t seed; /* of the synthetic weights */
  char description[256];
  sluice_text config; /* config.json as the released checkpoints spell it */
  reference_model *reference;
  reference_sequence *sequence[RANDOM_SEQUENCES]; /* fed with `tokens` */
  int32_t *tokens[RANDOM_SEQUENCES];
  int64_t length[RANDOM_SEQUENCES];
} random_model;

/* Fills in a model that depends on `number` alone, and runs the reference on three sequences of random tokens: long
 * enough that blocks are left out where the dimensions allow it in less than 500 tokens. */
void random_model_create(random_model *model, uint64_t number);
void random_model_free(random_model *model);

/* Compiles for the host in float32 without the passes `disabled`, and loads the synthetic weights. */
sluice_model *random_model_compile(const random_model *model, const char *const *disabled, size_t disabled_count);

/* How comparisons went, summed up over calls of random_model_check. A selection that differs from the reference must be
 * a near-tie there; what depends on it is then skipped. */
typedef struct random_model_counts {
  uint64_t rows, selections, near_ties, skipped_rows;
  double worst_logit;
} random_model_counts;

/* Feeds `sequences` (1 to 3) of the sequences, each in chunks of 1 to `chunk` tokens of random length (0: at once), all
 * together in ragged steps, and compares every logit (1e-4), every layer's output, every block, expert and weight. */
void random_model_check(const random_model *model, sluice_model *compiled, int sequences, uint32_t chunk,
                        random_model_counts *counts);

#endif

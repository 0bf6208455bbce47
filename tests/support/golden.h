/* A golden file of a whole model: what transformers said for a prompt and some decoded tokens. */
#ifndef TEST_SUPPORT_GOLDEN_H
#define TEST_SUPPORT_GOLDEN_H

#include "sluice/checkpoint.h"
#include "sluice/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct golden {
  sluice_safetensors *file;
  const int32_t *ids, *tokens; /* of the prompt; decoded, the first one by the prompt */
  const float *prefill;        /* logits of the prompt's last `rows` tokens, [rows][vocabulary] */
  const float *decode;         /* [steps][vocabulary] */
  uint32_t prompt, rows, steps, vocabulary;
} golden;

SLUICE_MUST_USE sluice_status *golden_open(golden *g, const char *path);
void golden_close(golden *g);
/* A tensor of the file; an error when there is none. `out_info` may be NULL. */
SLUICE_MUST_USE sluice_status *golden_tensor(const golden *g, const char *name, const sluice_tensor_info **out_info,
                                             const void **out_data);
/* Whether both lists hold the same numbers as often. */
bool golden_same_set(const int32_t *a, const int32_t *b, uint32_t count);

#endif

/* Log-probabilities of the tokens that were chosen, and of the likeliest beside them. */
#ifndef SLUICE_TOOLS_LOGPROBS_H
#define SLUICE_TOOLS_LOGPROBS_H

#include "sluice/json.h"

#define LOGPROBS_MOST 20

/* Appends {"id": T, "logprob": L, "top": [[id, logprob], ...]} with the `count` likeliest tokens of a row of logits,
 * likeliest first and of equal ones the lowest id: natural logarithms of the softmax at temperature 1. */
void logprobs_append(const float *logits, uint32_t vocabulary, int32_t token, uint32_t count, sluice_text *out);

#endif

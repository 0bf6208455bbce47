/* Log-probabilities in the JSON of generate and chat. */
#ifndef SLUICE_TOOLS_LOGPROBS_H
#define SLUICE_TOOLS_LOGPROBS_H

#include "sluice/runtime.h"

/* Appends {"id": T, "logprob": L, "top": [[id, logprob], ...]} for the chosen token T. */
void logprobs_append(const sluice_logprobs *logprobs, int32_t token, sluice_text *out);

#endif

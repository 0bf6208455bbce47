#include "runtime/tools/sampling.h"

#include <float.h>

sluice_status *tool_sampling_check(const tool_sampling *s, bool json) {
  for (size_t i = 0; i < s->stops.count; i++)
    if (!s->stops.items[i][0]) return sluice_error(SLUICE_USAGE, "--stop: an empty text would stop at once");
  if (s->logprobs > SLUICE_MOST_LOGPROBS)
    return sluice_error(SLUICE_USAGE, "--logprobs must lie in 0 .. %u", SLUICE_MOST_LOGPROBS);
  if (s->logprobs && !json) return sluice_error(SLUICE_USAGE, "--logprobs needs --json");
  if (s->top_k > INT32_MAX && s->top_k != TOOL_NOT_GIVEN_COUNT)
    return sluice_error(SLUICE_USAGE, "--top-k must lie in 0 .. %d", INT32_MAX);
  if (!isnan(s->top_p) && !(s->top_p >= 0 && s->top_p <= 1))
    return sluice_error(SLUICE_USAGE, "--top-p must lie in 0 .. 1");
  if (!isnan(s->min_p) && !(s->min_p >= 0 && s->min_p <= 1))
    return sluice_error(SLUICE_USAGE, "--min-p must lie in 0 .. 1");
  if (!isnan(s->repetition_penalty) && !(s->repetition_penalty >= 0.001 && s->repetition_penalty <= 1000))
    return sluice_error(SLUICE_USAGE, "--repetition-penalty must lie in 0.001 .. 1000");
  if (fabs(s->presence_penalty) > 1000 || fabs(s->frequency_penalty) > 1000)
    return sluice_error(SLUICE_USAGE, "--presence-penalty and --frequency-penalty must lie in -1000 .. 1000");
  return NULL;
}

void tool_sampling_set_defaults(tool_sampling *s, const generation_config *config) {
  if (isnan(s->temperature)) s->temperature = config->temperature;
  if (isnan(s->top_p)) s->top_p = config->top_p;
  if (isnan(s->min_p)) s->min_p = config->min_p;
  if (isnan(s->repetition_penalty)) s->repetition_penalty = config->repetition_penalty;
  if (s->top_k == TOOL_NOT_GIVEN_COUNT) s->top_k = config->top_k;
}

sluice_sampling tool_sampling_values(const tool_sampling *s) {
  return (sluice_sampling){.temperature = (float)s->temperature,
                           .top_p = fmaxf((float)s->top_p, FLT_MIN), /* 0 is "off" there */
                           .top_k = (int32_t)s->top_k,
                           .seed = s->seed,
                           .min_p = (float)s->min_p,
                           .repetition_penalty = (float)s->repetition_penalty,
                           .presence_penalty = (float)s->presence_penalty,
                           .frequency_penalty = (float)s->frequency_penalty,
                           .logprobs = (uint32_t)s->logprobs};
}

bool tool_sampling_has_penalties(const tool_sampling *s) {
  return s->repetition_penalty != 1 || s->presence_penalty != 0 || s->frequency_penalty != 0;
}

/* How tokens are chosen and where an answer ends: the options that generate and chat share. */
#ifndef SLUICE_TOOLS_SAMPLING_H
#define SLUICE_TOOLS_SAMPLING_H

#include "runtime/tools/generation_config.h"
#include "runtime/tools/options.h"

#include <math.h>

typedef struct tool_sampling {
  double temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
  uint64_t top_k, seed, logprobs;
  tool_list stops; /* texts */
} tool_sampling;

/* What an option that was not given holds, until generation_config.json fills it. */
#define TOOL_NOT_GIVEN_COUNT UINT64_MAX
#define TOOL_SAMPLING_NOT_GIVEN                                                                                        \
  {.temperature = (double)NAN,                                                                                         \
   .top_p = (double)NAN,                                                                                               \
   .min_p = (double)NAN,                                                                                               \
   .repetition_penalty = (double)NAN,                                                                                  \
   .top_k = TOOL_NOT_GIVEN_COUNT}

#define TOOL_SAMPLING_OPTIONS(s)                                                                                       \
  {"--stop", TOOL_LIST, &(s).stops, "TEXT", "end where the new text has this; may be given 16 times"},                 \
      {"--temperature", TOOL_REAL, &(s).temperature, "X", "0: the most likely token"},                                 \
      {"--top-p", TOOL_REAL, &(s).top_p, "X",                                                                          \
       "draw from the most likely tokens that reach probability X (1: all; 0: the most likely one)"},                  \
      {"--top-k", TOOL_COUNT, &(s).top_k, "N", "draw from the N most likely tokens (0: all)"},                         \
      {"--min-p", TOOL_REAL, &(s).min_p, "X", "leave out tokens less likely than X times the likeliest (0: none)"},    \
      {"--repetition-penalty", TOOL_REAL, &(s).repetition_penalty, "X",                                                \
       "divide positive logits of tokens seen in prompt and output by X, multiply others (1: off)"},                   \
      {"--presence-penalty", TOOL_REAL, &(s).presence_penalty, "X",                                                    \
       "subtract X from logits of tokens generated before"},                                                           \
      {"--frequency-penalty", TOOL_REAL, &(s).frequency_penalty, "X", "subtract X for each time they were"},           \
      {"--logprobs", TOOL_COUNT, &(s).logprobs, "N", "with --json: log-probabilities, and of the N likeliest tokens"}, \
      {"--seed", TOOL_COUNT, &(s).seed, "N", "of the random numbers (0)"}

/* Refuses values out of range. `json`: whether --json was given, which --logprobs needs. */
SLUICE_MUST_USE sluice_status *tool_sampling_check(const tool_sampling *sampling, bool json);

/* Options that were not given become what the model's makers advise. */
void tool_sampling_set_defaults(tool_sampling *sampling, const generation_config *config);

/* For sluice_chunk; `seen` stays empty. */
sluice_sampling tool_sampling_values(const tool_sampling *sampling);
bool tool_sampling_has_penalties(const tool_sampling *sampling);

#endif

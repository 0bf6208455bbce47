/* generation_config.json beside the weights: how a model's makers would have it sampled, and where it stops. */
#ifndef SLUICE_TOOLS_GENERATION_CONFIG_H
#define SLUICE_TOOLS_GENERATION_CONFIG_H

#include "sluice/json.h"
#include "sluice/runtime.h"

#define GENERATION_MAX_STOP_IDS 64

/* Values that the file does not have are as if no sampling were asked for. */
typedef struct generation_config {
  double temperature;        /* 0: greedy, as without "do_sample" */
  double top_p, min_p;       /* 1, 0: off */
  uint64_t top_k;            /* 0: off */
  double repetition_penalty; /* 1: off */
  int32_t stop_ids[GENERATION_MAX_STOP_IDS];
  uint32_t stop_id_count;
  bool has_stop_ids; /* "eos_token_id" is there: it counts instead of the bundle's stop ids */
} generation_config;

/* Reads generation_config.json in the folder `weights` (or the folder of that file); without one, all is off. */
SLUICE_MUST_USE sluice_status *generation_config_read(const char *weights, generation_config *out_config);

/* Whether `token` ends an answer: one of the file's stop ids, or of the bundle's where the file names none. An error
 * when the bundle's are no list. */
SLUICE_MUST_USE sluice_status *generation_stops(const sluice_model *model, const generation_config *config,
                                                int32_t token, bool *out_stop);

#endif

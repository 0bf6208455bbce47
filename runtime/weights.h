/* Loading weights: what its files know of each other. */
#ifndef SLUICE_RUNTIME_WEIGHTS_H
#define SLUICE_RUNTIME_WEIGHTS_H

#include "runtime/model.h"

#define SLUICE_MAX_TENSOR_NAME 1024

/* The checkpoint's name of `source` for one expert of `weight`: "{expert}" replaced by its number. */
SLUICE_MUST_USE sluice_status *sluice_weight_tensor_name(const sluice_plan *plan, const sluice_plan_weight *weight,
                                                         const sluice_plan_source *source, uint32_t expert,
                                                         char out_name[SLUICE_MAX_TENSOR_NAME]);

/* Makes all weights of "synthetic:SEED" on the device, in `memory` of model->weight_bytes. */
SLUICE_MUST_USE sluice_status *sluice_synthesize(sluice_model *model, uint64_t seed, char *memory,
                                                 sluice_progress *progress, void *user);

#endif

/* Loading weights: what its files know of each other. */
#ifndef SLUICE_RUNTIME_WEIGHTS_H
#define SLUICE_RUNTIME_WEIGHTS_H

#include "runtime/model.h"
#include "runtime/tensor_names.h"

/* Makes all weights of "synthetic:SEED" on the device, in `memory` of model->weight_bytes. */
SLUICE_MUST_USE sluice_status *sluice_synthesize(sluice_model *model, uint64_t seed, char *memory,
                                                 sluice_progress *progress, void *user);

#endif

/* What the parts of the runtime know of a model. */
#ifndef SLUICE_RUNTIME_MODEL_H
#define SLUICE_RUNTIME_MODEL_H

#include "runtime/collectives.h"
#include "runtime/device.h"
#include "sluice/runtime.h"

struct sluice_model {
  sluice_bundle *bundle;
  sluice_json_document *manifest;
  sluice_plan plan;
  sluice_device *device;
  sluice_loaded_code *code;
  sluice_group *group; /* the ranks that share the model, the caller's; NULL: there is one */
  char target[33];
  double device_seconds; /* what opening the device took */

  uint64_t weight_bytes; /* of all weights of the plan */
  char *weights;         /* device memory, the plan's weights one after another; NULL until loaded */
  uint64_t *offsets;     /* of each weight in it */
  char *skipped;         /* what sluice_model_skipped says */
};

static inline uint32_t model_rank(const sluice_model *model) {
  return model->group ? model->group->rank : 0;
}

/* A clock that only goes forward. */
double sluice_seconds(void);

#endif

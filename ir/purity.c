/* Effects. IRDL has no traits, so that MLIR's own passes know nothing of our ops; this is the one place that does. */
#include "ir/ir.h"

#include <string.h>

/* Ops without another effect than their results. Those that read the cache are among them: what they read is a value
 * (docs/ir.md). Not here: what writes the cache, observers, collectives (every rank must take part), launches,
 * terminators. */
static const char *const pure[] = {
    "kernel.arena",
    "kernel.cache",
    "kernel.input",
    "kernel.none",
    "kernel.output",
    "kernel.weight",
    "model.add",
    "model.attention",
    "model.block_attention",
    "model.block_max",
    "model.combine",
    "model.concat_weights",
    "model.embed",
    "model.expert_linear",
    "model.experts",
    "model.experts_shared",
    "model.head_norm",
    "model.index_score",
    "model.index_select",
    "model.linear",
    "model.linear_add",
    "model.linear_swiglu",
    "model.lm_head",
    "model.rms_norm",
    "model.rope",
    "model.rope_table",
    "model.router",
    "model.sample",
    "model.select_attention",
    "model.select_rows",
    "model.slice",
    "model.swiglu_oai",
    "model.topk_blocks",
    "model.topk_experts",
    "model.weight",
};

bool ir_is_pure(MlirOperation operation) {
  MlirStringRef name = ir_name(operation);
  size_t low = 0, high = sizeof pure / sizeof pure[0];
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    size_t length = strlen(pure[middle]);
    int order = memcmp(name.data, pure[middle], name.length < length ? name.length : length);
    if (order == 0) order = name.length < length ? -1 : name.length > length;
    if (order == 0) return true;
    if (order < 0)
      high = middle;
    else
      low = middle + 1;
  }
  return false;
}

/* All passes, in the order of the standard pipeline. The only place that says what exists and in which order. */
#include "passes/fusions.h"

#include <string.h>

const pass_description pass_table[] = {
    {"partition", "what each of several ranks has of the model", false, pass_partition},
    {"canonicalise", "folds slices, orders the operands of add, drops collectives of one", true, pass_canonicalise},
    {"cse", "merges equal pure ops", true, pass_eliminate_common},
    {"fuse-projections", "q, k, v and the index projections of a layer as one product", true, pass_fuse_projections},
    {"fuse-norm-rope-append", "head norms, rotations and cache appends of a layer as one op", true,
     pass_fuse_norm_rope_append},
    {"fuse-epilogues", "addition and activation inside the product before them", true, pass_fuse_epilogues},
    {"fuse-index-select", "block selection without token scores in memory", true, pass_fuse_index_select},
    {"fuse-select-attend", "block selection inside the attention over the blocks", true, pass_fuse_select_attend},
    {"fuse-router", "router product and expert selection as one op", true, pass_fuse_router},
    {"fuse-experts", "expert products, activation, weighted sum and residual as one op", true, pass_fuse_experts},
    {"fold-shared-expert", "the shared expert as one more of the routed experts", true, pass_fold_shared_expert},
    {"dce", "drops pure ops without uses", true, pass_eliminate_dead},
    {"choose-tiles", "chooses tile sizes for the target", false, pass_choose_tiles},
    {"plan-buffers", "gives every value its place in the arena", false, pass_plan_buffers},
    {"lower-to-kernels", "turns model ops into kernel launches", false, pass_lower_to_kernels},
    {"fuse-route", "choice and sort of experts as one launch in small steps", true, pass_fuse_route},
    {"join-launches", "launches that follow each other as parts of one, in small steps", true, pass_join_launches},
    {NULL, NULL, false, NULL},
};

const pass_description *pass_find(const char *name) {
  for (const pass_description *pass = pass_table; pass->name; pass++)
    if (strcmp(pass->name, name) == 0) return pass;
  return NULL;
}

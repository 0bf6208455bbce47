/* The passes around the lowering, each in the file of its name; docs/ir.md says what each matches and makes. */
#ifndef PASSES_FUSIONS_H
#define PASSES_FUSIONS_H

#include "passes/passes.h"

bool pass_canonicalise(pass_state *state, MlirModule module);
bool pass_eliminate_common(pass_state *state, MlirModule module);
bool pass_partition(pass_state *state, MlirModule module);
bool pass_eliminate_dead(pass_state *state, MlirModule module);
bool pass_fuse_projections(pass_state *state, MlirModule module);
bool pass_fuse_norm_rope_append(pass_state *state, MlirModule module);
bool pass_fuse_epilogues(pass_state *state, MlirModule module);
bool pass_fuse_index_select(pass_state *state, MlirModule module);
bool pass_fuse_select_attend(pass_state *state, MlirModule module);
bool pass_fuse_router(pass_state *state, MlirModule module);
bool pass_fuse_experts(pass_state *state, MlirModule module);
bool pass_fold_shared_expert(pass_state *state, MlirModule module);
bool pass_fuse_route(pass_state *state, MlirModule module); /* of kernel ops */

bool pass_join_launches(pass_state *state, MlirModule module); /* likewise */

#endif

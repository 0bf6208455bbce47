/* Kernel variants (backends/common/configuration.h) as attributes of model ops:
 *
 *     tile.variants = [{from = 0 : i64, slice = 96 : i64, tile_m = 8 : i64, to = 8 : i64, workgroups = 132 : i64}, ...]
 *
 * `panel`, `group`, `split` and `query_tile` are the same for all variants, since memory depends on them, and have
 * attributes of their own: tile.panel, tile.group, tile.split, tile.query. */
#ifndef PASSES_VARIANTS_H
#define PASSES_VARIANTS_H

#include "backends/common/configuration.h"
#include "passes/passes.h"

/* Asks the pass's configuration; false when the pass has failed. */
bool variants_find(pass_state *state, MlirOperation op, const kernel_question *question, kernel_variants *out);

/* A choice's value as an attribute: an i64, of a schedule its name. */
MlirAttribute variant_attribute(pass_state *state, kernel_choice choice, int64_t value);

/* Writes the choices of `family`. */
void variants_write(pass_state *state, MlirOperation op, const char *name, const char *family,
                    const kernel_variants *variants);

/* Reads and checks them; false when the pass has failed, also when there is no such attribute. */
bool variants_read(pass_state *state, MlirOperation op, const char *name, const char *family, kernel_variants *out);

/* Rows of partial results that there is room for where workgroups share the keys of dense attention; 0: none do. */
int64_t variants_partial_rows(const kernel_variants *variants);

#endif

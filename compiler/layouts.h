/* `sluice explain --parallel auto`: which layout suits the devices and the load that there are. */
#ifndef COMPILER_LAYOUTS_H
#define COMPILER_LAYOUTS_H

#include "compiler/compile.h"
#include "compiler/inspect.h"
#include "compiler/products.h"
#include "compiler/step_cost.h"

/* How a model is compiled for `ranks` machines of a kind, when nothing else is asked for. */
compile_options layout_options(const product *machine, int64_t ranks);

/* Every number of ranks that divides the devices, as often as it fits into them: each copy of the model takes an equal
 * part of the sequences, and the time of a step is that of the copy with the most. Appends a line or a JSON object for
 * each; a layout that the model does not allow has its reason instead of figures. */
SLUICE_MUST_USE sluice_status *layouts_write(const model_config *config, const product *machine,
                                             const step_rates *rates, const explain_options *options, sluice_text *out);

#endif

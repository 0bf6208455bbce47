/* What a kernel in a configuration is expected to take: good enough to say which few of many hundreds are worth timing.
 * Knows the target's facts and a machine's rates; no GPU is needed. docs/tuning.md has the formulas. */
#ifndef COMPILER_COST_MODEL_H
#define COMPILER_COST_MODEL_H

#include "backends/common/configuration.h"
#include "compiler/products.h"

typedef struct machine_rates {
  double read_bytes;      /* a second, that kernels read from memory */
  double matrix_flops;    /* a second, that kernels reach with matrix instructions */
  double launch_seconds;  /* of a launch in a graph, beyond its work */
  double latency_seconds; /* from asking memory to the answer */
} machine_rates;

/* Of a machine by name, from its data sheet: kernels reach 87 % of its memory and 80 % of its arithmetic. NULL: a host.
 */
machine_rates machine_rates_of(const product *p);

/* Takes from the file that `sluice-run calibrate` wrote what it has measured; the rest of `out` stays. */
SLUICE_MUST_USE sluice_status *machine_rates_read(const char *path, machine_rates *out);

/* A step that a kernel is asked about. */
typedef struct cost_step {
  uint32_t tokens, sequences, context; /* all new tokens; tokens of each sequence that are in the cache already */
} cost_step;

/* Seconds of one launch. */
double cost_of_variant(const target_facts *facts, const machine_rates *rates, const kernel_question *question,
                       const kernel_variant *variant, const cost_step *step);

#endif

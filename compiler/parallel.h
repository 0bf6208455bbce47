/* Layouts of a model that several ranks share, as --parallel says them. */
#ifndef COMPILER_PARALLEL_H
#define COMPILER_PARALLEL_H

#include "sluice/status.h"

#include <stdint.h>

/* "tp=N", N from 2 on: N ranks split heads, widths and vocabulary. NULL: one rank has everything. */
SLUICE_MUST_USE sluice_status *parallel_parse(const char *text, int64_t *out_ranks);

#endif

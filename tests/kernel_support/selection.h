/* The selection of blocks as the specification words it (m3.md 2.8), for tests of the kernels that select. */
#ifndef TESTS_SELECTION_H
#define TESTS_SELECTION_H

#include <stdint.h>

/* Marks the forced blocks, then repeatedly takes the best that is left: k ascending ids of `visible` blocks, -1 behind
 * them. */
void reference_selection(const double *scores, int64_t visible, int64_t k, int64_t init, int64_t recent, int32_t *list);

#endif

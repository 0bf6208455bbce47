/* "Did you mean ...?": the nearest of some names. */
#ifndef COMPILER_SUGGEST_H
#define COMPILER_SUGGEST_H

#include <stddef.h>

/* Number of single-character insertions, deletions and replacements between two names (Levenshtein distance). Names
 * longer than 63 bytes count as infinitely far. */
unsigned suggest_distance(const char *a, const char *b);

/* The name nearest to `name`, NULL when none is near enough to be meant (more than a third of its characters differ).
 * `names[i]` is read through `stride` bytes, so that a table of structures that start with a name can be searched; the
 * first of equally near ones is taken. */
const char *suggest_nearest(const char *name, const void *names, size_t count, size_t stride);

#endif

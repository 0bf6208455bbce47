/* Reading whole input files. */
#ifndef COMPILER_INPUT_H
#define COMPILER_INPUT_H

#include "sluice/status.h"

/* All bytes of `path` ("-": standard input), freed with sluice_release. A file of more than `limit` bytes is refused.
 */
SLUICE_MUST_USE sluice_status *input_read(const char *path, size_t limit, char **out_data, size_t *out_length);

#endif

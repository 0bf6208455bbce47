/* Temporary files for the programs that backends run (ld.lld, ptxas). */
#ifndef BACKENDS_COMMON_TOOL_H
#define BACKENDS_COMMON_TOOL_H

#include "sluice/status.h"

#include <stddef.h>

/* Creates `path`, which must not exist yet. */
SLUICE_MUST_USE sluice_status *tool_write_file(const char *path, const void *data, size_t length);
/* Reads all of `path`; free *out_data with sluice_release. */
SLUICE_MUST_USE sluice_status *tool_read_file(const char *path, void **out_data, size_t *out_length);

#endif

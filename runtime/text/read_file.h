/* Whole files in memory. */
#ifndef SLUICE_TEXT_READ_FILE_H
#define SLUICE_TEXT_READ_FILE_H

#include "sluice/json.h"

#define READ_FILE_MAX_BYTES ((size_t)1 << 30)

/* Appends the file at `path`; "-" is standard input. Free `out` after errors too. */
SLUICE_MUST_USE sluice_status *read_file(const char *path, sluice_text *out);

#endif

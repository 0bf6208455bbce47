/* Programs that backends run: linkers, assemblers.
 *
 * Their files have no names: they lie in memory and are descriptors that the program inherits and opens as
 * /proc/self/fd/N. So there is nothing to remove, whatever ends whom, and no directory that must be writable.
 */
#ifndef BACKENDS_COMMON_TOOL_H
#define BACKENDS_COMMON_TOOL_H

#include "sluice/status.h"

#include <stddef.h>

typedef struct tool_file {
  int descriptor; /* -1: none */
  char name[32];  /* "/proc/self/fd/7" */
} tool_file;

/* A file with `length` bytes of `data`. tool_file_close in any case, a file that was never made included. */
SLUICE_MUST_USE sluice_status *tool_file_create(tool_file *out_file, const void *data, size_t length);
void tool_file_close(tool_file *file);
/* All of it, with a NUL behind that is not counted; free *out_data with sluice_release. */
SLUICE_MUST_USE sluice_status *tool_file_read(const tool_file *file, void **out_data, size_t *out_length);

/* Runs `program` with `arguments` (NULL at the end) and waits. It inherits `files`; what it prints goes to `output` and
 * `errors`, which may be one. Its working directory is /proc, in which it can make nothing. A failure is reported with
 * the start of `errors`: as SLUICE_INTERNAL, since the input was ours, unless memory was short. */
SLUICE_MUST_USE sluice_status *tool_run(const char *program, char *const *arguments, const tool_file *files,
                                        size_t count, const tool_file *output, const tool_file *errors);

/* Links `objects` with ld.lld to a shared object without dependencies; free *out_data with sluice_release. `name` is
 * its soname, NULL: none. */
SLUICE_MUST_USE sluice_status *tool_link(const char *name, void *const *objects, const size_t *lengths, size_t count,
                                         void **out_data, size_t *out_length);

#endif

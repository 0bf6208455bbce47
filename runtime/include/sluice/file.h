/* Files that appear under their name only when they are complete: the data goes to a new file beside it, which is
 * synced and renamed at the end.
 */
#ifndef SLUICE_FILE_H
#define SLUICE_FILE_H

#include "sluice/status.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sluice_pending_file {
  char *path;      /* the final name */
  char *temporary; /* where the data goes until then */
  int file;        /* descriptor, -1 when not open */
} sluice_pending_file;

/* Creates the temporary file. On an error nothing is left behind and nothing needs to be closed. */
SLUICE_MUST_USE sluice_status *sluice_pending_open(sluice_pending_file *pending, const char *path);

SLUICE_MUST_USE sluice_status *sluice_pending_write(sluice_pending_file *pending, const void *data, size_t bytes);

/* Syncs and renames the file when `status` is NULL, removes it otherwise; frees what sluice_pending_open took. Returns
 * `status`, or the error of finishing. */
SLUICE_MUST_USE sluice_status *sluice_pending_close(sluice_pending_file *pending, sluice_status *status);

/* Removes the file and frees what sluice_pending_open took. */
void sluice_pending_discard(sluice_pending_file *pending);

#ifdef __cplusplus
}
#endif
#endif

/* What `sluice` and `sluice-run` do first and last. It changes the process (signals, descriptors, streams), so
 * libraries do not call it; another program may. */
#ifndef SLUICE_PROGRAM_H
#define SLUICE_PROGRAM_H

#include "sluice/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* To be called before anything is opened and before there are threads.
 * - A standard stream that is closed gets a descriptor on which reading and writing fail. Otherwise the next file to be
 *   opened would take its number, and messages would end up in it.
 * - Writing to a closed pipe or beyond the limit of a file's size is an error, not a signal.
 * - SIGHUP, SIGINT, SIGQUIT, SIGTERM and SIGXCPU remove temporary files (sluice/file.h) before they end the program as
 *   they would have anyway; one that was ignored stays ignored. */
SLUICE_MUST_USE sluice_status *sluice_program_begin(void);

/* Closes standard output: what could not be written to it is an error like any other, if `status` is none yet. Prints
 * and frees `status`; returns the exit code. */
int sluice_program_end(sluice_status *status);

#ifdef __cplusplus
}
#endif
#endif

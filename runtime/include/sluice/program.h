/* What `sluice` and `sluice-run` do first and last. It changes the process (signals, descriptors, streams), so
 * libraries do not call it; another program may. */
#ifndef SLUICE_PROGRAM_H
#define SLUICE_PROGRAM_H

#include "sluice/status.h"

#include <stddef.h>
#include <stdint.h>

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

/* ---- A program that holds a bundle (docs/bundle-format.md, "Programs") ---- */

/* The program's own length when `data` is an ELF file of this kind of machine: where its last table, section or segment
 * ends, which is beyond `length` when the file was cut short. 0 when it is something else. */
uint64_t sluice_program_length(const void *data, size_t length);
/* The same for an open file. */
uint64_t sluice_program_length_in_file(int file, uint64_t length);

/* What sluice-run has among its constants, once, and what becomes of it when a bundle is put behind it; so a program
 * knows that it lost its bundle. */
#define SLUICE_PROGRAM_MARK "sluice program, bundle: outside"
#define SLUICE_PROGRAM_MARK_WITH_BUNDLE "sluice program, bundle: inside."

#ifdef __cplusplus
}
#endif
#endif

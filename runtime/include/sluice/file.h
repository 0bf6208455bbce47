/* Files: reading one whole, and output files.
 *
 * An output file appears under its name only when it is complete: the data goes to a new file in the same directory,
 * named
 * ".sluice-*.tmp", which is synced and renamed at the end. Symbolic links are followed, so the link stays and the file
 * it leads to is replaced; that file's permission bits are kept. What is no regular file (/dev/null, a pipe, a
 * terminal) is written as it is, and so is an open descriptor of the process (/dev/stdout, /dev/fd/3).
 *
 * Threads: different files may be written by different threads.
 */
#ifndef SLUICE_FILE_H
#define SLUICE_FILE_H

#include "sluice/status.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Reads a regular file of at most `most` bytes into memory (64-byte aligned; sluice_release): whatever becomes of the
 * file afterwards, the bytes stay. A NUL follows them. A file that becomes shorter meanwhile is an error. */
SLUICE_MUST_USE sluice_status *sluice_read_file(const char *path, size_t most, void **out_data, size_t *out_length);

/* The same in two steps: the second reads what lies at `start` and behind it, and leaves the file open. */
SLUICE_MUST_USE sluice_status *sluice_open_to_read(const char *path, int *out_file);
SLUICE_MUST_USE sluice_status *sluice_read_open_file(int file, const char *path, size_t start, size_t most,
                                                     void **out_data, size_t *out_length);

typedef struct sluice_temporary sluice_temporary;

typedef struct sluice_pending_file {
  char *path;                  /* as given, for messages */
  char *target;                /* the final name, links followed; NULL: written in place */
  sluice_temporary *temporary; /* where the data goes until then; NULL: written in place */
  int file;                    /* descriptor, -1 when not open */
  bool fresh;                  /* must not exist: see sluice_pending_create */
} sluice_pending_file;

/* Begins a file that replaces what `path` names. On an error nothing is left behind and nothing needs to be closed. */
SLUICE_MUST_USE sluice_status *sluice_pending_open(sluice_pending_file *pending, const char *path);

/* The same for a program, which everybody may run who may read it. */
SLUICE_MUST_USE sluice_status *sluice_pending_open_executable(sluice_pending_file *pending, const char *path);

/* The same for a file that must not exist yet, which is checked now and again at the end, with permission bits `mode`
 * whatever the umask is. For private keys. */
SLUICE_MUST_USE sluice_status *sluice_pending_create(sluice_pending_file *pending, const char *path, unsigned mode);

SLUICE_MUST_USE sluice_status *sluice_pending_write(sluice_pending_file *pending, const void *data, size_t bytes);

/* Syncs the file and closes its descriptor; it still has its temporary name. So that several files can be completed
 * before the first of them replaces anything. */
SLUICE_MUST_USE sluice_status *sluice_pending_settle(sluice_pending_file *pending);

/* Settles and renames the file when `status` is NULL, removes it otherwise; frees what sluice_pending_open took.
 * Returns `status`, or the error of finishing. */
SLUICE_MUST_USE sluice_status *sluice_pending_close(sluice_pending_file *pending, sluice_status *status);

/* Removes the file and frees what sluice_pending_open took; nothing for a zeroed one. */
void sluice_pending_discard(sluice_pending_file *pending);

/* ---- Names that a program removes when a signal ends it (sluice/program.h) ---- */

/* Notes `path`, before it is made; NULL when memory is short. Temporary files are noted by the functions above. */
sluice_temporary *sluice_temporary_note(const char *path);
const char *sluice_temporary_path(const sluice_temporary *temporary);
void sluice_temporary_forget(sluice_temporary *temporary); /* NULL is allowed */
/* Removes all noted files, then all noted directories that are empty. May be called in a signal handler. */
void sluice_temporary_remove_all(void);

/* ---- Which files a command line names ---- */

typedef struct sluice_file_use {
  const char *path; /* "-": a standard stream, which is left out */
  const char *what; /* for messages: "--trace" */
  bool output;      /* written; otherwise read */
} sluice_file_use;

/* Refuses (SLUICE_USAGE) an output that is an input, another output or a standard stream too. Files are the same when
 * device and inode are, links followed; two that do not exist yet when they would be made in one directory under one
 * name. A directory that is read stands for the *.json, *.jinja and *.safetensors in it. Devices and pipes may be used
 * more than once. */
SLUICE_MUST_USE sluice_status *sluice_file_uses_check(const sluice_file_use *uses, size_t count);

/* The file that `path` leads to through symbolic links, which need not exist; `*out_descriptor` is the number when it
 * is an open descriptor of this process, otherwise -1. Free *out_target with sluice_release. */
SLUICE_MUST_USE sluice_status *sluice_file_follow(const char *path, char **out_target, int *out_descriptor);

#ifdef __cplusplus
}
#endif
#endif

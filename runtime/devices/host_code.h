/* The host's code objects: ELF shared objects as the host backend links them (docs/bundle-format.md, "Host code").
 *
 * The system's loader trusts the file that it is given, and runs code of it before dlopen returns. So a file is looked
 * at first, and only what the host backend makes is let through: segments, a symbol table with functions alone, and
 * nothing to be called, found or relocated at loading time.
 */
#ifndef SLUICE_RUNTIME_HOST_CODE_H
#define SLUICE_RUNTIME_HOST_CODE_H

#include "sluice/status.h"

/* Refuses what is no such shared object; `data` may be anything, at any alignment. */
SLUICE_MUST_USE sluice_status *sluice_host_code_check(const void *data, size_t length);

typedef struct sluice_host_code { /* zero: nothing is loaded */
  void *handle;                   /* of dlopen */
  int file;                       /* what was loaded, kept open: see sluice_host_code_open */
} sluice_host_code;

/* Checks the object and loads it. */
SLUICE_MUST_USE sluice_status *sluice_host_code_open(const void *data, size_t length, sluice_host_code *out_code);
void sluice_host_code_close(sluice_host_code *code);

#endif

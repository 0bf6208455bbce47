/* A program that holds its bundle (sluice compile --emit=program) is sluice-run with a bundle behind it. */
#ifndef SLUICE_TOOLS_OWN_BUNDLE_H
#define SLUICE_TOOLS_OWN_BUNDLE_H

#include "sluice/status.h"

/* What the user called this program: argv[0], which may be NULL. To be called first. */
void own_bundle_begin(const char *called);
/* That name when this program holds a bundle, NULL otherwise. */
const char *own_bundle_program(void);
/* The file that this program is. */
SLUICE_MUST_USE sluice_status *own_bundle_path(const char **out_path);

#endif

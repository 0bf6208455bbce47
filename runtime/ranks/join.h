/* Joining a group by what find.h found: over TCP, or alone. */
#ifndef SLUICE_RUNTIME_RANKS_JOIN_H
#define SLUICE_RUNTIME_RANKS_JOIN_H

#include "runtime/collectives.h"
#include "runtime/ranks/find.h"

/* A file with a secret of 16 to 4096 bytes that nobody but its owner may read; a newline at its end does not count. The
 * caller frees it with sluice_release. */
SLUICE_MUST_USE sluice_status *sluice_secret_read(const char *path, void **out_secret, size_t *out_bytes);

/* `secret_file` NULL: none. `deadline`: of the group, in seconds; 0: SLUICE_GROUP_DEADLINE. */
SLUICE_MUST_USE sluice_status *sluice_group_join(const sluice_rank_place *place, const char *secret_file,
                                                 double deadline, sluice_group **out_group);

#endif

/* How a command becomes one of several ranks: by `sluice-run launch`, or with --leader by the variables of another
 * launcher. */
#ifndef SLUICE_TOOLS_RANKS_H
#define SLUICE_TOOLS_RANKS_H

#include "runtime/collectives.h"
#include "runtime/tools/children.h"

typedef struct tool_rank_options {
  const char *leader, *secret; /* HOST:PORT of rank 0; file */
  double deadline;             /* seconds; 0: SLUICE_GROUP_DEADLINE */
} tool_rank_options;

#define TOOL_RANK_OPTIONS(o)                                                                                           \
  {"--leader", TOOL_TEXT, &(o).leader, "HOST:PORT",                                                                    \
   "several ranks: where rank 0 listens; a launcher's variables say which rank this is"},                              \
      {"--secret", TOOL_INPUT, &(o).secret, "FILE", "several machines: a file with a secret that all ranks have"},     \
      {"--rank-deadline", TOOL_REAL, &(o).deadline, "S", "seconds that ranks wait for one that hangs (30)"}

/* Which rank of how many this process is. */
typedef struct tool_ranks {
  uint32_t rank, ranks, local_rank, local_ranks; /* local_ranks 0: not known */
} tool_ranks;

/* Makes this process a child of `launch`, which it must not be already. */
SLUICE_MUST_USE sluice_status *tool_ranks_launched(const tool_child *child);

/* Joins the group that this process belongs to. NULL when there is one rank. Other launchers' ranks say on standard
 * error which they are. A child of `launch` that another launcher started once on each machine is one of the ranks of
 * all machines, as many on each. */
SLUICE_MUST_USE sluice_status *tool_ranks_join(const tool_rank_options *options, tool_ranks *out_ranks,
                                               sluice_group **out_group);

/* The device of a rank, of `device` as it was given: "cuda:0,cuda:2" is a list, of which each rank of a machine takes
 * one in turn; "cuda" and "hip" without a number are the GPU with the local rank's. NULL stays NULL. Sluice_release it.
 */
SLUICE_MUST_USE sluice_status *tool_ranks_device(const tool_ranks *ranks, const char *device, char **out_device);

#endif

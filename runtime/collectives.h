/* Collectives: what the ranks of a group, one process each, do together. A rank calls the same entries in the same
 * order as all others; each call returns when the rank has its result.
 *
 * The entries are a table, as a device's driver is, so that a session does not know what carries the bytes: memory that
 * the processes of one machine share (below), or TCP between machines (runtime/ranks/tcp.h).
 *
 *     the launcher                       each rank (a child of it, which has the descriptor)
 *     sluice_shared_create(4, ..., &fd)
 *     fork, fork, fork, fork             sluice_shared_join(fd, rank, deadline, &group)
 *                                        sluice_group_step(group, step)
 *                                        group->collectives->all_reduce(group, values, count) ...
 *                                        group->collectives->leave(group)
 *
 * Results are the same bytes on all ranks and in every run: sums add the ranks' values in the order of the ranks,
 * starting with rank 0's, whoever came first.
 *
 * Faults: a rank that ends, leaves early, does not come within the deadline, or calls something other than rank 0 does,
 * fails the group for good. Every rank gets the same line, which names the rank and the step: in the call it waits in,
 * or in its next one. The rank that was late gets it, too, when it goes on.
 *
 * Threads: a group belongs to the thread that joined; the rank counts as ended when this thread does. */
#ifndef SLUICE_RUNTIME_COLLECTIVES_H
#define SLUICE_RUNTIME_COLLECTIVES_H

#include "sluice/plan.h"
#include "sluice/status.h"

#include <stddef.h>
#include <stdint.h>

enum { SLUICE_MOST_RANKS = SLUICE_PLAN_RANKS };
#define SLUICE_GROUP_DEADLINE 30.0 /* seconds that ranks wait for one that is behind, unless told otherwise */

typedef struct sluice_group sluice_group;

typedef struct sluice_collectives {
  const char *name;
  /* values[i] becomes the sum over the ranks of their values[i], in float32. */
  sluice_status *(*all_reduce)(sluice_group *group, float *values, size_t count);
  /* `bytes` bytes at `mine` of rank r go to all + r * bytes, on every rank. `mine` must not lie in `all`. */
  sluice_status *(*all_gather)(sluice_group *group, const void *mine, size_t bytes, void *all);
  /* Rank 0's bytes go to every rank's `data`. */
  sluice_status *(*broadcast)(sluice_group *group, void *data, size_t bytes);
  /* Frees the group. Ranks that still wait for this one learn that it left. NULL is allowed. */
  void (*leave)(sluice_group *group);
} sluice_collectives;

struct sluice_group { /* the part of every implementation's that callers see */
  const sluice_collectives *collectives;
  uint32_t rank, ranks;
  uint64_t step;   /* in messages, and compared: set by sluice_group_step */
  double deadline; /* seconds that this rank waits for one that is behind; INFINITY: for as long as that lives */
};

/* The step that the calls to come belong to. It must be the same on all ranks. */
void sluice_group_step(sluice_group *group, uint64_t step);

/* Memory for a group of 1 to SLUICE_MOST_RANKS ranks that exchange `message_bytes` bytes of each rank at a time; longer
 * messages go in parts. It has no name: it is gone when the last process that has the descriptor is, however that ends.
 * The descriptor is the caller's to close, and is inherited by programs that are started. */
SLUICE_MUST_USE sluice_status *sluice_shared_create(uint32_t ranks, size_t message_bytes, int *out_descriptor);

/* Makes the calling thread rank `rank`. `deadline` in seconds, 0: SLUICE_GROUP_DEADLINE. Does not wait for the other
 * ranks, and does not keep the descriptor. An error when the rank is taken. */
SLUICE_MUST_USE sluice_status *sluice_shared_join(int descriptor, uint32_t rank, double deadline,
                                                  sluice_group **out_group);

#endif

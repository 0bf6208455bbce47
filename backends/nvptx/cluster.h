/* Clusters: workgroups that run at the same time and reach each other's workgroup memory.
 *
 * What workgroups tell each other is sent, not fetched: the receiver says how many bytes it expects and sleeps until
 * they are there. Nobody waits for readers before it ends, and no barrier has to flush what the GPU wrote elsewhere.
 *
 *     cluster_size        the kernel's workgroups run in clusters
 *     inbox_open          first of all, by all lanes
 *     ...
 *     inbox_wait_all_open before the first inbox_send
 *     inbox_send          to any workgroup of the cluster
 *     inbox_receive       when all that was expected is there
 */
#ifndef BACKENDS_NVPTX_CLUSTER_H
#define BACKENDS_NVPTX_CLUSTER_H

#include "backends/common/emit.h"

/* Makes the kernel at hand run in clusters of `size` workgroups in x; its grid must be a multiple. */
void cluster_size(emitter *e, unsigned size);
/* This workgroup's number in its cluster, i64. */
V cluster_rank(emitter *e);

/* A mailbox of a workgroup, used once. */
typedef struct inbox {
  V memory;  /* workgroup memory that others write; at the same place in all workgroups of the cluster */
  V arrived; /* i64 of workgroup memory: the mbarrier that counts bytes */
} inbox;
/* Takes workgroup memory. `expected` is the number of bytes (i64) that will be sent to this workgroup. */
inbox inbox_open(emitter *e, uint64_t bytes, V expected);
void inbox_wait_all_open(emitter *e);
/* Writes `value` (2 or 4 floats, one vector) at byte `offset` (a multiple of its size) of the inbox of `rank`. */
void inbox_send(emitter *e, const inbox *box, V rank, V offset, V value);
void inbox_receive(emitter *e, const inbox *box);

#endif

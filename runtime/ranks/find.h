/* Which rank this process is, by what its launcher says in the environment.
 *
 * | started by                    | says                                                            |
 * |-------------------------------|-----------------------------------------------------------------|
 * | torchrun                      | RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT          |
 * | Open MPI's mpirun             | OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE           |
 * | other MPIs (PMI)              | PMI_RANK, PMI_SIZE, MPI_LOCALRANKID                             |
 * | Slurm's srun                  | SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, SLURM_STEP_NODELIST  |
 * | Kubernetes, LeaderWorkerSet   | LWS_WORKER_INDEX, LWS_GROUP_SIZE, LWS_LEADER_ADDRESS            |
 *
 * PMIX_RANK says no count: where it is there it must agree with the others.
 *
 * One launcher may have started another on each machine (srun torchrun): the first in the table that is there decides,
 * and one further down must say the same, or count fewer processes. Anything else is a contradiction, and an error.
 * MASTER_ADDR and MASTER_PORT say where rank 0 is, whoever set them; otherwise it is the first host of Slurm's list,
 * LWS_LEADER_ADDRESS, or with MPI this machine if all ranks are on it.
 *
 * These variables say who is where, never what is computed. */
#ifndef SLUICE_RUNTIME_RANKS_FIND_H
#define SLUICE_RUNTIME_RANKS_FIND_H

#include "sluice/status.h"

#include <stdbool.h>

typedef struct sluice_rank_place {
  const char *by; /* who said so: "torchrun"; NULL: nobody, and there is one rank */
  uint32_t rank, ranks, local_rank;
  char host[256]; /* where rank 0 listens; empty: not known */
  uint16_t port;
} sluice_rank_place;

/* The value of a variable, which stays valid, or NULL. */
typedef const char *sluice_variable(void *user, const char *name);

/* `leader`: "HOST:PORT" of rank 0 as the user gave it, which counts more than the environment; or NULL. */
SLUICE_MUST_USE sluice_status *sluice_rank_find(sluice_variable *variable, void *user, const char *leader,
                                                sluice_rank_place *out_place);

/* The first host of Slurm's list: "node[003-006,9],x" gives "node003". False when there is none or it is too long. */
bool sluice_first_host(const char *list, char *host, size_t capacity);

#endif

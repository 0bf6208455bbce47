/* Faults of a group of ranks: the first that any rank found, and the line that all ranks report it with. Common to all
 * tables of collectives. */
#ifndef SLUICE_RUNTIME_RANKS_FAULT_H
#define SLUICE_RUNTIME_RANKS_FAULT_H

#include "sluice/status.h"

typedef enum sluice_call_kind {
  SLUICE_CALL_ALL_REDUCE,
  SLUICE_CALL_ALL_GATHER,
  SLUICE_CALL_BROADCAST,
  SLUICE_CALL_KINDS
} sluice_call_kind;

/* What a rank does in an exchange: equal on all ranks, and compared. */
typedef struct sluice_call {
  uint64_t kind, bytes, step;
} sluice_call;

typedef enum sluice_fault_kind {
  SLUICE_FAULT_ENDED,       /* its process is gone */
  SLUICE_FAULT_LEFT,        /* of its own will, while others wait for it */
  SLUICE_FAULT_LATE,        /* it lives, but did not come within the deadline */
  SLUICE_FAULT_ABSENT,      /* it never joined */
  SLUICE_FAULT_UNREACHABLE, /* its machine does not answer */
  SLUICE_FAULT_DIFFERS,     /* it does something other than rank 0 */
  SLUICE_FAULT_KINDS
} sluice_fault_kind;

typedef struct sluice_fault {
  uint32_t kind, rank;
  double deadline; /* seconds that others waited for the rank */
  sluice_call expected;
  sluice_call made; /* of SLUICE_FAULT_DIFFERS: what the rank did; `expected` is what rank 0 did */
} sluice_fault;

/* Whether a fault that came from another process is one of `ranks` ranks. */
int sluice_fault_is_valid(const sluice_fault *fault, uint32_t ranks);

/* Its line, a SLUICE_DEVICE error. */
SLUICE_NEW_ERROR sluice_status *sluice_fault_error(const sluice_fault *fault);

#endif

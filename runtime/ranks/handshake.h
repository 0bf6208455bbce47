/* The handshake of a connection between two ranks: rendezvous.h. */
#ifndef SLUICE_RUNTIME_RANKS_HANDSHAKE_H
#define SLUICE_RUNTIME_RANKS_HANDSHAKE_H

#include "runtime/ranks/rendezvous.h"

#include <stdbool.h>

typedef enum sluice_link_kind { SLUICE_LINK_CONTROL, SLUICE_LINK_DATA, SLUICE_LINK_KINDS } sluice_link_kind;

typedef struct sluice_caller { /* who connected, as proved */
  uint32_t rank;
  sluice_link_kind kind;
  uint16_t port; /* that it listens at */
} sluice_caller;

/* The side that connected, to `rank`. `port`: where it listens. */
SLUICE_MUST_USE sluice_status *sluice_handshake_call(const sluice_meeting *meeting, int descriptor, uint32_t rank,
                                                     sluice_link_kind kind, uint16_t port, double until);

/* The side that was connected to. An error is a fault of the group (`*out_proved`: the caller has the secret, but is of
 * another version or number of ranks; `out_caller` says what it calls itself), or a stranger, whom to forget. */
SLUICE_MUST_USE sluice_status *sluice_handshake_answer(const sluice_meeting *meeting, int descriptor, double until,
                                                       sluice_caller *out_caller, bool *out_proved);

#endif

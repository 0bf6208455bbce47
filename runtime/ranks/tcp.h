/* Collectives over TCP, for ranks on several machines: every two ranks have a connection. */
#ifndef SLUICE_RUNTIME_RANKS_TCP_H
#define SLUICE_RUNTIME_RANKS_TCP_H

#include "runtime/ranks/rendezvous.h"

/* Meets the other ranks (rendezvous.h) and makes the calling thread rank `meeting->rank` of their group. `deadline` in
 * seconds, 0: SLUICE_GROUP_DEADLINE. */
SLUICE_MUST_USE sluice_status *sluice_tcp_join(const sluice_meeting *meeting, double deadline,
                                               sluice_group **out_group);

#endif

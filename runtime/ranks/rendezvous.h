/* How ranks that were started apart find each other: all connect to rank 0, which tells each where the others are, and
 * then every two ranks connect.
 *
 *     rank 2                                   rank 0, at host:port
 *       hello: version, rank, ranks, nonce ->
 *                                              <- version, ranks, nonce, proof
 *       proof, port that it listens at     ->
 *                                              ... once all have come:
 *                                              <- addresses of all, or why it does not work
 *       connects to ranks 0 and 1 with the same handshake; is connected to by those above
 *       done, or what went wrong           ->
 *                                              <- go, or what went wrong where
 *
 * A proof is the HMAC-SHA256, with the secret as its key, of what both said, so that the secret itself never travels
 * and a recorded conversation is of no use. Without a secret only ranks of one machine meet, over its loopback address.
 * What follows the handshake is not encrypted: whoever can change packets on the way can change results.
 *
 * Strangers may connect: they are not answered beyond the handshake, hold nobody up for long, and never make a rank
 * trust a length. */
#ifndef SLUICE_RUNTIME_RANKS_RENDEZVOUS_H
#define SLUICE_RUNTIME_RANKS_RENDEZVOUS_H

#include "runtime/collectives.h"

#define SLUICE_MEETING_DEADLINE 300.0 /* seconds: machines do not start at the same time */

typedef struct sluice_meeting {
  const char *host; /* rank 0's, a name or an address */
  uint16_t port;
  uint32_t rank, ranks;
  const void *secret; /* NULL: none */
  size_t secret_bytes;
  double deadline; /* 0: SLUICE_MEETING_DEADLINE */
} sluice_meeting;

/* Connected sockets to the other ranks; -1: none. `control` joins rank 0 with each other rank, for faults. */
typedef struct sluice_links {
  int data[SLUICE_MOST_RANKS], control[SLUICE_MOST_RANKS];
} sluice_links;

/* On an error all ranks that have come end with a line that says which rank it was. */
SLUICE_MUST_USE sluice_status *sluice_meet(const sluice_meeting *meeting, sluice_links *out_links);
void sluice_links_close(sluice_links *links);

#endif

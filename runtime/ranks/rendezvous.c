#include "runtime/ranks/handshake.h"
#include "runtime/ranks/sockets.h"

#include "runtime/model.h"

#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_AT_THE_DOOR = 32 };
#define HANDSHAKE_SECONDS 5.0 /* that one connection may hold up the others */
#define CONNECT_SECONDS 30.0
#define STAY_SECONDS 2.0 /* after a fault */

/* As they travel, little-endian and of fixed length. */
typedef struct report { /* a rank's to rank 0, rank 0's to all */
  char text[256];       /* what went wrong; empty: nothing */
} report;
typedef struct place { /* where a rank listens */
  uint8_t address[16]; /* IPv6, or IPv4 mapped */
  uint32_t port;
} place;

typedef struct meeting_place {
  const sluice_meeting *meeting;
  sluice_links *links;
  double until;
  int listening;
  int door[MOST_AT_THE_DOOR]; /* connected, but have said nothing yet; the oldest first */
  uint32_t at_door;
  uint16_t ports[SLUICE_MOST_RANKS];
  bool reported[SLUICE_MOST_RANKS]; /* rank 0: a rank has all its links. Others: [0] rank 0 said go */
  bool seen[SLUICE_MOST_RANKS];     /* rank 0: a rank has come, even if it was refused or ended since */
  char refused[240];                /* why the last stranger was sent away */
} meeting_place;

static bool has_secret(const sluice_meeting *meeting) {
  return meeting->secret_bytes > 0;
}

static void close_link(int *descriptor) {
  if (*descriptor >= 0) close(*descriptor);
  *descriptor = -1;
}

void sluice_links_close(sluice_links *links) {
  for (uint32_t r = 0; r < SLUICE_MOST_RANKS; r++) {
    close_link(&links->data[r]);
    close_link(&links->control[r]);
  }
}

/* Says that all is well, or what went wrong. Whoever cannot be told has ended, and is found out later. */
static void tell(int descriptor, const sluice_status *status) {
  report told = {0};
  if (status) snprintf(told.text, sizeof told.text, "%s", sluice_status_message(status));
  sluice_status_free(sluice_socket_send(descriptor, &told, sizeof told, sluice_seconds() + HANDSHAKE_SECONDS));
}

/* ---- The door ---- */

static sluice_status *admit(meeting_place *p, int descriptor) {
  const sluice_meeting *m = p->meeting;
  sluice_caller caller;
  bool proved;
  const sluice_endpoint peer = sluice_socket_peer(descriptor);
  sluice_status *status =
      sluice_handshake_answer(m, descriptor, sluice_seconds() + HANDSHAKE_SECONDS, &caller, &proved);
  if (proved && caller.rank < m->ranks) p->seen[caller.rank] = true;
  int *link = NULL;
  if (!status) {
    link = caller.kind == SLUICE_LINK_CONTROL ? &p->links->control[caller.rank] : &p->links->data[caller.rank];
    if (*link >= 0 || (m->rank && caller.kind == SLUICE_LINK_CONTROL))
      status = sluice_error(SLUICE_INVALID, "two processes are rank %u: the second one's address is %s", caller.rank,
                            sluice_endpoint_describe(&peer).text);
  }
  if (!status) {
    *link = descriptor;
    if (caller.kind == SLUICE_LINK_CONTROL) p->ports[caller.rank] = caller.port;
    return NULL;
  }
  if (link && caller.kind == SLUICE_LINK_CONTROL) tell(descriptor, status);
  close(descriptor);
  if (proved) return status;
  snprintf(p->refused, sizeof p->refused, "%s was turned away: %.120s", sluice_endpoint_describe(&peer).text,
           sluice_status_message(status));
  sluice_status_free(status);
  return NULL;
}

static void open_door(meeting_place *p) {
  int descriptor;
  while ((descriptor = sluice_socket_accept(p->listening)) >= 0) {
    if (p->at_door == MOST_AT_THE_DOOR) { /* strangers who say nothing */
      close(p->door[0]);
      memmove(p->door, p->door + 1, --p->at_door * sizeof *p->door);
    }
    p->door[p->at_door++] = descriptor;
  }
}

/* What the rank at the other end of a control link has to say. */
static sluice_status *hear(meeting_place *p, uint32_t rank) {
  report heard;
  sluice_status *status =
      sluice_socket_receive(p->links->control[rank], &heard, sizeof heard, sluice_seconds() + HANDSHAKE_SECONDS);
  if (status) {
    sluice_status_free(status);
    close_link(&p->links->control[rank]);
    return sluice_error(SLUICE_DEVICE, "rank %u ended while the ranks met", rank);
  }
  heard.text[sizeof heard.text - 1] = 0;
  if (!heard.text[0]) {
    p->reported[rank] = true;
    return NULL;
  }
  return rank ? sluice_error(SLUICE_DEVICE, "rank %u: %s", rank, heard.text)
              : sluice_error(SLUICE_DEVICE, "%s", heard.text);
}

/* Waits for something to happen, and deals with it. */
static sluice_status *attend(meeting_place *p) {
  struct pollfd list[1 + MOST_AT_THE_DOOR + SLUICE_MOST_RANKS];
  uint32_t ranks[SLUICE_MOST_RANKS], controls = 0;
  const uint32_t at_door = p->at_door;
  list[0] = (struct pollfd){.fd = p->listening, .events = POLLIN};
  for (uint32_t i = 0; i < at_door; i++) list[1 + i] = (struct pollfd){.fd = p->door[i], .events = POLLIN};
  struct pollfd *control = list + 1 + at_door;
  for (uint32_t r = 0; r < p->meeting->ranks; r++) {
    if (p->links->control[r] < 0) continue;
    control[controls] = (struct pollfd){.fd = p->links->control[r], .events = POLLIN};
    ranks[controls++] = r;
  }
  if (poll(list, 1 + at_door + controls, 200) <= 0) return NULL;
  for (uint32_t i = 0; i < controls; i++)
    if (control[i].revents) SLUICE_TRY(hear(p, ranks[i]));
  p->at_door = 0;
  sluice_status *status = NULL;
  for (uint32_t i = 0; i < at_door; i++) {
    const int descriptor = p->door[i];
    if (!list[1 + i].revents || status)
      p->door[p->at_door++] = descriptor;
    else
      status = admit(p, descriptor);
  }
  if (!status && list[0].revents) open_door(p);
  return status;
}

/* ---- Rank 0 ---- */

static uint32_t count_links(const int links[SLUICE_MOST_RANKS]) {
  uint32_t count = 0;
  for (uint32_t r = 0; r < SLUICE_MOST_RANKS; r++) count += links[r] >= 0;
  return count;
}

static sluice_status *nobody_came(const meeting_place *p, const int links[SLUICE_MOST_RANKS]) {
  char missing[200] = "";
  size_t used = 0;
  for (uint32_t r = p->meeting->rank + 1; r < p->meeting->ranks && used < sizeof missing - 16; r++)
    if (links[r] < 0) used += (size_t)snprintf(missing + used, sizeof missing - used, "%s%u", used ? ", " : "", r);
  return sluice_error(SLUICE_DEVICE, "rank %s did not come to rank %u within %g s%s%s", missing, p->meeting->rank,
                      p->meeting->deadline, p->refused[0] ? "; " : "", p->refused);
}

/* The place of a rank as rank 0 sees it. */
static place place_of(const meeting_place *p, uint32_t rank) {
  place result = {.port = p->ports[rank]};
  if (p->links->control[rank] < 0) return result;
  const sluice_endpoint peer = sluice_socket_peer(p->links->control[rank]);
  if (peer.address.ss_family == AF_INET6) {
    memcpy(result.address, &((const struct sockaddr_in6 *)(const void *)&peer.address)->sin6_addr, 16);
  } else {
    memset(result.address + 10, 0xff, 2);
    memcpy(result.address + 12, &((const struct sockaddr_in *)(const void *)&peer.address)->sin_addr, 4);
  }
  return result;
}

static bool all_reported(const meeting_place *p) {
  for (uint32_t r = 1; r < p->meeting->ranks; r++)
    if (!p->reported[r]) return false;
  return true;
}

static sluice_status *gather(meeting_place *p) {
  const uint32_t others = p->meeting->ranks - 1;
  struct {
    report nothing;
    place places[SLUICE_MOST_RANKS];
  } table = {0};
  while (count_links(p->links->control) < others) {
    SLUICE_TRY(attend(p));
    if (sluice_seconds() > p->until) return nobody_came(p, p->links->control);
  }
  for (uint32_t r = 0; r < p->meeting->ranks; r++) table.places[r] = place_of(p, r);
  for (uint32_t r = 1; r < p->meeting->ranks; r++)
    sluice_status_free(
        sluice_socket_send(p->links->control[r], &table, sizeof table, sluice_seconds() + HANDSHAKE_SECONDS));
  while (count_links(p->links->data) < others || !all_reported(p)) {
    SLUICE_TRY(attend(p));
    if (sluice_seconds() > p->until) return nobody_came(p, p->links->data);
  }
  return NULL;
}

/* Where rank 0 listens: without a secret at a loopback address only. */
static sluice_status *listen_as_rank_0(meeting_place *p) {
  const sluice_meeting *m = p->meeting;
  if (has_secret(m)) return sluice_socket_listen(NULL, m->port, &p->listening);
  sluice_endpoint found[SLUICE_MOST_ENDPOINTS];
  size_t count;
  SLUICE_TRY(sluice_endpoints_find(m->host, m->port, found, &count));
  for (size_t i = 0; i < count; i++)
    if (sluice_endpoint_is_loopback(&found[i])) return sluice_socket_listen(&found[i], m->port, &p->listening);
  return sluice_error(SLUICE_INVALID,
                      "rank 0's address %s is not this machine's loopback address: ranks of several machines need a "
                      "secret (--secret FILE)",
                      sluice_endpoint_describe(&found[0]).text);
}

static bool all_seen(const meeting_place *p) {
  for (uint32_t r = 1; r < p->meeting->ranks; r++)
    if (!p->seen[r]) return false;
  return true;
}

/* Stays a little, for those that are still on their way to hear what went wrong. */
static void stay(meeting_place *p) {
  const double until = sluice_seconds() + STAY_SECONDS;
  while (!all_seen(p) && sluice_seconds() < until) sluice_status_free(attend(p));
}

static sluice_status *meet_as_rank_0(meeting_place *p) {
  SLUICE_TRY(listen_as_rank_0(p));
  sluice_status *status = gather(p);
  if (status && sluice_seconds() < p->until) stay(p);
  for (uint32_t r = 1; r < p->meeting->ranks; r++)
    if (p->links->control[r] >= 0) tell(p->links->control[r], status);
  return status;
}

/* ---- The other ranks ---- */

/* One try at rank 0. `*out_again`: it may not be there yet. */
static sluice_status *try_rank_0(meeting_place *p, bool *out_again) {
  const sluice_meeting *m = p->meeting;
  sluice_endpoint found[SLUICE_MOST_ENDPOINTS];
  size_t count;
  int descriptor = -1;
  *out_again = true;
  SLUICE_TRY(sluice_endpoints_find(m->host, m->port, found, &count));
  sluice_status *status = NULL;
  for (size_t i = 0; i < count && descriptor < 0; i++) {
    sluice_status_free(status);
    if (has_secret(m) || sluice_endpoint_is_loopback(&found[i]))
      status = sluice_socket_connect(&found[i], sluice_seconds() + HANDSHAKE_SECONDS, &descriptor);
    else
      status = sluice_error(SLUICE_INVALID,
                            "rank 0's address %s is not this machine's loopback address: ranks of several machines "
                            "need a secret (--secret FILE)",
                            sluice_endpoint_describe(&found[i]).text);
  }
  if (!status && p->listening < 0) {
    sluice_endpoint own = sluice_socket_own(descriptor);
    sluice_endpoint_set_port(&own, 0);
    status = sluice_socket_listen(has_secret(m) ? NULL : &own, 0, &p->listening);
  }
  if (!status) {
    const sluice_endpoint listening = sluice_socket_own(p->listening);
    status = sluice_handshake_call(m, descriptor, 0, SLUICE_LINK_CONTROL, sluice_endpoint_port(&listening),
                                   sluice_seconds() + CONNECT_SECONDS);
  }
  if (!status)
    p->links->control[0] = descriptor;
  else if (descriptor >= 0)
    close(descriptor);
  *out_again = status && sluice_status_code(status) != SLUICE_INVALID;
  return status;
}

static sluice_status *reach_rank_0(meeting_place *p) {
  const sluice_meeting *m = p->meeting;
  for (;;) {
    bool again;
    sluice_status *status = try_rank_0(p, &again);
    if (!status) return NULL;
    if (!again) return sluice_annotate(status, "rank 0 at %s port %u", m->host, m->port);
    if (sluice_seconds() > p->until)
      return sluice_annotate(status, "rank 0 at %s port %u could not be reached within %g s", m->host, m->port,
                             m->deadline);
    sluice_status_free(status);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
  }
}

/* Where to connect to for a rank: one that rank 0 sees on its own machine is there for us, too. */
static sluice_endpoint endpoint_of(const meeting_place *p, uint32_t rank, const place *at) {
  sluice_endpoint endpoint = {.length = sizeof(struct sockaddr_in6)};
  struct sockaddr_in6 *six = (struct sockaddr_in6 *)(void *)&endpoint.address;
  six->sin6_family = AF_INET6;
  memcpy(&six->sin6_addr, at->address, sizeof at->address);
  if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
    endpoint = (sluice_endpoint){.length = sizeof(struct sockaddr_in)};
    struct sockaddr_in *four = (struct sockaddr_in *)(void *)&endpoint.address;
    four->sin_family = AF_INET;
    memcpy(&four->sin_addr, at->address + 12, 4);
  }
  const sluice_endpoint rank_0 = sluice_socket_peer(p->links->control[0]);
  if (rank == 0 || sluice_endpoint_is_loopback(&endpoint)) endpoint = rank_0;
  sluice_endpoint_set_port(&endpoint, rank ? (uint16_t)at->port : sluice_endpoint_port(&rank_0));
  return endpoint;
}

static sluice_status *connect_to(meeting_place *p, uint32_t rank, const place *at) {
  const sluice_endpoint to = endpoint_of(p, rank, at);
  const double until = sluice_seconds() + CONNECT_SECONDS;
  int descriptor = -1;
  sluice_status *status = sluice_socket_connect(&to, until, &descriptor);
  if (!status) status = sluice_handshake_call(p->meeting, descriptor, rank, SLUICE_LINK_DATA, 0, p->until);
  if (status) {
    if (descriptor >= 0) close(descriptor);
    return sluice_annotate(status, "rank %u at %s", rank, sluice_endpoint_describe(&to).text);
  }
  p->links->data[rank] = descriptor;
  return NULL;
}

static sluice_status *connect_all(meeting_place *p) {
  const sluice_meeting *m = p->meeting;
  place places[SLUICE_MOST_RANKS];
  SLUICE_TRY(sluice_socket_receive(p->links->control[0], places, sizeof places, sluice_seconds() + HANDSHAKE_SECONDS));
  for (uint32_t r = 0; r < m->rank; r++) SLUICE_TRY(connect_to(p, r, &places[r]));
  while (count_links(p->links->data) < m->ranks - 1) {
    SLUICE_TRY(attend(p));
    if (sluice_seconds() > p->until) return nobody_came(p, p->links->data);
  }
  return NULL;
}

/* What rank 0 says in the end is what all report, this rank's own trouble included. */
static sluice_status *conclude(meeting_place *p, sluice_status *own) {
  tell(p->links->control[0], own);
  if (own) {
    const double until = sluice_seconds() + STAY_SECONDS + HANDSHAKE_SECONDS;
    sluice_status *common = sluice_socket_wait(p->links->control[0], POLLIN, until) ? hear(p, 0) : NULL;
    if (!common) return own;
    sluice_status_free(own);
    return common;
  }
  while (!p->reported[0]) {
    SLUICE_TRY(attend(p));
    if (sluice_seconds() > p->until)
      return sluice_error(SLUICE_DEVICE, "not all ranks were connected within %g s", p->meeting->deadline);
  }
  return NULL;
}

static sluice_status *meet_rank_0(meeting_place *p) {
  SLUICE_TRY(reach_rank_0(p));
  p->until = sluice_seconds() + p->meeting->deadline + 2 * HANDSHAKE_SECONDS; /* rank 0 knows better who is missing */
  if (!sluice_socket_wait(p->links->control[0], POLLIN, p->until))
    return sluice_error(SLUICE_DEVICE, "rank 0 did not see all ranks within %g s", p->meeting->deadline);
  SLUICE_TRY(hear(p, 0)); /* that all have come */
  p->reported[0] = false;
  return conclude(p, connect_all(p));
}

sluice_status *sluice_meet(const sluice_meeting *meeting, sluice_links *out_links) {
  for (uint32_t r = 0; r < SLUICE_MOST_RANKS; r++) out_links->data[r] = out_links->control[r] = -1;
  if (meeting->ranks < 1 || meeting->ranks > SLUICE_MOST_RANKS || meeting->rank >= meeting->ranks)
    return sluice_error(SLUICE_INVALID, "rank %u of %u: a group has 1 to %d ranks, which count from 0", meeting->rank,
                        meeting->ranks, SLUICE_MOST_RANKS);
  if (meeting->ranks == 1) return NULL;
  sluice_meeting m = *meeting;
  if (m.deadline <= 0) m.deadline = SLUICE_MEETING_DEADLINE;
  meeting_place p = {.meeting = &m, .links = out_links, .until = sluice_seconds() + m.deadline, .listening = -1};
  sluice_status *status = m.rank ? meet_rank_0(&p) : meet_as_rank_0(&p);
  for (uint32_t i = 0; i < p.at_door; i++) close(p.door[i]);
  close_link(&p.listening);
  if (status) sluice_links_close(out_links);
  return status;
}

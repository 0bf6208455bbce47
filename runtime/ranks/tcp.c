/* An exchange sends a head, which says what this rank does, and a part of its data to every other rank, and receives
 * the same from each. Short sums are one exchange of all values; longer ones two: each rank adds one share of the
 * values, and then hands it to all, which moves 2 / ranks as many bytes. Either way a value is added in the order of
 * the ranks.
 *
 *     rank 2 of 4, sum of v:   to rank 0: share 0 of v      from rank 0: share 2 of its v
 *                              to rank 1: share 1 of v      from rank 1: share 2 of its v
 *                              to rank 3: share 3 of v      from rank 3: share 2 of its v
 *                              then to all: the sum of share 2; from each: the sum of its share
 *
 * A process that ends closes its connections, so that is known at once. A machine that is gone closes nothing: the
 * kernel asks it for signs of life. Whoever finds a fault tells rank 0 over its control link, and rank 0 tells all, so
 * that all say the same; only a fault of rank 0 is what each finds by itself. */
#include "runtime/ranks/tcp.h"

#include "runtime/model.h"
#include "runtime/ranks/fault.h"
#include "runtime/ranks/sockets.h"
#include "sluice/memory.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ONE_EXCHANGE_BYTES = 32768, PART_VALUES = 1 << 20 };
#define VERDICT_SECONDS 2.0 /* that a rank waits for what rank 0 says of a fault */

typedef struct lane { /* to and from one rank, in the exchange at hand */
  sluice_call theirs;
  const char *send;
  char *receive;
  size_t send_bytes, receive_bytes; /* without heads */
  size_t sent, received;            /* with them */
  double last;                      /* when bytes last came or went */
} lane;

typedef struct tcp_group {
  sluice_group group;
  sluice_links links;
  bool failed;
  sluice_fault fault;
  lane lanes[SLUICE_MOST_RANKS];
  char *scratch;
  size_t scratch_bytes;
} tcp_group;

static tcp_group *tcp_of(sluice_group *group) {
  return (tcp_group *)(void *)group;
}

/* ---- Faults ---- */

static void tell(int control, const sluice_fault *fault) {
  if (control >= 0) sluice_status_free(sluice_socket_send(control, fault, sizeof *fault, sluice_seconds() + 1));
}

/* Reads a fault that another rank tells; false when there is none. A link that was closed is given up: if its rank is
 * waited for, its data link says so, too. */
static bool hear(tcp_group *t, uint32_t rank, double until) {
  sluice_fault fault;
  int *control = &t->links.control[rank];
  if (*control < 0 || !sluice_socket_wait(*control, POLLIN, until)) return false;
  sluice_status *status = sluice_socket_receive(*control, &fault, sizeof fault, sluice_seconds() + 1);
  if (!status && sluice_fault_is_valid(&fault, t->group.ranks)) {
    t->fault = fault;
    return true;
  }
  sluice_status_free(status);
  close(*control);
  *control = -1;
  return false;
}

/* Fails the group with the fault that it has. */
static sluice_status *conclude(tcp_group *t) {
  for (uint32_t r = 1; r < t->group.ranks && !t->group.rank; r++) tell(t->links.control[r], &t->fault);
  t->failed = true;
  return sluice_fault_error(&t->fault);
}

/* Fails it with `fault`, or with what rank 0 heard of before. */
static sluice_status *fail(tcp_group *t, const sluice_fault *fault) {
  t->fault = *fault;
  if (t->group.rank) {
    tell(t->links.control[0], fault);
    /* Rank 0 itself may have told before it ended; if it hangs, it tells nothing. */
    const bool silent = !fault->rank && fault->kind != SLUICE_FAULT_ENDED && fault->kind != SLUICE_FAULT_LEFT;
    hear(t, 0, silent ? 0 : sluice_seconds() + VERDICT_SECONDS);
  }
  return conclude(t);
}

static sluice_status *fail_of(tcp_group *t, sluice_fault_kind kind, uint32_t rank, const sluice_call *expected,
                              const sluice_call *made) {
  const sluice_fault fault = {
      .kind = kind, .rank = rank, .deadline = t->group.deadline, .expected = *expected, .made = *made};
  return fail(t, &fault);
}

static bool is_of_link(int error) {
  return error == ETIMEDOUT || error == EHOSTUNREACH || error == ENETUNREACH || error == ENETDOWN;
}

/* A connection that failed with `error`; 0: it was closed. */
static sluice_status *fail_of_link(tcp_group *t, uint32_t rank, int error, const sluice_call *mine) {
  return fail_of(t, is_of_link(error) ? SLUICE_FAULT_UNREACHABLE : SLUICE_FAULT_ENDED, rank, mine, mine);
}

/* ---- Exchanges ---- */

static bool is_equal(const sluice_call *one, const sluice_call *other) {
  return memcmp(one, other, sizeof *one) == 0;
}

static bool has_head(const lane *l) {
  return l->received >= sizeof l->theirs;
}

static bool is_sent(const lane *l) {
  return l->sent == sizeof(sluice_call) + l->send_bytes;
}

static bool is_received(const lane *l) {
  return l->received == sizeof l->theirs + l->receive_bytes;
}

/* Sends what the connection takes. */
static sluice_status *push(tcp_group *t, uint32_t rank, const sluice_call *mine) {
  lane *l = &t->lanes[rank];
  while (!is_sent(l)) {
    const size_t head = l->sent < sizeof *mine ? sizeof *mine - l->sent : 0;
    const size_t done = l->sent > sizeof *mine ? l->sent - sizeof *mine : 0;
    struct iovec parts[2] = {{(char *)(uintptr_t)mine + sizeof *mine - head, head},
                             {(char *)(uintptr_t)l->send + done, l->send_bytes - done}};
    if (!l->send_bytes) parts[1] = (struct iovec){0};
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    const ssize_t now = sendmsg(t->links.data[rank], &message, MSG_NOSIGNAL);
    if (now < 0 && errno == EINTR) continue;
    if (now < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return NULL;
    /* What the other end still said is read first: that it left, perhaps. */
    if (now < 0 && !is_of_link(errno) && !is_received(l)) return NULL;
    if (now < 0) return fail_of_link(t, rank, errno, mine);
    l->sent += (size_t)now;
    l->last = sluice_seconds();
  }
  return NULL;
}

/* Receives what has come: the head, and unless it says that the rank does something else, its part. */
static sluice_status *pull(tcp_group *t, uint32_t rank, const sluice_call *mine) {
  lane *l = &t->lanes[rank];
  while (!has_head(l) || (is_equal(&l->theirs, mine) && !is_received(l))) {
    const bool head = !has_head(l);
    char *to = head ? (char *)&l->theirs + l->received : l->receive + (l->received - sizeof l->theirs);
    const size_t most = head ? sizeof l->theirs - l->received : l->receive_bytes + sizeof l->theirs - l->received;
    const ssize_t now = recv(t->links.data[rank], to, most, 0);
    if (now < 0 && errno == EINTR) continue;
    if (now < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return NULL;
    if (now <= 0) return fail_of_link(t, rank, now < 0 ? errno : 0, mine);
    l->received += (size_t)now;
    l->last = sluice_seconds();
    if (has_head(l) && l->theirs.kind >= SLUICE_CALL_KINDS) return fail_of(t, SLUICE_FAULT_LEFT, rank, mine, mine);
  }
  return NULL;
}

/* Once all ranks have said what they do: the first that does something other than rank 0. */
static sluice_status *compare(tcp_group *t, const sluice_call *mine) {
  const sluice_call *calls[SLUICE_MOST_RANKS];
  for (uint32_t r = 0; r < t->group.ranks; r++) {
    if (r != t->group.rank && !has_head(&t->lanes[r])) return NULL;
    calls[r] = r == t->group.rank ? mine : &t->lanes[r].theirs;
  }
  for (uint32_t r = 1; r < t->group.ranks; r++)
    if (!is_equal(calls[r], calls[0])) return fail_of(t, SLUICE_FAULT_DIFFERS, r, calls[0], calls[r]);
  return NULL;
}

static bool is_done(const tcp_group *t) {
  for (uint32_t r = 0; r < t->group.ranks; r++)
    if (r != t->group.rank && !(is_sent(&t->lanes[r]) && is_received(&t->lanes[r]))) return false;
  return true;
}

/* Whether a lane has waited too long for its rank. */
static sluice_status *check_time(tcp_group *t, const sluice_call *mine) {
  const double now = sluice_seconds();
  for (uint32_t r = 0; r < t->group.ranks; r++) {
    const lane *l = &t->lanes[r];
    if (r == t->group.rank || (is_sent(l) && is_received(l)) || now - l->last <= t->group.deadline) continue;
    const bool silent = sluice_socket_silence(t->links.data[r]) > t->group.deadline / 2;
    return fail_of(t, silent ? SLUICE_FAULT_UNREACHABLE : SLUICE_FAULT_LATE, r, mine, mine);
  }
  return NULL;
}

/* Waits until a connection can go on, a fault is told, or somebody is late. */
static sluice_status *wait_for_any(tcp_group *t, const sluice_call *mine) {
  struct pollfd list[2 * SLUICE_MOST_RANKS];
  uint32_t controls[SLUICE_MOST_RANKS], count = 0, lanes = 0;
  for (uint32_t r = 0; r < t->group.ranks; r++) {
    const lane *l = &t->lanes[r];
    const short events = (short)((is_received(l) ? 0 : POLLIN) | (is_sent(l) ? 0 : POLLOUT));
    if (r != t->group.rank && events) list[lanes++] = (struct pollfd){.fd = t->links.data[r], .events = events};
  }
  for (uint32_t r = 0; r < t->group.ranks; r++) {
    if (t->links.control[r] < 0) continue;
    list[lanes + count] = (struct pollfd){.fd = t->links.control[r], .events = POLLIN};
    controls[count++] = r;
  }
  poll(list, lanes + count, t->group.deadline < 1 ? (int)(t->group.deadline * 250) + 1 : 250);
  for (uint32_t i = 0; i < count; i++)
    if (list[lanes + i].revents && hear(t, controls[i], 0)) return conclude(t);
  return check_time(t, mine);
}

/* What the lanes say goes to and comes from each rank. */
static sluice_status *exchange(tcp_group *t, const sluice_call *mine) {
  if (t->failed) return sluice_fault_error(&t->fault);
  const double start = sluice_seconds();
  for (uint32_t r = 0; r < t->group.ranks; r++) {
    t->lanes[r].sent = t->lanes[r].received = 0;
    t->lanes[r].last = start;
  }
  for (;;) {
    for (uint32_t r = 0; r < t->group.ranks; r++) {
      if (r == t->group.rank) continue;
      SLUICE_TRY(push(t, r, mine));
      SLUICE_TRY(pull(t, r, mine));
    }
    SLUICE_TRY(compare(t, mine));
    if (is_done(t)) return NULL;
    SLUICE_TRY(wait_for_any(t, mine));
  }
}

/* ---- The entries ---- */

static sluice_status *grow_scratch(tcp_group *t, size_t bytes) {
  if (bytes <= t->scratch_bytes) return NULL;
  char *grown = sluice_reallocate_array(t->scratch, bytes, 1);
  if (!grown) return sluice_out_of_memory();
  t->scratch = grown;
  t->scratch_bytes = bytes;
  return NULL;
}

/* values = the ranks' values, of which this rank's are in `values` and the others' in the scratch memory, `count` of
 * each, by rank; added in the order of the ranks. */
static void add_in_order(tcp_group *t, float *values, size_t count) {
  float *parts = (float *)(void *)t->scratch;
  memcpy(parts + t->group.rank * count, values, count * sizeof *values);
  memcpy(values, parts, count * sizeof *values);
  for (uint32_t r = 1; r < t->group.ranks; r++)
    for (size_t i = 0; i < count; i++) values[i] += parts[r * count + i];
}

static sluice_status *reduce_at_once(tcp_group *t, const sluice_call *mine, float *values, size_t count) {
  const size_t bytes = count * sizeof *values;
  SLUICE_TRY(grow_scratch(t, t->group.ranks * bytes));
  for (uint32_t r = 0; r < t->group.ranks; r++)
    t->lanes[r] = (lane){
        .send = (const char *)values, .send_bytes = bytes, .receive = t->scratch + r * bytes, .receive_bytes = bytes};
  SLUICE_TRY(exchange(t, mine));
  if (count) add_in_order(t, values, count);
  return NULL;
}

/* Where a rank's share of `count` values begins. */
static size_t share(const tcp_group *t, size_t count, uint32_t rank) {
  return count * rank / t->group.ranks;
}

static sluice_status *reduce_by_shares(tcp_group *t, const sluice_call *mine, float *values, size_t count) {
  const uint32_t rank = t->group.rank;
  const size_t first = share(t, count, rank), own = share(t, count, rank + 1) - first;
  SLUICE_TRY(grow_scratch(t, t->group.ranks * own * sizeof *values));
  for (uint32_t r = 0; r < t->group.ranks; r++) {
    const size_t theirs = share(t, count, r);
    t->lanes[r] = (lane){.send = (const char *)(values + theirs),
                         .send_bytes = (share(t, count, r + 1) - theirs) * sizeof *values,
                         .receive = t->scratch + r * own * sizeof *values,
                         .receive_bytes = own * sizeof *values};
  }
  SLUICE_TRY(exchange(t, mine));
  add_in_order(t, values + first, own);
  for (uint32_t r = 0; r < t->group.ranks; r++) {
    const size_t theirs = share(t, count, r);
    t->lanes[r] = (lane){.send = (const char *)(values + first),
                         .send_bytes = own * sizeof *values,
                         .receive = (char *)(values + theirs),
                         .receive_bytes = (share(t, count, r + 1) - theirs) * sizeof *values};
  }
  return exchange(t, mine);
}

static sluice_status *all_reduce(sluice_group *group, float *values, size_t count) {
  tcp_group *t = tcp_of(group);
  const sluice_call mine = {.kind = SLUICE_CALL_ALL_REDUCE, .bytes = count * sizeof *values, .step = group->step};
  if (mine.bytes <= ONE_EXCHANGE_BYTES) return reduce_at_once(t, &mine, values, count);
  for (size_t done = 0; done < count;) {
    const size_t here = count - done < PART_VALUES ? count - done : PART_VALUES;
    SLUICE_TRY(reduce_by_shares(t, &mine, values + done, here));
    done += here;
  }
  return NULL;
}

static sluice_status *all_gather(sluice_group *group, const void *mine_data, size_t bytes, void *all) {
  tcp_group *t = tcp_of(group);
  const sluice_call mine = {.kind = SLUICE_CALL_ALL_GATHER, .bytes = bytes, .step = group->step};
  for (uint32_t r = 0; r < group->ranks; r++)
    t->lanes[r] =
        (lane){.send = mine_data, .send_bytes = bytes, .receive = (char *)all + r * bytes, .receive_bytes = bytes};
  SLUICE_TRY(exchange(t, &mine));
  if (bytes) memcpy((char *)all + group->rank * bytes, mine_data, bytes);
  return NULL;
}

static sluice_status *broadcast(sluice_group *group, void *data, size_t bytes) {
  tcp_group *t = tcp_of(group);
  const sluice_call mine = {.kind = SLUICE_CALL_BROADCAST, .bytes = bytes, .step = group->step};
  for (uint32_t r = 0; r < group->ranks; r++) {
    t->lanes[r] = (lane){0};
    if (group->rank == 0) t->lanes[r] = (lane){.send = data, .send_bytes = bytes};
  }
  if (group->rank) {
    t->lanes[0].receive = data;
    t->lanes[0].receive_bytes = bytes;
  }
  return exchange(t, &mine);
}

static void leave(sluice_group *group) {
  if (!group) return;
  tcp_group *t = tcp_of(group);
  const sluice_call goodbye = {.kind = SLUICE_CALL_KINDS, .step = group->step};
  for (uint32_t r = 0; r < group->ranks && !t->failed; r++)
    if (t->links.data[r] >= 0) send(t->links.data[r], &goodbye, sizeof goodbye, MSG_NOSIGNAL);
  sluice_links_close(&t->links);
  sluice_release(t->scratch);
  sluice_release(t);
}

static const sluice_collectives tcp_collectives = {
    .name = "TCP", .all_reduce = all_reduce, .all_gather = all_gather, .broadcast = broadcast, .leave = leave};

sluice_status *sluice_tcp_join(const sluice_meeting *meeting, double deadline, sluice_group **out_group) {
  *out_group = NULL;
  tcp_group *t = sluice_allocate(sizeof *t);
  if (!t) return sluice_out_of_memory();
  sluice_status *status = sluice_meet(meeting, &t->links);
  if (status) {
    sluice_release(t);
    return status;
  }
  t->group = (sluice_group){.collectives = &tcp_collectives,
                            .rank = meeting->rank,
                            .ranks = meeting->ranks,
                            .deadline = deadline > 0 ? deadline : SLUICE_GROUP_DEADLINE};
  for (uint32_t r = 0; r < meeting->ranks; r++) {
    const double watch = isfinite(t->group.deadline) ? t->group.deadline : SLUICE_GROUP_DEADLINE;
    if (t->links.data[r] >= 0) sluice_socket_watch(t->links.data[r], watch);
    if (t->links.control[r] >= 0) sluice_socket_watch(t->links.control[r], watch);
  }
  *out_group = &t->group;
  return NULL;
}

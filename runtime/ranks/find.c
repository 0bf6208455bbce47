#include "runtime/ranks/find.h"

#include "runtime/collectives.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_PORT = 20000, PORTS = 10000, USUAL_PORT = 29500 };

typedef struct environment {
  sluice_variable *variable;
  void *user;
} environment;

static const char *get(const environment *e, const char *name) {
  const char *value = e->variable(e->user, name);
  return value && *value ? value : NULL;
}

/* What a launcher says. */
typedef struct launcher {
  const char *name;
  const char *rank, *ranks, *local_rank; /* variables; local_rank NULL: one process on each machine */
  const char *only_with;                 /* what says that this process was started by it; NULL: `rank` does */
} launcher;
typedef enum launcher_kind { TORCHRUN, OPEN_MPI, PMI, SLURM, LEADER_WORKER_SET, LAUNCHERS } launcher_kind;

/* The innermost first. A batch script of Slurm has SLURM_PROCID, but is no task: it has no step. */
static const launcher launchers[LAUNCHERS] = {
    [TORCHRUN] = {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", NULL},
    [OPEN_MPI] = {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", NULL},
    [PMI] = {"PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", NULL},
    [SLURM] = {"Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_ID"},
    [LEADER_WORKER_SET] = {"LeaderWorkerSet", "LWS_WORKER_INDEX", "LWS_GROUP_SIZE", NULL, NULL},
};

static sluice_status *read_number(const environment *e, const char *name, uint32_t most, uint32_t *out) {
  const char *text = get(e, name);
  char *end = NULL;
  errno = 0;
  const unsigned long value = text && text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;
  if (!end || *end || errno || value > most)
    return sluice_error(SLUICE_INVALID, "the variable %s is \"%s\": expected a number from 0 to %u", name,
                        text ? text : "", most);
  *out = (uint32_t)value;
  return NULL;
}

/* ---- Who ---- */

typedef struct said {
  bool at_all;
  uint32_t rank, ranks, local_rank;
} said;

static sluice_status *ask(const environment *e, const launcher *l, said *out) {
  const bool started = get(e, l->rank) && (!l->only_with || get(e, l->only_with));
  *out = (said){0};
  if (!started && !(get(e, l->ranks) && !l->only_with)) return NULL;
  for (int i = 0; i < 2; i++)
    if (!get(e, i ? l->ranks : l->rank))
      return sluice_error(SLUICE_INVALID, "%s is set, but %s is not: %s sets both", i ? l->rank : l->ranks,
                          i ? l->ranks : l->rank, l->name);
  out->at_all = true;
  SLUICE_TRY(read_number(e, l->rank, UINT16_MAX, &out->rank));
  SLUICE_TRY(read_number(e, l->ranks, UINT16_MAX, &out->ranks));
  if (l->local_rank && get(e, l->local_rank)) SLUICE_TRY(read_number(e, l->local_rank, UINT16_MAX, &out->local_rank));
  if (out->rank >= out->ranks)
    return sluice_error(SLUICE_INVALID, "%s is %u and %s %u: ranks count from 0", l->rank, out->rank, l->ranks,
                        out->ranks);
  if (out->local_rank > out->rank)
    return sluice_error(SLUICE_INVALID, "%s is %u and %s %u: a rank is at least its local rank", l->local_rank,
                        out->local_rank, l->rank, out->rank);
  return NULL;
}

static sluice_status *agree(const launcher *l, const said *one, const launcher *m, const said *other) {
  if (!other->at_all || other->ranks < one->ranks) return NULL;
  if (other->ranks == one->ranks && other->rank == one->rank) return NULL;
  return sluice_error(SLUICE_INVALID,
                      "%s says rank %u of %u (%s, %s), %s rank %u of %u (%s, %s): unset the variables of the one that "
                      "did not start this process",
                      l->name, one->rank, one->ranks, l->rank, l->ranks, m->name, other->rank, other->ranks, m->rank,
                      m->ranks);
}

static sluice_status *find_rank(const environment *e, sluice_rank_place *place, launcher_kind *out_kind) {
  said all[LAUNCHERS];
  *out_kind = LAUNCHERS;
  for (int i = 0; i < LAUNCHERS; i++) SLUICE_TRY(ask(e, &launchers[i], &all[i]));
  for (int i = 0; i < LAUNCHERS && *out_kind == LAUNCHERS; i++)
    if (all[i].at_all) *out_kind = (launcher_kind)i;
  if (*out_kind == LAUNCHERS) return NULL;
  const launcher *l = &launchers[*out_kind];
  const said *one = &all[*out_kind];
  for (int i = (int)*out_kind + 1; i < LAUNCHERS; i++) SLUICE_TRY(agree(l, one, &launchers[i], &all[i]));
  uint32_t pmix = one->rank;
  if (get(e, "PMIX_RANK") && *out_kind != TORCHRUN) SLUICE_TRY(read_number(e, "PMIX_RANK", UINT16_MAX, &pmix));
  if (pmix != one->rank)
    return sluice_error(SLUICE_INVALID, "PMIX_RANK is %u, and %s %u: unset the one that did not start this process",
                        pmix, l->rank, one->rank);
  if (one->ranks > SLUICE_MOST_RANKS)
    return sluice_error(SLUICE_INVALID, "%s says %u ranks (%s): a group has at most %d", l->name, one->ranks, l->ranks,
                        SLUICE_MOST_RANKS);
  place->by = l->name;
  place->rank = one->rank;
  place->ranks = one->ranks;
  place->local_rank = one->local_rank;
  return NULL;
}

/* ---- Where rank 0 is ---- */

bool sluice_first_host(const char *list, char *host, size_t capacity) {
  size_t length = 0;
  bool in_brackets = false, taken = false; /* taken: the first number in these brackets has been copied */
  for (const char *at = list; *at && (in_brackets || *at != ','); at++) {
    if (*at == '[' || *at == ']') {
      in_brackets = *at == '[';
      taken = false;
      continue;
    }
    if (in_brackets && (*at == '-' || *at == ',')) taken = true;
    if (taken) continue;
    if (length + 1 >= capacity) return false;
    host[length++] = *at;
  }
  host[length] = 0;
  return length > 0 && !in_brackets;
}

static sluice_status *set_host(sluice_rank_place *place, const char *name, const char *host, size_t length) {
  if (length < 1 || length >= sizeof place->host)
    return sluice_error(SLUICE_INVALID, "%s: \"%.40s\" is not the name of a host", name, host);
  memcpy(place->host, host, length);
  place->host[length] = 0;
  return NULL;
}

/* "HOST:PORT", "[IPv6]:PORT" */
static sluice_status *read_leader(const char *leader, sluice_rank_place *place) {
  const char *colon = strrchr(leader, ':');
  char *end = NULL;
  const unsigned long port = colon && colon[1] >= '0' && colon[1] <= '9' ? strtoul(colon + 1, &end, 10) : 0;
  if (!end || *end || port < 1 || port > UINT16_MAX)
    return sluice_error(SLUICE_USAGE, "--leader: \"%s\" is not HOST:PORT of rank 0", leader);
  place->port = (uint16_t)port;
  if (leader[0] == '[' && colon[-1] == ']')
    return set_host(place, "--leader", leader + 1, (size_t)(colon - leader) - 2);
  return set_host(place, "--leader", leader, (size_t)(colon - leader));
}

/* A port that processes of one job agree on, and those of other jobs probably do not. */
static uint16_t port_of(const char *job) {
  uint32_t hash = 2166136261u;
  for (; job && *job; job++) hash = (hash ^ (uint8_t)*job) * 16777619u;
  return (uint16_t)(FIRST_PORT + hash % PORTS);
}

static sluice_status *find_slurm_host(const environment *e, sluice_rank_place *place) {
  const char *list = get(e, "SLURM_STEP_NODELIST");
  char job[64];
  if (!list) list = get(e, "SLURM_JOB_NODELIST");
  if (!list) return NULL;
  if (!sluice_first_host(list, place->host, sizeof place->host))
    return sluice_error(SLUICE_INVALID, "Slurm's list of nodes \"%.80s\" has no first host", list);
  snprintf(job, sizeof job, "%.20s.%.20s", get(e, "SLURM_JOB_ID") ? get(e, "SLURM_JOB_ID") : "",
           get(e, "SLURM_STEP_ID"));
  place->port = port_of(job);
  return NULL;
}

static sluice_status *find_leader(const environment *e, launcher_kind kind, sluice_rank_place *place) {
  const char *host = get(e, "MASTER_ADDR"), *lws = get(e, "LWS_LEADER_ADDRESS");
  uint32_t port = USUAL_PORT, local = 0;
  if (get(e, "MASTER_PORT")) SLUICE_TRY(read_number(e, "MASTER_PORT", UINT16_MAX, &port));
  if (host) {
    /* torchrun's own store may listen at that port */
    const char *store = get(e, "TORCHELASTIC_USE_AGENT_STORE");
    if (kind == TORCHRUN && store && strcmp(store, "True") == 0) port = port < UINT16_MAX ? port + 1 : port - 1;
    place->port = (uint16_t)port;
    return set_host(place, "MASTER_ADDR", host, strlen(host));
  }
  if (kind == SLURM) return find_slurm_host(e, place);
  if (kind == LEADER_WORKER_SET && lws) {
    place->port = (uint16_t)port;
    return set_host(place, "LWS_LEADER_ADDRESS", lws, strlen(lws));
  }
  const char *local_size = kind == OPEN_MPI ? "OMPI_COMM_WORLD_LOCAL_SIZE" : "MPI_LOCALNRANKS";
  if ((kind == OPEN_MPI || kind == PMI) && get(e, local_size))
    SLUICE_TRY(read_number(e, local_size, UINT16_MAX, &local));
  if (local == place->ranks) {
    place->port = port_of(get(e, "PMIX_NAMESPACE"));
    return set_host(place, local_size, "127.0.0.1", 9);
  }
  return NULL;
}

sluice_status *sluice_rank_find(sluice_variable *variable, void *user, const char *leader,
                                sluice_rank_place *out_place) {
  const environment e = {variable, user};
  launcher_kind kind;
  *out_place = (sluice_rank_place){.ranks = 1};
  SLUICE_TRY(find_rank(&e, out_place, &kind));
  if (leader && !out_place->by)
    return sluice_error(SLUICE_USAGE, "--leader is given, but no variable says which rank this is (RANK, WORLD_SIZE)");
  if (out_place->ranks == 1) return NULL;
  if (leader) return read_leader(leader, out_place);
  SLUICE_TRY(find_leader(&e, kind, out_place));
  if (out_place->host[0]) return NULL;
  return sluice_error(SLUICE_INVALID,
                      "%s says rank %u of %u, but not where rank 0 is: set MASTER_ADDR and MASTER_PORT, or give "
                      "--leader HOST:PORT",
                      out_place->by, out_place->rank, out_place->ranks);
}

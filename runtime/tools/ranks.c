#include "runtime/tools/ranks.h"

#include "runtime/ranks/join.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tool_child launched; /* ranks 0: this process is no child of `launch` */

sluice_status *tool_ranks_launched(const tool_child *child) {
  if (launched.ranks) return sluice_error(SLUICE_USAGE, "launch within launch");
  launched = *child;
  return NULL;
}

static const char *from_environment(void *user, const char *name) {
  (void)user;
  return getenv(name);
}

/* The children of `launch` on each of several machines: rank 2 of the machines' 4 with 8 children has ranks 16 to 23.
 */
static sluice_status *place_child(sluice_rank_place *place) {
  const uint32_t machine = place->rank, ranks = place->ranks * launched.ranks;
  if (ranks > SLUICE_MOST_RANKS)
    return sluice_error(SLUICE_USAGE, "%u machines with %u ranks each: a group has at most %d", place->ranks,
                        launched.ranks, SLUICE_MOST_RANKS);
  if (place->local_rank)
    return sluice_error(SLUICE_USAGE,
                        "%s started launch several times on this machine: let it start one, or the ranks "
                        "themselves without launch",
                        place->by);
  place->ranks = ranks;
  place->rank = machine * launched.ranks + launched.rank;
  place->local_rank = launched.rank;
  return NULL;
}

static sluice_status *join_found(const tool_rank_options *options, const sluice_rank_place *place,
                                 sluice_group **out_group) {
  fprintf(stderr, "rank %u of %u (on this machine %u), as %s says; rank 0 is at %s port %u\n", place->rank,
          place->ranks, place->local_rank, place->by, place->host, place->port);
  return sluice_group_join(place, options->secret, options->deadline, out_group);
}

sluice_status *tool_ranks_join(const tool_rank_options *options, tool_ranks *out_ranks, sluice_group **out_group) {
  sluice_rank_place place;
  *out_group = NULL;
  if (options->deadline < 0)
    return sluice_error(SLUICE_USAGE, "--rank-deadline: %g seconds; expected more than 0", options->deadline);
  *out_ranks = (tool_ranks){.ranks = 1};
  if (!options->leader && !launched.ranks) return NULL;
  SLUICE_TRY(sluice_rank_find(from_environment, NULL, options->leader, &place));
  const bool alone = place.ranks == 1;
  if (launched.ranks) SLUICE_TRY(place_child(&place));
  *out_ranks = (tool_ranks){
      .rank = place.rank, .ranks = place.ranks, .local_rank = place.local_rank, .local_ranks = launched.ranks};
  if (place.ranks == 1) return NULL;
  if (!alone) return join_found(options, &place, out_group);
  if (options->leader || options->secret)
    return sluice_error(SLUICE_USAGE, "--leader and --secret are for several machines: the ranks of launch on one "
                                      "machine know each other");
  return sluice_shared_join(launched.memory, launched.rank, options->deadline, out_group);
}

sluice_status *tool_ranks_device(const tool_ranks *ranks, const char *device, char **out_device) {
  *out_device = NULL;
  if (!device) return NULL;
  const char *first = device;
  size_t items = 1;
  for (const char *at = device; *at; at++) items += *at == ',';
  if (ranks->local_ranks > items && items > 1)
    return sluice_error(SLUICE_USAGE, "--device: %zu devices for %u ranks of this machine", items, ranks->local_ranks);
  for (uint32_t i = 0; i < ranks->local_rank % items; i++) first = strchr(first, ',') + 1;
  const size_t length = strcspn(first, ",");
  const bool gpu = items == 1 && ranks->ranks > 1 && (strcmp(device, "cuda") == 0 || strcmp(device, "hip") == 0);
  *out_device = gpu ? sluice_format_string("%s:%u", device, ranks->local_rank) : sluice_copy_string(first, length);
  return *out_device ? NULL : sluice_out_of_memory();
}

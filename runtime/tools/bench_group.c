/* The names of kernels. A plan says for each launch from which op of the model it came (its label) and in which layer;
 * a name stands for launches of one layer that do one job together, however many launches a target makes of it.
 */
#include "runtime/tools/bench.h"

#include "sluice/memory.h"

#include <stdio.h>
#include <string.h>

/* What a launch is for, from its label and its place in the layer. */
typedef enum launch_role {
  ROLE_OTHER = 0, /* named by its label alone */
  ROLE_PROJECTIONS = 1,
  ROLE_SELECT_ATTEND = 2,
  ROLE_ATTENTION = 4,
  ROLE_OUTPUT_PROJECTION = 8,
  ROLE_MLP = 16,
  ROLE_SHARED_EXPERT = 32,
  ROLE_ROUTER = 64,
  ROLE_EXPERTS = 128,
} launch_role;

/* A shared expert without launches of its own is among the experts. With products of its own it is not, though their
 * combination adds its rows. Launches run joined where a name has all of a join: "moe", say, but not "routed". */
static const struct {
  const char *name;
  unsigned roles;
  unsigned optional; /* roles that a layer may lack */
} names[] = {
    {"projections", ROLE_PROJECTIONS, 0},
    {"select_attend", ROLE_SELECT_ATTEND, 0},
    {"attention", ROLE_ATTENTION, 0},
    {"output_projection", ROLE_OUTPUT_PROJECTION, 0},
    {"mlp", ROLE_MLP, 0},
    {"shared_expert", ROLE_SHARED_EXPERT, 0},
    {"router", ROLE_ROUTER, 0},
    {"experts", ROLE_EXPERTS, 0},
    {"routed", ROLE_ROUTER | ROLE_EXPERTS, 0},
    {"moe", ROLE_ROUTER | ROLE_EXPERTS | ROLE_SHARED_EXPERT, ROLE_SHARED_EXPERT},
};
#define NAME_COUNT (sizeof names / sizeof names[0])

static bool is_one_of(const char *label, const char *const *list) {
  for (; *list; list++)
    if (strcmp(label, *list) == 0) return true;
  return false;
}

/* The launches that a step of some shape runs; others are made for other steps. */
typedef struct active_launches {
  const sluice_plan *plan;
  uint32_t *launches;
  unsigned *roles; /* launch_role of each */
  uint32_t count;
} active_launches;

static const char *label_of(const active_launches *active, uint32_t i) {
  return sluice_plan_string(active->plan, active->plan->launches[active->launches[i]].label);
}

static uint32_t layer_of(const active_launches *active, uint32_t i) {
  return active->plan->launches[active->launches[i]].layer;
}

static bool is_of_family(const active_launches *active, uint32_t i, const char *family) {
  const sluice_plan *plan = active->plan;
  return strcmp(sluice_plan_string(plan, plan->kernels[plan->launches[active->launches[i]].kernel].family), family) ==
         0;
}

static const char *const select_labels[] = {"select_attention", "index_select",    "index_score", "block_max",
                                            "topk_blocks",      "block_attention", NULL};
static const char *const router_labels[] = {"router", "topk_experts", NULL};
static const char *const expert_labels[] = {"experts", "experts_shared", "expert_linear", "combine", NULL};
static const char *const projection_labels[] = {"linear", "linear_add", "add", "rms_norm", NULL};

/* The role of a launch behind attention and its output projection; `before` is that of the one before. */
static launch_role feed_forward_role(const active_launches *active, uint32_t i, launch_role before) {
  const char *label = label_of(active, i);
  if (strcmp(label, "route") == 0) return ROLE_ROUTER | ROLE_EXPERTS; /* the choice and the sort */
  if (is_one_of(label, router_labels)) return ROLE_ROUTER;
  if (is_one_of(label, expert_labels)) return is_of_family(active, i, "gemm") ? ROLE_SHARED_EXPERT : ROLE_EXPERTS;
  bool between_experts = strcmp(label, "swiglu_oai") == 0 || strcmp(label, "add") == 0;
  if ((before & ROLE_EXPERTS) && between_experts) return ROLE_EXPERTS;
  bool last = i + 1 == active->count;
  if (!last && strcmp(label, "linear") == 0 && strcmp(label_of(active, i + 1), "topk_experts") == 0)
    return ROLE_ROUTER; /* its logits, where the two are not fused */
  return ROLE_MLP;
}

/* The roles of the launches of one layer, [first, last). */
static void find_layer_roles(active_launches *active, uint32_t first, uint32_t last) {
  unsigned *roles = active->roles;
  enum { BEFORE, ATTENDING, OUTPUT, FEED_FORWARD } place = BEFORE;
  bool has_experts = false;
  for (uint32_t i = first; i < last; i++) {
    const char *label = label_of(active, i);
    bool select = is_one_of(label, select_labels), attention = strcmp(label, "attention") == 0;
    if (select || attention)
      place = ATTENDING;
    else if (place == ATTENDING)
      place = OUTPUT;
    if (place == OUTPUT && !is_one_of(label, projection_labels)) place = FEED_FORWARD;
    switch (place) {
    case BEFORE:
      roles[i] = strcmp(label, "rms_norm") == 0 || strcmp(label, "rope_table") == 0 || strcmp(label, "embed") == 0
                     ? ROLE_OTHER
                     : ROLE_PROJECTIONS;
      break;
    case ATTENDING:
      roles[i] = select ? ROLE_SELECT_ATTEND : ROLE_ATTENTION;
      break;
    case OUTPUT: /* up to the norm of its result */
      roles[i] = ROLE_OUTPUT_PROJECTION;
      if (strcmp(label, "rms_norm") == 0) place = FEED_FORWARD;
      break;
    case FEED_FORWARD:
      roles[i] = feed_forward_role(active, i, i > first ? (launch_role)roles[i - 1] : ROLE_OTHER);
      break;
    }
    has_experts = has_experts || (roles[i] & ROLE_EXPERTS) != 0;
  }
  for (uint32_t i = first; i < last; i++)
    if (has_experts && roles[i] == ROLE_MLP) roles[i] = ROLE_SHARED_EXPERT;
}

static void free_active(active_launches *active) {
  sluice_release(active->launches);
  sluice_release(active->roles);
}

static sluice_status *find_active(const sluice_plan *plan, const int32_t sizes[SLUICE_SIZE_COUNT],
                                  active_launches *active) {
  uint64_t count = plan->header->launches.count;
  *active = (active_launches){.plan = plan};
  active->launches = sluice_allocate_array((size_t)count, sizeof *active->launches);
  active->roles = sluice_allocate_array((size_t)count, sizeof *active->roles);
  if (!active->launches || !active->roles) {
    free_active(active);
    return sluice_out_of_memory();
  }
  for (uint64_t i = 0; i < count; i++)
    if (sluice_plan_runs(plan, &plan->launches[i], sizes)) active->launches[active->count++] = (uint32_t)i;
  for (uint32_t first = 0, last; first < active->count; first = last) {
    uint32_t layer = layer_of(active, first);
    for (last = first + 1; last < active->count && layer_of(active, last) == layer;) last++;
    if (layer != UINT32_MAX) find_layer_roles(active, first, last);
  }
  return NULL;
}

/* ---- Lists ---- */

void bench_group_list_free(bench_group_list *list) {
  for (uint32_t i = 0; i < list->count; i++) sluice_release(list->groups[i].launches);
  sluice_release(list->groups);
  *list = (bench_group_list){0};
}

static bool same_kernels(const sluice_plan *plan, const bench_group *a, const bench_group *b) {
  if (a->count != b->count || strcmp(a->name, b->name) != 0) return false;
  for (uint32_t i = 0; i < a->count; i++)
    if (plan->launches[a->launches[i]].kernel != plan->launches[b->launches[i]].kernel) return false;
  return true;
}

/* Takes over the launches of `group`: as another group, or as one more of an equal one. */
static sluice_status *add_group(const sluice_plan *plan, bench_group_list *list, bench_group *group) {
  for (uint32_t i = 0; i < list->count; i++)
    if (same_kernels(plan, &list->groups[i], group)) {
      list->groups[i].times++;
      sluice_release(group->launches);
      return NULL;
    }
  if (list->count == list->capacity) {
    uint32_t capacity = list->capacity ? 2 * list->capacity : 16;
    bench_group *groups = sluice_reallocate_array(list->groups, capacity, sizeof *groups);
    if (!groups) {
      sluice_release(group->launches);
      return sluice_out_of_memory();
    }
    list->groups = groups;
    list->capacity = capacity;
  }
  group->times = 1;
  list->groups[list->count++] = *group;
  return NULL;
}

/* The launches of layer `layer` that have a role of `wanted`, or, when that is 0, the first run of launches with the
 * label `name`. Adds nothing when there are none. */
static sluice_status *collect(const active_launches *active, uint32_t layer, const char *name, unsigned wanted,
                              bench_group_list *list) {
  bench_group group = {.layer = layer};
  snprintf(group.name, sizeof group.name, "%s", name);
  group.launches = sluice_allocate_array(active->count, sizeof *group.launches);
  if (!group.launches) return sluice_out_of_memory();
  for (uint32_t i = 0; i < active->count; i++) {
    if (layer_of(active, i) != layer) continue;
    if (wanted ? (active->roles[i] & wanted) != 0 : strcmp(label_of(active, i), name) == 0)
      group.launches[group.count++] = active->launches[i];
    else if (!wanted && group.count)
      break;
  }
  if (group.count) return add_group(active->plan, list, &group);
  sluice_release(group.launches);
  return NULL;
}

static unsigned roles_of_layer(const active_launches *active, uint32_t layer) {
  unsigned found = 0;
  for (uint32_t i = 0; i < active->count; i++)
    if (layer_of(active, i) == layer) found |= active->roles[i];
  return found;
}

/* The named groups of a layer, then its launches without a role by their labels. */
static sluice_status *collect_layer(const active_launches *active, uint32_t layer, bench_group_list *list) {
  unsigned found = roles_of_layer(active, layer);
  for (size_t n = 0; n < NAME_COUNT; n++) {
    unsigned needed = names[n].roles & ~names[n].optional;
    if ((found & needed) == needed) SLUICE_TRY(collect(active, layer, names[n].name, names[n].roles, list));
  }
  for (uint32_t i = 0; i < active->count; i++) {
    if (layer_of(active, i) != layer || active->roles[i] != ROLE_OTHER) continue;
    bool first = true;
    for (uint32_t j = 0; j < i && first; j++)
      first = layer_of(active, j) != layer || strcmp(label_of(active, j), label_of(active, i)) != 0;
    if (first) SLUICE_TRY(collect(active, layer, label_of(active, i), 0, list));
  }
  return NULL;
}

sluice_status *bench_groups_all(const sluice_plan *plan, const int32_t sizes[SLUICE_SIZE_COUNT],
                                bench_group_list *out_list) {
  *out_list = (bench_group_list){0};
  active_launches active;
  SLUICE_TRY(find_active(plan, sizes, &active));
  sluice_status *status = NULL;
  for (uint32_t layer = 0; layer < plan->header->layers && !status; layer++)
    status = collect_layer(&active, layer, out_list);
  if (!status) status = collect_layer(&active, UINT32_MAX, out_list);
  free_active(&active);
  if (status) bench_group_list_free(out_list);
  return status;
}

/* ---- Finding one ---- */

/* Counts the groups of the plan that run the same kernels as the only one of `list`. */
static sluice_status *count_times(const active_launches *active, unsigned wanted, bench_group_list *list) {
  bench_group *found = &list->groups[0];
  bench_group_list all = {0};
  sluice_status *status = NULL;
  for (uint32_t l = 0; l < active->plan->header->layers && !status; l++)
    status = collect(active, l, found->name, wanted, &all);
  for (uint32_t i = 0; i < all.count; i++)
    if (same_kernels(active->plan, &all.groups[i], found)) found->times = all.groups[i].times;
  bench_group_list_free(&all);
  return status;
}

static SLUICE_NEW_ERROR sluice_status *unknown_name(const sluice_plan *plan, const int32_t sizes[SLUICE_SIZE_COUNT],
                                                    const char *name, uint32_t layer) {
  bench_group_list all;
  sluice_status *status = bench_groups_all(plan, sizes, &all);
  if (status) return status;
  char list[512] = "", where[32] = "the bundle";
  size_t used = 0;
  for (uint32_t i = 0; i < all.count; i++) {
    bool repeated = false;
    for (uint32_t j = 0; j < i && !repeated; j++) repeated = strcmp(all.groups[i].name, all.groups[j].name) == 0;
    if (repeated || used >= sizeof list) continue;
    used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", all.groups[i].name);
  }
  bench_group_list_free(&all);
  if (layer != UINT32_MAX) snprintf(where, sizeof where, "layer %u", layer);
  return sluice_error(SLUICE_USAGE, "%s has no kernel \"%.60s\"; the bundle's kernels for this shape are: %s", where,
                      name, list);
}

static sluice_status *find(const active_launches *active, const char *name, unsigned wanted, uint32_t layer,
                           bench_group_list *list) {
  uint32_t layers = active->plan->header->layers;
  if (layer != UINT32_MAX) return collect(active, layer, name, wanted, list);
  for (uint32_t l = 0; !list->count && l < layers; l++)
    if (roles_of_layer(active, l) & ROLE_SELECT_ATTEND) SLUICE_TRY(collect(active, l, name, wanted, list));
  for (uint32_t l = 0; !list->count && l < layers; l++) SLUICE_TRY(collect(active, l, name, wanted, list));
  return list->count ? NULL : collect(active, UINT32_MAX, name, wanted, list);
}

sluice_status *bench_groups_find(const sluice_plan *plan, const int32_t sizes[SLUICE_SIZE_COUNT], const char *name,
                                 uint32_t layer, bench_group_list *out_list) {
  *out_list = (bench_group_list){0};
  active_launches active;
  SLUICE_TRY(find_active(plan, sizes, &active));
  unsigned wanted = 0;
  for (size_t n = 0; n < NAME_COUNT; n++)
    if (strcmp(names[n].name, name) == 0) wanted = names[n].roles;
  sluice_status *status = find(&active, name, wanted, layer, out_list);
  if (!status && out_list->count) status = count_times(&active, wanted, out_list);
  free_active(&active);
  if (!status && !out_list->count) status = unknown_name(plan, sizes, name, layer);
  if (status) bench_group_list_free(out_list);
  return status;
}

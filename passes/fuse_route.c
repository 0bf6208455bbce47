/* fuse-route: topk_experts and the sort_experts behind it become one launch, route, in steps of few tokens, where both
 * cost more to start than to run. Of kernel ops: one sort stands for each range of steps, and those up to the
 * configuration's number of tokens are fused. */
#include "backends/common/configuration.h"
#include "passes/fusions.h"
#include "passes/launches.h"
#include "passes/rewrite.h"
#include "sluice/memory.h"
#include "sluice/plan.h"

#include <string.h>

enum { MOST_SORTS = 8, MOST_CHOSEN = 32, COSTS = 10 };

typedef struct group {
  MlirOperation choice, sorts[MOST_SORTS];
  step_range ranges[MOST_SORTS];
  size_t count;
} group;

static void set_range(pass_state *state, MlirOperation op, int64_t from, int64_t to) {
  ir_attribute range = launch_steps_attribute(state, (step_range){from, to});
  mlirOperationSetAttributeByName(op, mlirStringRefCreateFromCString(range.name), range.value);
}

/* Whether the sort writes over the logits, which are dead when it runs alone. */
static bool overwrites(MlirOperation sort, MlirValue logits) {
  for (intptr_t i = 1; i < 4; i++)
    if (launch_memory_overlaps(ir_definition(rewrite_operand(sort, i)), ir_definition(logits))) return true;
  return false;
}

/* The sorts of the choice, whose ranges follow each other; NULL when no launch that runs in the same step stands
 * between the choice and one of them. */
static const char *find_sorts(group *g) {
  MlirValue chosen = rewrite_operand(g->choice, 2);
  int64_t next = 0;
  MlirOperation op = mlirOperationGetNextInBlock(g->choice);
  for (; next <= UINT32_MAX && !ir_is(op, "func.return"); op = mlirOperationGetNextInBlock(op)) {
    step_range range;
    if (!ir_is_launch(op)) continue;
    if (!launch_steps(op, &range)) return "a launch behind it has a range of another size";
    if (ir_is(op, "kernel.sort_experts") && mlirValueEqual(rewrite_operand(op, 0), chosen)) {
      if (range.from != next || g->count == MOST_SORTS) return "its choices are sorted more than once";
      if (overwrites(op, rewrite_operand(g->choice, 0))) return "the sort writes over the logits";
      g->sorts[g->count] = op;
      g->ranges[g->count++] = range;
      next = range.to + 1;
    } else if (range.to >= next) {
      return "a launch stands between the choice and the sort";
    }
  }
  return next > UINT32_MAX ? NULL : "its choices are not sorted in every step";
}

/* Moves what gives the memory `buffer` before `place` unless it is there already. */
static void move_up(MlirValue buffer, MlirOperation place) {
  MlirOperation definition = ir_definition(buffer);
  MlirOperation op = mlirOperationGetNextInBlock(place);
  while (!mlirOperationIsNull(op) && !mlirOperationEqual(op, definition)) op = mlirOperationGetNextInBlock(op);
  if (!mlirOperationIsNull(op)) mlirOperationMoveBefore(definition, place);
}

/* The launch for steps of from to `to` tokens. */
static void make_route(pass_state *state, MlirOperation choice, MlirOperation sort, int64_t from, int64_t to) {
  MlirValue operands[] = {rewrite_operand(choice, 0), rewrite_operand(choice, 1), rewrite_operand(sort, 1),
                          rewrite_operand(sort, 2),   rewrite_operand(sort, 3),   rewrite_operand(choice, 2),
                          rewrite_operand(choice, 3)};
  for (size_t i = 2; i < 5; i++) move_up(operands[i], choice);
  int64_t cost[COSTS];
  for (intptr_t i = 0; i < COSTS; i++) cost[i] = launch_item(choice, "cost", i) + launch_item(sort, "cost", i);
  const ir_attribute attributes[] = {rewrite_attribute(choice, "experts"),
                                     rewrite_attribute(choice, "k"),
                                     rewrite_attribute(sort, "shared"),
                                     rewrite_attribute(sort, "tile_m"),
                                     {"tokens", ir_integer(state->context, to)},
                                     launch_steps_attribute(state, (step_range){from, to}),
                                     {"label", ir_string(state->context, "route")},
                                     rewrite_attribute(choice, "layer"),
                                     rewrite_attribute(choice, "target"),
                                     {"cost", ir_integers(state->context, cost, COSTS)}};
  ir_builder builder = rewrite_builder(state, choice);
  ir_create(&builder, "kernel.route", operands, REWRITE_COUNT(operands), NULL, 0, attributes,
            REWRITE_COUNT(attributes));
}

static void fuse(pass_state *state, const group *g, int64_t most) {
  for (size_t i = 0; i < g->count && g->ranges[i].from <= most; i++) {
    int64_t to = g->ranges[i].to < most ? g->ranges[i].to : most;
    make_route(state, g->choice, g->sorts[i], g->ranges[i].from, to);
    if (to == g->ranges[i].to)
      mlirOperationDestroy(g->sorts[i]);
    else
      set_range(state, g->sorts[i], to + 1, g->ranges[i].to);
  }
  set_range(state, g->choice, most + 1, UINT32_MAX);
  pass_remark_add(state, g->choice, true, "choice and sort of up to %lld tokens", (long long)most);
}

bool pass_fuse_route(pass_state *state, MlirModule module) {
  kernel_variants steps;
  state->status =
      configuration_find(state->configuration, &(kernel_question){.family = "route", .to = UINT32_MAX}, &steps);
  if (state->status) return false;
  if (steps.count == 0) return true;
  rewrite_list ops;
  if (!rewrite_collect(state, module, "kernel.topk_experts", &ops)) return false;
  for (size_t i = 0; i < ops.count; i++) {
    group g = {.choice = ops.items[i]};
    if (ir_has(g.choice, "launch.range")) continue;
    const char *reason = ir_get_integer(g.choice, "k") > MOST_CHOSEN ? "too many experts of a token" : find_sorts(&g);
    if (reason)
      pass_remark_add(state, g.choice, false, "%s", reason);
    else
      fuse(state, &g, steps.item[0].to);
  }
  sluice_release(ops.items);
  return true;
}

/* join-launches: launches that follow each other and do small or dependent work become the parts of one, in steps of at
 * most the target's number of tokens. The launches stay as they are, for all other steps and for steps that are
 * observed; a kernel.join before them says which of them run as one. */
#include "backends/common/configuration.h"
#include "passes/fusions.h"
#include "passes/launches.h"
#include "passes/rewrite.h"
#include "sluice/memory.h"
#include "sluice/plan.h"

#include <stdlib.h>
#include <string.h>

/* Launches of which the second is worth joining to the first. Not here: what has clusters of workgroups; many small
 * workgroups behind a product, which would each hold the registers and the memory of one of the product's; and what the
 * tables of docs/measurements.md count as different jobs. */
static const char *const pairs[][2] = {
    {"kernel.rms_norm", "kernel.gemm"},
    {"kernel.gemm", "kernel.rms_norm"},
    {"kernel.gemm", "kernel.gemm"},
    {"kernel.router_logits", "kernel.route"},
    {"kernel.route", "kernel.gemm"},
    {"kernel.route", "kernel.expert_gemm"},
    {"kernel.gemm", "kernel.expert_gemm"},
    {"kernel.expert_gemm", "kernel.gemm"},
    {"kernel.expert_gemm", "kernel.expert_gemm"},
    {"kernel.expert_gemm", "kernel.combine"},
};

/* Launches that run as one: indices into the list of all. */
typedef struct run {
  size_t part[SLUICE_JOIN_PARTS], count;
  intptr_t arguments;
} run;

typedef struct joined_run {
  run run;
  step_range range;
} joined_run;

typedef struct joiner {
  pass_state *state;
  MlirOperation *launches;
  step_range *ranges; /* of each; from > to: they are not of tokens */
  size_t count;
  joined_run *joins;
  size_t join_count, join_capacity;
} joiner;

/* An expert product with small tiles has workgroups for every slot of the step. Beyond a few tokens many have nothing
 * to do, and looking at counters costs them more than a launch. Steps that have such products do not join at all: what
 * is left to be joined is faster by itself. */
static bool is_mostly_idle(MlirOperation op, step_range range) {
  enum { SMALL_TILE = 8, FEW_TOKENS = 8 };
  return ir_is(op, "kernel.expert_gemm") && ir_get_integer(op, "tile_m") <= SMALL_TILE && range.to > FEW_TOKENS;
}

static bool takes_part(const joiner *j, size_t launch, step_range range) {
  const step_range *of = &j->ranges[launch];
  return of->from <= of->to && of->to >= range.from && range.to >= of->from;
}

static bool follows(const joiner *j, const run *r, size_t launch) {
  MlirOperation last = j->launches[r->part[r->count - 1]], next = j->launches[launch];
  if (r->count == SLUICE_JOIN_PARTS || ir_get_integer(last, "layer") != ir_get_integer(next, "layer") ||
      r->arguments + mlirOperationGetNumOperands(next) > SLUICE_JOIN_ARGUMENTS)
    return false;
  for (size_t i = 0; i < REWRITE_COUNT(pairs); i++)
    if (ir_is(last, pairs[i][0]) && ir_is(next, pairs[i][1])) return true;
  return false;
}

/* Two products that overlap are in the same join or in none, with something behind them: of the second some workgroups
 * have nothing to do and do not wait, which the last part's all have to. */
static bool splits_overlap(const joiner *j, const run *r) {
  bool open = false, ends = false; /* behind a first product; with a second one */
  for (size_t i = 0; i < r->count; i++) {
    MlirOperation op = j->launches[r->part[i]];
    ends = ir_overlaps(op, "second");
    if (ends && !open) return true;
    open = ir_overlaps(op, "first") || (open && !ends);
  }
  return open || ends;
}

/* Ends a run that steps of `range` have: it becomes a join, or one that other steps have already is theirs too. */
static bool end_run(joiner *j, const run *r, step_range range) {
  if (r->count < 2 || splits_overlap(j, r)) return true;
  for (size_t i = 0; i < j->join_count; i++) {
    joined_run *other = &j->joins[i];
    if (other->range.to + 1 != range.from || other->run.count != r->count ||
        memcmp(other->run.part, r->part, r->count * sizeof *r->part) != 0)
      continue;
    other->range.to = range.to;
    return true;
  }
  if (j->join_count == j->join_capacity) {
    size_t capacity = j->join_capacity * 2 + 64;
    joined_run *grown = sluice_reallocate_array(j->joins, capacity, sizeof *grown);
    if (!grown) {
      j->state->status = sluice_out_of_memory();
      return false;
    }
    j->joins = grown;
    j->join_capacity = capacity;
  }
  j->joins[j->join_count++] = (joined_run){.run = *r, .range = range};
  return true;
}

/* The runs of steps of `range`, in which no launch starts or ends to take part. */
static bool find_runs(joiner *j, step_range range) {
  run r = {.count = 0};
  for (size_t i = 0; i < j->count; i++)
    if (takes_part(j, i, range) && is_mostly_idle(j->launches[i], range)) return true;
  for (size_t i = 0; i < j->count; i++) {
    const bool other_size = j->ranges[i].from > j->ranges[i].to;
    if (!other_size && !takes_part(j, i, range)) continue;
    if (other_size || r.count == 0 || !follows(j, &r, i)) {
      if (!end_run(j, &r, range)) return false;
      r = (run){.arguments = 1}; /* the counters */
      if (other_size) continue;
    }
    r.part[r.count++] = i;
    r.arguments += mlirOperationGetNumOperands(j->launches[i]);
  }
  return end_run(j, &r, range);
}

/* Where the next launch starts or ends to take part, behind steps of `tokens`. */
static int64_t next_change(const joiner *j, int64_t tokens, int64_t most) {
  int64_t next = most + 1;
  for (size_t i = 0; i < j->count; i++) {
    const step_range *of = &j->ranges[i];
    if (of->from > of->to) continue;
    if (of->from > tokens && of->from < next) next = of->from;
    if (of->to >= tokens && of->to < next - 1) next = of->to + 1;
  }
  return next;
}

/* ---- what waits for what ---- */

/* Whether an op, of those in `pairs`, writes the operand: one of its last. None of them touches the cache. */
static bool writes(MlirOperation op, intptr_t operand) {
  intptr_t results = ir_is(op, "kernel.route") ? 5 : 1;
  return operand >= mlirOperationGetNumOperands(op) - results;
}

/* Whether one of the two writes memory that the other one uses; of `later`, its operands from `first` on. */
static bool depends(MlirOperation later, intptr_t first, MlirOperation earlier) {
  for (intptr_t a = first; a < mlirOperationGetNumOperands(later); a++)
    for (intptr_t b = 0; b < mlirOperationGetNumOperands(earlier); b++)
      if ((writes(later, a) || writes(earlier, b)) &&
          launch_memory_overlaps(ir_definition(rewrite_operand(later, a)), ir_definition(rewrite_operand(earlier, b))))
        return true;
  return false;
}

typedef struct part_waits {
  int64_t waits[SLUICE_JOIN_PARTS], late[SLUICE_JOIN_PARTS];
} part_waits;

/* For each part the parts that it has to wait for itself: those behind which others wait that it waits for are left
 * out. The last part waits for all, so that the launch is done when it is. The second of two expert products knows its
 * weights from the sort, and reads them while x is still being made. */
static part_waits find_waits(const joiner *j, const run *r) {
  part_waits w = {{0}, {0}};
  int64_t before[SLUICE_JOIN_PARTS] = {0}; /* parts that are done when the part starts */
  for (size_t i = 0; i < r->count; i++) {
    MlirOperation op = j->launches[r->part[i]];
    const bool last = i + 1 == r->count, takes_late = ir_overlaps(op, "second");
    for (intptr_t late = 0; late <= takes_late; late++)
      for (size_t k = i; k-- > 0;) {
        const bool all = last && late == takes_late;
        if (before[i] >> k & 1) continue;
        if (!all && !depends(op, takes_late && !late, j->launches[r->part[k]])) continue;
        w.waits[i] |= (int64_t)1 << k;
        if (late) w.late[i] |= (int64_t)1 << k;
        before[i] |= (int64_t)1 << k | before[k];
      }
  }
  return w;
}

static void make_join(const joiner *j, const joined_run *join) {
  ir_context *context = j->state->context;
  const run *r = &join->run;
  const part_waits w = find_waits(j, r);
  const ir_attribute attributes[] = {
      {"launches", ir_integer(context, (int64_t)(r->part[r->count - 1] - r->part[0] + 1))},
      {"waits", ir_integers(context, w.waits, r->count)},
      {"late", ir_integers(context, w.late, r->count)},
      launch_steps_attribute(j->state, join->range)};
  MlirOperation first = j->launches[r->part[0]];
  ir_builder builder = rewrite_builder(j->state, first);
  ir_create(&builder, "kernel.join", NULL, 0, NULL, 0, attributes, REWRITE_COUNT(attributes));
  pass_remark_add(j->state, first, true, "%zu launches as one in steps of %lld to %lld tokens", r->count,
                  (long long)join->range.from, (long long)join->range.to);
}

static bool collect_launches(joiner *j, MlirModule module) {
  rewrite_list ops;
  if (!rewrite_collect(j->state, module, NULL, &ops)) return false;
  j->launches = ops.items;
  for (size_t i = 0; i < ops.count; i++)
    if (ir_is_launch(ops.items[i])) j->launches[j->count++] = ops.items[i];
  j->ranges = sluice_allocate_array(j->count + 1, sizeof *j->ranges);
  if (!j->ranges) {
    j->state->status = sluice_out_of_memory();
    return false;
  }
  for (size_t i = 0; i < j->count; i++)
    if (!launch_steps(j->launches[i], &j->ranges[i])) j->ranges[i] = (step_range){1, 0};
  return true;
}

static int by_place(const void *a, const void *b) {
  const joined_run *x = a, *y = b;
  if (x->run.part[0] != y->run.part[0]) return x->run.part[0] < y->run.part[0] ? -1 : 1;
  return x->range.from < y->range.from ? -1 : x->range.from > y->range.from;
}

bool pass_join_launches(pass_state *state, MlirModule module) {
  kernel_variants steps;
  state->status =
      configuration_find(state->configuration, &(kernel_question){.family = "join", .to = UINT32_MAX}, &steps);
  if (state->status) return false;
  if (steps.count == 0) return true;
  joiner j = {.state = state};
  bool done = collect_launches(&j, module);
  const int64_t most = steps.item[0].to;
  for (int64_t from = 1, next; done && from <= most; from = next) {
    next = next_change(&j, from, most);
    done = find_runs(&j, (step_range){from, next - 1});
  }
  if (done && j.join_count) qsort(j.joins, j.join_count, sizeof *j.joins, by_place);
  for (size_t i = 0; done && i < j.join_count; i++) make_join(&j, &j.joins[i]);
  sluice_release(j.launches);
  sluice_release(j.ranges);
  sluice_release(j.joins);
  return done;
}

/* The passes, one per file, and the pipelines made of them. A pass is a C function over a module, run under MLIR's pass
 * manager (passes/manager.c), so that verification, timing and printing between passes are MLIR's.
 */
#ifndef PASSES_PASSES_H
#define PASSES_PASSES_H

#include "ir/ir.h"
#include "sluice/json.h"

/* What a fusion did or why it did not: collected for `sluice explain`. */
typedef struct pass_remark {
  const char *pass;
  int64_t layer; /* -1: none */
  bool applied;
  char *reason; /* owned; for applied: what was fused */
} pass_remark;

typedef struct pass_remarks {
  pass_remark *items;
  size_t count, capacity;
} pass_remarks;
void pass_remarks_free(pass_remarks *remarks);

typedef struct pass_state {
  ir_context *context;
  const char *target; /* canonical, e.g. "host:x86-64-v4"; NULL for `sluice opt` without --target: "host:x86-64-v3" */
  const struct configuration *configuration; /* of the target, see backends/common/configuration.h */
  int64_t ranks;                             /* that share the model; 0 and 1: one has all of it */
  pass_remarks *remarks;                     /* NULL: not wanted */
  const char *pass;                          /* name of the running pass */
  sluice_status *status;                     /* first failure */
} pass_state;

typedef struct pass_description {
  const char *name;                                  /* "fuse-projections" */
  const char *summary;                               /* one line */
  bool optional;                                     /* --disable-pass may switch it off */
  bool (*run)(pass_state *state, MlirModule module); /* false: failed, state->status says why */
} pass_description;

/* The last three of the standard pipeline (docs/ir.md, "kernel ops"). */
bool pass_choose_tiles(pass_state *state, MlirModule module);
bool pass_plan_buffers(pass_state *state, MlirModule module);
bool pass_lower_to_kernels(pass_state *state, MlirModule module);
/* Fails the pass unless every value of `function` that needs memory has its place, and none lies on another that is
 * still needed (passes/plan_buffers.c). */
bool plan_buffers_check(pass_state *state, MlirOperation function);

/* All passes in the order of the standard pipeline, NULL-name terminated. */
extern const pass_description pass_table[];
const pass_description *pass_find(const char *name);

void pass_remark_add(pass_state *state, MlirOperation where, bool applied, const char *format, ...) SLUICE_PRINTF(4, 5);
/* Fails the pass with an error at the location of `where`. Always returns false. */
bool pass_fail(pass_state *state, MlirOperation where, const char *format, ...) SLUICE_PRINTF(3, 4);

typedef struct pass_options {
  const char *target;
  const struct configuration *configuration; /* of the target, which says too what is batch-invariant; NULL: defaults */
  int64_t ranks;                             /* see pass_state */
  const char *const *disabled;               /* names of passes to leave out */
  size_t disabled_count;
  const char *const *print_after; /* names, or "all" */
  size_t print_after_count;
  bool print_diff;      /* print what a pass changed instead of the whole module */
  bool batch_invariant; /* configuration_make_invariant */
  bool verify_each;     /* our verifier after each pass; MLIR's always runs */
  bool time;            /* table of times to stderr */
  pass_remarks *remarks;
} pass_options;

/* Runs `names` (the standard pipeline up to and including lower-to-kernels when NULL). Output of print_* goes to
 * stderr. An unknown or non-optional name in `disabled`, or an unknown one elsewhere, is an error that lists the names.
 */
SLUICE_MUST_USE sluice_status *pass_run(ir_context *context, MlirModule module, const char *const *names,
                                        size_t name_count, const pass_options *options);

#endif

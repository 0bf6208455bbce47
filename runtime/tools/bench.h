/* The parts of sluice-run bench: the shape on the command line, the kernels it can name, timing one of them, and the
 * lines it prints.
 *
 *   bench_shape.c   --shape
 *   bench_group.c   kernel names: which launches of the plan one name stands for
 *   bench_data.c    random memory for a call of a kernel: weights, cache pages, activations, inputs
 *   bench_call.c    one call: its launches, its results, its recording
 *   bench_kernel.c  checking and timing the calls
 *   bench.c         the command, whole steps, and printing
 */
#ifndef SLUICE_TOOLS_BENCH_H
#define SLUICE_TOOLS_BENCH_H

#include "runtime/model.h"
#include "runtime/session.h"
#include "runtime/tools/trace.h"

typedef enum bench_phase {
  BENCH_DECODE = 0,  /* one new token for each sequence */
  BENCH_PREFILL = 1, /* a chunk of new tokens for each sequence */
  BENCH_PHASE_COUNT = 2,
} bench_phase;

const char *bench_phase_name(bench_phase phase);

/* ---- Shapes ---- */

#define BENCH_UNSET UINT64_MAX

/* What --shape said; BENCH_UNSET for what it left out. */
typedef struct bench_request {
  uint64_t sequences, context, tokens, tensor_parallel;
} bench_request;

/* "seqs=8,context=128K,tokens=512,tp=1": any of the keys in any order, each once; K and M are 1024 and 1024 * 1024.
 * NULL leaves all unset. */
SLUICE_MUST_USE sluice_status *bench_shape_parse(const char *text, bench_request *out_request);

typedef struct bench_shape {
  uint32_t sequences;
  uint32_t context; /* tokens that each sequence has in the cache already */
  uint32_t tokens;  /* new ones for each sequence */
} bench_shape;

/* Fills in what was left out (1 sequence; decode: 512 tokens of context; prefill: 512 new tokens, no context; less
 * where the bundle allows less) and checks the shape against what the bundle was compiled for. `strict`: tokens= is an
 * error for decode, otherwise it is for the prefill kernels of the same run. */
SLUICE_MUST_USE sluice_status *bench_shape_resolve(const bench_request *request, bench_phase phase, bool strict,
                                                   const sluice_plan *plan, bench_shape *out_shape);

typedef struct bench_shape_text {
  char text[96];
} bench_shape_text;
bench_shape_text bench_shape_describe(const bench_shape *shape, bench_phase phase); /* "seqs=8,context=131072,tp=1" */

/* A step of this shape as the runtime would run it, with logits for the last token of each sequence. */
typedef struct bench_extents {
  uint64_t memory[SLUICE_SIZE_COUNT]; /* that memory is laid out for */
  int32_t sizes[SLUICE_SIZE_COUNT];   /* that kernels get and launches are made for */
  uint32_t pages;                     /* of a sequence */
} bench_extents;

/* `graph`: a decode step runs as a graph, so that its memory and launches are those of a context rounded up. */
void bench_shape_extents(const bench_shape *shape, const sluice_plan *plan, bool graph, bench_extents *out_extents);
bool bench_runs_as_graph(const sluice_model *model, const bench_shape *shape);

/* ---- Kernels ---- */

/* The launches that one name stands for, of one layer. */
typedef struct bench_group {
  char name[64];  /* without the phase */
  uint32_t layer; /* UINT32_MAX: of no layer */
  uint32_t *launches;
  uint32_t count;
  uint32_t times; /* groups of the plan that run the same kernels */
} bench_group;

typedef struct bench_group_list {
  bench_group *groups;
  uint32_t count, capacity;
} bench_group_list;
void bench_group_list_free(bench_group_list *list);

/* All groups of a step of these sizes, those that run the same kernels once. */
SLUICE_MUST_USE sluice_status *bench_groups_all(const sluice_plan *plan, const int32_t sizes[SLUICE_SIZE_COUNT],
                                                bench_group_list *out_list);

/* The group `name` ("select_attend") of layer `layer`, or, with UINT32_MAX, of the first layer that has it; a layer
 * with block-sparse attention is preferred. */
SLUICE_MUST_USE sluice_status *bench_groups_find(const sluice_plan *plan, const int32_t sizes[SLUICE_SIZE_COUNT],
                                                 const char *name, uint32_t layer, bench_group_list *out_list);

/* ---- Costs ---- */

typedef struct bench_rates {
  double bytes; /* a second, of memory */
  double flops; /* a second; 0: unknown */
} bench_rates;

typedef struct bench_cost {
  double bytes, flops;
} bench_cost;

/* What launch `launch` of the plan costs at least, when it reads `experts` distinct experts. Bytes count a key once for
 * each sequence that has it, flops once for each token that sees it. */
bench_cost bench_cost_of(const sluice_plan *plan, uint32_t launch, const bench_shape *shape, double experts);
double bench_floor_us(const bench_cost *cost, const bench_rates *rates);

/* Distinct values in 0 .. experts - 1 of `ids`; `hit` is scratch of `experts` bytes. */
uint32_t bench_distinct(const int32_t *ids, size_t count, uint32_t experts, unsigned char *hit);

/* ---- Random data ---- */

typedef struct bench_random bench_random;
SLUICE_MUST_USE sluice_status *bench_random_create(bench_random **out_random);
void bench_random_free(bench_random *random);
uint64_t bench_random_next(bench_random *random); /* uniform 64 bits */

/* Fills device memory with about normal numbers (never NaN, at most 3.5 standard deviations) of `dtype` (F32 or BF16).
 */
SLUICE_MUST_USE sluice_status *bench_random_fill(bench_random *random, sluice_device *device, void *to, uint64_t bytes,
                                                 sluice_dtype dtype, float deviation);
void bench_random_shuffle(bench_random *random, int32_t *values, uint32_t count);

/* Memory for `copies` calls of a group. Each copy has its own of everything that the launches' arguments name: weights,
 * the cache of the layer, inputs, outputs, and every buffer of the arena by itself, so that no launch destroys what
 * another call reads. */
typedef struct bench_piece {
  uint32_t memory, index; /* as in sluice_plan_argument; inputs and outputs are one piece each, with index 0 */
  uint64_t offset, bytes; /* in a copy */
} bench_piece;

typedef struct bench_calls {
  sluice_model *model;
  const bench_group *group;
  bench_shape shape;
  bench_extents extents;
  sluice_step_layout layout;
  bench_piece *pieces;
  uint32_t piece_count;
  uint32_t copies;
  uint64_t copy_bytes;
  char *memory;                   /* of the device */
  const struct bench_calls *like; /* whose memory serves; NULL: its own */
  void **arguments;               /* [copies][argument_count]: of the group's launches one after another */
  uint32_t argument_count;
  void *counters;      /* of joined launches; NULL: the step does not join launches */
  char *staging;       /* host memory for the inputs of a copy, or an integer buffer */
  int32_t *page_order; /* [CACHE_PAGES]: scratch */
} bench_calls;

/* Makes as many copies as it takes to touch `rotation_bytes` between two uses of one, where memory allows; a call that
 * touches `touched_bytes` of which one copy is enough (BENCH_LARGE_CALL) has one. */
#define BENCH_LARGE_CALL ((uint64_t)256 << 20)
SLUICE_MUST_USE sluice_status *bench_calls_create(sluice_model *model, const bench_group *group,
                                                  const bench_shape *shape, bench_random *random,
                                                  uint64_t touched_bytes, uint64_t rotation_bytes,
                                                  bench_calls *out_calls);
/* Calls of another configuration of the same kernels on the memory of `like`, which must outlive them: the launches
 * have the same operands, one by one. Has memory of its own only for what its plan wants larger. SLUICE_UNSUPPORTED,
 * with a reason, when they have others. */
SLUICE_MUST_USE sluice_status *bench_calls_like(sluice_model *model, const bench_group *group, const bench_calls *like,
                                                bench_calls *out_calls);
void bench_calls_free(bench_calls *calls);

/* Device memory of the step's sizes in copy `copy`: the input block starts with them. */
const int32_t *bench_calls_sizes(const bench_calls *calls, uint32_t copy);
/* Device memory of argument `argument` (an index into the plan's) in copy `copy`; NULL for an absent one. */
char *bench_calls_address(const bench_calls *calls, uint32_t copy, const sluice_plan_argument *argument);
/* The buffer of the arena that holds the chosen experts of the group's layer; false when no launch uses it. */
bool bench_calls_experts(const bench_calls *calls, uint32_t *out_buffer);

/* ---- Calling ---- */

/* Puts the group's launches into the queue, with the sizes of copy `copy` and one after another's arguments. */
SLUICE_MUST_USE sluice_status *bench_call(const bench_calls *calls, uint32_t copy, void *const *arguments);
uint32_t bench_call_launches(const bench_calls *calls); /* that a call is: a join is one */

/* What the last launch of a call writes, in host memory. */
enum { BENCH_RESULTS = 4 };
typedef struct bench_results {
  struct {
    void *data;
    uint64_t elements;
    sluice_dtype dtype;
  } item[BENCH_RESULTS];
  uint32_t count;
  uint64_t unwritten; /* elements that the call left as they were, or that are not a number */
} bench_results;
/* One call on copy 0, in which the last launch writes its results to memory of their own. */
SLUICE_MUST_USE sluice_status *bench_results_take(const bench_calls *calls, bench_results *out_results);
void bench_results_free(bench_results *results);

/* Calls on all copies, recorded as a graph where the device has graphs. */
typedef struct bench_recording {
  const bench_calls *calls;
  sluice_device_graph *graph; /* NULL: launched one by one */
  uint64_t count;             /* calls of a replay */
} bench_recording;
SLUICE_MUST_USE sluice_status *bench_record(const bench_calls *calls, bench_recording *out_recording);
SLUICE_MUST_USE sluice_status *bench_replay(const bench_recording *recording, double *out_seconds); /* of all calls */
void bench_recording_free(bench_recording *recording);

/* ---- Timing ---- */

/* What a call costs, with as many experts as its copies' last calls routed to. */
SLUICE_MUST_USE sluice_status *bench_calls_cost(const bench_calls *calls, bench_cost *out_cost);

typedef struct bench_result {
  double us; /* median of a call */
  bench_cost cost;
  uint32_t copies;
  uint32_t launches; /* of one call */
  uint64_t calls;    /* timed */
} bench_result;

/* Checks one call of the group, then times `repeat` replays of a call on each copy. */
SLUICE_MUST_USE sluice_status *bench_kernel_run(sluice_model *model, const bench_group *group, bench_phase phase,
                                                const bench_shape *shape, uint64_t repeat, bench_random *random,
                                                tool_trace *trace, bench_result *out_result);

/* Measures the rate of the device's memory: a copy within the device, bytes read and written; on the host, which reads
 * weights and writes next to nothing, reading. */
SLUICE_MUST_USE sluice_status *bench_memory_rate(sluice_model *model, double *out_bytes_per_second);

double bench_median(double *values, size_t count); /* sorts them */

#endif

/* The parts of sluice-run tune.
 *
 *   tune_file.c   the candidates: bundles one behind the other, and which launches a candidate's kernel are
 *   tune_time.c   checking and timing the candidates of one kernel
 *   tune.c        the command: jobs, records, what it prints
 */
#ifndef SLUICE_TOOLS_TUNE_H
#define SLUICE_TOOLS_TUNE_H

#include "runtime/tools/bench.h"
#include "sluice/tuning.h"

enum { TUNE_MOST_CANDIDATES = 16, TUNE_MOST_ENTRIES = 4 };

/* A kernel in a bucket of sizes, as the tuning section of a candidate's bundle describes it. */
typedef struct tune_entry {
  char *kernel, *shape, *configuration, *at; /* as in a record; owned */
  int64_t from, to;
  bench_shape step; /* that stands for the bucket */
  bench_phase phase;
  int64_t n, k, heads, kv_heads, head_dim, page; /* 0: not part of the shape */
  bool pairs;
} tune_entry;

typedef struct tune_candidate {
  sluice_model *model;
  tune_entry *entries;
  uint32_t count;
} tune_candidate;

/* An opened file. Candidate 0 is the default. */
typedef struct tune_file {
  void *data;
  tune_candidate candidates[TUNE_MOST_CANDIDATES];
  uint32_t count;
} tune_file;

SLUICE_MUST_USE sluice_status *tune_file_open(const char *path, const sluice_model_options *options,
                                              tune_file *out_file);
void tune_file_close(tune_file *file);

/* The entry of a candidate for the same kernel and bucket; NULL: it has none. */
const tune_entry *tune_find_entry(const tune_candidate *candidate, const tune_entry *like);

/* The launches that time an entry: the kernel's, and of experts all that one sort serves. None: no step of these sizes
 * runs it. `out_group->launches` is the caller's to free. */
SLUICE_MUST_USE sluice_status *tune_find_group(const sluice_model *model, const tune_entry *entry,
                                               bench_group *out_group);
/* Whether a launch of the group is the entry's. */
SLUICE_MUST_USE sluice_status *tune_is_in_group(const sluice_model *model, const bench_group *group,
                                                const tune_entry *entry, bool *out_is);

/* ---- Timing ---- */

typedef struct tune_candidate_time {
  bool timed;                  /* it was there and its output was right */
  bool exact;                  /* its output has the same bytes as the default's */
  double median_us, spread_us; /* of a call; spread: median of distances from the median */
  uint64_t calls;
} tune_candidate_time;

typedef struct tune_result {
  tune_candidate_time times[TUNE_MOST_CANDIDATES];
  uint32_t winner, runner_up; /* runner_up UINT32_MAX: there is none */
  double floor_us;
  char output[17]; /* of the winner: first 16 digits of its SHA-256 */
  bool clear;      /* the winner is faster beyond doubt, or as fast as the default */
} tune_result;

typedef struct tune_limits {
  double seconds; /* for the rounds of one kernel */
  bench_rates rates;
  void (*progress)(void *user, uint32_t left, double best_us); /* NULL: none */
  void *user;
  /* Told of a candidate that is not timed, and why. */
  void (*complain)(void *user, uint32_t candidate, const char *why);
} tune_limits;

/* Checks the candidates of `entry` against candidate 0, on the same operands, then times them in turn until one is
 * faster than each other by three standard errors. A default that is not beaten by that and by 1 % stays. */
SLUICE_MUST_USE sluice_status *tune_time(const tune_file *file, const tune_entry *entry, const tune_limits *limits,
                                         bench_random *random, tune_result *out_result);

#endif

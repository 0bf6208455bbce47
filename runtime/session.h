/* The state of a session, shared by session.c (its life and its sequences) and step.c (running a step). */
#ifndef SLUICE_RUNTIME_SESSION_H
#define SLUICE_RUNTIME_SESSION_H

#include "runtime/graphs.h"
#include "runtime/model.h"
#include "runtime/pages.h"

typedef struct sluice_sequence {
  bool used;
  int32_t next_free; /* when not used: the next such id, -1 for the last */
  uint32_t length;   /* tokens in the cache */
  sluice_page_list pages;
} sluice_sequence;

typedef struct sluice_block { /* memory that grows; its contents do not survive growing */
  char *memory;
  uint64_t capacity;
} sluice_block;

struct sluice_session {
  sluice_model *model;
  sluice_device *device;          /* the session's own queue, or the model's device where that has no others */
  sluice_session_options options; /* with all defaults resolved */
  bool failed;                    /* a device error: nothing may run any more */
  bool running;                   /* a step is under way: what an observer may not call refuses */

  char *cache; /* the layers' page pools one after another */
  uint64_t *layer_offsets;
  sluice_page_pool pool;
  sluice_sequence *sequences;
  uint32_t sequence_capacity;
  int32_t free_sequence; /* the first id that is not used; -1: all are */

  sluice_block arena, inputs, outputs; /* device memory */
  void *counters;                      /* likewise: of joined launches (sluice_plan_join); NULL: the plan has none */
  /* Host memory of devices with memory of their own: page-locked copies of the inputs and the sampled tokens, and the
   * logits when someone asked for them. */
  sluice_block locked_inputs, locked_sampled, host_logits;
  uint8_t *nan; /* of the last step: sluice_step_result */
  uint32_t nan_capacity;
  sluice_logprobs *logprobs; /* likewise */
  uint32_t logprobs_capacity;
  sluice_graphs graphs;
  bool in_launches[SLUICE_SIZE_COUNT]; /* the sizes that the plan's grids and ranges depend on */
  void **arguments;                    /* as in the plan's table, resolved for the step at hand */
  int32_t *chunk_of_sequence;          /* scratch of `sequence_capacity` entries, all -1 between steps */

  uint64_t steps;       /* begun so far */
  uint32_t last_rows;   /* of the last step, for its logits; 0 after a step that failed */
  uint64_t last_logits; /* their offset in `outputs` */
  bool logits_copied;   /* to host_logits */

  sluice_observer *observer;
  void *observer_user;
  sluice_launch_hook *hook;
  void *hook_user;
};

/* An error while a step runs: then the caller is its observer or hook. */
SLUICE_MUST_USE sluice_status *sluice_session_check_idle(const sluice_session *session);

/* The sequence `id`, or an error when there is none. */
SLUICE_MUST_USE sluice_status *sluice_session_find(const sluice_session *session, int32_t id,
                                                   sluice_sequence **out_sequence);

/* Makes `block` at least `bytes` long. */
SLUICE_MUST_USE sluice_status *sluice_block_grow(sluice_device *device, sluice_block *block, uint64_t bytes);

/* SLUICE_COUNTER_BYTES of zeros, for joined launches. */
SLUICE_MUST_USE sluice_status *sluice_counters_create(sluice_device *device, void **out_counters);

/* Bytes of the arena for a step of `extents` (sluice_size): the regions one after another. */
SLUICE_MUST_USE sluice_status *sluice_arena_bytes(const sluice_plan *plan, const uint64_t extents[SLUICE_SIZE_COUNT],
                                                  uint64_t *out_bytes);

/* Where the inputs and outputs of a step lie, each at a multiple of 64 bytes. The input block starts with the step's
 * sizes, i32[SLUICE_SIZE_COUNT], so that one copy brings everything. */
typedef struct sluice_step_layout {
  uint64_t inputs[SLUICE_INPUT_COUNT];
  uint64_t input_bytes;
  uint64_t outputs[SLUICE_OUTPUT_COUNT];
  uint64_t output_bytes;
} sluice_step_layout;
sluice_step_layout sluice_step_layout_of(const sluice_plan *plan, const uint64_t extents[SLUICE_SIZE_COUNT]);

#endif

/* A trace of a run in the JSON format of Chrome's about:tracing and of Perfetto: complete events ("ph": "X") with `ts`
 * and `dur` in microseconds from the opening of the trace.
 *
 * Three tracks: loading weights, steps with their launches inside, and benchmarks. While a trace is taken every launch
 * is waited for, so the times of launches are right and those of steps are longer than without.
 *
 * All functions but tool_trace_open accept NULL and do nothing. An error of writing is kept and comes back from
 * tool_trace_close; the file appears under its name only when it is complete.
 */
#ifndef SLUICE_TOOLS_TRACE_H
#define SLUICE_TOOLS_TRACE_H

#include "sluice/runtime.h"

typedef struct tool_trace tool_trace;

typedef enum tool_track {
  TOOL_TRACK_STEPS = 1,
  TOOL_TRACK_WEIGHTS = 2,
  TOOL_TRACK_BENCH = 3,
} tool_track;

/* `path` NULL: no trace, `*out_trace` is NULL. */
SLUICE_MUST_USE sluice_status *tool_trace_open(const char *path, tool_trace **out_trace);
/* Completes the file when `status` is NULL, removes it otherwise. Returns `status`, or the error of writing. */
SLUICE_MUST_USE sluice_status *tool_trace_close(tool_trace *trace, sluice_status *status);

/* An event from `start` (of tool_now) to now. `arguments`: members of a JSON object, "\"tokens\": 3", or NULL. */
void tool_trace_event(tool_trace *trace, tool_track track, const char *name, double start, const char *arguments);

/* A sluice_progress: one event for each tensor. `user` is the trace. Begin before and end after the weights are loaded.
 */
void tool_trace_weights_begin(tool_trace *trace);
void tool_trace_weights(void *user, uint64_t done, uint64_t total, const char *tensor);
void tool_trace_weights_end(tool_trace *trace);

/* sluice_step with an event `name` for the step and one for each launch. Takes the session's launch hook while it runs,
 * when there is a trace. */
SLUICE_MUST_USE sluice_status *tool_trace_step(tool_trace *trace, const char *name, const sluice_model *model,
                                               sluice_session *session, const sluice_chunk *chunks,
                                               uint32_t chunk_count, sluice_step_result *out_result);

#endif

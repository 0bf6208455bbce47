/* Traces: events are formatted as they end and go to the pending file in large pieces. */
#include "runtime/tools/trace.h"

#include "runtime/tools/run.h"
#include "sluice/file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define FLUSH_BYTES ((size_t)1 << 20)
#define MAX_TENSOR_NAME 1024

struct tool_trace {
  sluice_pending_file file;
  sluice_text text; /* events that are not written yet */
  sluice_status *status;
  double origin;

  /* The tensor at hand while weights are loaded. */
  double weights_start, tensor_start, tensor_end;
  uint64_t tensor_from, tensor_to; /* bytes done before and after it */
  char tensor[MAX_TENSOR_NAME];

  /* The step at hand. */
  const sluice_plan *plan;
};

static void flush(tool_trace *trace) {
  if (trace->text.failed && !trace->status) trace->status = sluice_out_of_memory();
  if (!trace->status && trace->text.length)
    trace->status = sluice_pending_write(&trace->file, trace->text.data, trace->text.length);
  trace->text.length = 0;
}

static void name_track(tool_trace *trace, const char *what, int track, const char *name) {
  sluice_text_printf(&trace->text,
                     "{\"name\": \"%s\", \"ph\": \"M\", \"pid\": 1, \"tid\": %d, \"args\": {\"name\": \"%s\"}},\n",
                     what, track, name);
}

sluice_status *tool_trace_open(const char *path, tool_trace **out_trace) {
  *out_trace = NULL;
  if (!path) return NULL;
  tool_trace *trace = sluice_allocate(sizeof *trace);
  if (!trace) return sluice_out_of_memory();
  sluice_status *status = sluice_pending_open(&trace->file, path);
  if (status) {
    sluice_release(trace);
    return status;
  }
  trace->origin = tool_now();
  sluice_text_printf(&trace->text, "{\"displayTimeUnit\": \"ns\", \"traceEvents\": [\n");
  name_track(trace, "process_name", 0, "sluice-run");
  name_track(trace, "thread_name", TOOL_TRACK_STEPS, "steps and launches");
  name_track(trace, "thread_name", TOOL_TRACK_WEIGHTS, "weights");
  name_track(trace, "thread_name", TOOL_TRACK_BENCH, "benchmarks");
  *out_trace = trace;
  return NULL;
}

sluice_status *tool_trace_close(tool_trace *trace, sluice_status *status) {
  if (!trace) return status;
  double total = 1e6 * (tool_now() - trace->origin);
  /* The last event, so that no comma is left over: the whole run. */
  sluice_text_printf(&trace->text,
                     "{\"name\": \"run\", \"ph\": \"X\", \"pid\": 1, \"tid\": 0, \"ts\": 0, \"dur\": %.3f}\n]}\n",
                     total);
  flush(trace);
  if (status)
    sluice_status_free(trace->status);
  else
    status = trace->status;
  status = sluice_pending_close(&trace->file, status);
  sluice_text_free(&trace->text);
  sluice_release(trace);
  return status;
}

/* Whole nanoseconds since the opening: an event that lies in another one also does so when rounded. */
static double nanoseconds(const tool_trace *trace, double time) {
  return floor(1e9 * (time - trace->origin));
}

static void add_event(tool_trace *trace, tool_track track, const char *name, double start, double end,
                      const char *arguments) {
  if (trace->status) return;
  double from = nanoseconds(trace, start), to = nanoseconds(trace, end);
  sluice_text_printf(&trace->text, "{\"name\": ");
  sluice_text_json_string(&trace->text, name);
  sluice_text_printf(&trace->text, ", \"ph\": \"X\", \"pid\": 1, \"tid\": %d, \"ts\": %.3f, \"dur\": %.3f", (int)track,
                     from / 1000, (to - from) / 1000);
  if (arguments) sluice_text_printf(&trace->text, ", \"args\": {%s}", arguments);
  sluice_text_printf(&trace->text, "},\n");
  if (trace->text.length >= FLUSH_BYTES || trace->text.failed) flush(trace);
}

void tool_trace_event(tool_trace *trace, tool_track track, const char *name, double start, const char *arguments) {
  if (trace) add_event(trace, track, name, start, tool_now(), arguments);
}

/* ---- Weights ---- */

static void end_tensor(tool_trace *trace) {
  char arguments[64];
  if (!trace->tensor[0]) return;
  snprintf(arguments, sizeof arguments, "\"bytes\": %llu", (unsigned long long)(trace->tensor_to - trace->tensor_from));
  add_event(trace, TOOL_TRACK_WEIGHTS, trace->tensor, trace->tensor_start, trace->tensor_end, arguments);
  trace->tensor_start = trace->tensor_end;
  trace->tensor_from = trace->tensor_to;
  trace->tensor[0] = 0;
}

void tool_trace_weights_begin(tool_trace *trace) {
  if (trace) trace->weights_start = trace->tensor_start = trace->tensor_end = tool_now();
}

void tool_trace_weights(void *user, uint64_t done, uint64_t total, const char *tensor) {
  (void)total;
  tool_trace *trace = user;
  if (!trace) return;
  if (strncmp(tensor, trace->tensor, sizeof trace->tensor - 1) != 0) {
    end_tensor(trace);
    snprintf(trace->tensor, sizeof trace->tensor, "%s", tensor);
  }
  trace->tensor_end = tool_now();
  trace->tensor_to = done;
}

void tool_trace_weights_end(tool_trace *trace) {
  if (!trace) return;
  end_tensor(trace);
  add_event(trace, TOOL_TRACK_WEIGHTS, "load weights", trace->weights_start, tool_now(), NULL);
}

/* ---- Steps ---- */

static void add_launch(void *user, uint32_t launch, double seconds) {
  tool_trace *trace = user;
  const sluice_plan_launch *entry = &trace->plan->launches[launch];
  double end = tool_now();
  sluice_text arguments = {0};
  sluice_text_printf(&arguments, "\"launch\": %u, \"kernel\": ", launch);
  sluice_text_json_string(&arguments, sluice_plan_string(trace->plan, trace->plan->kernels[entry->kernel].name));
  if (entry->layer != UINT32_MAX) sluice_text_printf(&arguments, ", \"layer\": %u", entry->layer);
  add_event(trace, TOOL_TRACK_STEPS, sluice_plan_string(trace->plan, entry->label), end - seconds, end,
            arguments.failed ? NULL : arguments.data);
  sluice_text_free(&arguments);
}

sluice_status *tool_trace_step(tool_trace *trace, const char *name, const sluice_model *model, sluice_session *session,
                               const sluice_chunk *chunks, uint32_t chunk_count, sluice_step_result *out_result) {
  if (!trace) return sluice_step(session, chunks, chunk_count, out_result);
  uint64_t tokens = 0;
  for (uint32_t i = 0; i < chunk_count; i++) tokens += chunks[i].count;
  trace->plan = sluice_model_plan(model);
  sluice_session_hook_launches(session, add_launch, trace);
  double start = tool_now();
  sluice_status *status = sluice_step(session, chunks, chunk_count, out_result);
  char arguments[64];
  snprintf(arguments, sizeof arguments, "\"tokens\": %llu, \"sequences\": %u", (unsigned long long)tokens, chunk_count);
  add_event(trace, TOOL_TRACK_STEPS, name, start, tool_now(), arguments);
  sluice_session_hook_launches(session, NULL, NULL);
  return status;
}

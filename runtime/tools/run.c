#include "runtime/tools/run.h"

#include "runtime/ranks/identity.h"
#include "sluice/bundle.h"
#include "sluice/signature.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

double tool_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* ---- Opening ---- */

typedef struct progress_bar {
  bool terminal;
  double next; /* when to draw again */
  tool_trace *trace;
} progress_bar;

static void show_progress(void *user, uint64_t done, uint64_t total, const char *tensor) {
  progress_bar *bar = user;
  tool_trace_weights(bar->trace, done, total, tensor);
  if (!bar->terminal) return;
  double time = tool_now();
  if (time < bar->next && done != total) return;
  bar->next = time + 0.1;
  char filled[31];
  size_t count = total ? (size_t)((double)done / (double)total * 30.0) : 30;
  memset(filled, '=', count);
  filled[count] = 0;
  fprintf(stderr, "\r\033[Kloading weights [%-30s] %5.1f%% of %.2f GB  %.40s", filled,
          total ? 100.0 * (double)done / (double)total : 100.0, (double)total * 1e-9, done == total ? "" : tensor);
  if (done == total) fputc('\n', stderr);
}

/* A line that is drawn again as a prompt of several chunks is read, on a terminal. */
static void show_prompt(const prompt_run *run, double *next) {
  const double time = tool_now();
  if (time < *next && run->done != run->length) return;
  *next = time + 0.1;
  fprintf(stderr, "\r\033[Kreading the prompt: %u of %u tokens", run->done, run->length);
  if (run->done == run->length) fputs("\r\033[K", stderr);
}

/* Whether all ranks have the same bundle and checkpoint. */
static sluice_status *compare_ranks(const sluice_model *model, const tool_model_options *options) {
  if (!options->group) return NULL;
  sluice_identity identity = {0};
  uint8_t digest[32]; /* of the header, which has those of all sections */
  sluice_sha256(sluice_bundle_contents(sluice_model_bundle(model)), sizeof(sluice_bundle_header), digest);
  sluice_identity_add_digest(&identity, "bundle", digest);
  sluice_checkpoint *checkpoint = NULL;
  if (options->weights) {
    SLUICE_TRY(sluice_checkpoint_open(options->weights, &checkpoint));
    sluice_status *status = sluice_identity_add_checkpoint(&identity, checkpoint);
    sluice_checkpoint_close(checkpoint);
    SLUICE_TRY(status);
  }
  return sluice_identity_agree(options->group, &identity);
}

static sluice_status *load_weights(sluice_model *model, const tool_model_options *options) {
  tool_trace *trace = options->trace;
  sluice_checkpoint *checkpoint = NULL;
  double start = tool_now();
  SLUICE_TRY(sluice_checkpoint_open(options->weights, &checkpoint));
  progress_bar bar = {.terminal = isatty(STDERR_FILENO), .trace = trace};
  tool_trace_weights_begin(trace);
  sluice_status *status = sluice_model_load(model, checkpoint, bar.terminal || trace ? show_progress : NULL, &bar);
  tool_trace_weights_end(trace);
  if (status && bar.terminal && bar.next > 0) fputc('\n', stderr);
  const char *skipped = sluice_model_skipped(model);
  if (!status && skipped) fprintf(stderr, "warning: %s\n", skipped);
  sluice_checkpoint_close(checkpoint);
  if (options->weights_seconds) *options->weights_seconds = tool_now() - start;
  return status;
}

sluice_status *tool_open_model(const char *path, const tool_model_options *options, sluice_model **out_model) {
  *out_model = NULL;
  if (options->threads > 4096)
    return sluice_error(SLUICE_USAGE, "--threads: %llu threads are too many", (unsigned long long)options->threads);
  sluice_model_options model_options = {
      .device = options->device, .threads = (unsigned)options->threads, .group = options->group};
  uint8_t key[SLUICE_KEY_BYTES];
  if (options->trust) {
    SLUICE_TRY(sluice_public_key_read(options->trust, key));
    model_options.trusted_key = key;
  }
  sluice_model *model = NULL;
  SLUICE_TRY(sluice_model_open(path, &model_options, &model));
  sluice_status *status = compare_ranks(model, options);
  if (!status && options->weights) status = load_weights(model, options);
  if (status) {
    sluice_model_close(model);
    return status;
  }
  *out_model = model;
  return NULL;
}

/* ---- Feeding a prompt ---- */

static bool ends_with(const char *text, const char *end) {
  size_t length = strlen(text), end_length = strlen(end);
  return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static sluice_status *keep_rows(void *user, const char *name, sluice_dtype dtype, const void *data, uint32_t rows,
                                uint32_t row_elements) {
  prompt_run *run = user;
  prompt_value *value = NULL;
  for (size_t i = 0; i < run->value_count && !value; i++)
    if (strcmp(run->values[i].name, name) == 0) value = &run->values[i];
  if (!value || value->row_elements != row_elements)
    return sluice_error(SLUICE_INTERNAL, "the value \"%s\" changed its shape", name);
  uint32_t first = value->last_rows ? run->length - run->rows : 0; /* position of the first kept row */
  for (uint32_t i = 0; i < rows; i++) {
    uint32_t position = run->done + i;
    if (position < first) continue;
    size_t to = (size_t)(position - first) * row_elements, from = (size_t)i * row_elements;
    if (dtype == SLUICE_BF16) {
      for (uint32_t j = 0; j < row_elements; j++)
        ((float *)value->data)[to + j] = sluice_f32_from_bf16(((const uint16_t *)data)[from + j]);
    } else {
      memcpy((char *)value->data + 4 * to, (const char *)data + 4 * from, 4 * (size_t)row_elements);
    }
  }
  return NULL;
}

static sluice_status *add_values(const sluice_plan *plan, prompt_run *run) {
  run->values = sluice_allocate_array((size_t)plan->header->observables.count, sizeof *run->values);
  if (!run->values) return sluice_out_of_memory();
  for (uint64_t i = 0; i < plan->header->observables.count; i++) {
    const sluice_plan_observable *observable = &plan->observables[i];
    const sluice_plan_buffer *buffer = &plan->buffers[observable->buffer];
    prompt_value *value = &run->values[i];
    value->name = sluice_plan_string(plan, observable->name);
    value->last_rows = ends_with(value->name, ".out");
    value->dtype = buffer->dtype == SLUICE_I32 ? SLUICE_I32 : SLUICE_F32;
    if (buffer->dtype != SLUICE_I32 && buffer->dtype != SLUICE_F32 && buffer->dtype != SLUICE_BF16)
      return sluice_error(SLUICE_UNSUPPORTED, "the value \"%s\" has a type that cannot be observed", value->name);
    value->row_elements = buffer->width;
    value->dimension = observable->dimension;
    value->data = sluice_allocate_array((size_t)(value->last_rows ? run->rows : run->length) * buffer->width, 4);
    if (!value->data) return sluice_out_of_memory();
    run->value_count++;
  }
  return NULL;
}

static sluice_status *feed(const sluice_model *model, prompt_run *run, const int32_t *tokens, uint32_t chunk,
                           const sluice_sampling *sampling, tool_trace *trace) {
  uint32_t first_row = run->length - run->rows;
  const bool shown = run->length > chunk && isatty(STDERR_FILENO);
  double next = tool_now() + 0.5;
  while (run->done < run->length) {
    uint32_t count = run->length - run->done < chunk ? run->length - run->done : chunk;
    uint32_t end = run->done + count;
    uint32_t start = run->done > first_row ? run->done : first_row;
    sluice_chunk part = {.sequence = run->sequence,
                         .tokens = tokens + run->done,
                         .count = count,
                         .logit_rows = end > start ? end - start : 0,
                         .sampling = *sampling};
    sluice_step_result result;
    SLUICE_TRY(tool_trace_step(trace, "prefill", model, run->session, &part, 1, &result));
    if (result.rows) {
      const float *logits;
      SLUICE_TRY(sluice_step_logits(run->session, &logits));
      memcpy(run->logits + (size_t)(start - first_row) * run->vocabulary, logits,
             (size_t)result.rows * run->vocabulary * sizeof *logits);
      run->next = result.sampled[result.rows - 1];
      run->next_nan = result.nan[result.rows - 1];
      if (result.logprobs) run->next_logprobs = result.logprobs[result.rows - 1];
    }
    run->done = end;
    if (shown) show_prompt(run, &next);
  }
  return NULL;
}

sluice_status *prompt_run_feed(const sluice_model *model, sluice_session *session, int32_t sequence,
                               const int32_t *tokens, uint32_t length, uint32_t chunk, uint32_t rows, bool observe,
                               const sluice_sampling *sampling, tool_trace *trace, prompt_run *out_run) {
  const sluice_plan *plan = sluice_model_plan(model);
  prompt_run *run = out_run;
  *run = (prompt_run){.session = session, .sequence = sequence, .length = length, .rows = rows};
  run->vocabulary = plan->header->vocabulary;
  run->logits = sluice_allocate_array((size_t)rows * run->vocabulary, sizeof *run->logits);
  if (!run->logits) return sluice_out_of_memory();
  if (observe) SLUICE_TRY(add_values(plan, run));
  sluice_session_observe(session, observe ? keep_rows : NULL, run);
  sluice_status *status = feed(model, run, tokens, chunk, sampling, trace);
  sluice_session_observe(session, NULL, NULL);
  return status;
}

void prompt_run_free(prompt_run *run) {
  for (size_t i = 0; i < run->value_count; i++) sluice_release(run->values[i].data);
  sluice_release(run->values);
  sluice_release(run->logits);
  *run = (prompt_run){0};
}

const prompt_value *prompt_run_find(const prompt_run *run, const char *name) {
  for (size_t i = 0; i < run->value_count; i++)
    if (strcmp(run->values[i].name, name) == 0) return &run->values[i];
  return NULL;
}

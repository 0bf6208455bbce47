/* What the commands share: opening a model with its weights, and feeding a prompt while keeping what golden files hold.
 */
#ifndef SLUICE_TOOLS_RUN_H
#define SLUICE_TOOLS_RUN_H

#include "runtime/tools/trace.h"
#include "sluice/runtime.h"

typedef struct tool_model_options {
  const char *weights; /* NULL: no weights are loaded */
  const char *device;
  const char *trust; /* file of the public key that the bundle must be signed with; NULL: any bundle */
  uint64_t threads;
  struct sluice_group *group; /* of several ranks, of which this is one; NULL: there is one */
  tool_trace *trace;          /* NULL: none */
  double *weights_seconds;    /* NULL, or gets how long the weights took to load */
} tool_model_options;

/* Opens the bundle and loads the weights, with a progress bar when stderr is a terminal. Ranks compare bundle and
 * checkpoint before they load. */
SLUICE_MUST_USE sluice_status *tool_open_model(const char *path, const tool_model_options *options,
                                               sluice_model **out_model);

double tool_now(void); /* seconds */

/* A value of the plan that is observed while the prompt runs. */
typedef struct prompt_value {
  const char *name;      /* the observable's, e.g. "layer.3.blocks" */
  bool last_rows;        /* kept for the last `rows` positions only ("...out"), otherwise for all */
  sluice_dtype dtype;    /* as kept: SLUICE_F32 or SLUICE_I32 */
  uint32_t row_elements; /* of one token */
  uint32_t dimension;    /* of these, the last dimension */
  void *data;            /* [positions][row_elements] */
} prompt_value;

typedef struct prompt_run {
  sluice_session *session;
  int32_t sequence;
  uint32_t length; /* of the prompt */
  uint32_t rows;   /* last positions whose logits are kept, 1 .. length */
  uint32_t vocabulary;
  uint32_t done;                 /* tokens fed before the step at hand */
  float *logits;                 /* [rows][vocabulary] */
  int32_t next;                  /* the token after the prompt */
  bool next_nan;                 /* a logit of its row is NaN */
  sluice_logprobs next_logprobs; /* of that row, where some are wanted */
  prompt_value *values;
  size_t value_count;
} prompt_run;

/* Feeds `tokens` (`length`) to the new sequence `sequence` in chunks of `chunk` tokens, keeps the logits of the last
 * `rows` and, when `observe`, all values of the plan. Free with prompt_run_free, after errors too. */
SLUICE_MUST_USE sluice_status *prompt_run_feed(const sluice_model *model, sluice_session *session, int32_t sequence,
                                               const int32_t *tokens, uint32_t length, uint32_t chunk, uint32_t rows,
                                               bool observe, const sluice_sampling *sampling, tool_trace *trace,
                                               prompt_run *out_run);
void prompt_run_free(prompt_run *run);
/* NULL when the plan has no such value. */
const prompt_value *prompt_run_find(const prompt_run *run, const char *name);

/* Writes the golden-file tensors of a run: `tokens` (`token_count` new ones) and `decode_logits` (one row less). */
SLUICE_MUST_USE sluice_status *tool_dump(const char *path, const prompt_run *run, const int32_t *prompt,
                                         const int32_t *tokens, uint32_t token_count, const float *decode_logits);

#endif

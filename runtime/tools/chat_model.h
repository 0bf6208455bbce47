/* The model behind a conversation: it keeps in the cache what the next prompt begins with. */
#ifndef SLUICE_TOOLS_CHAT_MODEL_H
#define SLUICE_TOOLS_CHAT_MODEL_H

#include "runtime/tools/run.h"
#include "runtime/tools/sampling.h"
#include "runtime/tools/seen.h"
#include "sluice/tokenizer.h"

#include <signal.h>

typedef struct chat_ids {
  int32_t *ids;
  size_t count, capacity;
} chat_ids;

/* Two sequences, whose pages are shared as far as they are alike:
 *
 *   base   the conversation up to the last answer's begin: what a template that drops reasoning leaves unchanged
 *   live   the same with the begin of the answer and the answer itself
 *
 * The next prompt goes on from the longer one that it begins with. */
typedef struct chat_model {
  sluice_model *model;
  sluice_session *session;
  generation_config config;
  tool_sampling options;
  sluice_sampling sampling; /* of the answer at hand */
  seen_tokens seen;         /* likewise, where a penalty is on */
  uint32_t chunk, context;  /* tokens of a step; of the cache */
  int32_t base, live;       /* -1: none */
  chat_ids base_ids, live_ids;
  size_t reused; /* tokens of the last prompt that were in the cache */
  double prompt_seconds, decode_seconds;
  bool show_progress;
} chat_model;

/* Takes a new token, its log-probabilities where they are wanted (otherwise NULL), and the seconds that the step took
 * which made it, 0 for the first; false in *out_more ends the answer. */
typedef sluice_status *chat_token_handler(void *user, int32_t token, const sluice_logprobs *logprobs, double seconds,
                                          bool *out_more);

/* Makes the session. `context` 0: as much as fits, at most 32768. */
SLUICE_MUST_USE sluice_status *chat_model_start(chat_model *chat, uint64_t context);
void chat_model_close(chat_model *chat);
void chat_model_forget(chat_model *chat);

/* Feeds the prompt and generates until a stop id, `most` tokens, the handler or *interrupted. `stem`: tokens of the
 * prompt before the begin of the answer. `*out_reason`: "stop_id", "max_new", "context" (it is full), "interrupted" or
 * "handler". */
SLUICE_MUST_USE sluice_status *chat_model_answer(chat_model *chat, const int32_t *prompt, size_t count, size_t stem,
                                                 uint64_t most, const volatile sig_atomic_t *interrupted,
                                                 chat_token_handler *handler, void *user, const char **out_reason);

#endif

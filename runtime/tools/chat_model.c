#include "runtime/tools/chat_model.h"

#include "sluice/memory.h"

#include <stdio.h>
#include <string.h>

enum { USUAL_CONTEXT = 32768 };

/* ---- The session ---- */

sluice_status *chat_model_start(chat_model *chat, uint64_t context) {
  const uint32_t longest = sluice_model_plan(chat->model)->header->max_context;
  sluice_session_options options = {.max_sequences = 1, .max_step_tokens = chat->chunk};
  if (context > longest)
    return sluice_error(SLUICE_INVALID, "--context is %llu, and the bundle was compiled for at most %u",
                        (unsigned long long)context, longest);
  const uint32_t page = sluice_model_plan(chat->model)->header->page_tokens;
  if (!context) {
    sluice_memory_plan memory;
    options.cache_tokens = page;
    SLUICE_TRY(sluice_model_memory(chat->model, &options, &memory));
    context = longest < USUAL_CONTEXT ? longest : USUAL_CONTEXT;
    if (memory.longest_context < context) context = memory.longest_context;
  }
  chat->context = (uint32_t)context;
  options.cache_tokens = context + 2ull * page; /* the last pages of the two sequences are not shared */
  chat->base = chat->live = -1;
  return sluice_session_create(chat->model, &options, &chat->session);
}

void chat_model_forget(chat_model *chat) {
  if (chat->base >= 0) sluice_status_free(sluice_sequence_remove(chat->session, chat->base));
  if (chat->live >= 0) sluice_status_free(sluice_sequence_remove(chat->session, chat->live));
  chat->base = chat->live = -1;
  chat->base_ids.count = chat->live_ids.count = 0;
}

void chat_model_close(chat_model *chat) {
  seen_tokens_free(&chat->seen);
  sluice_release(chat->base_ids.ids);
  sluice_release(chat->live_ids.ids);
  sluice_session_close(chat->session);
  sluice_model_close(chat->model);
}

static sluice_status *add_ids(chat_ids *list, const int32_t *ids, size_t count) {
  if (list->capacity - list->count < count) {
    const size_t capacity = 2 * (list->count + count);
    int32_t *grown = sluice_reallocate_array(list->ids, capacity, sizeof *grown);
    if (!grown) return sluice_out_of_memory();
    list->ids = grown;
    list->capacity = capacity;
  }
  memcpy(list->ids + list->count, ids, count * sizeof *ids);
  list->count += count;
  return NULL;
}

static bool begins_with(const int32_t *prompt, size_t count, const chat_ids *ids) {
  return ids->count < count && memcmp(prompt, ids->ids, ids->count * sizeof *prompt) == 0;
}

/* ---- Feeding ---- */

/* Feeds tokens; with `result`, the next token is chosen after the last. */
static sluice_status *feed(chat_model *chat, int32_t sequence, const int32_t *ids, size_t count,
                           sluice_step_result *result) {
  for (size_t done = 0; done < count;) {
    const size_t part = count - done < chat->chunk ? count - done : chat->chunk;
    const bool last = done + part == count;
    const sluice_chunk chunk = {.sequence = sequence,
                                .tokens = ids + done,
                                .count = (uint32_t)part,
                                .logit_rows = last && result ? 1 : 0,
                                .sampling = chat->sampling};
    sluice_step_result ignored;
    SLUICE_TRY(sluice_step(chat->session, &chunk, 1, last && result ? result : &ignored));
    done += part;
    if (chat->show_progress && count > chat->chunk)
      fprintf(stderr, "\r\033[K%s%zu of %zu tokens read%s", last ? "" : "[", done, count, last ? "\r\033[K" : "]");
  }
  return NULL;
}

/* Makes `base` hold the first `stem` tokens of the prompt and `live` a fork of it, from what is in the cache. */
static sluice_status *prepare(chat_model *chat, const int32_t *prompt, size_t count, size_t stem) {
  const bool from_live = chat->live >= 0 && begins_with(prompt, count, &chat->live_ids) && chat->live_ids.count <= stem;
  const bool from_base = chat->base >= 0 && begins_with(prompt, count, &chat->base_ids) && chat->base_ids.count <= stem;
  if (from_live) { /* the answer stays as it was: it becomes part of the base */
    const int32_t old = chat->base;
    const chat_ids ids = chat->base_ids;
    chat->base = chat->live;
    chat->base_ids = chat->live_ids;
    chat->live = old;
    chat->live_ids = ids;
  }
  if (chat->live >= 0) SLUICE_TRY(sluice_sequence_remove(chat->session, chat->live));
  chat->live = -1;
  chat->live_ids.count = 0;
  if (!from_live && !from_base) chat_model_forget(chat);
  if (chat->base < 0) SLUICE_TRY(sluice_sequence_add(chat->session, &chat->base));
  chat->reused = chat->base_ids.count;
  SLUICE_TRY(feed(chat, chat->base, prompt + chat->reused, stem - chat->reused, NULL));
  SLUICE_TRY(add_ids(&chat->base_ids, prompt + chat->reused, stem - chat->reused));
  SLUICE_TRY(sluice_sequence_fork(chat->session, chat->base, &chat->live));
  return add_ids(&chat->live_ids, prompt, stem);
}

static sluice_status *check_length(const chat_model *chat, size_t count) {
  if (count < chat->context) return NULL;
  return sluice_error(SLUICE_INVALID,
                      "the conversation has %zu tokens now, and the context holds %u: /reset begins anew; --context "
                      "gives more where memory and bundle allow it",
                      count, chat->context);
}

static sluice_status *generate(chat_model *chat, sluice_step_result result, uint64_t most,
                               const volatile sig_atomic_t *interrupted, chat_token_handler *handler, void *user,
                               const char **out_reason) {
  double seconds = 0;
  for (uint64_t i = 0;; i++) {
    const int32_t token = result.sampled[0];
    bool more = true, stops = false;
    if (result.nan[0])
      return sluice_error(SLUICE_CHECK_FAILED, "the logits hold NaN: the weights are damaged, or values are too large "
                                               "for their type");
    *out_reason = "interrupted";
    if (*interrupted) return NULL;
    *out_reason = "stop_id";
    SLUICE_TRY(generation_stops(chat->model, &chat->config, token, &stops));
    if (stops) return NULL;
    SLUICE_TRY(handler(user, token, result.logprobs, seconds, &more));
    *out_reason = !more ? "handler" : i + 1 == most ? "max_new" : "context";
    if (!more || i + 1 == most || chat->live_ids.count + 1 >= chat->context) return NULL;
    seen_tokens_add(&chat->seen, token, true);
    chat->sampling.seen_count = chat->seen.count;
    const double start = tool_now();
    SLUICE_TRY(feed(chat, chat->live, &token, 1, &result));
    seconds = tool_now() - start;
    SLUICE_TRY(add_ids(&chat->live_ids, &token, 1));
  }
}

/* The sampling of an answer: penalties know the whole conversation, and what is new in the answer. */
static sluice_status *begin_sampling(chat_model *chat, const int32_t *prompt, size_t count) {
  chat->sampling = tool_sampling_values(&chat->options);
  seen_tokens_free(&chat->seen);
  if (!tool_sampling_has_penalties(&chat->options)) return NULL;
  SLUICE_TRY(seen_tokens_create(sluice_model_plan(chat->model)->header->vocabulary, &chat->seen));
  for (size_t i = 0; i < count; i++) seen_tokens_add(&chat->seen, prompt[i], false);
  chat->sampling.seen = chat->seen.list;
  chat->sampling.seen_count = chat->seen.count;
  return NULL;
}

sluice_status *chat_model_answer(chat_model *chat, const int32_t *prompt, size_t count, size_t stem, uint64_t most,
                                 const volatile sig_atomic_t *interrupted, chat_token_handler *handler, void *user,
                                 const char **out_reason) {
  sluice_step_result result;
  if (!count) return sluice_error(SLUICE_INVALID, "the chat template gives an empty text");
  if (stem >= count) stem = count - 1; /* something has to be fed to choose the next token */
  SLUICE_TRY(check_length(chat, count));
  SLUICE_TRY(begin_sampling(chat, prompt, count));
  const double start = tool_now();
  SLUICE_TRY(prepare(chat, prompt, count, stem));
  SLUICE_TRY(feed(chat, chat->live, prompt + stem, count - stem, &result));
  SLUICE_TRY(add_ids(&chat->live_ids, prompt + stem, count - stem));
  const double fed = tool_now();
  chat->prompt_seconds = fed - start;
  sluice_status *status = generate(chat, result, most, interrupted, handler, user, out_reason);
  chat->decode_seconds = tool_now() - fed;
  return status;
}

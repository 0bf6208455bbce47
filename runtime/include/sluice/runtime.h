/* sluice runtime: runs bundles. Include this; it needs libc, libm, libdl and pthreads only.
 *
 *   sluice_model      an opened bundle on a device, then its weights
 *   sluice_session    cache pages, arena and page tables for running sequences
 *   sluice_step       one step over a ragged batch of chunks
 *
 * Threads: sluice_model_load runs alone, before any session exists, and so does sluice_model_close, after all sessions.
 * In between everything may be called from any thread and at the same time, but for this: calls for one session come
 * from one thread at a time. So sessions of one model, each with a thread of its own, run side by side; none sees
 * another's sequences, and each gets what it would get alone. On the host their steps take turns at the model's
 * threads, or run side by side when the model has one thread (sluice_model_options); on a GPU each session has a stream
 * of its own.
 *
 * A sequence is a list of tokens whose keys and values are in the cache. Each step feeds a chunk of new tokens to any
 * number of sequences; prefill is a step (or several) with long chunks, decode one with chunks of a single token.
 *
 * What a batch changes: on the host nothing. Logits are the same bit by bit however a prompt is cut into chunks,
 * whatever else is in the step, and on any number of threads. On a GPU the same holds in float32. In bfloat16 steps of
 * other sizes run other kernels there, which round otherwise: logits of tests/golden/nano moved by up to 0.03, and by
 * up to 1.2 where that flipped a near-tied block or expert (5 of 70 sequences). The same steps always give the same.
 * With a bundle of sluice compile --batch-invariant bfloat16 on a GPU is like the host.
 */
#ifndef SLUICE_RUNTIME_H
#define SLUICE_RUNTIME_H

#include "sluice/bundle.h"
#include "sluice/checkpoint.h"
#include "sluice/dtype.h"
#include "sluice/json.h"
#include "sluice/memory.h"
#include "sluice/plan.h"
#include "sluice/status.h"

#define SLUICE_VERSION_MAJOR 0
#define SLUICE_VERSION_MINOR 1
#define SLUICE_VERSION_PATCH 0
const char *sluice_version(void); /* "0.1.0" */

typedef struct sluice_model sluice_model;
typedef struct sluice_session sluice_session;

typedef struct sluice_model_options {
  const char *device; /* "host", "cuda:N", "cuda" (GPU 0), "hip:N"; NULL: "host" */
  unsigned threads;   /* of the host, including the caller's (host: run kernels; GPU: load weights); 0: one for each
                         usable core */
  /* NULL: any bundle is run. Otherwise an Ed25519 public key of 32 bytes: a bundle that is not signed with its private
   * key is refused before anything of it runs (sluice/signature.h). */
  const uint8_t *trusted_key;
  /* The ranks that share the model, of which the caller is one (docs/cluster.md); it must outlive the model. All of
   * them do the same with the model and its sessions, in the same order. NULL: the model is on one device. */
  struct sluice_group *group;
} sluice_model_options;

/* Opens a bundle for a device: checks the bundle, picks the plan built for the device (an error lists what the bundle
 * was built for and what the device is), and loads its code. No weights yet. */
SLUICE_MUST_USE sluice_status *sluice_model_open(const char *bundle_path, const sluice_model_options *options,
                                                 sluice_model **out_model);
/* The same for a bundle in memory, such as that of sluice compile --emit=object: `length` bytes, 64-byte aligned, that
 * outlive the model. `name` stands for its path in messages. */
SLUICE_MUST_USE sluice_status *sluice_model_open_memory(const void *bundle, size_t length, const char *name,
                                                        const sluice_model_options *options, sluice_model **out_model);
void sluice_model_close(sluice_model *model); /* NULL is allowed; sessions first */

const sluice_plan *sluice_model_plan(const sluice_model *model);
const char *sluice_model_target(const sluice_model *model); /* e.g. "host:x86-64-v4" */
/* The part of sluice_model_open that went into opening the device: loading its driver and starting it. */
double sluice_model_device_seconds(const sluice_model *model);
const sluice_bundle *sluice_model_bundle(const sluice_model *model);
/* The manifest's JSON root. */
const sluice_json_value *sluice_model_manifest(const sluice_model *model);

/* Progress of loading: bytes packed so far, of how many, and the tensor at hand. May be called from several threads,
 * one at a time. */
typedef void sluice_progress(void *user, uint64_t done, uint64_t total, const char *tensor);

/* Loads and packs all weights; those of a synthetic checkpoint are made on the device. Tensors are found under every
 * spelling of docs/checkpoints.md. Refused, with tensor and file named, is a checkpoint that lacks a tensor, has one of
 * another shape or a quantised one, or has text-model tensors that the plan does not know; a synthetic one where the
 * bundle, built by an older compiler, has no kernel for it. */
SLUICE_MUST_USE sluice_status *sluice_model_load(sluice_model *model, const sluice_checkpoint *checkpoint,
                                                 sluice_progress *progress, void *user);
/* One line about tensors of the checkpoint that were skipped because the text model does not need them, for a warning;
 * NULL when there were none (those of the vision tower are not counted). Lives as long as the model. */
const char *sluice_model_skipped(const sluice_model *model);

typedef struct sluice_session_options {
  uint32_t max_sequences;   /* in one step; 0: 1 */
  uint32_t max_step_tokens; /* tokens of one step; 0: 512 */
  uint64_t cache_tokens;    /* capacity of the cache in tokens, over all sequences; 0: the plan's max_context */
} sluice_session_options;

/* What a session would need, and what the device has; all bytes. */
typedef struct sluice_memory_plan {
  uint64_t weights, cache, arena, inputs_outputs;
  uint64_t total;
  uint64_t available;       /* memory of the device that is free now (plus what the model already holds) */
  uint64_t bytes_per_page;  /* cache bytes of one page over all layers */
  uint64_t longest_context; /* tokens of one sequence that fit next to weights and arena, at most the plan's max */
} sluice_memory_plan;
SLUICE_MUST_USE sluice_status *sluice_model_memory(const sluice_model *model, const sluice_session_options *options,
                                                   sluice_memory_plan *out_plan);

/* Refuses, with the figures of the memory plan, what does not fit. */
SLUICE_MUST_USE sluice_status *sluice_session_create(sluice_model *model, const sluice_session_options *options,
                                                     sluice_session **out_session);
void sluice_session_close(sluice_session *session);

/* Sequences. An id is small, non-negative and reused after removal; all but a fork take the same time however many
 * sequences there are. */
SLUICE_MUST_USE sluice_status *sluice_sequence_add(sluice_session *session, int32_t *out_sequence);
/* A new sequence with the same tokens; full pages are shared, the last partial one is copied. */
SLUICE_MUST_USE sluice_status *sluice_sequence_fork(sluice_session *session, int32_t sequence, int32_t *out_sequence);
SLUICE_MUST_USE sluice_status *sluice_sequence_remove(sluice_session *session, int32_t sequence);
SLUICE_MUST_USE sluice_status *sluice_sequence_length(const sluice_session *session, int32_t sequence,
                                                      uint32_t *out_tokens);
/* Pages free in the pool, for admission control. */
uint64_t sluice_session_free_pages(const sluice_session *session);

typedef struct sluice_sampling {
  float temperature; /* <= 0: greedy */
  float top_p;       /* 0, NaN, negative or >= 1: off */
  int32_t top_k;     /* <= 0: off */
  uint64_t seed;
  float min_p; /* 0: off; tokens less probable than min_p times the most probable one are left out */
  /* Penalties change the logits of the tokens in `seen`, before anything else: those that sluice_step_logits gives,
   * too. Repetition: logits above 0 are divided by it, others multiplied; of all tokens in `seen`. Presence and
   * frequency are subtracted, once and `count` times, for tokens whose count is not 0. docs/sampling.md. */
  float repetition_penalty; /* 0 or 1: off */
  float presence_penalty, frequency_penalty;
  const sluice_seen_token *seen; /* [seen_count], each token at most once; read by sluice_step only */
  uint32_t seen_count;
  uint32_t logprobs; /* 0: none; otherwise log-probabilities of the token that is chosen and of this many of the
                        likeliest ones, at most SLUICE_MOST_LOGPROBS: sluice_step_result */
} sluice_sampling;

typedef struct sluice_chunk {
  int32_t sequence;
  const int32_t *tokens; /* each in [0, vocabulary) */
  uint32_t count;        /* >= 1 */
  uint32_t logit_rows;   /* logits of the last `logit_rows` tokens are wanted; 0: none, nothing is sampled */
  sluice_sampling sampling;
} sluice_chunk;

/* Called for each observable of the plan (sluice_plan_observable) right after the launch that made it; `rows` rows of
 * `row_elements` elements of `dtype` each, one for each token of the step, in its order.
 *
 * It runs on the thread that called sluice_step, inside that call. `data` and `name` are valid until it returns, and
 * `data` is not to be written. An error that it returns ends the step, which then has changed nothing, and comes back
 * from sluice_step. It may use other sessions of the model and read this one (sluice_sequence_length,
 * sluice_session_free_pages, sluice_model_...); sluice_step, sluice_step_logits and what adds, forks or removes a
 * sequence are refused for its own session, and it must neither close that nor change its observer or hook. On the host
 * it has the model's threads meanwhile, so it must not wait for a step of another thread. The same holds for launch
 * hooks. */
typedef sluice_status *sluice_observer(void *user, const char *name, sluice_dtype dtype, const void *data,
                                       uint32_t rows, uint32_t row_elements);

/* Called around each launch when set; `seconds` is the launch's wall time. For bench and trace. */
typedef void sluice_launch_hook(void *user, uint32_t launch, double seconds);

/* Natural logarithms of probabilities: of the softmax of a row's logits, penalties applied, at temperature 1. They are
 * computed where the logits are. */
typedef struct sluice_token_logprob {
  int32_t token;
  float logprob;
} sluice_token_logprob;

typedef struct sluice_logprobs {
  float chosen;   /* of the sampled token */
  uint32_t count; /* of `top`; 0: the row's chunk wanted none, and `chosen` means nothing */
  sluice_token_logprob top[SLUICE_MOST_LOGPROBS]; /* likeliest first, of equal ones the lower id */
} sluice_logprobs;

typedef struct sluice_step_result {
  /* [rows], in the chunks' order; valid until the next step. */
  const int32_t *sampled; /* the next token after each row */
  const uint8_t *nan;     /* 1 where a logit of the row is NaN, otherwise 0 */
  uint32_t rows;
  uint32_t nan_rows; /* how many have one: weights are damaged, or values too large for their type. The tokens of these
                        rows are chosen among the other logits (token 0 when there are none) and mean nothing. */
  const sluice_logprobs *logprobs; /* [rows]; NULL when no chunk wanted any */
} sluice_step_result;

/* Runs one step. On an error that the batch caused (bad token, unknown sequence, cache full, ...) nothing has changed;
 * after a device error the session must be closed. */
SLUICE_MUST_USE sluice_status *sluice_step(sluice_session *session, const sluice_chunk *chunks, uint32_t chunk_count,
                                           sluice_step_result *out_result);
/* The logits of the last step, [rows][vocabulary] in the chunks' order, in host memory; valid until the next step. NULL
 * when that step had no rows. Devices with memory of their own copy them at the first call, so ask only when needed. */
SLUICE_MUST_USE sluice_status *sluice_step_logits(sluice_session *session, const float **out_logits);
void sluice_session_observe(sluice_session *session, sluice_observer *observer, void *user); /* NULL: stop */
void sluice_session_hook_launches(sluice_session *session, sluice_launch_hook *hook, void *user);

#endif

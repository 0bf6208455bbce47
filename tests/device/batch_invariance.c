/* Whether a sequence's logits depend on what else is in a step and on how its tokens were cut into chunks:
 *
 *     batch_invariance BUNDLE DEVICE WEIGHTS OPERATIONS SEED [STEP_TOKENS [LENGTH]]
 *     batch_invariance m3.sluice cuda:0 synthetic:3 6000 1 2048 3000
 *
 * Random operations on a session: sequences are added, forked and removed, and steps feed chunks of random lengths to
 * some of them, STEP_TOKENS tokens at most (256), until a sequence has LENGTH tokens (600). Behind each step the
 * logits of one of its chunks are compared, bit by bit, with those of a fresh sequence of another session, which is fed
 * all its tokens in a step or two. Prints how many rows were compared and how many differ, with the first of them.
 * Ends with 0 when none does, 1 when some do, 2 when the runtime refuses something. Needs the runtime's library alone,
 * so that it runs on a machine with a GPU and nothing else (docs/kernels.md).
 */
#include "sluice/runtime.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SEQUENCES = 12, MOST_ROWS = 3 };

typedef struct sequence {
  int32_t id; /* -1: there is none */
  uint32_t length;
  int32_t *tokens; /* [most length] */
} sequence;

typedef struct experiment {
  sluice_session *session, *fresh;
  uint32_t vocabulary, step_tokens, most_length;
  uint64_t random;
  sequence sequences[MOST_SEQUENCES];
  uint64_t operation, counts[4]; /* of each kind */
  uint64_t compared, differing, tokens;
  double largest; /* difference of two logits */
} experiment;

enum { ADD, STEP, FORK, REMOVE };

static int failed(sluice_status *status) {
  if (!status) return 0;
  fprintf(stderr, "batch_invariance: %s\n", sluice_status_message(status));
  sluice_status_free(status);
  return 2;
}

/* From 0 to below `end`; splitmix64. */
static uint32_t draw(experiment *x, uint32_t end) {
  uint64_t z = x->random += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return (uint32_t)(((z ^ z >> 31) >> 32) * end >> 32);
}

/* Some sequence that there is (or is not), NULL: none. */
static sequence *find(experiment *x, bool present) {
  const uint32_t first = draw(x, MOST_SEQUENCES);
  for (uint32_t i = 0; i < MOST_SEQUENCES; i++) {
    sequence *s = &x->sequences[(first + i) % MOST_SEQUENCES];
    if ((s->id >= 0) == present) return s;
  }
  return NULL;
}

static sluice_status *add(experiment *x, sequence *s) {
  SLUICE_TRY(sluice_sequence_add(x->session, &s->id));
  s->length = 0;
  return NULL;
}

static sluice_status *fork_one(experiment *x, const sequence *from, sequence *s) {
  SLUICE_TRY(sluice_sequence_fork(x->session, from->id, &s->id));
  s->length = from->length;
  memcpy(s->tokens, from->tokens, from->length * sizeof *s->tokens);
  return NULL;
}

static sluice_status *remove_one(experiment *x, sequence *s) {
  SLUICE_TRY(sluice_sequence_remove(x->session, s->id));
  s->id = -1;
  return NULL;
}

/* The logits of the last `rows` tokens of `tokens`, by a session that has seen nothing of them; its memory. */
static sluice_status *compute_fresh(experiment *x, const int32_t *tokens, uint32_t count, uint32_t rows,
                                    const float **out_logits) {
  sluice_chunk chunk = {.tokens = tokens};
  sluice_step_result result;
  SLUICE_TRY(sluice_sequence_add(x->fresh, &chunk.sequence));
  const uint32_t first = count > rows && draw(x, 2) ? 1 + draw(x, count - rows) : 0;
  sluice_status *status = NULL;
  for (uint32_t at = 0; at < count && !status; at += chunk.count) {
    const uint32_t left = at < first ? first - at : count - at;
    chunk.tokens = tokens + at;
    chunk.count = left < x->most_length ? left : x->most_length;
    chunk.logit_rows = at + chunk.count == count ? rows : 0;
    status = sluice_step(x->fresh, &chunk, 1, &result);
  }
  if (!status) status = sluice_step_logits(x->fresh, out_logits);
  if (!status) status = sluice_sequence_remove(x->fresh, chunk.sequence);
  return status;
}

static void compare_row(experiment *x, const float *found, const float *expected, uint32_t length, uint32_t tokens) {
  x->compared++;
  if (memcmp(found, expected, x->vocabulary * sizeof *found) == 0) return;
  uint32_t differing = 0;
  double largest = 0;
  for (uint32_t i = 0; i < x->vocabulary; i++) {
    differing += memcmp(&found[i], &expected[i], sizeof *found) != 0;
    largest = fmax(largest, fabs((double)found[i] - (double)expected[i]));
  }
  if (x->differing++ == 0)
    printf("operation %" PRIu64 ": a row behind %u tokens, in a step of %u, has %u other logits, by up to %g\n",
           x->operation, length, tokens, differing, largest);
  x->largest = fmax(x->largest, largest);
}

/* Lengths of chunks: one token, a few, many. */
static uint32_t draw_count(experiment *x, uint32_t most) {
  static const uint32_t ends[] = {1, 1, 4, 24, UINT32_MAX};
  const uint32_t end = ends[draw(x, sizeof ends / sizeof *ends)];
  return 1 + draw(x, end < most ? end : most);
}

static sluice_status *step(experiment *x) {
  sluice_chunk chunks[MOST_SEQUENCES];
  sequence *of[MOST_SEQUENCES];
  uint32_t count = 0, tokens = 0;
  for (uint32_t wanted = 1 + draw(x, MOST_SEQUENCES), i = 0; i < MOST_SEQUENCES && count < wanted; i++) {
    sequence *s = &x->sequences[i];
    const uint32_t room = x->step_tokens - tokens;
    if (s->id < 0 || s->length == x->most_length || room == 0) continue;
    const uint32_t left = x->most_length - s->length;
    sluice_chunk *c = &chunks[count];
    *c = (sluice_chunk){.sequence = s->id, .tokens = s->tokens + s->length};
    c->count = draw_count(x, left < room ? left : room);
    c->logit_rows = 1 + draw(x, c->count < MOST_ROWS ? c->count : MOST_ROWS);
    for (uint32_t k = 0; k < c->count; k++) s->tokens[s->length + k] = (int32_t)draw(x, x->vocabulary);
    s->length += c->count;
    tokens += c->count;
    of[count++] = s;
  }
  if (count == 0) return NULL;
  sluice_step_result result;
  const float *logits, *expected = NULL;
  SLUICE_TRY(sluice_step(x->session, chunks, count, &result));
  SLUICE_TRY(sluice_step_logits(x->session, &logits));
  x->counts[STEP]++;
  x->tokens += tokens;
  const uint32_t which = draw(x, count), rows = chunks[which].logit_rows;
  for (uint32_t i = 0; i < which; i++) logits += (size_t)chunks[i].logit_rows * x->vocabulary;
  SLUICE_TRY(compute_fresh(x, of[which]->tokens, of[which]->length, rows, &expected));
  for (uint32_t i = 0; i < rows; i++)
    compare_row(x, logits + (size_t)i * x->vocabulary, expected + (size_t)i * x->vocabulary,
                of[which]->length - rows + 1 + i, tokens);
  return NULL;
}

/* One of the operations that are possible. */
static sluice_status *operate(experiment *x) {
  sequence *some = find(x, true), *none = find(x, false);
  const uint32_t kind = draw(x, 20);
  if (!some || (none && kind < 3)) {
    x->counts[ADD]++;
    return add(x, none);
  }
  if (none && kind < 6) {
    x->counts[FORK]++;
    return fork_one(x, some, none);
  }
  if (kind < 8 || some->length == x->most_length) {
    x->counts[REMOVE]++;
    return remove_one(x, some);
  }
  return step(x);
}

static sluice_status *open_experiment(experiment *x, const char *const argv[], sluice_model **out_model) {
  sluice_checkpoint *weights;
  SLUICE_TRY(sluice_model_open(argv[1], &(sluice_model_options){.device = argv[2]}, out_model));
  SLUICE_TRY(sluice_checkpoint_open(argv[3], &weights));
  sluice_status *status = sluice_model_load(*out_model, weights, NULL, NULL);
  sluice_checkpoint_close(weights);
  if (status) return status;
  const sluice_plan *plan = sluice_model_plan(*out_model);
  x->vocabulary = plan->header->vocabulary;
  if (x->most_length > plan->header->max_context) x->most_length = plan->header->max_context;
  const uint64_t page = plan->header->page_tokens, pages = (x->most_length + page - 1) / page;
  const sluice_session_options options = {.max_sequences = MOST_SEQUENCES,
                                          .max_step_tokens = x->step_tokens,
                                          .cache_tokens = pages * page * MOST_SEQUENCES};
  const sluice_session_options fresh = {
      .max_sequences = 1, .max_step_tokens = x->most_length, .cache_tokens = pages * page};
  SLUICE_TRY(sluice_session_create(*out_model, &options, &x->session));
  return sluice_session_create(*out_model, &fresh, &x->fresh);
}

int main(int argc, const char *argv[]) {
  if (argc < 6 || argc > 8) {
    fprintf(stderr, "usage: %s BUNDLE DEVICE WEIGHTS OPERATIONS SEED [STEP_TOKENS [LENGTH]]\n", argv[0]);
    return 2;
  }
  const uint64_t operations = strtoull(argv[4], NULL, 10);
  static experiment x;
  x.random = strtoull(argv[5], NULL, 10);
  x.step_tokens = argc > 6 ? (uint32_t)strtoul(argv[6], NULL, 10) : 256;
  x.most_length = argc > 7 ? (uint32_t)strtoul(argv[7], NULL, 10) : 600;
  sluice_model *model = NULL;
  sluice_status *status = open_experiment(&x, argv, &model);
  for (size_t i = 0; !status && i < MOST_SEQUENCES; i++) {
    x.sequences[i] = (sequence){.id = -1, .tokens = sluice_allocate_array(x.most_length, sizeof(int32_t))};
    if (!x.sequences[i].tokens) status = sluice_out_of_memory();
  }
  for (; !status && x.operation < operations; x.operation++) status = operate(&x);
  for (size_t i = 0; i < MOST_SEQUENCES; i++) sluice_release(x.sequences[i].tokens);
  sluice_session_close(x.fresh);
  sluice_session_close(x.session);
  sluice_model_close(model);
  if (status) return failed(status);
  printf("%" PRIu64 " added, %" PRIu64 " forked, %" PRIu64 " removed, %" PRIu64 " steps of %" PRIu64 " tokens\n",
         x.counts[ADD], x.counts[FORK], x.counts[REMOVE], x.counts[STEP], x.tokens);
  printf("%" PRIu64 " of %" PRIu64 " rows of logits differ, by up to %g\n", x.differing, x.compared, x.largest);
  return x.differing > 0;
}

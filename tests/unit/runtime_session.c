/* Sessions on a hand-made bundle whose logits are known in closed form: chunks, ragged batches, pages, forks, errors.
 */
#include "runtime/model.h"
#include "support/tiny_bundle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char bundle_path[256];
static char weights_path[256];
static float scale[TINY_VOCABULARY];

static void ok(sluice_status *status) {
  if (!status) return;
  sluice_status_print(status);
  fail_msg("%s", sluice_status_message(status));
}

static void refused(sluice_status *status, const char *part) {
  assert_non_null(status);
  if (!strstr(sluice_status_message(status), part))
    fail_msg("\"%s\" lacks \"%s\"", sluice_status_message(status), part);
  sluice_status_free(status);
}

static int set_up(void **state) {
  (void)state;
  snprintf(bundle_path, sizeof bundle_path, "/tmp/runtime_session_%d.sluice", (int)getpid());
  snprintf(weights_path, sizeof weights_path, "synthetic:7");
  uint16_t values[TINY_VOCABULARY];
  sluice_synthetic_fill(TINY_SCALE, 7, TINY_VOCABULARY, 0, TINY_VOCABULARY, values);
  for (int i = 0; i < TINY_VOCABULARY; i++) scale[i] = sluice_f32_from_bf16(values[i]);
  return tiny_bundle_write(bundle_path);
}

static int tear_down(void **state) {
  (void)state;
  unlink(bundle_path);
  return 0;
}

static sluice_model *open_model(unsigned threads) {
  sluice_model *model = NULL;
  sluice_checkpoint *checkpoint = NULL;
  ok(sluice_model_open(bundle_path, &(sluice_model_options){.threads = threads}, &model));
  ok(sluice_checkpoint_open(weights_path, &checkpoint));
  ok(sluice_model_load(model, checkpoint, NULL, NULL));
  sluice_checkpoint_close(checkpoint);
  return model;
}

static sluice_session *open_session(sluice_model *model, uint32_t sequences, uint32_t step, uint64_t cache) {
  sluice_session *session = NULL;
  ok(sluice_session_create(
      model, &(sluice_session_options){.max_sequences = sequences, .max_step_tokens = step, .cache_tokens = cache},
      &session));
  return session;
}

static const float *logits_of(sluice_session *session) {
  const float *logits = NULL;
  ok(sluice_step_logits(session, &logits));
  return logits;
}

/* The logits after `count` tokens. */
static void expect_logits(const float *logits, const int32_t *tokens, uint32_t count) {
  float counts[TINY_VOCABULARY] = {0};
  for (uint32_t i = 0; i < count; i++) counts[tokens[i]] += 1;
  for (int v = 0; v < TINY_VOCABULARY; v++)
    if (!(logits[v] == counts[v] * scale[v]))
      fail_msg("after %u tokens logit %d is %g, expected %g", count, v, (double)logits[v],
               (double)(counts[v] * scale[v]));
}

static int32_t random_token(uint32_t *seed) {
  *seed = *seed * 1664525u + 1013904223u;
  return (int32_t)(*seed >> 28);
}

static void chunks_give_the_same(void **state) {
  (void)state;
  int32_t tokens[TINY_CONTEXT];
  uint32_t seed = 1;
  for (int i = 0; i < TINY_CONTEXT; i++) tokens[i] = random_token(&seed);
  for (unsigned threads = 1; threads <= 3; threads++) {
    sluice_model *model = open_model(threads);
    for (uint32_t chunk = 1; chunk <= TINY_CONTEXT; chunk++) {
      sluice_session *session = open_session(model, 1, TINY_CONTEXT, TINY_CONTEXT);
      int32_t sequence;
      ok(sluice_sequence_add(session, &sequence));
      for (uint32_t done = 0; done < TINY_CONTEXT;) {
        uint32_t count = TINY_CONTEXT - done < chunk ? TINY_CONTEXT - done : chunk;
        sluice_step_result result;
        ok(sluice_step(
            session,
            &(sluice_chunk){.sequence = sequence, .tokens = tokens + done, .count = count, .logit_rows = count}, 1,
            &result));
        assert_int_equal(result.rows, count);
        for (uint32_t i = 0; i < count; i++)
          expect_logits(logits_of(session) + (size_t)i * TINY_VOCABULARY, tokens, done + i + 1);
        done += count;
      }
      assert_int_equal(sluice_session_free_pages(session), 0);
      sluice_session_close(session);
    }
    sluice_model_close(model);
  }
}

typedef struct history {
  int32_t id;
  uint32_t length;
  int32_t tokens[TINY_CONTEXT];
} history;

/* Random additions, removals, forks and ragged steps, against a plain record of every sequence. */
static void random_traffic(void **state) {
  (void)state;
  enum { MOST = 6 };
  sluice_model *model = open_model(2);
  sluice_session *session = open_session(model, MOST, 64, 40 * TINY_PAGE);
  history all[MOST];
  uint32_t count = 0, seed = 5, full = 0;
  for (int round = 0; round < 3000; round++) {
    uint32_t action = (uint32_t)random_token(&seed);
    if (action < 2 && count < MOST) {
      all[count] = (history){0};
      ok(sluice_sequence_add(session, &all[count++].id));
    } else if (action < 4 && count) {
      uint32_t which = (uint32_t)random_token(&seed) % count;
      ok(sluice_sequence_remove(session, all[which].id));
      all[which] = all[--count];
    } else if (action < 6 && count && count < MOST) {
      uint32_t which = (uint32_t)random_token(&seed) % count;
      all[count] = all[which];
      sluice_status *status = sluice_sequence_fork(session, all[which].id, &all[count].id);
      if (status) {
        full++;
        refused(status, "the cache is full");
      } else {
        count++;
      }
    } else if (count) {
      sluice_chunk chunks[MOST];
      uint32_t used = 0, rows = 0;
      for (uint32_t i = 0; i < count; i++) {
        uint32_t length = 1 + (uint32_t)random_token(&seed) % 9;
        if (random_token(&seed) < 6 || all[i].length + length > TINY_CONTEXT) continue;
        for (uint32_t j = 0; j < length; j++) all[i].tokens[all[i].length + j] = random_token(&seed);
        chunks[used] = (sluice_chunk){.sequence = all[i].id,
                                      .tokens = all[i].tokens + all[i].length,
                                      .count = length,
                                      .logit_rows = (uint32_t)random_token(&seed) % (length + 1)};
        rows += chunks[used++].logit_rows;
      }
      if (!used) continue;
      uint64_t free_pages = sluice_session_free_pages(session);
      sluice_step_result result;
      sluice_status *status = sluice_step(session, chunks, used, &result);
      if (status) {
        full++;
        refused(status, "the cache is full");
        assert_int_equal(sluice_session_free_pages(session), free_pages);
        continue;
      }
      assert_int_equal(result.rows, rows);
      const float *logits = logits_of(session);
      for (uint32_t c = 0; c < used; c++)
        for (uint32_t i = 0; i < count; i++) {
          if (all[i].id != chunks[c].sequence) continue;
          all[i].length += chunks[c].count;
          for (uint32_t r = 0; r < chunks[c].logit_rows; r++, logits += TINY_VOCABULARY)
            expect_logits(logits, all[i].tokens, all[i].length - chunks[c].logit_rows + r + 1);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
      uint32_t length;
      ok(sluice_sequence_length(session, all[i].id, &length));
      assert_int_equal(length, all[i].length);
    }
  }
  assert_true(full > 0);
  while (count) ok(sluice_sequence_remove(session, all[--count].id));
  assert_int_equal(sluice_session_free_pages(session), 40);
  sluice_session_close(session);
  sluice_model_close(model);
}

static void bad_batches_change_nothing(void **state) {
  (void)state;
  sluice_model *model = open_model(1);
  sluice_session *session = open_session(model, 2, 16, 32);
  int32_t a, b;
  ok(sluice_sequence_add(session, &a));
  ok(sluice_sequence_add(session, &b));
  int32_t good[80] = {1, 2, 3}, bad[3] = {1, 16, 2}, negative[1] = {-1};
  sluice_step_result result;
  sluice_chunk twice[] = {{.sequence = a, .tokens = good, .count = 3}, {.sequence = a, .tokens = good, .count = 1}};
  refused(sluice_step(session, twice, 2, &result), "two chunks");
  sluice_chunk three[] = {twice[0], twice[1], twice[0]};
  refused(sluice_step(session, three, 3, &result), "created for 1 to 2");
  refused(sluice_step(session, three, 0, &result), "created for 1 to 2");
  sluice_chunk second_bad[] = {{.sequence = a, .tokens = good, .count = 3}, {.sequence = b, .tokens = bad, .count = 3}};
  refused(sluice_step(session, second_bad, 2, &result), "token 16 is outside the vocabulary");
  refused(sluice_step(session, &(sluice_chunk){.sequence = a, .tokens = negative, .count = 1}, 1, &result), "token -1");
  refused(sluice_step(session, &(sluice_chunk){.sequence = a, .tokens = good}, 1, &result), "no tokens");
  refused(sluice_step(session, &(sluice_chunk){.sequence = a, .tokens = good, .count = 2, .logit_rows = 3}, 1, &result),
          "3 logit rows");
  refused(sluice_step(session, &(sluice_chunk){.sequence = a, .tokens = good, .count = 17}, 1, &result), "at most 16");
  refused(sluice_step(session, &(sluice_chunk){.sequence = a, .tokens = good, .count = 65}, 1, &result),
          "longest context 64");
  refused(sluice_step(session, &(sluice_chunk){.sequence = 9, .tokens = good, .count = 1}, 1, &result),
          "no sequence 9");
  refused(sluice_step(session, &(sluice_chunk){.sequence = -1, .tokens = good, .count = 1}, 1, &result), "no sequence");
  refused(sluice_sequence_remove(session, 7), "no sequence 7");
  refused(sluice_sequence_fork(session, 7, &b), "no sequence 7");
  assert_int_equal(sluice_session_free_pages(session), 8);
  ok(sluice_step(session, &(sluice_chunk){.sequence = a, .tokens = good, .count = 3, .logit_rows = 1}, 1, &result));
  expect_logits(logits_of(session), good, 3);
  assert_int_equal(sluice_session_free_pages(session), 7);
  sluice_session_close(session);
  sluice_model_close(model);
}

static void sampling_rows_arrive(void **state) {
  (void)state;
  sluice_model *model = open_model(1);
  sluice_session *session = open_session(model, 1, 16, 0);
  int32_t sequence, tokens[5] = {3, 3, 1, 0, 2};
  ok(sluice_sequence_add(session, &sequence));
  sluice_step_result result;
  sluice_chunk chunk = {.sequence = sequence,
                        .tokens = tokens,
                        .count = 5,
                        .logit_rows = 2,
                        .sampling = {.temperature = 1, .top_k = 2, .seed = 100}};
  ok(sluice_step(session, &chunk, 1, &result));
  assert_int_equal(result.sampled[0], (3 + 2 + 100) % TINY_VOCABULARY);
  assert_int_equal(result.sampled[1], (4 + 2 + 100) % TINY_VOCABULARY);
  chunk.logit_rows = 0;
  ok(sluice_step(session, &chunk, 1, &result));
  assert_int_equal(result.rows, 0);
  assert_null(logits_of(session));
  sluice_session_close(session);
  sluice_model_close(model);
}

/* Each row finds its sequence's list of seen tokens; without a penalty there is none; bad ones are refused. */
static void seen_tokens_arrive(void **state) {
  (void)state;
  sluice_model *model = open_model(1);
  sluice_session *session = open_session(model, 3, 16, 0);
  const sluice_seen_token first[2] = {{1, 0}, {3, 2}}, second[3] = {{5, 1}, {0, 0}, {2, 7}};
  int32_t ids[3], tokens[2] = {3, 1};
  for (int i = 0; i < 3; i++) ok(sluice_sequence_add(session, &ids[i]));
  const sluice_sampling a = {.temperature = 1, .repetition_penalty = 2, .seen = first, .seen_count = 2};
  const sluice_sampling b = {.temperature = 1, .presence_penalty = 1, .seen = second, .seen_count = 3};
  const sluice_sampling none = {.temperature = 1, .repetition_penalty = 1, .seen = second, .seen_count = 3};
  sluice_chunk chunks[3] = {{.sequence = ids[0], .tokens = tokens, .count = 2, .logit_rows = 2, .sampling = a},
                            {.sequence = ids[1], .tokens = tokens, .count = 1, .logit_rows = 1, .sampling = none},
                            {.sequence = ids[2], .tokens = tokens, .count = 1, .logit_rows = 1, .sampling = b}};
  sluice_step_result result;
  ok(sluice_step(session, chunks, 3, &result));
  assert_int_equal(result.sampled[0], (0 + 4 + 5 * 2 + 2 * 2) % TINY_VOCABULARY);
  assert_int_equal(result.sampled[1], (1 + 4 + 5 * 2 + 2 * 2) % TINY_VOCABULARY);
  assert_int_equal(result.sampled[2], 0);
  assert_int_equal(result.sampled[3], (0 + 7 + 5 * 8 + 3 * 1) % TINY_VOCABULARY);
  const sluice_seen_token outside = {TINY_VOCABULARY, 0}, negative = {0, -1};
  const sluice_sampling wrong[] = {{.repetition_penalty = 2, .seen = &outside, .seen_count = 1},
                                   {.frequency_penalty = 2, .seen = &negative, .seen_count = 1},
                                   {.repetition_penalty = 2, .seen = first, .seen_count = TINY_VOCABULARY + 1},
                                   {.repetition_penalty = -1},
                                   {.presence_penalty = NAN},
                                   {.min_p = 2}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    chunks[0].sampling = wrong[i];
    sluice_status *status = sluice_step(session, chunks, 3, &result);
    assert_int_equal(sluice_status_code(status), SLUICE_INVALID);
    sluice_status_free(status);
  }
  sluice_session_close(session);
  sluice_model_close(model);
}

typedef struct watch {
  int calls, launches;
  bool refuse;
} watch;

static sluice_status *observe(void *user, const char *name, sluice_dtype dtype, const void *data, uint32_t rows,
                              uint32_t row_elements) {
  watch *w = user;
  w->calls++;
  assert_string_equal(name, "layer.0.out");
  assert_int_equal(dtype, SLUICE_F32);
  assert_int_equal(rows, 3);
  assert_int_equal(row_elements, TINY_VOCABULARY);
  assert_true(((const float *)data)[2 * TINY_VOCABULARY + 5] == 2.0f);
  return w->refuse ? sluice_error(SLUICE_CHECK_FAILED, "seen enough") : NULL;
}

static void hook(void *user, uint32_t launch, double seconds) {
  watch *w = user;
  assert_int_equal(launch, w->launches++);
  assert_true(seconds >= 0);
}

static void observers_and_hooks(void **state) {
  (void)state;
  sluice_model *model = open_model(2);
  sluice_session *session = open_session(model, 1, 16, 0);
  watch w = {.refuse = true};
  int32_t sequence, tokens[3] = {5, 1, 5};
  ok(sluice_sequence_add(session, &sequence));
  sluice_session_observe(session, observe, &w);
  sluice_step_result result;
  sluice_chunk chunk = {.sequence = sequence, .tokens = tokens, .count = 3, .logit_rows = 1};
  refused(sluice_step(session, &chunk, 1, &result), "seen enough");
  assert_int_equal(sluice_session_free_pages(session), TINY_CONTEXT / TINY_PAGE);
  w.refuse = false;
  sluice_session_hook_launches(session, hook, &w);
  ok(sluice_step(session, &chunk, 1, &result));
  assert_int_equal(w.calls, 2);
  assert_int_equal(w.launches, 5);
  expect_logits(logits_of(session), tokens, 3);
  sluice_session_close(session);
  sluice_model_close(model);
}

/* An observer that calls what it may and what it may not. */
typedef struct meddler {
  sluice_session *session, *other;
  int32_t sequence, other_sequence;
  int calls;
} meddler;

static sluice_status *meddle(void *user, const char *name, sluice_dtype dtype, const void *data, uint32_t rows,
                             uint32_t row_elements) {
  meddler *m = user;
  int32_t id, token = 3;
  uint32_t length;
  const float *logits;
  sluice_step_result result;
  sluice_chunk chunk = {.sequence = m->sequence, .tokens = &token, .count = 1, .logit_rows = 1};
  (void)name, (void)dtype, (void)data, (void)rows, (void)row_elements;
  refused(sluice_sequence_add(m->session, &id), "in a step");
  refused(sluice_sequence_fork(m->session, m->sequence, &id), "in a step");
  refused(sluice_sequence_remove(m->session, m->sequence), "in a step");
  refused(sluice_step(m->session, &chunk, 1, &result), "in a step");
  refused(sluice_step_logits(m->session, &logits), "in a step");
  ok(sluice_sequence_length(m->session, m->sequence, &length));
  assert_int_equal(length, 0); /* as before the step */
  chunk.sequence = m->other_sequence;
  ok(sluice_step(m->other, &chunk, 1, &result)); /* another session of the same model */
  expect_logits(logits_of(m->other), &token, 1);
  m->calls++;
  return NULL;
}

static void observers_keep_off(void **state) {
  (void)state;
  sluice_model *model = open_model(2);
  meddler m = {.session = open_session(model, 1, 16, 0), .other = open_session(model, 1, 16, 0)};
  int32_t tokens[3] = {5, 1, 5};
  sluice_step_result result;
  ok(sluice_sequence_add(m.session, &m.sequence));
  ok(sluice_sequence_add(m.other, &m.other_sequence));
  sluice_session_observe(m.session, meddle, &m);
  sluice_chunk chunk = {.sequence = m.sequence, .tokens = tokens, .count = 3, .logit_rows = 1};
  ok(sluice_step(m.session, &chunk, 1, &result));
  assert_int_equal(m.calls, 1);
  expect_logits(logits_of(m.session), tokens, 3);
  sluice_session_close(m.other);
  sluice_session_close(m.session);
  sluice_model_close(model);
}

/* Many sequences: an id costs the same whether there are ten or a hundred thousand. A scan of all would take minutes.
 */
static void many_sequences(void **state) {
  (void)state;
  enum { MANY = 200000 };
  sluice_model *model = open_model(1);
  sluice_session *session = open_session(model, 1, 16, 0);
  uint8_t *seen = sluice_allocate(MANY);
  int32_t id;
  assert_non_null(seen);
  for (int i = 0; i < MANY; i++) {
    ok(sluice_sequence_add(session, &id));
    assert_in_range(id, 0, MANY - 1);
    assert_false(seen[id]++);
  }
  for (int i = 0; i < MANY; i++) { /* full but for one, at any place */
    ok(sluice_sequence_remove(session, (int32_t)((int64_t)i * 7919 % MANY)));
    ok(sluice_sequence_add(session, &id));
    assert_int_equal(id, (int64_t)i * 7919 % MANY);
  }
  for (int i = 0; i < MANY; i++) ok(sluice_sequence_remove(session, i));
  refused(sluice_sequence_remove(session, 3), "no sequence 3");
  refused(sluice_sequence_fork(session, 3, &id), "no sequence 3");
  sluice_release(seen);
  sluice_session_close(session);
  sluice_model_close(model);
}

/* Rows with a NaN among their logits are named, whatever else the step does. */
static void nan_is_reported(void **state) {
  (void)state;
  sluice_model *model = open_model(2);
  sluice_session *session = open_session(model, 2, 16, 0);
  int32_t ids[2], tokens[3] = {5, 1, 5};
  sluice_step_result result;
  for (int i = 0; i < 2; i++) ok(sluice_sequence_add(session, &ids[i]));
  sluice_chunk chunks[2] = {{.sequence = ids[0], .tokens = tokens, .count = 3, .logit_rows = 2},
                            {.sequence = ids[1], .tokens = tokens, .count = 1, .logit_rows = 1}};
  ok(sluice_step(session, chunks, 2, &result));
  assert_int_equal(result.rows, 3);
  assert_int_equal(result.nan_rows, 0);
  for (int i = 0; i < 3; i++) assert_int_equal(result.nan[i], 0);

  /* An infinite weight gives NaN for the ids that did not occur: 0 times infinity. */
  float *weights = (float *)(void *)model->weights;
  const float before = weights[9];
  weights[9] = INFINITY;
  ok(sluice_step(session, chunks, 2, &result));
  assert_int_equal(result.nan_rows, 3);
  const int32_t nine = 9;
  chunks[1].tokens = &nine;
  ok(sluice_step(session, chunks, 2, &result));
  assert_int_equal(result.nan_rows, 2);
  assert_true(result.nan[0] && result.nan[1] && !result.nan[2]);
  for (int i = 0; i < 3; i++) assert_in_range(result.sampled[i], 0, TINY_VOCABULARY - 1);
  assert_int_equal(result.sampled[2], 9);
  weights[9] = before;
  ok(sluice_step(session, chunks, 2, &result));
  assert_int_equal(result.nan_rows, 0);
  chunks[0].logit_rows = chunks[1].logit_rows = 0; /* no row, no flags */
  ok(sluice_step(session, chunks, 2, &result));
  assert_true(result.nan_rows == 0 && result.rows == 0 && !result.nan);
  sluice_session_close(session);
  sluice_model_close(model);
}

static void memory_is_planned(void **state) {
  (void)state;
  sluice_model *model = open_model(1);
  sluice_memory_plan plan;
  sluice_session_options options = {.max_sequences = 2, .max_step_tokens = 8, .cache_tokens = 41};
  ok(sluice_model_memory(model, &options, &plan));
  assert_int_equal(plan.weights, 64 + 192 + 3 * 384 + 2 * 768);
  assert_int_equal(plan.bytes_per_page, 128);
  assert_int_equal(plan.cache, 11 * 128);
  assert_int_equal(plan.arena, 64 + 8 * 128);
  assert_int_equal(plan.longest_context, TINY_CONTEXT);
  assert_int_equal(plan.total, plan.weights + plan.cache + plan.arena + plan.inputs_outputs);
  assert_true(plan.available > plan.total);
  options.cache_tokens = (uint64_t)1 << 32;
  sluice_session *session = NULL;
  refused(sluice_session_create(model, &options, &session), "the longest context that fits has 64 tokens");
  options.cache_tokens = (uint64_t)1 << 60;
  refused(sluice_session_create(model, &options, &session), "more pages");
  sluice_model_close(model);
  ok(sluice_model_open(bundle_path, NULL, &model));
  refused(sluice_session_create(model, NULL, &session), "load the model's weights");
  sluice_model_close(model);
}

static void other_devices_are_refused(void **state) {
  (void)state;
  sluice_model *model = NULL;
  /* With a driver the GPU is missing, without one the driver. */
  refused(sluice_model_open(bundle_path, &(sluice_model_options){.device = "cuda:4096"}, &model), "NVIDIA driver");
  refused(sluice_model_open(bundle_path, &(sluice_model_options){.device = "hip:0"}, &model), "\"hip:0\"");
  refused(sluice_model_open(bundle_path, &(sluice_model_options){.device = "cuda:x"}, &model), "\"cuda:x\"");
  refused(sluice_model_open(bundle_path, &(sluice_model_options){.device = "abacus"}, &model), "abacus");
  refused(sluice_model_open("/nonexistent.sluice", NULL, &model), "/nonexistent.sluice");
  char path[300];
  snprintf(path, sizeof path, "%s.other", bundle_path);
  size_t length;
  void *bytes = tiny_bundle_bytes("cuda:sm_90a", "code", 4, &length);
  FILE *file = fopen(path, "wb");
  assert_int_equal(fwrite(bytes, 1, length, file), length);
  fclose(file);
  sluice_release(bytes);
  refused(sluice_model_open(path, NULL, &model), "was built for cuda:sm_90a; this machine is host:");
  bytes = tiny_bundle_bytes("host:x86-64", "not an ELF file", 15, &length);
  file = fopen(path, "wb");
  assert_int_equal(fwrite(bytes, 1, length, file), length);
  fclose(file);
  sluice_release(bytes);
  refused(sluice_model_open(path, NULL, &model), "not what the compiler makes");
  unlink(path);
}

typedef struct failure {
  size_t at, count;
} failure;

static int fail_at(void *user, size_t bytes) {
  failure *f = user;
  (void)bytes;
  return ++f->count == f->at;
}

/* Open, load, session, two steps, a fork. */
static sluice_status *everything(sluice_model **model, sluice_session **session, sluice_checkpoint **checkpoint) {
  int32_t sequence, fork, tokens[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  SLUICE_TRY(sluice_model_open(bundle_path, &(sluice_model_options){.threads = 2}, model));
  SLUICE_TRY(sluice_checkpoint_open(weights_path, checkpoint));
  SLUICE_TRY(sluice_model_load(*model, *checkpoint, NULL, NULL));
  SLUICE_TRY(sluice_session_create(*model, &(sluice_session_options){.max_sequences = 2}, session));
  SLUICE_TRY(sluice_sequence_add(*session, &sequence));
  sluice_chunk chunk = {.sequence = sequence, .tokens = tokens, .count = 10, .logit_rows = 10};
  sluice_step_result result;
  SLUICE_TRY(sluice_step(*session, &chunk, 1, &result));
  SLUICE_TRY(sluice_sequence_fork(*session, sequence, &fork));
  chunk.sequence = fork;
  return sluice_step(*session, &chunk, 1, &result);
}

static void every_allocation_may_fail(void **state) {
  (void)state;
  size_t before = sluice_live_allocations();
  for (size_t at = 1;; at++) {
    failure f = {.at = at};
    sluice_model *model = NULL;
    sluice_session *session = NULL;
    sluice_checkpoint *checkpoint = NULL;
    sluice_set_allocation_hook(fail_at, &f);
    sluice_status *status = everything(&model, &session, &checkpoint);
    sluice_set_allocation_hook(NULL, NULL);
    sluice_session_close(session);
    sluice_model_close(model);
    sluice_checkpoint_close(checkpoint);
    bool done = f.count < at;
    if (!done) assert_int_equal(sluice_status_code(status), SLUICE_OUT_OF_MEMORY);
    if (done) ok(status);
    sluice_status_free(status);
    assert_int_equal(sluice_live_allocations(), before);
    if (done) break;
    assert_true(at < 1000);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(chunks_give_the_same),
      cmocka_unit_test(random_traffic),
      cmocka_unit_test(bad_batches_change_nothing),
      cmocka_unit_test(sampling_rows_arrive),
      cmocka_unit_test(seen_tokens_arrive),
      cmocka_unit_test(observers_and_hooks),
      cmocka_unit_test(observers_keep_off),
      cmocka_unit_test(nan_is_reported),
      cmocka_unit_test(many_sequences),
      cmocka_unit_test(memory_is_planned),
      cmocka_unit_test(other_devices_are_refused),
      cmocka_unit_test(every_allocation_may_fail),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}

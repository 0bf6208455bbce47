/* Sessions of one model, each in a thread of its own, at the same time: on the host, and on the cuda device over the
 * double of the driver. Every step's logits are known in closed form, so a step that sees anything of another session's
 * is found out. tests/run.sh builds this test a second time under ThreadSanitizer. */
#include "fake_cuda/fake_cuda.h"
#include "runtime/threads.h"
#include "support/tiny_bundle.h"

#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SESSIONS = 3, ROUNDS = 60 };

static char host_bundle[128], cuda_bundle[128];
static float scale[TINY_VOCABULARY];
static fake_cuda_state *fake;

static int set_up(void **state) {
  (void)state;
  snprintf(host_bundle, sizeof host_bundle, "/tmp/runtime_cuda_threads_%d.host", (int)getpid());
  snprintf(cuda_bundle, sizeof cuda_bundle, "/tmp/runtime_cuda_threads_%d.cuda", (int)getpid());
  void *library = dlopen("libcuda.so.1", RTLD_NOW);
  void *symbol = library ? dlsym(library, "fake_cuda_control") : NULL;
  if (!symbol) return 1; /* a real driver */
  fake_cuda_control_function *control;
  memcpy(&control, &symbol, sizeof symbol);
  fake = control();
  uint16_t values[TINY_VOCABULARY];
  sluice_synthetic_fill(TINY_SCALE, 7, TINY_VOCABULARY, 0, TINY_VOCABULARY, values);
  for (int i = 0; i < TINY_VOCABULARY; i++) scale[i] = sluice_f32_from_bf16(values[i]);
  return tiny_bundle_write(host_bundle) || tiny_bundle_write_for(cuda_bundle, "cuda:sm_90a");
}

static int tear_down(void **state) {
  (void)state;
  unlink(host_bundle);
  unlink(cuda_bundle);
  return 0;
}

static sluice_model *open_model(const char *bundle, const char *device, unsigned threads) {
  sluice_model *model = NULL;
  sluice_checkpoint *checkpoint = NULL;
  sluice_status *status =
      sluice_model_open(bundle, &(sluice_model_options){.device = device, .threads = threads}, &model);
  if (!status) status = sluice_checkpoint_open("synthetic:7", &checkpoint);
  if (!status) status = sluice_model_load(model, checkpoint, NULL, NULL);
  sluice_checkpoint_close(checkpoint);
  sluice_status_print(status);
  assert_null(status);
  return model;
}

/* ---- One thread's work: its own session, prefill and decode steps, its own random tokens ---- */

typedef struct traffic {
  sluice_model *model;
  uint32_t seed;
  bool observe;
  char wrong[160]; /* what was wrong; cmocka's checks belong to the main thread */
} traffic;

static sluice_status *look(void *user, const char *name, sluice_dtype dtype, const void *data, uint32_t rows,
                           uint32_t row_elements) {
  traffic *t = user;
  float total = 0; /* each row counts the tokens of its sequence so far */
  (void)name, (void)dtype;
  for (uint32_t i = 0; i < row_elements; i++) total += ((const float *)data)[(rows - 1) * row_elements + i];
  if (!(total >= (float)rows)) snprintf(t->wrong, sizeof t->wrong, "the observer saw %g tokens", (double)total);
  return NULL;
}

static uint32_t next(traffic *t) {
  t->seed = t->seed * 1664525u + 1013904223u;
  return t->seed >> 28;
}

static sluice_status *run_round(traffic *t, sluice_session *session) {
  int32_t sequence, tokens[TINY_CONTEXT];
  float counts[TINY_VOCABULARY] = {0};
  SLUICE_TRY(sluice_sequence_add(session, &sequence));
  for (uint32_t length = 0; length < TINY_CONTEXT && !t->wrong[0];) {
    uint32_t count = next(t) < 6 ? 1 + 2 * next(t) : 1;
    if (count > TINY_CONTEXT - length) count = TINY_CONTEXT - length;
    for (uint32_t i = 0; i < count; i++) {
      tokens[i] = (int32_t)next(t);
      counts[tokens[i]] += 1;
    }
    sluice_step_result result;
    const float *logits;
    SLUICE_TRY(sluice_step(
        session, &(sluice_chunk){.sequence = sequence, .tokens = tokens, .count = count, .logit_rows = 1}, 1, &result));
    SLUICE_TRY(sluice_step_logits(session, &logits));
    length += count;
    int best = 0;
    for (int v = 0; v < TINY_VOCABULARY; v++) {
      if (logits[v] > logits[best]) best = v;
      if (!(logits[v] == counts[v] * scale[v]))
        snprintf(t->wrong, sizeof t->wrong, "after %u tokens logit %d is %g, expected %g", length, v, (double)logits[v],
                 (double)(counts[v] * scale[v]));
    }
    if (result.sampled[0] != best)
      snprintf(t->wrong, sizeof t->wrong, "token %d, expected %d", result.sampled[0], best);
  }
  return sluice_sequence_remove(session, sequence);
}

static sluice_status *run_rounds(traffic *t) {
  sluice_session *session = NULL;
  sluice_status *status = NULL;
  for (int i = 0; i < ROUNDS && !status && !t->wrong[0]; i++) {
    if (!session) { /* sessions come and go beside the others */
      const sluice_session_options options = {.max_step_tokens = TINY_CONTEXT, .cache_tokens = TINY_CONTEXT};
      SLUICE_TRY(sluice_session_create(t->model, &options, &session));
      if (t->observe) sluice_session_observe(session, look, t);
    }
    status = run_round(t, session);
    if (i % 16 == 15) {
      sluice_session_close(session);
      session = NULL;
    }
  }
  sluice_session_close(session);
  return status;
}

static void *work(void *argument) {
  traffic *t = argument;
  sluice_status *status = run_rounds(t);
  if (status) snprintf(t->wrong, sizeof t->wrong, "%s", sluice_status_message(status));
  sluice_status_free(status);
  return NULL;
}

static void run_together(sluice_model *model) {
  traffic all[SESSIONS];
  pthread_t threads[SESSIONS];
  for (uint32_t i = 0; i < SESSIONS; i++) {
    all[i] = (traffic){.model = model, .seed = 17 * i + 1, .observe = i == 1};
    assert_int_equal(pthread_create(&threads[i], NULL, work, &all[i]), 0);
  }
  for (uint32_t i = 0; i < SESSIONS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
  for (uint32_t i = 0; i < SESSIONS; i++)
    if (all[i].wrong[0]) fail_msg("session %u: %s", i, all[i].wrong);
}

static void on_the_host(void **state) {
  (void)state;
  for (unsigned threads = 1; threads <= 4; threads++) {
    sluice_model *model = open_model(host_bundle, "host", threads);
    run_together(model);
    sluice_model_close(model);
  }
}

static void on_a_gpu(void **state) {
  (void)state;
  sluice_model *model = open_model(cuda_bundle, "cuda:0", 2);
  run_together(model);
  assert_true(fake->graph_launches > 100); /* decode steps ran as graphs, recorded beside the others' launches */
  sluice_model_close(model);
  assert_int_equal(fake->live, 0);
}

/* ---- The pool itself ---- */

typedef struct caller {
  sluice_threads *threads;
  int64_t sums[4][8]; /* of each thread, apart */
} caller;

static void add(void *user, unsigned thread, int64_t first, int64_t last) {
  caller *c = user;
  for (int64_t i = first; i < last; i++) c->sums[thread][0] += i;
}

static void *run_loops(void *argument) {
  caller *c = argument;
  for (int i = 0; i < 2000; i++) sluice_threads_run(c->threads, 10, 1, add, c);
  return NULL;
}

static void loops_of_several_callers(void **state) {
  (void)state;
  caller callers[3] = {0};
  pthread_t threads[3];
  sluice_threads *pool = NULL;
  assert_null(sluice_threads_create(4, &pool));
  for (int i = 0; i < 3; i++) {
    callers[i].threads = pool;
    assert_int_equal(pthread_create(&threads[i], NULL, run_loops, &callers[i]), 0);
  }
  for (int i = 0; i < 3; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
  for (int i = 0; i < 3; i++) {
    int64_t sum = 0;
    for (int j = 0; j < 4; j++) sum += callers[i].sums[j][0];
    assert_int_equal(sum, 2000 * 45);
  }
  sluice_threads_close(pool);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(loops_of_several_callers), cmocka_unit_test(on_the_host),
                                     cmocka_unit_test(on_a_gpu)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}

/* Out of memory at every allocation of sluice's own: reading a config, compiling it, opening the bundle, loading
 * weights, and one step. Each time: a clean error, nothing left allocated, no output file; and without a failure it
 * works. */
#include "compiler/compile.h"
#include "sluice/runtime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "/tmp/sluice-fault-XXXXXX";
static char bundle[64];

/* Fails allocation number `at`, counted from 0; threads may allocate too. */
typedef struct failure {
  long at;
  long count;
} failure;

static int fail_at(void *user, size_t bytes) {
  failure *f = user;
  (void)bytes;
  return __atomic_fetch_add(&f->count, 1, __ATOMIC_RELAXED) == f->at;
}

/* Runs `body` with the Nth allocation failing, for N = first, first + stride, ... until a run makes fewer allocations.
 */
static void inject(sluice_status *(*body)(void), const char *what) {
  long failures = 0;
  for (long n = 0;; n++) {
    size_t before = sluice_live_allocations();
    failure f = {.at = n};
    sluice_set_allocation_hook(fail_at, &f);
    sluice_status *status = body();
    sluice_set_allocation_hook(NULL, NULL);
    bool reached = f.count > n;
    if (!reached && status) sluice_status_print(status);
    if (!reached) assert_null(status);
    if (reached && !status) fail_msg("%s: allocation %ld failed unnoticed", what, n);
    if (status && sluice_status_code(status) != SLUICE_OUT_OF_MEMORY)
      fail_msg("%s: allocation %ld failed, reported as: %s", what, n, sluice_status_message(status));
    sluice_status_free(status);
    size_t after = sluice_live_allocations();
    if (after != before) fail_msg("%s: allocation %ld failed, %zu allocations leaked", what, n, after - before);
    if (reached && body != NULL && access(bundle, F_OK) == 0 && strcmp(what, "compile") == 0)
      fail_msg("allocation %ld failed, but %s exists", n, bundle);
    if (!reached) break;
    failures++;
  }
  print_message("%s: %ld allocations failed one at a time\n", what, failures);
  assert_true(failures > 0);
}

static sluice_status *compile(void) {
  char path[512], target[32];
  snprintf(path, sizeof path, "%s/golden/nano/config.json", TEST_DATA);
  unlink(bundle);
  SLUICE_TRY(target_canonicalise("host", target));
  model_config *config = NULL;
  SLUICE_TRY(model_config_read(path, NULL, NULL, &config));
  config->layers = 2; /* one dense, one sparse: every kind of op */
  const char *targets[] = {target};
  sluice_status *status = compile_model(
      config, &(compile_options){
                  .targets = targets, .target_count = 1, .dtype = SLUICE_F32, .emit = EMIT_BUNDLE, .output = bundle});
  config->layers = 4;
  model_config_free(config);
  return status;
}

static sluice_status *open_load_step(void) {
  sluice_model *model = NULL;
  sluice_checkpoint *checkpoint = NULL;
  sluice_session *session = NULL;
  int32_t sequence = -1, fork = -1, tokens[40];
  for (int i = 0; i < 40; i++) tokens[i] = i * 11 % 512;
  sluice_status *status = sluice_model_open(bundle, &(sluice_model_options){.threads = 2}, &model);
  if (!status) status = sluice_checkpoint_open("synthetic:1", &checkpoint);
  if (!status) status = sluice_model_load(model, checkpoint, NULL, NULL);
  if (!status)
    status = sluice_session_create(
        model, &(sluice_session_options){.max_sequences = 2, .max_step_tokens = 64, .cache_tokens = 256}, &session);
  if (!status) status = sluice_sequence_add(session, &sequence);
  sluice_step_result result;
  sluice_chunk chunk = {.sequence = sequence, .tokens = tokens, .count = 40, .logit_rows = 1};
  if (!status) status = sluice_step(session, &chunk, 1, &result);
  if (!status) status = sluice_sequence_fork(session, sequence, &fork);
  if (!status) status = sluice_sequence_remove(session, sequence);
  sluice_session_close(session);
  sluice_checkpoint_close(checkpoint);
  sluice_model_close(model);
  return status;
}

static void compiling(void **state) {
  (void)state;
  inject(compile, "compile");
}

static void running(void **state) {
  (void)state;
  sluice_status *status = compile();
  if (status) sluice_status_print(status);
  assert_null(status);
  inject(open_load_step, "run");
}

int main(void) {
  if (!mkdtemp(directory)) return 1;
  snprintf(bundle, sizeof bundle, "%s/nano.sluice", directory);
  const struct CMUnitTest tests[] = {cmocka_unit_test(compiling), cmocka_unit_test(running)};
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  unlink(bundle);
  rmdir(directory);
  return failed;
}

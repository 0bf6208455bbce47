/* Whole models that several ranks share, each a process of its own, against the outputs of Hugging Face transformers:
 * every logit, block, expert and token on every rank, and the same bytes on all of them and in a second run. */
#include "compiler/compile.h"
#include "runtime/collectives.h"
#include "sluice/runtime.h"
#include "support/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { MOST_RANKS = 8, MESSAGE = 1 << 16 };

typedef struct layout {
  const char *model;
  uint64_t seed;
  int64_t ranks;
  uint32_t chunk; /* of the prompt; 0: all of it */
} layout;

/* What a rank looks at while the prompt is read. */
typedef struct watch {
  const golden *golden;
  uint32_t rank, ranks;
  uint32_t position, count; /* tokens of the step at hand */
  uint32_t blocks, experts; /* lists that were compared */
  bool active;
} watch;

static void must(sluice_status *status) {
  if (status) sluice_status_print(status);
  assert_null(status);
}

/* ---- in a rank's process: errors are statuses, for cmocka belongs to the parent ---- */

/* A rank has some of the heads: `found` of `all`. Neighbours share one where there are more ranks than heads. */
static uint32_t first_head(const watch *w, uint32_t all, uint32_t found) {
  const uint32_t share = w->ranks > all ? w->ranks / all : 1;
  return w->rank / share * found;
}

static sluice_status *observe(void *user, const char *name, sluice_dtype dtype, const void *data, uint32_t rows,
                              uint32_t row_elements) {
  watch *w = user;
  char full[96];
  const size_t length = strlen(name);
  const bool blocks = length > 7 && !strcmp(name + length - 7, ".blocks");
  const bool experts = length > 8 && !strcmp(name + length - 8, ".experts");
  (void)dtype, (void)rows;
  if (!w->active || (!blocks && !experts)) return NULL;
  snprintf(full, sizeof full, "prefill.%s", name);
  const sluice_tensor_info *info;
  const void *expected;
  SLUICE_TRY(golden_tensor(w->golden, full, &info, &expected));
  const uint32_t k = (uint32_t)info->shape[info->rank - 1], all = blocks ? (uint32_t)info->shape[0] : 1;
  const uint32_t heads = row_elements / k, first = blocks ? first_head(w, all, heads) : 0;
  if (heads * k != row_elements || first + heads > all)
    return sluice_error(SLUICE_INVALID, "%s: %u elements in a row, %u heads of %u", full, row_elements, heads, all);
  for (uint32_t i = 0; i < w->count; i++)
    for (uint32_t h = 0; h < heads; h++) {
      const int32_t *found = (const int32_t *)data + ((size_t)i * heads + h) * k;
      const int32_t *wanted =
          (const int32_t *)expected + ((size_t)(first + h) * w->golden->prompt + w->position + i) * k;
      if (!golden_same_set(found, wanted, k))
        return sluice_error(SLUICE_INVALID, "%s differs at position %u, head %u", full, w->position + i, first + h);
      *(blocks ? &w->blocks : &w->experts) += 1;
    }
  return NULL;
}

static sluice_status *compare(const float *found, const float *expected, uint32_t count, const char *what,
                              uint32_t row) {
  for (uint32_t i = 0; i < count; i++)
    if (!(fabsf(found[i] - expected[i]) <= 1e-4f))
      return sluice_error(SLUICE_INVALID, "%s row %u, token %u: %.7g, expected %.7g", what, row, i, (double)found[i],
                          (double)expected[i]);
  return NULL;
}

/* FNV-1a, to compare bytes of ranks and runs. */
static void digest_add(uint64_t *digest, const void *data, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) *digest = (*digest ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
}

static sluice_status *read_prompt(sluice_session *session, watch *w, int32_t sequence, uint32_t chunk,
                                  uint64_t *digest) {
  const golden *g = w->golden;
  const uint32_t unseen = g->prompt - g->rows; /* tokens whose logits the file has not */
  for (uint32_t done = 0, count; done < g->prompt; done += count) {
    count = g->prompt - done < chunk ? g->prompt - done : chunk;
    const uint32_t end = done + count, wanted = end <= unseen ? 0 : end - (done > unseen ? done : unseen);
    const sluice_chunk one = {.sequence = sequence, .tokens = g->ids + done, .count = count, .logit_rows = wanted};
    w->position = done, w->count = count, w->active = true;
    sluice_step_result result;
    const float *logits;
    SLUICE_TRY(sluice_step(session, &one, 1, &result));
    SLUICE_TRY(sluice_step_logits(session, &logits));
    for (uint32_t r = 0; r < wanted; r++) {
      const uint32_t row = end - wanted + r - unseen;
      SLUICE_TRY(compare(logits + (size_t)r * g->vocabulary, g->prefill + (size_t)row * g->vocabulary, g->vocabulary,
                         "prefill", row));
    }
    if (wanted) digest_add(digest, logits, (size_t)wanted * g->vocabulary * sizeof *logits);
    if (end == g->prompt && result.sampled[wanted - 1] != g->tokens[0])
      return sluice_error(SLUICE_INVALID, "token 0 is %d, expected %d", result.sampled[wanted - 1], g->tokens[0]);
  }
  w->active = false;
  return NULL;
}

static sluice_status *decode(sluice_session *session, const golden *g, int32_t sequence, uint64_t *digest) {
  for (uint32_t i = 0; i < g->steps; i++) {
    const sluice_chunk one = {.sequence = sequence, .tokens = g->tokens + i, .count = 1, .logit_rows = 1};
    sluice_step_result result;
    const float *logits;
    SLUICE_TRY(sluice_step(session, &one, 1, &result));
    SLUICE_TRY(sluice_step_logits(session, &logits));
    SLUICE_TRY(compare(logits, g->decode + (size_t)i * g->vocabulary, g->vocabulary, "decode", i));
    digest_add(digest, logits, g->vocabulary * sizeof *logits);
    if (result.sampled[0] != g->tokens[i + 1])
      return sluice_error(SLUICE_INVALID, "token %u is %d, expected %d", i + 1, result.sampled[0], g->tokens[i + 1]);
  }
  return NULL;
}

static sluice_status *run_model(sluice_model *model, watch *w, const layout *l, uint64_t *digest) {
  char source[64];
  snprintf(source, sizeof source, "synthetic:%llu", (unsigned long long)l->seed);
  sluice_checkpoint *checkpoint = NULL;
  sluice_session *session = NULL;
  const uint32_t chunk = l->chunk ? l->chunk : w->golden->prompt;
  SLUICE_TRY(sluice_checkpoint_open(source, &checkpoint));
  sluice_status *status = sluice_model_load(model, checkpoint, NULL, NULL);
  sluice_checkpoint_close(checkpoint);
  if (!status)
    status = sluice_session_create(
        model, &(sluice_session_options){.max_sequences = 1, .max_step_tokens = chunk, .cache_tokens = 4096}, &session);
  if (status) return status;
  sluice_session_observe(session, observe, w);
  int32_t sequence;
  status = sluice_sequence_add(session, &sequence);
  if (!status) status = read_prompt(session, w, sequence, chunk, digest);
  if (!status) status = decode(session, w->golden, sequence, digest);
  sluice_session_close(session);
  if (!status && (w->blocks < w->golden->prompt || w->experts < w->golden->prompt))
    status =
        sluice_error(SLUICE_INVALID, "only %u lists of blocks and %u of experts were compared", w->blocks, w->experts);
  return status;
}

static sluice_status *run_rank(const layout *l, const char *bundle, const golden *g, sluice_group *group,
                               uint64_t *digest) {
  watch w = {.golden = g, .rank = group->rank, .ranks = group->ranks};
  sluice_model *model = NULL;
  SLUICE_TRY(sluice_model_open(bundle, &(sluice_model_options){.threads = 1, .group = group}, &model));
  sluice_status *status = run_model(model, &w, l, digest);
  sluice_model_close(model);
  return status;
}

static void be_rank(const layout *l, const char *bundle, const golden *g, int descriptor, uint32_t rank, int to) {
  sluice_group *group = NULL;
  uint64_t digest = 0xcbf29ce484222325u;
  sluice_status *status = sluice_shared_join(descriptor, rank, 100, &group);
  if (!status) status = run_rank(l, bundle, g, group, &digest);
  if (status) fprintf(stderr, "%s tp=%d, rank %u: ", l->model, (int)l->ranks, rank);
  sluice_status_print(status);
  const bool failed = status || write(to, &digest, sizeof digest) != sizeof digest;
  if (group) group->collectives->leave(group);
  _exit(failed);
}

/* ---- in the parent ---- */

static uint64_t run_ranks(const layout *l, const char *bundle, const golden *g) {
  int descriptor = -1, pipes[MOST_RANKS];
  pid_t processes[MOST_RANKS];
  must(sluice_shared_create((uint32_t)l->ranks, MESSAGE, &descriptor));
  for (uint32_t r = 0; r < l->ranks; r++) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    processes[r] = fork();
    assert_true(processes[r] >= 0);
    if (!processes[r]) be_rank(l, bundle, g, descriptor, r, ends[1]);
    close(ends[1]);
    pipes[r] = ends[0];
  }
  close(descriptor);
  uint64_t first = 0;
  bool well = true;
  for (uint32_t r = 0; r < l->ranks; r++) {
    uint64_t digest = 0;
    int status = 0;
    well = read(pipes[r], &digest, sizeof digest) == sizeof digest && well;
    close(pipes[r]);
    assert_int_equal(waitpid(processes[r], &status, 0), processes[r]);
    well = status == 0 && (r == 0 || digest == first) && well;
    if (r == 0) first = digest;
  }
  assert_true(well);
  return first;
}

static void check(const layout *l) {
  char path[512], bundle[] = "/tmp/sluice-ranks-XXXXXX";
  const int file = mkstemp(bundle);
  assert_true(file >= 0);
  close(file);
  model_config *config = NULL;
  snprintf(path, sizeof path, "%s/golden/%s", TEST_DATA, l->model);
  must(model_config_read(path, NULL, NULL, &config));
  char target[32];
  must(target_canonicalise("host", target));
  const char *targets[] = {target};
  must(compile_model(config, &(compile_options){.targets = targets,
                                                .target_count = 1,
                                                .dtype = SLUICE_F32,
                                                .emit = EMIT_BUNDLE,
                                                .output = bundle,
                                                .passes = {.ranks = l->ranks}}));
  model_config_free(config);
  golden g;
  snprintf(path, sizeof path, "%s/golden/%s/golden.float32.safetensors", TEST_DATA, l->model);
  must(golden_open(&g, path));
  const uint64_t first = run_ranks(l, bundle, &g), second = run_ranks(l, bundle, &g);
  assert_true(first == second);
  golden_close(&g);
  unlink(bundle);
}

static void nano(void **state) {
  (void)state;
  check(&(layout){"nano", 1, 2, 0});
  check(&(layout){"nano", 1, 4, 64});
  check(&(layout){"nano", 1, 8, 37});
}

static void blocks(void **state) {
  (void)state;
  check(&(layout){"blocks", 2, 2, 512});
  check(&(layout){"blocks", 2, 4, 0});
}

/* A bundle for two ranks opened by one, and the other way round. */
static void wrong_numbers(void **state) {
  (void)state;
  char path[512], bundle[] = "/tmp/sluice-ranks-XXXXXX", target[32];
  const int file = mkstemp(bundle);
  assert_true(file >= 0);
  close(file);
  must(target_canonicalise("host", target));
  const char *targets[] = {target};
  for (int64_t ranks = 1; ranks <= 2; ranks++) {
    model_config *config = NULL;
    snprintf(path, sizeof path, "%s/golden/nano", TEST_DATA);
    must(model_config_read(path, NULL, NULL, &config));
    must(compile_model(config, &(compile_options){.targets = targets,
                                                  .target_count = 1,
                                                  .dtype = SLUICE_F32,
                                                  .emit = EMIT_BUNDLE,
                                                  .output = bundle,
                                                  .passes = {.ranks = ranks}}));
    model_config_free(config);
    sluice_group group = {.ranks = 2};
    sluice_model *model = NULL;
    sluice_status *status =
        sluice_model_open(bundle, &(sluice_model_options){.threads = 1, .group = ranks == 1 ? &group : NULL}, &model);
    assert_non_null(status);
    assert_non_null(strstr(sluice_status_message(status),
                           ranks == 1 ? "was compiled for one device, but 2 ranks" : "was compiled for 2 ranks"));
    sluice_status_free(status);
  }
  unlink(bundle);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(nano), cmocka_unit_test(blocks), cmocka_unit_test(wrong_numbers)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

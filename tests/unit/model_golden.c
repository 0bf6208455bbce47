/* Whole models against the outputs of Hugging Face transformers: every logit, block, expert and token, with the prompt
 * cut into chunks of several sizes, alone and among five other sequences. */
#include "compiler/compile.h"
#include "sluice/runtime.h"
#include "support/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { OTHERS = 5, PLACE = 2 }; /* other sequences, and how many of them stand before the one that is checked */

/* What the observer looks at while a step runs: the checked sequence's tokens are rows [first, first + count) of the
 * step and positions [position, ...) of the prompt. */
typedef struct watch {
  const golden *golden;
  uint32_t first, count, position;
  uint32_t blocks_checked, experts_checked;
  bool active;
} watch;

static void must(sluice_status *status) {
  if (status) sluice_status_print(status);
  assert_null(status);
}

static sluice_status *observe(void *user, const char *name, sluice_dtype dtype, const void *data, uint32_t rows,
                              uint32_t row_elements) {
  watch *w = user;
  char full[96];
  (void)dtype, (void)rows;
  snprintf(full, sizeof full, "prefill.%s", name);
  size_t length = strlen(name);
  bool blocks = length > 7 && !strcmp(name + length - 7, ".blocks");
  bool experts = length > 8 && !strcmp(name + length - 8, ".experts");
  if (!w->active || (!blocks && !experts)) return NULL;
  const sluice_tensor_info *info;
  const void *expected_data;
  must(golden_tensor(w->golden, full, &info, &expected_data));
  const int32_t *expected = expected_data;
  uint32_t heads = blocks ? (uint32_t)info->shape[0] : 1, k = (uint32_t)info->shape[info->rank - 1];
  assert_int_equal(row_elements, heads * k);
  for (uint32_t i = 0; i < w->count; i++)
    for (uint32_t h = 0; h < heads; h++) {
      const int32_t *found = (const int32_t *)data + ((size_t)(w->first + i) * heads + h) * k;
      const int32_t *wanted = expected + ((size_t)h * w->golden->prompt + w->position + i) * k;
      if (!golden_same_set(found, wanted, k)) fail_msg("%s differs at position %u, head %u", full, w->position + i, h);
      *(blocks ? &w->blocks_checked : &w->experts_checked) += 1;
    }
  return NULL;
}

static void check_logits(const float *found, const float *expected, uint32_t count, const char *what, uint32_t row) {
  for (uint32_t i = 0; i < count; i++)
    if (!(fabsf(found[i] - expected[i]) <= 1e-4f))
      fail_msg("%s row %u, token %u: %.7g, expected %.7g", what, row, i, (double)found[i], (double)expected[i]);
}

static void run(sluice_model *model, const golden *g, uint32_t chunk, bool crowded) {
  sluice_session *session = NULL;
  must(sluice_session_create(model,
                             &(sluice_session_options){.max_sequences = OTHERS + 1,
                                                       .max_step_tokens = chunk + 64,
                                                       .cache_tokens = (uint64_t)(g->prompt + g->steps + 256) * 3},
                             &session));
  watch w = {.golden = g, .active = true};
  sluice_session_observe(session, observe, &w);
  int32_t sequence, others[OTHERS];
  uint32_t fed[OTHERS] = {0};
  must(sluice_sequence_add(session, &sequence));
  for (int i = 0; i < OTHERS; i++) must(sluice_sequence_add(session, &others[i]));

  uint32_t done = 0, decoded = 0;
  while (done < g->prompt || decoded < g->steps) {
    bool prefill = done < g->prompt;
    uint32_t count = prefill ? (g->prompt - done < chunk ? g->prompt - done : chunk) : 1;
    uint32_t wanted = count; /* logits of all tokens that the golden file has */
    if (prefill && done < g->prompt - g->rows && done + count > g->prompt - g->rows)
      wanted = done + count - (g->prompt - g->rows);
    else if (prefill && done + count <= g->prompt - g->rows)
      wanted = 0;
    sluice_chunk chunks[OTHERS + 1];
    uint32_t n = 0, first = 0, first_row = 0, limit = g->prompt / 4;
    for (int i = 0; i <= OTHERS; i++) {
      if (i == PLACE) {
        w.first = first, w.count = count, w.position = done, w.active = prefill;
        chunks[n++] = (sluice_chunk){.sequence = sequence,
                                     .tokens = prefill ? g->ids + done : g->tokens + decoded,
                                     .count = count,
                                     .logit_rows = wanted};
      }
      if (i == OTHERS || !crowded) continue;
      /* Other sequences: different prompts, chunks of 1 to 9 tokens. */
      uint32_t other_count = 1 + (uint32_t)(i * 2);
      if (fed[i] + other_count > limit) continue;
      chunks[n++] = (sluice_chunk){.sequence = others[i],
                                   .tokens = g->ids + (uint32_t)i * 7 + fed[i] / 2,
                                   .count = other_count,
                                   .logit_rows = i % 2 ? 1 : 0};
      fed[i] += other_count;
      if (i < PLACE) first += other_count, first_row += i % 2 ? 1 : 0;
    }
    sluice_step_result result;
    must(sluice_step(session, chunks, n, &result));
    const float *logits;
    must(sluice_step_logits(session, &logits));
    if (logits) logits += (size_t)first_row * g->vocabulary;
    if (prefill) {
      for (uint32_t r = 0; r < wanted; r++) {
        uint32_t row = done + count - wanted + r - (g->prompt - g->rows);
        check_logits(logits + (size_t)r * g->vocabulary, g->prefill + (size_t)row * g->vocabulary, g->vocabulary,
                     "prefill", row);
      }
      done += count;
      if (done == g->prompt) assert_int_equal(result.sampled[first_row + wanted - 1], g->tokens[0]);
    } else {
      check_logits(logits, g->decode + (size_t)decoded * g->vocabulary, g->vocabulary, "decode", decoded);
      decoded++;
      assert_int_equal(result.sampled[first_row], g->tokens[decoded]);
    }
  }
  assert_true(w.blocks_checked >= g->prompt && w.experts_checked >= g->prompt);
  sluice_session_close(session);
}

static void check(const char *name, uint64_t seed, const uint32_t *chunks, size_t chunk_count) {
  char path[512], bundle[] = "/tmp/sluice-golden-XXXXXX", source[64];
  int file = mkstemp(bundle);
  assert_true(file >= 0);
  close(file);
  model_config *config = NULL;
  snprintf(path, sizeof path, "%s/golden/%s", TEST_DATA, name);
  must(model_config_read(path, NULL, NULL, &config));
  char target[32];
  must(target_canonicalise("host", target));
  const char *targets[] = {target};
  must(compile_model(
      config, &(compile_options){
                  .targets = targets, .target_count = 1, .dtype = SLUICE_F32, .emit = EMIT_BUNDLE, .output = bundle}));
  model_config_free(config);

  golden g;
  snprintf(path, sizeof path, "%s/golden/%s/golden.float32.safetensors", TEST_DATA, name);
  must(golden_open(&g, path));
  sluice_model *model = NULL;
  sluice_checkpoint *checkpoint = NULL;
  must(sluice_model_open(bundle, NULL, &model));
  snprintf(source, sizeof source, "synthetic:%llu", (unsigned long long)seed);
  must(sluice_checkpoint_open(source, &checkpoint));
  must(sluice_model_load(model, checkpoint, NULL, NULL));
  for (size_t i = 0; i < chunk_count; i++)
    for (int crowded = 0; crowded < 2; crowded++) run(model, &g, chunks[i] ? chunks[i] : g.prompt, crowded);
  sluice_checkpoint_close(checkpoint);
  sluice_model_close(model);
  golden_close(&g);
  unlink(bundle);
}

static void nano(void **state) {
  (void)state;
  check("nano", 1, (const uint32_t[]){0, 1, 7, 64, 128}, 5);
}

static void blocks(void **state) {
  (void)state;
  check("blocks", 2, (const uint32_t[]){0, 1, 7, 64, 128}, 5);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(nano), cmocka_unit_test(blocks)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

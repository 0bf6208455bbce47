/* Launches with a range of steps: left out of steps outside it, there at both ends. */
#include "sluice/bundle.h"
#include "support/tiny_bundle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char bundle_path[128];
static float scale[TINY_VOCABULARY];

static void ok(sluice_status *status) {
  if (!status) return;
  sluice_status_print(status);
  fail_msg("%s", sluice_status_message(status));
}

static int set_up(void **state) {
  (void)state;
  snprintf(bundle_path, sizeof bundle_path, "/tmp/runtime_ranges_%d.sluice", (int)getpid());
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

/* Gives the launch that computes the logits a range, in the file. */
static void set_range(sluice_size size, uint32_t from, uint32_t to) {
  FILE *file = fopen(bundle_path, "r+b");
  assert_non_null(file);
  fseek(file, 0, SEEK_END);
  size_t length = (size_t)ftell(file);
  rewind(file);
  char *bytes = sluice_allocate_aligned(SLUICE_BUNDLE_PAGE, length);
  assert_int_equal(fread(bytes, 1, length, file), length);
  const sluice_bundle_header *header = (const sluice_bundle_header *)(const void *)bytes;
  assert_int_equal(header->sections[1].kind, SLUICE_SECTION_PLAN);
  char *plan = bytes + header->sections[1].offset;
  sluice_plan_range *ranges =
      (sluice_plan_range *)(void *)(plan + ((const sluice_plan_header *)(const void *)plan)->ranges.offset);
  ranges[TINY_LOGITS_RANGE] = (sluice_plan_range){size, from, to};
  tiny_bundle_bind(bytes);
  tiny_bundle_seal(bytes);
  rewind(file);
  assert_int_equal(fwrite(bytes, 1, length, file), length);
  assert_int_equal(fclose(file), 0);
  sluice_release(bytes);
}

static sluice_model *open_model(void) {
  sluice_model *model = NULL;
  sluice_checkpoint *checkpoint = NULL;
  ok(sluice_model_open(bundle_path, &(sluice_model_options){.threads = 2}, &model));
  ok(sluice_checkpoint_open("synthetic:7", &checkpoint));
  ok(sluice_model_load(model, checkpoint, NULL, NULL));
  sluice_checkpoint_close(checkpoint);
  return model;
}

/* Steps of one token first and then of each count: the logits of the last row are those of the last step in range. */
static void run_steps(uint32_t count, const uint32_t *steps, const bool *runs) {
  sluice_model *model = open_model();
  sluice_session *session = NULL;
  int32_t sequence, tokens[TINY_CONTEXT];
  ok(sluice_session_create(model, &(sluice_session_options){.max_sequences = 1}, &session));
  ok(sluice_sequence_add(session, &sequence));
  for (int i = 0; i < TINY_CONTEXT; i++) tokens[i] = i * 5 % TINY_VOCABULARY;
  uint32_t done = 0, shown = 0, left_out = 0;
  for (uint32_t i = 0; i < count; i++) {
    const float *logits = NULL;
    sluice_step_result result;
    ok(sluice_step(session,
                   &(sluice_chunk){.sequence = sequence, .tokens = tokens + done, .count = steps[i], .logit_rows = 1},
                   1, &result));
    ok(sluice_step_logits(session, &logits));
    done += steps[i];
    if (runs[i]) shown = done;
    left_out += !runs[i];
    float counts[TINY_VOCABULARY] = {0};
    for (uint32_t t = 0; t < shown; t++) counts[tokens[t]] += 1;
    for (int v = 0; v < TINY_VOCABULARY; v++)
      if (!(logits[v] == counts[v] * scale[v]))
        fail_msg("step %u of %u tokens: logit %d is %g, expected %g, after %u tokens", i, steps[i], v,
                 (double)logits[v], (double)(counts[v] * scale[v]), shown);
  }
  assert_true(left_out > 0);
  sluice_session_close(session);
  sluice_model_close(model);
}

static void both_ends_are_in_the_range(void **state) {
  (void)state;
  set_range(SLUICE_SIZE_TOKENS, 2, 4);
  run_steps(9, (const uint32_t[]){2, 1, 3, 5, 4, 7, 2, 1, 4},
            (const bool[]){true, false, true, false, true, false, true, false, true});
}

static void a_range_may_be_open(void **state) {
  (void)state;
  set_range(SLUICE_SIZE_TOKENS, 3, UINT32_MAX);
  run_steps(4, (const uint32_t[]){3, 2, 20, 1}, (const bool[]){true, false, true, false});
  set_range(SLUICE_SIZE_TOKENS, 0, 3);
  run_steps(4, (const uint32_t[]){3, 4, 1, 20}, (const bool[]){true, false, true, false});
}

/* The longest tile has at most TINY_TILE = 3 tokens. */
static void tiles_have_a_longest(void **state) {
  (void)state;
  set_range(SLUICE_SIZE_LONGEST, 3, 3);
  run_steps(7, (const uint32_t[]){3, 2, 4, 1, 20, 2, 5}, (const bool[]){true, false, true, false, true, false, true});
  set_range(SLUICE_SIZE_LONGEST, 0, 1);
  run_steps(5, (const uint32_t[]){1, 2, 1, 20, 1}, (const bool[]){true, false, true, false, true});
}

/* Two sequences of one token each are a step of two tokens whose longest tile has one. */
static void a_decode_batch_has_tiles_of_one(void **state) {
  (void)state;
  set_range(SLUICE_SIZE_LONGEST, 1, 1);
  sluice_model *model = open_model();
  sluice_session *session = NULL;
  ok(sluice_session_create(model, &(sluice_session_options){.max_sequences = 2}, &session));
  int32_t sequences[2], tokens[6] = {1, 2, 3, 4, 5, 6};
  for (int s = 0; s < 2; s++) ok(sluice_sequence_add(session, &sequences[s]));
  static const uint32_t counts[3][2] = {{1, 1}, {1, 2}, {1, 1}}; /* the second step is left out */
  uint32_t done[2] = {0}, shown[2] = {0};
  for (int step = 0; step < 3; step++) {
    sluice_chunk chunks[2];
    sluice_step_result result;
    const float *logits = NULL;
    for (int s = 0; s < 2; s++)
      chunks[s] = (sluice_chunk){
          .sequence = sequences[s], .tokens = tokens + done[s], .count = counts[step][s], .logit_rows = 1};
    ok(sluice_step(session, chunks, 2, &result));
    ok(sluice_step_logits(session, &logits));
    for (int s = 0; s < 2; s++) {
      done[s] += counts[step][s];
      if (step != 1) shown[s] = done[s];
      for (int v = 0; v < TINY_VOCABULARY; v++)
        assert_true(logits[s * TINY_VOCABULARY + v] == (v >= 1 && v <= (int)shown[s] ? scale[v] : 0));
    }
  }
  sluice_session_close(session);
  sluice_model_close(model);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(both_ends_are_in_the_range),
                                     cmocka_unit_test(a_range_may_be_open), cmocka_unit_test(tiles_have_a_longest),
                                     cmocka_unit_test(a_decode_batch_has_tiles_of_one)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}

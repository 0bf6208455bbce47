/* Packing weights: every layout against a plain reading of plan.h, from files and synthetic; bad checkpoints. */
#include "runtime/model.h"
#include "support/tiny_bundle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char bundle_path[128], weights_path[128];

static void ok(sluice_status *status) {
  if (!status) return;
  sluice_status_print(status);
  fail_msg("%s", sluice_status_message(status));
}

static int set_up(void **state) {
  (void)state;
  snprintf(bundle_path, sizeof bundle_path, "/tmp/runtime_weights_%d.sluice", (int)getpid());
  snprintf(weights_path, sizeof weights_path, "/tmp/runtime_weights_%d.safetensors", (int)getpid());
  return tiny_bundle_write(bundle_path);
}

static int tear_down(void **state) {
  (void)state;
  unlink(bundle_path);
  unlink(weights_path);
  return 0;
}

/* Element `index` of tensor `name` of "synthetic:SEED". */
static float value(const char *name, uint64_t seed, int64_t last_dimension, uint64_t index) {
  uint16_t bits;
  sluice_synthetic_fill(name, seed, last_dimension, index, 1, &bits);
  return sluice_f32_from_bf16(bits);
}

static void check_packing(const sluice_model *model, uint64_t seed) {
  const float *scale = (const float *)(const void *)(model->weights + model->offsets[0]);
  for (uint64_t i = 0; i < 16; i++) assert_true(scale[i] == value(TINY_SCALE, seed, 16, i));

  const uint16_t *panels = (const uint16_t *)(const void *)(model->weights + model->offsets[1]);
  for (uint64_t p = 0; p < 3; p++)
    for (uint64_t r = 0; r < 4; r++)
      for (uint64_t c = 0; c < 8; c++) {
        uint64_t row = p * 4 + r;
        float expected = 0;
        if (row < 9 && c < 7)
          expected =
              row < 5 ? value(TINY_PANELS_A, seed, 7, row * 7 + c) : value(TINY_PANELS_B, seed, 7, (row - 5) * 7 + c);
        assert_true(sluice_f32_from_bf16(panels[((p * 4 + c / 2) * 4 + r) * 2 + c % 2]) == expected);
      }

  for (unsigned expert = 0; expert < TINY_EXPERTS; expert++) {
    const float *pairs = (const float *)(const void *)(model->weights + model->offsets[2] + expert * 384);
    char gate[64], up[64];
    snprintf(gate, sizeof gate, "language_model.experts.%u.gate.weight", expert);
    snprintf(up, sizeof up, "language_model.experts.%u.up.weight", expert);
    for (uint64_t p = 0; p < 4; p++) /* gate 0, up 0, gate 1, up 1 */
      for (uint64_t r = 0; r < 4; r++)
        for (uint64_t c = 0; c < 6; c++) {
          uint64_t row = p / 2 * 4 + r;
          float expected = row < 6 && c < 5 ? value(p % 2 ? up : gate, seed, 5, row * 5 + c) : 0;
          assert_true(pairs[((p * 3 + c / 2) * 4 + r) * 2 + c % 2] == expected);
        }
  }

  const uint16_t *wide = (const uint16_t *)(const void *)(model->weights + model->offsets[3]);
  const float *wide_f32 = (const float *)(const void *)(model->weights + model->offsets[4]);
  for (uint64_t p = 0; p < 2; p++)
    for (uint64_t r = 0; r < 4; r++) {
      uint64_t row = p * 4 + r;
      for (uint64_t c = 0; c < 48; c++) {
        float expected = row < 6 && c < 41 ? value(TINY_WIDE, seed, 50, (row + 1) * 50 + c + 5) : 0;
        assert_true(sluice_f32_from_bf16(wide[((p * 6 + c / 8) * 4 + r) * 8 + c % 8]) == expected);
      }
      for (uint64_t c = 0; c < 24; c++) {
        float expected = row < 6 && c < 23 ? value(TINY_WIDE_F32, seed, 23, (row + 2) * 23 + c) : 0;
        assert_true(wide_f32[((p * 6 + c / 4) * 4 + r) * 4 + c % 4] == expected);
      }
    }
}

typedef struct watch {
  uint64_t last, total;
} watch;

static void watch_progress(void *user, uint64_t done, uint64_t total, const char *tensor) {
  watch *w = user;
  if (done <= w->last || done > total || !tensor[0]) w->total = UINT64_MAX;
  w->last = done;
  if (w->total != UINT64_MAX) w->total = total;
}

static void synthetic_weights_are_packed(void **state) {
  (void)state;
  for (unsigned threads = 1; threads <= 3; threads++) {
    sluice_model *model = NULL;
    sluice_checkpoint *checkpoint = NULL;
    watch w = {0};
    ok(sluice_model_open(bundle_path, &(sluice_model_options){.threads = threads}, &model));
    ok(sluice_checkpoint_open("synthetic:11", &checkpoint));
    ok(sluice_model_load(model, checkpoint, watch_progress, &w));
    check_packing(model, 11);
    assert_int_equal(w.last, model->weight_bytes);
    assert_int_equal(w.total, model->weight_bytes);
    sluice_checkpoint_close(checkpoint);
    sluice_model_close(model);
  }
}

static void bundles_without_the_kernel_are_refused(void **state) {
  (void)state;
  sluice_model *model = NULL;
  sluice_checkpoint *checkpoint = NULL;
  ok(sluice_model_open(bundle_path, &(sluice_model_options){.threads = 1}, &model));
  ok(sluice_checkpoint_open("synthetic:11", &checkpoint));
  sluice_plan_kernel kernels[8];
  size_t count = (size_t)model->plan.header->kernels.count;
  assert_true(count <= 8);
  memcpy(kernels, model->plan.kernels, count * sizeof *kernels);
  kernels[count - 1].family = kernels[0].family;
  model->plan.kernels = kernels;
  sluice_status *status = sluice_model_load(model, checkpoint, NULL, NULL);
  assert_int_equal(sluice_status_code(status), SLUICE_UNSUPPORTED);
  assert_non_null(strstr(sluice_status_message(status), "no kernel that makes synthetic weights: compile it again"));
  sluice_status_free(status);
  assert_null(model->weights);
  sluice_checkpoint_close(checkpoint);
  sluice_model_close(model);
}

/* ---- A checkpoint on disk ---- */

/* The tiny model's weights of seed 11. */
static void write_checkpoint(const char *skip, const char *reshape, const char *extra) {
  assert_int_equal(tiny_checkpoint_write(weights_path, 11, skip, reshape, extra), 0);
}

static sluice_status *load(sluice_model **model) {
  sluice_checkpoint *checkpoint = NULL;
  ok(sluice_model_open(bundle_path, &(sluice_model_options){.threads = 2}, model));
  ok(sluice_checkpoint_open(weights_path, &checkpoint));
  sluice_status *status = sluice_model_load(*model, checkpoint, NULL, NULL);
  sluice_checkpoint_close(checkpoint);
  return status;
}

static void files_are_packed(void **state) {
  (void)state;
  sluice_model *model = NULL;
  write_checkpoint(NULL, NULL, "vision_tower.patch.weight"); /* not ours, ignored */
  ok(load(&model));
  check_packing(model, 11);
  sluice_model_close(model);
}

static void refused(const char *tensor, const char *part) {
  sluice_model *model = NULL;
  sluice_status *status = load(&model);
  assert_non_null(status);
  const char *message = sluice_status_message(status);
  if (!strstr(message, tensor) || !strstr(message, part) || !strstr(message, weights_path + strlen("/tmp/")))
    fail_msg("\"%s\" lacks \"%s\", \"%s\" or the file", message, tensor, part);
  sluice_status_free(status);
  sluice_model_close(model);
}

static void bad_checkpoints_are_refused(void **state) {
  (void)state;
  const char *tensor = "language_model.experts.2.up.weight";
  write_checkpoint(tensor, NULL, NULL);
  refused(tensor, "lacks the tensor");
  write_checkpoint(NULL, tensor, NULL);
  refused(tensor, "[5, 6], the model wants [6, 5]");
  write_checkpoint(NULL, NULL, "language_model.model.surprise.weight");
  refused("language_model.model.surprise.weight", "no use for it");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(synthetic_weights_are_packed),
                                     cmocka_unit_test(bundles_without_the_kernel_are_refused),
                                     cmocka_unit_test(files_are_packed), cmocka_unit_test(bad_checkpoints_are_refused)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}

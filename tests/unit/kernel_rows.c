/* The families of rows.c against float64, at odd widths, every dtype, every host level, and step sizes from 0 up. */
#include "kernel_support/kernel_harness.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const int64_t widths[] = {1, 15, 16, 99, 256, 6144};
static const char *const dtypes[] = {"f32", "bf16"};
enum { WIDTHS = sizeof widths / sizeof *widths, ROWS = 7 };

static sluice_dtype dtype_of(const char *name) {
  return strcmp(name, "f32") == 0 ? SLUICE_F32 : SLUICE_BF16;
}

/* Calls `check` for every target, dtype and weight dtype: once to add the kernels, then, compiled, once to run them. */
typedef void check_kernels(kernel_harness *h, int *kernels, bool run, const char *dtype, const char *weight_dtype);

static void for_all(check_kernels *check) {
  for (const char *const *target = harness_targets(); *target; target++) {
    kernel_harness *h = harness_create(*target);
    int kernels[4][WIDTHS];
    for (int run = 0; run < 2; run++) {
      for (int i = 0; i < 4; i++) check(h, kernels[i], run, dtypes[i / 2], dtypes[i % 2]);
      if (!run) harness_compile(h);
    }
    harness_free(h);
  }
}

static const int32_t *step_sizes(int32_t tokens, int32_t rows) {
  static int32_t sizes[SLUICE_SIZE_COUNT];
  sizes[SLUICE_SIZE_ONE] = 1;
  sizes[SLUICE_SIZE_TOKENS] = tokens;
  sizes[SLUICE_SIZE_ROWS] = rows;
  return sizes;
}

/* That nothing was written at `count` elements and beyond of an array made by poisoned_elements. */
static void expect_untouched(const void *data, sluice_dtype dtype, size_t count) {
  const unsigned char *end = (const unsigned char *)data + count * sluice_dtype_size(dtype);
  for (int i = 0; i < 64; i++) assert_int_equal(end[i], 0xff);
}

static void check_embed(kernel_harness *h, int *kernels, bool run, const char *dtype, const char *weight_dtype) {
  random_state random = {1};
  for (int w = 0; w < WIDTHS; w++) {
    const size_t width = (size_t)widths[w];
    if (!run) {
      kernels[w] = harness_add(h, "embed", 3, "i:width", widths[w], "i:vocabulary", (int64_t)40, "s:weight_dtype",
                               weight_dtype, "s:dtype", dtype, NULL);
      continue;
    }
    void *table = random_elements(&random, dtype_of(weight_dtype), 40 * width, 3);
    void *out = poisoned_elements(dtype_of(dtype), ROWS * width);
    const int32_t tokens[ROWS] = {39, 0, 7, 7, 1, 38, 20};
    harness_run(h, kernels[w], (void *[]){(void *)(uintptr_t)tokens, table, out}, step_sizes(ROWS, 0), ROWS, 1);
    for (size_t i = 0; i < ROWS * width; i++) {
      const size_t from = (size_t)tokens[i / width] * width + i % width;
      const float value = (float)element_at(table, dtype_of(weight_dtype), from);
      const float expected = strcmp(dtype, "f32") == 0 ? value : sluice_f32_from_bf16(sluice_bf16_from_f32(value));
      assert_true(element_at(out, dtype_of(dtype), i) == (double)expected);
    }
    expect_untouched(out, dtype_of(dtype), ROWS * width);
    free(table);
    free(out);
  }
}

static void embed_copies_rows_of_the_table(void **state) {
  (void)state;
  for_all(check_embed);
}

static void check_rms_norm(kernel_harness *h, int *kernels, bool run, const char *dtype, const char *weight_dtype) {
  random_state random = {2};
  for (int w = 0; w < WIDTHS; w++) {
    const size_t width = (size_t)widths[w];
    if (!run) {
      kernels[w] = harness_add(h, "rms_norm", 3, "s:size", w % 2 ? "rows" : "tokens", "i:width", widths[w], "f:eps",
                               1e-6, "s:dtype", dtype, "s:weight_dtype", weight_dtype, NULL);
      continue;
    }
    const sluice_dtype type = dtype_of(dtype), weight_type = dtype_of(weight_dtype);
    void *x = random_elements(&random, type, ROWS * width, 5);
    void *weight = random_elements(&random, weight_type, width, 0.2);
    void *out = poisoned_elements(type, ROWS * width);
    for (size_t i = 0; i < width; i++) element_put(x, type, i, 0); /* eps keeps a row of zeros finite */
    for (int in_place = 0; in_place < 2; in_place++) {
      double *expected = calloc(ROWS * width, sizeof *expected);
      assert_non_null(expected);
      for (size_t row = 0; row < ROWS; row++) {
        double squares = 0;
        for (size_t i = 0; i < width; i++) squares += pow(element_at(x, type, row * width + i), 2);
        const double scale = 1 / sqrt(squares / (double)width + 1e-6);
        for (size_t i = 0; i < width; i++)
          expected[row * width + i] =
              element_at(x, type, row * width + i) * scale * (1 + element_at(weight, weight_type, i));
      }
      void *to = in_place ? x : out;
      harness_run(h, kernels[w], (void *[]){x, weight, to}, step_sizes(ROWS, ROWS), ROWS, 1);
      for (size_t i = 0; i < ROWS * width; i++) expect_close(to, type, i, expected[i], 1e-7, 2e-6, "rms_norm");
      free(expected);
    }
    expect_untouched(out, type, ROWS * width);
    free(x);
    free(weight);
    free(out);
  }
}

static void rms_norm_adds_one_to_the_weight(void **state) {
  (void)state;
  for_all(check_rms_norm);
}

static void check_select_rows(kernel_harness *h, int *kernels, bool run, const char *dtype, const char *weight_dtype) {
  (void)weight_dtype;
  random_state random = {3};
  const sluice_dtype type = dtype_of(dtype);
  for (int w = 0; w < WIDTHS; w++) {
    const size_t width = (size_t)widths[w], size = sluice_dtype_size(type);
    if (!run) {
      kernels[w] = harness_add(h, "select_rows", 3, "i:width", widths[w], "s:dtype", dtype, NULL);
      continue;
    }
    unsigned char *x = random_elements(&random, type, ROWS * width, 5);
    unsigned char *out = poisoned_elements(type, 3 * width);
    const int32_t rows[3] = {0, 4, 6};
    harness_run(h, kernels[w], (void *[]){x, (void *)(uintptr_t)rows, out}, step_sizes(ROWS, 3), 3, 1);
    for (size_t r = 0; r < 3; r++)
      assert_memory_equal(out + r * width * size, x + (size_t)rows[r] * width * size, width * size);
    expect_untouched(out, type, 3 * width);
    free(x);
    free(out);
  }
}

static void select_rows_copies_the_logit_rows(void **state) {
  (void)state;
  for_all(check_select_rows);
}

static void check_slice(kernel_harness *h, int *kernels, bool run, const char *dtype, const char *weight_dtype) {
  (void)weight_dtype;
  random_state random = {4};
  const sluice_dtype type = dtype_of(dtype);
  for (int w = 0; w < WIDTHS; w++) {
    const size_t width = (size_t)widths[w], size = sluice_dtype_size(type), x_width = width + 30,
                 offset = 3 + width % 7;
    if (!run) {
      kernels[w] = harness_add(h, "slice", 2, "s:size", "tokens", "i:x_width", (int64_t)x_width, "i:width", widths[w],
                               "i:offset", (int64_t)offset, "s:dtype", dtype, NULL);
      continue;
    }
    unsigned char *x = random_elements(&random, type, ROWS * x_width, 5);
    unsigned char *out = poisoned_elements(type, ROWS * width);
    harness_run(h, kernels[w], (void *[]){x, out}, step_sizes(ROWS, 0), ROWS, 1);
    for (size_t r = 0; r < ROWS; r++)
      assert_memory_equal(out + r * width * size, x + (r * x_width + offset) * size, width * size);
    expect_untouched(out, type, ROWS * width);
    free(x);
    free(out);
  }
}

static void slice_copies_columns(void **state) {
  (void)state;
  for_all(check_slice);
}

static void check_add(kernel_harness *h, int *kernels, bool run, const char *dtype, const char *weight_dtype) {
  (void)weight_dtype;
  random_state random = {5};
  const sluice_dtype type = dtype_of(dtype);
  for (int w = 0; w < WIDTHS; w++) {
    const size_t count = ROWS * (size_t)widths[w];
    if (!run) {
      kernels[w] = harness_add(h, "add", 3, "s:size", "tokens", "i:width", widths[w], "s:dtype", dtype, NULL);
      continue;
    }
    void *a = random_elements(&random, type, count, 5), *b = random_elements(&random, type, count, 1);
    void *expected = poisoned_elements(type, count), *out = poisoned_elements(type, count);
    for (size_t i = 0; i < count; i++)
      element_put(expected, type, i, (double)((float)element_at(a, type, i) + (float)element_at(b, type, i)));
    harness_run(h, kernels[w], (void *[]){a, b, out}, step_sizes(0, 0), 0, 1); /* an empty step */
    expect_untouched(out, type, 0);
    harness_run(h, kernels[w], (void *[]){a, b, out}, step_sizes(ROWS, 0), ROWS, 1);
    assert_memory_equal(out, expected, count * sluice_dtype_size(type) + 64);
    harness_run(h, kernels[w], (void *[]){a, b, b}, step_sizes(ROWS, 0), ROWS, 1); /* in place */
    assert_memory_equal(b, expected, count * sluice_dtype_size(type));
    free(a);
    free(b);
    free(expected);
    free(out);
  }
}

static void add_rounds_once(void **state) {
  (void)state;
  for_all(check_add);
}

static double swiglu(double gate, double up) {
  const double g = gate > 7 ? 7 : gate, u = up > 7 ? 7 : up < -7 ? -7 : up;
  return (u + 1) * g / (1 + exp(-1.702 * g));
}

static void check_swiglu(kernel_harness *h, int *kernels, bool run, const char *dtype, const char *weight_dtype) {
  (void)weight_dtype;
  random_state random = {6};
  const sluice_dtype type = dtype_of(dtype);
  for (int w = 0; w < WIDTHS; w++) {
    const size_t slots = 1 + (size_t)w % 3, count = ROWS * slots * (size_t)widths[w];
    if (!run) {
      kernels[w] = harness_add(h, "swiglu", 3, "s:size", "tokens", "i:width", widths[w], "i:slots", (int64_t)slots,
                               "f:alpha", 1.702, "f:limit", 7.0, "s:dtype", dtype, NULL);
      continue;
    }
    void *gate = random_elements(&random, type, count, 6), *up = random_elements(&random, type, count, 6);
    void *out = poisoned_elements(type, count);
    /* The cases that m3.md names: each clamp from both sides, and the zero of up + 1. */
    static const double cases[ROWS][2] = {{100, 0.5}, {-100, 2}, {1, 100}, {1, -100}, {3, -1}, {NAN, 1}, {1, NAN}};
    for (size_t i = 0; i < ROWS; i++) {
      element_put(gate, type, i, cases[i][0]);
      element_put(up, type, i, cases[i][1]);
    }
    harness_run(h, kernels[w], (void *[]){gate, up, out}, step_sizes(ROWS, 0), ROWS, 1);
    for (size_t i = 0; i < count; i++) {
      if (i == 5 || i == 6) {
        assert_true(isnan(element_at(out, type, i)));
        continue;
      }
      expect_close(out, type, i, swiglu(element_at(gate, type, i), element_at(up, type, i)), 1e-6, 2e-6, "swiglu");
    }
    expect_untouched(out, type, count);
    free(gate);
    free(up);
    free(out);
  }
}

static void swiglu_clamps_gate_and_up(void **state) {
  (void)state;
  for_all(check_swiglu);
}

static void check_combine(kernel_harness *h, int *kernels, bool run, const char *dtype, const char *weight_dtype) {
  (void)weight_dtype;
  random_state random = {7};
  const sluice_dtype type = dtype_of(dtype);
  for (int w = 0; w < WIDTHS; w++) {
    const size_t width = (size_t)widths[w], k = 1 + (size_t)w % 4, slot = (size_t)w % 3 == 1, slots = k + slot;
    const bool rows = w % 3 == 2;
    if (!run) {
      kernels[w] = harness_add(h, "combine", 5, "i:width", widths[w], "i:k", (int64_t)k, "i:shared", (int64_t)slot,
                               "i:shared_rows", (int64_t)rows, "f:scale", 2.0, "s:dtype", dtype, NULL);
      continue;
    }
    float *y = random_elements(&random, SLUICE_F32, ROWS * slots * width, 1);
    float *weights = random_elements(&random, SLUICE_F32, ROWS * k, 1);
    float *shared_y = random_elements(&random, SLUICE_F32, ROWS * width, 1);
    void *residual = random_elements(&random, type, ROWS * width, 3);
    for (int with_residual = 0; with_residual < 2; with_residual++) {
      void *out = poisoned_elements(type, ROWS * width);
      harness_run(h, kernels[w], (void *[]){y, weights, rows ? shared_y : NULL, with_residual ? residual : NULL, out},
                  step_sizes(ROWS, 0), ROWS, 1);
      for (size_t row = 0; row < ROWS; row++)
        for (size_t i = 0; i < width; i++) {
          double sum = 0;
          for (size_t s = 0; s < k; s++) sum += (double)weights[row * k + s] * (double)y[(row * slots + s) * width + i];
          sum *= 2;
          if (slot) sum += (double)y[(row * slots + k) * width + i];
          if (rows) sum += (double)shared_y[row * width + i];
          if (with_residual) sum += element_at(residual, type, row * width + i);
          expect_close(out, type, row * width + i, sum, 4e-6, 1e-6, "combine");
        }
      expect_untouched(out, type, ROWS * width);
      free(out);
    }
    free(y);
    free(weights);
    free(shared_y);
    free(residual);
  }
}

static void combine_weighs_slots_and_adds_the_residual(void **state) {
  (void)state;
  for_all(check_combine);
}

static void nonsense_attributes_are_refused(void **state) {
  (void)state;
  const kernel_attribute attributes[] = {{"size", KERNEL_STRING, 0, 0, "tokens"},
                                         {"x_width", KERNEL_INTEGER, 8, 0, 0},
                                         {"width", KERNEL_INTEGER, 6, 0, 0},
                                         {"offset", KERNEL_INTEGER, 3, 0, 0},
                                         {"dtype", KERNEL_STRING, 0, 0, "f32"}};
  const kernel_spec spec = {
      .family = "slice", .symbol = "slice_0", .attributes = attributes, .attribute_count = 5, .argument_count = 2};
  code_object code = {0};
  sluice_status *status = backend_compile("host:x86-64", &spec, 1, &(backend_options){.form = CODE_LINKED}, &code);
  assert_int_equal(sluice_status_code(status), SLUICE_INTERNAL);
  assert_non_null(strstr(sluice_status_message(status), "slice_0"));
  sluice_status_free(status);
  code_object_free(&code);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(embed_copies_rows_of_the_table),
      cmocka_unit_test(rms_norm_adds_one_to_the_weight),
      cmocka_unit_test(select_rows_copies_the_logit_rows),
      cmocka_unit_test(slice_copies_columns),
      cmocka_unit_test(add_rounds_once),
      cmocka_unit_test(swiglu_clamps_gate_and_up),
      cmocka_unit_test(combine_weighs_slots_and_adds_the_residual),
      cmocka_unit_test(nonsense_attributes_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

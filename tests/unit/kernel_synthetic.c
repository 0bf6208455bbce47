/* Synthetic weights made by the compiled kernel, byte for byte against docs/synthetic.md and the layouts of
 * sluice/plan.h read literally: every layout, dtype and group, sizes that fill nothing evenly, several tensors in a
 * weight, experts. On every host level and, where there is one, on a GPU. */
#include "backends/common/kernel.h"
#include "kernel_support/kernel_harness.h"
#include "runtime/model.h"
#include "sluice/checkpoint.h"
#include "sluice/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEED = 23, MOST_WEIGHTS = 400, MOST_SOURCES = 3 };

static void ok(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

/* ---- a plan of weights alone ---- */

typedef struct weights {
  char strings[65536];
  uint32_t length; /* of the strings */
  sluice_plan_weight list[MOST_WEIGHTS];
  sluice_plan_source sources[MOST_WEIGHTS * MOST_SOURCES];
  uint64_t count, source_count, bytes, offsets[MOST_WEIGHTS];
} weights;

static uint32_t intern(weights *w, const char *text) {
  uint32_t offset = w->length;
  assert_true(offset + strlen(text) + 1 <= sizeof w->strings);
  memcpy(w->strings + offset, text, strlen(text) + 1);
  w->length += (uint32_t)strlen(text) + 1;
  return offset;
}

/* A weight of tensors with `rows` rows each, up to the first 0. Names take turns, since they decide the scale. */
static void add_weight(weights *w, sluice_layout layout, sluice_dtype dtype, uint32_t batch, uint32_t panel,
                       uint32_t group, uint32_t columns, const uint32_t rows[MOST_SOURCES]) {
  static const char *const kinds[] = {"up_proj.weight", "input_layernorm.weight", "embed_tokens.weight",
                                      "self_attn.index_q_proj.weight", "gate.e_score_correction_bias"};
  assert_true(w->count < MOST_WEIGHTS);
  sluice_plan_weight *weight = &w->list[w->count];
  *weight = (sluice_plan_weight){.layout = layout,
                                 .format = dtype,
                                 .batch = batch,
                                 .columns = columns,
                                 .panel = panel,
                                 .group = group,
                                 .first_source = (uint32_t)w->source_count};
  for (uint32_t i = 0; i < MOST_SOURCES && rows[i]; i++) {
    char name[128];
    snprintf(name, sizeof name, "model.layers.%d.%s%u.%s", (int)w->count, batch > 1 ? "{expert}." : "", i,
             kinds[(w->count + i) % 5]);
    /* What the tensor has besides the slice, in turns. */
    const uint32_t before = (uint32_t)w->count % 3, beside = (uint32_t)w->count % 4;
    w->sources[w->source_count++] = (sluice_plan_source){.share = 1,
                                                         .name = intern(w, name),
                                                         .role = SLUICE_ROLE_VALUES,
                                                         .rank = 2,
                                                         .tensor_rows = rows[i] + 2 * before,
                                                         .tensor_columns = columns + 2 * beside,
                                                         .first_row = before,
                                                         .rows = rows[i],
                                                         .first_column = beside,
                                                         .columns = columns};
    weight->source_count++;
    weight->rows += rows[i];
  }
  weight->name = intern(w, "weight");
  sluice_packed_size size;
  assert_null(sluice_packed_size_of(weight, &size));
  weight->batch_bytes = size.batch_bytes;
  weight->bytes = batch * weight->batch_bytes;
  w->offsets[w->count++] = w->bytes;
  w->bytes += weight->bytes;
}

static weights *all_weights(void) {
  weights *w = calloc(1, sizeof *w);
  assert_non_null(w);
  w->length = 1;
  static const uint32_t columns[] = {1, 7, 8, 41, 64};
  static const uint32_t rows[][MOST_SOURCES] = {{1}, {33}, {64}, {5, 4, 9}, {8, 16, 4}, {6, 6}, {32, 32}};
  static const uint32_t panels[] = {1, 4, 6, 16, 32};
  for (size_t d = 0; d < 2; d++) {
    sluice_dtype dtype = d ? SLUICE_BF16 : SLUICE_F32;
    uint32_t most = d ? 8 : 4, turn = 0;
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
      for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
        add_weight(w, SLUICE_LAYOUT_ROWS, dtype, 1 + (uint32_t)c % 3, 0, 1, columns[c], rows[r]);
        for (uint32_t group = most; group >= most / 4 && group * sluice_dtype_size(dtype) >= 4; group /= 2) {
          uint32_t panel = panels[turn++ % 5], total = rows[r][0] + rows[r][1] + rows[r][2];
          sluice_layout layout = total % 2 == 0 && turn % 3 ? SLUICE_LAYOUT_PANEL_PAIRS : SLUICE_LAYOUT_PANELS;
          add_weight(w, layout, dtype, 1 + turn % 2, panel, group, columns[c], rows[r]);
        }
      }
    /* Large ones: panels of which many make a piece, and panels that are several pieces each. */
    add_weight(w, SLUICE_LAYOUT_ROWS, dtype, 1, 0, 1, 1000, (const uint32_t[]){301, 0, 0});
    add_weight(w, SLUICE_LAYOUT_PANELS, dtype, 1, 16, most, 250, (const uint32_t[]){1000, 37, 0});
    add_weight(w, SLUICE_LAYOUT_PANEL_PAIRS, dtype, 2, 64, most, 3001, (const uint32_t[]){70, 70, 0});
    add_weight(w, SLUICE_LAYOUT_PANEL_PAIRS, dtype, 1, 32, 2, 9000, (const uint32_t[]){100, 0, 0});
  }
  /* So many matrices that one launch does not make them all. */
  add_weight(w, SLUICE_LAYOUT_ROWS, SLUICE_BF16, 3000, 0, 1, 5, (const uint32_t[]){1, 0, 0});
  return w;
}

/* ---- what it should be ---- */

static void expected_matrix(const weights *w, const sluice_plan_weight *weight, uint32_t expert, char *to) {
  bool bf16 = weight->format == SLUICE_FORMAT_BF16;
  uint64_t half_rows = weight->layout == SLUICE_LAYOUT_PANEL_PAIRS ? weight->rows / 2 : weight->rows;
  uint64_t halves = weight->rows / half_rows, start = 0;
  uint64_t groups = (weight->columns + weight->group - 1) / weight->group;
  uint16_t *values = malloc((size_t)weight->columns * sizeof *values);
  assert_non_null(values);
  for (uint32_t i = 0; i < weight->source_count; i++) {
    const sluice_plan_source *source = &w->sources[weight->first_source + i];
    const char *pattern = w->strings + source->name, *mark = strstr(pattern, "{expert}");
    char name[128];
    if (mark)
      snprintf(name, sizeof name, "%.*s%u%s", (int)(mark - pattern), pattern, expert, mark + strlen("{expert}"));
    else
      snprintf(name, sizeof name, "%s", pattern);
    for (uint64_t r = 0; r < source->rows; r++) {
      sluice_synthetic_fill(name, SEED, source->tensor_columns,
                            (source->first_row + r) * source->tensor_columns + source->first_column, weight->columns,
                            values);
      uint64_t row = (start + r) % half_rows, half = (start + r) / half_rows;
      for (uint64_t c = 0; c < weight->columns; c++) {
        uint64_t at = row * weight->columns + c;
        if (weight->panel) {
          uint64_t panel = row / weight->panel * halves + half;
          at = ((panel * groups + c / weight->group) * weight->panel + row % weight->panel) * weight->group +
               c % weight->group;
        }
        float value = sluice_f32_from_bf16(values[c]);
        if (bf16)
          memcpy(to + 2 * at, &values[c], 2);
        else
          memcpy(to + 4 * at, &value, 4);
      }
    }
    start += source->rows;
  }
  free(values);
}

static char *expected_weights(const weights *w) {
  char *expected = calloc(1, w->bytes);
  assert_non_null(expected);
  for (uint64_t i = 0; i < w->count; i++)
    for (uint32_t expert = 0; expert < w->list[i].batch; expert++)
      expected_matrix(w, &w->list[i], expert, expected + w->offsets[i] + expert * w->list[i].batch_bytes);
  return expected;
}

/* ---- what it is ---- */

typedef struct watch {
  uint64_t last;
  int calls;
} watch;

static void watch_progress(void *user, uint64_t done, uint64_t total, const char *tensor) {
  watch *seen = user;
  assert_true(done > seen->last && done <= total);
  assert_string_equal(tensor, "weight");
  seen->last = done;
  seen->calls++;
}

/* The kernel for `target`. Compiling forks, so it comes before a device starts threads. */
static code_object compiled(const char *target) {
  const kernel_spec spec = {.family = "synthesize", .symbol = "synthesize_0", .argument_count = 2};
  code_object code;
  ok(backend_compile(target, &spec, 1, &(backend_options){.form = CODE_LINKED}, &code));
  assert_int_equal(code.kernels[0].spill_bytes, 0);
  return code;
}

/* Makes the weights on `device` with the kernel in `code`, compiled for `target`, and compares. */
static void check_device(sluice_device *device, const char *target, const code_object *code, weights *w,
                         const char *expected) {
  char strings[sizeof w->strings];
  memcpy(strings, w->strings, sizeof strings);
  const uint32_t family = w->length, symbol = family + 16;
  snprintf(strings + family, 16, "synthesize");
  snprintf(strings + symbol, 16, "synthesize_0");
  const sluice_plan_kernel kernel = {.name = symbol,
                                     .family = family,
                                     .argument_count = 2,
                                     .lanes = code->kernels[0].lanes,
                                     .workgroup_bytes = code->kernels[0].workgroup_bytes};
  const sluice_plan_header header = {.weights.count = w->count, .kernels.count = 1};
  sluice_model model = {
      .plan = {.header = &header, .strings = strings, .weights = w->list, .sources = w->sources, .kernels = &kernel},
      .device = device,
      .weight_bytes = w->bytes,
      .offsets = w->offsets};
  const sluice_code_sections sections = {.binary = code->data,
                                         .binary_length = code->length,
                                         .assembly = code->assembly,
                                         .assembly_length = code->assembly_length};
  ok(device->driver->load_code(device, &sections, &model.plan, &model.code));
  sluice_checkpoint *checkpoint = NULL;
  char source[32];
  snprintf(source, sizeof source, "synthetic:%d", SEED);
  ok(sluice_checkpoint_open(source, &checkpoint));
  watch seen = {0};
  ok(sluice_model_load(&model, checkpoint, watch_progress, &seen));
  assert_true(seen.last == w->bytes && seen.calls > 1);
  char *found = malloc(w->bytes);
  assert_non_null(found);
  ok(device->driver->copy_out(device, found, model.weights, w->bytes));
  for (uint64_t i = 0; i < w->count; i++) {
    const sluice_plan_weight *weight = &w->list[i];
    for (uint64_t b = 0; b < weight->bytes; b++)
      if (found[w->offsets[i] + b] != expected[w->offsets[i] + b])
        fail_msg(
            "%s: byte %llu of weight %llu (layout %u, format %u, %u x %u x %u, panel %u, group %u) is %02x, not %02x",
            target, (unsigned long long)b, (unsigned long long)i, weight->layout, weight->format, weight->batch,
            weight->rows, weight->columns, weight->panel, weight->group, (unsigned char)found[w->offsets[i] + b],
            (unsigned char)expected[w->offsets[i] + b]);
  }
  free(found);
  device->driver->release(device, model.weights);
  device->driver->unload_code(device, model.code);
  sluice_checkpoint_close(checkpoint);
}

static void every_layout_has_its_bytes(void **state) {
  (void)state;
  weights *w = all_weights();
  char *expected = expected_weights(w);
  for (const char *const *target = harness_targets(); *target; target++) {
    code_object code = compiled(*target);
    sluice_device *device = NULL;
    ok(sluice_host_open(2, &device));
    check_device(device, *target, &code, w, expected);
    device->driver->close(device);
    code_object_free(&code);
  }
  code_object code = compiled("cuda:sm_90a");
  sluice_device *gpu = NULL;
  sluice_status *none = sluice_cuda_open(0, 2, &gpu);
  if (!none && gpu->driver->preference(gpu, "cuda:sm_90a")) {
    check_device(gpu, "cuda:sm_90a", &code, w, expected);
    print_message("compared on %s, too\n", gpu->name);
  }
  if (gpu) gpu->driver->close(gpu);
  sluice_status_free(none);
  code_object_free(&code);
  free(expected);
  free(w);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_layout_has_its_bytes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

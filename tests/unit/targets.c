/* Target names: what stands for what, and what is refused; what targets are, and kernels that they have no room for. */
#include "backends/common/kernel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void expect_canonical(const char *name, const char *expected) {
  char canonical[32];
  memset(canonical, 'x', sizeof canonical);
  sluice_status *status = target_canonicalise(name, canonical);
  sluice_status_print(status);
  assert_null(status);
  assert_string_equal(canonical, expected);
  for (size_t i = strlen(expected); i < sizeof canonical; i++) assert_int_equal(canonical[i], 0);
}

static void aliases_become_targets(void **state) {
  (void)state;
  expect_canonical("h100", "cuda:sm_90a");
  expect_canonical("h200", "cuda:sm_90a");
  expect_canonical("cuda:sm_90a", "cuda:sm_90a");
  expect_canonical("host:x86-64-v3", "host:x86-64-v3");
  char host[32];
  assert_null(target_canonicalise("host", host));
  expect_canonical(host, host);
}

static void unknown_targets_are_refused(void **state) {
  (void)state;
  static const char *const names[] = {"",
                                      "H100",
                                      "h100 ",
                                      "cuda",
                                      "cuda:",
                                      "cuda:sm_90",
                                      "h300",
                                      "sm_90a",
                                      "cuda:sm_90b",
                                      "host:",
                                      "hosts",
                                      "cuda:sm_90a,host",
                                      "a name that is much longer than the 32 bytes of a canonical one"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char canonical[32];
    target_tiles tiles;
    sluice_status *status = target_canonicalise(names[i], canonical);
    if (!status) fail_msg("'%s' is taken for %s", names[i], canonical);
    assert_int_equal(sluice_status_code(status), SLUICE_UNSUPPORTED);
    assert_non_null(strstr(sluice_status_message(status), names[i]));
    assert_non_null(strstr(sluice_status_message(status), "host:x86-64-v4-bf16"));
    assert_non_null(strstr(sluice_status_message(status), "cuda:sm_90a"));
    sluice_status_free(status);
    status = target_default_tiles(names[i], &tiles);
    assert_non_null(status);
    sluice_status_free(status);
  }
}

/* Of the kernels for products, exactly one takes each number of rows. */
static void expect_cover(const gemm_range ranges[MOST_GEMM_RANGES], uint32_t panel) {
  for (uint32_t i = 0; i == 0 || ranges[i - 1].to < UINT32_MAX; i++) {
    assert_true(i < MOST_GEMM_RANGES);
    assert_int_equal(ranges[i].from, i ? ranges[i - 1].to + 1 : 0);
    assert_true(ranges[i].from <= ranges[i].to && ranges[i].tile_m > 0);
    assert_true(ranges[i].slice > 0 && ranges[i].slice % panel == 0);
  }
}

static void ranges_cover_all_steps(void **state) {
  (void)state;
  target_tiles tiles;
  assert_null(target_default_tiles("cuda:sm_90a", &tiles));
  assert_true(tiles.transposed_values && tiles.split_selection && tiles.matrix_panel > 0);
  expect_cover(tiles.ranges, tiles.matrix_panel);
  expect_cover(tiles.expert_ranges, tiles.matrix_panel);
  assert_null(target_default_tiles("host:x86-64-v3", &tiles));
  assert_false(tiles.transposed_values || tiles.split_selection);
  assert_int_equal(tiles.matrix_panel, 0);
}

/* A kernel that the target has for other shapes alone is refused with the shape and what is expected instead. */
static void refused_shapes_are_named(void **state) {
  (void)state;
  static const struct {
    const char *attribute;
    kernel_attribute other;
    const char *message;
  } cases[] = {
      {"head_dim", {.name = "head_dim", .integer = 64}, "heads have 64 dimensions, expected 128"},
      {"page", {.name = "page", .integer = 48}, "pages have 48 tokens, expected 16, 32, 64 or 128"},
      {"heads", {.name = "heads", .integer = 40}, "a kv head has 20 query heads, expected at most 16"},
      {"dtype", {.name = "dtype", .kind = KERNEL_STRING, .string = "f32"}, "elements are f32, expected bf16"},
      {"part_rows", {.name = "part_rows", .integer = 8}, "partial results have 8 rows, expected 16"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    kernel_attribute list[] = {{.name = "heads", .integer = 16},
                               {.name = "kv_heads", .integer = 2},
                               {.name = "head_dim", .integer = 128},
                               {.name = "page", .integer = 128},
                               {.name = "page_bytes", .integer = 131072},
                               {.name = "value_offset", .integer = 65536},
                               {.name = "parts", .integer = 132},
                               {.name = "part_rows", .integer = 16},
                               {.name = "scale", .kind = KERNEL_FLOAT, .number = 0.1},
                               {.name = "dtype", .kind = KERNEL_STRING, .string = "bf16"},
                               {.name = "transposed", .kind = KERNEL_STRING, .string = "values"}};
    for (size_t a = 0; a < sizeof list / sizeof *list; a++)
      if (strcmp(list[a].name, cases[i].attribute) == 0) list[a] = cases[i].other;
    const kernel_spec spec = {.family = "attention_part",
                              .symbol = "attention_part_7",
                              .attributes = list,
                              .attribute_count = sizeof list / sizeof *list,
                              .argument_count = 7};
    code_object code;
    sluice_status *status = backend_compile("cuda:sm_90a", &spec, 1, &(backend_options){.form = CODE_ASSEMBLY}, &code);
    assert_non_null(status);
    assert_int_equal(sluice_status_code(status), SLUICE_UNSUPPORTED);
    assert_non_null(strstr(sluice_status_message(status), "attention_part_7"));
    assert_non_null(strstr(sluice_status_message(status), cases[i].message));
    sluice_status_free(status);
  }
}

static void facts_make_sense(void **state) {
  (void)state;
  static const char *const names[] = {"host:x86-64", "host:x86-64-v4-bf16", "cuda:sm_90a"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const target_facts *f;
    assert_null(target_find_facts(names[i], &f));
    assert_true(f->wave > 0 && (f->wave & (f->wave - 1)) == 0);
    assert_true(f->lanes % f->wave == 0 && f->lanes <= f->most_lanes);
    assert_true(f->vector > 0 && (f->vector & (f->vector - 1)) == 0 && f->registers > 0);
    assert_true(f->workgroup_bytes > 0 && f->workgroup_bytes <= f->processor_bytes);
    assert_true(f->grid[0] > 0 && f->grid[1] > 0 && f->line_bytes > 0);
  }
  const target_facts *f;
  sluice_status *status = target_find_facts("h300", &f);
  assert_non_null(strstr(sluice_status_message(status), "h300"));
  sluice_status_free(status);
}

/* Compiles one kernel for a GPU and expects a refusal that says all of `texts`, which end with NULL. */
static void expect_too_large(const char *family, const kernel_attribute *attributes, size_t count,
                             const char *const *texts) {
  const kernel_spec spec = {
      .family = family, .symbol = "large_1", .attributes = attributes, .attribute_count = count, .argument_count = 5};
  code_object code = {0};
  sluice_status *status = backend_compile("cuda:sm_90a", &spec, 1, &(backend_options){.form = CODE_LLVM_IR}, &code);
  assert_int_equal(sluice_status_code(status), SLUICE_UNSUPPORTED);
  for (; *texts; texts++)
    if (!strstr(sluice_status_message(status), *texts))
      fail_msg("no '%s' in '%s'", *texts, sluice_status_message(status));
  sluice_status_free(status);
}

#define INTEGER(text, value) {.name = (text), .kind = KERNEL_INTEGER, .integer = (value)}
#define NUMBER(text, value) {.name = (text), .kind = KERNEL_FLOAT, .number = (value)}
#define TEXT(text, value) {.name = (text), .kind = KERNEL_STRING, .string = (value)}

static void kernels_too_large_are_refused(void **state) {
  (void)state;
  /* One token of attention has 64 rows, each of 512 + 128 + 512 words and a maximum and a sum. */
  const kernel_attribute attention[] = {
      INTEGER("heads", 64),      INTEGER("kv_heads", 1),         INTEGER("head_dim", 512),    INTEGER("page", 128),
      INTEGER("query_tile", 16), INTEGER("page_bytes", 1 << 20), INTEGER("value_offset", 64), NUMBER("scale", 1),
      TEXT("dtype", "f32"),      TEXT("transposed", "keys")};
  expect_too_large("attention", attention, sizeof attention / sizeof *attention,
                   (const char *[]){"large_1", "heads 64, kv_heads 1, head_dim 512",
                                    "wants 296448 bytes of workgroup memory", "cuda:sm_90a has 232448", NULL});
  const kernel_attribute norm[] = {INTEGER("heads", 70000), INTEGER("head_dim", 64), NUMBER("eps", 1e-6),
                                   TEXT("dtype", "bf16"), TEXT("weight_dtype", "bf16")};
  expect_too_large(
      "head_norm", norm, sizeof norm / sizeof *norm,
      (const char *[]){"large_1", "heads 70000, head_dim 64", "wants 70000 workgroups in y", "has 65535", NULL});
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(aliases_become_targets), cmocka_unit_test(unknown_targets_are_refused),
      cmocka_unit_test(ranges_cover_all_steps), cmocka_unit_test(refused_shapes_are_named),
      cmocka_unit_test(facts_make_sense),       cmocka_unit_test(kernels_too_large_are_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Target names: what stands for what, and what is refused. */
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

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(aliases_become_targets),
                                     cmocka_unit_test(unknown_targets_are_refused),
                                     cmocka_unit_test(ranges_cover_all_steps)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Tuning records: reading, keys, the later of two, one spelling; and lines that are no records, by the thousand. */
#include "sluice/memory.h"
#include "sluice/tuning.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* A record's line with three places to fill: GPU, date, median. */
static char *line_of(const char *gpu, const char *date, int to, double median) {
  return sluice_format_string(
      "{\"gpu\": \"%s\", \"target\": \"cuda:sm_90a\", \"processors\": 132, \"clock_mhz\": 1980, \"memory_mhz\": 3201, "
      "\"memory_bytes\": 150000000000, \"driver\": \"CUDA 12.8\", \"date\": \"%s\", \"sluice\": \"0.1.0\", "
      "\"kernel\": \"gemm\", \"shape\": {\"n\": 64, \"k\": 32, \"matrix\": 1}, \"size\": \"tokens\", \"from\": 1, "
      "\"to\": %d, \"at\": {\"tokens\": 8}, \"configuration\": {\"tile_m\": 8, \"schedule\": \"rows\"}, "
      "\"median_us\": %.3f, \"spread_us\": 0.1, \"floor_us\": 1, \"default_us\": 3.5, \"runner_up\": {}, "
      "\"runner_up_us\": 0, \"candidates\": 3, \"calls\": 700, \"check\": \"exact\", \"output\": "
      "\"0123456789abcdef\"}\n",
      gpu, date, to, median);
}

static void read_line(sluice_tuning *tuning, char *line) {
  assert_non_null(line);
  assert_null(sluice_tuning_parse(line, strlen(line), "test", tuning));
  sluice_release(line);
}

/* Members of objects are put in order, and what is written reads back the same. */
static void spelling(void **state) {
  (void)state;
  sluice_tuning tuning = {0}, again = {0};
  read_line(&tuning, line_of("NVIDIA H200", "2026-12-01", 8, 2.5));
  assert_int_equal(tuning.count, 1);
  const sluice_tuning_record *r = &tuning.items[0];
  assert_string_equal(r->shape, "{\"k\": 32, \"matrix\": 1, \"n\": 64}");
  assert_string_equal(r->configuration, "{\"schedule\": \"rows\", \"tile_m\": 8}");
  assert_int_equal(r->memory_bytes, 150000000000);
  sluice_text first = {0}, second = {0};
  sluice_tuning_write(&tuning, &first);
  assert_null(sluice_tuning_parse(first.data, first.length, "test", &again));
  sluice_tuning_write(&again, &second);
  assert_string_equal(first.data, second.data);
  sluice_text_free(&first);
  sluice_text_free(&second);
  sluice_tuning_free(&tuning);
  sluice_tuning_free(&again);
}

/* The later day stays; on one day the faster; GPUs and ranges stay apart: in whatever order they come. */
static void merging(void **state) {
  (void)state;
  const struct {
    const char *gpu, *date;
    int to;
    double median;
  } all[] = {{"NVIDIA H200", "2026-12-01", 8, 2.5},
             {"NVIDIA H200", "2026-11-30", 8, 1.5},
             {"NVIDIA H200", "2026-12-01", 8, 2.25},
             {"NVIDIA H100", "2026-12-01", 8, 9},
             {"NVIDIA H200", "2026-12-01", 16, 7}};
  enum { COUNT = sizeof all / sizeof *all };
  sluice_text expected = {0};
  for (unsigned start = 0; start < 2 * COUNT; start++) { /* rotated, forwards and backwards */
    sluice_tuning tuning = {0};
    for (unsigned i = 0; i < COUNT; i++) {
      const unsigned at = start < COUNT ? (start + i) % COUNT : (start + COUNT - i) % COUNT;
      read_line(&tuning, line_of(all[at].gpu, all[at].date, all[at].to, all[at].median));
    }
    assert_int_equal(tuning.count, 3);
    assert_string_equal(tuning.items[0].gpu, "NVIDIA H100");
    assert_float_equal(tuning.items[1].median_us, 2.25, 1e-9);
    assert_int_equal(tuning.items[2].to, 16);
    sluice_text text = {0};
    sluice_tuning_write(&tuning, &text);
    if (start == 0)
      expected = text;
    else
      assert_string_equal(text.data, expected.data);
    if (start) sluice_text_free(&text);
    sluice_tuning_free(&tuning);
  }
  sluice_text_free(&expected);
}

static void finding(void **state) {
  (void)state;
  sluice_tuning tuning = {0};
  read_line(&tuning, line_of("NVIDIA H200", "2026-12-01", 8, 2.5));
  sluice_tuning_record key = tuning.items[0];
  assert_ptr_equal(sluice_tuning_find(&tuning, &key), &tuning.items[0]);
  key.processors = 66; /* half of the GPU is another one */
  assert_null(sluice_tuning_find(&tuning, &key));
  sluice_tuning_free(&tuning);
}

static void refuse(const char *text, size_t length, const char *expected) {
  sluice_tuning tuning = {0};
  sluice_status *status = sluice_tuning_parse(text, length, "bad.jsonl", &tuning);
  assert_non_null(status);
  assert_int_equal(sluice_status_code(status), SLUICE_INVALID);
  char *told = sluice_status_format(status);
  assert_non_null(told);
  if (expected && !strstr(told, expected)) fail_msg("\"%s\" instead of \"%s\"", told, expected);
  sluice_release(told);
  sluice_status_free(status);
  sluice_tuning_free(&tuning);
}

/* Replaces `what` by `with` in a good line. */
static void refuse_changed(const char *what, const char *with, const char *expected) {
  char *line = line_of("NVIDIA H200", "2026-12-01", 8, 2.5);
  const char *found = strstr(line, what);
  assert_non_null(found);
  char *changed = sluice_format_string("%.*s%s%s", (int)(found - line), line, with, found + strlen(what));
  refuse(changed, strlen(changed), expected);
  sluice_release(changed);
  sluice_release(line);
}

static void refusals(void **state) {
  (void)state;
  refuse_changed("\"gpu\": \"NVIDIA H200\", ", "", "the record lacks \"gpu\"");
  refuse_changed("\"gpu\"", "\"gpus\"", "a record has no member \"gpus\"");
  refuse_changed("\"NVIDIA H200\"", "7", "\"gpu\" is a number, expected a string");
  refuse_changed("\"from\": 1", "\"from\": 9", "the sizes are 9 to 8");
  refuse_changed("\"from\": 1", "\"from\": -1", "\"from\" is not an integer from 0 on");
  refuse_changed("\"from\": 1", "\"from\": 0.5", "\"from\" is not an integer from 0 on");
  refuse_changed("\"to\": 8", "\"to\": 4294967296", "32 bits");
  refuse_changed("\"size\": \"tokens\"", "\"size\": \"bytes\"", "expected tokens or pages");
  refuse_changed("2026-12-01", "1 December", "expected a day such as 2026-12-01");
  refuse_changed("2026-12-01", "2026-12-011", "expected a day");
  refuse_changed("\"median_us\": 2.500", "\"median_us\": 0", "\"median_us\" is 0");
  refuse_changed("\"median_us\": 2.500", "\"median_us\": -2", "not a time in microseconds");
  refuse_changed("\"median_us\": 2.500", "\"median_us\": \"2\"", "not a time in microseconds");
  refuse_changed("\"tile_m\": 8", "\"tile_m\": 8.5", "\"configuration\" is not an object");
  refuse_changed("\"tile_m\": 8", "\"tile_m\": [8]", "\"configuration\" is not an object");
  refuse_changed("\"rows\"", "\"rows\\\"\"", "\"configuration\" is not an object");
  refuse_changed("{\"tokens\": 8}", "[]", "\"at\" is not an object");
  refuse("[]\n", 3, "the line is an array, expected an object");
  /* The place: the second line of the file. */
  char *line = line_of("NVIDIA H200", "2026-12-01", 8, 2.5), *two = sluice_format_string("%s{}\n", line);
  refuse(two, strlen(two), "bad.jsonl:2:1: error: the record lacks");
  sluice_release(two);
  sluice_release(line);
}

/* Each prefix of a line, and the line with any byte damaged, is refused or a record: nothing else happens. */
static void damage(void **state) {
  (void)state;
  char *line = line_of("NVIDIA H200", "2026-12-01", 8, 2.5);
  const size_t length = strlen(line);
  for (size_t end = 1; end + 2 < length; end++) refuse(line, end, NULL);
  static const char bytes[] = "\0\"{}[],:x9\x80\xff";
  unsigned refused = 0;
  for (size_t at = 0; at < length; at++)
    for (size_t b = 0; b + 1 < sizeof bytes; b++) {
      sluice_tuning tuning = {0};
      const char kept = line[at];
      line[at] = bytes[b];
      sluice_status *status = sluice_tuning_parse(line, length, "bad.jsonl", &tuning);
      refused += status != NULL;
      if (!status) assert_in_range(tuning.count, 0, 2);
      sluice_status_free(status);
      sluice_tuning_free(&tuning);
      line[at] = kept;
    }
  assert_true(refused > length);
  sluice_release(line);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(spelling), cmocka_unit_test(merging), cmocka_unit_test(finding),
                                     cmocka_unit_test(refusals), cmocka_unit_test(damage)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

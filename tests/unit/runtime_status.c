/* Errors as values: what is reported for a place, and what becomes of an error when memory is short. */
#include "sluice/memory.h"
#include "sluice/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void expect(sluice_status *status, const char *report) {
  char *text = sluice_status_format(status);
  assert_non_null(text);
  assert_string_equal(text, report);
  sluice_release(text);
  sluice_status_free(status);
}

static sluice_status *at(unsigned line, unsigned column, const char *source) {
  return sluice_error_at(SLUICE_INVALID, "f.json", line, column, source, source ? strlen(source) : 0, "bad");
}

static void codes(void **state) {
  (void)state;
  static const struct {
    sluice_code code;
    int exit_code;
  } all[] = {{SLUICE_INVALID, 1},      {SLUICE_UNSUPPORTED, 1},   {SLUICE_NOT_FOUND, 1},
             {SLUICE_IO, 1},           {SLUICE_OUT_OF_MEMORY, 1}, {SLUICE_DEVICE, 1},
             {SLUICE_CHECK_FAILED, 1}, {SLUICE_USAGE, 2},         {SLUICE_INTERNAL, 70}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    sluice_status *status = sluice_annotate(sluice_error(all[i].code, "%d apples", 3), "in %s", "a bag");
    assert_int_equal(sluice_status_code(status), all[i].code);
    assert_string_equal(sluice_status_message(status), "in a bag: 3 apples");
    assert_int_equal(sluice_exit_code(status), all[i].exit_code);
    expect(status, "error: in a bag: 3 apples\n");
  }
  assert_int_equal(sluice_status_code(NULL), SLUICE_OK);
  assert_int_equal(sluice_exit_code(NULL), 0);
  assert_string_equal(sluice_status_message(NULL), "ok");
  assert_null(sluice_annotate(NULL, "in vain"));
  sluice_status_free(NULL);
  sluice_status *memory = sluice_annotate(sluice_out_of_memory(), "in vain");
  assert_string_equal(sluice_status_message(memory), "out of memory");
  sluice_status_free(memory);
  sluice_status_free(sluice_out_of_memory());
}

static void places(void **state) {
  (void)state;
  expect(at(3, 2, "abc"), "f.json:3:2: error: bad\nabc\n ^\n");
  expect(at(3, 0, "abc"), "f.json:3: error: bad\nabc\n");
  expect(at(0, 0, NULL), "f.json: error: bad\n");
  expect(at(1, 4, "abc"), "f.json:1:4: error: bad\nabc\n   ^\n");       /* just past the end */
  expect(at(1, 4000, "abc"), "f.json:1:4000: error: bad\nabc\n   ^\n"); /* far past it */
  expect(at(1, 1, ""), "f.json:1:1: error: bad\n\n^\n");
  expect(at(1, 3, "\t\tx"), "f.json:1:3: error: bad\n  x\n  ^\n");
  expect(at(1, 6, "\xc3\xa9\xe2\x82\xacx"),
         "f.json:1:6: error: bad\n\xc3\xa9\xe2\x82\xacx\n  ^\n"); /* one column each */
  expect(at(1, 5, "\x1b\xff\xc2\x9bx"), "f.json:1:5: error: bad\n????x\n    ^\n");
  sluice_status *zero = sluice_error_at(SLUICE_INVALID, "f.json", 1, 3, "a\0b", 3, "bad");
  expect(zero, "f.json:1:3: error: bad\na?b\n  ^\n");
}

/* Whatever an input file holds, a report is printable and its message is one line. */
static void hostile_bytes(void **state) {
  (void)state;
  expect(sluice_error(SLUICE_INVALID, "<%s.", "\x1b[2Ja\nb\tc\x7f\xc2\x80\xed\xa0\x80\xf4\x90\x80\x80\xc0\x80"),
         "error: <?[2Ja b c"
         "????????????.\n");
  expect(sluice_error(SLUICE_INVALID, "<%.2s.", "\xe2\x82\xac"), "error: <??.\n"); /* cut within a character */
  expect(sluice_error(SLUICE_INVALID, "\xf0\x9f\x98\x80 \xef\xbf\xbd"), "error: \xf0\x9f\x98\x80 \xef\xbf\xbd\n");
  expect(sluice_annotate(sluice_error(SLUICE_IO, "x"), "%s", "a\r\nb"), "error: a  b: x\n");
  expect(sluice_error_at(SLUICE_INVALID, "a\nb", 0, 0, NULL, 0, "x"), "a b: error: x\n");
}

/* A line of any length is cut to what a terminal can show, and the caret still points at its column. */
static void long_lines(void **state) {
  (void)state;
  enum { LENGTH = 3000 };
  char line[LENGTH + 1];
  for (unsigned wide = 0; wide < 2; wide++) {
    for (unsigned column = 1; column <= LENGTH; column += 2) {
      for (size_t i = 0; i < LENGTH; i += 2) memcpy(line + i, wide ? "\xc3\xa9" : "..", 2);
      line[LENGTH] = 0;
      line[column - 1] = '#';
      if (wide) line[column] = '.';
      sluice_status *status = at(1, column, line);
      char *text = sluice_status_format(status), *shown = strchr(text, '\n') + 1, *caret = strchr(shown, '\n') + 1;
      assert_true(caret - shown <= 161);
      size_t before = 0;
      for (const char *c = shown; *c != '#'; c++) before += ((unsigned char)*c & 0xc0) != 0x80;
      assert_int_equal(strspn(caret, " "), before);
      assert_string_equal(caret + before, "^\n");
      sluice_release(text);
      sluice_status_free(status);
    }
  }
}

static int fail_at(void *user, size_t bytes) {
  (void)bytes;
  return (*(long *)user)-- == 0;
}

static int fail_always(void *user, size_t bytes) {
  (void)user;
  (void)bytes;
  return 1;
}

static void memory(void **state) {
  (void)state;
  const size_t before = sluice_live_allocations();
  for (long n = 0; n < 4; n++) { /* the status, its message, the file, the source line */
    long left = n;
    sluice_set_allocation_hook(fail_at, &left);
    sluice_status *status = at(1, 1, "text");
    sluice_set_allocation_hook(NULL, NULL);
    assert_true(left < 0);
    assert_int_equal(sluice_status_code(status), SLUICE_OUT_OF_MEMORY);
    expect(status, "error: out of memory\n");
    assert_int_equal(sluice_live_allocations(), before);
  }
  for (long n = 0; n < 2; n++) { /* the context, the new message: the error itself stays */
    sluice_status *status = at(1, 1, "text");
    long left = n;
    sluice_set_allocation_hook(fail_at, &left);
    status = sluice_annotate(status, "context");
    sluice_set_allocation_hook(NULL, NULL);
    assert_true(left < 0);
    expect(status, "f.json:1:1: error: bad\ntext\n^\n");
    assert_int_equal(sluice_live_allocations(), before);
  }
  sluice_set_allocation_hook(fail_always, NULL);
  sluice_status *status = sluice_error(SLUICE_IO, "x");
  assert_null(sluice_status_format(status));
  assert_null(sluice_allocate(0));
  assert_null(sluice_allocate_aligned(64, 1));
  assert_null(sluice_copy_string("x", 1));
  assert_null(sluice_format_string("x"));
  sluice_set_allocation_hook(NULL, NULL);
  sluice_status_free(status);
  assert_int_equal(sluice_live_allocations(), before);
}

static void allocations(void **state) {
  (void)state;
  const size_t before = sluice_live_allocations();
  assert_null(sluice_allocate_array(SIZE_MAX / 2, 3));
  assert_null(sluice_allocate_aligned(64, SIZE_MAX));
  assert_null(sluice_copy_string("", SIZE_MAX));
  char *text = sluice_reallocate_array(NULL, 2, 4);
  assert_non_null(text);
  memcpy(text, "abcdefg", 8);
  assert_null(sluice_reallocate_array(text, SIZE_MAX / 2, 3));
  assert_string_equal(text, "abcdefg"); /* untouched */
  char *grown = sluice_reallocate_array(text, 1 << 16, 4);
  assert_non_null(grown);
  assert_string_equal(grown, "abcdefg");
  void *empty = sluice_allocate(0), *aligned = sluice_allocate_aligned(4096, 1), *none = sluice_allocate_aligned(64, 0);
  assert_non_null(empty);
  assert_non_null(none);
  assert_int_equal((uintptr_t)aligned % 4096, 0);
  assert_int_equal(sluice_live_allocations(), before + 4);
  sluice_release(grown), sluice_release(empty), sluice_release(aligned), sluice_release(none), sluice_release(NULL);
  assert_int_equal(sluice_live_allocations(), before);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(codes),         cmocka_unit_test(places),
                                     cmocka_unit_test(hostile_bytes), cmocka_unit_test(long_lines),
                                     cmocka_unit_test(memory),        cmocka_unit_test(allocations)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

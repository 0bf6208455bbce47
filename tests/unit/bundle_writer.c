/* Writing files and bundles: what is written reads back, and a failure leaves what was there before and nothing else.
 */
#include "compiler/compile.h"
#include "sluice/bundle.h"
#include "sluice/memory.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "/tmp/sluice-writer-XXXXXX";
static char path[64];

static void must(sluice_status *status) {
  if (status) sluice_status_print(status);
  assert_null(status);
}

static int set_up(void **state) {
  (void)state;
  if (!mkdtemp(directory)) return 1;
  snprintf(path, sizeof path, "%s/out", directory);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  unlink(path);
  return rmdir(directory);
}

/* Names in the directory besides . and .. */
static int entries(void) {
  DIR *d = opendir(directory);
  int count = 0;
  assert_non_null(d);
  while (readdir(d)) count++;
  closedir(d);
  return count - 2;
}

static size_t read_back(char *out, size_t capacity) {
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  size_t length = fread(out, 1, capacity, file);
  fclose(file);
  return length;
}

static void fails(sluice_status *status, sluice_code code, const char *part) {
  assert_non_null(status);
  assert_int_equal(sluice_status_code(status), code);
  if (!strstr(sluice_status_message(status), part))
    fail_msg("\"%s\" lacks \"%s\"", sluice_status_message(status), part);
  sluice_status_free(status);
}

enum { CODE = 10000 };
static char code[6 * SLUICE_BUNDLE_PAGE];

static void make_parts(bundle_part parts[4]) {
  for (size_t i = 0; i < sizeof code; i++) code[i] = (char)(i * 31 + 1);
  parts[0] = (bundle_part){SLUICE_SECTION_MANIFEST, "", "{}\n", 3};
  parts[1] = (bundle_part){SLUICE_SECTION_PLAN, "host:x86-64-v3", code, SLUICE_BUNDLE_PAGE};
  parts[2] = (bundle_part){SLUICE_SECTION_CODE, "host:x86-64-v3", code, CODE};
  parts[3] = (bundle_part){SLUICE_SECTION_TUNING, "", "", 0};
}

static sluice_status *bundle_write(const char *to, const bundle_part *parts, size_t count) {
  bundle_image image;
  SLUICE_TRY(bundle_make(parts, count, &image));
  sluice_status *status = file_write_atomic(to, image.data, image.length);
  bundle_image_free(&image);
  return status;
}

static void a_bundle_reads_back(void **state) {
  (void)state;
  bundle_part parts[4];
  make_parts(parts);
  must(bundle_write(path, parts, 4));
  assert_int_equal(entries(), 1);
  sluice_bundle *bundle;
  must(sluice_bundle_open(path, &bundle)); /* checks digests and padding */
  const sluice_bundle_header *header = sluice_bundle_contents(bundle);
  assert_int_equal(header->section_count, 4);
  assert_int_equal(header->file_length, (1 + 1 + 1 + 3) * SLUICE_BUNDLE_PAGE);
  for (uint32_t i = 0; i < 4; i++) {
    assert_int_equal(header->sections[i].kind, parts[i].kind);
    assert_string_equal(header->sections[i].target, parts[i].target);
    bool is_code = parts[i].kind == SLUICE_SECTION_CODE;
    assert_int_equal(header->sections[i].length, parts[i].length + (is_code ? 32 : 0));
    if (is_code) assert_int_equal(sluice_bundle_code_length(bundle, i), parts[i].length);
    assert_int_equal(header->sections[i].offset % SLUICE_BUNDLE_PAGE, 0);
    if (parts[i].length) assert_memory_equal(sluice_bundle_data(bundle, i), parts[i].data, parts[i].length);
  }
  const char *bytes = sluice_bundle_data(bundle, 2); /* the code ends with the digest of its plan */
  assert_memory_equal(bytes + parts[2].length, header->sections[1].digest, 32);
  sluice_bundle_close(bundle);
  static char first[8 * SLUICE_BUNDLE_PAGE], second[sizeof first];
  size_t length = read_back(first, sizeof first);
  must(bundle_write(path, parts, 4)); /* takes the old one's place */
  assert_int_equal(read_back(second, sizeof second), length);
  assert_memory_equal(first, second, length);
  assert_int_equal(entries(), 1);
}

static void code_without_a_plan_is_refused(void **state) {
  (void)state;
  bundle_part parts[4];
  make_parts(parts);
  parts[1].target = "host:x86-64-v4";
  int before = entries();
  fails(bundle_write(path, parts, 4), SLUICE_INTERNAL, "no plan");
  assert_int_equal(entries(), before);
}

static void too_many_sections_are_refused(void **state) {
  (void)state;
  bundle_part parts[SLUICE_BUNDLE_MAX_SECTIONS + 1];
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) parts[i] = (bundle_part){SLUICE_SECTION_CODE, "x", "y", 1};
  int before = entries();
  fails(bundle_write(path, parts, SLUICE_BUNDLE_MAX_SECTIONS + 1), SLUICE_INTERNAL, "sections");
  assert_int_equal(entries(), before);
}

static void a_full_disk_leaves_the_old_file(void **state) {
  (void)state;
  must(file_write_atomic(path, "before", 6));
  bundle_part parts[4];
  make_parts(parts);
  struct rlimit old;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  for (rlim_t most = 0; most < 6 * SLUICE_BUNDLE_PAGE; most += 1500) { /* in the header, in sections, in padding */
    struct rlimit small = {.rlim_cur = most, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    sluice_status *bundle = bundle_write(path, parts, 4), *file = file_write_atomic(path, code, (size_t)most + 1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    fails(bundle, SLUICE_IO, path);
    fails(file, SLUICE_IO, path);
    char text[8];
    assert_int_equal(read_back(text, sizeof text), 6);
    assert_memory_equal(text, "before", 6);
    assert_int_equal(entries(), 1);
  }
  signal(SIGXFSZ, handler);
}

static void a_bad_path_is_named(void **state) {
  (void)state;
  fails(file_write_atomic("/nonexistent/out", "x", 1), SLUICE_IO, "/nonexistent/out");
  unlink(path);
  fails(file_write_atomic(directory, "x", 1), SLUICE_IO, directory); /* is a directory */
  assert_int_equal(entries(), 0);
}

static int never(void *user, size_t bytes) {
  (void)user;
  (void)bytes;
  return 1;
}

static void short_memory_leaves_nothing(void **state) {
  (void)state;
  bundle_part parts[4];
  make_parts(parts);
  int before = entries();
  sluice_set_allocation_hook(never, NULL);
  sluice_status *bundle = bundle_write(path, parts, 4), *file = file_write_atomic(path, "x", 1);
  sluice_set_allocation_hook(NULL, NULL);
  fails(bundle, SLUICE_OUT_OF_MEMORY, "memory");
  fails(file, SLUICE_OUT_OF_MEMORY, "memory");
  assert_int_equal(entries(), before);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_bundle_reads_back),           cmocka_unit_test(code_without_a_plan_is_refused),
      cmocka_unit_test(too_many_sections_are_refused), cmocka_unit_test(a_full_disk_leaves_the_old_file),
      cmocka_unit_test(a_bad_path_is_named),           cmocka_unit_test(short_memory_leaves_nothing),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}

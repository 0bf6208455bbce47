/* The bundle reader: a good bundle opens; truncated, flipped and forged ones are refused, each with a message. */
#include "support/tiny_bundle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void *good_bundle(size_t *out_length) {
  char code[5000];
  for (size_t i = 0; i < sizeof code; i++) code[i] = (char)(i * 7);
  return tiny_bundle_bytes("host:x86-64", code, sizeof code, out_length);
}

static void refused(const void *data, size_t length, const char *part) {
  sluice_bundle *bundle = NULL;
  sluice_status *status = sluice_bundle_open_memory(data, length, "test.sluice", &bundle);
  assert_non_null(status);
  assert_null(bundle);
  assert_int_equal(sluice_exit_code(status), 1);
  assert_non_null(strstr(sluice_status_message(status), "test.sluice"));
  if (!strstr(sluice_status_message(status), part))
    fail_msg("\"%s\" lacks \"%s\"", sluice_status_message(status), part);
  sluice_status_free(status);
}

static void a_good_bundle_opens(void **state) {
  (void)state;
  size_t length;
  void *data = good_bundle(&length);
  sluice_bundle *bundle = NULL;
  assert_null(sluice_bundle_open_memory(data, length, "test.sluice", &bundle));
  assert_int_equal(sluice_bundle_contents(bundle)->section_count, 3);
  assert_int_equal(sluice_bundle_find(bundle, SLUICE_SECTION_PLAN, "host:x86-64"), 1);
  assert_int_equal(sluice_bundle_find(bundle, SLUICE_SECTION_CODE, NULL), 2);
  assert_int_equal(sluice_bundle_find(bundle, SLUICE_SECTION_CODE, "host:x86-64-v4"), -1);
  assert_int_equal(((const unsigned char *)sluice_bundle_data(bundle, 2))[10], 70);
  sluice_bundle_close(bundle);
  sluice_release(data);
}

static void truncations_are_refused(void **state) {
  (void)state;
  size_t length;
  char *data = good_bundle(&length);
  for (size_t cut = 0; cut < length; cut += 64) {
    char *copy = sluice_allocate_aligned(64, cut ? cut : 1); /* of this very size, so that ASan sees every overrun */
    memcpy(copy, data, cut);
    refused(copy, cut, "bundle");
    sluice_release(copy);
  }
  sluice_release(data);
}

static void every_flipped_bit_is_found(void **state) {
  (void)state;
  size_t length, count = 0;
  unsigned char *data = good_bundle(&length);
  for (size_t at = 0; at < length; at += 37) {
    data[at] ^= (unsigned char)(1u << (at % 8));
    refused(data, length, "bundle");
    data[at] ^= (unsigned char)(1u << (at % 8));
    count++;
  }
  assert_true(count > 400);
  sluice_bundle *bundle = NULL;
  assert_null(sluice_bundle_open_memory(data, length, "test.sluice", &bundle));
  sluice_bundle_close(bundle);
  sluice_release(data);
}

/* Changes that come with matching digests. */
static void forged_headers_are_refused(void **state) {
  (void)state;
  size_t length;
  char *good = good_bundle(&length);
  sluice_bundle_header *h = sluice_allocate_aligned(4096, length);
#define FORGE(change, part)                                                                                            \
  do {                                                                                                                 \
    memcpy(h, good, length);                                                                                           \
    change;                                                                                                            \
    tiny_bundle_seal(h);                                                                                               \
    refused(h, length, part);                                                                                          \
  } while (0)
  FORGE(h->section_count = 0, "section count");
  FORGE(h->section_count = 41, "section count");
  FORGE(h->section_count = UINT32_MAX, "section count");
  FORGE(h->section_count = 4, "unknown kind 0");
  FORGE(h->section_count = 2, "not zero");
  FORGE(h->version = 1,
        "version 1, made by sluice 0.0.9, this program reads version 2: compile it again with the sluice (");
  FORGE(h->file_length++, "its header says");
  FORGE(h->reserved[3] = 1, "reserved");
  FORGE(h->padding[511] = 1, "reserved");
  FORGE(h->sections[0].kind = SLUICE_SECTION_TUNING, "manifest");
  FORGE(h->sections[1].kind = 99, "unknown kind 99");
  FORGE((h->sections[1].kind = SLUICE_SECTION_CODE), "same kind and target");
  FORGE(h->sections[1].reserved = 1, "malformed");
  FORGE(h->sections[1].offset += 4096, "must start at");
  FORGE(h->sections[1].offset = UINT64_MAX - 4095, "must start at");
  FORGE(h->sections[1].offset = 1, "must start at");
  FORGE(h->sections[2].length = UINT64_MAX, "end within");
  FORGE(h->sections[2].length += 4096, "end within");
  FORGE(h->sections[2].length -= 4096, "padding");
  FORGE(((char *)h)[h->sections[1].offset + 20]++, "compiled with another plan");
  FORGE(((char *)h)[h->sections[2].offset + h->sections[2].length - 1]++, "compiled with another plan");
  FORGE(h->sections[2].length--, "");
  FORGE(h->sections[2].target[4] = '-', "compiled with another plan");
  FORGE(memset(h->sections[1].target, 'a', 32), "malformed");
  FORGE(h->sections[1].target[31] = 'a', "zero-padded");
  FORGE(h->sections[1].target[20] = 'a', "zero-padded");
  FORGE(((char *)h)[4096 + 4000] = 1, "padding");
#undef FORGE
  sluice_release(h);
  sluice_release(good);
}

static void write_file(const char *path, const void *data, size_t length) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, length, file), length);
  assert_int_equal(fclose(file), 0);
}

/* Plans that were changed and whose digests were made right again: fields may agree with each other, but not with the
 * code, which says what it was compiled with. */
static void plans_signed_again_are_refused(void **state) {
  (void)state;
  static _Alignas(4096) unsigned char good[1 << 16], changed[sizeof good];
  char path[128];
  snprintf(path, sizeof path, "/tmp/runtime_bundle_%d.signed", (int)getpid());
  assert_int_equal(tiny_bundle_write(path), 0);
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  const size_t length = fread(good, 1, sizeof good, file);
  fclose(file);
  const sluice_bundle_section plan = ((const sluice_bundle_header *)(const void *)good)->sections[1];
  assert_int_equal(plan.kind, SLUICE_SECTION_PLAN);
  sluice_model *model = NULL;
  uint32_t seed = 3;
  for (int i = 0; i < 600; i++) {
    memcpy(changed, good, length);
    for (int edits = 0; edits < 1 + i % 3; edits++) {
      seed = seed * 1664525u + 1013904223u;
      uint32_t *word = (uint32_t *)(void *)(changed + plan.offset) + (seed >> 8) % (plan.length / 4);
      *word = i % 2 ? *word * 2 + 1 : *word ^ 1u << (seed >> 27);
    }
    if (memcmp(changed, good, length) == 0) continue; /* all ones stay so */
    tiny_bundle_seal(changed);
    write_file(path, changed, length);
    sluice_status *status = sluice_model_open(path, NULL, &model);
    assert_int_equal(sluice_exit_code(status), 1);
    if (!strstr(sluice_status_message(status), "compiled with another plan"))
      fail_msg("\"%s\"", sluice_status_message(status));
    sluice_status_free(status);
  }
  write_file(path, good, length);
  assert_null(sluice_model_open(path, NULL, &model));
  sluice_model_close(model);
  unlink(path);
}

static void files_are_read(void **state) {
  (void)state;
  char path[128];
  snprintf(path, sizeof path, "/tmp/runtime_bundle_%d.sluice", (int)getpid());
  size_t length;
  void *data = good_bundle(&length);
  FILE *file = fopen(path, "wb");
  assert_int_equal(fwrite(data, 1, length, file), length);
  fclose(file);
  sluice_bundle *bundle = NULL;
  assert_null(sluice_bundle_open(path, &bundle));
  assert_int_equal(truncate(path, 100), 0); /* while it is open: it has been read */
  assert_memory_equal(sluice_bundle_contents(bundle), data, SLUICE_BUNDLE_PAGE);
  for (uint32_t i = 0; i < sluice_bundle_contents(bundle)->section_count; i++) {
    const sluice_bundle_section *section = &sluice_bundle_contents(bundle)->sections[i];
    assert_memory_equal(sluice_bundle_data(bundle, i), (char *)data + section->offset, section->length);
  }
  sluice_bundle_close(bundle);
  sluice_status *status = sluice_bundle_open(path, &bundle);
  assert_int_equal(sluice_status_code(status), SLUICE_INVALID);
  sluice_status_free(status);
  unlink(path);
  status = sluice_bundle_open(path, &bundle);
  assert_int_equal(sluice_status_code(status), SLUICE_NOT_FOUND);
  sluice_status_free(status);
  status = sluice_bundle_open("/tmp", &bundle);
  assert_int_equal(sluice_status_code(status), SLUICE_INVALID);
  sluice_status_free(status);
  sluice_release(data);
}

/* A plan of another version: the reader says who made it, and what to do. */
static void plans_of_other_versions_are_named(void **state) {
  (void)state;
  size_t length;
  char *data = good_bundle(&length);
  const sluice_bundle_header *header = (const sluice_bundle_header *)(const void *)data;
  sluice_plan plan;
  for (uint32_t version = 1; version < SLUICE_PLAN_VERSION + 2; version++) {
    memcpy(data + header->sections[1].offset, &version, sizeof version);
    tiny_bundle_bind(data);
    tiny_bundle_seal(data);
    sluice_bundle *bundle = NULL;
    assert_null(sluice_bundle_open_memory(data, length, "test.sluice", &bundle));
    sluice_status *status = sluice_bundle_plan(bundle, 1, "test.sluice", &plan);
    assert_int_equal(status != NULL, version != SLUICE_PLAN_VERSION);
    char expected[200];
    snprintf(
        expected, sizeof expected,
        "test.sluice: launch plan version %u, made by sluice 0.0.9, this program reads version %u: compile it again "
        "with the sluice (%s) that came with it",
        version, SLUICE_PLAN_VERSION, sluice_version());
    if (status) assert_string_equal(sluice_status_message(status), expected);
    sluice_status_free(status);
    sluice_bundle_close(bundle);
  }
  sluice_release(data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_good_bundle_opens),
      cmocka_unit_test(truncations_are_refused),
      cmocka_unit_test(every_flipped_bit_is_found),
      cmocka_unit_test(plans_of_other_versions_are_named),
      cmocka_unit_test(forged_headers_are_refused),
      cmocka_unit_test(plans_signed_again_are_refused),
      cmocka_unit_test(files_are_read),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

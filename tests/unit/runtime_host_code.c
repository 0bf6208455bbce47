/* The host's code objects: what the compiler makes is loaded, everything else is refused before any of it runs. */
#include "runtime/devices/host_code.h"
#include "sluice/memory.h"
#include "support/tiny_bundle.h"

#include <dlfcn.h>
#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "/tmp/runtime_host_code-XXXXXX";

static char *path_of(const char *name) {
  static char path[128];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  return path;
}

static void *read_file(const char *path, size_t *out_length) {
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  static char data[1 << 18];
  *out_length = fread(data, 1, sizeof data, file);
  fclose(file);
  assert_true(*out_length > 0 && *out_length < sizeof data);
  void *copy = sluice_allocate(*out_length);
  assert_non_null(copy);
  memcpy(copy, data, *out_length);
  return copy;
}

/* A shared object of `source`, as tiny_bundle.c links its own, with `flags` besides. */
static void *build(const char *source, const char *flags, size_t *out_length) {
  FILE *file = fopen(path_of("code.c"), "w");
  assert_non_null(file);
  fputs(source, file);
  fclose(file);
  char command[1024];
  snprintf(command, sizeof command,
           "cc -O1 -shared -nostdlib -fcf-protection=none -fno-asynchronous-unwind-tables -Wl,--build-id=none "
           "-Wl,--hash-style=gnu %s -o '%s/code.so' '%s/code.c' ",
           flags, directory, directory);
  assert_int_equal(system(command), 0);
  return read_file(path_of("code.so"), out_length);
}

static void must_refuse(const void *code, size_t length, const char *part) {
  sluice_host_code opened;
  sluice_status *status = sluice_host_code_open(code, length, &opened);
  if (!status) fail_msg("accepted, but expected \"%s\"", part);
  if (!strstr(sluice_status_message(status), part))
    fail_msg("\"%s\" lacks \"%s\"", sluice_status_message(status), part);
  sluice_status_free(status);
}

#define PLAIN                                                                                                          \
  "const int table[4] __attribute__((visibility(\"hidden\"))) = {3, 1, 4, 1};\n"                                       \
  "int plain(int a) { return table[a & 3]; }\n"
#define CONSTRUCTOR(kind)                                                                                              \
  PLAIN "extern int setenv(const char *, const char *, int);\n"                                                        \
        "__attribute__((" kind ")) void hello(void) { setenv(\"SLUICE_TEST_RAN\", \"1\", 1); }\n"

/* What the loader would run, fetch or change. */
static void what_runs_at_loading_is_refused(void **state) {
  (void)state;
  static const struct {
    const char *source, *flags, *message;
  } cases[] = {
      {CONSTRUCTOR("constructor"), "-fPIC", ""},
      {CONSTRUCTOR("destructor"), "-fPIC", ""},
      {PLAIN "__attribute__((constructor)) static void hello(void) { __asm__ volatile(\"\"); }\n", "-fPIC",
       "run when it is loaded"},
      {PLAIN "__attribute__((destructor)) static void hello(void) { __asm__ volatile(\"\"); }\n", "-fPIC",
       "run when it is loaded"},
      {PLAIN, "-fPIC -Wl,-init=plain", "run when it is loaded"},
      {PLAIN, "-fPIC -Wl,-fini=plain", "run when it is loaded"},
      {PLAIN, "-fPIC -Wl,--no-as-needed -lm", "DT_NEEDED"},
      {PLAIN, "-fPIC -Wl,-rpath,/tmp", "no use for"},
      {PLAIN "void *where = (void *)plain;\n", "-fPIC", "no use for"},
      {PLAIN "extern void *elsewhere; void **where(void) { return &elsewhere; }\n", "-fPIC", ""},
      {PLAIN "_Thread_local int mine; int *where(void) { return &mine; }\n", "-fPIC", ""},
      {PLAIN "static void *choose(void) { return (void *)plain; }\n"
             "int chosen(int a) __attribute__((ifunc(\"choose\")));\n",
       "-fPIC", ""},
      {PLAIN, "-fPIC -Wl,-z,execstack", "stack"},
      {PLAIN "int data = 3;\n", "-fPIC", "no function"},
      {PLAIN, "-fPIC -Wl,-z,max-page-size=65536", "memory is out of range"},
  };
  unsetenv("SLUICE_TEST_RAN");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t length;
    void *code = build(cases[i].source, cases[i].flags, &length);
    must_refuse(code, length, cases[i].message);
    sluice_release(code);
  }
  assert_null(getenv("SLUICE_TEST_RAN"));
}

/* ---- Damage ---- */

static void *build_plain(size_t *out_length) {
  return build(PLAIN "int other(int a) { return a * 3; }\nint third(int a) { return a - 3; }\n", "-fPIC", out_length);
}

/* What is not refused must load, be searched and unloaded without harm. Nothing of it is called. */
static void try_code(const void *code, size_t length, int *loaded) {
  static const char *const names[] = {"plain", "other", "third", "none"};
  sluice_host_code opened;
  sluice_status *status = sluice_host_code_open(code, length, &opened);
  if (status) {
    assert_int_equal(sluice_exit_code(status), 1);
    sluice_status_free(status);
    return;
  }
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) (void)dlsym(opened.handle, names[i]);
  sluice_host_code_close(&opened);
  ++*loaded;
}

/* Everything the loader reads: the headers and the tables in front of the code, and the dynamic section. */
static void damaged_tables_do_no_harm(void **state) {
  (void)state;
  static const uint64_t hostile[] = {0, 1, 7, 0x1000, 0xffff, 0x7fffffff, 0xffffffff, UINT64_MAX, UINT64_MAX / 2 + 1};
  size_t length, count = 0;
  char *code = build_plain(&length);
  Elf64_Phdr headers[8];
  memcpy(headers, code + sizeof(Elf64_Ehdr), sizeof headers);
  size_t front = headers[0].p_filesz, dynamic = 0, dynamic_end = 0;
  for (int i = 0; i < 8; i++)
    if (headers[i].p_type == PT_DYNAMIC) {
      dynamic = headers[i].p_offset;
      dynamic_end = dynamic + headers[i].p_filesz;
    }
  assert_true(front > 400 && front < 4096 && dynamic);
  int loaded = 0;
  char *changed = sluice_allocate(length);
  for (size_t at = 0; at < dynamic_end; at += 4) {
    if (at >= front && at < dynamic) continue;
    for (size_t k = 0; k < sizeof hostile / sizeof *hostile; k++)
      for (size_t width = 4; width <= 8; width += 4, count++) {
        memcpy(changed, code, length);
        memcpy(changed + at, &hostile[k], width);
        try_code(changed, length, &loaded);
      }
  }
  uint32_t seed = 1;
  for (int i = 0; i < 3000; i++, count++) { /* a few random bytes at once */
    memcpy(changed, code, length);
    for (int edits = 0; edits < 1 + i % 4; edits++) {
      seed = seed * 1664525u + 1013904223u;
      size_t at = (seed >> 8) % (front + dynamic_end - dynamic);
      changed[at < front ? at : at - front + dynamic] = (char)(seed >> 3);
    }
    try_code(changed, length, &loaded);
  }
  print_message("%zu damaged objects: %d could be loaded\n", count, loaded);
  assert_true((size_t)loaded < count / 2);
  for (size_t cut = 0; cut < dynamic_end; cut += 17) { /* in memory of just that size, for the sanitizer */
    char *part = sluice_allocate(cut ? cut : 1);
    memcpy(part, code, cut);
    must_refuse(part, cut, "not what the compiler makes");
    sluice_release(part);
  }
  sluice_release(changed);
  sluice_release(code);
}

/* Two objects at once: neither is taken for the other. */
static void objects_live_side_by_side(void **state) {
  (void)state;
  size_t first_length, second_length;
  void *first = build(PLAIN "int number(void) { return 1; }\n", "-fPIC", &first_length);
  void *second = build(PLAIN "int number(void) { return 2; }\n", "-fPIC", &second_length);
  sluice_host_code a, b;
  assert_null(sluice_host_code_open(first, first_length, &a));
  assert_null(sluice_host_code_open(second, second_length, &b));
  int (*of_a)(void), (*of_b)(void);
  void *symbol = dlsym(a.handle, "number");
  memcpy(&of_a, &symbol, sizeof symbol);
  symbol = dlsym(b.handle, "number");
  memcpy(&of_b, &symbol, sizeof symbol);
  assert_int_equal(of_a(), 1);
  assert_int_equal(of_b(), 2);
  sluice_host_code_close(&a);
  sluice_host_code_close(&b);
  sluice_host_code_close(&b); /* nothing */
  sluice_release(first);
  sluice_release(second);
}

static int set_up(void **state) {
  (void)state;
  return mkdtemp(directory) ? 0 : 1;
}

static int tear_down(void **state) {
  (void)state;
  unlink(path_of("code.c"));
  unlink(path_of("code.so"));

  return rmdir(directory);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(what_runs_at_loading_is_refused),
                                     cmocka_unit_test(damaged_tables_do_no_harm),
                                     cmocka_unit_test(objects_live_side_by_side)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}

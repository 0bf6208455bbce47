/* Damaged code objects: loading one gives an error or a module, never anything worse. */
#include "amdgcn/assemble.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint8_t *file;
static size_t bytes;
static uint64_t random_state = 5;

static uint32_t random_bits(void) {
  random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (uint32_t)(random_state >> 32);
}

/* True: it loads. What is passed has its exact size, so that a sanitizer sees reads past it. */
static bool try_load(const uint8_t *data, size_t size) {
  gcn_machine *machine;
  gcn_module *module;
  gcn_target target;
  uint8_t *copy = malloc(size + 1);
  assert_non_null(copy);
  memcpy(copy, data, size);
  assert_null(gcn_machine_create(GCN_GFX942, &machine));
  sluice_status_free(gcn_code_object_target(copy, size, &target));
  sluice_status *status = gcn_module_load(machine, copy, size, &module);
  bool loaded = status == NULL;
  if (status) {
    assert_true(strlen(sluice_status_message(status)) > 10);
    assert_null(module);
  } else {
    for (uint32_t k = 0; k < gcn_kernel_count(module); k++) {
      const gcn_kernel *kernel = gcn_kernel_at(module, k);
      const gcn_kernel_info *info = gcn_kernel_describe(kernel);
      assert_non_null(info->name);
      for (uint32_t n = 0; n < info->arguments; n++) assert_non_null(gcn_kernel_argument(kernel, n)->name);
    }
  }
  sluice_status_free(status);
  gcn_machine_free(machine);
  free(copy);
  return loaded;
}

static void test_truncated(void **state) {
  (void)state;
  assert_true(try_load(file, bytes));
  for (size_t size = 0; size < bytes; size += size < 4096 ? 7 : 101) assert_false(try_load(file, size));
}

/* Bytes changed: anywhere, and where the structure is (headers, notes, symbols, descriptors). */
static void test_changed(void **state) {
  (void)state;
  uint8_t *copy = malloc(bytes);
  assert_non_null(copy);
  size_t structure = bytes < 4096 ? bytes : 4096;
  for (int round = 0; round < 3000; round++) {
    memcpy(copy, file, bytes);
    for (uint32_t n = 1 + random_bits() % 4; n > 0; n--) {
      size_t at = random_bits() % (round % 4 ? structure : bytes);
      copy[at] = random_bits() % 3 ? (uint8_t)random_bits() : (uint8_t)(random_bits() % 2 ? 0xff : 0);
    }
    try_load(copy, bytes);
  }
  free(copy);
}

/* The wrong GPU is refused by name. */
static void test_other_gpu(void **state) {
  (void)state;
  gcn_machine *machine;
  gcn_module *module;
  gcn_target target;
  assert_null(gcn_code_object_target(file, bytes, &target));
  assert_int_equal(target, GCN_GFX942);
  assert_null(gcn_machine_create(GCN_GFX950, &machine));
  sluice_status *status = gcn_module_load(machine, file, bytes, &module);
  assert_non_null(status);
  assert_non_null(strstr(sluice_status_message(status), "gfx942"));
  assert_non_null(strstr(sluice_status_message(status), "gfx950"));
  sluice_status_free(status);
  gcn_machine_free(machine);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_truncated), cmocka_unit_test(test_changed),
                                     cmocka_unit_test(test_other_gpu)};
  sluice_status *status = gcn_compile_opencl(GCN_GFX942, TEST_DATA "/amdgcn/kernels/common.cl", "-O2", &file, &bytes);
  sluice_status_print(status);
  if (status) return 1;
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  free(file);
  return failed;
}

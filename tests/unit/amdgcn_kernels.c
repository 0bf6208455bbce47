/* Kernels that clang builds from OpenCL C, run by the interpreter of AMD code objects and compared with plain loops. */
#include "amdgcn/assemble.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static gcn_machine *machine;
static gcn_module *module;
static uint64_t random_state;

static uint32_t random_bits(void) {
  random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (uint32_t)(random_state >> 32);
}
static float random_float(void) {
  return (float)(int32_t)random_bits() * 0x1p-31f;
}

static void must(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

static void *device(size_t bytes) {
  void *memory;
  must(gcn_allocate(machine, bytes, &memory));
  return memory;
}

/* Every kernel in several schedules; results may not depend on it unless it says so. */
static void launch_with(const char *name, uint32_t x, uint32_t y, uint32_t lanes, const void *kernarg, size_t bytes,
                        uint64_t seed) {
  const gcn_kernel *kernel = gcn_kernel_find(module, name);
  assert_non_null(kernel);
  must(gcn_launch(kernel,
                  &(gcn_launch_options){
                      .grid = {x, y}, .workgroup = {lanes}, .kernarg = kernarg, .kernarg_bytes = bytes, .seed = seed}));
}

static void test_add(void **state) {
  (void)state;
  enum { N = 1000 };
  float *a = device(4 * N), *b = device(4 * N), *c = device(4 * N);
  for (int i = 0; i < N; i++) a[i] = random_float(), b[i] = random_float();
  struct {
    float *a, *b, *c;
    uint32_t n;
  } arguments = {a, b, c, N};
  launch_with("add", 4, 1, 256, &arguments, 28, 0);
  for (int i = 0; i < N; i++) assert_true(c[i] == a[i] + b[i]);
}

static void test_row_sums(void **state) {
  (void)state;
  enum { ROWS = 10, N = 777 };
  float *a = device(4 * ROWS * N), *out = device(4 * ROWS);
  for (int i = 0; i < ROWS * N; i++) a[i] = random_float();
  struct {
    float *a, *out;
    uint32_t n;
  } arguments = {a, out, N};
  for (uint64_t seed = 0; seed < 4; seed++) {
    launch_with("row_sums", ROWS, 1, 256, &arguments, 20, seed);
    for (int r = 0; r < ROWS; r++) {
      float partial[256] = {0};
      for (int k = 0; k < N; k++) partial[k % 256] += a[r * N + k];
      for (int half = 128; half > 0; half /= 2) {
        for (int k = 0; k < half; k++) partial[k] += partial[k + half];
      }
      assert_true(out[r] == partial[0]);
    }
  }
}

static void test_softmax(void **state) {
  (void)state;
  enum { ROWS = 5, N = 1000 };
  float *a = device(4 * ROWS * N), *out = device(4 * ROWS * N);
  for (int i = 0; i < ROWS * N; i++) a[i] = 8 * random_float();
  struct {
    float *a, *out;
    uint32_t n;
  } arguments = {a, out, N};
  for (uint64_t seed = 0; seed < 3; seed++) {
    launch_with("softmax", ROWS, 1, 256, &arguments, 20, seed);
    for (int r = 0; r < ROWS; r++) {
      double most = -INFINITY, sum = 0;
      for (int k = 0; k < N; k++) most = fmax(most, (double)a[r * N + k]);
      for (int k = 0; k < N; k++) sum += exp((double)a[r * N + k] - most);
      for (int k = 0; k < N; k++) {
        double want = exp((double)a[r * N + k] - most) / sum;
        assert_true(fabs((double)out[r * N + k] - want) < 2e-6 * want);
      }
    }
  }
}

static float bfloat(uint16_t bits) {
  uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

static void test_gemm_bf16(void **state) {
  (void)state;
  enum { M = 128, N = 192, K = 96 };
  uint16_t *a = device(2 * M * K), *b = device(2 * N * K);
  float *c = device(4 * M * N);
  for (int i = 0; i < M * K; i++) a[i] = (uint16_t)(0x3f00 | (random_bits() & 0x80ff));
  for (int i = 0; i < N * K; i++) b[i] = (uint16_t)(0x3f00 | (random_bits() & 0x80ff));
  struct {
    uint16_t *a, *b;
    float *c;
    uint32_t m, n, k;
  } arguments = {a, b, c, M, N, K};
  for (uint64_t seed = 0; seed < 2; seed++) {
    launch_with("gemm_bf16", N / 64, M / 64, 256, &arguments, 36, seed);
    for (int i = 0; i < M * N; i++) {
      double sum = 0, size = 0;
      for (int k = 0; k < K; k++) {
        double p = (double)bfloat(a[i / N * K + k]) * (double)bfloat(b[i % N * K + k]);
        sum += p;
        size += fabs(p);
      }
      assert_true(fabs((double)c[i] - sum) <= 4e-7 * size);
    }
  }
}

static void test_gemm_f32(void **state) {
  (void)state;
  enum { K = 64 };
  float *a = device(4 * 16 * K), *b = device(4 * 16 * K), *c = device(4 * 256);
  for (int i = 0; i < 16 * K; i++) a[i] = random_float(), b[i] = random_float();
  struct {
    float *a, *b, *c;
    uint32_t k;
  } arguments = {a, b, c, K};
  launch_with("gemm_f32", 1, 1, 64, &arguments, 28, 0);
  for (int i = 0; i < 256; i++) {
    float sum = 0;
    for (int k = 0; k < K; k++) sum = fmaf(a[i / 16 * K + k], b[i % 16 * K + k], sum);
    assert_true(c[i] == sum);
  }
}

static void test_histogram(void **state) {
  (void)state;
  enum { GROUPS = 12, N = 256 * GROUPS };
  int *a = device(4 * N), *classes = device(4 * 64), *most = device(4), *swapped = device(4);
  float *sum = device(4);
  for (int i = 0; i < N; i++) a[i] = (int)(random_bits() & 0xffff);
  struct {
    int *a, *classes, *most, *swapped;
    float *sum;
  } arguments = {a, classes, most, swapped, sum};
  for (uint64_t seed = 0; seed < 4; seed++) {
    int want[64] = {0}, largest = 0;
    memset(classes, 0, 256);
    *most = *swapped = 0;
    *sum = 0;
    for (int i = 0; i < N; i++) {
      want[a[i] & 63]++;
      largest = a[i] > largest ? a[i] : largest;
    }
    launch_with("histogram", GROUPS, 1, 256, &arguments, sizeof arguments, seed);
    assert_memory_equal(classes, want, sizeof want);
    assert_int_equal(*most, largest);
    assert_int_equal(*swapped, 3 * N);
    assert_true(*sum == 1.5f * N);
  }
}

static void test_scratch(void **state) {
  (void)state;
  enum { N = 512 };
  int *a = device(4 * 1024), *out = device(4 * N);
  for (int i = 0; i < 1024; i++) a[i] = (int)random_bits();
  struct {
    int *a, *out;
  } arguments = {a, out};
  launch_with("shuffle_in_scratch", N / 256, 1, 256, &arguments, 16, 0);
  for (int i = 0; i < N; i++) {
    int t[32];
    uint32_t r = 0;
    for (int k = 0; k < 32; k++) t[k] = a[(i * 7 + k * 13) & 1023];
    for (int k = 0; k < 32; k++) {
      int j = t[k] & 31, s = t[j];
      t[j] = (int)((uint32_t)t[k] + 1);
      t[k] = s;
    }
    for (int k = 0; k < 32; k++) r = r * 31 + (uint32_t)t[k];
    assert_int_equal(out[i], (int)r);
  }
}

static void test_divergent(void **state) {
  (void)state;
  enum { N = 512 };
  int *a = device(4 * N), *out = device(4 * N);
  for (int i = 0; i < N; i++) a[i] = (int)random_bits();
  struct {
    int *a, *out;
  } arguments = {a, out};
  launch_with("divergent", N / 256, 1, 256, &arguments, 16, 7);
  for (int i = 0; i < N; i++) {
    int n = a[i] & 63, r = 0;
    for (int k = 0; k < n; k++) {
      if ((k ^ i) & 1) {
        r += k * i;
        if (r > 100000) break;
      } else {
        r ^= k;
        if ((r & 7) == 3) continue;
        r += 5;
      }
    }
    assert_int_equal(out[i], r);
  }
}

static uint32_t integers_on_host(int x, int y) {
  uint32_t u = (uint32_t)x, v = (uint32_t)y, r = u * v;
  r ^= (uint32_t)(__builtin_clz(u | 1) + __builtin_ctz(v | 1));
  r += (uint32_t)__builtin_popcount(u);
  r ^= (uint32_t)(((int64_t)x * y) >> 32);
  r += (uint32_t)(((uint64_t)u * v) >> 32);
  r ^= (uint32_t)(x >> (y & 31));
  r += u >> (v & 31);
  r ^= (u << 7) | (u >> 25);
  r += (uint32_t)(x > y ? x : y) ^ (u < v ? u : v);
  r += (uint32_t)((int8_t)x + (int16_t)y * (uint8_t)u);
  r ^= (uint32_t)(x / ((y & 0xff) + 1));
  r += u % ((v & 0xfff) + 3);
  int64_t p = (int64_t)((uint64_t)(int64_t)x << 20) | y, q = (int64_t)y * 7 + x;
  p = (int64_t)((uint64_t)p * (uint64_t)q + (uint64_t)(p >> (v & 31)));
  p ^= p / (q | 1);
  return r + (uint32_t)(p >> 17);
}

static void test_integers(void **state) {
  (void)state;
  enum { N = 2048 };
  int *a = device(8 * N), *out = device(4 * N);
  for (int i = 0; i < 2 * N; i++) a[i] = (int)random_bits() >> (random_bits() & 31);
  struct {
    int *a, *out;
  } arguments = {a, out};
  launch_with("integers", N / 256, 1, 256, &arguments, 16, 0);
  for (int i = 0; i < N; i++) assert_int_equal(out[i], (int)integers_on_host(a[2 * i], a[2 * i + 1]));
}

static void test_floats(void **state) {
  (void)state;
  enum { N = 2048 };
  float *a = device(8 * N), *out = device(4 * N);
  for (int i = 0; i < 2 * N; i++) a[i] = 4 * random_float();
  struct {
    float *a, *out;
  } arguments = {a, out};
  launch_with("floats", N / 256, 1, 256, &arguments, 16, 0);
  for (int i = 0; i < N; i++) {
    float x = a[2 * i], y = a[2 * i + 1];
    double r = (double)fmaf(x, x * y, y) + (double)x / ((double)fabsf(y) + 0.5);
    r += (double)(floorf(x * 10) + rintf(y * 10) + truncf(x) + ceilf(y)) + (double)(int)(x * 100) +
         (double)(uint32_t)(fabsf(y) * 100);
    r += (double)(_Float16)((_Float16)x * (_Float16)y + (_Float16)x) + (double)x * (double)y + (double)x - (int)(y * 3);
    assert_true(fabs((double)out[i] - r) <= 2e-6 * (fabs(r) + 100) + 0.02);
  }
}

static void test_bounded(void **state) {
  (void)state;
  enum { BYTES = 1608 };
  int *a = device(4096), *wide = device(4096), *narrow = device(4096);
  for (int i = 0; i < 1024; i++) a[i] = i + 1, narrow[i] = -1;
  struct {
    int *a, *wide, *narrow;
    uint32_t bytes;
  } arguments = {a, wide, narrow, BYTES};
  launch_with("bounded", 1, 1, 256, &arguments, 28, 0);
  for (int i = 0; i < 1024; i++) {
    assert_int_equal(wide[i], 4 * i + 4 <= BYTES ? i + 1 : 0);
    int stored = i / 2 * 16 + 4 <= BYTES ? 2 * i + 1 : 0;
    assert_int_equal(narrow[i], i % 2 || i >= 512 || 4 * i + 4 > BYTES ? -1 : stored);
  }
}

static void test_reversed(void **state) {
  (void)state;
  enum { N = 1024 };
  int *a = device(4 * N), *out = device(4 * N);
  for (int i = 0; i < N; i++) a[i] = (int)random_bits();
  struct {
    int *a, *out;
  } arguments = {a, out};
  for (uint64_t seed = 0; seed < 3; seed++) {
    launch_with("reversed", N / 256, 1, 256, &arguments, 16, seed);
    for (int i = 0; i < N; i++) assert_int_equal(out[i], a[(i & ~255) | (255 - (i & 255))]);
  }
}

static int load(gcn_target target, const char *level) {
  uint8_t *file;
  size_t bytes;
  random_state = 1;
  must(gcn_machine_create(target, &machine));
  must(gcn_compile_opencl(target, TEST_DATA "/amdgcn/kernels/common.cl", level, &file, &bytes));
  must(gcn_module_load(machine, file, bytes, &module));
  free(file);
  return 0;
}
static int load_gfx942(void **state) {
  (void)state;
  return load(GCN_GFX942, "-O2");
}
static int load_gfx942_plain(void **state) {
  (void)state;
  return load(GCN_GFX942, "-O0");
}
static int load_gfx950(void **state) {
  (void)state;
  return load(GCN_GFX950, "-O2");
}
static int load_gfx950_plain(void **state) {
  (void)state;
  return load(GCN_GFX950, "-O0");
}
static int unload(void **state) {
  (void)state;
  gcn_machine_free(machine);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_add),       cmocka_unit_test(test_row_sums),  cmocka_unit_test(test_softmax),
      cmocka_unit_test(test_gemm_bf16), cmocka_unit_test(test_gemm_f32),  cmocka_unit_test(test_histogram),
      cmocka_unit_test(test_scratch),   cmocka_unit_test(test_divergent), cmocka_unit_test(test_integers),
      cmocka_unit_test(test_floats),    cmocka_unit_test(test_bounded),   cmocka_unit_test(test_reversed),
  };
  int failed = cmocka_run_group_tests_name("gfx942", tests, load_gfx942, unload);
  failed += cmocka_run_group_tests_name("gfx950", tests, load_gfx950, unload);
  /* Without optimisation everything is in scratch and goes through flat addresses. */
  failed += cmocka_run_group_tests_name("gfx942, -O0", tests, load_gfx942_plain, unload);
  return failed + cmocka_run_group_tests_name("gfx950, -O0", tests, load_gfx950_plain, unload);
}

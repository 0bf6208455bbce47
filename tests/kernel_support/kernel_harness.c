#include "kernel_support/kernel_harness.h"

#include "sluice/memory.h"

#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

enum { MAX_KERNELS = 512, MAX_ATTRIBUTES = 32 };

struct kernel_harness {
  char target[32];
  kernel_spec specs[MAX_KERNELS];
  kernel_attribute attributes[MAX_KERNELS][MAX_ATTRIBUTES];
  sluice_host_kernel *functions[MAX_KERNELS];
  int count;
  code_object code;
  void *library;
  int file; /* of the library, -1: none */
  random_state random;
};

static void must(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

static char *copy(const char *text) {
  char *result = strdup(text);
  assert_non_null(result);
  return result;
}

kernel_harness *harness_create(const char *target) {
  kernel_harness *h = calloc(1, sizeof *h);
  assert_non_null(h);
  snprintf(h->target, sizeof h->target, "%s", target);
  h->random.state = 42;
  h->file = -1;
  return h;
}

int harness_add(kernel_harness *h, const char *family, uint32_t argument_count, ...) {
  assert_true(h->count < MAX_KERNELS);
  kernel_spec *spec = &h->specs[h->count];
  char symbol[96];
  snprintf(symbol, sizeof symbol, "%s_%d", family, h->count);
  *spec = (kernel_spec){.family = copy(family),
                        .symbol = copy(symbol),
                        .attributes = h->attributes[h->count],
                        .argument_count = argument_count};
  va_list list;
  va_start(list, argument_count);
  for (const char *name; (name = va_arg(list, const char *));) {
    assert_true(spec->attribute_count < MAX_ATTRIBUTES);
    kernel_attribute *a = &h->attributes[h->count][spec->attribute_count++];
    a->name = copy(name + 2);
    a->kind = name[0] == 'i' ? KERNEL_INTEGER : name[0] == 'f' ? KERNEL_FLOAT : KERNEL_STRING;
    if (a->kind == KERNEL_INTEGER)
      a->integer = va_arg(list, int64_t);
    else if (a->kind == KERNEL_FLOAT)
      a->number = va_arg(list, double);
    else
      a->string = copy(va_arg(list, const char *));
  }
  va_end(list);
  return h->count++;
}

sluice_status *harness_code(const kernel_harness *h, code_object *out_code) {
  return backend_compile(h->target, h->specs, (size_t)h->count, &(backend_options){.form = CODE_LINKED}, out_code);
}

void harness_compile(kernel_harness *h) {
  must(harness_code(h, &h->code));
  int file = memfd_create("kernels", MFD_CLOEXEC);
  assert_true(file >= 0);
  assert_int_equal(write(file, h->code.data, h->code.length), h->code.length);
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  h->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!h->library) fail_msg("%s", dlerror());
  h->file = file; /* stays open: the loader takes two libraries of one path for the same */
  for (int i = 0; i < h->count; i++) {
    void *symbol = dlsym(h->library, h->specs[i].symbol);
    assert_non_null(symbol);
    memcpy(&h->functions[i], &symbol, sizeof symbol);
  }
}

sluice_host_kernel *harness_function(kernel_harness *h, int kernel) {
  return h->functions[kernel];
}

uint32_t harness_workgroup_bytes(const kernel_harness *h, int kernel) {
  return h->code.kernels[kernel].workgroup_bytes;
}

void harness_run(kernel_harness *h, int kernel, void *const *arguments, const int32_t *sizes, int64_t grid_x,
                 int64_t grid_y) {
  int64_t total = grid_x * grid_y, ranges = 0;
  size_t bytes = harness_workgroup_bytes(h, kernel);
  unsigned char *workgroup = aligned_alloc(64, (bytes + 127) / 64 * 64);
  int64_t (*range)[2] = malloc((size_t)(total + 1) * sizeof *range);
  assert_true(workgroup && range);
  for (int64_t first = 0; first < total;) {
    int64_t last = random_between(&h->random, first + 1, total);
    if (random_bits(&h->random) % 2 && last > first + 7) last = first + 7;
    range[ranges][0] = first;
    range[ranges++][1] = last;
    first = last;
  }
  for (int64_t i = ranges - 1; i >= 0; i--) { /* a random order */
    int64_t j = random_between(&h->random, 0, i), first = range[j][0], last = range[j][1];
    range[j][0] = range[i][0];
    range[j][1] = range[i][1];
    memset(workgroup, 0xff, bytes); /* NaN as f32 and as bf16 */
    memset(workgroup + bytes, 0xa5, 64);
    h->functions[kernel](arguments, sizes, first, last, workgroup);
    for (size_t b = 0; b < 64; b++)
      if (workgroup[bytes + b] != 0xa5) fail_msg("%s wrote past its workgroup memory", h->specs[kernel].symbol);
  }
  free(range);
  free(workgroup);
}

void harness_free(kernel_harness *h) {
  if (h->library) dlclose(h->library);
  if (h->file >= 0) close(h->file);
  code_object_free(&h->code);
  for (int i = 0; i < h->count; i++) {
    for (size_t a = 0; a < h->specs[i].attribute_count; a++) {
      free((void *)(uintptr_t)h->attributes[i][a].name);
      free((void *)(uintptr_t)h->attributes[i][a].string);
    }
    free((void *)(uintptr_t)h->specs[i].family);
    free((void *)(uintptr_t)h->specs[i].symbol);
  }
  free(h);
}

const char *const *harness_targets(void) {
  static const char *const names[] = {"host:x86-64",    "host:x86-64-v2",      "host:x86-64-v3",
                                      "host:x86-64-v4", "host:x86-64-v4-bf16", NULL};
  static const char *usable[6];
  __builtin_cpu_init();
  int levels = 1;
  if (__builtin_cpu_supports("x86-64-v2")) levels = 2;
  if (__builtin_cpu_supports("x86-64-v3")) levels = 3;
  if (__builtin_cpu_supports("x86-64-v4")) levels = __builtin_cpu_supports("avx512bf16") ? 5 : 4;
  for (int i = 0; i < levels; i++) usable[i] = names[i];
  usable[levels] = NULL;
  return usable;
}

/* ---- data ---- */
uint64_t random_bits(random_state *random) { /* splitmix64 */
  uint64_t z = random->state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

int64_t random_between(random_state *random, int64_t low, int64_t high) {
  return low + (int64_t)(random_bits(random) % (uint64_t)(high - low + 1));
}

float random_normal(random_state *random) {
  uint64_t z = random_bits(random);
  int64_t sum = (int64_t)(z & 0xffff) + (int64_t)(z >> 16 & 0xffff) + (int64_t)(z >> 32 & 0xffff) + (int64_t)(z >> 48);
  return (float)(sum - 131070) / 37837.227f;
}

void *random_elements(random_state *random, sluice_dtype dtype, size_t count, double scale) {
  void *data = malloc(count * sluice_dtype_size(dtype) + 64);
  assert_non_null(data);
  for (size_t i = 0; i < count; i++) element_put(data, dtype, i, (double)random_normal(random) * scale);
  return data;
}

void *poisoned_elements(sluice_dtype dtype, size_t count) {
  void *data = malloc(count * sluice_dtype_size(dtype) + 64);
  assert_non_null(data);
  memset(data, 0xff, count * sluice_dtype_size(dtype) + 64);
  return data;
}

double element_at(const void *data, sluice_dtype dtype, size_t index) {
  if (dtype == SLUICE_BF16) return (double)sluice_f32_from_bf16(((const uint16_t *)data)[index]);
  return (double)((const float *)data)[index];
}

void element_put(void *data, sluice_dtype dtype, size_t index, double value) {
  if (dtype == SLUICE_BF16)
    ((uint16_t *)data)[index] = sluice_bf16_from_f32((float)value);
  else
    ((float *)data)[index] = (float)value;
}

void expect_close(const void *found, sluice_dtype dtype, size_t index, double expected, double absolute,
                  double relative, const char *what) {
  double value = element_at(found, dtype, index), bound = absolute + relative * fabs(expected);
  if (dtype == SLUICE_BF16) bound += fabs(expected) / 256;
  if (!(fabs(value - expected) <= bound))
    fail_msg("%s: element %zu is %.9g, expected %.9g within %.3g", what, index, value, expected, bound);
}

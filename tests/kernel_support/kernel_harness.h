/* Running single kernels in tests: specs are collected, compiled for a host level into one shared object, and called in
 * random ranges of workgroups with poisoned workgroup memory.
 *
 *   kernel_harness *h = harness_create("host:x86-64-v3");
 *   int add = harness_add(h, "add", 3, "s:size", "tokens", "i:width", (int64_t)99, "s:dtype", "f32", NULL);
 *   harness_compile(h);
 *   harness_run(h, add, (void *[]){a, b, out}, sizes, grid_x, grid_y);
 *   harness_free(h);
 *
 * Every function fails the running cmocka test on an error.
 */
#ifndef TESTS_KERNEL_HARNESS_H
#define TESTS_KERNEL_HARNESS_H

#include "backends/common/kernel.h"
#include "sluice/plan.h"

typedef struct kernel_harness kernel_harness;

kernel_harness *harness_create(const char *target);

/* Adds a kernel; its attributes follow as pairs: "i:name", int64_t; "f:name", double; "s:name", const char * (copied);
 * then NULL. Returns the kernel's index. */
int harness_add(kernel_harness *harness, const char *family, uint32_t argument_count, ...);

void harness_compile(kernel_harness *harness);
/* The code for the target, for who runs it otherwise; free with code_object_free. */
SLUICE_MUST_USE sluice_status *harness_code(const kernel_harness *harness, code_object *out_code);

/* Runs workgroups [0, grid_x * grid_y) in ranges of random length and order. `sizes` has SLUICE_SIZE_COUNT elements. */
void harness_run(kernel_harness *harness, int kernel, void *const *arguments, const int32_t *sizes, int64_t grid_x,
                 int64_t grid_y);

/* The compiled function, for timing. */
sluice_host_kernel *harness_function(kernel_harness *harness, int kernel);
uint32_t harness_workgroup_bytes(const kernel_harness *harness, int kernel);

void harness_free(kernel_harness *harness);

/* The levels that this machine can run, NULL-terminated, e.g. "host:x86-64-v3". */
const char *const *harness_targets(void);

/* ---- data ---- */
typedef struct random_state {
  uint64_t state;
} random_state;
uint64_t random_bits(random_state *random);
/* Uniform in [low, high], both included. */
int64_t random_between(random_state *random, int64_t low, int64_t high);
/* Close to a standard normal. */
float random_normal(random_state *random);

/* `count` elements of `dtype` (F32 or BF16), freed with free(); filled with normal numbers times `scale`, or with NaNs.
 */
void *random_elements(random_state *random, sluice_dtype dtype, size_t count, double scale);
void *poisoned_elements(sluice_dtype dtype, size_t count);
double element_at(const void *data, sluice_dtype dtype, size_t index);
void element_put(void *data, sluice_dtype dtype, size_t index, double value);

/* Fails unless |found - expected| <= absolute + relative * |expected|; for BF16 half a unit in the last place is added.
 * NaN fails. */
void expect_close(const void *found, sluice_dtype dtype, size_t index, double expected, double absolute,
                  double relative, const char *what);

#endif

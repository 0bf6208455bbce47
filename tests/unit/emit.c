/* The helpers that kernel families use (backends/common/emit.h) and the atoms of every host level, in tiny kernels of
 * this file's own: this program's kernel_family_find takes the place of the library's. */
#include "backends/common/emit.h"
#include "kernel_support/kernel_harness.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CHUNK = 4096, PATTERN_STRIDE = 1021, WIDTHS = 71, LOOPS = 400, MAX_VECTOR = 16, REDUCTIONS = 64 };

/* ---- the kernels ---- */

typedef V unary_function(emitter *e, V x);

typedef struct unary_row {
  unary_function *function;
  V in, out;
} unary_row;

static void unary_body(emitter *e, V offset, unsigned vector, void *user) {
  const unary_row *row = user;
  V x = load_f32(e, SLUICE_F32, row->in, offset, vector);
  store_f32(e, SLUICE_F32, row->function(e, x), row->out, offset);
}

/* in, out: f32[CHUNK] for each workgroup. `width` is CHUNK for vectors, 1 for a loop over single elements. */
static void family_unary(emitter *e, const kernel_spec *spec) {
  const int64_t width = kernel_integer(spec, "width", &e->status);
  e->spec = spec;
  unary_row row = {.function = attribute_is(e, "function", "exp2") ? e->atoms->exp2 : e->atoms->rsqrt};
  kernel_begin(e, spec, each(SLUICE_SIZE_TOKENS, 0));
  V start = mul(e, e->x, int64(e, CHUNK));
  loop parts = loop_begin(e, int64(e, 0), int64(e, CHUNK), int64(e, width));
  V at = add(e, start, parts.index);
  row.in = element_of(e, SLUICE_F32, e->argument[0], at);
  row.out = element_of(e, SLUICE_F32, e->argument[1], at);
  row_loop(e, width, unary_body, &row);
  loop_end(e, &parts);
  kernel_end(e);
}

typedef struct copy_row {
  sluice_dtype from_dtype, to_dtype;
  V from, to;
} copy_row;

static void copy_body(emitter *e, V offset, unsigned vector, void *user) {
  const copy_row *row = user;
  store_f32(e, row->to_dtype, load_f32(e, row->from_dtype, row->from, offset, vector), row->to, offset);
}

/* Converts CHUNK elements in each workgroup; `width` as above. */
static void family_convert(emitter *e, const kernel_spec *spec) {
  const int64_t width = kernel_integer(spec, "width", &e->status);
  copy_row row = {.from_dtype = kernel_dtype(spec, "from", &e->status),
                  .to_dtype = kernel_dtype(spec, "to", &e->status)};
  kernel_begin(e, spec, each(SLUICE_SIZE_TOKENS, 0));
  V start = mul(e, e->x, int64(e, CHUNK));
  loop parts = loop_begin(e, int64(e, 0), int64(e, CHUNK), int64(e, width));
  V at = add(e, start, parts.index);
  row.from = element_of(e, row.from_dtype, e->argument[0], at);
  row.to = element_of(e, row.to_dtype, e->argument[1], at);
  row_loop(e, width, copy_body, &row);
  loop_end(e, &parts);
  kernel_end(e);
}

static void count_body(emitter *e, V offset, unsigned vector, void *user) {
  V counts = *(V *)user;
  V old = load_f32(e, SLUICE_F32, counts, offset, vector);
  store_f32(e, SLUICE_F32, fadd_(e, old, splat(e, float32(e, 1), vector)), counts, offset);
}

/* Adds 1 to the first `width` of a row of 128. */
static void family_count(emitter *e, const kernel_spec *spec) {
  const int64_t width = kernel_integer(spec, "width", &e->status);
  kernel_begin(e, spec, each(SLUICE_SIZE_TOKENS, 0));
  V counts = element_of(e, SLUICE_F32, e->argument[0], mul(e, e->x, int64(e, 128)));
  row_loop(e, width, count_body, &counts);
  kernel_end(e);
}

/* {from, to, step} -> {trips, sum of even indices, sum of odd ones minus 3 for each above 10}. */
static void family_control(emitter *e, const kernel_spec *spec) {
  kernel_begin(e, spec, each(SLUICE_SIZE_TOKENS, 0));
  V base = mul(e, e->x, int64(e, 3));
  V bound[3];
  for (int i = 0; i < 3; i++) bound[i] = load_i32(e, e->argument[0], add(e, base, int64(e, i)));
  V trips = local_set(e, e->i64, int64(e, 0)), even = local_set(e, e->i64, int64(e, 0)),
    odd = local_set(e, e->i64, int64(e, 0));
  loop l = loop_begin(e, bound[0], bound[1], bound[2]);
  set(e, trips, add(e, get(e, e->i64, trips), int64(e, 1)));
  branch parity = if_begin(e, icmp(e, LLVMIntEQ, and_(e, l.index, int64(e, 1)), int64(e, 0)));
  set(e, even, add(e, get(e, e->i64, even), l.index));
  if_else(e, &parity);
  set(e, odd, add(e, get(e, e->i64, odd), l.index));
  branch large = if_begin(e, icmp(e, LLVMIntSGT, l.index, int64(e, 10))); /* without an else */
  set(e, odd, sub(e, get(e, e->i64, odd), int64(e, 3)));
  if_end(e, &large);
  if_end(e, &parity);
  loop_end(e, &l);
  store_i32(e, get(e, e->i64, trips), e->argument[1], base);
  store_i32(e, get(e, e->i64, even), e->argument[1], add(e, base, int64(e, 1)));
  store_i32(e, get(e, e->i64, odd), e->argument[1], add(e, base, int64(e, 2)));
  kernel_end(e);
}

/* One full vector of each row of MAX_VECTOR -> {sum, maximum, minimum, elements of the vector}. */
static void family_reduce(emitter *e, const kernel_spec *spec) {
  kernel_begin(e, spec, each(SLUICE_SIZE_TOKENS, 0));
  V x = load_f32(e, SLUICE_F32, e->argument[0], mul(e, e->x, int64(e, MAX_VECTOR)), e->vector);
  V base = mul(e, e->x, int64(e, 4));
  static const reduction operations[] = {REDUCE_ADD, REDUCE_MAX, REDUCE_MIN};
  for (int i = 0; i < 3; i++)
    store_f32(e, SLUICE_F32, vector_reduce(e, x, operations[i]), e->argument[1], add(e, base, int64(e, i)));
  store_f32(e, SLUICE_F32, float32(e, e->vector), e->argument[1], add(e, base, int64(e, 3)));
  kernel_end(e);
}

kernel_family *kernel_family_find(const char *name) {
  static const struct {
    const char *name;
    kernel_family *family;
  } table[] = {{"unary", family_unary},
               {"convert", family_convert},
               {"count", family_count},
               {"control", family_control},
               {"reduce", family_reduce}};
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (strcmp(name, table[i].name) == 0) return table[i].family;
  return NULL;
}

/* ---- helpers ---- */

static void *need(size_t bytes) {
  void *memory = calloc(1, bytes);
  assert_non_null(memory);
  return memory;
}

static float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static uint32_t to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

/* |found - expected| in units in the last place of the float32 at `expected`; 0 for equal infinities. */
static double ulps(float found, double expected) {
  const float nearest = (float)expected;
  if (isinf(nearest) || isinf(found)) return found == nearest ? 0 : INFINITY;
  int exponent = expected == 0 ? -126 : ilogb(expected);
  if (exponent < -126) exponent = -126;
  return fabs((double)found - expected) / ldexp(1, exponent - 23);
}

static void run(kernel_harness *h, int kernel, void *const *arguments, int64_t workgroups) {
  int32_t sizes[SLUICE_SIZE_COUNT] = {0};
  sizes[SLUICE_SIZE_TOKENS] = (int32_t)workgroups;
  harness_run(h, kernel, arguments, sizes, workgroups, 1);
}

/* ---- tests ---- */

static double exact_rsqrt(double x) {
  return 1 / sqrt(x);
}

static void atoms_are_accurate(void **state) {
  (void)state;
  static const struct {
    const char *name;
    double (*exact)(double);
  } functions[] = {{"exp2", exp2}, {"rsqrt", exact_rsqrt}};
  const size_t patterns = ((size_t)1 << 32) / PATTERN_STRIDE, edges = 64 * 6;
  const size_t count = (patterns + edges + CHUNK - 1) / CHUNK * CHUNK;
  float *in = need(count * sizeof *in), *out = need(count * sizeof *out);
  double *expected = need(count * sizeof *expected);
  for (size_t i = 0; i < patterns; i++) in[i] = from_bits((uint32_t)(i * PATTERN_STRIDE));
  /* around 0, the smallest normal, 1, the largest finite and infinity, with both signs; around exp2's ends */
  static const uint32_t near[] = {0, 0x00800000, 0x3f800000, 0x7f800000, 0x43000000, 0x43150000};
  for (size_t i = 0; i < edges; i++)
    in[patterns + i] = from_bits((near[i / 64] + (uint32_t)(i % 64 / 2) - 16) ^ (i % 2 ? 0x80000000u : 0));
  for (size_t f = 0; f < sizeof functions / sizeof *functions; f++) {
    for (size_t i = 0; i < count; i++) expected[i] = functions[f].exact((double)in[i]);
    for (const char *const *target = harness_targets(); *target; target++) {
      kernel_harness *h = harness_create(*target);
      const int kernels[] = {
          harness_add(h, "unary", 2, "s:function", functions[f].name, "i:width", (int64_t)CHUNK, NULL),
          harness_add(h, "unary", 2, "s:function", functions[f].name, "i:width", (int64_t)1, NULL)};
      harness_compile(h);
      for (int k = 0; k < 2; k++) {
        double worst = 0;
        run(h, kernels[k], (void *[]){in, out}, (int64_t)(count / CHUNK));
        for (size_t i = 0; i < count; i++) {
          if (isnan(expected[i])) {
            if (!isnan(out[i])) fail_msg("%s: %s(%a) is %a", *target, functions[f].name, (double)in[i], (double)out[i]);
            continue;
          }
          const double error = ulps(out[i], expected[i]);
          if (!(error <= 2))
            fail_msg("%s: %s(%a) is %a, expected %a: %.2f ulp", *target, functions[f].name, (double)in[i],
                     (double)out[i], expected[i], error);
          if (error > worst) worst = error;
        }
        print_message("%s %s%s: at most %.3f ulp on %zu values\n", *target, functions[f].name, k ? " scalar" : "",
                      worst, count);
      }
      harness_free(h);
    }
  }
  free(in), free(out), free(expected);
}

static void bf16_rounds_to_nearest_even(void **state) {
  (void)state;
  enum { LOWER = 32 };
  const size_t count = (size_t)65536 * LOWER;
  float *in = need(count * sizeof *in), *wide = need(65536 * sizeof *wide);
  uint16_t *out = need(count * sizeof *out), *every = need(65536 * sizeof *every);
  random_state random = {7};
  static const uint32_t lower[] = {0, 1, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff};
  for (size_t i = 0; i < count; i++) {
    const size_t k = i % LOWER;
    in[i] = from_bits((uint32_t)(i / LOWER) << 16 | (k < 8 ? lower[k] : (uint32_t)random_bits(&random) & 0xffff));
  }
  for (size_t i = 0; i < 65536; i++) every[i] = (uint16_t)i;
  for (const char *const *target = harness_targets(); *target; target++) {
    kernel_harness *h = harness_create(*target);
    int narrow[2], widen[2];
    for (int k = 0; k < 2; k++) {
      const int64_t width = k ? 1 : CHUNK;
      narrow[k] = harness_add(h, "convert", 2, "s:from", "f32", "s:to", "bf16", "i:width", width, NULL);
      widen[k] = harness_add(h, "convert", 2, "s:from", "bf16", "s:to", "f32", "i:width", width, NULL);
    }
    harness_compile(h);
    for (int k = 0; k < 2; k++) {
      run(h, narrow[k], (void *[]){in, out}, (int64_t)(count / CHUNK));
      for (size_t i = 0; i < count; i++) {
        const uint32_t bits = to_bits(in[i]);
        const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
        /* Nearest even, from first principles: the discarded half decides, a tie goes to the even neighbour. */
        const uint32_t up = (bits & 0xffff) > 0x8000 || ((bits & 0xffff) == 0x8000 && (bits >> 16 & 1));
        if (is_nan ? (out[i] & 0x7fff) <= 0x7f80 : out[i] != (bits >> 16) + up)
          fail_msg("%s: %08x became %04x", *target, bits, out[i]);
      }
      run(h, widen[k], (void *[]){every, wide}, 65536 / CHUNK);
      for (uint32_t i = 0; i < 65536; i++)
        if (to_bits(wide[i]) != i << 16) fail_msg("%s: %04x became %08x", *target, i, to_bits(wide[i]));
    }
    harness_free(h);
  }
  free(in), free(wide), free(out), free(every);
}

static void row_loops_visit_each_element_once(void **state) {
  (void)state;
  for (const char *const *target = harness_targets(); *target; target++) {
    kernel_harness *h = harness_create(*target);
    for (int64_t width = 0; width < WIDTHS; width++)
      assert_int_equal(harness_add(h, "count", 1, "i:width", width, NULL), width);
    harness_compile(h);
    for (int width = 0; width < WIDTHS; width++) {
      float counts[3 * 128] = {0};
      run(h, width, (void *[]){counts}, 3);
      for (int i = 0; i < 3 * 128; i++)
        if (counts[i] != (i % 128 < width ? 1.0f : 0.0f))
          fail_msg("%s: width %d: element %d was visited %g times", *target, width, i % 128, (double)counts[i]);
    }
    harness_free(h);
  }
}

static void loops_and_branches(void **state) {
  (void)state;
  int32_t bounds[LOOPS][3], found[LOOPS][3];
  random_state random = {11};
  for (int i = 0; i < LOOPS; i++) {
    bounds[i][0] = (int32_t)random_between(&random, -20, 20);
    bounds[i][1] = bounds[i][0] + (int32_t)random_between(&random, -5, 40); /* many with zero trips */
    bounds[i][2] = (int32_t)random_between(&random, 1, 9);
    if (i % 8 == 0) bounds[i][1] = bounds[i][0];
  }
  for (const char *const *target = harness_targets(); *target; target++) {
    kernel_harness *h = harness_create(*target);
    const int kernel = harness_add(h, "control", 2, NULL);
    harness_compile(h);
    memset(found, 0x55, sizeof found);
    run(h, kernel, (void *[]){bounds, found}, LOOPS);
    for (int i = 0; i < LOOPS; i++) {
      int32_t expected[3] = {0};
      for (int32_t j = bounds[i][0]; j < bounds[i][1]; j += bounds[i][2]) {
        expected[0]++;
        if (j % 2 == 0)
          expected[1] += j;
        else
          expected[2] += j > 10 ? j - 3 : j;
      }
      if (memcmp(expected, found[i], sizeof expected) != 0)
        fail_msg("%s: from %d to %d by %d: {%d, %d, %d}, expected {%d, %d, %d}", *target, bounds[i][0], bounds[i][1],
                 bounds[i][2], found[i][0], found[i][1], found[i][2], expected[0], expected[1], expected[2]);
    }
    harness_free(h);
  }
}

static void reductions_have_a_fixed_order(void **state) {
  (void)state;
  float in[REDUCTIONS][MAX_VECTOR], found[REDUCTIONS][4];
  random_state random = {13};
  int order_matters = 0;
  for (int i = 0; i < REDUCTIONS; i++)
    for (int j = 0; j < MAX_VECTOR; j++) in[i][j] = random_normal(&random) * (j % 3 ? 1.0f : 1e6f);
  for (int j = 1; j < MAX_VECTOR; j += 2) in[0][j] = NAN; /* loses against numbers in maximum and minimum */
  for (const char *const *target = harness_targets(); *target; target++) {
    kernel_harness *h = harness_create(*target);
    const int kernel = harness_add(h, "reduce", 2, NULL);
    harness_compile(h);
    run(h, kernel, (void *[]){in, found}, REDUCTIONS);
    for (int i = 0; i < REDUCTIONS; i++) {
      const int vector = (int)found[i][3];
      assert_true(vector == 4 || vector == 8 || vector == 16);
      float tree[MAX_VECTOR], largest = -INFINITY, smallest = INFINITY, forward = 0;
      memcpy(tree, in[i], sizeof tree);
      for (int half = vector / 2; half; half /= 2)
        for (int j = 0; j < half; j++) tree[j] += tree[j + half];
      for (int j = 0; j < vector; j++) {
        largest = fmaxf(largest, in[i][j]);
        smallest = fminf(smallest, in[i][j]);
        forward += in[i][j];
      }
      order_matters += forward != tree[0];
      if (i) assert_int_equal(to_bits(found[i][0]), to_bits(tree[0]));
      if (!i) assert_true(isnan(found[i][0]));
      assert_int_equal(to_bits(found[i][1]), to_bits(largest));
      assert_int_equal(to_bits(found[i][2]), to_bits(smallest));
    }
    harness_free(h);
  }
  assert_true(order_matters > REDUCTIONS); /* else the inputs could not tell one order from another */
}

/* The host runs workgroups in any order, so none may wait for another. */
static void the_host_joins_nothing(void **state) {
  (void)state;
  const kernel_part parts[] = {{.kernel = 0}, {.kernel = 0, .waits = 1}};
  const kernel_spec specs[] = {
      {.family = "control", .symbol = "control_0", .argument_count = 2},
      {.family = "join", .symbol = "join_1", .argument_count = 5, .parts = parts, .part_count = 2}};
  code_object code = {0};
  sluice_status *status = backend_compile("host:x86-64", specs, 2, &(backend_options){.form = CODE_LINKED}, &code);
  assert_int_equal(sluice_status_code(status), SLUICE_INTERNAL);
  assert_non_null(strstr(sluice_status_message(status), "join_1: the target cannot join 2 launches"));
  sluice_status_free(status);
  code_object_free(&code);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(atoms_are_accurate),
                                     cmocka_unit_test(bf16_rounds_to_nearest_even),
                                     cmocka_unit_test(row_loops_visit_each_element_once),
                                     cmocka_unit_test(loops_and_branches),
                                     cmocka_unit_test(reductions_have_a_fixed_order),
                                     cmocka_unit_test(the_host_joins_nothing)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

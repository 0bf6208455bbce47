/* The families gemm and expert_gemm against plain sums in double, for random shapes, every level of this machine. */
#include "backends/common/configuration.h"
#include "kernel_support/kernel_harness.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CASES = 24 };

typedef struct gemm_case {
  int64_t n, k, rows, tile_m, panel;
  const char *epilogue;
  sluice_dtype x, weight, out;
  int64_t experts, top_k; /* expert_gemm: rows are tokens */
  int64_t shared;         /* 1: with a shared expert */
  bool by_slot;
  int kernel;
} gemm_case;

static const char *dtype_text(sluice_dtype dtype) {
  return dtype == SLUICE_F32 ? "f32" : "bf16";
}

/* The panels of a matrix [n][k] in SLUICE_LAYOUT_PANELS, at `panels`, `stride` panels apart. */
static void pack(const void *matrix, sluice_dtype dtype, int64_t n, int64_t k, int64_t panel, int64_t first,
                 int64_t stride, void *panels) {
  int64_t pairs = (k + 1) / 2, size = pairs * panel * 2;
  for (int64_t p = 0; p < (n + panel - 1) / panel; p++)
    for (int64_t c = 0; c < pairs * 2; c++)
      for (int64_t r = 0; r < panel; r++) {
        int64_t row = p * panel + r;
        double value = row < n && c < k ? element_at(matrix, dtype, (size_t)(row * k + c)) : 0;
        element_put(panels, dtype, (size_t)((first + p * stride) * size + ((c / 2) * panel + r) * 2 + c % 2), value);
      }
}

static double dot(const void *x, sluice_dtype x_dtype, const void *w, sluice_dtype w_dtype, int64_t k,
                  double *magnitude) {
  double sum = 0, total = 0;
  for (int64_t i = 0; i < k; i++) {
    double product = element_at(x, x_dtype, (size_t)i) * element_at(w, w_dtype, (size_t)i);
    sum += product;
    total += fabs(product);
  }
  *magnitude = total;
  return sum;
}

static const void *row_of(const void *matrix, sluice_dtype dtype, int64_t row, int64_t k) {
  return (const char *)matrix + (size_t)(row * k) * sluice_dtype_size(dtype);
}

static double swiglu(double gate, double up) {
  double g = fmin(gate, 7), u = fmax(fmin(up, 7), -7);
  return (u + 1) * g / (1 + exp(-1.702 * g));
}

static gemm_case random_case(random_state *random, unsigned vector, unsigned widest_panel, bool experts) {
  static const int64_t rows[] = {0, 1, 2, 3, 5, 7, 48, 49, 97};
  gemm_case c = {.n = random_between(random, 1, 3 * widest_panel),
                 .k = random_between(random, 1, 80),
                 .rows = rows[random_between(random, 0, 8)],
                 .tile_m = random_between(random, 1, 50),
                 .panel = widest_panel,
                 .x = random_bits(random) % 2 ? SLUICE_F32 : SLUICE_BF16,
                 .weight = random_bits(random) % 3 ? SLUICE_BF16 : SLUICE_F32,
                 .out = random_bits(random) % 2 ? SLUICE_F32 : SLUICE_BF16};
  if (random_bits(random) % 3 == 0) c.panel = vector;
  if (random_bits(random) % 4 == 0) c.n = 1;
  if (random_bits(random) % 4 == 0) c.k = 1;
  c.epilogue = (const char *[]){"none", "add", "swiglu"}[random_bits(random) % 3];
  if (experts) {
    c.experts = random_between(random, 1, 6);
    c.top_k = random_between(random, 1, c.experts < 3 ? c.experts : 3);
    c.by_slot = random_bits(random) % 2;
    c.shared = random_bits(random) % 2;
    if (!strcmp(c.epilogue, "add")) c.epilogue = "none";
  }
  return c;
}

static int64_t batch_elements(const gemm_case *c) {
  int64_t panels = (c->n + c->panel - 1) / c->panel * (strcmp(c->epilogue, "swiglu") ? 1 : 2);
  int64_t elements = panels * ((c->k + 1) / 2) * 2 * c->panel;
  return (elements + 31) / 32 * 32;
}

static void add_kernel(kernel_harness *h, gemm_case *c) {
  if (c->experts)
    c->kernel = harness_add(h, "expert_gemm", 7, "i:n", c->n, "i:k", c->k, "i:experts", c->experts, "i:top_k", c->top_k,
                            "i:shared", c->shared, "s:gather", c->by_slot ? "slot" : "token", "s:overlap", "none",
                            "s:epilogue", c->epilogue, "f:alpha", 1.702, "f:limit", 7.0, "s:x_dtype", dtype_text(c->x),
                            "s:weight_dtype", dtype_text(c->weight), "s:out_dtype", dtype_text(c->out), "i:tile_m",
                            c->tile_m, "i:panel", c->panel, "i:slice", c->panel, "i:group", (int64_t)2, "i:workgroups",
                            (int64_t)0, "s:schedule", "tiles", "i:lanes", (int64_t)1, "i:stages", (int64_t)1,
                            "i:batch_bytes", batch_elements(c) * (int64_t)sluice_dtype_size(c->weight), NULL);
  else
    c->kernel = harness_add(h, "gemm", 4, "s:size", "tokens", "i:n", c->n, "i:k", c->k, "s:epilogue", c->epilogue,
                            "f:alpha", 1.702, "f:limit", 7.0, "s:x_dtype", dtype_text(c->x), "s:weight_dtype",
                            dtype_text(c->weight), "s:out_dtype", dtype_text(c->out), "i:tile_m", c->tile_m, "i:panel",
                            c->panel, "i:slice", c->panel, "i:group", (int64_t)2, "i:workgroups", (int64_t)0,
                            "s:schedule", "tiles", "i:lanes", (int64_t)1, "i:stages", (int64_t)1, NULL);
}

/* Checks row `row` of out against x row `x_row` times expert `expert`'s matrices. */
static void check_row(const gemm_case *c, const void *x, int64_t x_row, const void *gate, const void *up,
                      int64_t expert, const void *residual, const void *out, int64_t row) {
  const void *xs = row_of(x, c->x, x_row, c->k);
  for (int64_t j = 0; j < c->n; j++) {
    double magnitude, other,
        expected = dot(xs, c->x, row_of(gate, c->weight, expert * c->n + j, c->k), c->weight, c->k, &magnitude);
    double bound = 1e-6 * magnitude + 1e-6;
    if (!strcmp(c->epilogue, "swiglu")) {
      double u = dot(xs, c->x, row_of(up, c->weight, expert * c->n + j, c->k), c->weight, c->k, &other);
      bound = 1e-5 * (magnitude + other + 1);
      expected = swiglu(expected, u);
    }
    if (!strcmp(c->epilogue, "add")) expected += element_at(residual, c->out, (size_t)(row * c->n + j));
    expect_close(out, c->out, (size_t)(row * c->n + j), expected, bound, 1e-6, c->experts ? "expert_gemm" : "gemm");
  }
}

static void check_gemm(kernel_harness *h, const gemm_case *c, random_state *random) {
  size_t matrix = (size_t)(c->n * c->k);
  void *x = random_elements(random, c->x, (size_t)(c->rows * c->k) + 1, 1);
  void *gate = random_elements(random, c->weight, matrix, 1), *up = random_elements(random, c->weight, matrix, 1);
  void *residual = random_elements(random, c->out, (size_t)(c->rows * c->n) + 1, 1);
  void *packed = calloc((size_t)batch_elements(c), sluice_dtype_size(c->weight));
  void *out = poisoned_elements(c->out, (size_t)(c->rows * c->n));
  bool pairs = !strcmp(c->epilogue, "swiglu");
  assert_non_null(packed);
  pack(gate, c->weight, c->n, c->k, c->panel, 0, pairs ? 2 : 1, packed);
  if (pairs) pack(up, c->weight, c->n, c->k, c->panel, 1, 2, packed);
  int32_t sizes[SLUICE_SIZE_COUNT] = {1, (int32_t)c->rows};
  harness_run(h, c->kernel, (void *[]){x, packed, residual, out}, sizes, (c->n + c->panel - 1) / c->panel,
              (c->rows + c->tile_m - 1) / c->tile_m);
  for (int64_t r = 0; r < c->rows; r++) check_row(c, x, r, gate, up, 0, residual, out, r);
  const unsigned char *past = (const unsigned char *)out + (size_t)(c->rows * c->n) * sluice_dtype_size(c->out);
  for (int i = 0; i < 64; i++) assert_int_equal(past[i], 0xff);
  free(x), free(gate), free(up), free(residual), free(packed), free(out);
}

static void check_experts(kernel_harness *h, const gemm_case *c, random_state *random) {
  int64_t of_token = c->top_k + c->shared, experts = c->experts + c->shared; /* the shared one is the last */
  int64_t slots = c->rows * of_token, x_rows = c->by_slot ? slots : c->rows;
  size_t matrix = (size_t)(experts * c->n * c->k), element = sluice_dtype_size(c->weight);
  void *x = random_elements(random, c->x, (size_t)(x_rows * c->k) + 1, 1);
  void *gate = random_elements(random, c->weight, matrix, 1), *up = random_elements(random, c->weight, matrix, 1);
  char *packed = calloc((size_t)(batch_elements(c) * c->experts), element);
  char *packed_shared = calloc((size_t)batch_elements(c), element);
  void *out = poisoned_elements(c->out, (size_t)(slots * c->n));
  bool pairs = !strcmp(c->epilogue, "swiglu");
  assert_true(packed && packed_shared);
  for (int64_t e = 0; e < experts; e++) {
    char *at = e < c->experts ? packed + (size_t)(e * batch_elements(c)) * element : packed_shared;
    pack(row_of(gate, c->weight, e * c->n, c->k), c->weight, c->n, c->k, c->panel, 0, pairs ? 2 : 1, at);
    if (pairs) pack(row_of(up, c->weight, e * c->n, c->k), c->weight, c->n, c->k, c->panel, 1, 2, at);
  }
  /* Random routing, sorted by expert. */
  int32_t *expert_of = malloc((size_t)(slots + 1) * 4), *order = malloc((size_t)(slots + 1) * 4);
  int32_t *tiles = malloc((size_t)(slots + 1) * 16), *counts = calloc((size_t)experts + 4, 4);
  assert_true(expert_of && order && tiles && counts);
  for (int64_t s = 0; s < slots; s++)
    expert_of[s] = (int32_t)(s % of_token == c->top_k ? c->experts : random_between(random, 0, c->experts - 1));
  int32_t place = 0;
  for (int32_t e = 0; e < experts; e++) {
    counts[1 + e] = place;
    for (int32_t s = 0; s < slots; s++)
      if (expert_of[s] == e) order[place++] = s;
    for (int32_t first = counts[1 + e]; first < place; first += (int32_t)c->tile_m) {
      int32_t *t = tiles + 4 * counts[0]++;
      t[0] = e, t[1] = first, t[3] = 0;
      t[2] = place - first < c->tile_m ? place - first : (int32_t)c->tile_m;
    }
  }
  counts[1 + experts] = place;
  int32_t sizes[SLUICE_SIZE_COUNT] = {1, (int32_t)c->rows};
  harness_run(h, c->kernel, (void *[]){x, packed, c->shared ? packed_shared : NULL, counts, order, tiles, out}, sizes,
              (c->n + c->panel - 1) / c->panel, slots);
  for (int64_t s = 0; s < slots; s++)
    check_row(c, x, c->by_slot ? s : s / of_token, gate, up, expert_of[s], NULL, out, s);
  free(x), free(gate), free(up), free(packed), free(packed_shared), free(out), free(expert_of), free(order),
      free(tiles), free(counts);
}

static void check(bool experts) {
  for (const char *const *target = harness_targets(); *target; target++) {
    random_state random = {.state = experts ? 7 : 3};
    configuration *configured;
    kernel_variants variants;
    assert_null(configuration_open(*target, &configured));
    assert_null(configuration_find(configured, &(kernel_question){.family = "gemm", .n = 1, .k = 1}, &variants));
    configuration_close(configured);
    unsigned vector = strstr(*target, "v4") ? 16 : strstr(*target, "v3") ? 8 : 4;
    kernel_harness *h = harness_create(*target);
    gemm_case cases[CASES];
    for (int i = 0; i < CASES; i++) {
      cases[i] = random_case(&random, vector, (unsigned)variants.item[0].choice[CHOOSE_PANEL], experts);
      add_kernel(h, &cases[i]);
    }
    harness_compile(h);
    for (int i = 0; i < CASES; i++)
      for (int repeat = 0; repeat < 3; repeat++)
        experts ? check_experts(h, &cases[i], &random) : check_gemm(h, &cases[i], &random);
    harness_free(h);
  }
}

static void gemm(void **state) {
  (void)state;
  check(false);
}

static void expert_gemm(void **state) {
  (void)state;
  check(true);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(gemm), cmocka_unit_test(expert_gemm)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

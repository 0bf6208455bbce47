/* head_norm, rope_table, rope, cache_append and norm_rope_append against plain loops in double and libm. */
#include "kernel_support/ragged_batch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const double EPSILON = 1e-6;

static const char *best_target(void) {
  const char *const *targets = harness_targets();
  while (targets[1]) targets++;
  return *targets;
}

static sluice_dtype dtype_of(const char *name) {
  return strcmp(name, "f32") == 0 ? SLUICE_F32 : SLUICE_BF16;
}

/* Distance in units in the last place; both finite. */
static int64_t ulps(float a, float b) {
  int32_t x, y;
  memcpy(&x, &a, 4);
  memcpy(&y, &b, 4);
  if (x < 0) x = INT32_MIN - x;
  if (y < 0) y = INT32_MIN - y;
  return llabs((int64_t)x - y);
}

/* Every position below 2^20 at a stride, and random ones up to 2^21. The angle is the float32 product; libm's double
 * functions of that angle are the truth, and libm's float32 functions may differ from them by one unit. */
static void table_on(const char *target, double theta, int64_t rotary_dim) {
  enum { COUNT = 4096 };
  kernel_harness *h = harness_create(target);
  int kernel = harness_add(h, "rope_table", 2, "f:theta", theta, "i:rotary_dim", rotary_dim, NULL);
  harness_compile(h);
  random_state random = {17};
  int32_t positions[COUNT], sizes[SLUICE_SIZE_COUNT] = {0};
  for (int i = 0; i < COUNT; ++i)
    positions[i] = (int32_t)(i < 256 ? i : i < 2048 ? i * 512 - 1 : random_between(&random, 0, 1 << 21));
  positions[COUNT - 1] = (1 << 20) - 1;
  positions[COUNT - 2] = 1 << 21;
  sizes[SLUICE_SIZE_TOKENS] = COUNT;
  float *table = poisoned_elements(SLUICE_F32, (size_t)(COUNT * rotary_dim));
  harness_run(h, kernel, (void *[]){positions, table}, sizes, COUNT, 1);
  int64_t half = rotary_dim / 2;
  for (int64_t t = 0; t < COUNT; ++t)
    for (int64_t i = 0; i < half; ++i) {
      float frequency = 1.0f / powf((float)theta, (float)(2 * i) / (float)rotary_dim);
      float angle = (float)positions[t] * frequency;
      float cosine = table[t * rotary_dim + i], sine = table[t * rotary_dim + half + i];
      int64_t cosine_error = ulps(cosine, (float)cos((double)angle)),
              sine_error = ulps(sine, (float)sin((double)angle));
      if (cosine_error > 1 || sine_error > 1 || ulps(cosine, cosf(angle)) > 2 || ulps(sine, sinf(angle)) > 2)
        fail_msg("%s: position %d, dimension %d: cos %.9g sin %.9g of angle %.9g", target, positions[t], (int)i,
                 (double)cosine, (double)sine, (double)angle);
    }
  free(table);
  harness_free(h);
}

static void tables(void **state) {
  (void)state;
  table_on(best_target(), 5e6, 64);
  table_on(best_target(), 1e4, 34);
  for (const char *const *target = harness_targets(); *target; ++target) table_on(*target, 5e6, 16);
}

/* ---- a head in double ---- */

static void reference_norm(double *head, int64_t dim, const void *weight, sluice_dtype weight_dtype) {
  double sum = 0;
  for (int64_t d = 0; d < dim; ++d) sum += head[d] * head[d];
  double scale = 1 / sqrt(sum / (double)dim + EPSILON);
  for (int64_t d = 0; d < dim; ++d) head[d] *= scale * (1 + element_at(weight, weight_dtype, (size_t)d));
}

static void reference_rope(double *head, const float *table, int64_t rotary_dim) {
  int64_t half = rotary_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    double a = head[i], b = head[i + half], c = (double)table[i], s = (double)table[half + i];
    head[i] = a * c - b * s;
    head[i + half] = b * c + a * s;
  }
}

static void load_head(double *head, const void *x, sluice_dtype dtype, int64_t offset, int64_t dim) {
  for (int64_t d = 0; d < dim; ++d) head[d] = element_at(x, dtype, (size_t)(offset + d));
}

static void expect_head(const void *x, sluice_dtype dtype, int64_t offset, const double *head, int64_t dim,
                        const char *what) {
  for (int64_t d = 0; d < dim; ++d) expect_close(x, dtype, (size_t)(offset + d), head[d], 2e-6, 2e-6, what);
}

typedef struct shape {
  int64_t heads, kv_heads, head_dim, index_heads, index_dim, rotary_dim, page;
  const char *dtype, *weight_dtype;
} shape;

static float *random_table(random_state *random, int64_t tokens, int64_t rotary_dim) {
  float *table = malloc((size_t)(tokens * rotary_dim + 1) * sizeof *table);
  assert_non_null(table);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t i = 0; i < rotary_dim / 2; ++i) {
      float angle = 3 * random_normal(random);
      table[t * rotary_dim + i] = cosf(angle);
      table[t * rotary_dim + rotary_dim / 2 + i] = sinf(angle);
    }
  return table;
}

static void single_ops(const char *target, const shape *s) {
  enum { TOKENS = 9 };
  random_state random = {23};
  sluice_dtype dtype = dtype_of(s->dtype), weight_dtype = dtype_of(s->weight_dtype);
  kernel_harness *h = harness_create(target);
  int norm = harness_add(h, "head_norm", 3, "i:heads", s->heads, "i:head_dim", s->head_dim, "f:eps", EPSILON, "s:dtype",
                         s->dtype, "s:weight_dtype", s->weight_dtype, NULL);
  int rope = harness_add(h, "rope", 3, "i:heads", s->heads, "i:head_dim", s->head_dim, "i:rotary_dim", s->rotary_dim,
                         "s:dtype", s->dtype, NULL);
  harness_compile(h);
  int32_t sizes[SLUICE_SIZE_COUNT] = {0};
  sizes[SLUICE_SIZE_TOKENS] = TOKENS;
  size_t elements = (size_t)(TOKENS * s->heads * s->head_dim);
  void *x = random_elements(&random, dtype, elements, 2.0);
  void *weight = random_elements(&random, weight_dtype, (size_t)s->head_dim, 0.2);
  void *out = poisoned_elements(dtype, elements);
  float *table = random_table(&random, TOKENS, s->rotary_dim);
  double head[512];
  for (int64_t d = 0; d < s->head_dim; ++d)
    element_put(x, dtype, (size_t)d, 0); /* eps keeps the norm of zeros finite */
  harness_run(h, norm, (void *[]){x, weight, out}, sizes, TOKENS, 1);
  for (int64_t i = 0; i < TOKENS * s->heads; ++i) {
    load_head(head, x, dtype, i * s->head_dim, s->head_dim);
    reference_norm(head, s->head_dim, weight, weight_dtype);
    expect_head(out, dtype, i * s->head_dim, head, s->head_dim, "head_norm");
  }
  harness_run(h, rope, (void *[]){x, table, out}, sizes, TOKENS, 1);
  for (int64_t i = 0; i < TOKENS * s->heads; ++i) {
    load_head(head, x, dtype, i * s->head_dim, s->head_dim);
    reference_rope(head, table + i / s->heads * s->rotary_dim, s->rotary_dim);
    expect_head(out, dtype, i * s->head_dim, head, s->head_dim, "rope");
  }
  free(x);
  free(weight);
  free(out);
  free(table);
  harness_free(h);
}

/* The slots of this step's tokens hold what they should, and no other byte of the cache changed. */
static void append(const char *target, const shape *s) {
  static const batch_sequence sequences[] = {{0, 1}, {0, 37}, {15, 2}, {130, 1}, {7, 9}};
  random_state random = {29};
  sluice_dtype dtype = dtype_of(s->dtype), weight_dtype = dtype_of(s->weight_dtype);
  ragged_batch *batch = batch_create(&random, sequences, 5, s->page, 16);
  paged_cache *cache = cache_create(batch, dtype, s->kv_heads, s->head_dim, s->index_dim);
  paged_cache *expected = cache_create(batch, dtype, s->kv_heads, s->head_dim, s->index_dim);
  paged_cache *plain = cache_create(batch, dtype, s->kv_heads, s->head_dim, s->index_dim);
  kernel_harness *h = harness_create(target);
  int kernel =
      harness_add(h, "norm_rope_append", 12, "i:heads", s->heads, "i:kv_heads", s->kv_heads, "i:head_dim", s->head_dim,
                  "i:index_heads", s->index_heads, "i:index_dim", s->index_dim, "i:rotary_dim", s->rotary_dim, "f:eps",
                  EPSILON, "i:page", s->page, "i:page_bytes", cache->page_bytes, "s:transposed", "keys",
                  "i:value_offset", cache->value_offset, "i:index_offset", cache->index_offset, "s:dtype", s->dtype,
                  "s:weight_dtype", s->weight_dtype, "i:many", (int64_t)0, NULL);
  static const char *const parts[] = {"key", "value", "index_key"};
  int copies[3];
  for (int p = 0; p < 3; ++p)
    copies[p] =
        harness_add(h, "cache_append", 5, "s:part", parts[p], "i:heads", p < 2 ? s->kv_heads : (int64_t)1, "i:head_dim",
                    p < 2              ? s->head_dim
                    : s->index_dim > 0 ? s->index_dim
                                       : (int64_t)2,
                    "i:page", s->page, "i:page_bytes", cache->page_bytes, "s:transposed", "keys", "i:part_offset",
                    p == 0   ? (int64_t)0
                    : p == 1 ? cache->value_offset
                             : cache->index_offset,
                    "s:dtype", s->dtype, NULL);
  harness_compile(h);
  int64_t tokens = batch->tokens, q_width = s->heads * s->head_dim, kv_width = s->kv_heads * s->head_dim;
  int64_t iq_width = s->index_heads * s->index_dim;
  int64_t width = q_width + 2 * kv_width + iq_width + s->index_dim;
  void *projection = random_elements(&random, dtype, (size_t)(tokens * width), 2.0);
  void *norms[4];
  for (int i = 0; i < 4; ++i) norms[i] = random_elements(&random, weight_dtype, 512, 0.2);
  float *table = random_table(&random, tokens, s->rotary_dim);
  void *q = poisoned_elements(dtype, (size_t)(tokens * q_width)),
       *iq = poisoned_elements(dtype, (size_t)(tokens * iq_width));
  bool index = s->index_heads > 0;
  harness_run(h, kernel,
              (void *[]){projection, table, norms[0], norms[1], index ? norms[2] : NULL, index ? norms[3] : NULL,
                         batch->position, batch->sequence, batch->page_table, cache->data, q, index ? iq : NULL},
              batch->sizes, tokens, 1);
  void *keys = malloc((size_t)(tokens * kv_width) * 4), *values = malloc((size_t)(tokens * kv_width) * 4);
  void *index_keys = malloc((size_t)(tokens * s->index_dim + 1) * 4);
  assert_true(keys && values && index_keys);
  double head[512];
  for (int64_t t = 0; t < tokens; ++t) {
    int64_t at = t * width, position = batch->position[t], sequence = batch->sequence[t];
    const float *row = table + t * s->rotary_dim;
    for (int64_t i = 0; i < s->heads; ++i, at += s->head_dim) {
      load_head(head, projection, dtype, at, s->head_dim);
      reference_norm(head, s->head_dim, norms[0], weight_dtype);
      reference_rope(head, row, s->rotary_dim);
      expect_head(q, dtype, t * q_width + i * s->head_dim, head, s->head_dim, "q");
    }
    for (int64_t i = 0; i < s->kv_heads; ++i, at += s->head_dim) {
      load_head(head, projection, dtype, at, s->head_dim);
      reference_norm(head, s->head_dim, norms[1], weight_dtype);
      reference_rope(head, row, s->rotary_dim);
      for (int64_t d = 0; d < s->head_dim; ++d) {
        void *found = cache_key(cache, batch, sequence, position, i, d);
        expect_close(found, dtype, 0, head[d], 2e-6, 2e-6, "key");
        memcpy(cache_key(expected, batch, sequence, position, i, d), found, sluice_dtype_size(dtype));
        element_put(keys, dtype, (size_t)(t * kv_width + i * s->head_dim + d), element_at(found, dtype, 0));
      }
    }
    for (int64_t i = 0; i < s->kv_heads; ++i, at += s->head_dim)
      for (int64_t d = 0; d < s->head_dim; ++d) {
        double value = element_at(projection, dtype, (size_t)(at + d));
        element_put(cache_value(expected, batch, sequence, position, i, d), dtype, 0, value);
        element_put(values, dtype, (size_t)(t * kv_width + i * s->head_dim + d), value);
      }
    for (int64_t i = 0; i < s->index_heads; ++i, at += s->index_dim) {
      load_head(head, projection, dtype, at, s->index_dim);
      reference_norm(head, s->index_dim, norms[2], weight_dtype);
      reference_rope(head, row, s->rotary_dim);
      expect_head(iq, dtype, t * iq_width + i * s->index_dim, head, s->index_dim, "index q");
    }
    if (!index) continue;
    load_head(head, projection, dtype, at, s->index_dim);
    reference_norm(head, s->index_dim, norms[3], weight_dtype);
    reference_rope(head, row, s->rotary_dim);
    for (int64_t d = 0; d < s->index_dim; ++d) {
      void *found = cache_index_key(cache, batch, sequence, position, d);
      expect_close(found, dtype, 0, head[d], 2e-6, 2e-6, "index key");
      memcpy(cache_index_key(expected, batch, sequence, position, d), found, sluice_dtype_size(dtype));
      element_put(index_keys, dtype, (size_t)(t * s->index_dim + d), element_at(found, dtype, 0));
    }
  }
  assert_memory_equal(cache->mapping, expected->mapping, (size_t)(cache->data - cache->mapping));
  assert_memory_equal(cache->data, expected->data, cache->bytes);
  void *sources[3] = {keys, values, index_keys};
  for (int p = 0; p < (index ? 3 : 2); ++p)
    harness_run(h, copies[p], (void *[]){sources[p], batch->position, batch->sequence, batch->page_table, plain->data},
                batch->sizes, tokens, 1);
  assert_memory_equal(plain->data, expected->data, cache->bytes);
  for (int i = 0; i < 4; ++i) free(norms[i]);
  free(keys);
  free(values);
  free(index_keys);
  free(projection);
  free(table);
  free(q);
  free(iq);
  cache_free(cache);
  cache_free(expected);
  cache_free(plain);
  batch_free(batch);
  harness_free(h);
}

static void heads(void **state) {
  (void)state;
  static const shape list[] = {
      {8, 4, 128, 4, 128, 64, 128, "f32", "f32"}, {8, 4, 128, 4, 128, 64, 128, "bf16", "bf16"},
      {4, 2, 64, 2, 64, 32, 16, "f32", "bf16"},   {4, 2, 32, 2, 16, 16, 8, "bf16", "f32"},
      {3, 3, 2, 0, 0, 2, 20, "f32", "f32"},       {5, 1, 18, 1, 14, 10, 24, "bf16", "bf16"},
      {2, 2, 256, 0, 0, 256, 17, "f32", "bf16"},  {1, 1, 50, 1, 98, 34, 32, "f32", "f32"},
  };
  for (size_t i = 0; i < sizeof list / sizeof *list; ++i) {
    single_ops(best_target(), &list[i]);
    append(best_target(), &list[i]);
  }
}

static void levels(void **state) {
  (void)state;
  for (const char *const *target = harness_targets(); *target; ++target) {
    single_ops(*target, &(shape){4, 2, 64, 2, 32, 32, 16, "f32", "bf16"});
    append(*target, &(shape){4, 2, 64, 2, 32, 32, 16, "f32", "bf16"});
    append(*target, &(shape){3, 1, 22, 2, 26, 18, 12, "bf16", "bf16"});
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tables),
      cmocka_unit_test(heads),
      cmocka_unit_test(levels),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The float64 reference model against the outputs of Hugging Face transformers in float32: every logit, layer output,
 * block, expert and token, in prefill and in decoding. What the other model tests compare with stands on this. */
#include "sluice/checkpoint.h"
#include "sluice/json.h"
#include "support/reference.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_LAYERS = 8 };

static void must(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

static double number(const sluice_json_value *object, const char *key) {
  const sluice_json_value *value = sluice_json_get(object, key);
  if (!value) fail_msg("config.json has no %s", key);
  return value->number;
}

static int64_t integer(const sluice_json_value *object, const char *key) {
  return (int64_t)number(object, key);
}

static bool is_sparse(const sluice_json_value *text, const char *key, int64_t layer) {
  const sluice_json_value *types = sluice_json_get(text, key);
  assert_non_null(types);
  return strstr(types->items[layer].string, "sparse") != NULL;
}

/* A config.json as transformers writes it. */
static reference_dims read_dims(const char *path, reference_layer *layers) {
  sluice_json_document *document;
  must(sluice_json_parse_file(path, &document));
  const sluice_json_value *text = sluice_json_get(sluice_json_root(document), "text_config");
  const sluice_json_value *rope = sluice_json_get(text, "rope_parameters");
  reference_dims dims = {.hidden = integer(text, "hidden_size"),
                         .layers = integer(text, "num_hidden_layers"),
                         .heads = integer(text, "num_attention_heads"),
                         .kv_heads = integer(text, "num_key_value_heads"),
                         .head_dim = integer(text, "head_dim"),
                         .vocabulary = integer(text, "vocab_size"),
                         .rotary_dim = integer(text, "rotary_dim"),
                         .eps = number(text, "rms_norm_eps"),
                         .rope_theta = number(rope, "rope_theta"),
                         .swiglu_alpha = number(text, "swiglu_alpha"),
                         .swiglu_limit = number(text, "swiglu_limit"),
                         .layer = layers};
  assert_true(dims.layers <= MAX_LAYERS);
  for (int64_t i = 0; i < dims.layers; i++)
    layers[i] = (reference_layer){.sparse_attention = is_sparse(text, "layer_types", i),
                                  .index_dim = integer(text, "index_head_dim"),
                                  .block = integer(text, "index_block_size"),
                                  .top_k_blocks = integer(text, "index_topk_blocks"),
                                  .local_blocks = integer(text, "index_local_blocks"),
                                  .moe = is_sparse(text, "mlp_layer_types", i),
                                  .experts = integer(text, "num_local_experts"),
                                  .experts_per_token = integer(text, "num_experts_per_tok"),
                                  .expert_width = integer(text, "intermediate_size"),
                                  .shared_width = integer(text, "shared_intermediate_size"),
                                  .routed_scale = number(text, "routed_scaling_factor"),
                                  .dense_width = integer(text, "dense_intermediate_size")};
  sluice_json_free(document);
  return dims;
}

typedef struct golden {
  sluice_safetensors *file;
} golden;

static const void *golden_tensor(const golden *g, int64_t *shape, const char *format, int64_t layer) {
  char name[64];
  snprintf(name, sizeof name, format, (long long)layer);
  const sluice_tensor_info *info = sluice_safetensors_find(g->file, name);
  if (!info) fail_msg("no tensor %s", name);
  for (unsigned i = 0; shape && i < info->rank; i++) shape[i] = info->shape[i];
  return sluice_safetensors_data(g->file, info);
}

static void expect_row(const double *found, const float *expected, int64_t count, double bound, const char *what,
                       int64_t row, double *worst) {
  for (int64_t i = 0; i < count; i++) {
    const double difference = fabs(found[i] - (double)expected[i]);
    if (!(difference <= bound))
      fail_msg("%s, row %lld, element %lld: %.9g, expected %.9g", what, (long long)row, (long long)i, found[i],
               (double)expected[i]);
    *worst = fmax(*worst, difference);
  }
}

/* The golden files list blocks and experts in no particular order. */
static void expect_set(const int32_t *found, const int32_t *expected, int64_t k, const char *what, int64_t layer,
                       int64_t position) {
  for (int64_t i = 0; i < k; i++) {
    int64_t here = 0, there = 0;
    for (int64_t j = 0; j < k; j++) {
      here += found[j] == expected[i];
      there += expected[j] == expected[i];
    }
    if (here != there)
      fail_msg("layer %lld, position %lld: %s differ at %d", (long long)layer, (long long)position, what, expected[i]);
  }
}

static void expect_layer(const golden *g, const reference_dims *dims, const reference_sequence *s, int64_t layer,
                         double *worst) {
  const reference_layer *config = &dims->layer[layer];
  const reference_trace *trace = &s->layer[layer];
  int64_t row_count, shape[3];
  const int32_t *rows = golden_tensor(g, &row_count, "rows", 0);
  const float *out = golden_tensor(g, NULL, "prefill.layer.%lld.out", layer);
  for (int64_t r = 0; r < row_count; r++)
    expect_row(trace->out + rows[r] * dims->hidden, out + r * dims->hidden, dims->hidden, 2e-5, "layer output", rows[r],
               worst);
  if (config->sparse_attention) {
    const int32_t *blocks = golden_tensor(g, shape, "prefill.layer.%lld.blocks", layer);
    const int64_t k = config->top_k_blocks;
    assert_int_equal(shape[0], dims->kv_heads);
    assert_int_equal(shape[2], k);
    for (int64_t head = 0; head < shape[0]; head++)
      for (int64_t t = 0; t < shape[1]; t++)
        expect_set(trace->blocks + (t * shape[0] + head) * k, blocks + (head * shape[1] + t) * k, k, "blocks", layer,
                   t);
  }
  if (config->moe) {
    const int32_t *experts = golden_tensor(g, shape, "prefill.layer.%lld.router.experts", layer);
    const float *weights = golden_tensor(g, NULL, "prefill.layer.%lld.router.weights", layer);
    const int64_t k = config->experts_per_token;
    assert_int_equal(shape[1], k);
    for (int64_t t = 0; t < shape[0]; t++) {
      expect_set(trace->experts + t * k, experts + t * k, k, "experts", layer, t);
      for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++)
          if (trace->experts[t * k + i] == experts[t * k + j])
            expect_row(trace->weights + t * k + i, weights + t * k + j, 1, 2e-5, "expert weight", t, worst);
    }
  }
}

static void expect_golden(const char *name) {
  char path[512];
  reference_layer layers[MAX_LAYERS];
  golden g;
  snprintf(path, sizeof path, "%s/golden/%s/config.json", TEST_DATA, name);
  const reference_dims dims = read_dims(path, layers);
  snprintf(path, sizeof path, "%s/golden/%s/golden.float32.safetensors", TEST_DATA, name);
  must(sluice_safetensors_open(path, &g.file));
  snprintf(path, sizeof path, "%s/golden/%s/synthetic.json", TEST_DATA, name);
  sluice_json_document *description;
  must(sluice_json_parse_file(path, &description));
  uint64_t seed = (uint64_t)integer(sluice_json_root(description), "seed");
  sluice_json_free(description);
  int64_t prompt, row_count, shape[2];
  const int32_t *ids = golden_tensor(&g, &prompt, "input_ids", 0), *rows = golden_tensor(&g, &row_count, "rows", 0);
  const int32_t *tokens = golden_tensor(&g, NULL, "decode.tokens", 0);
  const float *prefill = golden_tensor(&g, NULL, "prefill.logits", 0);
  const float *decode = golden_tensor(&g, shape, "decode.logits", 0);

  reference_model *model = reference_create(&dims, reference_synthetic, &seed);
  assert_non_null(model);
  reference_sequence *s = reference_sequence_create(model, prompt + shape[0]);
  assert_non_null(s);
  double worst_logit = 0, worst_layer = 0;
  reference_feed(s, ids, prompt);
  for (int64_t r = 0; r < row_count; r++)
    expect_row(s->logits + rows[r] * dims.vocabulary, prefill + r * dims.vocabulary, dims.vocabulary, 2e-5, "logits",
               rows[r], &worst_logit);
  for (int64_t i = 0; i < dims.layers; i++) expect_layer(&g, &dims, s, i, &worst_layer);
  assert_int_equal(reference_greedy(s, prompt - 1), tokens[0]);
  for (int64_t step = 0; step < shape[0]; step++) {
    reference_feed(s, &tokens[step], 1);
    expect_row(s->logits + (prompt + step) * dims.vocabulary, decode + step * dims.vocabulary, dims.vocabulary, 2e-5,
               "decode logits", step, &worst_logit);
    assert_int_equal(reference_greedy(s, prompt + step), tokens[step + 1]);
  }
  print_message("%s: %lld + %lld tokens, largest difference of a logit %.2g, of a layer %.2g\n", name,
                (long long)prompt, (long long)shape[0], worst_logit, worst_layer);
  reference_sequence_free(s);
  reference_free(model);
  sluice_safetensors_close(g.file);
}

static void nano_agrees(void **state) {
  (void)state;
  expect_golden("nano");
}

static void blocks_agrees(void **state) {
  (void)state;
  expect_golden("blocks");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(nano_agrees), cmocka_unit_test(blocks_agrees)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

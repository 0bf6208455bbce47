#include "kernel_support/random_model.h"

#include "compiler/compile.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void must(sluice_status *status, const random_model *model) {
  if (!status) return;
  sluice_status_print(status);
  fail_msg("%s", model->description);
}

/* ---- dimensions ---- */

static int64_t pick(random_state *random, const int64_t *values, int64_t count) {
  return values[random_between(random, 0, count - 1)];
}
#define PICK(random, ...)                                                                                              \
  pick(random, (const int64_t[]){__VA_ARGS__}, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

static void choose_dims(random_model *m, random_state *random, uint64_t number) {
  static const int64_t head_dims[] = {32, 64, 128};
  const int64_t head_dim = head_dims[number % 3], group = PICK(random, 1, 2, 3, 5, 8, 16, 32);
  const int64_t kv_heads = random_between(random, 1, group > 8 ? 2 : 4);
  reference_dims *d = &m->dims;
  d->layer = m->layers;
  d->heads = group * kv_heads;
  d->kv_heads = kv_heads;
  d->head_dim = head_dim;
  d->hidden = random_between(random, 17, 180);
  d->layers = random_between(random, 1, RANDOM_LAYERS);
  d->vocabulary = random_between(random, 30, 700);
  d->rotary_dim = head_dim / PICK(random, 1, 2, 4);
  d->eps = PICK(random, 0, 1) ? 1e-6 : 1e-5;
  d->rope_theta = PICK(random, 0, 1) ? 5e6 : 1e4;
  d->swiglu_alpha = 1.702;
  d->swiglu_limit = PICK(random, 0, 1) ? 7 : 0.75;
  reference_layer common = {0};
  common.index_dim = PICK(random, 0, 1) ? head_dim : d->rotary_dim + 2 * random_between(random, 0, 9);
  common.block = PICK(random, 16, 32, 48, 64, 128);
  common.top_k_blocks = random_between(random, 1, 16);
  common.init_blocks = random_between(random, 0, 2);
  common.local_blocks = random_between(random, 1, 2);
  /* No more blocks are forced than are selected: such a config is refused. */
  if (common.init_blocks + common.local_blocks > common.top_k_blocks)
    common.top_k_blocks = common.init_blocks + common.local_blocks;
  common.experts = random_between(random, 2, 20);
  common.experts_per_token = random_between(random, 1, common.experts < 6 ? common.experts : 6);
  common.expert_width = random_between(random, 1, 90);
  common.shared_width = PICK(random, 0, 33, 64, common.expert_width, common.expert_width);
  common.routed_scale = PICK(random, 0, 1) ? 2 : 1;
  common.dense_width = random_between(random, 1, 300);
  for (int64_t i = 0; i < d->layers; i++) {
    m->layers[i] = common;
    m->layers[i].sparse_attention = random_between(random, 0, 3) > 0;
    m->layers[i].moe = random_between(random, 0, 3) > 0;
  }
}

static void put_flags(sluice_text *out, const char *key, const random_model *m, int which) {
  sluice_text_printf(out, "\"%s\": [", key);
  for (int64_t i = 0; i < m->dims.layers; i++) {
    const bool on = which ? m->layers[i].moe : m->layers[i].sparse_attention;
    sluice_text_printf(out, "%s%d", i ? "," : "", on);
  }
  sluice_text_printf(out, "],\n");
}

static void put_integer(sluice_text *out, const char *key, int64_t value) {
  sluice_text_printf(out, "\"%s\": %lld,\n", key, (long long)value);
}

static void put_double(sluice_text *out, const char *key, double value) {
  sluice_text_printf(out, "\"%s\": ", key);
  sluice_text_json_double(out, value);
  sluice_text_printf(out, ",\n");
}

static void write_config(random_model *m) {
  const reference_dims *d = &m->dims;
  const reference_layer *l = &m->layers[0];
  sluice_text *out = &m->config;
  sluice_text_printf(out, "{\"model_type\": \"minimax_m3_vl\", \"torch_dtype\": \"bfloat16\", \"text_config\": {\n");
  put_integer(out, "hidden_size", d->hidden);
  put_integer(out, "num_hidden_layers", d->layers);
  put_integer(out, "num_attention_heads", d->heads);
  put_integer(out, "num_key_value_heads", d->kv_heads);
  put_integer(out, "head_dim", d->head_dim);
  put_integer(out, "vocab_size", d->vocabulary);
  put_integer(out, "max_position_embeddings", 4096);
  put_integer(out, "rotary_dim", d->rotary_dim);
  put_double(out, "rms_norm_eps", d->eps);
  put_double(out, "rope_theta", d->rope_theta);
  put_double(out, "swiglu_alpha", d->swiglu_alpha);
  put_double(out, "swiglu_limit", d->swiglu_limit);
  put_double(out, "routed_scaling_factor", l->routed_scale);
  put_integer(out, "dense_intermediate_size", l->dense_width);
  put_integer(out, "intermediate_size", l->expert_width);
  put_integer(out, "shared_intermediate_size", l->shared_width);
  put_integer(out, "num_local_experts", l->experts);
  put_integer(out, "num_experts_per_tok", l->experts_per_token);
  put_flags(out, "moe_layer_freq", m, 1);
  sluice_text_printf(out, "\"hidden_act\": \"swigluoai\", \"sparse_attention_config\": {\n");
  put_flags(out, "sparse_attention_freq", m, 0);
  put_flags(out, "sparse_disable_index_value", m, 0);
  put_integer(out, "sparse_num_index_heads", d->kv_heads);
  put_integer(out, "sparse_index_dim", l->index_dim);
  put_integer(out, "sparse_block_size", l->block);
  put_integer(out, "sparse_topk_blocks", l->top_k_blocks);
  put_integer(out, "sparse_init_block", l->init_blocks);
  put_integer(out, "sparse_local_block", l->local_blocks);
  sluice_text_printf(out, "\"use_sparse_attention\": true}}}\n");
  assert_false(out->failed);
}

static void describe(random_model *m, uint64_t number) {
  const reference_dims *d = &m->dims;
  const reference_layer *l = &m->layers[0];
  char kinds[2 * RANDOM_LAYERS + 1] = "";
  for (int64_t i = 0; i < d->layers; i++) {
    kinds[2 * i] = m->layers[i].sparse_attention ? 's' : 'f';
    kinds[2 * i + 1] = m->layers[i].moe ? 'm' : 'd';
  }
  snprintf(
      m->description, sizeof m->description,
      "model %llu: %s, hidden %lld, %lld/%lld heads of %lld, rotary %lld, index %lld, block %lld, k %lld, init %lld, "
      "local %lld, experts %lld/%lld, vocabulary %lld",
      (unsigned long long)number, kinds, (long long)d->hidden, (long long)d->heads, (long long)d->kv_heads,
      (long long)d->head_dim, (long long)d->rotary_dim, (long long)l->index_dim, (long long)l->block,
      (long long)l->top_k_blocks, (long long)l->init_blocks, (long long)l->local_blocks,
      (long long)l->experts_per_token, (long long)l->experts, (long long)d->vocabulary);
}

void random_model_create(random_model *m, uint64_t number) {
  random_state random = {number * 1000003 + 17};
  memset(m, 0, sizeof *m);
  choose_dims(m, &random, number);
  m->seed = random_bits(&random) >> 1;
  write_config(m);
  describe(m, number);
  m->reference = reference_create(&m->dims, reference_synthetic, &m->seed);
  assert_non_null(m->reference);
  const int64_t wanted = m->layers[0].block * (m->layers[0].top_k_blocks + 2) + random_between(&random, 1, 40);
  for (int s = 0; s < RANDOM_SEQUENCES; s++) {
    const int64_t longest = wanted < 499 ? wanted : 499;
    m->length[s] = s ? random_between(&random, 1, longest / 2) : longest;
    m->tokens[s] = calloc((size_t)m->length[s], sizeof *m->tokens[s]);
    assert_non_null(m->tokens[s]);
    for (int64_t t = 0; t < m->length[s]; t++)
      m->tokens[s][t] = (int32_t)random_between(&random, 0, m->dims.vocabulary - 1);
    m->sequence[s] = reference_sequence_create(m->reference, m->length[s]);
    assert_non_null(m->sequence[s]);
    reference_feed(m->sequence[s], m->tokens[s], m->length[s]);
  }
}

void random_model_free(random_model *m) {
  for (int s = 0; s < RANDOM_SEQUENCES; s++) {
    reference_sequence_free(m->sequence[s]);
    free(m->tokens[s]);
  }
  reference_free(m->reference);
  sluice_text_free(&m->config);
}

/* ---- compiling ---- */

sluice_model *random_model_compile(const random_model *m, const char *const *disabled, size_t disabled_count) {
  char bundle[] = "/tmp/sluice-random-XXXXXX", target[32], source[64];
  const int file = mkstemp(bundle);
  assert_true(file >= 0);
  close(file);
  model_config *config = NULL;
  must(model_config_parse(m->config.data, m->config.length, "random.json", NULL, NULL, &config), m);
  must(target_canonicalise("host", target), m);
  const char *targets[] = {target};
  must(compile_model(config, &(compile_options){.targets = targets,
                                                .target_count = 1,
                                                .dtype = SLUICE_F32,
                                                .emit = EMIT_BUNDLE,
                                                .output = bundle,
                                                .passes = {.disabled = disabled, .disabled_count = disabled_count}}),
       m);
  model_config_free(config);
  sluice_model *compiled = NULL;
  sluice_checkpoint *checkpoint = NULL;
  must(sluice_model_open(bundle, NULL, &compiled), m);
  unlink(bundle);
  snprintf(source, sizeof source, "synthetic:%llu", (unsigned long long)m->seed);
  must(sluice_checkpoint_open(source, &checkpoint), m);
  must(sluice_model_load(compiled, checkpoint, NULL, NULL), m);
  sluice_checkpoint_close(checkpoint);
  return compiled;
}

/* ---- comparing ---- */

typedef struct part { /* one sequence in the step at hand */
  const reference_sequence *reference;
  int64_t row;             /* of the step */
  int64_t position, count; /* tokens fed in this step */
  int64_t uncertain;       /* position from which nothing is compared */
} part;

typedef struct watch {
  const random_model *model;
  random_model_counts *counts;
  part parts[RANDOM_SEQUENCES];
  int part_count;
  uint64_t seen; /* observations */
} watch;

static void expect_rows(const watch *w, const part *p, const float *found, const double *expected, int64_t width,
                        double bound, const char *what) {
  for (int64_t t = 0; t < p->count && p->position + t < p->uncertain; t++)
    for (int64_t i = 0; i < width; i++) {
      const double f = (double)found[(p->row + t) * width + i], x = expected[(p->position + t) * width + i];
      if (!(fabs(f - x) <= bound * (1 + fabs(x) / 8)))
        fail_msg("%s\n%s: sequence of %lld, position %lld, element %lld: %.9g, expected %.9g", w->model->description,
                 what, (long long)p->reference->length, (long long)(p->position + t), (long long)i, f, x);
    }
}

/* Lists of `k` ids, `lists` for each token. */
static void expect_lists(const watch *w, part *p, const int32_t *found, const int32_t *expected, const double *margins,
                         int64_t lists, int64_t k, double near, const char *what) {
  for (int64_t t = 0; t < p->count && p->position + t < p->uncertain; t++)
    for (int64_t l = 0; l < lists; l++) {
      const int64_t row = (p->position + t) * lists + l;
      w->counts->selections++;
      if (memcmp(found + ((p->row + t) * lists + l) * k, expected + row * k, (size_t)k * sizeof *found) == 0) continue;
      if (margins[row] > near)
        fail_msg("%s\n%s: sequence of %lld, position %lld, list %lld: another selection, with a margin of %g",
                 w->model->description, what, (long long)p->reference->length, (long long)(p->position + t),
                 (long long)l, margins[row]);
      w->counts->near_ties++;
      p->uncertain = p->position + t;
      return;
    }
}

static sluice_status *observe(void *user, const char *name, sluice_dtype dtype, const void *data, uint32_t rows,
                              uint32_t row_elements) {
  watch *w = user;
  long layer = -1;
  char kind[32] = "";
  (void)rows, (void)dtype;
  if (sscanf(name, "layer.%ld.%31s", &layer, kind) != 2 || layer < 0 || layer >= w->model->dims.layers)
    fail_msg("an observable named %s", name);
  const reference_dims *d = &w->model->dims;
  const reference_layer *config = &w->model->layers[layer];
  w->seen++;
  for (int i = 0; i < w->part_count; i++) {
    part *p = &w->parts[i];
    const reference_trace *trace = &p->reference->layer[layer];
    if (strcmp(kind, "out") == 0) {
      assert_int_equal(row_elements, d->hidden);
      expect_rows(w, p, data, trace->out, d->hidden, 1e-4, name);
    } else if (strcmp(kind, "blocks") == 0) {
      assert_int_equal(row_elements, d->kv_heads * config->top_k_blocks);
      expect_lists(w, p, data, trace->blocks, trace->block_margin, d->kv_heads, config->top_k_blocks, 1e-3, name);
    } else if (strcmp(kind, "router.experts") == 0) {
      assert_int_equal(row_elements, config->experts_per_token);
      expect_lists(w, p, data, trace->experts, trace->expert_margin, 1, config->experts_per_token, 1e-4, name);
    } else if (strcmp(kind, "router.weights") == 0) {
      expect_rows(w, p, data, trace->weights, config->experts_per_token, 2e-5, name);
    } else {
      fail_msg("an observable named %s", name);
    }
  }
  return NULL;
}

static void expect_logits(const watch *w, const part *p, const float *found, random_model_counts *counts) {
  const int64_t vocabulary = w->model->dims.vocabulary;
  for (int64_t t = 0; t < p->count; t++) {
    counts->rows++;
    if (p->position + t >= p->uncertain) {
      counts->skipped_rows++;
      continue;
    }
    for (int64_t i = 0; i < vocabulary; i++) {
      const double x = p->reference->logits[(p->position + t) * vocabulary + i];
      const double difference = fabs((double)found[t * vocabulary + i] - x);
      if (!(difference <= 1e-4))
        fail_msg("%s\nlogit %lld at position %lld of %lld: %.9g, expected %.9g", w->model->description, (long long)i,
                 (long long)(p->position + t), (long long)p->reference->length, (double)found[t * vocabulary + i], x);
      counts->worst_logit = fmax(counts->worst_logit, difference);
    }
  }
}

void random_model_check(const random_model *m, sluice_model *compiled, int sequences, uint32_t chunk,
                        random_model_counts *counts) {
  random_state random = {m->seed + chunk};
  int64_t all = 0, done[RANDOM_SEQUENCES] = {0}, uncertain[RANDOM_SEQUENCES];
  int32_t ids[RANDOM_SEQUENCES];
  uint64_t expected_observations = 0;
  watch w = {.model = m, .counts = counts};
  for (int s = 0; s < sequences; s++) all += m->length[s];
  for (int64_t i = 0; i < m->dims.layers; i++)
    expected_observations += 1u + (m->layers[i].sparse_attention ? 1u : 0u) + (m->layers[i].moe ? 2u : 0u);
  sluice_session *session = NULL;
  must(sluice_session_create(compiled,
                             &(sluice_session_options){.max_sequences = RANDOM_SEQUENCES,
                                                       .max_step_tokens = (uint32_t)all,
                                                       .cache_tokens = (uint64_t)all + 256 * RANDOM_SEQUENCES},
                             &session),
       m);
  sluice_session_observe(session, observe, &w);
  for (int s = 0; s < sequences; s++) {
    must(sluice_sequence_add(session, &ids[s]), m);
    uncertain[s] = INT64_MAX;
  }
  for (;;) {
    sluice_chunk chunks[RANDOM_SEQUENCES];
    int of[RANDOM_SEQUENCES];
    int64_t row = 0;
    w.part_count = 0;
    w.seen = 0;
    for (int s = 0; s < sequences; s++) {
      const int64_t left = m->length[s] - done[s];
      if (!left) continue;
      int64_t count = chunk ? random_between(&random, 1, chunk) : left;
      if (count > left) count = left;
      of[w.part_count] = s;
      chunks[w.part_count] = (sluice_chunk){.sequence = ids[s],
                                            .tokens = m->tokens[s] + done[s],
                                            .count = (uint32_t)count,
                                            .logit_rows = (uint32_t)count};
      w.parts[w.part_count++] = (part){m->sequence[s], row, done[s], count, uncertain[s]};
      row += count;
    }
    if (!w.part_count) break;
    sluice_step_result result;
    must(sluice_step(session, chunks, (uint32_t)w.part_count, &result), m);
    assert_int_equal(result.rows, row);
    assert_int_equal(w.seen, expected_observations);
    const float *logits;
    must(sluice_step_logits(session, &logits), m);
    for (int i = 0; i < w.part_count; i++) {
      const part *p = &w.parts[i];
      expect_logits(&w, p, logits + p->row * m->dims.vocabulary, counts);
      done[of[i]] += p->count;
      uncertain[of[i]] = p->uncertain;
    }
  }
  sluice_session_close(session);
}

#include "support/reference.h"

#include "sluice/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct expert_weights {
  double *gate, *up, *down;
} expert_weights;

typedef struct layer_weights {
  double *input_norm, *post_norm, *q, *k, *v, *o, *q_norm, *k_norm;
  double *index_q, *index_k, *index_q_norm, *index_k_norm;
  double *router, *bias;
  expert_weights dense; /* the dense MLP, or the shared expert */
  expert_weights *expert;
} layer_weights;

struct reference_model {
  reference_dims dims;
  double *embed, *head, *norm;
  layer_weights *layer;
  void **owned; /* every array above, to free them */
  size_t owned_count, owned_capacity;
  bool failed;
};

typedef struct reference_cache {
  double *key, *value; /* [T][kv_heads * head_dim] */
  double *index_key;   /* [T][index_dim] */
} reference_cache;

/* ---- weights ---- */

static void *keep(reference_model *model, size_t count, size_t size) {
  if (model->owned_count == model->owned_capacity) {
    size_t capacity = model->owned_capacity ? 2 * model->owned_capacity : 64;
    void **grown = realloc(model->owned, capacity * sizeof *grown);
    if (!grown) {
      model->failed = true;
      return NULL;
    }
    model->owned = grown;
    model->owned_capacity = capacity;
  }
  void *memory = calloc(count ? count : 1, size);
  if (!memory) model->failed = true;
  model->owned[model->owned_count++] = memory;
  return memory;
}

typedef struct source {
  reference_model *model;
  reference_weights *weights;
  void *user;
} source;

/* Tensor `name` as float64; columns 0: a vector of `rows` elements. */
static double *tensor(const source *s, int64_t rows, int64_t columns, const char *name) {
  const int64_t shape[2] = {rows, columns};
  size_t count = (size_t)(rows * (columns ? columns : 1));
  double *result = keep(s->model, count, sizeof *result);
  float *values = malloc((count ? count : 1) * sizeof *values);
  if (!result || !values) {
    s->model->failed = true;
    free(values);
    return NULL;
  }
  s->weights(s->user, name, shape, columns ? 2 : 1, values);
  for (size_t i = 0; i < count; i++) result[i] = values[i];
  free(values);
  return result;
}

static double *layer_tensor(const source *s, int64_t layer, int64_t rows, int64_t columns, const char *name) {
  char full[256];
  snprintf(full, sizeof full, "language_model.model.layers.%lld.%s", (long long)layer, name);
  return tensor(s, rows, columns, full);
}

static expert_weights mlp_tensors(const source *s, int64_t layer, int64_t hidden, int64_t width, const char *prefix,
                                  const char *gate, const char *up, const char *down) {
  char name[128];
  expert_weights result;
  snprintf(name, sizeof name, "%s.%s.weight", prefix, gate);
  result.gate = layer_tensor(s, layer, width, hidden, name);
  snprintf(name, sizeof name, "%s.%s.weight", prefix, up);
  result.up = layer_tensor(s, layer, width, hidden, name);
  snprintf(name, sizeof name, "%s.%s.weight", prefix, down);
  result.down = layer_tensor(s, layer, hidden, width, name);
  return result;
}

static void load_layer(const source *s, int64_t i) {
  const reference_dims *d = &s->model->dims;
  const reference_layer *config = &d->layer[i];
  layer_weights *w = &s->model->layer[i];
  const int64_t q_width = d->heads * d->head_dim, kv_width = d->kv_heads * d->head_dim;
  w->input_norm = layer_tensor(s, i, d->hidden, 0, "input_layernorm.weight");
  w->post_norm = layer_tensor(s, i, d->hidden, 0, "post_attention_layernorm.weight");
  w->q = layer_tensor(s, i, q_width, d->hidden, "self_attn.q_proj.weight");
  w->k = layer_tensor(s, i, kv_width, d->hidden, "self_attn.k_proj.weight");
  w->v = layer_tensor(s, i, kv_width, d->hidden, "self_attn.v_proj.weight");
  w->o = layer_tensor(s, i, d->hidden, q_width, "self_attn.o_proj.weight");
  w->q_norm = layer_tensor(s, i, d->head_dim, 0, "self_attn.q_norm.weight");
  w->k_norm = layer_tensor(s, i, d->head_dim, 0, "self_attn.k_norm.weight");
  if (config->sparse_attention) {
    w->index_q = layer_tensor(s, i, d->kv_heads * config->index_dim, d->hidden, "self_attn.index_q_proj.weight");
    w->index_k = layer_tensor(s, i, config->index_dim, d->hidden, "self_attn.index_k_proj.weight");
    w->index_q_norm = layer_tensor(s, i, config->index_dim, 0, "self_attn.index_q_norm.weight");
    w->index_k_norm = layer_tensor(s, i, config->index_dim, 0, "self_attn.index_k_norm.weight");
  }
  if (!config->moe) {
    w->dense = mlp_tensors(s, i, d->hidden, config->dense_width, "mlp", "gate_proj", "up_proj", "down_proj");
    return;
  }
  w->router = layer_tensor(s, i, config->experts, d->hidden, "block_sparse_moe.gate.weight");
  w->bias = layer_tensor(s, i, config->experts, 0, "block_sparse_moe.e_score_correction_bias");
  w->expert = keep(s->model, (size_t)config->experts, sizeof *w->expert);
  if (!w->expert) return;
  for (int64_t e = 0; e < config->experts; e++) {
    char prefix[64];
    snprintf(prefix, sizeof prefix, "block_sparse_moe.experts.%lld", (long long)e);
    w->expert[e] = mlp_tensors(s, i, d->hidden, config->expert_width, prefix, "w1", "w3", "w2");
  }
  if (config->shared_width)
    w->dense = mlp_tensors(s, i, d->hidden, config->shared_width, "block_sparse_moe.shared_experts", "gate_proj",
                           "up_proj", "down_proj");
}

void reference_synthetic(void *user, const char *name, const int64_t *shape, unsigned rank, float *out) {
  uint64_t count = 1;
  for (unsigned i = 0; i < rank; i++) count *= (uint64_t)shape[i];
  uint16_t *values = malloc((count ? count : 1) * sizeof *values);
  if (!values) abort();
  sluice_synthetic_fill(name, *(const uint64_t *)user, shape[rank - 1], 0, count, values);
  for (uint64_t i = 0; i < count; i++) out[i] = sluice_f32_from_bf16(values[i]);
  free(values);
}

reference_model *reference_create(const reference_dims *dims, reference_weights *weights, void *user) {
  reference_model *model = calloc(1, sizeof *model);
  if (!model) return NULL;
  model->dims = *dims;
  const source s = {model, weights, user};
  model->embed = tensor(&s, dims->vocabulary, dims->hidden, "language_model.model.embed_tokens.weight");
  model->head = tensor(&s, dims->vocabulary, dims->hidden, "language_model.lm_head.weight");
  model->norm = tensor(&s, dims->hidden, 0, "language_model.model.norm.weight");
  model->layer = keep(model, (size_t)dims->layers, sizeof *model->layer);
  for (int64_t i = 0; i < dims->layers && !model->failed; i++) load_layer(&s, i);
  if (!model->failed) return model;
  reference_free(model);
  return NULL;
}

void reference_free(reference_model *model) {
  if (!model) return;
  for (size_t i = 0; i < model->owned_count; i++) free(model->owned[i]);
  free(model->owned);
  free(model);
}

/* ---- arithmetic ---- */

static double dot(const double *a, const double *b, int64_t count) {
  double sum[8] = {0};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    for (int j = 0; j < 8; j++) sum[j] += a[i + j] * b[i + j];
  for (; i < count; i++) sum[0] += a[i] * b[i];
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/* out[n] = x[k] * w[n][k]^T */
static void linear(double *out, const double *x, const double *w, int64_t n, int64_t k) {
  for (int64_t i = 0; i < n; i++) out[i] = dot(x, w + i * k, k);
}

static void rms_norm(double *out, const double *x, const double *w, int64_t width, double eps) {
  const double scale = 1 / sqrt(dot(x, x, width) / (double)width + eps);
  for (int64_t i = 0; i < width; i++) out[i] = x[i] * scale * (1 + w[i]);
}

static void norm_and_rotate(const reference_dims *d, double *x, const double *w, int64_t heads, int64_t head_dim,
                            int64_t position) {
  const int64_t half = d->rotary_dim / 2;
  for (int64_t h = 0; h < heads; h++) {
    double *head = x + h * head_dim;
    rms_norm(head, head, w, head_dim, d->eps);
    for (int64_t i = 0; i < half; i++) {
      const float exponent = (float)(2 * i) / (float)d->rotary_dim;
      const float frequency = 1.0f / powf((float)d->rope_theta, exponent);
      const float angle = (float)position * frequency;
      const double c = cos((double)angle), s = sin((double)angle), a = head[i], b = head[i + half];
      head[i] = a * c - b * s;
      head[i + half] = b * c + a * s;
    }
  }
}

/* out += scale * MLP(x) */
static void add_mlp(const reference_dims *d, double *out, const double *x, const expert_weights *w, int64_t width,
                    double scale, double *hidden) {
  double *up = hidden + width;
  linear(hidden, x, w->gate, width, d->hidden);
  linear(up, x, w->up, width, d->hidden);
  for (int64_t i = 0; i < width; i++) {
    const double g = fmin(hidden[i], d->swiglu_limit);
    const double u = fmax(fmin(up[i], d->swiglu_limit), -d->swiglu_limit);
    hidden[i] = (u + 1) * g / (1 + exp(-d->swiglu_alpha * g));
  }
  for (int64_t i = 0; i < d->hidden; i++) out[i] += scale * dot(hidden, w->down + i * width, width);
}

/* ---- selection ---- */

typedef struct candidate {
  double score;
  int32_t id;
  int rank; /* 2: forced first block, 1: forced last block, 0: free */
} candidate;

static int by_preference(const void *left, const void *right) {
  const candidate *a = left, *b = right;
  if (a->rank != b->rank) return a->rank > b->rank ? -1 : 1;
  if (a->rank == 0 && a->score != b->score) return a->score > b->score ? -1 : 1;
  return a->id < b->id ? -1 : 1;
}

static int by_id(const void *left, const void *right) {
  const int32_t a = *(const int32_t *)left, b = *(const int32_t *)right;
  return a < b ? -1 : a > b;
}

/* The `k` preferred of `count` candidates into `chosen`, ascending, -1 tail. Returns the margin of the choice. */
static double choose(candidate *candidates, int64_t count, int64_t k, int32_t *chosen) {
  const int64_t taken = count < k ? count : k;
  qsort(candidates, (size_t)count, sizeof *candidates, by_preference);
  for (int64_t i = 0; i < k; i++) chosen[i] = i < taken ? candidates[i].id : -1;
  qsort(chosen, (size_t)taken, sizeof *chosen, by_id);
  if (count <= k || candidates[k - 1].rank != 0) return INFINITY;
  return candidates[k - 1].score - candidates[k].score;
}

static double choose_blocks(const reference_layer *config, const double *iq, const double *index_keys, int64_t position,
                            int32_t *chosen, candidate *candidates) {
  const int64_t own = position / config->block;
  for (int64_t b = 0; b <= own; b++) {
    double best = -INFINITY;
    for (int64_t j = b * config->block; j < (b + 1) * config->block && j <= position; j++)
      best = fmax(best, dot(iq, index_keys + j * config->index_dim, config->index_dim));
    const int rank = b < config->init_blocks ? 2 : b > own - config->local_blocks ? 1 : 0;
    candidates[b] = (candidate){best, (int32_t)b, rank};
  }
  return choose(candidates, own + 1, config->top_k_blocks, chosen);
}

/* ---- the layer ---- */

/* Attention of one head over the listed blocks (NULL: every key) with keys of stride `stride`. */
static void attend(double *out, const double *q, const double *keys, const double *values, int64_t head_dim,
                   int64_t stride, int64_t position, const int32_t *blocks, int64_t block_count, int64_t block,
                   double *scores) {
  const double scale = 1 / sqrt((double)head_dim);
  double largest = -INFINITY, total = 0;
  for (int64_t n = 0; n < block_count && (!blocks || blocks[n] >= 0); n++) {
    const int64_t first = blocks ? blocks[n] * block : 0;
    for (int64_t j = first; j < first + block && j <= position; j++) {
      scores[j] = scale * dot(q, keys + j * stride, head_dim);
      largest = fmax(largest, scores[j]);
    }
  }
  for (int64_t i = 0; i < head_dim; i++) out[i] = 0;
  for (int64_t n = 0; n < block_count && (!blocks || blocks[n] >= 0); n++) {
    const int64_t first = blocks ? blocks[n] * block : 0;
    for (int64_t j = first; j < first + block && j <= position; j++) {
      const double p = exp(scores[j] - largest);
      total += p;
      for (int64_t i = 0; i < head_dim; i++) out[i] += p * values[j * stride + i];
    }
  }
  for (int64_t i = 0; i < head_dim; i++) out[i] /= total;
}

typedef struct workspace {
  double *x, *q, *attended, *index_q, *hidden, *logits, *scores;
  candidate *candidates;
} workspace;

static void attention(reference_sequence *s, int64_t layer, int64_t position, double *h, const workspace *space) {
  const reference_dims *d = &s->model->dims;
  const reference_layer *config = &d->layer[layer];
  const layer_weights *w = &s->model->layer[layer];
  const reference_cache *cache = &s->cache[layer];
  const int64_t kv_width = d->kv_heads * d->head_dim, group = d->heads / d->kv_heads;
  double *key = cache->key + position * kv_width, *value = cache->value + position * kv_width;

  rms_norm(space->x, h, w->input_norm, d->hidden, d->eps);
  linear(space->q, space->x, w->q, d->heads * d->head_dim, d->hidden);
  linear(key, space->x, w->k, kv_width, d->hidden);
  linear(value, space->x, w->v, kv_width, d->hidden);
  norm_and_rotate(d, space->q, w->q_norm, d->heads, d->head_dim, position);
  norm_and_rotate(d, key, w->k_norm, d->kv_heads, d->head_dim, position);
  int32_t *blocks = NULL;
  if (config->sparse_attention) {
    double *index_key = cache->index_key + position * config->index_dim;
    linear(space->index_q, space->x, w->index_q, d->kv_heads * config->index_dim, d->hidden);
    linear(index_key, space->x, w->index_k, config->index_dim, d->hidden);
    norm_and_rotate(d, space->index_q, w->index_q_norm, d->kv_heads, config->index_dim, position);
    norm_and_rotate(d, index_key, w->index_k_norm, 1, config->index_dim, position);
    blocks = s->layer[layer].blocks + position * d->kv_heads * config->top_k_blocks;
    for (int64_t g = 0; g < d->kv_heads; g++)
      s->layer[layer].block_margin[position * d->kv_heads + g] =
          choose_blocks(config, space->index_q + g * config->index_dim, cache->index_key, position,
                        blocks + g * config->top_k_blocks, space->candidates);
  }
  for (int64_t head = 0; head < d->heads; head++) {
    const int64_t g = head / group;
    attend(space->attended + head * d->head_dim, space->q + head * d->head_dim, cache->key + g * d->head_dim,
           cache->value + g * d->head_dim, d->head_dim, kv_width, position,
           blocks ? blocks + g * config->top_k_blocks : NULL, blocks ? config->top_k_blocks : 1,
           blocks ? config->block : position + 1, space->scores);
  }
  for (int64_t i = 0; i < d->hidden; i++)
    h[i] += dot(space->attended, w->o + i * d->heads * d->head_dim, d->heads * d->head_dim);
}

static void mlp(reference_sequence *s, int64_t layer, int64_t position, double *h, const workspace *space) {
  const reference_dims *d = &s->model->dims;
  const reference_layer *config = &d->layer[layer];
  const layer_weights *w = &s->model->layer[layer];
  rms_norm(space->x, h, w->post_norm, d->hidden, d->eps);
  if (!config->moe) {
    add_mlp(d, h, space->x, &w->dense, config->dense_width, 1, space->hidden);
    return;
  }
  reference_trace *trace = &s->layer[layer];
  const int64_t k = config->experts_per_token;
  int32_t *experts = trace->experts + position * k;
  double *weights = trace->weights + position * k, total = 0;
  linear(space->logits, space->x, w->router, config->experts, d->hidden);
  for (int64_t e = 0; e < config->experts; e++) {
    space->logits[e] = 1 / (1 + exp(-space->logits[e]));
    space->candidates[e] = (candidate){space->logits[e] + w->bias[e], (int32_t)e, 0};
  }
  trace->expert_margin[position] = choose(space->candidates, config->experts, k, experts);
  for (int64_t i = 0; i < k; i++) total += space->logits[experts[i]];
  for (int64_t i = 0; i < k; i++) {
    weights[i] = space->logits[experts[i]] / total;
    add_mlp(d, h, space->x, &w->expert[experts[i]], config->expert_width, config->routed_scale * weights[i],
            space->hidden);
  }
  if (config->shared_width) add_mlp(d, h, space->x, &w->dense, config->shared_width, 1, space->hidden);
}

/* ---- sequences ---- */

static double *doubles(int64_t count) {
  return calloc((size_t)(count ? count : 1), sizeof(double));
}

static int32_t *integers(int64_t count) {
  return calloc((size_t)(count ? count : 1), sizeof(int32_t));
}

reference_sequence *reference_sequence_create(const reference_model *model, int64_t capacity) {
  const reference_dims *d = &model->dims;
  reference_sequence *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->model = model;
  s->capacity = capacity;
  s->logits = doubles(capacity * d->vocabulary);
  s->layer = calloc((size_t)d->layers, sizeof *s->layer);
  s->cache = calloc((size_t)d->layers, sizeof *s->cache);
  bool complete = s->logits && s->layer && s->cache;
  for (int64_t i = 0; complete && i < d->layers; i++) {
    const reference_layer *config = &d->layer[i];
    reference_trace *trace = &s->layer[i];
    reference_cache *cache = &s->cache[i];
    trace->out = doubles(capacity * d->hidden);
    cache->key = doubles(capacity * d->kv_heads * d->head_dim);
    cache->value = doubles(capacity * d->kv_heads * d->head_dim);
    complete = trace->out && cache->key && cache->value;
    if (config->sparse_attention) {
      cache->index_key = doubles(capacity * config->index_dim);
      trace->blocks = integers(capacity * d->kv_heads * config->top_k_blocks);
      trace->block_margin = doubles(capacity * d->kv_heads);
      complete = complete && cache->index_key && trace->blocks && trace->block_margin;
    }
    if (config->moe) {
      trace->experts = integers(capacity * config->experts_per_token);
      trace->weights = doubles(capacity * config->experts_per_token);
      trace->expert_margin = doubles(capacity);
      complete = complete && trace->experts && trace->weights && trace->expert_margin;
    }
  }
  if (complete) return s;
  reference_sequence_free(s);
  return NULL;
}

void reference_sequence_free(reference_sequence *s) {
  if (!s) return;
  for (int64_t i = 0; s->layer && s->cache && i < s->model->dims.layers; i++) {
    free(s->layer[i].out);
    free(s->layer[i].blocks);
    free(s->layer[i].block_margin);
    free(s->layer[i].experts);
    free(s->layer[i].weights);
    free(s->layer[i].expert_margin);
    free(s->cache[i].key);
    free(s->cache[i].value);
    free(s->cache[i].index_key);
  }
  free(s->logits);
  free(s->layer);
  free(s->cache);
  free(s);
}

static int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

void reference_feed(reference_sequence *s, const int32_t *tokens, int64_t count) {
  const reference_dims *d = &s->model->dims;
  int64_t width = 0, experts = 0, index_dim = 0;
  for (int64_t i = 0; i < d->layers; i++) {
    const reference_layer *config = &d->layer[i];
    width = larger(width, config->moe ? larger(config->expert_width, config->shared_width) : config->dense_width);
    if (config->moe) experts = larger(experts, config->experts);
    if (config->sparse_attention) index_dim = larger(index_dim, config->index_dim);
  }
  const int64_t q_width = d->heads * d->head_dim;
  const size_t candidates = (size_t)larger(s->capacity, experts);
  workspace space = {doubles(d->hidden), doubles(q_width), doubles(q_width),     doubles(d->kv_heads * index_dim),
                     doubles(2 * width), doubles(experts), doubles(s->capacity), calloc(candidates, sizeof(candidate))};
  double *h = doubles(d->hidden);
  if (!space.x || !space.q || !space.attended || !space.index_q || !space.hidden || !space.logits || !space.scores ||
      !space.candidates || !h || s->length + count > s->capacity)
    abort();
  for (int64_t t = 0; t < count; t++) {
    const int64_t position = s->length++;
    memcpy(h, s->model->embed + tokens[t] * d->hidden, (size_t)d->hidden * sizeof *h);
    for (int64_t layer = 0; layer < d->layers; layer++) {
      attention(s, layer, position, h, &space);
      mlp(s, layer, position, h, &space);
      memcpy(s->layer[layer].out + position * d->hidden, h, (size_t)d->hidden * sizeof *h);
    }
    rms_norm(space.x, h, s->model->norm, d->hidden, d->eps);
    linear(s->logits + position * d->vocabulary, space.x, s->model->head, d->vocabulary, d->hidden);
  }
  free(space.x);
  free(space.q);
  free(space.attended);
  free(space.index_q);
  free(space.hidden);
  free(space.logits);
  free(space.scores);
  free(space.candidates);
  free(h);
}

int32_t reference_greedy(const reference_sequence *s, int64_t position) {
  const int64_t vocabulary = s->model->dims.vocabulary;
  const double *logits = s->logits + position * vocabulary;
  int64_t best = 0;
  for (int64_t i = 1; i < vocabulary; i++)
    if (logits[i] > logits[best]) best = i;
  return (int32_t)best;
}

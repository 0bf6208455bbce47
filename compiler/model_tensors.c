/* The checkpoint's tensors: names and shapes of the released files (docs/synthetic.md). */
#include "compiler/model_config.h"

#include "sluice/checkpoint.h"
#include "sluice/memory.h"

#include <stdarg.h>
#include <stdio.h>

typedef struct tensor_list {
  config_tensor *items;
  size_t count, capacity;
  sluice_dtype weight_dtype;
  bool failed;
} tensor_list;

/* columns 0: a vector. */
static void add_tensor(tensor_list *list, int64_t rows, int64_t columns, const char *format, ...) SLUICE_PRINTF(4, 5);
static void add_tensor(tensor_list *list, int64_t rows, int64_t columns, const char *format, ...) {
  if (list->failed) return;
  if (list->count == list->capacity) {
    size_t capacity = list->capacity ? 2 * list->capacity : 256;
    config_tensor *items = sluice_reallocate_array(list->items, capacity, sizeof *items);
    if (!items) {
      list->failed = true;
      return;
    }
    list->items = items;
    list->capacity = capacity;
  }
  char name[160];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(name, sizeof name, format, arguments);
  va_end(arguments);
  char *copy = sluice_format_string("language_model.%s", name);
  if (!copy) {
    list->failed = true;
    return;
  }
  list->items[list->count++] = (config_tensor){
      .name = copy,
      .rank = columns ? 2 : 1,
      .shape = {rows, columns},
      .dtype = sluice_synthetic_is_f32(copy) ? SLUICE_F32 : list->weight_dtype,
  };
}

static void add_attention(tensor_list *list, const model_config *c, const layer_config *layer, long long n) {
  int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
  add_tensor(list, q, c->hidden, "model.layers.%lld.self_attn.q_proj.weight", n);
  add_tensor(list, kv, c->hidden, "model.layers.%lld.self_attn.k_proj.weight", n);
  add_tensor(list, kv, c->hidden, "model.layers.%lld.self_attn.v_proj.weight", n);
  add_tensor(list, c->hidden, q, "model.layers.%lld.self_attn.o_proj.weight", n);
  add_tensor(list, c->head_dim, 0, "model.layers.%lld.self_attn.q_norm.weight", n);
  add_tensor(list, c->head_dim, 0, "model.layers.%lld.self_attn.k_norm.weight", n);
  if (!layer->sparse_attention) return;
  add_tensor(list, layer->index_heads * layer->index_dim, c->hidden, "model.layers.%lld.self_attn.index_q_proj.weight",
             n);
  add_tensor(list, layer->index_dim, c->hidden, "model.layers.%lld.self_attn.index_k_proj.weight", n);
  add_tensor(list, layer->index_dim, 0, "model.layers.%lld.self_attn.index_q_norm.weight", n);
  add_tensor(list, layer->index_dim, 0, "model.layers.%lld.self_attn.index_k_norm.weight", n);
}

static void add_experts(tensor_list *list, const model_config *c, const layer_config *layer, long long n) {
  add_tensor(list, layer->experts, c->hidden, "model.layers.%lld.block_sparse_moe.gate.weight", n);
  add_tensor(list, layer->experts, 0, "model.layers.%lld.block_sparse_moe.e_score_correction_bias", n);
  for (long long e = 0; e < layer->experts && !list->failed; e++) {
    add_tensor(list, layer->expert_width, c->hidden, "model.layers.%lld.block_sparse_moe.experts.%lld.w1.weight", n, e);
    add_tensor(list, c->hidden, layer->expert_width, "model.layers.%lld.block_sparse_moe.experts.%lld.w2.weight", n, e);
    add_tensor(list, layer->expert_width, c->hidden, "model.layers.%lld.block_sparse_moe.experts.%lld.w3.weight", n, e);
  }
  if (!layer->shared_width) return;
  add_tensor(list, layer->shared_width, c->hidden, "model.layers.%lld.block_sparse_moe.shared_experts.gate_proj.weight",
             n);
  add_tensor(list, layer->shared_width, c->hidden, "model.layers.%lld.block_sparse_moe.shared_experts.up_proj.weight",
             n);
  add_tensor(list, c->hidden, layer->shared_width, "model.layers.%lld.block_sparse_moe.shared_experts.down_proj.weight",
             n);
}

sluice_status *model_config_tensors(const model_config *config, config_tensor **out_tensors, size_t *out_count) {
  tensor_list list = {.weight_dtype = config->weight_dtype};
  *out_tensors = NULL;
  *out_count = 0;
  add_tensor(&list, config->vocabulary, config->hidden, "model.embed_tokens.weight");
  if (!config->tied_head) add_tensor(&list, config->vocabulary, config->hidden, "lm_head.weight");
  add_tensor(&list, config->hidden, 0, "model.norm.weight");
  for (long long n = 0; n < config->layers && !list.failed; n++) {
    const layer_config *layer = &config->layer[n];
    add_tensor(&list, config->hidden, 0, "model.layers.%lld.input_layernorm.weight", n);
    add_tensor(&list, config->hidden, 0, "model.layers.%lld.post_attention_layernorm.weight", n);
    add_attention(&list, config, layer, n);
    if (layer->moe) {
      add_experts(&list, config, layer, n);
    } else {
      add_tensor(&list, layer->dense_width, config->hidden, "model.layers.%lld.mlp.gate_proj.weight", n);
      add_tensor(&list, layer->dense_width, config->hidden, "model.layers.%lld.mlp.up_proj.weight", n);
      add_tensor(&list, config->hidden, layer->dense_width, "model.layers.%lld.mlp.down_proj.weight", n);
    }
  }
  if (list.failed) {
    config_tensors_free(list.items, list.count);
    return sluice_out_of_memory();
  }
  *out_tensors = list.items;
  *out_count = list.count;
  return NULL;
}

void config_tensors_free(config_tensor *tensors, size_t count) {
  for (size_t i = 0; i < count; i++) sluice_release(tensors[i].name);
  sluice_release(tensors);
}

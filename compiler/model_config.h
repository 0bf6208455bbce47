/* A model description: what config.json says, checked and made explicit for each layer. Both spellings are accepted:
 * the released one (nested `sparse_attention_config`, `moe_layer_freq`, ...) and the one that transformers writes (flat
 * `index_*` keys, `layer_types`, `mlp_layer_types`, `rope_parameters`). See docs/config.md for every key.
 */
#ifndef COMPILER_MODEL_CONFIG_H
#define COMPILER_MODEL_CONFIG_H

#include "sluice/dtype.h"
#include "sluice/json.h"

typedef struct layer_config {
  bool sparse_attention; /* index branch and block selection; else full causal attention */
  bool moe;              /* experts; else a dense MLP */
  /* when sparse_attention */
  int64_t index_heads, index_dim, block, top_k_blocks, init_blocks, local_blocks;
  /* when moe */
  int64_t experts, experts_per_token, expert_width, shared_width; /* shared_width 0: no shared expert */
  double routed_scale;
  /* when not moe */
  int64_t dense_width;
} layer_config;

typedef struct model_config {
  char *path; /* of config.json */
  int64_t hidden, layers, heads, kv_heads, head_dim, vocabulary, max_positions, rotary_dim;
  double eps, rope_theta, swiglu_alpha, swiglu_limit;
  sluice_dtype weight_dtype; /* of the checkpoint: `dtype` / `torch_dtype`, BF16 when absent */
  int64_t page;              /* tokens of a cache page: the block size of the sparse layers, 128 without any */
  int64_t *stop_ids;         /* eos_token_id, or the family's */
  size_t stop_id_count;
  bool tied_head;      /* the head's weight is the embedding */
  bool has_vision;     /* a vision tower is described; it is not compiled yet */
  layer_config *layer; /* `layers` of them */
} model_config;

/* What reading had to say besides errors. */
typedef void config_warning(void *user, const char *formatted_line);

/* Reads `path` (a config.json, or a directory that holds one). */
SLUICE_MUST_USE sluice_status *model_config_read(const char *path, config_warning *warning, void *user,
                                                 model_config **out_config);
/* The same from text; `file` names it in messages. */
SLUICE_MUST_USE sluice_status *model_config_parse(const char *text, size_t length, const char *file,
                                                  config_warning *warning, void *user, model_config **out_config);
void model_config_free(model_config *config);

/* A tensor of the text model's checkpoint. */
typedef struct config_tensor {
  char *name;
  unsigned rank;
  int64_t shape[2];
  sluice_dtype dtype; /* as the released checkpoint stores it */
} config_tensor;
/* Every tensor of the text model, in layer order: embed, lm_head, norm, then the layers. Free with config_tensors_free.
 */
SLUICE_MUST_USE sluice_status *model_config_tensors(const model_config *config, config_tensor **out_tensors,
                                                    size_t *out_count);
void config_tensors_free(config_tensor *tensors, size_t count);

#endif

#include "compiler/config_fields.h"

#define USED(name, meaning) {name, CONFIG_USED, NULL, meaning}
#define IGNORED(name, meaning) {name, CONFIG_IGNORED, NULL, meaning}
#define ONLY_TRUE(name, meaning) {name, CONFIG_ONLY_TRUE, NULL, meaning}
#define ONLY_FALSE(name, meaning) {name, CONFIG_ONLY_FALSE, NULL, meaning}
#define ONLY_NULL(name, meaning) {name, CONFIG_ONLY_NULL, NULL, meaning}
#define ONLY_ONE(name, meaning) {name, CONFIG_ONLY_ONE, NULL, meaning}
#define ONLY_TEXT(name, text, meaning) {name, CONFIG_ONLY_TEXT, text, meaning}
#define OBJECT(variable, title, keys)                                                                                  \
  const config_object variable = {title, keys, sizeof(keys) / sizeof((keys)[0]), false}

/* What transformers writes into any configuration object. */
#define TRANSFORMERS_KEYS                                                                                              \
  IGNORED("_attn_implementation", "choice of a PyTorch kernel"),                                                       \
      IGNORED("_attn_implementation_autoset", "choice of a PyTorch kernel"),                                           \
      IGNORED("_experts_implementation", "choice of a PyTorch kernel"),                                                \
      IGNORED("_name_or_path", "where the file came from"), IGNORED("architectures", "class names of transformers"),   \
      IGNORED("attn_implementation", "choice of a PyTorch kernel"),                                                    \
      IGNORED("auto_map", "remote code of transformers"),                                                              \
      IGNORED("chunk_size_feed_forward", "memory option of transformers"),                                             \
      IGNORED("id2label", "classification heads"), IGNORED("initializer_range", "training"),                           \
      IGNORED("is_encoder_decoder", "class option of transformers"), IGNORED("label2id", "classification heads"),      \
      IGNORED("output_attentions", "class option of transformers"),                                                    \
      IGNORED("output_hidden_states", "class option of transformers"),                                                 \
      IGNORED("problem_type", "classification heads"), IGNORED("return_dict", "class option of transformers"),         \
      IGNORED("transformers_version", "which transformers wrote the file")

static const config_key root_keys[] = {
    USED("model_type", "`minimax_m3_vl`, or `minimax_m3_vl_text`: then the whole file is what text_config is below"),
    USED("text_config", "the text model, see below"),
    USED("vision_config", "the vision tower, see below; null or absent: none"),
    USED("dtype", "checkpoint's dtype: `bfloat16` (also when absent), `float16`, `float32`"),
    USED("torch_dtype", "older name of `dtype`"),
    USED("eos_token_id", "stop id, or a list of them; counts before that of text_config"),
    USED("tie_word_embeddings", "true here or in text_config: the head's weight is the embedding"),
    ONLY_NULL("quantization_config", "a quantised checkpoint"),
    ONLY_NULL("compression_config", "a quantised checkpoint"),
    IGNORED("bos_token_id", "tokenizer"),
    IGNORED("image_grid_pinpoints", "vision, legacy"),
    IGNORED("image_seq_length", "vision, legacy"),
    IGNORED("image_token_id", "vision"),
    IGNORED("image_token_index", "vision"),
    IGNORED("img_token_compression_config", "vision"),
    IGNORED("merged_hidden_size", "vision"),
    IGNORED("multimodal_projector_bias", "vision"),
    IGNORED("num_reward_heads", "training"),
    IGNORED("pad_token_id", "tokenizer"),
    IGNORED("process_image_mode", "vision"),
    IGNORED("projector_hidden_act", "vision"),
    IGNORED("projector_hidden_size", "vision"),
    IGNORED("use_cache", "class option of transformers"),
    IGNORED("video_token_id", "vision"),
    IGNORED("video_token_index", "vision"),
    IGNORED("vision_feature_layer", "vision, legacy"),
    IGNORED("vision_feature_select_strategy", "vision, legacy"),
    TRANSFORMERS_KEYS,
};
OBJECT(config_root, "config.json", root_keys);

static const config_key text_keys[] = {
    USED("hidden_size", "width of the residual stream, 1 to 1048576"),
    USED("num_hidden_layers", "1 to 1024"),
    USED("num_attention_heads", "query heads, a multiple of num_key_value_heads"),
    USED("num_key_value_heads", "key and value heads, 1 to 1024; 1 to 32 query heads for each"),
    USED("head_dim", "even, 2 to 256"),
    USED("vocab_size", "1 to 16777216"),
    USED("max_position_embeddings", "longest context, 1 to 16777216 tokens"),
    USED("rms_norm_eps", "above 0, at most 1"),
    USED("rope_theta", "base of the rotary angles, above 1 (or in rope_parameters)"),
    USED("rotary_dim", "rotated dimensions of a head: even, 2 to head_dim and to the index head's dimension; not read "
                       "beside rope_parameters"),
    USED("partial_rotary_factor", "rotary_dim / head_dim; one of the two is needed"),
    USED("rope_parameters",
         "newer place of the rotary settings, see below; without partial_rotary_factor there or here "
         "whole heads are rotated"),
    USED("rope_scaling", "null, or an object of the keys of rope_parameters"),
    USED("hidden_act", "`swigluoai`; `silu` beside mlp_layer_types, where transformers writes it and means swigluoai"),
    USED("swiglu_alpha", "activation: factor inside the sigmoid"),
    USED("swiglu_limit", "activation: clamp, above 0"),
    USED("moe_layer_freq", "list, one for each layer: 0 dense MLP, 1 experts"),
    USED("mlp_layer_types", "flat spelling of moe_layer_freq: `dense`, `sparse`"),
    USED("dense_intermediate_size", "width of dense MLPs; needed when there are any"),
    USED("intermediate_size", "width of an expert; needed when there are experts"),
    USED("num_local_experts", "1 to 4096; needed when there are experts"),
    USED("num_experts_per_tok", "1 to num_local_experts, at most 64"),
    USED("routed_scaling_factor", "factor on the sum of the routed experts"),
    USED("shared_intermediate_size", "width of the shared expert, 0: none"),
    USED("n_shared_experts", "0 or 1 (also when absent)"),
    USED("sparse_attention_config", "the sparse layers, see below"),
    USED("layer_types", "flat spelling of sparse_attention_freq: `full_attention`, `minimax_m3_sparse`"),
    USED("index_n_heads", "flat spelling of sparse_num_index_heads"),
    USED("index_head_dim", "flat spelling of sparse_index_dim"),
    USED("index_block_size", "flat spelling of sparse_block_size"),
    USED("index_topk_blocks", "flat spelling of sparse_topk_blocks"),
    USED("index_init_blocks", "flat spelling of sparse_init_block"),
    USED("index_local_blocks", "flat spelling of sparse_local_block"),
    USED("dtype", "as at the top"),
    USED("torch_dtype", "as at the top"),
    USED("eos_token_id", "as at the top; 200020 when it is in neither place and in the vocabulary"),
    USED("tie_word_embeddings", "as at the top"),
    ONLY_TEXT("model_type", "minimax_m3_vl_text", "another text model"),
    ONLY_FALSE("attention_output_gate", "a gate on the attention output"),
    ONLY_FALSE("attention_bias", "biases in the attention projections"),
    ONLY_FALSE("mlp_bias", "biases in the MLP"),
    ONLY_TRUE("use_gemma_norm", "norms that multiply by w instead of 1 + w"),
    ONLY_TRUE("use_qk_norm", "attention without norms of q and k"),
    ONLY_TEXT("qk_norm_type", "per_head", "norms of q and k over all heads at once"),
    ONLY_TEXT("scoring_func", "sigmoid", "another router"),
    ONLY_TRUE("use_routing_bias", "a router without selection bias"),
    ONLY_TRUE("norm_topk_prob", "expert weights that are not normalised"),
    ONLY_ONE("swiglu_beta", "another offset of the activation's linear part"),
    ONLY_NULL("sliding_window", "windowed attention"),
    ONLY_NULL("quantization_config", "a quantised checkpoint"),
    IGNORED("attention_dropout", "training"),
    IGNORED("bos_token_id", "tokenizer"),
    IGNORED("num_mtp_modules", "speculative layers; no published checkpoint has them"),
    IGNORED("num_nextn_predict_layers", "speculative layers; no published checkpoint has them"),
    IGNORED("output_router_logits", "training"),
    IGNORED("pad_token_id", "tokenizer"),
    IGNORED("router_aux_loss_coef", "training"),
    IGNORED("router_jitter_noise", "training"),
    IGNORED("use_cache", "class option of transformers"),
    TRANSFORMERS_KEYS,
};
OBJECT(config_text, "text_config", text_keys);

static const config_key sparse_keys[] = {
    USED("use_sparse_attention", "false: every layer attends to all keys"),
    USED("sparse_attention_freq", "list, one for each layer: 0 full attention, 1 sparse"),
    USED("sparse_disable_index_value", "list: must be 1 in sparse layers (0: an index branch with values of its own)"),
    USED("sparse_num_index_heads", "must equal num_key_value_heads"),
    USED("sparse_index_dim", "even, 2 to 256, at least rotary_dim"),
    USED("sparse_block_size", "keys of a block, and tokens of a cache page: a multiple of 16 up to 256"),
    USED("sparse_topk_blocks", "selected blocks, forced ones included: 1 to 64"),
    USED("sparse_init_block", "forced first blocks, 0 (also when absent) to 64"),
    USED("sparse_local_block", "forced most recent blocks, 0 to 64"),
    ONLY_TEXT("sparse_score_type", "max", "another pooling of the scores of a block"),
};
OBJECT(config_sparse, "sparse_attention_config", sparse_keys);

static const config_key rope_keys[] = {
    USED("rope_theta", "as rope_theta of text_config"),
    USED("partial_rotary_factor", "as partial_rotary_factor of text_config"),
    ONLY_TEXT("rope_type", "default", "scaled rotary angles"),
    ONLY_TEXT("type", "default", "scaled rotary angles"),
    ONLY_NULL("full_attention", "rotary settings for each kind of layer"),
    ONLY_NULL("minimax_m3_sparse", "rotary settings for each kind of layer"),
};
OBJECT(config_rope, "rope_parameters", rope_keys);

static const config_key vision_keys[] = {
    USED("hidden_size", "1 to 1048576"),
    USED("num_attention_heads", "must divide hidden_size"),
    USED("num_hidden_layers", "1 to 1024"),
    USED("intermediate_size", "1 to 1048576"),
    USED("patch_size", "1 to 1024"),
    USED("image_size", "1 to 1048576"),
    USED("num_channels", "1 to 1024"),
    IGNORED("attention_dropout", "training"),
    IGNORED("dtype", "vision"),
    IGNORED("hidden_act", "vision"),
    IGNORED("img_token_compression_config", "vision"),
    IGNORED("initializer_factor", "training"),
    IGNORED("layer_norm_eps", "vision"),
    IGNORED("model_type", "vision"),
    IGNORED("position_embedding_type", "vision"),
    IGNORED("projection_dim", "vision"),
    IGNORED("rope_mode", "vision"),
    IGNORED("rope_parameters", "vision"),
    IGNORED("rope_theta", "vision"),
    IGNORED("spatial_merge_size", "vision"),
    IGNORED("temporal_patch_size", "vision"),
    IGNORED("torch_dtype", "vision"),
    IGNORED("vision_segment_max_frames", "vision"),
    IGNORED("vocab_size", "vision, legacy"),
    TRANSFORMERS_KEYS,
};
OBJECT(config_vision, "vision_config", vision_keys);

static const config_key generation_keys[] = {
    USED("eos_token_id", "stop id, or a list of them; takes the place of those in config.json"),
};
/* Everything else there is chosen when running, and every version of transformers has more of it. */
const config_object config_generation = {"generation_config.json", generation_keys, 1, true};

const config_object *const config_objects[] = {&config_root, &config_text,   &config_sparse,
                                               &config_rope, &config_vision, &config_generation};
const size_t config_object_count = sizeof config_objects / sizeof config_objects[0];

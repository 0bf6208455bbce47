#include "compiler/model_config.h"

#include "compiler/config_reader.h"
#include "compiler/input.h"
#include "sluice/checkpoint.h"
#include "sluice/memory.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* What kernels, plans and 32-bit sizes can express; docs/config.md states them. */
enum {
  MAX_WIDTH = 1 << 20,
  MAX_LAYERS = 1024,
  MAX_KV_HEADS = 1024,
  MAX_GROUP = 32,
  MAX_HEAD_DIM = 256,
  MAX_VOCABULARY = 1 << 24,
  MAX_POSITIONS = 1 << 24, /* beyond it a float32 does not hold every position */
  MAX_EXPERTS = 4096,
  MAX_EXPERTS_PER_TOKEN = 64,
  MIN_BLOCK = 16,
  MAX_BLOCK = 256,
  MAX_SELECTED = 64,
  PAGE_WITHOUT_BLOCKS = 128,
  MAX_STOP_IDS = 64,
  FAMILY_STOP_ID = 200020, /* where no file says one: the default of the family's configuration class */
};
static const int64_t max_elements = (int64_t)1 << 40; /* of one weight */
static const size_t max_file_bytes = (size_t)16 << 20;

typedef struct description {
  config_reader reader;
  const sluice_json_value *root, *text, *sparse;
  const sluice_json_value *rope; /* rope_parameters, or rope_scaling where that says nothing else; NULL without */
  bool rope_decides;             /* it is rope_parameters: rotary_dim does not count */
  model_config *config;
} description;

#define ONE(holder, name) ((const config_place[2]){{(holder), (name)}, {NULL, NULL}})
#define TWO(holder, name, other, other_name) ((const config_place[2]){{(holder), (name)}, {(other), (other_name)}})

static int64_t text_integer(description *d, const char *key, int64_t minimum, int64_t maximum,
                            const sluice_json_value **where) {
  return config_integer(&d->reader, ONE(d->text, key), minimum, maximum, CONFIG_REQUIRED, where);
}

/* Refuses a weight of a * b * c elements that is too large to address. All factors are at least 0 and below 2^40. */
static void check_elements(description *d, const sluice_json_value *where, const char *what, int64_t a, int64_t b,
                           int64_t c) {
  if (d->reader.status || a == 0 || b == 0 || c == 0) return;
  if (a <= max_elements / b && a * b <= max_elements / c) return;
  char third[32] = "";
  if (c > 1) snprintf(third, sizeof third, " x %lld", (long long)c);
  config_fail(&d->reader, where, SLUICE_INVALID, "%s is %lld x %lld%s elements, expected at most 2^40", what,
              (long long)a, (long long)b, third);
}

/* Finds the text model: in `text_config`, or the whole file where it is saved alone. */
static void read_model_type(description *d) {
  const sluice_json_value *type = sluice_json_get(d->root, "model_type");
  const char *name = type && type->kind == SLUICE_JSON_STRING ? type->string : "";
  if (!type && sluice_json_get(d->root, "weight_map"))
    config_fail(&d->reader, d->root, SLUICE_INVALID,
                "this is a checkpoint's index, expected a model's config.json, which lies beside it");
  else if (!type)
    config_fail(&d->reader, d->root, SLUICE_INVALID, "key \"model_type\" is missing");
  else if (strcmp(name, "minimax_m3_vl_text") == 0)
    d->text = d->root;
  else if (strcmp(name, "minimax_m3_vl") != 0)
    config_fail(&d->reader, type, SLUICE_UNSUPPORTED,
                "\"model_type\" is %s, supported are \"minimax_m3_vl\" and \"minimax_m3_vl_text\"",
                config_show(&d->reader, type).text);
}

static void read_dtype(description *d) {
  const struct {
    const sluice_json_value *object;
    const char *key, *where;
  } places[] = {{d->text, "dtype", " of text_config"},
                {d->text, "torch_dtype", " of text_config"},
                {d->root, "dtype", " of the whole file"},
                {d->root, "torch_dtype", " of the whole file"}};
  static const struct {
    const char *name;
    sluice_dtype dtype;
  } names[] = {{"bfloat16", SLUICE_BF16}, {"float16", SLUICE_F16}, {"float32", SLUICE_F32}};
  const sluice_json_value *first = NULL;
  size_t first_place = 0;
  d->config->weight_dtype = SLUICE_BF16;
  for (size_t i = 0; i < sizeof places / sizeof places[0] && !d->reader.status; i++) {
    const sluice_json_value *value = sluice_json_get(places[i].object, places[i].key);
    if (!value || value->kind == SLUICE_JSON_NULL) continue;
    const config_shown shown = config_show(&d->reader, value);
    size_t n = 0;
    while (n < 3 && (value->kind != SLUICE_JSON_STRING || strcmp(value->string, names[n].name) != 0)) n++;
    if (n == 3) {
      config_fail(&d->reader, value, SLUICE_UNSUPPORTED,
                  "\"%s\" is %s, expected \"bfloat16\", \"float16\" or \"float32\"", places[i].key, shown.text);
    } else if (first && names[n].dtype != d->config->weight_dtype) {
      config_fail(&d->reader, value, SLUICE_INVALID, "\"%s\" is %s, but \"%s\"%s is \"%s\": they must agree",
                  places[i].key, shown.text, places[first_place].key,
                  d->text == d->root ? "" : places[first_place].where, first->string);
    } else {
      d->config->weight_dtype = names[n].dtype;
      first = value;
      first_place = i;
    }
  }
}

static void read_dimensions(description *d) {
  model_config *c = d->config;
  config_reader *r = &d->reader;
  const sluice_json_value *heads_at, *vocabulary_at;
  c->hidden = text_integer(d, "hidden_size", 1, MAX_WIDTH, NULL);
  c->layers = text_integer(d, "num_hidden_layers", 1, MAX_LAYERS, NULL);
  c->heads = text_integer(d, "num_attention_heads", 1, (int64_t)MAX_KV_HEADS * MAX_GROUP, &heads_at);
  c->kv_heads = text_integer(d, "num_key_value_heads", 1, MAX_KV_HEADS, NULL);
  c->vocabulary = text_integer(d, "vocab_size", 1, MAX_VOCABULARY, &vocabulary_at);
  c->max_positions = text_integer(d, "max_position_embeddings", 1, MAX_POSITIONS, NULL);
  if (r->status) return;
  if (c->heads % c->kv_heads != 0)
    config_fail(r, heads_at, SLUICE_INVALID,
                "\"num_attention_heads\" is %lld, expected a multiple of "
                "\"num_key_value_heads\", which is %lld",
                (long long)c->heads, (long long)c->kv_heads);
  else if (c->heads / c->kv_heads > MAX_GROUP)
    config_fail(r, heads_at, SLUICE_UNSUPPORTED,
                "%lld query heads for each of the %lld key heads, at most %d are "
                "supported",
                (long long)(c->heads / c->kv_heads), (long long)c->kv_heads, MAX_GROUP);
  const sluice_json_value *dim_at;
  c->head_dim = text_integer(d, "head_dim", 2, MAX_HEAD_DIM, &dim_at);
  if (!r->status && c->head_dim % 2 != 0)
    config_fail(r, dim_at, SLUICE_UNSUPPORTED, "\"head_dim\" is %lld, expected an even number", (long long)c->head_dim);
  c->eps = config_number(r, ONE(d->text, "rms_norm_eps"), 0, 1, NAN, NULL);
  c->swiglu_alpha = config_number(r, ONE(d->text, "swiglu_alpha"), 0, 1000, NAN, NULL);
  c->swiglu_limit = config_number(r, ONE(d->text, "swiglu_limit"), 0, 1e6, NAN, NULL);
  check_elements(d, vocabulary_at, "the embedding (\"vocab_size\" x \"hidden_size\")", c->vocabulary, c->hidden, 1);
  check_elements(d, heads_at, "the query projection (\"num_attention_heads\" x \"head_dim\" x \"hidden_size\")",
                 c->heads, c->head_dim, c->hidden);
}

/* The rotary settings: rope_parameters, or the older rope_scaling, of which only the type that scales nothing is
 * accepted. */
static void find_rope(description *d) {
  config_reader *r = &d->reader;
  const sluice_json_value *parameters = config_child(r, d->text, "rope_parameters", &config_rope);
  const sluice_json_value *scaling = config_child(r, d->text, "rope_scaling", &config_rope);
  d->rope_decides = parameters && parameters->length > 0;
  d->rope = d->rope_decides ? parameters : scaling;
  if (!d->rope_decides || !scaling) return;
  for (size_t i = 0; i < scaling->length; i++)
    if (strcmp(scaling->members[i].key, "rope_type") != 0 && strcmp(scaling->members[i].key, "type") != 0)
      config_fail(r, scaling, SLUICE_INVALID,
                  "\"rope_scaling\" and \"rope_parameters\" are both there: keep one of them");
}

/* transformers rotates partial_rotary_factor of a head, or all of it, and never reads rotary_dim, which it writes all
 * the same. Released files have rotary_dim and no rope_parameters. */
static void read_rotary(description *d) {
  model_config *c = d->config;
  config_reader *r = &d->reader;
  const sluice_json_value *dim_at, *factor_at;
  c->rope_theta = config_number(r, TWO(d->text, "rope_theta", d->rope, "rope_theta"), 1, 1e12, NAN, NULL);
  double factor =
      config_number(r, TWO(d->text, "partial_rotary_factor", d->rope, "partial_rotary_factor"), 0, 1, -1, &factor_at);
  bool has_factor = factor >= 0;
  int64_t from_factor = has_factor ? (int64_t)(factor * (double)c->head_dim) : 0;
  if (d->rope_decides) {
    c->rotary_dim = has_factor ? from_factor : c->head_dim;
    dim_at = factor_at;
  } else {
    c->rotary_dim =
        config_integer(r, ONE(d->text, "rotary_dim"), 1, MAX_HEAD_DIM, has_factor ? 0 : CONFIG_REQUIRED, &dim_at);
    if (r->status) return;
    if (c->rotary_dim == 0) {
      c->rotary_dim = from_factor;
      dim_at = factor_at;
    } else if (has_factor && from_factor != c->rotary_dim) {
      config_fail(r, dim_at, SLUICE_INVALID,
                  "\"rotary_dim\" is %lld, but \"partial_rotary_factor\" x \"head_dim\" is "
                  "%g x %lld",
                  (long long)c->rotary_dim, factor, (long long)c->head_dim);
      return;
    }
  }
  if (r->status) return;
  if (c->rotary_dim > c->head_dim)
    config_fail(r, dim_at, SLUICE_INVALID, "\"rotary_dim\" is %lld, expected at most \"head_dim\", which is %lld",
                (long long)c->rotary_dim, (long long)c->head_dim);
  else if (c->rotary_dim < 2 || c->rotary_dim % 2 != 0)
    config_fail(r, dim_at, SLUICE_INVALID, "%lld dimensions of a head are rotated, expected an even number above 0",
                (long long)c->rotary_dim);
}

static void read_hidden_act(description *d) {
  const sluice_json_value *act = sluice_json_get(d->text, "hidden_act");
  if (!act || d->reader.status) return;
  const char *name = act->kind == SLUICE_JSON_STRING ? act->string : "";
  if (strcmp(name, "swigluoai") == 0) return;
  /* transformers overwrites the key with "silu" and never uses it; without its spelling, silu means silu */
  if (strcmp(name, "silu") == 0 && sluice_json_get(d->text, "mlp_layer_types")) return;
  config_fail(&d->reader, act, SLUICE_UNSUPPORTED, "\"hidden_act\" is %s, supported is \"swigluoai\" alone",
              config_show(&d->reader, act).text);
}

/* Reads the settings of sparse layers into `layer` and checks them. */
static void read_sparse(description *d, layer_config *layer) {
  config_reader *r = &d->reader;
  const model_config *c = d->config;
  const sluice_json_value *heads_at, *dim_at, *block_at, *local_at;
#define EITHER(nested, flat) ((const config_place[2]){{d->sparse, (nested)}, {d->text, (flat)}})
  layer->index_heads =
      config_integer(r, EITHER("sparse_num_index_heads", "index_n_heads"), 1, MAX_KV_HEADS, CONFIG_REQUIRED, &heads_at);
  layer->index_dim =
      config_integer(r, EITHER("sparse_index_dim", "index_head_dim"), 2, MAX_HEAD_DIM, CONFIG_REQUIRED, &dim_at);
  layer->block = config_integer(r, EITHER("sparse_block_size", "index_block_size"), MIN_BLOCK, MAX_BLOCK,
                                CONFIG_REQUIRED, &block_at);
  layer->top_k_blocks =
      config_integer(r, EITHER("sparse_topk_blocks", "index_topk_blocks"), 1, MAX_SELECTED, CONFIG_REQUIRED, NULL);
  layer->init_blocks = config_integer(r, EITHER("sparse_init_block", "index_init_blocks"), 0, MAX_SELECTED, 0, NULL);
  layer->local_blocks = config_integer(r, EITHER("sparse_local_block", "index_local_blocks"), 0, MAX_SELECTED,
                                       CONFIG_REQUIRED, &local_at);
#undef EITHER
  if (r->status) return;
  if (layer->index_heads != c->kv_heads)
    config_fail(r, heads_at, SLUICE_UNSUPPORTED,
                "%lld index heads, expected as many as \"num_key_value_heads\", which "
                "is %lld",
                (long long)layer->index_heads, (long long)c->kv_heads);
  else if (layer->index_dim % 2 != 0)
    config_fail(r, dim_at, SLUICE_UNSUPPORTED, "the index heads have %lld dimensions, expected an even number",
                (long long)layer->index_dim);
  else if (layer->index_dim < c->rotary_dim)
    config_fail(r, dim_at, SLUICE_INVALID,
                "the index heads have %lld dimensions, expected at least the %lld rotated "
                "ones",
                (long long)layer->index_dim, (long long)c->rotary_dim);
  else if (layer->init_blocks + layer->local_blocks > layer->top_k_blocks)
    config_fail(r, local_at, SLUICE_UNSUPPORTED,
                "%lld first and %lld most recent blocks are forced, but only %lld are selected: which of them count is "
                "not defined",
                (long long)layer->init_blocks, (long long)layer->local_blocks, (long long)layer->top_k_blocks);
  else if (layer->block % MIN_BLOCK != 0)
    config_fail(r, block_at, SLUICE_UNSUPPORTED, "a block has %lld keys, expected a multiple of %d",
                (long long)layer->block, MIN_BLOCK);
}

static void read_attention_kinds(description *d, bool *flags) {
  config_reader *r = &d->reader;
  model_config *c = d->config;
  static const char *const names[2] = {"full_attention", "minimax_m3_sparse"};
  bool off = d->sparse && !config_bool(r, d->sparse, "use_sparse_attention", true);
  if (r->status) return;
  if (off) {
    for (int64_t i = 0; i < c->layers; i++) flags[i] = false;
    const sluice_json_value *words = sluice_json_get(d->text, "layer_types");
    if (words)
      config_fail(r, words, SLUICE_INVALID,
                  "\"layer_types\" is given, but \"use_sparse_attention\" is false: keep one of them");
    return;
  }
  if (!d->sparse && !sluice_json_get(d->text, "layer_types")) {
    config_fail(r, d->text, SLUICE_INVALID, "key \"sparse_attention_config\" (or \"layer_types\") is missing");
    return;
  }
  config_layer_flags(r, (config_place){d->sparse, "sparse_attention_freq"}, (config_place){d->text, "layer_types"},
                     names, c->layers, flags);
  const sluice_json_value *disable = sluice_json_get(d->sparse, "sparse_disable_index_value");
  if (r->status || !disable) return;
  bool *without_values = sluice_allocate_array((size_t)c->layers, sizeof *without_values);
  if (!without_values) {
    r->status = sluice_out_of_memory();
    return;
  }
  config_layer_flags(r, (config_place){d->sparse, "sparse_disable_index_value"}, (config_place){NULL, NULL}, NULL,
                     c->layers, without_values);
  for (int64_t i = 0; i < c->layers && !r->status; i++)
    if (flags[i] && !without_values[i])
      config_fail(r, &disable->items[i], SLUICE_UNSUPPORTED,
                  "\"sparse_disable_index_value\" of sparse layer %lld is "
                  "0, supported is 1 alone (not implemented: an index branch with values)",
                  (long long)i);
  sluice_release(without_values);
}

static void read_mlp(description *d, const bool *moe, layer_config *template) {
  config_reader *r = &d->reader;
  const model_config *c = d->config;
  bool any_moe = false, any_dense = false;
  for (int64_t i = 0; i < c->layers; i++) *(moe[i] ? &any_moe : &any_dense) = true;
  const sluice_json_value *where;
  if (any_dense) {
    template->dense_width = text_integer(d, "dense_intermediate_size", 1, MAX_WIDTH, &where);
    check_elements(d, where, "a dense MLP (\"dense_intermediate_size\" x \"hidden_size\")", template->dense_width,
                   c->hidden, 1);
  }
  if (!any_moe) return;
  const sluice_json_value *experts_at, *top_at;
  template->experts = text_integer(d, "num_local_experts", 1, MAX_EXPERTS, &experts_at);
  template->experts_per_token = text_integer(d, "num_experts_per_tok", 1, MAX_EXPERTS_PER_TOKEN, &top_at);
  template->expert_width = text_integer(d, "intermediate_size", 1, MAX_WIDTH, NULL);
  template->routed_scale = config_number(r, ONE(d->text, "routed_scaling_factor"), 0, 1e6, NAN, NULL);
  int64_t shared = config_integer(r, ONE(d->text, "n_shared_experts"), 0, INT64_MAX, 1, &where);
  if (!r->status && shared > 1)
    config_fail(r, where, SLUICE_UNSUPPORTED, "\"n_shared_experts\" is %lld, supported are 0 and 1", (long long)shared);
  template->shared_width = shared ? text_integer(d, "shared_intermediate_size", 0, MAX_WIDTH, &where) : 0;
  if (r->status) return;
  if (template->experts_per_token > template->experts)
    config_fail(r, top_at, SLUICE_INVALID,
                "\"num_experts_per_tok\" is %lld, expected at most \"num_local_experts\", "
                "which is %lld",
                (long long)template->experts_per_token, (long long)template->experts);
  check_elements(d, experts_at,
                 "the experts of a layer (\"num_local_experts\" x \"intermediate_size\" x \"hidden_size\")",
                 template->experts, template->expert_width, c->hidden);
}

static void read_layers(description *d) {
  config_reader *r = &d->reader;
  model_config *c = d->config;
  if (r->status) return;
  static const char *const mlp_names[2] = {"dense", "sparse"};
  c->layer = sluice_allocate_array((size_t)c->layers, sizeof *c->layer);
  bool *flags = sluice_allocate_array((size_t)c->layers, 2 * sizeof *flags);
  if (!c->layer || !flags) {
    sluice_release(flags);
    r->status = sluice_out_of_memory();
    return;
  }
  bool *sparse = flags, *moe = flags + c->layers;
  layer_config all = {0};
  read_attention_kinds(d, sparse);
  config_layer_flags(r, (config_place){d->text, "moe_layer_freq"}, (config_place){d->text, "mlp_layer_types"},
                     mlp_names, c->layers, moe);
  bool any_sparse = false;
  for (int64_t i = 0; i < c->layers && !r->status; i++) any_sparse = any_sparse || sparse[i];
  if (any_sparse) read_sparse(d, &all);
  if (!r->status) read_mlp(d, moe, &all);
  c->page = any_sparse ? all.block : PAGE_WITHOUT_BLOCKS;
  for (int64_t i = 0; i < c->layers && !r->status; i++) {
    layer_config *layer = &c->layer[i];
    layer->sparse_attention = sparse[i];
    layer->moe = moe[i];
    if (sparse[i]) {
      layer->index_heads = all.index_heads;
      layer->index_dim = all.index_dim;
      layer->block = all.block;
      layer->top_k_blocks = all.top_k_blocks;
      layer->init_blocks = all.init_blocks;
      layer->local_blocks = all.local_blocks;
    }
    if (moe[i]) {
      layer->experts = all.experts;
      layer->experts_per_token = all.experts_per_token;
      layer->expert_width = all.expert_width;
      layer->shared_width = all.shared_width;
      layer->routed_scale = all.routed_scale;
    } else {
      layer->dense_width = all.dense_width;
    }
  }
  sluice_release(flags);
}

/* Reads `eos_token_id` of `object` into the configuration, in place of what was there. False when it has none. */
static bool read_stop_ids(config_reader *r, const sluice_json_value *object, model_config *c) {
  const sluice_json_value *value = sluice_json_get(object, "eos_token_id");
  if (r->status || !value || value->kind == SLUICE_JSON_NULL) return false;
  bool list = value->kind == SLUICE_JSON_ARRAY;
  size_t count = list ? value->length : 1;
  if (count > MAX_STOP_IDS) {
    config_fail(r, value, SLUICE_INVALID, "\"eos_token_id\" has %zu ids, expected at most %d", count, MAX_STOP_IDS);
    return false;
  }
  int64_t *ids = sluice_allocate_array(count, sizeof *ids);
  if (!ids) {
    r->status = sluice_out_of_memory();
    return false;
  }
  size_t kept = 0;
  for (size_t i = 0; i < count && !r->status; i++) {
    const sluice_json_value *id = list ? &value->items[i] : value;
    if (id->kind != SLUICE_JSON_NUMBER || !id->is_integer || id->integer < 0) {
      config_fail(r, id, SLUICE_INVALID, "\"eos_token_id\" is %s, expected a token id or a list of them",
                  config_show(r, id).text);
    } else if (id->integer >= c->vocabulary) {
      config_say(r, id->offset, "warning", "stop id %lld is outside the vocabulary of %lld and is ignored",
                 (long long)id->integer, (long long)c->vocabulary);
    } else {
      ids[kept++] = id->integer;
    }
  }
  sluice_release(c->stop_ids);
  c->stop_ids = ids;
  c->stop_id_count = kept;
  return true;
}

static bool same_ids(const sluice_json_value *a, const sluice_json_value *b) {
  const sluice_json_value *const values[2] = {a, b};
  size_t count[2];
  for (int i = 0; i < 2; i++) count[i] = values[i]->kind == SLUICE_JSON_ARRAY ? values[i]->length : 1;
  if (count[0] != count[1]) return false;
  for (size_t i = 0; i < count[0]; i++) {
    const sluice_json_value *x = a->kind == SLUICE_JSON_ARRAY ? &a->items[i] : a;
    const sluice_json_value *y = b->kind == SLUICE_JSON_ARRAY ? &b->items[i] : b;
    if (x->integer != y->integer) return false;
  }
  return true;
}

/* The outer value counts before that of text_config, as in transformers. Without either the family has a default. */
static void read_stop_ids_of_model(description *d) {
  config_reader *r = &d->reader;
  model_config *c = d->config;
  const sluice_json_value *inner = sluice_json_get(d->text, "eos_token_id");
  bool has_inner = read_stop_ids(r, d->text, c);
  if (d->root != d->text && read_stop_ids(r, d->root, c)) {
    const sluice_json_value *outer = sluice_json_get(d->root, "eos_token_id");
    if (!r->status && has_inner && !same_ids(inner, outer))
      config_say(r, outer->offset, "warning",
                 "\"eos_token_id\" differs from that of text_config: this one counts, unless generation_config.json "
                 "has one");
    return;
  }
  if (r->status || inner || c->vocabulary <= FAMILY_STOP_ID) return;
  c->stop_ids = sluice_allocate(sizeof *c->stop_ids);
  if (!c->stop_ids) {
    r->status = sluice_out_of_memory();
    return;
  }
  c->stop_ids[0] = FAMILY_STOP_ID;
  c->stop_id_count = 1;
}

/* A head without a weight of its own. transformers' outer class takes the setting of either place. */
static void read_tied_head(description *d) {
  bool outer = config_bool(&d->reader, d->root, "tie_word_embeddings", false);
  d->config->tied_head = config_bool(&d->reader, d->text, "tie_word_embeddings", false) || outer;
}

static void read_vision(description *d) {
  config_reader *r = &d->reader;
  const sluice_json_value *vision = config_child(r, d->root, "vision_config", &config_vision);
  if (!vision) return;
  static const struct {
    const char *key;
    int64_t maximum;
  } sizes[] = {{"num_hidden_layers", MAX_LAYERS},
               {"intermediate_size", MAX_WIDTH},
               {"patch_size", 1024},
               {"image_size", MAX_WIDTH},
               {"num_channels", 1024}};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
    (void)config_integer(r, ONE(vision, sizes[i].key), 1, sizes[i].maximum, 1, NULL);
  const sluice_json_value *heads_at;
  int64_t heads = config_integer(r, ONE(vision, "num_attention_heads"), 1, MAX_WIDTH, 1, &heads_at);
  int64_t hidden = config_integer(r, ONE(vision, "hidden_size"), 1, MAX_WIDTH, heads, NULL);
  if (!r->status && hidden % heads != 0)
    config_fail(r, heads_at, SLUICE_INVALID,
                "\"num_attention_heads\" of the vision tower is %lld, expected a divisor of its \"hidden_size\", %lld",
                (long long)heads, (long long)hidden);
  d->config->has_vision = true;
  config_say(r, vision->offset, "note", "the vision tower is not compiled yet: the bundle takes text alone");
}

static void read_everything(description *d) {
  config_reader *r = &d->reader;
  if (d->root->kind != SLUICE_JSON_OBJECT) {
    config_fail(r, d->root, SLUICE_INVALID, "the file holds %s, expected an object", config_show(r, d->root).text);
    return;
  }
  read_model_type(d);
  config_check_object(r, d->root, d->text ? &config_text : &config_root);
  if (!d->text) d->text = config_child(r, d->root, "text_config", &config_text);
  if (!d->text) {
    config_fail(r, d->root, SLUICE_INVALID, "key \"text_config\" is missing");
    return;
  }
  d->sparse = config_child(r, d->text, "sparse_attention_config", &config_sparse);
  find_rope(d);
  if (r->status) return;
  read_dtype(d);
  read_dimensions(d);
  read_rotary(d);
  read_hidden_act(d);
  read_layers(d);
  read_stop_ids_of_model(d);
  read_tied_head(d);
  if (d->root != d->text) read_vision(d);
}

sluice_status *model_config_parse(const char *text, size_t length, const char *file, config_warning *warning,
                                  void *user, model_config **out_config) {
  *out_config = NULL;
  if (length > max_file_bytes)
    return sluice_error(SLUICE_INVALID, "%s has %zu bytes, expected a model configuration of at most %zu", file, length,
                        max_file_bytes);
  sluice_json_document *document = NULL;
  SLUICE_TRY(sluice_json_parse(text, length, file, &document));
  description d = {.reader = {.document = document, .text = text, .length = length, .warning = warning, .user = user},
                   .root = sluice_json_root(document)};
  d.config = sluice_allocate(sizeof *d.config);
  if (d.config) d.config->path = sluice_copy_string(file, strlen(file));
  if (!d.config || !d.config->path)
    d.reader.status = sluice_out_of_memory();
  else
    read_everything(&d);
  sluice_json_free(document);
  if (d.reader.status) {
    model_config_free(d.config);
    return d.reader.status;
  }
  *out_config = d.config;
  return NULL;
}

/* Has a file of the directory looked at, when it is there: `look` gets `reader` with its document. */
static sluice_status *read_beside(const char *directory, size_t length, const char *name, config_reader *reader,
                                  void (*look)(config_reader *reader, model_config *config), model_config *config) {
  char *path = sluice_format_string("%.*s%s", (int)length, directory, name);
  if (!path) return sluice_out_of_memory();
  struct stat information;
  if (stat(path, &information) != 0) {
    sluice_release(path);
    return NULL;
  }
  char *text = NULL;
  sluice_json_document *document = NULL;
  sluice_status *status = input_read(path, max_file_bytes, &text, &reader->length);
  if (!status) status = sluice_json_parse(text, reader->length, path, &document);
  if (!status) {
    reader->document = document;
    reader->text = text;
    look(reader, config);
    status = reader->status;
  }
  sluice_json_free(document);
  sluice_release(text);
  sluice_release(path);
  return status;
}

/* generation_config.json: its stop ids are the ones that count. */
static void look_at_generation_config(config_reader *reader, model_config *config) {
  const sluice_json_value *root = sluice_json_root(reader->document);
  config_check_object(reader, root, &config_generation);
  (void)read_stop_ids(reader, root, config);
}

/* hf_quant_config.json says what config.json may not: that the weights are quantised. */
static void look_at_quantisation(config_reader *reader, model_config *config) {
  (void)config;
  const sluice_json_value *root = sluice_json_root(reader->document), *inner = sluice_json_get(root, "quantization");
  const sluice_json_value *algorithm = sluice_json_get(inner ? inner : root, "quant_algo");
  if (!algorithm || algorithm->kind == SLUICE_JSON_NULL) return;
  reader->status = sluice_json_error(reader->document, algorithm->offset, SLUICE_UNSUPPORTED,
                                     "\"quant_algo\" is %s: the checkpoint is quantised, which sluice does not read; "
                                     "use the model's BF16 weights",
                                     config_show(reader, algorithm).text);
}

/* Nothing would end a text: worth a warning, once all files have been read. */
static sluice_status *check_stop_ids(const model_config *config, config_warning *warning, void *user) {
  if (config->stop_id_count || !warning) return NULL;
  char *line = sluice_format_string("%s: warning: no stop id here or in generation_config.json: only --max-new ends a "
                                    "generation",
                                    config->path);
  if (!line) return sluice_out_of_memory();
  warning(user, line);
  sluice_release(line);
  return NULL;
}

sluice_status *model_config_read(const char *path, config_warning *warning, void *user, model_config **out_config) {
  *out_config = NULL;
  struct stat information;
  if (stat(path, &information) != 0)
    return sluice_error(errno == ENOENT ? SLUICE_NOT_FOUND : SLUICE_IO, "cannot open %s: %s", path, strerror(errno));
  size_t path_length = strlen(path);
  bool slash = path_length > 0 && path[path_length - 1] == '/';
  char *file = S_ISDIR(information.st_mode) ? sluice_format_string("%s%sconfig.json", path, slash ? "" : "/")
                                            : sluice_copy_string(path, path_length);
  if (!file) return sluice_out_of_memory();
  char *text = NULL;
  size_t length = 0;
  model_config *config = NULL;
  sluice_status *status = input_read(file, max_file_bytes, &text, &length);
  if (!status) status = sluice_check_downloaded(file, text, length < 64 ? length : 64);
  if (!status) status = model_config_parse(text, length, file, warning, user, &config);
  if (!status && config) {
    const char *name = strrchr(file, '/');
    size_t directory = name ? (size_t)(name + 1 - file) : 0;
    config_reader reader = {.warning = warning, .user = user};
    status = read_beside(file, directory, "generation_config.json", &reader, look_at_generation_config, config);
    if (!status) status = read_beside(file, directory, "hf_quant_config.json", &reader, look_at_quantisation, config);
    if (!status) status = check_stop_ids(config, warning, user);
  }
  sluice_release(text);
  sluice_release(file);
  if (status) {
    model_config_free(config);
    return status;
  }
  *out_config = config;
  return NULL;
}

void model_config_free(model_config *config) {
  if (!config) return;
  sluice_release(config->path);
  sluice_release(config->stop_ids);
  sluice_release(config->layer);
  sluice_release(config);
}

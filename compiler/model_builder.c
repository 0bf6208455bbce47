/* config -> `model` IR: the forward pass of docs/ir.md, one op per operation of the model, nothing fused. */
#include "compiler/compile.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { ANY = -1 }; /* a dimension written `?` */

typedef struct writer {
  ir_builder builder;
  ir_context *context;
  const model_config *config;
  MlirType activation, stored; /* element types of values and of weights */
  MlirType f32, i32;
  MlirValue batch, cache;
  int64_t layer; /* at hand */
} writer;

static MlirType matrix(MlirType element, int64_t columns) {
  return ir_tensor(element, (int64_t[]){ANY, columns}, 2);
}

static MlirType matrix3(MlirType element, int64_t rows, int64_t columns) {
  return ir_tensor(element, (int64_t[]){ANY, rows, columns}, 3);
}

static ir_attribute integer(const writer *w, const char *name, int64_t value) {
  return (ir_attribute){name, ir_integer(w->context, value)};
}

static ir_attribute number(const writer *w, const char *name, double value) {
  return (ir_attribute){name, ir_float(w->context, value)};
}

static ir_attribute text(const writer *w, const char *name, const char *value) {
  return (ir_attribute){name, ir_string(w->context, value)};
}

/* An op with one result. */
static MlirValue emit(writer *w, const char *name, const MlirValue *operands, size_t operand_count, MlirType type,
                      const ir_attribute *attributes, size_t attribute_count) {
  return ir_result(ir_create(&w->builder, name, operands, operand_count, &type, 1, attributes, attribute_count), 0);
}
#define OPERANDS(...) (const MlirValue[]){__VA_ARGS__}, COUNT(((const MlirValue[]){__VA_ARGS__}))
#define ATTRIBUTES(...) (const ir_attribute[]){__VA_ARGS__}, COUNT(((const ir_attribute[]){__VA_ARGS__}))
#define NO_OPERANDS NULL, 0
#define NO_ATTRIBUTES NULL, 0

/* The checkpoint tensor "language_model.SUFFIX". */
static MlirValue weight(writer *w, const char *suffix, MlirType element, const int64_t *shape, size_t rank) {
  char name[200];
  snprintf(name, sizeof name, "language_model.%s", suffix);
  return emit(w, "model.weight", NO_OPERANDS, ir_tensor(element, shape, rank), ATTRIBUTES(text(w, "name", name)));
}

/* The same of the layer at hand: "language_model.model.layers.N.SUFFIX". columns 0: a vector. */
static MlirValue layer_weight(writer *w, const char *suffix, MlirType element, int64_t rows, int64_t columns) {
  char name[160];
  snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)w->layer, suffix);
  return weight(w, name, element, (int64_t[]){rows, columns}, columns ? 2 : 1);
}

static MlirValue expert_weight(writer *w, const char *matrix_name, int64_t experts, int64_t rows, int64_t columns) {
  char name[160];
  snprintf(name, sizeof name, "model.layers.%lld.block_sparse_moe.experts.{expert}.%s.weight", (long long)w->layer,
           matrix_name);
  return weight(w, name, w->stored, (int64_t[]){experts, rows, columns}, 3);
}

static void observe(writer *w, MlirValue value, const char *what) {
  char name[64];
  snprintf(name, sizeof name, "layer.%lld.%s", (long long)w->layer, what);
  ir_create(&w->builder, "model.observe", &value, 1, NULL, 0, ATTRIBUTES(text(w, "name", name)));
}

static MlirValue rms_norm(writer *w, MlirValue x, MlirValue norm) {
  return emit(w, "model.rms_norm", OPERANDS(x, norm), mlirValueGetType(x),
              ATTRIBUTES(number(w, "eps", w->config->eps)));
}

static MlirValue linear(writer *w, MlirValue x, MlirValue matrix_weight, MlirType element) {
  return emit(w, "model.linear", OPERANDS(x, matrix_weight), matrix(element, ir_dimension(matrix_weight, 0)),
              NO_ATTRIBUTES);
}

/* x times the layer's weight `suffix` of rows x columns. */
static MlirValue project(writer *w, MlirValue x, const char *suffix, int64_t rows, int64_t columns) {
  return linear(w, x, layer_weight(w, suffix, w->stored, rows, columns), w->activation);
}

static MlirValue add(writer *w, MlirValue a, MlirValue b) {
  return emit(w, "model.add", OPERANDS(a, b), mlirValueGetType(a), NO_ATTRIBUTES);
}

static MlirValue swiglu(writer *w, MlirValue gate, MlirValue up) {
  return emit(w, "model.swiglu_oai", OPERANDS(gate, up), mlirValueGetType(gate),
              ATTRIBUTES(number(w, "alpha", w->config->swiglu_alpha), number(w, "limit", w->config->swiglu_limit)));
}

/* Norm of each head with the weight `norm`, then rotation. */
static MlirValue norm_and_rotate(writer *w, MlirValue x, const char *norm, int64_t heads, int64_t dim,
                                 MlirValue table) {
  MlirType type = mlirValueGetType(x);
  MlirValue normed = emit(w, "model.head_norm", OPERANDS(x, layer_weight(w, norm, w->stored, dim, 0)), type,
                          ATTRIBUTES(integer(w, "heads", heads), number(w, "eps", w->config->eps)));
  return emit(w, "model.rope", OPERANDS(normed, table), type, ATTRIBUTES(integer(w, "heads", heads)));
}

static void append(writer *w, MlirValue x, const char *part, int64_t heads) {
  w->cache = emit(w, "model.cache_append", OPERANDS(w->cache, w->batch, x), ir_cache_type(w->context),
                  ATTRIBUTES(integer(w, "layer", w->layer), text(w, "part", part), integer(w, "heads", heads)));
}

/* The blocks that each query selects, from the index queries. m3.md 2.7 and 2.8. */
static MlirValue select_blocks(writer *w, MlirValue index_q, const layer_config *layer) {
  MlirType scores = matrix3(w->f32, layer->index_heads, ANY);
  MlirValue score = emit(w, "model.index_score", OPERANDS(index_q, w->cache, w->batch), scores,
                         ATTRIBUTES(integer(w, "layer", w->layer), integer(w, "heads", layer->index_heads),
                                    integer(w, "dim", layer->index_dim)));
  MlirValue maximum =
      emit(w, "model.block_max", OPERANDS(score, w->batch), scores, ATTRIBUTES(integer(w, "block", layer->block)));
  return emit(w, "model.topk_blocks", OPERANDS(maximum, w->batch),
              matrix3(w->i32, layer->index_heads, layer->top_k_blocks),
              ATTRIBUTES(integer(w, "k", layer->top_k_blocks), integer(w, "init", layer->init_blocks),
                         integer(w, "local", layer->local_blocks), integer(w, "block", layer->block)));
}

/* residual + attention(norm(residual)) */
static MlirValue attention_block(writer *w, MlirValue residual, const layer_config *layer) {
  const model_config *c = w->config;
  int64_t q_width = c->heads * c->head_dim, kv_width = c->kv_heads * c->head_dim;
  MlirValue x = rms_norm(w, residual, layer_weight(w, "input_layernorm.weight", w->stored, c->hidden, 0));
  MlirValue q = project(w, x, "self_attn.q_proj.weight", q_width, c->hidden);
  MlirValue k = project(w, x, "self_attn.k_proj.weight", kv_width, c->hidden);
  MlirValue v = project(w, x, "self_attn.v_proj.weight", kv_width, c->hidden);
  MlirValue index_q = {0}, index_k = {0};
  if (layer->sparse_attention) {
    index_q = project(w, x, "self_attn.index_q_proj.weight", layer->index_heads * layer->index_dim, c->hidden);
    index_k = project(w, x, "self_attn.index_k_proj.weight", layer->index_dim, c->hidden);
  }
  MlirValue table = emit(w, "model.rope_table", OPERANDS(w->batch), matrix(w->f32, c->rotary_dim),
                         ATTRIBUTES(number(w, "theta", c->rope_theta), integer(w, "rotary_dim", c->rotary_dim)));
  q = norm_and_rotate(w, q, "self_attn.q_norm.weight", c->heads, c->head_dim, table);
  k = norm_and_rotate(w, k, "self_attn.k_norm.weight", c->kv_heads, c->head_dim, table);
  append(w, k, "key", c->kv_heads);
  append(w, v, "value", c->kv_heads);

  double scale = 1.0 / sqrt((double)c->head_dim);
  MlirValue mixed;
  if (layer->sparse_attention) {
    index_q = norm_and_rotate(w, index_q, "self_attn.index_q_norm.weight", layer->index_heads, layer->index_dim, table);
    index_k = norm_and_rotate(w, index_k, "self_attn.index_k_norm.weight", 1, layer->index_dim, table);
    append(w, index_k, "index_key", 1);
    MlirValue blocks = select_blocks(w, index_q, layer);
    observe(w, blocks, "blocks");
    mixed = emit(w, "model.block_attention", OPERANDS(q, w->cache, w->batch, blocks), mlirValueGetType(q),
                 ATTRIBUTES(integer(w, "layer", w->layer), integer(w, "heads", c->heads),
                            integer(w, "kv_heads", c->kv_heads), integer(w, "block", layer->block),
                            number(w, "scale", scale)));
  } else {
    mixed = emit(w, "model.attention", OPERANDS(q, w->cache, w->batch), mlirValueGetType(q),
                 ATTRIBUTES(integer(w, "layer", w->layer), integer(w, "heads", c->heads),
                            integer(w, "kv_heads", c->kv_heads), number(w, "scale", scale)));
  }
  MlirValue output = project(w, mixed, "self_attn.o_proj.weight", c->hidden, q_width);
  return add(w, output, residual);
}

/* A dense MLP: the layer's own, or the shared expert. */
static MlirValue dense_mlp(writer *w, MlirValue x, const char *prefix, int64_t width) {
  int64_t hidden = w->config->hidden;
  char name[96];
  snprintf(name, sizeof name, "%s.gate_proj.weight", prefix);
  MlirValue gate = project(w, x, name, width, hidden);
  snprintf(name, sizeof name, "%s.up_proj.weight", prefix);
  MlirValue up = project(w, x, name, width, hidden);
  snprintf(name, sizeof name, "%s.down_proj.weight", prefix);
  return project(w, swiglu(w, gate, up), name, hidden, width);
}

/* The routed experts' weighted sum. m3.md 2.11. */
static MlirValue routed_experts(writer *w, MlirValue x, const layer_config *layer) {
  int64_t hidden = w->config->hidden, k = layer->experts_per_token;
  MlirValue gate = layer_weight(w, "block_sparse_moe.gate.weight", w->f32, layer->experts, hidden);
  MlirValue bias = layer_weight(w, "block_sparse_moe.e_score_correction_bias", w->f32, layer->experts, 0);
  MlirValue logits = linear(w, x, gate, w->f32);
  MlirType types[2] = {matrix(w->i32, k), matrix(w->f32, k)};
  MlirOperation chosen =
      ir_create(&w->builder, "model.topk_experts", OPERANDS(logits, bias), types, 2, ATTRIBUTES(integer(w, "k", k)));
  MlirValue experts = ir_result(chosen, 0), weights = ir_result(chosen, 1);
  observe(w, experts, "router.experts");
  observe(w, weights, "router.weights");

  MlirValue w_gate = expert_weight(w, "w1", layer->experts, layer->expert_width, hidden);
  MlirValue w_up = expert_weight(w, "w3", layer->experts, layer->expert_width, hidden);
  MlirValue w_down = expert_weight(w, "w2", layer->experts, hidden, layer->expert_width);
  MlirType inner = matrix3(w->activation, k, layer->expert_width);
  MlirValue g = emit(w, "model.expert_linear", OPERANDS(x, experts, w_gate), inner, NO_ATTRIBUTES);
  MlirValue u = emit(w, "model.expert_linear", OPERANDS(x, experts, w_up), inner, NO_ATTRIBUTES);
  MlirValue y = emit(w, "model.expert_linear", OPERANDS(swiglu(w, g, u), experts, w_down), matrix3(w->f32, k, hidden),
                     NO_ATTRIBUTES);
  return emit(w, "model.combine", OPERANDS(y, weights), matrix(w->activation, hidden),
              ATTRIBUTES(number(w, "scale", layer->routed_scale)));
}

/* residual + mlp(norm(residual)); of experts the shared one is added first. */
static MlirValue mlp_block(writer *w, MlirValue residual, const layer_config *layer) {
  MlirValue norm = layer_weight(w, "post_attention_layernorm.weight", w->stored, w->config->hidden, 0);
  MlirValue x = rms_norm(w, residual, norm);
  if (!layer->moe) return add(w, dense_mlp(w, x, "mlp", layer->dense_width), residual);
  if (layer->shared_width)
    residual = add(w, dense_mlp(w, x, "block_sparse_moe.shared_experts", layer->shared_width), residual);
  return add(w, routed_experts(w, x, layer), residual);
}

static void write_body(writer *w) {
  const model_config *c = w->config;
  const int64_t table_shape[] = {c->vocabulary, c->hidden};
  MlirValue table = weight(w, "model.embed_tokens.weight", w->stored, table_shape, 2);
  MlirValue h = emit(w, "model.embed", OPERANDS(w->batch, table), matrix(w->activation, c->hidden), NO_ATTRIBUTES);
  for (w->layer = 0; w->layer < c->layers; w->layer++) {
    h = attention_block(w, h, &c->layer[w->layer]);
    h = mlp_block(w, h, &c->layer[w->layer]);
    observe(w, h, "out");
  }
  h = emit(w, "model.select_rows", OPERANDS(h, w->batch), mlirValueGetType(h), NO_ATTRIBUTES);
  h = rms_norm(w, h, weight(w, "model.norm.weight", w->stored, &c->hidden, 1));
  MlirValue head = weight(w, c->tied_head ? "model.embed_tokens.weight" : "lm_head.weight", w->stored, table_shape, 2);
  MlirValue logits = emit(w, "model.lm_head", OPERANDS(h, head), matrix(w->f32, c->vocabulary), NO_ATTRIBUTES);
  MlirValue sampled =
      emit(w, "model.sample", OPERANDS(logits, w->batch), ir_tensor(w->i32, (int64_t[]){ANY}, 1), NO_ATTRIBUTES);
  ir_create(&w->builder, "func.return", OPERANDS(logits, sampled), NULL, 0, NO_ATTRIBUTES);
}

static MlirNamedAttribute named(MlirContext mlir, const char *name, MlirAttribute value) {
  return mlirNamedAttributeGet(mlirIdentifierGet(mlir, mlirStringRefCreateFromCString(name)), value);
}

static int64_t most(const model_config *c, bool per_token) {
  int64_t result = 0;
  for (int64_t i = 0; i < c->layers; i++) {
    int64_t value = per_token ? c->layer[i].experts_per_token : c->layer[i].experts;
    if (value > result) result = value;
  }
  return result;
}

/* func.func @step with an empty body of two arguments. */
static MlirOperation create_function(const writer *w, sluice_dtype dtype, int64_t max_context) {
  MlirContext mlir = ir_mlir(w->context);
  const model_config *c = w->config;
  MlirType inputs[2] = {ir_batch_type(w->context), ir_cache_type(w->context)};
  MlirType outputs[2] = {matrix(w->f32, c->vocabulary), ir_tensor(w->i32, (int64_t[]){ANY}, 1)};
  const char *dtype_name = dtype == SLUICE_F32 ? "float32" : "bfloat16";
  const char *stored_name = mlirTypeEqual(w->stored, w->f32) ? "float32" : "bfloat16";
  const MlirNamedAttribute attributes[] = {
      named(mlir, "sym_name", ir_string(w->context, "step")),
      named(mlir, "function_type", mlirTypeAttrGet(mlirFunctionTypeGet(mlir, 2, inputs, 2, outputs))),
      named(mlir, "model.dtype", ir_string(w->context, dtype_name)),
      named(mlir, "model.weight_dtype", ir_string(w->context, stored_name)),
      named(mlir, "model.hidden", ir_integer(w->context, c->hidden)),
      named(mlir, "model.layers", ir_integer(w->context, c->layers)),
      named(mlir, "model.vocabulary", ir_integer(w->context, c->vocabulary)),
      named(mlir, "model.page", ir_integer(w->context, c->page)),
      named(mlir, "model.max_context", ir_integer(w->context, max_context)),
      named(mlir, "model.experts", ir_integer(w->context, most(c, false))),
      named(mlir, "model.experts_per_token", ir_integer(w->context, most(c, true))),
      named(mlir, "model.stop_ids", ir_integers(w->context, c->stop_ids, c->stop_id_count)),
  };
  MlirOperationState state = mlirOperationStateGet(mlirStringRefCreateFromCString("func.func"), w->builder.location);
  mlirOperationStateAddAttributes(&state, (intptr_t)COUNT(attributes), attributes);
  MlirRegion region = mlirRegionCreate();
  MlirLocation locations[2] = {w->builder.location, w->builder.location};
  mlirRegionAppendOwnedBlock(region, mlirBlockCreate(2, inputs, locations));
  mlirOperationStateAddOwnedRegions(&state, 1, &region);
  return mlirOperationCreate(&state);
}

sluice_dtype model_stored_dtype(const model_config *config, sluice_dtype dtype, sluice_dtype asked) {
  if (asked) return asked;
  /* float16 weights are kept exactly by float32 alone */
  return dtype == SLUICE_BF16 || config->weight_dtype == SLUICE_BF16 ? SLUICE_BF16 : SLUICE_F32;
}

sluice_status *model_build(ir_context *context, const model_config *config, sluice_dtype dtype,
                           sluice_dtype weight_dtype, int64_t max_context, MlirModule *out_module) {
  if (dtype != SLUICE_F32 && dtype != SLUICE_BF16)
    return sluice_error(SLUICE_INVALID, "activations of %s asked for, expected F32 or BF16", sluice_dtype_name(dtype));
  if (max_context == 0) max_context = config->max_positions;
  if (max_context < 1 || max_context > config->max_positions)
    return sluice_error(SLUICE_INVALID, "a context of %lld tokens was asked for, expected 1 to the model's %lld",
                        (long long)max_context, (long long)config->max_positions);
  MlirLocation location =
      mlirLocationFileLineColGet(ir_mlir(context), mlirStringRefCreateFromCString(config->path), 1, 1);
  writer w = {.builder = {.context = context, .location = location},
              .context = context,
              .config = config,
              .f32 = ir_f32(context),
              .i32 = ir_i32(context)};
  w.activation = dtype == SLUICE_F32 ? w.f32 : ir_bf16(context);
  w.stored = model_stored_dtype(config, dtype, weight_dtype) == SLUICE_BF16 ? ir_bf16(context) : w.f32;
  MlirModule module = mlirModuleCreateEmpty(location);
  MlirOperation function = create_function(&w, dtype, max_context);
  mlirBlockAppendOwnedOperation(mlirModuleGetBody(module), function);
  w.builder.block = ir_body(function);
  w.batch = mlirBlockGetArgument(w.builder.block, 0);
  w.cache = mlirBlockGetArgument(w.builder.block, 1);
  write_body(&w);
  sluice_status *status = ir_verify(context, module);
  if (status) {
    mlirModuleDestroy(module);
    return status;
  }
  *out_module = module;
  return NULL;
}

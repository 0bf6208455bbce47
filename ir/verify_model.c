/* The `model` dialect: shapes, element types, attribute relations, cache parts. Names and formulas: docs/ir.md. */
#include "ir/verify.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <string.h>

/* Element types that a value may have. */
enum { F32 = 1, BF16 = 2, I32 = 4, ACTIVATION = 8, STORED = F32 | BF16 };
enum { ANY = -1 }; /* a dimension without a known size */

static MlirValue operand(const verify_state *state, intptr_t index) {
  return mlirOperationGetOperand(state->op, index);
}

static MlirValue result(const verify_state *state, intptr_t index) {
  return mlirOperationGetResult(state->op, index);
}

static int64_t integer(const verify_state *state, const char *name) {
  return ir_get_integer(state->op, name);
}

static bool verify_element(verify_state *state, MlirValue value, const char *what, int elements) {
  MlirType type = mlirShapedTypeGetElementType(mlirValueGetType(value));
  bool f32 = mlirTypeIsAF32(type), bf16 = mlirTypeIsABF16(type);
  if ((elements & F32) && f32) return true;
  if ((elements & BF16) && bf16) return true;
  if ((elements & I32) && mlirTypeEqual(type, ir_i32(state->context))) return true;
  if ((elements & ACTIVATION) && (f32 || bf16)) {
    if (mlirTypeIsNull(state->activation)) state->activation = type;
    if (mlirTypeEqual(type, state->activation)) return true;
    return verify_fail(state, "%s has elements of %s, but the activations of the function are %s", what,
                       f32 ? "f32" : "bf16", f32 ? "bf16" : "f32");
  }
  const char *expected = elements == I32 ? "i32" : elements == F32 ? "f32" : "f32 or bf16";
  return verify_fail(state, "%s has the wrong element type, expected %s", what, expected);
}

/* A tensor of this rank; `?` for the first dimension when it is one of rows, fixed sizes otherwise. */
static bool verify_tensor(verify_state *state, MlirValue value, const char *what, intptr_t rank, bool rows,
                          int elements) {
  MlirType type = mlirValueGetType(value);
  if (!mlirTypeIsARankedTensor(type)) return verify_fail(state, "%s is no ranked tensor", what);
  if (ir_rank(value) != rank)
    return verify_fail(state, "%s has rank %ld, expected %ld", what, (long)ir_rank(value), (long)rank);
  for (intptr_t i = 0; i < rank; i++) {
    int64_t size = ir_dimension(value, i);
    if (rows && i == 0) {
      if (size != ANY) return verify_fail(state, "dimension 0 of %s is %lld, expected ?", what, (long long)size);
    } else if (size == 0 || size > INT32_MAX || size == ANY) {
      return verify_fail(state, "dimension %ld of %s has no size from 1 to 2147483647", (long)i, what);
    }
  }
  return verify_element(state, value, what, elements);
}

static bool verify_rows(verify_state *state, MlirValue value, const char *what, int elements) {
  return verify_tensor(state, value, what, 2, true, elements);
}

static bool verify_size(verify_state *state, MlirValue value, intptr_t dimension, const char *what, int64_t expected,
                        const char *why) {
  int64_t found = ir_dimension(value, dimension);
  if (found == expected) return true;
  return verify_fail(state, "dimension %ld of %s is %lld, expected %lld, %s", (long)dimension, what, (long long)found,
                     (long long)expected, why);
}

static bool verify_same_type(verify_state *state, MlirValue a, const char *a_name, MlirValue b, const char *b_name) {
  if (mlirTypeEqual(mlirValueGetType(a), mlirValueGetType(b))) return true;
  return verify_fail(state, "%s and %s differ in type", a_name, b_name);
}

/* Columns of `value` that `heads` heads share. */
static bool verify_heads(verify_state *state, MlirValue value, const char *what, const char *attribute) {
  int64_t heads = integer(state, attribute), columns = ir_dimension(value, 1);
  if (columns % heads == 0) return true;
  return verify_fail(state, "%s has %lld columns, expected a multiple of '%s', %lld", what, (long long)columns,
                     attribute, (long long)heads);
}

static bool verify_product(verify_state *state, MlirValue value, const char *what, int64_t a, int64_t b,
                           const char *why) {
  int64_t expected;
  if (__builtin_mul_overflow(a, b, &expected)) return verify_fail(state, "%s overflows", why);
  return verify_size(state, value, 1, what, expected, why);
}

/* The weight operand `w` [N][K], or [E][N][K] of experts, against `columns` of x. */
static bool verify_weight(verify_state *state, MlirValue w, const char *what, intptr_t rank, int64_t columns) {
  return verify_tensor(state, w, what, rank, false, STORED) &&
         verify_size(state, w, rank - 1, what, columns, "the columns of x");
}

static bool verify_vector(verify_state *state, MlirValue w, const char *what, int64_t size, const char *why) {
  return verify_tensor(state, w, what, 1, false, STORED) && verify_size(state, w, 0, what, size, why);
}

static bool verify_block(verify_state *state) {
  int64_t block = integer(state, "block");
  if (!state->page || block == state->page) return true;
  return verify_fail(state, "attribute 'block' is %lld, expected %lld, the page of the cache", (long long)block,
                     (long long)state->page);
}

/* ---- what is known of a layer's cache ---- */

static verify_layer *find_layer(verify_state *state, int64_t layer) {
  for (size_t i = state->layer_count; i-- > 0;)
    if (state->layers[i].layer == layer) return &state->layers[i];
  if (state->layer_count == state->layer_capacity) {
    size_t capacity = state->layer_capacity * 2 + 64;
    verify_layer *grown = sluice_reallocate_array(state->layers, capacity, sizeof *grown);
    if (!grown) {
      state->out_of_memory = true;
      return NULL;
    }
    state->layers = grown;
    state->layer_capacity = capacity;
  }
  state->layers[state->layer_count] = (verify_layer){.layer = layer};
  return &state->layers[state->layer_count++];
}

/* The op takes the cache of its layer to have this many heads of this size. */
static bool verify_layer_keys(verify_state *state, int64_t kv_heads, int64_t head_dim) {
  verify_layer *known = find_layer(state, integer(state, "layer"));
  if (!known) return false;
  if (!known->kv_heads) {
    known->kv_heads = kv_heads;
    known->head_dim = head_dim;
  }
  if (known->kv_heads == kv_heads && known->head_dim == head_dim) return true;
  return verify_fail(state,
                     "it takes the cache of layer %lld to have %lld heads of %lld elements, but an earlier op takes it "
                     "to have %lld of %lld",
                     (long long)known->layer, (long long)kv_heads, (long long)head_dim, (long long)known->kv_heads,
                     (long long)known->head_dim);
}

static bool verify_layer_index(verify_state *state, int64_t index_dim) {
  verify_layer *known = find_layer(state, integer(state, "layer"));
  if (!known) return false;
  if (!known->index_dim) known->index_dim = index_dim;
  if (known->index_dim == index_dim) return true;
  return verify_fail(state,
                     "it takes the index keys of layer %lld to have %lld elements, but an earlier op takes them to "
                     "have %lld",
                     (long long)known->layer, (long long)index_dim, (long long)known->index_dim);
}

/* ---- the ops ---- */

static bool contains(MlirStringRef text, const char *part) {
  return memmem(text.data, text.length, part, strlen(part)) != NULL;
}

static bool weight(verify_state *state) {
  MlirValue w = result(state, 0);
  intptr_t rank = ir_rank(w);
  if (rank < 1 || rank > 3) return verify_fail(state, "result has rank %ld, expected 1, 2 or 3", (long)rank);
  bool experts = contains(ir_get_string(state->op, "name"), "{expert}");
  if (experts != (rank == 3))
    return verify_fail(state,
                       "result has rank %ld, but its name %s \"{expert}\", which stands for a dimension of its own",
                       (long)rank, experts ? "has" : "lacks");
  return verify_tensor(state, w, "result", rank, false, STORED);
}

static bool embed(verify_state *state) {
  MlirValue table = operand(state, 1), out = result(state, 0);
  return verify_tensor(state, table, "table", 2, false, STORED) && verify_rows(state, out, "result", ACTIVATION) &&
         verify_size(state, out, 1, "result", ir_dimension(table, 1), "the columns of table");
}

static bool rms_norm(verify_state *state) {
  MlirValue x = operand(state, 0);
  return verify_rows(state, x, "x", ACTIVATION) &&
         verify_vector(state, operand(state, 1), "w", ir_dimension(x, 1), "the columns of x") &&
         verify_same_type(state, x, "x", result(state, 0), "result");
}

static bool linear_of(verify_state *state, int out_elements) {
  MlirValue x = operand(state, 0), w = operand(state, 1), out = result(state, 0);
  return verify_rows(state, x, "x", ACTIVATION) && verify_weight(state, w, "w", 2, ir_dimension(x, 1)) &&
         verify_rows(state, out, "result", out_elements) &&
         verify_size(state, out, 1, "result", ir_dimension(w, 0), "the rows of w");
}

static bool linear(verify_state *state) {
  return linear_of(state,
                   mlirTypeIsAF32(mlirShapedTypeGetElementType(mlirValueGetType(result(state, 0)))) ? F32 : ACTIVATION);
}

static bool lm_head(verify_state *state) {
  MlirOperation user = ir_single_user(result(state, 0));
  const bool gathered = !mlirOperationIsNull(user) && ir_is(user, "model.all_gather"); /* then it has some rows alone */
  return linear_of(state, F32) &&
         (!state->vocabulary || gathered ||
          verify_size(state, result(state, 0), 1, "result", state->vocabulary, "the function's vocabulary"));
}

static bool linear_add(verify_state *state) {
  return linear_of(state, ACTIVATION) &&
         verify_same_type(state, operand(state, 2), "residual", result(state, 0), "result");
}

static bool linear_swiglu(verify_state *state) {
  return linear_of(state, ACTIVATION) &&
         verify_same_type(state, operand(state, 1), "w_gate", operand(state, 2), "w_up");
}

static bool head_norm(verify_state *state) {
  MlirValue x = operand(state, 0), w = operand(state, 1);
  return verify_rows(state, x, "x", ACTIVATION) && verify_tensor(state, w, "w", 1, false, STORED) &&
         verify_product(state, x, "x", integer(state, "heads"), ir_dimension(w, 0), "'heads' times the size of w") &&
         verify_same_type(state, x, "x", result(state, 0), "result");
}

static bool rope_table(verify_state *state) {
  return verify_rows(state, result(state, 0), "result", F32) &&
         verify_size(state, result(state, 0), 1, "result", integer(state, "rotary_dim"), "the attribute 'rotary_dim'");
}

/* A table of cosines and sines for heads of `head_dim` elements. */
static bool verify_table(verify_state *state, MlirValue table, int64_t head_dim) {
  if (!verify_rows(state, table, "table", F32)) return false;
  int64_t rotary = ir_dimension(table, 1);
  if (rotary % 2) return verify_fail(state, "table has %lld columns, expected an even number", (long long)rotary);
  if (rotary <= head_dim) return true;
  return verify_fail(state, "table rotates %lld dimensions, but a head has %lld", (long long)rotary,
                     (long long)head_dim);
}

static bool rope(verify_state *state) {
  MlirValue x = operand(state, 0);
  return verify_rows(state, x, "x", ACTIVATION) && verify_heads(state, x, "x", "heads") &&
         verify_table(state, operand(state, 1), ir_dimension(x, 1) / integer(state, "heads")) &&
         verify_same_type(state, x, "x", result(state, 0), "result");
}

static bool cache_append(verify_state *state) {
  MlirValue x = operand(state, 2);
  int64_t heads = integer(state, "heads");
  if (!verify_rows(state, x, "x", ACTIVATION) || !verify_heads(state, x, "x", "heads")) return false;
  if (!contains(ir_get_string(state->op, "part"), "index_key"))
    return verify_layer_keys(state, heads, ir_dimension(x, 1) / heads);
  if (heads != 1) return verify_fail(state, "attribute 'heads' is %lld, expected 1 for index keys", (long long)heads);
  return verify_layer_index(state, ir_dimension(x, 1));
}

static bool verify_index_query(verify_state *state, MlirValue iq, const char *heads, const char *dim) {
  return verify_rows(state, iq, "iq", ACTIVATION) &&
         verify_product(state, iq, "iq", integer(state, heads), integer(state, dim), "heads times their size") &&
         verify_layer_index(state, integer(state, dim));
}

/* Block lists [tokens][heads][k]. */
static bool verify_blocks(verify_state *state, MlirValue blocks, const char *what, int64_t heads, int64_t k) {
  return verify_tensor(state, blocks, what, 3, true, I32) &&
         verify_size(state, blocks, 1, what, heads, "the number of heads that select") &&
         (k == ANY || verify_size(state, blocks, 2, what, k, "the attribute 'k'"));
}

/* Scores [tokens][heads][keys or blocks], the last two known from elsewhere. */
static bool verify_scores(verify_state *state, MlirValue scores, const char *what) {
  MlirType type = mlirValueGetType(scores);
  if (!mlirTypeIsARankedTensor(type) || ir_rank(scores) != 3 || ir_dimension(scores, 0) != ANY ||
      ir_dimension(scores, 1) < 1 || ir_dimension(scores, 2) != ANY)
    return verify_fail(state, "%s is not of the shape ?xHEADSx?", what);
  return verify_element(state, scores, what, F32);
}

static bool index_score(verify_state *state) {
  return verify_index_query(state, operand(state, 0), "heads", "dim") &&
         verify_scores(state, result(state, 0), "result") &&
         verify_size(state, result(state, 0), 1, "result", integer(state, "heads"), "the attribute 'heads'");
}

static bool block_max(verify_state *state) {
  return verify_scores(state, operand(state, 0), "scores") && verify_block(state) &&
         verify_same_type(state, operand(state, 0), "scores", result(state, 0), "result");
}

static bool topk_blocks(verify_state *state) {
  return verify_scores(state, operand(state, 0), "maxima") && verify_block(state) &&
         verify_blocks(state, result(state, 0), "result", ir_dimension(operand(state, 0), 1), integer(state, "k"));
}

/* q, the cache of its layer, and out, of the attention ops. */
static bool verify_attention(verify_state *state, MlirValue q, MlirValue out) {
  int64_t heads = integer(state, "heads"), kv_heads = integer(state, "kv_heads");
  if (heads % kv_heads)
    return verify_fail(state, "attribute 'heads' is %lld, expected a multiple of 'kv_heads', %lld", (long long)heads,
                       (long long)kv_heads);
  return verify_rows(state, q, "q", ACTIVATION) && verify_heads(state, q, "q", "heads") &&
         verify_same_type(state, q, "q", out, "result") &&
         verify_layer_keys(state, kv_heads, ir_dimension(q, 1) / heads);
}

static bool attention(verify_state *state) {
  return verify_attention(state, operand(state, 0), result(state, 0));
}

static bool block_attention(verify_state *state) {
  return verify_attention(state, operand(state, 0), result(state, 0)) && verify_block(state) &&
         verify_blocks(state, operand(state, 3), "blocks", integer(state, "kv_heads"), ANY);
}

static bool index_select(verify_state *state) {
  return verify_index_query(state, operand(state, 0), "heads", "dim") && verify_block(state) &&
         verify_blocks(state, result(state, 0), "result", integer(state, "heads"), integer(state, "k"));
}

static bool select_attention(verify_state *state) {
  if (integer(state, "index_heads") != integer(state, "kv_heads"))
    return verify_fail(state, "attribute 'index_heads' is %lld, expected %lld, the attribute 'kv_heads'",
                       (long long)integer(state, "index_heads"), (long long)integer(state, "kv_heads"));
  return verify_attention(state, operand(state, 0), result(state, 0)) && verify_block(state) &&
         verify_index_query(state, operand(state, 1), "index_heads", "index_dim") &&
         verify_blocks(state, result(state, 1), "the second result", integer(state, "kv_heads"), integer(state, "k"));
}

static bool norm_rope_append(verify_state *state) {
  int64_t heads = integer(state, "heads"), kv_heads = integer(state, "kv_heads"), dim = integer(state, "head_dim");
  int64_t index_heads = integer(state, "index_heads"), index_dim = integer(state, "index_dim");
  bool index = index_heads != 0;
  const int64_t limit = 1 << 24; /* so that no product overflows */
  if (index != (index_dim != 0))
    return verify_fail(state, "of the attributes 'index_heads' and 'index_dim' one is 0 and the other is not");
  if (mlirOperationGetNumOperands(state->op) != (index ? 8 : 6))
    return verify_fail(state, "it has %ld operands, expected %d %s an index branch",
                       (long)mlirOperationGetNumOperands(state->op), index ? 8 : 6, index ? "with" : "without");
  if (mlirOperationGetNumResults(state->op) != (index ? 3 : 2))
    return verify_fail(state, "it has %ld results, expected %d %s an index branch",
                       (long)mlirOperationGetNumResults(state->op), index ? 3 : 2, index ? "with" : "without");
  if (heads > limit || kv_heads > limit || dim > limit || index_heads > limit || index_dim > limit)
    return verify_fail(state, "a number of heads or their size is over %lld", (long long)limit);
  if (heads % kv_heads)
    return verify_fail(state, "attribute 'heads' is %lld, expected a multiple of 'kv_heads', %lld", (long long)heads,
                       (long long)kv_heads);
  MlirValue projection = operand(state, 2), q = result(state, 1);
  if (!verify_rows(state, projection, "projection", ACTIVATION) ||
      !verify_size(state, projection, 1, "projection", (heads + 2 * kv_heads) * dim + (index_heads + index) * index_dim,
                   "the columns of q, k, v, index q and index k") ||
      !verify_table(state, operand(state, 3), index && index_dim < dim ? index_dim : dim) ||
      !verify_vector(state, operand(state, 4), "q_norm", dim, "the attribute 'head_dim'") ||
      !verify_vector(state, operand(state, 5), "k_norm", dim, "the attribute 'head_dim'") ||
      !verify_same_type(state, operand(state, 4), "q_norm", operand(state, 5), "k_norm") ||
      !verify_rows(state, q, "q", ACTIVATION) ||
      !verify_product(state, q, "q", heads, dim, "'heads' times 'head_dim'") ||
      !verify_layer_keys(state, kv_heads, dim))
    return false;
  if (!index) return true;
  MlirType norm = mlirShapedTypeGetElementType(mlirValueGetType(operand(state, 4)));
  for (intptr_t i = 6; i < 8; i++) {
    const char *what = i == 6 ? "index_q_norm" : "index_k_norm";
    if (!verify_vector(state, operand(state, i), what, index_dim, "the attribute 'index_dim'")) return false;
    if (!mlirTypeEqual(mlirShapedTypeGetElementType(mlirValueGetType(operand(state, i))), norm))
      return verify_fail(state, "%s and q_norm differ in their elements' type", what);
  }
  return verify_rows(state, result(state, 2), "iq", ACTIVATION) &&
         verify_product(state, result(state, 2), "iq", index_heads, index_dim, "'index_heads' times 'index_dim'") &&
         verify_layer_index(state, index_dim);
}

/* Chosen experts [tokens][k] and their weights. */
static bool verify_choice(verify_state *state, int64_t experts) {
  int64_t k = integer(state, "k");
  if (k > experts)
    return verify_fail(state, "attribute 'k' is %lld, but there are %lld experts", (long long)k, (long long)experts);
  return verify_rows(state, result(state, 0), "the first result", I32) &&
         verify_size(state, result(state, 0), 1, "the first result", k, "the attribute 'k'") &&
         verify_rows(state, result(state, 1), "the second result", F32) &&
         verify_size(state, result(state, 1), 1, "the second result", k, "the attribute 'k'");
}

static bool topk_experts(verify_state *state) {
  MlirValue logits = operand(state, 0), bias = operand(state, 1);
  return verify_rows(state, logits, "logits", F32) && verify_tensor(state, bias, "bias", 1, false, F32) &&
         verify_size(state, bias, 0, "bias", ir_dimension(logits, 1), "the columns of logits") &&
         verify_choice(state, ir_dimension(logits, 1));
}

static bool router(verify_state *state) {
  MlirValue x = operand(state, 0), gate = operand(state, 1), bias = operand(state, 2);
  return verify_rows(state, x, "x", ACTIVATION) && verify_weight(state, gate, "gate", 2, ir_dimension(x, 1)) &&
         verify_element(state, gate, "gate", F32) && verify_tensor(state, bias, "bias", 1, false, F32) &&
         verify_size(state, bias, 0, "bias", ir_dimension(gate, 0), "the rows of gate") &&
         verify_choice(state, ir_dimension(gate, 0));
}

static bool expert_linear(verify_state *state) {
  MlirValue x = operand(state, 0), experts = operand(state, 1), w = operand(state, 2), out = result(state, 0);
  intptr_t rank = ir_rank(x) == 3 ? 3 : 2;
  bool f32 = mlirTypeIsAF32(mlirShapedTypeGetElementType(mlirValueGetType(out)));
  return verify_tensor(state, x, "x", rank, true, ACTIVATION) && verify_rows(state, experts, "experts", I32) &&
         (rank == 2 || verify_size(state, x, 1, "x", ir_dimension(experts, 1), "the columns of experts")) &&
         verify_weight(state, w, "w", 3, ir_dimension(x, rank - 1)) &&
         verify_tensor(state, out, "result", 3, true, f32 ? F32 : ACTIVATION) &&
         verify_size(state, out, 1, "result", ir_dimension(experts, 1), "the columns of experts") &&
         verify_size(state, out, 2, "result", ir_dimension(w, 1), "the rows of w");
}

/* The weight `shared` is like that of one of the experts in `w`. */
static bool verify_shared_weight(verify_state *state, MlirValue shared, const char *name, MlirValue w) {
  if (!verify_weight(state, shared, name, 2, ir_dimension(w, 2)) ||
      !verify_size(state, shared, 0, name, ir_dimension(w, 1), "the rows of one expert"))
    return false;
  if (mlirTypeEqual(mlirShapedTypeGetElementType(mlirValueGetType(shared)),
                    mlirShapedTypeGetElementType(mlirValueGetType(w))))
    return true;
  return verify_fail(state, "%s has elements of another type than the experts' weight", name);
}

static bool verify_shared_expert(verify_state *state, MlirValue w_gate, MlirValue w_up, MlirValue w_down) {
  return verify_shared_weight(state, operand(state, IR_EXPERTS_SHARED), "shared_gate", w_gate) &&
         verify_shared_weight(state, operand(state, IR_EXPERTS_SHARED + 1), "shared_up", w_up) &&
         verify_shared_weight(state, operand(state, IR_EXPERTS_SHARED + 2), "shared_down", w_down);
}

static bool experts(verify_state *state) {
  intptr_t operands = mlirOperationGetNumOperands(state->op), residual = ir_experts_residual(state->op);
  intptr_t least = ir_experts_shared(state->op) ? IR_EXPERTS_SHARED + 3 : IR_EXPERTS_SHARED;
  if (operands > least + 1)
    return verify_fail(state, "it has %ld operands, expected %ld or %ld", (long)operands, (long)least, (long)least + 1);
  MlirValue x = operand(state, 0), chosen = operand(state, 1), weights = operand(state, 2), w_gate = operand(state, 3);
  MlirValue w_up = operand(state, 4), w_down = operand(state, 5), out = result(state, 0);
  return verify_rows(state, x, "x", ACTIVATION) && verify_rows(state, chosen, "experts", I32) &&
         verify_rows(state, weights, "weights", F32) &&
         verify_size(state, weights, 1, "weights", ir_dimension(chosen, 1), "the columns of experts") &&
         verify_weight(state, w_gate, "w_gate", 3, ir_dimension(x, 1)) &&
         verify_same_type(state, w_gate, "w_gate", w_up, "w_up") &&
         verify_tensor(state, w_down, "w_down", 3, false, STORED) &&
         verify_size(state, w_down, 0, "w_down", ir_dimension(w_gate, 0), "the number of experts of w_gate") &&
         verify_size(state, w_down, 2, "w_down", ir_dimension(w_gate, 1), "the rows of w_gate") &&
         verify_rows(state, out, "result", ACTIVATION) &&
         verify_size(state, out, 1, "result", ir_dimension(w_down, 1), "the rows of w_down") &&
         (!ir_experts_shared(state->op) || verify_shared_expert(state, w_gate, w_up, w_down)) &&
         (residual < 0 || verify_same_type(state, operand(state, residual), "residual", out, "result"));
}

static bool swiglu_oai(verify_state *state) {
  MlirValue gate = operand(state, 0);
  return verify_tensor(state, gate, "gate", ir_rank(gate) == 3 ? 3 : 2, true, ACTIVATION) &&
         verify_same_type(state, gate, "gate", operand(state, 1), "up") &&
         verify_same_type(state, gate, "gate", result(state, 0), "result");
}

static bool combine(verify_state *state) {
  MlirValue y = operand(state, 0), weights = operand(state, 1), out = result(state, 0);
  return verify_tensor(state, y, "y", 3, true, F32) && verify_rows(state, weights, "weights", F32) &&
         verify_size(state, weights, 1, "weights", ir_dimension(y, 1), "dimension 1 of y") &&
         verify_rows(state, out, "result", ACTIVATION) &&
         verify_size(state, out, 1, "result", ir_dimension(y, 2), "dimension 2 of y");
}

static bool add(verify_state *state) {
  return verify_rows(state, operand(state, 0), "a", ACTIVATION) &&
         verify_same_type(state, operand(state, 0), "a", operand(state, 1), "b") &&
         verify_same_type(state, operand(state, 0), "a", result(state, 0), "result");
}

static bool slice(verify_state *state) {
  MlirValue x = operand(state, 0), out = result(state, 0);
  if (!verify_rows(state, x, "x", ACTIVATION) || !verify_rows(state, out, "result", ACTIVATION)) return false;
  int64_t offset = integer(state, "offset"), columns = ir_dimension(out, 1), available = ir_dimension(x, 1);
  if (offset <= available && columns <= available - offset) return true;
  return verify_fail(state, "%lld columns from %lld on are asked for, but x has %lld", (long long)columns,
                     (long long)offset, (long long)available);
}

static bool select_rows(verify_state *state) {
  return verify_rows(state, operand(state, 0), "x", ACTIVATION) &&
         verify_same_type(state, operand(state, 0), "x", result(state, 0), "result");
}

static bool sample(verify_state *state) {
  return verify_rows(state, operand(state, 0), "logits", F32) &&
         verify_tensor(state, result(state, 0), "result", 1, true, I32);
}

static bool observe(verify_state *state) {
  MlirValue x = operand(state, 0);
  intptr_t rank = ir_rank(x);
  return verify_tensor(state, x, "x", rank > 2 ? 3 : 2, true, F32 | BF16 | I32);
}

static bool concat_weights(verify_state *state) {
  MlirValue a = operand(state, 0), b = operand(state, 1), out = result(state, 0);
  if (!verify_tensor(state, a, "a", 2, false, STORED) || !verify_tensor(state, b, "b", 2, false, STORED) ||
      !verify_size(state, b, 1, "b", ir_dimension(a, 1), "the columns of a"))
    return false;
  MlirType element = mlirShapedTypeGetElementType(mlirValueGetType(a));
  if (!mlirTypeEqual(element, mlirShapedTypeGetElementType(mlirValueGetType(b))))
    return verify_fail(state, "a and b differ in their elements' type");
  int64_t rows;
  if (__builtin_add_overflow(ir_dimension(a, 0), ir_dimension(b, 0), &rows))
    return verify_fail(state, "a and b have more rows together than a tensor can have");
  if (mlirTypeEqual(mlirValueGetType(out), ir_tensor(element, (int64_t[]){rows, ir_dimension(a, 1)}, 2))) return true;
  return verify_fail(state, "the result is not of the type of %lld rows and %lld columns that a and b make",
                     (long long)rows, (long long)ir_dimension(a, 1));
}

static bool all_reduce(verify_state *state) {
  return verify_rows(state, operand(state, 0), "x", STORED) &&
         verify_same_type(state, operand(state, 0), "x", result(state, 0), "result");
}

static bool all_gather(verify_state *state) {
  MlirValue x = operand(state, 0), out = result(state, 0);
  return verify_rows(state, x, "x", STORED) && verify_rows(state, out, "result", STORED) &&
         verify_product(state, out, "result", ir_dimension(x, 1), integer(state, "group"),
                        "the columns of x times 'group'");
}

typedef struct model_op {
  const char *name; /* without "model." */
  bool (*verify)(verify_state *state);
  const char *attributes;
} model_op;

static const model_op ops[] = {
    {"weight", weight, "name:text"},
    {"linear", linear, ""},
    {"add", add, ""},
    {"observe", observe, "name:text"},
    {"rms_norm", rms_norm, "eps:positive_number"},
    {"head_norm", head_norm, "heads:positive eps:positive_number"},
    {"rope", rope, "heads:positive"},
    {"rope_table", rope_table, "theta:positive_number rotary_dim:even"},
    {"cache_append", cache_append, "layer:count part:key|value|index_key heads:positive"},
    {"index_score", index_score, "layer:count heads:positive dim:positive"},
    {"block_max", block_max, "block:positive"},
    {"topk_blocks", topk_blocks, "k:positive init:count local:count block:positive"},
    {"block_attention", block_attention,
     "layer:count heads:positive kv_heads:positive block:positive scale:positive_number"},
    {"attention", attention, "layer:count heads:positive kv_heads:positive scale:positive_number"},
    {"swiglu_oai", swiglu_oai, "alpha:number limit:positive_number"},
    {"topk_experts", topk_experts, "k:positive"},
    {"expert_linear", expert_linear, ""},
    {"combine", combine, "scale:number"},
    {"slice", slice, "offset:count"},
    {"concat_weights", concat_weights, ""},
    {"linear_add", linear_add, ""},
    {"linear_swiglu", linear_swiglu, "alpha:number limit:positive_number"},
    {"norm_rope_append", norm_rope_append,
     "layer:count heads:positive kv_heads:positive head_dim:positive index_heads:count index_dim:count "
     "eps:positive_number"},
    {"index_select", index_select,
     "layer:count heads:positive dim:positive block:positive k:positive init:count local:count"},
    {"select_attention", select_attention,
     "layer:count heads:positive kv_heads:positive scale:positive_number index_heads:positive index_dim:positive "
     "block:positive k:positive init:count local:count"},
    {"router", router, "k:positive"},
    {"experts", experts, "alpha:number limit:positive_number scale:number"},
    {"experts_shared", experts, "alpha:number limit:positive_number scale:number"},
    {"embed", embed, ""},
    {"lm_head", lm_head, ""},
    {"select_rows", select_rows, ""},
    {"sample", sample, ""},
    {"all_reduce", all_reduce, "group:positive"},
    {"all_gather", all_gather, "group:positive"},
    {"all_to_all", all_reduce, "group:positive"},
};

bool verify_model_op(verify_state *state) {
  MlirStringRef name = ir_name(state->op);
  const size_t prefix = strlen("model.");
  for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
    if (strlen(ops[i].name) == name.length - prefix &&
        memcmp(ops[i].name, name.data + prefix, name.length - prefix) == 0)
      return verify_attributes(state, ops[i].attributes) && ops[i].verify(state);
  return verify_fail(state, "the verifier does not know it");
}

/* choose-tiles: asks the configuration for the kernels of every op that has something to choose, and writes the answers
 * on the op (docs/ir.md). What comes after reads them there. */
#include "passes/passes.h"
#include "passes/variants.h"

#include <string.h>

static MlirType element_of(MlirValue value) {
  return mlirShapedTypeGetElementType(mlirValueGetType(value));
}

/* Whether all matrices from operand `first` on, and what they are multiplied by, suit the target's matrix instructions.
 */
static bool suits_matrix(const pass_state *state, MlirOperation op, intptr_t first) {
  const int64_t depth = configuration_facts(state->configuration)->matrix.depth;
  bool suits = depth > 0 && mlirTypeIsABF16(element_of(mlirOperationGetOperand(op, 0)));
  for (intptr_t i = first; suits && i < mlirOperationGetNumOperands(op); i++) {
    MlirValue w = mlirOperationGetOperand(op, i);
    MlirOperation definition = ir_definition(w);
    if (!ir_is(definition, "model.weight") && !ir_is(definition, "model.concat_weights")) continue;
    suits = mlirTypeIsABF16(element_of(w)) && ir_dimension(w, ir_rank(w) - 1) % depth == 0;
  }
  return suits;
}

/* The question about a product with the matrix of operand `which`. */
static kernel_question product(MlirOperation op, const char *family, intptr_t which, bool pairs, bool matrix) {
  MlirValue w = mlirOperationGetOperand(op, which);
  return (kernel_question){.family = family,
                           .n = ir_dimension(w, ir_rank(w) - 2),
                           .k = ir_dimension(w, ir_rank(w) - 1),
                           .pairs = pairs,
                           .matrix = matrix,
                           .to = UINT32_MAX};
}

/* Asks and writes. */
static bool choose(pass_state *state, MlirOperation op, const char *name, const kernel_question *question) {
  kernel_variants variants;
  if (!variants_find(state, op, question, &variants)) return false;
  variants_write(state, op, name, question->family, &variants);
  return true;
}

static bool choose_product(pass_state *state, MlirOperation op) {
  const kernel_question q = product(op, "gemm", 1, ir_is(op, "model.linear_swiglu"), suits_matrix(state, op, 1));
  return choose(state, op, "tile.variants", &q);
}

static bool choose_expert_linear(pass_state *state, MlirOperation op) {
  const kernel_question q = product(op, "expert_gemm", 2, false, suits_matrix(state, op, 2));
  return choose(state, op, "tile.variants", &q);
}

/* The variants of a product of the shared expert, for the sizes for which those of the experts, `of`, leave it apart.
 */
static bool choose_shared(pass_state *state, MlirOperation op, const char *name, const kernel_variants *of,
                          const kernel_question *q) {
  kernel_variants shared = {.count = 0}, some;
  for (size_t i = 0; i < of->count; i++) {
    const kernel_variant *v = &of->item[i];
    if (!v->choice[CHOOSE_APART]) continue;
    some = (kernel_variants){.count = 1, .item = {*v}}; /* as those of the experts, or */
    if (v->choice[CHOOSE_WORKGROUPS]) {
      kernel_question part = *q;
      part.from = v->from;
      part.to = v->to;
      if (!variants_find(state, op, &part, &some)) return false;
    } else {
      configuration_complete(state->configuration, q, &some.item[0]);
    }
    if (shared.count + some.count > MOST_VARIANTS)
      return pass_fail(state, op, "more than %d kernels for the shared expert", MOST_VARIANTS);
    for (size_t k = 0; k < some.count; k++) shared.item[shared.count++] = some.item[k];
  }
  if (shared.count) variants_write(state, op, name, "gemm", &shared);
  return true;
}

/* Gate and up, then down, in the same ranges, since one sort serves both; the shared expert's likewise. */
static bool choose_experts(pass_state *state, MlirOperation op) {
  enum { GATE = 3, DOWN = 5 };
  const bool matrix = suits_matrix(state, op, GATE);
  const kernel_question first = product(op, "expert_gemm", GATE, true, matrix);
  const kernel_question second = product(op, "expert_gemm", DOWN, false, matrix);
  kernel_variants variants, behind;
  if (!variants_find(state, op, &second, &behind) || !variants_find(state, op, &first, &variants)) return false;
  if (!variants_align(&variants, &behind))
    return pass_fail(state, op, "more than %d ranges of sizes for the products of experts", MOST_VARIANTS);
  variants_write(state, op, "tile.second", "expert_gemm", &behind);
  variants_write(state, op, "tile.variants", "expert_gemm", &variants);
  if (!ir_experts_shared(op)) return true;
  const kernel_question gate = product(op, "gemm", IR_EXPERTS_SHARED, true, matrix);
  const kernel_question down = product(op, "gemm", IR_EXPERTS_SHARED + 2, false, matrix);
  return choose_shared(state, op, "tile.shared", &variants, &gate) &&
         choose_shared(state, op, "tile.shared_second", &variants, &down);
}

static bool choose_router(pass_state *state, MlirOperation op) {
  const kernel_question q = product(op, "router", 1, false, false);
  return choose(state, op, "tile.variants", &q);
}

static bool choose_heads(pass_state *state, MlirOperation op) {
  enum { PROJECTION = 2 };
  const kernel_question q = {.family = "norm_rope_append",
                             .matrix = mlirTypeIsABF16(element_of(mlirOperationGetOperand(op, PROJECTION))),
                             .to = UINT32_MAX};
  return choose(state, op, "tile.variants", &q);
}

/* The question about attention of one of its families. */
static kernel_question attention(MlirOperation op, const char *family) {
  MlirValue q = mlirOperationGetOperand(op, 0);
  const int64_t heads = ir_get_integer(op, "heads");
  const MlirOperation function = mlirOperationGetParentOperation(op);
  return (kernel_question){.family = family,
                           .matrix = mlirTypeIsABF16(element_of(q)),
                           .heads = heads,
                           .kv_heads = ir_get_integer(op, "kv_heads"),
                           .head_dim = heads > 0 ? ir_dimension(q, 1) / heads : 0,
                           .page = ir_get_integer(function, "model.page"),
                           .to = UINT32_MAX};
}

static bool choose_query_tile(pass_state *state, MlirOperation op) {
  const kernel_question q = {.family = "attention", .to = UINT32_MAX};
  kernel_variants variants;
  if (!variants_find(state, op, &q, &variants)) return false;
  if (variants.count == 0) return pass_fail(state, op, "no query tile is configured");
  mlirOperationSetAttributeByName(op, mlirStringRefCreateFromCString("tile.query"),
                                  ir_integer(state->context, variants.item[0].choice[CHOOSE_QUERY_TILE]));
  return true;
}

static bool choose_attention(pass_state *state, MlirOperation op) {
  const kernel_question q = attention(op, "attention_part");
  return choose_query_tile(state, op) && choose(state, op, "tile.variants", &q);
}

static bool choose_selection(pass_state *state, MlirOperation op) {
  const bool fused = ir_is(op, "model.select_attention");
  const kernel_question scores = {.family = "block_score",
                                  .matrix = mlirTypeIsABF16(element_of(mlirOperationGetOperand(op, 0))),
                                  .heads = ir_get_integer(op, fused ? "index_heads" : "heads"),
                                  .head_dim = ir_get_integer(op, fused ? "index_dim" : "dim"),
                                  .page = ir_get_integer(mlirOperationGetParentOperation(op), "model.page"),
                                  .to = UINT32_MAX};
  return choose_query_tile(state, op) && choose(state, op, "tile.scores", &scores);
}

/* Where no clusters share the blocks of a token, workgroups may, as they share all keys of dense attention. */
static bool choose_select_attention(pass_state *state, MlirOperation op) {
  const kernel_question clusters = attention(op, "topk_attention"), parts = attention(op, "attention_part");
  if (!choose_selection(state, op)) return false;
  if (!ir_get_integer(op, "tile.split")) return true;
  kernel_variants variants;
  return choose(state, op, "tile.variants", &clusters) &&
         variants_read(state, op, "tile.variants", "topk_attention", &variants) &&
         (variants.count || choose(state, op, "tile.parts", &parts));
}

bool pass_choose_tiles(pass_state *state, MlirModule module) {
  static const struct {
    const char *name;
    bool (*choose)(pass_state *state, MlirOperation op);
  } table[] = {{"model.linear", choose_product},
               {"model.linear_add", choose_product},
               {"model.linear_swiglu", choose_product},
               {"model.lm_head", choose_product},
               {"model.expert_linear", choose_expert_linear},
               {"model.experts", choose_experts},
               {"model.experts_shared", choose_experts},
               {"model.router", choose_router},
               {"model.norm_rope_append", choose_heads},
               {"model.attention", choose_attention},
               {"model.block_attention", choose_query_tile},
               {"model.select_attention", choose_select_attention},
               {"model.index_select", choose_selection},
               {"model.index_score", choose_query_tile}};
  MlirOperation function = ir_function(module, "step");
  if (mlirOperationIsNull(function)) return true;
  int64_t query_tile = 1;
  MlirOperation op = mlirBlockGetFirstOperation(ir_body(function));
  for (; !mlirOperationIsNull(op); op = mlirOperationGetNextInBlock(op)) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
      if (ir_is(op, table[i].name) && !table[i].choose(state, op)) return false;
    if (ir_has(op, "tile.query") && ir_get_integer(op, "tile.query") > query_tile)
      query_tile = ir_get_integer(op, "tile.query");
  }
  mlirOperationSetAttributeByName(function, mlirStringRefCreateFromCString("model.query_tile"),
                                  ir_integer(state->context, query_tile));
  return true;
}

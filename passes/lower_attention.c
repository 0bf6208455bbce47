/* lower-to-kernels: heads, cache, index branch and attention. */
#include "passes/lowering.h"

#include <stdio.h>
#include <string.h>

static void page_attributes(lowering *l, attribute_list *list) {
  attribute_integer(l, list, "page", l->page);
  attribute_integer(l, list, "page_bytes", cache_layout(l)->page_bytes);
  attribute_text(l, list, "transposed", l->transposed_values ? "values" : "keys");
}

static void lower_head_norm(lowering *l) {
  MlirValue x = operand(l, 0), w = operand(l, 1);
  int64_t heads = ir_get_integer(l->op, "heads"), width = ir_dimension(x, 1);
  MlirValue buffers[] = {operand_buffer(l, 0), weight_rows(l, w), result_buffer(l, 0)};
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "heads", heads);
  attribute_integer(l, &list, "head_dim", width / heads);
  attribute_number(l, &list, "eps", ir_get_float(l->op, "eps"));
  attribute_text(l, &list, "dtype", element_name(x));
  attribute_text(l, &list, "weight_dtype", element_name(w));
  launch(l, "head_norm", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.row_bytes = 2 * width * element_size(x), .row_flops = 4 * width});
}

static void lower_rope_table(lowering *l) {
  int64_t rotary = ir_get_integer(l->op, "rotary_dim");
  MlirValue buffers[] = {input_buffer(l, "positions"), result_buffer(l, 0)};
  attribute_list list = {.count = 0};
  attribute_number(l, &list, "theta", ir_get_float(l->op, "theta"));
  attribute_integer(l, &list, "rotary_dim", rotary);
  launch(l, "rope_table", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.row_bytes = 4 * rotary, .row_flops = 20 * rotary});
}

static void lower_rope(lowering *l) {
  MlirValue x = operand(l, 0), table = operand(l, 1);
  int64_t heads = ir_get_integer(l->op, "heads"), width = ir_dimension(x, 1);
  MlirValue buffers[] = {operand_buffer(l, 0), operand_buffer(l, 1), result_buffer(l, 0)};
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "heads", heads);
  attribute_integer(l, &list, "head_dim", width / heads);
  attribute_integer(l, &list, "rotary_dim", ir_dimension(table, 1));
  attribute_text(l, &list, "dtype", element_name(x));
  launch(l, "rope", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.row_bytes = 2 * width * element_size(x) + 4 * ir_dimension(table, 1), .row_flops = 3 * width});
}

static void lower_cache_append(lowering *l) {
  MlirValue x = operand(l, 2);
  const struct cache_layout *layout = cache_layout(l);
  MlirStringRef part = ir_get_string(l->op, "part");
  char name[16];
  snprintf(name, sizeof name, "%.*s", (int)part.length, part.data);
  int64_t heads = ir_get_integer(l->op, "heads"), width = ir_dimension(x, 1);
  MlirValue buffers[] = {operand_buffer(l, 2), input_buffer(l, "positions"), input_buffer(l, "sequence"),
                         input_buffer(l, "page_table"), cache_buffer(l)};
  attribute_list list = {.count = 0};
  attribute_text(l, &list, "part", name);
  attribute_integer(l, &list, "heads", heads);
  attribute_integer(l, &list, "head_dim", width / heads);
  page_attributes(l, &list);
  attribute_integer(l, &list, "part_offset",
                    strcmp(name, "key") == 0     ? 0
                    : strcmp(name, "value") == 0 ? layout->value_offset
                                                 : layout->index_offset);
  attribute_text(l, &list, "dtype", activation_name(l));
  launch(l, "cache_append", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.row_bytes = 2 * width * element_size(x)});
}

static void append_attributes(lowering *l, attribute_list *list, bool indexed) {
  const struct cache_layout *layout = cache_layout(l);
  attribute_integer(l, list, "heads", ir_get_integer(l->op, "heads"));
  attribute_integer(l, list, "kv_heads", layout->kv_heads);
  attribute_integer(l, list, "head_dim", layout->head_dim);
  attribute_integer(l, list, "index_heads", ir_get_integer(l->op, "index_heads"));
  attribute_integer(l, list, "index_dim", indexed ? ir_get_integer(l->op, "index_dim") : 0);
  attribute_integer(l, list, "rotary_dim", ir_dimension(operand(l, 3), 1));
  attribute_number(l, list, "eps", ir_get_float(l->op, "eps"));
  page_attributes(l, list);
  attribute_integer(l, list, "value_offset", layout->value_offset);
  attribute_integer(l, list, "index_offset", layout->index_offset);
  attribute_text(l, list, "dtype", element_name(operand(l, 2)));
  attribute_text(l, list, "weight_dtype", element_name(operand(l, 4)));
}

/* Operands: cache, batch, projection, table, q_norm, k_norm [, index_q_norm, index_k_norm]; results: cache, q [, iq].
 */
static void lower_norm_rope_append(lowering *l) {
  const bool indexed = ir_get_integer(l->op, "index_heads") > 0 && mlirOperationGetNumOperands(l->op) > 6;
  MlirValue projection = operand(l, 2);
  MlirValue buffers[] = {operand_buffer(l, 2),
                         operand_buffer(l, 3),
                         weight_rows(l, operand(l, 4)),
                         weight_rows(l, operand(l, 5)),
                         indexed ? weight_rows(l, operand(l, 6)) : none_buffer(l),
                         indexed ? weight_rows(l, operand(l, 7)) : none_buffer(l),
                         input_buffer(l, "positions"),
                         input_buffer(l, "sequence"),
                         input_buffer(l, "page_table"),
                         cache_buffer(l),
                         result_buffer(l, 1),
                         indexed ? result_buffer(l, 2) : none_buffer(l)};
  kernel_variants variants;
  if (!variants_read(l->state, l->op, "tile.variants", "norm_rope_append", &variants)) return;
  const int64_t width = ir_dimension(projection, 1);
  for (size_t i = 0; i < variants.count; i++) {
    const kernel_variant *v = &variants.item[i];
    attribute_list list = {.count = 0};
    append_attributes(l, &list, indexed);
    attribute_integer(l, &list, "many", v->choice[CHOOSE_MANY]);
    launch_range(l, &list, SLUICE_SIZE_TOKENS, v->from, v->to);
    launch(l, "norm_rope_append", buffers, COUNT_OF(buffers), &list,
           &(launch_cost){.row_bytes = 2 * width * element_size(projection), .row_flops = 7 * width});
  }
}

/* ---- index branch ---- */

static void selection_attributes(lowering *l, attribute_list *list) {
  attribute_integer(l, list, "k", ir_get_integer(l->op, "k"));
  attribute_integer(l, list, "init", ir_get_integer(l->op, "init"));
  attribute_integer(l, list, "local", ir_get_integer(l->op, "local"));
}

static int64_t max_pages(const lowering *l) {
  return (l->max_context + l->page - 1) / l->page;
}

static void lower_index_score(lowering *l) {
  int64_t heads = ir_get_integer(l->op, "heads"), dim = ir_get_integer(l->op, "dim");
  MlirValue buffers[] = {operand_buffer(l, 0), input_buffer(l, "tiles"), input_buffer(l, "page_table"), cache_buffer(l),
                         result_buffer(l, 0)};
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "heads", heads);
  attribute_integer(l, &list, "dim", dim);
  page_attributes(l, &list);
  attribute_integer(l, &list, "index_offset", cache_layout(l)->index_offset);
  attribute_text(l, &list, "dtype", activation_name(l));
  int64_t element = element_size(operand(l, 0));
  launch(l, "index_score", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){
             .row_bytes = heads * dim * element, .key_bytes = dim * element + 4 * heads, .key_flops = 2 * heads * dim});
}

static void lower_block_max(lowering *l) {
  int64_t heads = ir_dimension(ir_result(l->op, 0), 1);
  MlirValue buffers[] = {operand_buffer(l, 0), input_buffer(l, "positions"), result_buffer(l, 0)};
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "heads", heads);
  attribute_integer(l, &list, "block", ir_get_integer(l->op, "block"));
  launch(l, "block_max", buffers, COUNT_OF(buffers), &list, &(launch_cost){.key_bytes = 4 * heads, .key_flops = heads});
}

static void lower_topk_blocks(lowering *l) {
  int64_t heads = ir_dimension(ir_result(l->op, 0), 1), k = ir_get_integer(l->op, "k");
  MlirValue buffers[] = {operand_buffer(l, 0), input_buffer(l, "positions"), result_buffer(l, 0)};
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "heads", heads);
  selection_attributes(l, &list);
  attribute_integer(l, &list, "block", ir_get_integer(l->op, "block"));
  launch(l, "topk_blocks", buffers, COUNT_OF(buffers), &list, &(launch_cost){.row_bytes = 4 * heads * k});
}

/* ---- selection in launches of its own ---- */

enum { SCORE_BUFFERS = 5 };

/* The launch runs in steps of so many pages, at most, and so many tokens. */
typedef struct score_steps {
  sluice_plan_range pages, tokens;
} score_steps;

static void launch_score(lowering *l, MlirValue buffers[SCORE_BUFFERS], int64_t heads, int64_t dim,
                         const kernel_variant *v, const score_steps *steps, bool many) {
  const int64_t k = ir_get_integer(l->op, "k"), element = l->f32 ? 4 : 2;
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "heads", heads);
  attribute_integer(l, &list, "dim", dim);
  attribute_integer(l, &list, "k", k);
  attribute_integer(l, &list, "local", ir_get_integer(l->op, "local"));
  page_attributes(l, &list);
  attribute_integer(l, &list, "index_offset", cache_layout(l)->index_offset);
  attribute_text(l, &list, "dtype", activation_name(l));
  attribute_integer(l, &list, "query_tile", ir_get_integer(l->op, "tile.query"));
  attribute_integer(l, &list, "cache_first", v->choice[CHOOSE_CACHE_FIRST]);
  attribute_integer(l, &list, "many", many);
  const sluice_plan_range ranges[] = {steps->tokens, steps->pages}; /* in the order of sluice_size */
  launch_ranges(l, &list, ranges, COUNT_OF(ranges));
  launch(l, "block_score", buffers, SCORE_BUFFERS, &list,
         &(launch_cost){.row_bytes = heads * dim * element, .key_bytes = dim * element, .key_flops = 2 * heads * dim});
}

/* Scores each block into scratch value 0 of the op, which is returned. Short and long contexts may have kernels of
 * their own, and steps of many tokens one for all contexts. */
static MlirValue launch_scores(lowering *l, MlirValue iq, int64_t heads, int64_t dim) {
  MlirValue scores = scratch_buffer(l, 0, "block_scores", "f32", heads);
  kernel_variants variants;
  if (!variants_read(l->state, l->op, "tile.scores", "block_score", &variants)) return scores;
  MlirValue buffers[] = {iq, input_buffer(l, "tiles"), input_buffer(l, "page_table"), cache_buffer(l), scores};
  uint32_t few = 0;
  for (size_t i = 0; i < variants.count; i++) {
    const kernel_variant *v = &variants.item[i];
    few = (uint32_t)v->choice[CHOOSE_FEW];
    const score_steps steps = {{SLUICE_SIZE_PAGE_STRIDE, v->from, v->to},
                               {SLUICE_SIZE_TOKENS, 0, few ? few : UINT32_MAX}};
    launch_score(l, buffers, heads, dim, v, &steps, v->choice[CHOOSE_MANY]);
  }
  const score_steps many = {{SLUICE_SIZE_PAGE_STRIDE, 0, UINT32_MAX}, {SLUICE_SIZE_TOKENS, few + 1, UINT32_MAX}};
  if (few) launch_score(l, buffers, heads, dim, &(kernel_variant){.from = 0}, &many, true);
  return scores;
}

/* Chooses k blocks for each token and index head into `blocks`, by their scores. */
static void launch_choice(lowering *l, MlirValue scores, MlirValue blocks, int64_t heads, int64_t block, uint32_t from,
                          uint32_t to) {
  int64_t k = ir_get_integer(l->op, "k");
  MlirValue choice_buffers[] = {scores, input_buffer(l, "positions"), blocks};
  attribute_list choice_list = {.count = 0};
  attribute_integer(l, &choice_list, "heads", heads);
  selection_attributes(l, &choice_list);
  attribute_integer(l, &choice_list, "block", block);
  launch_range(l, &choice_list, SLUICE_SIZE_TOKENS, from, to);
  launch(l, "topk_blocks", choice_buffers, COUNT_OF(choice_buffers), &choice_list,
         &(launch_cost){.row_bytes = 4 * heads * k});
}

static void lower_index_select(lowering *l) {
  int64_t heads = ir_get_integer(l->op, "heads"), dim = ir_get_integer(l->op, "dim");
  if (ir_get_integer(l->op, "tile.split")) {
    MlirValue scores = launch_scores(l, operand_buffer(l, 0), heads, dim);
    launch_choice(l, scores, result_buffer(l, 0), heads, ir_get_integer(l->op, "block"), 0, UINT32_MAX);
    return;
  }
  MlirValue buffers[] = {operand_buffer(l, 0), input_buffer(l, "tiles"), input_buffer(l, "page_table"), cache_buffer(l),
                         result_buffer(l, 0)};
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "heads", heads);
  attribute_integer(l, &list, "dim", dim);
  selection_attributes(l, &list);
  page_attributes(l, &list);
  attribute_integer(l, &list, "index_offset", cache_layout(l)->index_offset);
  attribute_text(l, &list, "dtype", activation_name(l));
  attribute_integer(l, &list, "query_tile", ir_get_integer(l->op, "tile.query"));
  attribute_integer(l, &list, "max_pages", max_pages(l));
  int64_t element = element_size(operand(l, 0));
  launch(l, "index_select", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.row_bytes = heads * (dim * element + 4 * ir_get_integer(l->op, "k")),
                        .key_bytes = dim * element,
                        .key_flops = 2 * heads * dim});
}

/* ---- attention ---- */

static void attention_attributes(lowering *l, attribute_list *list) {
  const struct cache_layout *layout = cache_layout(l);
  attribute_integer(l, list, "heads", ir_get_integer(l->op, "heads"));
  attribute_integer(l, list, "kv_heads", layout->kv_heads);
  attribute_integer(l, list, "head_dim", layout->head_dim);
  attribute_number(l, list, "scale", ir_get_float(l->op, "scale"));
  page_attributes(l, list);
  attribute_integer(l, list, "value_offset", layout->value_offset);
  attribute_text(l, list, "dtype", activation_name(l));
}

/* Cost of attending `limit` keys at most (0: all). */
static launch_cost attention_cost(const lowering *l, int64_t limit) {
  const struct cache_layout *layout = cache_layout(l);
  int64_t element = l->f32 ? 4 : 2, width = ir_get_integer(l->op, "heads") * layout->head_dim;
  int64_t key_bytes = 2 * layout->kv_heads * layout->head_dim * element, key_flops = 4 * width;
  launch_cost cost = {.row_bytes = 2 * width * element, .key_limit = limit};
  if (limit) {
    cost.limited_key_bytes = key_bytes;
    cost.limited_key_flops = key_flops;
  } else {
    cost.key_bytes = key_bytes;
    cost.key_flops = key_flops;
  }
  return cost;
}

/* Merges the partial results of workgroups that share keys, or of a token's `k` blocks (0: all keys). */
static void launch_merge(lowering *l, const kernel_variant *v, int64_t k, MlirValue partials, MlirValue out) {
  const struct cache_layout *layout = cache_layout(l);
  MlirValue buffers[] = {partials, out};
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "heads", ir_get_integer(l->op, "heads"));
  attribute_integer(l, &list, "kv_heads", layout->kv_heads);
  attribute_integer(l, &list, "head_dim", layout->head_dim);
  attribute_integer(l, &list, "k", k);
  attribute_text(l, &list, "dtype", activation_name(l));
  choice_attributes(l, &list, "attention_part", v);
  const uint32_t shared = (uint32_t)(v->choice[CHOOSE_PARTS] / 2 / layout->kv_heads); /* more have a workgroup each */
  if (shared < v->from) return;
  launch_range(l, &list, SLUICE_SIZE_TOKENS, v->from, shared < v->to ? shared : v->to);
  launch(l, "attention_merge", buffers, COUNT_OF(buffers), &list, &(launch_cost){.fixed_bytes = 0});
}

/* The keys of each token are shared among workgroups, whose partial results are then merged. */
static void launch_shared_attention(lowering *l, const kernel_variant *v, MlirValue q, MlirValue out,
                                    MlirValue partials) {
  MlirValue buffers[] = {q,
                         input_buffer(l, "positions"),
                         input_buffer(l, "sequence"),
                         input_buffer(l, "page_table"),
                         cache_buffer(l),
                         out,
                         partials};
  attribute_list list = {.count = 0};
  attention_attributes(l, &list);
  choice_attributes(l, &list, "attention_part", v);
  launch_range(l, &list, SLUICE_SIZE_TOKENS, v->from, v->to);
  launch_cost cost = attention_cost(l, 0);
  launch(l, "attention_part", buffers, COUNT_OF(buffers), &list, &cost);
  launch_merge(l, v, 0, partials, out);
}

/* Tiles of tokens attend to all keys; in steps of from to to tokens. */
static void launch_tile_attention(lowering *l, MlirValue q, MlirValue out, uint32_t from, uint32_t to) {
  MlirValue buffers[] = {q, input_buffer(l, "tiles"), input_buffer(l, "page_table"), cache_buffer(l), out};
  attribute_list list = {.count = 0};
  attention_attributes(l, &list);
  attribute_integer(l, &list, "query_tile", ir_get_integer(l->op, "tile.query"));
  launch_range(l, &list, SLUICE_SIZE_TOKENS, from, to);
  launch_cost cost = attention_cost(l, 0);
  launch(l, "attention", buffers, COUNT_OF(buffers), &list, &cost);
}

static void lower_attention(lowering *l) {
  kernel_variants variants;
  if (!variants_read(l->state, l->op, "tile.variants", "attention_part", &variants)) return;
  MlirValue q = operand_buffer(l, 0), out = result_buffer(l, 0), partials = {NULL};
  if (variants.count == 0) launch_tile_attention(l, q, out, 0, UINT32_MAX);
  const int64_t rows = variants_partial_rows(&variants);
  if (rows) partials = scratch_buffer(l, 0, "partials", "f32", rows * (cache_layout(l)->head_dim + 2));
  for (size_t i = 0; i < variants.count; i++) {
    const kernel_variant *v = &variants.item[i];
    if (v->choice[CHOOSE_PARTS])
      launch_shared_attention(l, v, q, out, partials);
    else
      launch_tile_attention(l, q, out, v->from, v->to);
  }
}

/* Attention over the lists `blocks`, of k blocks; in steps of from to to tokens. */
static void launch_block_attention(lowering *l, MlirValue q, MlirValue blocks, int64_t k, MlirValue out, uint32_t from,
                                   uint32_t to) {
  MlirValue buffers[] = {q, blocks, input_buffer(l, "tiles"), input_buffer(l, "page_table"), cache_buffer(l), out};
  launch_cost cost = attention_cost(l, k * l->page);
  attribute_list list = {.count = 0};
  attention_attributes(l, &list);
  attribute_integer(l, &list, "query_tile", ir_get_integer(l->op, "tile.query"));
  attribute_integer(l, &list, "k", k);
  launch_range(l, &list, SLUICE_SIZE_TOKENS, from, to);
  launch(l, "block_attention", buffers, COUNT_OF(buffers), &list, &cost);
}

/* With few tokens topk_blocks and block_attention in one launch, of a cluster of workgroups for each token and kv head;
 * with many, which share blocks in tiles, in two. */
static void launch_topk_attention(lowering *l, const kernel_variants *variants, MlirValue q, MlirValue scores,
                                  MlirValue out, MlirValue blocks) {
  int64_t k = ir_get_integer(l->op, "k");
  MlirValue buffers[] = {q,
                         scores,
                         input_buffer(l, "positions"),
                         input_buffer(l, "sequence"),
                         input_buffer(l, "page_table"),
                         cache_buffer(l),
                         out,
                         blocks};
  launch_cost cost = attention_cost(l, k * l->page);
  for (size_t i = 0; i < variants->count; i++) {
    const kernel_variant *v = &variants->item[i];
    if (!v->choice[CHOOSE_CLUSTER]) {
      launch_choice(l, scores, blocks, ir_get_integer(l->op, "index_heads"), l->page, v->from, v->to);
      launch_block_attention(l, q, blocks, k, out, v->from, v->to);
      continue;
    }
    attribute_list list = {.count = 0};
    attention_attributes(l, &list);
    choice_attributes(l, &list, "topk_attention", v);
    selection_attributes(l, &list);
    launch_range(l, &list, SLUICE_SIZE_TOKENS, v->from, v->to);
    launch(l, "topk_attention", buffers, COUNT_OF(buffers), &list, &cost);
  }
}

/* topk_blocks and block_attention whose workgroups share a token's blocks, then the merge. */
static void launch_shared_selection(lowering *l, const kernel_variant *v, MlirValue q, MlirValue scores, MlirValue out,
                                    MlirValue blocks, MlirValue partials) {
  const int64_t k = ir_get_integer(l->op, "k");
  MlirValue buffers[] = {q,
                         scores,
                         input_buffer(l, "positions"),
                         input_buffer(l, "sequence"),
                         input_buffer(l, "page_table"),
                         cache_buffer(l),
                         out,
                         blocks,
                         partials};
  attribute_list list = {.count = 0};
  attention_attributes(l, &list);
  choice_attributes(l, &list, "attention_part", v);
  selection_attributes(l, &list);
  launch_range(l, &list, SLUICE_SIZE_TOKENS, v->from, v->to);
  launch_cost cost = attention_cost(l, k * l->page);
  launch(l, "topk_attention_part", buffers, COUNT_OF(buffers), &list, &cost);
  launch_merge(l, v, k, partials, out);
}

/* Attention to chosen blocks without clusters: workgroups share a token's blocks where variants say so, and all other
 * steps, of tokens that share blocks in tiles, have launches for the choice and for the attention. */
static void launch_selection(lowering *l, MlirValue q, MlirValue scores, MlirValue out, MlirValue blocks) {
  const int64_t k = ir_get_integer(l->op, "k"), index_heads = ir_get_integer(l->op, "index_heads");
  kernel_variants variants;
  if (!variants_read(l->state, l->op, "tile.parts", "attention_part", &variants)) return;
  if (variants.count == 0) variants = (kernel_variants){.count = 1, .item = {{.to = UINT32_MAX}}};
  const int64_t rows = variants_partial_rows(&variants);
  MlirValue partials = {NULL};
  if (rows) partials = scratch_buffer(l, 1, "partials", "f32", rows * (cache_layout(l)->head_dim + 2));
  for (size_t i = 0; i < variants.count; i++) {
    const kernel_variant *v = &variants.item[i];
    if (v->choice[CHOOSE_PARTS]) {
      launch_shared_selection(l, v, q, scores, out, blocks, partials);
      continue;
    }
    launch_choice(l, scores, blocks, index_heads, l->page, v->from, v->to);
    launch_block_attention(l, q, blocks, k, out, v->from, v->to);
  }
}

static void lower_block_attention(lowering *l) {
  MlirValue q = operand_buffer(l, 0), blocks = operand_buffer(l, 3);
  launch_block_attention(l, q, blocks, ir_dimension(operand(l, 3), 2), result_buffer(l, 0), 0, UINT32_MAX);
}

static void lower_select_attention(lowering *l) {
  int64_t k = ir_get_integer(l->op, "k"), index_dim = ir_get_integer(l->op, "index_dim");
  if (ir_get_integer(l->op, "tile.split")) {
    MlirValue q = operand_buffer(l, 0), iq = operand_buffer(l, 1);
    MlirValue out = result_buffer(l, 0), blocks = result_buffer(l, 1);
    int64_t index_heads = ir_get_integer(l->op, "index_heads");
    MlirValue scores = launch_scores(l, iq, index_heads, index_dim);
    kernel_variants variants;
    if (!variants_read(l->state, l->op, "tile.variants", "topk_attention", &variants)) return;
    if (variants.count)
      launch_topk_attention(l, &variants, q, scores, out, blocks);
    else
      launch_selection(l, q, scores, out, blocks);
    return;
  }
  MlirValue buffers[] = {
      operand_buffer(l, 0), operand_buffer(l, 1), input_buffer(l, "tiles"), input_buffer(l, "page_table"),
      cache_buffer(l),      result_buffer(l, 0),  result_buffer(l, 1)};
  attribute_list list = {.count = 0};
  attention_attributes(l, &list);
  attribute_integer(l, &list, "query_tile", ir_get_integer(l->op, "tile.query"));
  selection_attributes(l, &list);
  attribute_integer(l, &list, "index_dim", index_dim);
  attribute_integer(l, &list, "index_offset", cache_layout(l)->index_offset);
  attribute_integer(l, &list, "max_pages", max_pages(l));
  launch_cost cost = attention_cost(l, k * l->page);
  int64_t index_heads = ir_get_integer(l->op, "index_heads");
  cost.key_bytes = index_dim * (l->f32 ? 4 : 2);
  cost.key_flops = 2 * index_heads * index_dim;
  launch(l, "select_attention", buffers, COUNT_OF(buffers), &list, &cost);
}

bool lower_attention_op(lowering *l) {
  static const struct {
    const char *name;
    void (*lower)(lowering *l);
  } table[] = {{"model.head_norm", lower_head_norm},
               {"model.rope_table", lower_rope_table},
               {"model.rope", lower_rope},
               {"model.cache_append", lower_cache_append},
               {"model.norm_rope_append", lower_norm_rope_append},
               {"model.index_score", lower_index_score},
               {"model.block_max", lower_block_max},
               {"model.topk_blocks", lower_topk_blocks},
               {"model.index_select", lower_index_select},
               {"model.attention", lower_attention},
               {"model.block_attention", lower_block_attention},
               {"model.select_attention", lower_select_attention}};
  for (size_t i = 0; i < COUNT_OF(table); i++)
    if (ir_is(l->op, table[i].name)) {
      table[i].lower(l);
      return true;
    }
  return false;
}

/* lower-to-kernels: router and experts. An expert product is a counting sort of the slots by expert, then one product
 * over expert tiles; `experts` sorts once for both of its products. */
#include "passes/lowering.h"

static void launch_topk_experts(lowering *l, MlirValue logits, MlirValue bias, int64_t experts, int64_t k) {
  MlirValue buffers[] = {logits, weight_rows(l, bias), result_buffer(l, 0), result_buffer(l, 1)};
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "experts", experts);
  attribute_integer(l, &list, "k", k);
  launch(l, "topk_experts", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.row_bytes = 4 * experts + 8 * k, .row_flops = 4 * experts});
}

static void lower_topk_experts(lowering *l) {
  launch_topk_experts(l, operand_buffer(l, 0), operand(l, 1), ir_dimension(operand(l, 0), 1),
                      ir_get_integer(l->op, "k"));
}

/* The logits, one for each expert and token, go through scratch value 0: one workgroup for each token would read the
 * gate's weights alone. Steps of few tokens may have a kernel of their own. */
static void lower_split_router(lowering *l, const kernel_variants *variants, int64_t experts, int64_t width) {
  MlirValue x = operand(l, 0), gate = operand(l, 1);
  MlirValue logits = scratch_buffer(l, 0, "router_logits", "f32", experts);
  MlirValue buffers[] = {operand_buffer(l, 0), weight_rows(l, gate), logits};
  for (size_t i = 0; i < variants->count; i++) {
    const kernel_variant *v = &variants->item[i];
    attribute_list list = {.count = 0};
    attribute_integer(l, &list, "width", width);
    attribute_integer(l, &list, "experts", experts);
    attribute_integer(l, &list, "many", v->choice[CHOOSE_MANY]);
    attribute_text(l, &list, "dtype", element_name(x));
    launch_range(l, &list, SLUICE_SIZE_TOKENS, v->from, v->to);
    launch(l, "router_logits", buffers, COUNT_OF(buffers), &list,
           &(launch_cost){.fixed_bytes = 4 * experts * width,
                          .row_bytes = width * element_size(x),
                          .row_flops = 2 * width * experts});
  }
  launch_topk_experts(l, logits, operand(l, 2), experts, ir_get_integer(l->op, "k"));
}

static void lower_router(lowering *l) {
  MlirValue x = operand(l, 0), gate = operand(l, 1);
  int64_t experts = ir_dimension(gate, 0), width = ir_dimension(gate, 1), panel = ir_get_integer(l->op, "tile.panel");
  kernel_variants variants;
  if (!variants_read(l->state, l->op, "tile.variants", "router", &variants)) return;
  if (ir_get_integer(l->op, "tile.split")) {
    lower_split_router(l, &variants, experts, width);
    return;
  }
  MlirValue buffers[] = {operand_buffer(l, 0), weight_panels(l, gate, panel), weight_rows(l, operand(l, 2)),
                         result_buffer(l, 0), result_buffer(l, 1)};
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "width", width);
  attribute_integer(l, &list, "experts", experts);
  attribute_integer(l, &list, "k", ir_get_integer(l->op, "k"));
  attribute_text(l, &list, "dtype", element_name(x));
  attribute_integer(l, &list, "panel", panel);
  launch(l, "router", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.fixed_bytes = weight_batch_bytes(l, gate, false, panel),
                        .row_bytes = width * element_size(x),
                        .row_flops = 2 * width * experts});
}

/* The slots of the routed experts, sorted. */
typedef struct sorted_slots {
  MlirValue counts, order, tiles;
  int64_t experts, k;
  int64_t shared; /* 1: each token has one more slot, of the shared expert */
} sorted_slots;

/* For the products of `variant`. */
static sorted_slots sort_slots(lowering *l, intptr_t routed, int64_t experts, bool shared,
                               const kernel_variant *variant) {
  sorted_slots s = {.experts = experts, .k = ir_dimension(operand(l, routed), 1), .shared = shared};
  int64_t counts = ir_experts_counts(experts + s.shared), slots = s.k + s.shared;
  s.counts = scratch_buffer(l, 0, "counts", "i32", counts);
  s.order = scratch_buffer(l, 1, "order", "i32", slots);
  s.tiles = scratch_buffer(l, 2, "expert_tiles", "i32", 4 * slots);
  MlirValue buffers[] = {operand_buffer(l, routed), s.counts, s.order, s.tiles};
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "experts", experts);
  attribute_integer(l, &list, "k", s.k);
  attribute_integer(l, &list, "shared", s.shared);
  attribute_integer(l, &list, "tile_m", variant->choice[CHOOSE_TILE_M]);
  launch_range(l, &list, SLUICE_SIZE_TOKENS, variant->from, variant->to);
  launch(l, "sort_experts", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.fixed_bytes = 4 * counts, .row_bytes = 4 * s.k + 20 * slots});
  return s;
}

typedef struct expert_product {
  const kernel_variant *variant;
  MlirValue x, weights, out;
  MlirValue shared_weights; /* kernel.none without a shared expert */
  MlirValue matrix, second; /* weight values; second null unless swiglu */
  bool by_slot;
  bool paired; /* one of two products of one sort: gathered by token, then by slot */
  const char *x_dtype, *out_dtype;
} expert_product;

static void launch_product(lowering *l, const sorted_slots *s, const expert_product *p) {
  bool swiglu = !mlirValueIsNull(p->second);
  int64_t n = ir_dimension(p->matrix, 1), k = ir_dimension(p->matrix, 2), panel = ir_get_integer(l->op, "tile.panel");
  int64_t batch_bytes = weight_batch_bytes(l, p->matrix, swiglu, panel);
  MlirValue buffers[] = {p->x, p->weights, p->shared_weights, s->counts, s->order, s->tiles, p->out};
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "n", n);
  attribute_integer(l, &list, "k", k);
  attribute_integer(l, &list, "experts", s->experts);
  attribute_integer(l, &list, "top_k", s->k);
  attribute_integer(l, &list, "shared", s->shared);
  attribute_text(l, &list, "gather", p->by_slot ? "slot" : "token");
  /* An expert has one tile in these steps, a workgroup one tile. */
  const bool overlaps = p->paired && configuration_facts(l->state->configuration)->overlaps &&
                        p->variant->choice[CHOOSE_WORKGROUPS] == 0 &&
                        p->variant->to <= p->variant->choice[CHOOSE_TILE_M];
  attribute_text(l, &list, "overlap", !overlaps ? "none" : p->by_slot ? "second" : "first");
  attribute_text(l, &list, "epilogue", swiglu ? "swiglu" : "none");
  attribute_number(l, &list, "alpha", swiglu ? ir_get_float(l->op, "alpha") : 0);
  attribute_number(l, &list, "limit", swiglu ? ir_get_float(l->op, "limit") : 0);
  attribute_text(l, &list, "x_dtype", p->x_dtype);
  attribute_text(l, &list, "weight_dtype", element_name(p->matrix));
  attribute_text(l, &list, "out_dtype", p->out_dtype);
  gemm_attributes(l, &list, p->variant, SLUICE_SIZE_TOKENS);
  attribute_integer(l, &list, "batch_bytes", batch_bytes);
  int64_t x_bytes = p->x_dtype[0] == 'b' ? 2 : 4, out_bytes = p->out_dtype[0] == 'b' ? 2 : 4;
  int64_t slots = s->k + s->shared;
  launch(l, "expert_gemm", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.fixed_bytes = s->shared ? batch_bytes : 0,
                        .row_bytes = slots * (k * x_bytes + n * out_bytes),
                        .row_flops = 2 * slots * n * k * (swiglu ? 2 : 1),
                        .expert_bytes = batch_bytes});
}

static void lower_expert_linear(lowering *l) {
  MlirValue x = operand(l, 0), w = operand(l, 2), out = ir_result(l->op, 0);
  MlirValue x_buffer = operand_buffer(l, 0), out_buffer = result_buffer(l, 0);
  kernel_variants variants;
  if (!variants_read(l->state, l->op, "tile.variants", "expert_gemm", &variants)) return;
  MlirValue weights = weight_panels(l, w, ir_get_integer(l->op, "tile.panel"));
  for (size_t i = 0; i < variants.count; i++) {
    sorted_slots s = sort_slots(l, 1, ir_dimension(w, 0), false, &variants.item[i]);
    launch_product(l, &s,
                   &(expert_product){.variant = &variants.item[i],
                                     .x = x_buffer,
                                     .out = out_buffer,
                                     .matrix = w,
                                     .weights = weights,
                                     .shared_weights = none_buffer(l),
                                     .by_slot = ir_rank(x) == 3,
                                     .x_dtype = element_name(x),
                                     .out_dtype = element_name(out)});
  }
}

typedef struct combined_rows {
  MlirValue y, weights, residual, out;
  MlirValue shared_y; /* rows of the shared expert, or kernel.none */
  int64_t width, k;
  bool slot; /* or they are the last slot of y */
} combined_rows;

/* In steps of from to `to` tokens. */
static void launch_combine(lowering *l, const combined_rows *c, uint32_t from, uint32_t to) {
  MlirValue buffers[] = {c->y, c->weights, c->shared_y, c->residual, c->out};
  const bool rows = !ir_is(ir_definition(c->shared_y), "kernel.none");
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "width", c->width);
  attribute_integer(l, &list, "k", c->k);
  attribute_integer(l, &list, "shared", c->slot);
  attribute_integer(l, &list, "shared_rows", rows);
  attribute_number(l, &list, "scale", ir_get_float(l->op, "scale"));
  attribute_text(l, &list, "dtype", activation_name(l));
  launch_range(l, &list, SLUICE_SIZE_TOKENS, from, to);
  launch(l, "combine", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.row_bytes = c->width * (4 * (c->k + c->slot + rows) + 2 * (l->f32 ? 4 : 2)),
                        .row_flops = 2 * c->width * c->k});
}

static void lower_combine(lowering *l) {
  MlirValue y = operand(l, 0);
  MlirValue y_buffer = operand_buffer(l, 0), weights = operand_buffer(l, 1), none = none_buffer(l);
  const combined_rows c = {.y = y_buffer,
                           .weights = weights,
                           .shared_y = none,
                           .residual = none,
                           .out = result_buffer(l, 0),
                           .width = ir_dimension(y, 2),
                           .k = ir_dimension(y, 1)};
  launch_combine(l, &c, 0, UINT32_MAX);
}

/* A product of the shared expert where it has launches of its own. */
typedef struct shared_product {
  MlirValue x, weights, out;
  MlirValue matrix, second; /* weight values; second null unless swiglu */
  const char *out_dtype;
} shared_product;

/* Its kernels for the steps of the experts' `variant`. */
static void launch_shared(lowering *l, const shared_product *p, const kernel_variants *variants,
                          const kernel_variant *variant) {
  for (size_t i = 0; i < variants->count; i++) {
    const kernel_variant *own = &variants->item[i];
    if (own->from < variant->from || own->to > variant->to) continue;
    launch_gemm(l,
                &(gemm_launch){.x = p->x,
                               .weights = p->weights,
                               .residual = none_buffer(l),
                               .out = p->out,
                               .matrix = p->matrix,
                               .epilogue = mlirValueIsNull(p->second) ? "none" : "swiglu",
                               .size = "tokens",
                               .x_dtype = activation_name(l),
                               .out_dtype = p->out_dtype},
                own);
  }
}

/* An op with all products of experts. Operands: x, experts, weights, w_gate, w_up, w_down [, shared_gate, shared_up,
 * shared_down] [, residual]. */
typedef struct experts_op {
  bool shared;
  int64_t slots; /* of a token */
  /* for steps of the same sizes: gate and up, down; the shared expert's where they are apart */
  kernel_variants first, second, shared_first, shared_second;
  MlirValue x, hidden, y, shared_hidden, shared_y; /* values in between; the last two: kernel.none when never apart */
  MlirValue gate_up, down, shared_gate_up, shared_down;
} experts_op;

static bool read_variants(lowering *l, experts_op *e) {
  if (!variants_read(l->state, l->op, "tile.variants", "expert_gemm", &e->first) ||
      !variants_read(l->state, l->op, "tile.second", "expert_gemm", &e->second))
    return false;
  e->shared_first = e->shared_second = (kernel_variants){.count = 0};
  if (ir_has(l->op, "tile.shared") &&
      (!variants_read(l->state, l->op, "tile.shared", "gemm", &e->shared_first) ||
       !variants_read(l->state, l->op, "tile.shared_second", "gemm", &e->shared_second)))
    return false;
  bool same = e->first.count == e->second.count;
  for (size_t i = 0; same && i < e->first.count; i++) {
    const kernel_variant *a = &e->first.item[i], *b = &e->second.item[i];
    same = a->from == b->from && a->to == b->to && a->choice[CHOOSE_TILE_M] == b->choice[CHOOSE_TILE_M];
  }
  return same || pass_fail(l->state, l->op, "tile.variants and tile.second differ in sizes or in tile_m");
}

/* Whether the shared expert has launches of its own in these steps. */
static bool is_apart(const experts_op *e, size_t i) {
  return e->shared && e->first.item[i].choice[CHOOSE_APART];
}

static void open_experts(lowering *l, experts_op *e) {
  MlirValue x = operand(l, 0), w_gate = operand(l, 3), w_down = operand(l, 5), none = none_buffer(l);
  const int64_t inner = ir_dimension(w_gate, 1), width = ir_dimension(w_down, 1);
  const int64_t panel = ir_get_integer(l->op, "tile.panel");
  bool any_apart = false;
  for (size_t i = 0; i < e->first.count; i++) any_apart |= is_apart(e, i);
  e->x = operand_buffer(l, 0);
  e->hidden = scratch_buffer(l, 3, "hidden", element_name(x), e->slots * inner);
  e->y = scratch_buffer(l, 4, "y", "f32", e->slots * width);
  e->shared_hidden = any_apart ? scratch_buffer(l, 5, "shared_hidden", element_name(x), inner) : none;
  e->shared_y = any_apart ? scratch_buffer(l, 6, "shared_y", "f32", width) : none;
  e->gate_up = weight_pairs(l, w_gate, operand(l, 4), panel);
  e->down = weight_panels(l, w_down, panel);
  e->shared_gate_up = e->shared_down = none;
  if (!e->shared) return;
  e->shared_gate_up = weight_pairs(l, operand(l, IR_EXPERTS_SHARED), operand(l, IR_EXPERTS_SHARED + 1), panel);
  e->shared_down = weight_panels(l, operand(l, IR_EXPERTS_SHARED + 2), panel);
}

/* The sort and the products in the steps of variant `i`. */
static void launch_products(lowering *l, const experts_op *e, size_t i) {
  const kernel_variant *first = &e->first.item[i];
  const bool apart = is_apart(e, i), slot = e->shared && !apart;
  const char *x_dtype = element_name(operand(l, 0));
  MlirValue none = none_buffer(l), w_gate = operand(l, 3);
  sorted_slots s = sort_slots(l, 1, ir_dimension(w_gate, 0), slot, first);
  if (apart)
    launch_shared(l,
                  &(shared_product){.x = e->x,
                                    .weights = e->shared_gate_up,
                                    .out = e->shared_hidden,
                                    .matrix = operand(l, IR_EXPERTS_SHARED),
                                    .second = operand(l, IR_EXPERTS_SHARED + 1),
                                    .out_dtype = x_dtype},
                  &e->shared_first, first);
  launch_product(l, &s,
                 &(expert_product){.variant = first,
                                   .x = e->x,
                                   .paired = true,
                                   .out = e->hidden,
                                   .matrix = w_gate,
                                   .second = operand(l, 4),
                                   .weights = e->gate_up,
                                   .shared_weights = slot ? e->shared_gate_up : none,
                                   .x_dtype = x_dtype,
                                   .out_dtype = x_dtype});
  if (apart)
    launch_shared(l,
                  &(shared_product){.x = e->shared_hidden,
                                    .weights = e->shared_down,
                                    .out = e->shared_y,
                                    .matrix = operand(l, IR_EXPERTS_SHARED + 2),
                                    .out_dtype = "f32"},
                  &e->shared_second, first);
  launch_product(l, &s,
                 &(expert_product){.variant = &e->second.item[i],
                                   .x = e->hidden,
                                   .paired = true,
                                   .out = e->y,
                                   .matrix = operand(l, 5),
                                   .weights = e->down,
                                   .shared_weights = slot ? e->shared_down : none,
                                   .by_slot = true,
                                   .x_dtype = x_dtype,
                                   .out_dtype = "f32"});
}

/* Variants that combine the same way do it in one launch. */
static void launch_combines(lowering *l, const experts_op *e) {
  const intptr_t residual = ir_experts_residual(l->op);
  MlirValue none = none_buffer(l), weights = operand_buffer(l, 2), out = result_buffer(l, 0);
  MlirValue added = residual < 0 ? none : operand_buffer(l, residual);
  for (size_t i = 0, next; i < e->first.count; i = next) {
    const bool apart = is_apart(e, i);
    for (next = i + 1; next < e->first.count && is_apart(e, next) == apart;) next++;
    const combined_rows c = {.y = e->y,
                             .weights = weights,
                             .shared_y = apart ? e->shared_y : none,
                             .residual = added,
                             .out = out,
                             .width = ir_dimension(operand(l, 5), 1),
                             .k = ir_dimension(operand(l, 1), 1),
                             .slot = e->shared && !apart};
    launch_combine(l, &c, e->first.item[i].from, e->first.item[next - 1].to);
  }
}

static void lower_experts(lowering *l) {
  experts_op e = {.shared = ir_experts_shared(l->op)};
  e.slots = ir_dimension(operand(l, 1), 1) + e.shared;
  if (!read_variants(l, &e)) return;
  open_experts(l, &e);
  for (size_t i = 0; i < e.first.count; i++) launch_products(l, &e, i);
  launch_combines(l, &e);
}

bool lower_experts_op(lowering *l) {
  static const struct {
    const char *name;
    void (*lower)(lowering *l);
  } table[] = {{"model.router", lower_router},
               {"model.topk_experts", lower_topk_experts},
               {"model.expert_linear", lower_expert_linear},
               {"model.combine", lower_combine},
               {"model.experts", lower_experts},
               {"model.experts_shared", lower_experts}};
  for (size_t i = 0; i < COUNT_OF(table); i++)
    if (ir_is(l->op, table[i].name)) {
      table[i].lower(l);
      return true;
    }
  return false;
}

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
static void lower_split_router(lowering *l, int64_t experts, int64_t width) {
  MlirValue x = operand(l, 0), gate = operand(l, 1);
  MlirValue logits = scratch_buffer(l, 0, "router_logits", "f32", experts);
  MlirValue buffers[] = {operand_buffer(l, 0), weight_rows(l, gate), logits};
  const uint32_t few = l->tiles.router_few;
  for (int many = few == 0; many < 2; many++) {
    attribute_list list = {.count = 0};
    attribute_integer(l, &list, "width", width);
    attribute_integer(l, &list, "experts", experts);
    attribute_integer(l, &list, "many", many);
    attribute_text(l, &list, "dtype", element_name(x));
    launch_range(l, &list, SLUICE_SIZE_TOKENS, many && few ? few + 1 : 0, many ? UINT32_MAX : few);
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
  if (l->tiles.split_router) {
    lower_split_router(l, experts, width);
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
  int64_t shared;          /* 1: each token has one more slot, of the shared expert */
  const gemm_range *range; /* of the products that follow */
} sorted_slots;

static sorted_slots sort_slots(lowering *l, intptr_t routed, int64_t experts, bool shared, const gemm_range *range) {
  sorted_slots s = {.experts = experts, .k = ir_dimension(operand(l, routed), 1), .shared = shared, .range = range};
  int64_t counts = experts + s.shared + 2, slots = s.k + s.shared;
  s.counts = scratch_buffer(l, 0, "counts", "i32", counts);
  s.order = scratch_buffer(l, 1, "order", "i32", slots);
  s.tiles = scratch_buffer(l, 2, "expert_tiles", "i32", 4 * slots);
  MlirValue buffers[] = {operand_buffer(l, routed), s.counts, s.order, s.tiles};
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "experts", experts);
  attribute_integer(l, &list, "k", s.k);
  attribute_integer(l, &list, "shared", s.shared);
  attribute_integer(l, &list, "tile_m", range->tile_m);
  launch_range(l, &list, SLUICE_SIZE_TOKENS, range->from, range->to);
  launch(l, "sort_experts", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.fixed_bytes = 4 * counts, .row_bytes = 4 * s.k + 20 * slots});
  return s;
}

typedef struct expert_product {
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
  const bool overlaps = p->paired && s->range->workgroups == 0 && s->range->to <= s->range->tile_m;
  attribute_text(l, &list, "overlap", !overlaps ? "none" : p->by_slot ? "second" : "first");
  attribute_text(l, &list, "epilogue", swiglu ? "swiglu" : "none");
  attribute_number(l, &list, "alpha", swiglu ? ir_get_float(l->op, "alpha") : 0);
  attribute_number(l, &list, "limit", swiglu ? ir_get_float(l->op, "limit") : 0);
  attribute_text(l, &list, "x_dtype", p->x_dtype);
  attribute_text(l, &list, "weight_dtype", element_name(p->matrix));
  attribute_text(l, &list, "out_dtype", p->out_dtype);
  gemm_range own = *s->range;
  if (own.workgroups) stream_rounds(l, &own, n, swiglu, false);
  gemm_attributes(l, &list, &own, SLUICE_SIZE_TOKENS);
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
  gemm_range ranges[MOST_GEMM_RANGES];
  size_t count = gemm_ranges(l, l->tiles.expert_ranges, ranges);
  MlirValue weights = weight_panels(l, w, ir_get_integer(l->op, "tile.panel"));
  for (size_t i = 0; i < count; i++) {
    sorted_slots s = sort_slots(l, 1, ir_dimension(w, 0), false, &ranges[i]);
    launch_product(l, &s,
                   &(expert_product){.x = x_buffer,
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

/* Its kernel for steps of the expert products' `range`. */
static void launch_shared(lowering *l, const shared_product *p, const gemm_range *range) {
  bool swiglu = !mlirValueIsNull(p->second);
  gemm_range own = *range;
  if (own.workgroups) {
    const gemm_range *other = l->tiles.ranges;
    while (other->to < range->to) other++;
    own = *other;
    own.from = range->from;
    own.to = range->to;
  }
  launch_gemm(l,
              &(gemm_launch){.x = p->x,
                             .weights = p->weights,
                             .residual = none_buffer(l),
                             .out = p->out,
                             .matrix = p->matrix,
                             .epilogue = swiglu ? "swiglu" : "none",
                             .size = "tokens",
                             .x_dtype = activation_name(l),
                             .out_dtype = p->out_dtype},
              &own);
}

/* Operands: x, experts, weights, w_gate, w_up, w_down [, shared_gate, shared_up, shared_down] [, residual]. */
static void lower_experts(lowering *l) {
  MlirValue x = operand(l, 0), w_gate = operand(l, 3), w_down = operand(l, 5);
  int64_t inner = ir_dimension(w_gate, 1), width = ir_dimension(w_down, 1);
  const int64_t k = ir_dimension(operand(l, 1), 1);
  const bool shared = ir_experts_shared(l->op);
  const int64_t slots = k + shared;
  MlirValue x_buffer = operand_buffer(l, 0), none = none_buffer(l);
  MlirValue hidden = scratch_buffer(l, 3, "hidden", element_name(x), slots * inner);
  MlirValue y = scratch_buffer(l, 4, "y", "f32", slots * width);
  gemm_range ranges[MOST_GEMM_RANGES];
  size_t count = gemm_ranges(l, l->tiles.expert_ranges, ranges);
  bool any_apart = false;
  for (size_t i = 0; i < count; i++) any_apart |= shared && ranges[i].apart;
  MlirValue shared_hidden = any_apart ? scratch_buffer(l, 5, "shared_hidden", element_name(x), inner) : none;
  MlirValue shared_y = any_apart ? scratch_buffer(l, 6, "shared_y", "f32", width) : none;
  const int64_t panel = ir_get_integer(l->op, "tile.panel");
  MlirValue gate_up = weight_pairs(l, w_gate, operand(l, 4), panel), down = weight_panels(l, w_down, panel);
  MlirValue shared_gate_up = none, shared_down = none;
  if (shared) {
    shared_gate_up = weight_pairs(l, operand(l, IR_EXPERTS_SHARED), operand(l, IR_EXPERTS_SHARED + 1), panel);
    shared_down = weight_panels(l, operand(l, IR_EXPERTS_SHARED + 2), panel);
  }
  for (size_t i = 0; i < count; i++) {
    const bool apart = shared && ranges[i].apart, slot = shared && !apart;
    sorted_slots s = sort_slots(l, 1, ir_dimension(w_gate, 0), slot, &ranges[i]);
    if (apart)
      launch_shared(l,
                    &(shared_product){.x = x_buffer,
                                      .weights = shared_gate_up,
                                      .out = shared_hidden,
                                      .matrix = operand(l, IR_EXPERTS_SHARED),
                                      .second = operand(l, IR_EXPERTS_SHARED + 1),
                                      .out_dtype = element_name(x)},
                    &ranges[i]);
    launch_product(l, &s,
                   &(expert_product){.x = x_buffer,
                                     .paired = true,
                                     .out = hidden,
                                     .matrix = w_gate,
                                     .second = operand(l, 4),
                                     .weights = gate_up,
                                     .shared_weights = slot ? shared_gate_up : none,
                                     .x_dtype = element_name(x),
                                     .out_dtype = element_name(x)});
    if (apart)
      launch_shared(l,
                    &(shared_product){.x = shared_hidden,
                                      .weights = shared_down,
                                      .out = shared_y,
                                      .matrix = operand(l, IR_EXPERTS_SHARED + 2),
                                      .out_dtype = "f32"},
                    &ranges[i]);
    launch_product(l, &s,
                   &(expert_product){.x = hidden,
                                     .paired = true,
                                     .out = y,
                                     .matrix = w_down,
                                     .weights = down,
                                     .shared_weights = slot ? shared_down : none,
                                     .by_slot = true,
                                     .x_dtype = element_name(x),
                                     .out_dtype = "f32"});
  }
  const intptr_t residual = ir_experts_residual(l->op);
  MlirValue weights = operand_buffer(l, 2), out = result_buffer(l, 0);
  MlirValue added = residual < 0 ? none : operand_buffer(l, residual);
  for (size_t i = 0, next; i < count; i = next) { /* ranges that combine the same way do it in one launch */
    const bool apart = shared && ranges[i].apart;
    for (next = i + 1; next < count && (shared && ranges[next].apart) == apart;) next++;
    const combined_rows c = {.y = y,
                             .weights = weights,
                             .shared_y = apart ? shared_y : none,
                             .residual = added,
                             .out = out,
                             .width = width,
                             .k = k,
                             .slot = shared && !apart};
    launch_combine(l, &c, ranges[i].from, ranges[next - 1].to);
  }
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

/* lower-to-kernels: the model ops of @step, whose values have places and whose tiles are chosen, become launches on
 * memory. */
#include "ir/ranges.h"
#include "passes/lowering.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- attributes ---- */
void attribute_add(lowering *l, attribute_list *list, const char *name, MlirAttribute value) {
  if (list->count < MOST_ATTRIBUTES)
    list->items[list->count++] = (ir_attribute){name, value};
  else
    pass_fail(l->state, l->op, "a kernel op has more than %d attributes, '%s' is one too many", MOST_ATTRIBUTES, name);
}

void attribute_integer(lowering *l, attribute_list *list, const char *name, int64_t value) {
  attribute_add(l, list, name, ir_integer(l->context, value));
}

void attribute_number(lowering *l, attribute_list *list, const char *name, double value) {
  attribute_add(l, list, name, ir_float(l->context, value));
}

void attribute_text(lowering *l, attribute_list *list, const char *name, const char *value) {
  attribute_add(l, list, name, ir_string(l->context, value));
}

static MlirType element_of(MlirValue value) {
  return mlirShapedTypeGetElementType(mlirValueGetType(value));
}

const char *element_name(MlirValue value) {
  MlirType element = element_of(value);
  return mlirTypeIsABF16(element) ? "bf16" : mlirTypeIsAInteger(element) ? "i32" : "f32";
}

int64_t element_size(MlirValue value) {
  return mlirTypeIsABF16(element_of(value)) ? 2 : 4;
}

const char *activation_name(const lowering *l) {
  return l->f32 ? "f32" : "bf16";
}

enum { MOST_LAYERS = 4096 };

/* The layer of the op at hand: its attribute, or that of its weight's name ("...layers.3..."), or that of the op
 * before. */
static int64_t find_layer(const lowering *l) {
  if (ir_has(l->op, "layer")) return ir_get_integer(l->op, "layer");
  if (l->rows) return -1;
  for (intptr_t i = 0; i < mlirOperationGetNumOperands(l->op); i++) {
    MlirOperation definition = ir_definition(operand(l, i));
    if (!ir_is(definition, "model.weight") && !ir_is(definition, "model.concat_weights")) continue;
    while (ir_is(definition, "model.concat_weights"))
      definition = ir_definition(mlirOperationGetOperand(definition, 0));
    MlirStringRef name = ir_get_string(definition, "name");
    static const char mark[] = ".layers.";
    const char *layer = name.length ? memmem(name.data, name.length, mark, strlen(mark)) : NULL;
    if (!layer) continue;
    int64_t number = 0;
    for (const char *at = layer + strlen(mark); at < name.data + name.length && *at >= '0' && *at <= '9'; at++)
      if (number < MOST_LAYERS) number = number * 10 + (*at - '0');
    return number;
  }
  return l->layer;
}

void launch(lowering *l, const char *family, const MlirValue *buffers, size_t buffer_count, attribute_list *list,
            const launch_cost *cost) {
  char name[64];
  if (snprintf(name, sizeof name, "kernel.%s", family) >= (int)sizeof name) {
    pass_fail(l->state, l->op, "the kernel family '%s' has too long a name", family);
    return;
  }
  MlirStringRef label = ir_name(l->op);
  char text[64];
  size_t prefix = strlen("model.");
  size_t label_length = label.length - prefix < sizeof text - 1 ? label.length - prefix : sizeof text - 1;
  memcpy(text, label.data + prefix, label_length);
  text[label_length] = 0;
  const int64_t costs[] = {cost->fixed_bytes,  cost->row_bytes, cost->key_bytes, cost->limited_key_bytes,
                           cost->fixed_flops,  cost->row_flops, cost->key_flops, cost->limited_key_flops,
                           cost->expert_bytes, cost->key_limit};
  attribute_text(l, list, "label", text);
  attribute_integer(l, list, "layer", l->layer);
  attribute_text(l, list, "target", l->state->target);
  attribute_add(l, list, "cost", ir_integers(l->context, costs, COUNT_OF(costs)));
  ir_create(&l->builder, name, buffers, buffer_count, NULL, 0, list->items, list->count);
}

/* ---- buffers ---- */
MlirValue operand(const lowering *l, intptr_t index) {
  return mlirOperationGetOperand(l->op, index);
}

static MlirValue memory_op(lowering *l, const char *name, const attribute_list *list) {
  MlirType type = ir_buffer_type(l->context);
  return ir_result(ir_create(&l->builder, name, NULL, 0, &type, 1, list->items, list->count), 0);
}

static bool remember(lowering *l, MlirValue value, MlirValue buffer) {
  if (l->value_count == l->value_capacity) {
    size_t capacity = l->value_capacity ? l->value_capacity * 2 : 256;
    lowered_value *grown = sluice_reallocate_array(l->values, capacity, sizeof *grown);
    if (!grown) {
      if (!l->state->status) l->state->status = sluice_out_of_memory();
      return false;
    }
    l->values = grown;
    l->value_capacity = capacity;
  }
  l->values[l->value_count++] = (lowered_value){value, buffer, l->rows};
  return true;
}

MlirValue none_buffer(lowering *l) {
  if (mlirValueIsNull(l->none)) l->none = memory_op(l, "kernel.none", &(attribute_list){.count = 0});
  return l->none;
}

MlirValue operand_buffer(lowering *l, intptr_t index) {
  MlirValue value = operand(l, index);
  for (size_t i = l->value_count; i-- > 0;)
    if (mlirValueEqual(l->values[i].value, value)) return l->values[i].buffer;
  pass_fail(l->state, l->op, "operand %d has no memory: run plan-buffers first", (int)index);
  return none_buffer(l);
}

static int64_t array_integer(MlirOperation op, const char *name, intptr_t index) {
  MlirAttribute array = mlirOperationGetAttributeByName(op, mlirStringRefCreateFromCString(name));
  if (mlirAttributeIsNull(array) || !mlirAttributeIsAArray(array) || index >= mlirArrayAttrGetNumElements(array))
    return -1;
  return mlirIntegerAttrGetValueInt(mlirArrayAttrGetElement(array, index));
}

static MlirAttribute array_text(MlirOperation op, const char *name, intptr_t index) {
  MlirAttribute array = mlirOperationGetAttributeByName(op, mlirStringRefCreateFromCString(name));
  if (mlirAttributeIsNull(array) || !mlirAttributeIsAArray(array) || index >= mlirArrayAttrGetNumElements(array))
    return mlirAttributeGetNull();
  return mlirArrayAttrGetElement(array, index);
}

static MlirValue arena(lowering *l, intptr_t place, const char *name, const char *dtype, int64_t width) {
  MlirAttribute size = array_text(l->op, "arena.size", place);
  if (mlirAttributeIsNull(size) || mlirStringAttrGetValue(size).length == 0) {
    pass_fail(l->state, l->op, "value %d has no memory: run plan-buffers first", (int)place);
    return none_buffer(l);
  }
  attribute_list list = {0};
  attribute_text(l, &list, "name", name);
  attribute_add(l, &list, "size", size);
  attribute_integer(l, &list, "offset", array_integer(l->op, "arena.offset", place));
  attribute_integer(l, &list, "bytes", array_integer(l->op, "arena.bytes", place));
  attribute_text(l, &list, "dtype", dtype);
  attribute_integer(l, &list, "width", width);
  return memory_op(l, "kernel.arena", &list);
}

static MlirOperation return_of(MlirValue value) {
  for (MlirOpOperand use = mlirValueGetFirstUse(value); !mlirOpOperandIsNull(use); use = mlirOpOperandGetNextUse(use))
    if (ir_is(mlirOpOperandGetOwner(use), "func.return")) return mlirOpOperandGetOwner(use);
  return (MlirOperation){NULL};
}

MlirValue result_buffer(lowering *l, intptr_t index) {
  MlirValue result = ir_result(l->op, index), buffer;
  MlirOperation returned = return_of(result);
  if (!mlirOperationIsNull(returned)) {
    bool logits = mlirValueEqual(mlirOperationGetOperand(returned, 0), result);
    attribute_list list = {0};
    attribute_text(l, &list, "name", logits ? "logits" : "sampled");
    buffer = memory_op(l, "kernel.output", &list);
  } else {
    int64_t width = 1;
    for (intptr_t d = 1; d < ir_rank(result); d++)
      if (ir_dimension(result, d) > 0) width *= ir_dimension(result, d);
    char name[64];
    MlirStringRef op_name = ir_name(l->op);
    snprintf(name, sizeof name, "%.*s%s", (int)op_name.length - 6, op_name.data + 6,
             index == 1   ? ".1"
             : index == 2 ? ".2"
                          : "");
    buffer = arena(l, index, name, element_name(result), width);
  }
  remember(l, result, buffer);
  return buffer;
}

MlirValue scratch_buffer(lowering *l, intptr_t index, const char *name, const char *dtype, int64_t width) {
  return arena(l, mlirOperationGetNumResults(l->op) + index, name, dtype, width);
}

MlirValue input_buffer(lowering *l, const char *name) {
  uint32_t i;
  if (!sluice_input_find(name, strlen(name), &i)) {
    pass_fail(l->state, l->op, "a step has no input '%s'", name);
    return none_buffer(l);
  }
  if (mlirValueIsNull(l->input[i])) {
    attribute_list list = {0};
    attribute_text(l, &list, "name", name);
    l->input[i] = memory_op(l, "kernel.input", &list);
  }
  return l->input[i];
}

const struct cache_layout *cache_layout(const lowering *l) {
  return &l->layers[ir_get_integer(l->op, "layer")];
}

MlirValue cache_buffer(lowering *l) {
  const struct cache_layout *layout = cache_layout(l);
  if (layout->page_bytes == 0) {
    pass_fail(l->state, l->op, "nothing writes the keys of layer %lld", (long long)ir_get_integer(l->op, "layer"));
    return none_buffer(l);
  }
  attribute_list list = {0};
  attribute_integer(l, &list, "layer", ir_get_integer(l->op, "layer"));
  attribute_integer(l, &list, "page_bytes", layout->page_bytes);
  attribute_integer(l, &list, "has_index", layout->index_dim > 0);
  return memory_op(l, "kernel.cache", &list);
}

const char *row_size(const lowering *l) {
  return l->rows ? "rows" : "tokens";
}

/* ---- weights ---- */
enum { MOST_SOURCES = 8 };

typedef struct weight_sources {
  MlirOperation ops[MOST_SOURCES]; /* model.weight */
  size_t count;
} weight_sources;

/* The checkpoint tensors of a weight, in order of rows. */
static bool collect_sources(lowering *l, MlirValue weight, weight_sources *sources) {
  MlirOperation definition = ir_definition(weight);
  if (ir_is(definition, "model.concat_weights")) {
    for (intptr_t i = 0; i < mlirOperationGetNumOperands(definition); i++)
      if (!collect_sources(l, mlirOperationGetOperand(definition, i), sources)) return false;
    return true;
  }
  if (!ir_is(definition, "model.weight") || sources->count == MOST_SOURCES)
    return pass_fail(l->state, l->op, "a weight operand is not made of at most %d model.weight", MOST_SOURCES);
  sources->ops[sources->count++] = definition;
  return true;
}

static int64_t round_up(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

int64_t weight_group(const lowering *l) {
  return ir_has(l->op, "tile.group") ? ir_get_integer(l->op, "tile.group") : 2;
}

int64_t weight_batch_bytes(const lowering *l, MlirValue weight, bool pairs, int64_t panel) {
  const intptr_t rank = ir_rank(weight);
  const uint32_t rows = rank == 1 ? 1 : (uint32_t)ir_dimension(weight, rank - 2);
  const sluice_plan_weight packed = {.layout = panel == 0 ? SLUICE_LAYOUT_ROWS
                                               : pairs    ? SLUICE_LAYOUT_PANEL_PAIRS
                                                          : SLUICE_LAYOUT_PANELS,
                                     .format = element_size(weight) == 2 ? SLUICE_FORMAT_BF16 : SLUICE_FORMAT_F32,
                                     .rows = pairs ? 2 * rows : rows,
                                     .columns = (uint32_t)ir_dimension(weight, rank - 1),
                                     .panel = (uint32_t)panel,
                                     .group = panel ? (uint32_t)weight_group(l) : 1};
  sluice_packed_size size;
  const char *wrong = sluice_packed_size_of(&packed, &size);
  if (wrong) pass_fail(l->state, l->op, "%s", wrong);
  return (int64_t)size.batch_bytes;
}

/* kernel.weight of `weight`, followed by the rows of `second` unless that is null. */
static MlirValue weight_op(lowering *l, MlirValue weight, MlirValue second, const char *layout, int64_t panel) {
  weight_sources sources = {.count = 0};
  if (!collect_sources(l, weight, &sources)) return none_buffer(l);
  if (!mlirValueIsNull(second) && !collect_sources(l, second, &sources)) return none_buffer(l);
  intptr_t rank = ir_rank(weight);
  int64_t source_rows[MOST_SOURCES], rows = 0, columns = ir_dimension(weight, rank - 1);
  MlirAttribute names[MOST_SOURCES], slices[MOST_SOURCES];
  bool sliced = false;
  for (size_t i = 0; i < sources.count; i++) {
    MlirValue source = ir_result(sources.ops[i], 0);
    source_rows[i] = rank == 1 ? 1 : ir_dimension(source, rank - 2);
    rows += source_rows[i];
    names[i] = mlirOperationGetAttributeByName(sources.ops[i], mlirStringRefCreateFromCString("name"));
    slices[i] = mlirOperationGetAttributeByName(sources.ops[i], mlirStringRefCreateFromCString("rank.slice"));
    if (mlirAttributeIsNull(slices[i]))
      slices[i] = ir_integers(l->context, (const int64_t[]){0, 0, 1, source_rows[i], columns}, 5);
    else
      sliced = true;
  }
  attribute_list list = {.count = 0};
  attribute_add(l, &list, "name", names[0]);
  attribute_add(l, &list, "sources", mlirArrayAttrGet(ir_mlir(l->context), (intptr_t)sources.count, names));
  attribute_add(l, &list, "source_rows", ir_integers(l->context, source_rows, sources.count));
  attribute_integer(l, &list, "rank", rank == 1 ? 1 : 2);
  attribute_text(l, &list, "layout", layout);
  attribute_text(l, &list, "dtype", element_name(weight));
  attribute_integer(l, &list, "rows", rows);
  attribute_integer(l, &list, "columns", columns);
  attribute_integer(l, &list, "batch", rank == 3 ? ir_dimension(weight, 0) : 1);
  attribute_integer(l, &list, "panel", panel);
  attribute_integer(l, &list, "group", panel ? weight_group(l) : 1);
  if (sliced)
    attribute_add(l, &list, "rank.slices", mlirArrayAttrGet(ir_mlir(l->context), (intptr_t)sources.count, slices));
  return memory_op(l, "kernel.weight", &list);
}

MlirValue weight_rows(lowering *l, MlirValue weight) {
  return weight_op(l, weight, (MlirValue){NULL}, "rows", 0);
}

MlirValue weight_panels(lowering *l, MlirValue weight, int64_t panel) {
  return weight_op(l, weight, (MlirValue){NULL}, "panels", panel);
}

MlirValue weight_pairs(lowering *l, MlirValue first, MlirValue second, int64_t panel) {
  return weight_op(l, first, second, "panel_pairs", panel);
}

/* ---- products and elementwise ops ---- */

static int64_t tile(lowering *l, const char *name) {
  int64_t value = ir_get_integer(l->op, name);
  if (value > 0) return value;
  pass_fail(l->state, l->op, "no attribute %s: run choose-tiles first", name);
  return 16;
}

void choice_attributes(lowering *l, attribute_list *list, const char *family, const kernel_variant *variant) {
  const kernel_choice *choices;
  const size_t count = family_choices(family, &choices);
  for (size_t i = 0; i < count; i++)
    attribute_add(l, list, choice_name(choices[i]),
                  variant_attribute(l->state, choices[i], variant->choice[choices[i]]));
}

void gemm_attributes(lowering *l, attribute_list *list, const kernel_variant *variant, sluice_size size) {
  choice_attributes(l, list, "gemm", variant);
  launch_range(l, list, size, variant->from, variant->to);
}

void launch_ranges(lowering *l, attribute_list *list, const sluice_plan_range *ranges, size_t count) {
  sluice_plan_range some[SLUICE_SIZE_COUNT];
  uint32_t used = 0;
  for (size_t i = 0; i < count; i++)
    if (ranges[i].from > 0 || ranges[i].to < UINT32_MAX) some[used++] = ranges[i];
  if (used) attribute_add(l, list, "launch.range", ir_ranges_attribute(l->context, some, used));
}

void launch_range(lowering *l, attribute_list *list, sluice_size size, uint32_t from, uint32_t to) {
  launch_ranges(l, list, &(sluice_plan_range){size, from, to}, 1);
}

void launch_gemm(lowering *l, const gemm_launch *g, const kernel_variant *variant) {
  int64_t n = ir_dimension(g->matrix, ir_rank(g->matrix) - 2), k = ir_dimension(g->matrix, ir_rank(g->matrix) - 1);
  bool swiglu = strcmp(g->epilogue, "swiglu") == 0, add = strcmp(g->epilogue, "add") == 0;
  MlirValue buffers[] = {g->x, g->weights, g->residual, g->out};
  int64_t x_bytes = g->x_dtype[0] == 'b' ? 2 : 4, out_bytes = g->out_dtype[0] == 'b' ? 2 : 4;
  attribute_list list = {.count = 0};
  attribute_text(l, &list, "size", g->size);
  attribute_integer(l, &list, "n", n);
  attribute_integer(l, &list, "k", k);
  attribute_text(l, &list, "epilogue", g->epilogue);
  attribute_number(l, &list, "alpha", swiglu ? ir_get_float(l->op, "alpha") : 0);
  attribute_number(l, &list, "limit", swiglu ? ir_get_float(l->op, "limit") : 0);
  attribute_text(l, &list, "x_dtype", g->x_dtype);
  attribute_text(l, &list, "weight_dtype", element_name(g->matrix));
  attribute_text(l, &list, "out_dtype", g->out_dtype);
  gemm_attributes(l, &list, variant, strcmp(g->size, "rows") == 0 ? SLUICE_SIZE_ROWS : SLUICE_SIZE_TOKENS);
  launch(l, "gemm", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.fixed_bytes = weight_batch_bytes(l, g->matrix, swiglu, tile(l, "tile.panel")),
                        .row_bytes = k * x_bytes + n * out_bytes * (add ? 2 : 1),
                        .row_flops = 2 * n * k * (swiglu ? 2 : 1)});
}

/* linear, lm_head, linear_add, linear_swiglu. */
static void lower_product(lowering *l) {
  bool add = ir_is(l->op, "model.linear_add"), swiglu = ir_is(l->op, "model.linear_swiglu");
  MlirValue w = operand(l, 1);
  int64_t panel = tile(l, "tile.panel");
  kernel_variants variants;
  if (!variants_read(l->state, l->op, "tile.variants", "gemm", &variants)) return;
  gemm_launch g = {.x = operand_buffer(l, 0),
                   .residual = add ? operand_buffer(l, 2) : none_buffer(l),
                   .matrix = w,
                   .epilogue = swiglu ? "swiglu"
                               : add  ? "add"
                                      : "none",
                   .size = row_size(l),
                   .x_dtype = element_name(operand(l, 0)),
                   .out_dtype = element_name(ir_result(l->op, 0))};
  g.weights = swiglu ? weight_pairs(l, w, operand(l, 2), panel) : weight_panels(l, w, panel);
  g.out = result_buffer(l, 0);
  for (size_t i = 0; i < variants.count; i++) launch_gemm(l, &g, &variants.item[i]);
}

static int64_t row_elements(MlirValue value) {
  int64_t width = 1;
  for (intptr_t d = 1; d < ir_rank(value); d++) width *= ir_dimension(value, d);
  return width;
}

static void lower_embed(lowering *l) {
  MlirValue table = operand(l, 1), out = ir_result(l->op, 0);
  int64_t width = ir_dimension(table, 1);
  MlirValue buffers[] = {input_buffer(l, "tokens"), weight_rows(l, table), result_buffer(l, 0)};
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "width", width);
  attribute_integer(l, &list, "vocabulary", ir_dimension(table, 0));
  attribute_text(l, &list, "weight_dtype", element_name(table));
  attribute_text(l, &list, "dtype", element_name(out));
  launch(l, "embed", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.row_bytes = width * (element_size(table) + element_size(out))});
}

static void lower_rms_norm(lowering *l) {
  MlirValue x = operand(l, 0), w = operand(l, 1);
  int64_t width = ir_dimension(x, 1);
  MlirValue buffers[] = {operand_buffer(l, 0), weight_rows(l, w), result_buffer(l, 0)};
  attribute_list list = {.count = 0};
  attribute_text(l, &list, "size", row_size(l));
  attribute_integer(l, &list, "width", width);
  attribute_number(l, &list, "eps", ir_get_float(l->op, "eps"));
  attribute_text(l, &list, "dtype", element_name(x));
  attribute_text(l, &list, "weight_dtype", element_name(w));
  launch(l, "rms_norm", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){
             .fixed_bytes = width * element_size(w), .row_bytes = 2 * width * element_size(x), .row_flops = 4 * width});
}

/* add; swiglu_oai over [T][slots][width]. */
static void lower_elementwise(lowering *l, bool swiglu) {
  MlirValue x = operand(l, 0);
  int64_t slots = ir_rank(x) == 3 ? ir_dimension(x, 1) : 1, width = ir_dimension(x, ir_rank(x) - 1);
  MlirValue buffers[] = {operand_buffer(l, 0), operand_buffer(l, 1), result_buffer(l, 0)};
  attribute_list list = {.count = 0};
  attribute_text(l, &list, "size", row_size(l));
  attribute_integer(l, &list, "width", width);
  if (swiglu) {
    attribute_number(l, &list, "alpha", ir_get_float(l->op, "alpha"));
    attribute_number(l, &list, "limit", ir_get_float(l->op, "limit"));
    attribute_integer(l, &list, "slots", slots);
  }
  attribute_text(l, &list, "dtype", element_name(x));
  launch(l, swiglu ? "swiglu" : "add", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.row_bytes = 3 * row_elements(x) * element_size(x),
                        .row_flops = (swiglu ? 8 : 1) * row_elements(x)});
}

static void lower_slice(lowering *l) {
  MlirValue x = operand(l, 0), out = ir_result(l->op, 0);
  MlirValue buffers[] = {operand_buffer(l, 0), result_buffer(l, 0)};
  attribute_list list = {.count = 0};
  attribute_text(l, &list, "size", row_size(l));
  attribute_integer(l, &list, "x_width", ir_dimension(x, 1));
  attribute_integer(l, &list, "width", ir_dimension(out, 1));
  attribute_integer(l, &list, "offset", ir_get_integer(l->op, "offset"));
  attribute_text(l, &list, "dtype", element_name(x));
  launch(l, "slice", buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.row_bytes = 2 * ir_dimension(out, 1) * element_size(x)});
}

static void lower_select_rows(lowering *l) {
  MlirValue x = operand(l, 0);
  int64_t width = ir_dimension(x, 1);
  MlirValue buffers[] = {operand_buffer(l, 0), input_buffer(l, "logit_rows"), result_buffer(l, 0)};
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "width", width);
  attribute_text(l, &list, "dtype", element_name(x));
  launch(l, "select_rows", buffers, COUNT_OF(buffers), &list, &(launch_cost){.row_bytes = 2 * width * element_size(x)});
}

/* all_reduce and all_gather: what the ranks have comes together behind each other, and a kernel makes one of it. */
static void lower_collective(lowering *l, const char *family) {
  MlirValue x = operand(l, 0);
  const int64_t width = row_elements(x), ranks = ir_get_integer(l->op, "group");
  MlirValue buffers[] = {operand_buffer(l, 0), scratch_buffer(l, 0, "parts", element_name(x), ranks * width),
                         result_buffer(l, 0)};
  attribute_list list = {.count = 0};
  attribute_text(l, &list, "size", row_size(l));
  attribute_integer(l, &list, "width", width);
  attribute_integer(l, &list, "ranks", ranks);
  attribute_text(l, &list, "dtype", element_name(x));
  launch(l, family, buffers, COUNT_OF(buffers), &list,
         &(launch_cost){.row_bytes = 2 * ranks * width * element_size(x), .row_flops = ranks * width});
}

/* A launch of its own, which steps without log-probabilities leave out: its grid is empty there. */
static void lower_logprobs(lowering *l, const MlirValue of_sample[3], int64_t vocabulary) {
  attribute_list name = {0}, list = {0};
  attribute_text(l, &name, "name", "logprobs");
  MlirValue buffers[] = {of_sample[0], of_sample[1], of_sample[2], memory_op(l, "kernel.output", &name)};
  attribute_integer(l, &list, "vocabulary", vocabulary);
  launch(l, "logprobs", buffers, COUNT_OF(buffers), &list, &(launch_cost){0});
}

static void lower_sample(lowering *l) {
  int64_t vocabulary = ir_dimension(operand(l, 0), 1);
  MlirValue buffers[] = {operand_buffer(l, 0), input_buffer(l, "sampling"), result_buffer(l, 0)};
  attribute_list list = {.count = 0};
  attribute_integer(l, &list, "vocabulary", vocabulary);
  launch(l, "sample", buffers, COUNT_OF(buffers), &list, &(launch_cost){.row_bytes = 4 * vocabulary});
  lower_logprobs(l, buffers, vocabulary);
}

/* ---- the function ---- */

static bool lower_op(lowering *l) {
  if (ir_is(l->op, "model.weight") || ir_is(l->op, "model.concat_weights") || ir_is(l->op, "model.observe") ||
      ir_is(l->op, "func.return"))
    return true; /* read by their users */
  if (ir_is(l->op, "model.linear") || ir_is(l->op, "model.lm_head") || ir_is(l->op, "model.linear_add") ||
      ir_is(l->op, "model.linear_swiglu"))
    lower_product(l);
  else if (ir_is(l->op, "model.embed"))
    lower_embed(l);
  else if (ir_is(l->op, "model.rms_norm"))
    lower_rms_norm(l);
  else if (ir_is(l->op, "model.add"))
    lower_elementwise(l, false);
  else if (ir_is(l->op, "model.swiglu_oai"))
    lower_elementwise(l, true);
  else if (ir_is(l->op, "model.slice"))
    lower_slice(l);
  else if (ir_is(l->op, "model.select_rows"))
    lower_select_rows(l);
  else if (ir_is(l->op, "model.all_reduce"))
    lower_collective(l, "add_ranks");
  else if (ir_is(l->op, "model.all_gather"))
    lower_collective(l, "join_ranks");
  else if (ir_is(l->op, "model.sample"))
    lower_sample(l);
  else if (!lower_attention_op(l) && !lower_experts_op(l)) {
    MlirStringRef name = ir_name(l->op);
    return pass_fail(l->state, l->op, "'%.*s' has no kernel yet", (int)name.length, name.data);
  }
  return l->state->status == NULL;
}

/* kernel.observe for every model.observe of the op's results, right after its launches. */
static void observe_results(lowering *l) {
  for (intptr_t r = 0; r < mlirOperationGetNumResults(l->op); r++) {
    MlirValue result = ir_result(l->op, r);
    for (MlirOpOperand use = mlirValueGetFirstUse(result); !mlirOpOperandIsNull(use);
         use = mlirOpOperandGetNextUse(use)) {
      MlirOperation user = mlirOpOperandGetOwner(use);
      if (!ir_is(user, "model.observe")) continue;
      MlirValue buffer = {NULL};
      for (size_t i = l->value_count; i-- > 0 && mlirValueIsNull(buffer);)
        if (mlirValueEqual(l->values[i].value, result)) buffer = l->values[i].buffer;
      if (mlirValueIsNull(buffer)) continue;
      attribute_list list = {.count = 0};
      attribute_add(l, &list, "name", mlirOperationGetAttributeByName(user, mlirStringRefCreateFromCString("name")));
      attribute_integer(l, &list, "dimension", ir_dimension(result, ir_rank(result) - 1));
      attribute_text(l, &list, "dtype", element_name(result));
      ir_create(&l->builder, "kernel.observe", &buffer, 1, NULL, 0, list.items, list.count);
    }
  }
}

/* What the ops that write the cache say of each layer's pages. */
static bool read_cache_layouts(lowering *l, MlirBlock body) {
  l->layer_count = ir_get_integer(l->function, "model.layers");
  if (l->layer_count < 1 || l->layer_count > MOST_LAYERS)
    return pass_fail(l->state, l->function, "attribute model.layers is %lld, expected 1 to %d",
                     (long long)l->layer_count, MOST_LAYERS);
  l->layers = sluice_allocate_array((size_t)l->layer_count + 1, sizeof *l->layers);
  if (!l->layers) {
    l->state->status = sluice_out_of_memory();
    return false;
  }
  for (MlirOperation op = mlirBlockGetFirstOperation(body); !mlirOperationIsNull(op);
       op = mlirOperationGetNextInBlock(op)) {
    bool fused = ir_is(op, "model.norm_rope_append"), append = ir_is(op, "model.cache_append");
    if (!ir_has(op, "layer")) continue;
    int64_t layer = ir_get_integer(op, "layer");
    if (layer < 0 || layer >= l->layer_count)
      return pass_fail(l->state, op, "layer %lld, but the model has %lld", (long long)layer, (long long)l->layer_count);
    if (!fused && !append) continue;
    struct cache_layout *c = &l->layers[layer];
    if (fused) {
      c->kv_heads = ir_get_integer(op, "kv_heads");
      c->head_dim = ir_get_integer(op, "head_dim");
      c->index_dim = ir_get_integer(op, "index_heads") ? ir_get_integer(op, "index_dim") : 0;
      continue;
    }
    MlirStringRef part = ir_get_string(op, "part");
    int64_t heads = ir_get_integer(op, "heads"), width = ir_dimension(mlirOperationGetOperand(op, 2), 1);
    if (part.length == strlen("index_key"))
      c->index_dim = width;
    else {
      c->kv_heads = heads;
      c->head_dim = width / heads;
    }
  }
  int64_t element = l->f32 ? 4 : 2;
  for (int64_t i = 0; i < l->layer_count; i++) {
    struct cache_layout *c = &l->layers[i];
    int64_t part = round_up(c->kv_heads * c->head_dim * l->page * element);
    c->value_offset = part;
    c->index_offset = c->index_dim ? 2 * part : 0;
    c->page_bytes = 2 * part + round_up(c->index_dim * l->page * element);
  }
  return true;
}

/* func.func @step() with the model.* attributes of the old function. */
static MlirOperation create_function(const lowering *l) {
  MlirContext mlir = ir_mlir(l->context);
  MlirOperationState state =
      mlirOperationStateGet(mlirStringRefCreateFromCString("func.func"), mlirOperationGetLocation(l->function));
  const MlirNamedAttribute own[] = {
      mlirNamedAttributeGet(mlirIdentifierGet(mlir, mlirStringRefCreateFromCString("sym_name")),
                            ir_string(l->context, "step")),
      mlirNamedAttributeGet(mlirIdentifierGet(mlir, mlirStringRefCreateFromCString("function_type")),
                            mlirTypeAttrGet(mlirFunctionTypeGet(mlir, 0, NULL, 0, NULL)))};
  mlirOperationStateAddAttributes(&state, COUNT_OF(own), own);
  for (intptr_t i = 0; i < mlirOperationGetNumAttributes(l->function); i++) {
    const MlirNamedAttribute a = mlirOperationGetAttribute(l->function, i);
    const MlirStringRef name = mlirIdentifierStr(a.name);
    if (name.length > 6 && memcmp(name.data, "model.", 6) == 0) mlirOperationStateAddAttributes(&state, 1, &a);
  }
  MlirRegion region = mlirRegionCreate();
  mlirRegionAppendOwnedBlock(region, mlirBlockCreate(0, NULL, NULL));
  mlirOperationStateAddOwnedRegions(&state, 1, &region);
  return mlirOperationCreate(&state);
}

static bool lower_function(lowering *l, MlirModule module) {
  MlirBlock body = ir_body(l->function);
  MlirStringRef dtype = ir_get_string(l->function, "model.dtype");
  l->f32 = dtype.length == strlen("float32");
  l->page = ir_get_integer(l->function, "model.page");
  l->max_context = ir_get_integer(l->function, "model.max_context");
  l->layer = -1;
  kernel_variants pages;
  if (!variants_find(l->state, l->function, &(kernel_question){.family = "cache", .to = UINT32_MAX}, &pages))
    return false;
  l->transposed_values = pages.count && pages.item[0].choice[CHOOSE_TRANSPOSED];
  if (!plan_buffers_check(l->state, l->function) || !read_cache_layouts(l, body)) return false;
  MlirOperation function = create_function(l);
  l->builder = (ir_builder){.context = l->context, .block = ir_body(function)};
  bool done = true;
  for (l->op = mlirBlockGetFirstOperation(body); done && !mlirOperationIsNull(l->op);
       l->op = mlirOperationGetNextInBlock(l->op)) {
    l->builder.location = mlirOperationGetLocation(l->op);
    l->rows = ir_is(l->op, "model.select_rows");
    for (intptr_t i = 0; i < mlirOperationGetNumOperands(l->op); i++)
      for (size_t v = l->value_count; v-- > 0;)
        if (mlirValueEqual(l->values[v].value, mlirOperationGetOperand(l->op, i))) l->rows |= l->values[v].rows;
    l->layer = find_layer(l);
    done = lower_op(l);
    if (done) observe_results(l);
  }
  if (!done) {
    mlirOperationDestroy(function);
    return false;
  }
  ir_create(&l->builder, "func.return", NULL, 0, NULL, 0, NULL, 0);
  mlirOperationDestroy(l->function);
  mlirBlockAppendOwnedOperation(mlirModuleGetBody(module), function);
  return true;
}

bool pass_lower_to_kernels(pass_state *state, MlirModule module) {
  MlirOperation function = ir_function(module, "step");
  if (mlirOperationIsNull(function)) return true;
  lowering l = {.state = state, .context = state->context, .function = function};
  bool done = lower_function(&l, module);
  sluice_release(l.values);
  sluice_release(l.layers);
  return done;
}

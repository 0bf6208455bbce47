/* kernel IR -> the plan section. Walks @step once; tables grow in order of first use, so the result depends on the IR
 * alone. */
#include "compiler/compile.h"
#include "ir/ranges.h"
#include "sluice/memory.h"
#include "sluice/plan.h"

#include <stdio.h>
#include <string.h>

/* A table that grows. */
typedef struct table {
  char *data;
  size_t count, capacity, element;
} table;

/* Kernel attributes are printed to text, which both names the kernel and goes into the plan. */
typedef struct kernel_entry {
  char *attributes; /* JSON object */
  char *family;
  kernel_attribute *list;
  size_t list_count;
  uint32_t argument_count;
  kernel_part *parts; /* of a joined kernel */
  size_t part_count;
} kernel_entry;

/* A kernel.join, whose kernel is made when all launches are there. */
typedef struct open_join {
  MlirOperation op;
  sluice_plan_join join;
} open_join;

/* What becomes the section once code generation has said what the kernels are (plan_finish). */
typedef struct plan_writer {
  ir_context *context;
  table strings, buffers, weights, sources, cache, launches, arguments, observables, joins, ranges;
  table open_joins;
  sluice_plan_header header; /* without its tables */
  sluice_plan_region regions[SLUICE_SIZE_COUNT];
  kernel_entry *kernels;
  size_t kernel_count, kernel_capacity;
  struct place { /* memory reference of each memory op */
    MlirOperation op;
    sluice_plan_argument argument;
    uint32_t width, dtype;
  } *places;
  size_t place_count, place_capacity;
  MlirOperation function;
  sluice_status *status;
} plan_writer;

static void fail(plan_writer *w, sluice_status *status) {
  if (w->status)
    sluice_status_free(status);
  else
    w->status = status;
}

static void *push(plan_writer *w, table *t, const void *element) {
  if (t->count == t->capacity) {
    size_t capacity = t->capacity ? t->capacity * 2 : 64;
    char *grown = sluice_reallocate_array(t->data, capacity, t->element);
    if (!grown) {
      fail(w, sluice_out_of_memory());
      return NULL;
    }
    t->data = grown;
    t->capacity = capacity;
  }
  void *at = t->data + t->count++ * t->element;
  memcpy(at, element, t->element);
  return at;
}

/* The offset of `text` in the string table; a text that is there already is used again. */
static uint32_t string(plan_writer *w, const char *text, size_t length) {
  if (length == 0) return 0;
  for (size_t at = 0; at + length < w->strings.count;) {
    size_t n = strlen(w->strings.data + at);
    if (n == length && memcmp(w->strings.data + at, text, length) == 0) return (uint32_t)at;
    at += n + 1;
  }
  uint32_t offset = (uint32_t)w->strings.count;
  for (size_t i = 0; i <= length; i++) push(w, &w->strings, i < length ? &text[i] : "");
  return offset;
}

static uint32_t string_attribute(plan_writer *w, MlirOperation op, const char *name) {
  MlirStringRef text = ir_get_string(op, name);
  return string(w, text.data, text.length);
}

static bool text_is(MlirStringRef text, const char *expected) {
  return text.length == strlen(expected) && memcmp(text.data, expected, text.length) == 0;
}

/* The number that `find` knows the attribute's text by; reports an error for another text. */
static uint32_t choose(plan_writer *w, MlirOperation op, const char *attribute,
                       bool (*find)(const char *name, size_t length, uint32_t *out_number)) {
  MlirStringRef text = ir_get_string(op, attribute);
  uint32_t number = 0;
  if (!find(text.data, text.length, &number))
    fail(w, sluice_error(SLUICE_INTERNAL, "plan: attribute %s has the unknown value '%.*s'", attribute,
                         (int)text.length, text.data));
  return number;
}

static MlirAttribute array_item(MlirOperation op, const char *name, intptr_t index) {
  return mlirArrayAttrGetElement(mlirOperationGetAttributeByName(op, mlirStringRefCreateFromCString(name)), index);
}

static intptr_t array_length(MlirOperation op, const char *name) {
  MlirAttribute array = mlirOperationGetAttributeByName(op, mlirStringRefCreateFromCString(name));
  return mlirAttributeIsNull(array) ? 0 : mlirArrayAttrGetNumElements(array);
}

/* ---- memory ops ---- */

static void add_place(plan_writer *w, MlirOperation op, sluice_memory memory, size_t index, uint32_t width,
                      uint32_t dtype) {
  if (w->place_count == w->place_capacity) {
    size_t capacity = w->place_capacity ? w->place_capacity * 2 : 256;
    struct place *grown = sluice_reallocate_array(w->places, capacity, sizeof *grown);
    if (!grown) {
      fail(w, sluice_out_of_memory());
      return;
    }
    w->places = grown;
    w->place_capacity = capacity;
  }
  w->places[w->place_count++] = (struct place){
      .op = op, .argument = {.memory = (uint32_t)memory, .index = (uint32_t)index}, .width = width, .dtype = dtype};
}

static void write_arena(plan_writer *w, MlirOperation op) {
  sluice_plan_buffer buffer = {.name = string_attribute(w, op, "name"),
                               .size = choose(w, op, "size", sluice_size_find),
                               .unit_offset = (uint64_t)ir_get_integer(op, "offset"),
                               .unit_bytes = (uint64_t)ir_get_integer(op, "bytes"),
                               .dtype = choose(w, op, "dtype", sluice_dtype_find),
                               .width = (uint32_t)ir_get_integer(op, "width")};
  uint64_t end = buffer.unit_offset + buffer.unit_bytes;
  if (w->regions[buffer.size].unit_bytes < end) w->regions[buffer.size].unit_bytes = end;
  add_place(w, op, SLUICE_MEMORY_ARENA, w->buffers.count, buffer.width, buffer.dtype);
  push(w, &w->buffers, &buffer);
}

static void write_weight(plan_writer *w, MlirOperation op) {
  sluice_plan_weight weight = {.name = string_attribute(w, op, "name"),
                               .layout = choose(w, op, "layout", sluice_layout_find),
                               .format = choose(w, op, "dtype", sluice_format_find),
                               .batch = (uint32_t)ir_get_integer(op, "batch"),
                               .rows = (uint32_t)ir_get_integer(op, "rows"),
                               .columns = (uint32_t)ir_get_integer(op, "columns"),
                               .panel = (uint32_t)ir_get_integer(op, "panel"),
                               .group = (uint32_t)ir_get_integer(op, "group"),
                               .first_source = (uint32_t)w->sources.count,
                               .source_count = (uint32_t)array_length(op, "sources")};
  sluice_packed_size size;
  const char *wrong = sluice_packed_size_of(&weight, &size);
  if (wrong) fail(w, sluice_error(SLUICE_INTERNAL, "plan: %s", wrong));
  weight.batch_bytes = size.batch_bytes;
  weight.bytes = weight.batch_bytes * weight.batch;
  for (uint32_t i = 0; i < weight.source_count; i++) {
    MlirStringRef name = mlirStringAttrGetValue(array_item(op, "sources", (intptr_t)i));
    const uint32_t rows = (uint32_t)mlirIntegerAttrGetValueInt(array_item(op, "source_rows", (intptr_t)i));
    sluice_plan_source source = {.name = string(w, name.data, name.length),
                                 .role = SLUICE_ROLE_VALUES,
                                 .rank = (uint32_t)ir_get_integer(op, "rank"),
                                 .tensor_rows = rows,
                                 .tensor_columns = weight.columns,
                                 .rows = rows,
                                 .columns = weight.columns,
                                 .share = 1};
    if (array_length(op, "rank.slices")) {
      MlirAttribute slice = array_item(op, "rank.slices", (intptr_t)i);
      uint32_t *const fields[] = {&source.row_step, &source.column_step, &source.share, &source.tensor_rows,
                                  &source.tensor_columns};
      for (intptr_t k = 0; k < 5; k++)
        *fields[k] = (uint32_t)mlirIntegerAttrGetValueInt(mlirArrayAttrGetElement(slice, k));
    }
    push(w, &w->sources, &source);
  }
  add_place(w, op, SLUICE_MEMORY_WEIGHT, w->weights.count, 0, 0);
  push(w, &w->weights, &weight);
}

static void write_cache(plan_writer *w, MlirOperation op) {
  uint64_t layer = (uint64_t)ir_get_integer(op, "layer");
  if (layer >= w->cache.count) {
    fail(w, sluice_error(SLUICE_INTERNAL, "plan: cache of layer %llu, but there are %zu layers",
                         (unsigned long long)layer, w->cache.count));
    return;
  }
  sluice_plan_layer *entry = (sluice_plan_layer *)(void *)w->cache.data + layer;
  entry->page_bytes = (uint64_t)ir_get_integer(op, "page_bytes");
  entry->has_index = (uint32_t)ir_get_integer(op, "has_index");
  add_place(w, op, SLUICE_MEMORY_CACHE, layer, 0, 0);
}

/* True when `op` gives memory. */
static bool write_memory(plan_writer *w, MlirOperation op) {
  if (ir_is(op, "kernel.arena"))
    write_arena(w, op);
  else if (ir_is(op, "kernel.weight"))
    write_weight(w, op);
  else if (ir_is(op, "kernel.cache"))
    write_cache(w, op);
  else if (ir_is(op, "kernel.input"))
    add_place(w, op, SLUICE_MEMORY_INPUT, choose(w, op, "name", sluice_input_find), 0, 0);
  else if (ir_is(op, "kernel.output"))
    add_place(w, op, SLUICE_MEMORY_OUTPUT, choose(w, op, "name", sluice_output_find), 0, 0);
  else if (ir_is(op, "kernel.none"))
    add_place(w, op, SLUICE_MEMORY_NONE, 0, 0, 0);
  else
    return false;
  return true;
}

static const struct place *place_of(plan_writer *w, MlirValue buffer) {
  MlirOperation op = ir_definition(buffer);
  for (size_t i = w->place_count; i-- > 0;)
    if (mlirOperationEqual(w->places[i].op, op)) return &w->places[i];
  fail(w, sluice_error(SLUICE_INTERNAL, "plan: an operand of a launch is no memory"));
  return NULL;
}

/* ---- launches ---- */

static bool is_launch_detail(MlirStringRef name) {
  if (memchr(name.data, '.', name.length)) return true; /* annotations */
  return text_is(name, "label") || text_is(name, "layer") || text_is(name, "cost") || text_is(name, "target");
}

/* The attributes that make the kernel, as a JSON object; MLIR keeps them sorted by name. */
static void print_attributes(MlirOperation op, sluice_text *out) {
  sluice_text_append(out, "{", 1);
  bool first = true;
  for (intptr_t i = 0; i < mlirOperationGetNumAttributes(op); i++) {
    MlirNamedAttribute a = mlirOperationGetAttribute(op, i);
    MlirStringRef name = mlirIdentifierStr(a.name);
    if (is_launch_detail(name)) continue;
    sluice_text_printf(out, "%s\"%.*s\":", first ? "" : ",", (int)name.length, name.data);
    first = false;
    if (mlirAttributeIsAString(a.attribute)) {
      MlirStringRef text = mlirStringAttrGetValue(a.attribute);
      sluice_text_printf(out, "\"%.*s\"", (int)text.length, text.data);
    } else if (mlirAttributeIsAInteger(a.attribute)) {
      sluice_text_printf(out, "%lld", (long long)mlirIntegerAttrGetValueInt(a.attribute));
    } else {
      sluice_text_json_double(out, mlirFloatAttrGetValueDouble(a.attribute));
    }
  }
  sluice_text_append(out, "}", 1);
}

static char *copy_text(plan_writer *w, MlirStringRef text) {
  char *copy = sluice_copy_string(text.data, text.length);
  if (!copy) fail(w, sluice_out_of_memory());
  return copy;
}

static void list_attributes(plan_writer *w, MlirOperation op, kernel_entry *kernel) {
  kernel->list = sluice_allocate_array((size_t)mlirOperationGetNumAttributes(op), sizeof *kernel->list);
  if (!kernel->list) {
    fail(w, sluice_out_of_memory());
    return;
  }
  for (intptr_t i = 0; i < mlirOperationGetNumAttributes(op); i++) {
    MlirNamedAttribute a = mlirOperationGetAttribute(op, i);
    if (is_launch_detail(mlirIdentifierStr(a.name))) continue;
    kernel_attribute *out = &kernel->list[kernel->list_count++];
    out->name = copy_text(w, mlirIdentifierStr(a.name));
    if (mlirAttributeIsAString(a.attribute)) {
      out->kind = KERNEL_STRING;
      out->string = copy_text(w, mlirStringAttrGetValue(a.attribute));
    } else if (mlirAttributeIsAInteger(a.attribute)) {
      out->integer = mlirIntegerAttrGetValueInt(a.attribute);
    } else {
      out->kind = KERNEL_FLOAT;
      out->number = mlirFloatAttrGetValueDouble(a.attribute);
    }
  }
}

/* Adds a kernel and takes over `attributes`, its attributes as text; NULL when memory is short. */
static kernel_entry *add_kernel(plan_writer *w, MlirStringRef family, char *attributes, uint32_t argument_count) {
  if (w->kernel_count == w->kernel_capacity) {
    size_t capacity = w->kernel_capacity ? w->kernel_capacity * 2 : 64;
    kernel_entry *grown = sluice_reallocate_array(w->kernels, capacity, sizeof *grown);
    if (!grown) fail(w, sluice_out_of_memory());
    if (grown) {
      w->kernels = grown;
      w->kernel_capacity = capacity;
    }
  }
  char *family_copy = w->status ? NULL : copy_text(w, family);
  if (w->status) {
    sluice_release(family_copy);
    sluice_release(attributes);
    return NULL;
  }
  kernel_entry *kernel = &w->kernels[w->kernel_count++];
  *kernel = (kernel_entry){.attributes = attributes, .family = family_copy, .argument_count = argument_count};
  return kernel;
}

/* The index of the launch's kernel, shared with launches that agree in family and attributes. */
static uint32_t kernel_of(plan_writer *w, MlirOperation op) {
  sluice_text text = {0};
  print_attributes(op, &text);
  MlirStringRef name = ir_name(op);
  const char *family = name.data + strlen("kernel.");
  size_t family_length = name.length - strlen("kernel.");
  if (text.failed) fail(w, sluice_out_of_memory());
  for (size_t i = 0; i < w->kernel_count && !text.failed; i++)
    if (strlen(w->kernels[i].family) == family_length && memcmp(w->kernels[i].family, family, family_length) == 0 &&
        strcmp(w->kernels[i].attributes, text.data) == 0) {
      sluice_text_free(&text);
      return (uint32_t)i;
    }
  kernel_entry *kernel =
      add_kernel(w, mlirStringRefCreate(family, family_length), text.data, (uint32_t)mlirOperationGetNumOperands(op));
  if (!kernel) return 0;
  list_attributes(w, op, kernel);
  return (uint32_t)(w->kernel_count - 1);
}

/* The kernel that makes synthetic weights (sluice_synthetic_piece): in every plan, in no launch. */
static void add_synthesis(plan_writer *w) {
  char *attributes = copy_text(w, mlirStringRefCreateFromCString("{}"));
  (void)add_kernel(w, mlirStringRefCreateFromCString("synthesize"), attributes, 2);
}

/* The launch.range of an op, in the table: the place of the first one. Launches of the same steps share theirs. */
static uint32_t ranges_of(plan_writer *w, MlirOperation op, uint32_t *out_count) {
  step_ranges ranges;
  (void)ir_ranges(op, &ranges); /* right: ir/verify_kernel.c */
  *out_count = ranges.count;
  const sluice_plan_range *all = (const sluice_plan_range *)(const void *)w->ranges.data;
  for (size_t i = 0; i + ranges.count <= w->ranges.count && ranges.count; i++)
    if (memcmp(all + i, ranges.items, ranges.count * sizeof *all) == 0) return (uint32_t)i;
  const uint32_t first = ranges.count ? (uint32_t)w->ranges.count : 0;
  for (uint32_t i = 0; i < ranges.count; i++) push(w, &w->ranges, &ranges.items[i]);
  return first;
}

static void write_launch(plan_writer *w, MlirOperation op) {
  sluice_plan_launch launch = {.kernel = kernel_of(w, op),
                               .first_argument = (uint32_t)w->arguments.count,
                               .layer = (uint32_t)ir_get_integer(op, "layer"),
                               .label = string_attribute(w, op, "label")};
  if (ir_get_integer(op, "layer") < 0) launch.layer = UINT32_MAX;
  launch.collective = ir_is(op, "kernel.add_ranks") || ir_is(op, "kernel.join_ranks");
  launch.first_range = ranges_of(w, op, &launch.range_count);
  uint64_t costs[10] = {0};
  for (intptr_t i = 0; i < array_length(op, "cost") && i < 10; i++)
    costs[i] = (uint64_t)mlirIntegerAttrGetValueInt(array_item(op, "cost", i));
  _Static_assert(sizeof costs == sizeof launch.cost, "the cost attribute is sluice_plan_cost");
  memcpy(&launch.cost, costs, sizeof costs);
  for (intptr_t i = 0; i < mlirOperationGetNumOperands(op); i++) {
    const struct place *place = place_of(w, mlirOperationGetOperand(op, i));
    if (!place) return;
    push(w, &w->arguments, &place->argument);
  }
  push(w, &w->launches, &launch);
}

/* ---- joins ---- */

static void open_a_join(plan_writer *w, MlirOperation op) {
  open_join open = {
      .op = op,
      .join = {.first_launch = (uint32_t)w->launches.count, .launch_count = (uint32_t)ir_get_integer(op, "launches")}};
  open.join.first_range = ranges_of(w, op, &open.join.range_count);
  push(w, &w->open_joins, &open);
}

/* A joined kernel is known by its parts and what each waits for. */
static char *describe_parts(plan_writer *w, const kernel_part *parts, size_t count) {
  sluice_text text = {0};
  sluice_text_printf(&text, "{\"parts\":[");
  for (size_t i = 0; i < count; i++)
    sluice_text_printf(&text, "%s\"%s_%u\"", i ? "," : "", w->kernels[parts[i].kernel].family, parts[i].kernel);
  sluice_text_printf(&text, "],\"waits\":[");
  for (size_t i = 0; i < count; i++) sluice_text_printf(&text, "%s%u", i ? "," : "", parts[i].waits);
  sluice_text_printf(&text, "],\"late\":[");
  for (size_t i = 0; i < count; i++) sluice_text_printf(&text, "%s%u", i ? "," : "", parts[i].late);
  sluice_text_printf(&text, "]}");
  if (!text.failed) return text.data;
  sluice_text_free(&text);
  fail(w, sluice_out_of_memory());
  return NULL;
}

static uint32_t joined_kernel_of(plan_writer *w, const kernel_part *parts, size_t count) {
  char *attributes = describe_parts(w, parts, count);
  if (!attributes) return 0;
  uint32_t arguments = 1; /* the counters */
  for (size_t i = 0; i < count; i++) arguments += w->kernels[parts[i].kernel].argument_count;
  for (size_t i = 0; i < w->kernel_count; i++)
    if (w->kernels[i].part_count && strcmp(w->kernels[i].attributes, attributes) == 0) {
      sluice_release(attributes);
      return (uint32_t)i;
    }
  kernel_entry *kernel = add_kernel(w, mlirStringRefCreateFromCString("join"), attributes, arguments);
  if (!kernel) return 0;
  kernel->parts = sluice_allocate_array(count, sizeof *kernel->parts);
  if (!kernel->parts) {
    fail(w, sluice_out_of_memory());
    return 0;
  }
  memcpy(kernel->parts, parts, count * sizeof *parts);
  kernel->part_count = count;
  return (uint32_t)(w->kernel_count - 1);
}

static void write_joins(plan_writer *w) {
  for (size_t i = 0; i < w->open_joins.count && !w->status; i++) {
    open_join *open = (open_join *)(void *)w->open_joins.data + i;
    kernel_part parts[SLUICE_JOIN_PARTS];
    size_t count = 0;
    for (uint32_t l = 0; l < open->join.launch_count && count < SLUICE_JOIN_PARTS; l++) {
      const sluice_plan_launch *launch =
          (const sluice_plan_launch *)(const void *)w->launches.data + open->join.first_launch + l;
      const sluice_plan_range *ranges = (const sluice_plan_range *)(const void *)w->ranges.data;
      bool runs;
      (void)sluice_ranges_agree(ranges + open->join.first_range, open->join.range_count, ranges + launch->first_range,
                                launch->range_count, &runs); /* they do: ir/verify_kernel.c */
      if (!runs) continue;
      int64_t waits = mlirIntegerAttrGetValueInt(array_item(open->op, "waits", (intptr_t)count));
      int64_t late = mlirIntegerAttrGetValueInt(array_item(open->op, "late", (intptr_t)count));
      parts[count++] = (kernel_part){.kernel = launch->kernel, .waits = (uint32_t)waits, .late = (uint32_t)late};
    }
    open->join.kernel = joined_kernel_of(w, parts, count);
    push(w, &w->joins, &open->join);
  }
}

static void write_observable(plan_writer *w, MlirOperation op) {
  const struct place *place = place_of(w, mlirOperationGetOperand(op, 0));
  if (!place) return;
  if (place->argument.memory != SLUICE_MEMORY_ARENA || w->launches.count == 0) {
    fail(w, sluice_error(SLUICE_INTERNAL, "plan: an observed value is not in the arena"));
    return;
  }
  sluice_plan_observable observable = {.name = string_attribute(w, op, "name"),
                                       .launch = (uint32_t)(w->launches.count - 1),
                                       .buffer = place->argument.index,
                                       .dimension = (uint32_t)ir_get_integer(op, "dimension")};
  push(w, &w->observables, &observable);
}

/* ---- the section ---- */

static size_t align8(size_t bytes) {
  return (bytes + 7) / 8 * 8;
}

/* Kernel entries with their strings. Must come before the string table is laid out. */
static sluice_plan_kernel *kernel_table(plan_writer *w, const kernel_info *infos) {
  sluice_plan_kernel *kernels = sluice_allocate_array(w->kernel_count + 1, sizeof *kernels);
  if (!kernels) {
    fail(w, sluice_out_of_memory());
    return NULL;
  }
  for (size_t i = 0; i < w->kernel_count; i++) {
    const kernel_entry *k = &w->kernels[i];
    char symbol[96];
    snprintf(symbol, sizeof symbol, "%s_%zu", k->family, i);
    kernels[i] = (sluice_plan_kernel){.name = string(w, symbol, strlen(symbol)),
                                      .family = string(w, k->family, strlen(k->family)),
                                      .attributes = string(w, k->attributes, strlen(k->attributes)),
                                      .argument_count = k->argument_count,
                                      .workgroup_bytes = infos[i].workgroup_bytes,
                                      .lanes = infos[i].lanes,
                                      .registers = infos[i].registers,
                                      .spill_bytes = infos[i].spill_bytes,
                                      .code_bytes = (uint32_t)infos[i].code_bytes,
                                      .cache_first = infos[i].cache_first};
  }
  return kernels;
}

static uint32_t function_dtype(const plan_writer *w, const char *name) {
  return text_is(ir_get_string(w->function, name), "float32") ? SLUICE_F32 : SLUICE_BF16;
}

static uint32_t function_integer(const plan_writer *w, const char *name) {
  return (uint32_t)ir_get_integer(w->function, name);
}

static sluice_plan_header header_of(const plan_writer *w) {
  const uint32_t query_tile = function_integer(w, "model.query_tile");
  const uint32_t ranks = (uint32_t)ir_get_integer(w->function, "model.ranks");
  return (sluice_plan_header){.version = SLUICE_PLAN_VERSION,
                              .dtype = function_dtype(w, "model.dtype"),
                              .hidden = function_integer(w, "model.hidden"),
                              .vocabulary = function_integer(w, "model.vocabulary"),
                              .layers = function_integer(w, "model.layers"),
                              .page_tokens = function_integer(w, "model.page"),
                              .query_tile = query_tile ? query_tile : 1,
                              .max_context = function_integer(w, "model.max_context"),
                              .experts = function_integer(w, "model.experts"),
                              .experts_per_token = function_integer(w, "model.experts_per_token"),
                              .weight_dtype = function_dtype(w, "model.weight_dtype"),
                              .ranks = ranks ? ranks : 1};
}

static void lay_out(plan_writer *w, const kernel_info *infos, plan_image *out) {
  sluice_plan_kernel *kernels = kernel_table(w, infos);
  if (w->status) {
    sluice_release(kernels);
    return;
  }
  for (size_t i = 0; i < w->launches.count; i++) {
    sluice_plan_launch *launch = (sluice_plan_launch *)(void *)w->launches.data + i;
    memcpy(launch->grid, infos[launch->kernel].grid, sizeof launch->grid);
  }
  sluice_plan_header header = w->header;
  table regions = {.data = (char *)w->regions, .count = SLUICE_SIZE_COUNT, .element = sizeof *w->regions};
  table kernel_entries = {.data = (char *)kernels, .count = w->kernel_count, .element = sizeof *kernels};
  const struct {
    const table *source;
    sluice_plan_table *entry;
  } parts[] = {
      {&w->strings, &header.strings},         {&w->buffers, &header.buffers},   {&regions, &header.regions},
      {&w->weights, &header.weights},         {&w->sources, &header.sources},   {&w->cache, &header.cache},
      {&kernel_entries, &header.kernels},     {&w->launches, &header.launches}, {&w->arguments, &header.arguments},
      {&w->observables, &header.observables}, {&w->joins, &header.joins},       {&w->ranges, &header.ranges}};
  size_t length = align8(sizeof header);
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    *parts[i].entry = (sluice_plan_table){.offset = length, .count = parts[i].source->count};
    length = align8(length + parts[i].source->count * parts[i].source->element);
  }
  char *data = sluice_allocate_aligned(64, length);
  if (data) {
    memset(data, 0, length);
    memcpy(data, &header, sizeof header);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
      if (parts[i].source->count)
        memcpy(data + parts[i].entry->offset, parts[i].source->data, parts[i].source->count * parts[i].source->element);
    out->data = data;
    out->length = length;
  } else {
    fail(w, sluice_out_of_memory());
  }
  sluice_release(kernels);
}

/* The kernels as specs, which borrow all but their symbols. */
static void make_specs(plan_writer *w, plan_image *out) {
  out->specs = sluice_allocate_array(w->kernel_count + 1, sizeof *out->specs);
  if (!out->specs) {
    fail(w, sluice_out_of_memory());
    return;
  }
  for (size_t i = 0; i < w->kernel_count; i++) {
    kernel_entry *k = &w->kernels[i];
    char *symbol = sluice_format_string("%s_%zu", k->family, i);
    out->specs[out->spec_count++] = (kernel_spec){.family = k->family,
                                                  .symbol = symbol,
                                                  .attributes = k->list,
                                                  .attribute_count = k->list_count,
                                                  .argument_count = k->argument_count,
                                                  .parts = k->parts,
                                                  .part_count = k->part_count};
    if (!symbol) fail(w, sluice_out_of_memory());
  }
}

static void free_attributes(const kernel_attribute *list, size_t count) {
  for (size_t i = 0; i < count; i++) {
    sluice_release((void *)(uintptr_t)list[i].name);
    sluice_release((void *)(uintptr_t)list[i].string);
  }
  sluice_release((void *)(uintptr_t)list);
}

static void write_function(plan_writer *w) {
  int64_t layers = ir_get_integer(w->function, "model.layers");
  push(w, &w->strings, "");
  for (int64_t i = 0; i < layers && !w->status; i++) push(w, &w->cache, &(sluice_plan_layer){0});
  MlirOperation op = mlirBlockGetFirstOperation(ir_body(w->function));
  for (; !mlirOperationIsNull(op) && !w->status; op = mlirOperationGetNextInBlock(op)) {
    if (write_memory(w, op) || ir_is(op, "func.return")) continue;
    MlirStringRef name = ir_name(op);
    if (ir_is(op, "kernel.observe"))
      write_observable(w, op);
    else if (ir_is(op, "kernel.join"))
      open_a_join(w, op);
    else if (name.length > 7 && memcmp(name.data, "kernel.", 7) == 0)
      write_launch(w, op);
    else
      fail(w, sluice_error(SLUICE_INTERNAL, "plan: '%.*s' is not a kernel op", (int)name.length, name.data));
  }
}

static void writer_free(plan_writer *w) {
  table *tables[] = {&w->strings,   &w->buffers,     &w->weights, &w->sources, &w->cache,     &w->launches,
                     &w->arguments, &w->observables, &w->joins,   &w->ranges,  &w->open_joins};
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) sluice_release(tables[i]->data);
  for (size_t i = 0; i < w->kernel_count; i++) {
    free_attributes(w->kernels[i].list, w->kernels[i].list_count * (w->kernels[i].list != NULL));
    sluice_release(w->kernels[i].attributes);
    sluice_release(w->kernels[i].family);
    sluice_release(w->kernels[i].parts);
  }
  sluice_release(w->kernels);
  sluice_release(w->places);
  sluice_status_free(w->status);
  sluice_release(w);
}

/* The first error, which is the caller's from now on. */
static sluice_status *take_status(plan_writer *w) {
  sluice_status *status = w->status;
  w->status = NULL;
  return status;
}

sluice_status *plan_write(ir_context *context, MlirModule module, plan_image *out_plan) {
  *out_plan = (plan_image){0};
  MlirOperation function = ir_function(module, "step");
  if (mlirOperationIsNull(function)) return sluice_error(SLUICE_INTERNAL, "plan: no function @step");
  plan_writer *w = sluice_allocate(sizeof *w);
  if (!w) return sluice_out_of_memory();
  *w = (plan_writer){.context = context,
                     .strings = {.element = 1},
                     .buffers = {.element = sizeof(sluice_plan_buffer)},
                     .weights = {.element = sizeof(sluice_plan_weight)},
                     .sources = {.element = sizeof(sluice_plan_source)},
                     .cache = {.element = sizeof(sluice_plan_layer)},
                     .launches = {.element = sizeof(sluice_plan_launch)},
                     .arguments = {.element = sizeof(sluice_plan_argument)},
                     .observables = {.element = sizeof(sluice_plan_observable)},
                     .joins = {.element = sizeof(sluice_plan_join)},
                     .ranges = {.element = sizeof(sluice_plan_range)},
                     .open_joins = {.element = sizeof(open_join)},
                     .function = function};
  w->header = header_of(w);
  out_plan->writer = w;
  write_function(w);
  if (!w->status) write_joins(w);
  if (!w->status) add_synthesis(w);
  if (!w->status) make_specs(w, out_plan);
  sluice_status *status = take_status(w);
  if (status) plan_image_free(out_plan);
  return status;
}

sluice_status *plan_finish(plan_image *plan, const kernel_info *kernels) {
  plan_writer *w = plan->writer;
  if (plan->data) return sluice_error(SLUICE_INTERNAL, "plan: it is finished already");
  lay_out(w, kernels, plan);
  SLUICE_TRY(take_status(w));
  sluice_plan checked;
  return sluice_plan_open(plan->data, plan->length, &checked);
}

void plan_image_free(plan_image *plan) {
  for (size_t i = 0; i < plan->spec_count; i++) sluice_release((void *)(uintptr_t)plan->specs[i].symbol);
  sluice_release(plan->specs);
  sluice_release(plan->data);
  if (plan->writer) writer_free(plan->writer);
  *plan = (plan_image){0};
}

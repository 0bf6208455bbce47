#include "passes/rewrite.h"
#include "sluice/memory.h"

#include <string.h>

/* Makes room for one more item; false, with the status set, when memory is short. */
static bool grow(pass_state *state, void *items_pointer, size_t count, size_t *capacity, size_t size) {
  if (count < *capacity) return true;
  void **items = items_pointer;
  size_t larger = *capacity * 2 + 64;
  void *grown = sluice_reallocate_array(*items, larger, size);
  if (!grown) {
    if (!state->status) state->status = sluice_out_of_memory();
    return false;
  }
  *items = grown;
  *capacity = larger;
  return true;
}

/* The op after `op` in the functions of the module; null `op`: the first. */
static MlirOperation next_op(MlirModule module, MlirOperation op) {
  MlirOperation function;
  if (mlirOperationIsNull(op)) {
    function = mlirBlockGetFirstOperation(mlirModuleGetBody(module));
  } else {
    MlirOperation next = mlirOperationGetNextInBlock(op);
    if (!mlirOperationIsNull(next)) return next;
    function = mlirOperationGetNextInBlock(mlirOperationGetParentOperation(op));
  }
  for (; !mlirOperationIsNull(function); function = mlirOperationGetNextInBlock(function)) {
    if (!ir_is(function, "func.func")) continue;
    MlirBlock body = ir_body(function);
    if (mlirBlockIsNull(body)) continue;
    MlirOperation first = mlirBlockGetFirstOperation(body);
    if (!mlirOperationIsNull(first)) return first;
  }
  return (MlirOperation){NULL};
}

bool rewrite_collect(pass_state *state, MlirModule module, const char *name, rewrite_list *list) {
  *list = (rewrite_list){0};
  MlirOperation op = next_op(module, (MlirOperation){NULL});
  for (; !mlirOperationIsNull(op); op = next_op(module, op)) {
    if (name && !ir_is(op, name)) continue;
    if (!grow(state, &list->items, list->count, &list->capacity, sizeof *list->items)) {
      sluice_release(list->items);
      *list = (rewrite_list){0};
      return false;
    }
    list->items[list->count++] = op;
  }
  return true;
}

MlirOperation rewrite_made_by(MlirValue value, const char *name) {
  MlirOperation op = ir_definition(value);
  return ir_is(op, name) ? op : (MlirOperation){NULL};
}

bool rewrite_used_once(MlirValue value) {
  return !mlirOperationIsNull(ir_single_user(value));
}

MlirValue rewrite_operand(MlirOperation op, intptr_t index) {
  return mlirOperationGetOperand(op, index);
}

bool rewrite_same_type(MlirValue a, MlirValue b) {
  return mlirTypeEqual(mlirValueGetType(a), mlirValueGetType(b));
}

bool rewrite_same_element(MlirValue a, MlirValue b) {
  return mlirTypeEqual(mlirShapedTypeGetElementType(mlirValueGetType(a)),
                       mlirShapedTypeGetElementType(mlirValueGetType(b)));
}

bool rewrite_make_available(MlirValue value, MlirOperation place) {
  MlirOperation op = ir_definition(value);
  if (mlirOperationIsNull(op) || mlirOperationIsBeforeInBlock(op, place)) return true;
  if (!ir_is(op, "model.weight")) return false;
  mlirOperationMoveBefore(op, place);
  return true;
}

ir_builder rewrite_builder(pass_state *state, MlirOperation place) {
  return (ir_builder){.context = state->context,
                      .block = mlirOperationGetBlock(place),
                      .before = place,
                      .location = mlirOperationGetLocation(place)};
}

ir_attribute rewrite_attribute(MlirOperation op, const char *name) {
  return (ir_attribute){name, mlirOperationGetAttributeByName(op, mlirStringRefCreateFromCString(name))};
}

bool rewrite_same_attribute(MlirOperation a, MlirOperation b, const char *name) {
  return mlirAttributeEqual(rewrite_attribute(a, name).value, rewrite_attribute(b, name).value);
}

void rewrite_replace(MlirValue old_value, MlirValue new_value) {
  mlirValueReplaceAllUsesOfWith(old_value, new_value);
}

void rewrite_erase_dead(MlirOperation op) {
  if (mlirOperationIsNull(op) || !ir_is_pure(op)) return;
  for (intptr_t i = 0; i < mlirOperationGetNumResults(op); i++)
    if (!mlirOpOperandIsNull(mlirValueGetFirstUse(mlirOperationGetResult(op, i)))) return;
  /* The definitions of the operands, once each: erasing one must not leave a second look at it. */
  MlirOperation definitions[16];
  size_t count = 0;
  for (intptr_t i = 0; i < mlirOperationGetNumOperands(op); i++) {
    MlirOperation definition = ir_definition(mlirOperationGetOperand(op, i));
    bool known = mlirOperationIsNull(definition) || count == REWRITE_COUNT(definitions);
    for (size_t j = 0; j < count && !known; j++) known = mlirOperationEqual(definitions[j], definition);
    if (!known) definitions[count++] = definition;
  }
  mlirOperationDestroy(op);
  for (size_t i = 0; i < count; i++) rewrite_erase_dead(definitions[i]);
}

void rewrite_erase_dead_value(MlirValue value) {
  rewrite_erase_dead(ir_definition(value));
}

/* ---- layers ---- */

/* N of "layers.N." in the name of a weight. */
static int64_t layer_of_name(MlirStringRef name) {
  static const char key[] = "layers.";
  const char *found = memmem(name.data, name.length, key, sizeof key - 1);
  if (!found) return -1;
  int64_t layer = -1;
  for (found += sizeof key - 1; found < name.data + name.length && *found >= '0' && *found <= '9'; found++) {
    if (layer > 1000000) return -1;
    layer = (layer < 0 ? 0 : layer * 10) + (*found - '0');
  }
  return layer;
}

static int64_t layer_within(MlirOperation op, int depth) {
  if (ir_has(op, "layer")) return ir_get_integer(op, "layer");
  if (ir_is(op, "model.weight")) return layer_of_name(ir_get_string(op, "name"));
  int64_t layer = -1;
  for (intptr_t i = 0; depth && i < mlirOperationGetNumOperands(op); i++) {
    MlirOperation definition = ir_definition(mlirOperationGetOperand(op, i));
    if (mlirOperationIsNull(definition)) continue;
    int64_t found = layer_within(definition, depth - 1);
    if (found > layer) layer = found; /* a residual comes from an earlier layer */
  }
  return layer;
}

int64_t rewrite_layer(MlirOperation op) {
  return mlirOperationIsNull(op) ? -1 : layer_within(op, 3);
}

static rewrite_attention *find_attention(pass_state *state, rewrite_attentions *list, int64_t layer) {
  for (size_t i = list->count; i-- > 0;)
    if (list->items[i].layer == layer) return &list->items[i];
  if (!grow(state, &list->items, list->count, &list->capacity, sizeof *list->items)) return NULL;
  list->items[list->count] = (rewrite_attention){.layer = layer};
  return &list->items[list->count++];
}

static void note(rewrite_attention *attention, MlirOperation *slot, MlirOperation op) {
  if (!mlirOperationIsNull(*slot)) attention->ambiguous = true;
  *slot = op;
}

static void note_op(rewrite_attention *attention, MlirOperation op) {
  if (ir_is(op, "model.cache_append")) {
    MlirStringRef part = ir_get_string(op, "part");
    note(attention,
         part.length == 3   ? &attention->key
         : part.length == 5 ? &attention->value
                            : &attention->index_key,
         op);
  } else if (ir_is(op, "model.index_score") || ir_is(op, "model.index_select")) {
    note(attention, &attention->index, op);
    attention->index_operand = 0;
  } else if (ir_is(op, "model.attention") || ir_is(op, "model.block_attention")) {
    note(attention, &attention->query, op);
  } else if (ir_is(op, "model.select_attention")) {
    note(attention, &attention->query, op);
    note(attention, &attention->index, op);
    attention->index_operand = 1;
  }
}

bool rewrite_collect_attentions(pass_state *state, MlirModule module, rewrite_attentions *list) {
  *list = (rewrite_attentions){0};
  MlirOperation op = next_op(module, (MlirOperation){NULL});
  for (; !mlirOperationIsNull(op); op = next_op(module, op)) {
    if (!ir_has(op, "layer") || ir_is(op, "model.norm_rope_append")) continue;
    rewrite_attention *attention = find_attention(state, list, ir_get_integer(op, "layer"));
    if (!attention) {
      sluice_release(list->items);
      *list = (rewrite_attentions){0};
      return false;
    }
    note_op(attention, op);
  }
  return true;
}

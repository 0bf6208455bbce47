/* plan-buffers: gives every value of @step that needs memory its place in the arena.
 *
 * The function is straight-line code, so a value lives from the op that makes it to its last use; `observe` does not
 * count, since observers run right after the launch. The arena has a region for each step extent; within a region
 * values are placed in order of definition, each into the smallest gap between the values that live at the same time.
 */
#include "passes/passes.h"
#include "passes/variants.h"
#include "sluice/memory.h"

#include <string.h>

typedef struct value { /* a result or a scratch value of an op */
  const char *size;    /* "" when it needs no memory */
  int64_t bytes;       /* of one unit, a multiple of 64 */
  int64_t offset;
  int64_t first, last; /* indices of the ops that make it and use it last */
  MlirValue result;    /* null for scratch */
  intptr_t op;
} value;

typedef struct planner {
  pass_state *state;
  MlirOperation *ops;
  bool *rows; /* for each op: its results have one row for each logit row */
  intptr_t op_count;
  value *values;
  size_t count, capacity;
} planner;

static int64_t round_up(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

static int64_t element_bytes(MlirType element) {
  return mlirTypeIsABF16(element) ? 2 : 4;
}

static value *value_of(const planner *p, MlirValue result) {
  for (size_t i = p->count; i-- > 0;)
    if (!mlirValueIsNull(p->values[i].result) && mlirValueEqual(p->values[i].result, result)) return &p->values[i];
  return NULL;
}

static bool push(planner *p, const value *v) {
  if (p->count == p->capacity) {
    size_t capacity = p->capacity ? p->capacity * 2 : 256;
    value *grown = sluice_reallocate_array(p->values, capacity, sizeof *grown);
    if (!grown) {
      p->state->status = sluice_out_of_memory();
      return false;
    }
    p->values = grown;
    p->capacity = capacity;
  }
  p->values[p->count++] = *v;
  return true;
}

static bool is_returned(MlirValue result) {
  for (MlirOpOperand use = mlirValueGetFirstUse(result); !mlirOpOperandIsNull(use); use = mlirOpOperandGetNextUse(use))
    if (ir_is(mlirOpOperandGetOwner(use), "func.return")) return true;
  return false;
}

/* A result of op `i`: a tensor with a row for each token (or logit row) and other dimensions that are constant, except
 * the scores over context. */
static bool push_result(planner *p, intptr_t i, MlirValue result) {
  value v = {.size = "", .first = i, .last = i, .result = result, .op = i};
  MlirType type = mlirValueGetType(result);
  if (!mlirTypeIsARankedTensor(type) || ir_is(p->ops[i], "model.weight") || ir_is(p->ops[i], "model.concat_weights") ||
      is_returned(result))
    return push(p, &v);
  int64_t elements = 1;
  for (intptr_t d = 1; d < ir_rank(result); d++)
    if (ir_dimension(result, d) >= 0) elements *= ir_dimension(result, d);
  v.size = ir_is(p->ops[i], "model.index_score") ? "tokens_context"
           : ir_is(p->ops[i], "model.block_max") ? "tokens_pages"
           : p->rows[i]                          ? "rows"
                                                 : "tokens";
  v.bytes = round_up(elements * element_bytes(mlirShapedTypeGetElementType(type)));
  return push(p, &v);
}

static bool push_scratch(planner *p, intptr_t i, const char *size, int64_t bytes) {
  return push(p, &(value){.size = size, .bytes = round_up(bytes), .first = i, .last = i, .op = i});
}

/* Room for the partial results where workgroups share keys, as the variants in attribute `name` say: see
 * kernel.attention_part. */
static bool push_partials(planner *p, intptr_t i, const char *name) {
  MlirOperation op = p->ops[i];
  kernel_variants variants;
  if (!variants_read(p->state, op, name, "attention_part", &variants)) return false;
  const int64_t rows = variants_partial_rows(&variants);
  if (rows == 0) return true;
  const int64_t head_dim = ir_dimension(mlirOperationGetOperand(op, 0), 1) / ir_get_integer(op, "heads");
  return push_scratch(p, i, "one", rows * (head_dim + 2) * 4);
}

/* What all ranks have of a collective's operand. */
static bool push_parts(planner *p, intptr_t i) {
  MlirValue x = mlirOperationGetOperand(p->ops[i], 0);
  int64_t elements = ir_get_integer(p->ops[i], "group");
  for (intptr_t d = 1; d < ir_rank(x); d++) elements *= ir_dimension(x, d);
  return push_scratch(p, i, p->rows[i] ? "rows" : "tokens",
                      elements * element_bytes(mlirShapedTypeGetElementType(mlirValueGetType(x))));
}

static bool push_op(planner *p, intptr_t i) {
  MlirOperation op = p->ops[i];
  for (intptr_t r = 0; r < mlirOperationGetNumResults(op); r++)
    if (!push_result(p, i, ir_result(op, r))) return false;
  const bool split = ir_get_integer(op, "tile.split") != 0;
  if (split && (ir_is(op, "model.select_attention") || ir_is(op, "model.index_select"))) {
    int64_t heads = ir_get_integer(op, ir_has(op, "index_heads") ? "index_heads" : "heads");
    return push_scratch(p, i, "tokens_pages", heads * 4) &&
           (!ir_has(op, "tile.parts") || push_partials(p, i, "tile.parts"));
  }
  if (ir_is(op, "model.attention")) return push_partials(p, i, "tile.variants");
  if (ir_is(op, "model.all_reduce") || ir_is(op, "model.all_gather")) return push_parts(p, i);
  if (split && ir_is(op, "model.router"))
    return push_scratch(p, i, "tokens", ir_dimension(mlirOperationGetOperand(op, 1), 0) * 4);
  bool shared = ir_experts_shared(op), fused = shared || ir_is(op, "model.experts");
  if (!fused && !ir_is(op, "model.expert_linear")) return true;
  MlirValue w = mlirOperationGetOperand(op, fused ? 3 : 2), routed = mlirOperationGetOperand(op, 1);
  int64_t experts = ir_dimension(w, 0), k = ir_dimension(routed, 1);
  if (shared) { /* one more expert, and of each token one more slot */
    experts++;
    k++;
  }
  if (!push_scratch(p, i, "one", ir_experts_counts(experts) * 4) || !push_scratch(p, i, "tokens", k * 4) ||
      !push_scratch(p, i, "tokens", k * 16))
    return false;
  if (!fused) return true;
  MlirValue x = mlirOperationGetOperand(op, 0);
  int64_t element = element_bytes(mlirShapedTypeGetElementType(mlirValueGetType(x)));
  int64_t inner = ir_dimension(w, 1), width = ir_dimension(x, 1);
  return push_scratch(p, i, "tokens", k * inner * element) && push_scratch(p, i, "tokens", k * width * 4) &&
         (!shared || !ir_has(op, "tile.shared") ||
          (push_scratch(p, i, "tokens", inner * element) && push_scratch(p, i, "tokens", width * 4)));
}

/* The logits of a split router live as long as its choice: fuse-route reads them while it writes what the experts sort
 * into. */
static void keep_logits(planner *p, value *chosen, intptr_t user) {
  enum { RESULTS = 2 };
  MlirOperation router = p->ops[chosen->op];
  if (ir_is(router, "model.router") && ir_get_integer(router, "tile.split")) (chosen + RESULTS)->last = user;
}

/* Extends the lives of the operands of op `i`, and finds out whether its results follow logit rows. */
static void use_operands(planner *p, intptr_t i) {
  MlirOperation op = p->ops[i];
  p->rows[i] = ir_is(op, "model.select_rows");
  for (intptr_t o = 0; o < mlirOperationGetNumOperands(op); o++) {
    value *v = value_of(p, mlirOperationGetOperand(op, o));
    if (!v) continue;
    if (!ir_is(op, "model.observe")) v->last = i;
    if (o == 1 && (ir_is(op, "model.experts") || ir_experts_shared(op) || ir_is(op, "model.expert_linear")))
      keep_logits(p, v, i);
    if (p->rows[v->op]) p->rows[i] = true;
  }
}

/* An operand whose place the first result of `op` may take, -1: none; `attempt` is 0 or 1. The kernels read such an
 * operand element for element (row for row in rms_norm) before they write. */
static intptr_t in_place_operand(MlirOperation op, intptr_t attempt) {
  static const struct {
    const char *name;
    intptr_t operands[2];
  } table[] = {
      {"model.rms_norm", {0, -1}}, {"model.linear_add", {2, -1}}, {"model.add", {0, 1}}, {"model.swiglu_oai", {0, 1}}};
  if (ir_is(op, "model.experts") || ir_experts_shared(op)) return attempt == 0 ? ir_experts_residual(op) : -1;
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (ir_is(op, table[i].name)) {
      intptr_t operand = table[i].operands[attempt];
      return operand < mlirOperationGetNumOperands(op) ? operand : -1;
    }
  return -1;
}

/* The first result of an op may take the place of an operand that dies there, unless the op reads it a second time as
 * an operand that must stay whole. */
static bool may_replace(const planner *p, const value *v, const value *source) {
  MlirOperation op = p->ops[v->op];
  if (mlirValueIsNull(v->result) || !mlirValueEqual(v->result, ir_result(op, 0))) return false;
  if (source->last != v->first || source->bytes != v->bytes || strcmp(source->size, v->size)) return false;
  bool permitted = false;
  for (intptr_t i = 0; i < mlirOperationGetNumOperands(op); i++) {
    if (mlirValueIsNull(source->result) || !mlirValueEqual(mlirOperationGetOperand(op, i), source->result)) continue;
    if (i != in_place_operand(op, 0) && i != in_place_operand(op, 1)) return false;
    permitted = true;
  }
  return permitted;
}

static bool place_in_operand(const planner *p, value *v) {
  for (intptr_t attempt = 0; attempt < 2; attempt++) {
    intptr_t operand = in_place_operand(p->ops[v->op], attempt);
    const value *source = operand < 0 ? NULL : value_of(p, mlirOperationGetOperand(p->ops[v->op], operand));
    if (!source || !may_replace(p, v, source)) continue;
    v->offset = source->offset;
    return true;
  }
  return false;
}

/* Best fit among the values of the region that live when `v` does and are placed already. */
static void place(planner *p, size_t which) {
  value *v = &p->values[which];
  if (!*v->size || place_in_operand(p, v)) return;
  int64_t best = -1, best_gap = 0, start = 0;
  for (;;) {
    /* The gap that starts at `start` ends at the first live value from there on. */
    int64_t end = INT64_MAX, covered = start;
    for (size_t i = 0; i < which; i++) {
      const value *o = &p->values[i];
      if (!*o->size || strcmp(o->size, v->size) || o->last < v->first) continue;
      if (o->offset <= start && o->offset + o->bytes > covered) covered = o->offset + o->bytes;
      if (o->offset > start && o->offset < end) end = o->offset;
    }
    if (covered > start) {
      start = covered;
      continue;
    }
    if (end - start >= v->bytes && (best < 0 || end - start < best_gap)) {
      best = start;
      best_gap = end - start;
    }
    if (end == INT64_MAX) break;
    start = end;
  }
  v->offset = best;
}

static bool annotate(planner *p, intptr_t i, size_t *at) {
  enum { MOST = 8 };
  const char *sizes[MOST];
  int64_t offsets[MOST], bytes[MOST];
  size_t count = 0;
  bool needed = false;
  while (*at < p->count && p->values[*at].op == i) {
    const value *v = &p->values[(*at)++];
    if (count == MOST) return pass_fail(p->state, p->ops[i], "more than %d values of one op need memory", MOST);
    sizes[count] = v->size;
    offsets[count] = v->offset;
    bytes[count++] = v->bytes;
    needed |= *v->size != 0;
  }
  if (!needed) return true;
  ir_context *context = p->state->context;
  mlirOperationSetAttributeByName(p->ops[i], mlirStringRefCreateFromCString("arena.size"),
                                  ir_strings(context, sizes, count));
  mlirOperationSetAttributeByName(p->ops[i], mlirStringRefCreateFromCString("arena.offset"),
                                  ir_integers(context, offsets, count));
  mlirOperationSetAttributeByName(p->ops[i], mlirStringRefCreateFromCString("arena.bytes"),
                                  ir_integers(context, bytes, count));
  return true;
}

/* What needs memory, how much, and when. */
static bool analyse(planner *p) {
  for (intptr_t i = 0; i < p->op_count; i++) {
    use_operands(p, i);
    if (!push_op(p, i)) return false;
  }
  return true;
}

static bool plan(planner *p) {
  if (!analyse(p)) return false;
  for (size_t v = 0; v < p->count; v++) place(p, v);
  size_t at = 0;
  for (intptr_t i = 0; i < p->op_count; i++)
    if (!annotate(p, i, &at)) return false;
  return true;
}

/* ---- checking ---- */

/* Element `index` of an array attribute, null when there is none. */
static MlirAttribute array_item(MlirOperation op, const char *name, intptr_t index) {
  MlirAttribute array = mlirOperationGetAttributeByName(op, mlirStringRefCreateFromCString(name));
  if (mlirAttributeIsNull(array) || !mlirAttributeIsAArray(array) || index >= mlirArrayAttrGetNumElements(array))
    return mlirAttributeGetNull();
  return mlirArrayAttrGetElement(array, index);
}

static bool array_integer(MlirOperation op, const char *name, intptr_t index, int64_t *out) {
  MlirAttribute item = array_item(op, name, index);
  if (mlirAttributeIsNull(item) || !mlirAttributeIsAInteger(item)) return false;
  *out = mlirIntegerAttrGetValueInt(item);
  return true;
}

/* Takes the place of `v`, value `index` of its op, from the op's attributes. */
static bool read_place(planner *p, value *v, intptr_t index) {
  if (!*v->size) return true;
  MlirOperation op = p->ops[v->op];
  MlirAttribute size = array_item(op, "arena.size", index);
  if (mlirAttributeIsNull(size) || !mlirAttributeIsAString(size) || mlirStringAttrGetValue(size).length == 0)
    return pass_fail(p->state, op, "value %d has no memory: run plan-buffers first", (int)index);
  MlirStringRef text = mlirStringAttrGetValue(size);
  int64_t bytes = 0;
  if (text.length != strlen(v->size) || memcmp(text.data, v->size, text.length) != 0)
    return pass_fail(p->state, op, "value %d is in the region \"%.*s\", expected \"%s\"", (int)index, (int)text.length,
                     text.data, v->size);
  if (!array_integer(op, "arena.bytes", index, &bytes) || bytes != v->bytes)
    return pass_fail(p->state, op, "value %d has %lld bytes of the arena, expected %lld", (int)index, (long long)bytes,
                     (long long)v->bytes);
  if (!array_integer(op, "arena.offset", index, &v->offset) || v->offset < 0 || v->offset % 64 ||
      v->offset > INT64_MAX - v->bytes)
    return pass_fail(p->state, op, "value %d has no arena.offset that is a multiple of 64", (int)index);
  return true;
}

static bool check(planner *p) {
  if (!analyse(p)) return false;
  for (size_t i = 0, first = 0; i < p->count; i++) {
    if (p->values[i].op != p->values[first].op) first = i;
    value *v = &p->values[i];
    if (!read_place(p, v, (intptr_t)(i - first))) return false;
    for (size_t j = 0; j < i && *v->size; j++) {
      const value *o = &p->values[j];
      if (o->last < v->first || strcmp(o->size, v->size) || o->offset >= v->offset + v->bytes ||
          v->offset >= o->offset + o->bytes || (o->offset == v->offset && may_replace(p, v, o)))
        continue;
      return pass_fail(p->state, p->ops[v->op],
                       "value %d lies at %lld of the region \"%s\", on a value that is still needed", (int)(i - first),
                       (long long)v->offset, v->size);
    }
  }
  return true;
}

static bool with_planner(pass_state *state, MlirOperation function, bool (*body)(planner *p)) {
  planner p = {.state = state};
  MlirOperation first = mlirBlockGetFirstOperation(ir_body(function));
  for (MlirOperation op = first; !mlirOperationIsNull(op); op = mlirOperationGetNextInBlock(op)) p.op_count++;
  p.ops = sluice_allocate_array((size_t)p.op_count, sizeof *p.ops);
  p.rows = sluice_allocate_array((size_t)p.op_count, sizeof *p.rows);
  bool done = false;
  if (p.ops && p.rows) {
    intptr_t i = 0;
    for (MlirOperation op = first; !mlirOperationIsNull(op); op = mlirOperationGetNextInBlock(op)) p.ops[i++] = op;
    done = body(&p);
  } else {
    state->status = sluice_out_of_memory();
  }
  sluice_release(p.ops);
  sluice_release(p.rows);
  sluice_release(p.values);
  return done;
}

bool plan_buffers_check(pass_state *state, MlirOperation function) {
  return with_planner(state, function, check);
}

bool pass_plan_buffers(pass_state *state, MlirModule module) {
  MlirOperation function = ir_function(module, "step");
  return mlirOperationIsNull(function) || with_planner(state, function, plan);
}

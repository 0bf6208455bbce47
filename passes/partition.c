/* partition: what each of several ranks has of the model (docs/cluster.md, "Layouts"). All ranks run the same function;
 * which rows and columns of a weight are a rank's own is a function of its number, which the weights say:
 *
 *     rank.slice = [row_step, column_step, share, tensor_rows, tensor_columns]
 *
 * Rank r has the rows from (r / share) * row_step and the columns from (r / share) * column_step on of the checkpoint's
 * [tensor_rows][tensor_columns] matrix, as many as the weight's type says.
 *
 * Tensor parallel: rows of q, k, v, of gate and up and of the head; columns of what follows them. A product over some
 * of the columns is a part of a sum, and the ranks' parts are added before the residual is:
 *
 *     add(h, linear(x, w))                          add(h, all_reduce(linear(x, w')))
 *     add(combine(y), add(h, linear(x, w)))         add(h, all_reduce(add(linear(x, w'), combine(y'))))
 *
 * More ranks than kv heads share them: `share` neighbours have the same one, each some of its queries. */
#include "passes/fusions.h"
#include "passes/rewrite.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <string.h>

enum { ANY = -1, MOST_RANKS = 64 };

typedef struct partitioner {
  pass_state *state;
  int64_t ranks;
  int64_t heads, kv_heads; /* of the model */
  MlirValue *parts;        /* values that are parts of sums */
  size_t count, capacity;
} partitioner;

/* ---- values ---- */

static bool is_part(const partitioner *p, MlirValue value) {
  for (size_t i = 0; i < p->count; i++)
    if (mlirValueEqual(p->parts[i], value)) return true;
  return false;
}

static bool note_part(partitioner *p, MlirValue value) {
  if (p->count == p->capacity) {
    const size_t capacity = p->capacity ? 2 * p->capacity : 64;
    MlirValue *grown = sluice_reallocate_array(p->parts, capacity, sizeof *grown);
    if (!grown) {
      p->state->status = sluice_out_of_memory();
      return false;
    }
    p->parts = grown;
    p->capacity = capacity;
  }
  p->parts[p->count++] = value;
  return true;
}

/* The type of `value` with `size` for its dimension `index`. */
static void resize(MlirValue value, intptr_t index, int64_t size) {
  int64_t dimensions[4];
  const intptr_t rank = ir_rank(value);
  for (intptr_t d = 0; d < rank && d < 4; d++) dimensions[d] = d == index ? size : ir_dimension(value, d);
  MlirType element = mlirShapedTypeGetElementType(mlirValueGetType(value));
  mlirValueSetType(value, ir_tensor(element, dimensions, (size_t)rank));
}

static void set_integer(const partitioner *p, MlirOperation op, const char *name, int64_t value) {
  mlirOperationSetAttributeByName(op, mlirStringRefCreateFromCString(name), ir_integer(p->state->context, value));
}

/* ---- weights ---- */

typedef enum split { WHOLE, ROWS, KV_ROWS, COLUMNS } split;

static bool ends_with(MlirStringRef name, const char *end) {
  const size_t length = strlen(end);
  return name.length >= length && memcmp(name.data + name.length - length, end, length) == 0;
}

static split split_of(MlirStringRef name) {
  static const struct {
    const char *end;
    split how;
  } table[] = {{".q_proj.weight", ROWS},    {".k_proj.weight", KV_ROWS},
               {".v_proj.weight", KV_ROWS}, {".index_q_proj.weight", KV_ROWS},
               {".o_proj.weight", COLUMNS}, {".gate_proj.weight", ROWS},
               {".up_proj.weight", ROWS},   {".down_proj.weight", COLUMNS},
               {".w1.weight", ROWS},        {".w3.weight", ROWS},
               {".w2.weight", COLUMNS},     {"lm_head.weight", ROWS}};
  for (size_t i = 0; i < REWRITE_COUNT(table); i++)
    if (ends_with(name, table[i].end)) return table[i].how;
  return WHOLE;
}

/* Ranks that have the same kv head. */
static int64_t share_of(const partitioner *p) {
  return p->kv_heads > 0 && p->ranks > p->kv_heads ? p->ranks / p->kv_heads : 1;
}

static bool split_weight(partitioner *p, MlirOperation op) {
  MlirValue weight = ir_result(op, 0);
  const MlirStringRef name = ir_get_string(op, "name");
  const split how = split_of(name);
  const intptr_t rank = ir_rank(weight);
  if (how == WHOLE || rank < 2) return true;
  const intptr_t dimension = how == COLUMNS ? rank - 1 : rank - 2;
  const int64_t share = how == KV_ROWS ? share_of(p) : 1, parts = p->ranks / share;
  const int64_t rows = ir_dimension(weight, rank - 2), columns = ir_dimension(weight, rank - 1);
  const int64_t all = ir_dimension(weight, dimension), own = all / parts;
  if (all % parts) {
    if (ends_with(name, "lm_head.weight")) return true; /* every rank has all of it */
    return pass_fail(p->state, op, "%.*s has %lld %s, which do not go evenly into %lld ranks", (int)name.length,
                     name.data, (long long)all, how == COLUMNS ? "columns" : "rows", (long long)parts);
  }
  const int64_t slice[] = {how == COLUMNS ? 0 : own, how == COLUMNS ? own : 0, share, rows, columns};
  mlirOperationSetAttributeByName(op, mlirStringRefCreateFromCString("rank.slice"),
                                  ir_integers(p->state->context, slice, REWRITE_COUNT(slice)));
  resize(weight, dimension, own);
  return true;
}

/* ---- sums ---- */

static MlirValue collective(partitioner *p, const char *name, MlirOperation before, MlirValue x, MlirType type) {
  ir_builder builder = rewrite_builder(p->state, before);
  const ir_attribute group = {"group", ir_integer(p->state->context, p->ranks)};
  return ir_result(ir_create(&builder, name, &x, 1, &type, 1, &group, 1), 0);
}

static MlirValue all_reduce(partitioner *p, MlirOperation before, MlirValue x) {
  return collective(p, "model.all_reduce", before, x, mlirValueGetType(x));
}

/* The sum `value` = add(residual, all_reduce(part)), used once: what it is made of. */
static bool take_apart(MlirValue value, MlirValue *part, MlirValue *residual) {
  MlirOperation sum = rewrite_made_by(value, "model.add");
  if (mlirOperationIsNull(sum) || !rewrite_used_once(value)) return false;
  for (intptr_t i = 0; i < 2; i++) {
    MlirOperation reduced = rewrite_made_by(rewrite_operand(sum, i), "model.all_reduce");
    if (mlirOperationIsNull(reduced)) continue;
    *part = rewrite_operand(reduced, 0);
    *residual = rewrite_operand(sum, 1 - i);
    return true;
  }
  return false;
}

/* Drops add(residual, all_reduce(part)), which nobody uses any more. */
static void drop_sum(MlirOperation sum) {
  MlirValue operands[] = {rewrite_operand(sum, 0), rewrite_operand(sum, 1)};
  mlirOperationDestroy(sum);
  for (size_t i = 0; i < 2; i++) {
    MlirOperation reduced = rewrite_made_by(operands[i], "model.all_reduce");
    if (!mlirOperationIsNull(reduced)) mlirOperationDestroy(reduced);
  }
}

/* An add with one part of a sum: the parts are added first, those of a sum before it among them. */
static bool add_part(partitioner *p, MlirOperation op, intptr_t which) {
  MlirValue part = rewrite_operand(op, which), other = rewrite_operand(op, 1 - which), first, residual;
  if (take_apart(other, &first, &residual)) {
    MlirOperation before = ir_definition(other);
    ir_builder builder = rewrite_builder(p->state, op);
    MlirValue operands[] = {first, part};
    MlirType type = mlirValueGetType(part);
    part = ir_result(ir_create(&builder, "model.add", operands, 2, &type, 1, NULL, 0), 0);
    mlirOperationSetOperand(op, 1 - which, residual);
    drop_sum(before);
  }
  mlirOperationSetOperand(op, which, all_reduce(p, op, part));
  return true;
}

static bool visit_add(partitioner *p, MlirOperation op) {
  const bool a = is_part(p, rewrite_operand(op, 0)), b = is_part(p, rewrite_operand(op, 1));
  if (a && b) return note_part(p, ir_result(op, 0));
  return a ? add_part(p, op, 0) : b ? add_part(p, op, 1) : true;
}

/* ---- products ---- */

static bool has_columns(MlirValue weight) {
  MlirOperation made = ir_definition(weight);
  MlirAttribute slice = mlirOperationGetAttributeByName(made, mlirStringRefCreateFromCString("rank.slice"));
  return !mlirAttributeIsNull(slice) && mlirIntegerAttrGetValueInt(mlirArrayAttrGetElement(slice, 1)) > 0;
}

static bool visit_product(partitioner *p, MlirOperation op) {
  const bool experts = ir_is(op, "model.expert_linear");
  MlirValue weight = rewrite_operand(op, experts ? 2 : 1), out = ir_result(op, 0);
  const intptr_t last = ir_rank(out) - 1;
  const int64_t rows = ir_dimension(weight, ir_rank(weight) - 2), before = ir_dimension(out, last);
  resize(out, last, rows);
  if (has_columns(weight)) return note_part(p, out);
  if (!ir_is(op, "model.lm_head") || rows == before) return true;
  MlirOperation next = mlirOperationGetNextInBlock(op);
  MlirType type = ir_tensor(mlirShapedTypeGetElementType(mlirValueGetType(out)), (int64_t[]){ANY, before}, 2);
  MlirValue all = collective(p, "model.all_gather", next, out, type);
  mlirValueReplaceAllUsesOfWith(out, all);
  mlirOperationSetOperand(ir_definition(all), 0, out);
  return true;
}

/* ---- heads ---- */

static int64_t own_kv_heads(const partitioner *p) {
  return p->kv_heads / (p->ranks / share_of(p));
}

/* head_norm and rope: as many heads as the operand has. */
static bool visit_heads(partitioner *p, MlirOperation op) {
  MlirValue out = ir_result(op, 0);
  const int64_t width = ir_dimension(rewrite_operand(op, 0), 1), before = ir_dimension(out, 1);
  set_integer(p, op, "heads", ir_get_integer(op, "heads") * width / before);
  resize(out, 1, width);
  return true;
}

static bool visit_append(partitioner *p, MlirOperation op) {
  if (ir_get_string(op, "part").length != strlen("index_key")) set_integer(p, op, "heads", own_kv_heads(p));
  return true;
}

static bool visit_attention(partitioner *p, MlirOperation op) {
  set_integer(p, op, "heads", p->heads / p->ranks);
  set_integer(p, op, "kv_heads", own_kv_heads(p));
  resize(ir_result(op, 0), 1, ir_dimension(rewrite_operand(op, 0), 1));
  return true;
}

/* Index heads go with the kv heads. */
static bool visit_index_score(partitioner *p, MlirOperation op) {
  set_integer(p, op, "heads", own_kv_heads(p));
  resize(ir_result(op, 0), 1, own_kv_heads(p));
  return true;
}

static bool visit_blocks(partitioner *p, MlirOperation op) {
  (void)p;
  resize(ir_result(op, 0), 1, ir_dimension(rewrite_operand(op, 0), 1));
  return true;
}

static bool visit_activation(partitioner *p, MlirOperation op) {
  (void)p;
  const intptr_t last = ir_rank(ir_result(op, 0)) - 1;
  resize(ir_result(op, 0), last, ir_dimension(rewrite_operand(op, 0), last));
  return true;
}

static bool visit_combine(partitioner *p, MlirOperation op) {
  return is_part(p, rewrite_operand(op, 0)) ? note_part(p, ir_result(op, 0)) : true;
}

/* ---- the function ---- */

static bool visit(partitioner *p, MlirOperation op) {
  static const struct {
    const char *name;
    bool (*visit)(partitioner *p, MlirOperation op);
  } table[] = {{"model.weight", split_weight},
               {"model.linear", visit_product},
               {"model.lm_head", visit_product},
               {"model.expert_linear", visit_product},
               {"model.head_norm", visit_heads},
               {"model.rope", visit_heads},
               {"model.cache_append", visit_append},
               {"model.attention", visit_attention},
               {"model.block_attention", visit_attention},
               {"model.index_score", visit_index_score},
               {"model.block_max", visit_blocks},
               {"model.topk_blocks", visit_blocks},
               {"model.swiglu_oai", visit_activation},
               {"model.combine", visit_combine},
               {"model.add", visit_add}};
  bool known = false;
  for (size_t i = 0; i < REWRITE_COUNT(table); i++)
    if (ir_is(op, table[i].name)) {
      known = true;
      if (!table[i].visit(p, op)) return false;
    }
  for (intptr_t i = 0; i < mlirOperationGetNumOperands(op); i++)
    if (!known && is_part(p, rewrite_operand(op, i))) {
      const MlirStringRef name = ir_name(op);
      return pass_fail(p->state, op, "'%.*s' reads a part of a sum, which no rank has the whole of", (int)name.length,
                       name.data);
    }
  return true;
}

/* Numbers of ranks that suit the heads, for messages. */
static void possible_ranks(const partitioner *p, char *text, size_t size) {
  size_t used = 0;
  for (int64_t n = 2; n <= MOST_RANKS && used < size; n++)
    if (p->heads % n == 0 && (p->kv_heads % n == 0 || n % p->kv_heads == 0))
      used += (size_t)snprintf(text + used, size - used, "%s%lld", used ? ", " : "", (long long)n);
  if (!used) snprintf(text, size, "none");
}

static bool read_heads(partitioner *p, const rewrite_list *ops) {
  for (size_t i = 0; i < ops->count; i++) {
    MlirOperation op = ops->items[i];
    if (!ir_is(op, "model.attention") && !ir_is(op, "model.block_attention")) continue;
    const int64_t heads = ir_get_integer(op, "heads"), kv_heads = ir_get_integer(op, "kv_heads");
    if (p->heads && (heads != p->heads || kv_heads != p->kv_heads))
      return pass_fail(p->state, op, "layers differ in their heads: no layout of several ranks is known for that");
    p->heads = heads;
    p->kv_heads = kv_heads;
    if (heads % p->ranks == 0 && (kv_heads % p->ranks == 0 || p->ranks % kv_heads == 0)) continue;
    char possible[160];
    possible_ranks(p, possible, sizeof possible);
    return pass_fail(p->state, op, "%lld query heads and %lld kv heads do not go evenly into %lld ranks; possible: %s",
                     (long long)heads, (long long)kv_heads, (long long)p->ranks, possible);
  }
  return true;
}

bool pass_partition(pass_state *state, MlirModule module) {
  MlirOperation function = ir_function(module, "step");
  if (state->ranks < 2 || mlirOperationIsNull(function)) return true;
  partitioner p = {.state = state, .ranks = state->ranks};
  rewrite_list ops;
  if (!rewrite_collect(state, module, NULL, &ops)) return false;
  bool done = read_heads(&p, &ops);
  sluice_release(ops.items);
  for (MlirOperation op = mlirBlockGetFirstOperation(ir_body(function)); done && !mlirOperationIsNull(op);
       op = mlirOperationGetNextInBlock(op))
    done = visit(&p, op);
  if (done) set_integer(&p, function, "model.ranks", p.ranks);
  sluice_release(p.parts);
  return done;
}

/* fuse-norm-rope-append: of one projection with the columns q, k, v [, index q, index k], the head norms, rotations and
 * cache appends of a layer become one op that reads each row once. */
#include "passes/fusions.h"
#include "passes/rewrite.h"
#include "sluice/memory.h"

/* One normed and rotated part of the projection. */
typedef struct part {
  MlirOperation rope, norm, slice;
  MlirValue projection, table, weight;
  int64_t offset, width, heads;
} part;

/* Takes apart rope(head_norm(slice(projection))). False when it is something else, or seen from outside. */
static bool read_part(MlirValue value, part *p) {
  p->rope = rewrite_made_by(value, "model.rope");
  if (mlirOperationIsNull(p->rope)) return false;
  p->norm = rewrite_made_by(rewrite_operand(p->rope, 0), "model.head_norm");
  if (mlirOperationIsNull(p->norm) || !rewrite_used_once(ir_result(p->norm, 0)) || !rewrite_used_once(value))
    return false;
  p->slice = rewrite_made_by(rewrite_operand(p->norm, 0), "model.slice");
  if (mlirOperationIsNull(p->slice) || !rewrite_used_once(ir_result(p->slice, 0))) return false;
  p->projection = rewrite_operand(p->slice, 0);
  p->table = rewrite_operand(p->rope, 1);
  p->weight = rewrite_operand(p->norm, 1);
  p->offset = ir_get_integer(p->slice, "offset");
  p->width = ir_dimension(value, 1);
  p->heads = ir_get_integer(p->norm, "heads");
  return p->heads == ir_get_integer(p->rope, "heads");
}

typedef struct group {
  part q, k, iq, ik;
  MlirOperation value_slice;
  MlirOperation appends[3]; /* in the order of the cache's versions */
  size_t append_count;
  bool indexed;
} group;

static MlirOperation last_append(const group *g) {
  return g->appends[g->append_count - 1];
}

/* The appends in the order of the cache's versions: each reads what the one before made, and nobody else does. */
static const char *check_chain(const rewrite_attention *a, group *g) {
  MlirOperation appends[] = {a->key, a->value, a->index_key};
  size_t count = g->append_count = g->indexed ? 3 : 2;
  MlirOperation *order = g->appends;
  size_t placed = 0;
  for (size_t i = 0; i < count; i++) { /* by position */
    size_t at = placed++;
    while (at > 0 && mlirOperationIsBeforeInBlock(appends[i], order[at - 1])) {
      order[at] = order[at - 1];
      at--;
    }
    order[at] = appends[i];
  }
  for (size_t i = 1; i < count; i++)
    if (!mlirValueEqual(rewrite_operand(order[i], 0), ir_result(order[i - 1], 0)) ||
        !rewrite_used_once(ir_result(order[i - 1], 0)))
      return "the cache is used between the appends";
    else if (!mlirValueEqual(rewrite_operand(order[i], 1), rewrite_operand(order[0], 1)))
      return "the appends are of different batches";
  return NULL;
}

static const char *read_group(const rewrite_attention *a, group *g) {
  g->indexed = !mlirOperationIsNull(a->index) && !mlirOperationIsNull(a->index_key);
  if (!read_part(rewrite_operand(a->query, 0), &g->q) || !read_part(rewrite_operand(a->key, 2), &g->k))
    return "q or k is not a normed and rotated slice of one projection";
  if (g->indexed && (!read_part(rewrite_operand(a->index, a->index_operand), &g->iq) ||
                     !read_part(rewrite_operand(a->index_key, 2), &g->ik)))
    return "the index queries or keys are not normed and rotated slices of one projection";
  g->value_slice = rewrite_made_by(rewrite_operand(a->value, 2), "model.slice");
  if (mlirOperationIsNull(g->value_slice) || !rewrite_used_once(ir_result(g->value_slice, 0)))
    return "v is not a slice of the projection";
  MlirValue p = g->q.projection;
  int64_t at = g->q.width;
  bool in_order = g->q.offset == 0 && g->k.offset == at && mlirValueEqual(g->k.projection, p) &&
                  mlirValueEqual(rewrite_operand(g->value_slice, 0), p) &&
                  ir_get_integer(g->value_slice, "offset") == at + g->k.width &&
                  ir_dimension(ir_result(g->value_slice, 0), 1) == g->k.width;
  at += 2 * g->k.width;
  if (g->indexed) {
    in_order = in_order && mlirValueEqual(g->iq.projection, p) && mlirValueEqual(g->ik.projection, p) &&
               g->iq.offset == at && g->ik.offset == at + g->iq.width;
    at += g->iq.width + g->ik.width;
  }
  if (!in_order || at != ir_dimension(p, 1)) return "the projection has other columns than q, k, v and the index's";
  const part *others[] = {&g->k, &g->iq, &g->ik};
  for (size_t i = 0; i < (g->indexed ? 3u : 1u); i++)
    if (!rewrite_same_attribute(others[i]->norm, g->q.norm, "eps") || !mlirValueEqual(others[i]->table, g->q.table) ||
        !rewrite_same_element(others[i]->weight, g->q.weight))
      return "the norms or rotations differ";
  if (ir_get_integer(a->key, "heads") != g->k.heads || ir_get_integer(a->value, "heads") != g->k.heads ||
      g->q.width / g->q.heads != g->k.width / g->k.heads)
    return "the heads of q, k and v differ in size";
  if (g->indexed && (g->ik.heads != 1 || g->iq.width / g->iq.heads != g->ik.width))
    return "the index heads differ in size";
  return check_chain(a, g);
}

static bool fuse(pass_state *state, const rewrite_attention *a, const group *g) {
  MlirOperation last = last_append(g);
  MlirValue operands[8] = {rewrite_operand(g->appends[0], 0),
                           rewrite_operand(a->key, 1),
                           g->q.projection,
                           g->q.table,
                           g->q.weight,
                           g->k.weight};
  size_t operand_count = 6;
  if (g->indexed) {
    operands[operand_count++] = g->iq.weight;
    operands[operand_count++] = g->ik.weight;
  }
  MlirType types[3] = {ir_cache_type(state->context), mlirValueGetType(ir_result(g->q.rope, 0))};
  if (g->indexed) types[2] = mlirValueGetType(ir_result(g->iq.rope, 0));
  ir_context *c = state->context;
  const ir_attribute attributes[] = {
      {"layer", ir_integer(c, a->layer)},
      {"heads", ir_integer(c, g->q.heads)},
      {"kv_heads", ir_integer(c, g->k.heads)},
      {"head_dim", ir_integer(c, g->q.width / g->q.heads)},
      {"index_heads", ir_integer(c, g->indexed ? g->iq.heads : 0)},
      {"index_dim", ir_integer(c, g->indexed ? g->ik.width : 0)},
      rewrite_attribute(g->q.norm, "eps"),
  };
  for (size_t i = 0; i < operand_count; i++)
    if (!rewrite_make_available(operands[i], last)) return false;
  ir_builder builder = rewrite_builder(state, last);
  MlirOperation op = ir_create(&builder, "model.norm_rope_append", operands, operand_count, types, g->indexed ? 3 : 2,
                               attributes, REWRITE_COUNT(attributes));
  rewrite_replace(ir_result(last, 0), ir_result(op, 0));
  rewrite_replace(ir_result(g->q.rope, 0), ir_result(op, 1));
  if (g->indexed) rewrite_replace(ir_result(g->iq.rope, 0), ir_result(op, 2));
  pass_remark_add(state, op, true, "norms, rotations and %s", g->indexed ? "3 cache appends" : "2 cache appends");
  /* The appends from the last to the first, so that none is used when it goes; then what they read. */
  for (size_t i = g->append_count; i-- > 0;) {
    MlirValue x = rewrite_operand(g->appends[i], 2);
    mlirOperationDestroy(g->appends[i]);
    rewrite_erase_dead_value(x);
  }
  rewrite_erase_dead(g->q.rope);
  if (g->indexed) rewrite_erase_dead(g->iq.rope);
  return true;
}

bool pass_fuse_norm_rope_append(pass_state *state, MlirModule module) {
  rewrite_attentions attentions;
  if (!rewrite_collect_attentions(state, module, &attentions)) return false;
  for (size_t i = 0; i < attentions.count; i++) {
    const rewrite_attention *a = &attentions.items[i];
    if (a->ambiguous || mlirOperationIsNull(a->key) || mlirOperationIsNull(a->value) || mlirOperationIsNull(a->query))
      continue;
    group g = {.indexed = false};
    const char *reason = read_group(a, &g);
    /* q and iq are made where the last append stands: their readers must come after it. */
    if (!reason && mlirOperationIsBeforeInBlock(a->query, last_append(&g)))
      reason = "the attention comes before the last append";
    if (!reason && g.indexed && mlirOperationIsBeforeInBlock(a->index, last_append(&g)))
      reason = "the selection comes before the last append";
    if (!reason && !fuse(state, a, &g)) reason = "an operand is made after the last append";
    if (reason) pass_remark_add(state, a->query, false, "%s", reason);
  }
  sluice_release(attentions.items);
  return true;
}

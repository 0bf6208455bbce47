/* What the passes share. Passes look for groups of ops around an anchor (the attention of a layer, an `add`, ...),
 * check that nothing else sees what lies inside the group, and put one op in its place. An op that a fusion does not
 * fit stays as it is, with a remark that says why.
 */
#ifndef PASSES_REWRITE_H
#define PASSES_REWRITE_H

#include "passes/passes.h"

#define REWRITE_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A list of operations, freed with sluice_release(items). */
typedef struct rewrite_list {
  MlirOperation *items;
  size_t count, capacity;
} rewrite_list;

/* All ops of the module's functions in order, or those called `name` when it is not NULL. False: memory was short. */
bool rewrite_collect(pass_state *state, MlirModule module, const char *name, rewrite_list *list);

/* The op called `name` that makes `value`; null otherwise. */
MlirOperation rewrite_made_by(MlirValue value, const char *name);
bool rewrite_used_once(MlirValue value);
MlirValue rewrite_operand(MlirOperation op, intptr_t index);
bool rewrite_same_type(MlirValue a, MlirValue b);
/* Whether the elements of both tensors are of one type. */
bool rewrite_same_element(MlirValue a, MlirValue b);

/* Whether `value` can be made to dominate `place`: it does, or a weight makes it, which this moves before `place`. */
bool rewrite_make_available(MlirValue value, MlirOperation place);

/* A builder that inserts before `place`, with its location. */
ir_builder rewrite_builder(pass_state *state, MlirOperation place);

/* An attribute of `op` as an operand of ir_create. */
ir_attribute rewrite_attribute(MlirOperation op, const char *name);
bool rewrite_same_attribute(MlirOperation a, MlirOperation b, const char *name);

void rewrite_replace(MlirValue old_value, MlirValue new_value);
/* Erases `op` when it is pure and unused, then likewise what made its operands. */
void rewrite_erase_dead(MlirOperation op);
/* The same for the op that makes `value`. */
void rewrite_erase_dead_value(MlirValue value);

/* The layer an op belongs to, as its attributes, those of the ops before it or the names of its weights tell; -1: none.
 */
int64_t rewrite_layer(MlirOperation op);

/* The ops of a layer that write and read its cache. */
typedef struct rewrite_attention {
  int64_t layer;
  MlirOperation key, value, index_key; /* cache_append, null when there is none */
  MlirOperation query;                 /* attention, block_attention or select_attention */
  MlirOperation index;                 /* index_score, index_select or select_attention; null: no index branch */
  intptr_t index_operand;              /* of `index`, the index queries */
  bool ambiguous;                      /* one of them is there twice */
} rewrite_attention;

typedef struct rewrite_attentions {
  rewrite_attention *items; /* freed with sluice_release */
  size_t count, capacity;
} rewrite_attentions;

/* Every layer of the module's functions, in the order of their first ops. False: memory was short. */
bool rewrite_collect_attentions(pass_state *state, MlirModule module, rewrite_attentions *list);

#endif

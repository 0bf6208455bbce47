/* Running statements: output, loops, assignments, macros. */
#include "runtime/text/jinja/jinja.h"

#include <string.h>

/* ---- Assignments ---- */

static sluice_status *assign_tuple(jinja_environment *e, const jinja_node *target, const jinja_value *value) {
  jinja_value list;
  SLUICE_TRY(jinja_to_list(e, value, &list));
  if (list.list->count != target->count)
    return JINJA_ERROR(e, "%zu values for %zu names", list.list->count, target->count);
  for (size_t i = 0; i < target->count; i++) SLUICE_TRY(jinja_assign(e, target->items[i], &list.list->items[i]));
  return NULL;
}

sluice_status *jinja_assign(jinja_environment *e, const jinja_node *target, const jinja_value *value) {
  e->at = target->offset;
  if (target->kind == NODE_NAME) return jinja_scope_set(e, e->scope, target->name, value);
  if (target->kind == NODE_TUPLE) return assign_tuple(e, target, value);
  jinja_value namespace, key;
  SLUICE_TRY(jinja_lookup(e, target->name, &namespace));
  if (namespace.kind != JINJA_NAMESPACE)
    return JINJA_ERROR(e, "\"%s\" is no namespace: its attributes cannot be assigned", target->name);
  SLUICE_TRY(jinja_new_string(e, target->a->name, strlen(target->a->name), false, &key));
  return jinja_dict_set(e, namespace.dict, &key, value);
}

/* ---- Blocks ---- */

/* Runs a body in a scope of its own; its output goes to a new string when `out` is given. */
static sluice_status *run_block(jinja_environment *e, jinja_scope *scope, jinja_node *const *body, size_t count,
                                jinja_value *out) {
  jinja_scope *outer = e->scope;
  jinja_buffer *output = e->output;
  e->scope = scope;
  if (out) SLUICE_TRY(jinja_buffer_new(e, 128, &e->output));
  SLUICE_TRY(jinja_run(e, body, count));
  if (out) SLUICE_TRY(jinja_take_buffer(e, e->output, out));
  e->scope = outer;
  e->output = output;
  return NULL;
}

static sluice_status *run_inner(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  jinja_scope *scope;
  SLUICE_TRY(jinja_scope_new(e, e->scope, &scope));
  return run_block(e, scope, node->items, node->count, out);
}

/* A block whose text goes through filters: {% set x | ... %}, {% filter ... %}. */
static sluice_status *run_filtered(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  SLUICE_TRY(run_inner(e, node, out));
  if (!node->b) return NULL;
  jinja_value before = e->block_input, text = *out;
  e->block_input = text;
  SLUICE_TRY(jinja_evaluate(e, node->b, out));
  e->block_input = before;
  return NULL;
}

static sluice_status *run_with(jinja_environment *e, const jinja_node *node) {
  jinja_scope *scope, *outer = e->scope;
  SLUICE_TRY(jinja_scope_new(e, outer, &scope));
  for (size_t i = 0; i < node->more_count; i++) {
    jinja_value value;
    SLUICE_TRY(jinja_evaluate(e, node->more[i]->b, &value));
    e->scope = scope;
    SLUICE_TRY(jinja_assign(e, node->more[i]->a, &value));
    e->scope = outer;
  }
  return run_block(e, scope, node->items, node->count, NULL);
}

/* ---- Loops ---- */

static sluice_status *advance(jinja_environment *e, jinja_loop *loop, bool *more) {
  jinja_value next = loop->after;
  if (next.kind == JINJA_MISSING) {
    SLUICE_TRY(jinja_next(e, loop->iterator, &next, more));
    if (!*more) return NULL;
  }
  loop->after = (jinja_value){.kind = JINJA_MISSING};
  *more = true;
  loop->index0++;
  loop->before = loop->current;
  loop->current = next;
  return NULL;
}

static sluice_status *peek(jinja_environment *e, jinja_loop *loop, bool *more) {
  *more = true;
  if (loop->after.kind != JINJA_MISSING) return NULL;
  SLUICE_TRY(jinja_next(e, loop->iterator, &loop->after, more));
  if (!*more) loop->after = (jinja_value){.kind = JINJA_MISSING};
  return NULL;
}

static sluice_status *loop_length(jinja_environment *e, jinja_loop *loop, int64_t *out) {
  if (loop->length < 0 && loop->iterable.kind != JINJA_ITERATOR)
    SLUICE_TRY(jinja_length(e, &loop->iterable, &loop->length));
  if (loop->length < 0) { /* a generator: its rest is read now */
    jinja_value rest, iterator = {.kind = JINJA_ITERATOR, .iterator = loop->iterator};
    SLUICE_TRY(jinja_to_list(e, &iterator, &rest));
    SLUICE_TRY(jinja_iterate(e, &rest, &loop->iterator));
    loop->length = (int64_t)rest.list->count + loop->index0 + 1 + (loop->after.kind != JINJA_MISSING);
  }
  *out = loop->length;
  return NULL;
}

const jinja_operation jinja_loop_cycle = {.name = "cycle"}, jinja_loop_changed = {.name = "changed"};

static sluice_status *loop_method(jinja_environment *e, const jinja_value *object, const jinja_operation *operation,
                                  jinja_value *out) {
  jinja_method *method = jinja_new(e, sizeof *method);
  if (!method) return jinja_exhausted(e);
  *method = (jinja_method){.object = *object, .operation = operation};
  *out = (jinja_value){.kind = JINJA_METHOD, .method = method};
  return NULL;
}

sluice_status *jinja_loop_attribute(jinja_environment *e, const jinja_value *object, const jinja_string *name,
                                    jinja_value *out) {
  jinja_loop *loop = object->loop;
  int64_t length;
  bool more;
  if (jinja_string_is(name, "index0")) {
    *out = jinja_int(loop->index0);
  } else if (jinja_string_is(name, "index")) {
    *out = jinja_int(loop->index0 + 1);
  } else if (jinja_string_is(name, "first")) {
    *out = jinja_bool(loop->index0 == 0);
  } else if (jinja_string_is(name, "last")) {
    SLUICE_TRY(peek(e, loop, &more));
    *out = jinja_bool(!more);
  } else if (jinja_string_is(name, "length")) {
    SLUICE_TRY(loop_length(e, loop, &length));
    *out = jinja_int(length);
  } else if (jinja_string_is(name, "revindex")) {
    SLUICE_TRY(loop_length(e, loop, &length));
    *out = jinja_int(length - loop->index0);
  } else if (jinja_string_is(name, "revindex0")) {
    SLUICE_TRY(loop_length(e, loop, &length));
    *out = jinja_int(length - loop->index0 - 1);
  } else if (jinja_string_is(name, "previtem")) {
    *out = loop->index0 ? loop->before : jinja_hint("there is no previous item");
  } else if (jinja_string_is(name, "nextitem")) {
    SLUICE_TRY(peek(e, loop, &more));
    *out = more ? loop->after : jinja_hint("there is no next item");
  } else if (jinja_string_is(name, "depth") || jinja_string_is(name, "depth0")) {
    *out = jinja_int(name->length == 5);
  } else if (jinja_string_is(name, "cycle")) {
    return loop_method(e, object, &jinja_loop_cycle, out);
  } else if (jinja_string_is(name, "changed")) {
    return loop_method(e, object, &jinja_loop_changed, out);
  }
  return NULL;
}

sluice_status *jinja_call_loop(jinja_environment *e, const jinja_method *method, const jinja_arguments *arguments,
                               jinja_value *out) {
  jinja_loop *loop = method->object.loop;
  if (arguments->named_count) return JINJA_ERROR(e, "loop.%s takes no keyword arguments", method->operation->name);
  if (method->operation == &jinja_loop_cycle) {
    if (!arguments->count) return JINJA_ERROR(e, "loop.cycle needs items");
    *out = arguments->values[(size_t)loop->index0 % arguments->count];
    return NULL;
  }
  jinja_value given;
  bool same = false;
  SLUICE_TRY(jinja_list_new(e, JINJA_TUPLE, arguments->count, &given));
  for (size_t i = 0; i < arguments->count; i++) SLUICE_TRY(jinja_list_add(e, given.list, &arguments->values[i]));
  if (loop->changed.kind != JINJA_MISSING) SLUICE_TRY(jinja_equal(e, &loop->changed, &given, &same));
  if (!same) loop->changed = given;
  *out = jinja_bool(!same);
  return NULL;
}

/* The iterator of a loop, through its condition. */
static sluice_status *open_loop(jinja_environment *e, const jinja_node *node, jinja_loop *loop) {
  SLUICE_TRY(jinja_evaluate(e, node->b, &loop->iterable));
  e->at = node->b->offset;
  SLUICE_TRY(jinja_iterate(e, &loop->iterable, &loop->iterator));
  loop->index0 = -1;
  loop->length = -1;
  if (!node->c) return NULL;
  jinja_iterator *filtered = jinja_new(e, sizeof *filtered);
  if (!filtered) return jinja_exhausted(e);
  *filtered = (jinja_iterator){.form = JINJA_FILTERED, .inner = loop->iterator, .loop = node, .scope = e->scope};
  loop->iterator = filtered;
  loop->iterable = (jinja_value){.kind = JINJA_ITERATOR, .iterator = filtered};
  return NULL;
}

static sluice_status *run_for(jinja_environment *e, const jinja_node *node) {
  jinja_scope *outer = e->scope, *scope;
  jinja_loop *loop = jinja_new(e, sizeof *loop);
  if (!loop) return jinja_exhausted(e);
  jinja_value variable = {.kind = JINJA_LOOP, .loop = loop};
  bool more, completed = false;
  SLUICE_TRY(open_loop(e, node, loop));
  SLUICE_TRY(jinja_scope_new(e, outer, &scope));
  for (;;) {
    SLUICE_TRY(advance(e, loop, &more));
    if (!more) break;
    if (scope->captured) SLUICE_TRY(jinja_scope_new(e, outer, &scope));
    scope->count = 0;
    e->scope = scope;
    SLUICE_TRY(jinja_scope_set(e, scope, e->template->loop, &variable));
    SLUICE_TRY(jinja_assign(e, node->a, &loop->current));
    SLUICE_TRY(jinja_run(e, node->items, node->count));
    e->scope = outer;
    bool leave = e->flow == FLOW_BREAK;
    /* As Jinja has it: "else" runs unless a round came to its end. */
    completed = completed || e->flow == FLOW_NORMAL;
    e->flow = FLOW_NORMAL;
    if (leave) break;
  }
  if (completed || !node->more_count) return NULL;
  SLUICE_TRY(jinja_scope_new(e, outer, &scope));
  return run_block(e, scope, node->more, node->more_count, NULL);
}

/* ---- Macros ---- */

static sluice_status *define_macro(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  jinja_macro *macro = jinja_new(e, sizeof *macro);
  if (!macro) return jinja_exhausted(e);
  *macro = (jinja_macro){.node = node, .scope = e->scope};
  for (jinja_scope *scope = e->scope; scope; scope = scope->parent) scope->captured = true;
  *out = (jinja_value){.kind = JINJA_MACRO, .macro = macro};
  return NULL;
}

/* Keyword arguments that are no parameter: `kwargs`, `caller`, or an error. */
static sluice_status *bind_rest(jinja_environment *e, const jinja_macro *macro, const jinja_arguments *arguments,
                                const bool *used, bool has_caller, jinja_scope *scope) {
  const jinja_node *node = macro->node;
  jinja_value rest, caller = jinja_hint("no caller is defined"), key;
  SLUICE_TRY(jinja_dict_new(e, &rest));
  for (size_t i = 0; i < arguments->named_count; i++) {
    if (used[i]) continue;
    const char *name = arguments->names[i];
    if (node->uses_caller && !has_caller && strcmp(name, "caller") == 0) {
      caller = arguments->named[i];
      continue;
    }
    if (!node->uses_kwargs)
      return JINJA_ERROR(e, "the macro \"%s\" takes no keyword argument \"%s\"", node->name ? node->name : "caller",
                         name);
    SLUICE_TRY(jinja_new_string(e, name, strlen(name), false, &key));
    SLUICE_TRY(jinja_dict_set(e, rest.dict, &key, &arguments->named[i]));
  }
  if (node->uses_caller && !has_caller) SLUICE_TRY(jinja_scope_set(e, scope, e->template->caller, &caller));
  if (node->uses_kwargs) SLUICE_TRY(jinja_scope_set(e, scope, e->template->kwargs, &rest));
  size_t extra = arguments->count > node->more_count ? arguments->count - node->more_count : 0;
  if (extra && !node->uses_varargs)
    return JINJA_ERROR(e, "the macro \"%s\" takes at most %zu arguments, not %zu", node->name ? node->name : "caller",
                       node->more_count, arguments->count);
  if (!node->uses_varargs) return NULL;
  SLUICE_TRY(jinja_list_new(e, JINJA_TUPLE, extra, &rest));
  for (size_t i = 0; i < extra; i++) SLUICE_TRY(jinja_list_add(e, rest.list, &arguments->values[node->more_count + i]));
  return jinja_scope_set(e, scope, e->template->varargs, &rest);
}

static sluice_status *bind_parameters(jinja_environment *e, const jinja_macro *macro, const jinja_arguments *arguments,
                                      jinja_scope *scope) {
  const jinja_node *node = macro->node;
  bool *used = jinja_new(e, arguments->named_count + 1), has_caller = false;
  jinja_value *values = jinja_new(e, (node->more_count + 1) * sizeof *values);
  if (!used || !values) return jinja_exhausted(e);
  for (size_t i = 0; i < node->more_count; i++) {
    const char *name = node->more[i]->name;
    has_caller = has_caller || name == e->template->caller;
    if (i < arguments->count) values[i] = arguments->values[i];
    for (size_t j = 0; j < arguments->named_count && i >= arguments->count; j++)
      if (strcmp(arguments->names[j], name) == 0) {
        values[i] = arguments->named[j];
        used[j] = true;
      }
  }
  SLUICE_TRY(bind_rest(e, macro, arguments, used, has_caller, scope));
  jinja_scope *outer = e->scope;
  e->scope = scope;
  for (size_t i = 0; i < node->more_count; i++) { /* a default may use the parameters before it */
    const jinja_node *parameter = node->more[i];
    if (values[i].kind == JINJA_MISSING && parameter->a) SLUICE_TRY(jinja_evaluate(e, parameter->a, &values[i]));
    if (values[i].kind == JINJA_MISSING) values[i] = jinja_hint("a parameter of the macro was not provided");
    SLUICE_TRY(jinja_scope_set(e, scope, parameter->name, &values[i]));
  }
  e->scope = outer;
  return NULL;
}

sluice_status *jinja_call_macro(jinja_environment *e, const jinja_macro *macro, const jinja_arguments *arguments,
                                jinja_value *out) {
  jinja_scope *scope;
  SLUICE_TRY(jinja_descend(e));
  SLUICE_TRY(jinja_scope_new(e, macro->scope, &scope));
  SLUICE_TRY(bind_parameters(e, macro, arguments, scope));
  SLUICE_TRY(run_block(e, scope, macro->node->items, macro->node->count, out));
  e->depth--;
  return NULL;
}

/* {% call(x) macro(...) %}body{% endcall %}: the body is the macro's `caller`. */
static sluice_status *run_call(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  jinja_value body;
  SLUICE_TRY(define_macro(e, node, &body));
  /* The call is evaluated with one keyword more. */
  jinja_node value = {.kind = NODE_CONSTANT, .offset = node->offset, .constant = body};
  jinja_node keyword = {.kind = NODE_KEYWORD, .offset = node->offset, .name = e->template->caller, .a = &value};
  jinja_node call = *node->a;
  jinja_node **more = jinja_new(e, (call.more_count + 1) * sizeof(jinja_node *));
  if (!more) return jinja_exhausted(e);
  for (size_t i = 0; i < call.more_count; i++) more[i] = call.more[i];
  more[call.more_count++] = &keyword;
  call.more = more;
  return jinja_evaluate(e, &call, out);
}

/* ---- Statements ---- */

static sluice_status *print(jinja_environment *e, const jinja_value *value, size_t offset) {
  e->at = offset;
  return jinja_put_text(e, e->output, value);
}

static sluice_status *run_if(jinja_environment *e, const jinja_node *node) {
  jinja_value test;
  SLUICE_TRY(jinja_evaluate(e, node->a, &test));
  if (jinja_truth(&test)) return jinja_run(e, node->items, node->count);
  return jinja_run(e, node->more, node->more_count);
}

static sluice_status *run_statement(jinja_environment *e, const jinja_node *node) {
  jinja_value value;
  switch (node->kind) {
  case NODE_OUTPUT_TEXT:
    return jinja_put_string(e, e->output, node->constant.string);
  case NODE_PRINT:
    SLUICE_TRY(jinja_evaluate(e, node->a, &value));
    return print(e, &value, node->offset);
  case NODE_FOR:
    return run_for(e, node);
  case NODE_IF:
    return run_if(e, node);
  case NODE_SET:
    SLUICE_TRY(jinja_evaluate(e, node->b, &value));
    return jinja_assign(e, node->a, &value);
  case NODE_SET_BLOCK:
    SLUICE_TRY(run_filtered(e, node, &value));
    return jinja_assign(e, node->a, &value);
  case NODE_FILTER_BLOCK:
    SLUICE_TRY(run_filtered(e, node, &value));
    return print(e, &value, node->offset);
  case NODE_WITH:
    return run_with(e, node);
  case NODE_MACRO:
    SLUICE_TRY(define_macro(e, node, &value));
    return jinja_scope_set(e, e->scope, node->name, &value);
  case NODE_CALL_BLOCK:
    SLUICE_TRY(run_call(e, node, &value));
    return print(e, &value, node->offset);
  case NODE_GENERATION:
    return run_inner(e, node, NULL);
  case NODE_BREAK:
    e->flow = FLOW_BREAK;
    return NULL;
  case NODE_CONTINUE:
    e->flow = FLOW_CONTINUE;
    return NULL;
  default:
    return sluice_error(SLUICE_INTERNAL, "a template node of kind %d is no statement", (int)node->kind);
  }
}

sluice_status *jinja_run(jinja_environment *e, jinja_node *const *body, size_t count) {
  SLUICE_TRY(jinja_descend(e));
  for (size_t i = 0; i < count && e->flow == FLOW_NORMAL; i++) {
    e->at = body[i]->offset;
    SLUICE_TRY(jinja_spend(e, 1));
    SLUICE_TRY(run_statement(e, body[i]));
  }
  e->depth--;
  return NULL;
}

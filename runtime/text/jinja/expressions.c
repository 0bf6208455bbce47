/* Evaluating expressions. */
#include "runtime/text/jinja/jinja.h"
#include "sluice/memory.h"

#include <string.h>

sluice_status *jinja_spend(jinja_environment *e, size_t steps) {
  e->steps += steps;
  if (e->steps <= e->limits.steps) return NULL;
  return JINJA_ERROR(e, "the template takes more than %llu steps", (unsigned long long)e->limits.steps);
}

sluice_status *jinja_descend(jinja_environment *e) {
  if (++e->depth <= e->limits.depth) return NULL;
  return JINJA_ERROR(e, "more than %u calls and expressions in each other", e->limits.depth);
}

/* ---- Variables ---- */

sluice_status *jinja_scope_new(jinja_environment *e, jinja_scope *parent, jinja_scope **out) {
  *out = jinja_new(e, sizeof **out);
  if (!*out) return jinja_exhausted(e);
  (*out)->parent = parent;
  return NULL;
}

sluice_status *jinja_scope_set(jinja_environment *e, jinja_scope *scope, const char *name, const jinja_value *value) {
  for (size_t i = 0; i < scope->count; i++)
    if (scope->variables[i].name == name) {
      scope->variables[i].value = *value;
      return NULL;
    }
  if (scope->count == scope->capacity) {
    size_t capacity = scope->capacity ? 2 * scope->capacity : 4;
    jinja_variable *variables = jinja_new(e, capacity * sizeof *variables);
    if (!variables) return jinja_exhausted(e);
    if (scope->count) memcpy(variables, scope->variables, scope->count * sizeof *variables);
    scope->variables = variables;
    scope->capacity = capacity;
  }
  scope->variables[scope->count++] = (jinja_variable){name, *value};
  return NULL;
}

sluice_status *jinja_lookup(jinja_environment *e, const char *name, jinja_value *out) {
  for (const jinja_scope *scope = e->scope; scope; scope = scope->parent)
    for (size_t i = 0; i < scope->count; i++)
      if (scope->variables[i].name == name) {
        *out = scope->variables[i].value;
        return NULL;
      }
  const jinja_value *given = jinja_dict_get(e->context, name, strlen(name));
  if (given) {
    *out = *given;
    return NULL;
  }
  const jinja_function *function = jinja_find_function(name);
  if (function && !function->call) return JINJA_UNSUPPORTED(e, "\"%s\" is not supported", name);
  if (function) {
    *out = (jinja_value){.kind = JINJA_FUNCTION, .function = function};
    return NULL;
  }
  SLUICE_TRY(jinja_new_string(e, name, strlen(name), false, out));
  *out = (jinja_value){.kind = JINJA_UNDEFINED, .string = out->string};
  return NULL;
}

/* ---- Calls ---- */

/* The parameter that begins at `at` in "a,b=,c="; moves behind it. */
static bool next_parameter(const char **at, const char **name, size_t *length, bool *optional) {
  if (!**at) return false;
  *name = *at;
  *length = strcspn(*at, ",=");
  *at += *length;
  *optional = **at == '=';
  if (*optional) ++*at;
  if (**at == ',') ++*at;
  return true;
}

sluice_status *jinja_bind(jinja_environment *e, const char *what, const char *name, const char *parameters,
                          const jinja_arguments *arguments, jinja_value values[JINJA_MAX_PARAMETERS]) {
  const char *at = parameters, *parameter;
  size_t length, count = 0, used = 0;
  bool optional;
  for (; next_parameter(&at, &parameter, &length, &optional); count++) {
    values[count] = (jinja_value){.kind = JINJA_MISSING};
    if (count < arguments->count) values[count] = arguments->values[count];
    for (size_t i = 0; i < arguments->named_count; i++) {
      if (strlen(arguments->names[i]) != length || memcmp(arguments->names[i], parameter, length) != 0) continue;
      if (count < arguments->count)
        return JINJA_ERROR(e, "the %s \"%s\" gets \"%s\" twice", what, name, arguments->names[i]);
      values[count] = arguments->named[i];
      used++;
    }
    if (values[count].kind == JINJA_MISSING && !optional)
      return JINJA_ERROR(e, "the %s \"%s\" needs the argument \"%.*s\"", what, name, (int)length, parameter);
  }
  if (arguments->count > count)
    return JINJA_ERROR(e, "the %s \"%s\" takes at most %zu arguments, not %zu", what, name, count, arguments->count);
  if (used < arguments->named_count)
    return JINJA_ERROR(e, "the %s \"%s\" got a keyword argument that it does not have", what, name);
  return NULL;
}

sluice_status *jinja_operate(jinja_environment *e, const char *what, const jinja_operation *operation,
                             const jinja_value *input, const jinja_arguments *arguments, jinja_value *out) {
  jinja_value values[JINJA_MAX_PARAMETERS];
  SLUICE_TRY(jinja_bind(e, what, operation->name, operation->parameters, arguments, values));
  return operation->call(e, input, values, out);
}

static sluice_status *add_argument(jinja_environment *e, jinja_value *list, const jinja_value *value) {
  return jinja_list_add(e, list->list, value);
}

/* Keyword arguments: names and values beside each other. */
static sluice_status *add_keyword(jinja_environment *e, const char ***names, jinja_value *values, const char *name,
                                  const jinja_value *value) {
  size_t count = values->list->count;
  for (size_t i = 0; i < count; i++)
    if (strcmp((*names)[i], name) == 0) return JINJA_ERROR(e, "the argument \"%s\" is given twice", name);
  if ((count & (count - 1)) == 0) {
    const char **grown = jinja_new(e, (count ? 2 * count : 1) * sizeof *grown);
    if (!grown) return jinja_exhausted(e);
    if (count) memcpy(grown, *names, count * sizeof *grown);
    *names = grown;
  }
  (*names)[count] = name;
  return jinja_list_add(e, values->list, value);
}

/* **dict */
static sluice_status *spread_dict(jinja_environment *e, const jinja_node *node, const char ***names,
                                  jinja_value *named) {
  jinja_value dict = {0};
  SLUICE_TRY(jinja_evaluate(e, node, &dict));
  if (dict.kind != JINJA_DICT) return JINJA_ERROR(e, "** needs a dict, not a %s", jinja_type_name(dict.kind));
  for (size_t i = 0; i < dict.dict->count; i++) {
    const jinja_value *key = &dict.dict->entries[i].key;
    if (key->kind != JINJA_STRING) return JINJA_ERROR(e, "** needs a dict whose keys are str");
    char *name = jinja_new(e, key->string->length + 1);
    if (!name) return jinja_exhausted(e);
    memcpy(name, jinja_bytes(key->string), key->string->length);
    SLUICE_TRY(add_keyword(e, names, named, name, &dict.dict->entries[i].value));
  }
  return NULL;
}

/* The arguments of a call, filter or test. */
static sluice_status *evaluate_arguments(jinja_environment *e, const jinja_node *node, jinja_arguments *out) {
  jinja_value values, named, value;
  const char **names = NULL;
  *out = (jinja_arguments){0};
  if (!node->count && !node->more_count && !node->b && !node->c) return NULL;
  SLUICE_TRY(jinja_list_new(e, JINJA_LIST, node->count, &values));
  SLUICE_TRY(jinja_list_new(e, JINJA_LIST, node->more_count, &named));
  for (size_t i = 0; i < node->count; i++) {
    SLUICE_TRY(jinja_evaluate(e, node->items[i], &value));
    SLUICE_TRY(add_argument(e, &values, &value));
  }
  if (node->b) { /* *list */
    jinja_value list;
    SLUICE_TRY(jinja_evaluate(e, node->b, &value));
    SLUICE_TRY(jinja_to_list(e, &value, &list));
    for (size_t i = 0; i < list.list->count; i++) SLUICE_TRY(add_argument(e, &values, &list.list->items[i]));
  }
  for (size_t i = 0; i < node->more_count; i++) {
    SLUICE_TRY(jinja_evaluate(e, node->more[i]->a, &value));
    SLUICE_TRY(add_keyword(e, &names, &named, node->more[i]->name, &value));
  }
  if (node->c) SLUICE_TRY(spread_dict(e, node->c, &names, &named));
  *out = (jinja_arguments){.values = values.list->items,
                           .count = values.list->count,
                           .names = names,
                           .named = named.list->items,
                           .named_count = named.list->count};
  return NULL;
}

sluice_status *jinja_call(jinja_environment *e, const jinja_value *callee, const jinja_arguments *arguments,
                          jinja_value *out) {
  switch ((jinja_kind)callee->kind) {
  case JINJA_MACRO:
    return jinja_call_macro(e, callee->macro, arguments, out);
  case JINJA_FUNCTION:
    return callee->function->call(e, arguments, out);
  case JINJA_METHOD: {
    const jinja_method *method = callee->method;
    if (method->object.kind == JINJA_LOOP) return jinja_call_loop(e, method, arguments, out);
    if (!method->operation->call) return jinja_brace_format(e, method->object.string, arguments, out);
    return jinja_operate(e, "method", method->operation, &method->object, arguments, out);
  }
  case JINJA_UNDEFINED:
    return jinja_undefined_error(e, callee);
  default:
    return JINJA_ERROR(e, "a %s cannot be called", jinja_type_name(callee->kind));
  }
}

static sluice_status *evaluate_call(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  jinja_value callee;
  jinja_arguments arguments;
  SLUICE_TRY(jinja_evaluate(e, node->a, &callee));
  SLUICE_TRY(evaluate_arguments(e, node, &arguments));
  e->at = node->offset;
  return jinja_call(e, &callee, &arguments, out);
}

/* A filter or test. */
static sluice_status *evaluate_operation(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  jinja_value input;
  jinja_arguments arguments;
  SLUICE_TRY(jinja_evaluate(e, node->a, &input));
  SLUICE_TRY(evaluate_arguments(e, node, &arguments));
  e->at = node->offset;
  if (!node->operation) return jinja_higher(e, node->name, &input, &arguments, out);
  return jinja_operate(e, node->kind == NODE_TEST ? "test" : "filter", node->operation, &input, &arguments, out);
}

/* ---- Literals and operators ---- */

static sluice_status *evaluate_list(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  SLUICE_TRY(jinja_list_new(e, node->kind == NODE_LIST ? JINJA_LIST : JINJA_TUPLE, node->count, out));
  for (size_t i = 0; i < node->count; i++) SLUICE_TRY(jinja_evaluate(e, node->items[i], &out->list->items[i]));
  out->list->count = node->count;
  return NULL;
}

static sluice_status *evaluate_dict(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  SLUICE_TRY(jinja_dict_new(e, out));
  for (size_t i = 0; i < node->count; i += 2) {
    jinja_value key, value;
    SLUICE_TRY(jinja_evaluate(e, node->items[i], &key));
    SLUICE_TRY(jinja_evaluate(e, node->items[i + 1], &value));
    e->at = node->items[i]->offset;
    SLUICE_TRY(jinja_dict_set(e, out->dict, &key, &value));
  }
  return NULL;
}

/* a < b < c is a < b and b < c. */
static sluice_status *evaluate_compare(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  jinja_value left, right;
  bool result = true;
  SLUICE_TRY(jinja_evaluate(e, node->a, &left));
  for (size_t i = 0; i < node->count && result; i++, left = right) {
    SLUICE_TRY(jinja_evaluate(e, node->items[i]->a, &right));
    e->at = node->items[i]->offset;
    SLUICE_TRY(jinja_compare(e, node->items[i]->operator, &left, &right, &result));
  }
  *out = jinja_bool(result);
  return NULL;
}

static sluice_status *evaluate_concat(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  jinja_value value, text;
  for (size_t i = 0; i < node->count; i++) {
    SLUICE_TRY(jinja_evaluate(e, node->items[i], &value));
    e->at = node->offset;
    SLUICE_TRY(jinja_to_string(e, &value, &text));
    if (i)
      SLUICE_TRY(jinja_append(e, out->string, text.string, out));
    else
      SLUICE_TRY(jinja_substring(e, text.string, 0, text.string->length, out));
  }
  return NULL;
}

static sluice_status *evaluate_binary(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  jinja_value left, right;
  SLUICE_TRY(jinja_evaluate(e, node->a, &left));
  SLUICE_TRY(jinja_evaluate(e, node->b, &right));
  e->at = node->offset;
  return jinja_binary(e, node->operator, &left, &right, out);
}

static sluice_status *evaluate_item(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  jinja_value object, key;
  SLUICE_TRY(jinja_evaluate(e, node->a, &object));
  SLUICE_TRY(jinja_evaluate(e, node->b, &key));
  e->at = node->offset;
  return jinja_item(e, &object, &key, out);
}

static sluice_status *evaluate_slice(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  jinja_value object, bounds[3] = {jinja_none(), jinja_none(), jinja_none()};
  SLUICE_TRY(jinja_evaluate(e, node->a, &object));
  for (size_t i = 0; i < 3; i++)
    if (node->items[i]) SLUICE_TRY(jinja_evaluate(e, node->items[i], &bounds[i]));
  e->at = node->offset;
  return jinja_slice(e, &object, bounds, out);
}

static sluice_status *evaluate_conditional(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  SLUICE_TRY(jinja_evaluate(e, node->b, out));
  if (jinja_truth(out)) return jinja_evaluate(e, node->a, out);
  if (node->c) return jinja_evaluate(e, node->c, out);
  *out = jinja_hint("an \"if\" without \"else\" gave no value");
  return NULL;
}

static sluice_status *evaluate_node(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  switch (node->kind) {
  case NODE_CONSTANT:
    *out = node->constant;
    return NULL;
  case NODE_NAME:
    return jinja_lookup(e, node->name, out);
  case NODE_INPUT:
    *out = e->block_input;
    return NULL;
  case NODE_ATTRIBUTE: {
    jinja_value object;
    SLUICE_TRY(jinja_evaluate(e, node->a, &object));
    e->at = node->offset;
    return jinja_attribute(e, &object, node->constant.string, out);
  }
  case NODE_ITEM:
    return evaluate_item(e, node, out);
  case NODE_SLICE:
    return evaluate_slice(e, node, out);
  case NODE_CALL:
    return evaluate_call(e, node, out);
  case NODE_FILTER:
  case NODE_TEST:
    return evaluate_operation(e, node, out);
  case NODE_LIST:
  case NODE_TUPLE:
    return evaluate_list(e, node, out);
  case NODE_DICT:
    return evaluate_dict(e, node, out);
  case NODE_COMPARE:
    return evaluate_compare(e, node, out);
  case NODE_BINARY:
    return evaluate_binary(e, node, out);
  case NODE_CONCAT:
    return evaluate_concat(e, node, out);
  case NODE_AND:
  case NODE_OR:
    SLUICE_TRY(jinja_evaluate(e, node->a, out));
    return jinja_truth(out) == (node->kind == NODE_AND) ? jinja_evaluate(e, node->b, out) : NULL;
  case NODE_NOT:
    SLUICE_TRY(jinja_evaluate(e, node->a, out));
    *out = jinja_bool(!jinja_truth(out));
    return NULL;
  case NODE_NEGATE:
  case NODE_POSITIVE: {
    jinja_value operand;
    SLUICE_TRY(jinja_evaluate(e, node->a, &operand));
    e->at = node->offset;
    return jinja_unary(e, node->kind, &operand, out);
  }
  case NODE_CONDITIONAL:
    return evaluate_conditional(e, node, out);
  default:
    return sluice_error(SLUICE_INTERNAL, "a template node of kind %d is no expression", (int)node->kind);
  }
}

sluice_status *jinja_evaluate(jinja_environment *e, const jinja_node *node, jinja_value *out) {
  e->at = node->offset;
  SLUICE_TRY(jinja_spend(e, 1));
  SLUICE_TRY(jinja_descend(e));
  SLUICE_TRY(evaluate_node(e, node, out));
  e->depth--;
  return NULL;
}

/* The parser of expressions: one function for each level of Jinja's grammar. */
#include "runtime/text/jinja/jinja.h"

#include <string.h>

static sluice_status *parse_or(jinja_parser *p, jinja_node **out);
static sluice_status *parse_unary(jinja_parser *p, bool filters, jinja_node **out);

static sluice_status *new_binary(jinja_parser *p, jinja_node_kind kind, size_t offset, jinja_node *a, jinja_node *b,
                                 jinja_node **out) {
  SLUICE_TRY(jinja_new_node(p, kind, offset, out));
  (*out)->a = a;
  (*out)->b = b;
  return NULL;
}

/* ---- Operators, from those that bind loosest ---- */

sluice_status *jinja_parse_expression(jinja_parser *p, jinja_node **out) {
  SLUICE_TRY(jinja_enter(p));
  SLUICE_TRY(parse_or(p, out));
  while (p->at->kind == TOKEN_NAME) {
    size_t offset = p->at->offset;
    if (!jinja_skip_name(p, "if")) break;
    jinja_node *condition, *otherwise = NULL;
    SLUICE_TRY(parse_or(p, &condition));
    if (jinja_skip_name(p, "else")) SLUICE_TRY(jinja_parse_expression(p, &otherwise));
    SLUICE_TRY(new_binary(p, NODE_CONDITIONAL, offset, *out, condition, out));
    (*out)->c = otherwise;
  }
  p->depth--;
  return NULL;
}

static sluice_status *parse_compare(jinja_parser *p, jinja_node **out);

static sluice_status *parse_not(jinja_parser *p, jinja_node **out) {
  size_t offset = p->at->offset;
  if (!jinja_skip_name(p, "not")) return parse_compare(p, out);
  jinja_node *operand;
  SLUICE_TRY(jinja_enter(p));
  SLUICE_TRY(parse_not(p, &operand));
  p->depth--;
  return new_binary(p, NODE_NOT, offset, operand, NULL, out);
}

/* operand {word operand}. A chain of one operator nests to the left: its depth is what evaluating it takes. */
static sluice_status *parse_words(jinja_parser *p, const char *word, jinja_node_kind kind,
                                  sluice_status *(*parse_operand)(jinja_parser *p, jinja_node **out),
                                  jinja_node **out) {
  SLUICE_TRY(parse_operand(p, out));
  unsigned links = 0;
  for (;; links++) {
    size_t offset = p->at->offset;
    if (!jinja_skip_name(p, word)) break;
    jinja_node *right;
    SLUICE_TRY(jinja_enter(p));
    SLUICE_TRY(parse_operand(p, &right));
    SLUICE_TRY(new_binary(p, kind, offset, *out, right, out));
  }
  p->depth -= links;
  return NULL;
}

static sluice_status *parse_and(jinja_parser *p, jinja_node **out) {
  return parse_words(p, "and", NODE_AND, parse_not, out);
}

static sluice_status *parse_or(jinja_parser *p, jinja_node **out) {
  return parse_words(p, "or", NODE_OR, parse_and, out);
}

static sluice_status *parse_sum(jinja_parser *p, jinja_node **out);

static bool take_comparison(jinja_parser *p, jinja_token_kind *out) {
  *out = p->at->kind;
  if (p->at->kind >= TOKEN_EQ && p->at->kind <= TOKEN_LT) {
    p->at++;
    return true;
  }
  if (jinja_skip_name(p, "in")) {
    *out = TOKEN_IN;
    return true;
  }
  if (!jinja_at_name(p, "not") || p->at[1].kind != TOKEN_NAME || strcmp(p->at[1].name, "in") != 0) return false;
  p->at += 2;
  *out = TOKEN_NOT_IN;
  return true;
}

static sluice_status *parse_compare(jinja_parser *p, jinja_node **out) {
  SLUICE_TRY(parse_sum(p, out));
  jinja_node *compare = NULL;
  for (;;) {
    size_t offset = p->at->offset;
    jinja_token_kind operator;
    if (!take_comparison(p, &operator)) break;
    jinja_node *operand;
    SLUICE_TRY(jinja_new_node(p, NODE_OPERAND, offset, &operand));
    operand->operator = operator;
    SLUICE_TRY(parse_sum(p, &operand->a));
    if (!compare) SLUICE_TRY(new_binary(p, NODE_COMPARE, offset, *out, NULL, &compare));
    SLUICE_TRY(jinja_add_node(p, &compare->items, &compare->count, operand));
  }
  if (compare) *out = compare;
  return NULL;
}

/* Left-associative operators from `first` to `last`, over what `parse` reads. */
static sluice_status *parse_chain(jinja_parser *p, const jinja_token_kind *kinds,
                                  sluice_status *(*parse)(jinja_parser *, jinja_node **), jinja_node **out) {
  SLUICE_TRY(parse(p, out));
  unsigned links = 0;
  for (;; links++) {
    const jinja_token *token = p->at;
    const jinja_token_kind *kind = kinds;
    while (*kind && *kind != token->kind) kind++;
    if (!*kind) break;
    p->at++;
    jinja_node *right;
    SLUICE_TRY(jinja_enter(p));
    SLUICE_TRY(parse(p, &right));
    SLUICE_TRY(new_binary(p, NODE_BINARY, token->offset, *out, right, out));
    (*out)->operator = token->kind;
  }
  p->depth -= links;
  return NULL;
}

static sluice_status *parse_operand(jinja_parser *p, jinja_node **out) {
  return parse_unary(p, true, out);
}

static sluice_status *parse_power(jinja_parser *p, jinja_node **out) {
  static const jinja_token_kind kinds[] = {TOKEN_POW, 0};
  return parse_chain(p, kinds, parse_operand, out);
}

static sluice_status *parse_product(jinja_parser *p, jinja_node **out) {
  static const jinja_token_kind kinds[] = {TOKEN_MUL, TOKEN_DIV, TOKEN_FLOORDIV, TOKEN_MOD, 0};
  return parse_chain(p, kinds, parse_power, out);
}

static sluice_status *parse_concat(jinja_parser *p, jinja_node **out) {
  SLUICE_TRY(parse_product(p, out));
  if (p->at->kind != TOKEN_TILDE) return NULL;
  jinja_node *concat;
  SLUICE_TRY(jinja_new_node(p, NODE_CONCAT, p->at->offset, &concat));
  SLUICE_TRY(jinja_add_node(p, &concat->items, &concat->count, *out));
  while (jinja_skip(p, TOKEN_TILDE)) {
    jinja_node *item;
    SLUICE_TRY(parse_product(p, &item));
    SLUICE_TRY(jinja_add_node(p, &concat->items, &concat->count, item));
  }
  *out = concat;
  return NULL;
}

static sluice_status *parse_sum(jinja_parser *p, jinja_node **out) {
  static const jinja_token_kind kinds[] = {TOKEN_ADD, TOKEN_SUB, 0};
  return parse_chain(p, kinds, parse_concat, out);
}

/* ---- Calls, subscripts, filters and tests ---- */

static sluice_status *invalid_call(const jinja_parser *p, const jinja_token *open) {
  return jinja_error_at(p->template, open->offset, SLUICE_INVALID, "the arguments of this call are in the wrong order");
}

/* "(...)" of a call, filter or test. */
static sluice_status *parse_arguments(jinja_parser *p, jinja_node *node) {
  const jinja_token *open = p->at++;
  bool first = true;
  for (; p->at->kind != TOKEN_RPAREN; first = false) {
    if (!first) {
      SLUICE_TRY(jinja_expect(p, TOKEN_COMMA));
      if (p->at->kind == TOKEN_RPAREN) break;
    }
    if (jinja_skip(p, TOKEN_MUL)) {
      if (node->b || node->c) return invalid_call(p, open);
      SLUICE_TRY(jinja_parse_expression(p, &node->b));
    } else if (jinja_skip(p, TOKEN_POW)) {
      if (node->c) return invalid_call(p, open);
      SLUICE_TRY(jinja_parse_expression(p, &node->c));
    } else if (p->at->kind == TOKEN_NAME && p->at[1].kind == TOKEN_ASSIGN) {
      if (node->c) return invalid_call(p, open);
      jinja_node *keyword;
      SLUICE_TRY(jinja_new_node(p, NODE_KEYWORD, p->at->offset, &keyword));
      keyword->name = p->at->name;
      p->at += 2;
      SLUICE_TRY(jinja_parse_expression(p, &keyword->a));
      for (size_t i = 0; i < node->more_count; i++)
        if (node->more[i]->name == keyword->name)
          return jinja_error_at(p->template, keyword->offset, SLUICE_INVALID, "the argument \"%.60s\" is given twice",
                                keyword->name);
      SLUICE_TRY(jinja_add_node(p, &node->more, &node->more_count, keyword));
    } else {
      if (node->b || node->c || node->more_count) return invalid_call(p, open);
      jinja_node *argument;
      SLUICE_TRY(jinja_parse_expression(p, &argument));
      SLUICE_TRY(jinja_add_node(p, &node->items, &node->count, argument));
    }
  }
  return jinja_expect(p, TOKEN_RPAREN);
}

static sluice_status *parse_call(jinja_parser *p, jinja_node **node) {
  jinja_node *call;
  SLUICE_TRY(new_binary(p, NODE_CALL, p->at->offset, *node, NULL, &call));
  SLUICE_TRY(parse_arguments(p, call));
  *node = call;
  return NULL;
}

/* What stands between [ and ]: an expression or a slice. */
static sluice_status *parse_subscript(jinja_parser *p, jinja_node *object, size_t offset, jinja_node **out) {
  jinja_node *bounds[3] = {NULL, NULL, NULL};
  bool slice = false;
  size_t at = 0;
  while (p->at->kind != TOKEN_RBRACKET && p->at->kind != TOKEN_COMMA && at < 3) {
    if (p->at->kind != TOKEN_COLON) {
      SLUICE_TRY(jinja_parse_expression(p, &bounds[at]));
      if (p->at->kind != TOKEN_COLON) break;
    }
    p->at++;
    slice = true;
    at++;
  }
  if (p->at->kind == TOKEN_COMMA)
    return jinja_error_at(p->template, p->at->offset, SLUICE_UNSUPPORTED, "several subscripts are not supported");
  if (!slice && !bounds[0]) return jinja_syntax(p, "a subscript");
  if (at == 3) return jinja_syntax(p, "\"]\"");
  SLUICE_TRY(jinja_expect(p, TOKEN_RBRACKET));
  SLUICE_TRY(new_binary(p, slice ? NODE_SLICE : NODE_ITEM, offset, object, slice ? NULL : bounds[0], out));
  for (size_t i = 0; slice && i < 3; i++) SLUICE_TRY(jinja_add_node(p, &(*out)->items, &(*out)->count, bounds[i]));
  return NULL;
}

static sluice_status *parse_member(jinja_parser *p, jinja_node **node) {
  const jinja_token *token = p->at++, *name = p->at;
  if (token->kind == TOKEN_LBRACKET) return parse_subscript(p, *node, token->offset, node);
  if (name->kind != TOKEN_NAME && name->kind != TOKEN_INTEGER) return jinja_syntax(p, "a name or number");
  p->at++;
  jinja_node *member;
  if (name->kind == TOKEN_INTEGER) {
    jinja_node *key;
    SLUICE_TRY(jinja_new_node(p, NODE_CONSTANT, name->offset, &key));
    key->constant = name->value;
    SLUICE_TRY(new_binary(p, NODE_ITEM, token->offset, *node, key, &member));
  } else {
    SLUICE_TRY(new_binary(p, NODE_ATTRIBUTE, token->offset, *node, NULL, &member));
    member->name = name->name;
    jinja_string *string = jinja_take(&p->template->arena, sizeof *string);
    jinja_buffer *buffer = jinja_take(&p->template->arena, sizeof *buffer);
    if (!string || !buffer) return sluice_out_of_memory();
    size_t length = strlen(name->name);
    *buffer = (jinja_buffer){.data = (char *)(uintptr_t)name->name, .length = length, .capacity = length};
    *string = (jinja_string){.buffer = buffer, .length = length, .characters = length};
    member->constant = (jinja_value){.kind = JINJA_STRING, .string = string};
  }
  *node = member;
  return NULL;
}

static sluice_status *parse_postfix(jinja_parser *p, jinja_node **node) {
  unsigned links = 0;
  for (;; links++) {
    SLUICE_TRY(jinja_enter(p));
    if (p->at->kind == TOKEN_DOT || p->at->kind == TOKEN_LBRACKET)
      SLUICE_TRY(parse_member(p, node));
    else if (p->at->kind == TOKEN_LPAREN)
      SLUICE_TRY(parse_call(p, node));
    else
      break;
  }
  p->depth -= links + 1;
  return NULL;
}

sluice_status *jinja_parse_filters(jinja_parser *p, bool first, jinja_node **node) {
  for (; first || p->at->kind == TOKEN_PIPE; first = false) {
    if (!first) p->at++;
    const jinja_token *name = p->at;
    SLUICE_TRY(jinja_expect(p, TOKEN_NAME));
    jinja_node *filter;
    SLUICE_TRY(new_binary(p, NODE_FILTER, name->offset, *node, NULL, &filter));
    filter->name = name->name;
    filter->operation = jinja_find_filter(name->name);
    if (!filter->operation && !jinja_is_higher(name->name))
      return jinja_error_at(p->template, name->offset, SLUICE_UNSUPPORTED, "there is no filter \"%.60s\" here",
                            name->name);
    if (p->at->kind == TOKEN_LPAREN) SLUICE_TRY(parse_arguments(p, filter));
    *node = filter;
  }
  return NULL;
}

static bool starts_argument(const jinja_parser *p) {
  switch (p->at->kind) {
  case TOKEN_NAME:
    return !jinja_at_name(p, "else") && !jinja_at_name(p, "or") && !jinja_at_name(p, "and");
  case TOKEN_STRING:
  case TOKEN_INTEGER:
  case TOKEN_FLOAT:
  case TOKEN_LBRACKET:
  case TOKEN_LBRACE:
    return true;
  default:
    return false;
  }
}

static sluice_status *parse_primary(jinja_parser *p, bool namespaces, jinja_node **out);

static sluice_status *parse_test(jinja_parser *p, jinja_node **node) {
  size_t offset = p->at++->offset;
  bool negated = jinja_skip_name(p, "not");
  const jinja_token *name = p->at;
  SLUICE_TRY(jinja_expect(p, TOKEN_NAME));
  jinja_node *test;
  SLUICE_TRY(new_binary(p, NODE_TEST, name->offset, *node, NULL, &test));
  test->name = name->name;
  test->operation = jinja_find_test(name->name);
  if (!test->operation)
    return jinja_error_at(p->template, name->offset, SLUICE_UNSUPPORTED, "there is no test \"%.60s\" here", name->name);
  if (p->at->kind == TOKEN_LPAREN) {
    SLUICE_TRY(parse_arguments(p, test));
  } else if (starts_argument(p)) {
    if (jinja_at_name(p, "is")) return jinja_syntax(p, "no second test: tests cannot be chained");
    jinja_node *argument;
    SLUICE_TRY(parse_primary(p, false, &argument));
    SLUICE_TRY(parse_postfix(p, &argument));
    SLUICE_TRY(jinja_add_node(p, &test->items, &test->count, argument));
  }
  *node = test;
  return negated ? new_binary(p, NODE_NOT, offset, test, NULL, node) : NULL;
}

static sluice_status *parse_filters_and_tests(jinja_parser *p, jinja_node **node) {
  unsigned links = 0;
  for (;; links++) {
    SLUICE_TRY(jinja_enter(p));
    if (p->at->kind == TOKEN_PIPE)
      SLUICE_TRY(jinja_parse_filters(p, false, node));
    else if (jinja_at_name(p, "is"))
      SLUICE_TRY(parse_test(p, node));
    else if (p->at->kind == TOKEN_LPAREN)
      SLUICE_TRY(parse_call(p, node));
    else
      break;
  }
  p->depth -= links + 1;
  return NULL;
}

static sluice_status *parse_unary(jinja_parser *p, bool filters, jinja_node **out) {
  const jinja_token *token = p->at;
  if (jinja_skip(p, TOKEN_SUB) || jinja_skip(p, TOKEN_ADD)) {
    jinja_node *operand;
    SLUICE_TRY(jinja_enter(p));
    SLUICE_TRY(parse_unary(p, false, &operand));
    p->depth--;
    SLUICE_TRY(
        new_binary(p, token->kind == TOKEN_SUB ? NODE_NEGATE : NODE_POSITIVE, token->offset, operand, NULL, out));
  } else {
    SLUICE_TRY(parse_primary(p, false, out));
  }
  SLUICE_TRY(parse_postfix(p, out));
  return filters ? parse_filters_and_tests(p, out) : NULL;
}

/* ---- Names and literals ---- */

static sluice_status *parse_name(jinja_parser *p, bool namespaces, jinja_node **out) {
  static const struct {
    const char *name;
    jinja_kind kind;
    bool boolean;
  } constants[] = {{"true", JINJA_BOOL, true},   {"True", JINJA_BOOL, true},  {"false", JINJA_BOOL, false},
                   {"False", JINJA_BOOL, false}, {"none", JINJA_NONE, false}, {"None", JINJA_NONE, false}};
  const jinja_token *token = p->at++;
  for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++) {
    if (strcmp(constants[i].name, token->name) != 0) continue;
    SLUICE_TRY(jinja_new_node(p, NODE_CONSTANT, token->offset, out));
    (*out)->constant = (jinja_value){.kind = (uint8_t)constants[i].kind, .boolean = constants[i].boolean};
    return NULL;
  }
  if (namespaces && p->at->kind == TOKEN_DOT) {
    p->at++;
    SLUICE_TRY(jinja_new_node(p, NODE_NAMESPACE_TARGET, token->offset, out));
    (*out)->name = token->name;
    jinja_node *attribute;
    SLUICE_TRY(jinja_new_node(p, NODE_NAME, p->at->offset, &attribute));
    attribute->name = p->at->name;
    (*out)->a = attribute;
    return jinja_expect(p, TOKEN_NAME);
  }
  SLUICE_TRY(jinja_new_node(p, NODE_NAME, token->offset, out));
  (*out)->name = token->name;
  if (p->macro) {
    p->macro->uses_caller |= token->name == p->template->caller;
    p->macro->uses_kwargs |= token->name == p->template->kwargs;
    p->macro->uses_varargs |= token->name == p->template->varargs;
  }
  return NULL;
}

static sluice_status *parse_string(jinja_parser *p, jinja_node **out) {
  const jinja_token *first = p->at;
  size_t length = 0, count = 0;
  for (; first[count].kind == TOKEN_STRING; count++) length += first[count].value.string->length;
  SLUICE_TRY(jinja_new_node(p, NODE_CONSTANT, first->offset, out));
  p->at += count;
  (*out)->constant = first->value;
  if (count == 1) return NULL;
  /* Strings beside each other are one. */
  jinja_string *string = jinja_take(&p->template->arena, sizeof *string);
  jinja_buffer *buffer = jinja_take(&p->template->arena, sizeof *buffer);
  char *data = jinja_take(&p->template->arena, length + 1);
  if (!string || !buffer || !data) return sluice_out_of_memory();
  *buffer = (jinja_buffer){.data = data, .length = length, .capacity = length};
  *string = (jinja_string){.buffer = buffer, .length = length, .characters = SIZE_MAX};
  for (size_t i = 0, at = 0; i < count; at += first[i++].value.string->length)
    memcpy(data + at, jinja_bytes(first[i].value.string), first[i].value.string->length);
  jinja_characters(string);
  (*out)->constant.string = string;
  return NULL;
}

static sluice_status *parse_display(jinja_parser *p, bool dict, jinja_node **out) {
  jinja_token_kind end = dict ? TOKEN_RBRACE : TOKEN_RBRACKET;
  SLUICE_TRY(jinja_new_node(p, dict ? NODE_DICT : NODE_LIST, p->at->offset, out));
  p->at++;
  while (p->at->kind != end) {
    if ((*out)->count) {
      SLUICE_TRY(jinja_expect(p, TOKEN_COMMA));
      if (p->at->kind == end) break;
    }
    jinja_node *item;
    SLUICE_TRY(jinja_parse_expression(p, &item));
    SLUICE_TRY(jinja_add_node(p, &(*out)->items, &(*out)->count, item));
    if (!dict) continue;
    SLUICE_TRY(jinja_expect(p, TOKEN_COLON));
    SLUICE_TRY(jinja_parse_expression(p, &item));
    SLUICE_TRY(jinja_add_node(p, &(*out)->items, &(*out)->count, item));
  }
  p->at++;
  return NULL;
}

static sluice_status *parse_primary(jinja_parser *p, bool namespaces, jinja_node **out) {
  const jinja_tuple_form inner = {.conditional = true, .parenthesised = true};
  const jinja_token *token = p->at;
  switch (token->kind) {
  case TOKEN_NAME:
    return parse_name(p, namespaces, out);
  case TOKEN_STRING:
    return parse_string(p, out);
  case TOKEN_INTEGER:
  case TOKEN_FLOAT:
    p->at++;
    SLUICE_TRY(jinja_new_node(p, NODE_CONSTANT, token->offset, out));
    (*out)->constant = token->value;
    return NULL;
  case TOKEN_LPAREN:
    p->at++;
    SLUICE_TRY(jinja_parse_tuple(p, inner, out));
    return jinja_expect(p, TOKEN_RPAREN);
  case TOKEN_LBRACKET:
    return parse_display(p, false, out);
  case TOKEN_LBRACE:
    return parse_display(p, true, out);
  default:
    return jinja_syntax(p, "an expression");
  }
}

static bool ends_tuple(const jinja_parser *p, const char *end) {
  jinja_token_kind kind = p->at->kind;
  return kind == TOKEN_PRINT_END || kind == TOKEN_BLOCK_END || kind == TOKEN_RPAREN || (end && jinja_at_name(p, end));
}

static sluice_status *parse_element(jinja_parser *p, jinja_tuple_form form, jinja_node **out) {
  if (form.simple) return parse_primary(p, form.namespaces, out);
  return form.conditional ? jinja_parse_expression(p, out) : parse_or(p, out);
}

sluice_status *jinja_parse_tuple(jinja_parser *p, jinja_tuple_form form, jinja_node **out) {
  jinja_node *tuple;
  SLUICE_TRY(jinja_enter(p));
  SLUICE_TRY(jinja_new_node(p, NODE_TUPLE, p->at->offset, &tuple));
  bool comma = false;
  while (!ends_tuple(p, form.end)) {
    jinja_node *element;
    SLUICE_TRY(parse_element(p, form, &element));
    SLUICE_TRY(jinja_add_node(p, &tuple->items, &tuple->count, element));
    if (!jinja_skip(p, TOKEN_COMMA)) break;
    comma = true;
  }
  p->depth--;
  *out = tuple;
  if (comma) return NULL;
  if (tuple->count) {
    *out = tuple->items[0];
    return NULL;
  }
  return form.parenthesised ? NULL : jinja_syntax(p, "an expression");
}

static sluice_status *check_target(const jinja_parser *p, const jinja_node *target) {
  if (target->kind == NODE_TUPLE) {
    for (size_t i = 0; i < target->count; i++) SLUICE_TRY(check_target(p, target->items[i]));
    return NULL;
  }
  if (target->kind == NODE_NAME && target->name == p->template->loop)
    return jinja_error_at(p->template, target->offset, SLUICE_INVALID, "\"loop\" cannot be assigned");
  if (target->kind == NODE_NAME || target->kind == NODE_NAMESPACE_TARGET) return NULL;
  return jinja_error_at(p->template, target->offset, SLUICE_INVALID, "this cannot be assigned to");
}

sluice_status *jinja_parse_target(jinja_parser *p, bool namespaces, const char *end, jinja_node **out) {
  const jinja_tuple_form form = {.simple = true, .namespaces = namespaces, .end = end};
  SLUICE_TRY(jinja_parse_tuple(p, form, out));
  return check_target(p, *out);
}

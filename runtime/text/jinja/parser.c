/* The parser of statements. */
#include "runtime/text/jinja/jinja.h"

#include <string.h>

/* ---- What both parts of the parser use ---- */

bool jinja_at_name(const jinja_parser *p, const char *name) {
  return p->at->kind == TOKEN_NAME && strcmp(p->at->name, name) == 0;
}

bool jinja_skip(jinja_parser *p, jinja_token_kind kind) {
  if (p->at->kind != kind) return false;
  p->at++;
  return true;
}

bool jinja_skip_name(jinja_parser *p, const char *name) {
  if (!jinja_at_name(p, name)) return false;
  p->at++;
  return true;
}

sluice_status *jinja_syntax(const jinja_parser *p, const char *expected) {
  const jinja_token *token = p->at;
  if (token->kind == TOKEN_NAME)
    return jinja_error_at(p->template, token->offset, SLUICE_INVALID, "found \"%.60s\", expected %s", token->name,
                          expected);
  return jinja_error_at(p->template, token->offset, SLUICE_INVALID, "found %s, expected %s",
                        jinja_token_names[token->kind], expected);
}

sluice_status *jinja_expect(jinja_parser *p, jinja_token_kind kind) {
  return jinja_skip(p, kind) ? NULL : jinja_syntax(p, jinja_token_names[kind]);
}

sluice_status *jinja_new_node(jinja_parser *p, jinja_node_kind kind, size_t offset, jinja_node **out) {
  jinja_node *node = jinja_take(&p->template->arena, sizeof *node);
  if (!node) return sluice_out_of_memory();
  node->kind = kind;
  node->offset = offset;
  *out = node;
  return NULL;
}

sluice_status *jinja_add_node(jinja_parser *p, jinja_node ***items, size_t *count, jinja_node *node) {
  /* The list has room for the next power of two. */
  if ((*count & (*count - 1)) == 0) {
    jinja_node **grown = jinja_take(&p->template->arena, (*count ? 2 * *count : 1) * sizeof(jinja_node *));
    if (!grown) return sluice_out_of_memory();
    if (*count) memcpy(grown, *items, *count * sizeof *grown);
    *items = grown;
  }
  (*items)[(*count)++] = node;
  return NULL;
}

sluice_status *jinja_enter(jinja_parser *p) {
  if (++p->depth <= JINJA_MAX_NESTING) return NULL;
  return jinja_error_at(p->template, p->at->offset, SLUICE_INVALID, "more than %d levels in each other",
                        JINJA_MAX_NESTING);
}

/* ---- Statements ---- */

/* Statements up to a tag that starts with one of the two names, which is not taken. */
static sluice_status *parse_body(jinja_parser *p, const char *end, const char *other, const char *third,
                                 jinja_node ***items, size_t *count);

/* From behind the tag's last word: its end, the statements up to {% end %}, and that tag but for its "%}". */
static sluice_status *parse_block(jinja_parser *p, const char *end, jinja_node *node) {
  jinja_skip(p, TOKEN_COLON);
  SLUICE_TRY(jinja_expect(p, TOKEN_BLOCK_END));
  SLUICE_TRY(parse_body(p, end, NULL, NULL, &node->items, &node->count));
  p->at++;
  return NULL;
}

static sluice_status *parse_for(jinja_parser *p, jinja_node *node) {
  const jinja_tuple_form iterable = {.end = "recursive"};
  SLUICE_TRY(jinja_parse_target(p, false, "in", &node->a));
  if (!jinja_skip_name(p, "in")) return jinja_syntax(p, "\"in\"");
  SLUICE_TRY(jinja_parse_tuple(p, iterable, &node->b));
  if (jinja_skip_name(p, "if")) SLUICE_TRY(jinja_parse_expression(p, &node->c));
  if (jinja_at_name(p, "recursive"))
    return jinja_error_at(p->template, p->at->offset, SLUICE_UNSUPPORTED, "recursive loops are not supported");
  jinja_skip(p, TOKEN_COLON);
  SLUICE_TRY(jinja_expect(p, TOKEN_BLOCK_END));
  p->loops++;
  SLUICE_TRY(parse_body(p, "endfor", "else", NULL, &node->items, &node->count));
  p->loops--;
  if (jinja_skip_name(p, "endfor")) return NULL;
  p->at++;
  jinja_skip(p, TOKEN_COLON);
  SLUICE_TRY(jinja_expect(p, TOKEN_BLOCK_END));
  SLUICE_TRY(parse_body(p, "endfor", NULL, NULL, &node->more, &node->more_count));
  p->at++;
  return NULL;
}

static sluice_status *parse_if(jinja_parser *p, jinja_node *node) {
  for (;;) { /* an elif becomes an if within the else */
    const jinja_tuple_form test = {0};
    SLUICE_TRY(jinja_parse_tuple(p, test, &node->a));
    jinja_skip(p, TOKEN_COLON);
    SLUICE_TRY(jinja_expect(p, TOKEN_BLOCK_END));
    SLUICE_TRY(parse_body(p, "endif", "else", "elif", &node->items, &node->count));
    if (jinja_skip_name(p, "endif")) return NULL;
    size_t offset = p->at->offset;
    if (jinja_skip_name(p, "else")) {
      jinja_skip(p, TOKEN_COLON);
      SLUICE_TRY(jinja_expect(p, TOKEN_BLOCK_END));
      SLUICE_TRY(parse_body(p, "endif", NULL, NULL, &node->more, &node->more_count));
      p->at++;
      return NULL;
    }
    p->at++;
    jinja_node *inner;
    SLUICE_TRY(jinja_new_node(p, NODE_IF, offset, &inner));
    SLUICE_TRY(jinja_add_node(p, &node->more, &node->more_count, inner));
    node = inner;
  }
}

static sluice_status *parse_set(jinja_parser *p, jinja_node *node) {
  const jinja_tuple_form value = {.conditional = true};
  SLUICE_TRY(jinja_parse_target(p, true, NULL, &node->a));
  if (jinja_skip(p, TOKEN_ASSIGN)) return jinja_parse_tuple(p, value, &node->b);
  node->kind = NODE_SET_BLOCK;
  if (p->at->kind == TOKEN_PIPE) {
    SLUICE_TRY(jinja_new_node(p, NODE_INPUT, p->at->offset, &node->b));
    SLUICE_TRY(jinja_parse_filters(p, false, &node->b));
  }
  return parse_block(p, "endset", node);
}

static sluice_status *parse_with(jinja_parser *p, jinja_node *node) {
  while (p->at->kind != TOKEN_BLOCK_END) {
    if (node->more_count) SLUICE_TRY(jinja_expect(p, TOKEN_COMMA));
    jinja_node *set;
    SLUICE_TRY(jinja_new_node(p, NODE_SET, p->at->offset, &set));
    SLUICE_TRY(jinja_parse_target(p, false, NULL, &set->a));
    SLUICE_TRY(jinja_expect(p, TOKEN_ASSIGN));
    SLUICE_TRY(jinja_parse_expression(p, &set->b));
    SLUICE_TRY(jinja_add_node(p, &node->more, &node->more_count, set));
  }
  return parse_block(p, "endwith", node);
}

static sluice_status *parse_signature(jinja_parser *p, jinja_node *node) {
  SLUICE_TRY(jinja_expect(p, TOKEN_LPAREN));
  bool defaults = false;
  while (p->at->kind != TOKEN_RPAREN) {
    if (node->more_count) SLUICE_TRY(jinja_expect(p, TOKEN_COMMA));
    jinja_node *parameter;
    SLUICE_TRY(jinja_new_node(p, NODE_PARAMETER, p->at->offset, &parameter));
    parameter->name = p->at->name;
    SLUICE_TRY(jinja_expect(p, TOKEN_NAME));
    if (jinja_skip(p, TOKEN_ASSIGN)) {
      SLUICE_TRY(jinja_parse_expression(p, &parameter->a));
      defaults = true;
    } else if (defaults) {
      return jinja_error_at(p->template, parameter->offset, SLUICE_INVALID,
                            "a parameter without a default follows one with a default");
    }
    SLUICE_TRY(jinja_add_node(p, &node->more, &node->more_count, parameter));
  }
  p->at++;
  return NULL;
}

/* The body of a macro, call or generation block, which is a function: no break leaves it. */
static sluice_status *parse_function_body(jinja_parser *p, const char *end, jinja_node *node) {
  unsigned loops = p->loops;
  p->loops = 0;
  SLUICE_TRY(parse_block(p, end, node));
  p->loops = loops;
  return NULL;
}

static sluice_status *parse_macro(jinja_parser *p, jinja_node *node) {
  node->name = p->at->name;
  SLUICE_TRY(jinja_expect(p, TOKEN_NAME));
  SLUICE_TRY(parse_signature(p, node));
  jinja_node *outer = p->macro;
  p->macro = node;
  SLUICE_TRY(parse_function_body(p, "endmacro", node));
  p->macro = outer;
  if (outer) { /* a name used in an inner macro is used in the outer one as well */
    outer->uses_caller |= node->uses_caller;
    outer->uses_kwargs |= node->uses_kwargs;
    outer->uses_varargs |= node->uses_varargs;
  }
  return NULL;
}

static sluice_status *parse_call_block(jinja_parser *p, jinja_node *node) {
  if (p->at->kind == TOKEN_LPAREN) SLUICE_TRY(parse_signature(p, node));
  size_t offset = p->at->offset;
  SLUICE_TRY(jinja_parse_expression(p, &node->a));
  if (node->a->kind != NODE_CALL) return jinja_error_at(p->template, offset, SLUICE_INVALID, "expected a call here");
  return parse_function_body(p, "endcall", node);
}

static sluice_status *parse_filter_block(jinja_parser *p, jinja_node *node) {
  SLUICE_TRY(jinja_new_node(p, NODE_INPUT, p->at->offset, &node->b));
  SLUICE_TRY(jinja_parse_filters(p, true, &node->b));
  return parse_block(p, "endfilter", node);
}

static sluice_status *parse_leave(jinja_parser *p, jinja_node *node) {
  if (p->loops) return NULL;
  return jinja_error_at(p->template, node->offset, SLUICE_INVALID, "\"%s\" outside a loop",
                        node->kind == NODE_BREAK ? "break" : "continue");
}

static sluice_status *parse_print(jinja_parser *p, jinja_node *node) {
  (void)p;
  return jinja_error_at(p->template, node->offset, SLUICE_UNSUPPORTED, "{%% print %%} is not supported");
}

static sluice_status *parse_generation(jinja_parser *p, jinja_node *node) {
  return parse_function_body(p, "endgeneration", node);
}

static const struct {
  const char *name;
  jinja_node_kind kind;
  sluice_status *(*parse)(jinja_parser *, jinja_node *);
} statements[] = {
    {"for", NODE_FOR, parse_for},
    {"if", NODE_IF, parse_if},
    {"set", NODE_SET, parse_set},
    {"with", NODE_WITH, parse_with},
    {"macro", NODE_MACRO, parse_macro},
    {"call", NODE_CALL_BLOCK, parse_call_block},
    {"filter", NODE_FILTER_BLOCK, parse_filter_block},
    {"generation", NODE_GENERATION, parse_generation},
    {"break", NODE_BREAK, parse_leave},
    {"continue", NODE_CONTINUE, parse_leave},
    {"print", NODE_PRINT, parse_print},
};

static sluice_status *parse_statement(jinja_parser *p, jinja_node **out) {
  const jinja_token *token = p->at;
  if (token->kind != TOKEN_NAME) return jinja_syntax(p, "the name of a tag");
  for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++) {
    if (strcmp(statements[i].name, token->name) != 0) continue;
    p->at++;
    SLUICE_TRY(jinja_new_node(p, statements[i].kind, token->offset, out));
    SLUICE_TRY(jinja_enter(p));
    SLUICE_TRY(statements[i].parse(p, *out));
    p->depth--;
    return NULL;
  }
  static const char *const known[] = {"block",      "extends", "include", "import", "from",
                                      "autoescape", "do",      "trans",   "debug"};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (strcmp(known[i], token->name) == 0)
      return jinja_error_at(p->template, token->offset, SLUICE_UNSUPPORTED, "the tag \"%s\" is not supported",
                            token->name);
  return jinja_error_at(p->template, token->offset, SLUICE_INVALID, "found the unexpected tag \"%.60s\"", token->name);
}

static sluice_status *parse_body(jinja_parser *p, const char *end, const char *other, const char *third,
                                 jinja_node ***items, size_t *count) {
  const jinja_tuple_form print = {.conditional = true};
  for (;;) {
    const jinja_token *token = p->at;
    jinja_node *node;
    switch (token->kind) {
    case TOKEN_DATA:
      p->at++;
      SLUICE_TRY(jinja_new_node(p, NODE_OUTPUT_TEXT, token->offset, &node));
      node->constant = token->value;
      break;
    case TOKEN_PRINT_BEGIN:
      p->at++;
      SLUICE_TRY(jinja_new_node(p, NODE_PRINT, token->offset, &node));
      SLUICE_TRY(jinja_parse_tuple(p, print, &node->a));
      SLUICE_TRY(jinja_expect(p, TOKEN_PRINT_END));
      break;
    case TOKEN_BLOCK_BEGIN:
      p->at++;
      if (end && (jinja_at_name(p, end) || (other && jinja_at_name(p, other)) || (third && jinja_at_name(p, third))))
        return NULL;
      SLUICE_TRY(parse_statement(p, &node));
      SLUICE_TRY(jinja_expect(p, TOKEN_BLOCK_END));
      break;
    default:
      if (!end) return token->kind == TOKEN_END ? NULL : jinja_syntax(p, "a tag");
      return jinja_error_at(p->template, token->offset, SLUICE_INVALID, "the template ends, but {%% %s %%} is missing",
                            end);
    }
    SLUICE_TRY(jinja_add_node(p, items, count, node));
  }
}

sluice_status *jinja_parse(sluice_template *template) {
  jinja_parser p = {.template = template, .at = template->tokens};
  return parse_body(&p, NULL, NULL, NULL, &template->body, &template->body_count);
}

/* What the files of the template interpreter share. The way of a template:
 *
 *   text ─ lexer.c ─▶ tokens ─ parser*.c ─▶ nodes ─ statements.c, expressions.c ─▶ output
 *
 * Values are Python's, because templates are written for Jinja2 in Python: ints and floats differ, dicts keep their
 * order, text is a list of code points. Every value of one rendering lives in one arena, which also counts: an
 * evaluation that takes more memory or steps than its limits ends with an error.
 *
 * Strings remember which of their bytes came from a message and which from the template ("plain" bytes, see
 * sluice/tokenizer.h): a string is a part of a buffer, and a buffer has a list of such spans, so that slicing and
 * appending keep them at no cost.
 */
#ifndef SLUICE_TEXT_JINJA_H
#define SLUICE_TEXT_JINJA_H

#include "sluice/json.h"
#include "sluice/template.h"

#include <stdbool.h>

/* ---- Memory: freed all at once ---- */

typedef struct jinja_chunk {
  struct jinja_chunk *next;
  size_t used, size;
  _Alignas(16) char data[];
} jinja_chunk;

typedef struct jinja_arena {
  jinja_chunk *chunks;
  size_t bytes, limit;
} jinja_arena;

/* Zeroed, aligned to 16; NULL when memory is short or the limit is reached. */
void *jinja_take(jinja_arena *arena, size_t bytes);
void jinja_arena_free(jinja_arena *arena);

/* ---- Values ---- */

typedef enum jinja_kind {
  JINJA_MISSING, /* an argument that was not given; never seen by a template */
  JINJA_UNDEFINED,
  JINJA_NONE,
  JINJA_BOOL,
  JINJA_INT,
  JINJA_FLOAT,
  JINJA_STRING,
  JINJA_LIST,
  JINJA_TUPLE,
  JINJA_DICT,
  JINJA_VIEW,  /* of a dict: items(), keys(), values() */
  JINJA_RANGE, /* range(...) */
  JINJA_ITERATOR,
  JINJA_NAMESPACE,
  JINJA_LOOP,
  JINJA_MACRO,
  JINJA_FUNCTION, /* a global function */
  JINJA_METHOD,   /* of a string, list, dict or loop, with its object */
} jinja_kind;

typedef struct jinja_buffer {
  char *data;
  size_t length, capacity;
  sluice_span *plain; /* ascending, apart */
  size_t plain_count, plain_capacity;
} jinja_buffer;

typedef struct jinja_string {
  jinja_buffer *buffer;
  size_t start, length; /* bytes of the buffer */
  size_t characters;    /* code points; SIZE_MAX: not counted yet */
  bool safe;            /* made by |safe or |escape: Python's Markup */
} jinja_string;

typedef struct jinja_value {
  uint8_t kind;  /* jinja_kind */
  uint8_t owner; /* undefined: the kind of the object that lacks `string`; 0: a variable */
  uint8_t note;  /* undefined: enum jinja_undefined; view: enum jinja_view */
  union {
    bool boolean;
    int64_t integer;
    double number;
    jinja_string *string; /* undefined: its name, or NULL */
    const char *hint;     /* undefined with JINJA_UNDEFINED_HINT */
    struct jinja_list *list;
    struct jinja_dict *dict; /* dict, view, namespace */
    struct jinja_range *range;
    struct jinja_iterator *iterator;
    struct jinja_loop *loop;
    struct jinja_macro *macro;
    const struct jinja_function *function;
    struct jinja_method *method;
  };
} jinja_value;

enum jinja_undefined { JINJA_UNDEFINED_NAME, JINJA_UNDEFINED_UNSAFE, JINJA_UNDEFINED_HINT };
enum jinja_view { JINJA_VIEW_ITEMS, JINJA_VIEW_KEYS, JINJA_VIEW_VALUES };

typedef struct jinja_list { /* tuples too */
  jinja_value *items;
  size_t count, capacity;
} jinja_list;

typedef struct jinja_entry {
  jinja_value key, value;
  uint64_t hash;
} jinja_entry;

typedef struct jinja_dict {
  jinja_entry *entries; /* in the order of insertion */
  size_t count, capacity;
  uint32_t *table; /* entry + 1, by hash; NULL while there are few */
  size_t table_size;
} jinja_dict;

typedef struct jinja_range {
  int64_t start, stop, step; /* `stop` as it was given: for printing */
  size_t count;
} jinja_range;

typedef struct jinja_environment jinja_environment;
typedef struct jinja_node jinja_node;
typedef struct jinja_scope jinja_scope;

typedef struct jinja_arguments {
  const jinja_value *values;
  size_t count;
  const char *const *names; /* of the keyword arguments; interned or not */
  const jinja_value *named;
  size_t named_count;
} jinja_arguments;

typedef struct jinja_function {
  const char *name;
  sluice_status *(*call)(jinja_environment *, const jinja_arguments *, jinja_value *out);
} jinja_function;

/* A method, filter or test: `input` is its object, `values` are bound to `parameters` ("old,new,count=", those with '='
 * may be left out and are then JINJA_MISSING). */
typedef struct jinja_operation {
  const char *name, *parameters;
  sluice_status *(*call)(jinja_environment *, const jinja_value *input, const jinja_value *values, jinja_value *out);
} jinja_operation;

typedef struct jinja_method {
  jinja_value object;
  const jinja_operation *operation;
} jinja_method;

typedef struct jinja_macro {
  const jinja_node *node;
  jinja_scope *scope; /* where it was defined */
} jinja_macro;

typedef struct jinja_iterator {
  enum { JINJA_OVER_VALUES, JINJA_OVER_TEXT, JINJA_OVER_RANGE, JINJA_OVER_DICT, JINJA_MAPPED, JINJA_FILTERED } form;
  enum jinja_view view;
  jinja_value source;
  const jinja_value *values;
  size_t at, count;              /* of values; bytes of text; numbers of a range; entries */
  struct jinja_iterator *inner;  /* mapped, filtered */
  const jinja_operation *filter; /* mapped: the filter; NULL: an attribute. Filtered: the test; NULL: truth */
  jinja_value *path;             /* attribute parts */
  size_t path_count;
  jinja_value otherwise; /* mapped: default */
  const jinja_value *bound;
  bool negated, by_attribute;
  const jinja_node *loop; /* filtered: a for loop's own condition */
  jinja_scope *scope;
} jinja_iterator;

typedef struct jinja_loop {
  jinja_value iterable;
  jinja_iterator *iterator;
  jinja_value current, before, after; /* JINJA_MISSING: none */
  int64_t index0;
  int64_t length; /* -1: not known yet */
  jinja_value changed;
} jinja_loop;

/* ---- Nodes ---- */

typedef enum jinja_node_kind {
  NODE_OUTPUT_TEXT, /* constant */
  NODE_PRINT,       /* a */
  NODE_FOR,         /* a target, b iterable, c condition; body items, else `more` */
  NODE_IF,          /* a condition; body items, else `more` (an elif is an if in it) */
  NODE_SET,         /* a target, b value */
  NODE_SET_BLOCK,   /* a target, b filters over NODE_INPUT or NULL; body items */
  NODE_WITH,        /* more: NODE_SET; body items */
  NODE_MACRO,       /* name; parameters `more` (NODE_PARAMETER); body items */
  NODE_CALL_BLOCK,  /* a NODE_CALL; parameters `more`; body items */
  NODE_FILTER_BLOCK,
  NODE_GENERATION, /* body items */
  NODE_BREAK,
  NODE_CONTINUE,
  NODE_PARAMETER, /* name; a default or NULL */
  NODE_INPUT,     /* what a block's filters are applied to */
  NODE_CONSTANT,
  NODE_NAME,
  NODE_NAMESPACE_TARGET, /* name . constant */
  NODE_ATTRIBUTE,        /* a . constant */
  NODE_ITEM,             /* a [ b ] */
  NODE_SLICE,            /* a [ items[0] : items[1] : items[2] ], NULL where left out */
  NODE_CALL,             /* a ( items ); keywords `more` (NODE_KEYWORD), *b, **c */
  NODE_FILTER,           /* a | name ( items ) as NODE_CALL, with `operation` */
  NODE_TEST,             /* a is name ( items ) */
  NODE_KEYWORD,          /* name = a */
  NODE_LIST,
  NODE_TUPLE,
  NODE_DICT,    /* items: key, value, key, ... */
  NODE_COMPARE, /* a, then items with `operator` each */
  NODE_OPERAND, /* operator a */
  NODE_BINARY,  /* a operator b */
  NODE_CONCAT,  /* items */
  NODE_AND,
  NODE_OR,
  NODE_NOT,
  NODE_NEGATE,
  NODE_POSITIVE,
  NODE_CONDITIONAL, /* a if b else c; c may be NULL */
} jinja_node_kind;

typedef enum jinja_token_kind {
  TOKEN_END,
  TOKEN_DATA,
  TOKEN_BLOCK_BEGIN,
  TOKEN_BLOCK_END,
  TOKEN_PRINT_BEGIN,
  TOKEN_PRINT_END,
  TOKEN_NAME,
  TOKEN_STRING,
  TOKEN_INTEGER,
  TOKEN_FLOAT,
  TOKEN_ADD, /* operators, in the order of jinja_token_names */
  TOKEN_SUB,
  TOKEN_POW,
  TOKEN_MUL,
  TOKEN_FLOORDIV,
  TOKEN_DIV,
  TOKEN_MOD,
  TOKEN_TILDE,
  TOKEN_LBRACKET,
  TOKEN_RBRACKET,
  TOKEN_LPAREN,
  TOKEN_RPAREN,
  TOKEN_LBRACE,
  TOKEN_RBRACE,
  TOKEN_EQ,
  TOKEN_NE,
  TOKEN_GE,
  TOKEN_GT,
  TOKEN_LE,
  TOKEN_LT,
  TOKEN_ASSIGN,
  TOKEN_DOT,
  TOKEN_COLON,
  TOKEN_PIPE,
  TOKEN_COMMA,
  TOKEN_SEMICOLON,
  TOKEN_IN, /* operators of NODE_OPERAND only */
  TOKEN_NOT_IN,
} jinja_token_kind;
extern const char *const jinja_token_names[];

typedef struct jinja_token {
  jinja_token_kind kind;
  size_t offset;     /* in the template's text */
  const char *name;  /* names: interned */
  jinja_value value; /* data, strings, numbers */
} jinja_token;

struct jinja_node {
  jinja_node_kind kind;
  jinja_token_kind operator;
  size_t offset;
  const char *name; /* interned */
  jinja_value constant;
  jinja_node *a, *b, *c;
  jinja_node **items, **more;
  size_t count, more_count;
  const jinja_operation *operation;
  bool uses_varargs, uses_kwargs, uses_caller; /* macros */
};

struct sluice_template {
  jinja_arena arena;
  char *file;
  char *text; /* newlines are "\n"; without the last one */
  size_t length;
  const char **names; /* interned, by hash */
  size_t name_count, name_capacity;
  jinja_token *tokens;
  size_t token_count, token_capacity;
  jinja_node **body;
  size_t body_count;
  const char *loop, *caller, *varargs, *kwargs; /* interned */
};

/* An error at a byte of the template's text. */
SLUICE_NEW_ERROR sluice_status *jinja_error_at(const sluice_template *template, size_t offset, sluice_code code,
                                               const char *format, ...) SLUICE_PRINTF(4, 5);
const char *jinja_intern(sluice_template *template, const char *name, size_t length); /* NULL: out of memory */
SLUICE_MUST_USE sluice_status *jinja_lex(sluice_template *template);
SLUICE_MUST_USE sluice_status *jinja_parse(sluice_template *template);

/* ---- Parsing: parser.c has statements, parser_expressions.c the rest ---- */

enum { JINJA_MAX_NESTING = 200 }; /* of statements, brackets and operators */

typedef struct jinja_parser {
  sluice_template *template;
  const jinja_token *at;
  unsigned depth, loops;
  jinja_node *macro; /* the one being parsed */
} jinja_parser;

bool jinja_at_name(const jinja_parser *parser, const char *name);
bool jinja_skip(jinja_parser *parser, jinja_token_kind kind);
bool jinja_skip_name(jinja_parser *parser, const char *name);
SLUICE_MUST_USE sluice_status *jinja_expect(jinja_parser *parser, jinja_token_kind kind);
SLUICE_NEW_ERROR sluice_status *jinja_syntax(const jinja_parser *parser, const char *expected);
SLUICE_MUST_USE sluice_status *jinja_new_node(jinja_parser *parser, jinja_node_kind kind, size_t offset,
                                              jinja_node **out);
SLUICE_MUST_USE sluice_status *jinja_add_node(jinja_parser *parser, jinja_node ***items, size_t *count,
                                              jinja_node *node);
SLUICE_MUST_USE sluice_status *jinja_enter(jinja_parser *parser);

typedef struct jinja_tuple_form {
  bool simple;        /* names and literals only: a target */
  bool conditional;   /* "a if b else c" may come */
  bool parenthesised; /* () is a tuple */
  bool namespaces;    /* a.b is a target */
  const char *end;    /* a name that ends it, or NULL */
} jinja_tuple_form;
SLUICE_MUST_USE sluice_status *jinja_parse_tuple(jinja_parser *parser, jinja_tuple_form form, jinja_node **out);
SLUICE_MUST_USE sluice_status *jinja_parse_expression(jinja_parser *parser, jinja_node **out);
SLUICE_MUST_USE sluice_status *jinja_parse_target(jinja_parser *parser, bool namespaces, const char *end,
                                                  jinja_node **out);
/* `first`: the filter's name comes without a bar. */
SLUICE_MUST_USE sluice_status *jinja_parse_filters(jinja_parser *parser, bool first, jinja_node **node);

/* ---- Evaluating ---- */

typedef struct jinja_variable {
  const char *name;
  jinja_value value;
} jinja_variable;

struct jinja_scope {
  jinja_scope *parent;
  jinja_variable *variables;
  size_t count, capacity;
  bool captured; /* a macro keeps it */
};

struct jinja_environment {
  const sluice_template *template;
  jinja_arena arena;
  sluice_template_limits limits;
  uint64_t steps;
  unsigned depth;
  size_t at;            /* where in the text evaluation is */
  jinja_buffer *output; /* of the block at hand */
  jinja_dict *context;  /* the caller's variables */
  jinja_scope *scope;
  jinja_value block_input;
  int64_t now; /* seconds since 1970 */
  enum { FLOW_NORMAL, FLOW_BREAK, FLOW_CONTINUE } flow;
};

#define JINJA_ERROR(environment, ...)                                                                                  \
  jinja_error_at((environment)->template, (environment)->at, SLUICE_INVALID, __VA_ARGS__)
#define JINJA_UNSUPPORTED(environment, ...)                                                                            \
  jinja_error_at((environment)->template, (environment)->at, SLUICE_UNSUPPORTED, __VA_ARGS__)

/* Takes memory of the rendering; NULL must be answered with jinja_exhausted. */
void *jinja_new(jinja_environment *environment, size_t bytes);
SLUICE_NEW_ERROR sluice_status *jinja_exhausted(const jinja_environment *environment);
/* Counts work: an error when the limit is reached. */
SLUICE_MUST_USE sluice_status *jinja_spend(jinja_environment *environment, size_t steps);
/* One level deeper; `environment->depth--` leaves it. */
SLUICE_MUST_USE sluice_status *jinja_descend(jinja_environment *environment);

SLUICE_MUST_USE sluice_status *jinja_evaluate(jinja_environment *environment, const jinja_node *node, jinja_value *out);
SLUICE_MUST_USE sluice_status *jinja_run(jinja_environment *environment, jinja_node *const *body, size_t count);
SLUICE_MUST_USE sluice_status *jinja_call(jinja_environment *environment, const jinja_value *callee,
                                          const jinja_arguments *arguments, jinja_value *out);
SLUICE_MUST_USE sluice_status *jinja_call_macro(jinja_environment *environment, const jinja_macro *macro,
                                                const jinja_arguments *arguments, jinja_value *out);
SLUICE_MUST_USE sluice_status *jinja_assign(jinja_environment *environment, const jinja_node *target,
                                            const jinja_value *value);
/* The variable of that (interned) name, or undefined. */
SLUICE_MUST_USE sluice_status *jinja_lookup(jinja_environment *environment, const char *name, jinja_value *out);
SLUICE_MUST_USE sluice_status *jinja_scope_new(jinja_environment *environment, jinja_scope *parent, jinja_scope **out);
SLUICE_MUST_USE sluice_status *jinja_scope_set(jinja_environment *environment, jinja_scope *scope, const char *name,
                                               const jinja_value *value);
/* Binds arguments to "name,name=,..." and calls. */
SLUICE_MUST_USE sluice_status *jinja_operate(jinja_environment *environment, const char *what,
                                             const jinja_operation *operation, const jinja_value *input,
                                             const jinja_arguments *arguments, jinja_value *out);
enum { JINJA_MAX_PARAMETERS = 8 };
SLUICE_MUST_USE sluice_status *jinja_bind(jinja_environment *environment, const char *what, const char *name,
                                          const char *parameters, const jinja_arguments *arguments,
                                          jinja_value values[JINJA_MAX_PARAMETERS]);

/* The tables: NULL when there is no such filter, ... */
const jinja_operation *jinja_find_filter(const char *name);
const jinja_operation *jinja_find_test(const char *name);
const jinja_function *jinja_find_function(const char *name);
extern const jinja_operation jinja_text_filters[], jinja_sequence_filters[]; /* each ends with a NULL name */
/* `map`, `select`, `reject`, `selectattr`, `rejectattr`, whose arguments are those of another filter or test. */
bool jinja_is_higher(const char *name);
SLUICE_MUST_USE sluice_status *jinja_higher(jinja_environment *environment, const char *name, const jinja_value *input,
                                            const jinja_arguments *arguments, jinja_value *out);

/* object.name and object[key] as the sandbox gives them. */
SLUICE_MUST_USE sluice_status *jinja_attribute(jinja_environment *environment, const jinja_value *object,
                                               jinja_string *name, jinja_value *out);
SLUICE_MUST_USE sluice_status *jinja_item(jinja_environment *environment, const jinja_value *object,
                                          const jinja_value *key, jinja_value *out);
SLUICE_MUST_USE sluice_status *jinja_slice(jinja_environment *environment, const jinja_value *object,
                                           const jinja_value bounds[3], jinja_value *out);
/* A Python attribute of the object; JINJA_MISSING when it has none. */
SLUICE_MUST_USE sluice_status *jinja_python_attribute(jinja_environment *environment, const jinja_value *object,
                                                      const jinja_string *name, jinja_value *out);
extern const jinja_operation jinja_string_methods[], jinja_dict_methods[], jinja_list_methods[];
extern const jinja_operation jinja_loop_cycle, jinja_loop_changed; /* their arguments are the caller's own */
SLUICE_MUST_USE sluice_status *jinja_call_loop(jinja_environment *environment, const jinja_method *method,
                                               const jinja_arguments *arguments, jinja_value *out);
SLUICE_MUST_USE sluice_status *jinja_loop_attribute(jinja_environment *environment, const jinja_value *object,
                                                    const jinja_string *name, jinja_value *out);

/* Operators. */
SLUICE_MUST_USE sluice_status *jinja_binary(jinja_environment *environment, jinja_token_kind op,
                                            const jinja_value *left, const jinja_value *right, jinja_value *out);
SLUICE_MUST_USE sluice_status *jinja_unary(jinja_environment *environment, jinja_node_kind op,
                                           const jinja_value *operand, jinja_value *out);
SLUICE_MUST_USE sluice_status *jinja_compare(jinja_environment *environment, jinja_token_kind op,
                                             const jinja_value *left, const jinja_value *right, bool *out);
SLUICE_MUST_USE sluice_status *jinja_contains(jinja_environment *environment, const jinja_value *container,
                                              const jinja_value *value, bool *out);
/* "%s" % values. */
SLUICE_MUST_USE sluice_status *jinja_format(jinja_environment *environment, const jinja_string *format,
                                            const jinja_value *values, jinja_value *out);
/* "{}".format(...) */
SLUICE_MUST_USE sluice_status *jinja_brace_format(jinja_environment *environment, const jinja_string *format,
                                                  const jinja_arguments *arguments, jinja_value *out);

/* Values. */
bool jinja_truth(const jinja_value *value);
SLUICE_MUST_USE sluice_status *jinja_equal(jinja_environment *environment, const jinja_value *a, const jinja_value *b,
                                           bool *out);
/* -1, 0, 1 into *out for a < b, a == b, a > b; an error when they have no order. */
SLUICE_MUST_USE sluice_status *jinja_order(jinja_environment *environment, const jinja_value *a, const jinja_value *b,
                                           int *out);
const char *jinja_type_name(jinja_kind kind); /* Python's */
/* What an operation on an undefined value ends with. */
SLUICE_NEW_ERROR sluice_status *jinja_undefined_error(jinja_environment *environment, const jinja_value *value);
/* Ints and bools. */
bool jinja_as_integer(const jinja_value *value, int64_t *out);
bool jinja_as_number(const jinja_value *value, double *out); /* floats too */
SLUICE_MUST_USE sluice_status *jinja_from_json(jinja_environment *environment, const sluice_json_value *json,
                                               bool plain, jinja_value *out);

static inline jinja_value jinja_none(void) {
  return (jinja_value){.kind = JINJA_NONE};
}
static inline jinja_value jinja_bool(bool boolean) {
  return (jinja_value){.kind = JINJA_BOOL, .boolean = boolean};
}
static inline jinja_value jinja_int(int64_t integer) {
  return (jinja_value){.kind = JINJA_INT, .integer = integer};
}
static inline jinja_value jinja_float(double number) {
  return (jinja_value){.kind = JINJA_FLOAT, .number = number};
}
static inline jinja_value jinja_hint(const char *hint) {
  return (jinja_value){.kind = JINJA_UNDEFINED, .note = JINJA_UNDEFINED_HINT, .hint = hint};
}

/* Lists and dicts. */
SLUICE_MUST_USE sluice_status *jinja_list_new(jinja_environment *environment, jinja_kind kind, size_t capacity,
                                              jinja_value *out);
SLUICE_MUST_USE sluice_status *jinja_list_add(jinja_environment *environment, jinja_list *list,
                                              const jinja_value *value);
SLUICE_MUST_USE sluice_status *jinja_dict_new(jinja_environment *environment, jinja_value *out);
SLUICE_MUST_USE sluice_status *jinja_dict_set(jinja_environment *environment, jinja_dict *dict, const jinja_value *key,
                                              const jinja_value *value);
/* `*out`: the entry, or NULL. A key that cannot be hashed is an error, unless `hashable` is given, which then tells. */
SLUICE_MUST_USE sluice_status *jinja_dict_find(jinja_environment *environment, const jinja_dict *dict,
                                               const jinja_value *key, bool *hashable, const jinja_entry **out);
/* By a name of C. */
const jinja_value *jinja_dict_get(const jinja_dict *dict, const char *name, size_t length);

/* Iterating. */
SLUICE_MUST_USE sluice_status *jinja_iterate(jinja_environment *environment, const jinja_value *value,
                                             jinja_iterator **out);
SLUICE_MUST_USE sluice_status *jinja_next(jinja_environment *environment, jinja_iterator *iterator, jinja_value *out,
                                          bool *more);
bool jinja_iterable(const jinja_value *value);
SLUICE_MUST_USE sluice_status *jinja_to_list(jinja_environment *environment, const jinja_value *value,
                                             jinja_value *out);
SLUICE_MUST_USE sluice_status *jinja_over(jinja_environment *environment, const jinja_list *list, jinja_value *out);
/* len(); an error for what has none. */
SLUICE_MUST_USE sluice_status *jinja_length(jinja_environment *environment, const jinja_value *value, int64_t *out);
/* "a.b.0" in parts. */
SLUICE_MUST_USE sluice_status *jinja_path(jinja_environment *environment, const jinja_value *attribute,
                                          jinja_value **out_parts, size_t *out_count);
SLUICE_MUST_USE sluice_status *jinja_follow(jinja_environment *environment, const jinja_value *object,
                                            const jinja_value *parts, size_t count, const jinja_value *otherwise,
                                            jinja_value *out);

/* ---- Strings ---- */

static inline const char *jinja_bytes(const jinja_string *string) {
  return string->buffer->data + string->start;
}
SLUICE_MUST_USE sluice_status *jinja_new_string(jinja_environment *environment, const char *bytes, size_t length,
                                                bool plain, jinja_value *out);
SLUICE_MUST_USE sluice_status *jinja_substring(jinja_environment *environment, const jinja_string *string, size_t start,
                                               size_t length, jinja_value *out);
SLUICE_MUST_USE sluice_status *jinja_buffer_new(jinja_environment *environment, size_t capacity, jinja_buffer **out);
SLUICE_MUST_USE sluice_status *jinja_put(jinja_environment *environment, jinja_buffer *buffer, const char *bytes,
                                         size_t length, bool plain);
SLUICE_MUST_USE sluice_status *jinja_put_part(jinja_environment *environment, jinja_buffer *buffer,
                                              const jinja_string *string, size_t start, size_t length);
SLUICE_MUST_USE sluice_status *jinja_put_string(jinja_environment *environment, jinja_buffer *buffer,
                                                const jinja_string *string);
SLUICE_MUST_USE sluice_status *jinja_take_buffer(jinja_environment *environment, jinja_buffer *buffer,
                                                 jinja_value *out);
bool jinja_any_plain(const jinja_string *string);
bool jinja_plain_at(const jinja_string *string, size_t byte);
SLUICE_MUST_USE sluice_status *jinja_append(jinja_environment *environment, const jinja_string *left,
                                            const jinja_string *right, jinja_value *out);
size_t jinja_characters(jinja_string *string);
/* The byte at which a character begins; `string->length` for one past the end. */
size_t jinja_byte_of(jinja_string *string, size_t character);
uint32_t jinja_code_point(const char *bytes, size_t *length);
bool jinja_is_space(uint32_t code_point);
bool jinja_string_is(const jinja_string *string, const char *text);
/* The first place of `part` in `string` from byte `from` on; SIZE_MAX: none. */
size_t jinja_find(const jinja_string *string, const jinja_string *part, size_t from);
size_t jinja_leading_space(const jinja_string *string);
size_t jinja_trailing_space(const jinja_string *string, size_t from);

typedef enum jinja_case { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_FOLD } jinja_case;
/* The mapping of one character: up to 3 code points. */
size_t jinja_map_case(uint32_t code_point, jinja_case to, uint32_t out[3]);
bool jinja_is_cased(uint32_t code_point);
bool jinja_is_printable(uint32_t code_point);
SLUICE_MUST_USE sluice_status *jinja_change_case(jinja_environment *environment, const jinja_string *string,
                                                 jinja_case first, jinja_case rest, jinja_value *out);

/* ---- Output ---- */

SLUICE_MUST_USE sluice_status *jinja_put_text(jinja_environment *environment, jinja_buffer *buffer,
                                              const jinja_value *value); /* str(value) */
SLUICE_MUST_USE sluice_status *jinja_put_repr(jinja_environment *environment, jinja_buffer *buffer,
                                              const jinja_value *value);
SLUICE_MUST_USE sluice_status *jinja_to_string(jinja_environment *environment, const jinja_value *value,
                                               jinja_value *out);
size_t jinja_float_text(double number, char out[40]);

typedef struct jinja_json_form {
  bool ascii, sorted, indented;
  const jinja_string *indent;                         /* one level */
  const jinja_string *item_separator, *key_separator; /* NULL: the usual ones */
} jinja_json_form;
SLUICE_MUST_USE sluice_status *jinja_put_json(jinja_environment *environment, jinja_buffer *buffer,
                                              const jinja_value *value, const jinja_json_form *form, unsigned level);
SLUICE_MUST_USE sluice_status *jinja_sort(jinja_environment *environment, jinja_value *items, jinja_value *keys,
                                          size_t count, bool reverse);
SLUICE_MUST_USE sluice_status *jinja_escape(jinja_environment *environment, const jinja_value *value, jinja_value *out);
/* int(text), float(text) of Python; false: not one. */
bool jinja_parse_integer(const char *text, size_t length, int base, int64_t *out, bool *out_overflow);
bool jinja_parse_float(const char *text, size_t length, double *out);

#endif

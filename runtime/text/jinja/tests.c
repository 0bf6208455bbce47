/* Tests: "value is name". */
#include "runtime/text/jinja/jinja.h"

#include <string.h>

#define TEST(name)                                                                                                     \
  static sluice_status *name(jinja_environment *e, const jinja_value *input, const jinja_value *values,                \
                             jinja_value *out)

/* A test of the kind alone. */
#define KIND_TEST(name, condition)                                                                                     \
  TEST(name) {                                                                                                         \
    (void)e, (void)values;                                                                                             \
    *out = jinja_bool(condition);                                                                                      \
    return NULL;                                                                                                       \
  }

KIND_TEST(test_defined, input->kind != JINJA_UNDEFINED)
KIND_TEST(test_undefined, input->kind == JINJA_UNDEFINED)
KIND_TEST(test_none, input->kind == JINJA_NONE)
KIND_TEST(test_boolean, input->kind == JINJA_BOOL)
KIND_TEST(test_true, input->kind == JINJA_BOOL && input->boolean)
KIND_TEST(test_false, input->kind == JINJA_BOOL && !input->boolean)
KIND_TEST(test_integer, input->kind == JINJA_INT)
KIND_TEST(test_float, input->kind == JINJA_FLOAT)
KIND_TEST(test_number, input->kind == JINJA_INT || input->kind == JINJA_FLOAT || input->kind == JINJA_BOOL)
KIND_TEST(test_string, input->kind == JINJA_STRING)
KIND_TEST(test_mapping, input->kind == JINJA_DICT)
KIND_TEST(test_iterable, jinja_iterable(input))
KIND_TEST(test_sequence, input->kind == JINJA_STRING || input->kind == JINJA_LIST || input->kind == JINJA_TUPLE ||
                             input->kind == JINJA_DICT || input->kind == JINJA_RANGE || input->kind == JINJA_UNDEFINED)
KIND_TEST(test_callable, input->kind == JINJA_MACRO || input->kind == JINJA_FUNCTION || input->kind == JINJA_METHOD ||
                             input->kind == JINJA_LOOP || input->kind == JINJA_UNDEFINED)
KIND_TEST(test_escaped, input->kind == JINJA_STRING && input->string->safe)

static sluice_status *compare(jinja_environment *e, jinja_token_kind op, const jinja_value *input,
                              const jinja_value *values, jinja_value *out) {
  bool result;
  SLUICE_TRY(jinja_compare(e, op, input, &values[0], &result));
  *out = jinja_bool(result);
  return NULL;
}

TEST(test_eq) {
  return compare(e, TOKEN_EQ, input, values, out);
}
TEST(test_ne) {
  return compare(e, TOKEN_NE, input, values, out);
}
TEST(test_lt) {
  return compare(e, TOKEN_LT, input, values, out);
}
TEST(test_le) {
  return compare(e, TOKEN_LE, input, values, out);
}
TEST(test_gt) {
  return compare(e, TOKEN_GT, input, values, out);
}
TEST(test_ge) {
  return compare(e, TOKEN_GE, input, values, out);
}
TEST(test_in) {
  return compare(e, TOKEN_IN, input, values, out);
}

TEST(test_sameas) {
  const jinja_value *other = &values[0];
  bool same = input->kind == other->kind;
  if (same && (input->kind == JINJA_INT || input->kind == JINJA_FLOAT))
    return JINJA_UNSUPPORTED(e, "sameas of numbers is not supported: use ==");
  if (same && input->kind == JINJA_BOOL) same = input->boolean == other->boolean;
  if (same && input->kind > JINJA_BOOL) same = input->list == other->list; /* the same object */
  *out = jinja_bool(same);
  return NULL;
}

static sluice_status *remainder_is(jinja_environment *e, const jinja_value *input, const jinja_value *divisor,
                                   int64_t wanted, jinja_value *out) {
  jinja_value rest, expected = jinja_int(wanted);
  bool equal;
  SLUICE_TRY(jinja_binary(e, TOKEN_MOD, input, divisor, &rest));
  SLUICE_TRY(jinja_equal(e, &rest, &expected, &equal));
  *out = jinja_bool(equal);
  return NULL;
}

TEST(test_even) {
  (void)values;
  jinja_value two = jinja_int(2);
  return remainder_is(e, input, &two, 0, out);
}
TEST(test_odd) {
  (void)values;
  jinja_value two = jinja_int(2);
  return remainder_is(e, input, &two, 1, out);
}
TEST(test_divisibleby) {
  return remainder_is(e, input, &values[0], 0, out);
}

/* str(value).islower() */
static sluice_status *case_test(jinja_environment *e, const char *name, const jinja_value *input,
                                const jinja_value *values, jinja_value *out) {
  jinja_value text;
  SLUICE_TRY(jinja_to_string(e, input, &text));
  const jinja_operation *method = jinja_string_methods;
  while (method->name && strcmp(method->name, name) != 0) method++;
  if (!method->name) return sluice_error(SLUICE_INTERNAL, "no method %s", name);
  return method->call(e, &text, values, out);
}

TEST(test_lower) {
  return case_test(e, "islower", input, values, out);
}
TEST(test_upper) {
  return case_test(e, "isupper", input, values, out);
}

static sluice_status *exists(jinja_environment *e, const jinja_value *input, bool filter, jinja_value *out) {
  char name[64] = "";
  if (input->kind != JINJA_STRING) return JINJA_ERROR(e, "the name of a filter or test must be a str");
  if (input->string->length < sizeof name) memcpy(name, jinja_bytes(input->string), input->string->length);
  *out = jinja_bool(filter ? jinja_find_filter(name) || jinja_is_higher(name) : jinja_find_test(name) != NULL);
  return NULL;
}

TEST(test_filter) {
  (void)values;
  return exists(e, input, true, out);
}
TEST(test_test) {
  (void)values;
  return exists(e, input, false, out);
}

static const jinja_operation tests[] = {
    {"defined", "", test_defined},
    {"undefined", "", test_undefined},
    {"none", "", test_none},
    {"boolean", "", test_boolean},
    {"true", "", test_true},
    {"false", "", test_false},
    {"integer", "", test_integer},
    {"float", "", test_float},
    {"number", "", test_number},
    {"string", "", test_string},
    {"mapping", "", test_mapping},
    {"iterable", "", test_iterable},
    {"sequence", "", test_sequence},
    {"callable", "", test_callable},
    {"escaped", "", test_escaped},
    {"sameas", "other", test_sameas},
    {"even", "", test_even},
    {"odd", "", test_odd},
    {"divisibleby", "num", test_divisibleby},
    {"lower", "", test_lower},
    {"upper", "", test_upper},
    {"in", "seq", test_in},
    {"eq", "b", test_eq},
    {"equalto", "b", test_eq},
    {"==", "b", test_eq},
    {"ne", "b", test_ne},
    {"!=", "b", test_ne},
    {"lt", "b", test_lt},
    {"lessthan", "b", test_lt},
    {"<", "b", test_lt},
    {"le", "b", test_le},
    {"<=", "b", test_le},
    {"gt", "b", test_gt},
    {"greaterthan", "b", test_gt},
    {">", "b", test_gt},
    {"ge", "b", test_ge},
    {">=", "b", test_ge},
    {"filter", "", test_filter},
    {"test", "", test_test},
};

const jinja_operation *jinja_find_test(const char *name) {
  for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
    if (strcmp(tests[i].name, name) == 0) return &tests[i];
  return NULL;
}

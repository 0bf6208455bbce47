/* The JSON reader: values, positions, everything that must be refused, and hostile bytes. */
#include "sluice/json.h"
#include "sluice/memory.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static sluice_json_document *parse(const char *text) {
  sluice_json_document *document = NULL;
  sluice_status *status = sluice_json_parse(text, strlen(text), "test.json", &document);
  sluice_status_print(status);
  assert_null(status);
  return document;
}

static void values(void **state) {
  (void)state;
  sluice_json_document *d = parse(" {\"a\": [1, -2.5e3, true, false, null, \"x\\n\\u00e9\\ud83d\\ude00\"],\n \"\": {}, "
                                  "\"big\": 9223372036854775807, \"bigger\": 9223372036854775808, \"n\\u0000\": 0} ");
  const sluice_json_value *root = sluice_json_root(d), *a = sluice_json_get(root, "a");
  assert_int_equal(root->kind, SLUICE_JSON_OBJECT);
  assert_int_equal(root->length, 5);
  assert_int_equal(a->length, 6);
  assert_true(a->items[0].is_integer && a->items[0].integer == 1);
  assert_true(!a->items[1].is_integer && a->items[1].number == -2500);
  assert_true(a->items[2].boolean && !a->items[3].boolean);
  assert_int_equal(a->items[4].kind, SLUICE_JSON_NULL);
  assert_string_equal(a->items[5].string, "x\n\xc3\xa9\xf0\x9f\x98\x80");
  assert_int_equal(sluice_json_get(root, "")->kind, SLUICE_JSON_OBJECT);
  assert_true(sluice_json_get(root, "big")->integer == INT64_MAX);
  assert_false(sluice_json_get(root, "bigger")->is_integer);
  assert_null(sluice_json_get(root, "n"));
  assert_int_equal(root->members[4].key_length, 2);
  sluice_json_free(d);
}

/* Text, and the place and words of its error. */
static const struct {
  const char *text;
  const char *message;
} refused[] = {
    {"", "test.json:1:1: error: found the end of the text, expected a value"},
    {"{", "test.json:1:2: error: found the end of the text, expected a key in quotes"},
    {"{\"a\" 1}", "test.json:1:6: error: found '1', expected ':'"},
    {"{\"a\":1,}", "test.json:1:8: error: found '}', expected a key in quotes"},
    {"[1,]", "test.json:1:4: error: found ']', expected a value"},
    {"[1 2]", "test.json:1:4: error: found '2', expected ',' or ']'"},
    {"{\"a\":1]", "test.json:1:7: error: found ']', expected ',' or '}'"},
    {"{a:1}", "test.json:1:2: error: found 'a', expected a key in quotes"},
    {"{\"a\":1,\n \"b\":2,\n \"a\":3}", "test.json:3:2: error: the key \"a\" stands twice"},
    {"1 2", "test.json:1:3: error: found '2' after the end"},
    {"01", "test.json:1:1: error: a number must not start with 0"},
    {"-", "test.json:1:1: error: a number needs a digit"},
    {"1.", "test.json:1:1: error: a number needs a digit after the point"},
    {"1e", "test.json:1:1: error: a number needs a digit in its exponent"},
    {"+1", "test.json:1:1: error: found '+', expected a value"},
    {".5", "test.json:1:1: error: found '.', expected a value"},
    {"1e999", "test.json:1:1: error: this number is too large"},
    {"NaN", "test.json:1:1: error: found 'N', expected a value"},
    {"Infinity", "test.json:1:1: error: found 'I', expected a value"},
    {"tru", "test.json:1:1: error: found 't', expected a value"},
    {"// x\n1", "test.json:1:1: error: found '/', expected a value"},
    {"'a'", "test.json:1:1: error: found ''', expected a value"},
    {"\"abc", "test.json:1:1: error: this string has no closing quote"},
    {"\"abc\\", "test.json:1:1: error: this string has no closing quote"},
    {"\"a\nb\"", "test.json:1:3: error: byte 0x0a inside a string"},
    {"\"\\x\"", "test.json:1:2: error: unknown escape"},
    {"\"\\u12g4\"", "test.json:1:2: error: \\u needs four hexadecimal digits"},
    {"\"\\ud800\"", "test.json:1:2: error: unpaired surrogate"},
    {"\"\\udc00\"", "test.json:1:2: error: unpaired surrogate"},
    {"\"\\ud800\\u0041\"", "test.json:1:2: error: unpaired surrogate"},
    {"\"\xc0\x80\"", "test.json:1:2: error: the text is not valid UTF-8"},
    {"\"\xed\xa0\x80\"", "test.json:1:2: error: the text is not valid UTF-8"},
    {"\"\xf4\x90\x80\x80\"", "test.json:1:2: error: the text is not valid UTF-8"},
    {"\"\xff\"", "test.json:1:2: error: the text is not valid UTF-8"},
    {"\xef\xbb\xbf{}", "test.json:1:1: error: the text starts with a byte order mark"},
};

static void refusals(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    sluice_json_document *d = NULL;
    sluice_status *status = sluice_json_parse(refused[i].text, strlen(refused[i].text), "test.json", &d);
    if (!status) fail_msg("accepted: %s", refused[i].text);
    assert_null(d);
    char *text = sluice_status_format(status);
    assert_non_null(text);
    if (strncmp(text, refused[i].message, strlen(refused[i].message)))
      fail_msg("for %s\nfound    %s\nexpected %s", refused[i].text, text, refused[i].message);
    assert_int_equal(sluice_exit_code(status), 1);
    sluice_release(text);
    sluice_status_free(status);
  }
}

static void depth(void **state) {
  (void)state;
  char text[512];
  for (int levels = 60; levels < 70; levels++) {
    memset(text, '[', (size_t)levels);
    memset(text + levels, ']', (size_t)levels);
    sluice_json_document *d = NULL;
    sluice_status *status = sluice_json_parse(text, (size_t)levels * 2, "deep", &d);
    assert_true((status == NULL) == (levels <= SLUICE_JSON_MAX_DEPTH));
    sluice_status_free(status);
    sluice_json_free(d);
  }
  size_t numbers = 2 * SLUICE_JSON_MAX_VALUES + 4;
  char *list = malloc(numbers + 1);
  assert_non_null(list);
  for (size_t i = 0; i < numbers; i++) list[i] = i % 2 ? '0' : ',';
  list[0] = '[';
  list[numbers - 1] = ']';
  sluice_json_document *wide = NULL;
  sluice_status *refused_wide = sluice_json_parse(list, numbers, "wide", &wide);
  assert_non_null(refused_wide);
  assert_non_null(strstr(sluice_status_message(refused_wide), "values"));
  sluice_status_free(refused_wide);
  free(list);
  size_t many = 1 << 20;
  char *deep = malloc(many);
  assert_non_null(deep);
  memset(deep, '[', many);
  sluice_json_document *d = NULL;
  sluice_status *status = sluice_json_parse(deep, many, "deep", &d);
  assert_non_null(status);
  sluice_status_free(status);
  free(deep);
}

/* An index as large as M3's, and the same with one duplicate key at the end. */
static void large_object(void **state) {
  (void)state;
  for (int duplicate = 0; duplicate < 2; duplicate++) {
    sluice_text text = {0};
    sluice_text_append(&text, "{", 1);
    for (int i = 0; i < 50000; i++)
      sluice_text_printf(&text, "%s\"language_model.model.layers.%d.weight\": \"model-%05d-of-00059.safetensors\"",
                         i ? "," : "", i, i % 59);
    if (duplicate) sluice_text_printf(&text, ", \"language_model.model.layers.0.weight\": 1");
    sluice_text_append(&text, "}", 1);
    assert_false(text.failed);
    clock_t start = clock();
    sluice_json_document *d = NULL;
    sluice_status *status = sluice_json_parse(text.data, text.length, "index", &d);
    assert_true((status != NULL) == duplicate);
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 2);
    sluice_status_free(status);
    sluice_json_free(d);
    sluice_text_free(&text);
  }
}

static void writing(void **state) {
  (void)state;
  static const double numbers[] = {0, 1, -1, 0.1, 1e300, 5e-324, 1.0 / 3, 1e-6, 5000000, DBL_MAX};
  sluice_text text = {0};
  sluice_text_append(&text, "[", 1);
  sluice_text_json_string(&text, "a\"b\\c\n\x01\xc3\xa9");
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    sluice_text_append(&text, ",", 1);
    sluice_text_json_double(&text, numbers[i]);
  }
  sluice_text_append(&text, "]", 1);
  sluice_json_document *d = parse(text.data);
  const sluice_json_value *root = sluice_json_root(d);
  assert_string_equal(root->items[0].string, "a\"b\\c\n\x01\xc3\xa9");
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) assert_true(root->items[1 + i].number == numbers[i]);
  sluice_json_free(d);
  sluice_text_free(&text);
}

static const char sample[] =
    "{\"model_type\":\"m3\",\"list\":[0,1,2.5e-1,{\"k\":null}],\"s\":\"\\u00e9\\\\\",\"t\":true}";

/* Every truncation and every single-bit change of a document is a value or an error, and never more. */
static void mutations(void **state) {
  (void)state;
  size_t length = sizeof sample - 1, refused_count = 0;
  char buffer[sizeof sample];
  for (size_t i = 0; i < length * 9; i++) {
    memcpy(buffer, sample, sizeof sample);
    size_t cut = i < length ? i : length;
    if (i >= length) buffer[(i - length) / 8] ^= (char)(1 << (i - length) % 8);
    sluice_json_document *d = NULL;
    sluice_status *status = sluice_json_parse(buffer, cut, "mutated", &d);
    assert_true((status == NULL) != (d == NULL));
    refused_count += status != NULL;
    sluice_status_free(status);
    sluice_json_free(d);
  }
  assert_true(refused_count > length * 3);
}

static int fail_at(void *user, size_t bytes) {
  (void)bytes;
  return (*(long *)user)-- == 0;
}

static void memory(void **state) {
  (void)state;
  bool done = false;
  for (long n = 0; !done; n++) {
    size_t before = sluice_live_allocations();
    long left = n;
    sluice_set_allocation_hook(fail_at, &left);
    sluice_json_document *d = NULL;
    sluice_status *status = sluice_json_parse(sample, sizeof sample - 1, "sample", &d);
    sluice_set_allocation_hook(NULL, NULL);
    done = status == NULL;
    if (status) assert_int_equal(sluice_status_code(status), SLUICE_OUT_OF_MEMORY);
    sluice_status_free(status);
    sluice_json_free(d);
    assert_int_equal(sluice_live_allocations(), before);
  }
}

static void caret(void **state) {
  (void)state;
  sluice_json_document *d = NULL;
  sluice_status *status = sluice_json_parse("{\n\t\"a\": ?}", 10, "f.json", &d);
  char *text = sluice_status_format(status);
  assert_string_equal(text, "f.json:2:7: error: found '?', expected a value\n \"a\": ?}\n      ^\n");
  sluice_release(text);
  status = sluice_annotate(status, "while reading %s", "x");
  assert_string_equal(sluice_status_message(status), "while reading x: found '?', expected a value");
  sluice_status_free(status);
  assert_int_equal(sluice_exit_code(NULL), 0);
  status = sluice_error(SLUICE_USAGE, "u");
  assert_int_equal(sluice_exit_code(status), 2);
  sluice_status_free(status);
  status = sluice_error(SLUICE_INTERNAL, "bug");
  assert_int_equal(sluice_exit_code(status), 70);
  sluice_status_free(status);
}

/* ---- Members that are given away ---- */

typedef struct taken {
  sluice_text text;
  bool refuse;
} taken;

static bool begin_any(void *user, sluice_json_kind kind) {
  sluice_text_printf(&((taken *)user)->text, "%s:", sluice_json_kind_name(kind));
  return true;
}

static bool begin_none(void *user, sluice_json_kind kind) {
  (void)user;
  (void)kind;
  return false;
}

static sluice_status *take(void *user, const sluice_json_document *document, const sluice_json_member *element) {
  taken *t = user;
  const sluice_json_value *v = &element->value;
  if (t->refuse) return sluice_json_error(document, v->offset, SLUICE_INVALID, "not wanted");
  sluice_text_printf(&t->text, " %s", element->key ? element->key : "-");
  if (v->kind == SLUICE_JSON_STRING) sluice_text_printf(&t->text, "=%s", v->string);
  if (v->kind == SLUICE_JSON_NUMBER) sluice_text_printf(&t->text, "=%g", v->number);
  for (size_t i = 0; v->kind == SLUICE_JSON_ARRAY && i < v->length; i++)
    sluice_text_printf(&t->text, "%s%s", i ? "," : "=", v->items[i].string);
  return NULL;
}

static sluice_status *parse_into(const char *text, taken *t, sluice_json_document **out) {
  const sluice_json_sink sinks[] = {{"model", "list", begin_any, take, t},
                                    {"model", "table", begin_any, take, t},
                                    {"model", "kept", begin_none, take, t}};
  return sluice_json_parse_into(sluice_copy_string(text, strlen(text)), strlen(text), "test.json", sinks, 3, out);
}

static void given_away(void **state) {
  (void)state;
  taken t = {0};
  sluice_json_document *d = NULL;
  assert_null(
      parse_into("{\"list\": [1], \"other\": {\"list\": [2]}, \"model\": {\"deep\": {\"list\": [3]}, \"kept\": [4], "
                 "\"list\": [[\"a\", \"b\\n\u00e9\"], \"c\", 5], \"table\": {\"x\": 6, \"x\": {\"y\": [7]}}, "
                 "\"after\": \"d\"}}",
                 &t, &d));
  assert_string_equal(t.text.data, "an array: -=a,b\n\xc3\xa9 -=c -=5an object: x=6 x");
  const sluice_json_value *root = sluice_json_root(d), *model = sluice_json_get(root, "model");
  const sluice_json_value *list = sluice_json_get(model, "list"), *table = sluice_json_get(model, "table");
  assert_true(list->kind == SLUICE_JSON_ARRAY && list->length == 3 && !list->items);
  assert_true(table->kind == SLUICE_JSON_OBJECT && table->length == 2 && !table->members);
  assert_true(sluice_json_get(model, "kept")->items[0].integer == 4);
  assert_true(sluice_json_get(sluice_json_get(root, "other"), "list")->items[0].integer == 2);
  assert_true(sluice_json_get(sluice_json_get(model, "deep"), "list")->items[0].integer == 3);
  assert_string_equal(sluice_json_get(model, "after")->string, "d");
  sluice_json_free(d);
  sluice_text_free(&t.text);
}

/* As many elements as fill the parser's memory many times over: it is used again. */
static void many_given_away(void **state) {
  (void)state;
  sluice_text text = {0};
  sluice_text_printf(&text, "{\"model\": {\"list\": [");
  for (int i = 0; i < 3000; i++) sluice_text_printf(&text, "%s\"%0*d\"", i ? "," : "", 1 + i % 1000, i);
  sluice_text_printf(&text, "]}}");
  taken t = {0};
  sluice_json_document *d = NULL;
  const size_t before = sluice_live_allocations();
  assert_null(parse_into(text.data, &t, &d));
  assert_true(sluice_live_allocations() - before < 12); /* 1.5 MB of strings would be two dozen chunks */
  assert_string_equal(t.text.data + t.text.length - 5, "02999");
  sluice_json_free(d);
  sluice_text_free(&t.text);
  sluice_text_free(&text);
}

static void given_away_with_errors(void **state) {
  (void)state;
  static const struct {
    const char *text, *wanted;
    bool refuse;
  } cases[] = {{"{\"model\": {\"list\": [1, 2}}", "expected ',' or ']'", false},
               {"{\"model\": {\"table\": {\"a\" 1}}}", "expected ':'", false},
               {"{\"model\": {\"list\": [1, \"\xff\"]}}", "UTF-8", false},
               {"{\"model\": {\"list\": [1", "the end of the text", false},
               {"{\"model\": {\"list\": [1], \"list\": [2]}}", "stands twice", false},
               {"{\"model\": {\"list\": [1]}}", "not wanted", true}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    taken t = {.refuse = cases[i].refuse};
    sluice_json_document *d = NULL;
    sluice_status *status = parse_into(cases[i].text, &t, &d);
    assert_non_null(status);
    assert_null(d);
    if (!strstr(sluice_status_message(status), cases[i].wanted)) fail_msg("%s", sluice_status_message(status));
    sluice_status_free(status);
    sluice_text_free(&t.text);
  }
  assert_int_equal(sluice_live_allocations(), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(values),
                                     cmocka_unit_test(refusals),
                                     cmocka_unit_test(depth),
                                     cmocka_unit_test(large_object),
                                     cmocka_unit_test(writing),
                                     cmocka_unit_test(mutations),
                                     cmocka_unit_test(memory),
                                     cmocka_unit_test(caret),
                                     cmocka_unit_test(given_away),
                                     cmocka_unit_test(many_given_away),
                                     cmocka_unit_test(given_away_with_errors)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

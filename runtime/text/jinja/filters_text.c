/* Filters of text and numbers. */
#include "runtime/text/jinja/jinja.h"
#include "sluice/memory.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILTER(name)                                                                                                   \
  static sluice_status *name(jinja_environment *e, const jinja_value *input, const jinja_value *values,                \
                             jinja_value *out)
#define UNUSED (void)e, (void)input, (void)values

static bool is_given(const jinja_value *value) {
  return value->kind != JINJA_MISSING && value->kind != JINJA_NONE;
}

/* The method `name` of the input as text. */
static sluice_status *by_method(jinja_environment *e, const char *name, const jinja_value *input,
                                const jinja_value *values, jinja_value *out) {
  jinja_value text;
  SLUICE_TRY(jinja_to_string(e, input, &text));
  const jinja_operation *method = jinja_string_methods;
  while (method->name && strcmp(method->name, name) != 0) method++;
  if (!method->name) return sluice_error(SLUICE_INTERNAL, "no method %s", name);
  return method->call(e, &text, values, out);
}

FILTER(filter_capitalize) {
  return by_method(e, "capitalize", input, values, out);
}
FILTER(filter_upper) {
  return by_method(e, "upper", input, values, out);
}
FILTER(filter_lower) {
  return by_method(e, "lower", input, values, out);
}
FILTER(filter_trim) {
  return by_method(e, "strip", input, values, out);
}

FILTER(filter_center) {
  jinja_value arguments[2] = {values[0].kind == JINJA_MISSING ? jinja_int(80) : values[0], {.kind = JINJA_MISSING}};
  return by_method(e, "center", input, arguments, out);
}

FILTER(filter_replace) {
  jinja_value arguments[3];
  for (int i = 0; i < 2; i++) SLUICE_TRY(jinja_to_string(e, &values[i], &arguments[i]));
  arguments[2] = is_given(&values[2]) ? values[2] : jinja_int(-1);
  return by_method(e, "replace", input, arguments, out);
}

/* A word begins behind white space and these characters. */
FILTER(filter_title) {
  (void)values;
  jinja_value text, part;
  jinja_buffer *buffer;
  SLUICE_TRY(jinja_to_string(e, input, &text));
  const char *bytes = jinja_bytes(text.string);
  size_t length = text.string->length, start = 0, at = 0;
  SLUICE_TRY(jinja_buffer_new(e, length, &buffer));
  for (bool end = false; !end;) {
    end = at == length;
    size_t size = length - at;
    uint32_t c = end ? 0 : jinja_code_point(bytes + at, &size);
    bool breaks = end || jinja_is_space(c) || (c < 128 && strchr("-({[<", (int)c));
    if (breaks && at > start) {
      SLUICE_TRY(jinja_substring(e, text.string, start, at - start, &part));
      /* item[1:].lower() sees no character before: a sigma that begins it is not final */
      size_t first = part.string->length, rest;
      jinja_value head, tail;
      jinja_code_point(jinja_bytes(part.string), &first);
      rest = part.string->length - first;
      SLUICE_TRY(jinja_substring(e, part.string, 0, first, &head));
      SLUICE_TRY(jinja_substring(e, part.string, first, rest, &tail));
      SLUICE_TRY(jinja_change_case(e, head.string, CASE_UPPER, CASE_UPPER, &head));
      SLUICE_TRY(jinja_change_case(e, tail.string, CASE_LOWER, CASE_LOWER, &tail));
      SLUICE_TRY(jinja_put_string(e, buffer, head.string));
      SLUICE_TRY(jinja_put_string(e, buffer, tail.string));
    }
    if (!end && breaks) {
      SLUICE_TRY(jinja_put_part(e, buffer, text.string, at, size));
      start = at + size;
    }
    at += size;
  }
  return jinja_take_buffer(e, buffer, out);
}

static sluice_status *lines_of(jinja_environment *e, const jinja_string *string, jinja_value *out) {
  /* As splitlines of the text with one more newline at its end. */
  jinja_value text, input, none = {.kind = JINJA_MISSING};
  SLUICE_TRY(jinja_new_string(e, "\n", 1, false, &text));
  SLUICE_TRY(jinja_append(e, string, text.string, &input));
  return by_method(e, "splitlines", &input, &none, out);
}

FILTER(filter_indent) {
  jinja_value indent, lines;
  jinja_buffer *buffer;
  int64_t width = 4;
  bool first = values[1].kind != JINJA_MISSING && jinja_truth(&values[1]);
  bool blank = values[2].kind != JINJA_MISSING && jinja_truth(&values[2]);
  if (input->kind != JINJA_STRING)
    return input->kind == JINJA_UNDEFINED
               ? jinja_undefined_error(e, input)
               : JINJA_ERROR(e, "indent: expected a str, not a %s", jinja_type_name(input->kind));
  SLUICE_TRY(jinja_buffer_new(e, 8, &buffer));
  if (values[0].kind == JINJA_STRING) {
    indent = values[0];
  } else {
    if (values[0].kind != JINJA_MISSING && !jinja_as_integer(&values[0], &width))
      return JINJA_ERROR(e, "indent: the width must be an int or a str");
    for (int64_t i = 0; i < width; i++) {
      SLUICE_TRY(jinja_spend(e, 1));
      SLUICE_TRY(jinja_put(e, buffer, " ", 1, false));
    }
    SLUICE_TRY(jinja_take_buffer(e, buffer, &indent));
  }
  SLUICE_TRY(lines_of(e, input->string, &lines));
  SLUICE_TRY(jinja_buffer_new(e, input->string->length, &buffer));
  for (size_t i = 0; i < lines.list->count; i++) {
    const jinja_string *line = lines.list->items[i].string;
    if (i) SLUICE_TRY(jinja_put(e, buffer, "\n", 1, false));
    if (i ? blank || line->length : first) SLUICE_TRY(jinja_put_string(e, buffer, indent.string));
    SLUICE_TRY(jinja_put_string(e, buffer, line));
  }
  return jinja_take_buffer(e, buffer, out);
}

FILTER(filter_truncate) {
  int64_t length = 255, leeway = 5;
  bool kill = values[1].kind != JINJA_MISSING && jinja_truth(&values[1]);
  jinja_value end = values[2], text;
  if (input->kind != JINJA_STRING) return JINJA_ERROR(e, "truncate: expected a str");
  if (end.kind == JINJA_MISSING) SLUICE_TRY(jinja_new_string(e, "...", 3, false, &end));
  if ((values[0].kind != JINJA_MISSING && !jinja_as_integer(&values[0], &length)) || end.kind != JINJA_STRING ||
      (is_given(&values[3]) && !jinja_as_integer(&values[3], &leeway)))
    return JINJA_ERROR(e, "truncate: expected a length, a bool, a str and a length");
  int64_t tail = (int64_t)jinja_characters(end.string);
  if (length < tail || leeway < 0 || length > INT64_MAX - leeway)
    return JINJA_ERROR(e, "truncate: the length is less than that of the end");
  *out = *input;
  if ((int64_t)jinja_characters(input->string) <= length + leeway) return NULL;
  SLUICE_TRY(jinja_substring(e, input->string, 0, jinja_byte_of(input->string, (size_t)(length - tail)), &text));
  if (!kill) {
    const char *bytes = jinja_bytes(text.string);
    for (size_t i = text.string->length; i-- > 0;)
      if (bytes[i] == ' ') {
        text.string->length = i;
        text.string->characters = SIZE_MAX;
        break;
      }
  }
  return jinja_append(e, text.string, end.string, out);
}

FILTER(filter_string) {
  (void)values;
  return jinja_to_string(e, input, out);
}

FILTER(filter_safe) {
  (void)values;
  jinja_value text;
  SLUICE_TRY(jinja_to_string(e, input, &text));
  SLUICE_TRY(jinja_substring(e, text.string, 0, text.string->length, out));
  out->string->safe = true;
  return NULL;
}

FILTER(filter_escape) {
  (void)values;
  return jinja_escape(e, input, out);
}

FILTER(filter_forceescape) {
  (void)values;
  jinja_value text;
  SLUICE_TRY(jinja_to_string(e, input, &text));
  SLUICE_TRY(jinja_substring(e, text.string, 0, text.string->length, &text));
  return jinja_escape(e, &text, out);
}

static sluice_status *json_indent(jinja_environment *e, const jinja_value *value, jinja_json_form *form) {
  jinja_value spaces;
  int64_t width;
  if (!is_given(value)) return NULL;
  form->indented = true;
  if (value->kind == JINJA_STRING) {
    form->indent = value->string;
    return NULL;
  }
  if (!jinja_as_integer(value, &width)) return JINJA_ERROR(e, "tojson: the indent must be an int or a str");
  if (width > 1000) return JINJA_ERROR(e, "tojson: an indent of %lld is too large", (long long)width);
  jinja_buffer *buffer;
  SLUICE_TRY(jinja_buffer_new(e, 8, &buffer));
  for (int64_t i = 0; i < width; i++) SLUICE_TRY(jinja_put(e, buffer, " ", 1, false));
  SLUICE_TRY(jinja_take_buffer(e, buffer, &spaces));
  form->indent = spaces.string;
  return NULL;
}

/* The signature that transformers gives it: ensure_ascii, indent, separators, sort_keys. */
FILTER(filter_tojson) {
  jinja_json_form form = {.ascii = values[0].kind != JINJA_MISSING && jinja_truth(&values[0]),
                          .sorted = values[3].kind != JINJA_MISSING && jinja_truth(&values[3])};
  SLUICE_TRY(json_indent(e, &values[1], &form));
  if (is_given(&values[2])) {
    const jinja_value *pair = &values[2];
    if ((pair->kind != JINJA_TUPLE && pair->kind != JINJA_LIST) || pair->list->count != 2 ||
        pair->list->items[0].kind != JINJA_STRING || pair->list->items[1].kind != JINJA_STRING)
      return JINJA_ERROR(e, "tojson: the separators must be two strings");
    form.item_separator = pair->list->items[0].string;
    form.key_separator = pair->list->items[1].string;
  }
  jinja_buffer *buffer;
  SLUICE_TRY(jinja_buffer_new(e, 64, &buffer));
  SLUICE_TRY(jinja_put_json(e, buffer, input, &form, 0));
  return jinja_take_buffer(e, buffer, out);
}

FILTER(filter_urlencode) {
  (void)values;
  jinja_value text;
  jinja_buffer *buffer;
  if (input->kind != JINJA_STRING && jinja_iterable(input))
    return JINJA_UNSUPPORTED(e, "urlencode of a %s is not supported", jinja_type_name(input->kind));
  SLUICE_TRY(jinja_to_string(e, input, &text));
  SLUICE_TRY(jinja_buffer_new(e, text.string->length, &buffer));
  for (size_t i = 0; i < text.string->length; i++) {
    unsigned char c = (unsigned char)jinja_bytes(text.string)[i];
    char code[8];
    bool keep = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c && strchr("_.-~/", c));
    int length = snprintf(code, sizeof code, keep ? "%c" : "%%%02X", c);
    SLUICE_TRY(jinja_put(e, buffer, code, (size_t)length, jinja_plain_at(text.string, i)));
  }
  return jinja_take_buffer(e, buffer, out);
}

/* ---- Numbers ---- */

static void trim_space(const char **text, size_t *length) {
  while (*length) {
    size_t size = *length;
    if (!jinja_is_space(jinja_code_point(*text, &size))) break;
    *text += size;
    *length -= size;
  }
  while (*length) {
    size_t at = *length - 1;
    while (at > 0 && ((unsigned char)(*text)[at] & 0xc0) == 0x80) at--;
    size_t size = *length - at;
    if (!jinja_is_space(jinja_code_point(*text + at, &size))) break;
    *length = at;
  }
}

static int digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if ((c | 32) >= 'a' && (c | 32) <= 'z') return (c | 32) - 'a' + 10;
  return 99;
}

bool jinja_parse_integer(const char *text, size_t length, int base, int64_t *out, bool *out_overflow) {
  *out_overflow = false;
  trim_space(&text, &length);
  bool negative = length && *text == '-';
  if (length && (*text == '-' || *text == '+')) {
    text++;
    length--;
  }
  int mark = length > 1 && text[0] == '0' ? text[1] | 32 : 0;
  int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
  bool any_base = base == 0;
  if (marked && (any_base || marked == base)) {
    base = marked;
    text += 2;
    length -= 2;
    if (length && *text == '_') { /* "0x_1" */
      text++;
      length--;
    }
  } else if (any_base) {
    base = 10;
  }
  if (!length) return false;
  int64_t value = 0;
  for (size_t i = 0; i < length; i++) {
    if (text[i] == '_') {
      if (i == 0 || i + 1 == length || text[i + 1] == '_') return false;
      continue;
    }
    int digit = digit_value(text[i]);
    if (digit >= base) return false;
    if (__builtin_mul_overflow(value, base, &value) || __builtin_sub_overflow(value, digit, &value))
      *out_overflow = true;
  }
  if (any_base && base == 10 && length > 1 && text[0] == '0' && value != 0) return false;
  if (!negative && __builtin_sub_overflow((int64_t)0, value, &value)) *out_overflow = true;
  *out = value;
  return true;
}

static size_t float_digits(const char *text, size_t length, size_t at, char *out, size_t *count) {
  size_t start = at;
  while (at < length) {
    if (text[at] == '_' && at > start && at + 1 < length && text[at + 1] >= '0' && text[at + 1] <= '9') {
      at++;
      continue;
    }
    if (text[at] < '0' || text[at] > '9') break;
    out[(*count)++] = text[at++];
  }
  return at;
}

/* strtod reads the locale's decimal point: the number is given to it as digits and an exponent. */
static double from_digits(char *digits, size_t count, int64_t exponent) {
  snprintf(digits + count, 32, "e%lld", (long long)exponent);
  return strtod(digits, NULL);
}

static bool parse_special(const char *text, size_t length, bool negative, double *out) {
  static const char *const names[] = {"inf", "infinity", "nan"};
  for (size_t i = 0; i < 3; i++) {
    if (strlen(names[i]) != length) continue;
    bool same = true;
    for (size_t j = 0; j < length; j++) same = same && (text[j] | 32) == names[i][j];
    if (!same) continue;
    *out = i == 2 ? NAN : negative ? -INFINITY : INFINITY;
    return true;
  }
  return false;
}

bool jinja_parse_float(const char *text, size_t length, double *out) {
  trim_space(&text, &length);
  bool negative = length && *text == '-';
  if (length && (*text == '-' || *text == '+')) {
    text++;
    length--;
  }
  if (parse_special(text, length, negative, out)) return true;
  char *digits = sluice_allocate(length + 40);
  if (!digits) return false;
  size_t count = 0, at = float_digits(text, length, 0, digits, &count), whole = count;
  if (at < length && text[at] == '.') {
    at++;
    if (at < length && text[at] != '_') at = float_digits(text, length, at, digits, &count);
  }
  int64_t exponent = -(int64_t)(count - whole);
  bool good = count > 0;
  if (good && at < length && (text[at] | 32) == 'e') {
    at++;
    bool minus = at < length && text[at] == '-';
    if (at < length && (text[at] == '-' || text[at] == '+')) at++;
    size_t start = at;
    int64_t given = 0;
    for (; at < length && ((text[at] >= '0' && text[at] <= '9') || (text[at] == '_' && at > start)); at++)
      if (text[at] != '_' && given < 1000000) given = given * 10 + (text[at] - '0');
    good = at > start && text[at - 1] != '_';
    exponent += minus ? -given : given;
  }
  if (good && at == length) {
    *out = from_digits(digits, count, exponent);
    if (negative) *out = -*out;
  }
  sluice_release(digits);
  return good && at == length;
}

static sluice_status *truncate_float(jinja_environment *e, double number, jinja_value *out) {
  if (!(fabs(number) < 9.2233720368547e18))
    return JINJA_UNSUPPORTED(e, "this number does not fit an integer of 64 bits");
  *out = jinja_int((int64_t)number);
  return NULL;
}

FILTER(filter_int) {
  int64_t integer, base = 10;
  double number;
  bool overflow;
  *out = values[0].kind == JINJA_MISSING ? jinja_int(0) : values[0];
  if (input->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, input);
  if (values[1].kind != JINJA_MISSING && (!jinja_as_integer(&values[1], &base) || base < 0 || base > 36))
    return JINJA_ERROR(e, "int: the base must be an int from 0 to 36");
  if (jinja_as_integer(input, &integer)) {
    *out = jinja_int(integer);
    return NULL;
  }
  if (input->kind == JINJA_FLOAT) {
    if (isnan(input->number)) return NULL;
    return truncate_float(e, input->number, out);
  }
  if (input->kind != JINJA_STRING) return NULL;
  const char *bytes = jinja_bytes(input->string);
  for (size_t i = 0; i < input->string->length; i++)
    if ((unsigned char)bytes[i] >= 128) return JINJA_UNSUPPORTED(e, "int of text outside ASCII is not supported");
  if (jinja_parse_integer(bytes, input->string->length, (int)base, &integer, &overflow)) {
    if (overflow) return JINJA_UNSUPPORTED(e, "this number does not fit an integer of 64 bits");
    *out = jinja_int(integer);
    return NULL;
  }
  if (!jinja_parse_float(bytes, input->string->length, &number) || !isfinite(number)) return NULL;
  return truncate_float(e, number, out);
}

FILTER(filter_float) {
  double number;
  *out = values[0].kind == JINJA_MISSING ? jinja_float(0) : values[0];
  if (input->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, input);
  if (jinja_as_number(input, &number) ||
      (input->kind == JINJA_STRING && jinja_parse_float(jinja_bytes(input->string), input->string->length, &number)))
    *out = jinja_float(number);
  return NULL;
}

FILTER(filter_abs) {
  (void)values;
  int64_t integer;
  if (input->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, input);
  if (input->kind == JINJA_FLOAT) {
    *out = jinja_float(fabs(input->number));
    return NULL;
  }
  if (!jinja_as_integer(input, &integer)) return JINJA_ERROR(e, "abs of a %s", jinja_type_name(input->kind));
  *out = jinja_int(integer);
  return integer < 0 ? jinja_unary(e, NODE_NEGATE, out, out) : NULL;
}

/* Python's round(): the decimal that is nearest, ties in the binary number's favour, as printf does it. */
static sluice_status *round_common(jinja_environment *e, const jinja_value *input, int64_t precision,
                                   jinja_value *out) {
  int64_t integer;
  if (jinja_as_integer(input, &integer)) {
    if (precision < 0) return JINJA_UNSUPPORTED(e, "rounding to tens is not supported");
    *out = jinja_int(integer);
    return NULL;
  }
  if (precision < 0 || precision > 300) return JINJA_UNSUPPORTED(e, "round: the precision must lie in 0 .. 300");
  char text[700];
  if (!isfinite(input->number)) {
    *out = *input;
    return NULL;
  }
  snprintf(text, sizeof text, "%.*f", (int)precision, input->number);
  *out = jinja_float(strtod(text, NULL));
  return NULL;
}

FILTER(filter_round) {
  int64_t precision = 0;
  double number;
  if (values[0].kind != JINJA_MISSING && !jinja_as_integer(&values[0], &precision))
    return JINJA_ERROR(e, "round: the precision must be an int");
  const jinja_string *method = values[1].kind == JINJA_STRING ? values[1].string : NULL;
  if (values[1].kind != JINJA_MISSING &&
      (!method ||
       (!jinja_string_is(method, "common") && !jinja_string_is(method, "ceil") && !jinja_string_is(method, "floor"))))
    return JINJA_ERROR(e, "round: the method must be common, ceil or floor");
  if (input->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, input);
  if (!jinja_as_number(input, &number)) return JINJA_ERROR(e, "round of a %s", jinja_type_name(input->kind));
  if (!method || jinja_string_is(method, "common")) return round_common(e, input, precision, out);
  if (precision < 0 || precision > 15) return JINJA_UNSUPPORTED(e, "round: the precision must lie in 0 .. 15");
  double scale = 1;
  for (int64_t i = 0; i < precision; i++) scale *= 10;
  double scaled = number * scale;
  if (!(fabs(scaled) < 9e15)) return JINJA_UNSUPPORTED(e, "round: this number is too large");
  *out = jinja_float((jinja_string_is(method, "ceil") ? ceil(scaled) : floor(scaled)) / scale);
  if (out->number == 0) out->number = 0; /* Python divides an integer, which has no -0 */
  return NULL;
}

FILTER(filter_wordcount) {
  (void)values;
  jinja_value text;
  int64_t words = 0;
  bool within = false;
  SLUICE_TRY(jinja_to_string(e, input, &text));
  for (size_t i = 0; i < text.string->length; i++) {
    unsigned char c = (unsigned char)jinja_bytes(text.string)[i];
    if (c >= 128) return JINJA_UNSUPPORTED(e, "wordcount of text outside ASCII is not supported");
    bool word = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_';
    words += word && !within;
    within = word;
  }
  *out = jinja_int(words);
  return NULL;
}

const jinja_operation jinja_text_filters[] = {
    {"capitalize", "", filter_capitalize},
    {"upper", "", filter_upper},
    {"lower", "", filter_lower},
    {"title", "", filter_title},
    {"trim", "chars=", filter_trim},
    {"center", "width=", filter_center},
    {"replace", "old,new,count=", filter_replace},
    {"indent", "width=,first=,blank=", filter_indent},
    {"truncate", "length=,killwords=,end=,leeway=", filter_truncate},
    {"string", "", filter_string},
    {"safe", "", filter_safe},
    {"escape", "", filter_escape},
    {"e", "", filter_escape},
    {"forceescape", "", filter_forceescape},
    {"tojson", "ensure_ascii=,indent=,separators=,sort_keys=", filter_tojson},
    {"urlencode", "", filter_urlencode},
    {"wordcount", "", filter_wordcount},
    {"int", "default=,base=", filter_int},
    {"float", "default=", filter_float},
    {"abs", "", filter_abs},
    {"round", "precision=,method=", filter_round},
    {0},
};

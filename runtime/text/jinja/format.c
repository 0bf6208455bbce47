/* "..." % values and "...".format(...), as far as templates use them. */
#include "runtime/text/jinja/jinja.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct directive {
  bool left, plus, space, zero, alternate;
  int64_t width, precision; /* -1: none */
  char type;
} directive;

/* Pads what `buffer` has from `start` on to the width, in characters. */
static sluice_status *pad(jinja_environment *e, jinja_buffer *buffer, const jinja_value *text, const directive *d) {
  int64_t length = (int64_t)jinja_characters(text->string), missing = d->width - length;
  if (missing > 0) SLUICE_TRY(jinja_spend(e, (size_t)missing));
  for (int64_t i = 0; i < missing && !d->left; i++) SLUICE_TRY(jinja_put(e, buffer, " ", 1, false));
  SLUICE_TRY(jinja_put_string(e, buffer, text->string));
  for (int64_t i = 0; i < missing && d->left; i++) SLUICE_TRY(jinja_put(e, buffer, " ", 1, false));
  return NULL;
}

static sluice_status *format_text(jinja_environment *e, const directive *d, const jinja_value *value,
                                  jinja_value *out) {
  jinja_buffer *buffer;
  if (d->type == 's') {
    SLUICE_TRY(jinja_to_string(e, value, out));
  } else {
    SLUICE_TRY(jinja_buffer_new(e, 24, &buffer));
    SLUICE_TRY(jinja_put_repr(e, buffer, value));
    SLUICE_TRY(jinja_take_buffer(e, buffer, out));
  }
  if (d->precision >= 0 && (uint64_t)d->precision < jinja_characters(out->string))
    return jinja_substring(e, out->string, 0, jinja_byte_of(out->string, (size_t)d->precision), out);
  return NULL;
}

static sluice_status *format_number(jinja_environment *e, const directive *d, const jinja_value *value,
                                    jinja_value *out) {
  char format[16], text[512];
  int at = 0, length;
  if (d->width > 100 || d->precision > 100)
    return JINJA_UNSUPPORTED(e, "formatting numbers with more than 100 places is not supported");
  format[at++] = '%';
  if (d->plus) format[at++] = '+';
  if (d->space) format[at++] = ' ';
  if (d->zero) format[at++] = '0';
  if (d->left) format[at++] = '-';
  if (d->alternate) format[at++] = '#';
  format[at++] = '*';
  int width = d->width < 0 ? 0 : (int)d->width;
  if (strchr("diu", d->type)) {
    int64_t integer;
    if (value->kind == JINJA_FLOAT && fabs(value->number) < 9e18)
      integer = (int64_t)value->number;
    else if (!jinja_as_integer(value, &integer))
      return JINJA_ERROR(e, "%%%c needs a number, not a %s", d->type, jinja_type_name(value->kind));
    if (d->precision >= 0) return JINJA_UNSUPPORTED(e, "formatting integers with a precision is not supported");
    memcpy(format + at, "lld", 4);
    length = snprintf(text, sizeof text, format, width, (long long)integer);
  } else {
    double number;
    if (!jinja_as_number(value, &number))
      return JINJA_ERROR(e, "%%%c needs a number, not a %s", d->type, jinja_type_name(value->kind));
    if (!isfinite(number)) return JINJA_UNSUPPORTED(e, "formatting infinities and NaNs is not supported");
    format[at++] = '.';
    format[at++] = '*';
    format[at++] = d->type == 'F' ? 'f' : d->type;
    format[at] = 0;
    length = snprintf(text, sizeof text, format, width, d->precision < 0 ? 6 : (int)d->precision, number);
  }
  if (length < 0 || (size_t)length >= sizeof text) return JINJA_UNSUPPORTED(e, "this number has too many places");
  return jinja_new_string(e, text, (size_t)length, false, out);
}

/* The directive behind a '%' at `*at`; moves behind it. */
static sluice_status *read_directive(jinja_environment *e, const char *bytes, size_t length, size_t *at, directive *d) {
  *d = (directive){.width = -1, .precision = -1};
  for (; *at < length; ++*at) {
    char c = bytes[*at];
    if (c == '-')
      d->left = true;
    else if (c == '+')
      d->plus = true;
    else if (c == ' ')
      d->space = true;
    else if (c == '0')
      d->zero = true;
    else if (c == '#')
      d->alternate = true;
    else
      break;
  }
  for (; *at < length && bytes[*at] >= '0' && bytes[*at] <= '9' && d->width < 100000000; ++*at)
    d->width = (d->width < 0 ? 0 : d->width) * 10 + (bytes[*at] - '0');
  if (*at < length && bytes[*at] == '.') {
    d->precision = 0;
    for (++*at; *at < length && bytes[*at] >= '0' && bytes[*at] <= '9' && d->precision < 100000000; ++*at)
      d->precision = d->precision * 10 + (bytes[*at] - '0');
  }
  if (*at >= length) return JINJA_ERROR(e, "this format ends within a directive");
  d->type = bytes[(*at)++];
  if (!strchr("srdiufFeEgG%", d->type))
    return JINJA_UNSUPPORTED(e, "the directive %%%.1s of a format is not supported", &bytes[*at - 1]);
  return NULL;
}

typedef struct format_values {
  const jinja_value *all; /* the right operand */
  size_t next, count;     /* of a tuple */
} format_values;

static sluice_status *next_value(jinja_environment *e, format_values *values, jinja_value *out) {
  if (values->next == values->count) return JINJA_ERROR(e, "this format has more directives than values");
  *out = values->all->kind == JINJA_TUPLE ? values->all->list->items[values->next] : *values->all;
  values->next++;
  return NULL;
}

/* "(name)" behind a '%': a key of the dict. */
static sluice_status *named_value(jinja_environment *e, const jinja_string *format, size_t *at, jinja_value *values,
                                  jinja_value *out) {
  const char *bytes = jinja_bytes(format), *end = memchr(bytes + *at, ')', format->length - *at);
  if (!end) return JINJA_ERROR(e, "this format has an incomplete key");
  if (values->kind != JINJA_DICT) return JINJA_ERROR(e, "a format with keys needs a dict");
  const jinja_value *found = jinja_dict_get(values->dict, bytes + *at + 1, (size_t)(end - bytes) - *at - 1);
  if (!found) return JINJA_ERROR(e, "the dict lacks a key of this format");
  *out = *found;
  *at = (size_t)(end - bytes) + 1;
  return NULL;
}

static sluice_status *put_directive(jinja_environment *e, jinja_buffer *buffer, const jinja_string *format, size_t *at,
                                    format_values *values) {
  directive d;
  jinja_value value = {.kind = JINJA_MISSING}, text;
  const char *bytes = jinja_bytes(format);
  bool named = *at < format->length && bytes[*at] == '(';
  jinja_value all = *values->all;
  if (named) {
    SLUICE_TRY(named_value(e, format, at, &all, &value));
    values->next = values->count;
  }
  SLUICE_TRY(read_directive(e, bytes, format->length, at, &d));
  if (d.type == '%') return jinja_put(e, buffer, "%", 1, false);
  if (!named) SLUICE_TRY(next_value(e, values, &value));
  if (d.type == 's' || d.type == 'r')
    SLUICE_TRY(format_text(e, &d, &value, &text));
  else
    SLUICE_TRY(format_number(e, &d, &value, &text));
  return pad(e, buffer, &text, &d);
}

sluice_status *jinja_format(jinja_environment *e, const jinja_string *format, const jinja_value *values,
                            jinja_value *out) {
  jinja_buffer *buffer;
  if (format->safe) return JINJA_UNSUPPORTED(e, "formatting escaped text is not supported");
  SLUICE_TRY(jinja_buffer_new(e, format->length + 32, &buffer));
  format_values given = {.all = values, .count = values->kind == JINJA_TUPLE ? values->list->count : 1};
  const char *bytes = jinja_bytes(format);
  for (size_t at = 0; at < format->length;) {
    const char *percent = memchr(bytes + at, '%', format->length - at);
    size_t end = percent ? (size_t)(percent - bytes) : format->length;
    SLUICE_TRY(jinja_put_part(e, buffer, format, at, end - at));
    at = end;
    if (!percent) break;
    at++;
    SLUICE_TRY(put_directive(e, buffer, format, &at, &given));
  }
  if (given.next < given.count && values->kind != JINJA_DICT && values->kind != JINJA_LIST)
    return JINJA_ERROR(e, "this format has fewer directives than values");
  return jinja_take_buffer(e, buffer, out);
}

/* ---- "{}".format ---- */

static sluice_status *brace_value(jinja_environment *e, const char *field, size_t length,
                                  const jinja_arguments *arguments, size_t *next, jinja_value *out) {
  size_t index = *next;
  bool number = length > 0;
  for (size_t i = 0; i < length; i++) {
    if (field[i] == '.' || field[i] == '[' || field[i] == ':' || field[i] == '!')
      return JINJA_UNSUPPORTED(e, "format fields with attributes or specifications are not supported");
    number = number && field[i] >= '0' && field[i] <= '9';
  }
  if (!length || number) {
    if (*next != SIZE_MAX && *next > 0 && number)
      return JINJA_ERROR(e, "format: fields with and without numbers are mixed");
    if (*next == SIZE_MAX && !number) return JINJA_ERROR(e, "format: fields with and without numbers are mixed");
  }
  if (!length) {
    ++*next;
  } else if (number) {
    *next = SIZE_MAX;
    index = 0;
    for (size_t i = 0; i < length && index < 10000; i++) index = index * 10 + (size_t)(field[i] - '0');
  } else {
    for (size_t i = 0; i < arguments->named_count; i++)
      if (strlen(arguments->names[i]) == length && memcmp(arguments->names[i], field, length) == 0) {
        *out = arguments->named[i];
        return NULL;
      }
    return JINJA_ERROR(e, "format: there is no argument \"%.*s\"", (int)(length < 60 ? length : 60), field);
  }
  if (index >= arguments->count) return JINJA_ERROR(e, "format: there are only %zu arguments", arguments->count);
  *out = arguments->values[index];
  return NULL;
}

sluice_status *jinja_brace_format(jinja_environment *e, const jinja_string *format, const jinja_arguments *arguments,
                                  jinja_value *out) {
  jinja_buffer *buffer;
  const char *bytes = jinja_bytes(format);
  size_t next = 0;
  SLUICE_TRY(jinja_buffer_new(e, format->length + 32, &buffer));
  for (size_t at = 0; at < format->length; at++) {
    char c = bytes[at];
    if (c != '{' && c != '}') {
      SLUICE_TRY(jinja_put_part(e, buffer, format, at, 1));
      continue;
    }
    if (at + 1 < format->length && bytes[at + 1] == c) {
      SLUICE_TRY(jinja_put_part(e, buffer, format, at++, 1));
      continue;
    }
    const char *end = c == '{' ? memchr(bytes + at, '}', format->length - at) : NULL;
    if (!end) return JINJA_ERROR(e, "format: a single brace");
    jinja_value value;
    size_t length = (size_t)(end - bytes) - at - 1;
    SLUICE_TRY(brace_value(e, bytes + at + 1, length, arguments, &next, &value));
    SLUICE_TRY(jinja_put_text(e, buffer, &value));
    at += length + 1;
  }
  return jinja_take_buffer(e, buffer, out);
}

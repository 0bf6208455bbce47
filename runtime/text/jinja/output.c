/* Values as text: str(), repr() and json.dumps() of Python. */
#include "runtime/text/jinja/jinja.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Numbers ---- */

/* Python's repr: the fewest digits that read back to the same number. */
size_t jinja_float_text(double number, char out[40]) {
  if (isnan(number)) return (size_t)snprintf(out, 40, "nan");
  if (isinf(number)) return (size_t)snprintf(out, 40, number < 0 ? "-inf" : "inf");
  char text[40], digits[20] = "0";
  for (int precision = 0; precision <= 16; precision++) {
    snprintf(text, sizeof text, "%.*e", precision, number);
    if (strtod(text, NULL) == number) break;
  }
  /* A locale's decimal point may be other bytes: take the digits alone. */
  size_t count = 0, at = 0, e = strcspn(text, "e");
  for (size_t i = 0; i < e; i++)
    if (text[i] >= '0' && text[i] <= '9') digits[count++] = text[i];
  int exponent = (int)strtol(text + e + 1, NULL, 10);
  while (count > 1 && digits[count - 1] == '0') count--;
  if (signbit(number)) out[at++] = '-';
  if (exponent < -4 || exponent >= 16) {
    out[at++] = digits[0];
    if (count > 1) out[at++] = '.';
    for (size_t i = 1; i < count; i++) out[at++] = digits[i];
    return at + (size_t)snprintf(out + at, 40 - at, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
  }
  int point = exponent + 1; /* digits before it */
  if (point <= 0) {
    out[at++] = '0';
    out[at++] = '.';
    for (int i = point; i < 0; i++) out[at++] = '0';
    for (size_t i = 0; i < count; i++) out[at++] = digits[i];
  } else {
    for (int i = 0; i < point; i++) out[at++] = i < (int)count ? digits[i] : '0';
    out[at++] = '.';
    if ((int)count <= point) out[at++] = '0';
    for (size_t i = (size_t)point; i < count; i++) out[at++] = digits[i];
  }
  return at;
}

static sluice_status *put_integer(jinja_environment *e, jinja_buffer *buffer, int64_t integer) {
  char text[24];
  return jinja_put(e, buffer, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)integer), false);
}

static sluice_status *put_float(jinja_environment *e, jinja_buffer *buffer, double number) {
  char text[40];
  return jinja_put(e, buffer, text, jinja_float_text(number, text), false);
}

static sluice_status *put_words(jinja_environment *e, jinja_buffer *buffer, const char *words) {
  return jinja_put(e, buffer, words, strlen(words), false);
}

/* ---- repr ---- */

static sluice_status *put_string_repr(jinja_environment *e, jinja_buffer *buffer, const jinja_string *string) {
  const char *bytes = jinja_bytes(string);
  char quote = memchr(bytes, '\'', string->length) && !memchr(bytes, '"', string->length) ? '"' : '\'';
  SLUICE_TRY(jinja_put(e, buffer, &quote, 1, false));
  for (size_t at = 0; at < string->length;) {
    size_t length = string->length - at;
    uint32_t c = jinja_code_point(bytes + at, &length);
    char text[16];
    int size = 0;
    if (c == (uint32_t)quote || c == '\\')
      size = snprintf(text, sizeof text, "\\%c", (char)c);
    else if (c == '\n' || c == '\r' || c == '\t')
      size = snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
    else if (!jinja_is_printable(c))
      size = snprintf(text, sizeof text, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    if (size)
      SLUICE_TRY(jinja_put(e, buffer, text, (size_t)size, jinja_plain_at(string, at)));
    else
      SLUICE_TRY(jinja_put_part(e, buffer, string, at, length));
    at += length;
  }
  return jinja_put(e, buffer, &quote, 1, false);
}

static sluice_status *put_list_repr(jinja_environment *e, jinja_buffer *buffer, const jinja_value *value) {
  bool tuple = value->kind == JINJA_TUPLE;
  SLUICE_TRY(put_words(e, buffer, tuple ? "(" : "["));
  for (size_t i = 0; i < value->list->count; i++) {
    if (i) SLUICE_TRY(put_words(e, buffer, ", "));
    SLUICE_TRY(jinja_put_repr(e, buffer, &value->list->items[i]));
  }
  if (tuple && value->list->count == 1) SLUICE_TRY(put_words(e, buffer, ","));
  return put_words(e, buffer, tuple ? ")" : "]");
}

static sluice_status *put_entry(jinja_environment *e, jinja_buffer *buffer, const jinja_entry *entry,
                                enum jinja_view view) {
  if (view == JINJA_VIEW_KEYS) return jinja_put_repr(e, buffer, &entry->key);
  if (view == JINJA_VIEW_VALUES) return jinja_put_repr(e, buffer, &entry->value);
  SLUICE_TRY(put_words(e, buffer, "("));
  SLUICE_TRY(jinja_put_repr(e, buffer, &entry->key));
  SLUICE_TRY(put_words(e, buffer, ", "));
  SLUICE_TRY(jinja_put_repr(e, buffer, &entry->value));
  return put_words(e, buffer, ")");
}

static sluice_status *put_dict_repr(jinja_environment *e, jinja_buffer *buffer, const jinja_dict *dict) {
  SLUICE_TRY(put_words(e, buffer, "{"));
  for (size_t i = 0; i < dict->count; i++) {
    if (i) SLUICE_TRY(put_words(e, buffer, ", "));
    SLUICE_TRY(jinja_put_repr(e, buffer, &dict->entries[i].key));
    SLUICE_TRY(put_words(e, buffer, ": "));
    SLUICE_TRY(jinja_put_repr(e, buffer, &dict->entries[i].value));
  }
  return put_words(e, buffer, "}");
}

static sluice_status *put_view_repr(jinja_environment *e, jinja_buffer *buffer, const jinja_value *value) {
  static const char *const names[] = {"dict_items([", "dict_keys([", "dict_values(["};
  SLUICE_TRY(put_words(e, buffer, names[value->note]));
  for (size_t i = 0; i < value->dict->count; i++) {
    if (i) SLUICE_TRY(put_words(e, buffer, ", "));
    SLUICE_TRY(put_entry(e, buffer, &value->dict->entries[i], (enum jinja_view)value->note));
  }
  return put_words(e, buffer, "])");
}

static sluice_status *put_range_repr(jinja_environment *e, jinja_buffer *buffer, const jinja_range *range) {
  char text[80];
  long long start = range->start, end = range->stop, step = range->step;
  int length = step == 1 ? snprintf(text, sizeof text, "range(%lld, %lld)", start, end)
                         : snprintf(text, sizeof text, "range(%lld, %lld, %lld)", start, end, step);
  return jinja_put(e, buffer, text, (size_t)length, false);
}

static sluice_status *put_kind(jinja_environment *e, jinja_buffer *buffer, const jinja_value *value) {
  switch ((jinja_kind)value->kind) {
  case JINJA_UNDEFINED:
    return put_words(e, buffer, "Undefined");
  case JINJA_NONE:
    return put_words(e, buffer, "None");
  case JINJA_BOOL:
    return put_words(e, buffer, value->boolean ? "True" : "False");
  case JINJA_INT:
    return put_integer(e, buffer, value->integer);
  case JINJA_FLOAT:
    return put_float(e, buffer, value->number);
  case JINJA_STRING:
    if (value->string->safe) return JINJA_UNSUPPORTED(e, "the repr of escaped text is not supported");
    return put_string_repr(e, buffer, value->string);
  case JINJA_LIST:
  case JINJA_TUPLE:
    return put_list_repr(e, buffer, value);
  case JINJA_DICT:
    return put_dict_repr(e, buffer, value->dict);
  case JINJA_VIEW:
    return put_view_repr(e, buffer, value);
  case JINJA_RANGE:
    return put_range_repr(e, buffer, value->range);
  case JINJA_NAMESPACE:
    SLUICE_TRY(put_words(e, buffer, "<Namespace "));
    SLUICE_TRY(put_dict_repr(e, buffer, value->dict));
    return put_words(e, buffer, ">");
  default: /* Python prints an address for most of these */
    return JINJA_UNSUPPORTED(e, "a %s cannot be printed", jinja_type_name(value->kind));
  }
}

sluice_status *jinja_put_repr(jinja_environment *e, jinja_buffer *buffer, const jinja_value *value) {
  SLUICE_TRY(jinja_descend(e));
  SLUICE_TRY(jinja_spend(e, 1));
  SLUICE_TRY(put_kind(e, buffer, value));
  e->depth--;
  return NULL;
}

sluice_status *jinja_put_text(jinja_environment *e, jinja_buffer *buffer, const jinja_value *value) {
  if (value->kind == JINJA_STRING) return jinja_put_string(e, buffer, value->string);
  if (value->kind == JINJA_UNDEFINED) return NULL;
  return jinja_put_repr(e, buffer, value);
}

sluice_status *jinja_to_string(jinja_environment *e, const jinja_value *value, jinja_value *out) {
  if (value->kind == JINJA_STRING) {
    *out = *value;
    return NULL;
  }
  jinja_buffer *buffer;
  SLUICE_TRY(jinja_buffer_new(e, 24, &buffer));
  SLUICE_TRY(jinja_put_text(e, buffer, value));
  return jinja_take_buffer(e, buffer, out);
}

/* ---- JSON ---- */

static int json_escape(uint32_t c, bool ascii, char text[16]) {
  static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
  const char *found = c && c < 128 ? strchr(from, (int)c) : NULL;
  if (found) return snprintf(text, 16, "\\%c", to[found - from]);
  if (c >= 0x10000 && ascii)
    return snprintf(text, 16, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + ((c - 0x10000) & 0x3ff));
  if (c < 32 || (c >= 127 && ascii)) return snprintf(text, 16, "\\u%04x", c);
  return 0;
}

static sluice_status *put_json_string(jinja_environment *e, jinja_buffer *buffer, const jinja_string *string,
                                      bool ascii) {
  const char *bytes = jinja_bytes(string);
  SLUICE_TRY(put_words(e, buffer, "\""));
  size_t done = 0;
  for (size_t at = 0; at < string->length;) {
    size_t length = string->length - at;
    char text[16];
    int size = json_escape(jinja_code_point(bytes + at, &length), ascii, text);
    if (size) {
      SLUICE_TRY(jinja_put_part(e, buffer, string, done, at - done));
      SLUICE_TRY(jinja_put(e, buffer, text, (size_t)size, jinja_plain_at(string, at)));
      done = at + length;
    }
    at += length;
  }
  SLUICE_TRY(jinja_put_part(e, buffer, string, done, string->length - done));
  return put_words(e, buffer, "\"");
}

static sluice_status *put_json_float(jinja_environment *e, jinja_buffer *buffer, double number) {
  if (isnan(number)) return put_words(e, buffer, "NaN");
  if (isinf(number)) return put_words(e, buffer, number < 0 ? "-Infinity" : "Infinity");
  return put_float(e, buffer, number);
}

static sluice_status *put_json_key(jinja_environment *e, jinja_buffer *buffer, const jinja_value *key, bool ascii) {
  switch ((jinja_kind)key->kind) {
  case JINJA_STRING:
    return put_json_string(e, buffer, key->string, ascii);
  case JINJA_NONE:
    return put_words(e, buffer, "\"null\"");
  case JINJA_BOOL:
    return put_words(e, buffer, key->boolean ? "\"true\"" : "\"false\"");
  case JINJA_INT:
  case JINJA_FLOAT:
    SLUICE_TRY(put_words(e, buffer, "\""));
    if (key->kind == JINJA_INT)
      SLUICE_TRY(put_integer(e, buffer, key->integer));
    else
      SLUICE_TRY(put_json_float(e, buffer, key->number));
    return put_words(e, buffer, "\"");
  default:
    return JINJA_ERROR(e, "tojson: a %s cannot be a key of JSON", jinja_type_name(key->kind));
  }
}

static sluice_status *new_line(jinja_environment *e, jinja_buffer *buffer, const jinja_json_form *form,
                               unsigned level) {
  if (!form->indented) return NULL;
  SLUICE_TRY(put_words(e, buffer, "\n"));
  for (unsigned i = 0; i < level && form->indent; i++) SLUICE_TRY(jinja_put_string(e, buffer, form->indent));
  return NULL;
}

static sluice_status *put_separator(jinja_environment *e, jinja_buffer *buffer, const jinja_string *separator,
                                    const char *otherwise) {
  return separator ? jinja_put_string(e, buffer, separator) : put_words(e, buffer, otherwise);
}

static sluice_status *sorted_entries(jinja_environment *e, const jinja_dict *dict, jinja_entry **out) {
  jinja_value *items = jinja_new(e, 2 * dict->count * sizeof *items), *keys = items ? items + dict->count : NULL;
  *out = jinja_new(e, dict->count * sizeof **out);
  if (!items || !*out) return jinja_exhausted(e);
  for (size_t i = 0; i < dict->count; i++) {
    items[i] = jinja_int((int64_t)i);
    keys[i] = dict->entries[i].key;
  }
  SLUICE_TRY(jinja_sort(e, items, keys, dict->count, false));
  for (size_t i = 0; i < dict->count; i++) (*out)[i] = dict->entries[items[i].integer];
  return NULL;
}

static sluice_status *put_json_dict(jinja_environment *e, jinja_buffer *buffer, const jinja_dict *dict,
                                    const jinja_json_form *form, unsigned level) {
  jinja_entry *entries = dict->entries;
  if (form->sorted) SLUICE_TRY(sorted_entries(e, dict, &entries));
  for (size_t i = 0; i < dict->count; i++) {
    if (i) SLUICE_TRY(put_separator(e, buffer, form->item_separator, form->indented ? "," : ", "));
    SLUICE_TRY(new_line(e, buffer, form, level + 1));
    SLUICE_TRY(put_json_key(e, buffer, &entries[i].key, form->ascii));
    SLUICE_TRY(put_separator(e, buffer, form->key_separator, ": "));
    SLUICE_TRY(jinja_put_json(e, buffer, &entries[i].value, form, level + 1));
  }
  return NULL;
}

static sluice_status *put_json_list(jinja_environment *e, jinja_buffer *buffer, const jinja_list *list,
                                    const jinja_json_form *form, unsigned level) {
  for (size_t i = 0; i < list->count; i++) {
    if (i) SLUICE_TRY(put_separator(e, buffer, form->item_separator, form->indented ? "," : ", "));
    SLUICE_TRY(new_line(e, buffer, form, level + 1));
    SLUICE_TRY(jinja_put_json(e, buffer, &list->items[i], form, level + 1));
  }
  return NULL;
}

static sluice_status *put_json_container(jinja_environment *e, jinja_buffer *buffer, const jinja_value *value,
                                         const jinja_json_form *form, unsigned level) {
  bool dict = value->kind == JINJA_DICT;
  size_t count = dict ? value->dict->count : value->list->count;
  if (!count) return put_words(e, buffer, dict ? "{}" : "[]");
  SLUICE_TRY(jinja_descend(e));
  SLUICE_TRY(put_words(e, buffer, dict ? "{" : "["));
  SLUICE_TRY(dict ? put_json_dict(e, buffer, value->dict, form, level)
                  : put_json_list(e, buffer, value->list, form, level));
  SLUICE_TRY(new_line(e, buffer, form, level));
  e->depth--;
  return put_words(e, buffer, dict ? "}" : "]");
}

sluice_status *jinja_put_json(jinja_environment *e, jinja_buffer *buffer, const jinja_value *value,
                              const jinja_json_form *form, unsigned level) {
  SLUICE_TRY(jinja_spend(e, 1));
  switch ((jinja_kind)value->kind) {
  case JINJA_NONE:
    return put_words(e, buffer, "null");
  case JINJA_BOOL:
    return put_words(e, buffer, value->boolean ? "true" : "false");
  case JINJA_INT:
    return put_integer(e, buffer, value->integer);
  case JINJA_FLOAT:
    return put_json_float(e, buffer, value->number);
  case JINJA_STRING:
    return put_json_string(e, buffer, value->string, form->ascii);
  case JINJA_LIST:
  case JINJA_TUPLE:
  case JINJA_DICT:
    return put_json_container(e, buffer, value, form, level);
  default:
    return JINJA_ERROR(e, "tojson: a value of type %s cannot be written as JSON", jinja_type_name(value->kind));
  }
}

/* ---- HTML ---- */

sluice_status *jinja_escape(jinja_environment *e, const jinja_value *value, jinja_value *out) {
  static const char special[] = "&<>'\"";
  static const char *const names[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
  jinja_value text;
  SLUICE_TRY(jinja_to_string(e, value, &text));
  if (text.string->safe) {
    *out = text;
    return NULL;
  }
  jinja_buffer *buffer;
  SLUICE_TRY(jinja_buffer_new(e, text.string->length, &buffer));
  const char *bytes = jinja_bytes(text.string);
  size_t done = 0;
  for (size_t at = 0; at < text.string->length; at++) {
    const char *found = bytes[at] ? strchr(special, bytes[at]) : NULL;
    if (!found) continue;
    const char *name = names[found - special];
    SLUICE_TRY(jinja_put_part(e, buffer, text.string, done, at - done));
    SLUICE_TRY(jinja_put(e, buffer, name, strlen(name), jinja_plain_at(text.string, at)));
    done = at + 1;
  }
  SLUICE_TRY(jinja_put_part(e, buffer, text.string, done, text.string->length - done));
  SLUICE_TRY(jinja_take_buffer(e, buffer, out));
  out->string->safe = true;
  return NULL;
}

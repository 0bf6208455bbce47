#include "compiler/config_reader.h"

#include "compiler/suggest.h"
#include "sluice/memory.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void config_fail(config_reader *reader, const sluice_json_value *where, sluice_code code, const char *format, ...) {
  if (reader->status) return;
  va_list arguments;
  va_start(arguments, format);
  char message[512];
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  reader->status = sluice_json_error(reader->document, where->offset, code, "%s", message);
}

void config_say(config_reader *reader, size_t offset, const char *kind, const char *format, ...) {
  if (reader->status || !reader->warning) return;
  va_list arguments;
  va_start(arguments, format);
  char message[512];
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  size_t line = 1, start = 0;
  for (size_t i = 0; i < offset && i < reader->length; i++) {
    if (reader->text[i] != '\n') continue;
    line++;
    start = i + 1;
  }
  char *formatted = sluice_format_string("%s:%zu:%zu: %s: %s", sluice_json_file(reader->document), line,
                                         offset - start + 1, kind, message);
  if (!formatted) {
    reader->status = sluice_out_of_memory();
    return;
  }
  reader->warning(reader->user, formatted);
  sluice_release(formatted);
}

config_shown config_show(const config_reader *reader, const sluice_json_value *value) {
  config_shown shown;
  if (value->kind == SLUICE_JSON_STRING) {
    /* control characters would break the one line of a message */
    char clean[48];
    size_t length = value->length < sizeof clean - 1 ? value->length : sizeof clean - 1;
    for (size_t i = 0; i < length; i++) clean[i] = (unsigned char)value->string[i] < 0x20 ? '?' : value->string[i];
    while (length < value->length && length > 0 && ((unsigned char)value->string[length] & 0xc0) == 0x80) length--;
    clean[length] = 0;
    snprintf(shown.text, sizeof shown.text, "\"%s\"%s", clean, length < value->length ? "..." : "");
  } else if (value->kind == SLUICE_JSON_NUMBER) {
    size_t end = value->offset;
    while (end < reader->length && strchr("+-.eE0123456789", reader->text[end]) && reader->text[end]) end++;
    size_t length = end - value->offset;
    snprintf(shown.text, sizeof shown.text, "%.*s%s", (int)(length < 40 ? length : 40), reader->text + value->offset,
             length > 40 ? "..." : "");
  } else if (value->kind == SLUICE_JSON_BOOL) {
    snprintf(shown.text, sizeof shown.text, "%s", value->boolean ? "true" : "false");
  } else {
    snprintf(shown.text, sizeof shown.text, "%s", sluice_json_kind_name(value->kind));
  }
  return shown;
}

static const config_key *find_key(const config_object *known, const char *name, size_t length) {
  for (size_t i = 0; i < known->count; i++)
    if (strlen(known->keys[i].name) == length && memcmp(known->keys[i].name, name, length) == 0) return &known->keys[i];
  return NULL;
}

static void refuse_other_value(config_reader *reader, const config_key *key, const sluice_json_value *value) {
  char expected[48];
  bool good = false;
  switch (key->use) {
  case CONFIG_USED:
  case CONFIG_IGNORED:
    return;
  case CONFIG_ONLY_TRUE:
  case CONFIG_ONLY_FALSE:
    snprintf(expected, sizeof expected, "%s", key->use == CONFIG_ONLY_TRUE ? "true" : "false");
    good = value->kind == SLUICE_JSON_BOOL && value->boolean == (key->use == CONFIG_ONLY_TRUE);
    break;
  case CONFIG_ONLY_NULL:
    snprintf(expected, sizeof expected, "null");
    good = value->kind == SLUICE_JSON_NULL;
    break;
  case CONFIG_ONLY_TEXT:
    snprintf(expected, sizeof expected, "\"%s\"", key->text);
    good = value->kind == SLUICE_JSON_STRING && value->length == strlen(key->text) &&
           memcmp(value->string, key->text, value->length) == 0;
    break;
  case CONFIG_ONLY_ONE:
    snprintf(expected, sizeof expected, "1");
    good = value->kind == SLUICE_JSON_NUMBER && value->number == 1.0;
    break;
  }
  if (!good)
    config_fail(reader, value, SLUICE_UNSUPPORTED, "\"%s\" is %s, supported is %s alone (not implemented: %s)",
                key->name, config_show(reader, value).text, expected, key->meaning);
}

void config_check_object(config_reader *reader, const sluice_json_value *object, const config_object *known) {
  if (reader->status) return;
  if (object->kind != SLUICE_JSON_OBJECT) {
    config_fail(reader, object, SLUICE_INVALID, "%s is %s, expected an object", known->name,
                config_show(reader, object).text);
    return;
  }
  for (size_t i = 0; i < object->length; i++) {
    const sluice_json_member *member = &object->members[i];
    const config_key *key = find_key(known, member->key, member->key_length);
    if (key) {
      refuse_other_value(reader, key, &member->value);
      continue;
    }
    if (known->others_ignored) continue;
    sluice_json_value name = {.kind = SLUICE_JSON_STRING, .string = member->key, .length = member->key_length};
    const char *near = suggest_nearest(member->key, known->keys, known->count, sizeof known->keys[0]);
    config_say(reader, member->key_offset, "warning", "unknown key %s in %s is ignored%s%s%s",
               config_show(reader, &name).text, known->name, near ? "; did you mean \"" : "", near ? near : "",
               near ? "\"?" : "");
  }
}

const sluice_json_value *config_child(config_reader *reader, const sluice_json_value *object, const char *key,
                                      const config_object *known) {
  const sluice_json_value *child = sluice_json_get(object, key);
  if (reader->status || !child || child->kind == SLUICE_JSON_NULL) return NULL;
  config_check_object(reader, child, known);
  return reader->status ? NULL : child;
}

/* The places that hold a value, in order; when none does, the error if `required`. */
static size_t find_values(config_reader *reader, const config_place places[2], bool required,
                          const sluice_json_value *found[2], const char *keys[2], const sluice_json_value **out_where) {
  size_t count = 0;
  for (int i = 0; i < 2; i++) {
    const sluice_json_value *value = places[i].object ? sluice_json_get(places[i].object, places[i].key) : NULL;
    if (!value) continue;
    found[count] = value;
    keys[count++] = places[i].key;
  }
  const config_place *first = places[0].object ? &places[0] : &places[1];
  if (out_where) *out_where = count ? found[0] : first->object;
  if (!count && required) config_fail(reader, first->object, SLUICE_INVALID, "key \"%s\" is missing", first->key);
  return reader->status ? 0 : count;
}

int64_t config_integer(config_reader *reader, const config_place places[2], int64_t minimum, int64_t maximum,
                       int64_t fallback, const sluice_json_value **out_where) {
  const sluice_json_value *found[2];
  const char *keys[2];
  if (reader->status) return minimum;
  size_t count = find_values(reader, places, fallback == CONFIG_REQUIRED, found, keys, out_where);
  if (!count) return fallback == CONFIG_REQUIRED ? minimum : fallback;
  for (size_t i = 0; i < count; i++) {
    bool integer = found[i]->kind == SLUICE_JSON_NUMBER && found[i]->is_integer;
    if (!integer || found[i]->integer < minimum || found[i]->integer > maximum) {
      config_fail(reader, found[i], SLUICE_INVALID, "\"%s\" is %s, expected an integer from %lld to %lld", keys[i],
                  config_show(reader, found[i]).text, (long long)minimum, (long long)maximum);
      return minimum;
    }
  }
  if (count == 2 && found[0]->integer != found[1]->integer)
    config_fail(reader, found[1], SLUICE_INVALID, "\"%s\" is %lld, but elsewhere \"%s\" is %lld: they must agree",
                keys[1], (long long)found[1]->integer, keys[0], (long long)found[0]->integer);
  return found[0]->integer;
}

double config_number(config_reader *reader, const config_place places[2], double minimum, double maximum,
                     double fallback, const sluice_json_value **out_where) {
  const sluice_json_value *found[2];
  const char *keys[2];
  if (reader->status) return maximum;
  size_t count = find_values(reader, places, isnan(fallback), found, keys, out_where);
  if (!count) return isnan(fallback) ? maximum : fallback;
  for (size_t i = 0; i < count; i++) {
    bool number = found[i]->kind == SLUICE_JSON_NUMBER;
    if (!number || !(found[i]->number > minimum) || !(found[i]->number <= maximum)) {
      config_fail(reader, found[i], SLUICE_INVALID, "\"%s\" is %s, expected a number above %g and at most %g", keys[i],
                  config_show(reader, found[i]).text, minimum, maximum);
      return maximum;
    }
  }
  if (count == 2 && found[0]->number != found[1]->number)
    config_fail(reader, found[1], SLUICE_INVALID, "\"%s\" is %.17g, but elsewhere \"%s\" is %.17g: they must agree",
                keys[1], found[1]->number, keys[0], found[0]->number);
  return found[0]->number;
}

bool config_bool(config_reader *reader, const sluice_json_value *object, const char *key, bool fallback) {
  const sluice_json_value *value = sluice_json_get(object, key);
  if (reader->status || !value) return fallback;
  if (value->kind != SLUICE_JSON_BOOL)
    config_fail(reader, value, SLUICE_INVALID, "\"%s\" is %s, expected true or false", key,
                config_show(reader, value).text);
  return value->boolean;
}

/* The list at `place`, NULL when absent or wrong. */
static const sluice_json_value *layer_list(config_reader *reader, config_place place, int64_t layers) {
  const sluice_json_value *list = place.object ? sluice_json_get(place.object, place.key) : NULL;
  if (!list) return NULL;
  if (list->kind != SLUICE_JSON_ARRAY) {
    config_fail(reader, list, SLUICE_INVALID, "\"%s\" is %s, expected a list with one element for each layer",
                place.key, config_show(reader, list).text);
    return NULL;
  }
  if (list->length != (size_t)layers) {
    config_fail(reader, list, SLUICE_INVALID, "\"%s\" has %zu elements, expected one for each of the %lld layers",
                place.key, list->length, (long long)layers);
    return NULL;
  }
  return list;
}

void config_layer_flags(config_reader *reader, config_place numbers, config_place words, const char *const names[2],
                        int64_t layers, bool *out_flags) {
  if (reader->status) return;
  const sluice_json_value *number_list = layer_list(reader, numbers, layers);
  const sluice_json_value *word_list = reader->status ? NULL : layer_list(reader, words, layers);
  if (reader->status) return;
  if (!number_list && !word_list) {
    config_place wanted = numbers.object ? numbers : words;
    config_fail(reader, wanted.object, SLUICE_INVALID, "key \"%s\" is missing", wanted.key);
    return;
  }
  for (int64_t i = 0; i < layers && !reader->status; i++) {
    if (number_list) {
      const sluice_json_value *item = &number_list->items[i];
      bool good = item->kind == SLUICE_JSON_NUMBER && item->is_integer && (item->integer == 0 || item->integer == 1);
      if (!good)
        config_fail(reader, item, SLUICE_INVALID, "\"%s\" of layer %lld is %s, expected 0 or 1", numbers.key,
                    (long long)i, config_show(reader, item).text);
      else
        out_flags[i] = item->integer == 1;
    }
    if (word_list && !reader->status) {
      const sluice_json_value *item = &word_list->items[i];
      bool flag = item->kind == SLUICE_JSON_STRING && strcmp(item->string, names[1]) == 0;
      bool good = flag || (item->kind == SLUICE_JSON_STRING && strcmp(item->string, names[0]) == 0);
      if (!good)
        config_fail(reader, item, SLUICE_UNSUPPORTED, "\"%s\" of layer %lld is %s, expected \"%s\" or \"%s\"",
                    words.key, (long long)i, config_show(reader, item).text, names[0], names[1]);
      else if (number_list && flag != out_flags[i])
        config_fail(reader, item, SLUICE_INVALID, "\"%s\" of layer %lld is \"%s\", but \"%s\" says %d: they must agree",
                    words.key, (long long)i, item->string, numbers.key, out_flags[i]);
      else
        out_flags[i] = flag;
    }
  }
}

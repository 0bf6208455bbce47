/* Global functions. */
#include "runtime/text/jinja/jinja.h"

#include <string.h>
#include <time.h>

enum { MAX_RANGE = 100000 }; /* the sandbox's */

static sluice_status *call_range(jinja_environment *e, const jinja_arguments *arguments, jinja_value *out) {
  int64_t numbers[3] = {0, 0, 1};
  if (arguments->named_count || arguments->count < 1 || arguments->count > 3)
    return JINJA_ERROR(e, "range takes one to three ints");
  for (size_t i = 0; i < arguments->count; i++)
    if (!jinja_as_integer(&arguments->values[i], &numbers[arguments->count == 1 ? 1 : i]))
      return JINJA_ERROR(e, "range takes ints, not a %s", jinja_type_name(arguments->values[i].kind));
  int64_t start = numbers[0], stop = numbers[1], step = numbers[2];
  if (!step) return JINJA_ERROR(e, "range cannot have the step 0");
  jinja_range *range = jinja_new(e, sizeof *range);
  if (!range) return jinja_exhausted(e);
  /* Unsigned arithmetic: the distance may need 64 bits. */
  uint64_t distance = step > 0 ? (uint64_t)stop - (uint64_t)start : (uint64_t)start - (uint64_t)stop;
  uint64_t stride = step > 0 ? (uint64_t)step : -(uint64_t)step;
  bool empty = step > 0 ? start >= stop : start <= stop;
  uint64_t count = empty ? 0 : (distance - 1) / stride + 1;
  if (count > MAX_RANGE) return JINJA_ERROR(e, "range: more than %d numbers", MAX_RANGE);
  *range = (jinja_range){.start = start, .stop = stop, .step = step, .count = (size_t)count};
  *out = (jinja_value){.kind = JINJA_RANGE, .range = range};
  return NULL;
}

static sluice_status *set_all(jinja_environment *e, jinja_dict *dict, const jinja_dict *from) {
  for (size_t i = 0; i < from->count; i++)
    SLUICE_TRY(jinja_dict_set(e, dict, &from->entries[i].key, &from->entries[i].value));
  return NULL;
}

/* dict(x, a=1): of a dict or of pairs, then the keyword arguments. */
static sluice_status *call_dict(jinja_environment *e, const jinja_arguments *arguments, jinja_value *out) {
  SLUICE_TRY(jinja_dict_new(e, out));
  if (arguments->count > 1) return JINJA_ERROR(e, "dict takes at most one positional argument");
  if (arguments->count && arguments->values[0].kind == JINJA_DICT) {
    SLUICE_TRY(set_all(e, out->dict, arguments->values[0].dict));
  } else if (arguments->count) {
    jinja_value pairs, pair;
    SLUICE_TRY(jinja_to_list(e, &arguments->values[0], &pairs));
    for (size_t i = 0; i < pairs.list->count; i++) {
      SLUICE_TRY(jinja_to_list(e, &pairs.list->items[i], &pair));
      if (pair.list->count != 2) return JINJA_ERROR(e, "dict needs pairs");
      SLUICE_TRY(jinja_dict_set(e, out->dict, &pair.list->items[0], &pair.list->items[1]));
    }
  }
  for (size_t i = 0; i < arguments->named_count; i++) {
    jinja_value key;
    SLUICE_TRY(jinja_new_string(e, arguments->names[i], strlen(arguments->names[i]), false, &key));
    SLUICE_TRY(jinja_dict_set(e, out->dict, &key, &arguments->named[i]));
  }
  return NULL;
}

static sluice_status *call_namespace(jinja_environment *e, const jinja_arguments *arguments, jinja_value *out) {
  SLUICE_TRY(call_dict(e, arguments, out));
  out->kind = JINJA_NAMESPACE;
  return NULL;
}

static sluice_status *call_raise(jinja_environment *e, const jinja_arguments *arguments, jinja_value *out) {
  jinja_value values[JINJA_MAX_PARAMETERS], text;
  (void)out;
  SLUICE_TRY(jinja_bind(e, "function", "raise_exception", "message", arguments, values));
  SLUICE_TRY(jinja_to_string(e, &values[0], &text));
  int length = text.string->length < 1000 ? (int)text.string->length : 1000;
  return JINJA_ERROR(e, "the template refuses this: %.*s", length, jinja_bytes(text.string));
}

static sluice_status *call_strftime(jinja_environment *e, const jinja_arguments *arguments, jinja_value *out) {
  jinja_value values[JINJA_MAX_PARAMETERS];
  SLUICE_TRY(jinja_bind(e, "function", "strftime_now", "format", arguments, values));
  if (values[0].kind != JINJA_STRING) return JINJA_ERROR(e, "strftime_now: the format must be a str");
  const jinja_string *format = values[0].string;
  time_t now = (time_t)e->now;
  struct tm local;
  if (format->length > 1000 || memchr(jinja_bytes(format), 0, format->length))
    return JINJA_UNSUPPORTED(e, "strftime_now: this format is not supported");
  if (!localtime_r(&now, &local)) return JINJA_ERROR(e, "strftime_now: there is no such time");
  /* One byte more, since an empty result would look like one that does not fit. */
  char pattern[1024], text[4096];
  memcpy(pattern, jinja_bytes(format), format->length);
  memcpy(pattern + format->length, " ", 2);
  if (strstr(pattern, "%f")) return JINJA_UNSUPPORTED(e, "strftime_now: %%f is not supported");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  size_t length = strftime(text, sizeof text, pattern, &local);
#pragma GCC diagnostic pop
  if (!length) return JINJA_ERROR(e, "strftime_now: the text is too long");
  return jinja_new_string(e, text, length - 1, false, out);
}

static const jinja_function functions[] = {
    {"range", call_range},
    {"dict", call_dict},
    {"namespace", call_namespace},
    {"raise_exception", call_raise},
    {"strftime_now", call_strftime},
    /* Jinja has these; templates for chats do not use them. */
    {"lipsum", NULL},
    {"cycler", NULL},
    {"joiner", NULL},
    {"self", NULL},
};

const jinja_function *jinja_find_function(const char *name) {
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
    if (strcmp(functions[i].name, name) == 0) return &functions[i];
  return NULL;
}

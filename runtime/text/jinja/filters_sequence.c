/* Filters of sequences and mappings. */
#include "runtime/text/jinja/jinja.h"

#include <string.h>

#define FILTER(name)                                                                                                   \
  static sluice_status *name(jinja_environment *e, const jinja_value *input, const jinja_value *values,                \
                             jinja_value *out)

static bool is_true(const jinja_value *value) {
  return value->kind != JINJA_MISSING && jinja_truth(value);
}

static bool is_given(const jinja_value *value) {
  return value->kind != JINJA_MISSING && value->kind != JINJA_NONE;
}

FILTER(filter_default) {
  *out = *input;
  if (input->kind != JINJA_UNDEFINED && !(is_true(&values[1]) && !jinja_truth(input))) return NULL;
  if (values[0].kind == JINJA_MISSING) return jinja_new_string(e, "", 0, false, out);
  *out = values[0];
  return NULL;
}

FILTER(filter_length) {
  (void)values;
  int64_t length;
  SLUICE_TRY(jinja_length(e, input, &length));
  *out = jinja_int(length);
  return NULL;
}

FILTER(filter_first) {
  (void)values;
  jinja_iterator *it;
  bool more;
  SLUICE_TRY(jinja_iterate(e, input, &it));
  SLUICE_TRY(jinja_next(e, it, out, &more));
  if (!more) *out = jinja_hint("the sequence has no first item: it is empty");
  return NULL;
}

FILTER(filter_last) {
  (void)values;
  jinja_value list;
  if (input->kind == JINJA_ITERATOR) return JINJA_ERROR(e, "last: a generator has no last item; use |list before");
  if (input->kind == JINJA_STRING) {
    jinja_value last = jinja_int(-1);
    if (!input->string->length) {
      *out = jinja_hint("the sequence has no last item: it is empty");
      return NULL;
    }
    return jinja_item(e, input, &last, out);
  }
  SLUICE_TRY(jinja_to_list(e, input, &list));
  *out = list.list->count ? list.list->items[list.list->count - 1]
                          : jinja_hint("the sequence has no last item: it is empty");
  return NULL;
}

FILTER(filter_list) {
  (void)values;
  return jinja_to_list(e, input, out);
}

FILTER(filter_join) {
  jinja_value *path = NULL, separator;
  size_t path_count;
  jinja_iterator *it;
  jinja_buffer *buffer;
  SLUICE_TRY(jinja_path(e, &values[1], &path, &path_count));
  if (values[0].kind == JINJA_MISSING)
    SLUICE_TRY(jinja_new_string(e, "", 0, false, &separator));
  else
    SLUICE_TRY(jinja_to_string(e, &values[0], &separator));
  SLUICE_TRY(jinja_iterate(e, input, &it));
  SLUICE_TRY(jinja_buffer_new(e, 64, &buffer));
  for (size_t i = 0;; i++) {
    jinja_value item, part;
    bool more;
    SLUICE_TRY(jinja_next(e, it, &item, &more));
    if (!more) return jinja_take_buffer(e, buffer, out);
    if (i) SLUICE_TRY(jinja_put_string(e, buffer, separator.string));
    SLUICE_TRY(jinja_follow(e, &item, path, path_count, NULL, &part));
    SLUICE_TRY(jinja_put_text(e, buffer, &part));
  }
}

FILTER(filter_items) {
  (void)values;
  jinja_value view, list;
  if (input->kind == JINJA_UNDEFINED) {
    SLUICE_TRY(jinja_list_new(e, JINJA_LIST, 0, &list));
    return jinja_over(e, list.list, out);
  }
  if (input->kind != JINJA_DICT)
    return JINJA_ERROR(e, "items: expected a dict, not a %s", jinja_type_name(input->kind));
  view = (jinja_value){.kind = JINJA_VIEW, .note = JINJA_VIEW_ITEMS, .dict = input->dict};
  SLUICE_TRY(jinja_to_list(e, &view, &list));
  return jinja_over(e, list.list, out);
}

/* ---- Sorting ---- */

/* What texts are compared as, when case does not matter. */
static sluice_status *ignore_case(jinja_environment *e, bool ignore, jinja_value *value) {
  if (!ignore || value->kind != JINJA_STRING) return NULL;
  return jinja_change_case(e, value->string, CASE_LOWER, CASE_LOWER, value);
}

/* The key of each item: the attribute at `path`, in lower case. */
static sluice_status *keys_of(jinja_environment *e, const jinja_list *list, const jinja_value *attribute,
                              const jinja_value *otherwise, bool ignore, jinja_value **out) {
  jinja_value *path = NULL;
  size_t path_count;
  SLUICE_TRY(jinja_path(e, attribute, &path, &path_count));
  *out = jinja_new(e, list->count * sizeof **out);
  if (!*out) return jinja_exhausted(e);
  for (size_t i = 0; i < list->count; i++) {
    SLUICE_TRY(jinja_follow(e, &list->items[i], path, path_count, otherwise, &(*out)[i]));
    SLUICE_TRY(ignore_case(e, ignore, &(*out)[i]));
  }
  return NULL;
}

/* Keys of "a,b": lists. */
static sluice_status *several_keys(jinja_environment *e, const jinja_list *list, const jinja_string *names, bool ignore,
                                   jinja_value **out) {
  *out = jinja_new(e, list->count * sizeof **out);
  if (!*out) return jinja_exhausted(e);
  for (size_t i = 0; i < list->count; i++) SLUICE_TRY(jinja_list_new(e, JINJA_LIST, 2, &(*out)[i]));
  for (size_t start = 0; start <= names->length;) {
    const char *bytes = jinja_bytes(names), *comma = memchr(bytes + start, ',', names->length - start);
    size_t end = comma ? (size_t)(comma - bytes) : names->length;
    jinja_value name, *keys;
    SLUICE_TRY(jinja_substring(e, names, start, end - start, &name));
    SLUICE_TRY(keys_of(e, list, &name, NULL, ignore, &keys));
    for (size_t i = 0; i < list->count; i++) SLUICE_TRY(jinja_list_add(e, (*out)[i].list, &keys[i]));
    start = end + 1;
  }
  return NULL;
}

FILTER(filter_sort) {
  bool reverse = is_true(&values[0]), ignore = !is_true(&values[1]);
  jinja_value *keys;
  SLUICE_TRY(jinja_to_list(e, input, out));
  if (values[2].kind == JINJA_STRING && memchr(jinja_bytes(values[2].string), ',', values[2].string->length))
    SLUICE_TRY(several_keys(e, out->list, values[2].string, ignore, &keys));
  else
    SLUICE_TRY(keys_of(e, out->list, &values[2], NULL, ignore, &keys));
  return jinja_sort(e, out->list->items, keys, out->list->count, reverse);
}

FILTER(filter_dictsort) {
  bool ignore = !is_true(&values[0]), by_value = false;
  if (values[1].kind != JINJA_MISSING) {
    by_value = values[1].kind == JINJA_STRING && jinja_string_is(values[1].string, "value");
    if (!by_value && (values[1].kind != JINJA_STRING || !jinja_string_is(values[1].string, "key")))
      return JINJA_ERROR(e, "dictsort: \"by\" must be \"key\" or \"value\"");
  }
  if (input->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, input);
  if (input->kind != JINJA_DICT) return JINJA_ERROR(e, "dictsort of a %s", jinja_type_name(input->kind));
  jinja_value view = {.kind = JINJA_VIEW, .note = JINJA_VIEW_ITEMS, .dict = input->dict};
  jinja_value which = jinja_int(by_value), *keys;
  SLUICE_TRY(jinja_to_list(e, &view, out));
  SLUICE_TRY(keys_of(e, out->list, &which, NULL, ignore, &keys));
  return jinja_sort(e, out->list->items, keys, out->list->count, is_true(&values[2]));
}

FILTER(filter_unique) {
  jinja_value list, seen, kept, *keys;
  SLUICE_TRY(jinja_to_list(e, input, &list));
  SLUICE_TRY(keys_of(e, list.list, &values[1], NULL, !is_true(&values[0]), &keys));
  SLUICE_TRY(jinja_dict_new(e, &seen));
  SLUICE_TRY(jinja_list_new(e, JINJA_LIST, 8, &kept));
  for (size_t i = 0; i < list.list->count; i++) {
    size_t before = seen.dict->count;
    SLUICE_TRY(jinja_dict_set(e, seen.dict, &keys[i], &keys[i]));
    if (seen.dict->count > before) SLUICE_TRY(jinja_list_add(e, kept.list, &list.list->items[i]));
  }
  return jinja_over(e, kept.list, out);
}

static sluice_status *extreme(jinja_environment *e, const jinja_value *input, const jinja_value *values, int wanted,
                              jinja_value *out) {
  jinja_value list, *keys;
  SLUICE_TRY(jinja_to_list(e, input, &list));
  *out = jinja_hint("the sequence is empty: nothing is the smallest or largest");
  if (!list.list->count) return NULL;
  SLUICE_TRY(keys_of(e, list.list, &values[1], NULL, !is_true(&values[0]), &keys));
  size_t best = 0;
  for (size_t i = 1; i < list.list->count; i++) {
    int order;
    SLUICE_TRY(jinja_order(e, &keys[i], &keys[best], &order));
    if (order == wanted) best = i;
  }
  *out = list.list->items[best];
  return NULL;
}

FILTER(filter_min) {
  return extreme(e, input, values, -1, out);
}
FILTER(filter_max) {
  return extreme(e, input, values, 1, out);
}

/* ---- Others ---- */

FILTER(filter_sum) {
  jinja_value *path = NULL, list, item;
  size_t path_count;
  SLUICE_TRY(jinja_path(e, &values[0], &path, &path_count));
  *out = values[1].kind == JINJA_MISSING ? jinja_int(0) : values[1];
  if (out->kind == JINJA_STRING) return JINJA_ERROR(e, "sum: the start must not be a str");
  SLUICE_TRY(jinja_to_list(e, input, &list));
  for (size_t i = 0; i < list.list->count; i++) {
    SLUICE_TRY(jinja_follow(e, &list.list->items[i], path, path_count, NULL, &item));
    SLUICE_TRY(jinja_binary(e, TOKEN_ADD, out, &item, out));
  }
  return NULL;
}

FILTER(filter_reverse) {
  (void)values;
  jinja_value list;
  if (input->kind == JINJA_STRING) {
    jinja_value bounds[3] = {jinja_none(), jinja_none(), jinja_int(-1)};
    return jinja_slice(e, input, bounds, out);
  }
  SLUICE_TRY(jinja_to_list(e, input, &list));
  for (size_t i = 0; i < list.list->count / 2; i++) {
    jinja_value other = list.list->items[i];
    list.list->items[i] = list.list->items[list.list->count - 1 - i];
    list.list->items[list.list->count - 1 - i] = other;
  }
  *out = list;
  return input->kind == JINJA_ITERATOR ? NULL : jinja_over(e, list.list, out);
}

FILTER(filter_batch) {
  jinja_value list, rows, row = {0};
  int64_t size;
  if (!jinja_as_integer(&values[0], &size) || size < 1) return JINJA_ERROR(e, "batch: the size must be at least 1");
  SLUICE_TRY(jinja_to_list(e, input, &list));
  SLUICE_TRY(jinja_list_new(e, JINJA_LIST, 8, &rows));
  for (size_t i = 0; i < list.list->count; i++) {
    if (i % (uint64_t)size == 0) {
      SLUICE_TRY(jinja_list_new(e, JINJA_LIST, 4, &row));
      SLUICE_TRY(jinja_list_add(e, rows.list, &row));
    }
    SLUICE_TRY(jinja_list_add(e, row.list, &list.list->items[i]));
  }
  while (is_given(&values[1]) && row.list && row.list->count < (uint64_t)size) {
    SLUICE_TRY(jinja_spend(e, 1));
    SLUICE_TRY(jinja_list_add(e, row.list, &values[1]));
  }
  return jinja_over(e, rows.list, out);
}

FILTER(filter_slice) {
  jinja_value list, rows;
  int64_t slices;
  if (!jinja_as_integer(&values[0], &slices) || slices == 0) return JINJA_ERROR(e, "slice: the number must be an int");
  SLUICE_TRY(jinja_to_list(e, input, &list));
  SLUICE_TRY(jinja_list_new(e, JINJA_LIST, 8, &rows));
  if (slices < 0) return jinja_over(e, rows.list, out);
  size_t each = list.list->count / (uint64_t)slices, extra = list.list->count % (uint64_t)slices, at = 0;
  for (int64_t i = 0; i < slices; i++) {
    jinja_value row;
    bool longer = (uint64_t)i < extra;
    SLUICE_TRY(jinja_spend(e, 1));
    SLUICE_TRY(jinja_list_new(e, JINJA_LIST, each + 1, &row));
    for (size_t j = 0; j < each + longer; j++) SLUICE_TRY(jinja_list_add(e, row.list, &list.list->items[at++]));
    if (!longer && is_given(&values[1])) SLUICE_TRY(jinja_list_add(e, row.list, &values[1]));
    SLUICE_TRY(jinja_list_add(e, rows.list, &row));
  }
  return jinja_over(e, rows.list, out);
}

FILTER(filter_groupby) {
  jinja_value list, *keys, *names;
  const jinja_value *otherwise = is_given(&values[1]) ? &values[1] : NULL;
  bool ignore = !is_true(&values[2]);
  SLUICE_TRY(jinja_to_list(e, input, &list));
  SLUICE_TRY(keys_of(e, list.list, &values[0], otherwise, ignore, &keys));
  SLUICE_TRY(jinja_sort(e, list.list->items, keys, list.list->count, false));
  SLUICE_TRY(keys_of(e, list.list, &values[0], otherwise, false, &names));
  SLUICE_TRY(jinja_list_new(e, JINJA_LIST, 8, out));
  jinja_value group, members = {0};
  for (size_t i = 0; i < list.list->count; i++) {
    bool same = false;
    if (i) SLUICE_TRY(jinja_equal(e, &keys[i], &keys[i - 1], &same));
    if (!same) {
      SLUICE_TRY(jinja_list_new(e, JINJA_TUPLE, 2, &group));
      SLUICE_TRY(jinja_list_new(e, JINJA_LIST, 4, &members));
      SLUICE_TRY(jinja_list_add(e, group.list, ignore ? &names[i] : &keys[i]));
      SLUICE_TRY(jinja_list_add(e, group.list, &members));
      SLUICE_TRY(jinja_list_add(e, out->list, &group));
    }
    SLUICE_TRY(jinja_list_add(e, members.list, &list.list->items[i]));
  }
  return NULL;
}

FILTER(filter_attr) {
  if (values[0].kind != JINJA_STRING) return JINJA_ERROR(e, "attr: the name must be a str");
  if (input->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, input);
  SLUICE_TRY(jinja_python_attribute(e, input, values[0].string, out));
  if (out->kind == JINJA_MISSING)
    *out = (jinja_value){.kind = JINJA_UNDEFINED, .owner = input->kind, .string = values[0].string};
  return NULL;
}

const jinja_operation jinja_sequence_filters[] = {
    {"default", "default_value=,boolean=", filter_default},
    {"d", "default_value=,boolean=", filter_default},
    {"length", "", filter_length},
    {"count", "", filter_length},
    {"first", "", filter_first},
    {"last", "", filter_last},
    {"list", "", filter_list},
    {"join", "d=,attribute=", filter_join},
    {"items", "", filter_items},
    {"sort", "reverse=,case_sensitive=,attribute=", filter_sort},
    {"dictsort", "case_sensitive=,by=,reverse=", filter_dictsort},
    {"unique", "case_sensitive=,attribute=", filter_unique},
    {"min", "case_sensitive=,attribute=", filter_min},
    {"max", "case_sensitive=,attribute=", filter_max},
    {"sum", "attribute=,start=", filter_sum},
    {"reverse", "", filter_reverse},
    {"batch", "linecount,fill_with=", filter_batch},
    {"slice", "slices,fill_with=", filter_slice},
    {"groupby", "attribute,default=,case_sensitive=", filter_groupby},
    {"attr", "name", filter_attr},
    {0},
};

const jinja_operation *jinja_find_filter(const char *name) {
  for (const jinja_operation *filter = jinja_text_filters; filter->name; filter++)
    if (strcmp(filter->name, name) == 0) return filter;
  for (const jinja_operation *filter = jinja_sequence_filters; filter->name; filter++)
    if (strcmp(filter->name, name) == 0) return filter;
  return NULL;
}

/* ---- Filters whose arguments are those of another filter or test ---- */

bool jinja_is_higher(const char *name) {
  static const char *const names[] = {"map", "select", "reject", "selectattr", "rejectattr", "format"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (strcmp(names[i], name) == 0) return true;
  return false;
}

static sluice_status *format_filter(jinja_environment *e, const jinja_value *input, const jinja_arguments *arguments,
                                    jinja_value *out) {
  jinja_value text, values;
  SLUICE_TRY(jinja_to_string(e, input, &text));
  if (arguments->count && arguments->named_count)
    return JINJA_ERROR(e, "format: either positional or keyword arguments");
  if (arguments->named_count) {
    SLUICE_TRY(jinja_dict_new(e, &values));
    for (size_t i = 0; i < arguments->named_count; i++) {
      jinja_value key;
      SLUICE_TRY(jinja_new_string(e, arguments->names[i], strlen(arguments->names[i]), false, &key));
      SLUICE_TRY(jinja_dict_set(e, values.dict, &key, &arguments->named[i]));
    }
  } else {
    SLUICE_TRY(jinja_list_new(e, JINJA_TUPLE, arguments->count, &values));
    for (size_t i = 0; i < arguments->count; i++) values.list->items[i] = arguments->values[i];
    values.list->count = arguments->count;
  }
  return jinja_format(e, text.string, &values, out);
}

static const jinja_value *named_argument(const jinja_arguments *arguments, const char *name) {
  for (size_t i = 0; i < arguments->named_count; i++)
    if (strcmp(arguments->names[i], name) == 0) return &arguments->named[i];
  return NULL;
}

/* The filter or test that the arguments from `first` on name, with its own arguments bound. */
static sluice_status *bind_inner(jinja_environment *e, bool filter, const jinja_arguments *arguments, size_t first,
                                 jinja_iterator *it) {
  const jinja_value *name = &arguments->values[first];
  char text[64];
  if (name->kind != JINJA_STRING || name->string->length >= sizeof text)
    return JINJA_ERROR(e, "the name of a filter or test must be a str");
  memcpy(text, jinja_bytes(name->string), name->string->length);
  text[name->string->length] = 0;
  it->filter = filter ? jinja_find_filter(text) : jinja_find_test(text);
  if (!it->filter) return JINJA_UNSUPPORTED(e, "there is no %s \"%s\" here", filter ? "filter" : "test", text);
  jinja_arguments rest = *arguments;
  rest.values += first + 1;
  rest.count -= first + 1;
  jinja_value *bound = jinja_new(e, JINJA_MAX_PARAMETERS * sizeof *bound);
  if (!bound) return jinja_exhausted(e);
  it->bound = bound;
  return jinja_bind(e, filter ? "filter" : "test", it->filter->name, it->filter->parameters, &rest, bound);
}

static sluice_status *map(jinja_environment *e, const jinja_arguments *arguments, jinja_iterator *it) {
  const jinja_value *attribute = named_argument(arguments, "attribute"),
                    *otherwise = named_argument(arguments, "default");
  it->form = JINJA_MAPPED;
  if (arguments->count || !attribute) {
    if (!arguments->count) return JINJA_UNSUPPORTED(e, "map needs a filter or an attribute");
    return bind_inner(e, true, arguments, 0, it);
  }
  if (arguments->named_count > 1u + (otherwise != NULL)) return JINJA_ERROR(e, "map: unexpected keyword argument");
  if (otherwise) it->otherwise = *otherwise;
  return jinja_path(e, attribute, &it->path, &it->path_count);
}

sluice_status *jinja_higher(jinja_environment *e, const char *name, const jinja_value *input,
                            const jinja_arguments *arguments, jinja_value *out) {
  if (strcmp(name, "format") == 0) return format_filter(e, input, arguments, out);
  jinja_iterator *it = jinja_new(e, sizeof *it);
  if (!it) return jinja_exhausted(e);
  *out = (jinja_value){.kind = JINJA_ITERATOR, .iterator = it};
  if (!jinja_truth(input)) return NULL; /* an empty one, of whatever type */
  SLUICE_TRY(jinja_iterate(e, input, &it->inner));
  if (strcmp(name, "map") == 0) return map(e, arguments, it);
  it->form = JINJA_FILTERED;
  it->negated = name[0] == 'r';
  it->by_attribute = strlen(name) > 6;
  if (it->by_attribute) {
    if (!arguments->count) return JINJA_ERROR(e, "%s needs the name of an attribute", name);
    SLUICE_TRY(jinja_path(e, &arguments->values[0], &it->path, &it->path_count));
  }
  if (arguments->count <= it->by_attribute) return NULL;
  return bind_inner(e, false, arguments, it->by_attribute, it);
}

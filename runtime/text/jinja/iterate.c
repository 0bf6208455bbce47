/* Iterating over values, and the generators that `map` and `select` give: they work when they are asked. */
#include "runtime/text/jinja/jinja.h"

#include <string.h>

bool jinja_iterable(const jinja_value *value) {
  switch ((jinja_kind)value->kind) {
  case JINJA_UNDEFINED:
  case JINJA_STRING:
  case JINJA_LIST:
  case JINJA_TUPLE:
  case JINJA_DICT:
  case JINJA_VIEW:
  case JINJA_RANGE:
  case JINJA_ITERATOR:
    return true;
  default:
    return false;
  }
}

static sluice_status *new_iterator(jinja_environment *e, jinja_iterator **out) {
  *out = jinja_new(e, sizeof **out);
  return *out ? NULL : jinja_exhausted(e);
}

sluice_status *jinja_iterate(jinja_environment *e, const jinja_value *value, jinja_iterator **out) {
  if (value->kind == JINJA_ITERATOR) {
    *out = value->iterator; /* shared: what one reader takes the other does not see */
    return NULL;
  }
  if (!jinja_iterable(value)) return JINJA_ERROR(e, "a %s cannot be iterated over", jinja_type_name(value->kind));
  SLUICE_TRY(new_iterator(e, out));
  jinja_iterator *it = *out;
  it->source = *value;
  switch ((jinja_kind)value->kind) {
  case JINJA_STRING:
    it->form = JINJA_OVER_TEXT;
    it->count = value->string->length;
    break;
  case JINJA_LIST:
  case JINJA_TUPLE:
    it->values = value->list->items;
    it->count = value->list->count;
    break;
  case JINJA_RANGE:
    it->form = JINJA_OVER_RANGE;
    it->count = value->range->count;
    break;
  case JINJA_DICT:
  case JINJA_VIEW:
    it->form = JINJA_OVER_DICT;
    it->view = value->kind == JINJA_DICT ? JINJA_VIEW_KEYS : (enum jinja_view)value->note;
    it->count = value->dict->count;
    break;
  default:
    break;
  }
  return NULL;
}

sluice_status *jinja_over(jinja_environment *e, const jinja_list *list, jinja_value *out) {
  jinja_iterator *it;
  SLUICE_TRY(new_iterator(e, &it));
  it->values = list->items;
  it->count = list->count;
  *out = (jinja_value){.kind = JINJA_ITERATOR, .iterator = it};
  return NULL;
}

static sluice_status *next_entry(jinja_environment *e, jinja_iterator *it, jinja_value *out) {
  const jinja_entry *entry = &it->source.dict->entries[it->at++];
  if (it->view != JINJA_VIEW_ITEMS) {
    *out = it->view == JINJA_VIEW_KEYS ? entry->key : entry->value;
    return NULL;
  }
  SLUICE_TRY(jinja_list_new(e, JINJA_TUPLE, 2, out));
  out->list->items[0] = entry->key;
  out->list->items[1] = entry->value;
  out->list->count = 2;
  return NULL;
}

static sluice_status *next_mapped(jinja_environment *e, jinja_iterator *it, jinja_value *out, bool *more) {
  jinja_value item;
  SLUICE_TRY(jinja_next(e, it->inner, &item, more));
  if (!*more) return NULL;
  if (!it->filter)
    return jinja_follow(e, &item, it->path, it->path_count,
                        it->otherwise.kind == JINJA_MISSING || it->otherwise.kind == JINJA_NONE ? NULL : &it->otherwise,
                        out);
  return it->filter->call(e, &item, it->bound, out);
}

/* The condition of a for loop, with its target in a scope of its own. */
static sluice_status *loop_condition(jinja_environment *e, jinja_iterator *it, const jinja_value *item, bool *out) {
  jinja_scope *scope, *outer = e->scope;
  jinja_value result;
  SLUICE_TRY(jinja_scope_new(e, it->scope, &scope));
  e->scope = scope;
  SLUICE_TRY(jinja_assign(e, it->loop->a, item));
  SLUICE_TRY(jinja_evaluate(e, it->loop->c, &result));
  e->scope = outer;
  *out = jinja_truth(&result);
  return NULL;
}

static sluice_status *passes(jinja_environment *e, jinja_iterator *it, const jinja_value *item, bool *out) {
  if (it->loop) return loop_condition(e, it, item, out);
  jinja_value subject = *item, result;
  if (it->by_attribute) SLUICE_TRY(jinja_follow(e, item, it->path, it->path_count, NULL, &subject));
  if (it->filter) {
    SLUICE_TRY(it->filter->call(e, &subject, it->bound, &result));
    *out = jinja_truth(&result) != it->negated;
  } else {
    *out = jinja_truth(&subject) != it->negated;
  }
  return NULL;
}

static sluice_status *next_filtered(jinja_environment *e, jinja_iterator *it, jinja_value *out, bool *more) {
  for (bool pass = false; !pass;) {
    SLUICE_TRY(jinja_next(e, it->inner, out, more));
    if (!*more) return NULL;
    SLUICE_TRY(passes(e, it, out, &pass));
  }
  return NULL;
}

sluice_status *jinja_next(jinja_environment *e, jinja_iterator *it, jinja_value *out, bool *more) {
  SLUICE_TRY(jinja_spend(e, 1));
  if (it->form == JINJA_MAPPED || it->form == JINJA_FILTERED) {
    SLUICE_TRY(jinja_descend(e));
    SLUICE_TRY(it->form == JINJA_MAPPED ? next_mapped(e, it, out, more) : next_filtered(e, it, out, more));
    e->depth--;
    return NULL;
  }
  *more = it->at < it->count;
  if (!*more) return NULL;
  if (it->form == JINJA_OVER_VALUES) {
    *out = it->values[it->at++];
  } else if (it->form == JINJA_OVER_RANGE) {
    *out = jinja_int(it->source.range->start + (int64_t)it->at++ * it->source.range->step);
  } else if (it->form == JINJA_OVER_DICT) {
    return next_entry(e, it, out);
  } else {
    size_t length = it->count - it->at;
    jinja_code_point(jinja_bytes(it->source.string) + it->at, &length);
    SLUICE_TRY(jinja_substring(e, it->source.string, it->at, length, out));
    it->at += length;
  }
  return NULL;
}

sluice_status *jinja_to_list(jinja_environment *e, const jinja_value *value, jinja_value *out) {
  jinja_iterator *it;
  jinja_value item;
  bool more;
  SLUICE_TRY(jinja_iterate(e, value, &it));
  SLUICE_TRY(jinja_list_new(e, JINJA_LIST, it->form == JINJA_OVER_VALUES ? it->count - it->at : 8, out));
  for (;;) {
    SLUICE_TRY(jinja_next(e, it, &item, &more));
    if (!more) return NULL;
    SLUICE_TRY(jinja_list_add(e, out->list, &item));
  }
}

sluice_status *jinja_length(jinja_environment *e, const jinja_value *value, int64_t *out) {
  switch ((jinja_kind)value->kind) {
  case JINJA_UNDEFINED:
    *out = 0;
    return NULL;
  case JINJA_STRING:
    *out = (int64_t)jinja_characters(value->string);
    return NULL;
  case JINJA_LIST:
  case JINJA_TUPLE:
    *out = (int64_t)value->list->count;
    return NULL;
  case JINJA_DICT:
  case JINJA_VIEW:
    *out = (int64_t)value->dict->count;
    return NULL;
  case JINJA_RANGE:
    *out = (int64_t)value->range->count;
    return NULL;
  default:
    return JINJA_ERROR(e, "a %s has no length", jinja_type_name(value->kind));
  }
}

sluice_status *jinja_path(jinja_environment *e, const jinja_value *attribute, jinja_value **out_parts,
                          size_t *out_count) {
  *out_count = 0;
  if (attribute->kind == JINJA_NONE || attribute->kind == JINJA_MISSING) return NULL;
  size_t parts = 1;
  if (attribute->kind == JINJA_STRING)
    for (size_t i = 0; i < attribute->string->length; i++) parts += jinja_bytes(attribute->string)[i] == '.';
  *out_parts = jinja_new(e, parts * sizeof **out_parts);
  if (!*out_parts) return jinja_exhausted(e);
  *out_count = parts;
  if (attribute->kind != JINJA_STRING) {
    **out_parts = *attribute;
    return NULL;
  }
  const char *bytes = jinja_bytes(attribute->string);
  size_t start = 0;
  for (size_t i = 0; i < parts; i++) {
    size_t end = start;
    bool digits = true, overflow = false;
    for (; end < attribute->string->length && bytes[end] != '.'; end++)
      digits = digits && bytes[end] >= '0' && bytes[end] <= '9';
    int64_t number;
    if (digits && end > start && jinja_parse_integer(bytes + start, end - start, 10, &number, &overflow) && !overflow)
      (*out_parts)[i] = jinja_int(number);
    else
      SLUICE_TRY(jinja_substring(e, attribute->string, start, end - start, &(*out_parts)[i]));
    start = end + 1;
  }
  return NULL;
}

sluice_status *jinja_follow(jinja_environment *e, const jinja_value *object, const jinja_value *parts, size_t count,
                            const jinja_value *otherwise, jinja_value *out) {
  jinja_value at = *object;
  for (size_t i = 0; i < count; i++) {
    SLUICE_TRY(jinja_item(e, &at, &parts[i], out));
    at = otherwise && out->kind == JINJA_UNDEFINED ? *otherwise : *out;
  }
  *out = at;
  return NULL;
}

/* Operators, subscripts and slices. */
#include "runtime/text/jinja/jinja.h"

#include <math.h>
#include <string.h>

/* ---- Arithmetic ---- */

static sluice_status *no_operator(jinja_environment *e, jinja_token_kind op, const jinja_value *a,
                                  const jinja_value *b) {
  if (a->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, a);
  if (b->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, b);
  return JINJA_ERROR(e, "%s is not defined for a %s and a %s", jinja_token_names[op], jinja_type_name(a->kind),
                     jinja_type_name(b->kind));
}

static sluice_status *overflow(jinja_environment *e) {
  return JINJA_UNSUPPORTED(e, "the result does not fit an integer of 64 bits");
}

static sluice_status *divided_by_zero(jinja_environment *e) {
  return JINJA_ERROR(e, "division by zero");
}

static sluice_status *power(jinja_environment *e, int64_t base, int64_t exponent, jinja_value *out) {
  if (exponent < 0) {
    if (!base) return divided_by_zero(e);
    *out = jinja_float(pow((double)base, (double)exponent));
    return NULL;
  }
  int64_t result = 1;
  for (; exponent; exponent >>= 1) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) return overflow(e);
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return overflow(e);
  }
  *out = jinja_int(result);
  return NULL;
}

static sluice_status *integers(jinja_environment *e, jinja_token_kind op, int64_t a, int64_t b, jinja_value *out) {
  int64_t result = 0;
  bool wide = false;
  if ((op == TOKEN_DIV || op == TOKEN_FLOORDIV || op == TOKEN_MOD) && b == 0) return divided_by_zero(e);
  switch (op) {
  case TOKEN_ADD:
    wide = __builtin_add_overflow(a, b, &result);
    break;
  case TOKEN_SUB:
    wide = __builtin_sub_overflow(a, b, &result);
    break;
  case TOKEN_MUL:
    wide = __builtin_mul_overflow(a, b, &result);
    break;
  case TOKEN_POW:
    return power(e, a, b, out);
  case TOKEN_DIV: /* Python rounds the quotient once; a conversion that rounds first would not */
    if (a > (int64_t)1 << 53 || a < -((int64_t)1 << 53) || b > (int64_t)1 << 53 || b < -((int64_t)1 << 53))
      return JINJA_UNSUPPORTED(e, "dividing integers beyond 2^53 is not supported");
    *out = jinja_float((double)a / (double)b);
    return NULL;
  case TOKEN_FLOORDIV:
    if (b == -1) return integers(e, TOKEN_SUB, 0, a, out);
    result = a / b - (a % b != 0 && (a < 0) != (b < 0));
    break;
  default:
    if (b == -1) break;
    result = a % b;
    if (result && (result < 0) != (b < 0)) result += b;
    break;
  }
  if (wide) return overflow(e);
  *out = jinja_int(result);
  return NULL;
}

static sluice_status *floats(jinja_environment *e, jinja_token_kind op, double a, double b, jinja_value *out) {
  double result = 0;
  if ((op == TOKEN_DIV || op == TOKEN_FLOORDIV || op == TOKEN_MOD) && b == 0) return divided_by_zero(e);
  if (op == TOKEN_ADD) {
    result = a + b;
  } else if (op == TOKEN_SUB) {
    result = a - b;
  } else if (op == TOKEN_MUL) {
    result = a * b;
  } else if (op == TOKEN_DIV) {
    result = a / b;
  } else if (op == TOKEN_POW) {
    if (a == 0 && b < 0) return divided_by_zero(e);
    if (a < 0 && floor(b) != b) return JINJA_UNSUPPORTED(e, "complex numbers are not supported");
    result = pow(a, b);
    if (isinf(result) && !isinf(a) && !isinf(b)) return JINJA_ERROR(e, "the result is too large for a float");
  } else {
    double rest = fmod(a, b);
    if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
    if (rest == 0) rest = copysign(0.0, b);
    if (op == TOKEN_MOD) {
      result = rest;
    } else { /* as CPython: the quotient that belongs to the rest */
      double quotient = (a - rest) / b;
      result = quotient == 0 ? copysign(0.0, a / b) : floor(quotient);
      if (quotient != 0 && quotient - result > 0.5) result += 1;
    }
  }
  *out = jinja_float(result);
  return NULL;
}

static sluice_status *add_lists(jinja_environment *e, const jinja_value *a, const jinja_value *b, jinja_value *out) {
  SLUICE_TRY(jinja_spend(e, a->list->count + b->list->count));
  SLUICE_TRY(jinja_list_new(e, (jinja_kind)a->kind, a->list->count + b->list->count, out));
  for (size_t i = 0; i < a->list->count; i++) SLUICE_TRY(jinja_list_add(e, out->list, &a->list->items[i]));
  for (size_t i = 0; i < b->list->count; i++) SLUICE_TRY(jinja_list_add(e, out->list, &b->list->items[i]));
  return NULL;
}

static sluice_status *add_strings(jinja_environment *e, const jinja_value *a, const jinja_value *b, jinja_value *out) {
  jinja_value x = *a, y = *b;
  bool safe = x.string->safe || y.string->safe;
  if (safe) { /* Markup escapes what it is added to */
    SLUICE_TRY(jinja_escape(e, a, &x));
    SLUICE_TRY(jinja_escape(e, b, &y));
  }
  SLUICE_TRY(jinja_append(e, x.string, y.string, out));
  out->string->safe = safe;
  return NULL;
}

static sluice_status *repeat(jinja_environment *e, const jinja_value *value, int64_t times, jinja_value *out) {
  size_t count = times > 0 ? (size_t)times : 0;
  if (value->kind == JINJA_STRING) {
    jinja_buffer *buffer;
    SLUICE_TRY(jinja_buffer_new(e, 0, &buffer));
    for (size_t i = 0; i < count && value->string->length; i++) {
      SLUICE_TRY(jinja_spend(e, 1));
      SLUICE_TRY(jinja_put_string(e, buffer, value->string));
    }
    return jinja_take_buffer(e, buffer, out);
  }
  SLUICE_TRY(jinja_list_new(e, (jinja_kind)value->kind, 0, out));
  for (size_t i = 0; i < count && value->list->count; i++)
    for (size_t j = 0; j < value->list->count; j++) {
      SLUICE_TRY(jinja_spend(e, 1));
      SLUICE_TRY(jinja_list_add(e, out->list, &value->list->items[j]));
    }
  return NULL;
}

static bool is_sequence(const jinja_value *value) {
  return value->kind == JINJA_STRING || value->kind == JINJA_LIST || value->kind == JINJA_TUPLE;
}

sluice_status *jinja_binary(jinja_environment *e, jinja_token_kind op, const jinja_value *left,
                            const jinja_value *right, jinja_value *out) {
  int64_t a, b;
  double x, y;
  bool a_integer = jinja_as_integer(left, &a), b_integer = jinja_as_integer(right, &b);
  if (a_integer && b_integer) return integers(e, op, a, b, out);
  if (jinja_as_number(left, &x) && jinja_as_number(right, &y)) return floats(e, op, x, y, out);
  if (op == TOKEN_MOD && left->kind == JINJA_STRING && right->kind != JINJA_UNDEFINED)
    return jinja_format(e, left->string, right, out);
  if (op == TOKEN_ADD && left->kind == right->kind) {
    if (left->kind == JINJA_STRING) return add_strings(e, left, right, out);
    if (left->kind == JINJA_LIST || left->kind == JINJA_TUPLE) return add_lists(e, left, right, out);
  }
  if (op == TOKEN_MUL && is_sequence(left) && b_integer) return repeat(e, left, b, out);
  if (op == TOKEN_MUL && is_sequence(right) && a_integer) return repeat(e, right, a, out);
  return no_operator(e, op, left, right);
}

sluice_status *jinja_unary(jinja_environment *e, jinja_node_kind op, const jinja_value *operand, jinja_value *out) {
  int64_t integer;
  if (operand->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, operand);
  if (jinja_as_integer(operand, &integer)) {
    if (op == NODE_NEGATE) return integers(e, TOKEN_SUB, 0, integer, out);
    *out = jinja_int(integer);
    return NULL;
  }
  if (operand->kind != JINJA_FLOAT) return JINJA_ERROR(e, "a %s has no sign", jinja_type_name(operand->kind));
  *out = jinja_float(op == NODE_NEGATE ? -operand->number : operand->number);
  return NULL;
}

/* ---- Comparing ---- */

sluice_status *jinja_contains(jinja_environment *e, const jinja_value *container, const jinja_value *value, bool *out) {
  *out = false;
  const jinja_entry *entry;
  if (container->kind == JINJA_STRING) {
    if (value->kind != JINJA_STRING)
      return JINJA_ERROR(e, "\"in\" a str needs a str before it, not a %s", jinja_type_name(value->kind));
    SLUICE_TRY(jinja_spend(e, container->string->length / 64));
    *out = jinja_find(container->string, value->string, 0) != SIZE_MAX;
    return NULL;
  }
  if (container->kind == JINJA_DICT || (container->kind == JINJA_VIEW && container->note == JINJA_VIEW_KEYS)) {
    SLUICE_TRY(jinja_dict_find(e, container->dict, value, NULL, &entry));
    *out = entry != NULL;
    return NULL;
  }
  jinja_iterator *it;
  if (!jinja_iterable(container))
    return JINJA_ERROR(e, "\"in\" needs a container, not a %s", jinja_type_name(container->kind));
  SLUICE_TRY(jinja_iterate(e, container, &it));
  for (bool more = true; !*out;) {
    jinja_value item;
    SLUICE_TRY(jinja_next(e, it, &item, &more));
    if (!more) return NULL;
    SLUICE_TRY(jinja_equal(e, &item, value, out));
  }
  return NULL;
}

sluice_status *jinja_compare(jinja_environment *e, jinja_token_kind op, const jinja_value *left,
                             const jinja_value *right, bool *out) {
  int order;
  switch (op) {
  case TOKEN_EQ:
    return jinja_equal(e, left, right, out);
  case TOKEN_NE:
    SLUICE_TRY(jinja_equal(e, left, right, out));
    *out = !*out;
    return NULL;
  case TOKEN_IN:
    return jinja_contains(e, right, left, out);
  case TOKEN_NOT_IN:
    SLUICE_TRY(jinja_contains(e, right, left, out));
    *out = !*out;
    return NULL;
  default:
    break;
  }
  if (left->kind == JINJA_VIEW || right->kind == JINJA_VIEW)
    return JINJA_UNSUPPORTED(e, "the order of dict views is not supported");
  SLUICE_TRY(jinja_order(e, left, right, &order));
  *out = op == TOKEN_LT   ? order == -1
         : op == TOKEN_GT ? order == 1
         : op == TOKEN_LE ? order == -1 || order == 0
                          : order == 1 || order == 0;
  return NULL;
}

/* ---- Attributes and items ---- */

static jinja_value lacks(const jinja_value *object, const jinja_string *name) {
  return (jinja_value){.kind = JINJA_UNDEFINED, .owner = object->kind, .string = (jinja_string *)(uintptr_t)name};
}

sluice_status *jinja_attribute(jinja_environment *e, const jinja_value *object, jinja_string *name, jinja_value *out) {
  if (object->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, object);
  SLUICE_TRY(jinja_python_attribute(e, object, name, out));
  if (out->kind != JINJA_MISSING) return NULL;
  if (object->kind == JINJA_DICT) {
    const jinja_value *found = jinja_dict_get(object->dict, jinja_bytes(name), name->length);
    if (found) {
      *out = *found;
      return NULL;
    }
  }
  *out = lacks(object, name);
  return NULL;
}

static bool list_index(int64_t index, size_t count, size_t *out) {
  if (index < 0) index += (int64_t)count;
  *out = (size_t)index;
  return index >= 0 && (uint64_t)index < count;
}

/* object[index] of a sequence; `*out` stays missing when there is no such element. */
static sluice_status *element(jinja_environment *e, const jinja_value *object, int64_t index, jinja_value *out) {
  size_t at;
  if (object->kind == JINJA_LIST || object->kind == JINJA_TUPLE) {
    if (list_index(index, object->list->count, &at)) *out = object->list->items[at];
  } else if (object->kind == JINJA_RANGE) {
    if (list_index(index, object->range->count, &at))
      *out = jinja_int(object->range->start + (int64_t)at * object->range->step);
  } else if (object->kind == JINJA_STRING) {
    if (!list_index(index, jinja_characters(object->string), &at)) return NULL;
    SLUICE_TRY(jinja_spend(e, object->string->length / 64));
    size_t start = jinja_byte_of(object->string, at), length = object->string->length - start;
    jinja_code_point(jinja_bytes(object->string) + start, &length);
    SLUICE_TRY(jinja_substring(e, object->string, start, length, out));
    out->string->safe = object->string->safe;
  }
  return NULL;
}

sluice_status *jinja_item(jinja_environment *e, const jinja_value *object, const jinja_value *key, jinja_value *out) {
  int64_t index;
  *out = (jinja_value){.kind = JINJA_MISSING};
  if (object->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, object);
  if (object->kind == JINJA_DICT) {
    const jinja_entry *entry;
    bool hashable;
    SLUICE_TRY(jinja_dict_find(e, object->dict, key, &hashable, &entry));
    if (entry) *out = entry->value;
  } else if (jinja_as_integer(key, &index)) {
    SLUICE_TRY(element(e, object, index, out));
  }
  if (out->kind != JINJA_MISSING) return NULL;
  if (key->kind == JINJA_STRING) {
    SLUICE_TRY(jinja_python_attribute(e, object, key->string, out));
    if (out->kind == JINJA_MISSING) *out = lacks(object, key->string);
    return NULL;
  }
  *out = jinja_hint(object->kind == JINJA_DICT ? "this dict has no such key" : "there is no such element");
  return NULL;
}

/* ---- Slices ---- */

static sluice_status *slice_bound(jinja_environment *e, const jinja_value *bound, bool *given, int64_t *out) {
  *given = bound->kind != JINJA_NONE;
  if (!*given || jinja_as_integer(bound, out)) return NULL;
  return JINJA_ERROR(e, "a slice needs integers, not a %s", jinja_type_name(bound->kind));
}

typedef struct slice {
  int64_t start, stop, step;
  size_t count;
} slice;

/* As slice.indices() of Python. */
static sluice_status *resolve(jinja_environment *e, const jinja_value bounds[3], int64_t length, slice *out) {
  int64_t start = 0, stop = 0, step = 1;
  bool has_start, has_stop, has_step;
  SLUICE_TRY(slice_bound(e, &bounds[0], &has_start, &start));
  SLUICE_TRY(slice_bound(e, &bounds[1], &has_stop, &stop));
  SLUICE_TRY(slice_bound(e, &bounds[2], &has_step, &step));
  if (step == 0) return JINJA_ERROR(e, "a slice cannot have the step 0");
  if (step < -INT64_MAX) step = -INT64_MAX;
  int64_t low = step < 0 ? -1 : 0, high = step < 0 ? length - 1 : length;
  int64_t *ends[2] = {&start, &stop};
  for (int i = 0; i < 2; i++) {
    if (*ends[i] < 0) *ends[i] += length;
    if (*ends[i] < low) *ends[i] = low;
    if (*ends[i] > high) *ends[i] = high;
  }
  if (!has_start) start = step < 0 ? high : low;
  if (!has_stop) stop = step < 0 ? low : high;
  *out = (slice){.start = start, .stop = stop, .step = step};
  if (step > 0 && start < stop) out->count = (size_t)((stop - start - 1) / step + 1);
  if (step < 0 && stop < start) out->count = (size_t)((start - stop - 1) / -step + 1);
  return NULL;
}

static sluice_status *slice_string(jinja_environment *e, jinja_string *string, const slice *s, jinja_value *out) {
  SLUICE_TRY(jinja_spend(e, string->length / 64 + (s->step == 1 ? 0 : s->count)));
  if (s->step == 1 || !s->count) {
    size_t start = jinja_byte_of(string, (size_t)s->start);
    size_t end = s->count ? jinja_byte_of(string, (size_t)s->start + s->count) : start;
    SLUICE_TRY(jinja_substring(e, string, start, end - start, out));
    out->string->safe = string->safe;
    return NULL;
  }
  /* Where each character begins, so that every step is one look-up. */
  size_t characters = jinja_characters(string), at = 0;
  size_t *starts = jinja_new(e, (characters + 1) * sizeof *starts);
  jinja_buffer *buffer;
  if (!starts) return jinja_exhausted(e);
  for (size_t i = 0; i < string->length; i++)
    if (((unsigned char)jinja_bytes(string)[i] & 0xc0) != 0x80) starts[at++] = i;
  starts[characters] = string->length;
  SLUICE_TRY(jinja_buffer_new(e, s->count, &buffer));
  for (size_t i = 0; i < s->count; i++) {
    size_t character = (size_t)(s->start + (int64_t)i * s->step);
    SLUICE_TRY(jinja_put_part(e, buffer, string, starts[character], starts[character + 1] - starts[character]));
  }
  SLUICE_TRY(jinja_take_buffer(e, buffer, out));
  out->string->safe = string->safe;
  return NULL;
}

sluice_status *jinja_slice(jinja_environment *e, const jinja_value *object, const jinja_value bounds[3],
                           jinja_value *out) {
  int64_t length;
  slice s;
  if (object->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, object);
  if (!is_sequence(object) && object->kind != JINJA_RANGE)
    return JINJA_ERROR(e, "a %s cannot be sliced", jinja_type_name(object->kind));
  SLUICE_TRY(jinja_length(e, object, &length));
  SLUICE_TRY(resolve(e, bounds, length, &s));
  if (object->kind == JINJA_STRING) return slice_string(e, object->string, &s, out);
  if (object->kind == JINJA_RANGE) {
    jinja_range *range = jinja_new(e, sizeof *range);
    if (!range) return jinja_exhausted(e);
    *range = (jinja_range){.start = object->range->start + s.start * object->range->step,
                           .stop = object->range->start + s.stop * object->range->step,
                           .step = s.step * object->range->step,
                           .count = s.count};
    *out = (jinja_value){.kind = JINJA_RANGE, .range = range};
    return NULL;
  }
  SLUICE_TRY(jinja_spend(e, s.count / 8));
  SLUICE_TRY(jinja_list_new(e, (jinja_kind)object->kind, s.count, out));
  for (size_t i = 0; i < s.count; i++) out->list->items[i] = object->list->items[s.start + (int64_t)i * s.step];
  out->list->count = s.count;
  return NULL;
}

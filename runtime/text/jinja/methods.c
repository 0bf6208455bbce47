/* Methods of strings, dicts and lists, and what else Python's getattr finds. */
#include "runtime/text/jinja/jinja.h"

#include <string.h>

#define METHOD(name)                                                                                                   \
  static sluice_status *name(jinja_environment *e, const jinja_value *input, const jinja_value *values,                \
                             jinja_value *out)
#define UNUSED (void)e, (void)input, (void)values

/* ---- Arguments ---- */

static sluice_status *text_argument(jinja_environment *e, const jinja_value *value, const jinja_string **out) {
  if (value->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, value);
  if (value->kind != JINJA_STRING) return JINJA_ERROR(e, "expected a str, not a %s", jinja_type_name(value->kind));
  *out = value->string;
  return NULL;
}

static sluice_status *count_argument(jinja_environment *e, const jinja_value *value, int64_t otherwise, int64_t *out) {
  *out = otherwise;
  if (value->kind == JINJA_MISSING || jinja_as_integer(value, out)) return NULL;
  if (value->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, value);
  return JINJA_ERROR(e, "expected an int, not a %s", jinja_type_name(value->kind));
}

/* ---- Stripping ---- */

static bool has_character(const jinja_string *set, const char *bytes, size_t length) {
  for (size_t at = 0; at < set->length;) {
    size_t size = set->length - at;
    jinja_code_point(jinja_bytes(set) + at, &size);
    if (size == length && memcmp(jinja_bytes(set) + at, bytes, size) == 0) return true;
    at += size;
  }
  return false;
}

static sluice_status *strip(jinja_environment *e, const jinja_value *input, const jinja_value *characters, bool left,
                            bool right, jinja_value *out) {
  const jinja_string *string = input->string, *set = NULL;
  const char *bytes = jinja_bytes(string);
  size_t start = 0, end = string->length;
  if (characters->kind != JINJA_MISSING && characters->kind != JINJA_NONE)
    SLUICE_TRY(text_argument(e, characters, &set));
  if (!set) {
    if (left) start = jinja_leading_space(string);
    if (right) end = jinja_trailing_space(string, start);
  } else {
    while (left && start < end) {
      size_t length = end - start;
      jinja_code_point(bytes + start, &length);
      SLUICE_TRY(jinja_spend(e, set->length / 8));
      if (!has_character(set, bytes + start, length)) break;
      start += length;
    }
    while (right && end > start) {
      size_t at = end - 1;
      while (at > start && ((unsigned char)bytes[at] & 0xc0) == 0x80) at--;
      SLUICE_TRY(jinja_spend(e, set->length / 8));
      if (!has_character(set, bytes + at, end - at)) break;
      end = at;
    }
  }
  SLUICE_TRY(jinja_substring(e, string, start, end - start, out));
  out->string->safe = string->safe;
  return NULL;
}

METHOD(method_strip) {
  return strip(e, input, &values[0], true, true, out);
}
METHOD(method_lstrip) {
  return strip(e, input, &values[0], true, false, out);
}
METHOD(method_rstrip) {
  return strip(e, input, &values[0], false, true, out);
}

static sluice_status *remove_end(jinja_environment *e, const jinja_value *input, const jinja_value *part, bool front,
                                 jinja_value *out) {
  const jinja_string *cut, *string = input->string;
  SLUICE_TRY(text_argument(e, part, &cut));
  size_t length = string->length, at = front ? 0 : length - cut->length;
  *out = *input;
  if (cut->length > length || memcmp(jinja_bytes(string) + at, jinja_bytes(cut), cut->length) != 0) return NULL;
  return jinja_substring(e, string, front ? cut->length : 0, length - cut->length, out);
}

METHOD(method_removeprefix) {
  return remove_end(e, input, &values[0], true, out);
}
METHOD(method_removesuffix) {
  return remove_end(e, input, &values[0], false, out);
}

/* ---- Splitting ---- */

static sluice_status *add_part(jinja_environment *e, jinja_list *list, const jinja_string *string, size_t start,
                               size_t end) {
  jinja_value part;
  SLUICE_TRY(jinja_substring(e, string, start, end - start, &part));
  return jinja_list_add(e, list, &part);
}

static void turn_round(jinja_list *list) {
  for (size_t i = 0; i < list->count / 2; i++) {
    jinja_value other = list->items[i];
    list->items[i] = list->items[list->count - 1 - i];
    list->items[list->count - 1 - i] = other;
  }
}

static sluice_status *split_space(jinja_environment *e, const jinja_string *string, int64_t most, jinja_list *list) {
  const char *bytes = jinja_bytes(string);
  size_t at = 0;
  for (int64_t parts = 0;; parts++) {
    while (at < string->length) {
      size_t length = string->length - at;
      if (!jinja_is_space(jinja_code_point(bytes + at, &length))) break;
      at += length;
    }
    if (at == string->length) return NULL;
    if (most >= 0 && parts == most) return add_part(e, list, string, at, string->length);
    size_t start = at;
    while (at < string->length) {
      size_t length = string->length - at;
      if (jinja_is_space(jinja_code_point(bytes + at, &length))) break;
      at += length;
    }
    SLUICE_TRY(add_part(e, list, string, start, at));
  }
}

static sluice_status *split_on(jinja_environment *e, const jinja_string *string, const jinja_string *separator,
                               int64_t most, jinja_list *list) {
  size_t start = 0;
  for (int64_t parts = 0; most < 0 || parts < most; parts++) {
    size_t found = jinja_find(string, separator, start);
    if (found == SIZE_MAX) break;
    SLUICE_TRY(jinja_spend(e, 1));
    SLUICE_TRY(add_part(e, list, string, start, found));
    start = found + separator->length;
  }
  return add_part(e, list, string, start, string->length);
}

/* The last place of `part` that ends at or before `end`; SIZE_MAX: none. */
static size_t find_last(const jinja_string *string, const jinja_string *part, size_t start, size_t end) {
  if (part->length > end - start) return SIZE_MAX;
  for (size_t at = end - part->length + 1; at-- > start;)
    if (memcmp(jinja_bytes(string) + at, jinja_bytes(part), part->length) == 0 &&
        ((unsigned char)jinja_bytes(string)[at] & 0xc0) != 0x80)
      return at;
  return SIZE_MAX;
}

static sluice_status *rsplit_on(jinja_environment *e, const jinja_string *string, const jinja_string *separator,
                                int64_t most, jinja_list *list) {
  size_t end = string->length;
  for (int64_t parts = 0; most < 0 || parts < most; parts++) {
    size_t found = find_last(string, separator, 0, end);
    SLUICE_TRY(jinja_spend(e, 1 + string->length / 64));
    if (found == SIZE_MAX) break;
    SLUICE_TRY(add_part(e, list, string, found + separator->length, end));
    end = found;
  }
  SLUICE_TRY(add_part(e, list, string, 0, end));
  turn_round(list); /* they were found from the end */
  return NULL;
}

static sluice_status *split(jinja_environment *e, const jinja_value *input, const jinja_value *values, bool right,
                            jinja_value *out) {
  int64_t most;
  const jinja_string *separator = NULL;
  SLUICE_TRY(count_argument(e, &values[1], -1, &most));
  SLUICE_TRY(jinja_list_new(e, JINJA_LIST, 4, out));
  SLUICE_TRY(jinja_spend(e, input->string->length / 16));
  if (values[0].kind != JINJA_MISSING && values[0].kind != JINJA_NONE)
    SLUICE_TRY(text_argument(e, &values[0], &separator));
  if (!separator) {
    if (right && most >= 0) return JINJA_UNSUPPORTED(e, "rsplit at white space with a limit is not supported");
    return split_space(e, input->string, most, out->list);
  }
  if (!separator->length) return JINJA_ERROR(e, "split at an empty separator");
  return right ? rsplit_on(e, input->string, separator, most, out->list)
               : split_on(e, input->string, separator, most, out->list);
}

METHOD(method_split) {
  return split(e, input, values, false, out);
}
METHOD(method_rsplit) {
  return split(e, input, values, true, out);
}

static bool ends_line(uint32_t c) {
  return (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

METHOD(method_splitlines) {
  const jinja_string *string = input->string;
  const char *bytes = jinja_bytes(string);
  bool keep = values[0].kind != JINJA_MISSING && jinja_truth(&values[0]);
  SLUICE_TRY(jinja_list_new(e, JINJA_LIST, 4, out));
  SLUICE_TRY(jinja_spend(e, string->length / 16));
  size_t start = 0;
  for (size_t at = 0; at < string->length;) {
    size_t length = string->length - at;
    uint32_t c = jinja_code_point(bytes + at, &length);
    size_t end = at;
    at += length;
    if (!ends_line(c)) continue;
    if (c == '\r' && at < string->length && bytes[at] == '\n') at++;
    SLUICE_TRY(add_part(e, out->list, string, start, keep ? at : end));
    start = at;
  }
  return start < string->length ? add_part(e, out->list, string, start, string->length) : NULL;
}

static sluice_status *partition(jinja_environment *e, const jinja_value *input, const jinja_value *values, bool right,
                                jinja_value *out) {
  const jinja_string *separator, *string = input->string;
  SLUICE_TRY(text_argument(e, &values[0], &separator));
  if (!separator->length) return JINJA_ERROR(e, "partition at an empty separator");
  SLUICE_TRY(jinja_list_new(e, JINJA_TUPLE, 3, out));
  size_t found = right ? find_last(string, separator, 0, string->length) : jinja_find(string, separator, 0);
  size_t length = separator->length;
  if (found == SIZE_MAX) {
    found = right ? 0 : string->length;
    length = 0;
  }
  SLUICE_TRY(add_part(e, out->list, string, 0, found));
  SLUICE_TRY(add_part(e, out->list, string, found, found + length));
  return add_part(e, out->list, string, found + length, string->length);
}

METHOD(method_partition) {
  return partition(e, input, values, false, out);
}
METHOD(method_rpartition) {
  return partition(e, input, values, true, out);
}

/* ---- Searching ---- */

/* The part of the string between the given characters, as a slice has them. */
static sluice_status *bounds(jinja_environment *e, jinja_string *string, const jinja_value *from, const jinja_value *to,
                             size_t *start, size_t *end, bool *empty) {
  int64_t length = (int64_t)jinja_characters(string), first = 0, last = length;
  if (from->kind != JINJA_NONE) SLUICE_TRY(count_argument(e, from, 0, &first));
  if (to->kind != JINJA_NONE) SLUICE_TRY(count_argument(e, to, length, &last));
  if (first < 0) first = first + length < 0 ? 0 : first + length;
  if (last < 0) last = last + length < 0 ? 0 : last + length;
  if (last > length) last = length;
  *empty = first > last;
  *start = *empty ? 0 : jinja_byte_of(string, (size_t)first);
  *end = *empty ? 0 : jinja_byte_of(string, (size_t)last);
  return NULL;
}

static int64_t character_of(const jinja_string *string, size_t byte) {
  int64_t count = 0;
  for (size_t i = 0; i < byte; i++) count += ((unsigned char)jinja_bytes(string)[i] & 0xc0) != 0x80;
  return count;
}

static sluice_status *find(jinja_environment *e, const jinja_value *input, const jinja_value *values, bool right,
                           int64_t *out) {
  const jinja_string *part;
  size_t start, end;
  bool empty;
  *out = -1;
  SLUICE_TRY(text_argument(e, &values[0], &part));
  SLUICE_TRY(bounds(e, input->string, &values[1], &values[2], &start, &end, &empty));
  SLUICE_TRY(jinja_spend(e, input->string->length / 16));
  if (empty) return NULL;
  size_t found = right ? find_last(input->string, part, start, end) : jinja_find(input->string, part, start);
  if (found != SIZE_MAX && found + part->length <= end) *out = character_of(input->string, found);
  return NULL;
}

static sluice_status *find_value(jinja_environment *e, const jinja_value *input, const jinja_value *values, bool right,
                                 bool must, jinja_value *out) {
  int64_t place;
  SLUICE_TRY(find(e, input, values, right, &place));
  if (must && place < 0) return JINJA_ERROR(e, "substring not found");
  *out = jinja_int(place);
  return NULL;
}

METHOD(method_find) {
  return find_value(e, input, values, false, false, out);
}
METHOD(method_rfind) {
  return find_value(e, input, values, true, false, out);
}
METHOD(method_index) {
  return find_value(e, input, values, false, true, out);
}
METHOD(method_rindex) {
  return find_value(e, input, values, true, true, out);
}

METHOD(method_count) {
  const jinja_string *part;
  size_t start, end;
  bool empty;
  int64_t count = 0;
  SLUICE_TRY(text_argument(e, &values[0], &part));
  SLUICE_TRY(bounds(e, input->string, &values[1], &values[2], &start, &end, &empty));
  SLUICE_TRY(jinja_spend(e, input->string->length / 16));
  if (!part->length && !empty) count = 1 + character_of(input->string, end) - character_of(input->string, start);
  while (part->length && !empty) {
    size_t found = jinja_find(input->string, part, start);
    if (found == SIZE_MAX || found + part->length > end) break;
    count++;
    start = found + part->length;
  }
  *out = jinja_int(count);
  return NULL;
}

static sluice_status *has_end(jinja_environment *e, const jinja_value *input, const jinja_value *values, bool front,
                              jinja_value *out) {
  const jinja_value *parts = &values[0];
  size_t count = 1, start, end;
  bool empty;
  if (parts->kind == JINJA_TUPLE) {
    count = parts->list->count;
    parts = parts->list->items;
  }
  SLUICE_TRY(bounds(e, input->string, &values[1], &values[2], &start, &end, &empty));
  *out = jinja_bool(false);
  for (size_t i = 0; i < count && !out->boolean; i++) {
    const jinja_string *part;
    SLUICE_TRY(text_argument(e, &parts[i], &part));
    size_t at = front ? start : end - part->length;
    out->boolean = !empty && part->length <= end - start &&
                   memcmp(jinja_bytes(input->string) + at, jinja_bytes(part), part->length) == 0;
  }
  return NULL;
}

METHOD(method_startswith) {
  return has_end(e, input, values, true, out);
}
METHOD(method_endswith) {
  return has_end(e, input, values, false, out);
}

/* ---- Changing ---- */

METHOD(method_upper) {
  UNUSED;
  return jinja_change_case(e, input->string, CASE_UPPER, CASE_UPPER, out);
}
METHOD(method_lower) {
  UNUSED;
  return jinja_change_case(e, input->string, CASE_LOWER, CASE_LOWER, out);
}
METHOD(method_casefold) {
  UNUSED;
  return jinja_change_case(e, input->string, CASE_FOLD, CASE_FOLD, out);
}
METHOD(method_capitalize) {
  UNUSED;
  return jinja_change_case(e, input->string, CASE_TITLE, CASE_LOWER, out);
}

METHOD(method_title) {
  UNUSED;
  const jinja_string *string = input->string;
  jinja_buffer *buffer;
  SLUICE_TRY(jinja_buffer_new(e, string->length, &buffer));
  bool within = false;
  for (size_t at = 0; at < string->length;) {
    size_t length = string->length - at;
    uint32_t c = jinja_code_point(jinja_bytes(string) + at, &length);
    jinja_value character, mapped;
    if (c == 0x3a3 && within) return JINJA_UNSUPPORTED(e, "title() of a capital sigma is not supported");
    SLUICE_TRY(jinja_substring(e, string, at, length, &character));
    jinja_case to = within ? CASE_LOWER : CASE_TITLE;
    SLUICE_TRY(jinja_change_case(e, character.string, to, to, &mapped));
    SLUICE_TRY(jinja_put_string(e, buffer, mapped.string));
    within = jinja_is_cased(c);
    at += length;
  }
  return jinja_take_buffer(e, buffer, out);
}

METHOD(method_replace) {
  const jinja_string *string = input->string, *old, *new;
  int64_t most;
  jinja_buffer *buffer;
  SLUICE_TRY(text_argument(e, &values[0], &old));
  SLUICE_TRY(text_argument(e, &values[1], &new));
  SLUICE_TRY(count_argument(e, &values[2], -1, &most));
  SLUICE_TRY(jinja_spend(e, string->length / 16));
  SLUICE_TRY(jinja_buffer_new(e, string->length, &buffer));
  size_t at = 0;
  if (!old->length) { /* before every character and at the end */
    for (int64_t done = 0; most < 0 || done < most; done++) {
      SLUICE_TRY(jinja_put_string(e, buffer, new));
      SLUICE_TRY(jinja_spend(e, 1));
      if (at == string->length) return jinja_take_buffer(e, buffer, out);
      size_t length = string->length - at;
      jinja_code_point(jinja_bytes(string) + at, &length);
      SLUICE_TRY(jinja_put_part(e, buffer, string, at, length));
      at += length;
    }
  }
  for (int64_t done = 0; old->length && (most < 0 || done < most); done++) {
    size_t found = jinja_find(string, old, at);
    if (found == SIZE_MAX) break;
    SLUICE_TRY(jinja_spend(e, 1));
    SLUICE_TRY(jinja_put_part(e, buffer, string, at, found - at));
    SLUICE_TRY(jinja_put_string(e, buffer, new));
    at = found + old->length;
  }
  SLUICE_TRY(jinja_put_part(e, buffer, string, at, string->length - at));
  return jinja_take_buffer(e, buffer, out);
}

METHOD(method_join) {
  jinja_iterator *it;
  jinja_buffer *buffer;
  SLUICE_TRY(jinja_iterate(e, &values[0], &it));
  SLUICE_TRY(jinja_buffer_new(e, 64, &buffer));
  for (size_t i = 0;; i++) {
    jinja_value item;
    const jinja_string *text;
    bool more;
    SLUICE_TRY(jinja_next(e, it, &item, &more));
    if (!more) return jinja_take_buffer(e, buffer, out);
    SLUICE_TRY(text_argument(e, &item, &text));
    if (i) SLUICE_TRY(jinja_put_string(e, buffer, input->string));
    SLUICE_TRY(jinja_put_string(e, buffer, text));
  }
}

/* `left` and `right` fill characters around the string. */
static sluice_status *fill(jinja_environment *e, const jinja_string *string, int64_t left, int64_t right,
                           const jinja_value *with, jinja_value *out) {
  const jinja_string *character = NULL;
  jinja_buffer *buffer;
  if (with->kind != JINJA_MISSING) SLUICE_TRY(text_argument(e, with, &character));
  if (character && jinja_characters(with->string) != 1)
    return JINJA_ERROR(e, "the fill character must be one character");
  SLUICE_TRY(jinja_buffer_new(e, string->length, &buffer));
  for (int64_t i = 0; i < left + right + 1; i++) {
    if (i == left)
      SLUICE_TRY(jinja_put_string(e, buffer, string));
    else if (character)
      SLUICE_TRY(jinja_put_string(e, buffer, character));
    else
      SLUICE_TRY(jinja_put(e, buffer, " ", 1, false));
    SLUICE_TRY(jinja_spend(e, 1));
  }
  return jinja_take_buffer(e, buffer, out);
}

static sluice_status *missing_width(jinja_environment *e, const jinja_value *input, const jinja_value *width,
                                    int64_t *out) {
  SLUICE_TRY(count_argument(e, width, 0, out));
  *out -= (int64_t)jinja_characters(input->string);
  if (*out < 0) *out = 0;
  return NULL;
}

METHOD(method_center) {
  int64_t missing, width;
  SLUICE_TRY(missing_width(e, input, &values[0], &missing));
  SLUICE_TRY(count_argument(e, &values[0], 0, &width));
  int64_t left = missing / 2 + (missing & width & 1);
  return fill(e, input->string, left, missing - left, &values[1], out);
}
METHOD(method_ljust) {
  int64_t missing;
  SLUICE_TRY(missing_width(e, input, &values[0], &missing));
  return fill(e, input->string, 0, missing, &values[1], out);
}
METHOD(method_rjust) {
  int64_t missing;
  SLUICE_TRY(missing_width(e, input, &values[0], &missing));
  return fill(e, input->string, missing, 0, &values[1], out);
}

/* ---- Questions ---- */

/* Whether all characters pass and there is one; non-ASCII characters are not decided. */
static sluice_status *all_ascii(jinja_environment *e, const jinja_value *input, bool (*test)(char), jinja_value *out) {
  const char *bytes = jinja_bytes(input->string);
  out->boolean = input->string->length > 0;
  for (size_t i = 0; i < input->string->length; i++) {
    if ((unsigned char)bytes[i] >= 128)
      return JINJA_UNSUPPORTED(e, "this question about characters outside ASCII is not supported");
    if (!test(bytes[i])) out->boolean = false;
  }
  *out = jinja_bool(out->boolean);
  return NULL;
}

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
static bool is_letter(char c) {
  return (c | 32) >= 'a' && (c | 32) <= 'z';
}
static bool is_alphanumeric(char c) {
  return is_digit(c) || is_letter(c);
}

METHOD(method_isdigit) {
  UNUSED;
  return all_ascii(e, input, is_digit, out);
}
METHOD(method_isalpha) {
  UNUSED;
  return all_ascii(e, input, is_letter, out);
}
METHOD(method_isalnum) {
  UNUSED;
  return all_ascii(e, input, is_alphanumeric, out);
}
METHOD(method_isspace) {
  UNUSED;
  *out = jinja_bool(input->string->length > 0 && jinja_leading_space(input->string) == input->string->length);
  return NULL;
}

/* Upper or lower case: at least one character has a case, and all that have one have this. */
static sluice_status *has_case(const jinja_value *input, jinja_case to, jinja_value *out) {
  const jinja_string *string = input->string;
  bool any = false, all = true;
  for (size_t at = 0; at < string->length;) {
    size_t length = string->length - at;
    uint32_t c = jinja_code_point(jinja_bytes(string) + at, &length), mapped[3];
    at += length;
    if (!jinja_is_cased(c)) continue;
    any = true;
    jinja_case other = to == CASE_UPPER ? CASE_LOWER : CASE_UPPER;
    bool changes = jinja_map_case(c, to, mapped) > 1 || mapped[0] != c;
    bool changes_back = jinja_map_case(c, other, mapped) > 1 || mapped[0] != c;
    if (changes || (!changes_back && to == CASE_UPPER)) all = false;
  }
  *out = jinja_bool(any && all);
  return NULL;
}

METHOD(method_isupper) {
  UNUSED;
  return has_case(input, CASE_UPPER, out);
}
METHOD(method_islower) {
  UNUSED;
  return has_case(input, CASE_LOWER, out);
}

const jinja_operation jinja_string_methods[] = {
    {"strip", "chars=", method_strip},
    {"lstrip", "chars=", method_lstrip},
    {"rstrip", "chars=", method_rstrip},
    {"removeprefix", "prefix", method_removeprefix},
    {"removesuffix", "suffix", method_removesuffix},
    {"split", "sep=,maxsplit=", method_split},
    {"rsplit", "sep=,maxsplit=", method_rsplit},
    {"splitlines", "keepends=", method_splitlines},
    {"partition", "sep", method_partition},
    {"rpartition", "sep", method_rpartition},
    {"find", "sub,start=,end=", method_find},
    {"rfind", "sub,start=,end=", method_rfind},
    {"index", "sub,start=,end=", method_index},
    {"rindex", "sub,start=,end=", method_rindex},
    {"count", "sub,start=,end=", method_count},
    {"startswith", "prefix,start=,end=", method_startswith},
    {"endswith", "suffix,start=,end=", method_endswith},
    {"upper", "", method_upper},
    {"lower", "", method_lower},
    {"casefold", "", method_casefold},
    {"capitalize", "", method_capitalize},
    {"title", "", method_title},
    {"replace", "old,new,count=", method_replace},
    {"join", "iterable", method_join},
    {"center", "width,fillchar=", method_center},
    {"ljust", "width,fillchar=", method_ljust},
    {"rjust", "width,fillchar=", method_rjust},
    {"isdigit", "", method_isdigit},
    {"isdecimal", "", method_isdigit},
    {"isnumeric", "", method_isdigit},
    {"isalpha", "", method_isalpha},
    {"isalnum", "", method_isalnum},
    {"isspace", "", method_isspace},
    {"isupper", "", method_isupper},
    {"islower", "", method_islower},
    {"format", NULL, NULL}, /* its arguments are the caller's own: jinja_brace_format */
    {0},
};

/* ---- Dicts and lists ---- */

METHOD(method_get) {
  const jinja_entry *entry;
  SLUICE_TRY(jinja_dict_find(e, input->dict, &values[0], NULL, &entry));
  *out = entry ? entry->value : values[1].kind == JINJA_MISSING ? jinja_none() : values[1];
  return NULL;
}
METHOD(method_items) {
  UNUSED;
  *out = (jinja_value){.kind = JINJA_VIEW, .note = JINJA_VIEW_ITEMS, .dict = input->dict};
  return NULL;
}
METHOD(method_keys) {
  UNUSED;
  *out = (jinja_value){.kind = JINJA_VIEW, .note = JINJA_VIEW_KEYS, .dict = input->dict};
  return NULL;
}
METHOD(method_values) {
  UNUSED;
  *out = (jinja_value){.kind = JINJA_VIEW, .note = JINJA_VIEW_VALUES, .dict = input->dict};
  return NULL;
}
METHOD(method_copy) { /* nothing can be changed, so that a copy is the same */
  UNUSED;
  *out = *input;
  return NULL;
}

const jinja_operation jinja_dict_methods[] = {
    {"get", "key,default=", method_get}, {"items", "", method_items}, {"keys", "", method_keys},
    {"values", "", method_values},       {"copy", "", method_copy},   {0},
};

METHOD(method_list_count) {
  int64_t count = 0;
  for (size_t i = 0; i < input->list->count; i++) {
    bool equal;
    SLUICE_TRY(jinja_spend(e, 1));
    SLUICE_TRY(jinja_equal(e, &input->list->items[i], &values[0], &equal));
    count += equal;
  }
  *out = jinja_int(count);
  return NULL;
}
METHOD(method_list_index) {
  for (size_t i = 0; i < input->list->count; i++) {
    bool equal;
    SLUICE_TRY(jinja_spend(e, 1));
    SLUICE_TRY(jinja_equal(e, &input->list->items[i], &values[0], &equal));
    *out = jinja_int((int64_t)i);
    if (equal) return NULL;
  }
  return JINJA_ERROR(e, "index: the value is not in the list");
}

const jinja_operation jinja_list_methods[] = {
    {"count", "value", method_list_count},
    {"index", "value", method_list_index},
    {"copy", "", method_copy},
    {0},
};

/* ---- getattr ---- */

static const jinja_operation *find_method(const jinja_operation *methods, const jinja_string *name) {
  for (; methods->name; methods++)
    if (jinja_string_is(name, methods->name)) return methods;
  return NULL;
}

static bool is_one_of(const jinja_string *name, const char *const *names) {
  for (; *names; names++)
    if (jinja_string_is(name, *names)) return true;
  return false;
}

/* Attributes that Python has and templates cannot have: the sandbox refuses what changes an object. */
static const char *const dict_changing[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
static const char *const list_changing[] = {"append", "clear",   "extend", "insert", "pop",
                                            "remove", "reverse", "sort",   NULL};
/* ... and those that are not done here. */
static const char *const dict_others[] = {"fromkeys", NULL};
static const char *const none_others[] = {NULL};
static const char *const string_others[] = {"encode",       "expandtabs",  "format_map", "isascii",
                                            "isidentifier", "isprintable", "istitle",    "maketrans",
                                            "swapcase",     "translate",   "zfill",      NULL};
static const char *const integer_others[] = {
    "as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator", "from_bytes", "imag",
    "numerator",        "real",      "to_bytes",   NULL};
static const char *const float_others[] = {"as_integer_ratio", "conjugate", "fromhex", "hex", "imag",
                                           "is_integer",       "real",      NULL};
static const char *const macro_others[] = {
    "name", "arguments", "catch_kwargs", "catch_varargs", "caller", "explicit_caller", NULL};
static const char *const range_others[] = {"start", "stop", "step", "count", "index", NULL};
static const char *const view_others[] = {"isdisjoint", "mapping", NULL};
static const char *const iterator_others[] = {"close", "send", "throw", NULL};

static const char *const *others_of(jinja_kind kind) {
  switch (kind) {
  case JINJA_STRING:
    return string_others;
  case JINJA_DICT:
    return dict_others;
  case JINJA_BOOL:
  case JINJA_INT:
    return integer_others;
  case JINJA_FLOAT:
    return float_others;
  case JINJA_MACRO:
    return macro_others;
  case JINJA_RANGE:
    return range_others;
  case JINJA_VIEW:
    return view_others;
  case JINJA_ITERATOR:
    return iterator_others;
  default:
    return none_others;
  }
}

static sluice_status *bind_method(jinja_environment *e, const jinja_value *object, const jinja_operation *operation,
                                  jinja_value *out) {
  jinja_method *method = jinja_new(e, sizeof *method);
  if (!method) return jinja_exhausted(e);
  *method = (jinja_method){.object = *object, .operation = operation};
  *out = (jinja_value){.kind = JINJA_METHOD, .method = method};
  return NULL;
}

sluice_status *jinja_python_attribute(jinja_environment *e, const jinja_value *object, const jinja_string *name,
                                      jinja_value *out) {
  *out = (jinja_value){.kind = JINJA_MISSING};
  jinja_kind kind = (jinja_kind)object->kind;
  if (kind == JINJA_NAMESPACE) {
    const jinja_value *found = jinja_dict_get(object->dict, jinja_bytes(name), name->length);
    if (found) *out = *found;
    return NULL;
  }
  if (kind == JINJA_LOOP) return jinja_loop_attribute(e, object, name, out);
  bool list = kind == JINJA_LIST, sequence = list || kind == JINJA_TUPLE;
  const jinja_operation *methods = kind == JINJA_STRING ? jinja_string_methods
                                   : kind == JINJA_DICT ? jinja_dict_methods
                                   : sequence           ? jinja_list_methods
                                                        : NULL;
  const jinja_operation *method = methods ? find_method(methods, name) : NULL;
  if (method && kind == JINJA_STRING && object->string->safe)
    return JINJA_UNSUPPORTED(e, "methods of escaped text are not supported");
  if (method && !(kind == JINJA_TUPLE && method->call == method_copy)) return bind_method(e, object, method, out);
  bool changes = (kind == JINJA_DICT && is_one_of(name, dict_changing)) || (list && is_one_of(name, list_changing));
  bool hidden = name->length > 4 && memcmp(jinja_bytes(name), "__", 2) == 0 &&
                memcmp(jinja_bytes(name) + name->length - 2, "__", 2) == 0;
  if (changes || hidden) {
    /* A hidden name may be no attribute of Python and a key of a dict; templates do not use such keys. */
    *out = (jinja_value){.kind = JINJA_UNDEFINED,
                         .note = JINJA_UNDEFINED_UNSAFE,
                         .owner = object->kind,
                         .string = (jinja_string *)(uintptr_t)name};
    return NULL;
  }
  if (!is_one_of(name, others_of(kind))) return NULL;
  return JINJA_UNSUPPORTED(e, "\"%.*s\" of a %s is not supported", (int)name->length, jinja_bytes(name),
                           jinja_type_name(kind));
}

/* Strings: parts of buffers that know which bytes are plain, and the tables of Unicode. */
#include "runtime/text/jinja/jinja.h"

#include <string.h>

/* ---- Buffers ---- */

sluice_status *jinja_buffer_new(jinja_environment *e, size_t capacity, jinja_buffer **out) {
  jinja_buffer *buffer = jinja_new(e, sizeof *buffer);
  if (!buffer || capacity == SIZE_MAX) return jinja_exhausted(e);
  buffer->data = jinja_new(e, capacity + 1);
  if (!buffer->data) return jinja_exhausted(e);
  buffer->capacity = capacity;
  *out = buffer;
  return NULL;
}

static sluice_status *reserve(jinja_environment *e, jinja_buffer *buffer, size_t more) {
  if (buffer->capacity - buffer->length >= more) return NULL;
  if (more > e->limits.output || buffer->length > e->limits.output - more)
    return JINJA_ERROR(e, "the template makes a text of more than %zu MB here", e->limits.output >> 20);
  size_t capacity = buffer->capacity < 64 ? 64 : buffer->capacity;
  while (capacity - buffer->length < more) capacity *= 2;
  char *data = jinja_new(e, capacity + 1);
  if (!data) return jinja_exhausted(e);
  if (buffer->length) memcpy(data, buffer->data, buffer->length);
  buffer->data = data;
  buffer->capacity = capacity;
  return NULL;
}

static sluice_status *add_plain(jinja_environment *e, jinja_buffer *buffer, size_t start, size_t end) {
  if (start == end) return NULL;
  if (buffer->plain_count && buffer->plain[buffer->plain_count - 1].end == start) {
    buffer->plain[buffer->plain_count - 1].end = end;
    return NULL;
  }
  if (buffer->plain_count == buffer->plain_capacity) {
    size_t capacity = buffer->plain_capacity ? 2 * buffer->plain_capacity : 4;
    sluice_span *spans = jinja_new(e, capacity * sizeof *spans);
    if (!spans) return jinja_exhausted(e);
    if (buffer->plain_count) memcpy(spans, buffer->plain, buffer->plain_count * sizeof *spans);
    buffer->plain = spans;
    buffer->plain_capacity = capacity;
  }
  buffer->plain[buffer->plain_count++] = (sluice_span){start, end};
  return NULL;
}

sluice_status *jinja_put(jinja_environment *e, jinja_buffer *buffer, const char *bytes, size_t length, bool plain) {
  if (!length) return NULL;
  SLUICE_TRY(jinja_spend(e, length / 64));
  SLUICE_TRY(reserve(e, buffer, length));
  memmove(buffer->data + buffer->length, bytes, length);
  buffer->length += length;
  return plain ? add_plain(e, buffer, buffer->length - length, buffer->length) : NULL;
}

/* The first span of the buffer that ends behind `byte`. */
static size_t first_span(const jinja_buffer *buffer, size_t byte) {
  size_t low = 0, high = buffer->plain_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (buffer->plain[middle].end <= byte)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

sluice_status *jinja_put_part(jinja_environment *e, jinja_buffer *buffer, const jinja_string *string, size_t start,
                              size_t length) {
  const jinja_buffer *from = string->buffer;
  size_t first = string->start + start, end = first + length, base = buffer->length;
  SLUICE_TRY(jinja_put(e, buffer, from->data + first, length, false));
  size_t spans = from->plain_count;
  for (size_t i = first_span(from, first); i < spans && from->plain[i].start < end; i++) {
    size_t a = from->plain[i].start > first ? from->plain[i].start : first;
    size_t b = from->plain[i].end < end ? from->plain[i].end : end;
    SLUICE_TRY(add_plain(e, buffer, base + a - first, base + b - first));
  }
  return NULL;
}

sluice_status *jinja_put_string(jinja_environment *e, jinja_buffer *buffer, const jinja_string *string) {
  return jinja_put_part(e, buffer, string, 0, string->length);
}

bool jinja_plain_at(const jinja_string *string, size_t byte) {
  size_t i = first_span(string->buffer, string->start + byte);
  return i < string->buffer->plain_count && string->buffer->plain[i].start <= string->start + byte;
}

bool jinja_any_plain(const jinja_string *string) {
  size_t i = first_span(string->buffer, string->start);
  return i < string->buffer->plain_count && string->buffer->plain[i].start < string->start + string->length;
}

/* ---- Strings ---- */

static sluice_status *new_string(jinja_environment *e, jinja_buffer *buffer, size_t start, size_t length,
                                 jinja_value *out) {
  jinja_string *string = jinja_new(e, sizeof *string);
  if (!string) return jinja_exhausted(e);
  *string = (jinja_string){.buffer = buffer, .start = start, .length = length, .characters = SIZE_MAX};
  *out = (jinja_value){.kind = JINJA_STRING, .string = string};
  return NULL;
}

sluice_status *jinja_take_buffer(jinja_environment *e, jinja_buffer *buffer, jinja_value *out) {
  return new_string(e, buffer, 0, buffer->length, out);
}

sluice_status *jinja_new_string(jinja_environment *e, const char *bytes, size_t length, bool plain, jinja_value *out) {
  jinja_buffer *buffer;
  SLUICE_TRY(jinja_buffer_new(e, length, &buffer));
  SLUICE_TRY(jinja_put(e, buffer, bytes, length, plain));
  return jinja_take_buffer(e, buffer, out);
}

sluice_status *jinja_substring(jinja_environment *e, const jinja_string *string, size_t start, size_t length,
                               jinja_value *out) {
  return new_string(e, string->buffer, string->start + start, length, out);
}

sluice_status *jinja_append(jinja_environment *e, const jinja_string *left, const jinja_string *right,
                            jinja_value *out) {
  /* A string at the end of its buffer grows in place: a loop that appends stays linear. Buffers of the template itself
   * are full, so that they never change. */
  jinja_buffer *buffer = left->buffer;
  size_t start = left->start;
  if (left->start + left->length != buffer->length || buffer->capacity - buffer->length < right->length) {
    if (right->length > e->limits.output)
      return JINJA_ERROR(e, "the template makes a text of more than %zu MB here", e->limits.output >> 20);
    SLUICE_TRY(jinja_buffer_new(
        e, left->length < 128 ? left->length + right->length + 32 : 2 * (left->length + right->length), &buffer));
    SLUICE_TRY(jinja_put_string(e, buffer, left));
    start = 0;
  }
  SLUICE_TRY(jinja_put_string(e, buffer, right));
  return new_string(e, buffer, start, left->length + right->length, out);
}

size_t jinja_characters(jinja_string *string) {
  if (string->characters != SIZE_MAX) return string->characters;
  const char *bytes = jinja_bytes(string);
  size_t count = 0;
  for (size_t i = 0; i < string->length; i++) count += ((unsigned char)bytes[i] & 0xc0) != 0x80;
  return string->characters = count;
}

size_t jinja_byte_of(jinja_string *string, size_t character) {
  size_t count = jinja_characters(string);
  if (character >= count) return string->length;
  if (count == string->length) return character;
  const char *bytes = jinja_bytes(string);
  size_t at = 0;
  for (size_t seen = 0;; at++) {
    if (((unsigned char)bytes[at] & 0xc0) == 0x80) continue;
    if (seen++ == character) return at;
  }
}

uint32_t jinja_code_point(const char *text, size_t *length) {
  const unsigned char *bytes = (const unsigned char *)text;
  unsigned size = bytes[0] < 0x80 ? 1 : bytes[0] < 0xe0 ? 2 : bytes[0] < 0xf0 ? 3 : 4;
  if (size > *length) size = (unsigned)*length; /* cannot be: the text was checked */
  uint32_t code = size == 1 ? bytes[0] : bytes[0] & (0x7fu >> size);
  for (unsigned i = 1; i < size; i++) code = code << 6 | (bytes[i] & 0x3fu);
  *length = size;
  return code;
}

bool jinja_string_is(const jinja_string *string, const char *text) {
  return strlen(text) == string->length && memcmp(jinja_bytes(string), text, string->length) == 0;
}

size_t jinja_find(const jinja_string *string, const jinja_string *part, size_t from) {
  if (from > string->length) return SIZE_MAX;
  const char *bytes = jinja_bytes(string);
  const char *found = memmem(bytes + from, string->length - from, jinja_bytes(part), part->length);
  return found ? (size_t)(found - bytes) : SIZE_MAX;
}

bool jinja_is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

size_t jinja_leading_space(const jinja_string *string) {
  size_t at = 0;
  while (at < string->length) {
    size_t length = string->length - at;
    if (!jinja_is_space(jinja_code_point(jinja_bytes(string) + at, &length))) break;
    at += length;
  }
  return at;
}

size_t jinja_trailing_space(const jinja_string *string, size_t from) {
  size_t end = string->length;
  const char *bytes = jinja_bytes(string);
  while (end > from) {
    size_t at = end - 1;
    while (at > from && ((unsigned char)bytes[at] & 0xc0) == 0x80) at--;
    size_t length = end - at;
    if (!jinja_is_space(jinja_code_point(bytes + at, &length))) break;
    end = at;
  }
  return end;
}

/* ---- Unicode ---- */

typedef struct case_run { /* code points first, first + step, ... last map to themselves plus delta */
  uint32_t first, last, step;
  int32_t delta;
} case_run;
typedef struct case_special {
  uint32_t from, to[3];
} case_special;
typedef struct code_range {
  uint32_t first, last;
} code_range;
#include "runtime/text/jinja/unicode_tables.inc"

static const struct {
  const case_run *runs;
  size_t run_count;
  const case_special *specials;
  size_t special_count;
} cases[] = {
#define CASE_TABLE(name)                                                                                               \
  {name##_runs, sizeof name##_runs / sizeof name##_runs[0], name##_specials,                                           \
   sizeof name##_specials / sizeof name##_specials[0]}
    [CASE_UPPER] = CASE_TABLE(upper),
    [CASE_LOWER] = CASE_TABLE(lower),
    [CASE_TITLE] = CASE_TABLE(title),
    [CASE_FOLD] = CASE_TABLE(fold),
};

size_t jinja_map_case(uint32_t c, jinja_case to, uint32_t out[3]) {
  out[0] = c;
  if (c < 128) {
    if (to == CASE_LOWER || to == CASE_FOLD)
      out[0] = c >= 'A' && c <= 'Z' ? c + 32 : c;
    else
      out[0] = c >= 'a' && c <= 'z' ? c - 32 : c;
    return 1;
  }
  for (size_t i = 0; i < cases[to].special_count && cases[to].specials[i].from <= c; i++)
    if (cases[to].specials[i].from == c) {
      const uint32_t *mapped = cases[to].specials[i].to;
      memcpy(out, mapped, 3 * sizeof *out);
      return mapped[2] ? 3 : 2;
    }
  size_t low = 0, high = cases[to].run_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const case_run *run = &cases[to].runs[middle];
    if (c > run->last) {
      low = middle + 1;
    } else if (c < run->first) {
      high = middle;
    } else {
      if ((c - run->first) % run->step == 0) out[0] = (uint32_t)((int32_t)c + run->delta);
      return 1;
    }
  }
  return 1;
}

static bool in_ranges(const code_range *ranges, size_t count, uint32_t c) {
  size_t low = 0, high = count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (c > ranges[middle].last)
      low = middle + 1;
    else
      high = middle;
  }
  return low < count && ranges[low].first <= c;
}

bool jinja_is_cased(uint32_t c) {
  if (c < 128) return (c | 32) >= 'a' && (c | 32) <= 'z';
  return in_ranges(cased_ranges, sizeof cased_ranges / sizeof cased_ranges[0], c);
}

bool jinja_is_printable(uint32_t c) {
  if (c < 127) return c >= 32;
  return !in_ranges(unprintable_ranges, sizeof unprintable_ranges / sizeof unprintable_ranges[0], c);
}

static bool is_ignorable(uint32_t c) {
  return in_ranges(ignorable_ranges, sizeof ignorable_ranges / sizeof ignorable_ranges[0], c);
}

/* A capital sigma is written as its final form at the end of a word. */
static bool is_final_sigma(const jinja_string *string, size_t at, size_t length) {
  const char *bytes = jinja_bytes(string);
  bool before = false, after = false;
  for (size_t i = at; i > 0;) {
    size_t start = i - 1;
    while (start > 0 && ((unsigned char)bytes[start] & 0xc0) == 0x80) start--;
    size_t size = i - start;
    uint32_t c = jinja_code_point(bytes + start, &size);
    i = start;
    if (is_ignorable(c)) continue;
    before = jinja_is_cased(c);
    break;
  }
  for (size_t i = at + length; i < string->length && before;) {
    size_t size = string->length - i;
    uint32_t c = jinja_code_point(bytes + i, &size);
    i += size;
    if (is_ignorable(c)) continue;
    after = jinja_is_cased(c);
    break;
  }
  return before && !after;
}

static unsigned write_code(uint32_t c, char *out) {
  if (c < 0x80) {
    out[0] = (char)c;
    return 1;
  }
  unsigned size = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  for (unsigned i = size - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
  out[0] = (char)((0xf00u >> size & 0xff) | c);
  return size;
}

sluice_status *jinja_change_case(jinja_environment *e, const jinja_string *string, jinja_case first, jinja_case rest,
                                 jinja_value *out) {
  jinja_buffer *buffer;
  SLUICE_TRY(jinja_buffer_new(e, string->length, &buffer));
  const char *bytes = jinja_bytes(string);
  for (size_t at = 0; at < string->length;) {
    size_t length = string->length - at;
    uint32_t c = jinja_code_point(bytes + at, &length), mapped[3];
    jinja_case to = at == 0 ? first : rest;
    size_t count = jinja_map_case(c, to, mapped);
    if (to == CASE_LOWER && c == 0x3a3) mapped[0] = is_final_sigma(string, at, length) ? 0x3c2 : 0x3c3;
    char text[16];
    unsigned size = 0;
    for (size_t i = 0; i < count; i++) size += write_code(mapped[i], text + size);
    SLUICE_TRY(jinja_put(e, buffer, text, size, jinja_plain_at(string, at)));
    at += length;
  }
  return jinja_take_buffer(e, buffer, out);
}

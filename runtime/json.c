/* Recursive descent over the text, limited in depth. Values and strings live in an arena of the document: containers
 * are built on a stack of pending values and copied to the arena when they close, so that arrays lie together. */
#include "sluice/json.h"
#include "sluice/file.h"

#include "sluice/memory.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct chunk { /* of the arena */
  struct chunk *next;
  size_t used, capacity;
  max_align_t data[];
} chunk;

struct sluice_json_document {
  char *file;
  char *text;
  size_t length;
  chunk *chunks;
  sluice_json_value root;
};

typedef struct parser {
  sluice_json_document *document;
  const char *text;
  size_t length, at;
  unsigned depth;
  uint32_t values;             /* so far */
  sluice_json_member *pending; /* members and elements of the containers that are still open */
  size_t pending_count, pending_capacity;
  const sluice_json_sink *sinks;
  size_t sink_count;
  const char *outer; /* the key of the root's member at hand */
} parser;

static chunk *add_chunk(sluice_json_document *document, size_t bytes) {
  const size_t capacity = bytes > 65536 ? bytes : 65536;
  chunk *c = sluice_allocate(sizeof *c + capacity);
  if (!c) return NULL;
  c->capacity = capacity;
  c->next = document->chunks;
  document->chunks = c;
  return c;
}

/* Forgets what was taken since `mark` was added. */
static void forget_since(sluice_json_document *document, chunk *mark) {
  while (document->chunks != mark) {
    chunk *next = document->chunks->next;
    sluice_release(document->chunks);
    document->chunks = next;
  }
  mark->used = 0;
}

/* `alignment`: a power of two, at most that of max_align_t. */
static void *arena_take(sluice_json_document *document, size_t bytes, size_t alignment) {
  chunk *c = document->chunks;
  size_t start = c ? (c->used + alignment - 1) & ~(alignment - 1) : 0;
  if (!c || start > c->capacity || c->capacity - start < bytes) {
    c = add_chunk(document, bytes);
    if (!c) return NULL;
    start = 0;
  }
  c->used = start + bytes;
  return (char *)c->data + start;
}

const char *sluice_json_kind_name(sluice_json_kind kind) {
  static const char *const names[] = {"null", "a boolean", "a number", "a string", "an array", "an object"};
  return names[kind];
}

sluice_status *sluice_json_error(const sluice_json_document *document, size_t offset, sluice_code code,
                                 const char *format, ...) {
  char message[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  if (offset > document->length) offset = document->length;
  unsigned line = 1;
  size_t start = 0, end = offset;
  for (size_t i = 0; i < offset; i++)
    if (document->text[i] == '\n') {
      line++;
      start = i + 1;
    }
  while (end < document->length && document->text[end] != '\n' && document->text[end] != '\r') end++;
  return sluice_error_at(code, document->file, line, (unsigned)(offset - start) + 1, document->text + start,
                         end - start, "%s", message);
}

#define PARSE_ERROR(p, offset, ...) sluice_json_error((p)->document, offset, SLUICE_INVALID, __VA_ARGS__)

static void skip_space(parser *p) {
  while (p->at < p->length &&
         (p->text[p->at] == ' ' || p->text[p->at] == '\n' || p->text[p->at] == '\t' || p->text[p->at] == '\r'))
    p->at++;
}

/* What stands at the parser's position, for messages. */
static const char *found(const parser *p, char buffer[16]) {
  if (p->at >= p->length) return "the end of the text";
  unsigned char c = (unsigned char)p->text[p->at];
  if (c > 32 && c < 127)
    snprintf(buffer, 16, "'%c'", c);
  else
    snprintf(buffer, 16, "byte 0x%02x", c);
  return buffer;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/* Four hexadecimal digits at `at`, or -1. */
static int32_t hex4(const parser *p, size_t at) {
  int32_t value = 0;
  if (p->length - at < 4) return -1;
  for (size_t i = 0; i < 4; i++) {
    int digit = hex_digit(p->text[at + i]);
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

static size_t put_utf8(char *out, uint32_t c) {
  if (c < 0x80) {
    out[0] = (char)c;
    return 1;
  }
  if (c < 0x800) {
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 63));
    return 2;
  }
  if (c < 0x10000) {
    out[0] = (char)(0xe0 | c >> 12);
    out[1] = (char)(0x80 | (c >> 6 & 63));
    out[2] = (char)(0x80 | (c & 63));
    return 3;
  }
  out[0] = (char)(0xf0 | c >> 18);
  out[1] = (char)(0x80 | (c >> 12 & 63));
  out[2] = (char)(0x80 | (c >> 6 & 63));
  out[3] = (char)(0x80 | (c & 63));
  return 4;
}

/* Length of the valid UTF-8 sequence at `at` (RFC 3629: shortest form, no surrogates), 0 when there is none. */
static size_t utf8_length(const parser *p, size_t at) {
  const unsigned char *s = (const unsigned char *)p->text + at;
  size_t left = p->length - at, n = s[0] < 0x80   ? 1
                                    : s[0] < 0xc2 ? 0
                                    : s[0] < 0xe0 ? 2
                                    : s[0] < 0xf0 ? 3
                                    : s[0] < 0xf5 ? 4
                                                  : 0;
  if (n == 0 || n > left) return 0;
  for (size_t i = 1; i < n; i++)
    if ((s[i] & 0xc0) != 0x80) return 0;
  if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
      (s[0] == 0xf4 && s[1] > 0x8f))
    return 0;
  return n;
}

/* An escape after its backslash; p->at is at the character after it. */
static sluice_status *parse_escape(parser *p, char *out, size_t *length) {
  static const char escapes[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
  size_t start = p->at - 1;
  char c = p->at < p->length ? p->text[p->at] : 0;
  const char *known = c ? strchr(escapes, c) : NULL;
  if (known) {
    out[(*length)++] = values[known - escapes];
    p->at++;
    return NULL;
  }
  if (c != 'u')
    return PARSE_ERROR(p, start,
                       "unknown escape in a string; expected one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX");
  int32_t unit = hex4(p, p->at + 1);
  if (unit < 0) return PARSE_ERROR(p, start, "\\u needs four hexadecimal digits");
  p->at += 5;
  uint32_t code = (uint32_t)unit;
  if (unit >= 0xd800 && unit < 0xe000) {
    int32_t low = -1;
    if (unit < 0xdc00 && p->length - p->at >= 6 && p->text[p->at] == '\\' && p->text[p->at + 1] == 'u')
      low = hex4(p, p->at + 2);
    if (low < 0xdc00 || low >= 0xe000) return PARSE_ERROR(p, start, "unpaired surrogate in a string");
    code = 0x10000 + (((uint32_t)unit - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
    p->at += 6;
  }
  *length += put_utf8(out + *length, code);
  return NULL;
}

/* Characters up to the first that a string cannot hold as it is or that is not ASCII. The text is terminated. */
static size_t plain_ascii(const char *text) {
  size_t length = 0;
  for (;; length++) {
    const unsigned char c = (unsigned char)text[length];
    if (c < 32 || c > 126 || c == '"' || c == '\\') return length;
  }
}

#define SHORT_STRING 120

/* The strings that nearly all are, in one pass: a few characters below U+0800, none of them escaped. False, and nothing
 * is done, for others. */
static bool parse_short_string(parser *p, const char **out, size_t *out_length) {
  chunk *c = p->document->chunks;
  if (!c || c->capacity - c->used < SHORT_STRING + 2) return false;
  char *data = (char *)c->data + c->used;
  const char *from = p->text + p->at + 1;
  size_t length = 0;
  while (length < SHORT_STRING && from[length] != '"') {
    const unsigned char first = (unsigned char)from[length];
    data[length] = from[length];
    if (first >= 32 && first < 127 && first != '\\') {
      length++;
    } else if (first >= 0xc2 && first < 0xe0 && ((unsigned char)from[length + 1] & 0xc0) == 0x80) {
      data[length + 1] = from[length + 1];
      length += 2;
    } else {
      return false;
    }
  }
  if (from[length] != '"') return false;
  data[length] = 0;
  c->used += length + 1;
  p->at += length + 2;
  *out = data;
  *out_length = length;
  return true;
}

/* A string whose opening quote is at p->at. */
static sluice_status *parse_string(parser *p, const char **out, size_t *out_length) {
  if (parse_short_string(p, out, out_length)) return NULL;
  size_t start = p->at++, end = p->at;
  while (end < p->length && p->text[end] != '"') end += p->text[end] == '\\' ? 2 : 1;
  if (end >= p->length) return PARSE_ERROR(p, start, "this string has no closing quote");
  char *data = arena_take(p->document, end - p->at + 1, 1); /* unescaping never lengthens */
  if (!data) return sluice_out_of_memory();
  size_t length = 0;
  while (p->text[p->at] != '"') {
    const size_t plain = plain_ascii(p->text + p->at);
    memcpy(data + length, p->text + p->at, plain);
    length += plain;
    p->at += plain;
    if (p->text[p->at] == '"') break;
    if (p->text[p->at] == '\\') {
      p->at++;
      SLUICE_TRY(parse_escape(p, data, &length));
      continue;
    }
    if ((unsigned char)p->text[p->at] < 32) {
      char buffer[16];
      return PARSE_ERROR(p, p->at, "%s inside a string; control characters must be escaped", found(p, buffer));
    }
    size_t n = utf8_length(p, p->at);
    if (n == 0) return PARSE_ERROR(p, p->at, "the text is not valid UTF-8");
    memcpy(data + length, p->text + p->at, n);
    length += n;
    p->at += n;
  }
  p->at++;
  data[length] = 0;
  *out = data;
  *out_length = length;
  return NULL;
}

static bool is_digit(const parser *p, size_t at) {
  return at < p->length && p->text[at] >= '0' && p->text[at] <= '9';
}

static sluice_status *parse_number(parser *p, sluice_json_value *value) {
  size_t start = p->at, at = p->at;
  bool integer = true;
  if (p->text[at] == '-') at++;
  if (!is_digit(p, at)) return PARSE_ERROR(p, start, "a number needs a digit here");
  if (p->text[at] == '0' && is_digit(p, at + 1)) return PARSE_ERROR(p, start, "a number must not start with 0");
  while (is_digit(p, at)) at++;
  if (at < p->length && p->text[at] == '.') {
    integer = false;
    if (!is_digit(p, ++at)) return PARSE_ERROR(p, start, "a number needs a digit after the point");
    while (is_digit(p, at)) at++;
  }
  if (at < p->length && (p->text[at] == 'e' || p->text[at] == 'E')) {
    integer = false;
    at++;
    if (at < p->length && (p->text[at] == '+' || p->text[at] == '-')) at++;
    if (!is_digit(p, at)) return PARSE_ERROR(p, start, "a number needs a digit in its exponent");
    while (is_digit(p, at)) at++;
  }
  value->kind = SLUICE_JSON_NUMBER;
  if (integer && at - start <= 15) { /* exact in both forms */
    const bool negative = p->text[start] == '-';
    for (size_t i = start + negative; i < at; i++) value->integer = value->integer * 10 + (p->text[i] - '0');
    value->number = negative ? -(double)value->integer : (double)value->integer; /* -0 is a double */
    if (negative) value->integer = -value->integer;
    value->is_integer = true;
    p->at = at;
    return NULL;
  }
  /* The text is terminated, and strtod stops where this grammar does; the C locale has a point. */
  static locale_t c_locale;
  locale_t locale = __atomic_load_n(&c_locale, __ATOMIC_ACQUIRE);
  if (!locale) {
    locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!locale) return sluice_out_of_memory();
    locale_t expected = (locale_t)0;
    if (!__atomic_compare_exchange_n(&c_locale, &expected, locale, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
      freelocale(locale);
      locale = expected;
    }
  }
  value->number = strtod_l(p->text + start, NULL, locale);
  if (isinf(value->number)) return PARSE_ERROR(p, start, "this number is too large for a double");
  if (integer) {
    errno = 0;
    value->integer = strtoll(p->text + start, NULL, 10);
    value->is_integer = errno == 0;
    value->is_wide_integer = errno != 0;
    if (errno) value->integer = 0;
  }
  p->at = at;
  return NULL;
}

static sluice_status *push(parser *p, const sluice_json_member *member) {
  if (p->pending_count == p->pending_capacity) {
    size_t capacity = p->pending_capacity ? p->pending_capacity * 2 : 64;
    sluice_json_member *grown = sluice_reallocate_array(p->pending, capacity, sizeof *grown);
    if (!grown) return sluice_out_of_memory();
    p->pending = grown;
    p->pending_capacity = capacity;
  }
  p->pending[p->pending_count++] = *member;
  return NULL;
}

/* FNV-1a, with the high bits folded in. */
static size_t hash_key(const sluice_json_member *m) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (size_t i = 0; i < m->key_length; i++) hash = (hash ^ (unsigned char)m->key[i]) * 0x100000001B3u;
  return (size_t)(hash ^ hash >> 32);
}

static bool same_key(const sluice_json_member *a, const sluice_json_member *b) {
  return a->key_length == b->key_length && memcmp(a->key, b->key, a->key_length) == 0;
}

/* Steps past keys of other text before a key counts as colliding on purpose: at most half of a table is taken. */
#define LONGEST_WALK 1024

static sluice_status *duplicate(parser *p, const sluice_json_member *m) {
  return PARSE_ERROR(p, m->key_offset, "the key \"%.200s\" stands twice in this object", m->key);
}

/* A slot keeps part of the hash, so that other keys are told apart without looking at them. */
typedef struct key_slot {
  uint32_t hash;
  uint32_t place; /* of the member, plus one; 0: free */
} key_slot;

static sluice_status *add_key(parser *p, key_slot *table, size_t mask, const sluice_json_member *members,
                              size_t place) {
  const sluice_json_member *m = &members[place];
  const size_t hash = hash_key(m);
  const uint32_t tag = (uint32_t)(hash >> 32);
  size_t at = hash & mask;
  for (unsigned walked = 0; table[at].place; at = (at + 1) & mask) {
    if (table[at].hash == tag && same_key(&members[table[at].place - 1], m)) return duplicate(p, m);
    if (++walked > LONGEST_WALK)
      return PARSE_ERROR(p, m->key_offset, "more than %u keys of this object share a place in a hash table",
                         LONGEST_WALK);
  }
  table[at] = (key_slot){tag, (uint32_t)place + 1}; /* SLUICE_JSON_MAX_VALUES is far below 2^32 */
  return NULL;
}

/* Refuses an object in which a key occurs twice; the error is at the second of the first such pair. */
static sluice_status *check_duplicates(parser *p, const sluice_json_member *members, size_t count) {
  if (count <= 8) {
    for (size_t i = 1; i < count; i++)
      for (size_t j = 0; j < i; j++)
        if (same_key(&members[i], &members[j])) return duplicate(p, &members[i]);
    return NULL;
  }
  size_t size = 32;
  while (size < 2 * count) size *= 2;
  key_slot *table = sluice_allocate_array(size, sizeof *table);
  if (!table) return sluice_out_of_memory();
  sluice_status *status = NULL;
  for (size_t i = 0; i < count && !status; i++) status = add_key(p, table, size - 1, members, i);
  sluice_release(table);
  return status;
}

static sluice_status *parse_value(parser *p, sluice_json_value *value, const sluice_json_sink *sink);

/* The sink of a member whose value begins at p->at; NULL when it is to be kept. */
static const sluice_json_sink *find_sink(const parser *p, const char *key) {
  const char bracket = p->at < p->length ? p->text[p->at] : 0;
  if (p->depth != 2 || (bracket != '{' && bracket != '[')) return NULL;
  for (size_t i = 0; i < p->sink_count; i++) {
    const sluice_json_sink *sink = &p->sinks[i];
    if (strcmp(sink->outer, p->outer) == 0 && strcmp(sink->key, key) == 0)
      return sink->begin(sink->user, bracket == '{' ? SLUICE_JSON_OBJECT : SLUICE_JSON_ARRAY) ? sink : NULL;
  }
  return NULL;
}

/* The key at p->at, and the colon and space behind it. */
static sluice_status *parse_key(parser *p, sluice_json_member *member) {
  char buffer[16];
  member->key_offset = p->at;
  if (p->at >= p->length || p->text[p->at] != '"')
    return PARSE_ERROR(p, p->at, "found %s, expected a key in quotes", found(p, buffer));
  SLUICE_TRY(parse_string(p, &member->key, &member->key_length));
  skip_space(p);
  if (p->at >= p->length || p->text[p->at] != ':')
    return PARSE_ERROR(p, p->at, "found %s, expected ':' after the key \"%.100s\"", found(p, buffer), member->key);
  p->at++;
  skip_space(p);
  return NULL;
}

/* Moves the pending elements from `first` on to the arena. */
static sluice_status *keep_elements(parser *p, sluice_json_value *value, size_t first) {
  const size_t count = p->pending_count - first;
  p->pending_count = first;
  if (value->kind == SLUICE_JSON_OBJECT) {
    sluice_json_member *members = arena_take(p->document, count * sizeof *members, _Alignof(sluice_json_member));
    if (!members) return sluice_out_of_memory();
    if (count) memcpy(members, p->pending + first, count * sizeof *members);
    value->members = members;
    return check_duplicates(p, members, count);
  }
  sluice_json_value *items = arena_take(p->document, count * sizeof *items, _Alignof(sluice_json_value));
  if (!items) return sluice_out_of_memory();
  for (size_t i = 0; i < count; i++) items[i] = p->pending[first + i].value;
  value->items = items;
  return NULL;
}

/* An array or object whose bracket is at p->at; its elements are pushed, then moved to the arena. With a sink they go
 * there, and their memory is used again for the next. */
static sluice_status *parse_container(parser *p, sluice_json_value *value, const sluice_json_sink *sink) {
  const bool object = p->text[p->at] == '{';
  const char close = object ? '}' : ']';
  char buffer[16];
  size_t start = p->at++, first = p->pending_count;
  chunk *mark = sink ? add_chunk(p->document, 0) : NULL;
  if (sink && !mark) return sluice_out_of_memory();
  if (++p->depth > SLUICE_JSON_MAX_DEPTH)
    return PARSE_ERROR(p, start, "more than %d levels of nesting", SLUICE_JSON_MAX_DEPTH);
  value->kind = object ? SLUICE_JSON_OBJECT : SLUICE_JSON_ARRAY;
  skip_space(p);
  bool more = !(p->at < p->length && p->text[p->at] == close);
  if (!more) p->at++;
  for (; more; p->at++) {
    sluice_json_member member = {0};
    skip_space(p);
    if (object) SLUICE_TRY(parse_key(p, &member));
    if (p->depth == 1) p->outer = member.key;
    SLUICE_TRY(parse_value(p, &member.value, object ? find_sink(p, member.key) : NULL));
    value->length++;
    if (sink) {
      SLUICE_TRY(sink->take(sink->user, p->document, &member));
      forget_since(p->document, mark);
    } else {
      SLUICE_TRY(push(p, &member));
    }
    skip_space(p);
    more = p->at < p->length && p->text[p->at] == ',';
    if (!more && (p->at >= p->length || p->text[p->at] != close))
      return PARSE_ERROR(p, p->at, "found %s, expected ',' or '%c'", found(p, buffer), close);
  }
  p->depth--;
  return sink ? NULL : keep_elements(p, value, first);
}

static bool parse_word(parser *p, const char *word) {
  size_t length = strlen(word);
  if (p->length - p->at < length || memcmp(p->text + p->at, word, length) != 0) return false;
  p->at += length;
  return true;
}

static sluice_status *parse_value(parser *p, sluice_json_value *value, const sluice_json_sink *sink) {
  char buffer[16];
  skip_space(p);
  *value = (sluice_json_value){.offset = p->at};
  /* A value takes far more memory than its text may: without a limit, a small hostile file could fill the machine. */
  if (++p->values > SLUICE_JSON_MAX_VALUES) return PARSE_ERROR(p, p->at, "more than %u values", SLUICE_JSON_MAX_VALUES);
  char c = p->at < p->length ? p->text[p->at] : 0;
  if (c == '{' || c == '[') return parse_container(p, value, sink);
  if (c == '"') {
    value->kind = SLUICE_JSON_STRING;
    return parse_string(p, &value->string, &value->length);
  }
  if (c == '-' || (c >= '0' && c <= '9')) return parse_number(p, value);
  if (parse_word(p, "null")) return NULL;
  value->kind = SLUICE_JSON_BOOL;
  value->boolean = c == 't';
  if (parse_word(p, "true") || parse_word(p, "false")) return NULL;
  return PARSE_ERROR(p, p->at, "found %s, expected a value", found(p, buffer));
}

static sluice_status *parse_document(sluice_json_document *document, const sluice_json_sink *sinks, size_t count) {
  parser p = {
      .document = document, .text = document->text, .length = document->length, .sinks = sinks, .sink_count = count};
  char buffer[16];
  sluice_status *status = NULL;
  if (p.length >= 3 && memcmp(p.text, "\xef\xbb\xbf", 3) == 0)
    status = PARSE_ERROR(&p, 0, "the text starts with a byte order mark, which JSON does not allow");
  if (!status) status = parse_value(&p, &document->root, NULL);
  if (!status) {
    skip_space(&p);
    if (p.at < p.length) status = PARSE_ERROR(&p, p.at, "found %s after the end of the value", found(&p, buffer));
  }
  sluice_release(p.pending);
  return status;
}

sluice_status *sluice_json_parse_into(char *text, size_t length, const char *file, const sluice_json_sink *sinks,
                                      size_t sink_count, sluice_json_document **out_document) {
  *out_document = NULL;
  sluice_json_document *document = sluice_allocate(sizeof *document);
  char *name = sluice_copy_string(file, strlen(file));
  if (!document || !name) {
    sluice_release(document);
    sluice_release(name);
    sluice_release(text);
    return sluice_out_of_memory();
  }
  document->file = name;
  document->text = text;
  document->length = length;
  sluice_status *status = parse_document(document, sinks, sink_count);
  if (status) {
    sluice_json_free(document);
    return status;
  }
  *out_document = document;
  return NULL;
}

sluice_status *sluice_json_parse(const char *text, size_t length, const char *file,
                                 sluice_json_document **out_document) {
  *out_document = NULL;
  if (length > SLUICE_JSON_MAX_BYTES)
    return sluice_error(SLUICE_INVALID, "%s: %zu bytes are more than the %zu that are accepted", file, length,
                        SLUICE_JSON_MAX_BYTES);
  char *copy = sluice_copy_string(text, length);
  if (!copy) return sluice_out_of_memory();
  return sluice_json_parse_into(copy, length, file, NULL, 0, out_document);
}

sluice_status *sluice_json_parse_file(const char *path, sluice_json_document **out_document) {
  *out_document = NULL;
  void *text = NULL;
  size_t length;
  SLUICE_TRY(sluice_read_file(path, SLUICE_JSON_MAX_BYTES, &text, &length));
  return sluice_json_parse_into(text, length, path, NULL, 0, out_document);
}

const sluice_json_value *sluice_json_root(const sluice_json_document *document) {
  return &document->root;
}

const char *sluice_json_file(const sluice_json_document *document) {
  return document->file;
}

void sluice_json_free(sluice_json_document *document) {
  if (!document) return;
  while (document->chunks) {
    chunk *next = document->chunks->next;
    sluice_release(document->chunks);
    document->chunks = next;
  }
  sluice_release(document->text);
  sluice_release(document->file);
  sluice_release(document);
}

const sluice_json_member *sluice_json_member_of(const sluice_json_value *object, const char *key) {
  if (!object || object->kind != SLUICE_JSON_OBJECT) return NULL;
  size_t length = strlen(key);
  for (size_t i = 0; i < object->length; i++)
    if (object->members[i].key_length == length && memcmp(object->members[i].key, key, length) == 0)
      return &object->members[i];
  return NULL;
}

const sluice_json_value *sluice_json_get(const sluice_json_value *object, const char *key) {
  const sluice_json_member *member = sluice_json_member_of(object, key);
  return member ? &member->value : NULL;
}

#include "runtime/text/tool_call.h"
#include "runtime/text/utf8.h"
#include "sluice/memory.h"

#include <string.h>

#define MARK "]<]minimax[>["
enum { MAX_NESTING = 60 };

static const tool_syntax m3 = {SLUICE_TOOLS_M3, MARK, MARK "<tool_call>", MARK "</tool_call>", MARK "<invoke name=\"",
                               MARK "</invoke>"};
static const tool_syntax m2 = {SLUICE_TOOLS_M2,   "",         "<minimax:tool_call>", "</minimax:tool_call>",
                               "<invoke name=\"", "</invoke>"};

const tool_syntax *tool_syntax_of(sluice_tool_form form) {
  return form == SLUICE_TOOLS_M3 ? &m3 : form == SLUICE_TOOLS_M2 ? &m2 : NULL;
}

void tool_call_free(tool_call *call) {
  sluice_text_free(&call->name);
  sluice_text_free(&call->arguments);
}

typedef struct reader {
  const char *text;
  size_t length, at;
  const char *why; /* the call is malformed */
} reader;

static bool fails(reader *r, const char *why) {
  if (!r->why) r->why = why;
  return false;
}

static bool skip(reader *r, const char *word) {
  const size_t length = strlen(word);
  if (r->length - r->at < length || memcmp(r->text + r->at, word, length) != 0) return false;
  r->at += length;
  return true;
}

static void skip_space(reader *r) {
  while (r->at < r->length && strchr(" \t\r\n", r->text[r->at]) && r->text[r->at]) r->at++;
}

static const char *find(const reader *r, const char *word) {
  return memmem(r->text + r->at, r->length - r->at, word, strlen(word));
}

/* ---- JSON of texts ---- */

static void put_string(sluice_text *out, const char *text, size_t length) {
  sluice_text_append(out, "\"", 1);
  size_t done = 0;
  for (size_t i = 0; i < length; i++) {
    const unsigned char c = (unsigned char)text[i];
    if (c != '"' && c != '\\' && c >= 32) continue;
    sluice_text_append(out, text + done, i - done);
    if (c == '\n')
      sluice_text_append(out, "\\n", 2);
    else if (c < 32)
      sluice_text_printf(out, "\\u%04x", (unsigned)c);
    else
      sluice_text_printf(out, "\\%c", (char)c);
    done = i + 1;
  }
  sluice_text_append(out, text + done, length - done);
  sluice_text_append(out, "\"", 1);
}

/* Replaces what is not UTF-8, so that JSON can hold it. */
static void put_valid(sluice_text *out, const char *text, size_t length) {
  for (size_t at = 0; at < length;) {
    const utf8_step step = utf8_next((const unsigned char *)text + at, length - at);
    if (step.valid)
      sluice_text_append(out, text + at, step.length);
    else
      sluice_text_append(out, UTF8_REPLACEMENT, sizeof UTF8_REPLACEMENT - 1);
    at += step.length;
  }
}

static void decode_entities(sluice_text *out, const char *text, size_t length) {
  static const struct {
    const char *name;
    char character;
  } entities[] = {{"&lt;", '<'},    {"&gt;", '>'},   {"&amp;", '&'}, {"&quot;", '"'},
                  {"&apos;", '\''}, {"&#39;", '\''}, {"&#34;", '"'}};
  for (size_t at = 0; at < length;) {
    size_t used = 0;
    for (size_t i = 0; text[at] == '&' && i < sizeof entities / sizeof entities[0] && !used; i++) {
      const size_t size = strlen(entities[i].name);
      if (length - at < size || memcmp(text + at, entities[i].name, size) != 0) continue;
      sluice_text_append(out, &entities[i].character, 1);
      used = size;
    }
    if (!used) {
      sluice_text_append(out, text + at, 1);
      used = 1;
    }
    at += used;
  }
}

/* ---- Schemas ---- */

typedef enum value_type {
  TYPE_STRING = 1,
  TYPE_NUMBER = 2,
  TYPE_INTEGER = 4,
  TYPE_BOOLEAN = 8,
  TYPE_NULL = 16,
  TYPE_ARRAY = 32,
  TYPE_OBJECT = 64,
  TYPE_ANY = 127
} value_type;

static unsigned type_named(const sluice_json_value *value) {
  static const char *const names[] = {"string", "number", "integer", "boolean", "null", "array", "object"};
  if (!value || value->kind != SLUICE_JSON_STRING) return 0;
  for (unsigned i = 0; i < 7; i++)
    if (strcmp(value->string, names[i]) == 0) return 1u << i;
  return 0;
}

/* The types that a schema allows; all when it does not say. */
static unsigned types_of(const sluice_json_value *schema, unsigned depth) {
  static const char *const choices[] = {"anyOf", "oneOf"};
  if (!schema || schema->kind != SLUICE_JSON_OBJECT || depth > 16) return TYPE_ANY;
  const sluice_json_value *type = sluice_json_get(schema, "type");
  unsigned types = type_named(type);
  for (size_t i = 0; type && type->kind == SLUICE_JSON_ARRAY && i < type->length; i++)
    types |= type_named(&type->items[i]);
  for (size_t i = 0; i < 2 && !type; i++) {
    const sluice_json_value *list = sluice_json_get(schema, choices[i]);
    for (size_t j = 0; list && list->kind == SLUICE_JSON_ARRAY && j < list->length; j++)
      types |= types_of(&list->items[j], depth + 1);
  }
  const sluice_json_value *allowed = sluice_json_get(schema, "enum");
  for (size_t i = 0; !types && allowed && allowed->kind == SLUICE_JSON_ARRAY && i < allowed->length; i++)
    if (allowed->items[i].kind != SLUICE_JSON_STRING) return TYPE_ANY;
  if (!types && allowed && allowed->kind == SLUICE_JSON_ARRAY && allowed->length) return TYPE_STRING;
  return types ? types : TYPE_ANY;
}

/* The schema of the branch of a choice that has `key` ("properties", "items"). */
static const sluice_json_value *part_of(const sluice_json_value *schema, const char *key, unsigned depth) {
  static const char *const choices[] = {"anyOf", "oneOf"};
  const sluice_json_value *part = sluice_json_get(schema, key);
  for (size_t i = 0; i < 2 && !part && depth < 16; i++) {
    const sluice_json_value *list = sluice_json_get(schema, choices[i]);
    for (size_t j = 0; list && list->kind == SLUICE_JSON_ARRAY && j < list->length && !part; j++)
      part = part_of(&list->items[j], key, depth + 1);
  }
  return part;
}

static const sluice_json_value *property_of(const sluice_json_value *schema, const char *key, size_t length) {
  const sluice_json_value *properties = part_of(schema, "properties", 0);
  for (size_t i = 0; properties && properties->kind == SLUICE_JSON_OBJECT && i < properties->length; i++)
    if (properties->members[i].key_length == length && memcmp(properties->members[i].key, key, length) == 0)
      return &properties->members[i].value;
  const sluice_json_value *more = part_of(schema, "additionalProperties", 0);
  return more && more->kind == SLUICE_JSON_OBJECT ? more : NULL;
}

static const sluice_json_value *parameters_of(const sluice_json_value *schemas, const char *name) {
  for (size_t i = 0; schemas && schemas->kind == SLUICE_JSON_ARRAY && i < schemas->length; i++) {
    const sluice_json_value *tool = sluice_json_get(&schemas->items[i], "function");
    if (!tool) tool = &schemas->items[i];
    const sluice_json_value *own = sluice_json_get(tool, "name");
    if (own && own->kind == SLUICE_JSON_STRING && strcmp(own->string, name) == 0)
      return sluice_json_get(tool, "parameters");
  }
  return NULL;
}

static unsigned type_of(const sluice_json_value *value) {
  switch (value->kind) {
  case SLUICE_JSON_NULL:
    return TYPE_NULL;
  case SLUICE_JSON_BOOL:
    return TYPE_BOOLEAN;
  case SLUICE_JSON_NUMBER:
    return value->is_integer || value->is_wide_integer ? TYPE_NUMBER | TYPE_INTEGER : TYPE_NUMBER;
  case SLUICE_JSON_STRING:
    return TYPE_STRING;
  case SLUICE_JSON_ARRAY:
    return TYPE_ARRAY;
  case SLUICE_JSON_OBJECT:
    return TYPE_OBJECT;
  }
  return 0;
}

/* A text as a value of its schema: JSON where that is of an allowed type, otherwise a string. */
static sluice_status *put_text(sluice_text *out, const sluice_json_value *schema, const char *text, size_t length) {
  const unsigned types = types_of(schema, 0);
  if (types == TYPE_STRING) {
    put_string(out, text, length);
    return NULL;
  }
  size_t start = 0, end = length;
  while (start < end && strchr(" \t\r\n", text[start])) start++;
  while (end > start && strchr(" \t\r\n", text[end - 1])) end--;
  if ((types & TYPE_BOOLEAN) && types != TYPE_ANY && end - start >= 4 && end - start <= 5 &&
      (memcmp(text + start, "True", 4) == 0 || (end - start == 5 && memcmp(text + start, "False", 5) == 0))) {
    sluice_text_printf(out, "%s", text[start] == 'T' ? "true" : "false");
    return NULL;
  }
  sluice_json_document *document = NULL;
  sluice_status *status = sluice_json_parse(text + start, end - start, "argument", &document);
  const bool memory = status && sluice_status_code(status) == SLUICE_OUT_OF_MEMORY;
  if (memory) return status;
  sluice_status_free(status);
  const unsigned type = document ? type_of(sluice_json_root(document)) : 0;
  /* Where a string may stand, text in quotes is that text and not JSON. */
  const bool json = (type & types) && !(type == TYPE_STRING && (types & TYPE_STRING));
  sluice_json_free(document);
  if (json)
    sluice_text_append(out, text + start, end - start);
  else
    put_string(out, text, length);
  return NULL;
}

/* ---- M3: elements ---- */

static void put_key(sluice_text *out, const char *key, size_t length) {
  if (out->data[out->length - 1] != '{') sluice_text_append(out, ", ", 2);
  put_string(out, key, length);
  sluice_text_append(out, ": ", 2);
}

/* The keys of one object, to find one that comes twice. */
typedef struct key_list {
  const char **keys;
  size_t *lengths;
  size_t count, capacity;
} key_list;

static sluice_status *add_key(reader *r, key_list *list, const char *key, size_t length) {
  for (size_t i = 0; i < list->count; i++)
    if (list->lengths[i] == length && memcmp(list->keys[i], key, length) == 0)
      fails(r, "a tool call gives one parameter twice; it is left as text");
  if (list->count == list->capacity) {
    const size_t capacity = list->capacity ? 2 * list->capacity : 8;
    const char **keys = sluice_reallocate_array((void *)(uintptr_t)list->keys, capacity, sizeof *keys);
    if (!keys) return sluice_out_of_memory();
    list->keys = keys;
    size_t *lengths = sluice_reallocate_array(list->lengths, capacity, sizeof *lengths);
    if (!lengths) return sluice_out_of_memory();
    list->lengths = lengths;
    list->capacity = capacity;
  }
  list->keys[list->count] = key;
  list->lengths[list->count++] = length;
  return NULL;
}

static void free_keys(key_list *list) {
  sluice_release((void *)(uintptr_t)list->keys);
  sluice_release(list->lengths);
}

static sluice_status *put_element(reader *r, const sluice_json_value *schema, unsigned depth, sluice_text *out,
                                  const char *key, size_t length);

/* "M<key>" at the reader; false when something else is there. */
static bool open_tag(reader *r, const char **key, size_t *length) {
  const size_t back = r->at;
  if (!skip(r, MARK "<")) return false;
  const char *end = memchr(r->text + r->at, '>', r->length - r->at);
  if (!end || r->text[r->at] == '/' || end == r->text + r->at) {
    r->at = back;
    return false;
  }
  *key = r->text + r->at;
  *length = (size_t)(end - *key);
  r->at += *length + 1;
  return true;
}

/* The elements up to a closing tag, as an object or, when all are items, an array. */
static sluice_status *put_children(reader *r, const sluice_json_value *schema, bool array, unsigned depth,
                                   sluice_text *out) {
  const char *key;
  size_t length;
  key_list seen = {0};
  sluice_status *status = NULL;
  sluice_text_append(out, array ? "[" : "{", 1);
  for (skip_space(r); !status && !r->why && open_tag(r, &key, &length); skip_space(r)) {
    if (array) {
      if (length != 4 || memcmp(key, "item", 4) != 0) fails(r, "an array of a tool call has something beside items");
      if (out->length && out->data[out->length - 1] != '[') sluice_text_append(out, ", ", 2);
    } else {
      status = add_key(r, &seen, key, length);
      if (!status && !out->failed) put_key(out, key, length);
    }
    const sluice_json_value *inner = array ? part_of(schema, "items", 0) : property_of(schema, key, length);
    if (!status && !r->why && !out->failed) status = put_element(r, inner, depth, out, key, length);
    if (out->failed) break;
  }
  sluice_text_append(out, array ? "]" : "}", 1);
  free_keys(&seen);
  return status;
}

/* Behind "M<key>": the value and "M</key>". */
static sluice_status *put_element(reader *r, const sluice_json_value *schema, unsigned depth, sluice_text *out,
                                  const char *key, size_t length) {
  if (depth == MAX_NESTING) {
    fails(r, "a tool call nests too deep; it is left as text");
    return NULL;
  }
  const char *mark = find(r, MARK);
  if (!mark) {
    fails(r, "a parameter of a tool call does not end; it is left as text");
    return NULL;
  }
  const size_t start = r->at, end = (size_t)(mark - r->text);
  const char *child;
  size_t child_length;
  skip_space(r);
  const size_t first = r->at;
  const unsigned types = types_of(schema, 0);
  if (first == end && open_tag(r, &child, &child_length)) {
    r->at = first;
    const bool item = child_length == 4 && memcmp(child, "item", 4) == 0;
    const bool array = (types & (TYPE_ARRAY | TYPE_OBJECT)) == TYPE_ARRAY || (item && (types & TYPE_ARRAY) != 0);
    SLUICE_TRY(put_children(r, schema, array, depth + 1, out));
  } else {
    r->at = end;
    sluice_text text = {0};
    decode_entities(&text, r->text + start, end - start);
    sluice_status *status = text.failed ? sluice_out_of_memory() : NULL;
    const bool empty = end == start;
    if (!status && empty && !(types & TYPE_STRING) && (types & (TYPE_ARRAY | TYPE_OBJECT)))
      sluice_text_append(out, types & TYPE_ARRAY ? "[]" : "{}", 2);
    else if (!status)
      status = put_text(out, schema, text.data ? text.data : "", text.length);
    sluice_text_free(&text);
    if (status) return status;
  }
  if (r->why) return NULL;
  if (!skip(r, MARK "</") || r->length - r->at < length + 1 || memcmp(r->text + r->at, key, length) != 0 ||
      r->text[r->at + length] != '>') {
    fails(r, "a tag of a tool call is not closed by its own; it is left as text");
    return NULL;
  }
  r->at += length + 1;
  return NULL;
}

/* ---- M2: parameters ---- */

static sluice_status *put_parameters(reader *r, const sluice_json_value *schema, sluice_text *out) {
  key_list seen = {0};
  sluice_status *status = NULL;
  sluice_text_append(out, "{", 1);
  for (skip_space(r); !status && !r->why && !out->failed && skip(r, "<parameter name=\""); skip_space(r)) {
    const char *key = r->text + r->at, *name_end = find(r, "\">"), *end = find(r, "</parameter>");
    if (!name_end || !end || end < name_end) {
      fails(r, "a parameter of a tool call does not end; it is left as text");
      break;
    }
    const size_t length = (size_t)(name_end - key);
    status = add_key(r, &seen, key, length);
    if (status) break;
    put_key(out, key, length);
    status = put_text(out, property_of(schema, key, length), name_end + 2, (size_t)(end - name_end) - 2);
    r->at = (size_t)(end - r->text) + strlen("</parameter>");
  }
  sluice_text_append(out, "}", 1);
  free_keys(&seen);
  return status;
}

/* ---- The call ---- */

static const char NO_NAME[] = "a tool call has no name; it is left as text";

static sluice_status *read_call(const tool_syntax *syntax, const sluice_json_value *schemas, reader *r,
                                tool_call *out) {
  const char *name = r->text + strlen(syntax->call_begin), *end = NULL;
  if (skip(r, syntax->call_begin)) end = find(r, "\">");
  if (!end || end == name) {
    fails(r, NO_NAME);
    return NULL;
  }
  sluice_text_append(&out->name, name, (size_t)(end - name));
  if (out->name.failed) return sluice_out_of_memory();
  if (memchr(out->name.data, '\n', out->name.length) || memchr(out->name.data, '<', out->name.length) ||
      strlen(out->name.data) != out->name.length) {
    fails(r, "the name of a tool call is malformed; it is left as text");
    return NULL;
  }
  r->at = (size_t)(end - r->text) + 2;
  const sluice_json_value *schema = parameters_of(schemas, out->name.data);
  if (syntax->form == SLUICE_TOOLS_M3)
    SLUICE_TRY(put_children(r, schema, false, 0, &out->arguments));
  else
    SLUICE_TRY(put_parameters(r, schema, &out->arguments));
  skip_space(r);
  if (!r->why && (!skip(r, syntax->call_end) || r->at != r->length))
    fails(r, "a tool call has something that is no parameter; it is left as text");
  return out->arguments.failed ? sluice_out_of_memory() : NULL;
}

sluice_status *tool_call_parse(const tool_syntax *syntax, const sluice_json_value *schemas, const char *text,
                               size_t length, tool_call *out_call, const char **out_why) {
  sluice_text valid = {0};
  put_valid(&valid, text, length);
  if (valid.failed) {
    sluice_text_free(&valid);
    return sluice_out_of_memory();
  }
  if (!valid.data) { /* nothing at all */
    *out_why = NO_NAME;
    return NULL;
  }
  reader r = {.text = valid.data, .length = valid.length};
  sluice_status *status = read_call(syntax, schemas, &r, out_call);
  *out_why = r.why;
  sluice_text_free(&valid);
  return status;
}

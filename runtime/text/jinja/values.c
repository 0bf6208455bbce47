/* Values: memory, lists and dicts, truth, equality and order as Python has them. */
#include "runtime/text/jinja/jinja.h"
#include "sluice/memory.h"

#include <math.h>
#include <string.h>

/* ---- Memory ---- */

void *jinja_take(jinja_arena *arena, size_t bytes) {
  if (bytes > SIZE_MAX / 2) return NULL;
  size_t rounded = (bytes + 15) & ~(size_t)15;
  jinja_chunk *chunk = arena->chunks;
  if (!chunk || chunk->size - chunk->used < rounded) {
    size_t size = rounded > 32768 ? rounded : 65536;
    if (arena->limit && (size > arena->limit || arena->bytes > arena->limit - size)) return NULL;
    chunk = sluice_allocate(sizeof *chunk + size);
    if (!chunk) return NULL;
    chunk->size = size;
    arena->bytes += size;
    /* A large piece has a chunk of its own, behind the one that still has room. */
    if (size == rounded && arena->chunks) {
      chunk->next = arena->chunks->next;
      arena->chunks->next = chunk;
    } else {
      chunk->next = arena->chunks;
      arena->chunks = chunk;
    }
  }
  void *memory = chunk->data + chunk->used;
  chunk->used += rounded;
  return memory;
}

void jinja_arena_free(jinja_arena *arena) {
  while (arena->chunks) {
    jinja_chunk *next = arena->chunks->next;
    sluice_release(arena->chunks);
    arena->chunks = next;
  }
}

void *jinja_new(jinja_environment *e, size_t bytes) {
  return jinja_take(&e->arena, bytes);
}

sluice_status *jinja_exhausted(const jinja_environment *e) {
  if (e->arena.bytes < e->arena.limit / 2) return sluice_out_of_memory();
  return jinja_error_at(e->template, e->at, SLUICE_INVALID, "the template needs more than %zu MB of memory here",
                        e->limits.memory >> 20);
}

/* ---- Lists ---- */

sluice_status *jinja_list_new(jinja_environment *e, jinja_kind kind, size_t capacity, jinja_value *out) {
  jinja_list *list = jinja_new(e, sizeof *list);
  if (!list || capacity > SIZE_MAX / sizeof(jinja_value)) return jinja_exhausted(e);
  list->items = jinja_new(e, capacity * sizeof *list->items);
  if (!list->items) return jinja_exhausted(e);
  list->capacity = capacity;
  *out = (jinja_value){.kind = (uint8_t)kind, .list = list};
  return NULL;
}

sluice_status *jinja_list_add(jinja_environment *e, jinja_list *list, const jinja_value *value) {
  if (list->count == list->capacity) {
    size_t capacity = list->capacity ? 2 * list->capacity : 8;
    jinja_value *items = jinja_new(e, capacity * sizeof *items);
    if (!items) return jinja_exhausted(e);
    if (list->count) memcpy(items, list->items, list->count * sizeof *items);
    list->items = items;
    list->capacity = capacity;
  }
  list->items[list->count++] = *value;
  return NULL;
}

/* ---- Dicts ---- */

static uint64_t hash_bytes(const char *bytes, size_t length) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3u;
  return hash ^ (hash >> 29);
}

/* Equal keys have equal hashes: 1, 1.0 and true are one key. False: the value has none. */
static bool hash_value(const jinja_value *value, uint64_t *out) {
  int64_t integer;
  switch ((jinja_kind)value->kind) {
  case JINJA_STRING:
    *out = hash_bytes(jinja_bytes(value->string), value->string->length);
    return true;
  case JINJA_BOOL:
  case JINJA_INT:
    jinja_as_integer(value, &integer);
    *out = (uint64_t)integer * 0x9e3779b97f4a7c15u;
    return true;
  case JINJA_FLOAT:
    if (value->number >= -9.2e18 && value->number <= 9.2e18 && value->number == (double)(int64_t)value->number)
      *out = (uint64_t)(int64_t)value->number * 0x9e3779b97f4a7c15u;
    else
      *out = hash_bytes((const char *)&value->number, sizeof value->number);
    return true;
  case JINJA_TUPLE:
    *out = value->list->count;
    for (size_t i = 0; i < value->list->count; i++) {
      uint64_t item;
      if (!hash_value(&value->list->items[i], &item)) return false;
      *out = (*out ^ item) * 0x100000001b3u;
    }
    return true;
  case JINJA_LIST:
  case JINJA_DICT:
  case JINJA_VIEW:
    return false;
  default:
    *out = value->kind;
    return true;
  }
}

sluice_status *jinja_dict_new(jinja_environment *e, jinja_value *out) {
  jinja_dict *dict = jinja_new(e, sizeof *dict);
  if (!dict) return jinja_exhausted(e);
  *out = (jinja_value){.kind = JINJA_DICT, .dict = dict};
  return NULL;
}

static sluice_status *find_entry(jinja_environment *e, const jinja_dict *dict, const jinja_value *key, uint64_t hash,
                                 const jinja_entry **out) {
  *out = NULL;
  bool equal;
  if (!dict->table) {
    for (size_t i = 0; i < dict->count; i++) {
      if (dict->entries[i].hash != hash) continue;
      SLUICE_TRY(jinja_equal(e, &dict->entries[i].key, key, &equal));
      if (!equal) continue;
      *out = &dict->entries[i];
      return NULL;
    }
    return NULL;
  }
  for (size_t at = hash & (dict->table_size - 1); dict->table[at]; at = (at + 1) & (dict->table_size - 1)) {
    const jinja_entry *entry = &dict->entries[dict->table[at] - 1];
    SLUICE_TRY(jinja_spend(e, 1));
    if (entry->hash != hash) continue;
    SLUICE_TRY(jinja_equal(e, &entry->key, key, &equal));
    if (!equal) continue;
    *out = entry;
    return NULL;
  }
  return NULL;
}

sluice_status *jinja_dict_find(jinja_environment *e, const jinja_dict *dict, const jinja_value *key, bool *hashable,
                               const jinja_entry **out) {
  uint64_t hash;
  *out = NULL;
  bool has = hash_value(key, &hash);
  if (hashable) *hashable = has;
  if (has) return find_entry(e, dict, key, hash, out);
  return hashable ? NULL : JINJA_ERROR(e, "a %s cannot be the key of a dict", jinja_type_name(key->kind));
}

static void index_entry(jinja_dict *dict, size_t entry) {
  size_t at = dict->entries[entry].hash & (dict->table_size - 1);
  while (dict->table[at]) at = (at + 1) & (dict->table_size - 1);
  dict->table[at] = (uint32_t)(entry + 1);
}

static sluice_status *grow_dict(jinja_environment *e, jinja_dict *dict) {
  size_t capacity = dict->capacity ? 2 * dict->capacity : 8;
  if (capacity > UINT32_MAX / 2) return jinja_exhausted(e);
  jinja_entry *entries = jinja_new(e, capacity * sizeof *entries);
  if (!entries) return jinja_exhausted(e);
  if (dict->count) memcpy(entries, dict->entries, dict->count * sizeof *entries);
  dict->entries = entries;
  dict->capacity = capacity;
  if (capacity <= 8) return NULL;
  uint32_t *table = jinja_new(e, 2 * capacity * sizeof *table);
  if (!table) return jinja_exhausted(e);
  dict->table = table;
  dict->table_size = 2 * capacity;
  for (size_t i = 0; i < dict->count; i++) index_entry(dict, i);
  return NULL;
}

sluice_status *jinja_dict_set(jinja_environment *e, jinja_dict *dict, const jinja_value *key,
                              const jinja_value *value) {
  uint64_t hash;
  const jinja_entry *found;
  if (!hash_value(key, &hash)) return JINJA_ERROR(e, "a %s cannot be the key of a dict", jinja_type_name(key->kind));
  SLUICE_TRY(find_entry(e, dict, key, hash, &found));
  if (found) {
    dict->entries[found - dict->entries].value = *value;
    return NULL;
  }
  if (dict->count == dict->capacity) SLUICE_TRY(grow_dict(e, dict));
  dict->entries[dict->count] = (jinja_entry){.key = *key, .value = *value, .hash = hash};
  if (dict->table) index_entry(dict, dict->count);
  dict->count++;
  return NULL;
}

const jinja_value *jinja_dict_get(const jinja_dict *dict, const char *name, size_t length) {
  uint64_t hash = hash_bytes(name, length);
  if (!dict->table) {
    for (size_t i = 0; i < dict->count; i++) {
      const jinja_value *key = &dict->entries[i].key;
      if (dict->entries[i].hash == hash && key->kind == JINJA_STRING && key->string->length == length &&
          memcmp(jinja_bytes(key->string), name, length) == 0)
        return &dict->entries[i].value;
    }
    return NULL;
  }
  for (size_t at = hash & (dict->table_size - 1); dict->table[at]; at = (at + 1) & (dict->table_size - 1)) {
    const jinja_entry *entry = &dict->entries[dict->table[at] - 1];
    if (entry->hash == hash && entry->key.kind == JINJA_STRING && entry->key.string->length == length &&
        memcmp(jinja_bytes(entry->key.string), name, length) == 0)
      return &entry->value;
  }
  return NULL;
}

/* ---- From JSON ---- */

static sluice_status *from_array(jinja_environment *e, const sluice_json_value *json, bool plain, jinja_value *out) {
  SLUICE_TRY(jinja_list_new(e, JINJA_LIST, json->length, out));
  for (size_t i = 0; i < json->length; i++)
    SLUICE_TRY(jinja_from_json(e, &json->items[i], plain, &out->list->items[i]));
  out->list->count = json->length;
  return NULL;
}

sluice_status *jinja_from_json(jinja_environment *e, const sluice_json_value *json, bool plain, jinja_value *out) {
  switch (json->kind) {
  case SLUICE_JSON_NULL:
    *out = jinja_none();
    return NULL;
  case SLUICE_JSON_BOOL:
    *out = jinja_bool(json->boolean);
    return NULL;
  case SLUICE_JSON_NUMBER:
    if (json->is_wide_integer)
      return sluice_error(SLUICE_UNSUPPORTED, "a message has the integer %.0f, which does not fit 64 bits",
                          json->number);
    *out = json->is_integer ? jinja_int(json->integer) : jinja_float(json->number);
    return NULL;
  case SLUICE_JSON_STRING:
    return jinja_new_string(e, json->string, json->length, plain, out);
  case SLUICE_JSON_ARRAY:
    return from_array(e, json, plain, out);
  case SLUICE_JSON_OBJECT:
    break;
  }
  SLUICE_TRY(jinja_dict_new(e, out));
  for (size_t i = 0; i < json->length; i++) {
    jinja_value key, value;
    SLUICE_TRY(jinja_new_string(e, json->members[i].key, json->members[i].key_length, plain, &key));
    SLUICE_TRY(jinja_from_json(e, &json->members[i].value, plain, &value));
    SLUICE_TRY(jinja_dict_set(e, out->dict, &key, &value));
  }
  return NULL;
}

/* ---- Truth, equality, order ---- */

const char *jinja_type_name(jinja_kind kind) {
  static const char *const names[] = {"missing value", "Undefined", "NoneType",    "bool",  "int",       "float",
                                      "str",           "list",      "tuple",       "dict",  "dict view", "range",
                                      "generator",     "Namespace", "LoopContext", "Macro", "function",  "method"};
  return names[kind];
}

sluice_status *jinja_undefined_error(jinja_environment *e, const jinja_value *value) {
  if (value->note == JINJA_UNDEFINED_HINT) return JINJA_ERROR(e, "%s", value->hint);
  int length = value->string ? value->string->length < 100 ? (int)value->string->length : 100 : 0;
  const char *name = value->string ? jinja_bytes(value->string) : "";
  if (value->note == JINJA_UNDEFINED_UNSAFE)
    return JINJA_ERROR(e, "\"%.*s\" of a %s is not accessible to templates", length, name,
                       jinja_type_name(value->owner));
  if (value->owner) return JINJA_ERROR(e, "this %s has no \"%.*s\"", jinja_type_name(value->owner), length, name);
  return JINJA_ERROR(e, "\"%.*s\" is undefined", length, name);
}

bool jinja_as_integer(const jinja_value *value, int64_t *out) {
  if (value->kind == JINJA_INT)
    *out = value->integer;
  else if (value->kind == JINJA_BOOL)
    *out = value->boolean;
  else
    return false;
  return true;
}

bool jinja_as_number(const jinja_value *value, double *out) {
  int64_t integer;
  if (value->kind == JINJA_FLOAT)
    *out = value->number;
  else if (jinja_as_integer(value, &integer))
    *out = (double)integer;
  else
    return false;
  return true;
}

bool jinja_truth(const jinja_value *value) {
  switch ((jinja_kind)value->kind) {
  case JINJA_MISSING:
  case JINJA_UNDEFINED:
  case JINJA_NONE:
    return false;
  case JINJA_BOOL:
    return value->boolean;
  case JINJA_INT:
    return value->integer != 0;
  case JINJA_FLOAT:
    return value->number != 0;
  case JINJA_STRING:
    return value->string->length > 0;
  case JINJA_LIST:
  case JINJA_TUPLE:
    return value->list->count > 0;
  case JINJA_DICT:
  case JINJA_VIEW:
    return value->dict->count > 0;
  case JINJA_RANGE:
    return value->range->count > 0;
  default:
    return true;
  }
}

static int order_doubles(double a, double b) {
  return a < b ? -1 : a > b ? 1 : a == b ? 0 : 2;
}

/* Exact, where converting the integer would round. */
static int order_mixed(int64_t integer, double number) {
  if (isnan(number)) return 2;
  if (number >= 9223372036854775808.0) return -1;
  if (number < -9223372036854775808.0) return 1;
  int64_t whole = (int64_t)number;
  if (integer != whole) return integer < whole ? -1 : 1;
  return order_doubles(0, number - (double)whole);
}

/* -1, 0, 1, or 2 for no order (a NaN); false when one is no number. */
static bool order_numbers(const jinja_value *a, const jinja_value *b, int *out) {
  int64_t x, y;
  bool x_integer = jinja_as_integer(a, &x), y_integer = jinja_as_integer(b, &y);
  if ((!x_integer && a->kind != JINJA_FLOAT) || (!y_integer && b->kind != JINJA_FLOAT)) return false;
  if (x_integer && y_integer) {
    *out = (x > y) - (x < y);
  } else if (x_integer) {
    *out = order_mixed(x, b->number);
  } else if (y_integer) {
    *out = order_mixed(y, a->number);
    if (*out != 2) *out = -*out;
  } else {
    *out = order_doubles(a->number, b->number);
  }
  return true;
}

static int order_strings(const jinja_string *a, const jinja_string *b) {
  size_t length = a->length < b->length ? a->length : b->length;
  int order = length ? memcmp(jinja_bytes(a), jinja_bytes(b), length) : 0;
  if (order) return order < 0 ? -1 : 1;
  return (a->length > b->length) - (a->length < b->length);
}

static sluice_status *equal_lists(jinja_environment *e, const jinja_list *a, const jinja_list *b, bool *out) {
  *out = a->count == b->count;
  for (size_t i = 0; i < a->count && *out; i++) SLUICE_TRY(jinja_equal(e, &a->items[i], &b->items[i], out));
  return NULL;
}

static sluice_status *equal_dicts(jinja_environment *e, const jinja_dict *a, const jinja_dict *b, bool *out) {
  *out = a->count == b->count;
  for (size_t i = 0; i < a->count && *out; i++) {
    const jinja_entry *other;
    SLUICE_TRY(find_entry(e, b, &a->entries[i].key, a->entries[i].hash, &other));
    *out = other != NULL;
    if (other) SLUICE_TRY(jinja_equal(e, &a->entries[i].value, &other->value, out));
  }
  return NULL;
}

static sluice_status *equal_same_kind(jinja_environment *e, const jinja_value *a, const jinja_value *b, bool *out) {
  switch ((jinja_kind)a->kind) {
  case JINJA_UNDEFINED:
  case JINJA_NONE:
    *out = true;
    return NULL;
  case JINJA_STRING:
    SLUICE_TRY(jinja_spend(e, a->string->length / 64));
    *out = order_strings(a->string, b->string) == 0;
    return NULL;
  case JINJA_LIST:
  case JINJA_TUPLE:
    return equal_lists(e, a->list, b->list, out);
  case JINJA_DICT:
    return equal_dicts(e, a->dict, b->dict, out);
  case JINJA_VIEW: /* those of values are never equal; the others are sets */
    if (a->note != b->note || a->note == JINJA_VIEW_VALUES) {
      *out = a->dict == b->dict && a->note == b->note && a->note != JINJA_VIEW_VALUES;
      return NULL;
    }
    if (a->note == JINJA_VIEW_ITEMS) return equal_dicts(e, a->dict, b->dict, out);
    *out = a->dict->count == b->dict->count;
    for (size_t i = 0; i < a->dict->count && *out; i++) {
      const jinja_entry *other;
      SLUICE_TRY(find_entry(e, b->dict, &a->dict->entries[i].key, a->dict->entries[i].hash, &other));
      *out = other != NULL;
    }
    return NULL;
  case JINJA_RANGE:
    *out = a->range->count == b->range->count &&
           (!a->range->count ||
            (a->range->start == b->range->start && (a->range->count == 1 || a->range->step == b->range->step)));
    return NULL;
  default:
    *out = a->dict == b->dict; /* the same object */
    return NULL;
  }
}

sluice_status *jinja_equal(jinja_environment *e, const jinja_value *a, const jinja_value *b, bool *out) {
  int order;
  *out = false;
  if (order_numbers(a, b, &order)) {
    *out = order == 0;
    return NULL;
  }
  if (a->kind != b->kind) return NULL;
  SLUICE_TRY(jinja_descend(e));
  SLUICE_TRY(equal_same_kind(e, a, b, out));
  e->depth--;
  return NULL;
}

sluice_status *jinja_order(jinja_environment *e, const jinja_value *a, const jinja_value *b, int *out) {
  if (order_numbers(a, b, out)) return NULL;
  if (a->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, a);
  if (b->kind == JINJA_UNDEFINED) return jinja_undefined_error(e, b);
  if (a->kind == JINJA_STRING && b->kind == JINJA_STRING) {
    SLUICE_TRY(jinja_spend(e, (a->string->length < b->string->length ? a : b)->string->length / 64));
    *out = order_strings(a->string, b->string);
    return NULL;
  }
  if (a->kind != b->kind || (a->kind != JINJA_LIST && a->kind != JINJA_TUPLE))
    return JINJA_ERROR(e, "a %s and a %s have no order", jinja_type_name(a->kind), jinja_type_name(b->kind));
  const jinja_list *x = a->list, *y = b->list;
  for (size_t i = 0; i < x->count && i < y->count; i++) {
    bool equal;
    SLUICE_TRY(jinja_equal(e, &x->items[i], &y->items[i], &equal));
    if (equal) continue;
    SLUICE_TRY(jinja_descend(e));
    SLUICE_TRY(jinja_order(e, &x->items[i], &y->items[i], out));
    e->depth--;
    return NULL;
  }
  *out = (x->count > y->count) - (x->count < y->count);
  return NULL;
}

/* ---- Sorting ---- */

static sluice_status *merge(jinja_environment *e, jinja_value *items, jinja_value *keys, jinja_value *spare,
                            size_t count, bool reverse) {
  if (count < 2) return NULL;
  size_t half = count / 2;
  SLUICE_TRY(merge(e, items, keys, spare, half, reverse));
  SLUICE_TRY(merge(e, items + half, keys + half, spare, count - half, reverse));
  size_t left = 0, right = half;
  for (size_t i = 0; i < count; i++) {
    bool take_right = left == half;
    if (!take_right && right < count) {
      int order;
      SLUICE_TRY(jinja_spend(e, 1));
      SLUICE_TRY(jinja_order(e, &keys[right], &keys[left], &order));
      take_right = reverse ? order == 1 : order == -1; /* equal ones keep their order, reversed too */
    }
    size_t from = take_right ? right++ : left++;
    spare[2 * i] = items[from];
    spare[2 * i + 1] = keys[from];
  }
  for (size_t i = 0; i < count; i++) {
    items[i] = spare[2 * i];
    keys[i] = spare[2 * i + 1];
  }
  return NULL;
}

sluice_status *jinja_sort(jinja_environment *e, jinja_value *items, jinja_value *keys, size_t count, bool reverse) {
  jinja_value *spare = jinja_new(e, 2 * count * sizeof *spare);
  if (!spare) return jinja_exhausted(e);
  return merge(e, items, keys, spare, count, reverse);
}

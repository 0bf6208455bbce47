/* Tuning records: reading, keeping in order, writing. One table says what a line holds. */
#include "sluice/tuning.h"

#include "sluice/file.h"
#include "sluice/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BYTES ((size_t)64 << 20)
#define MOST_MEMBERS 32u /* of an object */

typedef enum field_kind {
  FIELD_TEXT,
  FIELD_COUNT,  /* an integer from 0 on */
  FIELD_TIME,   /* microseconds, from 0 on */
  FIELD_OBJECT, /* of integers and words */
} field_kind;

typedef struct field {
  const char *name;
  field_kind kind;
  size_t offset;
} field;

#define AT(member) offsetof(sluice_tuning_record, member)
static const field fields[] = {
    {"gpu", FIELD_TEXT, AT(gpu)},
    {"target", FIELD_TEXT, AT(target)},
    {"processors", FIELD_COUNT, AT(processors)},
    {"clock_mhz", FIELD_COUNT, AT(clock_mhz)},
    {"memory_mhz", FIELD_COUNT, AT(memory_mhz)},
    {"memory_bytes", FIELD_COUNT, AT(memory_bytes)},
    {"driver", FIELD_TEXT, AT(driver)},
    {"date", FIELD_TEXT, AT(date)},
    {"sluice", FIELD_TEXT, AT(sluice)},
    {"kernel", FIELD_TEXT, AT(kernel)},
    {"shape", FIELD_OBJECT, AT(shape)},
    {"size", FIELD_TEXT, AT(size)},
    {"from", FIELD_COUNT, AT(from)},
    {"to", FIELD_COUNT, AT(to)},
    {"at", FIELD_OBJECT, AT(at)},
    {"configuration", FIELD_OBJECT, AT(configuration)},
    {"median_us", FIELD_TIME, AT(median_us)},
    {"spread_us", FIELD_TIME, AT(spread_us)},
    {"floor_us", FIELD_TIME, AT(floor_us)},
    {"default_us", FIELD_TIME, AT(default_us)},
    {"runner_up", FIELD_OBJECT, AT(runner_up)},
    {"runner_up_us", FIELD_TIME, AT(runner_up_us)},
    {"candidates", FIELD_COUNT, AT(candidates)},
    {"calls", FIELD_COUNT, AT(calls)},
    {"check", FIELD_TEXT, AT(check)},
    {"output", FIELD_TEXT, AT(output)},
};
enum { FIELD_COUNT_ALL = sizeof fields / sizeof fields[0] };

static void *place(const sluice_tuning_record *record, const field *f) {
  return (char *)(uintptr_t)record + f->offset;
}

static bool is_owned(const field *f) {
  return f->kind == FIELD_TEXT || f->kind == FIELD_OBJECT;
}

static void record_free(sluice_tuning_record *record) {
  for (size_t i = 0; i < FIELD_COUNT_ALL; i++)
    if (is_owned(&fields[i])) sluice_release(*(char **)place(record, &fields[i]));
  *record = (sluice_tuning_record){0};
}

static bool record_copy(const sluice_tuning_record *from, sluice_tuning_record *to) {
  *to = *from;
  bool complete = true;
  for (size_t i = 0; i < FIELD_COUNT_ALL; i++) {
    if (!is_owned(&fields[i])) continue;
    const char *text = *(char **)place(from, &fields[i]);
    char *copy = sluice_copy_string(text, strlen(text));
    *(char **)place(to, &fields[i]) = copy;
    complete = complete && copy;
  }
  if (!complete) record_free(to);
  return complete;
}

/* ---- Writing ---- */

/* Three decimals: nanoseconds. */
static void write_field(const sluice_tuning_record *record, const field *f, sluice_text *out) {
  const void *value = place(record, f);
  switch (f->kind) {
  case FIELD_TEXT:
    sluice_text_json_string(out, *(char *const *)value);
    break;
  case FIELD_COUNT:
    sluice_text_printf(out, "%lld", (long long)*(const int64_t *)value);
    break;
  case FIELD_TIME:
    sluice_text_printf(out, "%.3f", *(const double *)value);
    break;
  case FIELD_OBJECT:
    sluice_text_printf(out, "%s", *(char *const *)value);
    break;
  }
}

static void write_record(const sluice_tuning_record *record, sluice_text *out) {
  for (size_t i = 0; i < FIELD_COUNT_ALL; i++) {
    sluice_text_printf(out, "%s\"%s\": ", i ? ", " : "{", fields[i].name);
    write_field(record, &fields[i], out);
  }
  sluice_text_printf(out, "}\n");
}

void sluice_tuning_write(const sluice_tuning *tuning, sluice_text *out) {
  for (size_t i = 0; i < tuning->count; i++) write_record(&tuning->items[i], out);
}

sluice_status *sluice_tuning_save(const sluice_tuning *tuning, const char *path) {
  sluice_text text = {0};
  sluice_tuning_write(tuning, &text);
  sluice_status *status = text.failed ? sluice_out_of_memory() : NULL;
  sluice_pending_file file;
  if (!status) status = sluice_pending_open(&file, path);
  if (!status)
    status = sluice_pending_close(&file, sluice_pending_write(&file, text.data ? text.data : "", text.length));
  sluice_text_free(&text);
  return status;
}

/* ---- Keys ---- */

static int compare_numbers(int64_t a, int64_t b) {
  return (a > b) - (a < b);
}

static int compare_keys(const sluice_tuning_record *a, const sluice_tuning_record *b) {
  int order = strcmp(a->gpu, b->gpu);
  if (!order) order = compare_numbers(a->processors, b->processors);
  if (!order) order = strcmp(a->target, b->target);
  if (!order) order = strcmp(a->kernel, b->kernel);
  if (!order) order = strcmp(a->shape, b->shape);
  if (!order) order = strcmp(a->size, b->size);
  if (!order) order = compare_numbers(a->from, b->from);
  return order ? order : compare_numbers(a->to, b->to);
}

/* Whether `a` is to be kept rather than `b` of the same key: whatever the order in which they come. */
static bool is_later(const sluice_tuning_record *a, const sluice_tuning_record *b) {
  int order = strcmp(a->date, b->date);
  if (order) return order > 0;
  if (a->median_us < b->median_us || a->median_us > b->median_us) return a->median_us < b->median_us;
  sluice_text texts[2] = {{0}, {0}};
  write_record(a, &texts[0]);
  write_record(b, &texts[1]);
  bool later = !texts[0].failed && !texts[1].failed && strcmp(texts[0].data, texts[1].data) < 0;
  for (int i = 0; i < 2; i++) sluice_text_free(&texts[i]);
  return later;
}

/* Where the key is, or belongs. */
static size_t find_place(const sluice_tuning *tuning, const sluice_tuning_record *record, bool *out_found) {
  size_t low = 0, high = tuning->count;
  *out_found = false;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = compare_keys(&tuning->items[middle], record);
    if (order == 0) *out_found = true;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

const sluice_tuning_record *sluice_tuning_find(const sluice_tuning *tuning, const sluice_tuning_record *record) {
  bool found;
  size_t at = find_place(tuning, record, &found);
  return found ? &tuning->items[at] : NULL;
}

sluice_status *sluice_tuning_add(sluice_tuning *tuning, const sluice_tuning_record *record) {
  bool found;
  size_t at = find_place(tuning, record, &found);
  if (found && !is_later(record, &tuning->items[at])) return NULL;
  sluice_tuning_record copy;
  if (!record_copy(record, &copy)) return sluice_out_of_memory();
  if (found) {
    record_free(&tuning->items[at]);
    tuning->items[at] = copy;
    return NULL;
  }
  if (tuning->count == tuning->capacity) {
    size_t capacity = tuning->capacity ? 2 * tuning->capacity : 32;
    sluice_tuning_record *items = sluice_reallocate_array(tuning->items, capacity, sizeof *items);
    if (!items) {
      record_free(&copy);
      return sluice_out_of_memory();
    }
    tuning->items = items;
    tuning->capacity = capacity;
  }
  memmove(&tuning->items[at + 1], &tuning->items[at], (tuning->count - at) * sizeof copy);
  tuning->items[at] = copy;
  tuning->count++;
  return NULL;
}

void sluice_tuning_free(sluice_tuning *tuning) {
  for (size_t i = 0; i < tuning->count; i++) record_free(&tuning->items[i]);
  sluice_release(tuning->items);
  *tuning = (sluice_tuning){0};
}

/* ---- Reading ---- */

static int compare_members(const void *a, const void *b) {
  const sluice_json_member *const *x = a, *const *y = b;
  return strcmp((*x)->key, (*y)->key);
}

/* A word of ours: letters, digits, "_" and ".", at most 31. */
static bool is_word(const char *text, size_t length) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.";
  return length > 0 && length < 32 && strspn(text, letters) == length;
}

char *sluice_tuning_object(const sluice_json_value *value) {
  if (!value || value->kind != SLUICE_JSON_OBJECT || value->length > MOST_MEMBERS) return NULL;
  const sluice_json_member *members[MOST_MEMBERS];
  for (size_t i = 0; i < value->length; i++) members[i] = &value->members[i];
  qsort(members, value->length, sizeof *members, compare_members);
  sluice_text text = {0};
  sluice_text_printf(&text, "{");
  for (size_t i = 0; i < value->length; i++) {
    const sluice_json_value *v = &members[i]->value;
    const bool word = v->kind == SLUICE_JSON_STRING && is_word(v->string, v->length);
    if (!is_word(members[i]->key, members[i]->key_length) || (!word && !v->is_integer)) {
      sluice_text_free(&text);
      return NULL;
    }
    sluice_text_printf(&text, "%s\"%s\": ", i ? ", " : "", members[i]->key);
    if (word)
      sluice_text_printf(&text, "\"%s\"", v->string);
    else
      sluice_text_printf(&text, "%lld", (long long)v->integer);
  }
  sluice_text_printf(&text, "}");
  if (!text.failed) return text.data;
  sluice_text_free(&text);
  return NULL;
}

static sluice_status *read_text(const sluice_json_document *document, const field *f, const sluice_json_value *value,
                                char **out) {
  if (value->kind != SLUICE_JSON_STRING || strlen(value->string) != value->length || value->length > 255)
    return sluice_json_error(
        document, value->offset, SLUICE_INVALID, "\"%s\" is %s, expected a string of at most 255 bytes", f->name,
        value->kind == SLUICE_JSON_STRING ? "longer or has a NUL" : sluice_json_kind_name(value->kind));
  *out = sluice_copy_string(value->string, value->length);
  return *out ? NULL : sluice_out_of_memory();
}

static sluice_status *read_field(const sluice_json_document *document, const field *f, sluice_tuning_record *record) {
  const sluice_json_value *root = sluice_json_root(document), *value = sluice_json_get(root, f->name);
  void *to = place(record, f);
  if (!value) return sluice_json_error(document, root->offset, SLUICE_INVALID, "the record lacks \"%s\"", f->name);
  switch (f->kind) {
  case FIELD_TEXT:
    return read_text(document, f, value, to);
  case FIELD_COUNT:
    if (value->kind != SLUICE_JSON_NUMBER || !value->is_integer || value->integer < 0)
      return sluice_json_error(document, value->offset, SLUICE_INVALID, "\"%s\" is not an integer from 0 on", f->name);
    *(int64_t *)to = value->integer;
    return NULL;
  case FIELD_TIME:
    if (value->kind != SLUICE_JSON_NUMBER || !(value->number >= 0) || value->number > 1e12)
      return sluice_json_error(document, value->offset, SLUICE_INVALID,
                               "\"%s\" is not a time in microseconds from 0 to 1e12", f->name);
    *(double *)to = value->number;
    return NULL;
  case FIELD_OBJECT:
    *(char **)to = sluice_tuning_object(value);
    if (!*(char **)to)
      return sluice_json_error(document, value->offset, SLUICE_INVALID,
                               "\"%s\" is not an object of at most %u integers and words", f->name, MOST_MEMBERS);
    return NULL;
  }
  return NULL;
}

static bool is_date(const char *text) {
  static const char pattern[] = "dddd-dd-dd";
  for (size_t i = 0; i < sizeof pattern; i++)
    if (pattern[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != pattern[i]) return false;
  return true;
}

/* What its fields must say together. */
static sluice_status *check_record(const sluice_json_document *document, const sluice_tuning_record *record) {
  const sluice_json_value *root = sluice_json_root(document);
  if (record->from > record->to || record->to > UINT32_MAX)
    return sluice_json_error(document, sluice_json_get(root, "to")->offset, SLUICE_INVALID,
                             "the sizes are %lld to %lld, expected an ascending range of 32 bits",
                             (long long)record->from, (long long)record->to);
  if (strcmp(record->size, "tokens") != 0 && strcmp(record->size, "pages") != 0)
    return sluice_json_error(document, sluice_json_get(root, "size")->offset, SLUICE_INVALID,
                             "\"size\" is '%.40s', expected tokens or pages", record->size);
  if (!is_date(record->date))
    return sluice_json_error(document, sluice_json_get(root, "date")->offset, SLUICE_INVALID,
                             "\"date\" is '%.40s', expected a day such as 2026-12-01", record->date);
  if (!(record->median_us > 0))
    return sluice_json_error(document, sluice_json_get(root, "median_us")->offset, SLUICE_INVALID,
                             "\"median_us\" is 0, expected a time");
  return NULL;
}

static sluice_status *check_names(const sluice_json_document *document) {
  const sluice_json_value *root = sluice_json_root(document);
  if (root->kind != SLUICE_JSON_OBJECT)
    return sluice_json_error(document, root->offset, SLUICE_INVALID, "the line is %s, expected an object: a record",
                             sluice_json_kind_name(root->kind));
  for (size_t i = 0; i < root->length; i++) {
    size_t f = 0;
    while (f < FIELD_COUNT_ALL && strcmp(fields[f].name, root->members[i].key) != 0) f++;
    if (f == FIELD_COUNT_ALL)
      return sluice_json_error(document, root->members[i].key_offset, SLUICE_INVALID,
                               "a record has no member \"%.40s\"", root->members[i].key);
  }
  return NULL;
}

static sluice_status *parse_line(const char *text, size_t length, const char *name, sluice_tuning *tuning) {
  sluice_json_document *document = NULL;
  sluice_tuning_record record = {0};
  sluice_status *status = sluice_json_parse(text, length, name, &document);
  if (!status) status = check_names(document);
  for (size_t i = 0; i < FIELD_COUNT_ALL && !status; i++) status = read_field(document, &fields[i], &record);
  if (!status) status = check_record(document, &record);
  if (!status) status = sluice_tuning_add(tuning, &record);
  record_free(&record);
  sluice_json_free(document);
  return status;
}

/* The error of line `line` with its place in the file: the reader of one line takes it for the first. */
static sluice_status *parse_in_place(const char *text, size_t length, const char *name, size_t line,
                                     sluice_tuning *tuning) {
  sluice_text placed = {0};
  for (size_t i = 1; i < line; i++) sluice_text_append(&placed, "\n", 1);
  sluice_text_append(&placed, text, length);
  sluice_status *status = placed.failed ? sluice_out_of_memory() : parse_line(placed.data, placed.length, name, tuning);
  sluice_text_free(&placed);
  return status;
}

sluice_status *sluice_tuning_parse(const char *text, size_t length, const char *name, sluice_tuning *tuning) {
  for (size_t start = 0, line = 1; start < length; line++) {
    const char *end = memchr(text + start, '\n', length - start);
    const size_t stop = end ? (size_t)(end - text) : length;
    sluice_status *status = stop > start ? parse_line(text + start, stop - start, name, tuning) : NULL;
    if (status) {
      sluice_status_free(status);
      return parse_in_place(text + start, stop - start, name, line, tuning);
    }
    start = stop + 1;
  }
  return NULL;
}

sluice_status *sluice_tuning_read(const char *path, sluice_tuning *tuning) {
  void *data;
  size_t length;
  SLUICE_TRY(sluice_read_file(path, MOST_BYTES, &data, &length));
  sluice_status *status = sluice_tuning_parse(data, length, path, tuning);
  sluice_release(data);
  return status;
}

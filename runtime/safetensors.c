/* Reading safetensors: 8 bytes of little-endian header length, a JSON object, then the tensors' bytes without holes. */
#include "runtime/safetensors.h"

#include "sluice/file.h"
#include "sluice/memory.h"

#include <stdlib.h>
#include <string.h>

/* The format's dtypes and their bits; those with a sluice_dtype can be read. */
static const struct {
  const char *name;
  unsigned bits;
  sluice_dtype dtype;
} dtypes[] = {{"F32", 32, SLUICE_F32},
              {"BF16", 16, SLUICE_BF16},
              {"F16", 16, SLUICE_F16},
              {"I32", 32, SLUICE_I32},
              {"U8", 8, SLUICE_U8},
              {"I64", 64, SLUICE_I64},
              {"F64", 64, 0},
              {"U64", 64, 0},
              {"U32", 32, 0},
              {"I16", 16, 0},
              {"U16", 16, 0},
              {"I8", 8, 0},
              {"BOOL", 8, 0},
              {"F8_E5M2", 8, 0},
              {"F8_E4M3", 8, 0},
              {"F8_E8M0", 8, 0},
              {"F6_E2M3", 6, 0},
              {"F6_E3M2", 6, 0},
              {"F4", 4, 0},
              {"C64", 64, 0}};

sluice_status *safetensors_header_length(const unsigned char first[8], uint64_t file_length, const char *file,
                                         uint64_t *out_length) {
  uint64_t length = 0;
  for (int i = 7; i >= 0; i--) length = length << 8 | first[i];
  if (file_length < 8 || length > file_length - 8)
    return sluice_error(SLUICE_INVALID, "%s: the header length %llu does not fit the file of %llu bytes", file,
                        (unsigned long long)length, (unsigned long long)file_length);
  if (length > SAFETENSORS_MAX_HEADER)
    return sluice_error(SLUICE_INVALID, "%s: the header of %llu bytes is longer than %u", file,
                        (unsigned long long)length, SAFETENSORS_MAX_HEADER);
  *out_length = length;
  return NULL;
}

/* JSON strings may hold NUL bytes: "F32\0" is not F32. */
static bool equals(const char *name, const char *string, size_t length) {
  return strlen(name) == length && memcmp(name, string, length) == 0;
}

static sluice_status *entry_error(const char *file, const char *tensor, const char *text) {
  return sluice_error(SLUICE_INVALID, "%s: tensor '%.200s': %s", file, tensor, text);
}

static sluice_status *parse_shape(const sluice_json_value *shape, const char *file, const char *tensor, unsigned bits,
                                  sluice_tensor_info *info) {
  if (!shape || shape->kind != SLUICE_JSON_ARRAY) return entry_error(file, tensor, "no array \"shape\"");
  if (shape->length > SLUICE_MAX_RANK) return entry_error(file, tensor, "more than 8 dimensions");
  uint64_t total = bits;
  for (size_t i = 0; i < shape->length; i++) {
    const sluice_json_value *d = &shape->items[i];
    if (!d->is_integer || d->integer < 0) return entry_error(file, tensor, "a dimension is not a whole number >= 0");
    if (__builtin_mul_overflow(total, (uint64_t)d->integer, &total))
      return entry_error(file, tensor, "its size overflows");
    info->shape[i] = d->integer;
  }
  if (total % 8) return entry_error(file, tensor, "its size is no whole number of bytes");
  info->rank = (unsigned)shape->length;
  info->bytes = total / 8;
  return NULL;
}

static sluice_status *parse_entry(const sluice_json_member *member, uint64_t data_start, uint64_t data_length,
                                  const char *file, safetensors_entry *entry) {
  const sluice_json_value *value = &member->value, *offsets = sluice_json_get(value, "data_offsets"),
                          *dtype = sluice_json_get(value, "dtype");
  if (strlen(member->key) != member->key_length) return entry_error(file, member->key, "its name holds a NUL byte");
  if (value->kind != SLUICE_JSON_OBJECT) return entry_error(file, member->key, "its entry is not an object");
  for (size_t i = 0; i < value->length; i++) {
    const char *key = value->members[i].key;
    if (strcmp(key, "dtype") && strcmp(key, "shape") && strcmp(key, "data_offsets"))
      return entry_error(file, member->key, "its entry has a key other than dtype, shape and data_offsets");
  }
  if (!dtype || dtype->kind != SLUICE_JSON_STRING) return entry_error(file, member->key, "no string \"dtype\"");
  size_t d = 0;
  while (d < sizeof dtypes / sizeof *dtypes && !equals(dtypes[d].name, dtype->string, dtype->length)) d++;
  if (d == sizeof dtypes / sizeof *dtypes)
    return sluice_error(SLUICE_INVALID, "%s: tensor '%.200s': unknown dtype '%.40s'", file, member->key, dtype->string);
  *entry = (safetensors_entry){
      .info = {.name = member->key, .file = file, .dtype = dtypes[d].dtype, .dtype_name = dtypes[d].name}};
  SLUICE_TRY(parse_shape(sluice_json_get(value, "shape"), file, member->key, dtypes[d].bits, &entry->info));
  if (!offsets || offsets->kind != SLUICE_JSON_ARRAY || offsets->length != 2 || !offsets->items[0].is_integer ||
      !offsets->items[1].is_integer || offsets->items[0].integer < 0 ||
      offsets->items[1].integer < offsets->items[0].integer)
    return entry_error(file, member->key, "\"data_offsets\" are not two whole numbers, begin <= end");
  uint64_t begin = (uint64_t)offsets->items[0].integer, end = (uint64_t)offsets->items[1].integer;
  if (end > data_length)
    return sluice_error(
        SLUICE_INVALID,
        "%s: tensor '%.200s' ends at byte %llu of the data, but there are only %llu: the file is truncated "
        "or its header is wrong",
        file, member->key, (unsigned long long)end, (unsigned long long)data_length);
  if (end - begin != entry->info.bytes)
    return sluice_error(SLUICE_INVALID, "%s: tensor '%.200s' has %llu bytes, but its dtype and shape need %llu", file,
                        member->key, (unsigned long long)(end - begin), (unsigned long long)entry->info.bytes);
  entry->offset = data_start + begin;
  return NULL;
}

static int by_offset(const void *a, const void *b) {
  const safetensors_entry *x = a, *y = b;
  if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
  return x->info.bytes < y->info.bytes ? -1 : x->info.bytes > y->info.bytes;
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const safetensors_entry *)a)->info.name, ((const safetensors_entry *)b)->info.name);
}

/* In order of offset, each tensor must start where the one before ends, and the last must end the file. */
static sluice_status *check_ranges(const safetensors_header *header, uint64_t start, uint64_t end, const char *file) {
  uint64_t at = start;
  for (size_t i = 0; i < header->count; i++) {
    const safetensors_entry *entry = &header->entries[i];
    if (entry->offset < at)
      return sluice_error(SLUICE_INVALID, "%s: tensors '%.200s' and '%.200s' overlap", file,
                          header->entries[i - 1].info.name, entry->info.name);
    if (entry->offset > at)
      return sluice_error(SLUICE_INVALID, "%s: there is a hole of %llu bytes before tensor '%.200s'", file,
                          (unsigned long long)(entry->offset - at), entry->info.name);
    at += entry->info.bytes;
  }
  if (at != end)
    return sluice_error(SLUICE_INVALID, "%s: %llu bytes after the last tensor belong to none", file,
                        (unsigned long long)(end - at));
  return NULL;
}

static sluice_status *check_metadata(const sluice_json_value *metadata, const char *file) {
  bool strings = metadata->kind == SLUICE_JSON_OBJECT;
  for (size_t i = 0; strings && i < metadata->length; i++)
    strings = metadata->members[i].value.kind == SLUICE_JSON_STRING;
  return strings ? NULL : sluice_error(SLUICE_INVALID, "%s: \"__metadata__\" is not an object of strings", file);
}

sluice_status *safetensors_header_parse(const char *json, uint64_t header_length, uint64_t file_length,
                                        const char *file, safetensors_header *out_header) {
  *out_header = (safetensors_header){0};
  if (header_length == 0 || json[0] != '{')
    return sluice_error(SLUICE_INVALID, "%s: not a safetensors file: its header does not start with '{'", file);
  safetensors_header header = {0};
  SLUICE_TRY(sluice_json_parse(json, (size_t)header_length, file, &header.document));
  const sluice_json_value *root = sluice_json_root(header.document);
  header.entries = sluice_allocate_array(root->length, sizeof *header.entries);
  sluice_status *status = header.entries ? NULL : sluice_out_of_memory();
  uint64_t start = 8 + header_length;
  for (size_t i = 0; i < root->length && !status; i++) {
    const sluice_json_member *member = &root->members[i];
    if (equals("__metadata__", member->key, member->key_length))
      status = check_metadata(&member->value, file);
    else
      status = parse_entry(member, start, file_length - start, file, &header.entries[header.count++]);
  }
  if (!status) {
    qsort(header.entries, header.count, sizeof *header.entries, by_offset);
    status = check_ranges(&header, start, file_length, file);
  }
  if (status) {
    safetensors_header_free(&header);
    return status;
  }
  qsort(header.entries, header.count, sizeof *header.entries, by_name);
  *out_header = header;
  return NULL;
}

void safetensors_header_free(safetensors_header *header) {
  sluice_json_free(header->document);
  sluice_release(header->entries);
  *header = (safetensors_header){0};
}

const safetensors_entry *safetensors_header_find(const safetensors_header *header, const char *name) {
  safetensors_entry key = {.info = {.name = name}};
  if (!header->count) return NULL;
  return bsearch(&key, header->entries, header->count, sizeof key, by_name);
}

/* ---- whole files ---- */
struct sluice_safetensors {
  char *name;
  const unsigned char *data;
  size_t length;
  void *owned; /* NULL: `data` is the caller's */
  safetensors_header header;
};

static sluice_status *open_bytes(sluice_safetensors *file) {
  uint64_t header_length;
  if (file->length < 8)
    return sluice_error(SLUICE_INVALID, "%s: %zu bytes are too few for a safetensors file", file->name, file->length);
  SLUICE_TRY(safetensors_header_length(file->data, file->length, file->name, &header_length));
  return safetensors_header_parse((const char *)file->data + 8, header_length, file->length, file->name, &file->header);
}

static sluice_status *create(const char *name, sluice_safetensors **out_file) {
  *out_file = sluice_allocate(sizeof **out_file);
  if (!*out_file) return sluice_out_of_memory();
  (*out_file)->name = sluice_copy_string(name, strlen(name));
  if ((*out_file)->name) return NULL;
  sluice_safetensors_close(*out_file);
  *out_file = NULL;
  return sluice_out_of_memory();
}

/* Moves the bytes so that the tensors' begin at a multiple of 8: a header may have any length, and tensors are read in
 * place. A header that is damaged is left to whoever reads it. */
static sluice_status *align_tensors(sluice_safetensors *file) {
  enum { ALIGNMENT = 8 };
  uint64_t header_length;
  file->data = file->owned;
  if (file->length < 8) return NULL;
  sluice_status *damaged = safetensors_header_length(file->owned, file->length, file->name, &header_length);
  if (damaged) {
    sluice_status_free(damaged);
    return NULL;
  }
  const size_t shift = (ALIGNMENT - header_length % ALIGNMENT) % ALIGNMENT;
  void *memory = sluice_reallocate_array(file->owned, file->length + shift, 1);
  if (!memory) return sluice_out_of_memory();
  file->owned = memory;
  file->data = (const unsigned char *)memory + shift;
  memmove((unsigned char *)memory + shift, memory, file->length);
  return NULL;
}

sluice_status *sluice_safetensors_open(const char *path, sluice_safetensors **out_file) {
  SLUICE_TRY(create(path, out_file));
  sluice_status *status = sluice_read_file(path, SIZE_MAX - 64, &(*out_file)->owned, &(*out_file)->length);
  if (!status) status = align_tensors(*out_file);
  if (!status) status = open_bytes(*out_file);
  if (!status) return NULL;
  sluice_safetensors_close(*out_file);
  *out_file = NULL;
  return status;
}

sluice_status *sluice_safetensors_open_memory(const void *data, size_t length, const char *name,
                                              sluice_safetensors **out_file) {
  SLUICE_TRY(create(name, out_file));
  (*out_file)->data = data;
  (*out_file)->length = length;
  sluice_status *status = open_bytes(*out_file);
  if (!status) return NULL;
  sluice_safetensors_close(*out_file);
  *out_file = NULL;
  return status;
}

void sluice_safetensors_close(sluice_safetensors *file) {
  if (!file) return;
  safetensors_header_free(&file->header);
  sluice_release(file->owned);
  sluice_release(file->name);
  sluice_release(file);
}

size_t sluice_safetensors_count(const sluice_safetensors *file) {
  return file->header.count;
}

const sluice_tensor_info *sluice_safetensors_tensor(const sluice_safetensors *file, size_t index) {
  return &file->header.entries[index].info;
}

const sluice_tensor_info *sluice_safetensors_find(const sluice_safetensors *file, const char *name) {
  const safetensors_entry *entry = safetensors_header_find(&file->header, name);
  return entry ? &entry->info : NULL;
}

const void *sluice_safetensors_data(const sluice_safetensors *file, const sluice_tensor_info *tensor) {
  return file->data + safetensors_header_find(&file->header, tensor->name)->offset;
}

/* Writes what a run produced under the names and in the shapes of the golden files (docs/synthetic.md). */
#include "runtime/tools/run.h"

#include <stdio.h>
#include <string.h>

#define FIXED_TENSORS 5
#define MAX_NAME 96

typedef struct dump {
  sluice_tensor_info *tensors;
  const void **data;
  char (*names)[MAX_NAME];
  void **owned; /* reordered copies */
  size_t count;
} dump;

static void add(dump *d, const char *name, sluice_dtype dtype, unsigned rank, const int64_t *shape, const void *data) {
  snprintf(d->names[d->count], MAX_NAME, "%s", name);
  sluice_tensor_info *info = &d->tensors[d->count];
  info->name = d->names[d->count];
  info->dtype = dtype;
  info->rank = rank;
  info->bytes = sluice_dtype_size(dtype);
  for (unsigned i = 0; i < rank; i++) {
    info->shape[i] = shape[i];
    info->bytes *= (uint64_t)shape[i];
  }
  d->data[d->count++] = data;
}

/* [S][heads][k] as [heads][S][k]. */
static sluice_status *add_value(dump *d, const prompt_run *run, const prompt_value *value) {
  char name[MAX_NAME];
  snprintf(name, sizeof name, "prefill.%s", value->name);
  uint32_t rows = value->last_rows ? run->rows : run->length;
  size_t k = value->dimension, heads = value->row_elements / value->dimension;
  bool blocks = strstr(value->name, ".blocks") != NULL;
  if (!blocks) {
    add(d, name, value->dtype, 2, (const int64_t[]){rows, value->row_elements}, value->data);
    return NULL;
  }
  int32_t *copy = sluice_allocate_array((size_t)rows * value->row_elements, sizeof *copy);
  if (!copy) return sluice_out_of_memory();
  const int32_t *from = value->data;
  for (size_t h = 0; h < heads; h++)
    for (size_t s = 0; s < rows; s++) memcpy(copy + (h * rows + s) * k, from + (s * heads + h) * k, k * sizeof *copy);
  d->owned[d->count] = copy;
  add(d, name, SLUICE_I32, 3, (const int64_t[]){(int64_t)heads, rows, (int64_t)k}, copy);
  return NULL;
}

static sluice_status *write_file(const char *path, const dump *d) {
  sluice_safetensors_writer *writer = NULL;
  SLUICE_TRY(sluice_safetensors_create(path, d->tensors, d->count, NULL, 0, &writer));
  for (size_t i = 0; i < d->count; i++) {
    sluice_status *status = sluice_safetensors_append(writer, d->data[i], (size_t)d->tensors[i].bytes);
    if (status) {
      sluice_safetensors_abandon(writer);
      return status;
    }
  }
  return sluice_safetensors_finish(writer);
}

static sluice_status *fill(dump *d, const prompt_run *run, const int32_t *prompt, const int32_t *tokens,
                           uint32_t token_count, const float *decode_logits) {
  int32_t *rows = sluice_allocate_array(run->rows, sizeof *rows);
  if (!rows) return sluice_out_of_memory();
  d->owned[1] = rows;
  for (uint32_t i = 0; i < run->rows; i++) rows[i] = (int32_t)(run->length - run->rows + i);
  add(d, "input_ids", SLUICE_I32, 1, (const int64_t[]){run->length}, prompt);
  add(d, "rows", SLUICE_I32, 1, (const int64_t[]){run->rows}, rows);
  add(d, "prefill.logits", SLUICE_F32, 2, (const int64_t[]){run->rows, run->vocabulary}, run->logits);
  add(d, "decode.tokens", SLUICE_I32, 1, (const int64_t[]){token_count}, tokens);
  add(d, "decode.logits", SLUICE_F32, 2, (const int64_t[]){token_count ? token_count - 1 : 0, run->vocabulary},
      decode_logits);
  for (size_t i = 0; i < run->value_count; i++) SLUICE_TRY(add_value(d, run, &run->values[i]));
  return NULL;
}

sluice_status *tool_dump(const char *path, const prompt_run *run, const int32_t *prompt, const int32_t *tokens,
                         uint32_t token_count, const float *decode_logits) {
  dump d = {0};
  size_t capacity = FIXED_TENSORS + run->value_count;
  d.tensors = sluice_allocate_array(capacity, sizeof *d.tensors);
  d.data = sluice_allocate_array(capacity, sizeof *d.data);
  d.names = sluice_allocate_array(capacity, sizeof *d.names);
  d.owned = sluice_allocate_array(capacity, sizeof *d.owned);
  sluice_status *status = NULL;
  if (!d.tensors || !d.data || !d.names || !d.owned) status = sluice_out_of_memory();
  if (!status) status = fill(&d, run, prompt, tokens, token_count, decode_logits);
  if (!status) status = write_file(path, &d);
  for (size_t i = 0; d.owned && i < capacity; i++) sluice_release(d.owned[i]);
  sluice_release(d.owned);
  sluice_release(d.names);
  sluice_release(d.data);
  sluice_release(d.tensors);
  return status;
}

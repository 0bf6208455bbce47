/* Writing safetensors. */
#include "sluice/checkpoint.h"
#include "sluice/file.h"
#include "sluice/json.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <stdlib.h>

struct sluice_safetensors_writer {
  sluice_pending_file pending;
  uint64_t expected, written; /* bytes of data */
};

/* The bytes of a tensor's data. */
static sluice_status *data_bytes(const sluice_tensor_info *tensor, const char *path, uint64_t *out_bytes) {
  uint64_t bytes = sluice_dtype_size(tensor->dtype);
  bool valid = bytes != 0 && tensor->rank <= SLUICE_MAX_RANK;
  for (unsigned d = 0; valid && d < tensor->rank; d++)
    valid = tensor->shape[d] >= 0 && !__builtin_mul_overflow(bytes, (uint64_t)tensor->shape[d], &bytes);
  *out_bytes = bytes;
  return valid ? NULL
               : sluice_error(SLUICE_INTERNAL, "%s: tensor '%s' has no valid dtype and shape", path, tensor->name);
}

static sluice_status *write_header(sluice_safetensors_writer *writer, const sluice_tensor_info *tensors, size_t count,
                                   const char *const *metadata, size_t pairs) {
  sluice_text text = {0};
  sluice_status *status = NULL;
  sluice_text_append(&text, "{", 1);
  if (pairs) {
    sluice_text_printf(&text, "\"__metadata__\":{");
    for (size_t i = 0; i < pairs; i++) {
      if (i) sluice_text_append(&text, ",", 1);
      sluice_text_json_string(&text, metadata[2 * i]);
      sluice_text_append(&text, ":", 1);
      sluice_text_json_string(&text, metadata[2 * i + 1]);
    }
    sluice_text_append(&text, count ? "}," : "}", count ? 2 : 1);
  }
  for (size_t i = 0; i < count && !status; i++) {
    const sluice_tensor_info *t = &tensors[i];
    uint64_t bytes, end;
    status = data_bytes(t, writer->pending.path, &bytes);
    if (!status && __builtin_add_overflow(writer->expected, bytes, &end))
      status = sluice_error(SLUICE_INTERNAL, "%s: the sizes of its tensors overflow", writer->pending.path);
    if (status) break;
    sluice_text_json_string(&text, t->name);
    sluice_text_printf(&text, ":{\"dtype\":\"%s\",\"shape\":[", sluice_dtype_name(t->dtype));
    for (unsigned d = 0; d < t->rank; d++) sluice_text_printf(&text, "%s%lld", d ? "," : "", (long long)t->shape[d]);
    sluice_text_printf(&text, "],\"data_offsets\":[%llu,%llu]}%s", (unsigned long long)writer->expected,
                       (unsigned long long)end, i + 1 < count ? "," : "");
    writer->expected = end;
  }
  sluice_text_append(&text, "}", 1);
  while (!text.failed && text.length % 8) sluice_text_append(&text, " ", 1); /* so that the data is aligned */
  if (!status && text.failed) status = sluice_out_of_memory();
  unsigned char length[8];
  for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)text.length >> (8 * i));
  if (!status) status = sluice_pending_write(&writer->pending, length, sizeof length);
  if (!status) status = sluice_pending_write(&writer->pending, text.data, text.length);
  sluice_text_free(&text);
  return status;
}

sluice_status *sluice_safetensors_create(const char *path, const sluice_tensor_info *tensors, size_t count,
                                         const char *const *metadata_pairs, size_t metadata_pair_count,
                                         sluice_safetensors_writer **out_writer) {
  *out_writer = NULL;
  sluice_safetensors_writer *writer = sluice_allocate(sizeof *writer);
  if (!writer) return sluice_out_of_memory();
  sluice_status *status = sluice_pending_open(&writer->pending, path);
  if (status) {
    sluice_release(writer);
    return status;
  }
  status = write_header(writer, tensors, count, metadata_pairs, metadata_pair_count);
  if (status) {
    sluice_safetensors_abandon(writer);
    return status;
  }
  *out_writer = writer;
  return NULL;
}

sluice_status *sluice_safetensors_append(sluice_safetensors_writer *writer, const void *data, size_t bytes) {
  writer->written += bytes;
  if (writer->written > writer->expected)
    return sluice_error(SLUICE_INTERNAL, "%s: more data than its tensors hold", writer->pending.path);
  return sluice_pending_write(&writer->pending, data, bytes);
}

sluice_status *sluice_safetensors_settle(sluice_safetensors_writer *writer) {
  if (writer->written != writer->expected)
    return sluice_error(SLUICE_INTERNAL, "%s: less data than its tensors hold", writer->pending.path);
  return sluice_pending_settle(&writer->pending);
}

sluice_status *sluice_safetensors_finish(sluice_safetensors_writer *writer) {
  sluice_status *status = sluice_pending_close(&writer->pending, sluice_safetensors_settle(writer));
  sluice_release(writer);
  return status;
}

void sluice_safetensors_abandon(sluice_safetensors_writer *writer) {
  if (!writer) return;
  sluice_pending_discard(&writer->pending);
  sluice_release(writer);
}

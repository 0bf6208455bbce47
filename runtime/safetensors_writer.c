/* Writing safetensors. The data goes to PATH.tmp-PID, which becomes PATH when all of it is on disk. */
#include "sluice/checkpoint.h"
#include "sluice/json.h"
#include "sluice/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct sluice_safetensors_writer {
  char *path, *temporary;
  int file;
  uint64_t expected, written; /* bytes of data */
};

static sluice_status *write_bytes(sluice_safetensors_writer *writer, const void *data, size_t bytes) {
  const char *at = data;
  while (bytes) {
    ssize_t n = write(writer->file, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return sluice_error(SLUICE_IO, "%s: cannot be written: %s", writer->temporary, strerror(errno));
    at += n;
    bytes -= (size_t)n;
  }
  return NULL;
}

static sluice_status *write_header(sluice_safetensors_writer *writer, const sluice_tensor_info *tensors, size_t count,
                                   const char *const *metadata, size_t pairs) {
  sluice_text text = {0};
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
  for (size_t i = 0; i < count; i++) {
    const sluice_tensor_info *t = &tensors[i];
    uint64_t bytes = sluice_dtype_size(t->dtype);
    for (unsigned d = 0; d < t->rank; d++) bytes *= (uint64_t)t->shape[d];
    sluice_text_json_string(&text, t->name);
    sluice_text_printf(&text, ":{\"dtype\":\"%s\",\"shape\":[", sluice_dtype_name(t->dtype));
    for (unsigned d = 0; d < t->rank; d++) sluice_text_printf(&text, "%s%lld", d ? "," : "", (long long)t->shape[d]);
    sluice_text_printf(&text, "],\"data_offsets\":[%llu,%llu]}%s", (unsigned long long)writer->expected,
                       (unsigned long long)(writer->expected + bytes), i + 1 < count ? "," : "");
    writer->expected += bytes;
  }
  sluice_text_append(&text, "}", 1);
  while (!text.failed && text.length % 8) sluice_text_append(&text, " ", 1); /* so that the data is aligned */
  sluice_status *status = text.failed ? sluice_out_of_memory() : NULL;
  unsigned char length[8];
  for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)text.length >> (8 * i));
  if (!status) status = write_bytes(writer, length, sizeof length);
  if (!status) status = write_bytes(writer, text.data, text.length);
  sluice_text_free(&text);
  return status;
}

sluice_status *sluice_safetensors_create(const char *path, const sluice_tensor_info *tensors, size_t count,
                                         const char *const *metadata_pairs, size_t metadata_pair_count,
                                         sluice_safetensors_writer **out_writer) {
  *out_writer = NULL;
  sluice_safetensors_writer *writer = sluice_allocate(sizeof *writer);
  if (!writer) return sluice_out_of_memory();
  writer->file = -1;
  writer->path = sluice_copy_string(path, strlen(path));
  writer->temporary = sluice_format_string("%s.tmp-%ld", path, (long)getpid());
  sluice_status *status = writer->path && writer->temporary ? NULL : sluice_out_of_memory();
  if (!status) {
    writer->file = open(writer->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (writer->file < 0) status = sluice_error(SLUICE_IO, "%s: cannot be created: %s", path, strerror(errno));
  }
  if (!status) status = write_header(writer, tensors, count, metadata_pairs, metadata_pair_count);
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
    return sluice_error(SLUICE_INTERNAL, "%s: more data than its tensors hold", writer->path);
  return write_bytes(writer, data, bytes);
}

sluice_status *sluice_safetensors_finish(sluice_safetensors_writer *writer) {
  sluice_status *status = NULL;
  if (writer->written != writer->expected)
    status = sluice_error(SLUICE_INTERNAL, "%s: less data than its tensors hold", writer->path);
  else if (fsync(writer->file))
    status = sluice_error(SLUICE_IO, "%s: cannot be written: %s", writer->path, strerror(errno));
  else if (rename(writer->temporary, writer->path))
    status = sluice_error(SLUICE_IO, "%s: cannot be created: %s", writer->path, strerror(errno));
  if (!status) { /* nothing to remove */
    close(writer->file);
    writer->file = -1;
  }
  sluice_safetensors_abandon(writer);
  return status;
}

void sluice_safetensors_abandon(sluice_safetensors_writer *writer) {
  if (!writer) return;
  if (writer->file >= 0) {
    close(writer->file);
    unlink(writer->temporary);
  }
  sluice_release(writer->path);
  sluice_release(writer->temporary);
  sluice_release(writer);
}

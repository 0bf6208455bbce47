/* Writing safetensors. The data goes to a new file PATH.tmp-PID-N, which becomes PATH when all of it is on disk. */
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

/* Creates the temporary file. Only a file that did not exist is taken: a link with a guessed name in a shared directory
 * must not lead the data elsewhere, and two writers of one path must not share a file. */
static sluice_status *open_temporary(sluice_safetensors_writer *writer) {
  for (unsigned attempt = 0; attempt < 100; attempt++) {
    sluice_release(writer->temporary);
    writer->temporary = sluice_format_string("%s.tmp-%ld-%u", writer->path, (long)getpid(), attempt);
    if (!writer->temporary) return sluice_out_of_memory();
    writer->file = open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (writer->file >= 0) return NULL;
    if (errno != EEXIST) break;
  }
  return sluice_error(SLUICE_IO, "%s: cannot be created: %s", writer->path, strerror(errno));
}

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
    status = data_bytes(t, writer->path, &bytes);
    if (!status && __builtin_add_overflow(writer->expected, bytes, &end))
      status = sluice_error(SLUICE_INTERNAL, "%s: the sizes of its tensors overflow", writer->path);
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
  sluice_status *status = writer->path ? open_temporary(writer) : sluice_out_of_memory();
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

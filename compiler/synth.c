#include "compiler/synth.h"

#include "compiler/compile.h"
#include "compiler/input.h"
#include "sluice/checkpoint.h"
#include "sluice/memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 1 << 20 }; /* elements generated at once */

typedef struct checkpoint_writer {
  const char *directory;
  uint64_t seed;
  config_tensor *tensors;
  size_t tensor_count;
  size_t *shard_end; /* of each shard: the index after its last tensor */
  size_t shard_count;
  uint64_t total_bytes, done_bytes;
  bool progress;
  struct timespec shown;
  uint16_t *chunk; /* CHUNK elements as generated */
  void *converted; /* the same as float32 or float16 */
  bool made_directory;
} checkpoint_writer;

static uint64_t tensor_elements(const config_tensor *tensor) {
  return (uint64_t)tensor->shape[0] * (tensor->rank == 2 ? (uint64_t)tensor->shape[1] : 1);
}

static uint64_t tensor_bytes(const config_tensor *tensor) {
  return tensor_elements(tensor) * sluice_dtype_size(tensor->dtype);
}

static char *shard_path(const checkpoint_writer *w, size_t shard, bool with_directory) {
  const char *directory = with_directory ? w->directory : "", *slash = with_directory ? "/" : "";
  if (w->shard_count == 1) return sluice_format_string("%s%smodel.safetensors", directory, slash);
  return sluice_format_string("%s%smodel-%05zu-of-%05zu.safetensors", directory, slash, shard + 1, w->shard_count);
}

static sluice_status *plan_shards(checkpoint_writer *w, uint64_t shard_bytes) {
  w->shard_end = sluice_allocate_array(w->tensor_count, sizeof *w->shard_end);
  if (!w->shard_end) return sluice_out_of_memory();
  uint64_t used = 0;
  for (size_t i = 0; i < w->tensor_count; i++) {
    uint64_t bytes = tensor_bytes(&w->tensors[i]);
    if (i > 0 && used + bytes > shard_bytes) {
      w->shard_end[w->shard_count++] = i;
      used = 0;
    }
    used += bytes;
    w->total_bytes += bytes;
  }
  w->shard_end[w->shard_count++] = w->tensor_count;
  return NULL;
}

static void show_progress(checkpoint_writer *w) {
  if (!w->progress) return;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  double since = (double)(now.tv_sec - w->shown.tv_sec) + 1e-9 * (double)(now.tv_nsec - w->shown.tv_nsec);
  if (since < 0.1 && w->done_bytes < w->total_bytes) return;
  w->shown = now;
  fprintf(stderr, "\r%3.0f %%  %.2f of %.2f GB%s", 100.0 * (double)w->done_bytes / (double)w->total_bytes,
          1e-9 * (double)w->done_bytes, 1e-9 * (double)w->total_bytes, w->done_bytes == w->total_bytes ? "\n" : "");
}

static sluice_status *write_tensor(checkpoint_writer *w, const config_tensor *tensor, sluice_safetensors_writer *file) {
  uint64_t elements = tensor_elements(tensor), count;
  size_t size = sluice_dtype_size(tensor->dtype);
  for (uint64_t first = 0; first < elements; first += count) {
    count = elements - first < CHUNK ? elements - first : CHUNK;
    sluice_synthetic_fill(tensor->name, w->seed, tensor->shape[tensor->rank - 1], first, count, w->chunk);
    const void *data = w->chunk;
    if (tensor->dtype == SLUICE_F32) {
      float *values = w->converted;
      for (uint64_t i = 0; i < count; i++) values[i] = sluice_f32_from_bf16(w->chunk[i]);
      data = values;
    } else if (tensor->dtype == SLUICE_F16) {
      uint16_t *values = w->converted;
      for (uint64_t i = 0; i < count; i++) values[i] = sluice_f16_from_f32(sluice_f32_from_bf16(w->chunk[i]));
      data = values;
    }
    SLUICE_TRY(sluice_safetensors_append(file, data, (size_t)count * size));
    w->done_bytes += count * size;
    show_progress(w);
  }
  return NULL;
}

static sluice_status *write_shard(checkpoint_writer *w, size_t shard) {
  size_t first = shard ? w->shard_end[shard - 1] : 0, count = w->shard_end[shard] - first;
  sluice_tensor_info *infos = sluice_allocate_array(count, sizeof *infos);
  char *path = shard_path(w, shard, true);
  if (!infos || !path) {
    sluice_release(infos);
    sluice_release(path);
    return sluice_out_of_memory();
  }
  for (size_t i = 0; i < count; i++) {
    const config_tensor *tensor = &w->tensors[first + i];
    infos[i] = (sluice_tensor_info){.name = tensor->name,
                                    .dtype = tensor->dtype,
                                    .rank = tensor->rank,
                                    .shape = {tensor->shape[0], tensor->shape[1]},
                                    .bytes = tensor_bytes(tensor)};
  }
  static const char *const metadata[] = {"format", "pt"};
  sluice_safetensors_writer *file = NULL;
  sluice_status *status = sluice_safetensors_create(path, infos, count, metadata, 1, &file);
  sluice_release(path);
  sluice_release(infos);
  if (status) return status;
  for (size_t i = 0; i < count && !status; i++) status = write_tensor(w, &w->tensors[first + i], file);
  if (status) {
    sluice_safetensors_abandon(file);
    return status;
  }
  return sluice_safetensors_finish(file);
}

static sluice_status *write_text(const checkpoint_writer *w, const char *name, const char *data, size_t length) {
  char *path = sluice_format_string("%s/%s", w->directory, name);
  if (!path) return sluice_out_of_memory();
  sluice_status *status = file_write_atomic(path, data, length);
  sluice_release(path);
  return status;
}

static sluice_status *write_index(const checkpoint_writer *w) {
  sluice_text text = {0};
  sluice_text_printf(&text, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {\n",
                     (unsigned long long)w->total_bytes);
  sluice_status *status = NULL;
  size_t shard = 0;
  for (size_t i = 0; i < w->tensor_count && !status; i++) {
    if (i == w->shard_end[shard]) shard++;
    char *name = shard_path(w, shard, false);
    if (!name) {
      status = sluice_out_of_memory();
      break;
    }
    sluice_text_printf(&text, "    ");
    sluice_text_json_string(&text, w->tensors[i].name);
    sluice_text_printf(&text, ": \"%s\"%s\n", name, i + 1 < w->tensor_count ? "," : "");
    sluice_release(name);
  }
  sluice_text_printf(&text, "  }\n}\n");
  if (!status)
    status =
        text.failed ? sluice_out_of_memory() : write_text(w, "model.safetensors.index.json", text.data, text.length);
  sluice_text_free(&text);
  return status;
}

/* Copies `source` to DIRECTORY/config.json. */
static sluice_status *copy_config(const checkpoint_writer *w, const char *source) {
  char *data = NULL;
  size_t length = 0;
  SLUICE_TRY(input_read(source, SIZE_MAX, &data, &length));
  sluice_status *status = write_text(w, "config.json", data, length);
  sluice_release(data);
  return status;
}

static void remove_file(const checkpoint_writer *w, const char *name) {
  char *path = sluice_format_string("%s/%s", w->directory, name);
  if (path) unlink(path);
  sluice_release(path);
}

static sluice_status *write_all(checkpoint_writer *w, const model_config *config, uint64_t shard_bytes) {
  SLUICE_TRY(model_config_tensors(config, &w->tensors, &w->tensor_count));
  SLUICE_TRY(plan_shards(w, shard_bytes));
  w->chunk = sluice_allocate_array(CHUNK, sizeof *w->chunk);
  w->converted = sluice_allocate_array(CHUNK, sizeof(float));
  if (!w->chunk || !w->converted) return sluice_out_of_memory();
  if (mkdir(w->directory, 0777) == 0)
    w->made_directory = true;
  else if (errno != EEXIST)
    return sluice_error(SLUICE_IO, "cannot create directory %s: %s", w->directory, strerror(errno));
  /* What an earlier checkpoint left would be read in place of, or beside, the new one. */
  remove_file(w, "model.safetensors.index.json");
  if (w->shard_count > 1) remove_file(w, "model.safetensors");
  sluice_status *status = NULL;
  size_t written = 0;
  while (written < w->shard_count && !status) {
    status = write_shard(w, written);
    if (!status) written++;
  }
  if (!status) status = copy_config(w, config->path);
  if (!status && w->shard_count > 1) status = write_index(w);
  if (status) {
    for (size_t i = 0; i < written; i++) {
      char *path = shard_path(w, i, true);
      if (path) unlink(path);
      sluice_release(path);
    }
    if (w->made_directory) {
      remove_file(w, "config.json");
      rmdir(w->directory);
    }
  }
  return status;
}

sluice_status *synth_write(const model_config *config, uint64_t seed, const char *directory, int64_t shard_bytes,
                           bool progress) {
  checkpoint_writer w = {.directory = directory, .seed = seed, .progress = progress};
  sluice_status *status = write_all(&w, config, (uint64_t)shard_bytes);
  config_tensors_free(w.tensors, w.tensor_count);
  sluice_release(w.shard_end);
  sluice_release(w.chunk);
  sluice_release(w.converted);
  return status;
}

#include "compiler/synth.h"

#include "compiler/input.h"
#include "sluice/checkpoint.h"
#include "sluice/file.h"
#include "sluice/memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 1 << 20 }; /* elements generated at once */

static const char config_name[] = "config.json", index_name[] = "model.safetensors.index.json";

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
  /* What is complete but does not have its name yet. */
  sluice_safetensors_writer **shards;
  sluice_pending_file config, index;
  sluice_temporary *made_directory; /* noted until the checkpoint is complete; NULL: it was there */
} checkpoint_writer;

static uint64_t tensor_elements(const config_tensor *tensor) {
  return (uint64_t)tensor->shape[0] * (tensor->rank == 2 ? (uint64_t)tensor->shape[1] : 1);
}

static uint64_t tensor_bytes(const config_tensor *tensor) {
  return tensor_elements(tensor) * sluice_dtype_size(tensor->dtype);
}

static char *path_in(const checkpoint_writer *w, const char *name) {
  return sluice_format_string("%s/%s", w->directory, name);
}

static void shard_name(const checkpoint_writer *w, size_t shard, char name[64]) {
  if (w->shard_count == 1)
    snprintf(name, 64, "model.safetensors");
  else
    snprintf(name, 64, "model-%05zu-of-%05zu.safetensors", shard + 1, w->shard_count);
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
  char name[64];
  shard_name(w, shard, name);
  char *path = path_in(w, name);
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
  sluice_status *status = sluice_safetensors_create(path, infos, count, metadata, 1, &w->shards[shard]);
  sluice_release(path);
  sluice_release(infos);
  for (size_t i = 0; i < count && !status; i++) status = write_tensor(w, &w->tensors[first + i], w->shards[shard]);
  return status ? status : sluice_safetensors_settle(w->shards[shard]);
}

static sluice_status *write_text(const checkpoint_writer *w, const char *name, const char *data, size_t length,
                                 sluice_pending_file *out_file) {
  char *path = path_in(w, name);
  if (!path) return sluice_out_of_memory();
  sluice_status *status = sluice_pending_open(out_file, path);
  sluice_release(path);
  if (!status) status = sluice_pending_write(out_file, data, length);
  return status ? status : sluice_pending_settle(out_file);
}

static sluice_status *write_index(checkpoint_writer *w) {
  sluice_text text = {0};
  sluice_text_printf(&text, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {\n",
                     (unsigned long long)w->total_bytes);
  size_t shard = 0;
  for (size_t i = 0; i < w->tensor_count; i++) {
    if (i == w->shard_end[shard]) shard++;
    char name[64];
    shard_name(w, shard, name);
    sluice_text_printf(&text, "    ");
    sluice_text_json_string(&text, w->tensors[i].name);
    sluice_text_printf(&text, ": \"%s\"%s\n", name, i + 1 < w->tensor_count ? "," : "");
  }
  sluice_text_printf(&text, "  }\n}\n");
  sluice_status *status =
      text.failed ? sluice_out_of_memory() : write_text(w, index_name, text.data, text.length, &w->index);
  sluice_text_free(&text);
  return status;
}

static sluice_status *copy_config(checkpoint_writer *w, const char *source) {
  char *data = NULL;
  size_t length = 0;
  SLUICE_TRY(input_read(source, SIZE_MAX, &data, &length));
  sluice_status *status = write_text(w, config_name, data, length, &w->config);
  sluice_release(data);
  return status;
}

/* No file of the checkpoint may be the configuration that is read. */
static sluice_status *check_paths(const checkpoint_writer *w, const char *source) {
  size_t count = w->shard_count + 3;
  sluice_file_use *uses = sluice_allocate_array(count, sizeof *uses);
  char **paths = sluice_allocate_array(count, sizeof *paths);
  sluice_status *status = uses && paths ? NULL : sluice_out_of_memory();
  for (size_t i = 0; !status && i + 1 < count; i++) {
    char name[64];
    if (i < w->shard_count)
      shard_name(w, i, name);
    else
      snprintf(name, sizeof name, "%s", i == w->shard_count ? config_name : index_name);
    paths[i] = path_in(w, name);
    if (!paths[i]) status = sluice_out_of_memory();
    uses[i] = (sluice_file_use){paths[i], "the checkpoint's", true};
  }
  if (!status) {
    uses[count - 1] = (sluice_file_use){.path = source};
    status = sluice_file_uses_check(uses, count);
  }
  for (size_t i = 0; paths && i < count; i++) sluice_release(paths[i]);
  sluice_release(paths);
  sluice_release(uses);
  return status;
}

static sluice_status *make_directory(checkpoint_writer *w) {
  struct stat info;
  if (stat(w->directory, &info) == 0 && S_ISDIR(info.st_mode)) return NULL;
  w->made_directory = sluice_temporary_note(w->directory);
  if (!w->made_directory) return sluice_out_of_memory();
  if (mkdir(w->directory, 0777) == 0) return NULL;
  int error = errno;
  sluice_temporary_forget(w->made_directory);
  w->made_directory = NULL;
  return sluice_error(SLUICE_IO, "cannot create directory %s: %s", w->directory, strerror(error));
}

/* Everything, under temporary names. */
static sluice_status *write_all(checkpoint_writer *w, const model_config *config, uint64_t shard_bytes) {
  SLUICE_TRY(model_config_tensors(config, &w->tensors, &w->tensor_count));
  SLUICE_TRY(plan_shards(w, shard_bytes));
  SLUICE_TRY(check_paths(w, config->path));
  w->chunk = sluice_allocate_array(CHUNK, sizeof *w->chunk);
  w->converted = sluice_allocate_array(CHUNK, sizeof(float));
  w->shards = sluice_allocate_array(w->shard_count, sizeof *w->shards);
  if (!w->chunk || !w->converted || !w->shards) return sluice_out_of_memory();
  SLUICE_TRY(make_directory(w));
  SLUICE_TRY(copy_config(w, config->path));
  for (size_t i = 0; i < w->shard_count; i++) SLUICE_TRY(write_shard(w, i));
  return w->shard_count > 1 ? write_index(w) : NULL;
}

/* Removes what an earlier checkpoint left and readers would take for a part of this one. */
static sluice_status *remove_old(const checkpoint_writer *w, const char *name) {
  char *path = path_in(w, name);
  if (!path) return sluice_out_of_memory();
  sluice_status *status = NULL;
  if (unlink(path) && errno != ENOENT)
    status = sluice_error(SLUICE_IO, "%s is of an earlier checkpoint and cannot be removed: %s", path, strerror(errno));
  sluice_release(path);
  return status;
}

/* Gives everything its name. */
static sluice_status *publish(checkpoint_writer *w) {
  for (size_t i = 0; i < w->shard_count; i++) {
    sluice_safetensors_writer *file = w->shards[i];
    w->shards[i] = NULL;
    SLUICE_TRY(sluice_safetensors_finish(file));
  }
  SLUICE_TRY(sluice_pending_close(&w->config, NULL));
  if (w->shard_count == 1) return remove_old(w, index_name);
  SLUICE_TRY(sluice_pending_close(&w->index, NULL));
  return remove_old(w, "model.safetensors");
}

static void abandon(checkpoint_writer *w) {
  for (size_t i = 0; w->shards && i < w->shard_count; i++) sluice_safetensors_abandon(w->shards[i]);
  sluice_pending_discard(&w->config);
  sluice_pending_discard(&w->index);
  if (w->made_directory) rmdir(w->directory);
}

sluice_status *synth_write(const model_config *config, uint64_t seed, const char *directory, int64_t shard_bytes,
                           bool progress) {
  checkpoint_writer w = {.directory = directory, .seed = seed, .progress = progress};
  sluice_status *status = write_all(&w, config, (uint64_t)shard_bytes);
  if (!status) status = publish(&w);
  if (status) abandon(&w);
  sluice_temporary_forget(w.made_directory);
  config_tensors_free(w.tensors, w.tensor_count);
  sluice_release(w.shard_end);
  sluice_release(w.shards);
  sluice_release(w.chunk);
  sluice_release(w.converted);
  return status;
}

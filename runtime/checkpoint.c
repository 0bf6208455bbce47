/* Checkpoints: shards are opened and their headers checked at once; data is read with pread into the caller's buffers,
 * so that a file that becomes shorter is an error and not a signal. */
#include "runtime/checkpoint_kind.h"
#include "runtime/safetensors.h"

#include "sluice/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct shard {
  char *path;
  int file;
  safetensors_header header;
  char *problem; /* why it cannot be read: an error for those who want a tensor of it; NULL: it can */
} shard;

typedef struct located { /* a tensor and where it is */
  const safetensors_entry *entry;
  const shard *shard;
} located;

typedef struct promised { /* a tensor that the index names and that is nowhere */
  const char *name;       /* in `index` */
  const shard *shard;     /* where the index has it */
} promised;

struct sluice_checkpoint {
  char *source;
  bool synthetic;
  uint64_t seed;
  shard *shards;
  size_t shard_count;
  located *tensors; /* of all shards, sorted by name */
  size_t tensor_count;
  sluice_json_document *index; /* NULL without */
  promised *promises;          /* sorted by name */
  size_t promise_count;
};

static sluice_status *read_at(const shard *s, void *destination, size_t bytes, uint64_t offset) {
  char *at = destination;
  while (bytes) {
    ssize_t n = pread(s->file, at, bytes, (off_t)offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return sluice_error(SLUICE_IO, "%s: %s", s->path, strerror(errno));
    if (n == 0) return sluice_error(SLUICE_INVALID, "%s: the file has become shorter while it was read", s->path);
    at += n;
    offset += (uint64_t)n;
    bytes -= (size_t)n;
  }
  return NULL;
}

/* Opens the file of `s` and reads its header. */
static sluice_status *shard_open(shard *s) {
  s->file = open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hang */
  struct stat info;
  if (s->file < 0)
    return sluice_error(errno == ENOENT ? SLUICE_NOT_FOUND : SLUICE_IO, "%s: %s", s->path, strerror(errno));
  if (fstat(s->file, &info)) return sluice_error(SLUICE_IO, "%s: %s", s->path, strerror(errno));
  if (!S_ISREG(info.st_mode)) return sluice_error(SLUICE_INVALID, "%s: not a regular file", s->path);
  uint64_t length = (uint64_t)info.st_size, header_length;
  unsigned char first[64] = {0};
  size_t known = length < sizeof first ? (size_t)length : sizeof first;
  SLUICE_TRY(read_at(s, first, known, 0));
  SLUICE_TRY(checkpoint_check_kind(s->path, first, known));
  if (length < 8)
    return sluice_error(SLUICE_INVALID, "%s: %llu bytes are too few for a safetensors file", s->path,
                        (unsigned long long)length);
  SLUICE_TRY(safetensors_header_length(first, length, s->path, &header_length));
  char *json = sluice_allocate((size_t)header_length + 1);
  if (!json) return sluice_out_of_memory();
  sluice_status *status = read_at(s, json, (size_t)header_length, 8);
  if (!status) status = safetensors_header_parse(json, header_length, length, s->path, &s->header);
  sluice_release(json);
  return status;
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const located *)a)->entry->info.name, ((const located *)b)->entry->info.name);
}

/* The shard that the index has tensor `name` in, NULL when it says nothing. */
static const char *indexed_in(const sluice_checkpoint *checkpoint, const char *name) {
  if (!checkpoint->index) return NULL;
  const sluice_json_value *map = sluice_json_get(sluice_json_root(checkpoint->index), "weight_map");
  const sluice_json_value *file = sluice_json_get(map, name);
  return file ? file->string : NULL;
}

/* Of two tensors of one name, the one that the index names. */
static sluice_status *choose(const sluice_checkpoint *checkpoint, const located *a, const located *b,
                             const located **out) {
  const char *file = indexed_in(checkpoint, a->entry->info.name);
  *out = file && strcmp(strrchr(a->shard->path, '/') + 1, file) == 0   ? a
         : file && strcmp(strrchr(b->shard->path, '/') + 1, file) == 0 ? b
                                                                       : NULL;
  if (*out) return NULL;
  return sluice_error(SLUICE_INVALID, "tensor '%.200s' is in both %s and %s", a->entry->info.name, a->shard->path,
                      b->shard->path);
}

/* Lists the tensors of all shards by name. */
static sluice_status *list_tensors(sluice_checkpoint *checkpoint) {
  size_t count = 0, listed = 0;
  for (size_t i = 0; i < checkpoint->shard_count; i++) count += checkpoint->shards[i].header.count;
  located *tensors = checkpoint->tensors = sluice_allocate_array(count, sizeof *checkpoint->tensors);
  if (!tensors) return sluice_out_of_memory();
  for (size_t i = 0; i < checkpoint->shard_count; i++)
    for (size_t t = 0; t < checkpoint->shards[i].header.count; t++)
      tensors[listed++] = (located){.entry = &checkpoint->shards[i].header.entries[t], .shard = &checkpoint->shards[i]};
  qsort(tensors, count, sizeof *tensors, by_name);
  for (size_t i = 0; i < count; i++) {
    located *last = checkpoint->tensor_count ? &tensors[checkpoint->tensor_count - 1] : NULL;
    if (last && by_name(last, &tensors[i]) == 0) {
      const located *chosen;
      SLUICE_TRY(choose(checkpoint, last, &tensors[i], &chosen));
      *last = *chosen;
    } else {
      tensors[checkpoint->tensor_count++] = tensors[i];
    }
  }
  return NULL;
}

/* ---- the index of a sharded checkpoint ---- */

static int compare_strings(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static sluice_status *check_shard_name(const sluice_json_document *index, const sluice_json_member *member) {
  const sluice_json_value *v = &member->value;
  if (v->kind != SLUICE_JSON_STRING)
    return sluice_json_error(index, v->offset, SLUICE_INVALID, "found %s, expected the name of a shard",
                             sluice_json_kind_name(v->kind));
  if (v->length == 0 || strlen(v->string) != v->length || strchr(v->string, '/') || strchr(v->string, '\\') ||
      strcmp(v->string, ".") == 0 || strcmp(v->string, "..") == 0)
    return sluice_json_error(index, v->offset, SLUICE_INVALID,
                             "tensor '%.200s': '%.200s' is no plain file name; shards must lie beside the index",
                             member->key, v->string);
  return NULL;
}

/* The distinct shard names of the index, sorted: opens each. One that cannot be read is remembered as such: nobody may
 * want what is in it. But one must be readable. */
static sluice_status *open_shards(sluice_checkpoint *checkpoint, const char *directory,
                                  const sluice_json_document *index, const sluice_json_value *map) {
  const char **names = sluice_allocate_array(map->length, sizeof *names);
  if (!names) return sluice_out_of_memory();
  sluice_status *status = NULL;
  size_t count = 0;
  for (size_t i = 0; i < map->length && !status; i++) {
    status = check_shard_name(index, &map->members[i]);
    names[i] = map->members[i].value.string;
  }
  if (!status) qsort(names, map->length, sizeof *names, compare_strings);
  for (size_t i = 0; i < map->length && !status; i++)
    if (i == 0 || strcmp(names[i], names[count - 1])) names[count++] = names[i];
  if (!status) {
    checkpoint->shards = sluice_allocate_array(count, sizeof *checkpoint->shards);
    if (!checkpoint->shards) status = sluice_out_of_memory();
  }
  size_t readable = 0;
  for (size_t i = 0; i < count && !status; i++) {
    shard *s = &checkpoint->shards[checkpoint->shard_count++];
    s->file = -1;
    s->path = sluice_format_string("%s/%s", directory, names[i]);
    status = s->path ? shard_open(s) : sluice_out_of_memory();
    readable += !status;
    if (!status || sluice_status_code(status) == SLUICE_OUT_OF_MEMORY || (i + 1 == count && !readable)) continue;
    const char *message = sluice_status_message(status);
    s->problem = sluice_copy_string(message, strlen(message));
    sluice_status_free(status);
    status = s->problem ? NULL : sluice_out_of_memory();
  }
  sluice_release(names);
  return status;
}

static int compare_promises(const void *a, const void *b) {
  return strcmp(((const promised *)a)->name, ((const promised *)b)->name);
}

static const located *find(const sluice_checkpoint *checkpoint, const char *name);

/* Remembers what the index names and no shard has. */
static sluice_status *list_promises(sluice_checkpoint *checkpoint, const sluice_json_value *map) {
  checkpoint->promises = sluice_allocate_array(map->length, sizeof *checkpoint->promises);
  if (!checkpoint->promises) return sluice_out_of_memory();
  for (size_t i = 0; i < map->length; i++) {
    const sluice_json_member *member = &map->members[i];
    if (find(checkpoint, member->key)) continue;
    size_t low = 0, high = checkpoint->shard_count; /* shards are sorted by name */
    while (high - low > 1) {
      size_t middle = low + (high - low) / 2;
      const char *name = strrchr(checkpoint->shards[middle].path, '/') + 1;
      *(strcmp(name, member->value.string) <= 0 ? &low : &high) = middle;
    }
    checkpoint->promises[checkpoint->promise_count++] = (promised){member->key, &checkpoint->shards[low]};
  }
  qsort(checkpoint->promises, checkpoint->promise_count, sizeof *checkpoint->promises, compare_promises);
  return NULL;
}

static sluice_status *open_index(sluice_checkpoint *checkpoint, const char *directory, const char *path) {
  SLUICE_TRY(checkpoint_check_text(path));
  SLUICE_TRY(sluice_json_parse_file(path, &checkpoint->index));
  const sluice_json_document *index = checkpoint->index;
  const sluice_json_value *root = sluice_json_root(index), *map = sluice_json_get(root, "weight_map");
  if (!map || map->kind != SLUICE_JSON_OBJECT)
    return sluice_json_error(index, map ? map->offset : root->offset, SLUICE_INVALID,
                             "no object \"weight_map\", which says where each tensor is");
  SLUICE_TRY(open_shards(checkpoint, directory, index, map));
  SLUICE_TRY(list_tensors(checkpoint));
  return list_promises(checkpoint, map);
}

static sluice_status *open_single(sluice_checkpoint *checkpoint, const char *path) {
  checkpoint->shards = sluice_allocate(sizeof *checkpoint->shards);
  if (!checkpoint->shards) return sluice_out_of_memory();
  shard *s = &checkpoint->shards[checkpoint->shard_count++];
  s->file = -1;
  s->path = sluice_copy_string(path, strlen(path));
  if (!s->path) return sluice_out_of_memory();
  SLUICE_TRY(shard_open(s));
  return list_tensors(checkpoint);
}

static sluice_status *open_directory(sluice_checkpoint *checkpoint, const char *directory) {
  char *index = sluice_format_string("%s/model.safetensors.index.json", directory);
  char *single = sluice_format_string("%s/model.safetensors", directory);
  sluice_status *status;
  if (!index || !single)
    status = sluice_out_of_memory();
  else if (access(index, F_OK) == 0)
    status = open_index(checkpoint, directory, index);
  else if (access(single, F_OK) == 0)
    status = open_single(checkpoint, single);
  else
    status = checkpoint_without_weights(directory);
  sluice_release(index);
  sluice_release(single);
  return status;
}

static sluice_status *parse_seed(const char *text, uint64_t *out_seed) {
  char *end;
  errno = 0;
  unsigned long long seed = strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end || errno)
    return sluice_error(SLUICE_INVALID, "synthetic:%s: the seed must be a whole number from 0 to 2^64 - 1", text);
  *out_seed = seed;
  return NULL;
}

sluice_status *sluice_checkpoint_open(const char *source, sluice_checkpoint **out_checkpoint) {
  *out_checkpoint = NULL;
  sluice_checkpoint *checkpoint = sluice_allocate(sizeof *checkpoint);
  if (!checkpoint) return sluice_out_of_memory();
  checkpoint->source = sluice_copy_string(source, strlen(source));
  struct stat info;
  sluice_status *status;
  if (!checkpoint->source)
    status = sluice_out_of_memory();
  else if (strncmp(source, "synthetic:", 10) == 0) {
    checkpoint->synthetic = true;
    status = parse_seed(source + 10, &checkpoint->seed);
  } else if (stat(source, &info))
    status = sluice_error(errno == ENOENT ? SLUICE_NOT_FOUND : SLUICE_IO, "%s: %s", source, strerror(errno));
  else
    status = S_ISDIR(info.st_mode) ? open_directory(checkpoint, source) : open_single(checkpoint, source);
  if (status) {
    sluice_checkpoint_close(checkpoint);
    return status;
  }
  *out_checkpoint = checkpoint;
  return NULL;
}

void sluice_checkpoint_close(sluice_checkpoint *checkpoint) {
  if (!checkpoint) return;
  for (size_t i = 0; i < checkpoint->shard_count; i++) {
    if (checkpoint->shards[i].file >= 0) close(checkpoint->shards[i].file);
    safetensors_header_free(&checkpoint->shards[i].header);
    sluice_release(checkpoint->shards[i].path);
    sluice_release(checkpoint->shards[i].problem);
  }
  sluice_release(checkpoint->shards);
  sluice_release(checkpoint->tensors);
  sluice_release(checkpoint->promises);
  sluice_json_free(checkpoint->index);
  sluice_release(checkpoint->source);
  sluice_release(checkpoint);
}

bool sluice_checkpoint_is_synthetic(const sluice_checkpoint *checkpoint) {
  return checkpoint->synthetic;
}

uint64_t sluice_checkpoint_seed(const sluice_checkpoint *checkpoint) {
  return checkpoint->seed;
}

const char *sluice_checkpoint_source(const sluice_checkpoint *checkpoint) {
  return checkpoint->source;
}

size_t sluice_checkpoint_tensor_count(const sluice_checkpoint *checkpoint) {
  return checkpoint->tensor_count;
}

const sluice_tensor_info *sluice_checkpoint_tensor(const sluice_checkpoint *checkpoint, size_t index) {
  return &checkpoint->tensors[index].entry->info;
}

static const located *find(const sluice_checkpoint *checkpoint, const char *name) {
  safetensors_entry key_entry = {.info = {.name = name}};
  located key = {.entry = &key_entry};
  if (!checkpoint->tensor_count) return NULL;
  return bsearch(&key, checkpoint->tensors, checkpoint->tensor_count, sizeof key, by_name);
}

const sluice_tensor_info *sluice_checkpoint_find(const sluice_checkpoint *checkpoint, const char *name) {
  const located *found = find(checkpoint, name);
  return found ? &found->entry->info : NULL;
}

const char *sluice_checkpoint_promised(const sluice_checkpoint *checkpoint, const char *name,
                                       const char **out_problem) {
  promised key = {.name = name};
  const promised *found = NULL;
  if (checkpoint->promise_count)
    found = bsearch(&key, checkpoint->promises, checkpoint->promise_count, sizeof key, compare_promises);
  *out_problem = found ? found->shard->problem : NULL;
  return found ? found->shard->path : NULL;
}

/* ---- reading elements ---- */

static void format_shape(char text[128], const int64_t *shape, unsigned rank) {
  size_t at = 0;
  text[0] = 0;
  for (unsigned i = 0; i < rank && at < 100; i++)
    at += (size_t)snprintf(text + at, 128 - at, "%s%lld", i ? ", " : "", (long long)shape[i]);
}

static sluice_status *check_shape(const located *tensor, const int64_t *shape, unsigned rank) {
  const sluice_tensor_info *info = &tensor->entry->info;
  if (info->rank == rank && (rank == 0 || memcmp(info->shape, shape, rank * sizeof *shape) == 0)) return NULL;
  char found[128], expected[128];
  format_shape(found, info->shape, info->rank);
  format_shape(expected, shape, rank);
  return sluice_error(SLUICE_INVALID, "%s: tensor '%s' has the shape [%s], expected [%s]", tensor->shard->path,
                      info->name, found, expected);
}

static sluice_status *inexact(const char *name, const char *file, double value) {
  return sluice_error(SLUICE_UNSUPPORTED,
                      "%s: tensor '%s' holds %.9g, which bfloat16 cannot hold exactly, and the bundle keeps weights in "
                      "bfloat16, as its "
                      "config said: compile it with --weight-dtype float32",
                      file, name, value);
}

/* Converts `count` elements of `from` at `source` to `as`. */
static sluice_status *convert(const void *source, sluice_dtype from, size_t count, sluice_dtype as, bool may_round,
                              void *destination, const char *name, const char *file) {
  for (size_t i = 0; i < count; i++) {
    float value;
    uint16_t half;
    if (from == SLUICE_F32)
      memcpy(&value, (const char *)source + 4 * i, 4);
    else {
      memcpy(&half, (const char *)source + 2 * i, 2);
      value = from == SLUICE_BF16 ? sluice_f32_from_bf16(half) : sluice_f32_from_f16(half);
    }
    if (as == SLUICE_F32) {
      memcpy((char *)destination + 4 * i, &value, 4);
      continue;
    }
    half = sluice_bf16_from_f32(value);
    float back = sluice_f32_from_bf16(half);
    if (!may_round && memcmp(&back, &value, 4) != 0 && value == value) return inexact(name, file, (double)value);
    memcpy((char *)destination + 2 * i, &half, 2);
  }
  return NULL;
}

static sluice_status *read_synthetic(const sluice_checkpoint *checkpoint, const char *name, const int64_t *shape,
                                     unsigned rank, uint64_t first, uint64_t count, sluice_dtype as,
                                     void *destination) {
  if (rank == 0 || shape[rank - 1] < 1)
    return sluice_error(SLUICE_INTERNAL, "synthetic tensor '%s' needs a last dimension of at least 1", name);
  if (as == SLUICE_BF16) {
    sluice_synthetic_fill(name, checkpoint->seed, shape[rank - 1], first, count, destination);
    return NULL;
  }
  uint16_t block[4096];
  float *out = destination;
  while (count) {
    uint64_t n = count < 4096 ? count : 4096;
    sluice_synthetic_fill(name, checkpoint->seed, shape[rank - 1], first, n, block);
    for (uint64_t i = 0; i < n; i++) out[i] = sluice_f32_from_bf16(block[i]);
    out += n;
    first += n;
    count -= n;
  }
  return NULL;
}

sluice_status *sluice_checkpoint_read(const sluice_checkpoint *checkpoint, const char *name, const int64_t *shape,
                                      unsigned rank, uint64_t first, uint64_t count, sluice_dtype as, bool may_round,
                                      void *destination) {
  if (as != SLUICE_F32 && as != SLUICE_BF16)
    return sluice_error(SLUICE_INTERNAL, "tensor '%s' cannot be read as %s", name, sluice_dtype_name(as));
  if (checkpoint->synthetic) return read_synthetic(checkpoint, name, shape, rank, first, count, as, destination);
  const located *tensor = find(checkpoint, name);
  if (!tensor) return sluice_error(SLUICE_NOT_FOUND, "%s: tensor '%s' is missing", checkpoint->source, name);
  SLUICE_TRY(check_shape(tensor, shape, rank));
  const sluice_tensor_info *info = &tensor->entry->info;
  if (info->dtype != SLUICE_F32 && info->dtype != SLUICE_BF16 && info->dtype != SLUICE_F16)
    return sluice_error(SLUICE_UNSUPPORTED, "%s: tensor '%s' has dtype %s; expected BF16, F16 or F32",
                        tensor->shard->path, name, info->dtype_name);
  uint64_t size = sluice_dtype_size(info->dtype), total = info->bytes / size;
  if (first > total || count > total - first)
    return sluice_error(SLUICE_INTERNAL, "%s: elements past the end of tensor '%s'", tensor->shard->path, name);
  uint64_t offset = tensor->entry->offset + first * size;
  if (info->dtype == as) return read_at(tensor->shard, destination, (size_t)(count * size), offset);
  char block[16384];
  char *out = destination;
  while (count) {
    uint64_t n = count < sizeof block / size ? count : sizeof block / size;
    SLUICE_TRY(read_at(tensor->shard, block, (size_t)(n * size), offset));
    SLUICE_TRY(convert(block, info->dtype, (size_t)n, as, may_round, out, name, tensor->shard->path));
    offset += n * size;
    out += n * sluice_dtype_size(as);
    count -= n;
  }
  return NULL;
}

/* Checkpoints: named tensors, read in place from safetensors files or generated.
 *
 * Three sources look the same to a reader:
 *   - a directory with `model.safetensors.index.json` and its shards, or with one `model.safetensors`;
 *   - a single `*.safetensors` file;
 *   - `synthetic:SEED`, whose tensors are a pure function of name, index and seed (docs/synthetic.md) and exist for
 * every name and shape asked for.
 *
 * A safetensors file is refused unless its header fits the file and is at most 100,000,000 bytes, every tensor has a
 * known dtype, dtype x shape equals its byte range without overflow, ranges neither overlap nor leave holes nor leave
 * the file, and no name occurs twice. An index is refused when a shard name is absolute or has a path separator or
 * "..". What it says of tensors that nobody asks for does not matter: shards may be absent, or lack tensors, or hold
 * more. Messages name the file and the tensor.
 */
#ifndef SLUICE_CHECKPOINT_H
#define SLUICE_CHECKPOINT_H

#include "sluice/dtype.h"
#include "sluice/status.h"

#include <stdbool.h>

#define SLUICE_MAX_RANK 8

typedef struct sluice_tensor_info {
  const char *name;       /* owned by the checkpoint */
  const char *file;       /* the shard that holds it, for messages */
  sluice_dtype dtype;     /* 0: one that sluice does not read */
  const char *dtype_name; /* as the file spells it: "BF16", "F8_E4M3", ...; static */
  unsigned rank;
  int64_t shape[SLUICE_MAX_RANK];
  uint64_t bytes;
} sluice_tensor_info;

typedef struct sluice_checkpoint sluice_checkpoint;

/* Opens `source` (see above). Reads headers only. */
SLUICE_MUST_USE sluice_status *sluice_checkpoint_open(const char *source, sluice_checkpoint **out_checkpoint);
void sluice_checkpoint_close(sluice_checkpoint *checkpoint);

bool sluice_checkpoint_is_synthetic(const sluice_checkpoint *checkpoint);
uint64_t sluice_checkpoint_seed(const sluice_checkpoint *checkpoint); /* of a synthetic one */
const char *sluice_checkpoint_source(const sluice_checkpoint *checkpoint);

/* Tensors of a checkpoint on disk, sorted by name; 0 for a synthetic one. */
size_t sluice_checkpoint_tensor_count(const sluice_checkpoint *checkpoint);
const sluice_tensor_info *sluice_checkpoint_tensor(const sluice_checkpoint *checkpoint, size_t index);

/* The tensor `name`, or NULL when the checkpoint has none (never NULL for a synthetic checkpoint's known dtypes: there
 * use sluice_checkpoint_read alone). */
const sluice_tensor_info *sluice_checkpoint_find(const sluice_checkpoint *checkpoint, const char *name);

/* Of a tensor that is not there: the shard that the index has it in (with *out_problem why that shard cannot be read,
 * NULL when it was read and lacks the tensor), or NULL when the index does not name it. */
const char *sluice_checkpoint_promised(const sluice_checkpoint *checkpoint, const char *name, const char **out_problem);

/* Reads `count` elements of tensor `name` starting at element `first` (row-major) into `destination`, converted to
 * `as` (SLUICE_F32, or SLUICE_BF16). `shape`/`rank` is the shape the caller expects: another one is an error that names
 * tensor, file, both shapes. Converting F32 or F16 to BF16 rounds to nearest even when `may_round`; without it a value
 * that BF16 cannot hold exactly is an error that names the tensor. Safe to call from several threads at once. */
SLUICE_MUST_USE sluice_status *sluice_checkpoint_read(const sluice_checkpoint *checkpoint, const char *name,
                                                      const int64_t *shape, unsigned rank, uint64_t first,
                                                      uint64_t count, sluice_dtype as, bool may_round,
                                                      void *destination);

/* Refuses what a failed or half-done download leaves in place of any file: a Git LFS pointer or a web page. `first` are
 * the file's first `count` bytes (64 are enough). */
SLUICE_MUST_USE sluice_status *sluice_check_downloaded(const char *path, const void *first, size_t count);

/* The synthetic weight function (docs/synthetic.md): elements [first, first + count) of tensor `name`, whose last
 * dimension is `last_dimension`, as bfloat16. */
void sluice_synthetic_fill(const char *name, uint64_t seed, int64_t last_dimension, uint64_t first, uint64_t count,
                           uint16_t *destination);

/* True for the tensors that the released checkpoint stores as F32 (`gate.weight`, `e_score_correction_bias`). */
bool sluice_synthetic_is_f32(const char *name);

/* ---- Reading one safetensors file as data (golden files, tests): all of it is read into memory ---- */
typedef struct sluice_safetensors sluice_safetensors;
SLUICE_MUST_USE sluice_status *sluice_safetensors_open(const char *path, sluice_safetensors **out_file);
/* The same checks on `length` bytes at `data`, which must stay valid. */
SLUICE_MUST_USE sluice_status *sluice_safetensors_open_memory(const void *data, size_t length, const char *name,
                                                              sluice_safetensors **out_file);
void sluice_safetensors_close(sluice_safetensors *file);
size_t sluice_safetensors_count(const sluice_safetensors *file);
const sluice_tensor_info *sluice_safetensors_tensor(const sluice_safetensors *file, size_t index);
const sluice_tensor_info *sluice_safetensors_find(const sluice_safetensors *file, const char *name);
/* The tensor's bytes, at whatever alignment the file gives them. */
const void *sluice_safetensors_data(const sluice_safetensors *file, const sluice_tensor_info *tensor);

/* ---- Writing safetensors: a tensor's name, dtype, rank and shape are used, the rest of its info is not. All tensors
 * are declared, then written in the same order. The file appears under its name only when `finish` succeeds (temporary
 * file, fsync, rename). ---- */
typedef struct sluice_safetensors_writer sluice_safetensors_writer;
SLUICE_MUST_USE sluice_status *sluice_safetensors_create(const char *path, const sluice_tensor_info *tensors,
                                                         size_t count, const char *const *metadata_pairs,
                                                         size_t metadata_pair_count,
                                                         sluice_safetensors_writer **out_writer);
SLUICE_MUST_USE sluice_status *sluice_safetensors_append(sluice_safetensors_writer *writer, const void *data,
                                                         size_t bytes);
/* Ends the data; the file keeps its temporary name until it is finished. So that a checkpoint of several files can be
 * complete before the first of them replaces anything. */
SLUICE_MUST_USE sluice_status *sluice_safetensors_settle(sluice_safetensors_writer *writer);
SLUICE_MUST_USE sluice_status *sluice_safetensors_finish(sluice_safetensors_writer *writer); /* frees it in any case */
void sluice_safetensors_abandon(sluice_safetensors_writer *writer); /* removes the file, frees */

#endif

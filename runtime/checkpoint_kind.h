/* Files that are not what they are given as: what they are, and what to do about it. */
#ifndef RUNTIME_CHECKPOINT_KIND_H
#define RUNTIME_CHECKPOINT_KIND_H

#include "sluice/checkpoint.h"

/* Refuses by name what lies in place of a safetensors file; `first` are the file's first `count` bytes (64, or all). */
SLUICE_MUST_USE sluice_status *checkpoint_check_kind(const char *path, const unsigned char *first, size_t count);

/* The same for a file of JSON. */
SLUICE_MUST_USE sluice_status *checkpoint_check_text(const char *path);

/* The error for a folder with neither an index nor a model.safetensors: what is there instead. */
SLUICE_NEW_ERROR sluice_status *checkpoint_without_weights(const char *directory);

/* True for "...-00002-of-00005.safetensors", one shard of many. */
bool checkpoint_is_shard(const char *path);

#endif

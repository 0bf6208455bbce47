/* Synthetic checkpoints on disk (docs/synthetic.md). */
#ifndef COMPILER_SYNTH_H
#define COMPILER_SYNTH_H

#include "compiler/model_config.h"

/* Writes the checkpoint of `config` for `seed` into `directory` (created when missing): config.json, and either
 * model.safetensors or shards of at most `shard_bytes` (a larger tensor gets a shard of its own) with
 * model.safetensors.index.json. Memory is bounded by a chunk of some MiB. The files replace what is there when all of
 * them are complete; on failure nothing has changed. */
SLUICE_MUST_USE sluice_status *synth_write(const model_config *config, uint64_t seed, const char *directory,
                                           int64_t shard_bytes, bool progress);

#endif

/* `sluice tune`: bundles with the candidates of all kernels, in one file (docs/bundle-format.md, "Candidates"). */
#ifndef COMPILER_TUNE_H
#define COMPILER_TUNE_H

#include "compiler/compile.h"
#include "compiler/cost_model.h"

enum { MOST_BUCKETS = 10 };

typedef struct tune_options {
  const compile_options *compile; /* one target */
  machine_rates rates;
  uint32_t tokens[MOST_BUCKETS]; /* ascending: each ends a bucket and stands for it */
  size_t bucket_count;
  uint32_t context;  /* tokens that sequences have in the cache */
  size_t candidates; /* for each kernel and bucket, the default among them */
  void (*progress)(size_t done, size_t all);
  sluice_text *notes; /* a line for each bundle that could not be made */
} tune_options;

/* Writes the file at compile->output. */
SLUICE_MUST_USE sluice_status *tune_model(const model_config *config, const tune_options *options);

#endif

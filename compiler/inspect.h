/* What is in a bundle (`sluice inspect`) and what running it costs (`sluice explain`). Both read the bundle only (or,
 * for layouts, a model description): no device, no checkpoint, no code. Text and JSON are appended to `out`;
 * docs/bundle-format.md describes the JSON. */
#ifndef COMPILER_INSPECT_H
#define COMPILER_INSPECT_H

#include "compiler/model_config.h"
#include "sluice/bundle.h"
#include "sluice/json.h"

typedef struct inspect_options {
  const char *path;
  bool json;
  /* The memory question: so many sequences of `context` tokens each, fed at most `step_tokens` in one step. Zeros stand
   * for 1 sequence, the plan's longest context, and min(sequences * context, 512) tokens. */
  int64_t sequences, context, step_tokens;
} inspect_options;
SLUICE_MUST_USE sluice_status *inspect_bundle(const inspect_options *options, sluice_text *out);

typedef struct explain_options {
  const char *path;
  bool json;
  /* One step: `tokens` in all, shared evenly by `sequences`, each of which ends at `context` tokens, its new ones
   * included. Zeros stand for 1 sequence, as many tokens as sequences (decoding), and the longest context. */
  int64_t tokens, context, sequences;
  /* What floor times are made of: a machine's rates (compiler/products.h; NULL: the one that the bundle was compiled
   * for by name, if any), and instead of them what is given here. */
  const char *product;
  double bandwidth; /* GB/s (1e9 bytes) of the device's memory; 0: the product's, without one no floor times */
  double flops;     /* TFLOP/s; 0: the product's for bf16, without one floor times from bytes alone */
  /* What joins the devices of several ranks (compiler/links.h), instead of the product's; 0: as it is. */
  double link_latency, link_rate; /* microseconds, GB/s */
  /* NULL: `path` is a bundle. Otherwise a model description, which is planned for `product` in this layout
   * (compiler/parallel.h), or for "auto" in all layouts of up to `devices` devices (0: 8), which are compared. */
  const char *parallel;
  int64_t devices;
} explain_options;
SLUICE_MUST_USE sluice_status *explain_bundle(const explain_options *options, sluice_text *out);
SLUICE_MUST_USE sluice_status *explain_model(const model_config *config, const explain_options *options,
                                             sluice_text *out);

#endif

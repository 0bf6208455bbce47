/* A hand-made bundle for tests of the runtime: a "model" whose logits are known in closed form.
 *
 * Every token's id is written to its cache slot in two layers. The logits of a token are, for each id of the
 * vocabulary, how often it occurred in its sequence up to and including the token, times a weight of that id; NaN when
 * the two layers' caches disagree. The sampled token is the largest logit (lowest id first), or, at a temperature above
 * 0, (position + top_k + seed) % vocabulary. "layer.0.out" shows the counts. Decode
 * graphs of up to two tokens join the launches that write the two layers. So every mistake with pages, positions,
 * tiles or rows changes the result.
 */
#ifndef TESTS_SUPPORT_TINY_BUNDLE_H
#define TESTS_SUPPORT_TINY_BUNDLE_H

#include "sluice/runtime.h"

#define TINY_VOCABULARY 16
#define TINY_PAGE 4
#define TINY_TILE 3
#define TINY_LAYERS 2
#define TINY_CONTEXT 64
#define TINY_EXPERTS 3
#define TINY_SCALE "language_model.scale.weight"                /* rows f32: [16] */
#define TINY_PANELS_A "language_model.a.weight"                 /* panels of 4, bf16: [5, 7] and */
#define TINY_PANELS_B "language_model.b.weight"                 /*   [4, 7] stacked */
#define TINY_GATE "language_model.experts.{expert}.gate.weight" /* panel pairs of 4, f32: [6, 5] for each expert, */
#define TINY_UP "language_model.experts.{expert}.up.weight"     /*   paired with [6, 5] */
/* Not used by any kernel, for packing alone. */
#define TINY_WIDE "language_model.wide.weight"         /* panels of 4, groups of 8, bf16: [6, 41] of [8, 50] */
#define TINY_WIDE_F32 "language_model.wide_f32.weight" /* panels of 4, groups of 4, f32: [6, 23] of [9, 23] */
/* The launch that computes the logits has this range of the plan, which holds in every step, to itself. */
#define TINY_LOGITS_RANGE 1

/* The plan's bytes (8-byte aligned); released by the caller. */
void *tiny_plan(size_t *out_length);

/* A bundle's bytes (4096-byte aligned) for `target`; released by the caller. `code` is the code section. */
void *tiny_bundle_bytes(const char *target, const void *code, size_t code_length, size_t *out_length);

/* Recomputes the digests of the sections and of the header of a bundle that a test has changed. */
void tiny_bundle_seal(void *bundle);
/* Makes a changed plan the one that the code was compiled with; seal comes after it. */
void tiny_bundle_bind(void *bundle);

/* Compiles the kernels with cc and writes the bundle to `path`; 0 on success. */
int tiny_bundle_write(const char *path);
/* The same for `target`; the code stays what it is, for the fake driver of fake_cuda.h. */
int tiny_bundle_write_for(const char *path, const char *target);

/* Writes the model's weights of "synthetic:SEED" as safetensors; `skip` is left out, `reshape` transposed, `extra`
 * added (NULL: none). 0 on success. */
int tiny_checkpoint_write(const char *path, uint64_t seed, const char *skip, const char *reshape, const char *extra);

#endif

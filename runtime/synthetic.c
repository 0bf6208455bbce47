#include "runtime/synthetic.h"

#include "sluice/checkpoint.h"

#include <math.h>

static bool ends_in(const char *text, const char *end) {
  size_t length = strlen(text), end_length = strlen(end);
  return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* The standard deviation of a tensor's weights: the table of docs/synthetic.md. */
static double scale_of(const char *name, int64_t last_dimension) {
  if (ends_in(name, "norm.weight") || strstr(name, "layernorm")) return 0.2;
  if (ends_in(name, "embed_tokens.weight")) return 1.0;
  if (ends_in(name, "e_score_correction_bias")) return 0.1;
  if (strstr(name, ".index_q_proj.") || strstr(name, ".index_k_proj.")) return 2 / sqrt((double)last_dimension);
  return 1 / sqrt((double)last_dimension);
}

uint64_t sluice_synthetic_base(const char *name, uint64_t seed) {
  uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
  for (const char *c = name; *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
  return hash ^ (seed * 0x9e3779b97f4a7c15u);
}

float sluice_synthetic_factor(const char *name, int64_t last_dimension) {
  return (float)(scale_of(name, last_dimension) / 37837.227);
}

void sluice_synthetic_fill(const char *name, uint64_t seed, int64_t last_dimension, uint64_t first, uint64_t count,
                           uint16_t *destination) {
  uint64_t base = sluice_synthetic_base(name, seed);
  float factor = sluice_synthetic_factor(name, last_dimension);
  for (uint64_t i = 0; i < count; i++) {
    uint64_t z = base + (first + i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    int32_t sum = (int32_t)((z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48)) - 131070;
    destination[i] = sluice_bf16_from_f32((float)sum * factor);
  }
}

bool sluice_synthetic_is_f32(const char *name) {
  return ends_in(name, ".gate.weight") || ends_in(name, "e_score_correction_bias");
}

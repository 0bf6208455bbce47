/* Element types, shared by checkpoints, bundles, plans and kernels. Numbers are part of the bundle format. */
#ifndef SLUICE_DTYPE_H
#define SLUICE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum sluice_dtype {
  SLUICE_F32 = 1,
  SLUICE_BF16 = 2,
  SLUICE_F16 = 3,
  SLUICE_I32 = 4,
  SLUICE_U8 = 5,
  SLUICE_I64 = 6,
} sluice_dtype;

/* Bytes of one element; 0 for a number that is no dtype. */
size_t sluice_dtype_size(sluice_dtype dtype);
/* "F32", "BF16", ... as safetensors spells them; "?" for a number that is no dtype. */
const char *sluice_dtype_name(sluice_dtype dtype);

/* bfloat16 is the upper half of a float32; rounding is to nearest even, NaN stays NaN. */
static inline uint16_t sluice_bf16_from_f32(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float sluice_f32_from_bf16(uint16_t value) {
  uint32_t bits = (uint32_t)value << 16;
  float result;
  memcpy(&result, &bits, sizeof result);
  return result;
}

float sluice_f32_from_f16(uint16_t value);
uint16_t sluice_f16_from_f32(float value); /* to nearest even */

#endif

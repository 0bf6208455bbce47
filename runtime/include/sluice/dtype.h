/* Element types, shared by checkpoints, bundles, plans and kernels. Numbers are part of the bundle format. */
#ifndef SLUICE_DTYPE_H
#define SLUICE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* X(NAME, number, as safetensors spells it, as the IR spells it, bytes) */
#define SLUICE_DTYPES(X)                                                                                               \
  X(F32, 1, "F32", "f32", 4)                                                                                           \
  X(BF16, 2, "BF16", "bf16", 2)                                                                                        \
  X(F16, 3, "F16", "f16", 2)                                                                                           \
  X(I32, 4, "I32", "i32", 4)                                                                                           \
  X(U8, 5, "U8", "u8", 1)                                                                                              \
  X(I64, 6, "I64", "i64", 8)
typedef enum sluice_dtype {
#define SLUICE_X(name, number, text, element, bytes) SLUICE_##name = (number),
  SLUICE_DTYPES(SLUICE_X)
#undef SLUICE_X
} sluice_dtype;

/* Bytes of one element; 0 for a number that is no dtype. */
size_t sluice_dtype_size(sluice_dtype dtype);
/* "F32", "BF16", ... as safetensors spells them; "?" for a number that is no dtype. */
const char *sluice_dtype_name(sluice_dtype dtype);
/* The dtype that the IR spells so ("f32"); false for another word. */
bool sluice_dtype_find(const char *element, size_t length, uint32_t *out_dtype);

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

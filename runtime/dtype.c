#include "sluice/dtype.h"

size_t sluice_dtype_size(sluice_dtype dtype) {
  switch (dtype) {
  case SLUICE_F32:
  case SLUICE_I32:
    return 4;
  case SLUICE_BF16:
  case SLUICE_F16:
    return 2;
  case SLUICE_U8:
    return 1;
  case SLUICE_I64:
    return 8;
  }
  return 0;
}

const char *sluice_dtype_name(sluice_dtype dtype) {
  switch (dtype) {
  case SLUICE_F32:
    return "F32";
  case SLUICE_BF16:
    return "BF16";
  case SLUICE_F16:
    return "F16";
  case SLUICE_I32:
    return "I32";
  case SLUICE_U8:
    return "U8";
  case SLUICE_I64:
    return "I64";
  }
  return "?";
}

float sluice_f32_from_f16(uint16_t value) {
  uint32_t sign = (uint32_t)(value & 0x8000u) << 16, exponent = (value >> 10) & 31u, fraction = value & 0x3ffu, bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000u | fraction << 13;
  } else if (exponent) {
    bits = sign | (exponent + 112) << 23 | fraction << 13;
  } else { /* zero or denormal: fraction * 2^-24 */
    float magnitude = (float)fraction * 0x1p-24f;
    memcpy(&bits, &magnitude, sizeof bits);
    bits |= sign;
  }
  float result;
  memcpy(&result, &bits, sizeof result);
  return result;
}

uint16_t sluice_f16_from_f32(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u; /* rounds to 65536 or more */
  if (magnitude < 0x38800000u) {                       /* denormal: adding 0.5 rounds to a multiple of 2^-24 */
    float shifted;
    memcpy(&shifted, &magnitude, sizeof shifted);
    shifted += 0.5f;
    memcpy(&bits, &shifted, sizeof bits);
    return (uint16_t)(sign | (bits - 0x3f000000u));
  }
  return (uint16_t)(sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
}

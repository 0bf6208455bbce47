#include "sluice/dtype.h"

static const struct {
  const char *name, *element;
  uint32_t number, bytes;
} table[] = {
#define ROW(name, number, text, element, bytes) {text, element, number, bytes},
    SLUICE_DTYPES(ROW)
#undef ROW
};
enum { DTYPES = sizeof table / sizeof *table };

size_t sluice_dtype_size(sluice_dtype dtype) {
  for (size_t i = 0; i < DTYPES; i++)
    if (table[i].number == (uint32_t)dtype) return table[i].bytes;
  return 0;
}

const char *sluice_dtype_name(sluice_dtype dtype) {
  for (size_t i = 0; i < DTYPES; i++)
    if (table[i].number == (uint32_t)dtype) return table[i].name;
  return "?";
}

bool sluice_dtype_find(const char *element, size_t length, uint32_t *out_dtype) {
  for (size_t i = 0; i < DTYPES; i++)
    if (strlen(table[i].element) == length && memcmp(table[i].element, element, length) == 0) {
      *out_dtype = table[i].number;
      return true;
    }
  return false;
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

/* Number formats: float16, bfloat16, both dialects of fp8, fp6 and fp4, and functions rounded to them. */
#ifndef TESTS_AMDGCN_CONVERT_H
#define TESTS_AMDGCN_CONVERT_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline float float_of_half(uint32_t bits) {
  uint16_t low = (uint16_t)bits;
  _Float16 half;
  memcpy(&half, &low, sizeof half);
  return (float)half;
}
static inline uint32_t half_of_float(float value) {
  _Float16 half = (_Float16)value;
  uint16_t bits;
  memcpy(&bits, &half, sizeof bits);
  return bits;
}
static inline uint32_t half_of_double(double value) {
  _Float16 half = (_Float16)value;
  uint16_t bits;
  memcpy(&bits, &half, sizeof bits);
  return bits;
}
/* The nearest float16 that is not larger in magnitude; what overflows becomes the largest. */
static inline uint32_t half_toward_zero(float value) {
  uint32_t bits = half_of_float(value);
  if (value != value || isinf(value)) return bits;
  return fabsf(float_of_half(bits)) > fabsf(value) ? bits - 1 : bits;
}
/* Round to nearest even; a NaN stays one, made quiet. */
static inline uint32_t bfloat_of_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return value != value ? bits >> 16 | 0x40 : rounded;
}

/* To integers: truncated, saturated, 0 for a NaN. */
static inline int32_t saturate_i32(double x) {
  return x != x ? 0 : x >= 2147483647.0 ? INT32_MAX : x <= -2147483648.0 ? INT32_MIN : (int32_t)x;
}
static inline uint32_t saturate_u32(double x) {
  return !(x > 0) ? 0 : x >= 4294967295.0 ? UINT32_MAX : (uint32_t)x;
}

static inline uint32_t bit_reversed(uint32_t x) {
  x = (x >> 1 & 0x55555555) | (x & 0x55555555) << 1;
  x = (x >> 2 & 0x33333333) | (x & 0x33333333) << 2;
  x = (x >> 4 & 0x0f0f0f0f) | (x & 0x0f0f0f0f) << 4;
  return __builtin_bswap32(x);
}

/* v_perm_b32: each byte of c picks one: 0..7 from b then a, 8..11 a sign, 12 zeros, 13 and more ones. */
static inline uint32_t byte_permuted(uint32_t a, uint32_t b, uint32_t c) {
  uint64_t bytes = (uint64_t)a << 32 | b;
  uint32_t r = 0;
  for (unsigned k = 0; k < 32; k += 8) {
    uint32_t pick = c >> k & 255;
    uint32_t byte = pick < 8     ? (uint32_t)(bytes >> (8 * pick)) & 255
                    : pick < 12  ? (bytes >> (16 * (pick - 8) + 15) & 1 ? 255u : 0u)
                    : pick == 12 ? 0u
                                 : 255u;
    r |= byte << k;
  }
  return r;
}

/* Bits of v_cmp_class: signalling NaN 0, quiet NaN 1, -inf 2, -normal 3, -denormal 4, -0 5, +0 6, +denormal 7, +normal
 * 8, +inf 9. NaNs count as quiet: float arithmetic of the host has made them so. */
static inline uint32_t class_of(double x, double smallest_normal) {
  if (x != x) return 3;
  bool minus = signbit(x);
  if (isinf(x)) return minus ? 1u << 2 : 1u << 9;
  if (x == 0) return minus ? 1u << 5 : 1u << 6;
  if (fabs(x) < smallest_normal) return minus ? 1u << 4 : 1u << 7;
  return minus ? 1u << 3 : 1u << 8;
}

static inline double double_of_bits(uint64_t bits) {
  union {
    uint64_t bits;
    double value;
  } both = {bits};
  return both.value;
}

/* 2^x and log2 x in double precision, good to well beyond float32, rounded once. Loops over them vectorise. */
static inline float exp2_rounded(float x) {
  double clamped = x > 200 ? 200 : x < -200 ? -200 : (double)x;
  double whole = rint(clamped), f = (clamped - whole) * 0.69314718055994530942;
  double p =
      1 +
      f * (1 + f * (1.0 / 2 +
                    f * (1.0 / 6 +
                         f * (1.0 / 24 +
                              f * (1.0 / 120 +
                                   f * (1.0 / 720 +
                                        f * (1.0 / 5040 +
                                             f * (1.0 / 40320 + f * (1.0 / 362880 + f * (1.0 / 3628800 +
                                                                                         f * (1.0 / 39916800)))))))))));
  uint64_t bits = (uint64_t)((int64_t)whole + 1023) << 52;
  return x != x ? x : (float)(p * double_of_bits(bits));
}
static inline float log2_rounded(float x) {
  double value = (double)x;
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  int64_t exponent = (int64_t)(bits >> 52 & 2047) - 1023;
  uint64_t fraction = (bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1023) << 52;
  double m = double_of_bits(fraction);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    exponent++;
  }
  double s = (m - 1) / (m + 1), t = s * s;
  double p =
      1 + t * (1.0 / 3 +
               t * (1.0 / 5 +
                    t * (1.0 / 7 +
                         t * (1.0 / 9 +
                              t * (1.0 / 11 + t * (1.0 / 13 + t * (1.0 / 15 + t * (1.0 / 17 + t * (1.0 / 19)))))))));
  double r = (double)exponent + 2 * s * p * 1.44269504088896340736;
  return x > 0 ? (x < INFINITY ? (float)r : x) : x == 0 ? -INFINITY : NAN;
}

/* The narrow formats. fp8 has two dialects: FNUZ (gfx942: one more in the bias, no infinity, no -0, NaN is 0x80) and
 * OCP (gfx950). */
typedef enum narrow_format { NARROW_FP8, NARROW_BF8, NARROW_FP6, NARROW_BF6, NARROW_FP4 } narrow_format;
float float_of_narrow(narrow_format format, bool fnuz, uint32_t bits);
/* To the nearest, ties to even; what is too large becomes the largest, or with OCP formats that have one, and without
 * clamping, infinity or NaN. */
uint32_t narrow_of_float(narrow_format format, bool fnuz, bool clamp, float value);
/* Rounded by a random number: as many of its top bits as are cut off are added below the result's last place. */
uint32_t narrow_of_float_stochastic(narrow_format format, bool fnuz, bool clamp, float value, uint32_t random);

#endif

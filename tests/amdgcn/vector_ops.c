/* What vector arithmetic computes: one loop over 64 lanes an operation, written so that the C compiler vectorises it,
 * and the table of all of them. Sources have been prepared by vector.c. */
#include "convert.h"
#include "machine.h"
#include <math.h>
#include <stdlib.h>

/* A function of rows: `value` over a, b and c, elements of the given types. */
#define ROW(name, result, type_a, type_b, type_c, value)                                                               \
  static void name(void *d_row, const void *a_row, const void *b_row, const void *c_row) {                             \
    result *d = d_row;                                                                                                 \
    const type_a *a_elements = a_row;                                                                                  \
    const type_b *b_elements = b_row;                                                                                  \
    const type_c *c_elements = c_row;                                                                                  \
    _Pragma("GCC ivdep") for (unsigned l = 0; l < LANES; l++) {                                                        \
      type_a a = a_elements[l];                                                                                        \
      type_b b = b_elements[l];                                                                                        \
      type_c c = c_elements[l];                                                                                        \
      (void)a, (void)b, (void)c;                                                                                       \
      d[l] = (result)(value);                                                                                          \
    }                                                                                                                  \
  }
#define FLOAT(name, value) ROW(name, float, float, float, float, value)
#define DOUBLE(name, value) ROW(name, double, double, double, double, value)
#define UNSIGNED(name, value) ROW(name, uint32_t, uint32_t, uint32_t, uint32_t, value)
#define SIGNED(name, value) ROW(name, int32_t, int32_t, int32_t, int32_t, value)
#define WIDE(name, value) ROW(name, uint64_t, uint64_t, uint64_t, uint64_t, value)
/* float16 is computed in float32 and rounded once: its 11 bits are few enough that this is exact for + - * / and sqrt.
 */
#define HALF(name, value)                                                                                              \
  static void name(void *d_row, const void *a_row, const void *b_row, const void *c_row) {                             \
    uint32_t *d = d_row;                                                                                               \
    const uint32_t *a_bits = a_row, *b_bits = b_row, *c_bits = c_row;                                                  \
    for (unsigned l = 0; l < LANES; l++) {                                                                             \
      float a = float_of_half(a_bits[l]), b = float_of_half(b_bits[l]), c = float_of_half(c_bits[l]);                  \
      (void)a, (void)b, (void)c;                                                                                       \
      d[l] = half_of_float(value);                                                                                     \
    }                                                                                                                  \
  }
/* The same on both halves of 32 bits. */
#define PACKED_HALF(name, value)                                                                                       \
  static void name(void *d_row, const void *a_row, const void *b_row, const void *c_row) {                             \
    uint32_t *d = d_row;                                                                                               \
    const uint32_t *a_bits = a_row, *b_bits = b_row, *c_bits = c_row;                                                  \
    for (unsigned l = 0; l < LANES; l++) {                                                                             \
      uint32_t halves[2];                                                                                              \
      for (unsigned h = 0; h < 2; h++) {                                                                               \
        float a = float_of_half(a_bits[l] >> (16 * h)), b = float_of_half(b_bits[l] >> (16 * h)),                      \
              c = float_of_half(c_bits[l] >> (16 * h));                                                                \
        (void)a, (void)b, (void)c;                                                                                     \
        halves[h] = half_of_float(value);                                                                              \
      }                                                                                                                \
      d[l] = halves[0] | halves[1] << 16;                                                                              \
    }                                                                                                                  \
  }
#define PACKED_SHORT(name, type, value)                                                                                \
  static void name(void *d_row, const void *a_row, const void *b_row, const void *c_row) {                             \
    uint32_t *d = d_row;                                                                                               \
    const uint32_t *a_bits = a_row, *b_bits = b_row, *c_bits = c_row;                                                  \
    for (unsigned l = 0; l < LANES; l++) {                                                                             \
      uint32_t halves[2];                                                                                              \
      for (unsigned h = 0; h < 2; h++) {                                                                               \
        type a = (type)(a_bits[l] >> (16 * h)), b = (type)(b_bits[l] >> (16 * h)), c = (type)(c_bits[l] >> (16 * h));  \
        (void)a, (void)b, (void)c;                                                                                     \
        halves[h] = (uint32_t)(value) & 0xffff;                                                                        \
      }                                                                                                                \
      d[l] = halves[0] | halves[1] << 16;                                                                              \
    }                                                                                                                  \
  }
#define PACKED_FLOAT(name, value)                                                                                      \
  static void name(void *d_row, const void *a_row, const void *b_row, const void *c_row) {                             \
    float *d = d_row;                                                                                                  \
    const float *a_elements = a_row, *b_elements = b_row, *c_elements = c_row;                                         \
    _Pragma("GCC ivdep") for (unsigned l = 0; l < 2 * LANES; l++) {                                                    \
      float a = a_elements[l], b = b_elements[l], c = c_elements[l];                                                   \
      (void)c;                                                                                                         \
      d[l] = value;                                                                                                    \
    }                                                                                                                  \
  }

/* ---- float32 ---- */

/* The larger: a NaN loses to a number, -0 to +0. */
static inline float larger(float a, float b) {
  float equal = as_float(float_bits(a) & float_bits(b));
  return a != a ? b : b != b ? a : a > b ? a : a < b ? b : equal;
}
static inline float smaller(float a, float b) {
  float equal = as_float(float_bits(a) | float_bits(b));
  return a != a ? b : b != b ? a : a < b ? a : a > b ? b : equal;
}
/* IEEE 754-2019 maximum and minimum: a NaN wins. */
static inline float maximum(float a, float b) {
  return a != a ? a : b != b ? b : larger(a, b);
}
static inline float minimum(float a, float b) {
  return a != a ? a : b != b ? b : smaller(a, b);
}
/* The transcendental unit takes denormals for zeros, and gives zeros for them. */
static inline float no_denormal(float x) {
  uint32_t bits = float_bits(x);
  return bits & 0x7f800000 ? x : as_float(bits & 0x80000000);
}
static inline double median(double a, double b, double c) {
  return fmax(fmin(a, b), fmin(fmax(a, b), c));
}

FLOAT(add_f32, a + b)
FLOAT(sub_f32, a - b)
FLOAT(subrev_f32, b - a)
FLOAT(mul_f32, a *b)
FLOAT(fma_f32, __builtin_fmaf(a, b, c))
FLOAT(mul_legacy_f32, a == 0 || b == 0 ? 0 : a * b)
FLOAT(max_f32, larger(a, b))
FLOAT(min_f32, smaller(a, b))
FLOAT(max3_f32, larger(larger(a, b), c))
FLOAT(min3_f32, smaller(smaller(a, b), c))
FLOAT(med3_f32,
      a != a || b != b || c != c ? smaller(smaller(a, b), c) : larger(smaller(a, b), smaller(larger(a, b), c)))
FLOAT(maximum3_f32, maximum(maximum(a, b), c))
FLOAT(minimum3_f32, minimum(minimum(a, b), c))
FLOAT(rcp_f32, no_denormal(1.0f / no_denormal(a)))
FLOAT(sqrt_f32, sqrtf(no_denormal(a)))
FLOAT(rsq_f32, (float)(1.0 / sqrt((double)no_denormal(a))))
FLOAT(exp_f32, no_denormal(exp2_rounded(no_denormal(a))))
FLOAT(log_f32, log2_rounded(no_denormal(a)))
FLOAT(sin_f32, fabsf(a) <= 256 ? (float)sin((double)a * 6.283185307179586476925) : fabsf(a) < INFINITY ? 0 : NAN)
FLOAT(cos_f32, fabsf(a) <= 256 ? (float)cos((double)a * 6.283185307179586476925) : fabsf(a) < INFINITY ? 1 : NAN)
FLOAT(floor_f32, floorf(a))
FLOAT(ceil_f32, ceilf(a))
FLOAT(trunc_f32, truncf(a))
FLOAT(rndne_f32, roundevenf(a))
FLOAT(fract_f32, smaller(a - floorf(a), 0x1.fffffep-1f))
ROW(ldexp_f32, float, float, int32_t, float, ldexpf(a, b))
FLOAT(frexp_mant_f32, ({
        int e;
        a == 0 || !(fabsf(a) < INFINITY) ? a : frexpf(a, &e);
      }))
ROW(frexp_exp_i32_f64, int32_t, double, double, double, ({
      int e = 0;
      if (a != 0 && fabs(a) < (double)INFINITY) frexp(a, &e);
      e;
    }))
DOUBLE(frexp_mant_f64, ({
         int e;
         a == 0 || !(fabs(a) < (double)INFINITY) ? a : frexp(a, &e);
       }))
ROW(frexp_exp_i32_f32, int32_t, float, float, float, ({
      int e = 0;
      if (a != 0 && fabsf(a) < INFINITY) frexpf(a, &e);
      e;
    }))
/* The last step of a division: a the quotient so far, b the denominator, c the numerator. */
static float div_fixup(float q, float d, float n) {
  float sign = signbit(d) != signbit(n) ? -1.0f : 1.0f;
  if (n != n) return n;
  if (d != d) return d;
  if ((n == 0 && d == 0) || (isinf(n) && isinf(d))) return NAN;
  if (d == 0 || isinf(n)) return sign * INFINITY;
  if (n == 0 || isinf(d)) return sign * 0.0f;
  return copysignf(q, sign);
}
FLOAT(div_fixup_f32, div_fixup(a, b, c))

/* ---- float64 ---- */

DOUBLE(add_f64, a + b)
DOUBLE(mul_f64, a *b)
DOUBLE(fma_f64, __builtin_fma(a, b, c))
DOUBLE(max_f64, a != a ? b : b != b ? a : a > b ? a : a < b ? b : signbit(a) ? b : a)
DOUBLE(min_f64, a != a ? b : b != b ? a : a < b ? a : a > b ? b : signbit(a) ? a : b)
DOUBLE(rcp_f64, 1.0 / a)
DOUBLE(sqrt_f64, sqrt(a))
DOUBLE(rsq_f64, 1.0 / sqrt(a))
DOUBLE(floor_f64, floor(a))
DOUBLE(ceil_f64, ceil(a))
DOUBLE(trunc_f64, trunc(a))
DOUBLE(rndne_f64, roundeven(a))
DOUBLE(fract_f64, fmin(a - floor(a), 0x1.fffffffffffffp-1))
ROW(ldexp_f64, double, double, int32_t, double, ldexp(a, b))
static double div_fixup_double(double q, double d, double n) {
  double sign = signbit(d) != signbit(n) ? -1.0 : 1.0;
  if (n != n) return n;
  if (d != d) return d;
  if ((n == 0 && d == 0) || (isinf(n) && isinf(d))) return NAN;
  if (d == 0 || isinf(n)) return sign * INFINITY;
  if (n == 0 || isinf(d)) return sign * 0.0;
  return copysign(q, sign);
}
DOUBLE(div_fixup_f64, div_fixup_double(a, b, c))

/* ---- Conversions ---- */

ROW(cvt_f32_i32, float, int32_t, uint32_t, uint32_t, (float)a)
ROW(cvt_f32_u32, float, uint32_t, uint32_t, uint32_t, (float)a)
ROW(cvt_i32_f32, int32_t, float, float, float, saturate_i32((double)a))
ROW(cvt_u32_f32, uint32_t, float, float, float, saturate_u32((double)a))
ROW(cvt_flr_i32_f32, int32_t, float, float, float, saturate_i32(floor((double)a)))
ROW(cvt_rpi_i32_f32, int32_t, float, float, float, saturate_i32(floor((double)a + 0.5)))
ROW(cvt_f32_ubyte0, float, uint32_t, uint32_t, uint32_t, (float)(a & 255))
ROW(cvt_f32_ubyte1, float, uint32_t, uint32_t, uint32_t, (float)(a >> 8 & 255))
ROW(cvt_f32_ubyte2, float, uint32_t, uint32_t, uint32_t, (float)(a >> 16 & 255))
ROW(cvt_f32_ubyte3, float, uint32_t, uint32_t, uint32_t, (float)(a >> 24))
ROW(cvt_f16_f32, uint32_t, float, float, float, half_of_float(a))
ROW(cvt_f32_f16, float, uint32_t, uint32_t, uint32_t, float_of_half(a))
ROW(cvt_f32_bf16, uint32_t, uint32_t, uint32_t, uint32_t, a << 16)
ROW(cvt_f64_f32, double, float, float, float, (double)a)
ROW(cvt_f32_f64, float, double, double, double, (float)a)
ROW(cvt_f64_i32, double, int32_t, uint32_t, uint32_t, (double)a)
ROW(cvt_f64_u32, double, uint32_t, uint32_t, uint32_t, (double)a)
ROW(cvt_i32_f64, int32_t, double, double, double, saturate_i32(a))
ROW(cvt_u32_f64, uint32_t, double, double, double, saturate_u32(a))
ROW(cvt_f16_u16, uint32_t, uint32_t, uint32_t, uint32_t, half_of_float((float)a))
ROW(cvt_f16_i16, uint32_t, int32_t, uint32_t, uint32_t, half_of_float((float)a))
ROW(cvt_u16_f16, uint32_t, uint32_t, uint32_t, uint32_t, ({
      float f = float_of_half(a);
      f > 0 ? (f < 65535 ? (uint32_t)f : 65535u) : 0u;
    }))
ROW(cvt_i16_f16, uint32_t, uint32_t, uint32_t, uint32_t, ({
      float f = float_of_half(a);
      f != f ? 0u : (uint32_t)(int32_t)(f > 32767 ? 32767 : f < -32768 ? -32768 : f) & 0xffff;
    }))
ROW(cvt_pkrtz_f16_f32, uint32_t, float, float, float, half_toward_zero(a) | half_toward_zero(b) << 16)
ROW(cvt_pk_f16_f32, uint32_t, float, float, float, half_of_float(a) | half_of_float(b) << 16)
ROW(cvt_pk_bf16_f32, uint32_t, float, float, float, bfloat_of_float(a) | bfloat_of_float(b) << 16)
ROW(cvt_pk_u16_u32, uint32_t, uint32_t, uint32_t, uint32_t, (a < 65535 ? a : 65535) | (b < 65535 ? b : 65535) << 16)
static uint32_t saturate_i16(int32_t x) {
  return (uint32_t)(x > 32767 ? 32767 : x < -32768 ? -32768 : x) & 0xffff;
}
ROW(cvt_pk_i16_i32, uint32_t, int32_t, int32_t, int32_t, saturate_i16(a) | saturate_i16(b) << 16)
ROW(cvt_pk_u8_f32, uint32_t, float, uint32_t, uint32_t, ({
      uint32_t s = 8 * (b & 3);
      (c & ~(255u << s)) | (a > 0 ? (a < 255 ? (uint32_t)roundevenf(a) : 255u) : 0u) << s;
    }))
ROW(cvt_pknorm_i16_f32, uint32_t, float, float, float,
    saturate_i16((int32_t)roundevenf(smaller(larger(a, -1), 1) * 32767)) |
        saturate_i16((int32_t)roundevenf(smaller(larger(b, -1), 1) * 32767)) << 16)
ROW(pack_b32_f16, uint32_t, uint32_t, uint32_t, uint32_t, (a & 0xffff) | b << 16)

/* ---- Integers ---- */

UNSIGNED(mov_b32, a)
UNSIGNED(not_b32, ~a)
UNSIGNED(add_u32, a + b)
UNSIGNED(sub_u32, a - b)
UNSIGNED(subrev_u32, b - a)
UNSIGNED(saturate_add_u32, a + b < a ? UINT32_MAX : a + b)
UNSIGNED(saturate_sub_u32, a < b ? 0 : a - b)
SIGNED(saturate_add_i32, ({
         int32_t r;
         __builtin_add_overflow(a, b, &r) ? (a < 0 ? INT32_MIN : INT32_MAX) : r;
       }))
SIGNED(saturate_sub_i32, ({
         int32_t r;
         __builtin_sub_overflow(a, b, &r) ? (a < 0 ? INT32_MIN : INT32_MAX) : r;
       }))
UNSIGNED(and_b32, a &b)
UNSIGNED(or_b32, a | b)
UNSIGNED(xor_b32, a ^ b)
UNSIGNED(xnor_b32, ~(a ^ b))
UNSIGNED(lshlrev_b32, b << (a & 31))
UNSIGNED(lshrrev_b32, b >> (a & 31))
ROW(ashrrev_i32, int32_t, uint32_t, int32_t, int32_t, b >> (a & 31))
UNSIGNED(mul_lo_u32, a *b)
UNSIGNED(mul_hi_u32, (uint64_t)a *b >> 32)
SIGNED(mul_hi_i32, (int64_t)a *b >> 32)
UNSIGNED(mul_u32_u24, (a & 0xffffff) * (b & 0xffffff))
UNSIGNED(mul_hi_u32_u24, (uint64_t)(a & 0xffffff) * (b & 0xffffff) >> 32)
UNSIGNED(mad_u32_u24, (a & 0xffffff) * (b & 0xffffff) + c)
static inline int32_t low24(uint32_t x) {
  return (int32_t)(x << 8) >> 8;
}
UNSIGNED(mul_i32_i24, (uint32_t)low24(a) * (uint32_t)low24(b))
UNSIGNED(mul_hi_i32_i24, (uint64_t)((int64_t)low24(a) * low24(b)) >> 32)
UNSIGNED(mad_i32_i24, (uint32_t)low24(a) * (uint32_t)low24(b) + c)
SIGNED(max_i32, a > b ? a : b)
SIGNED(min_i32, a < b ? a : b)
UNSIGNED(max_u32, a > b ? a : b)
UNSIGNED(min_u32, a < b ? a : b)
SIGNED(max3_i32, a > b ? (a > c ? a : c) : (b > c ? b : c))
SIGNED(min3_i32, a < b ? (a < c ? a : c) : (b < c ? b : c))
UNSIGNED(max3_u32, a > b ? (a > c ? a : c) : (b > c ? b : c))
UNSIGNED(min3_u32, a < b ? (a < c ? a : c) : (b < c ? b : c))
SIGNED(med3_i32, (int32_t)median(a, b, c))
UNSIGNED(med3_u32, (uint32_t)median(a, b, c))
UNSIGNED(add3_u32, a + b + c)
UNSIGNED(or3_b32, a | b | c)
UNSIGNED(xad_u32, (a ^ b) + c)
UNSIGNED(lshl_add_u32, (a << (b & 31)) + c)
UNSIGNED(add_lshl_u32, (a + b) << (c & 31))
UNSIGNED(lshl_or_b32, a << (b & 31) | c)
UNSIGNED(and_or_b32, (a & b) | c)
UNSIGNED(bfe_u32, (a >> (b & 31)) & ((1u << (c & 31)) - 1))
UNSIGNED(bfe_i32, c & 31 ? (uint32_t)((int32_t)(a >> (b & 31) << (32 - (c & 31))) >> (32 - (c & 31))) : 0)
UNSIGNED(bfi_b32, (a & b) | (~a & c))
UNSIGNED(bfm_b32, ((1u << (a & 31)) - 1) << (b & 31))
UNSIGNED(alignbit_b32, ((uint64_t)a << 32 | b) >> (c & 31))
UNSIGNED(alignbyte_b32, ((uint64_t)a << 32 | b) >> (8 * (c & 3)))
UNSIGNED(bfrev_b32, bit_reversed(a))
UNSIGNED(ffbh_u32, a ? __builtin_clz(a) : -1)
UNSIGNED(ffbl_b32, a ? __builtin_ctz(a) : -1)
UNSIGNED(ffbh_i32, a ^ (uint32_t)((int32_t)a >> 31) ? __builtin_clz(a ^ (uint32_t)((int32_t)a >> 31)) : -1)
UNSIGNED(bcnt_u32_b32, (uint32_t)__builtin_popcount(a) + b)
UNSIGNED(sad_u32, (a > b ? a - b : b - a) + c)
static inline uint32_t sad_parts(uint32_t a, uint32_t b, uint32_t c, unsigned bits) {
  for (unsigned s = 0; s < 32; s += bits) {
    uint32_t x = a << (32 - bits - s) >> (32 - bits), y = b << (32 - bits - s) >> (32 - bits);
    c += x > y ? x - y : y - x;
  }
  return c;
}
UNSIGNED(sad_u8, sad_parts(a, b, c, 8))
UNSIGNED(sad_u16, sad_parts(a, b, c, 16))
UNSIGNED(mad_u32_u16, (a & 0xffff) * (b & 0xffff) + c)
UNSIGNED(mad_i32_i16, (uint32_t)((int16_t)a * (int16_t)b) + c)
static inline uint32_t saturate_u8(uint32_t x) {
  int32_t value = (int16_t)x;
  return (uint32_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}
UNSIGNED(sat_pk_u8_i16, saturate_u8(a) | saturate_u8(a >> 16) << 8)
UNSIGNED(perm_b32, byte_permuted(a, b, c))
UNSIGNED(cndmask_b32, c ? b : a)
UNSIGNED(prng_b32, (a << 1) ^ (a >> 31 ? 197u : 0u))
ROW(ashr_pk_i8_i32, uint32_t, int32_t, int32_t, uint32_t, ({
      int32_t x = a >> (c & 31), y = b >> (c & 31);
      x = x > 127 ? 127 : x < -128 ? -128 : x;
      y = y > 127 ? 127 : y < -128 ? -128 : y;
      ((uint32_t)x & 255) | ((uint32_t)y & 255) << 8;
    }))
ROW(ashr_pk_u8_i32, uint32_t, int32_t, int32_t, uint32_t, ({
      int32_t x = a >> (c & 31), y = b >> (c & 31);
      x = x > 255 ? 255 : x < 0 ? 0 : x;
      y = y > 255 ? 255 : y < 0 ? 0 : y;
      (uint32_t)x | (uint32_t)y << 8;
    }))

WIDE(mov_b64, a)
ROW(lshl_add_u64, uint64_t, uint64_t, uint32_t, uint64_t, (a << (b & 7)) + c)
ROW(lshlrev_b64, uint64_t, uint32_t, uint64_t, uint64_t, b << (a & 63))
ROW(lshrrev_b64, uint64_t, uint32_t, uint64_t, uint64_t, b >> (a & 63))
ROW(ashrrev_i64, int64_t, uint32_t, int64_t, int64_t, b >> (a & 63))

/* ---- 16 bits ---- */

HALF(add_f16, a + b)
HALF(sub_f16, a - b)
HALF(subrev_f16, b - a)
HALF(mul_f16, a *b)
HALF(max_f16, larger(a, b))
HALF(min_f16, smaller(a, b))
HALF(max3_f16, larger(larger(a, b), c))
HALF(min3_f16, smaller(smaller(a, b), c))
HALF(med3_f16, a != a || b != b || c != c ? smaller(smaller(a, b), c) : larger(smaller(a, b), smaller(larger(a, b), c)))
HALF(rcp_f16, 1.0f / a)
HALF(sqrt_f16, sqrtf(a))
HALF(rsq_f16, (float)(1.0 / sqrt((double)a)))
HALF(exp_f16, exp2_rounded(a))
HALF(log_f16, log2_rounded(a))
HALF(sin_f16, (float)sin((double)a * 6.283185307179586476925))
HALF(cos_f16, (float)cos((double)a * 6.283185307179586476925))
HALF(floor_f16, floorf(a))
HALF(ceil_f16, ceilf(a))
HALF(trunc_f16, truncf(a))
HALF(rndne_f16, roundevenf(a))
HALF(fract_f16, smaller(a - floorf(a), 0x1.ffcp-1f))
HALF(div_fixup_f16, div_fixup(a, b, c))
ROW(frexp_exp_i16_f16, uint32_t, uint32_t, uint32_t, uint32_t, ({
      int e = 0;
      float x = float_of_half(a);
      if (x != 0 && fabsf(x) < INFINITY) frexpf(x, &e);
      (uint32_t)e & 0xffff;
    }))
HALF(frexp_mant_f16, ({
       int e;
       a == 0 || !(fabsf(a) < INFINITY) ? a : frexpf(a, &e);
     }))
ROW(ldexp_f16, uint32_t, uint32_t, int32_t, uint32_t, half_of_double(ldexp((double)float_of_half(a), (int16_t)b)))
/* Products of float16 are exact in float64, and so is nearly every sum: one rounding. */
ROW(fma_f16, uint32_t, uint32_t, uint32_t, uint32_t,
    half_of_double((double)float_of_half(a) * float_of_half(b) + float_of_half(c)))
UNSIGNED(add_u16, (a + b) & 0xffff)
UNSIGNED(sub_u16, (a - b) & 0xffff)
UNSIGNED(subrev_u16, (b - a) & 0xffff)
UNSIGNED(saturate_add_u16, a + b > 65535 ? 65535 : a + b)
UNSIGNED(saturate_sub_u16, a < b ? 0 : a - b)
UNSIGNED(mul_lo_u16, a * b & 0xffff)
UNSIGNED(mad_u16, (a * b + c) & 0xffff)
UNSIGNED(lshlrev_b16, b << (a & 15) & 0xffff)
UNSIGNED(lshrrev_b16, b >> (a & 15))
ROW(ashrrev_i16, int32_t, uint32_t, int32_t, int32_t, b >> (a & 15))
UNSIGNED(max_u16, a > b ? a : b)
UNSIGNED(min_u16, a < b ? a : b)
UNSIGNED(max3_u16, a > b ? (a > c ? a : c) : (b > c ? b : c))
UNSIGNED(min3_u16, a < b ? (a < c ? a : c) : (b < c ? b : c))
PACKED_HALF(pk_add_f16, a + b)
PACKED_HALF(pk_mul_f16, a *b)
PACKED_HALF(pk_max_f16, larger(a, b))
PACKED_HALF(pk_min_f16, smaller(a, b))
PACKED_HALF(pk_maximum3_f16, maximum(maximum(a, b), c))
PACKED_HALF(pk_minimum3_f16, minimum(minimum(a, b), c))
static void pk_fma_f16(void *d_row, const void *a_row, const void *b_row, const void *c_row) {
  uint32_t *d = d_row;
  const uint32_t *a = a_row, *b = b_row, *c = c_row;
  for (unsigned l = 0; l < LANES; l++) {
    uint32_t r = 0;
    for (unsigned s = 0; s < 32; s += 16) {
      r |= half_of_double((double)float_of_half(a[l] >> s) * float_of_half(b[l] >> s) + float_of_half(c[l] >> s)) << s;
    }
    d[l] = r;
  }
}
PACKED_SHORT(pk_add_u16, uint16_t, a + b)
PACKED_SHORT(pk_sub_u16, uint16_t, a - b)
PACKED_SHORT(saturate_pk_add_u16, uint16_t, a + b > 65535 ? 65535 : a + b)
PACKED_SHORT(saturate_pk_sub_u16, uint16_t, a > b ? a - b : 0)
PACKED_SHORT(saturate_pk_add_i16, int16_t, a + b > 32767 ? 32767 : a + b < -32768 ? -32768 : a + b)
PACKED_SHORT(saturate_pk_sub_i16, int16_t, a - b > 32767 ? 32767 : a - b < -32768 ? -32768 : a - b)
PACKED_SHORT(pk_mul_lo_u16, uint16_t, (uint32_t)a *b)
PACKED_SHORT(pk_mad_u16, uint16_t, (uint32_t)a *b + c)
PACKED_SHORT(pk_lshlrev_b16, uint16_t, b << (a & 15))
PACKED_SHORT(pk_lshrrev_b16, uint16_t, b >> (a & 15))
PACKED_SHORT(pk_ashrrev_i16, int16_t, b >> (a & 15))
PACKED_SHORT(pk_max_i16, int16_t, a > b ? a : b)
PACKED_SHORT(pk_min_i16, int16_t, a < b ? a : b)
PACKED_SHORT(pk_max_u16, uint16_t, a > b ? a : b)
PACKED_SHORT(pk_min_u16, uint16_t, a < b ? a : b)
PACKED_FLOAT(pk_add_f32, a + b)
PACKED_FLOAT(pk_mul_f32, a *b)
PACKED_FLOAT(pk_fma_f32, __builtin_fmaf(a, b, c))
/* The low result comes from the first source, the high one from the second. */
WIDE(pk_mov_b32, (a & UINT32_MAX) | (b & ~(uint64_t)UINT32_MAX))

/* ---- Dot products: products in order, one rounding each ---- */

static inline float bfloat_part(uint32_t x, unsigned half) {
  return as_float(half ? x & 0xffff0000 : x << 16);
}
UNSIGNED(dot2_f32_f16,
         float_bits((float)((double)float_of_half(a) * float_of_half(b) +
                            (double)float_of_half(a >> 16) * float_of_half(b >> 16) + (double)as_float(c))))
UNSIGNED(dot2_f32_bf16, float_bits((float)((double)bfloat_part(a, 0) * bfloat_part(b, 0) +
                                           (double)bfloat_part(a, 1) * bfloat_part(b, 1) + (double)as_float(c))))
UNSIGNED(dot2_i32_i16, (uint32_t)((int16_t)a * (int16_t)b) + (uint32_t)((int16_t)(a >> 16) * (int16_t)(b >> 16)) + c)
UNSIGNED(dot2_u32_u16, (a & 0xffff) * (b & 0xffff) + (a >> 16) * (b >> 16) + c)
static inline uint32_t dot_parts(uint32_t a, uint32_t b, uint32_t c, unsigned bits, bool is_signed) {
  for (unsigned s = 0; s < 32; s += bits) {
    uint32_t x = a << (32 - bits - s), y = b << (32 - bits - s);
    if (is_signed)
      c += (uint32_t)(((int32_t)x >> (32 - bits)) * ((int32_t)y >> (32 - bits)));
    else
      c += (x >> (32 - bits)) * (y >> (32 - bits));
  }
  return c;
}
UNSIGNED(dot4_i32_i8, dot_parts(a, b, c, 8, true))
UNSIGNED(dot4_u32_u8, dot_parts(a, b, c, 8, false))
UNSIGNED(dot8_i32_i4, dot_parts(a, b, c, 4, true))
UNSIGNED(dot8_u32_u4, dot_parts(a, b, c, 4, false))

/* ---- Comparisons ---- */

#define COMPARE_FLOAT(suffix, type)                                                                                    \
  ROW(cmp_lt_##suffix, uint32_t, type, type, type, a < b)                                                              \
  ROW(cmp_eq_##suffix, uint32_t, type, type, type, a == b)                                                             \
  ROW(cmp_le_##suffix, uint32_t, type, type, type, a <= b)                                                             \
  ROW(cmp_gt_##suffix, uint32_t, type, type, type, a > b)                                                              \
  ROW(cmp_lg_##suffix, uint32_t, type, type, type, a<b || a> b)                                                        \
  ROW(cmp_ge_##suffix, uint32_t, type, type, type, a >= b)                                                             \
  ROW(cmp_o_##suffix, uint32_t, type, type, type, a == a && b == b)                                                    \
  ROW(cmp_u_##suffix, uint32_t, type, type, type, a != a || b != b)                                                    \
  ROW(cmp_nge_##suffix, uint32_t, type, type, type, !(a >= b))                                                         \
  ROW(cmp_nlg_##suffix, uint32_t, type, type, type, !(a < b || a > b))                                                 \
  ROW(cmp_ngt_##suffix, uint32_t, type, type, type, !(a > b))                                                          \
  ROW(cmp_nle_##suffix, uint32_t, type, type, type, !(a <= b))                                                         \
  ROW(cmp_neq_##suffix, uint32_t, type, type, type, !(a == b))                                                         \
  ROW(cmp_nlt_##suffix, uint32_t, type, type, type, !(a < b))
#define COMPARE_INTEGER(suffix, type)                                                                                  \
  ROW(cmp_lt_##suffix, uint32_t, type, type, type, a < b)                                                              \
  ROW(cmp_eq_##suffix, uint32_t, type, type, type, a == b)                                                             \
  ROW(cmp_le_##suffix, uint32_t, type, type, type, a <= b)                                                             \
  ROW(cmp_gt_##suffix, uint32_t, type, type, type, a > b)                                                              \
  ROW(cmp_ne_##suffix, uint32_t, type, type, type, a != b)                                                             \
  ROW(cmp_ge_##suffix, uint32_t, type, type, type, a >= b)
COMPARE_FLOAT(f32, float)
COMPARE_FLOAT(f64, double)
COMPARE_INTEGER(i32, int32_t)
COMPARE_INTEGER(u32, uint32_t)
COMPARE_INTEGER(i64, int64_t)
COMPARE_INTEGER(u64, uint64_t)
ROW(cmp_t, uint32_t, uint32_t, uint32_t, uint32_t, 1)
ROW(cmp_f, uint32_t, uint32_t, uint32_t, uint32_t, 0)
ROW(cmp_class_f32, uint32_t, uint32_t, uint32_t, uint32_t, (class_of(as_float(a), 0x1p-126) & b) != 0)
ROW(cmp_class_f16, uint32_t, uint32_t, uint32_t, uint32_t, (class_of(float_of_half(a), 0x1p-14) & b) != 0)
ROW(cmp_class_f64, uint32_t, double, uint32_t, uint32_t, (class_of(a, 0x1p-1022) & b) != 0)

/* float16 comparisons go over float32: two rows converted, then the same loop. */
#define COMPARE_HALF(relation)                                                                                         \
  static void cmp_##relation##_f16(void *d, const void *a_row, const void *b_row, const void *c_row) {                 \
    float a[LANES], b[LANES];                                                                                          \
    cvt_f32_f16(a, a_row, a_row, a_row);                                                                               \
    cvt_f32_f16(b, b_row, b_row, b_row);                                                                               \
    cmp_##relation##_f32(d, a, b, c_row);                                                                              \
  }
COMPARE_HALF(lt)
COMPARE_HALF(eq)
COMPARE_HALF(le)
COMPARE_HALF(gt)
COMPARE_HALF(lg)
COMPARE_HALF(ge)
COMPARE_HALF(o)
COMPARE_HALF(u)
COMPARE_HALF(nge)
COMPARE_HALF(nlg)
COMPARE_HALF(ngt)
COMPARE_HALF(nle)
COMPARE_HALF(neq)
COMPARE_HALF(nlt)

/* ---- The table ---- */

#define OP(name, types) {#name, name, types, 0}
#define COMPARISONS_FLOAT(suffix, types)                                                                               \
  {"cmp_lt_" #suffix, cmp_lt_##suffix, types, 0}, {"cmp_eq_" #suffix, cmp_eq_##suffix, types, 0},                      \
      {"cmp_le_" #suffix, cmp_le_##suffix, types, 0}, {"cmp_gt_" #suffix, cmp_gt_##suffix, types, 0},                  \
      {"cmp_lg_" #suffix, cmp_lg_##suffix, types, 0}, {"cmp_ge_" #suffix, cmp_ge_##suffix, types, 0},                  \
      {"cmp_o_" #suffix, cmp_o_##suffix, types, 0}, {"cmp_u_" #suffix, cmp_u_##suffix, types, 0},                      \
      {"cmp_nge_" #suffix, cmp_nge_##suffix, types, 0}, {"cmp_nlg_" #suffix, cmp_nlg_##suffix, types, 0},              \
      {"cmp_ngt_" #suffix, cmp_ngt_##suffix, types, 0}, {"cmp_nle_" #suffix, cmp_nle_##suffix, types, 0},              \
      {"cmp_neq_" #suffix, cmp_neq_##suffix, types, 0}, {"cmp_nlt_" #suffix, cmp_nlt_##suffix, types, 0},              \
      {"cmp_tru_" #suffix, cmp_t, types, 0}, {"cmp_f_" #suffix, cmp_f, types, 0}
#define COMPARISONS_INTEGER(suffix, of, types)                                                                         \
  {"cmp_lt_" #suffix, cmp_lt_##of, types, 0}, {"cmp_eq_" #suffix, cmp_eq_##of, types, 0},                              \
      {"cmp_le_" #suffix, cmp_le_##of, types, 0}, {"cmp_gt_" #suffix, cmp_gt_##of, types, 0},                          \
      {"cmp_ne_" #suffix, cmp_ne_##of, types, 0}, {"cmp_ge_" #suffix, cmp_ge_##of, types, 0},                          \
      {"cmp_t_" #suffix, cmp_t, types, 0}, {"cmp_f_" #suffix, cmp_f, types, 0}

static const vector_op vector_ops[] = {
    OP(add_f32, "fff"),
    OP(sub_f32, "fff"),
    OP(subrev_f32, "fff"),
    OP(mul_f32, "fff"),
    OP(fma_f32, "ffff"),
    {"fmac_f32", fma_f32, "ffff", OP_ACCUMULATE},
    {"fmamk_f32", fma_f32, "ffff", 0},
    {"fmaak_f32", fma_f32, "ffff", 0},
    OP(mul_legacy_f32, "fff"),
    OP(max_f32, "fff"),
    OP(min_f32, "fff"),
    OP(max3_f32, "ffff"),
    OP(min3_f32, "ffff"),
    OP(med3_f32, "ffff"),
    OP(maximum3_f32, "ffff"),
    OP(minimum3_f32, "ffff"),
    OP(floor_f32, "ff"),
    OP(ceil_f32, "ff"),
    OP(trunc_f32, "ff"),
    OP(rndne_f32, "ff"),
    OP(fract_f32, "ff"),
    OP(ldexp_f32, "ffi"),
    OP(frexp_mant_f32, "ff"),
    OP(frexp_exp_i32_f32, "if"),
    OP(frexp_exp_i32_f64, "id"),
    OP(frexp_mant_f64, "dd"),
    OP(sad_u8, "uuuu"),
    OP(sad_u16, "uuuu"),
    OP(mad_u32_u16, "ussu"),
    OP(mad_i32_i16, "ussu"),
    OP(sat_pk_u8_i16, "su"),
    OP(div_fixup_f32, "ffff"),
    {"rcp_f32", rcp_f32, "ff", OP_TRANSCENDENTAL},
    {"rcp_iflag_f32", rcp_f32, "ff", OP_TRANSCENDENTAL},
    {"sqrt_f32", sqrt_f32, "ff", OP_TRANSCENDENTAL},
    {"rsq_f32", rsq_f32, "ff", OP_TRANSCENDENTAL},
    {"exp_f32", exp_f32, "ff", OP_TRANSCENDENTAL},
    {"log_f32", log_f32, "ff", OP_TRANSCENDENTAL},
    {"sin_f32", sin_f32, "ff", OP_TRANSCENDENTAL},
    {"cos_f32", cos_f32, "ff", OP_TRANSCENDENTAL},
    OP(add_f64, "ddd"),
    OP(mul_f64, "ddd"),
    OP(fma_f64, "dddd"),
    {"fmac_f64", fma_f64, "dddd", OP_ACCUMULATE},
    OP(max_f64, "ddd"),
    OP(min_f64, "ddd"),
    OP(floor_f64, "dd"),
    OP(ceil_f64, "dd"),
    OP(trunc_f64, "dd"),
    OP(rndne_f64, "dd"),
    OP(fract_f64, "dd"),
    OP(ldexp_f64, "ddi"),
    OP(div_fixup_f64, "dddd"),
    {"rcp_f64", rcp_f64, "dd", OP_TRANSCENDENTAL},
    {"sqrt_f64", sqrt_f64, "dd", OP_TRANSCENDENTAL},
    {"rsq_f64", rsq_f64, "dd", OP_TRANSCENDENTAL},
    OP(cvt_f32_i32, "fi"),
    OP(cvt_f32_u32, "fu"),
    OP(cvt_i32_f32, "if"),
    OP(cvt_u32_f32, "uf"),
    OP(cvt_flr_i32_f32, "if"),
    OP(cvt_rpi_i32_f32, "if"),
    OP(cvt_f32_ubyte0, "fu"),
    OP(cvt_f32_ubyte1, "fu"),
    OP(cvt_f32_ubyte2, "fu"),
    OP(cvt_f32_ubyte3, "fu"),
    OP(cvt_f16_f32, "hf"),
    OP(cvt_f32_f16, "fh"),
    OP(cvt_f32_bf16, "fb"),
    OP(cvt_f64_f32, "df"),
    OP(cvt_f32_f64, "fd"),
    OP(cvt_f64_i32, "di"),
    OP(cvt_f64_u32, "du"),
    OP(cvt_i32_f64, "id"),
    OP(cvt_u32_f64, "ud"),
    OP(cvt_f16_u16, "hs"),
    OP(cvt_f16_i16, "hj"),
    OP(cvt_u16_f16, "sh"),
    OP(cvt_i16_f16, "sh"),
    OP(cvt_pkrtz_f16_f32, "uff"),
    OP(cvt_pk_f16_f32, "uff"),
    OP(cvt_pk_bf16_f32, "uff"),
    OP(cvt_pk_u16_u32, "uuu"),
    OP(cvt_pk_i16_i32, "uii"),
    OP(cvt_pk_u8_f32, "ufuu"),
    OP(cvt_pknorm_i16_f32, "uff"),
    OP(pack_b32_f16, "uhh"),
    OP(mov_b32, "uu"),
    {"accvgpr_read_b32", mov_b32, "uu", 0},
    {"accvgpr_write_b32", mov_b32, "uu", 0},
    {"accvgpr_mov_b32", mov_b32, "uu", 0},
    OP(not_b32, "uu"),
    OP(add_u32, "uuu"),
    OP(sub_u32, "uuu"),
    OP(subrev_u32, "uuu"),
    {"add_i32", add_u32, "uuu", 0},
    {"sub_i32", sub_u32, "uuu", 0},
    OP(saturate_add_u32, "uuu"),
    OP(saturate_sub_u32, "uuu"),
    OP(saturate_add_i32, "iii"),
    OP(saturate_sub_i32, "iii"),
    OP(and_b32, "uuu"),
    OP(or_b32, "uuu"),
    OP(xor_b32, "uuu"),
    OP(xnor_b32, "uuu"),
    OP(lshlrev_b32, "uuu"),
    OP(lshrrev_b32, "uuu"),
    OP(ashrrev_i32, "iui"),
    OP(mul_lo_u32, "uuu"),
    OP(mul_hi_u32, "uuu"),
    OP(mul_hi_i32, "iii"),
    OP(mul_u32_u24, "uuu"),
    OP(mul_hi_u32_u24, "uuu"),
    OP(mad_u32_u24, "uuuu"),
    OP(mul_i32_i24, "uuu"),
    OP(mul_hi_i32_i24, "uuu"),
    OP(mad_i32_i24, "uuuu"),
    OP(max_i32, "iii"),
    OP(min_i32, "iii"),
    OP(max_u32, "uuu"),
    OP(min_u32, "uuu"),
    OP(max3_i32, "iiii"),
    OP(min3_i32, "iiii"),
    OP(max3_u32, "uuuu"),
    OP(min3_u32, "uuuu"),
    OP(med3_i32, "iiii"),
    OP(med3_u32, "uuuu"),
    OP(add3_u32, "uuuu"),
    OP(or3_b32, "uuuu"),
    OP(xad_u32, "uuuu"),
    OP(lshl_add_u32, "uuuu"),
    OP(add_lshl_u32, "uuuu"),
    OP(lshl_or_b32, "uuuu"),
    OP(and_or_b32, "uuuu"),
    OP(bfe_u32, "uuuu"),
    OP(bfe_i32, "uuuu"),
    OP(bfi_b32, "uuuu"),
    OP(bfm_b32, "uuu"),
    OP(alignbit_b32, "uuuu"),
    OP(alignbyte_b32, "uuuu"),
    OP(bfrev_b32, "uu"),
    OP(ffbh_u32, "uu"),
    OP(ffbl_b32, "uu"),
    OP(ffbh_i32, "uu"),
    OP(bcnt_u32_b32, "uuu"),
    OP(sad_u32, "uuuu"),
    OP(perm_b32, "uuuu"),
    OP(cndmask_b32, "fffm"),
    OP(prng_b32, "uu"),
    OP(ashr_pk_i8_i32, "siiu"),
    OP(ashr_pk_u8_i32, "siiu"),
    OP(mov_b64, "ww"),
    OP(lshl_add_u64, "wwuw"),
    OP(lshlrev_b64, "wuw"),
    OP(lshrrev_b64, "wuw"),
    OP(ashrrev_i64, "lul"),
    OP(add_f16, "hhh"),
    OP(sub_f16, "hhh"),
    OP(subrev_f16, "hhh"),
    OP(mul_f16, "hhh"),
    OP(max_f16, "hhh"),
    OP(min_f16, "hhh"),
    {"fma_f16", fma_f16, "hhhh", OP_KEEP_HIGH},
    {"fmac_f16", fma_f16, "hhhh", OP_ACCUMULATE},
    {"max3_f16", max3_f16, "hhhh", OP_KEEP_HIGH},
    {"min3_f16", min3_f16, "hhhh", OP_KEEP_HIGH},
    {"med3_f16", med3_f16, "hhhh", OP_KEEP_HIGH},
    {"div_fixup_f16", div_fixup_f16, "hhhh", OP_KEEP_HIGH},
    {"rcp_f16", rcp_f16, "hh", OP_TRANSCENDENTAL},
    {"sqrt_f16", sqrt_f16, "hh", OP_TRANSCENDENTAL},
    {"rsq_f16", rsq_f16, "hh", OP_TRANSCENDENTAL},
    {"exp_f16", exp_f16, "hh", OP_TRANSCENDENTAL},
    {"log_f16", log_f16, "hh", OP_TRANSCENDENTAL},
    {"sin_f16", sin_f16, "hh", OP_TRANSCENDENTAL},
    {"cos_f16", cos_f16, "hh", OP_TRANSCENDENTAL},
    OP(floor_f16, "hh"),
    OP(ceil_f16, "hh"),
    OP(trunc_f16, "hh"),
    OP(rndne_f16, "hh"),
    OP(fract_f16, "hh"),
    OP(ldexp_f16, "hhi"),
    OP(frexp_mant_f16, "hh"),
    OP(frexp_exp_i16_f16, "sh"),
    {"pk_fmac_f16", pk_fma_f16, "pppp", OP_ACCUMULATE},
    OP(add_u16, "sss"),
    OP(sub_u16, "sss"),
    OP(subrev_u16, "sss"),
    OP(saturate_add_u16, "sss"),
    OP(saturate_sub_u16, "sss"),
    OP(mul_lo_u16, "sss"),
    {"mad_u16", mad_u16, "ssss", OP_KEEP_HIGH},
    {"mad_i16", mad_u16, "ssss", OP_KEEP_HIGH},
    {"mad_legacy_u16", mad_u16, "ssss", 0},
    {"mad_legacy_i16", mad_u16, "ssss", 0},
    {"add_i16", add_u16, "sss", 0},
    {"sub_i16", sub_u16, "sss", 0},
    OP(lshlrev_b16, "sss"),
    OP(lshrrev_b16, "sss"),
    OP(ashrrev_i16, "jsj"),
    {"max_i16", max_i32, "jjj", 0},
    {"min_i16", min_i32, "jjj", 0},
    OP(max_u16, "sss"),
    OP(min_u16, "sss"),
    {"max3_i16", max3_i32, "jjjj", OP_KEEP_HIGH},
    {"min3_i16", min3_i32, "jjjj", OP_KEEP_HIGH},
    {"max3_u16", max3_u16, "ssss", OP_KEEP_HIGH},
    {"min3_u16", min3_u16, "ssss", OP_KEEP_HIGH},
    {"med3_i16", med3_i32, "jjjj", OP_KEEP_HIGH},
    {"med3_u16", med3_u32, "ssss", OP_KEEP_HIGH},
    OP(pk_add_f16, "ppp"),
    OP(pk_mul_f16, "ppp"),
    OP(pk_fma_f16, "pppp"),
    OP(pk_max_f16, "ppp"),
    OP(pk_min_f16, "ppp"),
    OP(pk_maximum3_f16, "pppp"),
    OP(pk_minimum3_f16, "pppp"),
    OP(pk_add_u16, "qqq"),
    {"pk_add_i16", pk_add_u16, "qqq", 0},
    OP(pk_sub_u16, "qqq"),
    {"pk_sub_i16", pk_sub_u16, "qqq", 0},
    OP(saturate_pk_add_u16, "qqq"),
    OP(saturate_pk_sub_u16, "qqq"),
    OP(saturate_pk_add_i16, "qqq"),
    OP(saturate_pk_sub_i16, "qqq"),
    OP(pk_mul_lo_u16, "qqq"),
    OP(pk_mad_u16, "qqqq"),
    {"pk_mad_i16", pk_mad_u16, "qqqq", 0},
    OP(pk_lshlrev_b16, "qqq"),
    OP(pk_lshrrev_b16, "qqq"),
    OP(pk_ashrrev_i16, "qqq"),
    OP(pk_max_i16, "qqq"),
    OP(pk_min_i16, "qqq"),
    OP(pk_max_u16, "qqq"),
    OP(pk_min_u16, "qqq"),
    OP(pk_add_f32, "PPP"),
    OP(pk_mul_f32, "PPP"),
    OP(pk_fma_f32, "PPPP"),
    OP(pk_mov_b32, "PPP"),
    {"fma_mix_f32", fma_f32, "fxxx", 0},
    {"mad_mix_f32", fma_f32, "fxxx", 0},
    {"dot2_f32_f16", dot2_f32_f16, "fppf", OP_DOT},
    {"dot2_f32_bf16", dot2_f32_bf16, "fqqf", OP_DOT},
    {"dot2_i32_i16", dot2_i32_i16, "uqqu", OP_DOT},
    {"dot2_u32_u16", dot2_u32_u16, "uqqu", OP_DOT},
    {"dot4_i32_i8", dot4_i32_i8, "uuuu", OP_DOT},
    {"dot4_u32_u8", dot4_u32_u8, "uuuu", OP_DOT},
    {"dot8_i32_i4", dot8_i32_i4, "uuuu", OP_DOT},
    {"dot8_u32_u4", dot8_u32_u4, "uuuu", OP_DOT},
    {"dot2c_f32_f16", dot2_f32_f16, "uuuu", OP_DOT | OP_ACCUMULATE},
    {"dot2c_f32_bf16", dot2_f32_bf16, "uuuu", OP_DOT | OP_ACCUMULATE},
    {"dot2c_i32_i16", dot2_i32_i16, "uuuu", OP_DOT | OP_ACCUMULATE},
    {"dot4c_i32_i8", dot4_i32_i8, "uuuu", OP_DOT | OP_ACCUMULATE},
    {"dot8c_i32_i4", dot8_i32_i4, "uuuu", OP_DOT | OP_ACCUMULATE},
    COMPARISONS_FLOAT(f32, "mff"),
    COMPARISONS_FLOAT(f64, "mdd"),
    COMPARISONS_FLOAT(f16, "mhh"),
    COMPARISONS_INTEGER(i32, i32, "mii"),
    COMPARISONS_INTEGER(u32, u32, "muu"),
    COMPARISONS_INTEGER(i64, i64, "mll"),
    COMPARISONS_INTEGER(u64, u64, "mww"),
    COMPARISONS_INTEGER(i16, i32, "mjj"),
    COMPARISONS_INTEGER(u16, u32, "mss"),
    OP(cmp_class_f32, "mfu"),
    OP(cmp_class_f16, "mhu"),
    OP(cmp_class_f64, "mdu"),
};

const vector_op *vector_op_find(const char *name) {
  for (size_t k = 0; k < sizeof vector_ops / sizeof *vector_ops; k++) {
    if (strcmp(vector_ops[k].name, name) == 0) return &vector_ops[k];
  }
  return NULL;
}

/* Formats of 4, 6 and 8 bits. */
#include "convert.h"

typedef struct layout {
  int exponent_bits, mantissa_bits, bias;
  bool has_infinity; /* as IEEE has it */
  bool has_nan;
} layout;

static layout layout_of(narrow_format format, bool fnuz) {
  switch (format) {
  case NARROW_FP8:
    return (layout){4, 3, fnuz ? 8 : 7, false, true};
  case NARROW_BF8:
    return (layout){5, 2, fnuz ? 16 : 15, !fnuz, true};
  case NARROW_FP6:
    return (layout){2, 3, 1, false, false};
  case NARROW_BF6:
    return (layout){3, 2, 3, false, false};
  default:
    return (layout){2, 1, 1, false, false};
  }
}

float float_of_narrow(narrow_format format, bool fnuz, uint32_t bits) {
  layout n = layout_of(format, fnuz);
  int width = 1 + n.exponent_bits + n.mantissa_bits;
  uint32_t sign = bits >> (width - 1) & 1, exponent = bits >> n.mantissa_bits & ((1u << n.exponent_bits) - 1);
  uint32_t mantissa = bits & ((1u << n.mantissa_bits) - 1), all = (1u << n.exponent_bits) - 1;
  if (n.has_nan && fnuz && sign && exponent == 0 && mantissa == 0) return NAN;
  if (n.has_infinity && exponent == all) return mantissa ? NAN : sign ? -INFINITY : INFINITY;
  if (n.has_nan && !fnuz && !n.has_infinity && exponent == all && mantissa == (1u << n.mantissa_bits) - 1) return NAN;
  float place = ldexpf(1, (int)(exponent ? exponent : 1) - n.bias - n.mantissa_bits);
  float value = (float)(exponent ? mantissa | 1u << n.mantissa_bits : mantissa) * place;
  return sign ? -value : value;
}

/* Largest finite value's bits, without sign. */
static uint32_t largest(const layout *n, bool fnuz) {
  uint32_t all = (1u << (n->exponent_bits + n->mantissa_bits)) - 1;
  if (n->has_infinity) return all - (1u << n->mantissa_bits); /* below infinity */
  return n->has_nan && !fnuz ? all - 1 : all;
}

/* `added` is in units of 2^-32 of the last place: half of one rounds to nearest, `even` then corrects ties. */
static uint32_t round_narrow(narrow_format format, bool fnuz, bool clamp, float value, uint64_t added, bool even) {
  layout n = layout_of(format, fnuz);
  int width = 1 + n.exponent_bits + n.mantissa_bits;
  uint32_t sign = signbit(value) ? 1u << (width - 1) : 0, most = largest(&n, fnuz);
  uint32_t nan = !n.has_nan ? most : fnuz ? 0x80 : (1u << (width - 1)) - 1;
  if (value != value) return n.has_nan && !fnuz ? sign | nan : nan;
  if (isinf(value)) {
    if (n.has_infinity) return sign | (clamp ? most : most + 1);
    return !n.has_nan || clamp ? sign | most : fnuz ? nan : sign | nan;
  }
  int exponent;
  frexpf(fabsf(value), &exponent); /* value in [1/2, 1) x 2^exponent */
  int lowest = 1 - n.bias, top = value == 0 ? lowest : exponent - 1 < lowest ? lowest : exponent - 1;
  /* In units of the last place, 32 bits of fraction. */
  double scaled = ldexp(fabs((double)value), n.mantissa_bits - top);
  double whole = floor(scaled);
  uint64_t fraction = (uint64_t)ldexp(scaled - whole, 32), units = (uint64_t)whole;
  bool tie = even && fraction == UINT64_C(1) << 31 && ldexp(scaled - whole, 32) == (double)fraction;
  units += (fraction + added) >> 32;
  if (tie && (units & 1)) units--;
  /* Units carry into the exponent by themselves. */
  uint64_t bits = units + ((uint64_t)(top - lowest) << n.mantissa_bits);
  if (bits > most) {
    if (clamp || !n.has_nan)
      bits = most;
    else if (n.has_infinity)
      bits = most + 1;
    else
      return fnuz ? nan : sign | nan;
  }
  if (fnuz && bits == 0) sign = 0;
  return sign | (uint32_t)bits;
}

uint32_t narrow_of_float(narrow_format format, bool fnuz, bool clamp, float value) {
  return round_narrow(format, fnuz, clamp, value, UINT64_C(1) << 31, true);
}

uint32_t narrow_of_float_stochastic(narrow_format format, bool fnuz, bool clamp, float value, uint32_t random) {
  layout n = layout_of(format, fnuz);
  /* The random number's top bits meet the mantissa bits that are cut off a normal number. */
  unsigned cut = 23u - (unsigned)n.mantissa_bits;
  uint64_t added = (uint64_t)(random >> (32 - cut)) << (32 - cut);
  return round_narrow(format, fnuz, clamp, value, added, false);
}

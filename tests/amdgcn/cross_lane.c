/* Vector instructions that do not go lane by lane from registers to one register: carries, lane reads and writes,
 * swaps, division steps, and conversions to narrow formats. */
#include "convert.h"
#include "machine.h"

static uint32_t source32(const wave *w, const operand *o, unsigned lane) {
  uint32_t value = read_lane(w, o, lane);
  if (o->absolute) value &= 0x7fffffff;
  if (o->negate) value ^= 0x80000000;
  return value;
}

static uint64_t source64(const wave *w, const operand *o, unsigned lane) {
  uint64_t value = o->kind == OPERAND_VECTOR ? w->vector[o->index][lane] | (uint64_t)w->vector[o->index + 1][lane] << 32
                                             : read_scalar64(w, o);
  if (o->absolute) value &= UINT64_MAX >> 1;
  if (o->negate) value ^= UINT64_C(1) << 63;
  return value;
}

static void put64(wave *w, const operand *o, unsigned lane, uint64_t value) {
  w->vector[o->index][lane] = (uint32_t)value;
  w->vector[o->index + 1][lane] = (uint32_t)(value >> 32);
}

#define EACH_LANE(w, l)                                                                                                \
  for (uint64_t left_ = exec_mask(w), l = 0; left_ && (l = (uint64_t)__builtin_ctzll(left_), true); left_ &= left_ - 1)

/* ---- Carries: operands are result, carry out, a, b and, in the variants from 3 on, carry in ---- */

static void execute_carry(wave *w, const instruction *i) {
  const operand *x = &i->operand[2], *y = &i->operand[3];
  uint64_t in = i->variant >= 3 ? read_scalar64(w, &i->operand[4]) : 0, out = 0;
  uint32_t *d = w->vector[i->operand[0].index];
  EACH_LANE(w, l) {
    uint64_t a = read_lane(w, x, (unsigned)l), b = read_lane(w, y, (unsigned)l), carry = in >> l & 1;
    uint64_t r = i->variant % 3 == 0 ? a + b + carry : i->variant % 3 == 1 ? a - b - carry : b - a - carry;
    d[l] = (uint32_t)r;
    out |= (r >> 32 & 1) << l;
  }
  set_scalar_pair(w, i->operand[1].index, out);
}

/* Result, carry out, two factors, what is added. */
static void execute_multiply_add64(wave *w, const instruction *i) {
  uint64_t out = 0;
  EACH_LANE(w, l) {
    uint32_t a = read_lane(w, &i->operand[2], (unsigned)l), b = read_lane(w, &i->operand[3], (unsigned)l);
    uint64_t c = source64(w, &i->operand[4], (unsigned)l);
    uint64_t product = i->variant ? (uint64_t)((int64_t)(int32_t)a * (int32_t)b) : (uint64_t)a * b, r = product + c;
    bool carry = i->variant ? __builtin_add_overflow((int64_t)product, (int64_t)c, &(int64_t){0}) : r < product;
    out |= (uint64_t)carry << l;
    put64(w, &i->operand[0], (unsigned)l, r);
  }
  set_scalar_pair(w, i->operand[1].index, out);
}

/* ---- Division: operands scaled so that the steps between lose nothing, and the result scaled back ----
 *
 * Where both 1/d and n/d are denormal the ISA document scales d up, which would make 1 / 2^127 infinity times zero; it
 * is scaled down here, which is what v_div_fmas undoes: compilers divide by such numbers with these instructions. */

static void execute_div_scale32(wave *w, const instruction *i) {
  uint64_t out = 0;
  EACH_LANE(w, l) {
    float a = as_float(source32(w, &i->operand[2], (unsigned)l)),
          d = as_float(source32(w, &i->operand[3], (unsigned)l)),
          n = as_float(source32(w, &i->operand[4], (unsigned)l)), r = a;
    int exponents = (int)(float_bits(n) >> 23 & 255) - (int)(float_bits(d) >> 23 & 255);
    bool of_d = float_bits(a) == float_bits(d), of_n = float_bits(a) == float_bits(n), flag = false;
    bool tiny_inverse = fabs(1.0 / (double)d) < 0x1p-126, tiny_quotient = fabs((double)n / (double)d) < 0x1p-126;
    if (n == 0 || d == 0) {
      r = NAN;
    } else if (exponents >= 96) {
      flag = true;
      if (of_d) r = a * 0x1p64f;
    } else if (fabsf(d) < 0x1p-126f) {
      r = a * 0x1p64f;
    } else if (tiny_inverse && tiny_quotient) {
      flag = true;
      if (of_d) r = a * 0x1p-64f;
    } else if (tiny_inverse) {
      r = a * 0x1p-64f;
    } else if (tiny_quotient) {
      flag = true;
      if (of_n) r = a * 0x1p64f;
    } else if ((float_bits(n) >> 23 & 255) <= 23) {
      r = a * 0x1p64f;
    }
    w->vector[i->operand[0].index][l] = float_bits(r);
    out |= (uint64_t)flag << l;
  }
  set_scalar_pair(w, i->operand[1].index, out);
}

static void execute_div_scale64(wave *w, const instruction *i) {
  uint64_t out = 0;
  EACH_LANE(w, l) {
    double a = as_double(source64(w, &i->operand[2], (unsigned)l)),
           d = as_double(source64(w, &i->operand[3], (unsigned)l)),
           n = as_double(source64(w, &i->operand[4], (unsigned)l)), r = a;
    int exponents = (int)(double_bits(n) >> 52 & 2047) - (int)(double_bits(d) >> 52 & 2047);
    bool of_d = double_bits(a) == double_bits(d), of_n = double_bits(a) == double_bits(n), flag = false;
    bool tiny_inverse = fabs(1.0 / d) < 0x1p-1022, tiny_quotient = fabs(n / d) < 0x1p-1022;
    if (n == 0 || d == 0) {
      r = (double)NAN;
    } else if (exponents >= 768) {
      flag = true;
      if (of_d) r = a * 0x1p128;
    } else if (fabs(d) < 0x1p-1022) {
      r = a * 0x1p128;
    } else if (tiny_inverse && tiny_quotient) {
      flag = true;
      if (of_d) r = a * 0x1p-128;
    } else if (tiny_inverse) {
      r = a * 0x1p-128;
    } else if (tiny_quotient) {
      flag = true;
      if (of_n) r = a * 0x1p128;
    } else if ((double_bits(n) >> 52 & 2047) <= 53) {
      r = a * 0x1p128;
    }
    put64(w, &i->operand[0], (unsigned)l, double_bits(r));
    out |= (uint64_t)flag << l;
  }
  set_scalar_pair(w, i->operand[1].index, out);
}

static void execute_div_fmas32(wave *w, const instruction *i) {
  uint64_t scaled = scalar_pair(w, REGISTER_VCC);
  EACH_LANE(w, l) {
    float a = as_float(source32(w, &i->operand[1], (unsigned)l)),
          b = as_float(source32(w, &i->operand[2], (unsigned)l)),
          c = as_float(source32(w, &i->operand[3], (unsigned)l)), r = fmaf(a, b, c);
    if (scaled >> l & 1) r *= (float_bits(c) >> 23 & 255) > 127 ? 0x1p64f : 0x1p-64f;
    w->vector[i->operand[0].index][l] = float_bits(r);
  }
}

static void execute_div_fmas64(wave *w, const instruction *i) {
  uint64_t scaled = scalar_pair(w, REGISTER_VCC);
  EACH_LANE(w, l) {
    double a = as_double(source64(w, &i->operand[1], (unsigned)l)),
           b = as_double(source64(w, &i->operand[2], (unsigned)l)),
           c = as_double(source64(w, &i->operand[3], (unsigned)l)), r = fma(a, b, c);
    if (scaled >> l & 1) r *= (double_bits(c) >> 52 & 2047) > 1023 ? 0x1p128 : 0x1p-128;
    put64(w, &i->operand[0], (unsigned)l, double_bits(r));
  }
}

/* ---- Lanes ---- */

static void execute_read_first(wave *w, const instruction *i) {
  uint64_t exec = exec_mask(w);
  w->scalar[i->operand[0].index] = read_lane(w, &i->operand[1], exec ? (unsigned)__builtin_ctzll(exec) : 0);
}

static void execute_read_lane(wave *w, const instruction *i) {
  w->scalar[i->operand[0].index] = read_lane(w, &i->operand[1], read_scalar(w, &i->operand[2]) & 63);
}

static void execute_write_lane(wave *w, const instruction *i) {
  w->vector[i->operand[0].index][read_scalar(w, &i->operand[2]) & 63] = read_scalar(w, &i->operand[1]);
}

/* Counts the mask's bits below the lane: the low 32 lanes' in one instruction, the others' in the other. */
static void execute_count_below(wave *w, const instruction *i) {
  EACH_LANE(w, l) {
    unsigned below = i->variant ? (l > 32 ? (unsigned)l - 32 : 0) : (l < 32 ? (unsigned)l : 32);
    uint32_t mask = read_lane(w, &i->operand[1], (unsigned)l) & (uint32_t)((UINT64_C(1) << below) - 1);
    uint32_t base = read_lane(w, &i->operand[2], (unsigned)l);
    w->vector[i->operand[0].index][l] = base + (uint32_t)__builtin_popcount(mask);
  }
}

static void execute_swap(wave *w, const instruction *i) {
  uint32_t *a = w->vector[i->operand[0].index], *b = w->vector[i->operand[1].index];
  EACH_LANE(w, l) {
    uint32_t old = a[l];
    a[l] = b[l];
    b[l] = old;
  }
}

/* v_permlane32_swap and v_permlane16_swap: the upper rows of the first change places with the lower rows of the second.
 */
static void execute_swap_rows(wave *w, const instruction *i) {
  uint32_t *a = w->vector[i->operand[0].index], *b = w->vector[i->operand[1].index];
  uint64_t exec = exec_mask(w);
  unsigned rows = i->variant;
  for (unsigned first = 0; first < LANES; first += 2 * rows) {
    for (unsigned l = first; l < first + rows; l++) {
      uint32_t upper = a[l + rows], lower = b[l];
      if (exec >> (l + rows) & 1) a[l + rows] = lower;
      if (exec >> l & 1) b[l] = upper;
    }
  }
}

static void execute_bit_table(wave *w, const instruction *i) {
  uint32_t *d = w->vector[i->operand[0].index];
  EACH_LANE(w, l) {
    uint32_t a = read_lane(w, &i->operand[1], (unsigned)l), b = read_lane(w, &i->operand[2], (unsigned)l),
             c = read_lane(w, &i->operand[3], (unsigned)l), r = 0;
    if (i->variant) {
      a = a >> (i->op_sel & 1 ? 16 : 0), b = b >> (i->op_sel & 2 ? 16 : 0), c = c >> (i->op_sel & 4 ? 16 : 0);
    }
    for (unsigned k = 0; k < 8; k++) {
      if (i->immediate >> k & 1) r |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
    }
    if (!i->variant)
      d[l] = r;
    else if (i->op_sel & 8)
      d[l] = (d[l] & 0xffff) | r << 16;
    else
      d[l] = (d[l] & 0xffff0000) | (r & 0xffff);
  }
}

/* ---- float16 results of mixed products ---- */

static float mixed_source(const wave *w, const instruction *i, unsigned source, unsigned lane) {
  const operand *o = &i->operand[source + 1];
  uint32_t bits = read_lane(w, o, lane);
  float value = i->op_sel_hi >> source & 1 ? float_of_half(bits >> (i->op_sel >> source & 1 ? 16 : 0)) : as_float(bits);
  if (o->absolute) value = fabsf(value);
  return o->negate ? -value : value;
}

static void execute_mix_half(wave *w, const instruction *i) {
  uint32_t *d = w->vector[i->operand[0].index];
  EACH_LANE(w, l) {
    float r = fmaf(mixed_source(w, i, 0, (unsigned)l), mixed_source(w, i, 1, (unsigned)l),
                   mixed_source(w, i, 2, (unsigned)l));
    if (i->clamp) r = r > 0 ? (r < 1 ? r : 1) : 0;
    uint32_t half = half_of_float(r);
    d[l] = i->variant ? (d[l] & 0xffff) | half << 16 : (d[l] & 0xffff0000) | half;
  }
}

/* ---- fp8 ---- */

static bool is_fnuz(const wave *w) {
  return w->launch->machine->target == GCN_GFX942;
}

/* What is too large becomes the largest number when MODE's FP16_OVFL is set, NaN or infinity otherwise. */
static bool clamps(const wave *w) {
  return w->mode >> 23 & 1;
}

/* Two float32 to two bytes, in the half of the result that op_sel's third bit says. */
static void execute_pack_fp8(wave *w, const instruction *i) {
  narrow_format format = i->variant ? NARROW_BF8 : NARROW_FP8;
  uint32_t *d = w->vector[i->operand[0].index];
  bool high = i->op_sel >> 2 & 3;
  EACH_LANE(w, l) {
    uint32_t low = narrow_of_float(format, is_fnuz(w), clamps(w), as_float(source32(w, &i->operand[1], (unsigned)l)));
    low |= narrow_of_float(format, is_fnuz(w), clamps(w), as_float(source32(w, &i->operand[2], (unsigned)l))) << 8;
    d[l] = high ? (d[l] & 0xffff) | low << 16 : (d[l] & 0xffff0000) | low;
  }
}

/* One float32 to one byte, rounded by the bits of the second source; op_sel's upper two bits say which byte. */
static void execute_round_fp8(wave *w, const instruction *i) {
  narrow_format format = i->variant ? NARROW_BF8 : NARROW_FP8;
  uint32_t *d = w->vector[i->operand[0].index];
  unsigned shift = 8 * (i->op_sel >> 2 & 3);
  EACH_LANE(w, l) {
    uint32_t byte =
        narrow_of_float_stochastic(format, is_fnuz(w), clamps(w), as_float(source32(w, &i->operand[1], (unsigned)l)),
                                   read_lane(w, &i->operand[2], (unsigned)l));
    d[l] = (d[l] & ~(255u << shift)) | byte << shift;
  }
}

static void execute_unpack_fp8(wave *w, const instruction *i) {
  narrow_format format = i->variant & 1 ? NARROW_BF8 : NARROW_FP8;
  bool pair = i->variant & 2;
  unsigned selected = i->sdwa ? i->sdwa_source[0]
                      : pair  ? (i->op_sel & 1 ? 5 : 4)
                              : (i->op_sel & 1 ? 1u : 0) + (i->op_sel & 2);
  unsigned shift = selected < 4 ? 8 * selected : selected < 6 ? 16 * (selected - 4) : 0;
  EACH_LANE(w, l) {
    uint32_t bits = read_lane(w, &i->operand[1], (unsigned)l) >> shift;
    uint32_t low = float_bits(float_of_narrow(format, is_fnuz(w), bits & 255));
    if (pair)
      put64(w, &i->operand[0], (unsigned)l,
            low | (uint64_t)float_bits(float_of_narrow(format, is_fnuz(w), bits >> 8 & 255)) << 32);
    else
      w->vector[i->operand[0].index][l] = low;
  }
}

/* One float32 to a half, rounded by the random bits that meet those cut off; op_sel's fourth bit says which half. */
static void execute_round_half(wave *w, const instruction *i) {
  uint32_t *d = w->vector[i->operand[0].index];
  EACH_LANE(w, l) {
    uint32_t bits = source32(w, &i->operand[1], (unsigned)l), random = read_lane(w, &i->operand[2], (unsigned)l), half;
    float x = as_float(bits);
    bool finite = fabsf(x) <= 0x1.fffffep127f;
    if (i->variant) {
      half = finite ? (bits + (random >> 16)) >> 16 : bfloat_of_float(x);
    } else {
      float rounded = finite && fabsf(x) >= 0x1p-14f ? as_float((bits + (random >> 19)) & ~0x1fffu) : x;
      half = half_toward_zero(rounded);
    }
    d[l] = i->op_sel & 8 ? (d[l] & 0xffff) | half << 16 : (d[l] & 0xffff0000) | half;
  }
}

/* ---- Conversions with a scale (gfx950): the scale's exponent alone counts ---- */

static float scale_of(uint32_t bits) {
  return ldexpf(1, (int)(bits >> 23 & 255) - 127);
}

/* What a conversion's wide side is. */
enum { WIDE_FLOAT, WIDE_HALF = 8, WIDE_BFLOAT = 16, WIDE_MASK = 24 };

static uint32_t wide_bits(uint8_t variant, float value) {
  if ((variant & WIDE_MASK) == WIDE_HALF) return half_of_float(value);
  return (variant & WIDE_MASK) == WIDE_BFLOAT ? bfloat_of_float(value) : float_bits(value);
}

static float wide_value(uint8_t variant, uint32_t bits) {
  if ((variant & WIDE_MASK) == WIDE_HALF) return float_of_half(bits);
  return as_float((variant & WIDE_MASK) == WIDE_BFLOAT ? bits << 16 : bits);
}

/* v_cvt_scalef32_pk_{f32,f16,bf16}_{fp8,bf8,fp4}: two numbers from the half, or for fp4 the byte, that op_sel says. */
static void execute_unpack_scaled(wave *w, const instruction *i) {
  narrow_format format = (narrow_format)(i->variant & 7);
  unsigned bits = format == NARROW_FP4 ? 4 : 8;
  unsigned shift = format == NARROW_FP4 ? 8 * (i->op_sel & 3u) : 16 * (i->op_sel & 1u);
  EACH_LANE(w, l) {
    uint32_t from = read_lane(w, &i->operand[1], (unsigned)l) >> shift, mask = (1u << bits) - 1;
    float scale = scale_of(read_lane(w, &i->operand[2], (unsigned)l));
    uint32_t low = wide_bits(i->variant, float_of_narrow(format, false, from & mask) * scale);
    uint32_t high = wide_bits(i->variant, float_of_narrow(format, false, from >> bits & mask) * scale);
    if (i->variant & WIDE_MASK)
      w->vector[i->operand[0].index][l] = low | high << 16;
    else
      put64(w, &i->operand[0], (unsigned)l, low | (uint64_t)high << 32);
  }
}

/* v_cvt_scalef32_f32_{fp8,bf8}: one, from the byte that op_sel says. */
static void execute_unpack_one_scaled(wave *w, const instruction *i) {
  EACH_LANE(w, l) {
    uint32_t from = read_lane(w, &i->operand[1], (unsigned)l) >> (8 * (i->op_sel & 3u)) & 255;
    float scale = scale_of(read_lane(w, &i->operand[2], (unsigned)l));
    w->vector[i->operand[0].index][l] = float_bits(float_of_narrow((narrow_format)i->variant, false, from) * scale);
  }
}

/* v_cvt_scalef32_pk_{fp8,bf8,fp4}_{f32,f16,bf16}: divided by the scale, rounded; 16-bit sources are two in one
 * register. */
static void execute_pack_scaled(wave *w, const instruction *i) {
  narrow_format format = (narrow_format)(i->variant & 7);
  bool pair = i->variant & WIDE_MASK;
  unsigned bits = format == NARROW_FP4 ? 4 : 8;
  unsigned shift = format == NARROW_FP4 ? 8 * (i->op_sel >> 2 & 3u) : 16 * (i->op_sel >> 3 & 1u);
  uint32_t mask = ((1u << (2 * bits)) - 1) << shift, *d = w->vector[i->operand[0].index];
  EACH_LANE(w, l) {
    uint32_t x = source32(w, &i->operand[1], (unsigned)l),
             y = pair ? x >> 16 : source32(w, &i->operand[2], (unsigned)l);
    float scale = scale_of(read_lane(w, &i->operand[pair ? 2 : 3], (unsigned)l));
    uint32_t low = narrow_of_float(format, false, true, wide_value(i->variant, x) / scale);
    uint32_t high = narrow_of_float(format, false, true, wide_value(i->variant, y) / scale);
    d[l] = (d[l] & ~mask) | (low | high << bits) << shift;
  }
}

static void execute_nothing(wave *w, const instruction *i) {
  (void)w, (void)i;
}

/* ---- Decoding: per operand d (written), s (scalar or vector read), b (both); types of constants as in vector_op ----
 */

static const struct {
  const char *name;
  execute_function execute;
  uint8_t variant;
  const char *operands;
  char type;
  enum wait_rule rule;
} table[] = {
    {"v_add_co_u32", execute_carry, 0, "ddss", 'u', RULE_NONE},
    {"v_sub_co_u32", execute_carry, 1, "ddss", 'u', RULE_NONE},
    {"v_subrev_co_u32", execute_carry, 2, "ddss", 'u', RULE_NONE},
    {"v_addc_co_u32", execute_carry, 3, "ddsss", 'u', RULE_NONE},
    {"v_subb_co_u32", execute_carry, 4, "ddsss", 'u', RULE_NONE},
    {"v_subbrev_co_u32", execute_carry, 5, "ddsss", 'u', RULE_NONE},
    {"v_mad_u64_u32", execute_multiply_add64, 0, "ddsss", 'w', RULE_NONE},
    {"v_mad_i64_i32", execute_multiply_add64, 1, "ddsss", 'l', RULE_NONE},
    {"v_div_scale_f32", execute_div_scale32, 0, "ddsss", 'f', RULE_NONE},
    {"v_div_scale_f64", execute_div_scale64, 0, "ddsss", 'd', RULE_NONE},
    {"v_div_fmas_f32", execute_div_fmas32, 0, "dsss", 'f', RULE_DIVISION},
    {"v_div_fmas_f64", execute_div_fmas64, 0, "dsss", 'd', RULE_DIVISION},
    {"v_readfirstlane_b32", execute_read_first, 0, "ds", 'u', RULE_LANE_ACCESS},
    {"v_readlane_b32", execute_read_lane, 0, "dss", 'u', RULE_LANE_ACCESS},
    {"v_writelane_b32", execute_write_lane, 0, "bss", 'u', RULE_LANE_ACCESS},
    {"v_mbcnt_lo_u32_b32", execute_count_below, 0, "dss", 'u', RULE_NONE},
    {"v_mbcnt_hi_u32_b32", execute_count_below, 1, "dss", 'u', RULE_NONE},
    {"v_swap_b32", execute_swap, 0, "bb", 'u', RULE_NONE},
    {"v_permlane32_swap_b32", execute_swap_rows, 32, "bb", 'u', RULE_PERMLANE},
    {"v_permlane16_swap_b32", execute_swap_rows, 16, "bb", 'u', RULE_PERMLANE},
    {"v_bitop3_b32", execute_bit_table, 0, "dsss", 'u', RULE_NONE},
    {"v_bitop3_b16", execute_bit_table, 1, "bsss", 's', RULE_NONE},
    {"v_fma_mixlo_f16", execute_mix_half, 0, "bsss", 'f', RULE_NONE},
    {"v_fma_mixhi_f16", execute_mix_half, 1, "bsss", 'f', RULE_NONE},
    {"v_cvt_pk_fp8_f32", execute_pack_fp8, 0, "bss", 'f', RULE_NONE},
    {"v_cvt_pk_bf8_f32", execute_pack_fp8, 1, "bss", 'f', RULE_NONE},
    {"v_cvt_sr_fp8_f32", execute_round_fp8, 0, "bss", 'f', RULE_NONE},
    {"v_cvt_sr_bf8_f32", execute_round_fp8, 1, "bss", 'f', RULE_NONE},
    {"v_cvt_f32_fp8", execute_unpack_fp8, 0, "ds", 'u', RULE_NONE},
    {"v_cvt_f32_bf8", execute_unpack_fp8, 1, "ds", 'u', RULE_NONE},
    {"v_cvt_pk_f32_fp8", execute_unpack_fp8, 2, "ds", 'u', RULE_NONE},
    {"v_cvt_pk_f32_bf8", execute_unpack_fp8, 3, "ds", 'u', RULE_NONE},
    {"v_cvt_scalef32_pk_f32_fp8", execute_unpack_scaled, (uint8_t)NARROW_FP8, "dss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_fp8_f32", execute_pack_scaled, (uint8_t)NARROW_FP8, "bsss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_f32_bf8", execute_unpack_scaled, (uint8_t)NARROW_BF8, "dss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_bf8_f32", execute_pack_scaled, (uint8_t)NARROW_BF8, "bsss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_f32_fp4", execute_unpack_scaled, (uint8_t)NARROW_FP4, "dss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_fp4_f32", execute_pack_scaled, (uint8_t)NARROW_FP4, "bsss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_f16_fp8", execute_unpack_scaled, WIDE_HALF | (uint8_t)NARROW_FP8, "dss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_fp8_f16", execute_pack_scaled, WIDE_HALF | (uint8_t)NARROW_FP8, "bss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_f16_bf8", execute_unpack_scaled, WIDE_HALF | (uint8_t)NARROW_BF8, "dss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_bf8_f16", execute_pack_scaled, WIDE_HALF | (uint8_t)NARROW_BF8, "bss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_f16_fp4", execute_unpack_scaled, WIDE_HALF | (uint8_t)NARROW_FP4, "dss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_fp4_f16", execute_pack_scaled, WIDE_HALF | (uint8_t)NARROW_FP4, "bss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_bf16_fp8", execute_unpack_scaled, WIDE_BFLOAT | (uint8_t)NARROW_FP8, "dss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_fp8_bf16", execute_pack_scaled, WIDE_BFLOAT | (uint8_t)NARROW_FP8, "bss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_bf16_bf8", execute_unpack_scaled, WIDE_BFLOAT | (uint8_t)NARROW_BF8, "dss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_bf8_bf16", execute_pack_scaled, WIDE_BFLOAT | (uint8_t)NARROW_BF8, "bss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_bf16_fp4", execute_unpack_scaled, WIDE_BFLOAT | (uint8_t)NARROW_FP4, "dss", 'f', RULE_NONE},
    {"v_cvt_scalef32_pk_fp4_bf16", execute_pack_scaled, WIDE_BFLOAT | (uint8_t)NARROW_FP4, "bss", 'f', RULE_NONE},
    {"v_cvt_scalef32_f32_fp8", execute_unpack_one_scaled, NARROW_FP8, "dss", 'f', RULE_NONE},
    {"v_cvt_scalef32_f32_bf8", execute_unpack_one_scaled, NARROW_BF8, "dss", 'f', RULE_NONE},
    {"v_cvt_sr_f16_f32", execute_round_half, 0, "bss", 'f', RULE_NONE},
    {"v_cvt_sr_bf16_f32", execute_round_half, 1, "bss", 'f', RULE_NONE},
    {"v_nop", execute_nothing, 0, "", 'u', RULE_NONE},
};

bool cross_lane_resolve(instruction *i, gcn_target target) {
  (void)target;
  for (size_t k = 0; k < sizeof table / sizeof *table; k++) {
    if (strcmp(table[k].name, i->mnemonic) != 0) continue;
    size_t count = strlen(table[k].operands);
    bool fp8 = table[k].execute == execute_unpack_fp8;
    if (i->operands != count || i->dpp || (i->sdwa && !fp8) || i->output_scale) return false;
    for (size_t n = 0; n < count; n++) {
      operand *o = &i->operand[n];
      char what = table[k].operands[n];
      settle_constant(o, table[k].type);
      if (o->kind == OPERAND_OFF || o->kind == OPERAND_NONE) return false;
      if (what != 's') mark_writes(i, o);
      if (what != 'd') mark_reads(i, o);
    }
    if (table[k].execute == execute_div_fmas32 || table[k].execute == execute_div_fmas64) {
      i->scalar_reads[REGISTER_VCC / 64] |= UINT64_C(3) << (REGISTER_VCC % 64);
    }
    i->partial_write = table[k].execute == execute_pack_fp8 || table[k].execute == execute_round_fp8 ||
                       table[k].execute == execute_mix_half || table[k].execute == execute_round_half ||
                       table[k].execute == execute_pack_scaled;
    i->rule = table[k].rule;
    i->variant = table[k].variant;
    i->execute = table[k].execute;
    i->class = CLASS_VECTOR;
    return true;
  }
  return false;
}

/* The interpreter instruction by instruction: each case of amdgcn_instructions.inc on edge values and random ones,
 * against plain C; conversions exhaustively. */
#include "amdgcn/assemble.h"
#include <fenv.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LANES = 64, ROUNDS = 24 };
#define OLD_LOW 0x12345678u
#define OLD_HIGH 0x9abcdef0u

static gcn_machine *machine;
static uint64_t random_state;

static uint32_t random_bits(void) {
  random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (uint32_t)(random_state >> 32);
}

static void must(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

/* ---- What C says ---- */

static float as_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
static double as_double(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
static _Float16 half_of(uint32_t bits) {
  uint16_t low = (uint16_t)bits;
  _Float16 value;
  memcpy(&value, &low, sizeof value);
  return value;
}
static uint16_t half_bits(_Float16 value) {
  uint16_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
static uint64_t pair(float low, float high) {
  uint32_t parts[2];
  uint64_t both;
  memcpy(&parts[0], &low, 4);
  memcpy(&parts[1], &high, 4);
  memcpy(&both, parts, 8);
  return both;
}
static float normal(float x) {
  return fpclassify(x) == FP_SUBNORMAL ? copysignf(0, x) : x;
}
static uint32_t permute_byte(uint32_t a, uint32_t b, uint32_t pick) {
  uint64_t both = (uint64_t)a << 32 | b;
  if (pick >= 13) return 255;
  if (pick == 12) return 0;
  if (pick >= 8) return both >> (16 * (pick - 8) + 15) & 1 ? 255 : 0;
  return both >> (8 * pick) & 255;
}
static int32_t median(int32_t a, int32_t b, int32_t c) {
  if ((a <= b && b <= c) || (c <= b && b <= a)) return b;
  if ((b <= a && a <= c) || (c <= a && a <= b)) return a;
  return c;
}
static int32_t dot4(uint32_t a, uint32_t b) {
  int32_t sum = 0;
  for (int k = 0; k < 32; k += 8) sum += (int8_t)(a >> k) * (int8_t)(b >> k);
  return sum;
}
static uint32_t distance(uint32_t a, uint32_t b, int shift) {
  return (uint32_t)abs((int)(a >> shift & 255) - (int)(b >> shift & 255));
}
static uint32_t byte_of(int32_t x) {
  return (uint32_t)(x < 0 ? 0 : x > 255 ? 255 : x);
}
static float fp4(uint32_t bits) {
  static const float values[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  return bits & 8 ? -values[bits & 7] : values[bits & 7];
}
static float fp8_value(uint32_t bits) {
  int exponent = (int)(bits >> 3 & 15), mantissa = (int)(bits & 7);
  float value = exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
  if ((bits & 127) == 127) return NAN;
  return bits & 128 ? -value : value;
}
static float rounded(float a, float b, int mode) {
  volatile float x = a, y = b;
  fesetround(mode);
  volatile float sum = x + y;
  fesetround(FE_TONEAREST);
  return sum;
}

enum kind { kind_u, kind_w, kind_f, kind_d, kind_h };
typedef struct sources {
  uint64_t a[LANES], b[LANES], c[LANES];
} sources;

/* Groups of 16 lanes turn rows of 16 elements, which four lanes hold each: lane l gets column l % 16 of four rows. */
static uint64_t transposed16(const sources *s, uint32_t l) {
  uint64_t r = 0;
  for (uint32_t row = 0; row < 4; row++)
    r |= (s->a[(l & 48) + 4 * row + (l & 15) / 4] >> (16 * (l & 3)) & 0xffff) << (16 * row);
  return r;
}

static uint64_t double_bits(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
static uint64_t bits_u(uint64_t value) {
  return (uint32_t)value;
}
static uint64_t bits_w(uint64_t value) {
  return value;
}
static uint64_t bits_f(float value) {
  return (uint32_t)pair(value, 0);
}
static uint64_t bits_d(double value) {
  return double_bits(value);
}
static uint64_t bits_h(_Float16 value) {
  return half_bits(value);
}

#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wfloat-conversion"
#define X(id, text, kind, value)                                                                                       \
  static uint64_t want_##id(const sources *s, uint32_t l) {                                                            \
    uint64_t A = s->a[l], B = s->b[l], C = s->c[l];                                                                    \
    uint32_t a = (uint32_t)A, b = (uint32_t)B, c = (uint32_t)C;                                                        \
    const uint64_t *lane_a = s->a, *lane_b = s->b;                                                                     \
    float fa = as_float(a), fb = as_float(b), fc = as_float(c);                                                        \
    float fA = as_float((uint32_t)(A >> 32)), fB = as_float((uint32_t)(B >> 32)), fC = as_float((uint32_t)(C >> 32));  \
    double da = as_double(A), db = as_double(B), dc = as_double(C);                                                    \
    _Float16 ha = half_of(a), hb = half_of(b), hc = half_of(c);                                                        \
    return bits_##kind(value);                                                                                         \
  }
#include "amdgcn_instructions.inc"
#undef X

static const struct {
  const char *id, *text;
  enum kind kind;
  uint64_t (*want)(const sources *s, uint32_t lane);
} cases[] = {
#define X(id, text, kind, value) {#id, text, kind_##kind, want_##id},
#include "amdgcn_instructions.inc"
#undef X
};
enum { CASES = sizeof cases / sizeof *cases };

static uint64_t edge_value(void) {
  static const uint32_t words[] = {0,          1,          2,          0x7fffffff, 0x80000000, 0xffffffff,
                                   0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0x00400000,
                                   0x807fffff, 0x00800000, 0x7f7fffff, 0x4b800001, 0x3effffff, 0x40200000,
                                   0x3c003c00, 0x7c00fc00, 0x03ff8001, 0x7bff7e00, 0x42fc0000, 0xc3160000};
  uint32_t low = random_bits() % 3 ? words[random_bits() % (sizeof words / sizeof *words)] : random_bits();
  uint32_t high = random_bits() % 3 ? words[random_bits() % (sizeof words / sizeof *words)] : random_bits();
  return low | (uint64_t)high << 32;
}

static void fill(sources *s, int round) {
  for (int l = 0; l < LANES; l++) {
    uint64_t *values[] = {&s->a[l], &s->b[l], &s->c[l]};
    for (int k = 0; k < 3; k++) {
      uint64_t wide = random_bits() | (uint64_t)random_bits() << 32;
      float small = (float)(int32_t)random_bits() * 0x1p-28f;
      if (round % 3 == 0) wide = edge_value();
      if (round % 3 == 1) wide = pair(small, -small);
      *values[k] = wide;
    }
  }
}

static bool same(enum kind kind, uint64_t got, uint64_t want) {
  switch (kind) {
  case kind_u:
    return (uint32_t)got == (uint32_t)want;
  case kind_w: {
    if (got == want) return true;
    /* Two float32 results: NaNs are equal. */
    float g[2] = {as_float((uint32_t)got), as_float((uint32_t)(got >> 32))},
          v[2] = {as_float((uint32_t)want), as_float((uint32_t)(want >> 32))};
    for (int k = 0; k < 2; k++) {
      if ((uint32_t)(got >> (32 * k)) != (uint32_t)(want >> (32 * k)) && !(g[k] != g[k] && v[k] != v[k])) return false;
    }
    return true;
  }
  case kind_f:
    return (uint32_t)got == (uint32_t)want ||
           (as_float((uint32_t)got) != as_float((uint32_t)got) && as_float((uint32_t)want) != as_float((uint32_t)want));
  case kind_d:
    return got == want || (as_double(got) != as_double(got) && as_double(want) != as_double(want));
  default: {
    float g = (float)half_of((uint32_t)got), v = (float)half_of((uint32_t)want);
    return (uint16_t)got == (uint16_t)want || (g != g && v != v);
  }
  }
}

static bool is_here(int k) {
  return strncmp(cases[k].id, "gfx950_", 7) != 0 || gcn_machine_target(machine) == GCN_GFX950;
}

/* One kernel with all cases behind each other; a workgroup a round of sources. */
static void test_cases(void **state) {
  (void)state;
  char *body = malloc(1024 * CASES + 4096);
  assert_non_null(body);
  char *at = body;
  at += sprintf(
      at,
      "s_load_dwordx4 s[8:11], s[0:1], 0x0\nv_lshlrev_b32 v1, 3, v0\ns_mul_i32 s12, s2, %d\ns_mul_i32 s13, s2, %d\n"
      "s_mov_b32 s24, 0x40490fdb\ns_mov_b32 s25, 11\ns_mov_b32 s20, 0xaaaaaaaa\ns_mov_b32 s21, 0xaaaaaaaa\n"
      "s_mov_b64 vcc, s[20:21]\ns_waitcnt lgkmcnt(0)\ns_add_u32 s8, s8, s12\ns_addc_u32 s9, s9, 0\ns_add_u32 s10, s10, "
      "s13\n"
      "s_addc_u32 s11, s11, 0\nglobal_load_dwordx2 v[10:11], v1, s[8:9]\nglobal_load_dwordx2 v[12:13], v1, s[8:9] "
      "offset:512\n"
      "global_load_dwordx2 v[14:15], v1, s[8:9] offset:1024\ns_waitcnt vmcnt(0)\n",
      (int)sizeof(sources), 512 * CASES);
  for (int k = 0; k < CASES; k++) {
    at += sprintf(
        at,
        "v_mov_b32 v20, 0x%x\nv_mov_b32 v21, 0x%x\ns_nop 4\n%s\ns_nop 4\nglobal_store_dwordx2 v1, v[20:21], s[10:11]\n"
        "s_add_u32 s10, s10, 512\ns_addc_u32 s11, s11, 0\n",
        OLD_LOW, OLD_HIGH, is_here(k) ? cases[k].text : "s_nop 0");
  }
  strcpy(at, "s_endpgm\n");
  uint8_t *file;
  size_t bytes;
  gcn_module *module;
  must(gcn_assemble(gcn_machine_target(machine), &(gcn_assembly){.body = body, .kernarg_bytes = 16, .lds_bytes = 512},
                    1, &file, &bytes));
  free(body);
  must(gcn_module_load(machine, file, bytes, &module));
  free(file);
  sources *in;
  uint64_t *out;
  must(gcn_allocate(machine, sizeof *in * ROUNDS, (void **)&in));
  must(gcn_allocate(machine, (size_t)512 * CASES * ROUNDS, (void **)&out));
  for (int r = 0; r < ROUNDS; r++) fill(&in[r], r);
  struct {
    void *in, *out;
  } arguments = {in, out};
  must(gcn_launch(
      gcn_kernel_at(module, 0),
      &(gcn_launch_options){.grid = {ROUNDS}, .workgroup = {LANES}, .kernarg = &arguments, .kernarg_bytes = 16}));
  for (int r = 0; r < ROUNDS; r++) {
    for (int k = 0; k < CASES; k++) {
      for (uint32_t l = 0; l < LANES && is_here(k); l++) {
        uint64_t got = out[((size_t)r * CASES + (size_t)k) * LANES + l], want = cases[k].want(&in[r], l);
        if (same(cases[k].kind, got, want)) continue;
        fail_msg("%s, lane %u of %016llx %016llx %016llx: %016llx, expected %016llx", cases[k].text, l,
                 (unsigned long long)in[r].a[l], (unsigned long long)in[r].b[l], (unsigned long long)in[r].c[l],
                 (unsigned long long)got, (unsigned long long)want);
      }
    }
  }
  gcn_module_unload(module);
}

/* ---- Conversions, exhaustively: out[i] = f(in[i]) over many values ---- */

static uint32_t *convert_all(const char *text, const uint32_t *values, uint32_t count) {
  char body[2048];
  snprintf(
      body, sizeof body,
      "s_load_dwordx4 s[8:11], s[0:1], 0x0\ns_lshl_b32 s12, s2, 8\nv_lshlrev_b32 v1, 2, v0\ns_waitcnt lgkmcnt(0)\n"
      "v_add_u32 v1, s12, v1\nglobal_load_dword v10, v1, s[8:9]\nv_mov_b32 v20, 0\ns_waitcnt vmcnt(0)\n%s\ns_nop 1\n"
      "global_store_dword v1, v20, s[10:11]\ns_endpgm\n",
      text);
  uint8_t *file;
  size_t bytes;
  gcn_module *module;
  uint32_t *in, *out, groups = (count + LANES - 1) / LANES;
  must(gcn_assemble(gcn_machine_target(machine), &(gcn_assembly){.body = body, .kernarg_bytes = 16}, 1, &file, &bytes));
  must(gcn_module_load(machine, file, bytes, &module));
  free(file);
  must(gcn_allocate(machine, (size_t)4 * LANES * groups, (void **)&in));
  must(gcn_allocate(machine, (size_t)4 * LANES * groups, (void **)&out));
  memcpy(in, values, (size_t)4 * count);
  struct {
    void *in, *out;
  } arguments = {in, out};
  must(gcn_launch(
      gcn_kernel_at(module, 0),
      &(gcn_launch_options){.grid = {groups}, .workgroup = {LANES}, .kernarg = &arguments, .kernarg_bytes = 16}));
  gcn_module_unload(module);
  must(gcn_release(machine, in));
  return out;
}

/* A format of 8 bits or less, and what its bits stand for, from the definition. */
typedef struct format {
  int exponent_bits, mantissa_bits, bias;
  bool fnuz, infinity;
} format;

static double value_of(const format *f, uint32_t bits) {
  int exponent = (int)(bits >> f->mantissa_bits) & ((1 << f->exponent_bits) - 1),
      mantissa = (int)bits & ((1 << f->mantissa_bits) - 1);
  double sign = bits >> (f->exponent_bits + f->mantissa_bits) & 1 ? -1 : 1;
  int top = (1 << f->exponent_bits) - 1, ones = (1 << f->mantissa_bits) - 1;
  if (f->fnuz && sign < 0 && !exponent && !mantissa) return (double)NAN;
  if (f->infinity && exponent == top) return mantissa ? (double)NAN : sign * (double)INFINITY;
  if (!f->fnuz && !f->infinity && exponent == top && mantissa == ones) return (double)NAN;
  double fraction = (double)mantissa / (1 << f->mantissa_bits);
  return sign * (exponent ? ldexp(1 + fraction, exponent - f->bias) : ldexp(fraction, 1 - f->bias));
}

static format fp8(bool e5, bool fnuz) {
  return e5 ? (format){5, 2, fnuz ? 16 : 15, fnuz, !fnuz} : (format){4, 3, fnuz ? 8 : 7, fnuz, false};
}

/* All 256 values of both formats to float32. */
static void test_from_fp8(void **state) {
  (void)state;
  bool fnuz = gcn_machine_target(machine) == GCN_GFX942;
  uint32_t values[256];
  for (uint32_t k = 0; k < 256; k++) values[k] = k << 16 | 0x5a00a5;
  for (uint32_t k = 0; k < 256; k++) values[k] = (values[k] & 0xff00ffff) | k << 16;
  for (int e5 = 0; e5 < 2; e5++) {
    format f = fp8(e5, fnuz);
    uint32_t *out =
        convert_all(e5 ? "v_cvt_f32_bf8_sdwa v20, v10 src0_sel:BYTE_2" : "v_cvt_f32_fp8_sdwa v20, v10 src0_sel:BYTE_2",
                    values, 256);
    for (uint32_t k = 0; k < 256; k++) {
      double want = value_of(&f, k), got = (double)as_float(out[k]);
      if (!(got == want && signbit(got) == signbit(want)) && !(got != got && want != want))
        fail_msg("%02x: %g, expected %g", k, got, want);
    }
  }
}

/* The nearest value of a format, by looking at all; ties to even bits; past the largest and its half a place: too
 * large. */
static uint32_t nearest(const format *f, double x, bool *too_large) {
  uint32_t best = 0, half = 1u << (f->exponent_bits + f->mantissa_bits);
  double distance = (double)INFINITY, largest = 0, below = 0;
  for (uint32_t k = 0; k < half; k++) {
    double v = value_of(f, k);
    if (v != v || isinf(v)) continue;
    if (v > largest) below = largest, largest = v;
    double d = fabs(v - fabs(x));
    if (d < distance || (d == distance && !(k & 1))) distance = d, best = k;
  }
  double limit = largest + (largest - below) / 2;
  *too_large = fabs(x) > limit || (fabs(x) == limit && (best & 1));
  return best;
}

static uint32_t all_floats(uint32_t **out) {
  static const uint32_t lows[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
  uint32_t count = 0, *values = malloc(sizeof *values * 65536 * 6);
  assert_non_null(values);
  for (uint32_t high = 0; high < 65536; high++) {
    for (int k = 0; k < 6; k++) values[count++] = high << 16 | lows[k];
  }
  *out = values;
  return count;
}

static void test_to_fp8(void **state) {
  (void)state;
  bool fnuz = gcn_machine_target(machine) == GCN_GFX942;
  uint32_t *values, count = all_floats(&values);
  for (int e5 = 0; e5 < 2; e5++) {
    format f = fp8(e5, fnuz);
    uint32_t *out = convert_all(e5 ? "v_cvt_pk_bf8_f32 v20, v10, -v10 op_sel:[0,0,1]"
                                   : "v_cvt_pk_fp8_f32 v20, v10, -v10 op_sel:[0,0,1]",
                                values, count);
    uint32_t *clamped =
        convert_all(e5 ? "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 23, 1), 1\nv_cvt_pk_bf8_f32 v20, v10, v10"
                       : "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 23, 1), 1\nv_cvt_pk_fp8_f32 v20, v10, v10",
                    values, count);
    uint32_t most = 0;
    for (uint32_t k = 0; k < 128; k++) most = isfinite(value_of(&f, k)) ? k : most;
    for (uint32_t k = 0; k < count; k++) {
      float x = as_float(values[k]);
      bool too_large = false;
      uint32_t want = nearest(&f, (double)x, &too_large), limited = want;
      if (isinf(x)) too_large = true;
      if (too_large) want = f.infinity ? most + 1 : 0x7f, limited = most;
      if (too_large && fnuz) want = 0x80;
      if (signbit(x) && !(fnuz && (want == 0 || want == 0x80))) want |= 0x80;
      if (signbit(x) && !(fnuz && limited == 0)) limited |= 0x80;
      if (x != x) {
        double got = value_of(&f, out[k] >> 16 & 255);
        assert_true(got != got);
        continue;
      }
      if ((out[k] >> 16 & 255) != want)
        fail_msg("%g (%08x): %02x, expected %02x", (double)x, values[k], out[k] >> 16 & 255, want);
      if ((clamped[k] & 255) != limited)
        fail_msg("%g (%08x) clamped: %02x, expected %02x", (double)x, values[k], clamped[k] & 255, limited);
      uint32_t other = want ^ 0x80;
      if (fnuz && (want == 0 || want == 0x80)) other = want;
      if (out[k] >> 24 != other) fail_msg("-%g: %02x, expected %02x", (double)x, out[k] >> 24, other);
    }
    must(gcn_release(machine, out));
    must(gcn_release(machine, clamped));
  }
  free(values);
}

/* float16 from float32 by integers alone: 10 bits of mantissa, nearest even. */
static uint32_t half_by_integers(uint32_t bits) {
  uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) return sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
  uint32_t exponent = magnitude >> 23, shift = 126 - exponent;
  if (exponent < 102) return sign;
  uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000, kept = mantissa >> shift,
           rest = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
  return sign | (kept + (rest > half || (rest == half && (kept & 1))));
}

static void test_half_and_bfloat(void **state) {
  (void)state;
  uint32_t *values, count = all_floats(&values);
  uint32_t *out = convert_all("v_cvt_f16_f32 v20, v10", values, count);
  uint32_t *zero = convert_all("v_cvt_pkrtz_f16_f32 v20, v10, -v10", values, count);
  for (uint32_t k = 0; k < count; k++) {
    uint32_t want = half_by_integers(values[k]);
    bool nan = (values[k] & 0x7fffffff) > 0x7f800000;
    if (nan ? (out[k] & 0x7c00) != 0x7c00 || !(out[k] & 0x3ff) : out[k] != want)
      fail_msg("%08x: %04x, expected %04x", values[k], out[k], want);
    if (nan) continue;
    float x = as_float(values[k]);
    if (fabsf((float)half_of(want)) > fabsf(x) && !isinf(x)) want--;
    if ((zero[k] & 0xffff) != want || zero[k] >> 16 != (want ^ 0x8000))
      fail_msg("%08x toward zero: %08x, expected %04x", values[k], zero[k], want);
  }
  must(gcn_release(machine, out));
  must(gcn_release(machine, zero));
  if (gcn_machine_target(machine) == GCN_GFX950) {
    out = convert_all("v_cvt_pk_bf16_f32 v20, v10, -v10", values, count);
    for (uint32_t k = 0; k < count; k++) {
      uint32_t high = values[k] >> 16, low = values[k] & 0xffff,
               want = high + (low > 0x8000 || (low == 0x8000 && (high & 1)));
      if ((values[k] & 0x7fffffff) > 0x7f800000) {
        assert_true((out[k] & 0x7f80) == 0x7f80 && (out[k] & 0x7f));
        continue;
      }
      if ((out[k] & 0xffff) != want || out[k] >> 16 != (want ^ 0x8000))
        fail_msg("%08x: %08x, expected %04x", values[k], out[k], want);
    }
    must(gcn_release(machine, out));
  }
  uint32_t halves[65536];
  for (uint32_t k = 0; k < 65536; k++) halves[k] = k;
  out = convert_all("v_cvt_f32_f16 v20, v10", halves, 65536);
  for (uint32_t k = 0; k < 65536; k++) {
    int exponent = (int)(k >> 10 & 31), mantissa = (int)(k & 1023);
    double want = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    float got = as_float(out[k]);
    if (exponent == 31)
      assert_true(mantissa ? got != got : isinf(got));
    else
      assert_true((double)fabsf(got) == want);
    if (got == got) assert_int_equal(signbit(got) != 0, k >> 15);
  }
  free(values);
}

static int open_machine(gcn_target target) {
  random_state = 3;
  must(gcn_machine_create(target, &machine));
  return 0;
}
static int open_gfx942(void **state) {
  (void)state;
  return open_machine(GCN_GFX942);
}
static int open_gfx950(void **state) {
  (void)state;
  return open_machine(GCN_GFX950);
}
static int close_machine(void **state) {
  (void)state;
  gcn_machine_free(machine);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases), cmocka_unit_test(test_from_fp8),
                                     cmocka_unit_test(test_to_fp8), cmocka_unit_test(test_half_and_bfloat)};
  int failed = cmocka_run_group_tests_name("gfx942", tests, open_gfx942, close_machine);
  return failed + cmocka_run_group_tests_name("gfx950", tests, open_gfx950, close_machine);
}

/* Matrix instructions: every shape, where its elements are, and how it rounds. */
#include "amdgcn/assemble.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LANES = 64, MAX_REGISTERS = 32 };

static gcn_machine *machine;
static uint64_t random_state = 9;

static uint32_t random_bits(void) {
  random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (uint32_t)(random_state >> 32);
}

static void must(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

typedef enum element { F32, F16, BF16, I8, FP8, BF8, XF32, FP4 } element;

typedef struct shape {
  const char *name;
  int rows, depth, blocks;
  element a, b;
  int only; /* 942 or 950; 0: both */
  int cycles;
  const char *modifiers;
} shape;

static const shape shapes[] = {
    {"v_mfma_f32_32x32x1_2b_f32", 32, 1, 2, F32, F32, 0, 64, ""},
    {"v_mfma_f32_16x16x1_4b_f32", 16, 1, 4, F32, F32, 0, 32, ""},
    {"v_mfma_f32_4x4x1_16b_f32", 4, 1, 16, F32, F32, 0, 8, ""},
    {"v_mfma_f32_32x32x2_f32", 32, 2, 1, F32, F32, 0, 64, ""},
    {"v_mfma_f32_16x16x4_f32", 16, 4, 1, F32, F32, 0, 32, ""},
    {"v_mfma_f32_32x32x4_2b_f16", 32, 4, 2, F16, F16, 0, 64, ""},
    {"v_mfma_f32_16x16x4_4b_f16", 16, 4, 4, F16, F16, 0, 32, ""},
    {"v_mfma_f32_4x4x4_16b_f16", 4, 4, 16, F16, F16, 0, 8, ""},
    {"v_mfma_f32_32x32x8_f16", 32, 8, 1, F16, F16, 0, 32, ""},
    {"v_mfma_f32_16x16x16_f16", 16, 16, 1, F16, F16, 0, 16, ""},
    {"v_mfma_f32_32x32x4_2b_bf16", 32, 4, 2, BF16, BF16, 0, 64, ""},
    {"v_mfma_f32_16x16x4_4b_bf16", 16, 4, 4, BF16, BF16, 0, 32, ""},
    {"v_mfma_f32_4x4x4_16b_bf16", 4, 4, 16, BF16, BF16, 0, 8, ""},
    {"v_mfma_f32_32x32x8_bf16", 32, 8, 1, BF16, BF16, 0, 32, ""},
    {"v_mfma_f32_16x16x16_bf16", 16, 16, 1, BF16, BF16, 0, 16, ""},
    {"v_mfma_f32_16x16x8_xf32", 16, 8, 1, XF32, XF32, 942, 16, ""},
    {"v_mfma_f32_32x32x4_xf32", 32, 4, 1, XF32, XF32, 942, 32, ""},
    {"v_mfma_f32_16x16x32_fp8_fp8", 16, 32, 1, FP8, FP8, 0, 16, ""},
    {"v_mfma_f32_16x16x32_bf8_fp8", 16, 32, 1, BF8, FP8, 0, 16, ""},
    {"v_mfma_f32_32x32x16_fp8_bf8", 32, 16, 1, FP8, BF8, 0, 32, ""},
    {"v_mfma_f32_32x32x16_bf8_bf8", 32, 16, 1, BF8, BF8, 0, 32, ""},
    {"v_mfma_i32_16x16x32_i8", 16, 32, 1, I8, I8, 0, 16, ""},
    {"v_mfma_i32_32x32x16_i8", 32, 16, 1, I8, I8, 0, 32, ""},
    {"v_mfma_i32_32x32x4_2b_i8", 32, 4, 2, I8, I8, 0, 64, ""},
    {"v_mfma_i32_16x16x4_4b_i8", 16, 4, 4, I8, I8, 0, 32, ""},
    {"v_mfma_i32_4x4x4_16b_i8", 4, 4, 16, I8, I8, 0, 8, ""},
    {"v_mfma_f32_16x16x32_f16", 16, 32, 1, F16, F16, 950, 16, ""},
    {"v_mfma_f32_32x32x16_f16", 32, 16, 1, F16, F16, 950, 32, ""},
    {"v_mfma_f32_16x16x32_bf16", 16, 32, 1, BF16, BF16, 950, 16, ""},
    {"v_mfma_f32_32x32x16_bf16", 32, 16, 1, BF16, BF16, 950, 32, ""},
    {"v_mfma_i32_16x16x64_i8", 16, 64, 1, I8, I8, 950, 16, ""},
    {"v_mfma_i32_32x32x32_i8", 32, 32, 1, I8, I8, 950, 32, ""},
    {"v_mfma_f32_16x16x128_f8f6f4", 16, 128, 1, FP8, BF8, 950, 32, "cbsz:0 blgp:1"},
    {"v_mfma_f32_32x32x64_f8f6f4", 32, 64, 1, FP4, FP4, 950, 32, "cbsz:4 blgp:4"},
    {"v_mfma_f32_16x16x128_f8f6f4", 16, 128, 1, FP4, FP4, 950, 16, "cbsz:4 blgp:4"},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static int bits_of(element type) {
  static const int bits[] = {32, 16, 16, 8, 8, 8, 32, 4};
  return bits[type];
}

static uint32_t float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

/* Bits of a small integer that every format has: -1, 0, 1 or 2. */
static uint32_t encode(element type, int value) {
  bool fnuz = gcn_machine_target(machine) == GCN_GFX942;
  _Float16 half = (_Float16)value;
  uint16_t half_bits;
  memcpy(&half_bits, &half, sizeof half_bits);
  uint32_t magnitude = (uint32_t)abs(value), sign = value < 0;
  switch (type) {
  case F32:
  case XF32:
    return float_bits((float)value);
  case F16:
    return half_bits;
  case BF16:
    return float_bits((float)value) >> 16;
  case I8:
    return (uint8_t)value;
  case FP8:
    return magnitude == 0 ? 0 : sign << 7 | (6 + magnitude + fnuz) << 3;
  case BF8:
    return magnitude == 0 ? 0 : sign << 7 | (14 + magnitude + fnuz) << 2;
  default:
    return magnitude == 0 ? 0 : sign << 3 | magnitude << 1;
  }
}

/* Registers of one operand: [register][lane]. */
typedef uint32_t registers[MAX_REGISTERS][LANES];

static void place(registers r, element type, int lane, int index, uint32_t bits) {
  int at = index * bits_of(type);
  r[at / 32][lane] |= bits << (at % 32);
}

typedef struct memory {
  registers a, b, c, d;
} memory;

/* Runs one instruction: a in v[0:31], b in a[64:95], c in a[0:31], d in a[32:63]. */
static void run_instruction(const char *name, int rows, int blocks, int a_count, int b_count, const char *modifiers,
                            memory *m, gcn_counts *counts) {
  char body[16384], *at = body;
  int d_count = rows * rows * blocks / LANES;
  at += sprintf(at, "s_load_dwordx2 s[6:7], s[0:1], 0x0\nv_lshlrev_b32 v100, 2, v0\ns_waitcnt lgkmcnt(0)\n");
  for (int k = 0; k < MAX_REGISTERS; k++) {
    at += sprintf(
        at, "global_load_dword v%d, v100, s[6:7]\nv_add_u32 v101, 0x2000, v100\nglobal_load_dword a%d, v101, s[6:7]\n",
        k, 64 + k);
    at += sprintf(
        at, "v_add_u32 v102, 0x4000, v100\nglobal_load_dword a%d, v102, s[6:7]\nv_add_u32 v100, 0x100, v100\n", k);
  }
  at += sprintf(at, "s_waitcnt vmcnt(0)\n%s a[32:%d], v[0:%d], a[64:%d], a[0:%d] %s\ns_nop 15\ns_nop 15\n", name,
                31 + d_count, a_count - 1, 63 + b_count, d_count - 1, modifiers);
  /* A single register is written without brackets. */
  at += sprintf(at, "v_add_u32 v100, 0x4000, v100\n");
  for (int k = 0; k < d_count; k++)
    at += sprintf(at, "global_store_dword v100, a%d, s[6:7]\nv_add_u32 v100, 0x100, v100\n", 32 + k);
  strcpy(at, "s_endpgm\n");
  static const char *const singles[] = {"v[0:0]", "a[64:64]"};
  for (int k = 0; k < 2; k++) {
    char *found = strstr(body, singles[k]);
    if (found) memcpy(found, k == 0 ? "v0    " : "a64     ", strlen(singles[k]));
  }
  /* The same instruction comes many times in a row. */
  static gcn_module *module;
  static char last[16384];
  static gcn_machine *of;
  uint8_t *file;
  size_t bytes;
  if (of != machine || strcmp(last, body) != 0) {
    must(
        gcn_assemble(gcn_machine_target(machine), &(gcn_assembly){.body = body, .kernarg_bytes = 8}, 1, &file, &bytes));
    must(gcn_module_load(machine, file, bytes, &module));
    free(file);
    strcpy(last, body);
    of = machine;
  }
  must(gcn_register(machine, m, sizeof *m));
  must(gcn_launch(gcn_kernel_at(module, 0),
                  &(gcn_launch_options){.workgroup = {LANES}, .kernarg = &m, .kernarg_bytes = 8, .counts = counts}));
  must(gcn_unregister(machine, m));
}

static int row_of(const shape *s, int lane, int r) {
  if (s->rows == 4) return r;
  if (s->rows == 16) return 4 * (lane / 16) + r % 4;
  return 8 * (r % 16 / 4) + 4 * (lane / 32) + r % 4;
}
static int block_of(const shape *s, int lane, int r) {
  return s->rows == 4 ? lane / 4 : s->rows == 16 ? r / 4 : r / 16;
}

/* Small integers: every sum is exact, so that only the places matter. */
static void check_places(const shape *s) {
  static int a[16][64][128], b[16][64][128];
  memory *m = calloc(1, sizeof *m);
  assert_non_null(m);
  int groups = LANES / s->rows / s->blocks, each = s->depth / groups;
  for (int l = 0; l < LANES; l++) {
    int group = l / s->rows, block = group / groups, row = l % s->rows;
    for (int k = 0; k < each; k++) {
      int depth = group % groups * each + k;
      a[block][row][depth] = (int)(random_bits() % 4) - 1;
      b[block][row][depth] = (int)(random_bits() % 4) - 1;
      place(m->a, s->a, l, k, encode(s->a, a[block][row][depth]));
      place(m->b, s->b, l, k, encode(s->b, b[block][row][depth]));
    }
  }
  int results = s->rows * s->rows * s->blocks / LANES;
  for (int r = 0; r < results; r++) {
    for (int l = 0; l < LANES; l++)
      m->c[r][l] = s->a == I8 ? random_bits() % 1000 : float_bits((float)(random_bits() % 1000));
  }
  gcn_counts counts = {0};
  int a_count = (each * bits_of(s->a) + 31) / 32, b_count = (each * bits_of(s->b) + 31) / 32;
  run_instruction(s->name, s->rows, s->blocks, a_count, b_count, s->modifiers, m, &counts);
  if ((int)counts.matrix_cycles != s->cycles)
    fail_msg("%s: %d cycles, expected %d", s->name, (int)counts.matrix_cycles, s->cycles);
  for (int r = 0; r < results; r++) {
    for (int l = 0; l < LANES; l++) {
      int block = block_of(s, l, r), row = row_of(s, l, r), column = l % s->rows, sum = 0;
      for (int k = 0; k < s->depth; k++) sum += a[block][row][k] * b[block][column][k];
      float c;
      memcpy(&c, &m->c[r][l], sizeof c);
      uint32_t want = s->a == I8 ? m->c[r][l] + (uint32_t)sum : float_bits(c + (float)sum);
      if (m->d[r][l] != want)
        fail_msg("%s %s: register %d, lane %d: %08x, expected %08x", s->name, s->modifiers, r, l, m->d[r][l], want);
    }
  }
  free(m);
}

static void test_places(void **state) {
  (void)state;
  int here = gcn_machine_target(machine) == GCN_GFX942 ? 942 : 950;
  for (int k = 0; k < SHAPES; k++) {
    if (!shapes[k].only || shapes[k].only == here) check_places(&shapes[k]);
  }
}

/* The published rule for groups of products (see amdgcn/matrix.c), on plain doubles: exact, as all quantities are. */
static float published(const double *p, const int *e, int count, float c) {
  int top = -126, of_c = c == 0 ? -126 : ilogbf(c);
  for (int k = 0; k < count; k++) top = p[k] != 0 && e[k] > top ? e[k] : top;
  double sum = 0;
  for (int k = 0; k < count; k++) sum += ldexp(trunc(ldexp(p[k], 24 - top)), top - 24);
  int larger = of_c > top ? of_c : top;
  sum = ldexp(floor(ldexp(sum, 31 - larger)), larger - 31) + ldexp(floor(ldexp((double)c, 24 - larger)), larger - 24);
  return (float)sum;
}

/* Random bfloat16 of widely different sizes through v_mfma_f32_16x16x16_bf16. */
static void test_rounding(void **state) {
  (void)state;
  static float a[16][16], b[16][16];
  for (int round = 0; round < 8; round++) {
    memory *m = calloc(1, sizeof *m);
    assert_non_null(m);
    for (int l = 0; l < LANES; l++) {
      for (int k = 0; k < 4; k++) {
        uint32_t spread = round < 4 ? 7 : 31, x[2];
        for (int n = 0; n < 2; n++) {
          x[n] = (random_bits() & 0x807f) | (112 + (random_bits() & spread)) << 7;
          uint32_t wide = x[n] << 16;
          memcpy(n ? &b[l % 16][l / 16 * 4 + k] : &a[l % 16][l / 16 * 4 + k], &wide, 4);
        }
        place(m->a, BF16, l, k, x[0]);
        place(m->b, BF16, l, k, x[1]);
      }
    }
    for (int r = 0; r < 4; r++) {
      for (int l = 0; l < LANES; l++) m->c[r][l] = (random_bits() & 0x807fffff) | (110 + random_bits() % 40) << 23;
    }
    run_instruction("v_mfma_f32_16x16x16_bf16", 16, 1, 2, 2, "", m, NULL);
    for (int r = 0; r < 4; r++) {
      for (int l = 0; l < LANES; l++) {
        float sum;
        memcpy(&sum, &m->c[r][l], sizeof sum);
        for (int first = 0; first < 16; first += 8) {
          double p[8];
          int e[8];
          for (int k = 0; k < 8; k++) {
            float x = a[4 * (l / 16) + r][first + k], y = b[l % 16][first + k];
            p[k] = (double)x * (double)y;
            e[k] = ilogbf(x) + ilogbf(y);
          }
          sum = published(p, e, 8, sum);
        }
        if (m->d[r][l] != float_bits(sum))
          fail_msg("register %d, lane %d: %08x, expected %08x", r, l, m->d[r][l], float_bits(sum));
      }
    }
    free(m);
  }
}

/* What the rule says where it differs from rounding to nearest, and infinities. */
static void test_special_sums(void **state) {
  (void)state;
  static const struct {
    float x, y, c, want;
  } cases[] = {
      {1, 1, 0x1p-30f, 1},               /* the accumulator is cut at 2^-24 below the largest exponent, */
      {1, 1, -0x1p-30f, 0x1.fffffep-1f}, /* downward */
      {0x1p-15f, 0x1p-15f, 1, 1},        /* the sum of products at 2^-31 */
      {-0x1p-20f, 0x1p-20f, 1, 1},
      {0x1p-70f, 0x1p-70f, 0, 0x1p-140f}, /* denormal results are kept */
      {INFINITY, 1, 1, INFINITY},
      {INFINITY, 0, 1, NAN},
      {0x1p120f, 0x1p120f, 1, INFINITY},
      {1, 1, -INFINITY, -INFINITY},
      {0x1p120f, -0x1p6f, INFINITY, INFINITY},
  };
  for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
    memory *m = calloc(1, sizeof *m);
    assert_non_null(m);
    place(m->a, BF16, 0, 0, float_bits(cases[n].x) >> 16);
    place(m->b, BF16, 0, 0, float_bits(cases[n].y) >> 16);
    m->c[0][0] = float_bits(cases[n].c);
    run_instruction("v_mfma_f32_16x16x16_bf16", 16, 1, 2, 2, "", m, NULL);
    float got;
    memcpy(&got, &m->d[0][0], sizeof got);
    bool same = got == cases[n].want || (got != got && cases[n].want != cases[n].want);
    if (!same)
      fail_msg("%a * %a + %a: %a, expected %a", (double)cases[n].x, (double)cases[n].y, (double)cases[n].c, (double)got,
               (double)cases[n].want);
    free(m);
  }
}

static int open_machine(gcn_target target) {
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
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_places), cmocka_unit_test(test_rounding),
                                     cmocka_unit_test(test_special_sums)};
  int failed = cmocka_run_group_tests_name("gfx942", tests, open_gfx942, close_machine);
  return failed + cmocka_run_group_tests_name("gfx950", tests, open_gfx950, close_machine);
}

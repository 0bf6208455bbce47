/* Scalar instructions: arithmetic on scalar registers, branches, waits, scalar loads. */
#include "machine.h"

/* ---- Arithmetic ---- */

typedef struct scalar_op {
  const char *name;
  scalar_function function;
  const char *
      types; /* result ('-': none, '=': the first operand, which is a source too), sources: u 32 bits, w 64, k simm16 */
} scalar_op;

/* `value` over a, b, old; `flag` over these and r, the result, with `scc` as it was. */
#define SCALAR32(name, value, flag)                                                                                    \
  static uint64_t name(uint64_t a64, uint64_t b64, uint64_t old64, bool *scc_out) {                                    \
    uint32_t a = (uint32_t)a64, b = (uint32_t)b64, old = (uint32_t)old64;                                              \
    bool scc = *scc_out;                                                                                               \
    uint32_t r = (uint32_t)(value);                                                                                    \
    (void)a, (void)b, (void)old, (void)scc;                                                                            \
    *scc_out = (flag);                                                                                                 \
    return r;                                                                                                          \
  }
#define SCALAR64(name, value, flag)                                                                                    \
  static uint64_t name(uint64_t a, uint64_t b, uint64_t old, bool *scc_out) {                                          \
    bool scc = *scc_out;                                                                                               \
    uint64_t r = (uint64_t)(value);                                                                                    \
    (void)a, (void)b, (void)old, (void)scc;                                                                            \
    *scc_out = (flag);                                                                                                 \
    return r;                                                                                                          \
  }

SCALAR32(add_u32, a + b, r < a)
SCALAR32(sub_u32, a - b, b > a)
SCALAR32(add_i32, a + b, (~(a ^ b) & (a ^ r)) >> 31)
SCALAR32(sub_i32, a - b, ((a ^ b) & (a ^ r)) >> 31)
SCALAR32(addc_u32, a + b + scc, ((uint64_t)a + b + scc) >> 32)
SCALAR32(subb_u32, a - b - scc, (uint64_t)b + scc > a)
SCALAR32(mul_i32, a *b, scc)
SCALAR32(mul_hi_u32, (uint64_t)a *b >> 32, scc)
SCALAR32(mul_hi_i32, (uint64_t)((int64_t)(int32_t)a * (int32_t)b) >> 32, scc)
SCALAR32(absdiff_i32, (int32_t)a > (int32_t)b ? a - b : b - a, r != 0)
SCALAR32(and_b32, a &b, r != 0)
SCALAR32(or_b32, a | b, r != 0)
SCALAR32(xor_b32, a ^ b, r != 0)
SCALAR32(andn2_b32, a & ~b, r != 0)
SCALAR32(orn2_b32, a | ~b, r != 0)
SCALAR32(nand_b32, ~(a &b), r != 0)
SCALAR32(nor_b32, ~(a | b), r != 0)
SCALAR32(xnor_b32, ~(a ^ b), r != 0)
SCALAR32(not_b32, ~a, r != 0)
SCALAR32(lshl_b32, a << (b & 31), r != 0)
SCALAR32(lshr_b32, a >> (b & 31), r != 0)
SCALAR32(ashr_i32, (int32_t)a >> (b & 31), r != 0)
SCALAR32(min_i32, (int32_t)a < (int32_t)b ? a : b, (int32_t)a < (int32_t)b)
SCALAR32(max_i32, (int32_t)a > (int32_t)b ? a : b, (int32_t)a > (int32_t)b)
SCALAR32(min_u32, a < b ? a : b, a < b)
SCALAR32(max_u32, a > b ? a : b, a > b)
SCALAR32(bfm_b32, ((1u << (a & 31)) - 1) << (b & 31), scc)
SCALAR32(cselect_b32, scc ? a : b, scc)
SCALAR32(mov_b32, a, scc)
SCALAR32(cmov_b32, scc ? a : old, scc)
SCALAR32(abs_i32, (int32_t)a < 0 ? -a : a, r != 0)
SCALAR32(sext_i32_i16, (int16_t)a, scc)
SCALAR32(sext_i32_i8, (int8_t)a, scc)
SCALAR32(ff1_i32_b32, a ? __builtin_ctz(a) : -1, scc)
SCALAR32(ff0_i32_b32, ~a ? __builtin_ctz(~a) : -1, scc)
SCALAR32(flbit_i32_b32, a ? __builtin_clz(a) : -1, scc)
SCALAR32(flbit_i32, (int32_t)(a ^ (uint32_t)((int32_t)a >> 31)) ? __builtin_clz(a ^ (uint32_t)((int32_t)a >> 31)) : -1,
         scc)
SCALAR32(bcnt1_i32_b32, __builtin_popcount(a), r != 0)
SCALAR32(bcnt0_i32_b32, 32 - __builtin_popcount(a), r != 0)
SCALAR32(lshl1_add_u32, (a << 1) + b, (((uint64_t)a << 1) + b) >> 32 != 0)
SCALAR32(lshl2_add_u32, (a << 2) + b, (((uint64_t)a << 2) + b) >> 32 != 0)
SCALAR32(lshl3_add_u32, (a << 3) + b, (((uint64_t)a << 3) + b) >> 32 != 0)
SCALAR32(lshl4_add_u32, (a << 4) + b, (((uint64_t)a << 4) + b) >> 32 != 0)
SCALAR32(pack_ll, (a & 0xffff) | b << 16, scc)
SCALAR32(pack_lh, (a & 0xffff) | (b & 0xffff0000), scc)
SCALAR32(pack_hh, a >> 16 | (b & 0xffff0000), scc)
SCALAR32(bitset0_b32, old & ~(1u << (a & 31)), scc)
SCALAR32(bitset1_b32, old | 1u << (a & 31), scc)
SCALAR32(bitcmp0_b32, 0, !(a >> (b & 31) & 1))
SCALAR32(bitcmp1_b32, 0, a >> (b & 31) & 1)
SCALAR32(eq, 0, a == b)
SCALAR32(lg, 0, a != b)
SCALAR32(gt_i32, 0, (int32_t)a > (int32_t)b)
SCALAR32(ge_i32, 0, (int32_t)a >= (int32_t)b)
SCALAR32(lt_i32, 0, (int32_t)a < (int32_t)b)
SCALAR32(le_i32, 0, (int32_t)a <= (int32_t)b)
SCALAR32(gt_u32, 0, a > b)
SCALAR32(ge_u32, 0, a >= b)
SCALAR32(lt_u32, 0, a < b)
SCALAR32(le_u32, 0, a <= b)
SCALAR64(eq_u64, 0, a == b)
SCALAR64(lg_u64, 0, a != b)
SCALAR64(mov_b64, a, scc)
SCALAR64(cmov_b64, scc ? a : old, scc)
SCALAR64(cselect_b64, scc ? a : b, scc)
SCALAR64(and_b64, a &b, r != 0)
SCALAR64(or_b64, a | b, r != 0)
SCALAR64(xor_b64, a ^ b, r != 0)
SCALAR64(andn2_b64, a & ~b, r != 0)
SCALAR64(orn2_b64, a | ~b, r != 0)
SCALAR64(nand_b64, ~(a &b), r != 0)
SCALAR64(nor_b64, ~(a | b), r != 0)
SCALAR64(xnor_b64, ~(a ^ b), r != 0)
SCALAR64(not_b64, ~a, r != 0)
SCALAR64(lshl_b64, a << (b & 63), r != 0)
SCALAR64(lshr_b64, a >> (b & 63), r != 0)
SCALAR64(ashr_i64, (int64_t)a >> (b & 63), r != 0)
SCALAR64(bfm_b64, ((UINT64_C(1) << (a & 63)) - 1) << (b & 63), scc)
SCALAR64(ff1_i32_b64, a ? (uint32_t)__builtin_ctzll(a) : UINT32_MAX, scc)
SCALAR64(ff0_i32_b64, ~a ? (uint32_t)__builtin_ctzll(~a) : UINT32_MAX, scc)
SCALAR64(flbit_i32_b64, a ? (uint32_t)__builtin_clzll(a) : UINT32_MAX, scc)
SCALAR64(flbit_i32_i64,
         (a ^ (uint64_t)((int64_t)a >> 63)) ? (uint32_t)__builtin_clzll(a ^ (uint64_t)((int64_t)a >> 63)) : UINT32_MAX,
         scc)
SCALAR64(bcnt1_i32_b64, __builtin_popcountll(a), r != 0)
SCALAR64(bcnt0_i32_b64, 64 - __builtin_popcountll(a), r != 0)
SCALAR64(bitcmp0_b64, 0, !(a >> (b & 63) & 1))
SCALAR64(bitcmp1_b64, 0, a >> (b & 63) & 1)
SCALAR64(bitset0_b64, old & ~(UINT64_C(1) << (a & 63)), scc)
SCALAR64(bitset1_b64, old | UINT64_C(1) << (a & 63), scc)

/* Bits [b & 63, +(b >> 16 & 127)) of a. */
static uint64_t field_of(uint64_t a, uint64_t b, unsigned width, bool is_signed) {
  unsigned shift = (unsigned)b & (width - 1), bits = (unsigned)(b >> 16) & 127;
  if (bits == 0) return 0;
  uint64_t value = a >> shift;
  if (bits >= width) bits = width;
  uint64_t all = bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
  value &= all;
  if (is_signed && (value >> (bits - 1) & 1)) value |= ~all;
  return value;
}
SCALAR32(bfe_u32, field_of(a, b, 32, false), r != 0)
SCALAR32(bfe_i32, field_of((uint64_t)(int64_t)(int32_t)a, b, 32, true), r != 0)
SCALAR64(bfe_u64, field_of(a, b, 64, false), r != 0)
SCALAR64(bfe_i64, field_of(a, b, 64, true), r != 0)

static uint64_t brev_b64(uint64_t a, uint64_t b, uint64_t old, bool *scc) {
  (void)b, (void)old, (void)scc;
  uint64_t r = 0;
  for (unsigned k = 0; k < 64; k++) r |= (a >> k & 1) << (63 - k);
  return r;
}
static uint64_t brev_b32(uint64_t a, uint64_t b, uint64_t old, bool *scc) {
  return brev_b64(a, b, old, scc) >> 32;
}

static const scalar_op scalar_ops[] = {
    {"s_add_u32", add_u32, "uuu"},
    {"s_sub_u32", sub_u32, "uuu"},
    {"s_add_i32", add_i32, "uuu"},
    {"s_sub_i32", sub_i32, "uuu"},
    {"s_addc_u32", addc_u32, "uuu"},
    {"s_subb_u32", subb_u32, "uuu"},
    {"s_mul_i32", mul_i32, "uuu"},
    {"s_mul_hi_u32", mul_hi_u32, "uuu"},
    {"s_mul_hi_i32", mul_hi_i32, "uuu"},
    {"s_absdiff_i32", absdiff_i32, "uuu"},
    {"s_and_b32", and_b32, "uuu"},
    {"s_or_b32", or_b32, "uuu"},
    {"s_xor_b32", xor_b32, "uuu"},
    {"s_andn2_b32", andn2_b32, "uuu"},
    {"s_orn2_b32", orn2_b32, "uuu"},
    {"s_nand_b32", nand_b32, "uuu"},
    {"s_nor_b32", nor_b32, "uuu"},
    {"s_xnor_b32", xnor_b32, "uuu"},
    {"s_not_b32", not_b32, "uu"},
    {"s_lshl_b32", lshl_b32, "uuu"},
    {"s_lshr_b32", lshr_b32, "uuu"},
    {"s_ashr_i32", ashr_i32, "uuu"},
    {"s_min_i32", min_i32, "uuu"},
    {"s_max_i32", max_i32, "uuu"},
    {"s_min_u32", min_u32, "uuu"},
    {"s_max_u32", max_u32, "uuu"},
    {"s_bfm_b32", bfm_b32, "uuu"},
    {"s_bfe_u32", bfe_u32, "uuu"},
    {"s_bfe_i32", bfe_i32, "uuu"},
    {"s_cselect_b32", cselect_b32, "uuu"},
    {"s_mov_b32", mov_b32, "uu"},
    {"s_cmov_b32", cmov_b32, "=u"},
    {"s_abs_i32", abs_i32, "uu"},
    {"s_sext_i32_i16", sext_i32_i16, "uu"},
    {"s_sext_i32_i8", sext_i32_i8, "uu"},
    {"s_ff1_i32_b32", ff1_i32_b32, "uu"},
    {"s_ff0_i32_b32", ff0_i32_b32, "uu"},
    {"s_flbit_i32_b32", flbit_i32_b32, "uu"},
    {"s_flbit_i32", flbit_i32, "uu"},
    {"s_bcnt1_i32_b32", bcnt1_i32_b32, "uu"},
    {"s_bcnt0_i32_b32", bcnt0_i32_b32, "uu"},
    {"s_brev_b32", brev_b32, "uu"},
    {"s_brev_b64", brev_b64, "ww"},
    {"s_lshl1_add_u32", lshl1_add_u32, "uuu"},
    {"s_lshl2_add_u32", lshl2_add_u32, "uuu"},
    {"s_lshl3_add_u32", lshl3_add_u32, "uuu"},
    {"s_lshl4_add_u32", lshl4_add_u32, "uuu"},
    {"s_pack_ll_b32_b16", pack_ll, "uuu"},
    {"s_pack_lh_b32_b16", pack_lh, "uuu"},
    {"s_pack_hh_b32_b16", pack_hh, "uuu"},
    {"s_bitset0_b32", bitset0_b32, "=u"},
    {"s_bitset1_b32", bitset1_b32, "=u"},
    {"s_bitset0_b64", bitset0_b64, "=u"},
    {"s_bitset1_b64", bitset1_b64, "=u"},
    {"s_bitcmp0_b32", bitcmp0_b32, "-uu"},
    {"s_bitcmp1_b32", bitcmp1_b32, "-uu"},
    {"s_bitcmp0_b64", bitcmp0_b64, "-wu"},
    {"s_bitcmp1_b64", bitcmp1_b64, "-wu"},
    {"s_cmp_eq_u32", eq, "-uu"},
    {"s_cmp_eq_i32", eq, "-uu"},
    {"s_cmp_lg_u32", lg, "-uu"},
    {"s_cmp_lg_i32", lg, "-uu"},
    {"s_cmp_gt_i32", gt_i32, "-uu"},
    {"s_cmp_ge_i32", ge_i32, "-uu"},
    {"s_cmp_lt_i32", lt_i32, "-uu"},
    {"s_cmp_le_i32", le_i32, "-uu"},
    {"s_cmp_gt_u32", gt_u32, "-uu"},
    {"s_cmp_ge_u32", ge_u32, "-uu"},
    {"s_cmp_lt_u32", lt_u32, "-uu"},
    {"s_cmp_le_u32", le_u32, "-uu"},
    {"s_cmp_eq_u64", eq_u64, "-ww"},
    {"s_cmp_lg_u64", lg_u64, "-ww"},
    {"s_cmpk_eq_u32", eq, "-uu"},
    {"s_cmpk_eq_i32", eq, "-uk"},
    {"s_cmpk_lg_u32", lg, "-uu"},
    {"s_cmpk_lg_i32", lg, "-uk"},
    {"s_cmpk_gt_i32", gt_i32, "-uk"},
    {"s_cmpk_ge_i32", ge_i32, "-uk"},
    {"s_cmpk_lt_i32", lt_i32, "-uk"},
    {"s_cmpk_le_i32", le_i32, "-uk"},
    {"s_cmpk_gt_u32", gt_u32, "-uu"},
    {"s_cmpk_ge_u32", ge_u32, "-uu"},
    {"s_cmpk_lt_u32", lt_u32, "-uu"},
    {"s_cmpk_le_u32", le_u32, "-uu"},
    {"s_movk_i32", mov_b32, "uk"},
    {"s_cmovk_i32", cmov_b32, "=k"},
    {"s_addk_i32", add_i32, "=ka"},
    {"s_mulk_i32", mul_i32, "=ka"},
    {"s_mov_b64", mov_b64, "ww"},
    {"s_cmov_b64", cmov_b64, "=w"},
    {"s_cselect_b64", cselect_b64, "www"},
    {"s_and_b64", and_b64, "www"},
    {"s_or_b64", or_b64, "www"},
    {"s_xor_b64", xor_b64, "www"},
    {"s_andn2_b64", andn2_b64, "www"},
    {"s_orn2_b64", orn2_b64, "www"},
    {"s_nand_b64", nand_b64, "www"},
    {"s_nor_b64", nor_b64, "www"},
    {"s_xnor_b64", xnor_b64, "www"},
    {"s_not_b64", not_b64, "ww"},
    {"s_lshl_b64", lshl_b64, "wwu"},
    {"s_lshr_b64", lshr_b64, "wwu"},
    {"s_ashr_i64", ashr_i64, "wlu"},
    {"s_bfm_b64", bfm_b64, "wuu"},
    {"s_bfe_u64", bfe_u64, "wwu"},
    {"s_bfe_i64", bfe_i64, "wlu"},
    {"s_ff1_i32_b64", ff1_i32_b64, "uw"},
    {"s_ff0_i32_b64", ff0_i32_b64, "uw"},
    {"s_flbit_i32_b64", flbit_i32_b64, "uw"},
    {"s_flbit_i32_i64", flbit_i32_i64, "uw"},
    {"s_bcnt1_i32_b64", bcnt1_i32_b64, "uw"},
    {"s_bcnt0_i32_b64", bcnt0_i32_b64, "uw"},
};

static bool is_wide(char type) {
  return type == 'w' || type == 'l';
}

static uint64_t read_width(const wave *w, const operand *o) {
  return o->registers == 2 || o->kind == OPERAND_CONSTANT ? read_scalar64(w, o) : read_scalar(w, o);
}

static void write_width(wave *w, const operand *o, uint64_t value) {
  if (o->registers == 2)
    set_scalar_pair(w, o->index, value);
  else
    w->scalar[o->index] = (uint32_t)value;
}

static void execute_result(wave *w, const instruction *i) {
  uint64_t a = read_width(w, &i->operand[1]), b = i->operands > 2 ? read_width(w, &i->operand[2]) : 0;
  uint64_t r = i->scalar(a, b, 0, &w->scc);
  write_width(w, &i->operand[0], r);
}

static void execute_flag_only(wave *w, const instruction *i) {
  i->scalar(read_width(w, &i->operand[0]), read_width(w, &i->operand[1]), 0, &w->scc);
}

static void execute_update(wave *w, const instruction *i) {
  uint64_t old = read_width(w, &i->operand[0]), a = read_width(w, &i->operand[1]);
  write_width(w, &i->operand[0], i->variant ? i->scalar(old, a, old, &w->scc) : i->scalar(a, 0, old, &w->scc));
}

static bool resolve_arithmetic(instruction *i) {
  for (size_t k = 0; k < sizeof scalar_ops / sizeof *scalar_ops; k++) {
    const scalar_op *op = &scalar_ops[k];
    if (strcmp(op->name, i->mnemonic) != 0) continue;
    bool flag_only = op->types[0] == '-', update = op->types[0] == '=';
    unsigned first = flag_only ? 0 : 1, sources = (unsigned)strlen(op->types) - 1;
    if (update) sources = 1;
    if (i->operands != first + sources) return false;
    for (unsigned s = 0; s < sources; s++) {
      char type = op->types[1 + s];
      operand *o = &i->operand[first + s];
      if (type == 'k') o->integer = (int16_t)o->integer;
      settle_constant(o, type == 'k' ? 'u' : type);
      if (o->kind == OPERAND_SCALAR && o->registers != (is_wide(type) ? 2 : 1)) return false;
      mark_reads(i, o);
    }
    if (!flag_only) mark_writes(i, &i->operand[0]);
    if (update) mark_reads(i, &i->operand[0]);
    i->variant = update && op->types[2] == 'a';
    i->scalar = op->function;
    i->execute = flag_only ? execute_flag_only : update ? execute_update : execute_result;
    i->class = CLASS_SCALAR;
    return true;
  }
  return false;
}

/* ---- EXEC saved and changed in one instruction ---- */

static const char *const saves[] = {"s_and_saveexec_b64",   "s_or_saveexec_b64",   "s_xor_saveexec_b64",
                                    "s_andn2_saveexec_b64", "s_orn2_saveexec_b64", "s_nand_saveexec_b64",
                                    "s_nor_saveexec_b64",   "s_xnor_saveexec_b64", "s_andn1_saveexec_b64",
                                    "s_orn1_saveexec_b64",  "s_andn1_wrexec_b64",  "s_andn2_wrexec_b64"};

static void execute_save_exec(wave *w, const instruction *i) {
  uint64_t a = read_scalar64(w, &i->operand[1]), x = exec_mask(w), r = 0;
  switch (i->variant) {
  case 0:
    r = a & x;
    break;
  case 1:
    r = a | x;
    break;
  case 2:
    r = a ^ x;
    break;
  case 3:
  case 11:
    r = a & ~x;
    break;
  case 4:
    r = a | ~x;
    break;
  case 5:
    r = ~(a & x);
    break;
  case 6:
    r = ~(a | x);
    break;
  case 7:
    r = ~(a ^ x);
    break;
  case 8:
  case 10:
    r = ~a & x;
    break;
  default:
    r = ~a | x;
    break;
  }
  set_scalar_pair(w, i->operand[0].index, i->variant >= 10 ? r : x);
  set_scalar_pair(w, REGISTER_EXEC, r);
  w->scc = r != 0;
}

static bool resolve_save_exec(instruction *i) {
  for (uint8_t k = 0; k < sizeof saves / sizeof *saves; k++) {
    if (strcmp(saves[k], i->mnemonic) != 0) continue;
    settle_constant(&i->operand[1], 'w');
    mark_reads(i, &i->operand[1]);
    mark_writes(i, &i->operand[0]);
    i->scalar_reads[1] |= UINT64_C(3) << (REGISTER_EXEC - 64);
    i->scalar_writes[1] |= UINT64_C(3) << (REGISTER_EXEC - 64);
    i->variant = k;
    i->execute = execute_save_exec;
    i->class = CLASS_SCALAR;
    return true;
  }
  return false;
}

/* ---- Branches ---- */

static const char *const branches[] = {"s_branch",        "s_cbranch_scc0",  "s_cbranch_scc1",  "s_cbranch_vccz",
                                       "s_cbranch_vccnz", "s_cbranch_execz", "s_cbranch_execnz"};

static void execute_branch(wave *w, const instruction *i) {
  bool taken = true;
  switch (i->variant) {
  case 1:
    taken = !w->scc;
    break;
  case 2:
    taken = w->scc;
    break;
  case 3:
    taken = scalar_pair(w, REGISTER_VCC) == 0;
    break;
  case 4:
    taken = scalar_pair(w, REGISTER_VCC) != 0;
    break;
  case 5:
    taken = exec_mask(w) == 0;
    break;
  case 6:
    taken = exec_mask(w) != 0;
    break;
  default:
    break;
  }
  if (!taken) return;
  w->following = i->target;
  w->jump = i->offset + 4 + (uint64_t)(4 * (int64_t)(int16_t)i->immediate);
}

static void execute_get_pc(wave *w, const instruction *i) {
  set_scalar_pair(w, i->operand[0].index, (uint64_t)(uintptr_t)w->launch->module->image + i->offset + 4);
}

static void execute_jump(wave *w, const instruction *i) {
  uint64_t to = read_scalar64(w, &i->operand[i->variant ? 1 : 0]);
  if (i->variant) execute_get_pc(w, i);
  w->following = NULL;
  w->jump = to - (uint64_t)(uintptr_t)w->launch->module->image;
}

static bool resolve_branch(instruction *i) {
  i->class = CLASS_BRANCH;
  for (uint8_t k = 0; k < sizeof branches / sizeof *branches; k++) {
    if (strcmp(branches[k], i->mnemonic) != 0) continue;
    i->variant = k;
    i->execute = execute_branch;
    if (k == 3 || k == 4) i->scalar_reads[REGISTER_VCC / 64] |= UINT64_C(3) << (REGISTER_VCC % 64);
    return true;
  }
  if (strcmp(i->mnemonic, "s_getpc_b64") == 0) {
    i->execute = execute_get_pc;
    mark_writes(i, &i->operand[0]);
  } else if (strcmp(i->mnemonic, "s_setpc_b64") == 0 || strcmp(i->mnemonic, "s_swappc_b64") == 0) {
    i->variant = i->mnemonic[3] == 'w';
    i->execute = execute_jump;
    mark_reads(i, &i->operand[i->variant]);
    if (i->variant) mark_writes(i, &i->operand[0]);
  }
  return i->execute != NULL;
}

/* ---- Program control ---- */

static void execute_end(wave *w, const instruction *i) {
  (void)i;
  w->state = WAVE_ENDED;
}

static void execute_barrier(wave *w, const instruction *i) {
  (void)i;
  if (w->launch->checked && exec_mask(w) != w->initial_exec) {
    wave_fault(w, GCN_FAULT_DIVERGENT_BARRIER, -1, "%d of the wave's lanes are switched off",
               __builtin_popcountll(w->initial_exec & ~exec_mask(w)));
    return;
  }
  w->state = WAVE_AT_BARRIER;
}

static void execute_wait(wave *w, const instruction *i) {
  if (!w->launch->checked) return;
  uint32_t bits = i->immediate;
  wait_for(w, (bits & 15) | (bits >> 14 & 3) << 4, bits >> 8 & 15);
}

static void execute_nothing(wave *w, const instruction *i) {
  (void)w, (void)i;
}

/* Gives way to other waves and workgroups: whoever sleeps waits for somebody. */
static void execute_sleep(wave *w, const instruction *i) {
  (void)i;
  w->state = WAVE_YIELDED;
}

static void execute_trap(wave *w, const instruction *i) {
  wave_fault(w, GCN_FAULT_TRAP, -1, "trap %u", i->immediate & 255);
}

/* MODE alone matters: rounding and denormals. Field: register in bits 0..5, first bit in 6..10, bits - 1 in 11..15. */
static void execute_set_register(wave *w, const instruction *i) {
  if ((i->immediate & 63) != 1) return;
  uint32_t value = i->variant ? i->words[1] : read_scalar(w, &i->operand[0]);
  unsigned shift = i->immediate >> 6 & 31, bits = (i->immediate >> 11 & 31) + 1;
  uint32_t field = (uint32_t)(((UINT64_C(1) << bits) - 1) << shift);
  w->mode = (w->mode & ~field) | (value << shift & field);
  if (!mode_is_known(w->mode)) {
    wave_fault(w, GCN_FAULT_UNKNOWN_INSTRUCTION, -1,
               "float16 and float64 that round otherwise than float32, or lose denormals, are not interpreted");
    return;
  }
  apply_mode(w);
}

static void execute_get_register(wave *w, const instruction *i) {
  unsigned shift = i->immediate >> 6 & 31, bits = (i->immediate >> 11 & 31) + 1, which = i->immediate & 63;
  uint32_t value = 0;
  if (which == 1)
    value = w->mode;
  else if (which == 20)
    value = w->group->die; /* XCC_ID */
  w->scalar[i->operand[0].index] = (uint32_t)(value >> shift & ((UINT64_C(1) << bits) - 1));
}

static void execute_time(wave *w, const instruction *i) {
  set_scalar_pair(w, i->operand[0].index, w->launch->counts.instructions);
  outstanding *o = note_outstanding(w, i, OUTSTANDING_SCALAR);
  (void)o;
}

static bool resolve_control(instruction *i) {
  static const struct {
    const char *name;
    execute_function execute;
    instruction_class class;
    uint8_t variant;
  } table[] = {
      {"s_endpgm", execute_end, CLASS_OTHER, 0},
      {"s_barrier", execute_barrier, CLASS_BARRIER, 0},
      {"s_waitcnt", execute_wait, CLASS_WAIT, 0},
      {"s_nop", execute_nothing, CLASS_NOP, 0},
      {"s_sleep", execute_sleep, CLASS_NOP, 0},
      {"s_setprio", execute_nothing, CLASS_OTHER, 0},
      {"s_trap", execute_trap, CLASS_OTHER, 0},
      {"s_icache_inv", execute_nothing, CLASS_OTHER, 0},
      {"s_dcache_inv", execute_nothing, CLASS_OTHER, 0},
      {"s_dcache_wb", execute_nothing, CLASS_OTHER, 0},
      {"s_sethalt", execute_nothing, CLASS_OTHER, 0},
      {"s_wakeup", execute_nothing, CLASS_OTHER, 0},
      {"s_ttracedata", execute_nothing, CLASS_OTHER, 0},
      {"s_incperflevel", execute_nothing, CLASS_OTHER, 0},
      {"s_decperflevel", execute_nothing, CLASS_OTHER, 0},
      {"s_setreg_b32", execute_set_register, CLASS_SCALAR, 0},
      {"s_setreg_imm32_b32", execute_set_register, CLASS_SCALAR, 1},
      {"s_getreg_b32", execute_get_register, CLASS_SCALAR, 0},
      {"s_memtime", execute_time, CLASS_SCALAR_MEMORY, 0},
      {"s_memrealtime", execute_time, CLASS_SCALAR_MEMORY, 0},
  };
  for (size_t k = 0; k < sizeof table / sizeof *table; k++) {
    if (strcmp(table[k].name, i->mnemonic) != 0) continue;
    i->execute = table[k].execute;
    i->class = table[k].class;
    i->variant = table[k].variant;
    if (table[k].execute == execute_set_register) i->rule = RULE_SET_REGISTER;
    if (table[k].execute == execute_get_register) i->rule = RULE_GET_REGISTER;
    if (table[k].execute == execute_set_register && !i->variant) mark_reads(i, &i->operand[0]);
    if (table[k].execute == execute_get_register || table[k].execute == execute_time) mark_writes(i, &i->operand[0]);
    return true;
  }
  return false;
}

/* ---- Vector registers by index: until it is switched off, M0 is added to the numbers that the mode's bits say:
 * sources 0, 1, 2 and the result ---- */

static void execute_index(wave *w, const instruction *i) {
  if (i->variant == 0) {
    w->index_mode = 0;
    return;
  }
  if (i->variant == 1)
    w->scalar[REGISTER_M0] = (w->scalar[REGISTER_M0] & ~0xf0ffu) | (read_scalar(w, &i->operand[0]) & 255);
  w->index_mode = (uint8_t)(i->variant == 1 ? i->words[0] >> 8 & 15 : i->immediate & 15);
}

static bool resolve_index(instruction *i) {
  static const char *const names[] = {"s_set_gpr_idx_off", "s_set_gpr_idx_on", "s_set_gpr_idx_mode"};
  for (uint8_t k = 0; k < 3; k++) {
    if (strcmp(names[k], i->mnemonic) != 0) continue;
    i->variant = k;
    if (k == 1) {
      settle_constant(&i->operand[0], 'u');
      mark_reads(i, &i->operand[0]);
      i->scalar_writes[REGISTER_M0 / 64] |= UINT64_C(1) << (REGISTER_M0 % 64);
    }
    i->execute = execute_index;
    i->class = CLASS_SCALAR;
    return true;
  }
  return false;
}

/* ---- Scalar loads ---- */

/* s_load_dwordxN sdst, sbase, offset; s_buffer_load reads through a buffer descriptor and gives zeros past its end. */
static void execute_scalar_load(wave *w, const instruction *i) {
  uint32_t dwords = i->operand[0].registers;
  uint64_t base = scalar_pair(w, i->operand[1].index), offset = (uint64_t)(int64_t)i->memory.offset;
  const operand *o = &i->operand[2];
  offset += o->kind == OPERAND_SCALAR ? w->scalar[o->index] : (uint64_t)o->integer;
  const uint32_t *from;
  uint32_t values[16] = {0};
  if (i->variant) {
    uint64_t size = w->scalar[i->operand[1].index + 2], stride = base >> 48 & 0x3fff;
    if (stride) size *= stride;
    base &= (UINT64_C(1) << 48) - 1;
    for (uint32_t k = 0; k < dwords; k++) {
      uint64_t at = (offset & ~UINT64_C(3)) + UINT64_C(4) * k;
      if (at + 4 > size) continue;
      if (!(from = global_bytes(w, base + at, 4, -1))) return;
      values[k] = *from;
    }
  } else {
    uint64_t address = (base + offset) & ~UINT64_C(3);
    from = global_bytes(w, address, 4 * dwords, -1);
    if (!from) return;
    if (w->launch->checked && !global_load_check(w, w->last_allocation, address, 4 * dwords, false, false, -1)) return;
    memcpy(values, from, 4 * dwords);
  }
  memcpy(&w->scalar[i->operand[0].index], values, 4 * dwords);
  w->launch->counts.global_loaded += 4 * dwords;
  note_outstanding(w, i, OUTSTANDING_SCALAR);
}

static bool resolve_load(instruction *i) {
  i->variant = mnemonic_starts(i, "s_buffer_load_dword");
  if (!i->variant && !mnemonic_starts(i, "s_load_dword")) return false;
  if (i->operands != 3) return false;
  settle_constant(&i->operand[2], 'w');
  if (i->operand[2].kind == OPERAND_CONSTANT) {
    i->operand[2].integer = (int64_t)((uint64_t)i->operand[2].integer << 43) >> 43; /* 21 bits, signed */
  }
  mark_reads(i, &i->operand[1]);
  mark_reads(i, &i->operand[2]);
  mark_writes(i, &i->operand[0]);
  i->execute = execute_scalar_load;
  i->class = CLASS_SCALAR_MEMORY;
  return true;
}

bool scalar_resolve(instruction *i, gcn_target target) {
  (void)target;
  if (i->mnemonic[0] != 's' || i->mnemonic[1] != '_') return false;
  return resolve_arithmetic(i) || resolve_save_exec(i) || resolve_control(i) || resolve_index(i) || resolve_load(i) ||
         resolve_branch(i);
}

#include "backends/nvptx/mma.h"

#include <string.h>

/* Computed as words, and only then as i64: so upper halves are known to be zero. */
lane_place lane_place_from(emitter *e, V number) {
  V lane = to_i32(e, number), in_warp = and_(e, lane, int32(e, 31));
  V part[] = {lshr(e, lane, int32(e, 5)), in_warp, lshr(e, in_warp, int32(e, 2)), and_(e, in_warp, int32(e, 3))};
  for (unsigned i = 0; i < 4; i++) part[i] = LLVMBuildZExt(e->builder, part[i], e->i64, "");
  return (lane_place){.warp = part[0], .lane = part[1], .g = part[2], .t = part[3]};
}

lane_place lane_place_of(emitter *e) {
  return lane_place_from(e, e->atoms->lane(e));
}

V assembly(emitter *e, T result, const char *text, const char *constraints, V *arguments, unsigned count,
           assembly_kind kind) {
  T types[8];
  for (unsigned i = 0; i < count; i++) types[i] = LLVMTypeOf(arguments[i]);
  T type = LLVMFunctionType(result, types, count, 0);
  V function = LLVMGetInlineAsm(type, text, strlen(text), constraints, strlen(constraints), kind != ASSEMBLY_PURE, 0,
                                LLVMInlineAsmDialectATT, 0);
  V call = LLVMBuildCall2(e->builder, type, function, arguments, count, "");
  unsigned convergent = LLVMGetEnumAttributeKindForName("convergent", 10);
  if (kind == ASSEMBLY_CONVERGENT)
    LLVMAddCallSiteAttribute(call, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                             LLVMCreateEnumAttribute(e->context, convergent, 0));
  return call;
}

V shared_address(emitter *e, V pointer) {
  V shared = LLVMBuildAddrSpaceCast(e->builder, pointer, LLVMPointerTypeInContext(e->context, 3), "");
  return LLVMBuildPtrToInt(e->builder, shared, e->i32, "");
}

V read_once_policy(emitter *e) {
  return assembly(e, e->i64, "createpolicy.fractional.L2::evict_first.b64 $0, 1.0;", "=l", NULL, 0, ASSEMBLY_PURE);
}

words load_words(emitter *e, V pointer, reading how) {
  words result;
  if (how == READ) {
    V value = load(e, LLVMVectorType(e->i32, 4), pointer);
    for (int32_t i = 0; i < 4; i++) result.word[i] = LLVMBuildExtractElement(e->builder, value, int32(e, i), "");
    return result;
  }
  const bool once = how == READ_ONCE;
  T four[] = {e->i32, e->i32, e->i32, e->i32};
  V arguments[] = {pointer, once ? read_once_policy(e) : NULL};
  V value = assembly(e, LLVMStructTypeInContext(e->context, four, 4, 0),
                     once ? "ld.global.L1::no_allocate.L2::cache_hint.L2::128B.v4.b32 {$0, $1, $2, $3}, [$4], $5;"
                          : "ld.global.L1::no_allocate.L2::128B.v4.b32 {$0, $1, $2, $3}, [$4];",
                     once ? "=r,=r,=r,=r,l,l" : "=r,=r,=r,=r,l", arguments, once ? 2 : 1, ASSEMBLY_EFFECT);
  for (unsigned i = 0; i < 4; i++) result.word[i] = LLVMBuildExtractValue(e->builder, value, i, "");
  return result;
}

void load_words_into(emitter *e, V pointer, reading how, const V slots[4]) {
  words loaded = load_words(e, pointer, how);
  for (unsigned i = 0; i < 4; i++) set(e, slots[i], loaded.word[i]);
}

words load_two_words(emitter *e, V pointer) {
  words result = {{NULL, NULL, NULL, NULL}};
  V value = load(e, LLVMVectorType(e->i32, 2), pointer);
  for (int32_t i = 0; i < 2; i++) result.word[i] = LLVMBuildExtractElement(e->builder, value, int32(e, i), "");
  return result;
}

void load_matrices(emitter *e, V address, unsigned count, V out_words[4]) {
  T four[] = {e->i32, e->i32, e->i32, e->i32};
  const bool all = count == 4;
  V value = assembly(e, LLVMStructTypeInContext(e->context, four, count, 0),
                     all ? "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0, $1, $2, $3}, [$4];"
                         : "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {$0, $1}, [$2];",
                     all ? "=r,=r,=r,=r,r,~{memory}" : "=r,=r,r,~{memory}", &address, 1, ASSEMBLY_CONVERGENT);
  for (unsigned i = 0; i < count; i++) out_words[i] = LLVMBuildExtractValue(e->builder, value, i, "");
}

void mma_bf16(emitter *e, V accumulator[4], const V a[4], const V b[2]) {
  V arguments[] = {a[0], a[1], a[2], a[3], b[0], b[1], accumulator[0], accumulator[1], accumulator[2], accumulator[3]};
  V result = intrinsic(e, "llvm.nvvm.mma.m16n8k16.row.col.bf16", NULL, 0, arguments, 10);
  for (unsigned i = 0; i < 4; i++) accumulator[i] = LLVMBuildExtractValue(e->builder, result, i, "");
}

V pack_bf16(emitter *e, V low, V high) {
  V arguments[] = {high, low};
  return assembly(e, e->i32, "cvt.rn.bf16x2.f32 $0, $1, $2;", "=r,f,f", arguments, 2, ASSEMBLY_PURE);
}

V exchange_i32(emitter *e, V value, unsigned distance) {
  V arguments[] = {int32(e, -1), value, int32(e, (int32_t)distance), int32(e, 31)};
  return intrinsic(e, "llvm.nvvm.shfl.sync.bfly.i32", NULL, 0, arguments, 4);
}

V exchange_f32(emitter *e, V value, unsigned distance) {
  return bitcast(e, exchange_i32(e, bitcast(e, value, e->i32), distance), e->f32);
}

void exchange_in_quad(emitter *e, const lane_place *lane, V word[4]) {
  for (unsigned bit = 1; bit <= 2; bit *= 2) {
    V upper = icmp(e, LLVMIntNE, and_(e, lane->t, int64(e, bit)), int64(e, 0));
    for (unsigned i = 0; i < 4; i++) {
      if (i & bit) continue;
      V other = exchange_i32(e, select_(e, upper, word[i], word[i + bit]), bit);
      word[i] = select_(e, upper, other, word[i]);
      word[i + bit] = select_(e, upper, word[i + bit], other);
    }
  }
}

V uniform_warp(emitter *e, const lane_place *lane) {
  V arguments[] = {int32(e, -1), to_i32(e, lane->warp), int32(e, 0), int32(e, 31)};
  return LLVMBuildZExt(e->builder, intrinsic(e, "llvm.nvvm.shfl.sync.idx.i32", NULL, 0, arguments, 4), e->i64, "");
}

V renewed(emitter *e, V value) {
  return assembly(e, LLVMTypeOf(value), "", "=l,0", &value, 1, ASSEMBLY_EFFECT);
}

#include "backends/nvptx/wgmma.h"

#include <stdio.h>
#include <string.h>

wgmma_sums wgmma_take(emitter *e, unsigned columns) {
  wgmma_sums sums = {.columns = columns};
  for (unsigned i = 0; i < columns / 2; i++) sums.value[i] = local(e, e->f32);
  return sums;
}

void wgmma_set_zero(emitter *e, const wgmma_sums *sums) {
  for (unsigned i = 0; i < sums->columns / 2; i++) set(e, sums->value[i], float32(e, 0));
}

/* The matrix descriptor of the PTX manual: bits 0 to 13 the address, 16 to 29 the leading and 32 to 45 the stride byte
 * offset, all in units of 16 bytes; bits 62 and 63 the swizzle, 1 for rows of 128 bytes. */
static V operand(emitter *e, V address, int64_t leading, int64_t stride, int64_t swizzle) {
  V low = lshr(e, and_(e, address, int32(e, 0x3ffff)), int32(e, 4));
  uint64_t rest = (uint64_t)(leading >> 4) << 16 | (uint64_t)(stride >> 4) << 32 | (uint64_t)swizzle << 62;
  return or_(e, LLVMBuildZExt(e->builder, low, e->i64, ""), LLVMConstInt(e->i64, rest, 0));
}

V wgmma_core_operand(emitter *e, V address, int64_t depth_bytes, int64_t row_bytes) {
  return operand(e, address, depth_bytes, row_bytes, 0);
}

V wgmma_swizzled_operand(emitter *e, V address) {
  return operand(e, address, 16, (int64_t)8 * SWIZZLE_ROW_BYTES, 1);
}

V wgmma_operand_at(emitter *e, V operand, int64_t bytes) {
  return bytes ? add(e, operand, int64(e, bytes >> 4)) : operand;
}

static void effect(emitter *e, const char *text) {
  assembly(e, e->nothing, text, "~{memory}", NULL, 0, ASSEMBLY_CONVERGENT);
}

void wgmma_begin(emitter *e) {
  effect(e, "wgmma.fence.sync.aligned;");
}

void wgmma_commit(emitter *e) {
  effect(e, "wgmma.commit_group.sync.aligned;");
}

void wgmma_wait(emitter *e, unsigned left) {
  char text[48];
  snprintf(text, sizeof text, "wgmma.wait_group.sync.aligned %u;", left);
  effect(e, text);
}

/* An instruction, or none, that changes all sums, or sets them: `text` may name them $0, $1, ..., and the arguments
 * behind them and, where it changes them, as many once more. */
static void assemble(emitter *e, const wgmma_sums *sums, const char *text, V *arguments, const char *kinds,
                     bool changes) {
  enum { MOST = WGMMA_COLUMNS + 5 };
  const unsigned count = sums->columns / 2, others = (unsigned)strlen(kinds);
  T results[MOST], types[MOST];
  V values[MOST];
  char constraints[MOST * 8];
  size_t length = 0;
  unsigned n = 0;
  for (unsigned i = 0; i < count; i++) {
    results[i] = e->f32;
    length += (size_t)snprintf(constraints + length, sizeof constraints - length, changes ? "=f," : "=&f,");
  }
  for (unsigned i = 0; changes && i < count; i++, n++) {
    types[n] = e->f32;
    values[n] = get(e, e->f32, sums->value[i]);
    length += (size_t)snprintf(constraints + length, sizeof constraints - length, "%u,", i);
  }
  for (unsigned i = 0; i < others; i++, n++) {
    types[n] = LLVMTypeOf(arguments[i]);
    values[n] = arguments[i];
    length += (size_t)snprintf(constraints + length, sizeof constraints - length, "%c,", kinds[i]);
  }
  snprintf(constraints + length, sizeof constraints - length, "~{memory}");
  T type = LLVMFunctionType(LLVMStructTypeInContext(e->context, results, count, 0), types, n, 0);
  V function =
      LLVMGetInlineAsm(type, text, strlen(text), constraints, strlen(constraints), 1, 0, LLVMInlineAsmDialectATT, 0);
  V call = LLVMBuildCall2(e->builder, type, function, values, n, "");
  LLVMAddCallSiteAttribute(call, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                           LLVMCreateEnumAttribute(e->context, LLVMGetEnumAttributeKindForName("convergent", 10), 0));
  for (unsigned i = 0; i < count; i++) set(e, sums->value[i], LLVMBuildExtractValue(e->builder, call, i, ""));
}

static void multiply(emitter *e, const wgmma_sums *sums, V *arguments, const char *kinds, bool added) {
  const unsigned count = sums->columns / 2, first = added ? 2 * count : count;
  char text[1024];
  size_t length =
      (size_t)snprintf(text, sizeof text, "wgmma.mma_async.sync.aligned.m64n%uk16.f32.bf16.bf16 {", sums->columns);
  for (unsigned i = 0; i < count; i++)
    length += (size_t)snprintf(text + length, sizeof text - length, i ? ", $%u" : "$%u", i);
  if (strlen(kinds) > 2)
    snprintf(text + length, sizeof text - length, "}, {$%u, $%u, $%u, $%u}, $%u, %d, 1, 1, 0;", first, first + 1,
             first + 2, first + 3, first + 4, added);
  else
    snprintf(text + length, sizeof text - length, "}, $%u, $%u, %d, 1, 1, 0, 0;", first, first + 1, added);
  assemble(e, sums, text, arguments, kinds, added);
}

void wgmma(emitter *e, const wgmma_sums *sums, V a, V b, bool added) {
  V arguments[] = {a, b};
  multiply(e, sums, arguments, "ll", added);
}

void wgmma_registers(emitter *e, const wgmma_sums *sums, const V a[4], V b) {
  V arguments[] = {a[0], a[1], a[2], a[3], b};
  multiply(e, sums, arguments, "rrrrl", true);
}

void wgmma_settle(emitter *e, const wgmma_sums *sums) {
  assemble(e, sums, "", NULL, "", true);
}

void async_fence(emitter *e) {
  assembly(e, e->nothing, "fence.proxy.async.shared::cta;", "~{memory}", NULL, 0, ASSEMBLY_EFFECT);
}

static void set_registers(emitter *e, const char *how, unsigned count) {
  char text[64];
  snprintf(text, sizeof text, "setmaxnreg.%s.sync.aligned.u32 %u;", how, count);
  effect(e, text);
}

void registers_release(emitter *e, unsigned count) {
  set_registers(e, "dec", count);
}

void registers_claim(emitter *e, unsigned count) {
  set_registers(e, "inc", count);
}

#include "backends/amdgcn/mfma.h"
#include "backends/amdgcn/amdgcn.h"

#define ROW(bit_) {FRAGMENT_ROW, bit_}
#define COLUMN(bit_) {FRAGMENT_COLUMN, bit_}
#define DEPTH(bit_) {FRAGMENT_DEPTH, bit_}

static V half(emitter *e, V operand, unsigned which) {
  V pick[4];
  for (unsigned i = 0; i < 4; i++) pick[i] = int32(e, (int32_t)(4 * which + i));
  return LLVMBuildShuffleVector(e->builder, operand, LLVMGetPoison(LLVMTypeOf(operand)), LLVMConstVector(pick, 4), "");
}

/* `wide` takes all 8 elements of a lane, `narrow` 4 of them. Which depths are called which is free, as long as A and B
 * agree: both hold 8 neighbours, and the first four of each lane meet in the first instruction. */
static V multiply(emitter *e, V a, V b, V c, const char *wide, const char *narrow) {
  V none = int32(e, 0);
  if (amdgcn_is_gfx950(e)) {
    T eight = LLVMVectorType(LLVMBFloatTypeInContext(e->context), 8);
    return intrinsic(e, wide, NULL, 0, (V[]){bitcast(e, a, eight), bitcast(e, b, eight), c, none, none, none}, 6);
  }
  for (unsigned i = 0; i < 2; i++)
    c = intrinsic(e, narrow, NULL, 0, (V[]){half(e, a, i), half(e, b, i), c, none, none, none}, 6);
  return c;
}

unsigned mfma_instructions(const emitter *e) {
  return amdgcn_is_gfx950(e) ? 1 : 2;
}

static V multiply_16x16(emitter *e, V a, V b, V c) {
  return multiply(e, a, b, c, "llvm.amdgcn.mfma.f32.16x16x32.bf16", "llvm.amdgcn.mfma.f32.16x16x16bf16.1k");
}

static V multiply_32x32(emitter *e, V a, V b, V c) {
  return multiply(e, a, b, c, "llvm.amdgcn.mfma.f32.32x32x16.bf16", "llvm.amdgcn.mfma.f32.32x32x8bf16.1k");
}

const matrix_instruction mfma_16x16 = {
    .name = "mfma_16x16",
    .rows = 16,
    .columns = 16,
    .depth = 32,
    .a = {6, 3, {ROW(0), ROW(1), ROW(2), ROW(3), DEPTH(3), DEPTH(4)}, {DEPTH(0), DEPTH(1), DEPTH(2)}},
    .b = {6, 3, {COLUMN(0), COLUMN(1), COLUMN(2), COLUMN(3), DEPTH(3), DEPTH(4)}, {DEPTH(0), DEPTH(1), DEPTH(2)}},
    .c = {6, 2, {COLUMN(0), COLUMN(1), COLUMN(2), COLUMN(3), ROW(2), ROW(3)}, {ROW(0), ROW(1)}},
    .multiply = multiply_16x16};

const matrix_instruction mfma_32x32 = {
    .name = "mfma_32x32",
    .rows = 32,
    .columns = 32,
    .depth = 16,
    .a = {6, 3, {ROW(0), ROW(1), ROW(2), ROW(3), ROW(4), DEPTH(3)}, {DEPTH(0), DEPTH(1), DEPTH(2)}},
    .b = {6, 3, {COLUMN(0), COLUMN(1), COLUMN(2), COLUMN(3), COLUMN(4), DEPTH(3)}, {DEPTH(0), DEPTH(1), DEPTH(2)}},
    .c = {6, 4, {COLUMN(0), COLUMN(1), COLUMN(2), COLUMN(3), COLUMN(4), ROW(2)}, {ROW(0), ROW(1), ROW(3), ROW(4)}},
    .multiply = multiply_32x32};

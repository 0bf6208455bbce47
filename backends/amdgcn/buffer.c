#include "backends/amdgcn/buffer.h"

/* What is the same in all lanes may be in vector registers all the same; a load from there is a loop over the different
 * values of the lanes. */
static V to_scalar(emitter *e, V pointer) {
  V address = LLVMBuildPtrToInt(e->builder, pointer, e->i64, "");
  address = intrinsic(e, "llvm.amdgcn.readfirstlane", &e->i64, 1, &address, 1);
  return LLVMBuildIntToPtr(e->builder, address, LLVMTypeOf(pointer), "");
}

V buffer_open(emitter *e, V pointer) {
  /* Word 3 of the descriptor, as raw buffers have it: 32-bit data, no swizzle. */
  enum { RAW = 0x00027000, GLOBAL = 1, DESCRIPTOR = 8 };
  T global = LLVMPointerTypeInContext(e->context, GLOBAL);
  T types[] = {LLVMPointerTypeInContext(e->context, DESCRIPTOR), global};
  V base = to_scalar(e, LLVMBuildAddrSpaceCast(e->builder, pointer, global, ""));
  V arguments[] = {base, LLVMConstInt(e->i16, 0, 0), int64(e, UINT32_MAX), int32(e, RAW)};
  return intrinsic(e, "llvm.amdgcn.make.buffer.rsrc", types, 2, arguments, 4);
}

V buffer_load(emitter *e, V buffer, V lane_offset, V offset, int64_t constant, buffer_reading how) {
  enum { NON_TEMPORAL = 2 };
  T type = LLVMVectorType(e->i32, 4);
  V at = add(e, lane_offset, int32(e, (int32_t)constant));
  V arguments[] = {buffer, at, offset, int32(e, how == BUFFER_READ_ONCE ? NON_TEMPORAL : 0)};
  V words = intrinsic(e, "llvm.amdgcn.raw.ptr.buffer.load", &type, 1, arguments, 4);
  return bitcast(e, words, LLVMVectorType(e->i16, 8));
}

V byte_distance(emitter *e, V from, V to) {
  return sub(e, LLVMBuildPtrToInt(e->builder, to, e->i64, ""), LLVMBuildPtrToInt(e->builder, from, e->i64, ""));
}

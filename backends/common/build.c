#include "backends/common/build.h"

#include <llvm-c/DebugInfo.h>
#include <string.h>

/* ---- constants and types ---- */
V int64(emitter *e, int64_t value) {
  return LLVMConstInt(e->i64, (unsigned long long)value, 1);
}

V int32(emitter *e, int32_t value) {
  return LLVMConstInt(e->i32, (unsigned long long)(uint32_t)value, 1);
}

V float32(emitter *e, double value) {
  return LLVMConstReal(e->f32, (double)(float)value);
}

T vector_type(T element_type, unsigned width) {
  return width == 1 ? element_type : LLVMVectorType(element_type, width);
}

unsigned width_of(V value) {
  T type = LLVMTypeOf(value);
  return LLVMGetTypeKind(type) == LLVMVectorTypeKind ? LLVMGetVectorSize(type) : 1;
}

V splat(emitter *e, V scalar, unsigned width) {
  if (width == 1) return scalar;
  T type = LLVMVectorType(LLVMTypeOf(scalar), width);
  V one = LLVMBuildInsertElement(e->builder, LLVMGetPoison(type), scalar, int32(e, 0), "");
  return LLVMBuildShuffleVector(e->builder, one, LLVMGetPoison(type), LLVMConstNull(LLVMVectorType(e->i32, width)), "");
}

V vector_of(emitter *e, const V *elements, unsigned count) {
  V vector = LLVMGetPoison(LLVMVectorType(LLVMTypeOf(elements[0]), count));
  for (unsigned i = 0; i < count; i++)
    vector = LLVMBuildInsertElement(e->builder, vector, elements[i], int32(e, (int32_t)i), "");
  return vector;
}

/* Broadcasts whichever of the two is a scalar beside a vector. */
static void match(emitter *e, V *a, V *b) {
  unsigned wa = width_of(*a), wb = width_of(*b);
  if (wa < wb) *a = splat(e, *a, wb);
  if (wb < wa) *b = splat(e, *b, wa);
}

/* ---- arithmetic ---- */
#define BINARY(name, build)                                                                                            \
  V name(emitter *e, V a, V b) {                                                                                       \
    match(e, &a, &b);                                                                                                  \
    return build(e->builder, a, b, "");                                                                                \
  }
BINARY(add, LLVMBuildAdd)
BINARY(sub, LLVMBuildSub)
BINARY(mul, LLVMBuildMul)
BINARY(udiv, LLVMBuildUDiv)
BINARY(urem, LLVMBuildURem)
BINARY(and_, LLVMBuildAnd)
BINARY(or_, LLVMBuildOr)
BINARY(shl, LLVMBuildShl)
BINARY(lshr, LLVMBuildLShr)
BINARY(fadd_, LLVMBuildFAdd)
BINARY(fsub_, LLVMBuildFSub)
BINARY(fmul_, LLVMBuildFMul)
BINARY(fdiv_, LLVMBuildFDiv)
#undef BINARY

V intrinsic(emitter *e, const char *name, T *overloads, unsigned overload_count, V *arguments, unsigned count) {
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  V function = LLVMGetIntrinsicDeclaration(e->module, id, overloads, overload_count);
  return LLVMBuildCall2(e->builder, LLVMGlobalGetValueType(function), function, arguments, count, "");
}

V population(emitter *e, V word) {
  T type = e->i32;
  return intrinsic(e, "llvm.ctpop", &type, 1, &word, 1);
}

static V binary_intrinsic(emitter *e, const char *name, V a, V b) {
  match(e, &a, &b);
  T type = LLVMTypeOf(a);
  return intrinsic(e, name, &type, 1, (V[]){a, b}, 2);
}

V imin(emitter *e, V a, V b) {
  return binary_intrinsic(e, "llvm.smin", a, b);
}

V imax(emitter *e, V a, V b) {
  return binary_intrinsic(e, "llvm.smax", a, b);
}

V ceil_div(emitter *e, V a, int64_t b) {
  return b == 1 ? a : udiv(e, add(e, a, int64(e, b - 1)), int64(e, b));
}

V fma_(emitter *e, V a, V b, V c) {
  match(e, &a, &b);
  match(e, &a, &c);
  match(e, &b, &c);
  T type = LLVMTypeOf(c);
  return intrinsic(e, "llvm.fmuladd", &type, 1, (V[]){a, b, c}, 3);
}

V fmax_(emitter *e, V a, V b) {
  return binary_intrinsic(e, "llvm.maxnum", a, b);
}

V fmin_(emitter *e, V a, V b) {
  return binary_intrinsic(e, "llvm.minnum", a, b);
}

V icmp(emitter *e, LLVMIntPredicate predicate, V a, V b) {
  match(e, &a, &b);
  return LLVMBuildICmp(e->builder, predicate, a, b, "");
}

V fcmp(emitter *e, LLVMRealPredicate predicate, V a, V b) {
  match(e, &a, &b);
  return LLVMBuildFCmp(e->builder, predicate, a, b, "");
}

V select_(emitter *e, V condition, V a, V b) {
  match(e, &a, &b);
  return LLVMBuildSelect(e->builder, condition, a, b, "");
}

V to_i64(emitter *e, V value) {
  return LLVMBuildSExt(e->builder, value, vector_type(e->i64, width_of(value)), "");
}

V to_i32(emitter *e, V value) {
  return LLVMBuildTrunc(e->builder, value, vector_type(e->i32, width_of(value)), "");
}

V to_f32(emitter *e, V value) {
  return LLVMBuildSIToFP(e->builder, value, vector_type(e->f32, width_of(value)), "");
}

V bitcast(emitter *e, V value, T type) {
  return LLVMBuildBitCast(e->builder, value, type, "");
}

V sigmoid(emitter *e, V x) {
  V power = e->atoms->exp2(e, fmul_(e, x, float32(e, -LOG2_E)));
  return fdiv_(e, splat(e, float32(e, 1), width_of(x)), fadd_(e, power, float32(e, 1)));
}

V swiglu(emitter *e, V gate, V up, double alpha, double limit) {
  /* The clamps are comparisons, which a NaN passes through: fmin_ and fmax_ would replace it by the limit. */
  V upper = splat(e, float32(e, limit), width_of(gate)), lower = splat(e, float32(e, -limit), width_of(gate));
  V g = select_(e, fcmp(e, LLVMRealOGT, gate, upper), upper, gate);
  V u = select_(e, fcmp(e, LLVMRealOGT, up, upper), upper, up);
  u = select_(e, fcmp(e, LLVMRealOLT, u, lower), lower, u);
  return fmul_(e, fadd_(e, u, float32(e, 1)), fmul_(e, g, sigmoid(e, fmul_(e, g, float32(e, alpha)))));
}

V vector_reduce(emitter *e, V vector, reduction operation) {
  /* Halves are combined until one element is left: a fixed tree. */
  for (unsigned width = width_of(vector); width > 1; width /= 2) {
    V low[32], high[32];
    for (unsigned i = 0; i < width / 2; i++) {
      low[i] = int32(e, (int32_t)i);
      high[i] = int32(e, (int32_t)(i + width / 2));
    }
    V undefined = LLVMGetPoison(LLVMTypeOf(vector));
    V a = LLVMBuildShuffleVector(e->builder, vector, undefined, LLVMConstVector(low, width / 2), "");
    V b = LLVMBuildShuffleVector(e->builder, vector, undefined, LLVMConstVector(high, width / 2), "");
    vector = operation == REDUCE_ADD ? fadd_(e, a, b) : operation == REDUCE_MAX ? fmax_(e, a, b) : fmin_(e, a, b);
  }
  if (LLVMGetTypeKind(LLVMTypeOf(vector)) == LLVMVectorTypeKind)
    vector = LLVMBuildExtractElement(e->builder, vector, int32(e, 0), "");
  return vector;
}

/* ---- memory ---- */
V element(emitter *e, T type, V pointer, V index) {
  return LLVMBuildGEP2(e->builder, type, pointer, &index, 1, "");
}

static T storage(emitter *e, sluice_dtype dtype) {
  return dtype == SLUICE_F32 || dtype == SLUICE_I32 ? e->i32 : e->i16;
}

V element_of(emitter *e, sluice_dtype dtype, V pointer, V index) {
  return element(e, storage(e, dtype), pointer, index);
}

V byte_offset(emitter *e, V pointer, V bytes) {
  return element(e, e->i8, pointer, bytes);
}

static void set_alignment(const emitter *e, V access, T type) {
  T scalar = LLVMGetTypeKind(type) == LLVMVectorTypeKind ? LLVMGetElementType(type) : type;
  unsigned bytes = 8;
  if (LLVMGetTypeKind(scalar) == LLVMIntegerTypeKind) bytes = (LLVMGetIntTypeWidth(scalar) + 7) / 8;
  if (LLVMGetTypeKind(scalar) == LLVMFloatTypeKind) bytes = 4;
  if (scalar != type && e->facts->aligned_vectors) {
    bytes *= LLVMGetVectorSize(type);
    if (bytes > 16) bytes = 16;
  }
  LLVMSetAlignment(access, bytes);
}

V load(emitter *e, T type, V pointer) {
  V value = LLVMBuildLoad2(e->builder, type, pointer, "");
  set_alignment(e, value, type);
  return value;
}

void store(emitter *e, V value, V pointer) {
  set_alignment(e, LLVMBuildStore(e->builder, value, pointer), LLVMTypeOf(value));
}

V load_f32(emitter *e, sluice_dtype dtype, V pointer, V index, unsigned width) {
  V at = element_of(e, dtype, pointer, index);
  if (dtype == SLUICE_F32) return load(e, vector_type(e->f32, width), at);
  T wide = vector_type(e->i32, width);
  V bits = LLVMBuildZExt(e->builder, load(e, vector_type(e->i16, width), at), wide, "");
  return bitcast(e, shl(e, bits, int32(e, 16)), vector_type(e->f32, width));
}

void store_f32(emitter *e, sluice_dtype dtype, V value, V pointer, V index) {
  V at = element_of(e, dtype, pointer, index);
  if (dtype == SLUICE_BF16) {
    unsigned width = width_of(value);
    V bits = bitcast(e, value, vector_type(e->i32, width));
    V odd = and_(e, lshr(e, bits, int32(e, 16)), int32(e, 1));
    V rounded = lshr(e, add(e, bits, add(e, odd, int32(e, 0x7fff))), int32(e, 16));
    V quiet = or_(e, lshr(e, bits, int32(e, 16)), int32(e, 0x40));
    V is_nan = fcmp(e, LLVMRealUNO, value, value);
    value = LLVMBuildTrunc(e->builder, select_(e, is_nan, quiet, rounded), vector_type(e->i16, width), "");
  }
  store(e, value, at);
}

V load_i32(emitter *e, V pointer, V index) {
  return to_i64(e, load(e, e->i32, element(e, e->i32, pointer, index)));
}

void store_i32(emitter *e, V value, V pointer, V index) {
  store(e, to_i32(e, value), element(e, e->i32, pointer, index));
}

/* ---- local variables ---- */
V local(emitter *e, T type) {
  LLVMBasicBlockRef here = LLVMGetInsertBlock(e->builder);
  V first = LLVMGetFirstInstruction(e->entry);
  if (first)
    LLVMPositionBuilderBefore(e->builder, first);
  else
    LLVMPositionBuilderAtEnd(e->builder, e->entry);
  V slot = LLVMBuildAlloca(e->builder, type, "");
  LLVMPositionBuilderAtEnd(e->builder, here);
  return slot;
}

V local_set(emitter *e, T type, V initial) {
  V slot = local(e, type);
  set(e, slot, initial);
  return slot;
}

V get(emitter *e, T type, V slot) {
  return LLVMBuildLoad2(e->builder, type, slot, "");
}

void set(emitter *e, V slot, V value) {
  LLVMBuildStore(e->builder, value, slot);
}

/* ---- control flow ---- */
static LLVMBasicBlockRef block(emitter *e, const char *name) {
  return LLVMAppendBasicBlockInContext(e->context, e->function, name);
}

loop loop_begin(emitter *e, V from, V to, V step) {
  loop l = {.step = step, .limit = to, .head = block(e, "loop"), .exit = block(e, "done")};
  LLVMBasicBlockRef before = LLVMGetInsertBlock(e->builder);
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntSLT, from, to), l.head, l.exit);
  LLVMPositionBuilderAtEnd(e->builder, l.head);
  l.index = LLVMBuildPhi(e->builder, e->i64, "");
  LLVMAddIncoming(l.index, &from, &before, 1);
  return l;
}

/* Forbids LLVM to vectorise the loop that `back_edge` closes. Kernels choose their vectors themselves, and LLVM 22's
 * loop vectoriser, which runs even when the pass builder is told otherwise, miscompiles a maximum by llvm.maxnum over 7
 * elements: it drops those beyond the first vector. */
static void keep_as_written(emitter *e, V back_edge) {
  static const char property_name[] = "llvm.loop.vectorize.enable";
  LLVMMetadataRef self = LLVMTemporaryMDNode(e->context, NULL, 0);
  LLVMMetadataRef property[] = {LLVMMDStringInContext2(e->context, property_name, sizeof property_name - 1),
                                LLVMValueAsMetadata(LLVMConstInt(e->i1, 0, 0))};
  LLVMMetadataRef parts[] = {self, LLVMMDNodeInContext2(e->context, property, 2)};
  LLVMMetadataRef node = LLVMMDNodeInContext2(e->context, parts, 2);
  LLVMMetadataReplaceAllUsesWith(self, node);
  LLVMSetMetadata(back_edge, LLVMGetMDKindIDInContext(e->context, "llvm.loop", 9),
                  LLVMMetadataAsValue(e->context, node));
}

void loop_end(emitter *e, loop *l) {
  V next = add(e, l->index, l->step);
  LLVMBasicBlockRef here = LLVMGetInsertBlock(e->builder);
  LLVMAddIncoming(l->index, &next, &here, 1);
  keep_as_written(e, LLVMBuildCondBr(e->builder, icmp(e, LLVMIntSLT, next, l->limit), l->head, l->exit));
  LLVMPositionBuilderAtEnd(e->builder, l->exit);
}

branch if_begin(emitter *e, V condition) {
  branch b = {.otherwise = block(e, "else"), .join = block(e, "join")};
  LLVMBasicBlockRef then = block(e, "then");
  LLVMBuildCondBr(e->builder, condition, then, b.otherwise);
  LLVMPositionBuilderAtEnd(e->builder, then);
  return b;
}

void if_else(emitter *e, branch *b) {
  LLVMBuildBr(e->builder, b->join);
  LLVMPositionBuilderAtEnd(e->builder, b->otherwise);
  b->otherwise = NULL;
}

void if_end(emitter *e, branch *b) {
  LLVMBuildBr(e->builder, b->join);
  if (b->otherwise) { /* no else part */
    LLVMPositionBuilderAtEnd(e->builder, b->otherwise);
    LLVMBuildBr(e->builder, b->join);
  }
  LLVMPositionBuilderAtEnd(e->builder, b->join);
}

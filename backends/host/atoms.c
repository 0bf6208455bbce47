#include "backends/common/emit.h"
#include "backends/host/host.h"

#include <string.h>

/* The calling convention is sluice_host_kernel: a loop over workgroups [first, last) around the family's body. */
static void begin(emitter *e, const kernel_spec *spec) {
  T parameters[] = {e->pointer, e->pointer, e->i64, e->i64, e->pointer};
  e->spec = spec;
  e->function = LLVMAddFunction(e->module, spec->symbol, LLVMFunctionType(e->nothing, parameters, 5, 0));
  static const struct {
    const char *name, *value;
  } attributes[] = {{"no-builtins", ""},
                    {"frame-pointer", "none"},
                    {"prefer-vector-width", "512"},
                    {"min-legal-vector-width", "512"},
                    {"no-trapping-math", "true"}};
  for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++) {
    const char *name = attributes[i].name, *value = attributes[i].value;
    LLVMAddAttributeAtIndex(
        e->function, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
        LLVMCreateStringAttribute(e->context, name, (unsigned)strlen(name), value, (unsigned)strlen(value)));
  }
  unsigned nounwind = LLVMGetEnumAttributeKindForName("nounwind", 8);
  LLVMAddAttributeAtIndex(e->function, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                          LLVMCreateEnumAttribute(e->context, nounwind, 0));
  e->entry = LLVMAppendBasicBlockInContext(e->context, e->function, "entry");
  LLVMBasicBlockRef setup = LLVMAppendBasicBlockInContext(e->context, e->function, "setup");
  e->loop_head = LLVMAppendBasicBlockInContext(e->context, e->function, "workgroup");
  e->loop_exit = LLVMAppendBasicBlockInContext(e->context, e->function, "return");
  LLVMPositionBuilderAtEnd(e->builder, setup);
  V arguments = LLVMGetParam(e->function, 0);
  e->sizes = LLVMGetParam(e->function, 1);
  e->first = LLVMGetParam(e->function, 2);
  e->last = LLVMGetParam(e->function, 3);
  e->workgroup = LLVMGetParam(e->function, 4);
  for (uint32_t i = 0; i < spec->argument_count; i++)
    e->argument[i] = LLVMBuildLoad2(e->builder, e->pointer, element(e, e->pointer, arguments, int64(e, i)), "");
  V grid = extent_of(e, &e->grid[0]);
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntSLT, e->first, e->last), e->loop_head, e->loop_exit);
  LLVMPositionBuilderAtEnd(e->builder, e->loop_head);
  e->index = LLVMBuildPhi(e->builder, e->i64, "index");
  LLVMAddIncoming(e->index, &e->first, &setup, 1);
  e->x = urem(e, e->index, grid);
  e->y = udiv(e, e->index, grid);
}

static void end(emitter *e) {
  V next = add(e, e->index, int64(e, 1));
  LLVMBasicBlockRef here = LLVMGetInsertBlock(e->builder);
  LLVMAddIncoming(e->index, &next, &here, 1);
  LLVMBuildCondBr(e->builder, icmp(e, LLVMIntSLT, next, e->last), e->loop_head, e->loop_exit);
  LLVMPositionBuilderAtEnd(e->builder, e->loop_exit);
  LLVMBuildRetVoid(e->builder);
  LLVMPositionBuilderAtEnd(e->builder, e->entry);
  LLVMBuildBr(e->builder, LLVMGetNextBasicBlock(e->entry));
}

static V lane(emitter *e) {
  return int64(e, 0);
}

static void barrier(emitter *e) {
  (void)e;
}

static V reduce(emitter *e, V value, reduction operation) {
  (void)e, (void)operation;
  return value;
}

static V unary(emitter *e, const char *name, V x) {
  T type = LLVMTypeOf(x);
  return intrinsic(e, name, &type, 1, &x, 1);
}

/* 2^x = 2^n 2^f with n = round(x), |f| <= 1/2; 2^f by its Taylor polynomial of degree 7 (error below 2^-26). n is
 * applied in two halves, so that results down to the denormals and up to the largest float come out. */
static V exp2_(emitter *e, V x) {
  unsigned width = width_of(x);
  T integers = vector_type(e->i32, width), floats = vector_type(e->f32, width);
  V bounded = fmax_(e, fmin_(e, x, float32(e, 129)), float32(e, -151));
  /* Adding 1.5 * 2^23 rounds to an integer: the lowest level of x86-64 has no rounding instruction. */
  V n = fsub_(e, fadd_(e, bounded, float32(e, 12582912)), float32(e, 12582912));
  V f = fsub_(e, bounded, n);
  double coefficient = 1;
  double c[8];
  for (int i = 0; i < 8; i++) {
    c[i] = coefficient;
    coefficient *= 0.6931471805599453 / (i + 1);
  }
  V p = splat(e, float32(e, c[7]), width);
  for (int i = 6; i >= 0; i--) p = fma_(e, p, f, float32(e, c[i]));
  V whole = LLVMBuildFPToSI(e->builder, n, integers, "");
  V half = LLVMBuildAShr(e->builder, whole, splat(e, int32(e, 1), width), "");
  V rest = sub(e, whole, half);
  V a = bitcast(e, shl(e, add(e, half, int32(e, 127)), int32(e, 23)), floats);
  V b = bitcast(e, shl(e, add(e, rest, int32(e, 127)), int32(e, 23)), floats);
  V result = fmul_(e, fmul_(e, p, a), b);
  return select_(e, fcmp(e, LLVMRealUNO, x, x), x, result);
}

static V rsqrt(emitter *e, V x) {
  return fdiv_(e, splat(e, float32(e, 1), width_of(x)), unary(e, "llvm.sqrt", x));
}

/* acc + a.low * b.low + a.high * b.high for each 32-bit lane; denormals count as zero. */
static V dot_bf16(emitter *e, V accumulator, V a, V b) {
  T pairs = vector_type(LLVMBFloatTypeInContext(e->context), 32);
  V arguments[] = {accumulator, bitcast(e, a, pairs), bitcast(e, b, pairs)};
  return intrinsic(e, "llvm.x86.avx512bf16.dpbf16ps.512", NULL, 0, arguments, 3);
}

#define ATOMS(dot)                                                                                                     \
  {.name = "host",                                                                                                     \
   .begin = begin,                                                                                                     \
   .end = end,                                                                                                         \
   .lane = lane,                                                                                                       \
   .barrier = barrier,                                                                                                 \
   .reduce = reduce,                                                                                                   \
   .reduce_wave = reduce,                                                                                              \
   .exp2 = exp2_,                                                                                                      \
   .rsqrt = rsqrt,                                                                                                     \
   .dot_bf16 = dot}

const atoms *host_atoms(const host_level *level) {
  static const atoms plain = ATOMS(NULL), with_dot = ATOMS(dot_bf16);
  return level->dot_bf16 ? &with_dot : &plain;
}

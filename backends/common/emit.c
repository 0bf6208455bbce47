#include "backends/common/emit.h"

#include <llvm-c/DebugInfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool decline(emitter *e, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(e->declined, sizeof e->declined, format, arguments);
  va_end(arguments);
  return false;
}

/* ---- attributes ---- */
int64_t attribute(emitter *e, const char *name) {
  return kernel_integer(e->spec, name, &e->status);
}

double attribute_float(emitter *e, const char *name) {
  return kernel_float(e->spec, name, &e->status);
}

bool attribute_is(emitter *e, const char *name, const char *value) {
  return strcmp(kernel_string(e->spec, name, &e->status), value) == 0;
}

sluice_dtype attribute_dtype(emitter *e, const char *name) {
  return kernel_dtype(e->spec, name, &e->status);
}

sluice_size attribute_size(emitter *e, const char *name) {
  static const struct {
    const char *name;
    sluice_size size;
  } sizes[] = {{"one", SLUICE_SIZE_ONE},
               {"tokens", SLUICE_SIZE_TOKENS},
               {"rows", SLUICE_SIZE_ROWS},
               {"sequences", SLUICE_SIZE_SEQUENCES},
               {"tiles", SLUICE_SIZE_TILES}};
  const char *text = kernel_string(e->spec, name, &e->status);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (strcmp(text, sizes[i].name) == 0) return sizes[i].size;
  if (!e->status) e->status = sluice_error(SLUICE_INTERNAL, "kernel %s: '%s' is no size", e->spec->symbol, text);
  return SLUICE_SIZE_ONE;
}

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
  V power = e->atoms->exp2(e, fmul_(e, x, float32(e, -1.4426950408889634)));
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
  if (scalar != type && e->atoms->aligned_vectors) {
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

loop lane_loop(emitter *e, V from, V to) {
  return loop_begin(e, add(e, from, e->atoms->lane(e)), to, int64(e, e->lanes));
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

void row_loop(emitter *e, int64_t width, row_body *body, void *user) {
  V lane = e->atoms->lane(e);
  unsigned vector = e->vector;
  int64_t step = (int64_t)vector * e->lanes, full = width / vector * vector;
  if (full) {
    loop l = loop_begin(e, mul(e, lane, int64(e, vector)), int64(e, full), int64(e, step));
    body(e, l.index, vector, user);
    loop_end(e, &l);
  }
  if (full < width) {
    loop l = loop_begin(e, add(e, lane, int64(e, full)), int64(e, width), int64(e, e->lanes));
    body(e, l.index, 1, user);
    loop_end(e, &l);
  }
}

bool find_row_places(emitter *e, int64_t width, row_places *out) {
  const int64_t vector = e->vector, at_a_time = vector * e->lanes;
  out->count = (width + at_a_time - 1) / at_a_time;
  if (e->lanes == 1 || vector == 1 || width % vector || out->count > MOST_ROW_PLACES) return false;
  for (int64_t i = 0; i < out->count; i++) {
    V at = add(e, mul(e, e->atoms->lane(e), int64(e, vector)), int64(e, i * at_a_time));
    out->inside[i] = icmp(e, LLVMIntSLT, at, int64(e, width));
    out->offset[i] = imin(e, at, int64(e, width - vector));
  }
  return true;
}

/* ---- kernels ---- */
static sluice_plan_extent one_unless_set(sluice_plan_extent extent) {
  return extent.divisor ? extent : (sluice_plan_extent){.size = SLUICE_SIZE_ONE, .divisor = 1, .factor = 1};
}

kernel_shape each(sluice_size size) {
  return (kernel_shape){.x = {.size = size, .divisor = 1, .factor = 1}};
}

kernel_shape each_of(sluice_size size, int64_t count) {
  kernel_shape shape = each(size);
  shape.y = (sluice_plan_extent){.size = SLUICE_SIZE_ONE, .divisor = 1, .factor = (uint32_t)count};
  return shape;
}

void kernel_begin(emitter *e, const kernel_spec *spec, kernel_shape shape) {
  e->grid[0] = one_unless_set(shape.x);
  e->grid[1] = one_unless_set(shape.y);
  e->lanes = e->atoms->lanes == 1 || shape.lanes == 0 ? e->atoms->lanes : shape.lanes;
  /* A launch has the lanes of its largest part: with more, the others would lack registers. */
  if (e->joined && e->lanes > e->atoms->lanes) e->lanes = e->atoms->lanes;
  e->workgroup_bytes = 0;
  e->cache_first = shape.cache_first;
  e->reduce_memory = NULL;
  e->resident = shape.resident;
  e->holds_next = shape.holds_next;
  e->atoms->begin(e, spec);
  if (!shape.early) e->atoms->wait(e);
}

void kernel_end(emitter *e) {
  e->atoms->end(e);
}

void prefetch(emitter *e, V pointer, int64_t bytes) {
  enum { LINE = 128 };
  if (!e->atoms->prefetch) return;
  loop lines = lane_loop(e, int64(e, 0), int64(e, (bytes + LINE - 1) / LINE));
  e->atoms->prefetch(e, byte_offset(e, pointer, mul(e, lines.index, int64(e, LINE))));
  loop_end(e, &lines);
}

void prefetch_shared(emitter *e, V pointer, int64_t bytes) {
  if (!e->atoms->prefetch) return;
  branch first = if_begin(e, icmp(e, LLVMIntEQ, or_(e, e->x, e->y), int64(e, 0)));
  prefetch(e, pointer, bytes);
  if_end(e, &first);
}

V workgroup_take(emitter *e, uint64_t bytes) {
  V at = byte_offset(e, e->workgroup, int64(e, e->workgroup_bytes));
  e->workgroup_bytes += (uint32_t)((bytes + 63) / 64 * 64);
  return at;
}

V add_parts(emitter *e, V part, V at, int64_t stride, unsigned count) {
  V sum = load_f32(e, SLUICE_F32, part, at, 1);
  for (unsigned i = 1; i < count; i++)
    sum = fadd_(e, sum, load_f32(e, SLUICE_F32, part, add(e, at, int64(e, i * stride)), 1));
  return sum;
}

V size_of(emitter *e, sluice_size size) {
  return load_i32(e, e->sizes, int64(e, (int64_t)size));
}

V extent_of(emitter *e, const sluice_plan_extent *extent) {
  V units = ceil_div(e, size_of(e, (sluice_size)extent->size), extent->divisor);
  V all = mul(e, units, int64(e, extent->factor));
  return extent->most ? imin(e, all, int64(e, extent->most)) : all;
}

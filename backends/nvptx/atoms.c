/* What NVIDIA GPUs do their own way in kernels of the common skeletons. */
#include "backends/nvptx/nvptx.h"
#include "backends/nvptx/skeletons.h"

#include <stdio.h>
#include <string.h>

enum { KERNEL_CALLING_CONVENTION = 71 };

static void function_attribute(emitter *e, const char *name, const char *value) {
  LLVMAddAttributeAtIndex(
      e->function, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
      LLVMCreateStringAttribute(e->context, name, (unsigned)strlen(name), value, (unsigned)strlen(value)));
}

/* The dynamic shared memory of the module's kernels. */
static V shared_memory(emitter *e) {
  V found = LLVMGetNamedGlobal(e->module, "workgroup_memory");
  if (!found) {
    found = LLVMAddGlobalInAddressSpace(e->module, LLVMArrayType2(e->i8, 0), "workgroup_memory", 3);
    LLVMSetAlignment(found, 1024);
  }
  return LLVMConstAddrSpaceCast(found, e->pointer);
}

static V special_register(emitter *e, const char *name) {
  return LLVMBuildZExt(e->builder, intrinsic(e, name, NULL, 0, NULL, 0), e->i64, "");
}

/* The widest vector, at most 8 elements, that divides every width that this kernel goes over in vectors. */
static unsigned common_vector(const emitter *e) {
  static const char *const names[] = {"width", "x_width", "offset", "head_dim",   "index_dim", "dim",
                                      "page",  "experts", "n",      "vocabulary", "k_width",   "rotary_dim"};
  unsigned vector = e->atoms->vector;
  for (size_t i = 0; i < e->spec->attribute_count; i++) {
    const kernel_attribute *a = &e->spec->attributes[i];
    for (size_t j = 0; j < sizeof names / sizeof *names; j++) {
      if (a->kind != KERNEL_INTEGER || strcmp(a->name, names[j]) != 0) continue;
      int64_t width = strcmp(a->name, "rotary_dim") == 0 ? a->integer / 2 : a->integer;
      while (width % vector) vector /= 2;
    }
  }
  return vector;
}

/* An instruction without operands that memory accesses must not cross. */
static void effect(emitter *e, const char *text) {
  static const char constraints[] = "~{memory}";
  T type = LLVMFunctionType(e->nothing, NULL, 0, 0);
  V function =
      LLVMGetInlineAsm(type, text, strlen(text), constraints, sizeof constraints - 1, 1, 0, LLVMInlineAsmDialectATT, 0);
  LLVMBuildCall2(e->builder, type, function, NULL, 0, "");
}

static void begin(emitter *e, const kernel_spec *spec) {
  T parameters[25];
  for (uint32_t i = 0; i <= spec->argument_count; i++) parameters[i] = e->pointer;
  e->spec = spec;
  e->vector = common_vector(e);
  T type = LLVMFunctionType(e->nothing, parameters, spec->argument_count + 1, 0);
  e->function = LLVMAddFunction(e->module, spec->symbol, type);
  LLVMSetFunctionCallConv(e->function, KERNEL_CALLING_CONVENTION);
  char lanes[16];
  snprintf(lanes, sizeof lanes, "%u", e->lanes);
  function_attribute(e, "nvvm.maxntid", lanes);
  function_attribute(e, "nvvm.minctasm", "1"); /* registers before occupancy: ptxas would rather spill otherwise */
  function_attribute(e, "no-trapping-math", "true");
  unsigned nounwind = LLVMGetEnumAttributeKindForName("nounwind", 8);
  LLVMAddAttributeAtIndex(e->function, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                          LLVMCreateEnumAttribute(e->context, nounwind, 0));
  e->entry = LLVMAppendBasicBlockInContext(e->context, e->function, "entry");
  LLVMBasicBlockRef body = LLVMAppendBasicBlockInContext(e->context, e->function, "body");
  LLVMPositionBuilderAtEnd(e->builder, body);
  for (uint32_t i = 0; i < spec->argument_count; i++) e->argument[i] = LLVMGetParam(e->function, i);
  e->sizes = LLVMGetParam(e->function, spec->argument_count);
  /* The kernel may have been started while the one before it still runs, and lets the one behind it start likewise. */
  effect(e, "griddepcontrol.launch_dependents;");
  e->workgroup = shared_memory(e);
  e->x = special_register(e, "llvm.nvvm.read.ptx.sreg.ctaid.x");
  e->y = special_register(e, "llvm.nvvm.read.ptx.sreg.ctaid.y");
}

static void end(emitter *e) {
  LLVMBuildRetVoid(e->builder);
  LLVMPositionBuilderAtEnd(e->builder, e->entry);
  LLVMBuildBr(e->builder, LLVMGetNextBasicBlock(e->entry));
}

static V lane(emitter *e) {
  return special_register(e, "llvm.nvvm.read.ptx.sreg.tid.x");
}

static void barrier(emitter *e) {
  V all = int32(e, 0);
  intrinsic(e, "llvm.nvvm.barrier.cta.sync.aligned.all", NULL, 0, &all, 1);
}

/* Until everything before this launch is done and visible. */
static void wait_for_previous(emitter *e) {
  effect(e, "griddepcontrol.wait;");
}

static void prefetch_line(emitter *e, V pointer) {
  intrinsic(e, "llvm.nvvm.prefetch.global.L2", NULL, 0,
            &(V){LLVMBuildAddrSpaceCast(e->builder, pointer, LLVMPointerTypeInContext(e->context, 1), "")}, 1);
}

static V shuffle_word(emitter *e, V word, unsigned distance) {
  V arguments[] = {int32(e, -1), word, int32(e, (int32_t)distance), int32(e, WARP - 1)};
  return intrinsic(e, "llvm.nvvm.shfl.sync.bfly.i32", NULL, 0, arguments, 4);
}

/* The value of the lane whose number differs in the bits of `distance`; 4 or 8 bytes. */
static V exchange(emitter *e, V value, unsigned distance) {
  T type = LLVMTypeOf(value);
  if (type == e->f32) return bitcast(e, shuffle_word(e, bitcast(e, value, e->i32), distance), type);
  T words = LLVMVectorType(e->i32, 2);
  V pair = bitcast(e, value, words), result = LLVMGetPoison(words);
  for (int32_t i = 0; i < 2; i++) {
    V word = LLVMBuildExtractElement(e->builder, pair, int32(e, i), "");
    result = LLVMBuildInsertElement(e->builder, result, shuffle_word(e, word, distance), int32(e, i), "");
  }
  return bitcast(e, result, type);
}

static V combine(emitter *e, V a, V b, reduction operation) {
  bool integers = LLVMTypeOf(a) == e->i64;
  switch (operation) {
  case REDUCE_ADD:
    return integers ? add(e, a, b) : fadd_(e, a, b);
  case REDUCE_MAX:
    return integers ? imax(e, a, b) : fmax_(e, a, b);
  case REDUCE_MIN:
    break;
  }
  return integers ? imin(e, a, b) : fmin_(e, a, b);
}

/* A butterfly in each warp. Every lane adds in the same order. */
static V reduce_wave(emitter *e, V value, reduction operation) {
  unsigned width = e->lanes < WARP ? e->lanes : WARP;
  for (unsigned distance = width / 2; distance; distance /= 2)
    value = combine(e, value, exchange(e, value, distance), operation);
  return value;
}

/* The same, then the warps' results through workgroup memory. */
static V reduce(emitter *e, V value, reduction operation) {
  value = reduce_wave(e, value, operation);
  unsigned warps = e->lanes / WARP;
  if (warps <= 1) return value;
  T type = LLVMTypeOf(value);
  if (!e->reduce_memory) e->reduce_memory = workgroup_take(e, 32 * sizeof(double));
  V me = lane(e);
  barrier(e); /* the memory's last readers are done */
  branch first = if_begin(e, icmp(e, LLVMIntEQ, and_(e, me, int64(e, WARP - 1)), int64(e, 0)));
  store(e, value, element(e, type, e->reduce_memory, lshr(e, me, int64(e, 5))));
  if_end(e, &first);
  barrier(e);
  V result = load(e, type, element(e, type, e->reduce_memory, int64(e, 0)));
  for (unsigned i = 1; i < warps; i++)
    result = combine(e, result, load(e, type, element(e, type, e->reduce_memory, int64(e, i))), operation);
  return result;
}

/* Applies an instruction on f32 to each element. */
static V each_element(emitter *e, const char *name, V x) {
  unsigned width = width_of(x), types = 1;
  if (width == 1) return intrinsic(e, name, &e->f32, types, &x, 1);
  V result = LLVMGetPoison(LLVMTypeOf(x));
  for (unsigned i = 0; i < width; i++) {
    V one = LLVMBuildExtractElement(e->builder, x, int64(e, i), "");
    result = LLVMBuildInsertElement(e->builder, result, intrinsic(e, name, &e->f32, types, &one, 1), int64(e, i), "");
  }
  return result;
}

static V exp2_(emitter *e, V x) {
  return each_element(e, "llvm.nvvm.ex2.approx", x);
}

/* Correctly rounded twice: norms are few, and what they scale decides selections. */
static V rsqrt(emitter *e, V x) {
  T type = LLVMTypeOf(x);
  return fdiv_(e, splat(e, float32(e, 1), width_of(x)), intrinsic(e, "llvm.sqrt", &type, 1, &x, 1));
}

const atoms nvptx_atoms = {.name = "nvptx",
                           .lanes = 256,
                           .wave = WARP,
                           .vector = 8,
                           .vector_registers = 32,
                           .aligned_vectors = true,
                           .begin = begin,
                           .end = end,
                           .lane = lane,
                           .barrier = barrier,
                           .wait = wait_for_previous,
                           .prefetch = prefetch_line,
                           .reduce = reduce,
                           .reduce_wave = reduce_wave,
                           .exp2 = exp2_,
                           .rsqrt = rsqrt,
                           .gemm = &nvptx_gemm,
                           .skeletons = nvptx_skeletons};

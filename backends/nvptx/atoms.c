/* What NVIDIA GPUs do their own way in the kernels that all targets share. */
#include "backends/nvptx/mma.h"
#include "backends/nvptx/nvptx.h"
#include "backends/nvptx/own_kernels.h"

#include <stdio.h>
#include <string.h>

enum { KERNEL_CALLING_CONVENTION = 71 };

void nvptx_string_attribute(emitter *e, const char *name, const char *value) {
  LLVMAddAttributeAtIndex(
      e->function, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
      LLVMCreateStringAttribute(e->context, name, (unsigned)strlen(name), value, (unsigned)strlen(value)));
}

void nvptx_enum_attribute(emitter *e, const char *name) {
  LLVMAttributeRef attribute =
      LLVMCreateEnumAttribute(e->context, LLVMGetEnumAttributeKindForName(name, strlen(name)), 0);
  LLVMAddAttributeAtIndex(e->function, (LLVMAttributeIndex)LLVMAttributeFunctionIndex, attribute);
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

/* An instruction without operands that memory accesses must not cross. */
static void effect(emitter *e, const char *text) {
  assembly(e, e->nothing, text, "~{memory}", NULL, 0, ASSEMBLY_EFFECT);
}

/* A function of e->lanes lanes that takes `count` parameters; the builder stands at the start of its body. */
void nvptx_open_function(emitter *e, const char *symbol, T *parameters, uint32_t count) {
  e->function = LLVMAddFunction(e->module, symbol, LLVMFunctionType(e->nothing, parameters, count, 0));
  nvptx_string_attribute(e, "no-trapping-math", "true");
  nvptx_enum_attribute(e, "nounwind");
  e->entry = LLVMAppendBasicBlockInContext(e->context, e->function, "entry");
  LLVMPositionBuilderAtEnd(e->builder, LLVMAppendBasicBlockInContext(e->context, e->function, "body"));
}

void nvptx_close_function(emitter *e) {
  LLVMBuildRetVoid(e->builder);
  LLVMPositionBuilderAtEnd(e->builder, e->entry);
  LLVMBuildBr(e->builder, LLVMGetNextBasicBlock(e->entry));
}

/* A kernel of `count` arguments and the sizes. */
void nvptx_open_kernel(emitter *e, const char *symbol, uint32_t count) {
  T parameters[SLUICE_JOIN_ARGUMENTS + 1];
  for (uint32_t i = 0; i <= count; i++) parameters[i] = e->pointer;
  nvptx_open_function(e, symbol, parameters, count + 1);
  LLVMSetFunctionCallConv(e->function, KERNEL_CALLING_CONVENTION);
  char lanes[16], workgroups[16];
  snprintf(lanes, sizeof lanes, "%u", e->lanes);
  snprintf(workgroups, sizeof workgroups, "%u", e->workgroups_per_processor ? e->workgroups_per_processor : 1);
  nvptx_string_attribute(e, "nvvm.maxntid", lanes);
  nvptx_string_attribute(e, "nvvm.minctasm",
                         workgroups); /* said even when it is 1: ptxas would rather spill otherwise */
  e->sizes = LLVMGetParam(e->function, count);
  /* The kernel may have been started while the one before it still runs, and lets the one behind it start likewise. */
  if (e->joined || !e->releases_next) effect(e, "griddepcontrol.launch_dependents;");
}

static void release(emitter *e) {
  if (!e->joined) effect(e, "griddepcontrol.launch_dependents;"); /* a joined kernel does so in the beginning */
}

static void begin(emitter *e, const kernel_spec *spec) {
  e->spec = spec;
  if (e->joined) {
    nvptx_open_part(e, spec->symbol, spec->argument_count);
  } else {
    nvptx_open_kernel(e, spec->symbol, spec->argument_count);
    e->x = special_register(e, "llvm.nvvm.read.ptx.sreg.ctaid.x");
    e->y = special_register(e, "llvm.nvvm.read.ptx.sreg.ctaid.y");
  }
  for (uint32_t i = 0; i < spec->argument_count; i++) e->argument[i] = LLVMGetParam(e->function, i);
  e->workgroup = shared_memory(e);
}

static void end(emitter *e) {
  if (e->joined) nvptx_count_workgroup(e);
  nvptx_close_function(e);
}

/* That it is less than a workgroup may have saves the upper halves of what is computed from it. */
static V lane(emitter *e) {
  V number = intrinsic(e, "llvm.nvvm.read.ptx.sreg.tid.x", NULL, 0, NULL, 0);
  const uint64_t first[] = {0}, end[] = {1024};
  unsigned range = LLVMGetEnumAttributeKindForName("range", 5);
  LLVMAddCallSiteAttribute(number, LLVMAttributeReturnIndex,
                           LLVMCreateConstantRangeAttribute(e->context, range, 32, first, end));
  return LLVMBuildZExt(e->builder, number, e->i64, "");
}

/* In a joined kernel other lanes of the workgroup may have nothing to do in this part. */
static void barrier(emitter *e) {
  V arguments[] = {int32(e, 0), int32(e, (int32_t)e->lanes)};
  if (e->joined)
    intrinsic(e, "llvm.nvvm.barrier.cta.sync.aligned.count", NULL, 0, arguments, 2);
  else
    intrinsic(e, "llvm.nvvm.barrier.cta.sync.aligned.all", NULL, 0, arguments, 1);
}

/* Until everything before this launch, and what the part waits for, is done and visible. */
static void wait_for_previous(emitter *e) {
  effect(e, "griddepcontrol.wait;");
  if (e->joined) nvptx_wait_for_parts(e, e->joined->parts[e->joined->at].waits, false);
}

/* The wait that follows is for the others alone. */
static void wait_for_all_but_first(emitter *e) {
  if (!e->joined) return;
  effect(e, "griddepcontrol.wait;");
  joined_part *part = &e->joined->parts[e->joined->at];
  nvptx_wait_for_parts(e, part->waits & ~part->late, true);
  part->waits = part->late;
}

/* A kernel that has not waited for the launch that wrote this reads it past the L1 cache, which may hold what was there
 * before; that it is in the L2 cache when that launch has ended is how the hardware works. */
static V load_from_ended(emitter *e, T type, V pointer) {
  V value = load(e, type, pointer);
  LLVMSetVolatile(value, true);
  return value;
}

static void prefetch_line(emitter *e, V pointer) {
  intrinsic(e, "llvm.nvvm.prefetch.global.L2", NULL, 0,
            &(V){LLVMBuildAddrSpaceCast(e->builder, pointer, LLVMPointerTypeInContext(e->context, 1), "")}, 1);
}

/* The value of the lane whose number differs in the bits of `distance`; 4 or 8 bytes. */
static V exchange(emitter *e, V value, unsigned distance) {
  T type = LLVMTypeOf(value);
  if (type == e->f32) return exchange_f32(e, value, distance);
  T pair_type = LLVMVectorType(e->i32, 2);
  V pair = bitcast(e, value, pair_type), result = LLVMGetPoison(pair_type);
  for (int32_t i = 0; i < 2; i++) {
    V word = LLVMBuildExtractElement(e->builder, pair, int32(e, i), "");
    result = LLVMBuildInsertElement(e->builder, result, exchange_i32(e, word, distance), int32(e, i), "");
  }
  return bitcast(e, result, type);
}

/* The largest i64 of a whole warp: the largest upper half, and of those that have it the largest lower one. */
static V largest_of_warp(emitter *e, V value) {
  V upper = to_i32(e, lshr(e, value, int64(e, 32))), lower = to_i32(e, value), all = int32(e, -1);
  V arguments[] = {upper, all};
  V largest = intrinsic(e, "llvm.nvvm.redux.sync.max", NULL, 0, arguments, 2);
  arguments[0] = select_(e, icmp(e, LLVMIntEQ, upper, largest), lower, int32(e, 0));
  V rest = intrinsic(e, "llvm.nvvm.redux.sync.umax", NULL, 0, arguments, 2);
  rest = LLVMBuildZExt(e->builder, rest, e->i64, "");
  return or_(e, shl(e, LLVMBuildZExt(e->builder, largest, e->i64, ""), int64(e, 32)), rest);
}

/* A butterfly in each warp. Every lane adds in the same order. */
static V reduce_wave(emitter *e, V value, reduction operation) {
  unsigned width = e->lanes < WARP ? e->lanes : WARP;
  if (width == WARP && operation == REDUCE_MAX && LLVMTypeOf(value) == e->i64) return largest_of_warp(e, value);
  for (unsigned distance = width / 2; distance; distance /= 2)
    value = combine(e, value, exchange(e, value, distance), operation);
  return value;
}

static V reduce(emitter *e, V value, reduction operation) {
  return combine_waves(e, reduce_wave(e, value, operation), operation);
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

V exp2_flushed(emitter *e, V x) {
  return intrinsic(e, "llvm.nvvm.ex2.approx.ftz", &e->f32, 1, &x, 1);
}

/* Correctly rounded twice: norms are few, and what they scale decides selections. */
static V rsqrt(emitter *e, V x) {
  T type = LLVMTypeOf(x);
  return fdiv_(e, splat(e, float32(e, 1), width_of(x)), intrinsic(e, "llvm.sqrt", &type, 1, &x, 1));
}

static const launch_overlap overlap = {.await_previous = wait_for_previous,
                                       .await_all_but_first = wait_for_all_but_first,
                                       .release_next = release,
                                       .load_ended = load_from_ended};

const atoms nvptx_atoms = {.name = "nvptx",
                           .begin = begin,
                           .end = end,
                           .lane = lane,
                           .barrier = barrier,
                           .reduce = reduce,
                           .reduce_wave = reduce_wave,
                           .exchange = exchange,
                           .exp2 = exp2_,
                           .rsqrt = rsqrt,
                           .overlap = &overlap,
                           .prefetch = prefetch_line,
                           .join = nvptx_join,
                           .gemm = &nvptx_gemm,
                           .gemm_stream = &nvptx_gemm_stream,
                           .own_kernels = nvptx_own_kernels};

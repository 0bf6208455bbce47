/* What AMD GPUs do their own way in the kernels that all targets share. */
#include "backends/amdgcn/amdgcn.h"
#include "backends/common/emit.h"
#include "backends/common/gemm.h"

#include <stdio.h>
#include <string.h>

enum { KERNEL_CALLING_CONVENTION = 91, GLOBAL = 1, LDS = 3 };

/* Data-parallel primitives: permutations of the lanes in each row of 16 (ISA, "DPP control word"). */
enum { SWAP_NEIGHBOURS = 0xb1, SWAP_PAIRS = 0x4e, MIRROR_HALF_ROW = 0x141, MIRROR_ROW = 0x140 };

bool amdgcn_is_gfx950(const emitter *e) {
  char *processor = LLVMGetTargetMachineCPU(e->machine);
  bool is = strcmp(processor, "gfx950") == 0;
  LLVMDisposeMessage(processor);
  return is;
}

static void string_attribute(emitter *e, const char *name, const char *value) {
  LLVMAddAttributeAtIndex(
      e->function, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
      LLVMCreateStringAttribute(e->context, name, (unsigned)strlen(name), value, (unsigned)strlen(value)));
}

static void enum_attribute(emitter *e, LLVMAttributeIndex place, const char *name) {
  LLVMAttributeRef attribute =
      LLVMCreateEnumAttribute(e->context, LLVMGetEnumAttributeKindForName(name, strlen(name)), 0);
  LLVMAddAttributeAtIndex(e->function, place, attribute);
}

/* A number below `end`, as i64. Saying so saves the upper halves of what is computed from it. */
static V small_number(emitter *e, const char *name, uint64_t end) {
  V number = intrinsic(e, name, NULL, 0, NULL, 0);
  const uint64_t first[] = {0}, last[] = {end};
  unsigned range = LLVMGetEnumAttributeKindForName("range", 5);
  LLVMAddCallSiteAttribute(number, LLVMAttributeReturnIndex,
                           LLVMCreateConstantRangeAttribute(e->context, range, 32, first, last));
  return LLVMBuildZExt(e->builder, number, e->i64, "");
}

static V lane(emitter *e) {
  return small_number(e, "llvm.amdgcn.workitem.id.x", e->lanes);
}

V amdgcn_wave(emitter *e) {
  V wave = to_i32(e, lshr(e, lane(e), int64(e, 6)));
  wave = intrinsic(e, "llvm.amdgcn.readfirstlane", &e->i32, 1, &wave, 1);
  return LLVMBuildZExt(e->builder, wave, e->i64, "");
}

V amdgcn_load_input(emitter *e, V pointer, V index) {
  V at = LLVMBuildAddrSpaceCast(e->builder, element(e, e->i32, pointer, index),
                                LLVMPointerTypeInContext(e->context, GLOBAL), "");
  V value = LLVMBuildLoad2(e->builder, e->i32, at, "");
  LLVMSetAlignment(value, 4);
  LLVMSetMetadata(value, LLVMGetMDKindIDInContext(e->context, "invariant.load", 14),
                  LLVMMetadataAsValue(e->context, LLVMMDNodeInContext2(e->context, NULL, 0)));
  return to_i64(e, value);
}

static void begin(emitter *e, const kernel_spec *spec) {
  e->spec = spec;
  T global = LLVMPointerTypeInContext(e->context, GLOBAL), parameters[KERNEL_MOST_ARGUMENTS + 1];
  for (uint32_t i = 0; i <= spec->argument_count; i++) parameters[i] = global;
  e->function =
      LLVMAddFunction(e->module, spec->symbol, LLVMFunctionType(e->nothing, parameters, spec->argument_count + 1, 0));
  LLVMSetFunctionCallConv(e->function, KERNEL_CALLING_CONVENTION);
  LLVMSetVisibility(e->function, LLVMProtectedVisibility);
  enum_attribute(e, (LLVMAttributeIndex)LLVMAttributeFunctionIndex, "nounwind");
  /* No launch writes the step's sizes: they are read once, by scalar loads, whatever is stored between. */
  enum_attribute(e, spec->argument_count + 1, "noalias");
  enum_attribute(e, spec->argument_count + 1, "readonly");
  string_attribute(e, "no-trapping-math", "true");
  string_attribute(e, "uniform-work-group-size", "true");
  char lanes[32];
  snprintf(lanes, sizeof lanes, "%u,%u", e->lanes, e->lanes);
  string_attribute(e, "amdgpu-flat-work-group-size", lanes);
  e->entry = LLVMAppendBasicBlockInContext(e->context, e->function, "entry");
  LLVMPositionBuilderAtEnd(e->builder, LLVMAppendBasicBlockInContext(e->context, e->function, "body"));
  for (uint32_t i = 0; i < spec->argument_count; i++)
    e->argument[i] = LLVMBuildAddrSpaceCast(e->builder, LLVMGetParam(e->function, i), e->pointer, "");
  e->sizes = LLVMBuildAddrSpaceCast(e->builder, LLVMGetParam(e->function, spec->argument_count), e->pointer, "");
  e->x = LLVMBuildZExt(e->builder, intrinsic(e, "llvm.amdgcn.workgroup.id.x", NULL, 0, NULL, 0), e->i64, "");
  e->y = LLVMBuildZExt(e->builder, intrinsic(e, "llvm.amdgcn.workgroup.id.y", NULL, 0, NULL, 0), e->i64, "");
  /* How large it is turns out while the body is emitted: `end` puts memory of that size in its place. */
  V unsized = LLVMAddGlobalInAddressSpace(e->module, LLVMArrayType2(e->i8, 0), "unsized_workgroup_memory", LDS);
  e->workgroup = LLVMConstAddrSpaceCast(unsized, e->pointer);
}

static void end(emitter *e) {
  LLVMBuildRetVoid(e->builder);
  LLVMPositionBuilderAtEnd(e->builder, e->entry);
  LLVMBuildBr(e->builder, LLVMGetNextBasicBlock(e->entry));
  V unsized = LLVMGetNamedGlobal(e->module, "unsized_workgroup_memory");
  if (e->workgroup_bytes) {
    char name[160];
    snprintf(name, sizeof name, "%s_workgroup_memory", e->spec->symbol);
    T type = LLVMArrayType2(e->i8, e->workgroup_bytes);
    V sized = LLVMAddGlobalInAddressSpace(e->module, type, name, LDS);
    LLVMSetLinkage(sized, LLVMInternalLinkage);
    LLVMSetInitializer(sized, LLVMGetPoison(type));
    LLVMSetAlignment(sized, 64);
    LLVMReplaceAllUsesWith(unsized, sized);
  }
  LLVMDeleteGlobal(unsized);
}

/* Memory that the workgroup's lanes wrote before it is what they read after it. */
static void barrier(emitter *e) {
  static const char scope_name[] = "workgroup";
  unsigned scope = LLVMGetSyncScopeID(e->context, scope_name, sizeof scope_name - 1);
  LLVMBuildFenceSyncScope(e->builder, LLVMAtomicOrderingRelease, scope, "");
  intrinsic(e, "llvm.amdgcn.s.barrier", NULL, 0, NULL, 0);
  LLVMBuildFenceSyncScope(e->builder, LLVMAtomicOrderingAcquire, scope, "");
}

/* ---- over the lanes ---- */

/* Applies `move` to each 32-bit word of `value` (4 or 8 bytes). */
static V each_word(emitter *e, V value, V (*move)(emitter *e, V word, int control), int control) {
  T type = LLVMTypeOf(value);
  if (type == e->f32) return bitcast(e, move(e, bitcast(e, value, e->i32), control), type);
  T pair_type = LLVMVectorType(e->i32, 2);
  V pair = bitcast(e, value, pair_type), result = LLVMGetPoison(pair_type);
  for (int32_t i = 0; i < 2; i++) {
    V word = LLVMBuildExtractElement(e->builder, pair, int32(e, i), "");
    result = LLVMBuildInsertElement(e->builder, result, move(e, word, control), int32(e, i), "");
  }
  return bitcast(e, result, type);
}

static V permute(emitter *e, V word, int control) {
  V all = int32(e, 15);
  return intrinsic(e, "llvm.amdgcn.update.dpp", &e->i32, 1,
                   (V[]){LLVMGetPoison(e->i32), word, int32(e, control), all, all, LLVMConstInt(e->i1, 1, 0)}, 6);
}

static V read_lane(emitter *e, V word, int from) {
  return intrinsic(e, "llvm.amdgcn.readlane", &e->i32, 1, (V[]){word, int32(e, from)}, 2);
}

/* Lanes of a row of 16 by permutations that come with an instruction, rows and halves through the LDS crossbar, which
 * needs no LDS. */
static V exchange(emitter *e, V value, unsigned distance) {
  enum { ROTATE_ROW = 0x120, SHIFT_LEFT = 0x100, SHIFT_RIGHT = 0x110, EVEN_BANKS = 5, ODD_BANKS = 10 };
  V word = bitcast(e, value, e->i32), all = int32(e, 15), clear = LLVMConstInt(e->i1, 0, 0);
  V result;
  if (distance <= 2) {
    result = permute(e, word, distance == 1 ? SWAP_NEIGHBOURS : SWAP_PAIRS);
  } else if (distance == 4) { /* banks of four lanes: the even ones take from above, the odd ones from below */
    V from_above[] = {LLVMGetPoison(e->i32), word, int32(e, SHIFT_LEFT + 4), all, int32(e, EVEN_BANKS), clear};
    result = intrinsic(e, "llvm.amdgcn.update.dpp", &e->i32, 1, from_above, 6);
    V from_below[] = {result, word, int32(e, SHIFT_RIGHT + 4), all, int32(e, ODD_BANKS), clear};
    result = intrinsic(e, "llvm.amdgcn.update.dpp", &e->i32, 1, from_below, 6);
  } else if (distance == 8) {
    result = permute(e, word, ROTATE_ROW + 8);
  } else {
    V other = LLVMBuildXor(e->builder, to_i32(e, lane(e)), int32(e, (int32_t)distance), "");
    result = intrinsic(e, "llvm.amdgcn.ds.bpermute", NULL, 0, (V[]){shl(e, other, int32(e, 2)), word}, 2);
  }
  return bitcast(e, result, LLVMTypeOf(value));
}

/* By permutations that come with an instruction: after each, groups of 2, 4, 8, 16 lanes agree. */
V amdgcn_reduce_row(emitter *e, V value, unsigned lanes, reduction operation) {
  static const int controls[] = {SWAP_NEIGHBOURS, SWAP_PAIRS, MIRROR_HALF_ROW, MIRROR_ROW};
  for (unsigned i = 0; i < 4 && 2u << i <= lanes; i++)
    value = combine(e, value, each_word(e, value, permute, controls[i]), operation);
  return value;
}

/* Rows of 16 lanes first, then the rows, at most four, through scalar registers. */
static V reduce_wave(emitter *e, V value, reduction operation) {
  enum { ROW = 16 };
  unsigned width = e->lanes < AMDGCN_WAVE ? e->lanes : AMDGCN_WAVE;
  value = amdgcn_reduce_row(e, value, width < ROW ? width : ROW, operation);
  if (width <= ROW) return value;
  V rows[AMDGCN_WAVE / ROW] = {value};
  unsigned count = width / ROW;
  for (unsigned i = 0; i < count; i++) rows[i] = each_word(e, value, read_lane, (int)(i * ROW));
  for (; count > 1; count /= 2)
    for (unsigned i = 0; i < count / 2; i++) rows[i] = combine(e, rows[2 * i], rows[2 * i + 1], operation);
  return rows[0];
}

static V reduce(emitter *e, V value, reduction operation) {
  return combine_waves(e, reduce_wave(e, value, operation), operation);
}

static V exp2_(emitter *e, V x) {
  unsigned width = width_of(x);
  if (width == 1) return intrinsic(e, "llvm.amdgcn.exp2", &e->f32, 1, &x, 1);
  V result = LLVMGetPoison(LLVMTypeOf(x));
  for (unsigned i = 0; i < width; i++) {
    V one = exp2_(e, LLVMBuildExtractElement(e->builder, x, int32(e, (int32_t)i), ""));
    result = LLVMBuildInsertElement(e->builder, result, one, int32(e, (int32_t)i), "");
  }
  return result;
}

/* Correctly rounded twice: norms are few, and what they scale decides selections. */
static V rsqrt(emitter *e, V x) {
  T type = LLVMTypeOf(x);
  return fdiv_(e, splat(e, float32(e, 1), width_of(x)), intrinsic(e, "llvm.sqrt", &type, 1, &x, 1));
}

static const own_kernel own_kernels[] = {{"attention", amdgcn_attention},
                                         {"block_attention", amdgcn_block_attention},
                                         {"attention_part", amdgcn_attention_part},
                                         {"topk_attention_part", amdgcn_topk_attention_part},
                                         {"attention_merge", amdgcn_attention_merge},
                                         {"block_score", amdgcn_block_score},
                                         {"topk_blocks", amdgcn_topk_blocks},
                                         {NULL, NULL}};

const atoms amdgcn_atoms = {.name = "amdgcn",
                            .begin = begin,
                            .end = end,
                            .lane = lane,
                            .barrier = barrier,
                            .reduce = reduce,
                            .reduce_wave = reduce_wave,
                            .exchange = exchange,
                            .exp2 = exp2_,
                            .rsqrt = rsqrt,
                            .gemm = &amdgcn_gemm,
                            .gemm_stream = &amdgcn_gemm_stream,
                            .own_kernels = own_kernels};

/* Joined kernels: several kernels as the parts of one launch.
 *
 * The workgroups of all parts are those of one launch, part after part. They start in this order, so whatever a
 * workgroup waits for has started, and the launch cannot stand still. A part is a function that the kernel calls for
 * its workgroups; a workgroup that is done counts itself, and waiting is looking at the counters of other parts.
 */
#include "backends/nvptx/mma.h"
#include "backends/nvptx/nvptx.h"

/* A part of a joined kernel: its arguments, the sizes, the counters, and the workgroup's place in the part's grid. */
void nvptx_open_part(emitter *e, const char *symbol, uint32_t count) {
  T parameters[KERNEL_MOST_ARGUMENTS + 4];
  for (uint32_t i = 0; i < count + 2; i++) parameters[i] = e->pointer;
  parameters[count + 2] = parameters[count + 3] = e->i64;
  nvptx_open_function(e, symbol, parameters, count + 4);
  LLVMSetLinkage(e->function, LLVMInternalLinkage);
  nvptx_enum_attribute(e, "alwaysinline");
  e->sizes = LLVMGetParam(e->function, count);
  e->joined->counters = LLVMGetParam(e->function, count + 1);
  e->x = LLVMGetParam(e->function, count + 2);
  e->y = LLVMGetParam(e->function, count + 3);
  e->joined->counted_before = local_set(e, e->i32, int32(e, -1)); /* in all lanes but the first */
}

static V workgroups_of(emitter *e, const sluice_plan_extent grid[2]) {
  return to_i32(e, mul(e, extent_of(e, &grid[0]), extent_of(e, &grid[1])));
}

/* Each in a line of its own: looking at one is in nobody's way who adds to another. */
static V counter(emitter *e, unsigned part) {
  enum { LINE = 128 };
  _Static_assert(SLUICE_JOIN_PARTS * LINE <= SLUICE_COUNTER_BYTES, "counters of all parts");
  return byte_offset(e, e->joined->counters, int64(e, part * LINE));
}

static bool is_last_part(const emitter *e) {
  return e->joined->at + 1 == e->joined->count;
}

/* One lane looks at the counters until those parts, a bit for each, are done; what they wrote is visible then to all
 * lanes behind the barrier. Of the last part's workgroups each counts itself when it will not look again. */
void nvptx_wait_for_parts(emitter *e, uint32_t parts, bool looks_again) {
  const bool counts = is_last_part(e) && !looks_again;
  if (!parts && !counts) return;
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  for (unsigned i = 0; i < e->joined->at; i++) {
    if (!(parts >> i & 1)) continue;
    V all = workgroups_of(e, e->joined->parts[i].grid), at = counter(e, i);
    LLVMBasicBlockRef nap = LLVMAppendBasicBlockInContext(e->context, e->function, "nap");
    LLVMBasicBlockRef look = LLVMAppendBasicBlockInContext(e->context, e->function, "look");
    LLVMBasicBlockRef done = LLVMAppendBasicBlockInContext(e->context, e->function, "there");
    LLVMBuildBr(e->builder, look);
    LLVMPositionBuilderAtEnd(e->builder, look);
    V counted = assembly(e, e->i32, "ld.acquire.gpu.global.u32 $0, [$1];", "=r,l,~{memory}", &at, 1, ASSEMBLY_EFFECT);
    LLVMBuildCondBr(e->builder, icmp(e, LLVMIntULT, counted, all), nap, done);
    LLVMPositionBuilderAtEnd(e->builder, nap);
    assembly(e, e->nothing, "nanosleep.u32 32;", "~{memory}", NULL, 0, ASSEMBLY_EFFECT);
    LLVMBuildBr(e->builder, look);
    LLVMPositionBuilderAtEnd(e->builder, done);
  }
  if (counts) {
    static const char count[] = "atom.relaxed.gpu.global.add.u32 $0, [$1], 1;";
    V own = counter(e, e->joined->at);
    set(e, e->joined->counted_before, assembly(e, e->i32, count, "=r,l,~{memory}", &own, 1, ASSEMBLY_EFFECT));
  }
  if_end(e, &first);
  e->atoms->barrier(e);
}

/* A workgroup of the last part, which waits for all others, leaves the counters as it found them, zero, when all of the
 * part have looked for the last time. Its own number it asked for long ago: nobody waits for it in the end. */
static void reset_counters(emitter *e) {
  const unsigned last = e->joined->at;
  V before = get(e, e->i32, e->joined->counted_before), all = workgroups_of(e, e->grid);
  branch final = if_begin(e, icmp(e, LLVMIntEQ, before, sub(e, all, int32(e, 1))));
  for (unsigned i = 0; i <= last; i++) store(e, int32(e, 0), counter(e, i));
  if_end(e, &final);
}

void nvptx_count_workgroup(emitter *e) {
  if (is_last_part(e)) {
    reset_counters(e);
    return;
  }
  e->atoms->barrier(e);
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  V own = counter(e, e->joined->at);
  assembly(e, e->nothing, "red.release.gpu.global.add.u32 [$0], 1;", "l,~{memory}", &own, 1, ASSEMBLY_EFFECT);
  if_end(e, &first);
}

/* Calls part `i` for its workgroup `number`. */
static void call_part(emitter *e, unsigned i, uint32_t first_argument, V counters, V number) {
  const joined_part *part = &e->joined->parts[i];
  V columns = to_i32(e, extent_of(e, &part->grid[0]));
  V arguments[KERNEL_MOST_ARGUMENTS + 4];
  for (uint32_t a = 0; a < part->argument_count; a++) arguments[a] = LLVMGetParam(e->function, first_argument + a);
  arguments[part->argument_count] = e->sizes;
  arguments[part->argument_count + 1] = counters;
  arguments[part->argument_count + 2] = LLVMBuildZExt(e->builder, urem(e, number, columns), e->i64, "");
  arguments[part->argument_count + 3] = LLVMBuildZExt(e->builder, udiv(e, number, columns), e->i64, "");
  T type = LLVMGlobalGetValueType(part->function);
  if (part->lanes == e->lanes) {
    LLVMBuildCall2(e->builder, type, part->function, arguments, part->argument_count + 4, "");
    return;
  }
  branch mine = if_begin(e, icmp(e, LLVMIntULT, e->atoms->lane(e), int64(e, part->lanes)));
  LLVMBuildCall2(e->builder, type, part->function, arguments, part->argument_count + 4, "");
  if_end(e, &mine);
}

void nvptx_join(emitter *e, const kernel_spec *spec) {
  nvptx_open_kernel(e, spec->symbol, spec->argument_count);
  V counters = LLVMGetParam(e->function, spec->argument_count - 1);
  V number = intrinsic(e, "llvm.nvvm.read.ptx.sreg.ctaid.x", NULL, 0, NULL, 0);
  uint32_t first_argument = 0;
  branch of_part[SLUICE_JOIN_PARTS];
  unsigned before = 0; /* parts before the one at hand */
  for (; before + 1 < e->joined->count && before < SLUICE_JOIN_PARTS; before++) {
    const joined_part *part = &e->joined->parts[before];
    V all = workgroups_of(e, part->grid);
    of_part[before] = if_begin(e, icmp(e, LLVMIntULT, number, all));
    call_part(e, before, first_argument, counters, number);
    if_else(e, &of_part[before]);
    number = sub(e, number, all);
    first_argument += part->argument_count;
  }
  call_part(e, before, first_argument, counters, number);
  while (before > 0) if_end(e, &of_part[--before]);
  nvptx_close_function(e);
}

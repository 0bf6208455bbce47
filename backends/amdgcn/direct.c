#include "backends/amdgcn/direct.h"
#include "backends/amdgcn/amdgcn.h"

#include <stdio.h>
#include <string.h>

enum { LDS = 3 };

unsigned amdgcn_direct_bytes(const char *target) {
  return strcmp(target, "hip:gfx950") == 0 ? 16 : 4;
}

unsigned direct_bytes(const emitter *e) {
  return amdgcn_direct_bytes(e->target);
}

V direct_memory(emitter *e, V memory) {
  return LLVMBuildAddrSpaceCast(e->builder, memory, LLVMPointerTypeInContext(e->context, LDS), "");
}

static LLVMMetadataRef text(emitter *e, const char *string) {
  return LLVMMDStringInContext2(e->context, string, strlen(string));
}

static void attach(emitter *e, V instruction, const char *kind, LLVMMetadataRef scope) {
  LLVMMetadataRef list = LLVMMDNodeInContext2(e->context, &scope, 1);
  LLVMSetMetadata(instruction, LLVMGetMDKindIDInContext(e->context, kind, (unsigned)strlen(kind)),
                  LLVMMetadataAsValue(e->context, list));
}

/* Without this every read of LDS would wait for every load to LDS. */
static void say_unrelated(emitter *e, V instruction, bool is_load) {
  char name[160];
  snprintf(name, sizeof name, "%s direct", e->spec->symbol);
  LLVMMetadataRef name_text = text(e, name), domain = LLVMMDNodeInContext2(e->context, &name_text, 1);
  LLVMMetadataRef load[] = {text(e, "loads to LDS"), domain}, read[] = {text(e, "reads of LDS"), domain};
  LLVMMetadataRef loads = LLVMMDNodeInContext2(e->context, load, 2), reads = LLVMMDNodeInContext2(e->context, read, 2);
  attach(e, instruction, "alias.scope", is_load ? loads : reads);
  attach(e, instruction, "noalias", is_load ? reads : loads);
}

void direct_load(emitter *e, V buffer, V to, V lane_offset, V offset, unsigned constant) {
  V arguments[] = {buffer,     to, int32(e, (int32_t)direct_bytes(e)), lane_offset, offset, int32(e, (int32_t)constant),
                   int32(e, 0)};
  say_unrelated(e, intrinsic(e, "llvm.amdgcn.raw.ptr.buffer.load.lds", NULL, 0, arguments, 7), true);
}

V direct_read(emitter *e, V from, V offset, int64_t constant) {
  V at = LLVMBuildGEP2(e->builder, e->i8, from, &offset, 1, "");
  V more = int32(e, (int32_t)constant);
  at = LLVMBuildGEP2(e->builder, e->i8, at, &more, 1, "");
  V value = LLVMBuildLoad2(e->builder, LLVMVectorType(e->i16, 8), at, "");
  LLVMSetAlignment(value, 16);
  say_unrelated(e, value, false);
  return value;
}

void wave_order(emitter *e) {
  V nothing = int32(e, 0);
  intrinsic(e, "llvm.amdgcn.sched.barrier", NULL, 0, &nothing, 1);
}

/* s_waitcnt: loads in bits 3:0 and 15:14, exports (none) in 6:4, LDS in 11:8. */
static void wait(emitter *e, unsigned loads, unsigned reads) {
  enum { NO_EXPORTS = 7 };
  V counts = int32(e, (int32_t)((loads & 15) | NO_EXPORTS << 4 | reads << 8 | (loads >> 4) << 14));
  wave_order(e);
  intrinsic(e, "llvm.amdgcn.s.waitcnt", NULL, 0, &counts, 1);
  wave_order(e);
}

void direct_wait(emitter *e, unsigned count) {
  enum { ANY = 15 };
  wait(e, count, ANY);
}

void direct_wait_reads(emitter *e) {
  enum { ANY = 63 };
  wait(e, ANY, 0);
}

void direct_barrier(emitter *e) {
  wave_order(e);
  intrinsic(e, "llvm.amdgcn.s.barrier", NULL, 0, NULL, 0);
  wave_order(e);
}

void wave_priority(emitter *e, int priority) {
  V value = LLVMConstInt(e->i16, (unsigned long long)priority, 0);
  intrinsic(e, "llvm.amdgcn.s.setprio", NULL, 0, &value, 1);
}

void direct_schedule(emitter *e, scheduled kind, unsigned count) {
  V arguments[] = {int32(e, (int32_t)kind), int32(e, (int32_t)count), int32(e, 0)};
  intrinsic(e, "llvm.amdgcn.sched.group.barrier", NULL, 0, arguments, 3);
}

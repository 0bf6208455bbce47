#include "backends/nvptx/cluster.h"
#include "backends/nvptx/mma.h"
#include "backends/nvptx/nvptx.h"

#include <stdio.h>

void cluster_size(emitter *e, unsigned size) {
  char text[16];
  snprintf(text, sizeof text, "%u,1,1", size);
  nvptx_string_attribute(e, "nvvm.cluster_dim", text);
}

V cluster_rank(emitter *e) {
  return LLVMBuildZExt(e->builder, intrinsic(e, "llvm.nvvm.read.ptx.sreg.cluster.ctarank", NULL, 0, NULL, 0), e->i64,
                       "");
}

inbox inbox_open(emitter *e, uint64_t bytes, V expected) {
  inbox box = {.memory = workgroup_take(e, bytes), .arrived = workgroup_take(e, sizeof(int64_t))};
  V arguments[] = {shared_address(e, box.arrived), to_i32(e, expected)};
  branch first = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  assembly(e, e->nothing, "mbarrier.init.shared::cta.b64 [$0], 1;\n\tfence.mbarrier_init.release.cluster;",
           "r,~{memory}", arguments, 1, ASSEMBLY_EFFECT);
  if_end(e, &first);
  e->atoms->barrier(e);
  branch announces = if_begin(e, icmp(e, LLVMIntEQ, e->atoms->lane(e), int64(e, 0)));
  assembly(e, e->nothing, "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;", "r,r,~{memory}", arguments, 2,
           ASSEMBLY_EFFECT);
  if_end(e, &announces);
  assembly(e, e->nothing, "barrier.cluster.arrive.relaxed.aligned;", "~{memory}", NULL, 0, ASSEMBLY_CONVERGENT);
  return box;
}

void inbox_wait_all_open(emitter *e) {
  assembly(e, e->nothing, "barrier.cluster.wait.acquire.aligned;", "~{memory}", NULL, 0, ASSEMBLY_CONVERGENT);
}

void inbox_send(emitter *e, const inbox *box, V rank, V offset, V value) {
  V arguments[7] = {add(e, shared_address(e, box->memory), to_i32(e, offset)), shared_address(e, box->arrived),
                    to_i32(e, rank)};
  unsigned width = width_of(value);
  for (unsigned i = 0; i < width; i++)
    arguments[3 + i] = LLVMBuildExtractElement(e->builder, value, int32(e, (int32_t)i), "");
  static const char head[] = "{\n\t.reg .b32 to, signal;\n\tmapa.shared::cluster.u32 to, $0, $2;\n\t"
                             "mapa.shared::cluster.u32 signal, $1, $2;\n\t"
                             "st.async.shared::cluster.mbarrier::complete_tx::bytes";
  char text[320];
  snprintf(text, sizeof text, "%s.%s [to], {%s}, [signal];\n\t}", head, width == 4 ? "v4.f32" : "v2.f32",
           width == 4 ? "$3, $4, $5, $6" : "$3, $4");
  assembly(e, e->nothing, text, width == 4 ? "r,r,r,f,f,f,f,~{memory}" : "r,r,r,f,f,~{memory}", arguments, 3 + width,
           ASSEMBLY_EFFECT);
}

void inbox_receive(emitter *e, const inbox *box) {
  V arguments[] = {shared_address(e, box->arrived)};
  assembly(e, e->nothing,
           "{\n\t.reg .pred complete;\n\tagain:\n\t"
           "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 complete, [$0], 0;\n\t@!complete bra again;\n\t}",
           "r,~{memory}", arguments, 1, ASSEMBLY_EFFECT);
}

#include "backends/nvptx/bulk.h"

#include "backends/nvptx/mma.h"

void bulk_barrier_init(emitter *e, V barrier) {
  V arguments[] = {shared_address(e, barrier)};
  assembly(e, e->nothing, "mbarrier.init.shared::cta.b64 [$0], 1;\n\tfence.proxy.async.shared::cta;", "r,~{memory}",
           arguments, 1, ASSEMBLY_EFFECT);
}

void bulk_copy(emitter *e, V to, V from, int64_t bytes, V barrier) {
  V arguments[] = {shared_address(e, to), from, int32(e, (int32_t)bytes), shared_address(e, barrier)};
  assembly(e, e->nothing,
           "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$3], $2;\n\t"
           "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1], $2, [$3];",
           "r,l,r,r,~{memory}", arguments, 4, ASSEMBLY_EFFECT);
}

void bulk_wait(emitter *e, V barrier, V parity) {
  V arguments[] = {shared_address(e, barrier), to_i32(e, parity)};
  assembly(e, e->nothing,
           "{\n\t.reg .pred arrived;\nwait_${:uid}:\n\t"
           "mbarrier.try_wait.parity.shared::cta.b64 arrived, [$0], $1;\n\t@!arrived bra wait_${:uid};\n\t}",
           "r,r,~{memory}", arguments, 2, ASSEMBLY_EFFECT);
}

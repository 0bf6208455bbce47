#include "backends/nvptx/bulk.h"

#include "backends/nvptx/mma.h"

#include <stdio.h>

void bulk_barrier_init(emitter *e, V barrier, unsigned arrivals) {
  V arguments[] = {shared_address(e, barrier)};
  char text[96];
  snprintf(text, sizeof text, "mbarrier.init.shared::cta.b64 [$0], %u;\n\tfence.proxy.async.shared::cta;", arrivals);
  assembly(e, e->nothing, text, "r,~{memory}", arguments, 1, ASSEMBLY_EFFECT);
}

void bulk_arrive(emitter *e, V barrier) {
  V arguments[] = {shared_address(e, barrier)};
  assembly(e, e->nothing, "mbarrier.arrive.shared::cta.b64 _, [$0];", "r,~{memory}", arguments, 1, ASSEMBLY_EFFECT);
}

void copies_arrive(emitter *e, V barrier) {
  V arguments[] = {shared_address(e, barrier)};
  assembly(e, e->nothing, "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [$0];", "r,~{memory}", arguments, 1,
           ASSEMBLY_EFFECT);
}

void bulk_expect(emitter *e, V barrier, V bytes) {
  V arguments[] = {shared_address(e, barrier), to_i32(e, bytes)};
  assembly(e, e->nothing, "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;", "r,r,~{memory}", arguments, 2,
           ASSEMBLY_EFFECT);
}

void bulk_piece(emitter *e, V to, V from, int64_t bytes, V barrier, reading how) {
  const bool once = how == READ_ONCE;
  V arguments[] = {shared_address(e, to), from, int32(e, (int32_t)bytes), shared_address(e, barrier),
                   once ? read_once_policy(e) : NULL};
  assembly(e, e->nothing,
           once ? "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [$0], [$1], $2, "
                  "[$3], $4;"
                : "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1], $2, [$3];",
           once ? "r,l,r,r,l,~{memory}" : "r,l,r,r,~{memory}", arguments, once ? 5 : 4, ASSEMBLY_EFFECT);
}

void bulk_copy(emitter *e, V to, V from, int64_t bytes, V barrier) {
  bulk_expect(e, barrier, int64(e, bytes));
  bulk_piece(e, to, from, bytes, barrier, READ_PAST_L1);
}

void bulk_wait(emitter *e, V barrier, V parity) {
  V arguments[] = {shared_address(e, barrier), to_i32(e, parity)};
  assembly(e, e->nothing,
           "{\n\t.reg .pred arrived;\nwait_${:uid}:\n\t"
           "mbarrier.try_wait.parity.shared::cta.b64 arrived, [$0], $1;\n\t@!arrived bra wait_${:uid};\n\t}",
           "r,r,~{memory}", arguments, 2, ASSEMBLY_EFFECT);
}

/* Cached in L1 (.ca): past it (.cg) copies of several rows come at half the rate, measured on an H100. */
void copy_async(emitter *e, V to, V from, V wanted) {
  V arguments[] = {shared_address(e, to), from, LLVMBuildZExt(e->builder, wanted, e->i32, "")};
  assembly(e, e->nothing,
           "{\n\t.reg .pred wanted;\n\tsetp.ne.u32 wanted, $2, 0;\n\t"
           "@wanted cp.async.ca.shared.global [$0], [$1], 16;\n\t}",
           "r,l,r,~{memory}", arguments, 3, ASSEMBLY_EFFECT);
}

void copy_async_part(emitter *e, V to, V from, V bytes) {
  V arguments[] = {shared_address(e, to), from, bytes};
  assembly(e, e->nothing, "cp.async.ca.shared.global [$0], [$1], 16, $2;", "r,l,r,~{memory}", arguments, 3,
           ASSEMBLY_EFFECT);
}

void copy_async_commit(emitter *e) {
  assembly(e, e->nothing, "cp.async.commit_group;", "~{memory}", NULL, 0, ASSEMBLY_EFFECT);
}

void copy_async_wait(emitter *e, unsigned left) {
  char text[32];
  snprintf(text, sizeof text, "cp.async.wait_group %u;", left);
  assembly(e, e->nothing, text, "~{memory}", NULL, 0, ASSEMBLY_EFFECT);
}

void warp_barrier(emitter *e) {
  assembly(e, e->nothing, "bar.warp.sync -1;", "~{memory}", NULL, 0, ASSEMBLY_CONVERGENT);
}

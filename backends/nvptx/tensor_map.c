#include "backends/nvptx/tensor_map.h"

#include "backends/nvptx/nvptx.h"

#include <stdio.h>

/* Numbers of processors are smaller on all GPUs of the architecture (144 on the full chip). */
enum { PLACES = 256 };

/* The module's places, one for each processor. */
static V places(emitter *e) {
  static const char name[] = "tensor_maps";
  V found = LLVMGetNamedGlobal(e->module, name);
  if (found) return found;
  T type = LLVMArrayType2(e->i8, (uint64_t)PLACES * TENSOR_MAP_BYTES);
  found = LLVMAddGlobalInAddressSpace(e->module, type, name, 1);
  LLVMSetInitializer(found, LLVMConstNull(type));
  LLVMSetLinkage(found, LLVMInternalLinkage);
  LLVMSetAlignment(found, TENSOR_MAP_BYTES);
  return found;
}

static V own_place(emitter *e) {
  V processor = intrinsic(e, "llvm.nvvm.read.ptx.sreg.smid", NULL, 0, NULL, 0);
  V offset = mul(e, to_i64(e, and_(e, processor, int32(e, PLACES - 1))), int64(e, TENSOR_MAP_BYTES));
  return add(e, LLVMBuildPtrToInt(e->builder, places(e), e->i64, ""), offset);
}

static void replace(emitter *e, const char *field, const char *kind, const char *operands, V scratch, V value) {
  char text[160];
  snprintf(text, sizeof text, "tensormap.replace.tile.%s.shared::cta.b1024.%s [$0], %s;", field, kind, operands);
  const char *constraints = !value ? "r,~{memory}" : LLVMTypeOf(value) == e->i64 ? "r,l,~{memory}" : "r,r,~{memory}";
  V arguments[] = {scratch, value};
  assembly(e, e->nothing, text, constraints, arguments, value ? 2 : 1, ASSEMBLY_EFFECT);
}

/* Numbers of the fields' values are those of the PTX manual, "tensormap.replace". */
static void fill(emitter *e, const tensor_shape *shape, V scratch) {
  replace(e, "global_address", "b64", "$1", scratch, LLVMBuildPtrToInt(e->builder, shape->base, e->i64, ""));
  replace(e, "rank", "b32", "1", scratch, NULL); /* one less than there are dimensions */
  replace(e, "box_dim", "b32", "0, $1", scratch, int32(e, BOX_COLUMNS));
  replace(e, "box_dim", "b32", "1, $1", scratch, int32(e, (int32_t)shape->box_rows));
  replace(e, "global_dim", "b32", "0, $1", scratch, int32(e, (int32_t)shape->columns));
  replace(e, "global_dim", "b32", "1, $1", scratch, to_i32(e, shape->rows));
  replace(e, "global_stride", "b64", "0, $1", scratch, int64(e, shape->columns * 2));
  replace(e, "element_stride", "b32", "0, $1", scratch, int32(e, 1));
  replace(e, "element_stride", "b32", "1, $1", scratch, int32(e, 1));
  replace(e, "elemtype", "b32", "0xa", scratch, NULL);          /* bf16 */
  replace(e, "interleave_layout", "b32", "0x0", scratch, NULL); /* none */
  replace(e, "swizzle_mode", "b32", "0x3", scratch, NULL);      /* rows of 128 bytes */
  replace(e, "fill_mode", "b32", "0x0", scratch, NULL);         /* zeros */
}

/* All lanes of a warp. */
static void make(emitter *e, const tensor_shape *shape, V scratch, V map) {
  V lane = e->atoms->lane(e), from = shared_address(e, scratch), arguments[] = {map, from};
  store(e, int32(e, 0), element(e, e->i32, scratch, lane));
  warp_barrier(e);
  branch first = if_begin(e, icmp(e, LLVMIntEQ, lane, int64(e, 0)));
  fill(e, shape, from);
  if_end(e, &first);
  warp_barrier(e);
  assembly(e, e->nothing,
           "tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [$0], [$1], 128;",
           "l,r,~{memory}", arguments, 2, ASSEMBLY_CONVERGENT);
  assembly(e, e->nothing, "fence.proxy.tensormap::generic.acquire.gpu [$0], 128;\n\tfence.proxy.async.shared::cta;",
           "l,~{memory}", arguments, 1, ASSEMBLY_EFFECT);
}

V tensor_map_make(emitter *e, const tensor_shape *shape, V scratch) {
  V map = own_place(e);
  branch first = if_begin(e, icmp(e, LLVMIntSLT, e->atoms->lane(e), int64(e, WARP)));
  make(e, shape, scratch, map);
  if_end(e, &first);
  return map;
}

void tensor_box(emitter *e, V map, V to, V column, V row, V barrier) {
  V arguments[] = {shared_address(e, to), map, column, row, shared_address(e, barrier)};
  assembly(e, e->nothing,
           "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1, {$2, $3}], [$4];",
           "r,l,r,r,r,~{memory}", arguments, 5, ASSEMBLY_EFFECT);
}

// RUN: sluice opt %s --passes=fuse-index-select | FileCheck %s

// CHECK-LABEL: @f
// CHECK-NEXT: %[[B:.*]] = "model.index_select"(%arg2, %arg1, %arg0) {block = 16 : i64, dim = 32 : i64, heads = 2 : i64, init = 1 : i64, k = 4 : i64, layer = 3 : i64, local = 2 : i64}
// CHECK-NEXT: return %[[B]]
func.func @f(%batch: !model.batch, %cache: !model.cache, %iq: tensor<?x64xf32>) -> tensor<?x2x4xi32> {
  %s = "model.index_score"(%iq, %cache, %batch) {dim = 32 : i64, heads = 2 : i64, layer = 3 : i64} : (tensor<?x64xf32>, !model.cache, !model.batch) -> tensor<?x2x?xf32>
  %m = "model.block_max"(%s, %batch) {block = 16 : i64} : (tensor<?x2x?xf32>, !model.batch) -> tensor<?x2x?xf32>
  %b = "model.topk_blocks"(%m, %batch) {block = 16 : i64, init = 1 : i64, k = 4 : i64, local = 2 : i64} : (tensor<?x2x?xf32>, !model.batch) -> tensor<?x2x4xi32>
  return %b : tensor<?x2x4xi32>
}

// Block scores that something else reads must reach memory.
// CHECK-LABEL: @scores_used
// CHECK-NOT: index_select
// CHECK: model.topk_blocks
func.func @scores_used(%batch: !model.batch, %cache: !model.cache, %iq: tensor<?x64xf32>) -> (tensor<?x2x4xi32>, tensor<?x2x?xf32>) {
  %s = "model.index_score"(%iq, %cache, %batch) {dim = 32 : i64, heads = 2 : i64, layer = 3 : i64} : (tensor<?x64xf32>, !model.cache, !model.batch) -> tensor<?x2x?xf32>
  %m = "model.block_max"(%s, %batch) {block = 16 : i64} : (tensor<?x2x?xf32>, !model.batch) -> tensor<?x2x?xf32>
  %b = "model.topk_blocks"(%m, %batch) {block = 16 : i64, init = 1 : i64, k = 4 : i64, local = 2 : i64} : (tensor<?x2x?xf32>, !model.batch) -> tensor<?x2x4xi32>
  return %b, %m : tensor<?x2x4xi32>, tensor<?x2x?xf32>
}

// The scores are of the cache before the append; the selection must not move behind it.
// CHECK-LABEL: @append_between
// CHECK-NOT: index_select
// CHECK: model.topk_blocks
func.func @append_between(%batch: !model.batch, %cache: !model.cache, %iq: tensor<?x64xf32>, %ik: tensor<?x32xf32>) -> (tensor<?x2x4xi32>, !model.cache) {
  %s = "model.index_score"(%iq, %cache, %batch) {dim = 32 : i64, heads = 2 : i64, layer = 3 : i64} : (tensor<?x64xf32>, !model.cache, !model.batch) -> tensor<?x2x?xf32>
  %m = "model.block_max"(%s, %batch) {block = 16 : i64} : (tensor<?x2x?xf32>, !model.batch) -> tensor<?x2x?xf32>
  %c = "model.cache_append"(%cache, %batch, %ik) {heads = 1 : i64, layer = 3 : i64, part = "index_key"} : (!model.cache, !model.batch, tensor<?x32xf32>) -> !model.cache
  %b = "model.topk_blocks"(%m, %batch) {block = 16 : i64, init = 1 : i64, k = 4 : i64, local = 2 : i64} : (tensor<?x2x?xf32>, !model.batch) -> tensor<?x2x4xi32>
  return %b, %c : tensor<?x2x4xi32>, !model.cache
}

// The same for an append of another layer: the value that index_score reads is gone behind it.
// CHECK-LABEL: @append_of_other_layer_between
// CHECK-NOT: index_select
// CHECK: model.topk_blocks
func.func @append_of_other_layer_between(%batch: !model.batch, %cache: !model.cache, %iq: tensor<?x64xf32>, %ik: tensor<?x32xf32>) -> (tensor<?x2x4xi32>, !model.cache) {
  %s = "model.index_score"(%iq, %cache, %batch) {dim = 32 : i64, heads = 2 : i64, layer = 3 : i64} : (tensor<?x64xf32>, !model.cache, !model.batch) -> tensor<?x2x?xf32>
  %m = "model.block_max"(%s, %batch) {block = 16 : i64} : (tensor<?x2x?xf32>, !model.batch) -> tensor<?x2x?xf32>
  %c = "model.cache_append"(%cache, %batch, %ik) {heads = 1 : i64, layer = 4 : i64, part = "index_key"} : (!model.cache, !model.batch, tensor<?x32xf32>) -> !model.cache
  %b = "model.topk_blocks"(%m, %batch) {block = 16 : i64, init = 1 : i64, k = 4 : i64, local = 2 : i64} : (tensor<?x2x?xf32>, !model.batch) -> tensor<?x2x4xi32>
  return %b, %c : tensor<?x2x4xi32>, !model.cache
}

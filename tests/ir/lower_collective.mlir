// RUN: sluice opt %s --passes=choose-tiles,plan-buffers,lower-to-kernels | FileCheck %s

// What the ranks have comes together in a buffer as wide as all of them; a kernel makes one row of it.
// CHECK: %[[own:.*]] = "kernel.arena"() {bytes = 256 : i64, dtype = "f32", name = "embed"
// CHECK: %[[all:.*]] = "kernel.arena"() {bytes = 1024 : i64, dtype = "f32", name = "parts"{{.*}}size = "tokens", width = 256 : i64}
// CHECK: %[[sum:.*]] = "kernel.arena"() {bytes = 256 : i64, dtype = "f32", name = "all_reduce"
// CHECK: "kernel.add_ranks"(%[[own]], %[[all]], %[[sum]])
// CHECK-SAME: ranks = 4 : i64, size = "tokens"
// CHECK-SAME: width = 64 : i64
// CHECK: %[[logits:.*]] = "kernel.output"() {name = "logits"}
// CHECK: "kernel.join_ranks"(%{{.*}}, %{{.*}}, %[[logits]])
// CHECK-SAME: ranks = 4 : i64, size = "rows"
// CHECK-SAME: width = 100 : i64
func.func @step(%batch: !model.batch, %cache: !model.cache) -> (tensor<?x400xf32>, tensor<?xi32>)
    attributes {model.dtype = "float32", model.page = 16 : i64, model.layers = 1 : i64, model.hidden = 64 : i64, model.vocabulary = 400 : i64, model.max_context = 128 : i64} {
  %e = "model.weight"() {name = "embed"} : () -> tensor<400x64xbf16>
  %p = "model.weight"() {name = "head"} : () -> tensor<100x64xbf16>
  %h = "model.embed"(%batch, %e) : (!model.batch, tensor<400x64xbf16>) -> tensor<?x64xf32>
  %a = "model.all_reduce"(%h) {group = 4 : i64} : (tensor<?x64xf32>) -> tensor<?x64xf32>
  %r = "model.select_rows"(%a, %batch) : (tensor<?x64xf32>, !model.batch) -> tensor<?x64xf32>
  %o = "model.lm_head"(%r, %p) : (tensor<?x64xf32>, tensor<100x64xbf16>) -> tensor<?x100xf32>
  %l = "model.all_gather"(%o) {group = 4 : i64} : (tensor<?x100xf32>) -> tensor<?x400xf32>
  %s = "model.sample"(%l, %batch) : (tensor<?x400xf32>, !model.batch) -> tensor<?xi32>
  return %l, %s : tensor<?x400xf32>, tensor<?xi32>
}

// RUN: sluice opt %s --passes=plan-buffers | FileCheck %s
// RUN: sluice opt %s --passes=choose-tiles,plan-buffers,lower-to-kernels | FileCheck %s --check-prefix=LOWER

// CHECK: model.embed{{.*}}arena.bytes = [512], arena.offset = [0]
// CHECK: model.slice{{.*}}arena.bytes = [256], arena.offset = [512], {{.*}}offset = 64 : i64
// CHECK: model.slice{{.*}}arena.bytes = [256], arena.offset = [768], {{.*}}offset = 0 : i64
// CHECK: model.slice{{.*}}arena.bytes = [256], arena.offset = [1024], {{.*}}offset = 32 : i64
// The embedding is gone; an observer does not keep a value.
// CHECK: model.linear"(%{{.*}}arena.bytes = [128], arena.offset = [0]
// The gap that the second slice leaves is tighter than what remains of the embedding's.
// CHECK: model.linear"(%{{.*}}arena.bytes = [128], arena.offset = [768]
// Too large for that one.
// CHECK: %[[S:.*]] = "model.linear"(%{{.*}}arena.bytes = [256], arena.offset = [128]
// A residual that the product also reads keeps its place.
// CHECK: model.linear_add"(%[[S]], %{{.*}}, %[[S]]) {arena.bytes = [256], arena.offset = [1280]
// Other residuals that die give theirs.
// CHECK: model.linear_add{{.*}}arena.bytes = [256], arena.offset = [512]
// CHECK: model.linear_add{{.*}}arena.bytes = [256], arena.offset = [512]
// CHECK: model.linear_add{{.*}}arena.bytes = [256], arena.offset = [1024]
// CHECK: model.select_rows{{.*}}arena.offset = [0], arena.size = ["rows"]
// CHECK: model.lm_head"
// CHECK-NOT: arena
// CHECK: return

// LOWER: "kernel.sample"
func.func @step(%batch: !model.batch, %cache: !model.cache) -> (tensor<?x100xf32>, tensor<?xi32>)
    attributes {model.dtype = "float32", model.page = 16 : i64, model.layers = 1 : i64, model.hidden = 128 : i64, model.vocabulary = 100 : i64, model.max_context = 128 : i64} {
  %e = "model.weight"() {name = "embed"} : () -> tensor<100x128xbf16>
  %u = "model.weight"() {name = "u"} : () -> tensor<100x64xbf16>
  %n = "model.weight"() {name = "n"} : () -> tensor<32x64xbf16>
  %p = "model.weight"() {name = "p"} : () -> tensor<64x32xbf16>
  %q = "model.weight"() {name = "q"} : () -> tensor<64x64xbf16>
  %h = "model.embed"(%batch, %e) : (!model.batch, tensor<100x128xbf16>) -> tensor<?x128xf32>
  %b = "model.slice"(%h) {offset = 64 : i64} : (tensor<?x128xf32>) -> tensor<?x64xf32>
  %a = "model.slice"(%h) {offset = 0 : i64} : (tensor<?x128xf32>) -> tensor<?x64xf32>
  %f = "model.slice"(%h) {offset = 32 : i64} : (tensor<?x128xf32>) -> tensor<?x64xf32>
  %c = "model.linear"(%a, %n) : (tensor<?x64xf32>, tensor<32x64xbf16>) -> tensor<?x32xf32>
  "model.observe"(%h) {name = "layer.0.embed"} : (tensor<?x128xf32>) -> ()
  %d = "model.linear"(%b, %n) : (tensor<?x64xf32>, tensor<32x64xbf16>) -> tensor<?x32xf32>
  %s = "model.linear"(%c, %p) : (tensor<?x32xf32>, tensor<64x32xbf16>) -> tensor<?x64xf32>
  "model.observe"(%a) {name = "layer.0.a"} : (tensor<?x64xf32>) -> ()
  %y = "model.linear_add"(%s, %q, %s) : (tensor<?x64xf32>, tensor<64x64xbf16>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %z = "model.linear_add"(%y, %q, %b) : (tensor<?x64xf32>, tensor<64x64xbf16>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %o = "model.linear_add"(%d, %p, %z) : (tensor<?x32xf32>, tensor<64x32xbf16>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %o2 = "model.linear_add"(%o, %q, %f) : (tensor<?x64xf32>, tensor<64x64xbf16>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %r = "model.select_rows"(%o2, %batch) : (tensor<?x64xf32>, !model.batch) -> tensor<?x64xf32>
  %l = "model.lm_head"(%r, %u) : (tensor<?x64xf32>, tensor<100x64xbf16>) -> tensor<?x100xf32>
  %t = "model.sample"(%l, %batch) : (tensor<?x100xf32>, !model.batch) -> tensor<?xi32>
  return %l, %t : tensor<?x100xf32>, tensor<?xi32>
}

// RUN: not sluice opt %s --passes=choose-tiles,plan-buffers,lower-to-kernels 2>&1 | FileCheck %s

// CHECK: lower_all_to_all.mlir:8:8: error: 'model.all_to_all' has no kernel yet
func.func @step(%batch: !model.batch, %cache: !model.cache) -> (tensor<?x100xf32>, tensor<?xi32>)
    attributes {model.dtype = "float32", model.page = 16 : i64, model.layers = 1 : i64, model.hidden = 64 : i64, model.vocabulary = 100 : i64, model.max_context = 128 : i64} {
  %e = "model.weight"() {name = "embed"} : () -> tensor<100x64xbf16>
  %h = "model.embed"(%batch, %e) : (!model.batch, tensor<100x64xbf16>) -> tensor<?x64xf32>
  %a = "model.all_to_all"(%h) {group = 8 : i64} : (tensor<?x64xf32>) -> tensor<?x64xf32>
  %r = "model.select_rows"(%a, %batch) : (tensor<?x64xf32>, !model.batch) -> tensor<?x64xf32>
  %l = "model.lm_head"(%r, %e) : (tensor<?x64xf32>, tensor<100x64xbf16>) -> tensor<?x100xf32>
  %s = "model.sample"(%l, %batch) : (tensor<?x100xf32>, !model.batch) -> tensor<?xi32>
  return %l, %s : tensor<?x100xf32>, tensor<?xi32>
}

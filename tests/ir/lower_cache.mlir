// Attention needs a layer that the model has, and a cache that something writes.
// RUN: sluice opt %s --passes=choose-tiles,plan-buffers,lower-to-kernels | FileCheck %s
// RUN: sed 's/layer = 1 : i64, scale/layer = 990000 : i64, scale/' %s | not sluice opt - --passes=choose-tiles,plan-buffers,lower-to-kernels 2>&1 | FileCheck %s --check-prefix=BEYOND
// RUN: sed 's/layer = 1 : i64, part/layer = 0 : i64, part/' %s | not sluice opt - --passes=choose-tiles,plan-buffers,lower-to-kernels 2>&1 | FileCheck %s --check-prefix=UNWRITTEN
// RUN: sed 's/model.layers = 2/model.layers = -5/' %s | not sluice opt - --passes=choose-tiles,plan-buffers,lower-to-kernels 2>&1 | FileCheck %s --check-prefix=LAYERS

// A page of 16 tokens: keys [2][16][16] f32 in 2048 bytes, values behind them, no index keys.
// CHECK: "kernel.cache"() {has_index = 0 : i64, layer = 1 : i64, page_bytes = 4096 : i64}
// CHECK: "kernel.cache_append"{{.*}}page_bytes = 4096 : i64, part = "key", part_offset = 0 : i64{{.*}}transposed = "keys"
// CHECK: "kernel.cache_append"{{.*}}part = "value", part_offset = 2048 : i64
// CHECK: "kernel.attention"{{.*}}cost = [0, 512, 256, 0, 0, 0, 256, 0, 0, 0]{{.*}}transposed = "keys", value_offset = 2048 : i64
// BEYOND: error: layer 990000, but the model has 2
// UNWRITTEN: error: nothing writes the keys of layer 1
// LAYERS: error: attribute model.layers is -5, expected 1 to 4096
func.func @step(%batch: !model.batch, %cache: !model.cache) -> (tensor<?x100xf32>, tensor<?xi32>)
    attributes {model.dtype = "float32", model.page = 16 : i64, model.layers = 2 : i64, model.hidden = 64 : i64, model.vocabulary = 100 : i64, model.max_context = 128 : i64} {
  %e = "model.weight"() {name = "embed"} : () -> tensor<100x64xbf16>
  %h = "model.embed"(%batch, %e) : (!model.batch, tensor<100x64xbf16>) -> tensor<?x64xf32>
  %k = "model.slice"(%h) {offset = 0 : i64} : (tensor<?x64xf32>) -> tensor<?x32xf32>
  %c1 = "model.cache_append"(%cache, %batch, %k) {heads = 2 : i64, layer = 1 : i64, part = "key"} : (!model.cache, !model.batch, tensor<?x32xf32>) -> !model.cache
  %c2 = "model.cache_append"(%c1, %batch, %k) {heads = 2 : i64, layer = 1 : i64, part = "value"} : (!model.cache, !model.batch, tensor<?x32xf32>) -> !model.cache
  %y = "model.attention"(%h, %c2, %batch) {heads = 4 : i64, kv_heads = 2 : i64, layer = 1 : i64, scale = 0.25 : f64} : (tensor<?x64xf32>, !model.cache, !model.batch) -> tensor<?x64xf32>
  %r = "model.select_rows"(%y, %batch) : (tensor<?x64xf32>, !model.batch) -> tensor<?x64xf32>
  %l = "model.lm_head"(%r, %e) : (tensor<?x64xf32>, tensor<100x64xbf16>) -> tensor<?x100xf32>
  %s = "model.sample"(%l, %batch) : (tensor<?x100xf32>, !model.batch) -> tensor<?xi32>
  return %l, %s : tensor<?x100xf32>, tensor<?xi32>
}

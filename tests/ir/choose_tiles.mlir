// RUN: sluice opt %s --passes=choose-tiles --target host:x86-64-v3 | FileCheck %s
// RUN: sluice opt %s --passes=choose-tiles --target host:x86-64-v4 | FileCheck %s --check-prefixes=WIDE

// Products have variants, each for a range of steps, and a panel of the weight; the router a panel; attention and
// selection query tiles. What the host does not split says so.
// CHECK: model.norm"
// CHECK-NOT: tile.
// CHECK: model.router"{{.*}}{k = 2 : i64, tile.panel = [[P:[0-9]+]] : i64, tile.split = 0 : i64, tile.variants = [{from = 0 : i64, many = 0 : i64, to = 4294967295 : i64}]}
// CHECK: model.experts"{{.*}}tile.group = 2 : i64, tile.panel = [[P]] : i64, tile.second = [{apart = 0 : i64, from = 0 : i64, lanes = 1 : i64, schedule = "tiles", slice = [[P]] : i64, stages = 1 : i64, tile_m = {{[0-9]+}} : i64, to = 4294967295 : i64, workgroups = 0 : i64}], tile.variants = [{apart
// CHECK: model.attention"{{.*}}tile.query = [[Q:[0-9]+]] : i64, tile.variants = []}
// CHECK: model.index_select"{{.*}}tile.query = [[Q]] : i64, tile.scores = [{cache_first = 0 : i64, few = 0 : i64, from = 0 : i64, many = 0 : i64, to = 4294967295 : i64}], tile.split = 0 : i64}
// CHECK: model.linear"{{.*}}tile.panel = [[P]] : i64, tile.variants = [{from = 0 : i64, lanes = 1 : i64, schedule = "tiles", slice = [[P]] : i64, stages = 1 : i64, tile_m = [[M:[0-9]+]] : i64, to = 4294967295 : i64, workgroups = 0 : i64}]}
// CHECK: model.rms_norm
// CHECK-NOT: tile.
// CHECK: model.lm_head"{{.*}}tile.panel = [[P]] : i64, tile.variants = [{{.*}}tile_m = [[M]] : i64
// CHECK: model.sample
// CHECK-NOT: tile.
// CHECK: return
// WIDE: model.router"{{.*}}{k = 2 : i64, tile.panel = 64 : i64
func.func @step(%batch: !model.batch, %cache: !model.cache) -> (tensor<?x100xf32>, tensor<?xi32>)
    attributes {model.dtype = "float32", model.page = 16 : i64, model.vocabulary = 100 : i64, model.max_context = 128 : i64} {
  %e = "model.weight"() {name = "embed"} : () -> tensor<100x64xbf16>
  %n = "model.weight"() {name = "model.norm"} : () -> tensor<64xbf16>
  %b = "model.weight"() {name = "bias"} : () -> tensor<8xf32>
  %g = "model.weight"() {name = "gate"} : () -> tensor<8x64xf32>
  %wg = "model.weight"() {name = "a.{expert}"} : () -> tensor<8x32x64xbf16>
  %wu = "model.weight"() {name = "b.{expert}"} : () -> tensor<8x32x64xbf16>
  %wd = "model.weight"() {name = "c.{expert}"} : () -> tensor<8x64x32xbf16>
  %w = "model.weight"() {name = "w"} : () -> tensor<64x64xbf16>
  %x = "model.embed"(%batch, %e) : (!model.batch, tensor<100x64xbf16>) -> tensor<?x64xf32>
  %i, %v = "model.router"(%x, %g, %b) {k = 2 : i64} : (tensor<?x64xf32>, tensor<8x64xf32>, tensor<8xf32>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
  %m = "model.experts"(%x, %i, %v, %wg, %wu, %wd) {alpha = 1.702 : f64, limit = 7.0 : f64, scale = 2.0 : f64} : (tensor<?x64xf32>, tensor<?x2xi32>, tensor<?x2xf32>, tensor<8x32x64xbf16>, tensor<8x32x64xbf16>, tensor<8x64x32xbf16>) -> tensor<?x64xf32>
  %a = "model.attention"(%m, %cache, %batch) {heads = 4 : i64, kv_heads = 2 : i64, layer = 0 : i64, scale = 0.25 : f64} : (tensor<?x64xf32>, !model.cache, !model.batch) -> tensor<?x64xf32>
  %s = "model.index_select"(%a, %cache, %batch) {block = 16 : i64, dim = 32 : i64, heads = 2 : i64, init = 0 : i64, k = 4 : i64, layer = 0 : i64, local = 1 : i64} : (tensor<?x64xf32>, !model.cache, !model.batch) -> tensor<?x2x4xi32>
  %y = "model.linear"(%a, %w) : (tensor<?x64xf32>, tensor<64x64xbf16>) -> tensor<?x64xf32>
  %z = "model.rms_norm"(%y, %n) {eps = 1.0e-6 : f64} : (tensor<?x64xf32>, tensor<64xbf16>) -> tensor<?x64xf32>
  "model.observe"(%s) {name = "layer.0.blocks"} : (tensor<?x2x4xi32>) -> ()
  %r = "model.select_rows"(%z, %batch) : (tensor<?x64xf32>, !model.batch) -> tensor<?x64xf32>
  %l = "model.lm_head"(%r, %e) : (tensor<?x64xf32>, tensor<100x64xbf16>) -> tensor<?x100xf32>
  %t = "model.sample"(%l, %batch) : (tensor<?x100xf32>, !model.batch) -> tensor<?xi32>
  return %l, %t : tensor<?x100xf32>, tensor<?xi32>
}

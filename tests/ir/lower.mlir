// RUN: sluice opt %s --passes=choose-tiles,plan-buffers --target host:x86-64-v3 | FileCheck %s --check-prefix=PLAN
// RUN: sluice opt %s --passes=choose-tiles,plan-buffers,lower-to-kernels --target host:x86-64-v3 | FileCheck %s --check-prefix=LOWER
// RUN: sluice opt %s --passes=choose-tiles,plan-buffers --target host:x86-64-v4 | FileCheck %s --check-prefix=WIDE
// RUN: not sluice opt %s --passes=choose-tiles,lower-to-kernels 2>&1 | FileCheck %s --check-prefix=UNPLANNED
// RUN: not sluice opt %s --passes=plan-buffers,lower-to-kernels 2>&1 | FileCheck %s --check-prefix=UNTILED

// RUN: sluice opt %s --passes=choose-tiles,plan-buffers --target host:x86-64-v3 | sed 's/slice = 16 : i64/slice = 24 : i64/' | not sluice opt - --passes=lower-to-kernels --target host:x86-64-v3 2>&1 | FileCheck %s --check-prefix=ILLEGAL
// RUN: sluice opt %s --passes=choose-tiles,plan-buffers --target host:x86-64-v3 | sed 's/tile_m = 48 : i64, //' | not sluice opt - --passes=lower-to-kernels --target host:x86-64-v3 2>&1 | FileCheck %s --check-prefix=LACKING

// The embedding stays alive for the sum, which takes its place; the norm's value dies in the product, and the next norm takes
// its place. Logit rows have a region of their own. Returned values are outputs.
// PLAN: model.embed{{.*}}arena.bytes = [256], arena.offset = [0], arena.size = ["tokens"]
// PLAN: model.rms_norm{{.*}}arena.bytes = [256], arena.offset = [256], arena.size = ["tokens"]
// PLAN: model.linear_swiglu{{.*}}arena.bytes = [192], arena.offset = [512], arena.size = ["tokens"], {{.*}}tile.panel = 16 : i64, tile.variants = [{from = 0 : i64, lanes = 1 : i64, schedule = "tiles", slice = 16 : i64, stages = 1 : i64, tile_m = 48 : i64, to = 4294967295 : i64, workgroups = 0 : i64}]
// PLAN: model.linear_add{{.*}}arena.bytes = [256], arena.offset = [0], arena.size = ["tokens"]
// PLAN: model.select_rows{{.*}}arena.bytes = [256], arena.offset = [0], arena.size = ["rows"]
// PLAN: model.rms_norm{{.*}}arena.bytes = [256], arena.offset = [0], arena.size = ["rows"]
// PLAN: model.lm_head
// PLAN-NOT: arena.size
// PLAN: return

// WIDE: tile.panel = 64 : i64

// LOWER: func.func @step() attributes {model.dtype = "float32"
// LOWER: %[[T:.*]] = "kernel.input"() {name = "tokens"}
// LOWER: %[[E:.*]] = "kernel.weight"() {{.*}}group = 1 : i64, layout = "rows"{{.*}}rows = 100 : i64
// LOWER: %[[H:.*]] = "kernel.arena"() {bytes = 256 : i64, dtype = "f32", name = "embed", offset = 0 : i64, size = "tokens", width = 64 : i64}
// LOWER: "kernel.embed"(%[[T]], %[[E]], %[[H]])
// LOWER: %[[P:.*]] = "kernel.weight"() {batch = 1 : i64, columns = 64 : i64, dtype = "bf16", group = 2 : i64, layout = "panel_pairs", name = "model.layers.0.gate", panel = 16 : i64, rank = 2 : i64, rows = 80 : i64, source_rows = [40, 40], sources = ["model.layers.0.gate", "model.layers.0.up"]}
// LOWER: "kernel.gemm"(%{{.*}}, %[[P]], %{{.*}}, %{{.*}}) {alpha = 1.702{{.*}}epilogue = "swiglu", group = 2 : i64{{.*}}layer = 0 : i64{{.*}}n = 40 : i64, {{.*}}panel = 16 : i64, schedule = "tiles", size = "tokens", slice = 16 : i64
// LOWER: %[[OUT:.*]] = "kernel.arena"() {bytes = 256 : i64, dtype = "f32", name = "linear_add", offset = 0 : i64
// LOWER: "kernel.gemm"(%{{.*}}, %{{.*}}, %[[H]], %[[OUT]]) {{.*}}epilogue = "add"
// LOWER-NEXT: "kernel.observe"(%[[OUT]]) {dimension = 64 : i64, dtype = "f32", name = "layer.0.out"}
// LOWER: "kernel.select_rows"
// LOWER: "kernel.rms_norm"({{.*}}size = "rows"
// LOWER: %[[L:.*]] = "kernel.output"() {name = "logits"}
// LOWER: "kernel.gemm"(%{{.*}}, %{{.*}}, %{{.*}}, %[[L]]) {{.*}}size = "rows"
// LOWER: "kernel.sample"(%[[L]], %{{.*}}, %{{.*}}) {{.*}}vocabulary = 100 : i64

// UNPLANNED: lower.mlir:{{[0-9]+}}:{{[0-9]+}}: error: {{.*}}run plan-buffers first
// ILLEGAL: error: configuration of gemm for host:x86-64-v3, schedule 'tiles': 'slice' is 24, expected the panel, 16
// LACKING: error: tile.variants lacks 'tile_m'
// UNTILED: lower.mlir:{{[0-9]+}}:{{[0-9]+}}: error: no attribute tile.{{m|panel}}: run choose-tiles first

func.func @step(%batch: !model.batch, %cache: !model.cache) -> (tensor<?x100xf32>, tensor<?xi32>)
    attributes {model.dtype = "float32", model.page = 16 : i64, model.layers = 1 : i64, model.hidden = 64 : i64, model.vocabulary = 100 : i64, model.max_context = 128 : i64} {
  %e = "model.weight"() {name = "embed"} : () -> tensor<100x64xbf16>
  %n = "model.weight"() {name = "model.layers.0.norm"} : () -> tensor<64xbf16>
  %wg = "model.weight"() {name = "model.layers.0.gate"} : () -> tensor<40x64xbf16>
  %wu = "model.weight"() {name = "model.layers.0.up"} : () -> tensor<40x64xbf16>
  %wd = "model.weight"() {name = "model.layers.0.down"} : () -> tensor<64x40xbf16>
  %h = "model.embed"(%batch, %e) : (!model.batch, tensor<100x64xbf16>) -> tensor<?x64xf32>
  %x = "model.rms_norm"(%h, %n) {eps = 1.0e-6 : f64} : (tensor<?x64xf32>, tensor<64xbf16>) -> tensor<?x64xf32>
  %g = "model.linear_swiglu"(%x, %wg, %wu) {alpha = 1.702 : f64, limit = 7.0 : f64} : (tensor<?x64xf32>, tensor<40x64xbf16>, tensor<40x64xbf16>) -> tensor<?x40xf32>
  %y = "model.linear_add"(%g, %wd, %h) : (tensor<?x40xf32>, tensor<64x40xbf16>, tensor<?x64xf32>) -> tensor<?x64xf32>
  "model.observe"(%y) {name = "layer.0.out"} : (tensor<?x64xf32>) -> ()
  %r = "model.select_rows"(%y, %batch) : (tensor<?x64xf32>, !model.batch) -> tensor<?x64xf32>
  %f = "model.rms_norm"(%r, %n) {eps = 1.0e-6 : f64} : (tensor<?x64xf32>, tensor<64xbf16>) -> tensor<?x64xf32>
  %l = "model.lm_head"(%f, %e) : (tensor<?x64xf32>, tensor<100x64xbf16>) -> tensor<?x100xf32>
  %s = "model.sample"(%l, %batch) : (tensor<?x100xf32>, !model.batch) -> tensor<?xi32>
  return %l, %s : tensor<?x100xf32>, tensor<?xi32>
}

// Products whose weights stream: at most 132 workgroups share the panels of 16 rows evenly and hold sums of at most 6 of them at a time,
// 3 of each matrix with pairs. Few panels have a workgroup each; steps of several tiles of rows have a workgroup for each 6 panels, but
// no fewer than 66; steps of many rows tiles in turns, of 192 rows and 16 panels, where columns and depth are
// multiples of 64 and 512 or more, of experts 256.
// float32 has other products.
// RUN: sluice opt %s --passes=choose-tiles,plan-buffers,lower-to-kernels --target h100 | FileCheck %s
// RUN: sluice opt %s --passes=choose-tiles --target h100 | FileCheck %s --check-prefix=TILES
// RUN: sluice opt %s --passes=choose-tiles,plan-buffers,lower-to-kernels --target host:x86-64-v3 | FileCheck %s --check-prefix=HOST

// TILES: "model.linear"{{.*}}tile.group = 8 : i64, tile.panel = 16 : i64, tile.variants = [{from = 0 : i64, lanes = {{[0-9]+}} : i64, schedule = "stream", slice = 96 : i64, stages = {{[0-9]+}} : i64, tile_m = 8 : i64, to = 8 : i64, workgroups = 132 : i64}, {from = 9 : i64{{.*}}, {from = 65 : i64, lanes = 256 : i64, schedule = "stream", slice = 96 : i64, stages = {{[0-9]+}} : i64, tile_m = 128 : i64, to = 4294967295 : i64, workgroups = 683 : i64}]

// 4096 panels: 32 for the largest share, 6 rounds.
// CHECK: "kernel.gemm"{{.*}}launch.range = ["tokens", 17, 64]{{.*}}n = 65535 : i64{{.*}}panel = 16 : i64{{.*}}slice = 96 : i64{{.*}}tile_m = 64 : i64{{.*}}workgroups = 132 : i64
// CHECK: "kernel.gemm"{{.*}}launch.range = ["tokens", 65, 4294967295]{{.*}}n = 65535 : i64{{.*}}slice = 96 : i64{{.*}}tile_m = 128 : i64{{.*}}workgroups = 683 : i64
// 160 panels: shares of 2.
// CHECK: "kernel.gemm"{{.*}}n = 2560 : i64{{.*}}slice = 32 : i64{{.*}}tile_m = 8 : i64{{.*}}workgroups = 132 : i64
// CHECK: "kernel.gemm"{{.*}}launch.range = ["tokens", 65, 256]{{.*}}n = 2560 : i64{{.*}}slice = 48 : i64{{.*}}tile_m = 128 : i64{{.*}}workgroups = 66 : i64
// CHECK: "kernel.gemm"{{.*}}launch.range = ["tokens", 257, 4294967295]{{.*}}n = 2560 : i64{{.*}}schedule = "turns"{{.*}}slice = 256 : i64{{.*}}tile_m = 192 : i64{{.*}}workgroups = 132 : i64
// 640 pairs of panels: shares of 5, in 2 rounds.
// CHECK: "kernel.gemm"{{.*}}epilogue = "swiglu"{{.*}}n = 10240 : i64{{.*}}slice = 48 : i64{{.*}}tile_m = 8 : i64{{.*}}workgroups = 132 : i64
// CHECK: "kernel.router_logits"{{.*}}launch.range = ["tokens", 0, 8]{{.*}}many = 0 : i64
// CHECK: "kernel.router_logits"{{.*}}launch.range = ["tokens", 9, 4294967295]{{.*}}many = 1 : i64
// CHECK: "kernel.expert_gemm"{{.*}}launch.range = ["tokens", 17, 64]{{.*}}schedule = "rows"{{.*}}slice = 32 : i64{{.*}}tile_m = 16 : i64{{.*}}workgroups = 0 : i64
// CHECK: "kernel.expert_gemm"{{.*}}launch.range = ["tokens", 65, 256]{{.*}}slice = 64 : i64{{.*}}tile_m = 16 : i64{{.*}}workgroups = 132 : i64
// CHECK: "kernel.expert_gemm"{{.*}}launch.range = ["tokens", 257, 768]{{.*}}slice = 64 : i64{{.*}}tile_m = 32 : i64{{.*}}workgroups = 132 : i64
// CHECK: "kernel.expert_gemm"{{.*}}launch.range = ["tokens", 769, 4294967295]{{.*}}slice = 64 : i64{{.*}}tile_m = 64 : i64{{.*}}workgroups = 132 : i64
// 6 panels and a part.
// CHECK: "kernel.gemm"{{.*}}launch.range = ["rows", 0, 8]{{.*}}n = 100 : i64{{.*}}slice = 16 : i64{{.*}}tile_m = 8 : i64{{.*}}workgroups = 7 : i64
// The router's logits have a kernel for few tokens. Experts stream in steps of more than 64 tokens, their 8 panels in 2 rounds.
// HOST-NOT: workgroups = {{[1-9]}}
// --batch-invariant: in turns for all sizes, small steps with slices for 132 workgroups; what does not suit has one kernel.
// RUN: sluice opt %s --batch-invariant --passes=choose-tiles,plan-buffers,lower-to-kernels --target h100 | FileCheck %s --check-prefix=ALIKE
// ALIKE: "kernel.gemm"({{.*}}n = 65535 : i64{{.*}}schedule = "rows"{{.*}}slice = 32 : i64{{.*}}tile_m = 16 : i64
// ALIKE: "kernel.gemm"({{.*}}launch.range = ["tokens", 0, 192]{{.*}}n = 2560 : i64{{.*}}schedule = "turns"{{.*}}slice = 32 : i64
// ALIKE: "kernel.gemm"({{.*}}launch.range = ["tokens", 193, 512]{{.*}}n = 2560 : i64{{.*}}schedule = "turns"{{.*}}slice = 128 : i64
// ALIKE: "kernel.gemm"({{.*}}launch.range = ["tokens", 513, 4294967295]{{.*}}n = 2560 : i64{{.*}}schedule = "turns"{{.*}}slice = 256 : i64
// ALIKE: "kernel.router_logits"{{.*}}many = 1 : i64
// ALIKE-NOT: "kernel.router_logits"
// ALIKE: "kernel.expert_gemm"({{.*}}schedule = "rows"
// ALIKE-NOT: "kernel.expert_gemm"

func.func @step(%batch: !model.batch, %cache: !model.cache) -> (tensor<?x100xf32>, tensor<?xi32>)
    attributes {model.dtype = "bfloat16", model.page = 16 : i64, model.layers = 1 : i64, model.hidden = 512 : i64, model.vocabulary = 100 : i64, model.max_context = 128 : i64} {
  %e = "model.weight"() {name = "embed"} : () -> tensor<100x512xbf16>
  %u = "model.weight"() {name = "up"} : () -> tensor<65535x512xbf16>
  %h = "model.embed"(%batch, %e) : (!model.batch, tensor<100x512xbf16>) -> tensor<?x512xbf16>
  %w = "model.linear"(%h, %u) : (tensor<?x512xbf16>, tensor<65535x512xbf16>) -> tensor<?x65535xbf16>
  %v = "model.weight"() {name = "narrow"} : () -> tensor<2560x512xbf16>
  %x = "model.linear"(%h, %v) : (tensor<?x512xbf16>, tensor<2560x512xbf16>) -> tensor<?x2560xbf16>
  %g = "model.weight"() {name = "gate"} : () -> tensor<10240x512xbf16>
  %i = "model.weight"() {name = "pair"} : () -> tensor<10240x512xbf16>
  %y = "model.linear_swiglu"(%h, %g, %i) {alpha = 1.0 : f64, limit = 7.0 : f64} : (tensor<?x512xbf16>, tensor<10240x512xbf16>, tensor<10240x512xbf16>) -> tensor<?x10240xbf16>
  %q = "model.weight"() {name = "router"} : () -> tensor<16x512xf32>
  %b = "model.weight"() {name = "bias"} : () -> tensor<16xf32>
  %p:2 = "model.router"(%h, %q, %b) {k = 2 : i64} : (tensor<?x512xbf16>, tensor<16x512xf32>, tensor<16xf32>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
  %n = "model.weight"() {name = "experts.{expert}.w"} : () -> tensor<16x128x512xbf16>
  %o = "model.expert_linear"(%h, %p#0, %n) : (tensor<?x512xbf16>, tensor<?x2xi32>, tensor<16x128x512xbf16>) -> tensor<?x2x128xbf16>
  %s = "model.slice"(%w) {offset = 0 : i64} : (tensor<?x65535xbf16>) -> tensor<?x512xbf16>
  %r = "model.select_rows"(%s, %batch) : (tensor<?x512xbf16>, !model.batch) -> tensor<?x512xbf16>
  %l = "model.lm_head"(%r, %e) : (tensor<?x512xbf16>, tensor<100x512xbf16>) -> tensor<?x100xf32>
  %t = "model.sample"(%l, %batch) : (tensor<?x100xf32>, !model.batch) -> tensor<?xi32>
  return %l, %t : tensor<?x100xf32>, tensor<?xi32>
}

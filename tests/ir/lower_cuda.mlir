// On a GPU target the selection goes through memory: scores of blocks, their choice, and attention over the lists. Pages hold keys as
// rows and values transposed. Products in bf16 have weights in groups of 8 columns and a kernel for each range of rows.
// RUN: sluice opt %s --passes=choose-tiles,plan-buffers --target h100 | FileCheck %s --check-prefix=PLAN
// RUN: sluice opt %s --passes=choose-tiles,plan-buffers,lower-to-kernels --target cuda:sm_90a | FileCheck %s
// RUN: sluice opt %s --passes=choose-tiles,plan-buffers,lower-to-kernels --target h200 | FileCheck %s
// RUN: sluice opt %s --passes=choose-tiles,plan-buffers,lower-to-kernels --target host:x86-64-v3 | FileCheck %s --check-prefix=HOST

// Scratch: f32 scores of 2 index heads for each token and page.
// PLAN: model.select_attention"{{.*}}arena.bytes = [128, 64, 64], arena.offset = [{{[0-9]+, [0-9]+}}, 0], arena.size = ["tokens", "tokens", "tokens_pages"]
// PLAN: model.index_select"{{.*}}arena.bytes = [64, 64], arena.offset = [{{[0-9]+}}, 0], arena.size = ["tokens", "tokens_pages"]

// CHECK: "kernel.cache_append"{{.*}}part = "key", part_offset = 0 : i64{{.*}}transposed = "values"
// CHECK: "kernel.cache"() {has_index = 1 : i64, layer = 0 : i64
// CHECK: "kernel.cache_append"{{.*}}part = "index_key"{{.*}}transposed = "values"
// CHECK: %[[S:.*]] = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "{{.*}}block_scores", offset = 0 : i64, size = "tokens_pages", width = 2 : i64}
// CHECK: "kernel.block_score"(%{{[^,]*}}, %[[TILES:[^,]*]], %[[TABLE:[^,]*]], %[[POOL:[^,]*]], %[[S]]) {cache_first = 0 : i64{{.*}}dim = 32 : i64, dtype = "bf16", heads = 2 : i64, index_offset = {{[0-9]+}} : i64, k = 4 : i64{{.*}}launch.range = ["page_stride", 0, 128]{{.*}}local = 1 : i64, many = 0 : i64, page = 16 : i64, page_bytes = {{[0-9]+}} : i64, query_tile = 16 : i64{{.*}}transposed = "values"
// CHECK-NEXT: "kernel.block_score"({{.*}}, %[[S]]) {cache_first = 1 : i64{{.*}}launch.range = ["page_stride", 129, 4294967295]
// CHECK-NEXT: "kernel.topk_blocks"(%[[S]], %{{[^,]*}}, %[[B:.*]]) {block = 16 : i64, {{.*}}heads = 2 : i64, init = 0 : i64, k = 4 : i64{{.*}}local = 1 : i64
// CHECK: "kernel.block_attention"(%[[Q:[^,]*]], %[[B]], %[[TILES]], %[[TABLE]], %{{.*}}, %{{.*}}) {{.*}}head_dim = 16 : i64, heads = 4 : i64, k = 4 : i64, kv_heads = 2 : i64{{.*}}query_tile = 16 : i64{{.*}}transposed = "values"
// CHECK: "kernel.block_score"
// CHECK: "kernel.topk_blocks"
// CHECK-NOT: "kernel.index_select
// CHECK-NOT: "kernel.select_attention
// CHECK: %[[W:.*]] = "kernel.weight"() {batch = 1 : i64, columns = 64 : i64, dtype = "bf16", group = 8 : i64, layout = "panels", {{.*}}panel = 16 : i64
// CHECK: "kernel.gemm"(%{{.*}}, %[[W]], %{{.*}}, %[[L:.*]]) {{.*}}group = 8 : i64{{.*}}launch.range = ["rows", 0, [[FIRST:[0-9]+]]]
// CHECK-NEXT: "kernel.gemm"(%{{.*}}, %[[W]], %{{.*}}, %[[L]]) {{.*}}launch.range = ["rows",
// CHECK: "kernel.gemm"(%{{.*}}, %[[W]], %{{.*}}, %[[L]]) {{.*}}launch.range = ["rows", {{[0-9]+}}, 4294967295]
// CHECK: "kernel.sample"(%[[L]]

// HOST-NOT: block_score
// HOST: "kernel.select_attention"{{.*}}transposed = "keys"
// HOST: "kernel.index_select"{{.*}}transposed = "keys"
// HOST-NOT: launch.range

func.func @step(%batch: !model.batch, %cache: !model.cache) -> (tensor<?x100xf32>, tensor<?xi32>)
    attributes {model.dtype = "bfloat16", model.page = 16 : i64, model.layers = 1 : i64, model.hidden = 64 : i64, model.vocabulary = 100 : i64, model.max_context = 128 : i64} {
  %e = "model.weight"() {name = "embed"} : () -> tensor<100x64xbf16>
  %h = "model.embed"(%batch, %e) : (!model.batch, tensor<100x64xbf16>) -> tensor<?x64xbf16>
  %k = "model.slice"(%h) {offset = 0 : i64} : (tensor<?x64xbf16>) -> tensor<?x32xbf16>
  %c1 = "model.cache_append"(%cache, %batch, %k) {heads = 2 : i64, layer = 0 : i64, part = "key"} : (!model.cache, !model.batch, tensor<?x32xbf16>) -> !model.cache
  %c2 = "model.cache_append"(%c1, %batch, %k) {heads = 2 : i64, layer = 0 : i64, part = "value"} : (!model.cache, !model.batch, tensor<?x32xbf16>) -> !model.cache
  %c3 = "model.cache_append"(%c2, %batch, %k) {heads = 1 : i64, layer = 0 : i64, part = "index_key"} : (!model.cache, !model.batch, tensor<?x32xbf16>) -> !model.cache
  %y, %b = "model.select_attention"(%h, %h, %c3, %batch) {block = 16 : i64, heads = 4 : i64, index_dim = 32 : i64, index_heads = 2 : i64, init = 0 : i64, k = 4 : i64, kv_heads = 2 : i64, layer = 0 : i64, local = 1 : i64, scale = 0.25 : f64} : (tensor<?x64xbf16>, tensor<?x64xbf16>, !model.cache, !model.batch) -> (tensor<?x64xbf16>, tensor<?x2x4xi32>)
  %s = "model.index_select"(%y, %c3, %batch) {block = 16 : i64, dim = 32 : i64, heads = 2 : i64, init = 0 : i64, k = 4 : i64, layer = 0 : i64, local = 1 : i64} : (tensor<?x64xbf16>, !model.cache, !model.batch) -> tensor<?x2x4xi32>
  "model.observe"(%s) {name = "layer.0.blocks"} : (tensor<?x2x4xi32>) -> ()
  %r = "model.select_rows"(%y, %batch) : (tensor<?x64xbf16>, !model.batch) -> tensor<?x64xbf16>
  %l = "model.lm_head"(%r, %e) : (tensor<?x64xbf16>, tensor<100x64xbf16>) -> tensor<?x100xf32>
  %t = "model.sample"(%l, %batch) : (tensor<?x100xf32>, !model.batch) -> tensor<?xi32>
  return %l, %t : tensor<?x100xf32>, tensor<?xi32>
}

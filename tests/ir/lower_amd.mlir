// AMD, bf16: in steps of few tokens attention shares keys, and chosen blocks, among workgroups and merges their results; others attend
// in tiles.
// RUN: sluice opt %s --passes=choose-tiles,plan-buffers,lower-to-kernels --target mi300x | FileCheck %s
// RUN: sluice opt %s --passes=choose-tiles,plan-buffers,lower-to-kernels --target mi355x | FileCheck %s --check-prefix=GFX950
// Pages of fewer keys than a wave takes at a time have the common kernels, and so has float32.
// RUN: sed 's/model.page = 32/model.page = 16/; s/block = 32/block = 16/' %s | sluice opt - --passes=choose-tiles,plan-buffers,lower-to-kernels --target mi300x | FileCheck %s --check-prefix=TILES
// RUN: sed 's/bf16/f32/g; s/bfloat16/float32/' %s | sluice opt - --passes=choose-tiles,plan-buffers,lower-to-kernels --target mi300x | FileCheck %s --check-prefix=TILES

// CHECK: %[[S:.*]] = "kernel.arena"() {{.*}}name = "{{.*}}block_scores"
// CHECK: %[[SP:.*]] = "kernel.arena"() {{.*}}dtype = "f32", name = "{{.*}}partials", {{.*}}size = "one"
// CHECK: "kernel.topk_attention_part"(%{{.*}}, %[[S]], %{{.*}}, %[[SO:[^,]*]], %[[B:[^,]*]], %[[SP]]) {{.*}}k = 4 : i64{{.*}}launch.range = ["tokens", 0, 64], {{.*}}part_rows = 16 : i64, parts = 304 : i64
// CHECK-NEXT: "kernel.attention_merge"(%[[SP]], %[[SO]]) {{.*}}k = 4 : i64{{.*}}launch.range = ["tokens", 0, 64]
// CHECK: "kernel.topk_blocks"(%[[S]], %{{.*}}, %[[B]]) {{.*}}launch.range = ["tokens", 65, 4294967295]
// CHECK: "kernel.block_attention"(%{{.*}}, %[[B]], {{.*}}launch.range = ["tokens", 65, 4294967295]
// CHECK: %[[P:.*]] = "kernel.arena"() {{.*}}dtype = "f32", name = "{{.*}}partials", {{.*}}size = "one"
// CHECK: "kernel.attention_part"(%{{.*}}, %[[D:[^,]*]], %[[P]]) {{.*}}launch.range = ["tokens", 0, 64], {{.*}}part_rows = 16 : i64, parts = 304 : i64
// CHECK-NEXT: "kernel.attention_merge"(%[[P]], %[[D]]) {{.*}}k = 0 : i64{{.*}}launch.range = ["tokens", 0, 64]
// CHECK: "kernel.attention"({{.*}}launch.range = ["tokens", 65, 4294967295]

// GFX950: "kernel.attention_part"({{.*}}parts = 256 : i64

// TILES-NOT: attention_part
// TILES: "kernel.topk_blocks"
// TILES-NOT: launch.range
// TILES: "kernel.block_attention"
// TILES-NOT: attention_part
// TILES: "kernel.attention"
// TILES-NOT: launch.range
// TILES: "kernel.select_rows"
func.func @step(%batch: !model.batch, %cache: !model.cache) -> (tensor<?x100xf32>, tensor<?xi32>)
    attributes {model.dtype = "bfloat16", model.page = 32 : i64, model.layers = 1 : i64, model.hidden = 512 : i64, model.vocabulary = 100 : i64, model.max_context = 256 : i64} {
  %e = "model.weight"() {name = "embed"} : () -> tensor<100x512xbf16>
  %h = "model.embed"(%batch, %e) : (!model.batch, tensor<100x512xbf16>) -> tensor<?x512xbf16>
  %k = "model.slice"(%h) {offset = 0 : i64} : (tensor<?x512xbf16>) -> tensor<?x256xbf16>
  %i = "model.slice"(%h) {offset = 0 : i64} : (tensor<?x512xbf16>) -> tensor<?x128xbf16>
  %c1 = "model.cache_append"(%cache, %batch, %k) {heads = 2 : i64, layer = 0 : i64, part = "key"} : (!model.cache, !model.batch, tensor<?x256xbf16>) -> !model.cache
  %c2 = "model.cache_append"(%c1, %batch, %k) {heads = 2 : i64, layer = 0 : i64, part = "value"} : (!model.cache, !model.batch, tensor<?x256xbf16>) -> !model.cache
  %c3 = "model.cache_append"(%c2, %batch, %i) {heads = 1 : i64, layer = 0 : i64, part = "index_key"} : (!model.cache, !model.batch, tensor<?x128xbf16>) -> !model.cache
  %y, %b = "model.select_attention"(%h, %k, %c3, %batch) {block = 32 : i64, heads = 4 : i64, index_dim = 128 : i64, index_heads = 2 : i64, init = 0 : i64, k = 4 : i64, kv_heads = 2 : i64, layer = 0 : i64, local = 1 : i64, scale = 0.25 : f64} : (tensor<?x512xbf16>, tensor<?x256xbf16>, !model.cache, !model.batch) -> (tensor<?x512xbf16>, tensor<?x2x4xi32>)
  "model.observe"(%b) {name = "layer.0.blocks"} : (tensor<?x2x4xi32>) -> ()
  %d = "model.attention"(%y, %c3, %batch) {heads = 4 : i64, kv_heads = 2 : i64, layer = 0 : i64, scale = 0.25 : f64} : (tensor<?x512xbf16>, !model.cache, !model.batch) -> tensor<?x512xbf16>
  %r = "model.select_rows"(%d, %batch) : (tensor<?x512xbf16>, !model.batch) -> tensor<?x512xbf16>
  %l = "model.lm_head"(%r, %e) : (tensor<?x512xbf16>, tensor<100x512xbf16>) -> tensor<?x100xf32>
  %t = "model.sample"(%l, %batch) : (tensor<?x100xf32>, !model.batch) -> tensor<?xi32>
  return %l, %t : tensor<?x100xf32>, tensor<?xi32>
}

// Shapes of the matrix instructions, bf16 heads of 128 dimensions: the choice of blocks is part of the attention, in kernels for few to
// many tokens; dense attention shares the keys among workgroups and merges their results, which many tokens do not need.
// RUN: sluice opt %s --passes=choose-tiles,plan-buffers,lower-to-kernels --target h100 | FileCheck %s
// RUN: sed 's/bf16/f32/g; s/bfloat16/float32/' %s | sluice opt - --passes=choose-tiles,plan-buffers,lower-to-kernels --target h100 | FileCheck %s --check-prefix=F32

// The workgroups that share the keys decide the room for their results.
// RUN: sluice opt %s --passes=choose-tiles --target h100 | sed 's/parts = 132/parts = 66/' | sluice opt - --passes=plan-buffers,lower-to-kernels --target h100 | FileCheck %s --check-prefix=PARTS

// PARTS: "kernel.arena"() {bytes = 549120 : i64, dtype = "f32", name = "{{.*}}partials"
// PARTS: "kernel.attention_part"({{.*}}part_rows = 16 : i64, parts = 66 : i64
// PARTS-NEXT: "kernel.attention_merge"({{.*}}launch.range = ["tokens", 0, 16], layer = 0 : i64, part_rows = 16 : i64, parts = 66 : i64

// With pages of 128 tokens steps of many tokens attend in tiles.
// RUN: sed 's/model.page = 16/model.page = 128/; s/block = 16/block = 128/' %s | sluice opt - --passes=choose-tiles,plan-buffers,lower-to-kernels --target h100 | FileCheck %s --check-prefix=MANY
// MANY: "kernel.block_score"({{.*}}launch.range = ["tokens", 0, 256, "page_stride", 0, 128]{{.*}}many = 0 : i64
// MANY: "kernel.block_score"({{.*}}launch.range = ["tokens", 257, 4294967295]{{.*}}many = 1 : i64
// MANY: "kernel.topk_attention"({{.*}}cluster = 1 : i64{{.*}}launch.range = ["tokens", {{[0-9]+}}, 256]
// MANY: "kernel.topk_blocks"({{.*}}launch.range = ["tokens", 257, 4294967295]
// MANY: "kernel.block_attention"({{.*}}launch.range = ["tokens", 257, 4294967295]
// MANY: "kernel.attention_part"({{.*}}launch.range = ["tokens", 0, 256]
// MANY: "kernel.attention_merge"({{.*}}launch.range = ["tokens", 0, 33]
// MANY: "kernel.attention"({{.*}}launch.range = ["tokens", 257, 4294967295]

// --batch-invariant: tiles of tokens and the scores of many tokens for steps of all sizes, whatever the page.
// RUN: sed 's/model.page = 16/model.page = 128/; s/block = 16/block = 128/' %s | sluice opt - --batch-invariant --passes=choose-tiles,plan-buffers,lower-to-kernels --target h100 | FileCheck %s --check-prefix=ALIKE
// RUN: sluice opt %s --batch-invariant --passes=choose-tiles,plan-buffers,lower-to-kernels --target h100 | FileCheck %s --check-prefix=ALIKE
// ALIKE: "kernel.block_score"({{.*}}, local = 1 : i64, many = 1 : i64
// ALIKE-NEXT: "kernel.topk_blocks"({{.*}} label = "select_attention", layer
// ALIKE: "kernel.block_attention"({{.*}} label = "select_attention", layer
// ALIKE: "kernel.attention"({{.*}} label = "attention", layer
// ALIKE-NOT: "kernel.attention

// CHECK: %[[S:.*]] = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "{{.*}}block_scores", offset = 0 : i64, size = "tokens_pages", width = 2 : i64}
// CHECK: "kernel.block_score"(%[[IQ:[^,]*]], %{{.*}}, %[[S]]) {{.*}}transposed = "values"
// Clusters of 16 are for up to 6 tokens times kv heads, of which a token has 2 here.
// CHECK: "kernel.topk_attention"(%[[Q:[^,]*]], %[[S]], %{{.*}}, %[[OUT:[^,]*]], %[[B:[^,]*]]) {cluster = 16 : i64, {{.*}}init = 0 : i64, k = 4 : i64{{.*}}launch.range = ["tokens", 0, 3]{{.*}}local = 1 : i64{{.*}}per_processor = 1 : i64{{.*}}transposed = "values"
// CHECK: "kernel.topk_attention"({{.*}}) {cluster = 8 : i64, {{.*}}launch.range = ["tokens", 4, 4]{{.*}}per_processor = 1 : i64
// CHECK: "kernel.topk_attention"({{.*}}) {cluster = 8 : i64, {{.*}}launch.range = ["tokens", 5, 8]{{.*}}per_processor = 2 : i64
// CHECK: "kernel.topk_attention"(%[[Q]], %[[S]], %{{.*}}, %[[OUT]], %[[B]]) {cluster = 1 : i64, {{.*}}launch.range = ["tokens", {{[0-9]+}}, 4294967295]
// CHECK-NEXT: "kernel.observe"(%[[B]]
// CHECK: %[[P:.*]] = "kernel.arena"() {{.*}}dtype = "f32", name = "{{.*}}partials", {{.*}}size = "one"
// CHECK: "kernel.attention_part"(%[[OUT]], %{{.*}}, %[[D:[^,]*]], %[[P]]) {{.*}}head_dim = 128 : i64{{.*}}transposed = "values"
// CHECK-NEXT: "kernel.attention_merge"(%[[P]], %[[D]]) {{.*}}launch.range = ["tokens", 0, {{[0-9]+}}]

// F32: "kernel.block_score"
// F32: "kernel.topk_blocks"
// F32: "kernel.block_attention"
// F32: "kernel.attention"
func.func @step(%batch: !model.batch, %cache: !model.cache) -> (tensor<?x100xf32>, tensor<?xi32>)
    attributes {model.dtype = "bfloat16", model.page = 16 : i64, model.layers = 1 : i64, model.hidden = 512 : i64, model.vocabulary = 100 : i64, model.max_context = 128 : i64} {
  %e = "model.weight"() {name = "embed"} : () -> tensor<100x512xbf16>
  %h = "model.embed"(%batch, %e) : (!model.batch, tensor<100x512xbf16>) -> tensor<?x512xbf16>
  %k = "model.slice"(%h) {offset = 0 : i64} : (tensor<?x512xbf16>) -> tensor<?x256xbf16>
  %i = "model.slice"(%h) {offset = 0 : i64} : (tensor<?x512xbf16>) -> tensor<?x128xbf16>
  %c1 = "model.cache_append"(%cache, %batch, %k) {heads = 2 : i64, layer = 0 : i64, part = "key"} : (!model.cache, !model.batch, tensor<?x256xbf16>) -> !model.cache
  %c2 = "model.cache_append"(%c1, %batch, %k) {heads = 2 : i64, layer = 0 : i64, part = "value"} : (!model.cache, !model.batch, tensor<?x256xbf16>) -> !model.cache
  %c3 = "model.cache_append"(%c2, %batch, %i) {heads = 1 : i64, layer = 0 : i64, part = "index_key"} : (!model.cache, !model.batch, tensor<?x128xbf16>) -> !model.cache
  %y, %b = "model.select_attention"(%h, %k, %c3, %batch) {block = 16 : i64, heads = 4 : i64, index_dim = 128 : i64, index_heads = 2 : i64, init = 0 : i64, k = 4 : i64, kv_heads = 2 : i64, layer = 0 : i64, local = 1 : i64, scale = 0.25 : f64} : (tensor<?x512xbf16>, tensor<?x256xbf16>, !model.cache, !model.batch) -> (tensor<?x512xbf16>, tensor<?x2x4xi32>)
  "model.observe"(%b) {name = "layer.0.blocks"} : (tensor<?x2x4xi32>) -> ()
  %d = "model.attention"(%y, %c3, %batch) {heads = 4 : i64, kv_heads = 2 : i64, layer = 0 : i64, scale = 0.25 : f64} : (tensor<?x512xbf16>, !model.cache, !model.batch) -> tensor<?x512xbf16>
  %r = "model.select_rows"(%d, %batch) : (tensor<?x512xbf16>, !model.batch) -> tensor<?x512xbf16>
  %l = "model.lm_head"(%r, %e) : (tensor<?x512xbf16>, tensor<100x512xbf16>) -> tensor<?x100xf32>
  %t = "model.sample"(%l, %batch) : (tensor<?x100xf32>, !model.batch) -> tensor<?xi32>
  return %l, %t : tensor<?x100xf32>, tensor<?xi32>
}

// RUN: sluice opt %s --passes=partition --parallel tp=2 --verify-each | FileCheck %s --check-prefix=TWO
// RUN: sluice opt %s --passes=partition --parallel tp=8 --verify-each | FileCheck %s --check-prefix=EIGHT
// RUN: sluice opt %s --passes=partition | FileCheck %s --check-prefix=ONE
// RUN: not sluice opt %s --passes=partition --parallel tp=3 2>&1 | FileCheck %s --check-prefix=THREE

// ONE-NOT: rank.slice
// ONE-NOT: all_reduce
// THREE: partition.mlir:{{.*}}: error: 8 query heads and 2 kv heads do not go evenly into 3 ranks; possible: 2, 4, 8

// Rows of q and k go to the ranks by heads. The projection behind attention has columns of them: its products are
// parts of a sum. The residual is added behind the sum.
// TWO: model.ranks = 2 : i64
// TWO: {name = "layers.0.q_proj.weight", rank.slice = [64, 0, 1, 128, 64]} : () -> tensor<64x64xbf16>
// TWO: {name = "layers.0.k_proj.weight", rank.slice = [16, 0, 1, 32, 64]} : () -> tensor<16x64xbf16>
// TWO: "model.head_norm"{{.*}}heads = 4 : i64
// TWO: "model.rope"{{.*}}heads = 4 : i64
// TWO: "model.cache_append"{{.*}}{heads = 1 : i64, layer = 0 : i64, part = "key"}
// TWO: "model.attention"{{.*}}{heads = 4 : i64, kv_heads = 1 : i64, {{.*}} -> tensor<?x64xf32>
// TWO: {name = "layers.0.o_proj.weight", rank.slice = [0, 64, 1, 64, 128]} : () -> tensor<64x64xbf16>
// TWO: %[[part:.*]] = "model.linear"
// TWO: %[[sum:.*]] = "model.all_reduce"(%[[part]]) {group = 2 : i64}
// TWO: %[[h:.*]] = "model.add"(%[[sum]], %[[x:.*]])

// Both products of a layer's second half are in one sum.
// TWO: %[[shared:.*]] = "model.linear"{{.*}}(tensor<?x16xf32>, tensor<64x16xbf16>) -> tensor<?x64xf32>
// TWO-NOT: all_reduce
// TWO: "model.expert_linear"{{.*}} -> tensor<?x2x16xf32>
// TWO: %[[routed:.*]] = "model.combine"
// TWO: %[[both:.*]] = "model.add"(%[[shared]], %[[routed]])
// TWO: %[[all:.*]] = "model.all_reduce"(%[[both]])
// TWO: "model.add"(%[[all]], %[[h]])

// Vocabulary: every rank has the logits of its rows, and all get all.
// TWO: %[[logits:.*]] = "model.lm_head"{{.*}} -> tensor<?x200xf32>
// TWO: %[[whole:.*]] = "model.all_gather"(%[[logits]]) {group = 2 : i64} : (tensor<?x200xf32>) -> tensor<?x400xf32>
// TWO: "model.sample"(%[[whole]]

// More ranks than kv heads: four neighbours have the same one, each one of its query heads.
// EIGHT: {name = "layers.0.q_proj.weight", rank.slice = [16, 0, 1, 128, 64]} : () -> tensor<16x64xbf16>
// EIGHT: {name = "layers.0.k_proj.weight", rank.slice = [16, 0, 4, 32, 64]} : () -> tensor<16x64xbf16>
// EIGHT: "model.attention"{{.*}}{heads = 1 : i64, kv_heads = 1 : i64
func.func @step(%batch: !model.batch, %cache: !model.cache) -> (tensor<?x400xf32>, tensor<?xi32>)
    attributes {model.dtype = "float32", model.page = 16 : i64, model.layers = 1 : i64, model.hidden = 64 : i64, model.vocabulary = 400 : i64, model.max_context = 128 : i64} {
  %e = "model.weight"() {name = "embed_tokens.weight"} : () -> tensor<400x64xbf16>
  %x = "model.embed"(%batch, %e) : (!model.batch, tensor<400x64xbf16>) -> tensor<?x64xf32>
  %wq = "model.weight"() {name = "layers.0.q_proj.weight"} : () -> tensor<128x64xbf16>
  %q = "model.linear"(%x, %wq) : (tensor<?x64xf32>, tensor<128x64xbf16>) -> tensor<?x128xf32>
  %wk = "model.weight"() {name = "layers.0.k_proj.weight"} : () -> tensor<32x64xbf16>
  %k = "model.linear"(%x, %wk) : (tensor<?x64xf32>, tensor<32x64xbf16>) -> tensor<?x32xf32>
  %wv = "model.weight"() {name = "layers.0.v_proj.weight"} : () -> tensor<32x64xbf16>
  %v = "model.linear"(%x, %wv) : (tensor<?x64xf32>, tensor<32x64xbf16>) -> tensor<?x32xf32>
  %t = "model.rope_table"(%batch) {rotary_dim = 8 : i64, theta = 1.000000e+04 : f64} : (!model.batch) -> tensor<?x8xf32>
  %n = "model.weight"() {name = "layers.0.q_norm.weight"} : () -> tensor<16xbf16>
  %qn = "model.head_norm"(%q, %n) {eps = 1.000000e-06 : f64, heads = 8 : i64} : (tensor<?x128xf32>, tensor<16xbf16>) -> tensor<?x128xf32>
  %qr = "model.rope"(%qn, %t) {heads = 8 : i64} : (tensor<?x128xf32>, tensor<?x8xf32>) -> tensor<?x128xf32>
  %c1 = "model.cache_append"(%cache, %batch, %k) {heads = 2 : i64, layer = 0 : i64, part = "key"} : (!model.cache, !model.batch, tensor<?x32xf32>) -> !model.cache
  %c2 = "model.cache_append"(%c1, %batch, %v) {heads = 2 : i64, layer = 0 : i64, part = "value"} : (!model.cache, !model.batch, tensor<?x32xf32>) -> !model.cache
  %a = "model.attention"(%qr, %c2, %batch) {heads = 8 : i64, kv_heads = 2 : i64, layer = 0 : i64, scale = 2.500000e-01 : f64} : (tensor<?x128xf32>, !model.cache, !model.batch) -> tensor<?x128xf32>
  %wo = "model.weight"() {name = "layers.0.o_proj.weight"} : () -> tensor<64x128xbf16>
  %o = "model.linear"(%a, %wo) : (tensor<?x128xf32>, tensor<64x128xbf16>) -> tensor<?x64xf32>
  %h = "model.add"(%o, %x) : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %wg = "model.weight"() {name = "layers.0.shared_experts.gate_proj.weight"} : () -> tensor<32x64xbf16>
  %g = "model.linear"(%h, %wg) : (tensor<?x64xf32>, tensor<32x64xbf16>) -> tensor<?x32xf32>
  %wu = "model.weight"() {name = "layers.0.shared_experts.up_proj.weight"} : () -> tensor<32x64xbf16>
  %u = "model.linear"(%h, %wu) : (tensor<?x64xf32>, tensor<32x64xbf16>) -> tensor<?x32xf32>
  %m = "model.swiglu_oai"(%g, %u) {alpha = 1.702000e+00 : f64, limit = 7.000000e+00 : f64} : (tensor<?x32xf32>, tensor<?x32xf32>) -> tensor<?x32xf32>
  %wd = "model.weight"() {name = "layers.0.shared_experts.down_proj.weight"} : () -> tensor<64x32xbf16>
  %d = "model.linear"(%m, %wd) : (tensor<?x32xf32>, tensor<64x32xbf16>) -> tensor<?x64xf32>
  %s1 = "model.add"(%d, %h) : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %gate = "model.weight"() {name = "layers.0.gate.weight"} : () -> tensor<4x64xf32>
  %bias = "model.weight"() {name = "layers.0.bias"} : () -> tensor<4xf32>
  %logit = "model.linear"(%h, %gate) : (tensor<?x64xf32>, tensor<4x64xf32>) -> tensor<?x4xf32>
  %ids, %share = "model.topk_experts"(%logit, %bias) {k = 2 : i64} : (tensor<?x4xf32>, tensor<4xf32>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
  %w1 = "model.weight"() {name = "layers.0.experts.{expert}.w1.weight"} : () -> tensor<4x32x64xbf16>
  %w3 = "model.weight"() {name = "layers.0.experts.{expert}.w3.weight"} : () -> tensor<4x32x64xbf16>
  %w2 = "model.weight"() {name = "layers.0.experts.{expert}.w2.weight"} : () -> tensor<4x64x32xbf16>
  %eg = "model.expert_linear"(%h, %ids, %w1) : (tensor<?x64xf32>, tensor<?x2xi32>, tensor<4x32x64xbf16>) -> tensor<?x2x32xf32>
  %eu = "model.expert_linear"(%h, %ids, %w3) : (tensor<?x64xf32>, tensor<?x2xi32>, tensor<4x32x64xbf16>) -> tensor<?x2x32xf32>
  %em = "model.swiglu_oai"(%eg, %eu) {alpha = 1.702000e+00 : f64, limit = 7.000000e+00 : f64} : (tensor<?x2x32xf32>, tensor<?x2x32xf32>) -> tensor<?x2x32xf32>
  %ed = "model.expert_linear"(%em, %ids, %w2) : (tensor<?x2x32xf32>, tensor<?x2xi32>, tensor<4x64x32xbf16>) -> tensor<?x2x64xf32>
  %y = "model.combine"(%ed, %share) {scale = 2.000000e+00 : f64} : (tensor<?x2x64xf32>, tensor<?x2xf32>) -> tensor<?x64xf32>
  %out = "model.add"(%y, %s1) : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %r = "model.select_rows"(%out, %batch) : (tensor<?x64xf32>, !model.batch) -> tensor<?x64xf32>
  %wl = "model.weight"() {name = "lm_head.weight"} : () -> tensor<400x64xbf16>
  %l = "model.lm_head"(%r, %wl) : (tensor<?x64xf32>, tensor<400x64xbf16>) -> tensor<?x400xf32>
  %s = "model.sample"(%l, %batch) : (tensor<?x400xf32>, !model.batch) -> tensor<?xi32>
  return %l, %s : tensor<?x400xf32>, tensor<?xi32>
}

// RUN: sluice opt %s --passes=fuse-norm-rope-append | FileCheck %s

// CHECK-LABEL: @f
// CHECK-NOT: model.head_norm
// CHECK: %[[T:.*]] = "model.rope_table"
// CHECK: %[[R:.*]]:3 = "model.norm_rope_append"(%arg1, %arg0, %arg2, %[[T]], %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}) {eps = 9.9{{.*}}E-7 : f64, head_dim = 16 : i64, heads = 4 : i64, index_dim = 16 : i64, index_heads = 2 : i64, kv_heads = 2 : i64, layer = 1 : i64}
// CHECK-NOT: model.rope"
// CHECK-NOT: model.cache_append
// CHECK: "model.index_select"(%[[R]]#2, %[[R]]#0, %arg0)
// CHECK: "model.block_attention"(%[[R]]#1, %[[R]]#0, %arg0, %{{.*}})
func.func @f(%batch: !model.batch, %cache: !model.cache, %p: tensor<?x176xf32>) -> (tensor<?x64xf32>, !model.cache) {
  %nq = "model.weight"() {name = "layers.1.nq"} : () -> tensor<16xbf16>
  %nk = "model.weight"() {name = "layers.1.nk"} : () -> tensor<16xbf16>
  %niq = "model.weight"() {name = "layers.1.niq"} : () -> tensor<16xbf16>
  %nik = "model.weight"() {name = "layers.1.nik"} : () -> tensor<16xbf16>
  %q0 = "model.slice"(%p) {offset = 0 : i64} : (tensor<?x176xf32>) -> tensor<?x64xf32>
  %k0 = "model.slice"(%p) {offset = 64 : i64} : (tensor<?x176xf32>) -> tensor<?x32xf32>
  %v0 = "model.slice"(%p) {offset = 96 : i64} : (tensor<?x176xf32>) -> tensor<?x32xf32>
  %iq0 = "model.slice"(%p) {offset = 128 : i64} : (tensor<?x176xf32>) -> tensor<?x32xf32>
  %ik0 = "model.slice"(%p) {offset = 160 : i64} : (tensor<?x176xf32>) -> tensor<?x16xf32>
  %t = "model.rope_table"(%batch) {rotary_dim = 8 : i64, theta = 1.0e4 : f64} : (!model.batch) -> tensor<?x8xf32>
  %q1 = "model.head_norm"(%q0, %nq) {eps = 1.0e-6 : f64, heads = 4 : i64} : (tensor<?x64xf32>, tensor<16xbf16>) -> tensor<?x64xf32>
  %q = "model.rope"(%q1, %t) {heads = 4 : i64} : (tensor<?x64xf32>, tensor<?x8xf32>) -> tensor<?x64xf32>
  %k1 = "model.head_norm"(%k0, %nk) {eps = 1.0e-6 : f64, heads = 2 : i64} : (tensor<?x32xf32>, tensor<16xbf16>) -> tensor<?x32xf32>
  %k = "model.rope"(%k1, %t) {heads = 2 : i64} : (tensor<?x32xf32>, tensor<?x8xf32>) -> tensor<?x32xf32>
  %c0 = "model.cache_append"(%cache, %batch, %k) {heads = 2 : i64, layer = 1 : i64, part = "key"} : (!model.cache, !model.batch, tensor<?x32xf32>) -> !model.cache
  %c1 = "model.cache_append"(%c0, %batch, %v0) {heads = 2 : i64, layer = 1 : i64, part = "value"} : (!model.cache, !model.batch, tensor<?x32xf32>) -> !model.cache
  %iq1 = "model.head_norm"(%iq0, %niq) {eps = 1.0e-6 : f64, heads = 2 : i64} : (tensor<?x32xf32>, tensor<16xbf16>) -> tensor<?x32xf32>
  %iq = "model.rope"(%iq1, %t) {heads = 2 : i64} : (tensor<?x32xf32>, tensor<?x8xf32>) -> tensor<?x32xf32>
  %ik1 = "model.head_norm"(%ik0, %nik) {eps = 1.0e-6 : f64, heads = 1 : i64} : (tensor<?x16xf32>, tensor<16xbf16>) -> tensor<?x16xf32>
  %ik = "model.rope"(%ik1, %t) {heads = 1 : i64} : (tensor<?x16xf32>, tensor<?x8xf32>) -> tensor<?x16xf32>
  %c2 = "model.cache_append"(%c1, %batch, %ik) {heads = 1 : i64, layer = 1 : i64, part = "index_key"} : (!model.cache, !model.batch, tensor<?x16xf32>) -> !model.cache
  %b = "model.index_select"(%iq, %c2, %batch) {block = 16 : i64, dim = 16 : i64, heads = 2 : i64, init = 0 : i64, k = 4 : i64, layer = 1 : i64, local = 1 : i64} : (tensor<?x32xf32>, !model.cache, !model.batch) -> tensor<?x2x4xi32>
  %o = "model.block_attention"(%q, %c2, %batch, %b) {block = 16 : i64, heads = 4 : i64, kv_heads = 2 : i64, layer = 1 : i64, scale = 0.25 : f64} : (tensor<?x64xf32>, !model.cache, !model.batch, tensor<?x2x4xi32>) -> tensor<?x64xf32>
  return %o, %c2 : tensor<?x64xf32>, !model.cache
}

// Norms that differ are not one op.
// CHECK-LABEL: @other_eps
// CHECK-NOT: norm_rope_append
// CHECK-COUNT-3: model.cache_append
func.func @other_eps(%batch: !model.batch, %cache: !model.cache, %p: tensor<?x176xf32>) -> (tensor<?x64xf32>, !model.cache) {
  %nq = "model.weight"() {name = "layers.1.nq"} : () -> tensor<16xbf16>
  %nk = "model.weight"() {name = "layers.1.nk"} : () -> tensor<16xbf16>
  %niq = "model.weight"() {name = "layers.1.niq"} : () -> tensor<16xbf16>
  %nik = "model.weight"() {name = "layers.1.nik"} : () -> tensor<16xbf16>
  %q0 = "model.slice"(%p) {offset = 0 : i64} : (tensor<?x176xf32>) -> tensor<?x64xf32>
  %k0 = "model.slice"(%p) {offset = 64 : i64} : (tensor<?x176xf32>) -> tensor<?x32xf32>
  %v0 = "model.slice"(%p) {offset = 96 : i64} : (tensor<?x176xf32>) -> tensor<?x32xf32>
  %iq0 = "model.slice"(%p) {offset = 128 : i64} : (tensor<?x176xf32>) -> tensor<?x32xf32>
  %ik0 = "model.slice"(%p) {offset = 160 : i64} : (tensor<?x176xf32>) -> tensor<?x16xf32>
  %t = "model.rope_table"(%batch) {rotary_dim = 8 : i64, theta = 1.0e4 : f64} : (!model.batch) -> tensor<?x8xf32>
  %q1 = "model.head_norm"(%q0, %nq) {eps = 1.0e-6 : f64, heads = 4 : i64} : (tensor<?x64xf32>, tensor<16xbf16>) -> tensor<?x64xf32>
  %q = "model.rope"(%q1, %t) {heads = 4 : i64} : (tensor<?x64xf32>, tensor<?x8xf32>) -> tensor<?x64xf32>
  %k1 = "model.head_norm"(%k0, %nk) {eps = 1.0e-5 : f64, heads = 2 : i64} : (tensor<?x32xf32>, tensor<16xbf16>) -> tensor<?x32xf32>
  %k = "model.rope"(%k1, %t) {heads = 2 : i64} : (tensor<?x32xf32>, tensor<?x8xf32>) -> tensor<?x32xf32>
  %c0 = "model.cache_append"(%cache, %batch, %k) {heads = 2 : i64, layer = 2 : i64, part = "key"} : (!model.cache, !model.batch, tensor<?x32xf32>) -> !model.cache
  %c1 = "model.cache_append"(%c0, %batch, %v0) {heads = 2 : i64, layer = 2 : i64, part = "value"} : (!model.cache, !model.batch, tensor<?x32xf32>) -> !model.cache
  %iq1 = "model.head_norm"(%iq0, %niq) {eps = 1.0e-6 : f64, heads = 2 : i64} : (tensor<?x32xf32>, tensor<16xbf16>) -> tensor<?x32xf32>
  %iq = "model.rope"(%iq1, %t) {heads = 2 : i64} : (tensor<?x32xf32>, tensor<?x8xf32>) -> tensor<?x32xf32>
  %ik1 = "model.head_norm"(%ik0, %nik) {eps = 1.0e-6 : f64, heads = 1 : i64} : (tensor<?x16xf32>, tensor<16xbf16>) -> tensor<?x16xf32>
  %ik = "model.rope"(%ik1, %t) {heads = 1 : i64} : (tensor<?x16xf32>, tensor<?x8xf32>) -> tensor<?x16xf32>
  %c2 = "model.cache_append"(%c1, %batch, %ik) {heads = 1 : i64, layer = 2 : i64, part = "index_key"} : (!model.cache, !model.batch, tensor<?x16xf32>) -> !model.cache
  %b = "model.index_select"(%iq, %c2, %batch) {block = 16 : i64, dim = 16 : i64, heads = 2 : i64, init = 0 : i64, k = 4 : i64, layer = 2 : i64, local = 1 : i64} : (tensor<?x32xf32>, !model.cache, !model.batch) -> tensor<?x2x4xi32>
  %o = "model.block_attention"(%q, %c2, %batch, %b) {block = 16 : i64, heads = 4 : i64, kv_heads = 2 : i64, layer = 2 : i64, scale = 0.25 : f64} : (tensor<?x64xf32>, !model.cache, !model.batch, tensor<?x2x4xi32>) -> tensor<?x64xf32>
  return %o, %c2 : tensor<?x64xf32>, !model.cache
}

// Values that are not the columns after the keys are not the projection's.
// CHECK-LABEL: @other_columns
// CHECK-NOT: norm_rope_append
// CHECK-COUNT-3: model.cache_append
func.func @other_columns(%batch: !model.batch, %cache: !model.cache, %p: tensor<?x176xf32>) -> (tensor<?x64xf32>, !model.cache) {
  %nq = "model.weight"() {name = "layers.1.nq"} : () -> tensor<16xbf16>
  %nk = "model.weight"() {name = "layers.1.nk"} : () -> tensor<16xbf16>
  %niq = "model.weight"() {name = "layers.1.niq"} : () -> tensor<16xbf16>
  %nik = "model.weight"() {name = "layers.1.nik"} : () -> tensor<16xbf16>
  %q0 = "model.slice"(%p) {offset = 0 : i64} : (tensor<?x176xf32>) -> tensor<?x64xf32>
  %k0 = "model.slice"(%p) {offset = 64 : i64} : (tensor<?x176xf32>) -> tensor<?x32xf32>
  %v0 = "model.slice"(%p) {offset = 64 : i64} : (tensor<?x176xf32>) -> tensor<?x32xf32>
  %iq0 = "model.slice"(%p) {offset = 128 : i64} : (tensor<?x176xf32>) -> tensor<?x32xf32>
  %ik0 = "model.slice"(%p) {offset = 160 : i64} : (tensor<?x176xf32>) -> tensor<?x16xf32>
  %t = "model.rope_table"(%batch) {rotary_dim = 8 : i64, theta = 1.0e4 : f64} : (!model.batch) -> tensor<?x8xf32>
  %q1 = "model.head_norm"(%q0, %nq) {eps = 1.0e-6 : f64, heads = 4 : i64} : (tensor<?x64xf32>, tensor<16xbf16>) -> tensor<?x64xf32>
  %q = "model.rope"(%q1, %t) {heads = 4 : i64} : (tensor<?x64xf32>, tensor<?x8xf32>) -> tensor<?x64xf32>
  %k1 = "model.head_norm"(%k0, %nk) {eps = 1.0e-6 : f64, heads = 2 : i64} : (tensor<?x32xf32>, tensor<16xbf16>) -> tensor<?x32xf32>
  %k = "model.rope"(%k1, %t) {heads = 2 : i64} : (tensor<?x32xf32>, tensor<?x8xf32>) -> tensor<?x32xf32>
  %c0 = "model.cache_append"(%cache, %batch, %k) {heads = 2 : i64, layer = 3 : i64, part = "key"} : (!model.cache, !model.batch, tensor<?x32xf32>) -> !model.cache
  %c1 = "model.cache_append"(%c0, %batch, %v0) {heads = 2 : i64, layer = 3 : i64, part = "value"} : (!model.cache, !model.batch, tensor<?x32xf32>) -> !model.cache
  %iq1 = "model.head_norm"(%iq0, %niq) {eps = 1.0e-6 : f64, heads = 2 : i64} : (tensor<?x32xf32>, tensor<16xbf16>) -> tensor<?x32xf32>
  %iq = "model.rope"(%iq1, %t) {heads = 2 : i64} : (tensor<?x32xf32>, tensor<?x8xf32>) -> tensor<?x32xf32>
  %ik1 = "model.head_norm"(%ik0, %nik) {eps = 1.0e-6 : f64, heads = 1 : i64} : (tensor<?x16xf32>, tensor<16xbf16>) -> tensor<?x16xf32>
  %ik = "model.rope"(%ik1, %t) {heads = 1 : i64} : (tensor<?x16xf32>, tensor<?x8xf32>) -> tensor<?x16xf32>
  %c2 = "model.cache_append"(%c1, %batch, %ik) {heads = 1 : i64, layer = 3 : i64, part = "index_key"} : (!model.cache, !model.batch, tensor<?x16xf32>) -> !model.cache
  %b = "model.index_select"(%iq, %c2, %batch) {block = 16 : i64, dim = 16 : i64, heads = 2 : i64, init = 0 : i64, k = 4 : i64, layer = 3 : i64, local = 1 : i64} : (tensor<?x32xf32>, !model.cache, !model.batch) -> tensor<?x2x4xi32>
  %o = "model.block_attention"(%q, %c2, %batch, %b) {block = 16 : i64, heads = 4 : i64, kv_heads = 2 : i64, layer = 3 : i64, scale = 0.25 : f64} : (tensor<?x64xf32>, !model.cache, !model.batch, tensor<?x2x4xi32>) -> tensor<?x64xf32>
  return %o, %c2 : tensor<?x64xf32>, !model.cache
}

// Index keys without index queries are no part of the group: their append stays, although nothing reads its result.
// CHECK-LABEL: @index_keys_alone
// CHECK: %[[N:.*]]:2 = "model.norm_rope_append"
// CHECK-NOT: part = "key"
// CHECK-NOT: part = "value"
// CHECK: "model.cache_append"(%[[N]]#0, {{.*}}part = "index_key"
func.func @index_keys_alone(%batch: !model.batch, %cache: !model.cache, %p: tensor<?x512xf32>, %qn: tensor<64xf32>, %kn: tensor<64xf32>, %ik: tensor<?x32xf32>) -> tensor<?x256xf32> {
  %t = "model.rope_table"(%batch) {theta = 5.0e6 : f64, rotary_dim = 32 : i64} : (!model.batch) -> tensor<?x32xf32>
  %q = "model.slice"(%p) {offset = 0 : i64} : (tensor<?x512xf32>) -> tensor<?x256xf32>
  %k = "model.slice"(%p) {offset = 256 : i64} : (tensor<?x512xf32>) -> tensor<?x128xf32>
  %v = "model.slice"(%p) {offset = 384 : i64} : (tensor<?x512xf32>) -> tensor<?x128xf32>
  %q1 = "model.head_norm"(%q, %qn) {heads = 4 : i64, eps = 1.0e-6 : f64} : (tensor<?x256xf32>, tensor<64xf32>) -> tensor<?x256xf32>
  %q2 = "model.rope"(%q1, %t) {heads = 4 : i64} : (tensor<?x256xf32>, tensor<?x32xf32>) -> tensor<?x256xf32>
  %k1 = "model.head_norm"(%k, %kn) {heads = 2 : i64, eps = 1.0e-6 : f64} : (tensor<?x128xf32>, tensor<64xf32>) -> tensor<?x128xf32>
  %k2 = "model.rope"(%k1, %t) {heads = 2 : i64} : (tensor<?x128xf32>, tensor<?x32xf32>) -> tensor<?x128xf32>
  %c0 = "model.cache_append"(%cache, %batch, %k2) {layer = 0 : i64, part = "key", heads = 2 : i64} : (!model.cache, !model.batch, tensor<?x128xf32>) -> !model.cache
  %c1 = "model.cache_append"(%c0, %batch, %v) {layer = 0 : i64, part = "value", heads = 2 : i64} : (!model.cache, !model.batch, tensor<?x128xf32>) -> !model.cache
  %o = "model.attention"(%q2, %c1, %batch) {layer = 0 : i64, heads = 4 : i64, kv_heads = 2 : i64, scale = 0.125 : f64} : (tensor<?x256xf32>, !model.cache, !model.batch) -> tensor<?x256xf32>
  %c2 = "model.cache_append"(%c1, %batch, %ik) {layer = 0 : i64, part = "index_key", heads = 1 : i64} : (!model.cache, !model.batch, tensor<?x32xf32>) -> !model.cache
  return %o : tensor<?x256xf32>
}

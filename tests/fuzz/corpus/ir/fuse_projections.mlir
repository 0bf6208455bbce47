
func.func @f(%batch: !model.batch, %cache: !model.cache, %x: tensor<?x128xf32>, %z: tensor<?x128xf32>) -> (tensor<?x64xf32>, !model.cache) {
  %wq = "model.weight"() {name = "layers.1.q"} : () -> tensor<64x128xbf16>
  %wk = "model.weight"() {name = "layers.1.k"} : () -> tensor<32x128xbf16>
  %wv = "model.weight"() {name = "layers.1.v"} : () -> tensor<32x128xbf16>
  %wiq = "model.weight"() {name = "layers.1.iq"} : () -> tensor<32x128xbf16>
  %wik = "model.weight"() {name = "layers.1.ik"} : () -> tensor<16x128xbf16>
  %nq = "model.weight"() {name = "layers.1.nq"} : () -> tensor<16xbf16>
  %nk = "model.weight"() {name = "layers.1.nk"} : () -> tensor<16xbf16>
  %niq = "model.weight"() {name = "layers.1.niq"} : () -> tensor<16xbf16>
  %nik = "model.weight"() {name = "layers.1.nik"} : () -> tensor<16xbf16>
  %q0 = "model.linear"(%x, %wq) : (tensor<?x128xf32>, tensor<64x128xbf16>) -> tensor<?x64xf32>
  %k0 = "model.linear"(%x, %wk) : (tensor<?x128xf32>, tensor<32x128xbf16>) -> tensor<?x32xf32>
  %v0 = "model.linear"(%x, %wv) : (tensor<?x128xf32>, tensor<32x128xbf16>) -> tensor<?x32xf32>
  %iq0 = "model.linear"(%x, %wiq) : (tensor<?x128xf32>, tensor<32x128xbf16>) -> tensor<?x32xf32>
  %ik0 = "model.linear"(%x, %wik) : (tensor<?x128xf32>, tensor<16x128xbf16>) -> tensor<?x16xf32>
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

func.func @other_input(%batch: !model.batch, %cache: !model.cache, %x: tensor<?x128xf32>, %z: tensor<?x128xf32>) -> (tensor<?x64xf32>, !model.cache) {
  %wq = "model.weight"() {name = "layers.1.q"} : () -> tensor<64x128xbf16>
  %wk = "model.weight"() {name = "layers.1.k"} : () -> tensor<32x128xbf16>
  %wv = "model.weight"() {name = "layers.1.v"} : () -> tensor<32x128xbf16>
  %wiq = "model.weight"() {name = "layers.1.iq"} : () -> tensor<32x128xbf16>
  %wik = "model.weight"() {name = "layers.1.ik"} : () -> tensor<16x128xbf16>
  %nq = "model.weight"() {name = "layers.1.nq"} : () -> tensor<16xbf16>
  %nk = "model.weight"() {name = "layers.1.nk"} : () -> tensor<16xbf16>
  %niq = "model.weight"() {name = "layers.1.niq"} : () -> tensor<16xbf16>
  %nik = "model.weight"() {name = "layers.1.nik"} : () -> tensor<16xbf16>
  %q0 = "model.linear"(%x, %wq) : (tensor<?x128xf32>, tensor<64x128xbf16>) -> tensor<?x64xf32>
  %k0 = "model.linear"(%z, %wk) : (tensor<?x128xf32>, tensor<32x128xbf16>) -> tensor<?x32xf32>
  %v0 = "model.linear"(%x, %wv) : (tensor<?x128xf32>, tensor<32x128xbf16>) -> tensor<?x32xf32>
  %iq0 = "model.linear"(%x, %wiq) : (tensor<?x128xf32>, tensor<32x128xbf16>) -> tensor<?x32xf32>
  %ik0 = "model.linear"(%x, %wik) : (tensor<?x128xf32>, tensor<16x128xbf16>) -> tensor<?x16xf32>
  %t = "model.rope_table"(%batch) {rotary_dim = 8 : i64, theta = 1.0e4 : f64} : (!model.batch) -> tensor<?x8xf32>
  %q1 = "model.head_norm"(%q0, %nq) {eps = 1.0e-6 : f64, heads = 4 : i64} : (tensor<?x64xf32>, tensor<16xbf16>) -> tensor<?x64xf32>
  %q = "model.rope"(%q1, %t) {heads = 4 : i64} : (tensor<?x64xf32>, tensor<?x8xf32>) -> tensor<?x64xf32>
  %k1 = "model.head_norm"(%k0, %nk) {eps = 1.0e-6 : f64, heads = 2 : i64} : (tensor<?x32xf32>, tensor<16xbf16>) -> tensor<?x32xf32>
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

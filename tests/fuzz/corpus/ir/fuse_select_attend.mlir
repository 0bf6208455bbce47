
func.func @f(%batch: !model.batch, %cache: !model.cache, %q: tensor<?x512xf32>, %iq: tensor<?x64xf32>) -> tensor<?x512xf32> {
  %b = "model.index_select"(%iq, %cache, %batch) {block = 16 : i64, dim = 32 : i64, heads = 2 : i64, init = 0 : i64, k = 4 : i64, layer = 3 : i64, local = 1 : i64} : (tensor<?x64xf32>, !model.cache, !model.batch) -> tensor<?x2x4xi32>
  "model.observe"(%b) {name = "layer.3.blocks"} : (tensor<?x2x4xi32>) -> ()
  %o = "model.block_attention"(%q, %cache, %batch, %b) {block = 16 : i64, heads = 8 : i64, kv_heads = 2 : i64, layer = 3 : i64, scale = 0.125 : f64} : (tensor<?x512xf32>, !model.cache, !model.batch, tensor<?x2x4xi32>) -> tensor<?x512xf32>
  return %o : tensor<?x512xf32>
}

func.func @blocks_returned(%batch: !model.batch, %cache: !model.cache, %q: tensor<?x512xf32>, %iq: tensor<?x64xf32>) -> (tensor<?x512xf32>, tensor<?x2x4xi32>) {
  %b = "model.index_select"(%iq, %cache, %batch) {block = 16 : i64, dim = 32 : i64, heads = 2 : i64, init = 0 : i64, k = 4 : i64, layer = 3 : i64, local = 1 : i64} : (tensor<?x64xf32>, !model.cache, !model.batch) -> tensor<?x2x4xi32>
  %o = "model.block_attention"(%q, %cache, %batch, %b) {block = 16 : i64, heads = 8 : i64, kv_heads = 2 : i64, layer = 3 : i64, scale = 0.125 : f64} : (tensor<?x512xf32>, !model.cache, !model.batch, tensor<?x2x4xi32>) -> tensor<?x512xf32>
  return %o, %b : tensor<?x512xf32>, tensor<?x2x4xi32>
}

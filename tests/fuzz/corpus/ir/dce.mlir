
func.func @f(%x: tensor<?x64xf32>, %b: !model.batch, %c: !model.cache) {
  %w = "model.weight"() {name = "dead"} : () -> tensor<64xbf16>
  %a = "model.rms_norm"(%x, %w) {eps = 1.0 : f64} : (tensor<?x64xf32>, tensor<64xbf16>) -> tensor<?x64xf32>
  %d = "model.add"(%a, %x) : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %s = "model.add"(%x, %x) : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  "model.observe"(%s) {name = "layer.0.out"} : (tensor<?x64xf32>) -> ()
  %1 = "model.cache_append"(%c, %b, %x) {heads = 1 : i64, layer = 0 : i64, part = "key"} : (!model.cache, !model.batch, tensor<?x64xf32>) -> !model.cache
  return
}


func.func @f(%x: tensor<?x64xf32>) -> (tensor<?x64xf32>, tensor<?x64xf32>) {
  %w0 = "model.weight"() {name = "w"} : () -> tensor<64xbf16>
  %w1 = "model.weight"() {name = "w"} : () -> tensor<64xbf16>
  %v = "model.weight"() {name = "v"} : () -> tensor<64xbf16>
  %a = "model.rms_norm"(%x, %w0) {eps = 1.0e-6 : f64} : (tensor<?x64xf32>, tensor<64xbf16>) -> tensor<?x64xf32>
  %b = "model.rms_norm"(%x, %w1) {eps = 1.0e-6 : f64} : (tensor<?x64xf32>, tensor<64xbf16>) -> tensor<?x64xf32>
  %c = "model.rms_norm"(%x, %v) {eps = 1.0e-5 : f64} : (tensor<?x64xf32>, tensor<64xbf16>) -> tensor<?x64xf32>
  %s = "model.add"(%a, %b) : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  return %s, %c : tensor<?x64xf32>, tensor<?x64xf32>
}

func.func @appends(%b: !model.batch, %c: !model.cache, %x: tensor<?x64xf32>) -> !model.cache {
  %0 = "model.cache_append"(%c, %b, %x) {heads = 1 : i64, layer = 0 : i64, part = "key"} : (!model.cache, !model.batch, tensor<?x64xf32>) -> !model.cache
  %1 = "model.cache_append"(%0, %b, %x) {heads = 1 : i64, layer = 0 : i64, part = "key"} : (!model.cache, !model.batch, tensor<?x64xf32>) -> !model.cache
  return %1 : !model.cache
}

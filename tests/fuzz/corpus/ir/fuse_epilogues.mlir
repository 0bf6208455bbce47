
func.func @mlp(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %wg = "model.weight"() {name = "gate"} : () -> tensor<32x64xbf16>
  %wu = "model.weight"() {name = "up"} : () -> tensor<32x64xbf16>
  %wd = "model.weight"() {name = "down"} : () -> tensor<64x32xbf16>
  %g = "model.linear"(%x, %wg) : (tensor<?x64xf32>, tensor<32x64xbf16>) -> tensor<?x32xf32>
  %u = "model.linear"(%x, %wu) : (tensor<?x64xf32>, tensor<32x64xbf16>) -> tensor<?x32xf32>
  %h = "model.swiglu_oai"(%g, %u) {alpha = 1.702 : f64, limit = 7.0 : f64} : (tensor<?x32xf32>, tensor<?x32xf32>) -> tensor<?x32xf32>
  %d = "model.linear"(%h, %wd) : (tensor<?x32xf32>, tensor<64x32xbf16>) -> tensor<?x64xf32>
  %y = "model.add"(%d, %x) : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  return %y : tensor<?x64xf32>
}

func.func @used_twice(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = "model.weight"() {name = "w"} : () -> tensor<64x64xbf16>
  %d = "model.linear"(%x, %w) : (tensor<?x64xf32>, tensor<64x64xbf16>) -> tensor<?x64xf32>
  "model.observe"(%d) {name = "layer.0.out"} : (tensor<?x64xf32>) -> ()
  %y = "model.add"(%x, %d) : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  return %y : tensor<?x64xf32>
}

func.func @two_inputs(%x: tensor<?x64xf32>, %z: tensor<?x64xf32>) -> tensor<?x32xf32> {
  %wg = "model.weight"() {name = "gate"} : () -> tensor<32x64xbf16>
  %wu = "model.weight"() {name = "up"} : () -> tensor<32x64xbf16>
  %g = "model.linear"(%x, %wg) : (tensor<?x64xf32>, tensor<32x64xbf16>) -> tensor<?x32xf32>
  %u = "model.linear"(%z, %wu) : (tensor<?x64xf32>, tensor<32x64xbf16>) -> tensor<?x32xf32>
  %h = "model.swiglu_oai"(%g, %u) {alpha = 1.702 : f64, limit = 7.0 : f64} : (tensor<?x32xf32>, tensor<?x32xf32>) -> tensor<?x32xf32>
  return %h : tensor<?x32xf32>
}

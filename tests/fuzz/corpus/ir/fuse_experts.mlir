
func.func @f(%x: tensor<?x64xbf16>, %e: tensor<?x4xi32>, %p: tensor<?x4xf32>, %r: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
  %wg = "model.weight"() {name = "experts.{expert}.w1"} : () -> tensor<16x32x64xbf16>
  %wu = "model.weight"() {name = "experts.{expert}.w3"} : () -> tensor<16x32x64xbf16>
  %wd = "model.weight"() {name = "experts.{expert}.w2"} : () -> tensor<16x64x32xbf16>
  %g = "model.expert_linear"(%x, %e, %wg) : (tensor<?x64xbf16>, tensor<?x4xi32>, tensor<16x32x64xbf16>) -> tensor<?x4x32xbf16>
  %u = "model.expert_linear"(%x, %e, %wu) : (tensor<?x64xbf16>, tensor<?x4xi32>, tensor<16x32x64xbf16>) -> tensor<?x4x32xbf16>
  %h = "model.swiglu_oai"(%g, %u) {alpha = 1.702 : f64, limit = 7.0 : f64} : (tensor<?x4x32xbf16>, tensor<?x4x32xbf16>) -> tensor<?x4x32xbf16>
  %y = "model.expert_linear"(%h, %e, %wd) : (tensor<?x4x32xbf16>, tensor<?x4xi32>, tensor<16x64x32xbf16>) -> tensor<?x4x64xf32>
  %s = "model.combine"(%y, %p) {scale = 2.0 : f64} : (tensor<?x4x64xf32>, tensor<?x4xf32>) -> tensor<?x64xbf16>
  %o = "model.add"(%r, %s) : (tensor<?x64xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %o : tensor<?x64xbf16>
}

func.func @no_add(%x: tensor<?x64xbf16>, %e: tensor<?x4xi32>, %p: tensor<?x4xf32>) -> tensor<?x64xbf16> {
  %wg = "model.weight"() {name = "experts.{expert}.w1"} : () -> tensor<16x32x64xbf16>
  %wu = "model.weight"() {name = "experts.{expert}.w3"} : () -> tensor<16x32x64xbf16>
  %wd = "model.weight"() {name = "experts.{expert}.w2"} : () -> tensor<16x64x32xbf16>
  %g = "model.expert_linear"(%x, %e, %wg) : (tensor<?x64xbf16>, tensor<?x4xi32>, tensor<16x32x64xbf16>) -> tensor<?x4x32xbf16>
  %u = "model.expert_linear"(%x, %e, %wu) : (tensor<?x64xbf16>, tensor<?x4xi32>, tensor<16x32x64xbf16>) -> tensor<?x4x32xbf16>
  %h = "model.swiglu_oai"(%g, %u) {alpha = 1.702 : f64, limit = 7.0 : f64} : (tensor<?x4x32xbf16>, tensor<?x4x32xbf16>) -> tensor<?x4x32xbf16>
  %y = "model.expert_linear"(%h, %e, %wd) : (tensor<?x4x32xbf16>, tensor<?x4xi32>, tensor<16x64x32xbf16>) -> tensor<?x4x64xf32>
  %s = "model.combine"(%y, %p) {scale = 2.0 : f64} : (tensor<?x4x64xf32>, tensor<?x4xf32>) -> tensor<?x64xbf16>
  return %s : tensor<?x64xbf16>
}

func.func @two_selections(%x: tensor<?x64xbf16>, %e: tensor<?x4xi32>, %f: tensor<?x4xi32>, %p: tensor<?x4xf32>) -> tensor<?x64xbf16> {
  %wg = "model.weight"() {name = "experts.{expert}.w1"} : () -> tensor<16x32x64xbf16>
  %wu = "model.weight"() {name = "experts.{expert}.w3"} : () -> tensor<16x32x64xbf16>
  %wd = "model.weight"() {name = "experts.{expert}.w2"} : () -> tensor<16x64x32xbf16>
  %g = "model.expert_linear"(%x, %e, %wg) : (tensor<?x64xbf16>, tensor<?x4xi32>, tensor<16x32x64xbf16>) -> tensor<?x4x32xbf16>
  %u = "model.expert_linear"(%x, %f, %wu) : (tensor<?x64xbf16>, tensor<?x4xi32>, tensor<16x32x64xbf16>) -> tensor<?x4x32xbf16>
  %h = "model.swiglu_oai"(%g, %u) {alpha = 1.702 : f64, limit = 7.0 : f64} : (tensor<?x4x32xbf16>, tensor<?x4x32xbf16>) -> tensor<?x4x32xbf16>
  %y = "model.expert_linear"(%h, %e, %wd) : (tensor<?x4x32xbf16>, tensor<?x4xi32>, tensor<16x64x32xbf16>) -> tensor<?x4x64xf32>
  %s = "model.combine"(%y, %p) {scale = 2.0 : f64} : (tensor<?x4x64xf32>, tensor<?x4xf32>) -> tensor<?x64xbf16>
  return %s : tensor<?x64xbf16>
}

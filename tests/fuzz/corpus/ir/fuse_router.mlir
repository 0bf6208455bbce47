
func.func @f(%x: tensor<?x64xbf16>) -> (tensor<?x4xi32>, tensor<?x4xf32>) {
  %g = "model.weight"() {name = "gate"} : () -> tensor<16x64xf32>
  %b = "model.weight"() {name = "bias"} : () -> tensor<16xf32>
  %l = "model.linear"(%x, %g) : (tensor<?x64xbf16>, tensor<16x64xf32>) -> tensor<?x16xf32>
  %e:2 = "model.topk_experts"(%l, %b) {k = 4 : i64} : (tensor<?x16xf32>, tensor<16xf32>) -> (tensor<?x4xi32>, tensor<?x4xf32>)
  return %e#0, %e#1 : tensor<?x4xi32>, tensor<?x4xf32>
}

func.func @logits_used(%x: tensor<?x64xbf16>) -> (tensor<?x4xi32>, tensor<?x16xf32>) {
  %g = "model.weight"() {name = "gate"} : () -> tensor<16x64xf32>
  %b = "model.weight"() {name = "bias"} : () -> tensor<16xf32>
  %l = "model.linear"(%x, %g) : (tensor<?x64xbf16>, tensor<16x64xf32>) -> tensor<?x16xf32>
  %e:2 = "model.topk_experts"(%l, %b) {k = 4 : i64} : (tensor<?x16xf32>, tensor<16xf32>) -> (tensor<?x4xi32>, tensor<?x4xf32>)
  return %e#0, %l : tensor<?x4xi32>, tensor<?x16xf32>
}

func.func @f() -> tensor<1x64xbf16> {
  %a = "model.weight"() {name = "a"} : () -> tensor<9223372036854775807x64xbf16>
  %b = "model.weight"() {name = "b"} : () -> tensor<9223372036854775807x64xbf16>
  %c = "model.concat_weights"(%a, %b) : (tensor<9223372036854775807x64xbf16>, tensor<9223372036854775807x64xbf16>) -> tensor<1x64xbf16>
  return %c : tensor<1x64xbf16>
}

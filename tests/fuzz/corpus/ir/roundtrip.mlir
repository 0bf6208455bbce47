func.func @f(%b: !model.batch) -> tensor<?x64xbf16> {
  %w = "model.weight"() {name = "embed \"quoted\""} : () -> tensor<100x64xbf16>
  %x = "model.embed"(%b, %w) : (!model.batch, tensor<100x64xbf16>) -> tensor<?x64xbf16>
  %n = "kernel.none"() : () -> !kernel.buffer
  return %x : tensor<?x64xbf16>
}

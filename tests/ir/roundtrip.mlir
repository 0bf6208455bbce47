// Text that sluice prints, it reads back to the same text; a file that does not parse or verify is refused with its place.
// RUN: sluice opt %s > /tmp/sluice-roundtrip.$$.mlir && sluice opt /tmp/sluice-roundtrip.$$.mlir | cmp - /tmp/sluice-roundtrip.$$.mlir && rm /tmp/sluice-roundtrip.$$.mlir
// RUN: sluice opt %s | FileCheck %s
// CHECK: "model.embed"(%arg0, %{{.*}}) : (!model.batch, tensor<100x64xbf16>) -> tensor<?x64xbf16>
// CHECK: "kernel.none"() : () -> !kernel.buffer
func.func @f(%b: !model.batch) -> tensor<?x64xbf16> {
  %w = "model.weight"() {name = "embed \"quoted\""} : () -> tensor<100x64xbf16>
  %x = "model.embed"(%b, %w) : (!model.batch, tensor<100x64xbf16>) -> tensor<?x64xbf16>
  %n = "kernel.none"() : () -> !kernel.buffer
  return %x : tensor<?x64xbf16>
}

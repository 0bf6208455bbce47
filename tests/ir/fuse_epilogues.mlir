// RUN: sluice opt %s --passes=fuse-epilogues | FileCheck %s

// CHECK-LABEL: @mlp
// CHECK: %[[WG:.*]] = "model.weight"() {name = "gate"}
// CHECK: %[[WU:.*]] = "model.weight"() {name = "up"}
// CHECK: %[[WD:.*]] = "model.weight"() {name = "down"}
// CHECK: %[[H:.*]] = "model.linear_swiglu"(%arg0, %[[WG]], %[[WU]]) {alpha = 1.702{{.*}}, limit = 7.0{{.*}}}
// CHECK: %[[Y:.*]] = "model.linear_add"(%[[H]], %[[WD]], %arg0)
// CHECK-NEXT: return %[[Y]]
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

// A product that something else reads stays.
// CHECK-LABEL: @used_twice
// CHECK: model.linear
// CHECK-NEXT: model.observe
// CHECK-NEXT: model.add
func.func @used_twice(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = "model.weight"() {name = "w"} : () -> tensor<64x64xbf16>
  %d = "model.linear"(%x, %w) : (tensor<?x64xf32>, tensor<64x64xbf16>) -> tensor<?x64xf32>
  "model.observe"(%d) {name = "layer.0.out"} : (tensor<?x64xf32>) -> ()
  %y = "model.add"(%x, %d) : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  return %y : tensor<?x64xf32>
}

// Gate and up of different values are no pair.
// CHECK-LABEL: @two_inputs
// CHECK-NOT: linear_swiglu
// CHECK: model.swiglu_oai
func.func @two_inputs(%x: tensor<?x64xf32>, %z: tensor<?x64xf32>) -> tensor<?x32xf32> {
  %wg = "model.weight"() {name = "gate"} : () -> tensor<32x64xbf16>
  %wu = "model.weight"() {name = "up"} : () -> tensor<32x64xbf16>
  %g = "model.linear"(%x, %wg) : (tensor<?x64xf32>, tensor<32x64xbf16>) -> tensor<?x32xf32>
  %u = "model.linear"(%z, %wu) : (tensor<?x64xf32>, tensor<32x64xbf16>) -> tensor<?x32xf32>
  %h = "model.swiglu_oai"(%g, %u) {alpha = 1.702 : f64, limit = 7.0 : f64} : (tensor<?x32xf32>, tensor<?x32xf32>) -> tensor<?x32xf32>
  return %h : tensor<?x32xf32>
}

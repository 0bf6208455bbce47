// RUN: sluice opt %s --passes=fold-shared-expert | FileCheck %s

// The weights of the shared expert follow those of the routed ones, and its residual is the last operand.
// CHECK-LABEL: @f
// CHECK-DAG: %[[SG:.*]] = "model.weight"() {name = "shared.gate"}
// CHECK-DAG: %[[SU:.*]] = "model.weight"() {name = "shared.up"}
// CHECK-DAG: %[[SD:.*]] = "model.weight"() {name = "shared.down"}
// CHECK-NOT: linear
// CHECK: %[[Y:.*]] = "model.experts_shared"(%arg0, %arg2, %arg3, %{{[^,]*}}, %{{[^,]*}}, %{{[^,]*}}, %[[SG]], %[[SU]], %[[SD]], %arg4) {alpha = 1.702{{.*}}, limit = 7.0{{.*}}, scale = 2.0{{.*}}}
// CHECK-NEXT: return %[[Y]]
func.func @f(%x: tensor<?x64xbf16>, %z: tensor<?x64xbf16>, %e: tensor<?x4xi32>, %p: tensor<?x4xf32>, %r: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
  %sg = "model.weight"() {name = "shared.gate"} : () -> tensor<32x64xbf16>
  %su = "model.weight"() {name = "shared.up"} : () -> tensor<32x64xbf16>
  %sd = "model.weight"() {name = "shared.down"} : () -> tensor<64x32xbf16>
  %h = "model.linear_swiglu"(%x, %sg, %su) {alpha = 1.702 : f64, limit = 7.0 : f64} : (tensor<?x64xbf16>, tensor<32x64xbf16>, tensor<32x64xbf16>) -> tensor<?x32xbf16>
  %s = "model.linear_add"(%h, %sd, %r) : (tensor<?x32xbf16>, tensor<64x32xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  %wg = "model.weight"() {name = "experts.{expert}.w1"} : () -> tensor<16x32x64xbf16>
  %wu = "model.weight"() {name = "experts.{expert}.w3"} : () -> tensor<16x32x64xbf16>
  %wd = "model.weight"() {name = "experts.{expert}.w2"} : () -> tensor<16x64x32xbf16>
  %o = "model.experts"(%x, %e, %p, %wg, %wu, %wd, %s) {alpha = 1.702 : f64, limit = 7.0 : f64, scale = 2.0 : f64} : (tensor<?x64xbf16>, tensor<?x4xi32>, tensor<?x4xf32>, tensor<16x32x64xbf16>, tensor<16x32x64xbf16>, tensor<16x64x32xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %o : tensor<?x64xbf16>
}

// A shared expert of another width.
// CHECK-LABEL: @wider
// CHECK: %[[S:.*]] = "model.linear_add"
// CHECK: "model.experts"(%{{.*}}, %[[S]]) {
func.func @wider(%x: tensor<?x64xbf16>, %z: tensor<?x64xbf16>, %e: tensor<?x4xi32>, %p: tensor<?x4xf32>, %r: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
  %sg = "model.weight"() {name = "shared.gate"} : () -> tensor<48x64xbf16>
  %su = "model.weight"() {name = "shared.up"} : () -> tensor<48x64xbf16>
  %sd = "model.weight"() {name = "shared.down"} : () -> tensor<64x48xbf16>
  %h = "model.linear_swiglu"(%x, %sg, %su) {alpha = 1.702 : f64, limit = 7.0 : f64} : (tensor<?x64xbf16>, tensor<48x64xbf16>, tensor<48x64xbf16>) -> tensor<?x48xbf16>
  %s = "model.linear_add"(%h, %sd, %r) : (tensor<?x48xbf16>, tensor<64x48xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  %wg = "model.weight"() {name = "experts.{expert}.w1"} : () -> tensor<16x32x64xbf16>
  %wu = "model.weight"() {name = "experts.{expert}.w3"} : () -> tensor<16x32x64xbf16>
  %wd = "model.weight"() {name = "experts.{expert}.w2"} : () -> tensor<16x64x32xbf16>
  %o = "model.experts"(%x, %e, %p, %wg, %wu, %wd, %s) {alpha = 1.702 : f64, limit = 7.0 : f64, scale = 2.0 : f64} : (tensor<?x64xbf16>, tensor<?x4xi32>, tensor<?x4xf32>, tensor<16x32x64xbf16>, tensor<16x32x64xbf16>, tensor<16x64x32xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %o : tensor<?x64xbf16>
}

// Another activation.
// CHECK-LABEL: @other_activation
// CHECK: %[[S:.*]] = "model.linear_add"
// CHECK: "model.experts"(%{{.*}}, %[[S]]) {
func.func @other_activation(%x: tensor<?x64xbf16>, %z: tensor<?x64xbf16>, %e: tensor<?x4xi32>, %p: tensor<?x4xf32>, %r: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
  %sg = "model.weight"() {name = "shared.gate"} : () -> tensor<32x64xbf16>
  %su = "model.weight"() {name = "shared.up"} : () -> tensor<32x64xbf16>
  %sd = "model.weight"() {name = "shared.down"} : () -> tensor<64x32xbf16>
  %h = "model.linear_swiglu"(%x, %sg, %su) {alpha = 1.0 : f64, limit = 7.0 : f64} : (tensor<?x64xbf16>, tensor<32x64xbf16>, tensor<32x64xbf16>) -> tensor<?x32xbf16>
  %s = "model.linear_add"(%h, %sd, %r) : (tensor<?x32xbf16>, tensor<64x32xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  %wg = "model.weight"() {name = "experts.{expert}.w1"} : () -> tensor<16x32x64xbf16>
  %wu = "model.weight"() {name = "experts.{expert}.w3"} : () -> tensor<16x32x64xbf16>
  %wd = "model.weight"() {name = "experts.{expert}.w2"} : () -> tensor<16x64x32xbf16>
  %o = "model.experts"(%x, %e, %p, %wg, %wu, %wd, %s) {alpha = 1.702 : f64, limit = 7.0 : f64, scale = 2.0 : f64} : (tensor<?x64xbf16>, tensor<?x4xi32>, tensor<?x4xf32>, tensor<16x32x64xbf16>, tensor<16x32x64xbf16>, tensor<16x64x32xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %o : tensor<?x64xbf16>
}

// Experts of another value.
// CHECK-LABEL: @other_input
// CHECK: %[[S:.*]] = "model.linear_add"
// CHECK: "model.experts"(%{{.*}}, %[[S]]) {
func.func @other_input(%x: tensor<?x64xbf16>, %z: tensor<?x64xbf16>, %e: tensor<?x4xi32>, %p: tensor<?x4xf32>, %r: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
  %sg = "model.weight"() {name = "shared.gate"} : () -> tensor<32x64xbf16>
  %su = "model.weight"() {name = "shared.up"} : () -> tensor<32x64xbf16>
  %sd = "model.weight"() {name = "shared.down"} : () -> tensor<64x32xbf16>
  %h = "model.linear_swiglu"(%z, %sg, %su) {alpha = 1.702 : f64, limit = 7.0 : f64} : (tensor<?x64xbf16>, tensor<32x64xbf16>, tensor<32x64xbf16>) -> tensor<?x32xbf16>
  %s = "model.linear_add"(%h, %sd, %r) : (tensor<?x32xbf16>, tensor<64x32xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  %wg = "model.weight"() {name = "experts.{expert}.w1"} : () -> tensor<16x32x64xbf16>
  %wu = "model.weight"() {name = "experts.{expert}.w3"} : () -> tensor<16x32x64xbf16>
  %wd = "model.weight"() {name = "experts.{expert}.w2"} : () -> tensor<16x64x32xbf16>
  %o = "model.experts"(%x, %e, %p, %wg, %wu, %wd, %s) {alpha = 1.702 : f64, limit = 7.0 : f64, scale = 2.0 : f64} : (tensor<?x64xbf16>, tensor<?x4xi32>, tensor<?x4xf32>, tensor<16x32x64xbf16>, tensor<16x32x64xbf16>, tensor<16x64x32xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %o : tensor<?x64xbf16>
}

// Its sum is used elsewhere.
// CHECK-LABEL: @observed
// CHECK: %[[S:.*]] = "model.linear_add"
// CHECK: "model.experts"(%{{.*}}, %[[S]]) {
func.func @observed(%x: tensor<?x64xbf16>, %z: tensor<?x64xbf16>, %e: tensor<?x4xi32>, %p: tensor<?x4xf32>, %r: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
  %sg = "model.weight"() {name = "shared.gate"} : () -> tensor<32x64xbf16>
  %su = "model.weight"() {name = "shared.up"} : () -> tensor<32x64xbf16>
  %sd = "model.weight"() {name = "shared.down"} : () -> tensor<64x32xbf16>
  %h = "model.linear_swiglu"(%x, %sg, %su) {alpha = 1.702 : f64, limit = 7.0 : f64} : (tensor<?x64xbf16>, tensor<32x64xbf16>, tensor<32x64xbf16>) -> tensor<?x32xbf16>
  %s = "model.linear_add"(%h, %sd, %r) : (tensor<?x32xbf16>, tensor<64x32xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  "model.observe"(%s) {name = "sum"} : (tensor<?x64xbf16>) -> ()
  %wg = "model.weight"() {name = "experts.{expert}.w1"} : () -> tensor<16x32x64xbf16>
  %wu = "model.weight"() {name = "experts.{expert}.w3"} : () -> tensor<16x32x64xbf16>
  %wd = "model.weight"() {name = "experts.{expert}.w2"} : () -> tensor<16x64x32xbf16>
  %o = "model.experts"(%x, %e, %p, %wg, %wu, %wd, %s) {alpha = 1.702 : f64, limit = 7.0 : f64, scale = 2.0 : f64} : (tensor<?x64xbf16>, tensor<?x4xi32>, tensor<?x4xf32>, tensor<16x32x64xbf16>, tensor<16x32x64xbf16>, tensor<16x64x32xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %o : tensor<?x64xbf16>
}

// The residual comes from another product than a shared expert's.
// CHECK-LABEL: @other_residual
// CHECK: %[[S:.*]] = "model.linear_add"
// CHECK: "model.experts"(%{{.*}}, %[[S]]) {
func.func @other_residual(%x: tensor<?x64xbf16>, %e: tensor<?x4xi32>, %p: tensor<?x4xf32>, %r: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
  %w = "model.weight"() {name = "w"} : () -> tensor<64x64xbf16>
  %s = "model.linear_add"(%x, %w, %r) : (tensor<?x64xbf16>, tensor<64x64xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  %wg = "model.weight"() {name = "experts.{expert}.w1"} : () -> tensor<16x32x64xbf16>
  %wu = "model.weight"() {name = "experts.{expert}.w3"} : () -> tensor<16x32x64xbf16>
  %wd = "model.weight"() {name = "experts.{expert}.w2"} : () -> tensor<16x64x32xbf16>
  %o = "model.experts"(%x, %e, %p, %wg, %wu, %wd, %s) {alpha = 1.702 : f64, limit = 7.0 : f64, scale = 2.0 : f64} : (tensor<?x64xbf16>, tensor<?x4xi32>, tensor<?x4xf32>, tensor<16x32x64xbf16>, tensor<16x32x64xbf16>, tensor<16x64x32xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %o : tensor<?x64xbf16>
}

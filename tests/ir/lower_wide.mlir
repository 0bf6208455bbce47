// Products with very many columns have workgroups enough: with many rows theirs take wider slices, so that x is read less often.
// RUN: sluice opt %s --passes=plan-buffers,choose-tiles,lower-to-kernels --target h100 | FileCheck %s

// CHECK: "kernel.gemm"{{.*}}launch.range = [1, 17, 4294967295]{{.*}}n = 65535 : i64{{.*}}slice = 32 : i64{{.*}}tile_m = 64 : i64
// CHECK: "kernel.gemm"{{.*}}launch.range = [2, 0, 8]{{.*}}n = 65536 : i64{{.*}}slice = 16 : i64{{.*}}tile_m = 8 : i64
// CHECK: "kernel.gemm"{{.*}}launch.range = [2, 17, 4294967295]{{.*}}n = 65536 : i64{{.*}}slice = 64 : i64{{.*}}tile_m = 64 : i64
func.func @step(%batch: !model.batch, %cache: !model.cache) -> (tensor<?x65536xf32>, tensor<?xi32>)
    attributes {model.dtype = "bfloat16", model.page = 16 : i64, model.layers = 1 : i64, model.hidden = 512 : i64, model.vocabulary = 65536 : i64, model.max_context = 128 : i64} {
  %e = "model.weight"() {name = "embed"} : () -> tensor<65536x512xbf16>
  %u = "model.weight"() {name = "up"} : () -> tensor<65535x512xbf16>
  %h = "model.embed"(%batch, %e) : (!model.batch, tensor<65536x512xbf16>) -> tensor<?x512xbf16>
  %w = "model.linear"(%h, %u) : (tensor<?x512xbf16>, tensor<65535x512xbf16>) -> tensor<?x65535xbf16>
  %s = "model.slice"(%w) {offset = 0 : i64} : (tensor<?x65535xbf16>) -> tensor<?x512xbf16>
  %r = "model.select_rows"(%s, %batch) : (tensor<?x512xbf16>, !model.batch) -> tensor<?x512xbf16>
  %l = "model.lm_head"(%r, %e) : (tensor<?x512xbf16>, tensor<65536x512xbf16>) -> tensor<?x65536xf32>
  %t = "model.sample"(%l, %batch) : (tensor<?x65536xf32>, !model.batch) -> tensor<?xi32>
  return %l, %t : tensor<?x65536xf32>, tensor<?xi32>
}

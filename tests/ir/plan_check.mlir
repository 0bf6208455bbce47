// lower-to-kernels refuses places that it did not get from plan-buffers, one mistake at a time.
// RUN: sluice opt %s --passes=choose-tiles,lower-to-kernels | FileCheck %s --check-prefix=GOOD
// RUN: sed 's/arena.offset = \[256\]/arena.offset = [192]/' %s | not sluice opt - --passes=choose-tiles,lower-to-kernels 2>&1 | FileCheck %s --check-prefix=OVERLAP
// RUN: sed 's/"model.linear_add"(%a, %q, %h) {arena.offset = \[0\]/"model.linear_add"(%a, %q, %h) {arena.offset = [256]/' %s | not sluice opt - --passes=choose-tiles,lower-to-kernels 2>&1 | FileCheck %s --check-prefix=FACTOR
// RUN: sed 's/arena.offset = \[256\]/arena.offset = [260]/' %s | not sluice opt - --passes=choose-tiles,lower-to-kernels 2>&1 | FileCheck %s --check-prefix=OFFSET
// RUN: sed 's/arena.offset = \[256\]/arena.offset = [-64]/' %s | not sluice opt - --passes=choose-tiles,lower-to-kernels 2>&1 | FileCheck %s --check-prefix=OFFSET
// RUN: sed 's/arena.offset = \[256\]/arena.offset = ["x"]/' %s | not sluice opt - --passes=choose-tiles,lower-to-kernels 2>&1 | FileCheck %s --check-prefix=OFFSET
// RUN: sed 's/arena.bytes = \[256\]/arena.bytes = [128]/' %s | not sluice opt - --passes=choose-tiles,lower-to-kernels 2>&1 | FileCheck %s --check-prefix=BYTES
// RUN: sed 's/\["rows"\]/["tokens"]/' %s | not sluice opt - --passes=choose-tiles,lower-to-kernels 2>&1 | FileCheck %s --check-prefix=REGION
// RUN: sed 's/\["rows"\]/[]/' %s | not sluice opt - --passes=choose-tiles,lower-to-kernels 2>&1 | FileCheck %s --check-prefix=NONE

// GOOD: "kernel.arena"() {bytes = 256 : i64, {{.*}}name = "rms_norm", offset = 256 : i64
// OVERLAP: -:{{[0-9]+}}:{{[0-9]+}}: error: value 0 lies at 192 of the region "tokens", on a value that is still needed
// FACTOR: error: value 0 lies at 256 of the region "tokens", on a value that is still needed
// OFFSET: error: value 0 has no arena.offset that is a multiple of 64
// BYTES: error: value 0 has 128 bytes of the arena, expected 256
// REGION: error: value 0 is in the region "tokens", expected "rows"
// NONE: error: value 0 has no memory: run plan-buffers first
func.func @step(%batch: !model.batch, %cache: !model.cache) -> (tensor<?x100xf32>, tensor<?xi32>)
    attributes {model.dtype = "float32", model.page = 16 : i64, model.layers = 1 : i64, model.hidden = 64 : i64, model.vocabulary = 100 : i64, model.max_context = 128 : i64} {
  %e = "model.weight"() {name = "embed"} : () -> tensor<100x64xbf16>
  %n = "model.weight"() {name = "n"} : () -> tensor<64xbf16>
  %q = "model.weight"() {name = "q"} : () -> tensor<64x64xbf16>
  %h = "model.embed"(%batch, %e) {arena.offset = [0], arena.bytes = [256], arena.size = ["tokens"]} : (!model.batch, tensor<100x64xbf16>) -> tensor<?x64xf32>
  %a = "model.rms_norm"(%h, %n) {eps = 1.0e-6 : f64, arena.offset = [256], arena.bytes = [256], arena.size = ["tokens"]} : (tensor<?x64xf32>, tensor<64xbf16>) -> tensor<?x64xf32>
  %o = "model.linear_add"(%a, %q, %h) {arena.offset = [0], arena.bytes = [256], arena.size = ["tokens"]} : (tensor<?x64xf32>, tensor<64x64xbf16>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %r = "model.select_rows"(%o, %batch) {arena.offset = [0], arena.bytes = [256], arena.size = ["rows"]} : (tensor<?x64xf32>, !model.batch) -> tensor<?x64xf32>
  %l = "model.lm_head"(%r, %e) : (tensor<?x64xf32>, tensor<100x64xbf16>) -> tensor<?x100xf32>
  %t = "model.sample"(%l, %batch) : (tensor<?x100xf32>, !model.batch) -> tensor<?xi32>
  return %l, %t : tensor<?x100xf32>, tensor<?xi32>
}

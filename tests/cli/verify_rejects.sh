#!/usr/bin/env bash
# The verifier of the IR: each case is a function body that `sluice opt` must refuse, with words of its message.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cases=0

# refused WORDS BODY: BODY may use %x (tensor<?x64xf32>), %b (batch), %c (cache), %q (tensor<?x512xf32>), %e (tensor<?x4xi32>)
refused() {
  local code=0
  printf 'func.func @f(%%x: tensor<?x64xf32>, %%b: !model.batch, %%c: !model.cache, %%q: tensor<?x512xf32>, %%e: tensor<?x4xi32>) {\n%s\n  return\n}\n' "$2" > "$work/case.mlir"
  "$SLUICE" opt "$work/case.mlir" > "$work/out" 2> "$work/err" || code=$?
  cases=$((cases + 1))
  [ "$code" -eq 1 ] || { echo "exit code $code for: $2"; cat "$work/err"; exit 1; }
  grep -F -- "$1" "$work/err" > /dev/null || { echo "expected '$1' for: $2"; cat "$work/err"; exit 1; }
  grep -E 'case.mlir:[0-9]+:[0-9]+: error: ' "$work/err" > /dev/null || { echo "no place for: $2"; cat "$work/err"; exit 1; }
  [ ! -s "$work/out" ] || { echo "output for: $2"; exit 1; }
}
w='%w = "model.weight"() {name = "w"} : () -> tensor'

refused 'case.mlir' '%a = "model.no_such_op"(%x) : (tensor<?x64xf32>) -> tensor<?x64xf32>'
refused "'model." "$w<32x60xbf16>
%y = \"model.linear\"(%x, %w) : (tensor<?x64xf32>, tensor<32x60xbf16>) -> tensor<?x32xf32>"
refused "'model." "$w<32x64xbf16>
%y = \"model.linear\"(%x, %w) : (tensor<?x64xf32>, tensor<32x64xbf16>) -> tensor<?x31xf32>"
refused 'eps' "$w<64xbf16>
%y = \"model.rms_norm\"(%x, %w) : (tensor<?x64xf32>, tensor<64xbf16>) -> tensor<?x64xf32>"
refused 'eps' "$w<64xbf16>
%y = \"model.rms_norm\"(%x, %w) {eps = 1 : i64} : (tensor<?x64xf32>, tensor<64xbf16>) -> tensor<?x64xf32>"
refused "'model." "$w<63xbf16>
%y = \"model.rms_norm\"(%x, %w) {eps = 1.0e-6 : f64} : (tensor<?x64xf32>, tensor<63xbf16>) -> tensor<?x64xf32>"
refused "'model." "$w<16xbf16>
%y = \"model.head_norm\"(%x, %w) {eps = 1.0e-6 : f64, heads = 3 : i64} : (tensor<?x64xf32>, tensor<16xbf16>) -> tensor<?x64xf32>"
refused 'rotary_dim' '%t = "model.rope_table"(%b) {rotary_dim = 7 : i64, theta = 1.0e4 : f64} : (!model.batch) -> tensor<?x7xf32>'
refused 'table rotates 128 dimensions, but a head has 64' '%t = "model.rope_table"(%b) {rotary_dim = 128 : i64, theta = 1.0e4 : f64} : (!model.batch) -> tensor<?x128xf32>
%y = "model.rope"(%x, %t) {heads = 1 : i64} : (tensor<?x64xf32>, tensor<?x128xf32>) -> tensor<?x64xf32>'
refused 'part' '%d = "model.cache_append"(%c, %b, %x) {heads = 2 : i64, layer = 0 : i64, part = "keys"} : (!model.cache, !model.batch, tensor<?x64xf32>) -> !model.cache'
refused 'layer' '%d = "model.cache_append"(%c, %b, %x) {heads = 2 : i64, layer = -3 : i64, part = "key"} : (!model.cache, !model.batch, tensor<?x64xf32>) -> !model.cache'
refused "'model." '%o = "model.attention"(%q, %c, %b) {heads = 7 : i64, kv_heads = 2 : i64, layer = 0 : i64, scale = 0.1 : f64} : (tensor<?x512xf32>, !model.cache, !model.batch) -> tensor<?x512xf32>'
refused "'model." '%o = "model.attention"(%q, %c, %b) {heads = 8 : i64, kv_heads = 3 : i64, layer = 0 : i64, scale = 0.1 : f64} : (tensor<?x512xf32>, !model.cache, !model.batch) -> tensor<?x512xf32>'
refused "'model." '%s = "model.index_score"(%x, %c, %b) {dim = 16 : i64, heads = 2 : i64, layer = 0 : i64} : (tensor<?x64xf32>, !model.cache, !model.batch) -> tensor<?x2x?xf32>'
refused "'model." '%i = "model.index_select"(%x, %c, %b) {block = 16 : i64, dim = 32 : i64, heads = 2 : i64, init = 0 : i64, k = 5 : i64, layer = 3 : i64, local = 1 : i64} : (tensor<?x64xf32>, !model.cache, !model.batch) -> tensor<?x2x4xi32>'
refused 'k' "$w<4x64xf32>
%v = \"model.weight\"() {name = \"v\"} : () -> tensor<4xf32>
%r:2 = \"model.router\"(%x, %w, %v) {k = 5 : i64} : (tensor<?x64xf32>, tensor<4x64xf32>, tensor<4xf32>) -> (tensor<?x5xi32>, tensor<?x5xf32>)"
refused "'model." "$w<16x32x60xbf16>
%y = \"model.expert_linear\"(%x, %e, %w) : (tensor<?x64xf32>, tensor<?x4xi32>, tensor<16x32x60xbf16>) -> tensor<?x4x32xf32>"
refused "'model." '%y = "model.slice"(%x) {offset = 60 : i64} : (tensor<?x64xf32>) -> tensor<?x8xf32>'
refused "'model." '%y = "model.add"(%x, %q) : (tensor<?x64xf32>, tensor<?x512xf32>) -> tensor<?x64xf32>'
refused 'multiple of 64' '%a = "kernel.arena"() {name = "a", size = "tokens", offset = 32 : i64, bytes = 64 : i64, dtype = "f32", width = 4 : i64} : () -> !kernel.buffer'
refused 'size' '%a = "kernel.arena"() {name = "a", size = "apples", offset = 0 : i64, bytes = 64 : i64, dtype = "f32", width = 4 : i64} : () -> !kernel.buffer'
refused 'name' '%a = "kernel.input"() {name = "no_such_input"} : () -> !kernel.buffer'
refused 'case.mlir' '%a = "kernel.input"() : () -> !kernel.buffer'
echo "$cases cases refused"

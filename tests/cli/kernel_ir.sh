#!/usr/bin/env bash
# Kernel IR for an NVIDIA target reads back, and what the verifier checks of launch ranges and groups is refused with one line.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$SLUICE" compile "$SLUICE_SOURCE/tests/golden/nano" --target=h100 --emit=kernel-ir -o "$work/good.mlir" 2> /dev/null
"$SLUICE" opt "$work/good.mlir" > "$work/again.mlir"
grep 'launch.range = \[' "$work/again.mlir" > /dev/null
grep 'group = 8 : i64' "$work/again.mlir" > /dev/null

# refused PATTERN SED: the text after SED, which must change it, is refused with a line that matches PATTERN.
refused() {
  sed -E "$2" "$work/good.mlir" > "$work/bad.mlir"
  if cmp -s "$work/good.mlir" "$work/bad.mlir"; then echo "$2 changes nothing"; exit 1; fi
  if "$SLUICE" opt "$work/bad.mlir" > "$work/out" 2> "$work/err"; then echo "$2 is accepted"; exit 1; fi
  grep -E "$1" "$work/err" > /dev/null || { cat "$work/err"; exit 1; }
}

range='launch\.range = \[[^]]*\]'
refused "not an array of three integers" "s/$range/launch.range = [1, 2]/"
refused "not an array of three integers" "s/$range/launch.range = [1, 2, 3, 4]/"
refused "not an array of three integers" "s/$range/launch.range = 7 : i64/"
refused "not an array of three integers" "s/$range/launch.range = [1, \"8\", 9]/"
refused "is 16, 0, 8: expected a size below 16" "s/$range/launch.range = [16, 0, 8]/"
refused "is -1, 0, 8: expected a size below 16" "s/$range/launch.range = [-1, 0, 8]/"
refused "is 1, 9, 8: .*from <= to" "s/$range/launch.range = [1, 9, 8]/"
refused "is 1, -1, 8: " "s/$range/launch.range = [1, -1, 8]/"
refused "is 1, 0, 4294967296: " "s/$range/launch.range = [1, 0, 4294967296]/"
refused "has groups of 8 columns, expected 2, the attribute 'group'" '/kernel\.gemm/s/group = 8 : i64/group = 2 : i64/'
refused "has groups of 2 columns, expected 8, the attribute 'group'" '/kernel\.weight/s/group = 8 : i64/group = 2 : i64/'

#!/usr/bin/env bash
# Runs the `// RUN:` lines of an .mlir test. %s is the file, `sluice` the compiler under test, `not` expects exit code 1.
#   run-mlir.sh FILE LLVM_PREFIX
set -euo pipefail
file=$1
PATH=$2/bin:$PATH
sluice() { "$SLUICE" "$@"; }
not() {
  local code=0
  "$@" || code=$?
  [ "$code" -eq 1 ] || { echo "exit code $code, expected 1: $*" >&2; return 1; }
}
mapfile -t lines < <(sed -n 's|^// RUN: ||p' "$file")
[ ${#lines[@]} -gt 0 ] || { echo "$file: no RUN lines" >&2; exit 1; }
for line in "${lines[@]}"; do
  eval "${line//%s/$file}" || { echo "failed: $line" >&2; exit 1; }
done

#!/usr/bin/env bash
# Format, static analysis, manual pages and shell syntax.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t sources < <(git ls-files '*.c' '*.h')
clang-format-22 --dry-run -Werror "${sources[@]}"
mandoc -Tlint -Wwarning docs/man/*.1
for script in $(git ls-files '*.sh') .ci/run; do bash -n "$script"; done
mkdir -p build
cmake -S . -B build/lint > build/lint.log 2>&1 || { cat build/lint.log; exit 1; }
cmake --build build/lint --target sluice_irdl > /dev/null
mapfile -t units < <(git ls-files '*.c' | grep -v -e '^tests/' -e '^examples/')
printf '%s\n' "${units[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy-22 -p build/lint --quiet 2> build/lint.log || { cat build/lint.log; exit 1; }
echo "lint: ${#sources[@]} files"

#!/usr/bin/env bash
# Builds sluice and runs every test: once optimised, once under AddressSanitizer and UndefinedBehaviorSanitizer, and those
# of the runtime's threads under ThreadSanitizer; first the static checks. From a clean clone on Debian 12 this needs
# nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=$(nproc)

scripts/install-dependencies.sh --tests
tests/lint.sh

for variant in release sanitize; do
  echo "== $variant"
  sanitize=OFF
  [ "$variant" = sanitize ] && sanitize=ON
  cmake -S . -B "build/$variant" -DSLUICE_SANITIZE=$sanitize > "build-$variant.log" 2>&1 || { cat "build-$variant.log"; exit 1; }
  cmake --build "build/$variant" -j "$jobs" > "build-$variant.log" 2>&1 || { cat "build-$variant.log"; exit 1; }
  rm "build-$variant.log"
done
echo "== threads"
cmake -S . -B build/threads -DSLUICE_SANITIZE_THREADS=ON -DSLUICE_COMPILER=OFF > build-threads.log 2>&1 || { cat build-threads.log; exit 1; }
cmake --build build/threads -j "$jobs" --target runtime_threads runtime_cuda_threads > build-threads.log 2>&1 || { cat build-threads.log; exit 1; }
rm build-threads.log
fixed=() # ThreadSanitizer wants its addresses; some kernels spread programs too far
setarch -R true 2> /dev/null && fixed=(setarch -R)
"${fixed[@]}" ctest --test-dir build/threads -R '^unit\.runtime_(cuda_)?threads$' --output-on-failure
ctest --test-dir build/sanitize -j "$jobs" --output-on-failure
ctest --test-dir build/release -j "$jobs" --output-on-failure

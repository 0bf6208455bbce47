#!/usr/bin/env bash
# Installing: files land where they should, a program builds against the package with pkg-config and with CMake, and the
# runtime builds without LLVM.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake -S "$SLUICE_SOURCE" -B "$work/build" -DSLUICE_COMPILER=OFF -DSLUICE_TESTS=OFF -DSLUICE_LLVM_PREFIX=/nonexistent \
  -DCMAKE_INSTALL_PREFIX="$work/prefix" > "$work/log"
cmake --build "$work/build" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
cmake --install "$work/build" > "$work/log"
prefix=$work/prefix
library=$(dirname "$(find "$prefix" -name libsluice_runtime.a)")
for file in bin/sluice-run include/sluice/runtime.h share/man/man1/sluice-run.1 \
  share/bash-completion/completions/sluice share/bash-completion/completions/sluice-run; do
  test -e "$prefix/$file" || { echo "missing: $file"; exit 1; }
done
objdump -p "$library/libsluice_runtime.so" | grep 'SONAME *libsluice_runtime.so.0' > /dev/null

# Only libc, libm, libdl and pthreads; under 600 KB stripped.
if objdump -p "$prefix/bin/sluice-run" | grep NEEDED | grep -vE 'lib(c|m|dl|pthread)\.so'; then
  echo "sluice-run needs more than it may"; exit 1
fi
strip -o "$work/stripped" "$prefix/bin/sluice-run"
size=$(stat -c %s "$work/stripped")
test "$size" -lt 600000 || { echo "sluice-run has $size bytes"; exit 1; }

export PKG_CONFIG_PATH=$library/pkgconfig
# shellcheck disable=SC2046
cc -std=gnu17 "$SLUICE_SOURCE/examples/generate.c" -o "$work/generate" $(pkg-config --cflags --libs sluice)
"$SLUICE" compile "$SLUICE_SOURCE/tests/golden/nano" --target host --dtype float32 -o "$work/nano.sluice"
first=$(LD_LIBRARY_PATH=$library "$work/generate" "$work/nano.sluice" synthetic:1 1 17 42)
second=$(echo 1 17 42 | "$SLUICE_RUN" generate "$work/nano.sluice" --weights synthetic:1 --ids - --max-new 16 --ignore-eos)
test "$first" = "$second" || { echo "library: $first"; echo "program: $second"; exit 1; }

mkdir "$work/consumer"
cat > "$work/consumer/CMakeLists.txt" << 'EOF'
cmake_minimum_required(VERSION 3.20)
project(consumer C)
find_package(sluice 0.1 REQUIRED)
add_executable(generate generate.c)
target_link_libraries(generate sluice::sluice_runtime)
EOF
cp "$SLUICE_SOURCE/examples/generate.c" "$work/consumer"
cmake -S "$work/consumer" -B "$work/consumer/build" -DCMAKE_PREFIX_PATH="$prefix" > "$work/log"
cmake --build "$work/consumer/build" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
test "$("$work/consumer/build/generate" "$work/nano.sluice" synthetic:1 1 17 42)" = "$first"

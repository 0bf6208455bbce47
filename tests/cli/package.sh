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
for file in bin/sluice-run include/sluice/runtime.h include/sluice/tokenizer.h share/man/man1/sluice-run.1 \
  share/bash-completion/completions/sluice share/bash-completion/completions/sluice-run; do
  test -e "$prefix/$file" || { echo "missing: $file"; exit 1; }
done
objdump -p "$library/libsluice_runtime.so" | grep 'SONAME *libsluice_runtime.so.0' > /dev/null

# Only libc, libm, libdl and pthreads; under 1.4 MB stripped, more than half of it PCRE2.
if objdump -p "$prefix/bin/sluice-run" | grep NEEDED | grep -vE 'lib(c|m|dl|pthread)\.so'; then
  echo "sluice-run needs more than it may"; exit 1
fi
strip -o "$work/stripped" "$prefix/bin/sluice-run"
size=$(stat -c %s "$work/stripped")
test "$size" -lt 1400000 || { echo "sluice-run has $size bytes"; exit 1; }

export PKG_CONFIG_PATH=$library/pkgconfig
# shellcheck disable=SC2046
cc -std=gnu17 "$SLUICE_SOURCE/examples/generate.c" -o "$work/generate" $(pkg-config --cflags --libs sluice)
"$SLUICE" compile "$SLUICE_SOURCE/tests/golden/nano" --target host --dtype float32 -o "$work/nano.sluice"
first=$(LD_LIBRARY_PATH=$library "$work/generate" "$work/nano.sluice" synthetic:1 1 17 42)
second=$(echo 1 17 42 | "$SLUICE_RUN" generate "$work/nano.sluice" --weights synthetic:1 --ids - --max-new 16 --ignore-eos)
test "$first" = "$second" || { echo "library: $first"; echo "program: $second"; exit 1; }

# libsluice_text is a package of its own.
cat > "$work/encode.c" << 'EOF'
#include "sluice/tokenizer.h"
#include <stdio.h>
int main(int argc, char **argv) {
  sluice_tokenizer *tokenizer;
  sluice_encoder *encoder;
  const int32_t *ids;
  size_t count;
  if (argc < 2 || sluice_tokenizer_open(argv[1], &tokenizer) || sluice_encoder_create(tokenizer, &encoder) ||
      sluice_encode(encoder, "Hello", 5, NULL, &ids, &count))
    return 1;
  for (size_t i = 0; i < count; i++) printf("%s%d", i ? " " : "", ids[i]);
  putchar('\n');
  return 0;
}
EOF
# shellcheck disable=SC2046
cc -std=gnu17 "$work/encode.c" -o "$work/encode" $(pkg-config --cflags --libs sluice-text)
test "$(LD_LIBRARY_PATH=$library "$work/encode" "$SLUICE_SOURCE/examples/tokenizer")" = "39 271 281"

mkdir "$work/consumer"
cp "$work/encode.c" "$work/consumer"
cat > "$work/consumer/CMakeLists.txt" << 'EOF'
cmake_minimum_required(VERSION 3.20)
project(consumer C)
find_package(sluice 0.1 REQUIRED)
add_executable(generate generate.c)
target_link_libraries(generate sluice::sluice_runtime)
add_executable(encode encode.c)
target_link_libraries(encode sluice::sluice_text)
EOF
cp "$SLUICE_SOURCE/examples/generate.c" "$work/consumer"
cmake -S "$work/consumer" -B "$work/consumer/build" -DCMAKE_PREFIX_PATH="$prefix" > "$work/log"
cmake --build "$work/consumer/build" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
test "$("$work/consumer/build/generate" "$work/nano.sluice" synthetic:1 1 17 42)" = "$first"
test "$("$work/consumer/build/encode" "$SLUICE_SOURCE/examples/tokenizer")" = "39 271 281"

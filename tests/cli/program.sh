#!/usr/bin/env bash
# --emit=program and --emit=object: one executable that is runtime and bundle, and a bundle linked into a C program. What
# they need of glibc; what a damaged program says.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() {
  echo "$1"
  cat out err 2> /dev/null
  exit 1
}
refused() { # CODE TEXT COMMAND...: one line that says it
  local wanted=$1 text=$2 code=0
  shift 2
  "$@" > out 2> err || code=$?
  [ "$code" = "$wanted" ] && grep -qF -- "$text" err && [ "$(grep -vc ' note: ' err)" = 1 ] && [ ! -s out ] ||
    fail "$*: exit $code, expected $wanted with '$text'"
}

"$SLUICE" synth "$SLUICE_SOURCE/tests/golden/nano" --seed 1 -o weights 2> /dev/null
cp "$SLUICE_SOURCE"/examples/tokenizer/{tokenizer,generation_config}.json weights
cp "$SLUICE_SOURCE/tests/templates/namespace.jinja" weights/chat_template.jinja
compile=("$SLUICE" compile weights --target host,host:x86-64 --dtype float32)
"${compile[@]}" -o nano.sluice 2> err
"${compile[@]}" --emit=program -o m3 2> err
grep -q '^wrote m3' err || fail "compile says nothing"
[ "$(stat -c %a m3)" = 755 ] || fail "m3 cannot be run by everybody"

# It does what sluice-run does with the bundle, from anywhere and under any name; its own bundle is the only one.
prompt=(--weights weights --prompt "The compiler" --max-new 12)
"$SLUICE_RUN" generate nano.sluice "${prompt[@]}" > expected
./m3 generate "${prompt[@]}" > out
cmp out expected
mkdir bin && cp m3 bin/other && PATH=$work/bin other generate "${prompt[@]}" | cmp - expected
echo hello | ./m3 chat --weights weights --max-new 8 --temperature 0 > out
echo hello | "$SLUICE_RUN" chat nano.sluice --weights weights --max-new 8 --temperature 0 | cmp - out
for command in generate chat verify bench memory tokenize template; do
  ./m3 $command --help > help
  head -1 help | grep -q "^usage: ./m3 $command" || fail "the help of $command"
  if grep -q 'FILE.sluice' help; then fail "$command asks for a bundle"; fi
done
refused 2 'this program has its own bundle; usage: ./m3 memory' ./m3 memory nano.sluice
echo hello | ./m3 tokenize --weights weights | cmp - <(echo hello | "$SLUICE_RUN" tokenize --weights weights)

# Other commands take it as a bundle; the bundle in it is the one that a file would have been.
"$SLUICE_RUN" generate m3 "${prompt[@]}" | cmp - expected
"$SLUICE" inspect nano.sluice --json > one && "$SLUICE" inspect m3 --json > two && cmp one two
tail -c "$(stat -c %s nano.sluice)" m3 | cmp - nano.sluice
cp m3 again && "${compile[@]}" --emit=program -o m3 2> err && cmp m3 again

# Neither the compiler nor the sluice-run that it copies is overwritten.
mkdir tools && cp "$SLUICE" "$SLUICE_RUN" tools && sha256sum tools/* > programs
for name in sluice sluice-run; do
  refused 2 'which is read' tools/sluice compile weights --target host:x86-64 --emit=program -o tools/$name
done
refused 2 'which is read' tools/sluice compile weights --target host:x86-64 -o tools/sluice
sha256sum --check --quiet programs

# Signed in place, and checked before anything of the bundle runs.
"$SLUICE" keygen key && "$SLUICE" keygen other
refused 1 'is not signed' ./m3 generate "${prompt[@]}" --trust key.pub
"$SLUICE" sign m3 --key key
[ -x m3 ] || fail "signing took the permission to run"
./m3 generate "${prompt[@]}" --trust key.pub | cmp - expected
refused 1 'signed with another key' ./m3 generate "${prompt[@]}" --trust other.pub

# Damage: of a byte, of the length, of everything behind the program.
size=$(stat -c %s m3) bundle=$(stat -c %s nano.sluice)
damaged() { chmod +x damaged && refused 1 "$work/damaged: $1" ./damaged memory && refused 1 "damaged: $1" "$SLUICE_RUN" memory damaged; }
for at in 1 5000 $((bundle / 2)) $((bundle - 1)); do
  python3 -c 'import sys; d = bytearray(open("m3", "rb").read()); d[-int(sys.argv[1])] ^= 1; open("damaged", "wb").write(d)' "$at"
  damaged 'damaged bundle'
done
for cut in 1 4096 $((bundle / 2)) $((bundle - 100)); do
  head -c $((size - cut)) m3 > damaged
  damaged 'damaged bundle'
done
strip -o damaged m3
damaged 'no bundle in this program'
refused 1 'no bundle in this program' "$SLUICE_RUN" memory "$SLUICE_RUN"
refused 2 'needs -o' "$SLUICE" compile weights --emit=program
refused 2 'standard output' "$SLUICE" compile weights --emit=program -o -

# A failure leaves what was there; sluice without its sluice-run says so.
echo old > kept
cp "$SLUICE" lonely-sluice && chmod +x lonely-sluice
refused 1 'takes the sluice-run beside this program' ./lonely-sluice compile weights --dtype float32 --emit=program -o kept
[ "$(cat kept)" = old ] || fail "a failure replaced a file"

# Both run where glibc is 2.28 or later: no symbol of theirs is younger. Sanitizers have needs of their own.
if ! grep -q __asan_init "$SLUICE_RUN"; then
  for program in m3 "$SLUICE_RUN"; do
    readelf --wide --dyn-syms "$program" > symbols
    grep -q '@GLIBC_' symbols || fail "$program: no versions were read"
    young=$(sed -n 's/.* \([^ ]*@\)@*GLIBC_2\.\([0-9]*\).*/\2 \1/p' symbols | awk '$1 > 28 { print $2 "2." $1 }')
    [ -z "$young" ] || fail "$program needs a glibc later than 2.28: $young"
    if readelf --wide --version-info "$program" | grep -o 'Name: GLIBC_ABI[^ ]*'; then fail "$program needs a later loader"; fi
  done
fi

# An object and a header, linked into a C program.
"${compile[@]}" --emit=object -o m3.o 2> err
[ -e m3.h ] && grep -q '^wrote m3.o, .* and m3.h, for' err || fail "no header, or not a word of it"
refused 2 'use odd.o' "${compile[@]}" --emit=object -o odd.h
[ ! -e odd.h ] && [ ! -e odd.h.h ] || fail "something of a refused name is left"
nm m3.o | grep -q ' R m3_bundle$' || fail "m3.o does not define m3_bundle"
objcopy -O binary --only-section=.rodata m3.o bytes && cmp bytes nano.sluice
link=("$SLUICE_SOURCE/examples/embedded.c" m3.o -I. -I"$SLUICE_SOURCE/runtime/include" "$SLUICE_BUILD/libsluice_text.a"
  "$SLUICE_BUILD/libsluice_runtime.a" -l:libpcre2-8.a -lm -ldl -lpthread)
grep -q __asan_init "$SLUICE_RUN" && link+=(-fsanitize=address,undefined)
cc -std=gnu17 -Wall -Wextra -Werror "${link[@]}" -o embedded
./embedded weights "The compiler" > out
"$SLUICE_RUN" generate nano.sluice --weights weights --prompt "The compiler" --max-new 24 --temperature 0 --ignore-eos |
  cmp - out
"${compile[@]}" --emit=object -o 3-odd.name.o 2> err
nm 3-odd.name.o | grep -q ' R _3_odd_name_bundle$' && grep -q '_3_odd_name_bundle\[' 3-odd.name.h || fail "an odd name"
g++ -x c++ -fsyntax-only 3-odd.name.h || fail "the header is no C++"
cp weights/config.json odd.h
refused 2 'odd.h' "$SLUICE" compile odd.h --emit=object -o odd.o

#!/usr/bin/env bash
# What compile does when it is told little: names of outputs, the target, other programs' spellings, what it says; and
# sizes for people.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/Tiny-M3" "$work/out"
cp "$SLUICE_SOURCE/tests/golden/nano/config.json" "$work/Tiny-M3/"
cp "$work/Tiny-M3/config.json" "$work/other.json"
cd "$work/out"
fail() {
  echo "$1"
  cat err
  exit 1
}

# The name is the model's: of its directory, or of a configuration that is called otherwise; in the current directory.
"$SLUICE" compile ../Tiny-M3 2> err
grep -qE '^wrote Tiny-M3\.sluice, [0-9.]+ kB, for host:x86-64' err || fail "no word of Tiny-M3.sluice"
mv Tiny-M3.sluice first.sluice
(cd ../Tiny-M3 && "$SLUICE" compile . --target cpu && mv Tiny-M3.sluice ../out/) 2> err
cmp first.sluice Tiny-M3.sluice
(cd ../Tiny-M3 && "$SLUICE" compile config.json --target host -o ../out/again.sluice) 2> err
grep -qF 'wrote ../out/again.sluice, ' err || fail "no word of again.sluice"
cmp first.sluice again.sluice
"$SLUICE" compile ../other.json --emit obj --target cpu:x86-64-v3 2> err
[ "$(head -c 4 other.o | tail -c 3)" = ELF ]
"$SLUICE" compile ../other.json --emit model-ir > model.mlir 2> err
grep -q 'func.func' model.mlir
if grep -q '^wrote' err; then fail "standard output is no file"; fi
"$SLUICE" compile ../other.json --emit model-ir -o /dev/null 2> err
if grep -q '^wrote' err; then fail "a device is no file"; fi
"$SLUICE" compile ../Tiny-M3 -o ../out/x.sluice --save-temps temps 2> err
code=0
"$SLUICE" compile ../Tiny-M3 --target host:x86-64-v2 -o temps/host-x86-64-v2/kernels.so --save-temps temps 2> err || code=$?
[ $code = 2 ] && grep -q "one file" err || fail "an output that is a file of --save-temps"

# Spellings.
for names in "float32 fp32 f32" "bfloat16 bf16"; do
  for name in $names; do
    "$SLUICE" compile ../other.json --target host:x86-64-v2 --emit model-ir --dtype "$name" -o "$name.mlir" 2> err
    cmp "$name.mlir" "${names%% *}.mlir"
  done
done
code=0
"$SLUICE" compile ../other.json --dtype fp16 2> err || code=$?
[ $code = 2 ] && grep -qF "expected float32 (fp32) or bfloat16 (bf16)" err || fail "--dtype fp16: exit $code"
echo 1 2 3 > ids
"$SLUICE_RUN" generate first.sluice --weights synthetic:1 --ids ids --max-new 3 --device cpu > cpu
"$SLUICE_RUN" generate first.sluice --weights synthetic:1 --ids ids --max-new 3 --device host | cmp - cpu

# Sizes for people beside bytes, and a share above 1 is the rate's fault.
"$SLUICE" inspect first.sluice > text
grep -qE '^first\.sluice: [0-9.]+ kB, [0-9]+ bytes' text
grep -qE 'weights wanted, [0-9]+ bytes packed \([0-9.]+ MB\)' text
grep -qE 'together [0-9]+ bytes \([0-9.]+ MB\)' text
"$SLUICE_RUN" memory first.sluice > text
grep -qE '^weights +[0-9]+ bytes +[0-9.]+ MB$' text
"$SLUICE_RUN" bench first.sluice --kernel decode.mlp --repeat 1 --memory-rate 0.000001 > text 2> err
grep -q "^warning: a share of .* above the .* GB/s that --memory-rate says" err || fail "no warning of the rate"
"$SLUICE_RUN" bench first.sluice --kernel decode.mlp --repeat 1 --memory-rate 1000000 > text 2> err
if grep -q "^warning" err; then fail "a warning without a cause"; fi

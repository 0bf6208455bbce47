#!/usr/bin/env bash
# sluice synth, compile and opt as a user runs them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nano=$SLUICE_SOURCE/tests/golden/nano

fails() { # CODE TEXT COMMAND...
  local wanted=$1 text=$2 code=0
  shift 2
  "$@" > "$work/out" 2> "$work/err" || code=$?
  [ "$code" = "$wanted" ] && grep -qF -- "$text" "$work/err" && return
  echo "$*: exit $code, expected $wanted with '$text', got:"
  cat "$work/err"
  exit 1
}

# synth: one file, the same again, in shards, and what is there before is replaced
"$SLUICE" synth "$nano" --seed 1 -o "$work/one" 2> /dev/null
[ "$(cd "$work/one" && echo *)" = "config.json model.safetensors" ]
cmp "$nano/config.json" "$work/one/config.json"
"$SLUICE" synth "$nano/config.json" --seed=1 -o"$work/two" 2> /dev/null
cmp "$work/one/model.safetensors" "$work/two/model.safetensors"
"$SLUICE" synth "$nano" --seed 2 -o "$work/other" 2> /dev/null
if cmp -s "$work/one/model.safetensors" "$work/other/model.safetensors"; then exit 1; fi
"$SLUICE" synth "$nano" --seed 1 -o "$work/two" --shard-size 1000000 2> /dev/null
[ ! -e "$work/two/model.safetensors" ]
[ -e "$work/two/model.safetensors.index.json" ]
shards=("$work"/two/model-*-of-*.safetensors)
[ "${#shards[@]}" -ge 3 ]
for shard in "${shards[@]}"; do [ "$(stat -c %s "$shard")" -lt 1100000 ]; done
# every tensor is in the index
grep -c '"language_model\.' "$work/two/model.safetensors.index.json" > "$work/names"
[ "$(cat "$work/names")" = "$(grep -c '"language_model\.' "$nano/synthetic.json")" ]
fails 1 "cannot create directory" "$SLUICE" synth "$nano" --seed 1 -o "$work/no/such/place"
fails 1 "model_type" "$SLUICE" synth "$SLUICE_SOURCE/tests/configs/MiniMax-M2" --seed 1 -o "$work/m2"
[ ! -e "$work/m2" ]

# compile: every form, deterministic
compile=("$SLUICE" compile "$work/one" --target host:x86-64-v2)
"${compile[@]}" -o "$work/a.sluice" 2> "$work/err"
grep -q ':.*: note: the vision tower is not compiled yet' "$work/err"
"${compile[@]}" --output="$work/b.sluice" --save-temps "$work/temps" 2> /dev/null
cmp "$work/a.sluice" "$work/b.sluice"
[ -s "$work/temps/host-x86-64-v2/model.mlir" ]
[ -s "$work/temps/host-x86-64-v2/kernel.mlir" ]
"${compile[@]}" --dtype=float32 -o "$work/c.sluice" 2> /dev/null
if cmp -s "$work/a.sluice" "$work/c.sluice"; then exit 1; fi
"${compile[@]}" --emit model-ir -o - 2> /dev/null > "$work/model.mlir"
cmp "$work/model.mlir" "$work/temps/host-x86-64-v2/model.mlir"
"${compile[@]}" --emit kernel-ir -o "$work/kernel.mlir" 2> /dev/null
cmp "$work/kernel.mlir" "$work/temps/host-x86-64-v2/kernel.mlir"
"${compile[@]}" --emit llvm-ir -o - 2> /dev/null | grep '^define ' > /dev/null
"${compile[@]}" --emit asm -o - 2> /dev/null | grep '^\s*\.globl' > /dev/null
"${compile[@]}" --emit obj -o "$work/nano.o" 2> /dev/null
[ "$(head -c 4 "$work/nano.o" | tail -c 3)" = ELF ]
"${compile[@]}" --emit model-ir --max-context 1000 -o - 2> /dev/null | grep 'model.max_context = 1000' > /dev/null
fails 1 "a context of 8193 tokens was asked for, expected 1 to the model's 8192" "${compile[@]}" --max-context 8193 -o "$work/no"
fails 1 "host:pentium" "$SLUICE" compile "$nano" --target host:pentium -o "$work/no"
fails 1 "no-such-pass" "${compile[@]}" --disable-pass no-such-pass -o "$work/no"
fails 1 "lower-to-kernels" "${compile[@]}" --disable-pass lower-to-kernels -o "$work/no"
fails 1 "$work/no/such" "${compile[@]}" -o "$work/no/such/file"
sed 's/"num_key_value_heads": 2/"num_key_value_heads": 3/' "$nano/config.json" > "$work/bad.json"
fails 1 "$work/bad.json:39:28: error: \"num_attention_heads\" is 8, expected a multiple" \
  "$SLUICE" compile "$work/bad.json" --target host -o "$work/no"
[ ! -e "$work/no" ]
if compgen -G "$work/*.tmp*" > /dev/null || compgen -G "$work/.*sluice*" > /dev/null; then echo "left-over files"; exit 1; fi

# printing and timing
"${compile[@]}" --print-ir-after=canonicalise --verify-each --time-passes -o "$work/a.sluice" 2> "$work/err"
grep -q 'func.func' "$work/err"
"${compile[@]}" --disable-pass fuse-experts,fuse-router --emit kernel-ir -o - 2> /dev/null | grep kernel.topk_experts > /dev/null

# opt: the standard pipeline step by step gives what compile gives; text survives
"$SLUICE" opt "$work/model.mlir" > "$work/again.mlir"
cmp "$work/model.mlir" "$work/again.mlir"
passes=$("$SLUICE" opt --help | sed -n '/^Passes/,$ s/^  [* ] \([a-z-]*\) .*/\1/p' | paste -sd,)
"$SLUICE" opt - --passes="$passes" --target host:x86-64-v2 < "$work/model.mlir" > "$work/opt.mlir"
cmp "$work/kernel.mlir" "$work/opt.mlir"
echo 'nonsense' > "$work/bad.mlir"
fails 1 "bad.mlir:1:1" "$SLUICE" opt "$work/bad.mlir"
fails 1 "no-such-pass" "$SLUICE" opt "$work/model.mlir" --passes no-such-pass

# inspect and explain
"$SLUICE" inspect "$work/a.sluice" | grep 'host:x86-64-v2' > /dev/null
"$SLUICE" inspect "$work/a.sluice" --json | grep '"' > /dev/null
"$SLUICE" explain "$work/a.sluice" | grep 'fuse-experts' > /dev/null
"$SLUICE" explain "$work/a.sluice" | grep -E '^  linear .*  tile_m 48, panel 8, group 2, slice 8, workgroups 0, schedule tiles, lanes 1, stages 1$' > /dev/null
"$SLUICE" explain "$work/a.sluice" --json | grep '"configuration":{"tile_m":48,' > /dev/null
fails 1 "bad.mlir" "$SLUICE" inspect "$work/bad.mlir"
fails 1 "bad.mlir" "$SLUICE" explain "$work/bad.mlir"

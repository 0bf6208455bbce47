#!/usr/bin/env bash
# The small model on emulated AMD GPUs (tests/emulated_hip): the unmodified sluice-run, machine code of both targets, checked for
# waits, hazards and races, in several orders of waves and workgroups. Nothing here has run on hardware.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
golden=$SLUICE_SOURCE/tests/golden/nano

run() { # GPU SEED sluice-run's arguments
  LD_LIBRARY_PATH=$SLUICE_BUILD/emulated_hip EMULATED_GPU=$1 EMULATED_SEED=$2 "$SLUICE_RUN" "${@:3}"
}
fail() {
  echo "$1" >&2
  exit 1
}

for dtype in float32 bfloat16; do
  "$SLUICE" compile "$golden" --target mi300x,mi355x --dtype $dtype -o "$work/$dtype.sluice" 2> /dev/null
  "$SLUICE" inspect "$work/$dtype.sluice" > "$work/inspect"
  grep -q 'target hip:gfx942' "$work/inspect"
  grep -q 'target hip:gfx950' "$work/inspect"
done

verify() { # GPU SEED DTYPE
  run "$1" "$2" verify "$work/$3.sluice" --weights synthetic:1 --golden "$golden/golden.float32.safetensors" --device hip:0 \
    > "$work/verify" || fail "$1 $3: $(cat "$work/verify")"
  grep -q "target *hip:$1, $3" "$work/verify"
}
verify gfx942 0 float32
verify gfx950 3 bfloat16
# The others under sanitizers would take minutes.
case $SLUICE_BUILD in *sanitize*) exit 0 ;; esac
verify gfx950 1 float32
verify gfx942 2 bfloat16

# Two schedules give the same tokens; so does a graph of a decode step.
for seed in 0 9; do
  echo 1 17 42 99 | run gfx942 $seed generate "$work/bfloat16.sluice" --weights synthetic:1 --ids - --max-new 4 --device hip:0 --json \
    | grep -o '"ids": \[[^]]*\]' > "$work/tokens.$seed" || fail "generate on gfx942, seed $seed"
done
cmp "$work/tokens.0" "$work/tokens.9"

# Log-probabilities, which a kernel on the device gathers, are those of the host.
"$SLUICE" compile "$golden" --target host --dtype float32 -o "$work/host.sluice" 2> /dev/null
logprobs=(--weights synthetic:1 --ids - --max-new 2 --json --logprobs 20 --repetition-penalty 1.3)
echo 1 17 42 99 | "$SLUICE_RUN" generate "$work/host.sluice" "${logprobs[@]}" > "$work/host.json"
echo 1 17 42 99 | run gfx950 4 generate "$work/float32.sluice" "${logprobs[@]}" --device hip:0 > "$work/device.json" ||
  fail "log-probabilities on gfx950"
python3 - "$work/host.json" "$work/device.json" << 'END'
import json, sys
host, device = (json.load(open(path))["logprobs"] for path in sys.argv[1:])
assert len(host) == len(device) == 2
for a, b in zip(host, device):
    assert a["id"] == b["id"] and [i for i, _ in a["top"]] == [i for i, _ in b["top"]], (a, b)
    values = zip([a["logprob"]] + [x for _, x in a["top"]], [b["logprob"]] + [x for _, x in b["top"]])
    assert all(abs(x - y) < 1e-4 for x, y in values), (a, b)
END

# A prompt long enough for the products of many rows gives the host's tokens.
"$SLUICE" compile "$golden" --target host:x86-64 --dtype bfloat16 -o "$work/host.sluice" 2> /dev/null
for ((i = 1; i <= 520; i++)); do echo $((i * 37 % 500)); done > "$work/prompt"
arguments=(--weights synthetic:1 --ids "$work/prompt" --max-new 2 --json)
"$SLUICE_RUN" generate "$work/host.sluice" "${arguments[@]}" | grep -o '"ids": \[[^]]*\]' > "$work/tokens.host"
run gfx942 5 generate "$work/bfloat16.sluice" "${arguments[@]}" --device hip:0 | grep -o '"ids": \[[^]]*\]' > "$work/tokens.hip" \
  || fail "generate with a long prompt on gfx942"
cmp "$work/tokens.host" "$work/tokens.hip"

# Code for another processor is refused by name.
"$SLUICE" compile "$golden" --target mi355x -o "$work/other.sluice" 2> /dev/null
if run gfx942 0 memory "$work/other.sluice" --device hip:0 > "$work/out" 2>&1; then fail "code for gfx950 opened on gfx942"; fi
grep -q 'gfx950' "$work/out"
grep -q 'gfx942' "$work/out"

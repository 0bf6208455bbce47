#!/usr/bin/env bash
# The options of sampling at the ends of their ranges, and logits with NaN.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$SLUICE" compile "$SLUICE_SOURCE/tests/golden/nano" --target host --dtype float32 -o "$work/nano.sluice" 2> /dev/null
"$SLUICE" synth "$SLUICE_SOURCE/tests/golden/nano" --seed 1 -o "$work/good" 2> /dev/null
run() { "$SLUICE_RUN" generate "$work/nano.sluice" --weights "$1" --ids - --ignore-eos "${@:2}" <<< "1 5 9 2 300 77"; }

# A top_p of 0, or too small for a float32, keeps the most likely token; 1 keeps all.
greedy=$(run synthetic:1 --max-new 12)
for top_p in 0 1e-30 1e-45 1e-50 1e-320; do
  for seed in 1 2; do
    found=$(run synthetic:1 --max-new 12 --temperature 2 --seed $seed --top-p $top_p)
    [ "$found" = "$greedy" ] || { echo "--top-p $top_p: '$found', not '$greedy'"; exit 1; }
  done
done
[ "$(run synthetic:1 --max-new 12 --temperature 2 --top-p 1)" != "$greedy" ]
for top_p in 1.5 -0.1 nan inf; do
  code=0
  run synthetic:1 --top-p $top_p > "$work/out" 2> "$work/err" || code=$?
  [ $code -eq 2 ] && [ "$(grep -c '^error:.*top-p' "$work/err")" = 1 ] || { echo "--top-p $top_p: $code"; cat "$work/err"; exit 1; }
done

# One NaN among the weights: an error, unless asked otherwise.
python3 - "$work" << 'EOF'
import json, os, struct, sys
work = sys.argv[1]
os.makedirs(f"{work}/bad")
[name] = [n for n in os.listdir(f"{work}/good") if n.endswith(".safetensors")]
data = bytearray(open(f"{work}/good/{name}", "rb").read())
length = struct.unpack("<Q", data[:8])[0]
tensors = json.loads(data[8 : 8 + length])
[key] = [k for k in tensors if k.endswith("layers.0.self_attn.q_proj.weight")]
assert tensors[key]["dtype"] == "BF16"
at = 8 + length + tensors[key]["data_offsets"][0]
data[at : at + 2] = b"\xc0\x7f"
open(f"{work}/bad/model.safetensors", "wb").write(data)
EOF
code=0
run "$work/bad" --max-new 4 > "$work/out" 2> "$work/err" || code=$?
[ $code -eq 1 ] && [ ! -s "$work/out" ] && [ "$(wc -l < "$work/err")" = 1 ]
grep "error: .*new token 1 .*NaN.*--allow-nan" "$work/err" > /dev/null
code=0
run "$work/bad" --max-new 4 --json > "$work/out" 2> "$work/err" || code=$?
[ $code -eq 1 ] && grep "NaN" "$work/err" > /dev/null
python3 -c 'import json, sys; r = json.load(sys.stdin); assert r["stopped"] == "nan" and r["nan_tokens"] == 1 and r["ids"] == [], r' < "$work/out"
code=0
run "$work/bad" --max-new 4 --dump "$work/dump" > /dev/null 2>&1 || code=$?
[ $code -eq 1 ] && [ ! -e "$work/dump" ]
run "$work/bad" --max-new 4 --allow-nan --json > "$work/out" 2> "$work/err"
[ "$(grep -c "^warning: .*NaN" "$work/err")" = 1 ]
python3 -c 'import json, sys; r = json.load(sys.stdin); assert r["stopped"] == "max_new" and r["nan_tokens"] == 4 and len(r["ids"]) == 4, r' < "$work/out"
run "$work/good" --max-new 4 --json > "$work/out"
python3 -c 'import json, sys; r = json.load(sys.stdin); assert r["nan_tokens"] == 0, r' < "$work/out"

#!/usr/bin/env bash
# The golden files through the programs: a checkpoint on disk, generate --dump against the file, verify with its bound, and that
# verify fails when it should.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
golden=$SLUICE_SOURCE/tests/golden

"$SLUICE" synth "$golden/nano/config.json" --seed 1 -o "$work/nano" --shard-size 1000000
test "$(find "$work/nano" -name '*.safetensors' | wc -l)" -gt 3
python3 - "$golden/nano/golden.float32.safetensors" > "$work/ids" << 'EOF'
import json, struct, sys
data = open(sys.argv[1], "rb").read()
length = struct.unpack("<Q", data[:8])[0]
begin, end = json.loads(data[8 : 8 + length])["input_ids"]["data_offsets"]
print(*struct.unpack(f"<{(end - begin) // 4}i", data[8 + length + begin : 8 + length + end]), sep=", ")
EOF
"$SLUICE" compile "$work/nano" --target host --dtype float32 -o "$work/nano.sluice" 2> /dev/null
for chunk in 512 7; do
  "$SLUICE_RUN" generate "$work/nano.sluice" --weights "$work/nano" --ids "$work/ids" --max-new 25 --ignore-eos --chunk $chunk \
    --dump "$work/dump.safetensors" --dump-layers > "$work/tokens"
  test "$(wc -w < "$work/tokens")" -eq 25
  test "$(wc -l < "$work/tokens")" -eq 1
  python3 "$SLUICE_SOURCE/tests/data/compare_dump.py" "$work/dump.safetensors" "$golden/nano/golden.float32.safetensors" 1e-4
done

# Two runs, and any number of threads, write the same bytes.
cp "$work/dump.safetensors" "$work/first.safetensors"
"$SLUICE_RUN" generate "$work/nano.sluice" --weights "$work/nano" --ids - --max-new 25 --ignore-eos --chunk 7 --threads 1 \
  --dump "$work/dump.safetensors" --dump-layers < "$work/ids" > /dev/null
cmp "$work/first.safetensors" "$work/dump.safetensors"

# Sampling is a function of its seed.
sample() { "$SLUICE_RUN" generate "$work/nano.sluice" --weights "$work/nano" --ids "$work/ids" --ignore-eos --temperature 1 --top-p 0.95 --top-k 40 --seed "$1"; }
test "$(sample 5)" = "$(sample 5)"
test "$(sample 5)" != "$(sample 6)"

for model in "nano 1" "blocks 2"; do
  read -r name seed <<< "$model"
  for dtype in float32 bfloat16; do
    "$SLUICE" compile "$golden/$name" --target host --dtype $dtype -o "$work/model.sluice" 2> /dev/null
    "$SLUICE_RUN" verify "$work/model.sluice" --weights synthetic:"$seed" --golden "$golden/$name/golden.float32.safetensors" > "$work/report"
    grep holds "$work/report" > /dev/null
    code=0
    "$SLUICE_RUN" verify "$work/model.sluice" --weights synthetic:77 --golden "$golden/$name/golden.float32.safetensors" \
      > "$work/report" 2>&1 || code=$?
    test "$code" -eq 1
  done
done

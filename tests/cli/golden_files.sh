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

# What --json says of time fits together: opening and the prompt are part of the time to the first token, the weights are not.
"$SLUICE_RUN" generate "$work/nano.sluice" --weights "$work/nano" --ids "$work/ids" --max-new 1 --json > "$work/times"
weights=$("$SLUICE_RUN" memory "$work/nano.sluice" | awk '$1 == "weights" { print $2 }')
python3 - "$work/times" "$weights" << 'EOF'
import json, sys
t = json.load(open(sys.argv[1]))
assert t["weights_bytes"] == int(sys.argv[2]), t
assert t["weights_seconds"] > 0 and t["device_seconds"] > 0, t
assert t["prompt_seconds"] + t["device_seconds"] < t["first_token_seconds"] < t["prompt_seconds"] + 10, t
EOF

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

# Of a prompt with fewer blocks than k a golden file has lists of so many: the same without the -1 behind them. Made of a dump.
"$SLUICE" compile "$golden/nano" --target host --dtype float32 -o "$work/nano.sluice" 2> /dev/null
"$SLUICE_RUN" generate "$work/nano.sluice" --weights synthetic:1 --ids - --max-new 1 --ignore-eos --dump "$work/dump.safetensors" \
  --dump-layers <<< "$(seq -s, 40)" > "$work/tokens"
python3 - "$work/dump.safetensors" "$work/short.safetensors" "$work/other.safetensors" << 'EOF'
import json, struct, sys
data = open(sys.argv[1], "rb").read()
length = struct.unpack("<Q", data[:8])[0]
header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
for path, broken in ((sys.argv[2], False), (sys.argv[3], True)):
    made, parts, at = {}, [], 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        part, shape = body[slice(*tensor["data_offsets"])], tensor["shape"]
        if name.endswith(".blocks"):
            ids = struct.unpack(f"<{len(part) // 4}i", part)
            assert shape[2] == 4 and all(i == -1 for i in ids[3::4]), ids
            ids = [i for n, i in enumerate(ids) if n % 4 < 3]
            if broken and name == "prefill.layer.1.blocks":
                ids[39 * 3 + 2] = -1
            part, shape = struct.pack(f"<{len(ids)}i", *ids), [*shape[:2], 3]
        made[name] = {"dtype": tensor["dtype"], "shape": shape, "data_offsets": [at, at + len(part)]}
        parts.append(part)
        at += len(part)
    text = json.dumps(made).encode()
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + b"".join(parts))
EOF
verify_short() { "$SLUICE_RUN" verify "$work/nano.sluice" --weights synthetic:1 --golden "$work/$1" > "$work/report" 2>&1; }
verify_short short.safetensors || { cat "$work/report"; exit 1; }
grep "blocks .*240 of 240" "$work/report" > /dev/null || { cat "$work/report"; exit 1; }
if verify_short other.safetensors; then echo "a block that is missing from a narrow list is not seen"; exit 1; fi
grep "^first difference  blocks of layer 1, position 39, head 0" "$work/report" > /dev/null || { cat "$work/report"; exit 1; }

# What is wrong with a golden file is said, and is no disagreement: no selections, a list that names a block twice, another type.
python3 - "$work/dump.safetensors" "$work" << 'EOF'
import json, struct, sys
data = open(sys.argv[1], "rb").read()
length = struct.unpack("<Q", data[:8])[0]
header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
def write(name, header, body):
    text = json.dumps(header).encode()
    open(f"{sys.argv[2]}/{name}.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + body)
def without(name):  # its bytes stay, under a name that nobody reads
    return {("unread" if key == name else key): value for key, value in header.items()}
write("no-blocks", without("prefill.layer.1.blocks"), body)
write("no-experts", without("prefill.layer.1.router.experts"), body)
logits = header["prefill.logits"]
write("float64", {**header, "prefill.logits": {**logits, "dtype": "F64", "shape": [logits["shape"][0], logits["shape"][1] // 2]}}, body)
at = header["prefill.layer.1.blocks"]["data_offsets"][0] + 39 * 16  # position 39 of head 0 has blocks 0, 1 and 2
assert struct.unpack_from("<4i", body, at) == (0, 1, 2, -1)
struct.pack_into("<i", body, at + 12, 1)
write("twice", header, body)
EOF
wrong_golden() { # NAME TEXT
  code=0
  verify_short "$1.safetensors" || code=$?
  [ $code = 1 ] && [ "$(wc -l < "$work/report")" = 1 ] && grep -F -- "$2" "$work/report" > /dev/null ||
    { echo "$1: exit $code, expected '$2'"; cat "$work/report"; exit 1; }
}
wrong_golden no-blocks 'the golden file lacks the tensor "prefill.layer.1.blocks"'
wrong_golden no-experts 'the golden file lacks the tensor "prefill.layer.1.router.experts"'
wrong_golden float64 'tensor "prefill.logits" is F64 of rank 2, expected'
wrong_golden twice '"prefill.layer.1.blocks" names 1 twice at position 39, head 0'

# verify says where the first selection differs: one id of a late block selection and one of an earlier expert selection are
# replaced, and blocks of a layer come before its experts.
"$SLUICE" compile "$golden/blocks" --target host --dtype float32 -o "$work/model.sluice" 2> /dev/null
python3 - "$golden/blocks/golden.float32.safetensors" "$work/altered.safetensors" > "$work/expected" << 'EOF'
import json, struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
length = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8 : 8 + length])
def replace(name, index, new):
    at = 8 + length + header[name]["data_offsets"][0] + 4 * index
    old = struct.unpack_from("<i", data, at)[0]
    struct.pack_into("<i", data, at, new)
    return old
replace("prefill.layer.2.blocks", 3, 900)
replace("prefill.layer.1.router.experts", 4 * 7, 901)
old = replace("prefill.layer.1.blocks", (2 * 1500 + 1234) * 4 + 1, 902)
replace("prefill.layer.1.blocks", (0 * 1500 + 1235) * 4 + 1, 903)
open(sys.argv[2], "wb").write(data)
print(f"first difference  blocks of layer 1, position 1234, head 2: [{old}] here, [902] in the golden file")
print(json.dumps({"kind": "blocks", "layer": 1, "position": 1234, "head": 2, "ours": [old], "golden": [902]}))
EOF
verify_altered() {
  code=0
  "$SLUICE_RUN" verify "$work/model.sluice" --weights synthetic:2 --golden "$work/altered.safetensors" "$@" > "$work/report" 2> /dev/null || code=$?
  test "$code" -eq 1
}
verify_altered
test "$(grep '^first difference' "$work/report")" = "$(head -1 "$work/expected")"
verify_altered --json
test "$(python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["first_difference"]))' < "$work/report")" = \
  "$(tail -1 "$work/expected")"

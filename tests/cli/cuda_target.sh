#!/usr/bin/env bash
# Small models for an NVIDIA target, on a machine that needs no GPU: PTX with every kernel of the plan, the same bytes each time,
# and bundles that read back.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
golden=$SLUICE_SOURCE/tests/golden

for model in nano blocks; do
  for dtype in float32 bfloat16; do
    compile=("$SLUICE" compile "$golden/$model" --dtype $dtype)
    "${compile[@]}" --target=h100 --emit=asm -o "$work/a.ptx" 2> /dev/null
    "${compile[@]}" --target=h200 --emit=asm -o "$work/b.ptx" 2> /dev/null
    cmp "$work/a.ptx" "$work/b.ptx"
    grep -x '\.target sm_90a' "$work/a.ptx" > /dev/null
    "${compile[@]}" --target=h100 -o "$work/a.sluice" 2> /dev/null
    "${compile[@]}" --target=h100 --target=cuda:sm_90a -o "$work/b.sluice" 2> /dev/null
    cmp "$work/a.sluice" "$work/b.sluice"
    "$SLUICE" inspect "$work/a.sluice" --json > "$work/inspect.json"
    python3 "$SLUICE_SOURCE/tests/data/read_bundle.py" "$work/a.sluice" "$work/inspect.json"
    # Each kernel of the plan is an entry of the PTX, with a pointer for each argument and one to the sizes, and the other way round.
    python3 - "$work" << 'EOF'
import json, re, sys
work = sys.argv[1]
found = json.load(open(f"{work}/inspect.json"))
sections = {s["kind"]: s for s in found["sections"]}
[target] = found["targets"]
assert target["target"] == "cuda:sm_90a", target["target"]
ptx = open(f"{work}/a.ptx").read()
with open(f"{work}/a.sluice", "rb") as file:
    data = file.read()
section = sections["assembly"]
assert data[section["offset"] :][: section["length"] - 32].decode().rstrip("\0") == ptx.rstrip("\0"), "the bundle has other PTX"
entries = re.findall(r"\.entry (\w+)\(", ptx)
names = [kernel["name"] for kernel in target["kernels"]]
assert sorted(entries) == sorted(names), set(entries) ^ set(names)
assert any(name.startswith("block_score_") for name in names)
# Each part of a joined kernel but the first waits, each but the last counts its workgroups, and that one resets the counters.
parts = [len(kernel["attributes"]["parts"]) for kernel in target["kernels"] if kernel["family"] == "join"]
waits = sum(bin(w).count("1") for kernel in target["kernels"] if kernel["family"] == "join" for w in kernel["attributes"]["waits"])
assert parts and ptx.count("red.release.gpu") >= sum(parts) - len(parts), parts
assert ptx.count("atom.relaxed.gpu") >= len(parts) and ptx.count("ld.acquire.gpu") >= waits
for kernel in target["kernels"]:
    assert (kernel["launches"] > 0) == (kernel["family"] != "synthesize"), kernel["name"]
    assert kernel["lanes"] % 32 == 0 and 32 <= kernel["lanes"] <= 1024, kernel
    assert kernel["workgroup_bytes"] <= 227 * 1024, kernel
print(f"{len(names)} kernels")
EOF
  done
done

code=0
"$SLUICE" compile "$golden/nano" --target cuda:sm_80 -o "$work/no" 2> "$work/err" || code=$?
[ "$code" -eq 1 ]
grep "unknown target 'cuda:sm_80'.*cuda:sm_90a" "$work/err" > /dev/null
[ ! -e "$work/no" ]

# Floors are those of the machine that the bundle was compiled for by name, and say so; of several machines of one target that of
# the first; without a name there are none, and no zeros.
compile_for() { "$SLUICE" compile "$SLUICE_SOURCE/tests/golden/nano" --target "$1" -o "$work/named.sluice" 2> /dev/null; }
floor() { "$SLUICE" explain "$work/named.sluice" --json "$@" | python3 -c 'import json, sys; t = json.load(sys.stdin)["targets"][0]; print(t["product"], t["bandwidth"], t["flop_rate"], t["step"]["floor_us"])'; }
compile_for h200,h100
floor | grep -E '^h200 4800000000000 989000000000000 [0-9.]*[1-9]' > /dev/null
"$SLUICE" explain "$work/named.sluice" | grep -F 'floors: memory at 4800 GB/s, data sheet of h200; arithmetic at 989 TFLOP/s, dense bf16, data sheet of h200' > /dev/null
"$SLUICE" explain "$work/named.sluice" --bandwidth 3000 | grep -F 'memory at 3000 GB/s as given; arithmetic at 989 TFLOP/s, dense bf16, data sheet of h200' > /dev/null
compile_for cuda:sm_90a
test "$(floor)" = "None 0 0 None"
"$SLUICE" explain "$work/named.sluice" > "$work/explained"
grep -F 'no floors: no machine' "$work/explained" > /dev/null
grep -E 'whole step .* -$' "$work/explained" > /dev/null
floor --product h200 | grep '^h200 4800000000000 989000000000000 [0-9.]*[1-9]' > /dev/null
if "$SLUICE" explain "$work/named.sluice" --product mi300x 2> "$work/err"; then exit 1; fi
grep -F -- "--product mi300x runs hip:gfx942, but $work/named.sluice has no code for that" "$work/err" > /dev/null
if "$SLUICE" explain "$work/named.sluice" --product b200 2> "$work/err"; then exit 1; fi
grep -F "expected one of h100, h200, mi300x, mi325x, mi355x" "$work/err" > /dev/null
compile_for host,h100,mi300x # of several targets a machine's rates are for those alone whose code it runs
"$SLUICE" explain "$work/named.sluice" --json --product h200 | python3 -c 'import json, sys
print(*(t["product"] for t in json.load(sys.stdin)["targets"]))' > "$work/explained"
test "$(cat "$work/explained")" = "None h200 mi300x"

# Of several kernels for one op a step runs one, and explain counts one: the bytes of a step are those of the host's plan, but for
# what passes between launches. (Weights are padded to whole panels on either.)
"$SLUICE" compile "$golden/m3-slice" --target=host,h100 -o "$work/fat.sluice" 2> /dev/null
for tokens in 1 8 12 64 100; do
  "$SLUICE" explain "$work/fat.sluice" --json --tokens $tokens --context 4096 > "$work/explain.json"
  python3 - "$work/explain.json" << 'EOF'
import json, sys
host, cuda = json.load(open(sys.argv[1]))["targets"]
assert cuda["target"] == "cuda:sm_90a"
ratio = cuda["step"]["bytes"] / host["step"]["bytes"]
assert 0.99 < ratio < 1.05, ratio
if cuda["tokens"] in (1, 8, 64):  # 6 launches a layer, and 7 around them
    assert cuda["step"]["joined_launches"] <= 6 * 2 + 7 < cuda["step"]["launches"], cuda["step"]
else:
    assert cuda["step"]["joined_launches"] == cuda["step"]["launches"]
assert host["step"]["joined_launches"] == host["step"]["launches"]
assert cuda["step"]["launches"] == sum(launch["launches"] for launch in cuda["launches"])
# The shared expert is a launch more for each product where it runs beside the routed ones.
for op in ("linear", "lm_head"):
    assert sum(l["launches"] for l in host["launches"] if l["op"] == op) == sum(
        l["launches"] for l in cuda["launches"] if l["op"] == op
    ), op
EOF
done

# The products of experts share one sort, whatever the widths: both have kernels of the same tiles.
for hidden in 96 224 512 1536; do
  for inner in 96 256 320 1024; do
    sed -E "s/\"hidden_size\": [0-9]+/\"hidden_size\": $hidden/; s/\"(shared_)?intermediate_size\": [0-9]+/\"\1intermediate_size\": $inner/" \
      "$golden/nano/config.json" > "$work/widths.json"
    "$SLUICE" compile "$work/widths.json" --target h100 --emit kernel-ir -o "$work/widths.mlir" 2> "$work/err" || { cat "$work/err"; exit 1; }
    if [ "$hidden-$inner" = 1536-1024 ]; then grep 'kernel.expert_gemm.*tile_m = 192' "$work/widths.mlir" > /dev/null; fi
  done
done

#!/usr/bin/env bash
# What can be known of NVIDIA kernels without a GPU: ptxas takes every kernel of every model, spills no register and keeps matrix
# instructions in flight (the compiler refuses a C75xx line); the bundle records registers and shared memory. ptxas is that of PATH or
# of CUDA's usual folder, or the one that scripts/install-dependencies.sh --tests unpacked.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PATH=$PATH:/usr/local/cuda/bin:$SLUICE_SOURCE/build/tools
command -v ptxas > /dev/null || { echo "no ptxas: run scripts/install-dependencies.sh --tests"; exit 1; }

# One rank of eight: 8 query heads, one key and one index head.
python3 - "$SLUICE_SOURCE/tests/golden/m3-slice/config.json" "$work/rank.json" << 'EOF'
import json, sys
config = json.load(open(sys.argv[1]))
text = config.get("text_config", config)
text.update(num_attention_heads=8, num_key_value_heads=1, index_n_heads=1)
json.dump(config, open(sys.argv[2], "w"))
EOF

# Of the experts' products one with a depth that warps cannot share evenly, one with a depth that they can.
sed -E 's/"hidden_size": [0-9]+/"hidden_size": 224/; s/"(shared_)?intermediate_size": [0-9]+/"\1intermediate_size": 1536/' \
  "$SLUICE_SOURCE/tests/golden/nano/config.json" > "$work/uneven.json"

for model in golden/nano golden/blocks golden/m3-slice configs/MiniMax-M3 configs/MiniMax-M2 rank uneven; do
  for dtype in float32 bfloat16; do
    config=$SLUICE_SOURCE/tests/$model
    [ -e "$work/$model.json" ] && config=$work/$model.json
    if ! "$SLUICE" compile "$config" --dtype $dtype --target=h100 -o "$work/bundle.sluice" 2> "$work/err"; then
      # What is not supported at all is no matter of this target.
      "$SLUICE" compile "$config" --dtype $dtype --target=host -o "$work/host.sluice" 2> /dev/null && { cat "$work/err"; exit 1; }
      continue
    fi
    "$SLUICE" inspect "$work/bundle.sluice" --json > "$work/inspect.json"
    python3 - "$work/inspect.json" "$model $dtype" << 'EOF'
import json, sys
found = json.load(open(sys.argv[1]))
assert {"code", "assembly"} <= {s["kind"] for s in found["sections"]}, "no cubin or no PTX"
[target] = found["targets"]
for kernel in target["kernels"]:
    assert kernel["spill_bytes"] == 0, kernel
    assert 8 <= kernel["registers"] <= 255, kernel
    assert kernel["registers"] * kernel["lanes"] <= 65536, kernel
    assert kernel["workgroup_bytes"] <= 227 * 1024, kernel
print(f"{sys.argv[2]}: {len(target['kernels'])} kernels, at most {max(k['registers'] for k in target['kernels'])} registers")
EOF
  done
done

#!/usr/bin/env bash
# What can be known of AMD kernels without a GPU: the linked code of every kernel of every model, for both targets, spills no register
# and uses no scratch memory; its registers leave room for the waves of a workgroup, and its workgroup memory fits.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One rank of eight: 8 query heads, one key and one index head.
python3 - "$SLUICE_SOURCE/tests/golden/m3-slice/config.json" "$work/rank.json" << 'EOF'
import json, sys
config = json.load(open(sys.argv[1]))
text = config.get("text_config", config)
text.update(num_attention_heads=8, num_key_value_heads=1, index_n_heads=1)
json.dump(config, open(sys.argv[2], "w"))
EOF

# Products whose depth waves cannot share evenly.
sed -E 's/"hidden_size": [0-9]+/"hidden_size": 224/; s/"(shared_)?intermediate_size": [0-9]+/"\1intermediate_size": 1536/' \
  "$SLUICE_SOURCE/tests/golden/nano/config.json" > "$work/uneven.json"

check() { # CONFIG DTYPE
  "$SLUICE" compile "$1" --dtype "$2" --target mi300x,mi355x -o "$work/bundle.sluice" 2> "$work/err" || { cat "$work/err"; exit 1; }
  "$SLUICE" inspect "$work/bundle.sluice" --json > "$work/inspect.json"
  python3 - "$work/inspect.json" "$1 $2" << 'EOF'
import json, sys
found = json.load(open(sys.argv[1]))
assert len(found["targets"]) == 2, found["targets"]
for target in found["targets"]:
    memory = {"hip:gfx942": 64 << 10, "hip:gfx950": 160 << 10}[target["target"]]
    assert target["kernels"]
    for kernel in target["kernels"]:
        assert kernel["spill_bytes"] == 0, (sys.argv[2], target["target"], kernel)
        waves_of_simd = max(1, kernel["lanes"] // 256)
        assert 0 < kernel["registers"] <= 512 // waves_of_simd, (sys.argv[2], target["target"], kernel)
        assert kernel["workgroup_bytes"] <= memory, (sys.argv[2], target["target"], kernel)
EOF
}
for dtype in float32 bfloat16; do
  check "$SLUICE_SOURCE/tests/golden/nano" $dtype
  check "$SLUICE_SOURCE/tests/configs/MiniMax-M3" $dtype
done
check "$SLUICE_SOURCE/tests/golden/blocks" bfloat16
check "$work/rank.json" bfloat16
check "$work/uneven.json" bfloat16

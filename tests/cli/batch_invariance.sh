#!/usr/bin/env bash
# --batch-invariant: in bfloat16, too, a row of logits does not depend on the size of the step, on how its tokens were
# cut into chunks, nor on what else runs (tests/device/batch_invariance.c), on the host and on emulated AMD GPUs.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The small model with two layers, whose rows are deep enough that steps of other sizes divide them otherwise among
# waves, and whose blocks are large enough for the target's own attention.
python3 - "$SLUICE_SOURCE/tests/golden/nano/config.json" > "$work/model.json" << 'END'
import json, sys
config = json.load(open(sys.argv[1]))
text = config["text_config"]
text.update(hidden_size=512, num_hidden_layers=2, index_block_size=32, index_topk_blocks=3)
for kinds in "layer_types", "mlp_layer_types":
    text[kinds] = text[kinds][:2]
json.dump(config, sys.stdout)
END

run() { # BUNDLE DEVICE OPERATIONS SEED STEP_TOKENS LENGTH
  LD_LIBRARY_PATH=$SLUICE_BUILD/emulated_hip EMULATED_GPU=${gpu:-} EMULATED_SEED=1 \
    "$SLUICE_BUILD/tests/batch_invariance" "$1" "$2" synthetic:1 "${@:3}" > "$work/out" 2>&1
}
alike() {
  run "$@" || { cat "$work/out" >&2; exit 1; }
  grep -Eq '^0 of [1-9][0-9]+ rows of logits differ, by up to 0$' "$work/out"
}

"$SLUICE" compile "$work/model.json" --target host,mi300x,mi355x --batch-invariant -o "$work/alike.sluice" 2> /dev/null
"$SLUICE" inspect "$work/alike.sluice" --json | grep -q '"batch_invariant":true'
"$SLUICE" explain "$work/alike.sluice" | grep -q '^batch-invariant: '
alike "$work/alike.sluice" host 200 1 256 600

code=0
run "$work/none.sluice" host 1 1 || code=$?
[ $code = 2 ]

# The others under sanitizers would take minutes.
case $SLUICE_BUILD in *sanitize*) exit 0 ;; esac
gpu=gfx942 alike "$work/alike.sluice" hip:0 30 7 100 250
gpu=gfx950 alike "$work/alike.sluice" hip:0 24 4 40 200

# What is compiled otherwise is not so: the test sees it.
"$SLUICE" compile "$work/model.json" --target mi300x -o "$work/fast.sluice" 2> /dev/null
code=0
gpu=gfx942 run "$work/fast.sluice" hip:0 20 7 100 250 || code=$?
[ $code = 1 ] || { cat "$work/out" >&2; exit 1; }
grep -Eq '^[1-9][0-9]* of [0-9]+ rows of logits differ, by up to [0-9.e-]*[1-9]' "$work/out"

#!/usr/bin/env bash
# Models that transformers saved (tests/oracle/models.py --keep), and what it computed with them: untouched folders give
# the same logits, blocks, experts and tokens.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
models=0
for folder in "$SLUICE_SOURCE"/tests/oracle/kept/*/; do
  "$SLUICE" compile "$folder" --target host --dtype float32 -o "$work/model.sluice" 2> "$work/err" || {
    cat "$work/err"
    exit 1
  }
  if grep warning: "$work/err"; then echo "$folder: a folder of transformers is no reason to warn"; exit 1; fi
  "$SLUICE_RUN" verify "$work/model.sluice" --weights "$folder" --golden "$folder/golden.float32.safetensors" > "$work/out" || {
    echo "$folder"
    cat "$work/out"
    exit 1
  }
  models=$((models + 1))
done
[ "$models" -ge 7 ]
echo "$models models"

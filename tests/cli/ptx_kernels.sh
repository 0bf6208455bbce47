#!/usr/bin/env bash
# Kernels for NVIDIA GPUs computed without one: dense and sparse attention, the choice of blocks and their scores, streamed products and
# experts, and the router's logits of M3's real shapes run in an interpreter of their PTX and agree with plain arithmetic.
# Debian's own python3 has the numpy that scripts/install-dependencies.sh --tests installs.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
config=$SLUICE_SOURCE/tests/golden/m3-slice
"$SLUICE" compile "$config" --dtype bfloat16 --target=h100 --emit=asm -o "$work/kernels.ptx" 2> /dev/null
"$SLUICE" compile "$config" --dtype bfloat16 --target=h100 -o "$work/bundle.sluice" 2> /dev/null
"$SLUICE" inspect "$work/bundle.sluice" --json > "$work/inspect.json"
/usr/bin/python3 -B "$SLUICE_SOURCE/tests/ptx/check_kernels.py" "$work/kernels.ptx" "$work/inspect.json" "$SLUICE_BUILD/tests/emit_kernel"

# The experts' joined launch.
"$SLUICE" compile "$SLUICE_SOURCE/tests/golden/nano" --dtype bfloat16 --target=h100 --emit=asm -o "$work/kernels.ptx" 2> /dev/null
"$SLUICE" compile "$SLUICE_SOURCE/tests/golden/nano" --dtype bfloat16 --target=h100 -o "$work/bundle.sluice" 2> /dev/null
"$SLUICE" inspect "$work/bundle.sluice" --json > "$work/inspect.json"
/usr/bin/python3 -B "$SLUICE_SOURCE/tests/ptx/check_kernels.py" "$work/kernels.ptx" "$work/inspect.json" "$SLUICE_BUILD/tests/emit_kernel" join

# Depths that have fewer steps than a workgroup has warps.
for width in 96 192; do
  sed -E "s/\"((dense_|shared_)?intermediate|hidden)_size\": [0-9]+/\"\1_size\": $width/" "$SLUICE_SOURCE/tests/golden/nano/config.json" > "$work/config.json"
  "$SLUICE" compile "$work/config.json" --dtype bfloat16 --target=h100 --emit=asm -o "$work/kernels.ptx" 2> /dev/null
  "$SLUICE" compile "$work/config.json" --dtype bfloat16 --target=h100 -o "$work/bundle.sluice" 2> /dev/null
  "$SLUICE" inspect "$work/bundle.sluice" --json > "$work/inspect.json"
  /usr/bin/python3 -B "$SLUICE_SOURCE/tests/ptx/check_kernels.py" "$work/kernels.ptx" "$work/inspect.json" "$SLUICE_BUILD/tests/emit_kernel" products
done

#!/usr/bin/env bash
# From nothing to text: installs what is needed, builds, compiles a small MiniMax-M3 for every target, and generates.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-dependencies.sh
cmake -S . -B build/quickstart -DSLUICE_TESTS=OFF > /dev/null
cmake --build build/quickstart -j "$(nproc)" > /dev/null
sluice=build/quickstart/sluice
run=build/quickstart/sluice-run
work=build/quickstart/nano
mkdir -p "$work"
set -x

# A checkpoint: 4 layers, hidden 256, made from a seed.
$sluice synth tests/golden/nano/config.json --seed 1 -o "$work/checkpoint"

cp examples/tokenizer/tokenizer.json examples/tokenizer/generation_config.json "$work/checkpoint"

# Config to bundle: IR, fusions, launch plans, machine code for three levels of x86-64 and for NVIDIA Hopper (PTX, and a cubin if
# ptxas is there).
$sluice compile "$work/checkpoint" --target host:x86-64-v2,host:x86-64-v3,host:x86-64-v4,h100 --dtype float32 -o "$work/nano.sluice"
$sluice inspect "$work/nano.sluice" | sed -n '1,20p'

# Text to text, without the compiler: what random weights have to say.
$run generate "$work/nano.sluice" --weights "$work/checkpoint" --prompt "The compiler" --max-new 24
echo "The compiler" | $run tokenize --weights "$work/checkpoint"

# The same weights against the reference of Hugging Face transformers.
$run verify "$work/nano.sluice" --weights "$work/checkpoint" --golden tests/golden/nano/golden.float32.safetensors

#!/usr/bin/env bash
# Checkpoints as people have them (make_checkpoints.py): other names, tensors too many, an index that is not quite right,
# wrong files, quantised ones, other spellings of the config. Each gives what the same model gives, or one clear line.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
seq 1 4 400 > "$work/ids"
dtype=float32
cases=0

fail() {
  echo "$1"
  cat "$work/err"
  exit 1
}

# bundle FOLDER [OPTION...]: compiles its configuration to $work/FOLDER.sluice; what the compiler says is in $work/said
bundle() {
  local folder=$1
  shift
  "$SLUICE" compile "$work/$folder" --target host --dtype "$dtype" "$@" -o "$work/$folder.sluice" 2> "$work/err" ||
    fail "$folder does not compile"
  cp "$work/err" "$work/said"
}

# generate BUNDLE WEIGHTS [OPTION...]: prints the tokens, dumps logits to $work/dump
generate() {
  local bundle=$1 weights=$2
  shift 2
  "$SLUICE_RUN" generate "$work/$bundle.sluice" --weights "$weights" --ids "$work/ids" --max-new 12 --dump "$work/dump" "$@" \
    2> "$work/err"
}

# as_base FOLDER [WARNING...]: the same logits and tokens as BASE, and just these warnings
as_base() {
  local folder=$1 bundle=base
  shift
  cases=$((cases + 1))
  : > "$work/said"
  if ! cmp -s "$work/$folder/config.json" "$work/base/config.json"; then
    bundle=$folder
    bundle "$folder"
  fi
  generate "$bundle" "$work/$folder" > /dev/null || fail "$folder does not run"
  cmp "$work/dump" "$work/base.dump" || fail "$folder: other logits"
  cat "$work/said" >> "$work/err"
  [ "$(grep -c warning: "$work/err")" = $# ] || fail "$folder: expected $# warnings"
  local text
  for text in "$@"; do grep -F "$text" "$work/err" > /dev/null || fail "$folder: expected a warning with '$text'"; done
}

# refused FOLDER TEXT...: the weights are refused with one line
refused() {
  local folder=$1 code=0 text
  shift
  cases=$((cases + 1))
  generate base "$work/$folder" > "$work/out" || code=$?
  [ "$code" = 1 ] || fail "$folder: exit code $code, expected 1"
  [ "$(grep -c . "$work/err")" = 1 ] || fail "$folder: expected one line"
  for text in "$@"; do grep -F -- "$text" "$work/err" > /dev/null || fail "$folder: expected '$text'"; done
}

# uncompiled FOLDER TEXT...: the configuration is refused
uncompiled() {
  local folder=$1 code=0 text
  shift
  cases=$((cases + 1))
  "$SLUICE" compile "$work/$folder" --target host -o "$work/none.sluice" 2> "$work/err" || code=$?
  [ "$code" = 1 ] || fail "$folder: exit code $code, expected 1"
  for text in "$@"; do grep -F -- "$text" "$work/err" > /dev/null || fail "$folder: expected '$text'"; done
}

"$SLUICE" synth "$SLUICE_SOURCE/tests/configs/small" --seed 1 -o "$work/made" 2> /dev/null
"$SLUICE" compile "$work/made" --target host --dtype float32 -o "$work/base.sluice" 2> /dev/null
read -ra tokens < <(generate base "$work/made" --ignore-eos)
cp "$work/dump" "$work/base.dump"
stop=${tokens[2]}
[ "${tokens[1]}" != "$stop" ] && [ "${tokens[0]}" != "$stop" ]
python3 "$SLUICE_SOURCE/tests/cli/make_checkpoints.py" "$work/made" "$work" "$stop"

# ---- names ----
as_base base
as_base dense-mlp-saved-names
as_base in-memory-names
as_base vl-config-text-names
as_base experts-gate-proj-names
refused unknown-names 'lacks the tensor "language_model.model.' 'start with "transformer.": "transformer.h.'

# ---- tensors that nobody wants ----
skipped='that the text model does not need'
as_base rotary-inv-freq "1 tensor $skipped is skipped: \"language_model.model.layers.0.self_attn.rotary_emb.inv_freq\" (computed)"
as_base mtp-in-model 'language_model.mtp.fc.weight" (for speculation)'
as_base mtp-beside-model "2 tensors $skipped are skipped: \"mtp.fc.weight\" and 1 more (for speculation)"
as_base layer-behind-the-last '.layers.3.eh_proj.weight" (behind the last layer)'
as_base k-scale 'k_scale" and 1 more (for a quantised cache)'
as_base vision
refused adapter-left-over 'lora_A.weight" is of an adapter that is not merged'
refused unknown-bias '"language_model.model.layers.0.self_attn.q_proj.bias" belongs to the text model'

# ---- the index ----
as_base index-names-absent-tensor
as_base index-names-absent-shard
as_base shard-has-unlisted-tensor '"value_head.weight" (of no known part)'
as_base two-shards
as_base tensor-in-two-shards
refused shards-without-index 'model-00001-of-00002.safetensors: shards without their index'
refused two-shards/model-00001-of-00002.safetensors 'is one shard of many' 'give the folder'
refused wanted-shard-absent 'model-00002-of-00002.safetensors, where the index has it' 'No such file'
refused wanted-shard-is-pointer 'where the index has it' 'a Git LFS pointer'
refused wanted-tensor-absent 'model-00002-of-00002.safetensors, where the index has it; download that file again'

# ---- other things in place of weights ----
refused lfs-pointer 'model.safetensors: a Git LFS pointer' 'git lfs pull'
refused web-page 'a web page (HTML)' 'download the file again'
refused index-is-web-page 'index.json: a web page (HTML)'
refused index-as-weights 'model.safetensors: JSON'
refused two-shards/model.safetensors.index.json 'index.json: JSON' 'give the folder'
refused base/config.json 'config.json: JSON' 'give the folder'
refused base.sluice 'a bundle, expected weights'
refused gguf 'a GGUF file'
refused gguf-alone 'm3-Q4_K.gguf: GGUF'
refused adapter-alone 'adapter_model.safetensors: an adapter alone'
refused pickle 'pytorch_model-00001-of-00002.bin: PyTorch'
refused empty-file 'an empty file'

# ---- quantised ----
refused packed-4-bit 'experts.0.w1.weight" is U8, expected BF16' 'quantised'
refused mxfp8 'experts.0.w1.weight" is F8_E4M3, expected BF16' 'quantised'
refused pack-quantised 'w1.weight_packed" is of a quantised checkpoint'
refused scale-beside-bf16 'w1.weight_scale" is of a quantised checkpoint'
refused float64 'w1.weight" is F64, expected BF16, F16 or F32'
if grep -q quantised "$work/err"; then fail "float64 is not quantised"; fi

echo "$cases cases"

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
refused not-found 'text, "Entry not found"' 'download it again'
refused restricted 'text, "Access to model org/model is restricted' 'logged in'
refused gzip 'a gzip file, expected weights'
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

uncompiled modelopt 'hf_quant_config.json:1:' '"quant_algo" is "MIXED_PRECISION": the checkpoint is quantised'
as_base modelopt-cache-only

# ---- another model than BASE: what the file has is what `synthetic:` has, or one reading is another's ----

# same BUNDLE WEIGHTS BUNDLE WEIGHTS: both give the same logits
same() {
  cases=$((cases + 1))
  generate "$1" "$2" > /dev/null || fail "$1 does not run"
  mv "$work/dump" "$work/first.dump"
  generate "$3" "$4" > /dev/null || fail "$3 does not run"
  cmp "$work/dump" "$work/first.dump" || fail "$1 and $3: other logits"
}
bundle one-expert
same one-expert "$work/one-expert" one-expert synthetic:1
"$SLUICE" synth "$work/one-expert" --seed 1 -o "$work/one-written" 2> /dev/null
same one-expert "$work/one-written" one-expert synthetic:1
bundle shared-experts-of-width-0
generate shared-experts-of-width-0 "$work/shared-experts-of-width-0" > /dev/null || fail "no shared experts"
grep -F '3 tensors that the text model does not need' "$work/err" > /dev/null || fail "empty tensors are skipped"
same shared-experts-of-width-0 "$work/shared-experts-of-width-0" shared-experts-of-width-0 synthetic:1
bundle tied
same tied "$work/tied" base "$work/tied-written-out"
if generate tied "$work/base" > /dev/null; then fail "another head than the embedding"; fi
grep -F 'lm_head.weight" differs from the embedding' "$work/err" > /dev/null || fail "another head than the embedding"
same tied "$work/tied-written-out" base "$work/tied-written-out"
generate tied "$work/tied-written-out" > /dev/null
grep -F 'lm_head.weight" (the head is the embedding)' "$work/err" > /dev/null || fail "a head that is not needed: no warning"

# ---- configurations ----
as_base text-only-flat
as_base rope-scaling-default
as_base rope-scaling-empty
as_base rope-scaling-null
as_base rope-other-rotary-dim
as_base rope-factor-beside
uncompiled rope-scaling-yarn '"rope_type" is "yarn"'
bundle rope-whole-head # 32 of 32 dimensions, which rotary_dim says where it counts
"$SLUICE" compile "$work/rope-whole-head" --target host --emit model-ir -o - 2> /dev/null > "$work/model.mlir"
grep -F 'rotary_dim = 32' "$work/model.mlir" > /dev/null
uncompiled forced-blocks '0 first and 5 most recent blocks are forced, but only 3 are selected'

# stops FOLDER WARNINGS COUNT: a generation ends after COUNT tokens
stops() {
  cases=$((cases + 1))
  bundle "$1"
  [ "$(grep -c warning: "$work/said")" = "$2" ] || fail "$1: expected $2 warnings"
  local tokens
  read -ra tokens < <(generate "$1" "$work/$1")
  [ "${#tokens[@]}" = "$3" ] || fail "$1: ${#tokens[@]} tokens, expected $3"
}
stops stop-ids-differ 1 3
stops stop-id-of-text 0 3
stops generation-stop-id 0 3
stops no-stop-id 1 12
grep -F 'no stop id here or in generation_config.json: only --max-new ends a generation' "$work/said" > /dev/null

# ---- advice that works ----
longer() { generate "$1" synthetic:1 --max-new 70 > /dev/null; }
bundle max-positions
if longer max-positions; then fail "max-positions: too long"; fi
grep -F 'exceed the longest context 128 that the bundle was compiled for, which is the model'"'"'s own limit; ask for fewer' "$work/err" > /dev/null ||
  fail "max-positions: expected the limit of the model"
bundle max-positions --max-context 100
if longer max-positions; then fail "max-positions: too long"; fi
grep -F 'compile it with a larger --max-context' "$work/err" > /dev/null || fail "max-positions: expected advice"

# ---- NaN ----
for name in nan-weight nan-gate; do # a gate's NaN keeps an expert from being chosen, but shows in the weights
  code=0
  generate base "$work/$name" > "$work/out" || code=$?
  if [ "$code" != 1 ] || ! grep -F NaN "$work/err" > /dev/null; then fail "$name: exit $code, expected an error that says NaN"; fi
  generate base "$work/$name" --json > "$work/out" || true
  grep -F '"stopped": "nan"' "$work/out" > /dev/null || fail "$name: --json does not say so"
done

# ---- types ----
uncompiled dtypes-differ '"dtype" is "bfloat16", but "dtype" of text_config is "float32": they must agree'
as_base float32
weight_dtype() { "$SLUICE" inspect "$work/$1.sluice" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["manifest"]["weight_dtype"])'; }
[ "$(weight_dtype float32)" = float32 ]
refused float32-unannounced 'which bfloat16 cannot hold exactly' 'compile it with --weight-dtype float32'
bundle float32-unannounced --weight-dtype float32
generate float32-unannounced "$work/float32-unannounced" > /dev/null || fail "the advice does not work"
dtype=bfloat16
bundle float32
[ "$(weight_dtype float32)" = bfloat16 ]
bundle base
same base "$work/base" float32 "$work/float32"
bundle float32 --weight-dtype=float32
[ "$(weight_dtype float32)" = float32 ]
generate float32 "$work/float32" > /dev/null || fail "float32 weights beside bfloat16"

echo "$cases cases"

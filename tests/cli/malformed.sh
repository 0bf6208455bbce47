#!/usr/bin/env bash
# Malformed inputs through the programs: refused with a message that names the file, exit code 1 (wrong usage: 2), nothing
# on standard output, nothing left behind. tests/unit/malformed_inputs.c has the bulk of them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nano=$SLUICE_SOURCE/tests/golden/nano
cases=0

# refused CODE TEXT TEXT COMMAND...: both texts are in the message
refused() {
  local wanted=$1 first=$2 second=$3 code=0
  shift 3
  "$@" > "$work/out" 2> "$work/err" < /dev/null || code=$?
  cases=$((cases + 1))
  if [ "$code" != "$wanted" ] || [ -s "$work/out" ] || ! grep -qF -- "$first" "$work/err" ||
    ! grep -qF -- "$second" "$work/err"; then
    echo "$*: exit $code, expected $wanted with '$first' and '$second', got:"
    cat "$work/out" "$work/err"
    exit 1
  fi
}
flip() { # FILE OFFSET: inverts one byte
  local byte
  byte=$(od -An -tu1 -j "$2" -N 1 "$1")
  printf "%b" "\\x$(printf %02x $((byte ^ 255)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

"$SLUICE" compile "$nano" --target host:x86-64-v2 -o "$work/nano.sluice" 2> /dev/null
"$SLUICE" synth "$nano" --seed 1 -o "$work/weights" 2> /dev/null
echo "1 2 3" > "$work/ids"
generate=("$SLUICE_RUN" generate)

# Bundles: cut short and changed.
size=$(stat -c %s "$work/nano.sluice")
bad=$work/bad.sluice
for cut in 0 1 7 8 100 4095 4096 4097 8192 $((size / 2)) $((size - 4096)) $((size - 1)); do
  head -c "$cut" "$work/nano.sluice" > "$bad"
  refused 1 "error: " "$bad" "${generate[@]}" "$bad" --weights "$work/weights" --ids "$work/ids"
  refused 1 "error: " "$bad" "$SLUICE" inspect "$bad"
done
for offset in 0 8 12 16 24 40 1000 3700 4064 4095 4096 5000 $((size / 3)) $((size / 2)) $((size - 1)); do
  cp "$work/nano.sluice" "$bad"
  flip "$bad" "$offset"
  refused 1 "error: " "$bad" "${generate[@]}" "$bad" --weights "$work/weights" --ids "$work/ids"
  refused 1 "error: " "$bad" "$SLUICE" inspect "$bad"
done
refused 1 "error: " "$work/none" "$SLUICE" inspect "$work/none"
refused 1 "error: " "$work" "$SLUICE" inspect "$work"

# Configurations.
config() { # TEXT SED-EXPRESSION
  mkdir -p "$work/config"
  sed -E "$2" "$nano/config.json" > "$work/config/config.json"
  if cmp -s "$work/config/config.json" "$nano/config.json"; then echo "'$2' changes nothing"; exit 1; fi
  refused 1 "config.json:" "$1" "$SLUICE" compile "$work/config" --target host:x86-64-v2 -o "$work/made.sluice"
  [ ! -e "$work/made.sluice" ]
}
config head_dim 's/"head_dim": 64/"head_dim": 63/'
config hidden_size 's/"hidden_size": 256/"hidden_size": -1/'
config hidden_size 's/"hidden_size": 256/"hidden_size": 99999999999999999999/'
config hidden_size 's/"hidden_size": 256/"hidden_size": "256"/'
config hidden_size 's/"hidden_size": 256/"hidden_size": null/'
config num_hidden_layers 's/"num_hidden_layers": 4/"num_hidden_layers": 0/'
config num_hidden_layers 's/"num_hidden_layers": 4/"num_hidden_layers": 4000000000/'
config num_experts_per_tok 's/"num_experts_per_tok": 2/"num_experts_per_tok": 9/'
config hidden_act 's/"hidden_act": "[a-z]*"/"hidden_act": "gelu"/'
config rms_norm_eps 's/"rms_norm_eps": 1e-06/"rms_norm_eps": 1e999/'
config model_type 's/"model_type": "minimax_m3_vl"/"model_type": "llama"/'
config text_config 's/"text_config"/"text"/'
config error '1s/^/]/'
# shellcheck disable=SC2016 # $ is sed's last line
config error '$s/}//'

# Checkpoints.
weights=$work/weights/model.safetensors
bytes=$(stat -c %s "$weights")
load() { # TEXT TEXT SOURCE
  refused 1 "$1" "$2" "${generate[@]}" "$work/nano.sluice" --weights "$3" --ids "$work/ids"
}
load "synthetic:x" "seed" synthetic:x
load "error: " "$work/none" "$work/none"
mkdir "$work/empty" "$work/cut" "$work/index"
load "error: " "$work/empty" "$work/empty"
for cut in 0 7 8 9 1000 $((bytes / 2)) $((bytes - 1)); do
  head -c "$cut" "$weights" > "$work/cut/model.safetensors"
  load "error: " "$work/cut/model.safetensors" "$work/cut"
done
# The length of the header, and one tensor's name, dtype, shape and offsets, replaced by text of the same length.
header() { # TEXT SED-EXPRESSION
  LC_ALL=C sed -E "$2" "$weights" > "$work/cut/model.safetensors"
  if cmp -s "$work/cut/model.safetensors" "$weights"; then echo "'$2' changes nothing"; exit 1; fi
  load "$1" "$work/cut" "$work/cut"
}
for byte in 1 3 7; do
  cp "$weights" "$work/cut/model.safetensors"
  flip "$work/cut/model.safetensors" "$byte"
  load "error: " "$work/cut/model.safetensors" "$work/cut"
done
lm=language_model.lm_head.weight
header "$lm" '1s/lm_head/lm_hxad/'
header "$lm" '1s/(lm_head.weight":\{"dtype":")BF16/\1FP16/'
header "$lm" '1s/(lm_head.weight":\{"dtype":"BF16","shape":\[)512,256/\1256,512/'
header "$lm" '1s/(lm_head.weight":\{"dtype":"BF16","shape":\[)512,256/\1512,-56/'
header "$lm" '1s/(lm_head.weight":\{"dtype":"BF16","shape":\[)512,256/\1912,256/'
header "$lm" '1s/(lm_head.weight"[^}]*"data_offsets":\[)262144,524288/\1262140,524284/'
header "$lm" '1s/(lm_head.weight"[^}]*"data_offsets":\[)262144,524288/\1962144,924288/'
header "$lm" '1s/(lm_head.weight"[^}]*"data_offsets":\[)262144,524288/\1524288,262144/'
header error '1s/"__metadata__":\{/"__metadata__":[ /'
for shard in ../weights/model.safetensors "$weights" .. none.safetensors; do
  printf '{"weight_map": {"%s": "%s"}}' "$lm" "$shard" > "$work/index/model.safetensors.index.json"
  load "$work/index" "$shard" "$work/index"
done
ln "$weights" "$work/index/1.safetensors"
for text in '' '[]' '{}' '{"weight_map": 3}' "{\"weight_map\": {\"$lm\": 3}}"; do
  printf '%s' "$text" > "$work/index/model.safetensors.index.json"
  load "error: " "$work/index" "$work/index"
done

# Prompts and command lines.
run=("${generate[@]}" "$work/nano.sluice" --weights synthetic:1)
for ids in '' 'x' '-1' '512' '1 2 99999999999999999999' '1 2 3.5'; do
  printf '%s' "$ids" > "$work/bad_ids"
  refused 1 "error: " "" "${run[@]}" --ids "$work/bad_ids"
done
refused 1 "error: " "$work/none" "${run[@]}" --ids "$work/none"
refused 2 "" "" "$SLUICE_RUN"
refused 2 "generat" "" "$SLUICE_RUN" generat
refused 2 "--weights" "" "${generate[@]}" "$work/nano.sluice" --ids "$work/ids"
refused 2 "--ids" "" "${run[@]}"
refused 2 "--frobnicate" "" "${run[@]}" --ids "$work/ids" --frobnicate
for option in "--max-new -1" "--max-new x" "--chunk 0" "--temperature x" "--temperature nan" "--top-p 2" "--top-k -1" \
  "--seed x" "--threads -2"; do
  # shellcheck disable=SC2086
  refused 2 "${option% *}" "" "${run[@]}" --ids "$work/ids" $option
done
refused 2 "" "" "$SLUICE" inspect
refused 2 "" "" "$SLUICE" inspect a b
echo "$cases malformed inputs refused"

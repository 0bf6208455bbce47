#!/usr/bin/env bash
# sluice-run bench: every kernel of a plan on the host in many shapes, its JSON, whole steps, and wrong command lines.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$SLUICE" compile "$SLUICE_SOURCE/tests/golden/nano" --target host --dtype bfloat16 -o "$work/nano.sluice" 2> "$work/err"
"$SLUICE" compile "$SLUICE_SOURCE/tests/golden/nano" --target host --dtype float32 -o "$work/separate.sluice" \
  --disable-pass fuse-projections --disable-pass fuse-norm-rope-append --disable-pass fuse-epilogues \
  --disable-pass fuse-index-select --disable-pass fuse-select-attend --disable-pass fuse-router \
  --disable-pass fuse-experts 2> "$work/err"
"$SLUICE" compile "$SLUICE_SOURCE/tests/golden/nano" --target host --dtype bfloat16 -o "$work/shared.sluice" \
  --disable-pass fold-shared-expert 2> "$work/err"

# bench BUNDLE ARGUMENTS...: appends to $work/out
bench() {
  local bundle=$1
  shift
  "$SLUICE_RUN" bench "$work/$bundle.sluice" --json --repeat 1 --memory-rate 40 "$@" >> "$work/out" ||
    { echo "sluice-run bench $bundle $* failed"; exit 1; }
}

# Everything once, from both a fused and an unfused plan, with whole steps.
: > "$work/out"
bench nano --shape seqs=3,context=100,tokens=20 --weights synthetic:1
mv "$work/out" "$work/fused"
bench separate --shape seqs=2,context=70,tokens=35 --weights synthetic:1
mv "$work/out" "$work/separate"

# One kernel in many shapes: contexts at and around page ends, none at all, the longest; K and M; keys in any order.
names=()
for shape in seqs=1 context=0 context=15 context=16 context=17,seqs=2 seqs=7,context=100,tp=1 context=1K context=8191 \
  seqs=2,context=4K tp=1,context=33,seqs=33; do
  bench nano --kernel decode.select_attend --shape "$shape"
  names+=(decode.select_attend)
done
for shape in tokens=1 tokens=15 tokens=16,context=16 tokens=17,context=5,seqs=3 context=1K,tokens=64; do
  bench nano --kernel prefill.select_attend --shape "$shape"
  bench nano --kernel prefill.experts --shape "$shape"
  names+=(prefill.select_attend prefill.experts)
done
for kernel in projections output_projection router experts routed moe attention mlp lm_head sample embed \
  rms_norm norm_rope_append select_attention; do
  bench nano --kernel "decode.$kernel" --shape seqs=5,context=40
  names+=("decode.$kernel")
done
for kernel in block_attention topk_blocks index_score block_max cache_append expert_linear combine; do
  bench separate --kernel "prefill.$kernel" --shape seqs=2,context=90,tokens=9
  names+=("prefill.$kernel")
done
for kernel in moe shared_expert; do
  bench shared --kernel "decode.$kernel" --shape seqs=5,context=40
  names+=("decode.$kernel")
done
bench nano --kernel decode.projections --layer 0
names+=(decode.projections)
printf '%s\n' "${names[@]}" > "$work/names"

python3 - "$work" << 'PYTHON'
import json, sys
work = sys.argv[1]

def read(name):
    rows = [json.loads(line) for line in open(f"{work}/{name}")]
    for row in rows:
        for key in ("us", "bytes", "flops", "floor_us", "share", "calls"):
            assert isinstance(row[key], (int, float)) and row[key] >= 0, row
        assert row["us"] > 0 and row["bytes"] > 0 and row["calls"] >= 1, row
        assert abs(row["floor_us"] - row["bytes"] / 40e3) <= 0.001, row # no flop rate on the host
        assert abs(row["share"] - row["floor_us"] / row["us"]) < 0.02 + 0.02 * row["share"], row
        assert row["device"].startswith("host"), row
        assert row["shape"].endswith(",tp=1"), row
    return rows

groups = ["projections", "select_attend", "attention", "output_projection", "mlp", "router", "experts", "routed", "moe",
          "lm_head", "sample", "embed"]
for name, shapes in (("fused", ("seqs=3,context=100,tp=1", "seqs=3,context=100,tokens=20,tp=1")),
                     ("separate", ("seqs=2,context=70,tp=1", "seqs=2,context=70,tokens=35,tp=1"))):
    rows = read(name)
    for phase, shape in zip(("decode", "prefill"), shapes):
        found = {row["kernel"]: row for row in rows if row["kernel"].startswith(phase)}
        for group in groups:
            assert f"{phase}.{group}" in found, (name, phase, group)
        assert all(row["shape"] == shape for row in found.values())
        step = [row for row in rows if row["kernel"] == f"step.{phase}"]
        assert len(step) == 1 and step[0]["shape"] == shape, step
        # Three sparse layers, one dense; their sums account for most of the step.
        assert found[f"{phase}.select_attend"]["times"] == 3 and found[f"{phase}.attention"]["times"] == 1
        # A shared expert that is one of the experts has no launches of its own.
        moe, routed, shared = (found.get(f"{phase}.{g}") for g in ("moe", "routed", "shared_expert"))
        assert (shared is None) == (name == "fused")
        assert moe["launches"] == routed["launches"] + (shared["launches"] if shared else 0)

# nano: a page has 16 tokens; page table, keys and values alone grow with the context.
rows = read("out")
assert [row["kernel"] for row in rows] == open(f"{work}/names").read().split()
assert rows[0]["shape"] == "seqs=1,context=512,tp=1" and rows[6]["shape"] == "seqs=1,context=1024,tp=1"
assert rows[5]["shape"] == "seqs=7,context=100,tp=1" and rows[9]["shape"] == "seqs=33,context=33,tp=1"
# Index keys: 64 of 2 bytes, each once; at most 4 blocks of 16 keys, each 2 heads * 64 * 2 * 2 bytes; q, out 2048 bytes
row = rows[0]
assert row["bytes"] == 2048 + 513 * 128 + 64 * 512, row
assert rows[1]["bytes"] == 2048 + 128 + 512, rows[1]
assert rows[-1]["layer"] == 0
# Two of the eight experts and the shared one for one token, w1, w3 (256 -> 128) and w2 in bfloat16, read once.
one = [row for row in rows if row["kernel"] == "prefill.experts" and row["shape"].startswith("seqs=1,context=0,tokens=1,")]
assert len(one) == 1 and 3 * 3 * 256 * 128 * 2 <= one[0]["bytes"] < 3 * 3 * 256 * 128 * 2 + 20000, one
many = [row for row in rows if row["kernel"] == "prefill.experts" and "tokens=64" in row["shape"]]
assert many[0]["bytes"] > 9 * 3 * 256 * 128 * 2 * 0.99, many
PYTHON

# A plan whose launches over tokens leave out every other workgroup: the check sees what they do not write.
python3 - "$work" << 'PYTHON'
import hashlib, struct, sys
work = sys.argv[1]
data = bytearray(open(f"{work}/nano.sluice", "rb").read())
for entry in range(32, 32 + 40 * 88, 88):
    kind, offset, length = struct.unpack_from("<I4xQQ", data, entry)
    if kind != 2:
        continue
    launches, count = struct.unpack_from("<QQ", data, offset + 48 + 7 * 16)
    arguments, _ = struct.unpack_from("<QQ", data, offset + 48 + 8 * 16)
    for i in range(count): # grid[0] is at byte 16: size, divisor, factor
        at = offset + launches + i * ((arguments - launches) // count) + 16
        if struct.unpack_from("<III", data, at) == (1, 1, 1):
            struct.pack_into("<I", data, at + 4, 2)
    data[entry + 24:entry + 56] = hashlib.sha256(data[offset:offset + length]).digest()
    plan = bytes(data[entry + 24:entry + 56])
for entry in range(32, 4064 - 88, 88): # the code is bound to its plan
    kind, offset, length = struct.unpack_from("<I4xQQ", data, entry)
    if kind in (3, 4):
        data[offset + length - 32:offset + length] = plan
        data[entry + 24:entry + 56] = hashlib.sha256(data[offset:offset + length]).digest()
data[4064:4096] = hashlib.sha256(data[:4064]).digest()
open(f"{work}/broken.sluice", "wb").write(data)
PYTHON
for case in "embed 512" "rms_norm 512" "router 8"; do
  code=0
  "$SLUICE_RUN" bench "$work/broken.sluice" --kernel "decode.${case% *}" --shape seqs=4 --memory-rate 40 > "$work/stdout" \
    2> "$work/err" || code=$?
  if [ "$code" != 1 ] || [ -s "$work/stdout" ] ||
    ! grep -q "kernel decode.${case% *} left ${case#* } elements unwritten" "$work/err"; then
    echo "unwritten ${case% *}: exit $code"
    cat "$work/err"
    exit 1
  fi
done

# The table for people, with the rate measured.
"$SLUICE_RUN" bench "$work/nano.sluice" --kernel decode.router --repeat 2 > "$work/table"
grep -Eq '^host:[^ ]*, memory [0-9.]+ GB/s$' "$work/table"
grep -Eq '^decode.router +1 seqs=1,context=512,tp=1 +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+%$' "$work/table"

# refused CODE TEXT ARGUMENTS...
cases=0
refused() {
  local wanted=$1 text=$2 code=0
  shift 2
  "$SLUICE_RUN" bench "$work/nano.sluice" "$@" > "$work/stdout" 2> "$work/err" || code=$?
  cases=$((cases + 1))
  if [ "$code" != "$wanted" ] || ! grep -qF -- "$text" "$work/err" || [ "$(wc -l < "$work/err")" != 1 ] ||
    [ -s "$work/stdout" ]; then
    echo "bench $*: exit $code, expected $wanted with one line with '$text', got:"
    cat "$work/err" "$work/stdout"
    exit 1
  fi
}
kernel="--kernel decode.experts --memory-rate 40"
# shellcheck disable=SC2086
{
  for shape in "" "," = seqs "seqs,context=1" Seqs=1 "seqs =1" " seqs=1" "seqs=1," ",seqs=1" "seqs:1;context=2" batch=1 \
    contex=1 contexts=1 seq=1 "=1"; do
    refused 2 "is not one of seqs=N, context=N, tokens=N, tp=N" $kernel --shape "$shape"
  done
  for number in "" K M KK 1k 1G -1 +1 1.5 1e3 0x10 " 1" "1 " 1KM 1234567890123 99999999999999999999 1_000 '1 000' \
    $'1\n' ∞; do
    refused 2 "expected a number" $kernel --shape "seqs=$number"
    refused 2 "expected a number" $kernel --shape "seqs=1,context=$number"
  done
  for key in seqs tokens tp; do
    refused 2 "$key must be at least 1" $kernel --shape "$key=0"
    refused 2 "$key is given twice" $kernel --shape "$key=1,$key=1"
  done
  refused 2 "tp is 2, but the bundle was compiled for one device" $kernel --shape tp=2
  refused 2 "tokens is 2, but decoding takes one new token" $kernel --shape tokens=2
  refused 2 "more than a step takes" $kernel --shape seqs=2M
  refused 2 "more than a step takes" $kernel --shape seqs=999999999999M
  refused 2 "more than a step takes" --kernel prefill.experts --shape seqs=1M,tokens=17 --memory-rate 40
  refused 1 "exceed the longest context 8192" $kernel --shape context=8192
  refused 1 "exceed the longest context 8192" $kernel --shape context=999999999999M
  refused 1 "exceed the longest context 8192" --kernel prefill.experts --shape context=8000,tokens=193 --memory-rate 40
  refused 2 "has no kernel" --kernel decode.select_attend --layer 0 --memory-rate 40
  refused 2 "has no kernel" --kernel decode.shared_expert --memory-rate 40
} || exit 1
for name in "" . decode decode. .decode prefil.experts decode/experts step step. step.decoding DECODE.experts; do
  refused 2 "is neither decode.NAME, prefill.NAME, step.decode nor step.prefill" --kernel "$name"
done
refused 2 'the bundle has no kernel "expert"; the bundle'"'"'s kernels for this shape are: projections, ' \
  --kernel decode.expert --memory-rate 40
refused 2 "the bundle's model has 4 layers" --kernel decode.experts --layer 4
refused 2 "--layer needs --kernel" --layer 1
refused 2 "step.decode needs --weights" --kernel step.decode
refused 2 "--repeat must lie in 1" --repeat 0
refused 2 "--memory-rate and --flop-rate must be positive" --memory-rate -1
refused 2 "--memory-rate: \"fast\" is not a number" --memory-rate fast
refused 1 "needs" --kernel decode.attention --shape seqs=1M,context=8191 --memory-rate 40
refused 1 "nowhere" --trace "$work/nowhere/trace.json" --kernel decode.embed
echo "$cases command lines refused"

# --help, man page and completion agree.
section() { sed -n "/^\.Ss $1\$/,/^\.S[hs] /p" "$SLUICE_SOURCE/docs/man/sluice-run.1"; }
common=$(sed -n '/^These are common/,/^\.El/p' "$SLUICE_SOURCE/docs/man/sluice-run.1" | grep -oE '^\.It Fl -[a-z-]+')
for verb in generate template chat tokenize verify bench tune calibrate memory; do
  "$SLUICE_RUN" "$verb" --help | grep -oE '^  --[a-z-]+' | tr -d ' ' | grep -vx -- --help | sort > "$work/help"
  { section "$verb" | grep -E '^\.It '; echo "$common"; } | grep -oE 'Fl -[a-z-]+' | sed 's/Fl -/--/' | sort -u > "$work/man"
  comm -23 "$work/help" "$work/man" | { ! grep .; } || { echo "not in sluice-run.1: $verb"; exit 1; }
  # shellcheck disable=SC1090,SC1091
  (
    source "$SLUICE_SOURCE/docs/completion/sluice.bash"
    COMP_WORDS=("$SLUICE_RUN" "$verb" --)
    COMP_CWORD=2
    _sluice_run
    printf '%s\n' "${COMPREPLY[@]}" | grep -vx -- --help | sort
  ) > "$work/completion"
  diff "$work/help" "$work/completion" || { echo "completion and 'sluice-run $verb --help' differ"; exit 1; }
done

# The router chooses all experts alike: of 128, with 4 for each of 64 tokens, about 111 are read, and 8 tokens read about 29.
python3 - "$SLUICE_SOURCE/tests/golden/nano/config.json" "$work/many.json" << 'PYTHON'
import json, sys
config = json.load(open(sys.argv[1]))
config["text_config"].update(num_local_experts=128, num_experts_per_tok=4)
json.dump(config, open(sys.argv[2], "w"))
PYTHON
"$SLUICE" compile "$work/many.json" --target host --dtype bfloat16 -o "$work/many.sluice" --disable-pass fold-shared-expert 2> "$work/err"
: > "$work/out"
for sequences in 8 64; do bench many --kernel decode.routed --shape seqs=$sequences,context=40; done
python3 - "$work/out" << 'PYTHON'
import json, sys
for line, least, most in zip(open(sys.argv[1]), (24, 98), (32, 124)):
    read = json.loads(line)["bytes"] / (3 * 256 * 128 * 2)  # in experts; activations and the router are a few
    assert least <= read <= most, (line, read)
PYTHON

#!/usr/bin/env bash
# The tuner as a user types it, on the host: candidates, timing, resuming, merging, the report, compiling with records,
# what explain says of them, and that numbers stay the same.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
golden=$SLUICE_SOURCE/tests/golden/nano
cd "$work"
fail() {
  echo "$1"
  cat err out 2> /dev/null
  exit 1
}
expect() { # CODE TEXT COMMAND...: its exit code, and a text that it prints
  local code=0
  "${@:3}" > out 2> err || code=$?
  [ $code = "$1" ] || fail "${*:3}: exit code $code instead of $1"
  [ -z "$2" ] || grep -qF -- "$2" out err || fail "${*:3}: no '$2'"
}
sluice() { "$SLUICE" "$@"; }
run() { "$SLUICE_RUN" "$@"; }

# Candidates for one bucket; a bundle to run is none.
tune=(sluice tune "$golden" --target host --dtype float32 --candidates 3)
expect 0 "" "${tune[@]}" --shapes 16 --context 64 -o candidates.sluice
expect 0 "" "${tune[@]}" --shapes 16 --context 64 -o again.sluice
cmp candidates.sluice again.sluice
expect 2 "'x' is no number of tokens" "${tune[@]}" --shapes 1,x -o y
expect 2 "expected ascending numbers" "${tune[@]}" --shapes 8,4 -o y
expect 2 "leaves room for" "${tune[@]}" --shapes 16 --context 100000 -o y
expect 2 "option '--output FILE' is needed" "${tune[@]}"
expect 0 "" sluice compile "$golden" --target host --dtype float32 -o default.sluice
expect 1 "is a bundle to run, not a file of candidates" run tune default.sluice -o records.jsonl
echo 1 > ids
expect 1 "damaged bundle" run generate candidates.sluice --weights synthetic:1 --ids ids --max-new 1
head -c 100000 candidates.sluice > short.sluice
expect 1 "short.sluice" run tune short.sluice -o records.jsonl
[ ! -e records.jsonl ]

# Interrupted as soon as a kernel is done: the file is whole, and the next run goes on from there.
cat > interrupt.py << 'PYTHON'
import os, signal, subprocess, sys, time
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
while not os.path.exists("records.jsonl") and process.poll() is None:
    time.sleep(0.002)
process.send_signal(signal.SIGINT)
print(process.wait())
PYTHON
python3 interrupt.py "$SLUICE_RUN" tune candidates.sluice -o records.jsonl --seconds 60 > end
[ "$(cat end)" = -2 ] || [ "$(cat end)" = 130 ] || fail "interrupted: $(cat end)"
first=$(wc -l < records.jsonl)
[ "$first" -ge 1 ] || fail "no record after an interruption"
head -n 1 records.jsonl > before
[ -z "$(find . -name '.sluice-*')" ] || fail "a temporary file stays"
expect 0 "kernels are in records.jsonl already" run tune candidates.sluice -o records.jsonl --seconds 0.5
grep -qxFf before records.jsonl || fail "what was timed was timed again"
while grep -q "run it again" err; do expect 0 "" run tune candidates.sluice -o records.jsonl --seconds 0.5; done
cp records.jsonl whole
expect 0 "" run tune candidates.sluice -o records.jsonl
cmp records.jsonl whole
expect 2 "-o RECORD.jsonl is missing" run tune candidates.sluice
expect 2 "--seconds must be positive" run tune candidates.sluice -o y --seconds 0
echo '{}' > damaged.jsonl
expect 1 'damaged.jsonl:1:1: error: the record lacks "gpu"' run tune candidates.sluice -o damaged.jsonl
[ "$(cat damaged.jsonl)" = '{}' ]

# Every record is what the documents say, and its numbers fit together.
python3 - << 'PYTHON'
import json
records = [json.loads(line) for line in open("records.jsonl")]
assert len(records) == 5, len(records) # the products of nano that have a choice
for r in records:
    assert r["kernel"] == "gemm" and (r["from"], r["to"]) == (0, 16) and r["at"] == {"context": 64, "sequences": 16, "tokens": 16}
    assert r["check"] == "exact" and len(r["output"]) == 16 and r["candidates"] == 3, r
    assert 0 < r["median_us"] <= r["default_us"] * 1.0001 and r["processors"] >= 1 and r["floor_us"] > 0
    assert r["configuration"]["schedule"] == "tiles"
# Another machine, another day, and a choice that is certainly not the default's, to see it take effect.
for r in records:
    r["configuration"]["tile_m"] = 5
    r.update(date="2099-01-01", median_us=1.25, default_us=2.5)
open("chosen.jsonl", "w").write("".join(json.dumps(r) + "\n" for r in records))
for r in records: r["gpu"] = "NVIDIA H200"
open("foreign.jsonl", "w").write("".join(json.dumps(r) + "\n" for r in records))
for r in records: r["configuration"]["panel"] += 16; r["gpu"] = "X"
open("panel.jsonl", "w").write("".join(json.dumps(r) + "\n" for r in records))
for r in records: r["configuration"]["panel"] -= 16; r["configuration"]["tile_m"] = 1000
open("illegal.jsonl", "w").write("".join(json.dumps(r) + "\n" for r in records))
PYTHON

# Merging: the same whatever the order, GPUs apart, the later record of two; once more changes nothing.
merge=(sluice tuning merge)
expect 0 "" "${merge[@]}" records.jsonl chosen.jsonl foreign.jsonl -o a.jsonl
expect 0 "" "${merge[@]}" foreign.jsonl records.jsonl chosen.jsonl -o b.jsonl
cmp a.jsonl b.jsonl
expect 0 "" "${merge[@]}" a.jsonl b.jsonl -o c.jsonl
cmp a.jsonl c.jsonl
[ "$(wc -l < a.jsonl)" = 10 ] && [ "$(grep -c 2099-01-01 a.jsonl)" = 10 ]
expect 2 "which is read" "${merge[@]}" a.jsonl b.jsonl -o a.jsonl
expect 1 'lacks "gpu"' "${merge[@]}" damaged.jsonl -o y
expect 2 "is followed by merge or report, not 'marge'" sluice tuning marge a.jsonl -o y
expect 2 "RECORD.jsonl is missing" sluice tuning merge -o y
[ ! -e y ]

# The report holds everything itself.
expect 0 "" sluice tuning report a.jsonl -o report.html
expect 0 "" sluice tuning report a.jsonl -o report2.html
cmp report.html report2.html
[ "$(grep -c '<svg' report.html)" = 10 ] || fail "$(grep -c '<svg' report.html) diagrams"
if grep -qE 'https?://|src=' report.html; then fail "the report needs other files"; fi
python3 - << 'PYTHON'
import html.parser
class Reader(html.parser.HTMLParser):
    open_tags = []
    def handle_starttag(self, tag, attributes):
        if tag not in ("meta",): self.open_tags.append(tag)
    def handle_startendtag(self, tag, attributes): pass
    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag, tag
reader = Reader()
reader.feed(open("report.html").read())
assert not [t for t in reader.open_tags if t != "doctype"], reader.open_tags
PYTHON

# Compiling with records: seen in the plan, in explain with the time, and in what was not recorded.
compile=(sluice compile "$golden" --target host --dtype float32)
expect 0 "17 and more tokens: no record, the default is taken" "${compile[@]}" --tuning chosen.jsonl -o tuned.sluice
grep -q "expert_gemm .* 0 and more tokens: no record" err || fail "a miss is not told"
explain() { sluice explain "$1" --tokens "$2" --sequences "$2" --context 64 --json > "$3"; }
explain tuned.sluice 16 inside
explain tuned.sluice 17 outside
explain default.sluice 16 plain
sluice explain tuned.sluice --tokens 16 --sequences 16 --context 64 > text
grep -q "tile_m 5, .*; tuned 2099-01-01: 1.25 us with 16 tokens (default 2.50)" text || fail "$(cat text)"
grep -q "configurations: tuning records" text
python3 - << 'PYTHON'
import json
def gemms(name):
    found = [l for l in json.load(open(name))["targets"][0]["launches"] if l["kernel"].startswith("gemm")]
    assert found
    return found
for l in gemms("inside"):
    if l["op"] == "lm_head" and l["source"] == "default": continue
    assert l["configuration"]["tile_m"] == 5 and l["source"] == "record" and l["expected_us"] == 1.25, l
for l in gemms("outside"): assert l["configuration"]["tile_m"] == 48 and l["source"] == "default", l
for l in gemms("plain"): assert l["configuration"]["tile_m"] == 48 and "source" not in l, l
PYTHON
expect 0 "tuning" sluice inspect tuned.sluice

# The same numbers: float32 golden file, and the same tokens to the last bit of their probabilities.
expect 0 "" run verify tuned.sluice --weights synthetic:1 --golden "$golden/golden.float32.safetensors"
for bundle in default tuned; do
  echo 1 17 42 99 5 6 7 | run generate $bundle.sluice --weights synthetic:1 --ids - --max-new 6 --logprobs 3 --json > $bundle.tokens
  sed -i 's/"[a-z_]*seconds[a-z_]*": [0-9.e-]*//g; s/"[a-z_]*tokens_per_second": [0-9.e-]*//g' $bundle.tokens
done
grep -o '"ids": \[[^]]*\]' default.tokens > a
grep -o '"ids": \[[^]]*\]' tuned.tokens > b
[ -s a ]
cmp a b

# Records that cannot be used are told of, and the default is taken.
expect 0 "weights would lie otherwise than for other sizes ('panel')" "${compile[@]}" --tuning panel.jsonl -o x.sluice
expect 0 "'tile_m' is 1000, expected at most 256" "${compile[@]}" --tuning illegal.jsonl -o x.sluice
explain x.sluice 16 x
python3 -c 'import json; assert all(l["configuration"]["tile_m"] == 48 for l in json.load(open("x"))["targets"][0]["launches"] if l["kernel"].startswith("gemm"))'
expect 1 "which are not the same" "${compile[@]}" --tuning a.jsonl -o y
expect 0 "no tuning record is for cuda:sm_90a: its defaults are taken" \
  sluice compile "$golden" --target h200 --emit=kernel-ir --tuning chosen.jsonl -o x.mlir
expect 1 'lacks "gpu"' "${compile[@]}" --tuning damaged.jsonl -o y
expect 2 "not with --batch-invariant" "${compile[@]}" --tuning chosen.jsonl --batch-invariant -o y
expect 1 "nowhere.jsonl" "${compile[@]}" --tuning nowhere.jsonl -o y
[ ! -e y ]

# Rates: of this machine, and taken by the cost model.
expect 0 "read_gigabytes_second" run calibrate default.sluice -o rates.json --seconds 1
python3 -c 'import json; r = json.load(open("rates.json")); assert r["copy_gigabytes_second"] > 0.1 and r["launch_us"] > 0 and r["gap_us"] > 0 and r["processors"] >= 1, r'
expect 0 "" "${tune[@]}" --shapes 16 --context 64 --rates rates.json -o x.sluice
expect 1 "is this a file of sluice-run calibrate?" "${tune[@]}" --shapes 16 --rates damaged.jsonl -o y
expect 2 "-o GPU.json is missing" run calibrate default.sluice

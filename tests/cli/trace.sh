#!/usr/bin/env bash
# --trace: the file is JSON that trace viewers take, events nest, results stay the same, and a failure leaves no file.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$SLUICE" compile "$SLUICE_SOURCE/tests/golden/nano" --target host --dtype float32 -o "$work/nano.sluice" 2> "$work/err"
echo 1 17 42 99 7 > "$work/ids"
generate=("$SLUICE_RUN" generate "$work/nano.sluice" --weights synthetic:1 --ids "$work/ids" --max-new 6 --chunk 2)
plain=$("${generate[@]}")
traced=$("${generate[@]}" --trace "$work/generate.json")
[ "$plain" = "$traced" ] || { echo "tracing changes tokens: $plain / $traced"; exit 1; }
"$SLUICE_RUN" verify "$work/nano.sluice" --weights synthetic:1 --trace "$work/verify.json" \
  --golden "$SLUICE_SOURCE/tests/golden/nano/golden.float32.safetensors" > "$work/out"
"$SLUICE_RUN" bench "$work/nano.sluice" --weights synthetic:1 --kernel step.decode --shape seqs=2,context=30 --repeat 2 \
  --memory-rate 40 --trace "$work/steps.json" > "$work/out"
"$SLUICE_RUN" bench "$work/nano.sluice" --kernel decode.experts --repeat 2 --memory-rate 40 --trace "$work/kernel.json" \
  > "$work/out"

python3 - "$work" << 'PYTHON'
import json, sys
work = sys.argv[1]

def read(name):
    trace = json.load(open(f"{work}/{name}.json"))
    events = trace["traceEvents"]
    names = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    assert set(names.values()) == {"steps and launches", "weights", "benchmarks"}, names
    tracks = {}
    for e in events:
        if e["ph"] == "M":
            continue
        assert e["ph"] == "X" and e["pid"] == 1 and e["ts"] >= 0 and e["dur"] >= 0 and e["name"], e
        tracks.setdefault(names.get(e["tid"], "run"), []).append(e)
    for track, list_ in tracks.items():
        nest(list_)
    run = tracks["run"]
    assert len(run) == 1 and all(end(e) <= end(run[0]) for l in tracks.values() for e in l)
    return tracks

def begin(e):
    return round(e["ts"] * 1000)

def end(e):
    return round(e["ts"] * 1000) + round(e["dur"] * 1000)

# Two events of a track lie apart or one in the other. Gives each its parent.
def nest(events):
    open_ = []
    for e in sorted(events, key=lambda e: (begin(e), -end(e))):
        while open_ and end(open_[-1]) <= begin(e) and not (begin(e) == end(e) == end(open_[-1])):
            open_.pop()
        assert not open_ or end(e) <= end(open_[-1]), (open_[-1], e)
        e["parent"] = open_[-1]["name"] if open_ else None
        open_.append(e)

tracks = read("generate")
steps = [e for e in tracks["steps and launches"] if e["parent"] is None]
assert [e["name"] for e in steps] == ["prefill"] * 3 + ["decode"] * 5, steps
assert [e["args"]["tokens"] for e in steps] == [2, 2, 1] + [1] * 5
launches = [e for e in tracks["steps and launches"] if e["parent"]]
labels = {e["name"] for e in launches}
assert {"embed", "attention", "select_attention", "experts_shared", "lm_head", "sample"} <= labels, labels
assert sum(e["name"] == "select_attention" for e in launches) == 3 * len(steps)
assert all(e["args"]["kernel"] and e["args"]["launch"] >= 0 for e in launches)
weights = tracks["weights"]
load = [e for e in weights if e["parent"] is None]
assert [e["name"] for e in load] == ["load weights"]
assert sum(e["args"]["bytes"] for e in weights if e["parent"]) > 4e6
assert "benchmarks" not in tracks
tracks = read("verify")
assert {e["name"] for e in tracks["steps and launches"] if e["parent"] is None} == {"prefill", "decode"}
tracks = read("steps")
assert [e["name"] for e in tracks["steps and launches"] if e["parent"] is None] == ["decode"]
tracks = read("kernel")
bench = tracks["benchmarks"]
assert [(e["name"], e["parent"]) for e in bench][-1] == ("decode.experts", None)
assert {e["name"] for e in bench if e["parent"] == "decode.experts"} == {"fill", "check", "time"}
PYTHON

# Errors: nothing of the name, nothing beside it; an old file stays as it was.
mkdir "$work/traces"
failing() {
  local code=0
  "$@" > "$work/out" 2> "$work/err" || code=$?
  [ "$code" = 1 ] || { echo "exit $code: $*"; cat "$work/err"; exit 1; }
}
failing "$SLUICE_RUN" generate "$work/missing.sluice" --weights synthetic:1 --ids "$work/ids" --trace "$work/traces/a.json"
failing "$SLUICE_RUN" generate "$work/nano.sluice" --weights synthetic:1 --ids "$work/missing" --trace "$work/traces/a.json"
failing "${generate[@]}" --trace "$work/none/a.json"
grep -q "none/a.json: cannot be created: No such file or directory" "$work/err"
[ -z "$(ls "$work/traces")" ]
echo old > "$work/traces/old.json"
( # no file may grow past 200 KB: the trace does, while the code in memory does not
  trap '' XFSZ
  ulimit -f 200
  failing "${generate[@]}" --max-new 2000 --ignore-eos --trace "$work/traces/old.json"
  grep -q "traces/old.json: cannot be written: File too large" "$work/err"
)
[ "$(ls "$work/traces")" = old.json ] && [ "$(cat "$work/traces/old.json")" = old ]

#!/usr/bin/env bash
# sluice explain --parallel: a layout of a model that is not compiled, and which layout suits the devices.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nano=$SLUICE_SOURCE/tests/golden/nano m3=$SLUICE_SOURCE/tests/configs/MiniMax-M3

# expect CODE TEXT ARGUMENTS...: exit code, and TEXT within stderr
expect() {
  local wanted=$1 text=$2 code=0
  shift 2
  "$SLUICE" explain "$@" > "$work/out" 2> "$work/err" || code=$?
  if [ "$code" != "$wanted" ] || ! grep -qF -- "$text" "$work/err"; then
    echo "sluice explain $*: exit $code, expected $wanted with '$text', got:"
    cat "$work/err"
    exit 1
  fi
}

# The plan without code costs what the bundle's does.
"$SLUICE" compile "$nano" --target mi300x --parallel tp=2 -o "$work/nano.sluice" 2> /dev/null
for arguments in "" "--tokens 24" "--json"; do
  # shellcheck disable=SC2086 # several words, or none
  "$SLUICE" explain "$work/nano.sluice" --context 200 --sequences 3 $arguments > "$work/bundle"
  # shellcheck disable=SC2086
  "$SLUICE" explain "$nano" --parallel tp=2 --product mi300x --context 200 --sequences 3 $arguments > "$work/model" \
    2> /dev/null
  cmp "$work/bundle" "$work/model"
done

# Both figures of links count: twice the latency, then a rate so low that nothing else matters.
links() {
  "$SLUICE" explain "$work/nano.sluice" --context 200 --json "$@" | python3 -c '
import json, sys
step = json.load(sys.stdin)["targets"][0]["step"]
assert abs(step["floor_us"] - step["memory_us"] - step["arithmetic_us"] - step["links_us"]) < 0.01
assert abs(step["tokens_second"] * step["floor_us"] - 1e6) < 1e-3 * 1e6
print(step["links_us"], step["exchanges"])'
}
read -r one exchanges < <(links --link-latency 100 --link-rate 1e6)
read -r two _ < <(links --link-latency 200 --link-rate 1e6)
read -r slow _ < <(links --link-latency 100 --link-rate 0.001)
python3 -c "
one, two, slow, exchanges = $one, $two, $slow, $exchanges
assert exchanges > 1 and abs(one - 100 * exchanges) < 0.01 * one and abs(two - 200 * exchanges) < 0.01 * two
assert slow > 2 * two"
"$SLUICE" explain "$work/nano.sluice" --context 200 | grep '^  all_reduce ' > /dev/null
"$SLUICE" explain "$work/nano.sluice" --context 200 --link-latency 1000 | grep '; links limits$' > /dev/null

# M3 in bfloat16 fits eight MI300X, as one model, and four in no way. Layouts that heads do not allow say why.
"$SLUICE" explain "$m3" --product mi300x --parallel auto --sequences 64 --context 8192 --json > "$work/auto" 2> /dev/null
python3 - "$work/auto" << 'END'
import json, sys
auto = json.load(open(sys.argv[1]))
layouts = {l["layout"]: l for l in auto["layouts"]}
assert list(layouts) == ["tp=1", "tp=2", "tp=4", "tp=8"] and auto["best"] == "tp=8", auto
assert [l["fits"] for l in layouts.values()] == [False, False, False, True]
assert all(l["ranks"] * l["copies"] == 8 for l in layouts.values())
# 428e9 parameters in two bytes; of the eighth's weights, some are on every rank
assert 845e9 < layouts["tp=1"]["weights"] < 860e9 and 106e9 < layouts["tp=8"]["weights"] < 110e9
assert layouts["tp=1"]["links_us"] == 0 < layouts["tp=2"]["links_us"]
for l in layouts.values():
    parts = l["memory_us"] + l["arithmetic_us"] + l["links_us"]
    assert abs(l["step_us"] - parts) < 0.01 and abs(l["tokens_second"] * l["step_us"] / 64e6 - 1) < 1e-3
END
"$SLUICE" explain "$m3" --product mi300x --parallel auto --devices 4 --context 8192 > "$work/auto" 2> /dev/null
grep -q '^none fits' "$work/auto"
"$SLUICE" explain "$m3" --product mi355x --parallel auto --devices 12 --context 8192 > "$work/auto" 2> /dev/null
grep -q '^  tp=3 .* refused: 64 query heads and 4 kv heads do not go evenly into 3 ranks; possible: 2, 4, 8' "$work/auto"
grep -q '^most tokens/s that fit: tp=4, 3 of them$' "$work/auto"

expect 2 "--product is missing, but --parallel needs one of h100" "$m3" --parallel auto
expect 2 "--product is 'h900', but --parallel needs one of h100" "$m3" --parallel tp=8 --product h900
expect 2 "--devices goes with --parallel auto alone" "$m3" --parallel tp=8 --devices 8 --product h100
expect 2 "--parallel is 'tp8', expected" "$m3" --parallel tp8 --product h100
expect 2 "is a bundle, which has its layout: leave out --parallel" "$work/nano.sluice" --parallel tp=2 --product h100
expect 1 "do not go evenly into 3 ranks" "$m3" --parallel tp=3 --product h100
expect 1 "at most 1048576 tokens of context" "$m3" --parallel auto --product h100 --context 2000000
expect 1 "expected at least one" "$m3" --parallel auto --product h100 --sequences 4 --tokens 3

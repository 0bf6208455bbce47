#!/usr/bin/env bash
# A second reader, written from the format's description, sees the same bundle; equal inputs give equal bytes; a changed or
# missing byte is found.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nano=$SLUICE_SOURCE/tests/golden/nano

targets=host:x86-64,host:x86-64-v3
"$SLUICE" compile "$nano" --target "$targets" -o "$work/a.sluice" 2> /dev/null
mkdir "$work/elsewhere"
cp "$nano/config.json" "$work/elsewhere"
(cd "$work/elsewhere" && LC_ALL=C TZ=UTC "$SLUICE" compile . --target "$targets" -o b.sluice 2> /dev/null)
cmp "$work/a.sluice" "$work/elsewhere/b.sluice"

"$SLUICE" inspect "$work/a.sluice" --json > "$work/inspect.json"
python3 "$SLUICE_SOURCE/tests/data/read_bundle.py" "$work/a.sluice" "$work/inspect.json"
"$SLUICE" compile "$nano" --target host:x86-64 --parallel tp=4 -o "$work/ranks.sluice" 2> /dev/null
"$SLUICE" inspect "$work/ranks.sluice" --json > "$work/ranks.json"
python3 "$SLUICE_SOURCE/tests/data/read_bundle.py" "$work/ranks.sluice" "$work/ranks.json"
"$SLUICE" explain "$work/a.sluice" --json --context 512 --bandwidth 50 | python3 -m json.tool > /dev/null

# refused FILE: both programs refuse it in one line.
refused() {
  for command in "$SLUICE inspect $1" "$SLUICE_RUN memory $1"; do
    code=0
    $command > "$work/out" 2> "$work/err" || code=$?
    [ "$code" -eq 1 ] || { echo "exit code $code: $2"; exit 1; }
    [ "$(wc -l < "$work/err")" -eq 1 ] || { echo "not one line: $2"; cat "$work/err"; exit 1; }
  done
}
size=$(stat -c %s "$work/a.sluice")
count=0
for ((i = 0; i < 60; i++)); do
  at=$((i < 20 ? i * 7 : (i * 7919 * 131) % size))
  cp "$work/a.sluice" "$work/c.sluice"
  byte=$(od -An -tu1 -j "$at" -N 1 "$work/a.sluice")
  printf "\\x$(printf %02x $((byte ^ (1 << i % 8))))" | dd of="$work/c.sluice" bs=1 seek="$at" conv=notrunc status=none
  refused "$work/c.sluice" "byte $at changed"
  count=$((count + 1))
done
for ((i = 0; i < 20; i++)); do
  head -c $((size * i / 20)) "$work/a.sluice" > "$work/c.sluice"
  refused "$work/c.sluice" "cut at $((size * i / 20))"
  count=$((count + 1))
done
echo "$count damaged bundles refused"

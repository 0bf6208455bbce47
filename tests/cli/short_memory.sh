#!/usr/bin/env bash
# `sluice compile` with too little memory, at limits from where it starts at all to where it works: exit 1 and a line
# that says so, never a signal or a bug, and no file.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
limited() { # KILOBYTES COMMAND...
  (
    ulimit -v "$1"
    shift
    exec "$@"
  )
}
starts() { limited "$1" "$SLUICE" --version > "$work/version" 2>&1; }
if ! starts 2000000; then
  echo "skipped: this build needs more address space than a limit leaves"
  exit 0
fi
low=50000 high=2000000 # does not start, starts
while [ $((high - low)) -gt 500 ]; do
  middle=$(((low + high) / 2))
  if starts $middle; then high=$middle; else low=$middle; fi
done
short=0
for more in 500 900 1300 1700 2500 3300 4100 5000 6000 8000 10000 14000 18000 24000 30000 40000 50000; do
  code=0
  limited $((high + more)) "$SLUICE" compile "$SLUICE_SOURCE/tests/configs/MiniMax-M3" --target host:x86-64-v3 \
    -o "$work/m3.sluice" 2> "$work/err" || code=$?
  [ $code = 0 ] && break
  if [ $code != 1 ] || ! grep -q "^error: .*out of memory" "$work/err" || [ -e "$work/m3.sluice" ]; then
    echo "with $((high + more)) kB: exit $code"
    cat "$work/err"
    exit 1
  fi
  short=$((short + 1))
done
[ $short -ge 5 ] || { echo "only $short limits were too low"; exit 1; }
[ "$(ls "$work")" = "$(printf 'err\nversion')" ] || [ $code = 0 ]
echo "$short limits were too low, each said so"

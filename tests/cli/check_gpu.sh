#!/usr/bin/env bash
# examples/check-gpu.sh: says what is missing in words, and on an emulated MI300X checks nano and writes a report.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
check=$SLUICE_SOURCE/examples/check-gpu.sh

# lacks 'MESSAGE' ARGUMENT...: exit code 2, that message, no report.
lacks() {
  local message=$1 code=0
  shift
  "$check" --report "$work/report" "$@" > "$work/out" 2> "$work/err" || code=$?
  [ $code = 2 ] || { echo "$*: exit $code, expected 2"; cat "$work/err"; exit 1; }
  grep -qF -- "$message" "$work/err" || { echo "$*: expected '$message' in:"; cat "$work/err"; exit 1; }
  [ ! -e "$work/report" ]
}
lacks 'no device given'
lacks "found 'gpu', expected hip:N or cuda:N" gpu
lacks "$work/sluice is not there" hip:0 --build "$work"
lacks 'hip:77 does not open' hip:77 --build "$SLUICE_BUILD"
lacks 'cuda:77 does not open' cuda:77 --build "$SLUICE_BUILD"

# Under sanitizers the rest would take minutes.
case $SLUICE_BUILD in *sanitize*) exit 0 ;; esac
LD_LIBRARY_PATH=$SLUICE_BUILD/emulated_hip EMULATED_GPU=gfx942 "$check" hip:0 --quick --build "$SLUICE_BUILD" --report "$work/report" \
  > "$work/out" || { cat "$work/out" "$work/report"; exit 1; }
grep -q '^verify nano bfloat16 .*passed' "$work/out"
grep -q '^target *hip:gfx942, float32' "$work/report"
[ "$(tail -1 "$work/report")" = '4 passed, 0 failed' ]

#!/usr/bin/env bash
# Checks a GPU and writes one report file to send back: small models against their golden files in float32 and bfloat16,
# and times of kernels at the real model's shapes. Needs a built tree, no checkpoint.
#
#   examples/check-gpu.sh hip:0      # AMD MI300X, MI325X, MI355X; ROCm's libamdhip64.so
#   examples/check-gpu.sh cuda:0     # NVIDIA H100, H200
#
# Options: --build DIR (build/release), --report FILE (sluice-report-DEVICE.txt), --quick (nano alone, no times).
# Exit code: 0 everything passed, 1 a check failed, 2 something is missing.
set -uo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
device='' build=$source/build/release report='' quick=0
missing() { # WHAT, WHAT TO DO
  printf 'check-gpu: %s\n' "$@" >&2
  exit 2
}
while [ $# -gt 0 ]; do
  case $1 in
    --build | --report)
      [ $# -ge 2 ] || missing "$1 needs a value"
      [ "$1" = --build ] && build=$2 || report=$2
      shift ;;
    --quick) quick=1 ;;
    hip:* | cuda:*) device=$1 ;;
    *) missing "found '$1', expected hip:N or cuda:N and --build DIR, --report FILE or --quick" ;;
  esac
  shift
done
[ -n "$device" ] || missing "no device given" "use: examples/check-gpu.sh hip:0 (AMD) or cuda:0 (NVIDIA)"
: "${report:=sluice-report-${device/:/-}.txt}"
for program in sluice sluice-run; do
  [ -x "$build/$program" ] || missing "$build/$program is not there" \
    "build first: scripts/install-dependencies.sh && cmake -S . -B build/release && cmake --build build/release -j"
done
case $device in
  hip:*) targets=mi300x,mi355x library=libamdhip64 ;;
  *) targets=h100 library=libcuda ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
golden=$source/tests/golden
"$build/sluice" compile "$golden/nano" --target $targets --dtype float32 -o "$work/nano.sluice" 2> "$work/err" ||
  missing "sluice compile failed: $(cat "$work/err")"
"$build/sluice-run" memory "$work/nano.sluice" --device "$device" > "$work/memory" 2> "$work/err" ||
  missing "$device does not open: $(cat "$work/err")" "$library has to be found by the loader, and the GPU be visible to this user"

: > "$report" || missing "$report cannot be written"
passed=0 failed=0
check() { # NAME, COMMAND...: runs it, its output goes to the report
  local name=$1 start=$SECONDS code=0
  shift
  printf '%-44s' "$name"
  "$@" > "$work/out" 2>&1 || code=$?
  if [ $code = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  local verdict=passed
  [ $code = 0 ] || verdict="FAILED (exit code $code)"
  printf '%s, %d s\n' "$verdict" $((SECONDS - start))
  { echo "== $name: $verdict, $((SECONDS - start)) s"; printf '$'; printf ' %q' "$@"; echo; cat "$work/out"; echo; } >> "$report"
}
{
  echo "sluice, report of examples/check-gpu.sh on $device, $(date -u +%Y-%m-%dT%H:%M:%SZ)"
  git -C "$source" describe --always --dirty 2> /dev/null | sed 's/^/commit /'
  uname -srm
  cat "$work/memory"
  # What the vendor's own tool says, where there is one.
  case $device in
    hip:*) { amd-smi static || rocm-smi -a; } 2> /dev/null | head -200 ;;
    *) nvidia-smi -q 2> /dev/null | head -200 ;;
  esac
  echo
} >> "$report"

models='nano blocks'
[ $quick = 0 ] || models=nano
for model in $models; do
  for dtype in float32 bfloat16; do
    check "compile $model $dtype" "$build/sluice" compile "$golden/$model" --target $targets --dtype $dtype -o "$work/$model.sluice"
    check "verify $model $dtype" "$build/sluice-run" verify "$work/$model.sluice" --weights synthetic:1 \
      --golden "$golden/$model/golden.float32.safetensors" --device "$device"
  done
done
if [ $quick = 0 ]; then
  check "compile the shapes of MiniMax-M3" "$build/sluice" compile "$source/tests/bench/m3-step.json" --target $targets --dtype bfloat16 \
    -o "$work/m3.sluice"
  for shape in seqs=1,context=8K seqs=8,context=128K; do
    check "times, $shape" "$build/sluice-run" bench "$work/m3.sluice" --device "$device" --shape $shape --json
  done
fi
echo "$passed passed, $failed failed" | tee -a "$report"
echo "the report is $report"
[ $failed = 0 ]

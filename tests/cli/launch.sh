#!/usr/bin/env bash
# A model that several ranks share, as a user runs it: the same tokens as one device, started by launch and by another
# launcher's variables; ranks that are killed, stopped or different; command lines that make no sense.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
config=$SLUICE_SOURCE/tests/golden/nano/config.json
fail() {
  echo "$1"
  cat err
  exit 1
}

echo "5 6 7 8 9 100 200 300 17 31 5 6" > ids
"$SLUICE" compile "$config" --dtype float32 -o 1.sluice 2> err
for n in 2 4 8; do "$SLUICE" compile "$config" --dtype float32 --parallel "tp=$n" -o "$n.sluice" 2> err; done
"$SLUICE" compile "$config" --dtype bfloat16 --parallel tp=2 -o 2b.sluice 2> err
common=(--weights synthetic:1 --ids ids --threads 1)
"$SLUICE_RUN" generate 1.sluice "${common[@]}" --max-new 12 > expected
for n in 2 4 8; do
  "$SLUICE_RUN" launch -n "$n" -- generate "$n.sluice" "${common[@]}" --max-new 12 > found 2> err || fail "tp=$n failed"
  cmp expected found || fail "tp=$n: other tokens"
  [ ! -s err ] || fail "tp=$n: something was said"
done
# Drawn tokens: every rank draws the same.
sampled=(--temperature 1 --seed 7 --max-new 12)
"$SLUICE_RUN" generate 1.sluice "${common[@]}" "${sampled[@]}" > drawn
"$SLUICE_RUN" launch -n 2 generate 2.sluice "${common[@]}" "${sampled[@]}" > found
cmp drawn found
# A checkpoint in files: each rank reads its slices.
"$SLUICE" synth "$config" --seed 1 -o checkpoint > /dev/null
"$SLUICE_RUN" launch -n 4 generate 4.sluice --weights checkpoint --ids ids --threads 1 --max-new 12 > found
cmp expected found

# Two processes with the variables of torchrun, over TCP on loopback, with a secret.
head -c 32 /dev/urandom > secret
chmod 600 secret
port=$((20000 + $$ % 20000))
rank() {
  RANK=$1 WORLD_SIZE=2 LOCAL_RANK=$1 "$SLUICE_RUN" generate "$2" "${common[@]}" --max-new "$3" \
    --leader "127.0.0.1:$port" --secret secret "${@:4}" > "out.$1" 2> "err.$1"
}
rank 0 2.sluice 12 & first=$!
rank 1 2.sluice 12
wait $first
cmp expected out.0
cmp expected out.1
grep -q 'rank 1 of 2 (on this machine 1), as torchrun says; rank 0 is at 127.0.0.1 port' err.1
# Other bundles on both: named, on both.
port=$((port + 1))
rank 0 2.sluice 4 & first=$!
if rank 1 2b.sluice 4; then fail "different bundles were taken"; fi
if wait $first; then fail "different bundles were taken by rank 0"; fi
for r in 0 1; do grep -q '^error: .*bundle' "err.$r" || fail "$(cat "err.$r"): no word of the bundle"; done

# A rank that is killed or stopped in the middle: all end, with a line that names it. The name of a rank's process tells.
find_rank_1() { # child of $1
  local stat
  for stat in $(grep -lx 'sluice rank 1' /proc/[0-9]*/comm 2> /dev/null || true); do
    stat=${stat%comm}stat
    if [ "$(sed 's/.*) . //; s/ .*//' "$stat" 2> /dev/null)" = "$1" ]; then
      stat=${stat#/proc/}
      echo "${stat%/stat}"
    fi
  done
}
hunt() {
  "$SLUICE_RUN" launch -n 2 generate 2.sluice "${common[@]}" --ignore-eos --max-new 8000 --rank-deadline 2 > found 2> err &
  local launcher=$! victim=
  for _ in $(seq 600); do
    victim=$(find_rank_1 "$launcher")
    [ -n "$victim" ] && break
    sleep 0.1
  done
  [ -n "$victim" ] || fail "no rank 1 was found"
  sleep 1
  kill "-$1" "$victim"
  local code=0
  wait "$launcher" || code=$?
  [ "$code" -eq 1 ] || fail "exit code $code after SIG$1"
}
hunt KILL
grep -q 'rank 1 ended in step' err || fail "the killed rank is not named"
grep -q 'rank 1 was killed by signal 9' err || fail "the signal is not named"
hunt STOP
grep -q 'rank 1 hangs' err || fail "the stopped rank is not named"

refused() {
  local code=0
  "$SLUICE_RUN" "${@:3}" > found 2> err || code=$?
  [ "$code" -eq "$1" ] || fail "exit code $code, expected $1: ${*:3}"
  grep -qF -- "$2" err || fail "no word of \"$2\": ${*:3}"
  [ "$(grep -c '^error: ' err)" -eq 1 ] || fail "not one error: ${*:3}"
}
refused 1 'was compiled for 2 ranks that share the model, but is opened by 1: start 2' generate 2.sluice "${common[@]}"
refused 1 'was compiled for 2 ranks that share the model, but is opened by 4' launch -n 4 generate 2.sluice "${common[@]}"
refused 1 'was compiled for one device, but 2 ranks open it' launch -n 2 generate 1.sluice "${common[@]}"
refused 2 'launch runs generate; "verify" is not for several ranks yet' launch -n 2 verify 2.sluice
refused 2 'no command to launch' launch -n 2
refused 2 '-n must lie in 1 .. 64' launch generate 2.sluice
refused 2 '-n must lie in 1 .. 64' launch -n 65 generate 2.sluice
refused 2 'from a file, not from standard input' launch -n 2 generate 2.sluice --weights synthetic:1 --ids -
refused 2 '--dump and --trace are not for several ranks' launch -n 2 generate 2.sluice "${common[@]}" --trace t.json
refused 2 'are for several machines' launch -n 2 generate 2.sluice "${common[@]}" --secret secret
"$SLUICE_RUN" launch --help | grep -q 'usage: sluice-run launch -n N'

#!/usr/bin/env bash
# synth and long runs that fail or are interrupted: a checkpoint that was there stays whole, nothing else stays.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nano=$SLUICE_SOURCE/tests/golden/nano
cd "$work"
synth=("$SLUICE" synth "$nano")
fail() {
  echo "$1"
  cat err 2> /dev/null
  find . -name '.sluice-*'
  exit 1
}
kept() { # DIRECTORY: as `before` says, and with no other file
  sha256sum --check --quiet before || fail "$1 was changed"
  [ "$(find "$1" -type f | wc -l)" = "$(wc -l < before)" ] || fail "$1 has other files"
}

# A failure in the middle, with a checkpoint in shards and one in a single file, by one and by several new files.
"${synth[@]}" --seed 1 -o shards --shard-size 400000 2> err
"${synth[@]}" --seed 1 -o single 2> err
for directory in shards single; do
  sha256sum $directory/* > before
  for options in "--seed 2" "--seed 2 --shard-size 700000" "--seed 2 --shard-size 400000"; do
    code=0
    read -ra words <<< "$options"
    (ulimit -f 300 && exec "${synth[@]}" "${words[@]}" -o $directory) 2> err || code=$? # in kB: less than some shard
    [ $code = 1 ] && grep -q "File too large" err || fail "synth beyond the limit: exit $code"
    kept $directory
  done
done

# What is read is not written.
mkdir model
cp "$nano/config.json" model/
sha256sum model/* > before
code=0
"$SLUICE" synth model --seed 1 -o model 2> err || code=$?
[ $code = 2 ] && grep -q "which is read" err || fail "synth into its own model: exit $code"
kept model
mkdir linked
ln -s ../model/config.json linked/config.json
code=0
"$SLUICE" synth model/config.json --seed 1 -o linked 2> err || code=$?
[ $code = 2 ] && grep -q "which is read" err || fail "synth through a link: exit $code"
kept model

# What the new checkpoint replaces is gone, and the old one is not mixed with it.
"${synth[@]}" --seed 1 -o shards 2> err
[ ! -e shards/model.safetensors.index.json ]
cmp shards/model.safetensors single/model.safetensors

# Signals. M3 has 850 GB, so it is always in the middle.
cat > interrupt.py << 'PYTHON'
"""interrupt.py SIGNAL PATTERN COMMAND...: starts it, waits for a file of PATTERN, sends the signal, prints its end."""
import glob, signal, subprocess, sys, time
number, pattern = getattr(signal, sys.argv[1]), sys.argv[2]
process = subprocess.Popen(sys.argv[3:], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
while not glob.glob(pattern) and process.poll() is None:
    time.sleep(0.01)
process.send_signal(number)
print(-process.wait() == number)
PYTHON
sha256sum shards/* > before
for number in SIGINT SIGTERM SIGHUP SIGQUIT SIGXCPU; do
  ended=$(ulimit -c 0 && python3 interrupt.py $number 'shards/.sluice-*' "$SLUICE" synth \
    "$SLUICE_SOURCE/tests/configs/MiniMax-M3" --seed 1 -o shards)
  [ "$ended" = True ] || fail "synth did not end by $number"
  kept shards
done
ended=$(python3 interrupt.py SIGTERM 'made/.sluice-*' "$SLUICE" synth "$SLUICE_SOURCE/tests/configs/MiniMax-M3" \
  --seed 1 -o made)
[ "$ended" = True ] && [ ! -e made ] || fail "synth left its directory"

# A trace that waits for its run, which waits for its prompt.
"$SLUICE" compile "$nano" --target host:x86-64-v2 -o nano.sluice 2> err
mkfifo prompt
mkdir traces
for number in SIGINT SIGTERM; do
  ended=$(python3 interrupt.py $number 'traces/.sluice-*' "$SLUICE_RUN" generate nano.sluice --weights synthetic:1 \
    --ids prompt --trace traces/trace.json)
  [ "$ended" = True ] && [ -z "$(ls -A traces)" ] || fail "generate --trace after $number"
done

# An ignored signal stays ignored (nohup).
(trap '' HUP && exec "$SLUICE_RUN" generate nano.sluice --weights synthetic:1 --ids prompt --max-new 1 --trace trace.json) > out &
runner=$!
while ! compgen -G '.sluice-*' > /dev/null; do sleep 0.05; done
kill -HUP $runner
echo 1 2 3 > prompt
wait $runner
[ -s trace.json ]
if compgen -G "$work/.sluice-*" > /dev/null; then fail "left over"; fi

#!/usr/bin/env bash
# Where output goes: through links, into devices and pipes, never over an input or another output; closed and full
# standard streams; signals and limits in the middle of writing. Every file that this test names is its own.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nano=$SLUICE_SOURCE/tests/golden/nano
cd "$work"
compile=("$SLUICE" compile "$nano" --target host:x86-64-v2 --emit model-ir) # the shortest way to a file
generate=("$SLUICE_RUN" generate nano.sluice --weights synthetic:1 --ids ids --max-new 2)
echo 1 17 42 > ids
"$SLUICE" compile "$nano" --target host:x86-64-v2 -o nano.sluice 2> err
"${compile[@]}" -o model.mlir 2> err

fail() {
  echo "$1"
  cat out err 2> /dev/null
  exit 1
}
fails() { # CODE TEXT COMMAND...
  local wanted=$1 text=$2 code=0
  shift 2
  "$@" > out 2> err || code=$?
  [ "$code" = "$wanted" ] && grep -qF -- "$text" err || fail "$*: exit $code, expected $wanted with '$text', got:"
}
nothing_left() {
  if compgen -G "$work/.sluice-*" > /dev/null || compgen -G "$work/*/.sluice-*" > /dev/null; then fail "left over: $1"; fi
}

# Links are followed, relative and dangling ones too; the link stays, and the mode of the file.
mkdir real links
echo old > real/a
chmod 640 real/a
ln -s ../real/a links/a
ln -s a links/a2
ln -s ../real/b links/b
for name in a2 b; do "${compile[@]}" -o links/$name 2> err; done
[ -L links/a ] && [ -L links/a2 ] && [ -L links/b ] && [ ! -L real/a ]
cmp real/a model.mlir
cmp real/b model.mlir
[ "$(stat -c %a real/a)" = 640 ]
ln -s loop loop
fails 1 "loop: cannot be created" "${compile[@]}" -o loop
fails 1 "real: cannot be created: Is a directory" "${compile[@]}" -o real
mkfifo pipe
for option in --dump --trace; do
  ln -sf "$work/real/c" links/c
  "${generate[@]}" $option links/c > out
  [ -L links/c ] && [ -s real/c ]
  rm real/c
done

# What is no regular file is written in place: devices stay devices, a pipe gets the bytes.
"${compile[@]}" -o /dev/null 2> err
"${generate[@]}" --dump /dev/null --trace /dev/null > out
[ -c /dev/null ]
ln -s /dev/null null.o # a header would lie beside it
for name in /dev/null /dev/stdout null.o pipe; do
  fails 2 "$name is no regular file" "$SLUICE" compile "$nano" --target host:x86-64-v2 --emit=object -o $name
done
[ ! -e /dev/null.h ] && [ ! -e /dev/stdout.h ] && [ ! -e null.h ] && [ ! -e pipe.h ] && [ -L null.o ]
if (mknod null c 1 3 && : > null) 2> /dev/null; then # root, where device nodes are allowed
  "${compile[@]}" -o null 2> err
  "${generate[@]}" --dump null --trace null > out
  [ -c null ]
fi
ln -s /dev/null sink
"${generate[@]}" --dump sink > out
[ -L sink ] && [ -c /dev/null ]
cat pipe > piped &
"${compile[@]}" -o pipe 2> err
wait $!
[ -p pipe ]
cmp piped model.mlir
"${compile[@]}" -o /dev/stdout 2> err | cmp - model.mlir
"${compile[@]}" -o /dev/stdout 2> err > redirected
cmp redirected model.mlir
{ echo first; "${compile[@]}" -o /dev/fd/3 3>&1 2> err; } > redirected
tail -c +7 redirected | cmp - model.mlir
fails 1 "No space left on device" "${compile[@]}" -o /dev/full
fails 1 "No space left on device" "${generate[@]}" --trace /dev/full

# An output that is an input, or another output, is refused before anything is written.
"$SLUICE" synth "$nano" --seed 1 -o weights 2> err
mkdir model
cp "$nano/config.json" model/
ln -s ids ids.link
ln ids ids.hard
ln -s new.json new.link
ln -s . here
sha256sum ids nano.sluice model.mlir model/* weights/* > before
fails 2 "which is read" "${generate[@]}" --dump ids
fails 2 "which is read" "${generate[@]}" --trace ids.link
fails 2 "which is read" "${generate[@]}" --trace ids.hard
fails 2 "which is read" "${generate[@]}" --dump nano.sluice
fails 2 "which is read" "${generate[@]}" --weights weights --dump weights/model.safetensors
fails 2 "which is read" "${generate[@]}" --weights weights/model.safetensors --dump weights/model.safetensors
fails 2 "which is read" "$SLUICE_RUN" verify nano.sluice --weights synthetic:1 --golden ids --trace ids
fails 2 "are one file" "${generate[@]}" --dump new.json --trace new.json
fails 2 "are one file" "${generate[@]}" --dump new.json --trace new.link
fails 2 "are one file" "${generate[@]}" --dump here/new.json --trace ./new.json
fails 2 "are one file" "${generate[@]}" --dump "$work/links/../new.json" --trace new.json
fails 2 "which is read" "$SLUICE" opt model.mlir -o model.mlir
fails 2 "which is read" "$SLUICE" compile model --target host:x86-64-v2 -o model/config.json
fails 2 "which is read" "$SLUICE" compile model/config.json --target host:x86-64-v2 -o here/model/config.json
code=0
"${generate[@]}" --dump both > both 2> err || code=$?
[ $code = 2 ] && grep -q "standard output" err || fail "an output that is standard output"
sha256sum --check --quiet before
[ ! -e new.json ]
"${generate[@]}" --weights weights --dump weights/other.dump > out # a new file beside what is read
nothing_left "refusals"

# Names as long as the file system takes.
long=$(printf 'n%.0s' $(seq 255))
"${compile[@]}" -o "$long" 2> err
cmp "$long" model.mlir
"${generate[@]}" --dump "$long" > out
fails 1 "File name too long" "${compile[@]}" -o "${long}n"
mkdir closed
chmod 500 closed
if ! : 2> /dev/null > closed/x; then fails 1 "closed/x: cannot be created" "${compile[@]}" -o closed/x; fi
echo kept > kept
chmod 400 kept
if ! : 2> /dev/null >> kept; then fails 1 "kept: cannot be created: Permission denied" "${compile[@]}" -o kept; fi

# Standard streams that are closed are not given to the next file that is opened.
"$SLUICE" compile "$nano" --target host:x86-64-v2 -o closed.sluice <&- >&- 2>&-
cmp closed.sluice nano.sluice
"${generate[@]}" > expected
code=0
"${generate[@]}" --trace closed.json >&- 2> err || code=$?
[ $code = 1 ] && grep -q "cannot write to standard output" err || fail "generate without standard output: exit $code"
"${generate[@]}" --trace closed.json 2>&- > out
cmp out expected
python3 -m json.tool closed.json > /dev/null
code=0
"${generate[@]}" --ids - --trace closed.json <&- > out 2> err || code=$?
[ $code = 1 ] && grep -q "cannot read" err || fail "generate without standard input: exit $code"
code=0
"$SLUICE_RUN" generate none.sluice --weights synthetic:1 --ids ids --dump closed.dump 2>&- > out || code=$?
[ $code = 1 ] && [ ! -e closed.dump ]

# What standard output does not take is an error of every command; a closed pipe is no silent death.
"$SLUICE" compile "$nano" --target host:x86-64-v2 --dtype float32 -o exact.sluice 2> err
golden=$nano/golden.float32.safetensors
# the reader of a closed pipe must be gone before the writer starts
lost_pipe() {
  local code=0
  python3 - "$@" 2> err << 'PYTHON' || code=$?
import os, subprocess, sys
reader, writer = os.pipe()
os.close(reader)
sys.exit(subprocess.run(sys.argv[1:], stdout=writer).returncode & 255)
PYTHON
  [ $code = 1 ] && grep -q "standard output" err || fail "$* into a closed pipe: exit $code"
}
for command in "$SLUICE --help" "$SLUICE --version" "$SLUICE compile --help" "$SLUICE opt model.mlir" \
  "$SLUICE compile $nano --target host:x86-64-v2 --emit model-ir -o -" "$SLUICE inspect nano.sluice" \
  "$SLUICE inspect nano.sluice --json" "$SLUICE explain nano.sluice" "$SLUICE_RUN --help" "$SLUICE_RUN --version" \
  "$SLUICE_RUN bench --help" "$SLUICE_RUN memory nano.sluice" "$SLUICE_RUN memory nano.sluice --json" \
  "$SLUICE_RUN generate nano.sluice --weights synthetic:1 --ids ids --max-new 2" \
  "$SLUICE_RUN generate nano.sluice --weights synthetic:1 --ids ids --max-new 2 --json" \
  "$SLUICE_RUN verify exact.sluice --weights synthetic:1 --golden $golden" \
  "$SLUICE_RUN bench nano.sluice --kernel decode.mlp --repeat 1 --memory-rate 40"; do
  read -ra words <<< "$command"
  code=0
  "${words[@]}" > /dev/full 2> err || code=$?
  [ $code = 1 ] && grep -q "standard output" err || fail "$command > /dev/full: exit $code"
  lost_pipe "${words[@]}"
done
nothing_left "lost output"

# A limit on the size of files is an error with a message, and leaves what was there.
limited=(bash -c 'ulimit -f 8 && exec "$@"' limited)
fails 1 "File too large" "${limited[@]}" "${generate[@]}" --dump kept.dump
[ ! -e kept.dump ]
cp ids kept.trace
fails 1 "File too large" "${limited[@]}" "${generate[@]}" --trace kept.trace
cmp ids kept.trace
# Whichever of the program, the linker and the bundle is too large for it: one line, and no report of a crash.
for blocks in 8 20 30 40 50 60 70 80; do
  code=0
  bash -c 'ulimit -f "$0" && exec "$@"' $blocks "$SLUICE" compile "$nano" --target host:x86-64-v2 -o kept.bundle > out \
    2> err || code=$?
  [ $code = 1 ] && [ "$(grep -vc ': note: ' err)" = 1 ] && grep -qE "^error: .*(File too large|ulimit -f)" err ||
    fail "ulimit -f $blocks: exit $code"
done
fails 1 "" "${limited[@]}" "$SLUICE" synth "$nano" --seed 1 -o kept.weights
[ ! -e kept.weights ] && [ ! -e kept.bundle ]
nothing_left "limits"
fails 1 "File too large" bash -c 'ulimit -f 100 && exec "$@"' limited "$SLUICE" compile "$nano" --target host:x86-64-v2 \
  -o kept.bundle --save-temps temps
[ -s temps/host-x86-64-v2/kernel.mlir ]
[ ! -e temps/host-x86-64-v2/kernels.ll ]
if compgen -G "temps/*/.sluice-*" > /dev/null; then fail "left over in the directory of --save-temps"; fi

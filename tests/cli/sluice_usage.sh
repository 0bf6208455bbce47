#!/usr/bin/env bash
# The command line of sluice: help, wrong usage, exit codes; man page and completion agree with --help.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# expect CODE TEXT ARGUMENTS...: exit code, and TEXT within stderr
expect() {
  local wanted=$1 text=$2 code=0
  shift 2
  "$SLUICE" "$@" > "$work/out" 2> "$work/err" || code=$?
  if [ "$code" != "$wanted" ] || { [ -n "$text" ] && ! grep -qF -- "$text" "$work/err"; }; then
    echo "sluice $*: exit $code, expected $wanted with '$text', got:"
    cat "$work/err"
    exit 1
  fi
}

expect 2 "a command is missing"
expect 2 "unknown command 'complie', did you mean 'compile'?" complie
expect 2 "unknown command 'frobnicate', see 'sluice --help'" frobnicate
expect 2 "unknown option '--taget', did you mean '--target'?" compile --taget=host x
expect 2 "unknown option '-x'" compile -x
expect 2 "option '--seed N' is needed" synth x -o y
expect 2 "MODEL_DIR|CONFIG is missing" compile --target host -o y
expect 2 "'b' is one operand too many" compile --target host -o y a b
expect 2 "option '--target' needs a value" compile a -o y --target
expect 2 "--target has an empty element" compile a -o y --target host,
expect 2 "option '--verify-each' takes no value" compile a -o y --target host --verify-each=yes
expect 2 "--max-context is '0', expected an integer of at least 1" compile a -o y --target host --max-context 0
expect 2 "--max-context is '12x'" compile a -o y --target host --max-context 12x
expect 2 "--seed is '99999999999999999999'" synth a -o y --seed 99999999999999999999
expect 2 "--dtype is 'float64', expected float32 (fp32) or bfloat16 (bf16)" compile a -o y --target host --dtype=float64
expect 2 "--emit is 'ptx', expected" compile a -o y --target host --emit=ptx
expect 2 "a bundle cannot go to standard output" compile a -o - --target host
expect 2 "--emit=asm takes one target, 2 are given" compile a -o y --target host:x86-64-v3,host:x86-64-v4 --emit=asm
expect 2 "--bandwidth is 'fast'" explain a --bandwidth fast
expect 1 "cannot open $work/none: No such file" compile "$work/none" -o y --target host
expect 1 "cannot open $work/none: No such file" opt "$work/none"
expect 0 "" --version
grep -Eq '^sluice [0-9]+\.[0-9]+\.[0-9]+ \(LLVM 22\.[0-9.]+\)$' "$work/out"
expect 0 "" --help
grep -q '^  explain' "$work/out"

# Where a full device or a closed pipe takes the output, the exit code says so.
if [ -w /dev/full ]; then
  code=0
  "$SLUICE" --help > /dev/full 2> "$work/err" || code=$?
  [ "$code" = 1 ] && grep -q "cannot write to standard output" "$work/err"
fi

# Every option of --help is in the man page's section of its command and in the completion, and the other way round.
section() { sed -n "/^\.Ss $1\$/,/^\.S[hs] /p" "$SLUICE_SOURCE/docs/man/sluice.1"; }
for command in compile synth opt inspect explain tune; do
  expect 0 "" "$command" --help
  grep -oE '^  (-., )?--[a-z-]+' "$work/out" | grep -oE -- '--[a-z-]+' | grep -vx -- --help | sort > "$work/help"
  [ -s "$work/help" ]
  section "$command" | grep -E '^\.It ' | grep -oE 'Fl -[a-z-]+' | sed 's/Fl -/--/' | sort > "$work/man"
  diff "$work/help" "$work/man" || { echo "docs/man/sluice.1 and 'sluice $command --help' differ"; exit 1; }
  # shellcheck disable=SC1090,SC1091
  (
    source "$SLUICE_SOURCE/docs/completion/sluice.bash"
    COMP_WORDS=("$SLUICE" "$command" --)
    COMP_CWORD=2
    _sluice
    printf '%s\n' "${COMPREPLY[@]}" | grep -vx -- --help | sort
  ) > "$work/completion"
  diff "$work/help" "$work/completion" || { echo "completion and 'sluice $command --help' differ"; exit 1; }
done
# shellcheck disable=SC1090,SC1091
passes=$(
  source "$SLUICE_SOURCE/docs/completion/sluice.bash"
  COMP_WORDS=("$SLUICE" opt --passes canon)
  COMP_CWORD=3
  _sluice
  printf '%s\n' "${COMPREPLY[@]}"
)
[ "$passes" = canonicalise ]

if command -v mandoc > /dev/null; then
  # the pages refer to each other, which is no fault where they are not installed
  if mandoc -Tlint "$SLUICE_SOURCE"/docs/man/*.1 | grep -v 'referenced manual not found: Xr sluice'; then exit 1; fi
fi

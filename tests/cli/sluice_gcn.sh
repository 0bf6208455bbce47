#!/usr/bin/env bash
# sluice-gcn as a user runs it: lists kernels, runs one, says in one line what is wrong with what it is given.
set -euo pipefail
gcn=$SLUICE_BUILD/sluice-gcn
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
llvm=/usr/lib/llvm-22/bin
for cpu in gfx942 gfx950; do
  "$llvm/clang" -x cl -cl-std=CL2.0 -target amdgcn-amd-amdhsa -mcpu=$cpu -nogpulib -O2 -w -c -o k.o \
    "$SLUICE_SOURCE/tests/amdgcn/kernels/common.cl"
  "$llvm/ld.lld" -shared --no-undefined k.o -o $cpu.hsaco
  "$gcn" $cpu.hsaco > list
  grep -q '^add: workgroups of 256 lanes at most, 0 bytes of LDS' list
  grep -q '^gemm_bf16: workgroups of 256 lanes at most, 5120 bytes of LDS' list
  cat > add.txt << END
kernel add
grid 4            # one for the rest
workgroup 256
buffer 1000 f32 iota
buffer 1000 f32 value 2
buffer 1000 f32 poison print 4 save sum.bin
u32 1000
END
  "$gcn" $cpu.hsaco add.txt > out
  grep -q '^buffer 2: 2 3 4 5$' out
  grep -Eq '^workgroups +4$' out
  grep -Eq '^global bytes loaded +8' out
  [ "$(stat -c %s sum.bin)" = 4000 ]
  "$gcn" $cpu.hsaco add.txt --seed=5 --profile > profile
  grep -q 'global_load_dword' profile
  cmp <(grep '^buffer' out) <(grep '^buffer' profile)
done

# refuses CODE 'MESSAGE' ARGUMENT...: one line, that exit code.
refuses() {
  local code=$1 message=$2 got=0
  shift 2
  "$gcn" "$@" > out 2> err || got=$?
  [ "$got" = "$code" ] || { echo "$*: exit $got, expected $code"; cat err; exit 1; }
  grep -qF "$message" err || { echo "$*: expected '$message' in:"; cat err; exit 1; }
  [ "$(wc -l < err)" = 1 ]
}
refuses 2 'usage: sluice-gcn'
refuses 2 'usage: sluice-gcn' gfx942.hsaco --wrong
refuses 1 'nothing.hsaco: No such file' nothing.hsaco
refuses 1 'add.txt: not a code object' add.txt
head -c 3000 gfx942.hsaco > cut.hsaco
refuses 1 'cut.hsaco: not a code object that can be loaded' cut.hsaco
sed 's/u32 1000/u32 1001/' add.txt > past.txt
refuses 1 'global memory out of bounds: 4 bytes at' gfx942.hsaco past.txt
grep -q 'workgroup (3, 0, 0), wave 3, lane 40' err
sed 's/kernel add/kernel subtract/' add.txt > unknown.txt
refuses 1 'unknown.txt:1: error: found subtract, expected a kernel of the file' gfx942.hsaco unknown.txt
sed 's/u32 1000/u64 1000/' add.txt > wide.txt
refuses 1 'wide.txt:7: error: argument 3 (without a name) has 4 bytes; found one of 8' gfx942.hsaco wide.txt
sed '/u32/d' add.txt > few.txt
refuses 1 'few.txt has 3 arguments; the kernel takes 4' gfx942.hsaco few.txt
sed 's/workgroup 256/workgroup 2048/' add.txt > large.txt
refuses 1 'it is built for 256 at most' gfx942.hsaco large.txt

#!/usr/bin/env bash
# sluice keygen and sign, sluice-run --trust: with our own keys and OpenSSL's, checked by OpenSSL; and everything that
# must be refused before any code of the bundle runs.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() {
  echo "$1"
  cat out err 2> /dev/null
  exit 1
}
refused() { # CODE TEXT COMMAND...
  local wanted=$1 text=$2 code=0
  shift 2
  "$@" > out 2> err || code=$?
  [ "$code" = "$wanted" ] && grep -qF -- "$text" err && [ ! -s out ] || fail "$*: exit $code, expected $wanted with '$text'"
}
check() { python3 "$SLUICE_SOURCE/tests/data/check_signature.py" "$@"; }

"$SLUICE" compile "$SLUICE_SOURCE/tests/golden/nano" --target host,host:x86-64-v2 -o plain.sluice 2> err
echo 1 17 42 > ids
generate=(generate --weights synthetic:1 --ids ids --max-new 4)
"$SLUICE_RUN" "${generate[@]}" plain.sluice > tokens

# Python loads the library: one with sanitizers wants theirs to come first.
preload=
! grep -q __asan_init "$SLUICE_BUILD/libsluice_runtime.so" || preload=$(gcc -print-file-name=libasan.so)
LD_PRELOAD=$preload python3 "$SLUICE_SOURCE/tests/data/compare_ed25519.py" "$SLUICE_BUILD/libsluice_runtime.so"

# Keys: secret, never replaced.
umask 022
"$SLUICE" keygen key
[ "$(stat -c %a key key.pub | paste -sd,)" = 600,644 ]
openssl pkey -in key -pubout | cmp - key.pub
sha256sum key key.pub > before
refused 1 "key: cannot be created: File exists" "$SLUICE" keygen key
mv key other
refused 1 "key.pub: cannot be created: File exists" "$SLUICE" keygen key
[ ! -e key ]
mv other key
sha256sum --check --quiet before
"$SLUICE" keygen other
if cmp -s key other; then fail "two equal keys"; fi
openssl genpkey -algorithm ed25519 -out openssl.key
openssl pkey -in openssl.key -pubout -out openssl.pub
openssl genpkey -algorithm ed448 -out ed448.key
openssl pkey -in ed448.key -pubout -out ed448.pub

# Signing: the same bytes each time, the bundle itself untouched, again with another key; OpenSSL agrees.
for k in key openssl.key; do
  cp plain.sluice $k.sluice
  "$SLUICE" sign $k.sluice --key $k
  cp $k.sluice again.sluice
  "$SLUICE" sign again.sluice --key $k
  cmp $k.sluice again.sluice
  openssl pkey -in $k -pubout -out $k.public
  check $k.sluice $k.public plain.sluice
  for command in "${generate[*]}" "memory"; do
    read -ra words <<< "$command"
    "$SLUICE_RUN" "${words[@]}" $k.sluice --trust $k.public > out
  done
  "$SLUICE_RUN" "${generate[@]}" $k.sluice --trust $k.public | cmp - tokens
  "$SLUICE_RUN" "${generate[@]}" $k.sluice | cmp - tokens
done
cp key.sluice again.sluice
"$SLUICE" sign again.sluice --key openssl.key
cmp again.sluice openssl.key.sluice
"$SLUICE" inspect key.sluice | grep "signed, as it says, with [0-9a-f]\{64\}" > out
"$SLUICE" inspect key.sluice --json | python3 -c 'import json, sys; assert len(json.load(sys.stdin)["signing_key"]) == 64'
"$SLUICE" inspect plain.sluice --json | python3 -c 'import json, sys; assert json.load(sys.stdin)["signing_key"] is None'

# What --trust refuses, by every command.
for command in "${generate[*]}" "memory" "bench --kernel decode.mlp" "verify --weights synthetic:1 --golden $SLUICE_SOURCE/tests/golden/nano/golden.bfloat16.safetensors"; do
  read -ra words <<< "$command"
  refused 1 "is not signed" "$SLUICE_RUN" "${words[@]}" plain.sluice --trust key.pub
  refused 1 "another key" "$SLUICE_RUN" "${words[@]}" key.sluice --trust other.pub
done
trusted() { refused 1 "$1" "$SLUICE_RUN" memory "$2" --trust key.pub; }
refused 1 "is the private key" "$SLUICE_RUN" memory key.sluice --trust key
refused 1 "no Ed25519 public key" "$SLUICE_RUN" memory key.sluice --trust ed448.pub
refused 1 "no Ed25519 public key" "$SLUICE_RUN" memory key.sluice --trust ids
refused 1 "nowhere" "$SLUICE_RUN" memory key.sluice --trust nowhere
refused 1 "is the public key" "$SLUICE" sign plain.sluice --key key.pub
refused 1 "no Ed25519 private key" "$SLUICE" sign plain.sluice --key ed448.key
refused 2 "--key" "$SLUICE" sign plain.sluice
cp ids broken.sluice
refused 1 "not a bundle" "$SLUICE" sign broken.sluice --key key
cmp ids broken.sluice

# A maker who knows the format: every digest fits, the signature does not.
python3 - << 'PYTHON'
import hashlib, struct
signed = open("key.sluice", "rb").read()
count = struct.unpack_from("<I", signed, 12)[0]
entry = lambda i: 32 + 88 * i

def fix(data):
    """The digests of plans in code, of all sections, and of the header."""
    plans = {}
    for i in range(struct.unpack_from("<I", data, 12)[0]):
        kind, _, offset, length = struct.unpack_from("<IIQQ", data, entry(i))
        target = bytes(data[entry(i) + 56 : entry(i) + 88])
        if kind == 2:
            plans[target] = hashlib.sha256(data[offset : offset + length]).digest()
        if kind in (3, 4):
            data[offset + length - 32 : offset + length] = plans[target]
        data[entry(i) + 24 : entry(i) + 56] = hashlib.sha256(data[offset : offset + length]).digest()
    data[4064:4096] = hashlib.sha256(data[:4064]).digest()
    return data

def write(name, data):
    open(name + ".bad", "wb").write(data)

for i in range(count - 1): # a byte of each section
    offset, length = struct.unpack_from("<QQ", signed, entry(i) + 8)
    for at in (0, length // 2, length - 33): # not in the digest of the plan
        data = bytearray(signed)
        data[offset + at] ^= 4
        write(f"section-{i}-{at}", fix(data))
offset = struct.unpack_from("<Q", signed, entry(count - 1) + 8)[0]
for at in (32, 63, 64, 95): # R and S
    data = bytearray(signed)
    data[offset + at] ^= 1
    write(f"signature-{at}", fix(data))
data = bytearray(signed) # S + L
order = 2**252 + 27742317777372353535851937790883648493
s = int.from_bytes(data[offset + 64 : offset + 96], "little") + order
data[offset + 64 : offset + 96] = s.to_bytes(32, "little")
write("malleable", fix(data))
data = bytearray(signed) # the signer's key by its name alone
data[offset : offset + 32] = bytes(32)
open("hint.sluice", "wb").write(fix(data))
data = bytearray(signed) # one section less
last = struct.unpack_from("<Q", signed, entry(count - 2) + 8)[0]
data[12:16] = struct.pack("<I", count - 1)
data[entry(count - 2) : entry(count - 1)] = signed[entry(count - 1) : entry(count)]
data[entry(count - 2) + 8 : entry(count - 2) + 16] = struct.pack("<Q", last)
data[entry(count - 1) : entry(count)] = bytes(88)
data[last : last + 4096] = signed[offset : offset + 4096]
data = data[: last + 4096]
data[16:24] = struct.pack("<Q", len(data))
write("without-a-section", fix(data))
# malformed: appended, cut, twice, not last, too long
open("appended.file", "wb").write(signed + bytes(4096))
open("appended-1.file", "wb").write(signed + b"x")
open("cut.file", "wb").write(signed[:-1])
open("cut-4096.file", "wb").write(signed[:-4096])
data = bytearray(signed)
data[entry(count - 1) + 16 : entry(count - 1) + 24] = struct.pack("<Q", 95)
data[offset + 95] = 0
open("short.file", "wb").write(fix(data))
data = bytearray(signed)
data[entry(count - 1) + 56] = ord("x")
open("target.file", "wb").write(fix(data))
PYTHON
count=0
for file in *.bad; do
  trusted "signature does not fit; nothing of it was run" "$file"
  count=$((count + 1))
done
[ $count -ge 20 ] || fail "only $count changed bundles"
for file in *.file; do
  refused 1 "$file: damaged bundle" "$SLUICE_RUN" memory "$file" --trust key.pub
  refused 1 "$file: damaged bundle" "$SLUICE" sign "$file" --key key
done
"$SLUICE_RUN" memory hint.sluice --trust key.pub > out # what the section says of its key decides nothing
if compgen -G "$work/.sluice-*" > /dev/null; then fail "left over"; fi
echo "$count changed bundles refused"

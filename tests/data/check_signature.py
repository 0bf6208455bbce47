"""check_signature.py BUNDLE PUBLIC.pem [UNSIGNED]: a second implementation of docs/bundle-format.md, "Signature".

Checks the signature of BUNDLE with OpenSSL (through the package cryptography). Exit 0: it is valid."""
import hashlib
import struct
import sys

from cryptography.hazmat.primitives.serialization import load_pem_public_key

data = open(sys.argv[1], "rb").read()
header = bytearray(data[:4096])
count, length = struct.unpack_from("<IQ", header, 12)
assert length == len(data)
entry = 32 + 88 * (count - 1)
kind, _, offset, size = struct.unpack_from("<IIQQ", header, entry)
assert (kind, size) == (7, 96), (kind, size)
struct.pack_into("<IQ", header, 12, count - 1, offset)
header[entry : entry + 88] = bytes(88)
header[4064:] = hashlib.sha256(header[:4064]).digest()
key, signature = data[offset : offset + 32], data[offset + 32 : offset + 96]
public = load_pem_public_key(open(sys.argv[2], "rb").read())
assert public.public_bytes_raw() == key if hasattr(public, "public_bytes_raw") else True
public.verify(signature, b"sluice bundle signature 1".ljust(32, b"\0") + bytes(header))
# without the signature it is the bundle that was signed
if len(sys.argv) > 3:
    assert bytes(header) + data[4096:offset] == open(sys.argv[3], "rb").read()

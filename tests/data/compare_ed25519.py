"""compare_ed25519.py LIBRARY: keys, signatures and verdicts of libsluice_runtime against OpenSSL's (package cryptography)."""
import ctypes
import random
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

try:
    library = ctypes.CDLL(sys.argv[1])
except OSError as error:  # a sanitizer's library cannot be loaded by this program
    print("skipped:", error)
    sys.exit(0)
library.sluice_ed25519_verify.restype = ctypes.c_bool
numbers = random.Random(8032)
order = 2**252 + 27742317777372353535851937790883648493


def accepts(key, message, signature):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


verdicts = [0, 0]
for length in range(400):  # every place of SHA-512's padding
    seed, message = numbers.randbytes(32), numbers.randbytes(length)
    private = Ed25519PrivateKey.from_private_bytes(seed)
    key, signature = ctypes.create_string_buffer(32), ctypes.create_string_buffer(64)
    library.sluice_ed25519_public_key(seed, key)
    library.sluice_ed25519_sign(seed, message, ctypes.c_size_t(length), signature)
    assert key.raw == private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw), seed.hex()
    assert signature.raw == private.sign(message), (seed.hex(), message.hex())
    flipped = bytearray(signature.raw)
    flipped[numbers.randrange(64)] ^= 1 << numbers.randrange(8)
    shifted = signature.raw[:32] + (int.from_bytes(signature.raw[32:], "little") + order).to_bytes(32, "little")
    for k, s in ((key.raw, signature.raw), (key.raw, bytes(flipped)), (key.raw, shifted), (numbers.randbytes(32), signature.raw)):
        ours = library.sluice_ed25519_verify(k, message, ctypes.c_size_t(length), s)
        assert ours == accepts(k, message, s), (k.hex(), message.hex(), s.hex())
        verdicts[ours] += 1
assert verdicts == [1200, 400], verdicts

#!/usr/bin/env python3
"""Compares what `sluice-run generate --dump` wrote with a golden file: same names, shapes and dtypes; floats within a bound;
selections as sets (a golden file lists blocks by score, a dump by id).

    compare_dump.py DUMP GOLDEN BOUND
"""
import json
import struct
import sys


def read(path):
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], data[t["data_offsets"][0] : t["data_offsets"][1]]) for name, t in header.items()}


def main():
    dump, golden, bound = read(sys.argv[1]), read(sys.argv[2]), float(sys.argv[3])
    if set(dump) != set(golden):
        sys.exit(f"the tensors differ: {sorted(set(dump) ^ set(golden))}")
    worst = 0.0
    experts = {}
    for name, (dtype, shape, body) in sorted(golden.items()):
        if dump[name][:2] != (dtype, shape):
            sys.exit(f"{name}: {dump[name][:2]}, expected {(dtype, shape)}")
        code = {"F32": "f", "I32": "i"}[dtype]
        expected = struct.unpack(f"<{len(body) // 4}{code}", body)
        found = struct.unpack(f"<{len(body) // 4}{code}", dump[name][2])
        if name.endswith((".blocks", ".experts")):
            k = shape[-1]
            for i in range(0, len(expected), k):
                if sorted(found[i : i + k]) != sorted(expected[i : i + k]):
                    sys.exit(f"{name}, row {i // k}: {found[i : i + k]}, expected {expected[i : i + k]}")
        elif name.endswith(".weights"):  # in the order of the experts, which a dump sorts
            k = shape[-1]
            ids = struct.unpack(f"<{len(body) // 4}i", golden[name.replace(".weights", ".experts")][2])
            for i in range(0, len(expected), k):
                order = sorted(range(k), key=lambda j: ids[i + j])
                worst = max([worst] + [abs(found[i + n] - expected[i + j]) for n, j in enumerate(order)])
        elif code == "i":
            if found != expected:
                sys.exit(f"{name} differs")
        else:
            worst = max([worst] + [abs(a - b) for a, b in zip(found, expected)])
    if not worst <= bound:
        sys.exit(f"largest error {worst}, expected at most {bound}")
    print(f"{len(golden)} tensors agree, largest error {worst:.3g}")


main()

#!/usr/bin/env python3
"""Reads a bundle by docs/bundle-format.md alone, checks every digest, and prints what `sluice inspect --json` also knows."""
import hashlib
import json
import struct
import sys

KINDS = {1: "manifest", 2: "plan", 3: "code", 4: "assembly", 5: "tuning", 6: "verification", 7: "signature"}
LAYOUTS = {1: "rows", 2: "panels", 3: "panel_pairs"}
FORMATS = {1: "f32", 2: "bf16"}


def require(condition, what):
    if not condition:
        sys.exit(f"not a valid bundle: {what}")


def read_sections(data):
    magic, version, count, length = struct.unpack_from("<8sIIQ", data, 0)
    require(magic == b"SLUICE\x1a\n" and version == 2 and length == len(data), "header")
    require(hashlib.sha256(data[:4064]).digest() == data[4064:4096], "digest of the header")
    end, sections = 4096, []
    for i in range(count):
        kind, zero, offset, size, digest, target = struct.unpack_from("<IIQQ32s32s", data, 32 + 88 * i)
        require(zero == 0 and offset == end, f"section {i}")
        body = data[offset : offset + size]
        require(hashlib.sha256(body).digest() == digest, f"digest of section {i}")
        end = offset + (size + 4095) // 4096 * 4096
        require(not any(data[offset + size : end]), f"padding of section {i}")
        sections.append({"kind": KINDS[kind], "target": target.rstrip(b"\0").decode(), "offset": offset, "length": size,
                         "sha256": digest.hex(), "body": body})
    require(end == len(data), "length")
    plans = {s["target"]: s["sha256"] for s in sections if s["kind"] == "plan"}
    for s in sections:
        require(s["kind"] not in ("code", "assembly") or s["body"][-32:].hex() == plans.get(s["target"]), "plan of the code")
    return sections


def read_plan(body):
    tables = [struct.unpack_from("<QQ", body, 48 + 16 * i) for i in range(12)]
    names = "strings buffers regions weights sources cache kernels launches arguments observables joins ranges".split()
    table = dict(zip(names, tables))

    def rows(name, layout):
        offset, count = table[name]
        size = struct.calcsize(layout)
        return [struct.unpack_from(layout, body, offset + size * i) for i in range(count)]

    def text(offset):
        start = table["strings"][0] + offset
        return body[start : body.index(b"\0", start)].decode()

    require(struct.unpack_from("<I", body)[0] == 8, "version of the plan")
    ranks = struct.unpack_from("<I", body, 44)[0]
    require(1 <= ranks <= 64, "number of ranks")
    launches = rows("launches", "<4I4I4I4I10Q")
    joins = rows("joins", "<6I")
    kernels = []
    for i, k in enumerate(rows("kernels", "<10I")):
        kernels.append({"name": text(k[0]), "family": text(k[1]), "attributes": json.loads(text(k[2])),
                        "launches": sum(launch[0] == i for launch in launches + joins), "workgroup_bytes": k[3], "lanes": k[5],
                        "registers": k[6], "spill_bytes": k[7], "code_bytes": k[8],
                        "cache_first": k[9]})
    ranges = rows("ranges", "<3I")

    def ranges_of(first, count):
        require(first + count <= len(ranges), "ranges lie outside their table")
        own = ranges[first : first + count]
        require(all(size < 16 and low <= high for size, low, high in own), "a range")
        require(all(a[0] < b[0] for a, b in zip(own, own[1:])), "order of ranges")
        return {size: (low, high) for size, low, high in own}

    steps = [ranges_of(*launch[12:14]) for launch in launches]
    arguments, buffers = rows("arguments", "<2I"), rows("buffers", "<2I2Q2I")
    for launch in launches:
        require(launch[14] in (0, 1) and launch[15] == 0, "collective of a launch")
        if launch[14]:
            own, all_ranks = (buffers[index] for _, index in arguments[launch[1] : launch[1] + 2])
            require(own[1] == all_ranks[1] and own[4] == all_ranks[4] and own[5] * ranks == all_ranks[5], "buffers of a collective")
    for _, first, count, first_range, range_count, zero in joins:
        require(first + count <= len(launches) and zero == 0, "a join's launches")
        own = ranges_of(first_range, range_count)
        parts = [of for of in steps[first : first + count]
                 if all(low <= own.get(size, (0,))[0] and own.get(size, (0, 2**32))[1] <= high for size, (low, high) in of.items())]
        require(2 <= len(parts) <= 8, "number of a join's parts")
    sources = rows("sources", "<12I")
    for s in sources:
        require(s[1] in (1, 2, 3) and s[11] > 0, "kind of a source")
        for share in {0, (ranks - 1) // s[11]}:
            require(s[5] + share * s[9] + s[6] <= s[3] and s[7] + share * s[10] + s[8] <= s[4], "slice of a source")
    weights = []
    for w in rows("weights", "<10IQQ"):
        pairs, panels = w[1] == 3, w[1] != 1
        require(w[9] * {1: 4, 2: 2}[w[2]] in (4, 8, 16) if panels else w[9] == 1 and w[6] == 0, "groups of a weight")
        length, panel = w[4] // 2 if pairs else w[4], w[6] or 1
        packed = -(-length // panel) * panel * (2 if pairs else 1) * -(-w[5] // w[9]) * w[9] * {1: 4, 2: 2}[w[2]]
        require(w[10] == -(-packed // 64) * 64 and w[11] == w[3] * w[10], "bytes of a weight")
        tensors = [{"name": text(s[0]), "shape": [s[4]] if s[2] == 1 else [s[3], s[4]]} for s in sources[w[7] : w[7] + w[8]]]
        weights.append({"layout": LAYOUTS[w[1]], "format": FORMATS[w[2]], "batch": w[3], "rows": w[4], "columns": w[5],
                        "panel": w[6], "bytes": w[11], "tensors": tensors})
    return {"launches": len(launches), "joins": len(joins), "kernels": kernels, "weight_bytes": sum(w["bytes"] for w in weights), "weights": weights}


def main():
    with open(sys.argv[1], "rb") as file:
        data = file.read()
    sections = read_sections(data)
    found = {"manifest": json.loads(sections[0]["body"]), "file_bytes": len(data), "targets": []}
    signature = sections[-1]["body"] if sections[-1]["kind"] == "signature" else None
    found["signing_key"] = signature[:32].hex() if signature else None
    for section in sections:
        if section["kind"] == "plan":
            found["targets"].append({"target": section["target"], **read_plan(section["body"])})
        del section["body"]
    found["sections"] = sections
    if len(sys.argv) == 2:
        print(json.dumps(found))
        return
    with open(sys.argv[2], "rb") as file:
        expected = json.load(file)
    for target in expected["targets"]:
        del target["memory"]
    for key in expected:
        require(found[key] == expected[key], f"'{key}' differs from the other reader's")


main()

#!/usr/bin/env python3
"""Writes runtime/text/nfc_tables.inc and runtime/text/later_characters.inc.

Needs Python 3.11 (Unicode 14.0, as PCRE2 10.42) and PyPI's unicodedata2 16.0.0 (Unicode 16.0).
usage: scripts/unicode-tables.py runtime/text && clang-format-22 -i runtime/text/*.inc

Ids are to equal those of the `tokenizers` library, whose expressions know the categories of Unicode 16.0 and whose NFC
is that of Unicode 9.0. NFC never changes for characters that were assigned, so the two differ only for these, which
came later and have a combining class or a decomposition."""
import sys
import unicodedata

import unicodedata2

assert unicodedata.unidata_version == "14.0.0" and unicodedata2.unidata_version == "16.0.0"
LATER_MARKS = [(0x7FD, 0x7FD), (0x898, 0x89F), (0x8CA, 0x8D3), (0x9FE, 0x9FE), (0xC3C, 0xC3C), (0xD3B, 0xD3C), (0xEBA,
               0xEBA), (0x1715, 0x1715), (0x1ABF, 0x1ACE), (0x1DF6, 0x1DFA), (0xA82C, 0xA82C), (0x10D24,
               0x10D27), (0x10EAB, 0x10EAC), (0x10F46, 0x10F50), (0x10F82, 0x10F85), (0x11070, 0x11070),
               (0x1133B, 0x1133B), (0x1145E, 0x1145E), (0x11839, 0x1183A), (0x11938, 0x11938), (0x1193D,
               0x1193E), (0x11943, 0x11943), (0x119E0, 0x119E0), (0x11A34, 0x11A34), (0x11A47, 0x11A47),
               (0x11A99, 0x11A99), (0x11D42, 0x11D42), (0x11D44, 0x11D45), (0x11D97, 0x11D97), (0x16FF0,
               0x16FF1), (0x1E130, 0x1E136), (0x1E2AE, 0x1E2AE), (0x1E2EC, 0x1E2EF)]
AFTER_9 = {c for first, last in LATER_MARKS for c in range(first, last + 1)}

POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF and c not in AFTER_9]
HANGUL = range(0xAC00, 0xAC00 + 11172)


def decomposed(c):
    return [ord(x) for x in unicodedata.normalize("NFD", chr(c))]


def canonical_pair(c):
    text = unicodedata.decomposition(chr(c))
    parts = [int(x, 16) for x in text.split()] if text and not text.startswith("<") else []
    return parts if len(parts) == 2 else None


classes = [(c, unicodedata.combining(chr(c))) for c in POINTS if unicodedata.combining(chr(c))]
decompositions, points = [], []
for c in POINTS:
    if c in HANGUL:
        continue
    full = decomposed(c)
    if full != [c]:
        decompositions.append((c, len(points), len(full)))
        points += full
compositions = sorted((pair[0], pair[1], c) for c in POINTS if (pair := canonical_pair(c))
                      and unicodedata.normalize("NFC", chr(c)) == chr(c))
# A character may take part in a change when it is no starter, does not stay what it is, or joins what is before it.
seconds = {pair[1] for pair in compositions} | set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
active = [c for c in POINTS if unicodedata.combining(chr(c)) or c in seconds
          or unicodedata.normalize("NFC", chr(c)) != chr(c)]
blocks, index = [], []
members = set(active)
for page in range(0x1100):
    bits = tuple(sum(1 << b for b in range(8) if page * 256 + byte * 8 + b in members) for byte in range(32))
    if bits not in blocks:
        blocks.append(bits)
    index.append(blocks.index(bits))
assert len(blocks) < 256


def table(file, head, values, form):
    file.write(f"static const {head} = {{\n")
    for i in range(0, len(values), 8):
        file.write("    " + " ".join(form(v) + "," for v in values[i:i + 8]) + "\n")
    file.write("};\n")


with open(f"{sys.argv[1]}/nfc_tables.inc", "w") as file:
    file.write("/* Made by scripts/unicode-tables.py: NFC of Unicode 9.0. */\n")
    table(file, "combining_class combining_classes[]", classes, lambda v: "{0x%X, %d}" % v)
    table(file, "decomposition decompositions[]", decompositions, lambda v: "{0x%X, %d, %d}" % v)
    table(file, "uint32_t decomposed_points[]", points, lambda v: "0x%X" % v)
    table(file, "composition compositions[]", compositions, lambda v: "{0x%X, 0x%X, 0x%X}" % v)
    table(file, "uint8_t active_pages[0x1100]", index, lambda v: "%d" % v)
    table(file, "uint8_t active_bits[][32]", blocks, lambda v: "{" + ", ".join("0x%02X" % b for b in v) + "}")

# ---- Characters that Unicode 15.0, 15.1 and 16.0 added, and those whose category changed ----

later = []  # [first, last, a character of Unicode 14.0 of the same category and length in UTF-8]
HAN = [(0x2EBF0, 0x2EE5D), (0x31350, 0x323AF)]


def stand_in(c, category):
    if any(first <= c <= last for first, last in HAN):
        return 0x20000
    low, high = (0x800, 0x10000) if c < 0x10000 else (0x10000, 0x110000)
    return next(d for d in range(low, high) if unicodedata.category(chr(d)) == category == unicodedata2.category(chr(d)))


for c in range(0x110000):
    category = unicodedata2.category(chr(c))
    if category == unicodedata.category(chr(c)):
        continue
    assert c >= 0x800
    if later and later[-1][1] == c - 1 and later[-1][2] == stand_in(c, category):
        later[-1][1] = c
    else:
        later.append([c, c, stand_in(c, category)])
pages = {c >> 8 for first, last, _ in later for c in range(first, last + 1)}
bits = [sum(1 << b for b in range(8) if byte * 8 + b in pages) for byte in range(0x1100 // 8)]

with open(f"{sys.argv[1]}/later_characters.inc", "w") as file:
    file.write("/* Made by scripts/unicode-tables.py: what Unicode 16.0 has that 14.0 lacks. */\n")
    table(file, "later_range later_ranges[]", later, lambda v: "{0x%X, 0x%X, 0x%X}" % tuple(v))
    table(file, "uint8_t later_pages[0x1100 / 8]", bits, lambda v: "0x%02X" % v)

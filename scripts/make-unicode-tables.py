#!/usr/bin/env python3
"""Writes runtime/text/jinja/unicode_tables.inc: case mappings and a few sets of characters, as Python's own str has them.

usage: scripts/make-unicode-tables.py > runtime/text/jinja/unicode_tables.inc
"""
import sys
import unicodedata

LAST = 0x110000


def runs(mapping):
    """Code points with one delta at a constant distance are one run."""
    out = []
    for code, target in sorted(mapping.items()):
        delta = target - code
        if out:
            first, last, step, run_delta = out[-1]
            distance = code - last
            if delta == run_delta and (distance == step or (first == last and distance <= 2)):
                out[-1] = (first, code, distance, delta)
                continue
        out.append((code, code, 1, delta))
    return out


def ranges(test):
    out = []
    for code in range(LAST):
        if not test(code):
            continue
        if out and out[-1][1] == code - 1:
            out[-1][1] = code
        else:
            out.append([code, code])
    return out


def write_rows(rows):
    line = "   "
    for row in rows:
        if len(line) + len(row) > 118:
            print(line)
            line = "   "
        line += " " + row
    print(line)


def write_case(name, change):
    single, special = {}, []
    for code in range(128, LAST):
        if 0xD800 <= code < 0xE000:
            continue
        mapped = change(chr(code))
        if len(mapped) > 1:
            special.append((code, [ord(c) for c in mapped]))
        elif ord(mapped) != code:
            single[code] = ord(mapped)
    print(f"static const case_run {name}_runs[] = {{")
    write_rows("{0x%x, 0x%x, %d, %d}," % run for run in runs(single))
    print(f"}};\nstatic const case_special {name}_specials[] = {{")
    write_rows("{0x%x, {%s}}," % (code, ", ".join("0x%x" % c for c in mapped + [0] * (3 - len(mapped))))
               for code, mapped in special)
    print("};")


def write_ranges(name, test):
    print(f"static const code_range {name}_ranges[] = {{")
    write_rows("{0x%x, 0x%x}," % tuple(pair) for pair in ranges(test))
    print("};")


print("/* Made by scripts/make-unicode-tables.py from Unicode %s. */" % unicodedata.unidata_version)
write_case("upper", str.upper)
write_case("lower", str.lower)
write_case("title", str.title)
write_case("fold", str.casefold)
# A capital sigma behind "a" and one more character becomes final exactly when that character is ignorable or uncased.
cased = lambda c: not 0xD800 <= c < 0xE000 and ("\u03a3" + chr(c)).lower()[0] == "\u03c3" and ("a\u03a3" + chr(c)).lower()[1] == "\u03c3"
write_ranges("cased", cased)
ignorable = lambda c: not 0xD800 <= c < 0xE000 and ("a" + chr(c) + "\u03a3").lower()[-1] == "\u03c2" and not cased(c)
write_ranges("ignorable", ignorable)
write_ranges("unprintable", lambda c: not chr(c).isprintable())
sys.stdout.flush()

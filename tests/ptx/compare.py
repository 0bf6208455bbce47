#!/usr/bin/env python3
"""Compares the PTX of two compilers, kernel by kernel: of changes that must not touch generated code.

    compare.py BEFORE AFTER [MODEL...]   two `sluice` programs, e.g. of the commit before and after; MODEL: directories or
                                         configs, by default those named below

Prints the kernels that differ; exits with 1 when there are any. Kernels are known by their names, which say their
place in the plan.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
MODELS = ["tests/golden/nano", "tests/golden/blocks", "tests/golden/m3-slice", "tests/bench/m3-step.json", "tests/configs/MiniMax-M3"]


def kernels(sluice, model, dtype):
    """Symbol -> text of each entry; what precedes the first one under ""."""
    command = [sluice, "compile", str(model), "--target=h100", f"--dtype={dtype}", "--emit=asm", "-o", "-"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    parts = re.split(r"(?=^\.(?:visible \.|weak \.)?(?:entry|func)\b)", text, flags=re.M)
    found = {"": parts[0]}
    for part in parts[1:]:
        name = re.search(r"(?:entry|func)\s+(?:\([^)]*\)\s*)?([\w$.]+)", part).group(1)
        found[name] = part
    return found


def main():
    before, after, *models = sys.argv[1:]
    differ = 0
    for model in models or [ROOT / name for name in MODELS]:
        for dtype in ("bfloat16", "float32"):
            old, new = kernels(before, model, dtype), kernels(after, model, dtype)
            other = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
            differ += len(other)
            print(f"{model}, {dtype}: {len(new)} kernels, {', '.join(other) or 'none'} differ")
    sys.exit(differ > 0)


main()

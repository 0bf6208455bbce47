#!/usr/bin/env python3
"""Times transformers' prefill of a golden model on this CPU, for comparison with `sluice-run bench`.

    pip install torch transformers==5.17.0 safetensors
    sluice synth tests/golden/blocks/config.json --seed 2 -o /tmp/blocks
    tests/bench/transformers_prefill.py tests/golden/blocks /tmp/blocks [float32|bfloat16]

The checkpoint's tensors are renamed as transformers' own loader would; the logits are checked against the golden file, so
that what is timed is known to be the same computation.
"""
import glob
import json
import os
import statistics
import sys
import time

import torch
from safetensors.torch import load_file
from transformers.models.minimax_m3_vl import MiniMaxM3SparseForConditionalGeneration as Model


def main():
    golden, checkpoint = sys.argv[1:3]
    dtype = getattr(torch, sys.argv[3] if len(sys.argv) > 3 else "float32")
    model = Model.from_pretrained(checkpoint, dtype=dtype, attn_implementation="eager").eval()
    reference = load_file(os.path.join(golden, "golden.float32.safetensors"))
    ids = reference["input_ids"].long()[None]
    rows = len(reference["rows"])
    times = []
    with torch.inference_mode():
        for _ in range(6):
            start = time.perf_counter()
            output = model(input_ids=ids, use_cache=True, logits_to_keep=rows)
            times.append(time.perf_counter() - start)
    error = (output.logits[0].float() - reference["prefill.logits"]).abs().max().item()
    print(json.dumps({"threads": torch.get_num_threads(), "dtype": str(dtype), "tokens": ids.shape[1],
                      "seconds": statistics.median(times[1:]), "max_logit_error": error}))


main()

#!/usr/bin/env python3
"""The block selections of golden/m3-slice by transformers itself in float64, against the golden file's in float32.

    pip install torch transformers==5.17.0 safetensors numpy
    tests/bench/m3_slice_transformers_float64.py build/release/sluice golden/m3-slice [WHAT [DEVICE [BLAS]]]

Writes a synthetic checkpoint of the golden file's model with 4 experts in place of 128, 1.7 GB under $TMPDIR: weights
are a function of seed, name and shape, and the experts of layer 1 come after its choice of blocks. Runs the golden
prompt through transformers' own code up to that choice, and compares.

WHAT is computed in float32:
    angles      the angle of the rotary embedding, as the model defines it; its cosine and everything else is float64
    cosines     the rotary embedding's cosines and sines too, as transformers has them even in a float64 model
    everything  transformers as it comes, in float32: what the golden file is, on a CPU
    nothing     not the model: rotary frequencies and angles are float64 as well
Without it, `angles`. In a float64 model transformers still casts to float32 in norms, softmax and the indexer's scores;
these casts are left out here (`widen`), and no operation may take float64 and return float32 (`Watch`).

DEVICE is PyTorch's name of one (cpu); BLAS is cublas or cublaslt, whose products PyTorch takes on a GPU.

One to two and a half minutes on two cores, 10.5 GB of memory. With torch 2.15.0 it printed that 1 of 16532 selections
differs:

    position 3695, head 1: the golden file has block 15 (27.952520126) where here is block 12 (27.952551604)

1.13e-06 apart relatively, the next closest choice being 1.34e-06. The same one and no other differs with `cosines`, and
with `everything`: transformers in float32 on this CPU does not choose as its golden file from an H100 has it either. On an
H100, with torch 2.11.0, `everything` gives the golden file's bits with cublas, but with cublaslt block 12 at position
3695 (and, without CHUNK, another block at position 3089, head 3, too); `angles` gives what it gives on a CPU.
With `nothing` that selection is the golden file's, and position 3089, head 3, is the one that differs: rounding of the
angles alone moves scores as much, so what is right depends on their being float32.
"""
import collections
import json
import os
import subprocess
import sys
import tempfile
import time

import torch
import transformers
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.models.minimax_m3_vl import modeling_minimax_m3_vl as modeling

CHUNK = 128  # queries at once
KINDS = "angles", "cosines", "everything", "nothing"
NEEDED = "model.embed_tokens.", "layers.0.", "layers.1.input_layernorm.", "layers.1.self_attn."


class Chosen(Exception):
    """Layer 1 has chosen its blocks; nothing after that matters."""


class Watch(TorchDispatchMode):
    """Keeps what was last ranked by topk, and counts the operations that return float32."""

    def __init__(self):
        super().__init__()
        self.ranked = None
        self.float32 = collections.Counter()
        self.narrowing = collections.Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.topk.default:
            self.ranked = args[0].clone()
        if any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float32 for leaf in tree_leaves(result)):
            self.float32[str(function)] += 1
            given = tree_leaves((args, kwargs))
            if any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64 for leaf in given):
                self.narrowing[str(function)] += 1
        return result


def attend_in_chunks():
    """transformers' eager attention, CHUNK queries at once. Keys after the chunk are masked for all of it: weight 0."""
    attend = modeling.eager_attention_forward

    def chunked(module, query, key, value, attention_mask, **kwargs):
        outputs = []
        for first in range(0, query.shape[2], CHUNK):
            end = min(first + CHUNK, query.shape[2])
            part = query[:, :, first:end], key[:, :, :end], value[:, :, :end], attention_mask[:, :, first:end, :end]
            outputs.append(attend(module, *part, **kwargs)[0])
        return torch.cat(outputs, dim=1), None

    modeling.eager_attention_forward = chunked


def widen(kind):
    """Leaves out transformers' casts of float64 to float32."""
    narrow, softmax, cos, sin = torch.Tensor.float, torch.nn.functional.softmax, torch.Tensor.cos, torch.Tensor.sin

    def softmax64(x, dim=None, dtype=None, **kwargs):
        return softmax(x, dim=dim, dtype=x.dtype if x.dtype == torch.float64 else dtype, **kwargs)

    def rotary64(self, x, position_ids):
        width = 2 * len(self.inv_freq)
        frequencies = self.config.rope_parameters["rope_theta"] ** -(torch.arange(0, width, 2).double() / width)
        angles = position_ids[..., None].double() * torch.cat((frequencies, frequencies))
        return cos(angles), sin(angles)

    torch.Tensor.float = lambda x: x if x.dtype == torch.float64 else narrow(x)
    torch.nn.functional.softmax = softmax64
    if kind == "angles":  # the only cosines are the rotary embedding's
        torch.Tensor.cos = lambda x: cos(x.double())
        torch.Tensor.sin = lambda x: sin(x.double())
    if kind == "nothing":
        modeling.MiniMaxM3VLRotaryEmbedding.forward = rotary64


def load(sluice, golden, dtype, device):
    with open(os.path.join(golden, "config.json")) as file:
        config = json.load(file)
    with open(os.path.join(golden, "synthetic.json")) as file:
        synthetic = json.load(file)
    config["text_config"]["num_local_experts"] = 4
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "config.json")
        checkpoint = os.path.join(scratch, "checkpoint")
        with open(path, "w") as file:
            json.dump(config, file)
        subprocess.run([sluice, "synth", path, "--seed", str(synthetic["seed"]), "-o", checkpoint], check=True)
        with safe_open(os.path.join(checkpoint, "model.safetensors"), "pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
        needed = [name for name in synthetic["tensors"] if any(part in name for part in NEEDED)]
        assert all(shapes[name] == synthetic["tensors"][name] for name in needed)
        model, information = modeling.MiniMaxM3SparseForConditionalGeneration.from_pretrained(
            checkpoint, dtype=dtype, attn_implementation="eager", output_loading_info=True)
    missing = [name for name in information["missing_keys"] if "vision" not in name and "multi_modal" not in name]
    assert not missing and not information["unexpected_keys"], information
    language = model.eval().model.language_model.to(device)
    assert all(parameter.dtype == dtype for parameter in language.parameters())
    assert language.rotary_emb.inv_freq.dtype == torch.float32
    return language, len(needed)


def choose(language, ids):
    """Layer 1's blocks as transformers chose them, the scores it ranked, what layer 0 returned and the operations."""
    kept = {}

    def after_layer(module, arguments, output):
        kept["layer"] = output

    def after_indexer(module, arguments, output):
        kept["blocks"] = output
        raise Chosen

    language.layers[0].register_forward_hook(after_layer)
    language.layers[1].self_attn.indexer.register_forward_hook(after_indexer)
    watch = Watch()
    with torch.no_grad(), watch:
        try:
            language(input_ids=ids, use_cache=False)
        except Chosen:
            pass
    return kept["blocks"][0].cpu(), watch.ranked[0].cpu(), kept["layer"][0].cpu(), watch


def compare(blocks, scores, golden):
    heads, positions, most = golden.shape
    assert blocks.shape == golden.shape and scores.shape[:2] == golden.shape[:2]
    differ, permuted, closest, worst = 0, 0, (float("inf"), None), 0.0
    for position in range(positions):
        for head in range(heads):
            ours, theirs, score = blocks[head, position], golden[head, position], scores[head, position]
            ranks = score.sort(descending=True, stable=True)  # equal scores: the lower id first
            count = min(most, int((ranks.values > float("-inf")).sum()))
            assert set(ranks.indices[:count].tolist()) == set(ours.tolist()) - {-1}
            permuted += not torch.equal(ours, theirs)
            here = set(ours.tolist()) - set(theirs.tolist())
            there = set(theirs.tolist()) - set(ours.tolist())
            if not here:
                if most < len(ranks.values) and ranks.values[most] > float("-inf"):
                    gap = ((ranks.values[most - 1] - ranks.values[most]) / ranks.values[most - 1].abs()).item()
                    closest = min(closest, (gap, (position, head)))
                continue
            differ += 1
            best, least = max(score[block].item() for block in here), min(score[block].item() for block in there)
            worst = max(worst, (best - least) / abs(best))
            print(f"position {position}, head {head}: the golden file has",
                  ", ".join(f"block {block} ({score[block].item():.9f})" for block in sorted(there)), "where here is",
                  ", ".join(f"block {block} ({score[block].item():.9f})" for block in sorted(here)))
    print(f"{heads * positions} selections compared, {differ} differ ({permuted} are lists in another order or differ)")
    print(f"largest margin, relative, by which the golden file's choice scores lower: {worst:.2e}")
    print(f"closest choice among those that agree: {closest[0]:.2e} relative, position and head {closest[1]}")


def main():
    defaults = ["", "", KINDS[0], "cpu", "cublas"]
    arguments = sys.argv[1:] + defaults[len(sys.argv) - 1:]
    if not 3 <= len(sys.argv) <= 6 or arguments[2] not in KINDS:
        sys.exit(f"usage: {sys.argv[0]} SLUICE GOLDEN_DIR [{'|'.join(KINDS)} [DEVICE [cublas|cublaslt]]]")
    sluice, golden, kind, device, blas = arguments
    if device != "cpu":
        torch.backends.cuda.preferred_blas_library(blas)
    start = time.perf_counter()
    transformers.logging.set_verbosity_error()  # the vision tower's weights are missing
    reference = {}
    with safe_open(os.path.join(golden, "golden.float32.safetensors"), "pt") as file:
        for name in "input_ids", "rows", "prefill.layer.0.out", "prefill.layer.1.blocks":
            reference[name] = file.get_tensor(name)
    language, needed = load(sluice, golden, torch.float32 if kind == "everything" else torch.float64, device)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}; in float32: {kind}; "
          f"{needed} tensors matter")
    attend_in_chunks()
    if kind != "everything":
        widen(kind)
    blocks, scores, layer, watch = choose(language, reference["input_ids"].long()[None].to(device))
    if kind != "everything":
        assert not watch.narrowing, watch.narrowing
        assert scores.dtype == layer.dtype == torch.float64
        print("operations that returned float32:", dict(watch.float32) or "none")
    error = layer[reference["rows"].long()].double() - reference["prefill.layer.0.out"].double()
    print(f"layer 0, last {len(error)} rows, golden file's difference: rms {error.pow(2).mean().sqrt().item():.2e}, "
          f"largest {error.abs().max().item():.2e}")
    compare(blocks.int(), scores, reference["prefill.layer.1.blocks"])
    print(f"{time.perf_counter() - start:.0f} s")


main()

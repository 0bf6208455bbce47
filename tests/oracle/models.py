#!/usr/bin/env python3
"""Holds sluice against transformers on models that transformers made and saved. Run by hand:

    python3 -m venv /tmp/oracle && /tmp/oracle/bin/pip install transformers==5.17.0 torch safetensors numpy
    /tmp/oracle/bin/python tests/oracle/models.py --build build/release [NAME...]

Each model below is built with random weights and saved with `save_pretrained`; most folders stay as they are then, some
get the names that transformers has in memory, or a config in the released spelling. transformers loads the folder again
and runs a prompt and a few greedy tokens in float32; `sluice compile --dtype float32` and `sluice-run verify` do the same
from the same folder, and verify compares: every logit, block, expert and token. Stop ids are compared, and warnings are
shown. `--keep DIR` also writes the folders and what verify wants into DIR: tests/oracle/kept holds some of them, which
tests/cli/oracle.sh runs without torch."""
import argparse
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.minimax_m3_vl import configuration_minimax_m3_vl as configuration
from transformers.models.minimax_m3_vl import modeling_minimax_m3_vl as modeling

PROMPT, ROWS, STEPS = 101, 12, 6
TEXT = dict(
    hidden_size=24, intermediate_size=12, dense_intermediate_size=24, shared_intermediate_size=20, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=96, max_position_embeddings=512,
    num_local_experts=4, num_experts_per_tok=2, index_n_heads=2, index_head_dim=16, index_block_size=16,
    index_topk_blocks=3, index_local_blocks=1, rotary_dim=8, bos_token_id=1, eos_token_id=2,
    rope_parameters={"rope_type": "default", "rope_theta": 5e6, "partial_rotary_factor": 0.5},
    layer_types=["full_attention", "minimax_m3_sparse"],
    mlp_layer_types=["dense", "sparse"])
VISION = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4,
              temporal_patch_size=2, spatial_merge_size=1)
SPARSE = "minimax_m3_sparse"
FULL = "full_attention"


class Kind:
    """A model: keys of its text config, of the outer config, and what is done with the folder."""

    def __init__(self, text=None, outer=None, alone=False, dtype=torch.bfloat16, after=None, save=None, refused=None):
        self.text, self.outer, self.alone, self.dtype = text or {}, outer or {}, alone, dtype
        self.after, self.save, self.refused = after, save or {}, refused


def rope(**keys):
    return {"rope_type": "default", "rope_theta": 5e6, **keys}


def edit_config(folder, change):
    path = os.path.join(folder, "config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    change(config)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)


def released_spelling(model, folder):
    """config.json as MiniMax writes it: nested sparse settings, frequencies, rotary settings of their own."""
    def change(config):
        text = config["text_config"]
        for key in ["model_type", "layer_types", "mlp_layer_types", "hidden_act"]:
            types = text.pop(key)
            if key == "layer_types":
                flags = [int(t == SPARSE) for t in types]
            elif key == "mlp_layer_types":
                text["moe_layer_freq"] = [int(t == "sparse") for t in types]
        names = {"index_n_heads": "sparse_num_index_heads", "index_head_dim": "sparse_index_dim",
                 "index_block_size": "sparse_block_size", "index_topk_blocks": "sparse_topk_blocks",
                 "index_local_blocks": "sparse_local_block"}
        text["sparse_attention_config"] = {
            "use_sparse_attention": True, "sparse_attention_freq": flags, "sparse_disable_index_value": flags,
            "sparse_score_type": "max", "sparse_init_block": 0, **{new: text.pop(old) for old, new in names.items()}}
        parameters = text.pop("rope_parameters")
        text.update(rope_theta=parameters["rope_theta"], partial_rotary_factor=parameters["partial_rotary_factor"],
                    hidden_act="swigluoai", use_gemma_norm=True, use_qk_norm=True, qk_norm_type="per_head",
                    scoring_func="sigmoid", use_routing_bias=True, n_shared_experts=1, attention_output_gate=False,
                    num_mtp_modules=7, num_nextn_predict_layers=1, architectures=["MiniMaxM3SparseForCausalLM"])
        config["torch_dtype"] = config.pop("dtype")
    edit_config(folder, change)


def memory_names(model, folder):
    """The names of transformers' modules in place of those of released files."""
    os.remove(os.path.join(folder, "model.safetensors"))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


def again(model, folder):
    """Loaded and saved once more."""
    load(folder).save_pretrained(folder)


def no_generation_config(model, folder):
    path = os.path.join(folder, "generation_config.json")
    if os.path.exists(path):
        os.remove(path)


def edited(**keys):
    def change(model, folder):
        no_generation_config(model, folder)
        edit_config(folder, lambda config: config.get("text_config", config).update(keys))
    return change


def outer_edited(**keys):
    def change(model, folder):
        no_generation_config(model, folder)
        edit_config(folder, lambda config: config.update(keys))
    return change


def without(*keys):
    def change(model, folder):
        no_generation_config(model, folder)
        def drop(config):
            for key in keys:
                config.pop(key, None)
                config.get("text_config", {}).pop(key, None)
        edit_config(folder, drop)
    return change


def separate_head(model, folder):
    """A tied config beside a file that has another head: transformers warns and takes the file's."""
    from safetensors.torch import load_file
    path = os.path.join(folder, "model.safetensors")
    tensors = load_file(path)
    embedding = next(t for name, t in tensors.items() if name.endswith("embed_tokens.weight"))
    tensors["language_model.lm_head.weight"] = torch.randn_like(embedding)
    save_file(tensors, path, metadata={"format": "pt"})


def equal_head(model, folder):
    from safetensors.torch import load_file
    path = os.path.join(folder, "model.safetensors")
    tensors = load_file(path)
    tensors["language_model.lm_head.weight"] = next(t for n, t in tensors.items() if n.endswith("embed_tokens.weight")).clone()
    save_file(tensors, path, metadata={"format": "pt"})


KINDS = {
    "outer": Kind(),
    "outer-float32": Kind(dtype=torch.float32),
    "outer-float16": Kind(dtype=torch.float16),
    "outer-shards": Kind(save={"max_shard_size": "20KB"}),
    "outer-saved-twice": Kind(after=again),
    "released-config": Kind(after=released_spelling),
    "memory-names": Kind(after=memory_names),
    "memory-names-text": Kind(alone=True, after=memory_names),
    "text": Kind(alone=True),
    "text-float32": Kind(alone=True, dtype=torch.float32),
    "text-tied": Kind({"tie_word_embeddings": True}, alone=True),
    "tied": Kind({"tie_word_embeddings": True}, {"tie_word_embeddings": True}),
    "tied-inner": Kind({"tie_word_embeddings": True}),
    "tied-outer": Kind(outer={"tie_word_embeddings": True}),
    "tied-equal-head": Kind({"tie_word_embeddings": True}, {"tie_word_embeddings": True}, after=equal_head),
    "tied-other-head": Kind({"tie_word_embeddings": True}, {"tie_word_embeddings": True}, after=separate_head,
                            refused="differs from the embedding"),
    "no-shared-experts": Kind({"shared_intermediate_size": 0}),
    "all-dense": Kind({"mlp_layer_types": ["dense"] * 2}),
    "all-experts": Kind({"mlp_layer_types": ["sparse"] * 2}),
    "all-sparse": Kind({"layer_types": [SPARSE] * 2}),
    "all-full": Kind({"layer_types": [FULL] * 2}),
    "sparse-dense": Kind({"layer_types": [SPARSE, FULL], "mlp_layer_types": ["sparse", "dense"]}),
    "whole-head": Kind({"rope_parameters": rope()}),
    "quarter-head": Kind({"rope_parameters": rope(partial_rotary_factor=0.25)}),
    "factor-beside": Kind({"rope_parameters": rope(), "partial_rotary_factor": 0.25}),
    "odd-factor": Kind({"rope_parameters": rope(partial_rotary_factor=0.7), "head_dim": 18, "index_head_dim": 20}),
    "other-theta": Kind({"rope_parameters": rope(rope_theta=1e4, partial_rotary_factor=0.5)}),
    "rope-type-alone": Kind(after=edited(rope_parameters={"type": "default", "rope_theta": 5e6})),
    "k-1": Kind({"index_topk_blocks": 1}),
    "k-5-local-3": Kind({"index_topk_blocks": 5, "index_local_blocks": 3}),
    "local-0": Kind({"index_local_blocks": 0}),
    "block-32": Kind({"index_block_size": 32, "index_topk_blocks": 2}),
    "k-beyond-context": Kind({"index_topk_blocks": 16}),
    "one-expert": Kind({"num_local_experts": 1, "num_experts_per_tok": 1}),
    "one-expert-memory-names": Kind({"num_local_experts": 1, "num_experts_per_tok": 1}, after=memory_names),
    "all-experts-chosen": Kind({"num_local_experts": 3, "num_experts_per_tok": 3}),
    "one-kv-head": Kind({"num_key_value_heads": 1, "index_n_heads": 1}),
    "every-head-a-kv-head": Kind({"num_key_value_heads": 4, "index_n_heads": 4}),
    "one-layer": Kind({"num_hidden_layers": 1, "layer_types": [SPARSE], "mlp_layer_types": ["sparse"]}),
    "wide-index": Kind({"index_head_dim": 32}),
    "odd-widths": Kind({"hidden_size": 30, "intermediate_size": 7, "dense_intermediate_size": 9,
                        "shared_intermediate_size": 5, "vocab_size": 91}),
    "scaling-1": Kind({"routed_scaling_factor": 1.0, "swiglu_alpha": 1.5, "swiglu_limit": 2.0, "rms_norm_eps": 1e-5}),
    "stop-ids": Kind({"eos_token_id": [5, 9]}),
    "stop-ids-config-alone": Kind({"eos_token_id": [5, 9]}, after=no_generation_config),
    "stop-id-outer": Kind(after=outer_edited(eos_token_id=7)),
    "stop-id-null": Kind({"eos_token_id": None}),
    "stop-id-absent": Kind({"vocab_size": 200064, "hidden_size": 8}, after=without("eos_token_id")),
    "stop-id-absent-text": Kind({"vocab_size": 200064, "hidden_size": 8}, alone=True, after=without("eos_token_id")),
}


def build(kind):
    torch.manual_seed(1)
    text = configuration.MiniMaxM3VLTextConfig(**copy.deepcopy({**TEXT, **kind.text}))
    if kind.alone:
        model = modeling.MiniMaxM3VLForCausalLM(text)
    else:
        outer = configuration.MiniMaxM3VLConfig(
            text_config=text.to_dict(), vision_config=copy.deepcopy(VISION), projector_hidden_size=16,
            image_token_index=text.vocab_size - 2, video_token_index=text.vocab_size - 1, **kind.outer)
        model = modeling.MiniMaxM3SparseForConditionalGeneration(outer)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "vision" in name or "projector" in name or "inv_freq" in name:
                continue
            if name.endswith("norm.weight"):
                tensor.normal_(std=0.2)
            elif name.endswith("e_score_correction_bias"):
                tensor.normal_(std=0.1)
            elif name.endswith("embed_tokens.weight"):
                tensor.normal_()
            elif tensor.numel():
                tensor.normal_(std=(2.0 if "indexer" in name else 1.0) / tensor.shape[-1] ** 0.5)
    return model.to(kind.dtype)


def load(folder):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        outer = json.load(file)["model_type"] == "minimax_m3_vl"
    auto = AutoModelForImageTextToText if outer else AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                experts_implementation="eager").eval()


def run(model):
    """What a golden file holds (docs/synthetic.md)."""
    text = model.config.get_text_config()
    ids = torch.randint(3, text.vocab_size - 2, (1, PROMPT), generator=torch.Generator().manual_seed(7))
    golden, seen = {}, {}

    def keep(name, pick):
        return lambda module, inputs, output: seen.__setitem__(name, pick(output))
    hooks = []
    for name, module in model.named_modules():
        number = name.split("layers.")[-1].split(".")[0]
        if "vision" in name:
            continue
        if isinstance(module, modeling.MiniMaxM3VLIndexer):
            hooks.append(module.register_forward_hook(keep(f"layer.{number}.blocks", lambda o: o[0])))
        elif isinstance(module, modeling.MiniMaxM3VLTopKRouter):
            hooks.append(module.register_forward_hook(keep(f"layer.{number}.router", lambda o: (o[2], o[1]))))
        elif isinstance(module, modeling.MiniMaxM3VLDecoderLayer):
            hooks.append(module.register_forward_hook(
                keep(f"layer.{number}.out", lambda o: (o[0] if isinstance(o, tuple) else o))))
    with torch.inference_mode():
        output = model(input_ids=ids, use_cache=True)
        for hook in hooks:
            hook.remove()
        logits, cache = [output.logits[0, -1]], output.past_key_values
        tokens = [int(logits[0].argmax())]
        for i in range(STEPS):
            step = model(input_ids=torch.tensor([[tokens[-1]]]), past_key_values=cache, use_cache=True)
            cache = step.past_key_values
            logits.append(step.logits[0, -1])
            tokens.append(int(logits[-1].argmax()))
    golden["input_ids"] = ids[0].int()
    golden["rows"] = torch.arange(PROMPT - ROWS, PROMPT, dtype=torch.int32)
    golden["prefill.logits"] = output.logits[0, -ROWS:].float()
    golden["decode.tokens"] = torch.tensor(tokens, dtype=torch.int32)
    golden["decode.logits"] = torch.stack(logits[1:]).float()
    for name, value in seen.items():
        if name.endswith(".blocks"):
            padded = torch.full((*value.shape[:2], text.index_topk_blocks), -1, dtype=torch.int32)
            padded[..., :value.shape[2]] = value
            golden["prefill." + name] = padded
        elif name.endswith(".router"):
            golden[f"prefill.{name}.experts"] = value[0].reshape(PROMPT, -1).int()
            golden[f"prefill.{name}.weights"] = value[1].reshape(PROMPT, -1).float()
        else:
            golden["prefill." + name] = value.reshape(PROMPT, -1)[-ROWS:].float()
    return {name: tensor.contiguous() for name, tensor in golden.items()}


def stop_ids(model):
    ids = model.generation_config.eos_token_id
    if ids is None:  # neither file has the key: the class has a default
        ids = model.config.get_text_config().eos_token_id
    return [] if ids is None else sorted(ids if isinstance(ids, list) else [ids])


class Failure(Exception):
    pass


def command(*arguments, fails=False):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if (done.returncode != 0) != fails:
        raise Failure(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout, done.stderr


def check(name, kind, options, scratch):
    folder = os.path.join(options.keep or scratch, name)
    bundle, golden = os.path.join(scratch, name + ".sluice"), os.path.join(folder, "golden.float32.safetensors")
    shutil.rmtree(folder, ignore_errors=True)
    model = build(kind)
    model.save_pretrained(folder, **kind.save)
    if kind.after:
        kind.after(model, folder)
    judge = load(folder)
    save_file(run(judge), golden)
    sluice, sluice_run = (os.path.join(options.build, program) for program in ("sluice", "sluice-run"))
    _, said = command(sluice, "compile", folder, "--target", "host", "--dtype", "float32", "-o", bundle)
    warnings = [line for line in said.splitlines() if "warning:" in line]
    verify = [sluice_run, "verify", bundle, "--weights", folder, "--golden", golden]
    _, said = command(*verify, fails=bool(kind.refused))
    if kind.refused:
        if kind.refused not in said:
            raise Failure(f"expected '{kind.refused}', got: {said}")
        return "refused, as it should be", warnings
    warnings += [line for line in said.splitlines() if "warning:" in line]
    manifest = json.loads(command(sluice, "inspect", bundle, "--json")[0])["manifest"]
    if sorted(manifest["stop_ids"]) != stop_ids(judge):
        raise Failure(f"stop ids {manifest['stop_ids']}, transformers has {stop_ids(judge)}")
    found = json.loads(command(*verify, "--json")[0])
    return f"logits within {max(found['prefill_max'], found['decode_max']):.1e}", warnings


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="models (all): " + ", ".join(KINDS))
    parser.add_argument("--build", default="build/release", help="where sluice and sluice-run are")
    parser.add_argument("--keep", help="a folder for the models and their golden files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.names or KINDS:
            try:
                figures, warnings = check(name, KINDS[name], options, scratch)
                print(f"{name}: {figures}", *warnings, sep="\n    ", flush=True)
            except Exception as error:  # the next model is of interest all the same
                failed.append(name)
                print(f"{name}: FAILED: {type(error).__name__}: {error}", flush=True)
    print(f"{len(failed)} failed" + (": " + ", ".join(failed) if failed else ""))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""make_checkpoints.py BASE OUT STOP: checkpoints as people have them, each a folder of OUT made from BASE.

BASE is a checkpoint of tests/configs/small that `sluice synth` wrote in one file, STOP a token that it generates.
tests/cli/checkpoints.sh says what each folder must give."""
import json
import os
import struct
import sys

WIDTH = {"F64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "U8": 1}
MODEL = "language_model.model."
LAYER = MODEL + "layers."


def load(path):
    """{name: (dtype, shape, bytes)}"""
    with open(path, "rb") as file:
        data = file.read()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    tensors = json.loads(data[8:start])
    tensors.pop("__metadata__", None)
    for name, t in tensors.items():
        begin, end = t["data_offsets"]
        tensors[name] = (t["dtype"], t["shape"], data[start + begin:start + end])
    return tensors


def save(path, tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))


def zeros(dtype, *shape):
    count = WIDTH[dtype]
    for n in shape:
        count *= n
    return (dtype, list(shape), bytes(count))


def concatenated(matrices, stack=False):
    """Matrices above each other, or as the layers of a new first dimension."""
    dtype, shape, _ = matrices[0]
    shape = [len(matrices), *shape] if stack else [len(matrices) * shape[0], *shape[1:]]
    return (dtype, shape, b"".join(m[2] for m in matrices))


def widened(tensor):
    """BF16 as F32."""
    dtype, shape, data = tensor
    if dtype == "F32":
        return tensor
    return ("F32", shape, b"".join(b"\0\0" + data[i:i + 2] for i in range(0, len(data), 2)))


class Maker:
    def __init__(self, base, out, stop):
        with open(os.path.join(base, "config.json"), encoding="utf-8") as file:
            self.config = json.load(file)
        self.base = load(os.path.join(base, "model.safetensors"))
        self.out, self.stop = out, stop

    def case(self, name, config=None, tensors=None, index=None, files=None):
        """A folder. `tensors` None: those of BASE; False: none; a dict of dicts: shards. `files`: {name: bytes}."""
        folder = os.path.join(self.out, name)
        os.makedirs(folder)
        if tensors is None:
            tensors = self.base
        shards = {"model.safetensors": tensors} if tensors and isinstance(next(iter(tensors.values())), tuple) else tensors
        for file, content in (shards or {}).items():
            save(os.path.join(folder, file), content)
        files = dict(files or {})
        files.setdefault("config.json", json.dumps(config or self.config, indent=1).encode())
        if index:
            files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": index}).encode()
        for file, content in files.items():
            with open(os.path.join(folder, file), "wb") as f:
                f.write(content)

    def edit(self, *without, **keys):
        """BASE's config with keys of text_config taken out and set."""
        config = json.loads(json.dumps(self.config))
        for key in without:
            config["text_config"].pop(key, None)
        config["text_config"].update(keys)
        return config

    def renamed(self, *pairs):
        result = {}
        for name, tensor in self.base.items():
            for old, new in pairs:
                name = name.replace(old, new)
            result[name] = tensor
        return result

    def plus(self, **more):
        return {**self.base, **more}

    # ---- names ----

    def in_memory(self):
        """The names of transformers' classes: gate above up, experts stacked."""
        result, experts = {}, {}
        for name, tensor in self.base.items():
            name = name.replace(MODEL, "model.language_model.").replace("language_model.lm_head", "lm_head")
            name = name.replace(".block_sparse_moe.", ".mlp.").replace(".self_attn.index_", ".self_attn.indexer.")
            name = name.replace(".e_score_correction_bias", ".gate.e_score_correction_bias")
            if ".mlp.experts." in name:
                layer, rest = name.split(".mlp.experts.")
                number, matrix, _ = rest.split(".")
                experts[layer, int(number), matrix] = tensor
            elif ".gate_proj." in name:
                up = {k: t for k, t in self.base.items() if k.split("layers.")[-1].split(".")[0] ==
                      name.split("layers.")[-1].split(".")[0] and k.endswith(
                          ".shared_experts.up_proj.weight" if "shared" in name else ".mlp.up_proj.weight")}
                result[name.replace("gate_proj", "gate_up_proj")] = concatenated([tensor, *up.values()])
            elif ".up_proj." not in name:
                result[name] = tensor
        for layer in sorted({key[0] for key in experts}):
            numbers = sorted({key[1] for key in experts if key[0] == layer})
            both = [concatenated([experts[layer, n, "w1"], experts[layer, n, "w3"]]) for n in numbers]
            result[layer + ".mlp.experts.gate_up_proj"] = concatenated(both, stack=True)
            result[layer + ".mlp.experts.down_proj"] = concatenated([experts[layer, n, "w2"] for n in numbers], stack=True)
        return result

    def names(self):
        self.case("base")
        self.case("dense-mlp-saved-names", tensors=self.renamed((".mlp.", ".block_sparse_moe.")))
        self.case("in-memory-names", tensors=self.in_memory())
        self.case("vl-config-text-names", tensors=self.renamed(("language_model.", "")))
        flat = {**self.config["text_config"], "model_type": "minimax_m3_vl_text", "dtype": "bfloat16",
                "architectures": ["MiniMaxM3VLForCausalLM"]}
        self.case("text-only-flat", flat, self.renamed(("language_model.", "")))
        self.case("experts-gate-proj-names", tensors={
            (k.replace(".w1.", ".gate_proj.").replace(".w2.", ".down_proj.").replace(".w3.", ".up_proj.")
             if ".experts." in k else k): t for k, t in self.base.items()})
        self.case("unknown-names", tensors=self.renamed((MODEL, "transformer.h.")))
        lone = {}
        for k, (dtype, shape, data) in self.base.items():
            if ".experts." in k and ".experts.0." not in k:
                continue
            if k.endswith(("block_sparse_moe.gate.weight", "e_score_correction_bias")):
                data, shape = data[:len(data) // shape[0]], [1, *shape[1:]]
            lone[k] = (dtype, shape, data)
        self.case("one-expert", self.edit(num_local_experts=1, num_experts_per_tok=1), lone)
        bare = {k: (t if ".shared_experts." not in k else
                    (t[0], [t[1][0], 0] if "down_proj" in k else [0, t[1][1]], b"")) for k, t in self.base.items()}
        self.case("shared-experts-of-width-0", self.edit(shared_intermediate_size=0), bare)

    # ---- tensors that nobody wants ----

    def leftovers(self):
        hidden = self.config["text_config"]["hidden_size"]
        behind = self.config["text_config"]["num_hidden_layers"]
        square = zeros("BF16", hidden, 2 * hidden)
        self.case("rotary-inv-freq", tensors=self.plus(**{LAYER + "0.self_attn.rotary_emb.inv_freq": zeros("F32", 16)}))
        self.case("mtp-in-model", tensors=self.plus(**{"language_model.mtp.fc.weight": square}))
        self.case("mtp-beside-model", tensors=self.plus(**{"mtp.fc.weight": square, "mtp.norm.weight": square}))
        self.case("layer-behind-the-last", tensors=self.plus(**{f"{LAYER}{behind}.eh_proj.weight": square}))
        self.case("k-scale", tensors=self.plus(**{LAYER + "1.self_attn.k_scale": zeros("F32", 1),
                                                  LAYER + "1.self_attn.v_scale": zeros("F32", 1)}))
        self.case("vision", tensors=self.plus(**{"vision_tower.x.weight": square, "model.vision_tower.y.bias": square,
                                                 "multi_modal_projector.linear_1.weight": square}))
        self.case("adapter-left-over", tensors=self.plus(
            **{LAYER + "0.self_attn.q_proj.lora_A.weight": zeros("BF16", 8, hidden)}))
        self.case("unknown-bias", tensors=self.plus(**{LAYER + "0.self_attn.q_proj.bias": zeros("BF16", hidden)}))

    # ---- the index ----

    def indexes(self):
        where = {k: "model.safetensors" for k in self.base}
        self.case("index-names-absent-tensor", index={**where, "mtp.fc.weight": "model.safetensors"})
        self.case("index-names-absent-shard", index={**where, "vision_tower.x.weight": "model-00002.safetensors"})
        self.case("shard-has-unlisted-tensor", tensors=self.plus(**{"value_head.weight": zeros("BF16", 1, 8)}), index=where)
        names = list(self.base)
        halves = {f"model-0000{i + 1}-of-00002.safetensors": {k: self.base[k] for k in names[i::2]} for i in range(2)}
        where = {k: file for file, part in halves.items() for k in part}
        self.case("two-shards", tensors=halves, index=where)
        first, second = halves
        twice = {first: halves[first], second: {names[0]: zeros("BF16", 1, 1), **halves[second]}}
        self.case("tensor-in-two-shards", tensors=twice, index=where)
        self.case("shards-without-index", tensors=halves)
        self.case("wanted-shard-absent", tensors={first: halves[first]}, index=where)
        self.case("wanted-shard-is-pointer", tensors={first: halves[first]}, index=where, files={second: POINTER})
        lacking = {first: halves[first], second: {k: t for k, t in halves[second].items() if k != names[1]}}
        self.case("wanted-tensor-absent", tensors=lacking, index=where)

    # ---- other things in place of weights ----

    def wrong_files(self):
        self.case("lfs-pointer", tensors=False, files={"model.safetensors": POINTER})
        self.case("web-page", tensors=False, files={"model.safetensors": b"\n<!DOCTYPE html>\n<html><head><title>401"})
        self.case("not-found", tensors=False, files={"model.safetensors": b"Entry not found"})
        self.case("restricted", tensors=False, files={"model.safetensors": b"Access to model org/model is restricted. You must be logged in.\n"})
        self.case("gzip", tensors=False, files={"model.safetensors": b"\x1f\x8b\x08\x00\x10\x20\x30\x69" + bytes(56)})
        self.case("index-is-web-page", files={"model.safetensors.index.json": b"<html><body>Access denied</body></html>"})
        self.case("index-as-weights", tensors=False, files={
            "model.safetensors": json.dumps({"metadata": {}, "weight_map": {"a": "b"}}).encode()})
        self.case("gguf", tensors=False, files={"model.safetensors": b"GGUF\3\0\0\0\1\0\0\0"})
        self.case("gguf-alone", tensors=False, files={"m3-Q4_K.gguf": b"GGUF\3\0\0\0\1\0\0\0"})
        self.case("adapter-alone", tensors=False, files={"adapter_model.safetensors": b"", "a.safetensors": b""})
        self.case("pickle", tensors=False, files={"pytorch_model-00001-of-00002.bin": b"PK\3\4"})
        self.case("empty-file", tensors=False, files={"model.safetensors": b""})

    def damaged(self):
        name = LAYER + "1.self_attn.o_proj.weight"
        dtype, shape, data = self.base[name]
        self.case("nan-weight", tensors={**self.base, name: (dtype, shape, b"\xc0\x7f" + data[2:])})
        name = next(k for k in self.base if k.endswith("block_sparse_moe.gate.weight"))
        dtype, shape, data = self.base[name]
        nan = {"F32": b"\0\0\xc0\x7f", "BF16": b"\xc0\x7f"}[dtype]
        self.case("nan-gate", tensors={**self.base, name: (dtype, shape, nan + data[len(nan):])})

    # ---- quantised ----

    def quantised(self):
        some = next(k for k in self.base if k.endswith("experts.0.w1.weight"))
        rows, columns = self.base[some][1]
        self.case("packed-4-bit", tensors=self.plus(
            **{some: zeros("U8", rows, columns // 2), some + "_scale": zeros("F8_E4M3", rows, columns // 16)}))
        self.case("mxfp8", tensors=self.plus(
            **{some: zeros("F8_E4M3", rows, columns), some + "_scale_inv": zeros("U8", rows, columns // 32)}))
        packed = self.plus(**{some + "_packed": zeros("I32", rows, columns // 8)})
        del packed[some]
        self.case("pack-quantised", tensors=packed)
        self.case("scale-beside-bf16", tensors=self.plus(**{some + "_scale": zeros("F32", rows, 1)}))
        self.case("float64", tensors=self.plus(**{some: zeros("F64", rows, columns)}))
        self.case("modelopt", files={"hf_quant_config.json": json.dumps(
            {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "MIXED_PRECISION"}}).encode()})
        self.case("modelopt-cache-only", files={"hf_quant_config.json": json.dumps(
            {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}).encode()})

    # ---- configurations ----

    def configs(self):
        def outer(**keys):
            return {**self.config, **keys}
        self.case("stop-ids-differ", outer(eos_token_id=self.stop))
        self.case("stop-id-of-text", self.edit(eos_token_id=self.stop))
        without = self.edit("eos_token_id")
        self.case("no-stop-id", without)
        self.case("generation-stop-id", without, files={
            "generation_config.json": json.dumps({"eos_token_id": [self.stop, 7]}).encode()})
        self.case("rope-scaling-default", self.edit("rope_parameters", rope_theta=5e6, rope_scaling={"rope_type": "default"}))
        self.case("rope-scaling-empty", self.edit("rope_parameters", rope_theta=5e6, rope_scaling={}))
        self.case("rope-scaling-null", self.edit("rope_parameters", rope_theta=5e6, rope_scaling=None))
        self.case("rope-scaling-yarn", self.edit(rope_scaling={"rope_type": "yarn", "factor": 4.0}))
        whole = {"rope_type": "default", "rope_theta": 5e6}
        self.case("rope-whole-head", self.edit(rope_parameters=whole))
        self.case("rope-other-rotary-dim", self.edit(rotary_dim=8))
        self.case("rope-factor-beside", self.edit(rope_parameters=whole, partial_rotary_factor=0.5, rotary_dim=32))
        self.case("forced-blocks", self.edit(index_local_blocks=5))
        f32 = {k: widened(t) for k, t in self.base.items()}
        self.case("float32", outer(dtype="float32"), f32)
        self.case("float32-unannounced", tensors={k: (t if k.endswith("gate.weight") or not k.endswith("o_proj.weight") else
                                                      ("F32", t[1], b"\1" + t[2][1:])) for k, t in f32.items()})
        self.case("dtypes-differ", self.edit(dtype="float32"))
        self.case("max-positions", self.edit(max_position_embeddings=128))
        tied = self.edit(tie_word_embeddings=True)
        tied["tie_word_embeddings"] = True
        self.case("tied", tied, {k: t for k, t in self.base.items() if "lm_head" not in k})
        self.case("tied-written-out", self.config, {
            **self.base, "language_model.lm_head.weight": self.base[MODEL + "embed_tokens.weight"]})


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4999803000\n"


def main(base, out, stop):
    maker = Maker(base, out, int(stop))
    maker.names()
    maker.leftovers()
    maker.indexes()
    maker.wrong_files()
    maker.damaged()
    maker.quantised()
    maker.configs()


if __name__ == "__main__":
    main(*sys.argv[1:4])

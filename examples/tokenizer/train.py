#!/usr/bin/env python3
"""Makes the small tokenizer in this folder: 512 entries, in the form in which MiniMax-M3 has its own.

usage: examples/tokenizer/train.py        (needs PyPI's tokenizers 0.23.3; run in the project's root)"""
import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

EXPRESSION = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
              r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
              r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["]!p~[", "]~b]", "[e~[", "]!d~[", "]~!b[", "]<]minimax[>["]
PLAIN = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<mm:think>", "</mm:think>"]
TEXTS = ["README.md", "docs/architecture.md", "docs/ir.md", "docs/sampling.md", "docs/synthetic.md"]

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Split(Regex(EXPRESSION), "removed", invert=True),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
tokenizer.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(vocab_size=512 - len(SPECIAL) - len(PLAIN), show_progress=False,
                              initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
tokenizer.train_from_iterator([open(name, encoding="utf-8").read() for name in TEXTS], trainer)
tokenizer.add_special_tokens([AddedToken(content, normalized=False, special=True) for content in SPECIAL])
tokenizer.add_tokens([AddedToken(content, normalized=False) for content in PLAIN])
assert tokenizer.get_vocab_size() == 512
tokenizer.save("examples/tokenizer/tokenizer.json")
with open("examples/tokenizer/generation_config.json", "w", encoding="utf-8") as file:
    json.dump({"bos_token_id": tokenizer.token_to_id("]~!b["), "do_sample": True,
               "eos_token_id": tokenizer.token_to_id("[e~["), "temperature": 1.0, "top_p": 0.95}, file, indent=2)
    file.write("\n")

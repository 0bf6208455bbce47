#!/usr/bin/env python3
"""Compares libsluice_text with the `tokenizers` library: ids of random and real strings, and text decoded from ids.

usage: compare_tokenizers.py TEXT_ORACLE [--strings N] [--seed S] [--o200k FILE.tiktoken[.gz]] [--bench]

Tokenizers are trained here, on this project's own files and random words, with MiniMax-M3's expression and added
tokens. --o200k compares with a public 200k-entry vocabulary too (PyPI's bpe-openai carries o200k_base.tiktoken.gz)."""
import argparse
import base64
import gzip
import json
import os
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

M3 = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
      r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
      r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = M3.replace(r"+[\r\n]*|\s*[\r\n]", r"+[\r\n/]*|\s*[\r\n]")
SPECIAL = ["]!p~[", "]~b]", "[e~[", "]!d~[", "]<]speech[>[", "]<]image[>[", "]<]video[>[", "]~!b[", "]<]minimax[>["]
PLAIN = ["<fim_prefix>", "<fim_middle>", "<filename>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<mm:think>",
         "</mm:think>", "<mm:", "été", "<|content_altered_placeholder|>"]
EMOJI = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪🇫🇷", "1️⃣", "❤️", "🧑🏿‍🚀", "🏴\U000E0067\U000E0062\U000E0065\U000E006E\U000E0067\U000E007F"]
PIECES = ["'s", "'S", "'ſ", "'T", "'re", "'VE", "'m", "'LL", "'d", "\r\n", "\n\n", "\t", "  ", "   ", "\u00a0", "\u180e",
          "\u2028", "\u3000", "\u200b", "\u200d", "\ufeff", "\ufffd", "123", "1234567", "٣٤٥", "²³", "Ⅷ", "½", "//", "/*", "*/", "==",
          "->", "::", "ab", "Ab", "AB", "aB", "HTTPServer", "camelCase", "don't", "DON'T", "ß", "ǅ", "ʰ", "ª", "日本語", "한국어",
          "각", "中文字符", "ไทย", "हिन्दी", "العربية", "עברית", "e\u0301", "a\u0323\u0302", "\u0344", "\u1e9b\u0323",
          "\u0000", "\x7f", "\x1b[0m", "<", ">", "[", "]", "~", "<mm", ":think>", "]<]", "[>["]
ADDED_ALL, ADDED_PLAIN, ADDED_NONE, POST, SKIP = 2, 1, 0, 4, 8


def real_texts():
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    texts = []
    for folder, _, files in sorted(os.walk(root)):
        if "/build" in folder or "/.git" in folder:
            continue
        for name in sorted(files):
            if name.endswith((".c", ".h", ".md", ".py", ".sh", ".mlir", ".json", ".txt")):
                with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
                    texts.append(file.read(200000))
    return texts


def random_point(rng):
    while True:
        kind = rng.random()
        if kind < 0.3:
            c = rng.randrange(0x20, 0x7F)
        elif kind < 0.5:
            c = rng.randrange(0x80, 0x3000)
        elif kind < 0.7:
            c = rng.randrange(0x3000, 0x10000)
        elif kind < 0.85:
            c = rng.randrange(0x10000, 0x20000)
        else:
            c = rng.randrange(0x110000)
        if not 0xD800 <= c <= 0xDFFF:
            return chr(c)


MARKS = [chr(c) for c in range(0x300, 0x3000) if unicodedata.combining(chr(c))]
LETTERS = {"latin": range(0x41, 0x250), "greek": range(0x370, 0x530), "arabic": range(0x600, 0x700), "indic": range(0x900, 0xE00),
           "thai": range(0xE00, 0xE80), "hangul": range(0xAC00, 0xD7A4), "jamo": range(0x1100, 0x1200),
           "cjk": range(0x4E00, 0xA000), "kana": range(0x3040, 0x3100), "emoji": range(0x1F300, 0x1FAFF)}


def random_string(rng, texts):
    kind = rng.randrange(10)
    if kind == 0:
        return "".join(random_point(rng) for _ in range(rng.randrange(1, 60)))
    if kind == 1:
        script = LETTERS[rng.choice(list(LETTERS))]
        return "".join(chr(rng.choice(script)) if rng.random() < 0.85 else rng.choice(" \n'") for _ in range(rng.randrange(1, 80)))
    if kind == 2:
        return "".join(rng.choice("aeioucnAEO한각가 ") + "".join(rng.choice(MARKS) for _ in range(rng.randrange(4)))
                       for _ in range(rng.randrange(1, 30)))
    if kind == 3:
        return "".join(rng.choice(EMOJI + PIECES) for _ in range(rng.randrange(1, 20)))
    if kind == 4:
        return "".join(rng.choice(SPECIAL + PLAIN + PIECES) for _ in range(rng.randrange(1, 16)))
    if kind == 5:
        return rng.choice("aAé日1 \n-=") * rng.randrange(1, 400)
    text = rng.choice(texts)
    start = rng.randrange(max(1, len(text)))
    return text[start:start + rng.randrange(1, 300)]


def random_bytes(rng, texts):
    """Text that need not be valid UTF-8."""
    data = bytearray(random_string(rng, texts).encode())
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data) + 1)
        if rng.random() < 0.5:
            data[at:at] = bytes(rng.choice([0x80, 0xBF, 0xC0, 0xC3, 0xE2, 0xED, 0xA0, 0xF0, 0x9F, 0xF4, 0x90, 0xFF])
                                for _ in range(rng.randrange(1, 4)))
        else:
            del data[at:at + rng.randrange(1, 3)]
    return bytes(data)


def train(texts, size, nfc, added, rng):
    tokenizer = Tokenizer(models.BPE(unk_token="]!d~[" if added else None))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(M3), "removed", invert=True) if nfc else pre_tokenizers.Split(Regex(M3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    words = ["".join(random_point(rng) for _ in range(3)) * 3 for _ in range(300)]
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(texts + words + ["".join(EMOJI) * 4] + PIECES, trainer)
    if added:
        tokenizer.add_special_tokens([AddedToken(c, normalized=False, special=True) for c in SPECIAL])
        tokenizer.add_tokens([AddedToken(c, normalized=i % 2 == 1, lstrip=i % 5 == 4, rstrip=i % 5 == 3)
                              for i, c in enumerate(PLAIN)])
    return tokenizer


class Pair:
    """A tokenizer of `tokenizers` and the file that text_oracle opens."""

    def __init__(self, oracle, folder, name, tokenizer, change=None, path=None):
        self.oracle, self.name = oracle, name
        self.path = path or os.path.join(folder, name + ".json")
        data = json.loads(tokenizer.to_str())
        if change:
            change(data)
        self.tokenizer = Tokenizer.from_str(json.dumps(data))
        if not path:
            with open(self.path, "w", encoding="utf-8") as file:
                json.dump(data, file, ensure_ascii=name.startswith("ascii"))
        data["added_tokens"] = []
        self.bare = Tokenizer.from_str(json.dumps(data))

    def expected(self, text, flags):
        text = text.decode(errors="replace")
        added = flags & 3
        tokenizer = self.tokenizer if added else self.bare
        tokenizer.encode_special_tokens = added == ADDED_PLAIN
        ids = tokenizer.encode(text, add_special_tokens=bool(flags & POST)).ids
        return ids, self.tokenizer.decode(ids, skip_special_tokens=bool(flags & SKIP))

    def compare(self, cases):
        sent = b"".join(struct.pack("<II", flags, len(text)) + text for text, flags in cases)
        ran = subprocess.run([self.oracle, self.path], input=sent, stdout=subprocess.PIPE, check=True)
        got, at, skipped = ran.stdout, 0, 0
        for text, flags in cases:
            (count,) = struct.unpack_from("<I", got, at)
            ids = list(struct.unpack_from(f"<{count}i", got, at + 4))
            at += 4 + 4 * count
            (length,) = struct.unpack_from("<I", got, at)
            decoded = got[at + 4:at + 4 + length].decode()
            at += 4 + length
            want, want_text = self.expected(text, flags)
            if ids != want:
                sys.exit(f"{self.name}: ids differ for {text!r} (flags {flags}):\n  got  {ids}\n  want {want}")
            # `tokenizers` reads an added token's letters as bytes; the decoder here gives them as they are.
            if any(self.tokenizer.id_to_token(i) == "été" for i in ids):
                skipped += 1
            elif decoded != want_text:
                sys.exit(f"{self.name}: text differs for {ids} (flags {flags}):\n  got  {decoded!r}\n  want {want_text!r}")
        assert at == len(got)
        return skipped


def every_character(rng):
    """Each code point once, between letters and by itself."""
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    around = ["{}", "a{}", "A{}b", " {}", "1{}", "{}{}", "e{}\u0301", "'{}", "-{}\n"]
    return ["".join(rng.choice(around).replace("{}", c) for c in points[i:i + 16]) for i in range(0, len(points), 16)]


def variants(oracle, folder, texts, rng):
    plain = train(texts, 3000, False, False, rng)
    full = train(texts, 6000, True, True, rng)
    full.post_processor = processors.TemplateProcessing(single="]~!b[ $A [e~[", special_tokens=[
        ("]~!b[", full.token_to_id("]~!b[")), ("[e~[", full.token_to_id("[e~["))])

    def strings(data):
        data["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]

    def ignore(data):
        data["model"]["ignore_merges"] = True

    def gpt2(data):
        data["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}

    def behavior(kind, invert, expression):
        def change(data):
            data["pre_tokenizer"]["pretokenizers"].insert(0, {
                "type": "Split", "pattern": expression, "behavior": kind, "invert": invert})
        return change

    yield Pair(oracle, folder, "nfc-added", full)
    yield Pair(oracle, folder, "plain", plain)
    yield Pair(oracle, folder, "ascii-strings", full, strings)
    yield Pair(oracle, folder, "ignore-merges", full, ignore)
    yield Pair(oracle, folder, "gpt2", plain, gpt2)
    digits, dash = {"Regex": r"\p{N}{1,3}"}, {"String": "-"}
    for kind in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        yield Pair(oracle, folder, kind, plain, behavior(kind, False, digits))
        yield Pair(oracle, folder, kind + "-inverted", plain, behavior(kind, True, dash))
    yield Pair(oracle, folder, "classes", plain, behavior("Isolated", False, {
        "Regex": r"[一-龥\u3040-ヿ]+|[\p{P}\p{S}&&&]?\p{Han}|[^\S\r]{2,}+(?<!x)|\x{41}{,2}B|[\-\]\[^.]".replace("&&&", "&")
        .replace("{2,}+", "{2,}")}))


def o200k_pair(oracle, path, folder):
    data = (gzip.open if path.endswith(".gz") else open)(path, "rb").read()
    ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in data.splitlines()}
    letters = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b]
    others = [b for b in range(256) if b not in letters]
    alphabet = {b: chr(b) for b in letters} | {b: chr(256 + i) for i, b in enumerate(others)}
    word = lambda token: "".join(alphabet[b] for b in token)
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        cuts = [(ranks[token[:i]], ranks[token[i:]], i) for i in range(1, len(token))
                if token[:i] in ranks and token[i:] in ranks]
        merges += [(word(token[:i]), word(token[i:])) for _, _, i in sorted(cuts)]
    model = models.BPE(vocab={word(t): r for t, r in ranks.items()}, merges=merges, ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(O200K), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    plain = os.path.join(folder, "o200k.tiktoken")
    with open(plain, "wb") as file:
        file.write(data)
    yield Pair(oracle, folder, "o200k.tiktoken", tokenizer, path=plain)
    yield Pair(oracle, folder, "o200k", tokenizer)


def bench(pair, texts):
    """One run, one core, the same texts, CPU time."""
    parts = [t.encode() for t in texts]
    sent = b"".join(struct.pack("<II", ADDED_ALL, len(part)) + part for part in parts) * 3
    print(f"{pair.name}: open and encode of text_oracle (seconds, of", len(sent), "bytes):", flush=True)
    subprocess.run([pair.oracle, pair.path, "--time"], input=sent, stdout=subprocess.DEVNULL, check=True)
    start = time.process_time()
    Tokenizer.from_file(pair.path) if pair.path.endswith(".json") else None
    opened = time.process_time() - start
    start = time.process_time()
    for _ in range(3):
        for text in texts:
            pair.tokenizer.encode(text, add_special_tokens=False)
    print(f"tokenizers: open {opened:.4f} encode {time.process_time() - start:.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("oracle")
    parser.add_argument("--strings", type=int, default=20000, help="over all tokenizers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--o200k")
    parser.add_argument("--bench", action="store_true")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    texts = real_texts()
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        pairs = list(variants(options.oracle, folder, texts[:120], rng))
        if options.o200k:
            pairs += o200k_pair(options.oracle, options.o200k, folder)
        if options.bench:
            for pair in pairs:
                if pair.name in ("nfc-added", "o200k", "o200k.tiktoken"):
                    bench(pair, texts)
            return
        characters = every_character(rng)
        for pair in pairs:
            special = pair.name in ("nfc-added", "o200k")
            share = options.strings // len(pairs)
            while share > 0:
                cases = [((random_bytes if rng.random() < 0.15 else lambda r, t: random_string(r, t).encode())(rng, texts),
                          rng.choice([ADDED_ALL, ADDED_PLAIN, ADDED_NONE]) | rng.choice([0, POST]) | rng.choice([0, SKIP]))
                         for _ in range(min(share, 20000))]
                pair.compare(cases)
                share -= len(cases)
                total += len(cases)
            if special:
                pair.compare([(text.encode(), ADDED_ALL) for text in characters])
                total += len(characters)
                long = ["a" * 300000, "ab" * 100000, " " * 200000 + "x", "日本" * 60000, "".join(rng.choices("abcdefgh", k=200000))]
                pair.compare([(text.encode(), ADDED_ALL) for text in long])
                total += len(long)
            print(f"{pair.name}: equal", flush=True)
    print(f"{total} strings, {len(pairs)} tokenizers: ids and text equal "
          f"({resource.getrusage(resource.RUSAGE_SELF).ru_utime:.0f} s)")


main()

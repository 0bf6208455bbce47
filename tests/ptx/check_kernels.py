"""Kernels of a compiled model against plain arithmetic, run by ptx.py.

    check_kernels.py PTX INSPECT EMIT [products|join]   PTX: kernels.s of `sluice compile --save-temps`; INSPECT: `sluice
                                                        inspect --json`; EMIT: the program emit_kernel; products, join:
                                                        those alone

Before griddepcontrol.wait the launches before a kernel may still be writing: what they write is NaN then.
"""
import json
import pathlib
import subprocess
import sys

import numpy as np

import ptx

BASE, UNWRITTEN = 1 << 32, 0x7FC0  # NaN
ONE, TOKENS, TILES, PAGE_STRIDE, PAGES, TOKENS_PAGES, SIZES = 0, 1, 4, 5, 7, 10, 16


class Memory:
    def __init__(self):
        self.parts, self.length = [], 0

    def add(self, array, before=None):
        """The address of a copy of `array`, which is `before` as long as a kernel has not waited."""
        self.length = -(-self.length // 1024) * 1024
        self.parts.append((self.length, array, array if before is None else before))
        self.length += array.nbytes
        return BASE + self.parts[-1][0]

    def build(self):
        contents = []
        for which in (1, 2):
            memory = np.full(self.length, 0xFF, np.uint8)
            for part in self.parts:
                data = np.ascontiguousarray(part[which]).view(np.uint8).ravel()
                memory[part[0] : part[0] + len(data)] = data
            contents.append(memory)
        self.memory, self.before = contents

    def read(self, address, shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.memory[address - BASE : address - BASE + size].view(dtype).reshape(shape)


class Model:
    def __init__(self, text, inspected, emit):
        self.text, self.emit = text, emit
        self.kernels = [k for k in inspected["targets"][0]["kernels"] if f".entry {k['name']}(" in text]

    def find(self, family, **wanted):
        for k in self.kernels:
            if k["family"] == family and all(k["attributes"][name] == value for name, value in wanted.items()):
                return ptx.Kernel(self.text, k["name"]), k["attributes"]
        raise LookupError(f"no kernel {family} with {wanted}")

    def emit_other(self, family, changes, **wanted):
        """A kernel that differs from the model's in some attributes; all of them, and its grid's numbers."""
        kernel, attributes = self.find(family, **wanted)
        attributes = {**attributes, **changes}
        numbers = ("alpha", "limit", "scale")
        kinds = {name: "f" if name in numbers else "si"[isinstance(value, int)] for name, value in attributes.items()}
        listed = [f"{kinds[name]}:{name}={value}" for name, value in attributes.items()]
        command = [self.emit, "h100", family, str(len(kernel.parameters) - 1), *listed]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            raise SystemExit(f"{family} with {changes}: {made.stderr}")
        grid = [[int(n) for n in extent.split()] for extent in made.stderr.removeprefix("grid").split(",")]
        return ptx.Kernel(made.stdout, f"{family}_0"), attributes, grid


def random_bf16(random, *shape):
    return ptx.f32_to_bf16(random.standard_normal(shape).astype(np.float32)).astype(np.uint16)


def floats(bits):
    return ptx.bf16_to_f32(bits).astype(np.float64)


def sizes_of(**values):
    sizes = np.zeros(SIZES, np.int32)
    sizes[ONE] = 1
    for name, value in values.items():
        sizes[globals()[name]] = value
    return sizes


class Cache:
    """Sequences of random keys and values (or index keys alone) on pages in any order. Of sequence i the last new[i]
    tokens are appended by the step at hand."""

    def __init__(self, random, lengths, new, a, index=False):
        page, dim = a["page"], a["dim"] if index else a["head_dim"]
        heads = 1 if index else a["kv_heads"]
        self.pages = [-(-length // page) for length in lengths]
        self.stride = 1 << (max(self.pages) - 1).bit_length()
        self.table = np.zeros((len(lengths), self.stride), np.int32)
        free = list(random.permutation(sum(self.pages) + 2))
        self.cache = np.full((len(free), a["page_bytes"] // 2), UNWRITTEN, np.uint16)
        self.before = self.cache.copy()
        self.keys = [random_bf16(random, heads, length, dim) for length in lengths]
        self.values = [random_bf16(random, heads, length, dim) for length in lengths]
        for i, length in enumerate(lengths):
            for number in range(self.pages[i]):
                place = self.table[i, number] = free.pop()
                first, end = number * page, min(length, (number + 1) * page)
                keys = np.full((heads, page, dim), UNWRITTEN, np.uint16)
                keys[:, : end - first] = self.keys[i][:, first:end]
                start = a["index_offset"] // 2 if index else 0
                self.cache[place, start : start + keys.size] = keys.ravel()
                if not index:
                    values = np.full((heads, dim, page), UNWRITTEN, np.uint16)
                    values[:, :, : end - first] = self.values[i][:, first:end].transpose(0, 2, 1)
                    start = a["value_offset"] // 2
                    self.cache[place, start : start + values.size] = values.ravel()
                if end <= length - new[i]:
                    self.before[place] = self.cache[place]


def attend(query, keys, values, scale):
    scores = floats(query) @ floats(keys).T * scale
    weights = np.exp(scores - scores.max())
    return weights / weights.sum() @ floats(values)


def worse(worst, result, wanted):
    """The largest error so far; NaN once there is one."""
    return np.maximum(worst, np.abs(result - wanted).max())


def expect(what, worst, most):
    print(f"{what}: largest error {worst:.2e}")
    if not worst <= most:
        raise SystemExit(f"{what}: expected at most {most}")


def check_dense_attention(model, random, lengths, parts=132, broken=False):
    part, a, grid = model.emit_other("attention_part", {"parts": parts})
    merge, _, _ = model.emit_other("attention_merge", {"parts": parts})
    if grid[0] != [ONE, 1, parts, 0]:
        raise SystemExit(f"dense attention of {parts} parts has the grid {grid}")
    tokens, heads, dim = len(lengths), a["heads"], a["head_dim"]
    cache = Cache(random, lengths, [1] * tokens, a)
    q = random_bf16(random, tokens, heads, dim)
    if broken:  # the scores of one head are NaN
        q[-1, -1] = UNWRITTEN
    m = Memory()
    sizes = m.add(sizes_of(TOKENS=tokens, PAGE_STRIDE=cache.stride, PAGES=max(cache.pages)))
    out = m.add(np.zeros((tokens, heads, dim), np.uint16) if broken else np.full((tokens, heads, dim), UNWRITTEN, np.uint16))
    partials = m.add(np.full((parts, a["part_rows"] * (dim + 2)), np.nan, np.float32))
    arguments = [m.add(q, np.full_like(q, UNWRITTEN)), m.add(np.array(lengths, np.int32) - 1)]
    arguments += [m.add(np.arange(tokens, dtype=np.int32)), m.add(cache.table), m.add(cache.cache, cache.before)]
    m.build()
    ptx.launch(part, (parts, 1), arguments + [out, partials, sizes], m.memory, m.before, BASE)
    ptx.launch(merge, (tokens, heads), [partials, out, sizes], m.memory, m.memory, BASE)
    result, worst, group = floats(m.read(out, (tokens, heads, dim), np.uint16)), 0, heads // a["kv_heads"]
    for t in range(tokens):
        for h in range(heads):
            wanted = attend(q[t, h], cache.keys[t][h // group], cache.values[t][h // group], a["scale"])
            if broken and (t, h) == (tokens - 1, heads - 1):
                expect_nan(result[t, h], f"dense attention over {lengths}, {parts} parts")
            else:
                worst = worse(worst, result[t, h], wanted)
    expect(f"dense attention over {lengths}, {parts} parts{', one head NaN' * broken}", worst, 0.02)


def expect_nan(result, what):
    if not np.isnan(result).all():
        raise SystemExit(f"{what}: a head whose scores are NaN has finite output")


def check_sparse_attention(model, random, lengths, cluster=1, broken=False):
    kernel, a = model.find("topk_attention", cluster=cluster)
    tokens, heads, kv_heads, dim, k = len(lengths), a["heads"], a["kv_heads"], a["head_dim"], a["k"]
    page, group = a["page"], heads // kv_heads
    cache = Cache(random, lengths, [1] * tokens, a)
    q = random_bf16(random, tokens, heads, dim)
    if broken:
        q[-1, -1] = UNWRITTEN
    scores = random.integers(0, 12, (tokens, kv_heads, max(cache.pages))).astype(np.float32)  # with ties
    scores[0, 0, ::3] = np.nan
    m = Memory()
    sizes = m.add(sizes_of(TOKENS=tokens, PAGE_STRIDE=cache.stride, PAGES=max(cache.pages)))
    out = m.add(np.zeros((tokens, heads, dim), np.uint16) if broken else np.full((tokens, heads, dim), UNWRITTEN, np.uint16))
    blocks = m.add(np.full((tokens, kv_heads, k), -2, np.int32))
    arguments = [m.add(q, np.full_like(q, UNWRITTEN)), m.add(scores, np.full_like(scores, np.nan))]
    arguments += [m.add(np.array(lengths, np.int32) - 1), m.add(np.arange(tokens, dtype=np.int32)), m.add(cache.table)]
    arguments += [m.add(cache.cache, cache.before), out, blocks, sizes]
    m.build()
    ptx.launch(kernel, (kv_heads * cluster, tokens), arguments, m.memory, m.before, BASE)
    result, worst = floats(m.read(out, (tokens, heads, dim), np.uint16)), 0
    chosen = m.read(blocks, (tokens, kv_heads, k), np.int32)
    for t, length in enumerate(lengths):
        visible = cache.pages[t]
        for head in range(kv_heads):
            forced = set(range(min(a["init"], visible))) | set(range(max(visible - a["local"], 0), visible))
            order = [-np.inf if np.isnan(s) else s for s in scores[t, head, :visible]]
            others = sorted((b for b in range(visible) if b not in forced), key=lambda b: (-order[b], b))
            wanted = sorted(list(forced) + others[: k - len(forced)])
            wanted += [-1] * (k - len(wanted))
            if list(chosen[t, head]) != wanted:
                raise SystemExit(f"blocks of token {t}, head {head}: {chosen[t, head]}, expected {wanted}")
            seen = [p for b in wanted if b >= 0 for p in range(b * page, min((b + 1) * page, length))]
            for h in range(head * group, (head + 1) * group):
                output = attend(q[t, h], cache.keys[t][head][seen], cache.values[t][head][seen], a["scale"])
                if broken and (t, h) == (tokens - 1, heads - 1):
                    expect_nan(result[t, h], f"choice and attention over {lengths}, clusters of {cluster}")
                else:
                    worst = worse(worst, result[t, h], output)
    what = f"choice and attention over {lengths}, clusters of {cluster}{', one head NaN' * broken}"
    expect(f"{what}, blocks as expected", worst, 0.02)


def check_block_scores(model, random, lengths, new, most=8448):
    kernel, a = model.find("block_score")
    page, heads, dim, tokens = a["page"], a["heads"], a["dim"], sum(new)
    cache = Cache(random, lengths, new, a, index=True)
    q = random_bf16(random, tokens, heads, dim)
    tiles, first = [], 0
    for i, length in enumerate(lengths):
        for start in range(0, new[i], a["query_tile"]):
            count = min(a["query_tile"], new[i] - start)
            tiles.append((first + start, count, i, length - new[i] + start))
        first += new[i]
    m = Memory()
    pages = max(cache.pages)
    workgroups = min(tokens * pages, most)
    sizes = sizes_of(TOKENS=tokens, TILES=len(tiles), PAGE_STRIDE=cache.stride, PAGES=pages, TOKENS_PAGES=workgroups)
    sizes = m.add(sizes)
    out = m.add(np.full((tokens, heads, pages), np.nan, np.float32))
    arguments = [m.add(q, np.full_like(q, UNWRITTEN)), m.add(np.array(tiles, np.int32)), m.add(cache.table)]
    arguments += [m.add(cache.cache, cache.before), out, sizes]
    m.build()
    ptx.launch(kernel, (workgroups, 1), arguments, m.memory, m.before, BASE)
    result, worst = m.read(out, (tokens, heads, pages), np.float32), 0
    for first, count, i, position in tiles:
        for token in range(count):
            visible = (position + token) // page + 1
            if visible <= a["k"]:
                continue
            scores = floats(q[first + token]) @ floats(cache.keys[i][0][: position + token + 1]).T
            for block in range(visible - a["local"]):
                wanted = scores[:, block * page : (block + 1) * page].max(1)
                worst = worse(worst, result[first + token, :, block], wanted)
    expect(f"scores of blocks, contexts {lengths}, {new} new", worst, 1e-4)


def pack_panels(matrices):
    """Weights [rows][k] of each matrix as panels of 16 rows and groups of 8 columns, the matrices' panels in turn."""
    panels = [w.reshape(-1, 16, w.shape[1] // 8, 8).transpose(0, 2, 1, 3) for w in matrices]
    return np.ascontiguousarray(np.stack(panels, 1))


def check_product(model, random, epilogue, tile_m, rows, x, like=None):
    """The workgroups of a streamed product that have share x; of the weights only their panels are there. `like`: the tile of
    the model's product that this one otherwise is."""
    find = {"epilogue": epilogue, "panel": 16, "out_dtype": "bf16"}
    if like:
        kernel, a, _ = model.emit_other("gemm", {"tile_m": tile_m}, tile_m=like, **find)
    else:
        kernel, a = model.find("gemm", tile_m=tile_m, **find)
    n, k, matrices = a["n"], a["k"], 2 if epilogue == "swiglu" else 1
    panels, share = -(-n // 16), a["workgroups"]
    first, end = panels * x // share, panels * (x + 1) // share
    w = [random_bf16(random, (end - first) * 16, k) for _ in range(matrices)]
    inputs, residual = random_bf16(random, rows, k), random_bf16(random, rows, n)
    m = Memory()
    out = m.add(np.full((rows, n), UNWRITTEN, np.uint16))
    arguments = [m.add(inputs, np.full_like(inputs, UNWRITTEN)), m.add(pack_panels(w)) - first * matrices * k * 32]
    arguments += [m.add(residual, np.full_like(residual, UNWRITTEN)), out, m.add(sizes_of(TOKENS=rows))]
    m.build()
    tiles = -(-rows // tile_m)  # so many workgroups follow each other with one share, up to 1024 rows
    numbers = range(x * tiles, (x + 1) * tiles)
    ptx.run(kernel, [(number % share, number // share) for number in numbers], arguments, m.memory, m.before, BASE)
    columns = slice(first * 16, min(end * 16, n))
    wanted, *up = [floats(inputs) @ floats(matrix).T for matrix in w]
    if epilogue == "swiglu":
        wanted = swiglu(wanted, up[0], a)
    if epilogue == "add":
        wanted = wanted + floats(residual)[:, columns]
    result = m.read(out, (rows, n), np.uint16)
    others = np.delete(result, np.r_[columns], 1)
    if (others != UNWRITTEN).any():
        raise SystemExit(f"product, {epilogue}: columns of other workgroups are written")
    # bf16 is off by up to 2^-8 of the result; sums of f32 by far less.
    error = worse(0, floats(result[:, columns]) / np.maximum(1, np.abs(wanted)), wanted / np.maximum(1, np.abs(wanted)))
    expect(f"streamed product, {epilogue}, tiles of {tile_m}, {rows} rows, workgroup {x} of {share}", error, 0.005)


def swiglu(gate, up, a):
    gate, up = np.minimum(gate, a["limit"]), np.clip(up, -a["limit"], a["limit"])
    return (up + 1) * gate / (1 + np.exp(-a["alpha"] * gate))


def finish_tile(a, inputs, matrices, rows, columns, result, written):
    """What the slots `rows` have in `columns`, and what they should have, over the larger of 1 and that. Marks them written."""
    sources = [row // a["top_k"] if a["gather"] == "token" else row for row in rows]
    wanted, *up = [floats(inputs[sources]) @ floats(matrix[columns]).T for matrix in matrices]
    if a["epilogue"] == "swiglu":
        wanted = swiglu(wanted, up[0], a)
    place, scale = np.ix_(rows, columns), np.maximum(1, np.abs(wanted))
    written[place] = True
    return result[place] / scale, wanted / scale


def check_experts(model, random, epilogue, tokens, x):
    """Workgroup x of a streamed product of experts: all tokens have the experts 0 and 1."""
    kernel, a = model.find("expert_gemm", epilogue=epilogue, workgroups=132)
    n, k, experts, slots = a["n"], a["k"], a["experts"], a["top_k"]
    matrices, tile_m, bf16 = 2 if epilogue == "swiglu" else 1, a["tile_m"], a["out_dtype"] == "bf16"
    few = random_bf16(random, 1 << 20)  # weights that repeat: there are many
    w = [[np.resize(few[i * 1009 + j * 511 :], (n, k)) for j in range(matrices)] for i in range(2)]
    inputs = random_bf16(random, tokens if a["gather"] == "token" else tokens * slots, k)
    order = [t * slots for t in range(tokens)] + [t * slots + slots - 1 for t in range(tokens)]
    tiles = []
    for expert, first in ((0, 0), (1, tokens)):
        for row in range(first, first + tokens, tile_m):
            tiles.append((expert, row, min(first + tokens - row, tile_m), 0))
    counts = [len(tiles), 0, tokens] + [2 * tokens] * (experts - 1)
    m = Memory()
    out = m.add(np.full((tokens * slots, n), *((UNWRITTEN, np.uint16) if bf16 else (np.nan, np.float32))))
    made = [np.array(table, np.int32) for table in (counts, order, tiles)]
    arguments = [m.add(inputs, np.full_like(inputs, UNWRITTEN)), m.add(np.concatenate([pack_panels(v) for v in w])), 0]
    arguments += [m.add(table, np.full_like(table, -1)) for table in made] + [out, m.add(sizes_of(TOKENS=tokens))]
    m.build()
    ptx.run(kernel, [(x, 0)], arguments, m.memory, m.before, BASE)
    result = m.read(out, (tokens * slots, n), np.uint16 if bf16 else np.float32)
    result = floats(result) if bf16 else result
    width = a["slice"]
    rounds, error, written = -(-n // width), 0, np.zeros(result.shape, bool)
    of_expert = len(tiles) // 2
    for number in range(x, rounds * len(tiles), 132):
        expert, within = divmod(number, rounds * of_expert)
        column, tile = within // of_expert * width, expert * of_expert + within % of_expert
        rows = order[tiles[tile][1] : tiles[tile][1] + tiles[tile][2]]
        columns = range(column, min(column + width, n))
        error = worse(error, *finish_tile(a, inputs, w[expert], rows, columns, result, written))
    if not np.isnan(result[~written]).all():
        raise SystemExit(f"experts, {epilogue}: results of other workgroups are written")
    expect(f"streamed experts, {epilogue}, {tokens} tokens, workgroup {x}", error, 0.005 if bf16 else 1e-4)


def check_router_logits(model, random, tokens):
    kernel, a = model.find("router_logits", many=int(tokens > 8))
    experts, width = a["experts"], a["width"]
    x = random_bf16(random, tokens, width)
    gate = random.standard_normal((experts, width)).astype(np.float32)
    m = Memory()
    out = m.add(np.full((tokens, experts), np.nan, np.float32))
    arguments = [m.add(x, np.full_like(x, UNWRITTEN)), m.add(gate), out, m.add(sizes_of(TOKENS=tokens))]
    m.build()
    grid = (experts // 16, -(-tokens // 8)) if a["many"] else (experts, -(-tokens // 2))
    ptx.launch(kernel, grid, arguments, m.memory, m.before, BASE)
    worst = worse(0, m.read(out, (tokens, experts), np.float32), floats(x) @ gate.astype(np.float64).T)
    expect(f"router logits of {tokens} tokens", worst, 1e-3)


def is_sorted(m, a, chosen, counts, order, tiles):
    """Whether the three tables are those of the choices [tokens][k]; a shared expert's slots come last."""
    (tokens, k), experts, tile_m, shared = chosen.shape, a["experts"], a["tile_m"], a["shared"]
    slots, number = tokens * (k + shared), np.argsort(chosen.ravel(), kind="stable")
    places = [*(number + number // k * shared), *(t * (k + 1) + k for t in range(tokens * shared))]
    ends = [*np.searchsorted(np.sort(chosen.ravel()), np.arange(experts + 1))] + [slots] * shared
    listed = []
    for expert in range(experts + shared):
        for row in range(ends[expert], ends[expert + 1], tile_m):
            listed.append((expert, row, min(ends[expert + 1] - row, tile_m), 0))
    right = (m.read(order, slots, np.int32) == places).all()
    right &= (m.read(counts, experts + shared + 2, np.int32) == [len(listed), *ends]).all()
    return right & (m.read(tiles, (len(listed), 4), np.int32) == listed).all()


def check_sort(model, random, tile_m, tokens):
    """The slots of a step sorted by expert; some experts have none, some several tiles."""
    kernel, a = model.find("sort_experts", tile_m=tile_m)
    experts, k = a["experts"], a["k"]
    assert not a["shared"], a
    chosen = np.stack([np.sort(random.choice(experts // 3, k, replace=False)) for _ in range(tokens)]).astype(np.int32)
    m = Memory()
    counts, order, tiles = (m.add(np.full(n, -1, np.int32)) for n in (experts + 2, tokens * k, 4 * tokens * k))
    arguments = [m.add(chosen, np.full_like(chosen, -1)), counts, order, tiles, m.add(sizes_of(TOKENS=tokens))]
    m.build()
    ptx.launch(kernel, (1, 1), arguments, m.memory, m.before, BASE)
    right = is_sorted(m, a, chosen, counts, order, tiles)
    expect(f"sort of {tokens} tokens' experts, tiles of {tile_m}", 0 if right else 1, 0.5)


def check_route(model, random, tokens):
    """The choice of a step of few tokens and its sort, from logits with ties; a shared expert's slots come last."""
    kernel, a = model.find("route", tokens=8 if tokens <= 8 else 16 if tokens <= 16 else 64)
    experts, k, shared = a["experts"], a["k"], a["shared"]
    logits = random.standard_normal((tokens, experts)).astype(np.float32).round(1)
    bias = (random.standard_normal(experts) / 8).astype(np.float32)
    bias[: experts // 2] = 0
    m = Memory()
    slots = tokens * (k + shared)
    arguments = [m.add(logits, np.full_like(logits, np.nan)), m.add(bias)]
    counts, order, tiles = (m.add(np.full(n, -1, np.int32)) for n in (experts + shared + 2, slots, 4 * slots))
    chosen, weights = m.add(np.full((tokens, k), -1, np.int32)), m.add(np.full((tokens, k), np.nan, np.float32))
    arguments += [counts, order, tiles, chosen, weights, m.add(sizes_of(TOKENS=tokens))]
    m.build()
    ptx.launch(kernel, (1, 1), arguments, m.memory, m.before, BASE)
    score = 1 / (1 + np.exp(-logits.astype(np.float64)))
    by_preference = np.lexsort((np.broadcast_to(np.arange(experts), score.shape), -(score + bias).round(6)))
    wanted = np.sort(by_preference[:, :k])
    right = (m.read(chosen, (tokens, k), np.int32) == wanted).all()
    share = np.take_along_axis(score, wanted, 1)
    error = np.abs(m.read(weights, (tokens, k), np.float32) - share / share.sum(1, keepdims=True)).max()
    right &= is_sorted(m, a, wanted, counts, order, tiles)
    expect(f"route of {tokens} tokens", max(error, 0 if right else 1), 1e-6)


def check_few_experts(model, random, epilogue, tokens, x, y):
    """Workgroup (x, y) of experts of few tokens: expert 3 has every token, expert 5 every other one."""
    kernel, a = model.find("expert_gemm", epilogue=epilogue, tile_m=8, shared=0)
    n, k, experts, slots = a["n"], a["k"], a["experts"], a["top_k"]
    matrices, bf16, width = 2 if epilogue == "swiglu" else 1, a["out_dtype"] == "bf16", a["slice"]
    w = [[random_bf16(random, n, k) for j in range(matrices)] for i in range(2)]
    inputs = random_bf16(random, tokens if a["gather"] == "token" else tokens * slots, k)
    rows = [[t * slots for t in range(tokens)], [t * slots + 1 for t in range(0, tokens, 2)]]
    tiles = [(0, 0, tokens, 0), (1, tokens, len(rows[1]), 0)]
    counts = [2, 0, tokens] + [tokens + len(rows[1])] * (experts - 1)
    m = Memory()
    out = m.add(np.full((tokens * slots, n), *((UNWRITTEN, np.uint16) if bf16 else (np.nan, np.float32))))
    table = np.full((tokens * slots, 4), 7, np.int32)  # what lies behind the last tile is anything
    table[: len(tiles)] = tiles
    made = [np.array(counts, np.int32), np.array(rows[0] + rows[1], np.int32), table]
    control = [name[1] for _, name, _ in kernel.instructions if name[0] == "griddepcontrol"]
    if a["overlap"] == "first" and control != ["wait", "launch_dependents"]:
        raise SystemExit(f"the first product lets the second start at {control}, expected: behind its wait")
    arguments = [m.add(inputs, np.full_like(inputs, UNWRITTEN)), m.add(np.concatenate([pack_panels(v) for v in w])), 0]
    # The second product starts when the sort is done; the first one waits for it.
    arguments += [m.add(t, t if a["overlap"] == "second" else np.full_like(t, -1)) for t in made] + [out, m.add(sizes_of(TOKENS=tokens))]
    m.build()
    ptx.run(kernel, [(x, y)], arguments, m.memory, m.before, BASE)
    result = m.read(out, (tokens * slots, n), np.uint16 if bf16 else np.float32)
    result, written, error = floats(result) if bf16 else result, np.zeros((tokens * slots, n), bool), 0
    if y < len(tiles):
        columns = range(x * width, min((x + 1) * width, n))
        error = worse(error, *finish_tile(a, inputs, w[y], rows[y], columns, result, written))
    if not np.isnan(result[~written]).all():
        raise SystemExit(f"few experts, {epilogue}: results of other workgroups are written")
    expect(f"experts, {epilogue}, {tokens} tokens, workgroup ({x}, {y})", error, 0.005 if bf16 else 1e-4)


def check_join(model, random, tokens):
    """Router, experts and shared expert as one launch leave behind what its parts do one by one, and the counters zero. A part
    that finds others unfinished waits for them: those that it needs, and the second product for the first alone when the
    choices are sorted."""
    name = next(k["name"] for k in model.kernels if k["family"] == "join" and len(k["attributes"]["parts"]) == 7)
    parts = next(k["attributes"]["parts"] for k in model.kernels if k["name"] == name)
    of = [next((k["family"], k["attributes"]) for k in model.kernels if k["name"] == part) for part in parts]
    (_, router), (_, route), (_, shared), (_, first), (_, shared2), (_, second), (_, combine) = of
    experts, k, width, inner = route["experts"], route["k"], router["width"], first["n"]
    m = Memory()

    def made(*shape):  # by this launch or one before it
        return m.add(np.full(shape, 0x7FC07FC0, np.int32))

    def weights(n, depth, matrices, batch):
        one = [pack_panels([random_bf16(random, n, depth) for _ in range(matrices)]) for _ in range(batch)]
        return m.add(np.concatenate(one))

    x, residual = random_bf16(random, tokens, width), random_bf16(random, tokens, width)
    x, residual = (m.add(v, np.full_like(v, UNWRITTEN)) for v in (x, residual))
    gate = m.add(random.standard_normal((experts, width)).astype(np.float32))
    bias = m.add((random.standard_normal(experts) / 8).astype(np.float32))
    logits, counts, order, tiles = made(tokens, experts), made(experts + 2), made(tokens * k), made(4 * tokens * k)
    chosen, shares, y, shared_y = made(tokens, k), made(tokens, k), made(tokens * k, width), made(tokens, width)
    hidden, shared_hidden, out = made(tokens * k, inner // 2), made(tokens, inner // 2), made(tokens, width // 2)
    sorted_slots = [counts, order, tiles]
    arguments = [
        [x, gate, logits],
        [logits, bias, *sorted_slots, chosen, shares],
        [x, weights(inner, width, 2, 1), 0, shared_hidden],
        [x, weights(inner, width, 2, experts), 0, *sorted_slots, hidden],
        [shared_hidden, weights(width, inner, 1, 1), 0, shared_y],
        [hidden, weights(width, inner, 1, experts), 0, *sorted_slots, y],
        [y, shares, shared_y, residual, out],
    ]
    counters, sizes = m.add(np.zeros(256, np.int32)), m.add(sizes_of(TOKENS=tokens))
    m.build()
    grids = [(experts, -(-tokens // 2)), (1, 1)] + [(a["n"] // a["slice"], 1) for a in (shared, first, shared2, second)]
    grids[3], grids[5] = ((grids[i][0], tokens * k) for i in (3, 5))
    grids.append((tokens, 1))
    fresh, one_by_one = m.memory.copy(), m.memory.copy()
    for i, (part, grid, own) in enumerate(zip(parts, grids, arguments)):
        before = one_by_one if i == 5 else m.before  # the second product starts when the sort is done
        ptx.launch(ptx.Kernel(model.text, part), grid, [*own, sizes], one_by_one, before, BASE)
    joined, all_arguments = ptx.Kernel(model.text, name), [a for own in arguments for a in own] + [counters, sizes]
    starts = np.cumsum([0] + [grid[0] * grid[1] for grid in grids])

    def ends(numbers, most=1_000_000):
        try:
            ptx.run(joined, [(number, 0) for number in numbers], all_arguments, m.memory, m.before, BASE, most)
        except RuntimeError as error:
            if "no end" not in str(error):
                raise
            return False
        return True

    waits = [i for i in range(1, 7) if ends([starts[i]], 20_000)]
    if waits != [2]:  # the shared expert's first product needs nothing of the others
        raise SystemExit(f"parts {waits} of {name} do not wait, expected 2 alone")
    m.memory[:] = fresh
    for i in range(7):
        if i == 2 and ends([starts[5]], 20_000):
            raise SystemExit("the second product does not wait for the first")
        if not ends(range(starts[i], starts[i + 1])):
            raise SystemExit(f"part {i} of {name} waits for ever")
    expect(f"join of {tokens} tokens", int((m.memory != one_by_one).sum()), 0.5)


def main():
    model = Model(pathlib.Path(sys.argv[1]).read_text(), json.loads(pathlib.Path(sys.argv[2]).read_text()), sys.argv[3])
    random = np.random.default_rng(20261123)
    if sys.argv[4:] == ["join"]:
        check_join(model, random, 2)
        return
    if sys.argv[4:] == ["products"]:
        for tile_m, rows in ((8, 5), (16, 9), (64, 60), (128, 140)):
            for epilogue in ("none", "add", "swiglu"):
                check_product(model, random, epilogue, tile_m, rows, 2)
        return
    for lengths in ([1], [300, 150], [129, 1000, 17], [100 + i for i in range(40)]):
        check_dense_attention(model, random, lengths)
    check_dense_attention(model, random, [300, 1000], parts=66)
    check_dense_attention(model, random, [700], broken=True)
    for lengths in ([5], [128 * 16, 128 * 17 + 1], [128 * 40, 700]):
        check_sparse_attention(model, random, lengths)
    for cluster, length in ((1, 700), (2, 128 * 17 + 1), (16, 700)):
        check_sparse_attention(model, random, [length], cluster, broken=True)
    for lengths, new in (([100], [1]), ([128 * 20 + 5, 128 * 17], [1, 1]), ([128 * 18 + 3], [40])):
        check_block_scores(model, random, lengths, new)
    check_block_scores(model, random, [128 * 30 + 5, 128 * 16, 128 * 26], [1, 20, 1], most=7)  # several for a workgroup
    for tile_m, rows, x in ((8, 1, 0), (8, 8, 131), (16, 9, 65), (64, 60, 131), (128, 200, 66)):
        check_product(model, random, "none", tile_m, rows, x)
    for tile_m, rows in ((24, 24), (40, 33), (48, 48)):
        check_product(model, random, "none", tile_m, rows, 5, like=16 if tile_m < 40 else 64)
    for tile_m, rows, x in ((8, 3, 131), (16, 16, 0)):
        check_product(model, random, "add", tile_m, rows, x)
    for tile_m, rows, x in ((8, 5, 131), (64, 17, 0)):
        check_product(model, random, "swiglu", tile_m, rows, x)
    for epilogue, tokens, x in (("swiglu", 70, 3), ("none", 70, 131)):
        check_experts(model, random, epilogue, tokens, x)
    for tokens in (1, 8, 9, 17):
        check_router_logits(model, random, tokens)
    for tile_m, tokens in ((16, 65), (16, 256), (32, 700)):
        check_sort(model, random, tile_m, tokens)
    for tokens in (1, 3, 8, 13, 40):
        check_route(model, random, tokens)
    for tokens, x, y in ((1, 0, 0), (8, 17, 1), (5, 191, 0), (5, 3, 2)):
        for epilogue in ("swiglu", "none"):
            check_few_experts(model, random, epilogue, tokens, x, y)


main()

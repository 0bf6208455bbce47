"""Runs kernels in PTX without a GPU, one workgroup at a time.

Lanes are columns of numpy arrays; those that stand at the lowest instruction go on together. What shuffles or multiplies
matrices waits until its whole warp is there. Only the instructions that the kernels of check_kernels.py have are known;
another one is an error, as are accesses outside the memory given, misaligned ones, and stores before
griddepcontrol.wait.

Global memory has two contents: what a lane reads before griddepcontrol.wait comes from `before`, which the caller
poisons where launches before this one would still be writing. Bulk copies arrive when somebody waits for them, a lane's
own asynchronous copies when the lane does. That a warp reads what another one stored or copied so to workgroup memory
without a barrier between them is an error. Workgroup memory begins as NaN. The workgroups of a cluster run in turns,
some instructions of each at a time; what one stores in another's memory is there at once.
"""
import re

import numpy as np

U64 = np.uint64
MASK = {8: 0xFF, 16: 0xFFFF, 32: 0xFFFFFFFF, 64: 0xFFFFFFFFFFFFFFFF}
TYPES = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
SHARED_BASE = 1024  # address of the symbol workgroup_memory
SHARED_BYTES = 228 * 1024
OF_RANK = 1 << 20  # workgroup memory of workgroup i of a cluster, as all of it see it: from (i + 1) * OF_RANK on


def bf16_to_f32(bits):
    return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(value):
    """Rounded to nearest even; u32."""
    bits = np.asarray(value, np.float32).view(np.uint32).astype(U64)
    rounded = (bits + U64(0x7FFF) + ((bits >> U64(16)) & U64(1))) >> U64(16)
    return np.where(np.isnan(value), U64(0x7FFF), rounded).astype(np.uint32)


def split_operands(text):
    operands, depth, current = [], 0, ""
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == "," and depth == 0:
            operands.append(current.strip())
            current = ""
        else:
            current += character
    return operands + [current.strip()] if current.strip() else operands


class Kernel:
    """An .entry of a PTX file: parameters, instructions (predicate, name, operands), labels."""

    def __init__(self, ptx, symbol):
        start = ptx.index(f".entry {symbol}(")
        text = ptx[start : ptx.index("\n}", start)]
        head, body = text[: text.index("\n{")], text[text.index("\n{") + 2 :]
        self.symbol = symbol
        self.parameters = re.findall(r"\.param [^\n]*?(\w+)[,\n]", head + "\n")
        self.lanes = int(re.search(r"\.maxntid (\d+)", head).group(1))
        cluster = re.search(r"\.reqnctapercluster (\d+)", head)
        self.cluster = int(cluster.group(1)) if cluster else 1
        self.predicates = set(re.findall(r"\.reg \.pred ([a-z]\w*);", body))  # those of inline assembly
        self.instructions, self.labels = [], {}
        for statement in re.sub(r"//[^\n]*", "", body).split(";"):
            statement = " ".join(statement.split())
            while True:
                statement = statement.lstrip("{} ") if re.match(r"^[{}] ", statement + " ") else statement
                label = re.match(r"^([$\w]+):(?!:)\s*(.*)$", statement)
                if not label:
                    break
                self.labels[label.group(1)] = len(self.instructions)
                statement = label.group(2)
            if statement and not statement.startswith(".reg"):
                guard = re.match(r"^@(!?)(%?\w+)\s+(.*)$", statement)
                predicate = (guard.group(2), guard.group(1) == "!") if guard else None
                name, _, operands = (guard.group(3) if guard else statement).partition(" ")
                self.instructions.append((predicate, name.split("."), split_operands(operands)))


class Workgroup:
    def __init__(self, kernel, arguments, place, memory, before, base):
        """`arguments`: addresses; `place`: (x, y) in the grid; `memory`, `before`: u8 arrays that begin at `base`."""
        self.kernel, self.lanes = kernel, kernel.lanes
        self.arguments = dict(zip(kernel.parameters, arguments, strict=True))
        self.place, self.memory, self.before, self.base = place, memory, before, base
        self.shared = np.full(SHARED_BYTES, 0xFF, np.uint8)
        self.registers, self.barriers, self.copies = {}, {}, []
        self.clock = 0
        self.own_copies, self.groups = [], np.zeros(self.lanes, int)
        self.writer = np.full(SHARED_BYTES, -1, np.int8)  # of each byte since the last barrier: a warp
        self.lane = np.arange(self.lanes)
        self.at = np.zeros(self.lanes, int)
        self.done, self.blocked, self.waited = (np.zeros(self.lanes, bool) for _ in range(3))
        self.cluster, self.rank, self.arrived = [self], 0, np.zeros(self.lanes, bool)

    def run(self, most=1_000_000):
        if not self.advances(most):
            raise RuntimeError(f"{self.kernel.symbol}: no end after {most} instructions")

    def advances(self, most):
        """Runs `most` instructions. Whether the end came."""
        for _ in range(most):
            ready = ~self.done & ~self.blocked
            if ready.any():
                at = self.at[ready].min()
                self.step(at, ready & (self.at == at))
            elif self.done.all():
                return True
            else:  # all that are left stand at the barrier
                self.at[self.blocked] += 1
                self.blocked[:] = False
                self.writer[:] = -1
        return False

    def step(self, at, lanes):
        predicate, name, operands = self.kernel.instructions[at]
        active = lanes
        if predicate:
            held = self.register(predicate[0])
            active = lanes & (~held if predicate[1] else held)
        if name[0] == "bra":
            self.at[lanes] += 1
            self.at[active] = self.kernel.labels[operands[0]]
        elif name[0] == "ret":
            self.at[lanes] += 1
            self.done |= active
        elif name[0] == "bar" and name[1] == "sync":
            self.blocked |= active
        elif name[0] in ("mma", "ldmatrix", "shfl", "redux", "vote") and not self.whole_warps(lanes):
            some = np.repeat(lanes.reshape(-1, 32).any(1), 32)
            elsewhere = some & ~lanes & ~self.done & ~self.blocked
            if not elsewhere.any():
                raise RuntimeError(f"{self.kernel.symbol}: {name} without the whole warp")
            following = self.at[elsewhere].min()
            self.step(following, elsewhere & (self.at == following))
        else:
            self.at[lanes] += 1
            if active.any():
                getattr(self, "do_" + name[0])(name, operands, active)

    @staticmethod
    def whole_warps(lanes):
        warps = lanes.reshape(-1, 32)
        return bool((warps.all(1) | ~warps.any(1)).all())

    # ---- values ----

    def register(self, name):
        if name not in self.registers:
            boolean = name.startswith("%p") or name in self.kernel.predicates
            self.registers[name] = np.zeros(self.lanes, bool if boolean else U64)
        return self.registers[name]

    def value(self, operand, lanes):
        count = int(lanes.sum())
        if operand == "%tid.x":
            return self.lane.astype(U64)[lanes]
        if operand == "%clock64":
            self.clock += 100
            return np.full(count, self.clock, U64)
        if operand == "%lanemask_lt":
            return (U64(1) << (self.lane.astype(U64)[lanes] & U64(31))) - U64(1)
        if operand in ("%ctaid.x", "%ctaid.y"):
            return np.full(count, self.place[operand == "%ctaid.y"], U64)
        if operand == "%cluster_ctarank":
            return np.full(count, self.rank, U64)
        if operand == "workgroup_memory":
            return np.full(count, SHARED_BASE, U64)
        if re.match(r"^0[fF][0-9a-fA-F]{8}$", operand):
            return np.full(count, int(operand[2:], 16), U64)
        if re.match(r"^-?\d", operand):
            return np.full(count, int(operand, 0) & MASK[64], U64)
        return self.register(operand)[lanes]

    def put(self, name, lanes, value):
        self.register(name)[lanes] = value

    def floats(self, operand, lanes):
        return self.value(operand, lanes).astype(np.uint32).view(np.float32)

    def put_floats(self, name, lanes, value):
        self.put(name, lanes, np.asarray(value, np.float32).view(np.uint32).astype(U64))

    @staticmethod
    def width(name):
        return int(name[-1][1:])

    @staticmethod
    def signed(value, width):
        return value.view(np.int64) if width == 64 else value.astype(np.uint32).view(np.int32).astype(np.int64)

    @staticmethod
    def cut(value, width):
        return value.astype(U64) & U64(MASK[width])

    def typed(self, operand, lanes, kind):
        value = self.cut(self.value(operand, lanes), int(kind[1:]))
        return self.signed(value, int(kind[1:])) if kind[0] == "s" else value

    # ---- memory ----

    def address(self, operand, lanes):
        place = re.match(r"^\[(%?\w+)([+-]\d+)?\]$", operand.replace("+-", "-"))
        return self.value(place.group(1), lanes).astype(np.int64) + int(place.group(2) or 0)

    def bytes_at(self, space, addresses, size, lanes, stored=None):
        shared = "shared" in space
        memory, start = (self.shared, 0) if shared else (self.memory, self.base)
        offset = addresses - start
        if (offset < 0).any() or (offset + size > len(memory)).any() or (addresses % size).any():
            raise RuntimeError(f"{self.kernel.symbol}: {size} bytes at {addresses} of {space[0]} memory")
        places, warps = offset[:, None] + np.arange(size), np.nonzero(lanes)[0][:, None] // 32
        if stored is not None:
            if not shared and not self.waited[lanes].all():
                raise RuntimeError(f"{self.kernel.symbol}: a store before griddepcontrol.wait")
            memory[places] = stored
            if shared:
                self.writer[places] = warps
            return None
        if shared:
            writer = self.writer[places]
            if ((writer >= 0) & (writer != warps)).any():
                raise RuntimeError(f"{self.kernel.symbol}: a warp reads another's bytes without a barrier")
            return memory[places]
        return np.where(self.waited[lanes][:, None], memory[places], self.before[places])

    @staticmethod
    def elements(name):
        """Elements of a load or store, and their bytes."""
        vector = [int(part[1:]) for part in name if re.match(r"^v[248]$", part)]
        return (vector or [1])[0], int(name[-1][1:]) // 8

    def do_ld(self, name, operands, lanes):
        if name[1] == "param":
            self.put(operands[0], lanes, U64(self.arguments[operands[1].strip("[]")]))
            return
        count, size = self.elements(name)
        data = self.bytes_at(name[1:3], self.address(operands[1], lanes), size * count, lanes)
        values = np.ascontiguousarray(data).view(TYPES[size])
        for i, target in enumerate(operands[0].strip("{}").split(",")):
            value = values[:, i].astype(U64)
            self.put(target.strip(), lanes, self.signed(value, 32).view(U64) if name[-1] == "s32" else value)

    def do_mapa(self, name, operands, lanes):
        rank = self.value(operands[2], lanes) + U64(1)
        self.put(operands[0], lanes, self.value(operands[1], lanes) + rank * U64(OF_RANK))

    def do_barrier(self, name, operands, lanes):
        if name[1] != "cluster":
            raise NotImplementedError(".".join(name))
        if name[2] == "arrive":
            self.arrived |= lanes
        elif not all((peer.arrived | peer.done).all() for peer in self.cluster):  # looks again when others have run
            self.at[lanes] -= 1

    def send(self, name, operands, lanes):
        """A store to workgroup memory of the cluster, whose bytes a barrier there counts."""
        sources = [source.strip() for source in operands[1].strip("{}").split(",")]
        data = np.stack([self.value(source, lanes) for source in sources], 1).astype(np.uint32)
        to, signal = (self.address(operands[i], lanes) for i in (0, 2))
        for t, s, stored in zip(to, signal, data):
            peer, t, s = self.cluster[int(t) // OF_RANK - 1], int(t) % OF_RANK, int(s) % OF_RANK
            if t % stored.nbytes:
                raise RuntimeError(f"{self.kernel.symbol}: {stored.nbytes} bytes sent to {t}")
            peer.shared[t : t + stored.nbytes] = stored.view(np.uint8)
            peer.writer[t : t + stored.nbytes] = -1
            peer.barriers[s]["bytes"] -= stored.nbytes
            peer.advance(peer.barriers[s])

    def do_st(self, name, operands, lanes):
        if name[1] == "async":
            self.send(name, operands, lanes)
            return
        count, size = self.elements(name)
        sources = [source.strip() for source in operands[1].strip("{}").split(",")]
        data = np.stack([self.value(source, lanes) for source in sources], 1).astype(TYPES[size])
        stored = data.view(np.uint8).reshape(-1, size * count)
        self.bytes_at(name[1:3], self.address(operands[0], lanes), size * count, lanes, stored)

    def do_atom(self, name, operands, lanes):
        if name[-2:] != ["add", "u32"] or not {"shared", "global"} & set(name):
            raise NotImplementedError(".".join(name))
        memory, start = (self.shared, 0) if "shared" in name else (self.memory, self.base)
        old, added = [], self.value(operands[2], lanes)
        if "global" in name and not self.waited[lanes].all():
            raise RuntimeError(f"{self.kernel.symbol}: an addition before griddepcontrol.wait")
        for address, value in zip(self.address(operands[1], lanes) - start, added):
            word = memory[address : address + 4].view(np.uint32)
            old.append(int(word[0]))
            word[0] += np.uint32(value)
        self.put(operands[0], lanes, np.array(old, U64))

    def do_red(self, name, operands, lanes):
        self.do_atom(name, ["%unused", *operands], lanes)

    def do_prefetch(self, name, operands, lanes):
        pass

    def do_createpolicy(self, name, operands, lanes):  # of caches, which there are none of
        self.put(operands[0], lanes, U64(0))

    def do_nanosleep(self, name, operands, lanes):
        pass

    def do_griddepcontrol(self, name, operands, lanes):
        if name[1] == "wait":
            self.waited |= lanes

    def do_fence(self, name, operands, lanes):
        pass

    # ---- barriers that count bytes, and the copies they wait for ----

    def advance(self, barrier):
        if barrier["pending"] == 0 and barrier["bytes"] == 0:
            barrier["phase"] += 1
            barrier["pending"] = barrier["arrivals"]

    def do_mbarrier(self, name, operands, lanes):
        if name[1] == "init":
            for address, count in zip(self.address(operands[0], lanes), self.value(operands[1], lanes)):
                self.barriers[int(address)] = {"arrivals": int(count), "pending": int(count), "bytes": 0, "phase": 0}
        elif name[1:3] == ["arrive", "expect_tx"]:
            for address, count in zip(self.address(operands[1], lanes), self.value(operands[2], lanes)):
                barrier = self.barriers[int(address)]
                barrier["bytes"] += int(count)
                barrier["pending"] -= 1
                self.advance(barrier)
        elif name[1:3] == ["try_wait", "parity"]:
            addresses = self.address(operands[1], lanes)
            for copy in [copy for copy in self.copies if copy[0] in addresses]:
                self.copies.remove(copy)
                barrier, to, data = copy
                self.shared[to : to + len(data)] = data
                self.barriers[barrier]["bytes"] -= len(data)
                self.advance(self.barriers[barrier])
            parities = self.value(operands[2], lanes)
            past = [self.barriers[int(a)]["phase"] % 2 != int(p) for a, p in zip(addresses, parities)]
            self.put(operands[0], lanes, np.array(past))
        else:
            raise NotImplementedError(".".join(name))

    def do_cp(self, name, operands, lanes):
        if name[1:3] == ["async", "ca"]:
            self.copy_own(operands, lanes)
            return
        if name[1:3] == ["async", "commit_group"]:
            self.groups[lanes] += 1
            return
        if name[1:3] == ["async", "wait_group"]:
            self.finish_own(int(operands[0]), lanes)
            return
        if name[1:3] != ["async", "bulk"]:
            raise NotImplementedError(".".join(name))
        to, source, barrier = (self.address(operands[i], lanes) for i in (0, 1, 3))
        for lane, t, s, size, b in zip(np.nonzero(lanes)[0], to, source, self.value(operands[2], lanes), barrier):
            memory, offset = (self.memory if self.waited[lane] else self.before), int(s) - self.base
            if offset < 0 or offset + int(size) > len(memory) or s % 16 or t % 16 or size % U64(16):
                raise RuntimeError(f"{self.kernel.symbol}: a copy of {size} bytes from {s} to {t}")
            self.copies.append((int(b), int(t), memory[offset : offset + int(size)].copy()))

    def copy_own(self, operands, lanes):
        size, to = int(operands[2]), self.address(operands[0], lanes)
        if (to % size).any():
            raise RuntimeError(f"{self.kernel.symbol}: a copy of {size} bytes to {to}")
        data = self.bytes_at(["global"], self.address(operands[1], lanes), size, lanes)
        for lane, t, bytes_ in zip(np.nonzero(lanes)[0], to, data):
            self.own_copies.append((lane, self.groups[lane], int(t), bytes_))

    def finish_own(self, left, lanes):
        waiting = []
        for copy in self.own_copies:
            lane, group, to, data = copy
            if lanes[lane] and group < self.groups[lane] - left:
                self.shared[to : to + len(data)] = data
                self.writer[to : to + len(data)] = lane // 32
            else:
                waiting.append(copy)
        self.own_copies = waiting

    # ---- arithmetic ----

    def do_mov(self, name, operands, lanes):
        if name[1] == "pred":
            number = re.match(r"^-?\d+$", operands[1])
            self.put(operands[0], lanes, int(operands[1]) != 0 if number else self.register(operands[1])[lanes])
        elif operands[0].startswith("{"):
            half, value = self.width(name) // 2, self.value(operands[1], lanes)
            for i, target in enumerate(operands[0].strip("{}").split(",")):
                self.put(target.strip(), lanes, self.cut(value >> U64(half * i), half))
        elif operands[1].startswith("{"):
            low, high = (self.value(part.strip(), lanes) for part in operands[1].strip("{}").split(","))
            self.put(operands[0], lanes, low | high << U64(self.width(name) // 2))
        else:
            self.put(operands[0], lanes, self.cut(self.value(operands[1], lanes), self.width(name)))

    def do_cvta(self, name, operands, lanes):
        self.put(operands[0], lanes, self.value(operands[1], lanes))

    def do_cvt(self, name, operands, lanes):
        if name[1:] == ["rn", "bf16x2", "f32"]:
            high, low = (f32_to_bf16(self.floats(operands[i], lanes)).astype(U64) for i in (1, 2))
            self.put(operands[0], lanes, low | high << U64(16))
        else:
            value = self.typed(operands[1], lanes, name[2]).view(U64)
            self.put(operands[0], lanes, self.cut(value, int(name[1][1:])))

    def combine(self, name, operands, lanes, on_floats, on_integers):
        if name[-1] == "f32":
            self.put_floats(operands[0], lanes, on_floats(*(self.floats(o, lanes) for o in operands[1:])))
        else:
            result = on_integers(*(self.typed(o, lanes, name[-1]) for o in operands[1:]))
            self.put(operands[0], lanes, self.cut(result.view(U64), self.width(name)))

    def do_add(self, name, operands, lanes):
        self.combine(name, operands, lanes, np.add, np.add)

    def do_sub(self, name, operands, lanes):
        self.combine(name, operands, lanes, np.subtract, np.subtract)

    def do_mul(self, name, operands, lanes):
        if name[1] == "wide":
            result = self.typed(operands[1], lanes, name[2]) * self.typed(operands[2], lanes, name[2])
            self.put(operands[0], lanes, result.view(U64))
        elif name[1] == "hi":
            a, b = (self.typed(o, lanes, name[2]).astype(object) for o in operands[1:])
            self.put(operands[0], lanes, self.cut((a * b >> self.width(name)).astype(U64), self.width(name)))
        else:
            self.combine(name, operands, lanes, np.multiply, np.multiply)

    def do_mad(self, name, operands, lanes):
        self.combine(name, operands, lanes, None, lambda a, b, c: a * b + c)

    def do_fma(self, name, operands, lanes):
        self.combine(name, operands, lanes, lambda a, b, c: a.astype(np.float64) * b + c, None)

    def do_div(self, name, operands, lanes):
        self.combine(name, operands, lanes, np.divide, np.floor_divide)

    def do_rem(self, name, operands, lanes):
        self.combine(name, operands, lanes, None, np.remainder)

    def do_max(self, name, operands, lanes):
        self.combine(name, operands, lanes, np.fmax, np.maximum)

    def do_min(self, name, operands, lanes):
        self.combine(name, operands, lanes, np.fmin, np.minimum)

    def do_rcp(self, name, operands, lanes):
        self.put_floats(operands[0], lanes, np.float32(1) / self.floats(operands[1], lanes))

    def do_ex2(self, name, operands, lanes):
        self.put_floats(operands[0], lanes, np.exp2(self.floats(operands[1], lanes)))

    def logic(self, name, operands, lanes, operation):
        if name[1] == "pred":
            self.put(operands[0], lanes, operation(*(self.register(o)[lanes] for o in operands[1:])))
        else:
            self.combine(name, operands, lanes, None, operation)

    def do_and(self, name, operands, lanes):
        self.logic(name, operands, lanes, np.bitwise_and)

    def do_or(self, name, operands, lanes):
        self.logic(name, operands, lanes, np.bitwise_or)

    def do_xor(self, name, operands, lanes):
        self.logic(name, operands, lanes, np.bitwise_xor)

    def do_neg(self, name, operands, lanes):
        self.put(operands[0], lanes, self.cut(U64(0) - self.value(operands[1], lanes), self.width(name)))

    def do_not(self, name, operands, lanes):
        self.logic(name, operands, lanes, np.invert)

    def do_shl(self, name, operands, lanes):
        self.combine(name, operands, lanes, None, np.left_shift)

    def do_shr(self, name, operands, lanes):
        self.combine(name, operands, lanes, None, np.right_shift)

    def do_bfe(self, name, operands, lanes):
        self.combine(name, operands, lanes, None, lambda x, at, size: x >> at & (U64(1) << size) - U64(1))

    def do_prmt(self, name, operands, lanes):
        a, b = (self.value(operand, lanes) for operand in operands[1:3])
        both, order, result = a | b << U64(32), int(operands[3].rstrip("U"), 16), U64(0)
        if order & 0x8888:
            raise NotImplementedError("prmt with signs")
        for i in range(4):
            result = result | (both >> U64(8 * (order >> 4 * i & 7)) & U64(0xFF)) << U64(8 * i)
        self.put(operands[0], lanes, result)

    def do_selp(self, name, operands, lanes):
        chosen = self.register(operands[3])[lanes]
        self.put(operands[0], lanes, np.where(chosen, self.value(operands[1], lanes), self.value(operands[2], lanes)))

    def do_setp(self, name, operands, lanes):
        if name[-1] == "f32":
            a, b = (self.floats(o, lanes) for o in operands[1:])
            table = {"nan": np.isnan(a) | np.isnan(b), "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}
            table |= {"eq": a == b, "neu": ~(a == b)}
        else:
            a, b = (self.typed(o, lanes, name[-1]) for o in operands[1:])
            table = {"lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b, "eq": a == b, "ne": a != b}
        self.put(operands[0], lanes, table[name[1]])

    # ---- warps ----

    def do_shfl(self, name, operands, lanes):
        values = np.zeros(self.lanes, U64)
        values[lanes] = self.value(operands[1], lanes)
        if name[1:3] == ["sync", "bfly"]:
            source = self.lane ^ int(operands[2])
        elif name[1:3] == ["sync", "idx"]:
            source = self.lane & ~31 | int(operands[2])
        else:
            raise NotImplementedError(".".join(name))
        self.put(operands[0], lanes, values[source][lanes])

    def do_vote(self, name, operands, lanes):
        if name[1:] != ["sync", "ballot", "b32"]:
            raise NotImplementedError(".".join(name))
        said = self.register(operands[1])[lanes].reshape(-1, 32).astype(U64)
        self.put(operands[0], lanes, np.repeat((said << np.arange(32, dtype=U64)).sum(1, dtype=U64), 32))

    def do_popc(self, name, operands, lanes):
        value = self.typed(operands[1], lanes, name[-1])
        self.put(operands[0], lanes, sum(value >> U64(bit) & U64(1) for bit in range(self.width(name))))

    def do_redux(self, name, operands, lanes):
        best = {"min": np.min, "max": np.max}.get(name[2])
        if name[1] != "sync" or not best or name[3] not in ("u32", "s32"):
            raise NotImplementedError(".".join(name))
        value = best(self.typed(operands[1], lanes, name[3]).reshape(-1, 32), axis=1)
        self.put(operands[0], lanes, np.repeat(value, 32).astype(np.int64).view(U64) & U64(MASK[32]))

    def do_mma(self, name, operands, lanes):
        """m16n8k16 of bf16: a lane's words of A, B and C as the PTX manual lays them out."""
        d, a, b, c = ([part.strip() for part in operand.strip("{}").split(",")] for operand in operands)
        warp, g, t = np.nonzero(lanes)[0].reshape(-1, 32), np.arange(32) // 4, np.arange(32) % 4
        left, right = np.zeros((len(warp), 16, 16)), np.zeros((len(warp), 16, 8))
        total = np.zeros((len(warp), 16, 8))
        for word, (row, column) in zip(a, ((0, 0), (8, 0), (0, 8), (8, 8))):
            pair = self.register(word)[warp]
            left[:, g + row, 2 * t + column] = bf16_to_f32(pair & U64(0xFFFF))
            left[:, g + row, 2 * t + column + 1] = bf16_to_f32(pair >> U64(16))
        for word, row in zip(b, (0, 8)):
            pair = self.register(word)[warp]
            right[:, 2 * t + row, g] = bf16_to_f32(pair & U64(0xFFFF))
            right[:, 2 * t + row + 1, g] = bf16_to_f32(pair >> U64(16))
        corners = ((0, 0), (0, 1), (8, 0), (8, 1))
        for value, (row, column) in zip(c, corners):
            total[:, g + row, 2 * t + column] = self.register(value)[warp].astype(np.uint32).view(np.float32)
        total = (left @ right + total).astype(np.float32)
        for value, (row, column) in zip(d, corners):
            self.register(value)[warp] = total[:, g + row, 2 * t + column].view(np.uint32).astype(U64)


    def do_ldmatrix(self, name, operands, lanes):
        """Lane i of a warp names row i % 8 of matrix i / 8 and gets word i % 4 of row i / 4 of each matrix."""
        if name[1:4] != ["sync", "aligned", "m8n8"] or name[5:] != ["shared", "b16"]:
            raise NotImplementedError(".".join(name))
        targets = [target.strip() for target in operands[0].strip("{}").split(",")]
        rows = self.bytes_at(["shared"], self.address(operands[1], lanes), 16, lanes)
        words = np.ascontiguousarray(rows).view(np.uint32).reshape(-1, 4, 8, 4)  # warp, matrix, row, word
        lane = np.arange(32)
        for matrix, target in enumerate(targets):
            self.put(target, lanes, words[:, matrix, lane // 4, lane % 4].ravel().astype(U64))


def launch(kernel, grid, arguments, memory, before, base):
    """Runs all workgroups of the grid (x, y), one after the other."""
    run(kernel, [(x, y) for y in range(grid[1]) for x in range(grid[0])], arguments, memory, before, base)


def run(kernel, places, arguments, memory, before, base, most=1_000_000):
    """Runs the workgroups at these places of a grid; of one that takes more than `most` steps, waiting, say, RuntimeError."""
    with np.errstate(all="ignore"):
        if kernel.cluster > 1:
            run_clusters(kernel, places, arguments, memory, before, base)
            return
        for place in places:
            Workgroup(kernel, arguments, place, memory, before, base).run(most)


def run_clusters(kernel, places, arguments, memory, before, base, turn=500):
    """`places` are those of whole clusters, whose workgroups are neighbours in x."""
    for first in range(0, len(places), kernel.cluster):
        cluster = [Workgroup(kernel, arguments, place, memory, before, base) for place in places[first : first + kernel.cluster]]
        for rank, workgroup in enumerate(cluster):
            workgroup.cluster, workgroup.rank = cluster, rank
        for _ in range(1000):
            if all([workgroup.advances(turn) for workgroup in cluster]):
                break
        else:
            raise RuntimeError(f"{kernel.symbol}: no end of a cluster")

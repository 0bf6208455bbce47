"""The choice of blocks on a GPU against plain sorting, with scores that are hard on it.

    choice.py prepare SLUICE CONFIG DIR   compiles kernels for a few ways to choose (no GPU needed)
    choice.py check DIR                   runs them on GPU 0

Runs the topk_blocks kernels of float32 plans, whose code topk_attention shares.
"""
import ctypes
import json
import math
import pathlib
import random
import subprocess
import sys

WAYS = [(16, 0, 1), (16, 2, 3), (4, 1, 1), (40, 0, 1)]  # k, init, local
BLOCK = 128
SIZES = 64  # more than a step has


def prepare(sluice, config, to):
    to.mkdir(parents=True, exist_ok=True)
    for k, init, local in WAYS:
        model = json.loads(pathlib.Path(config).read_text())
        model["text_config"].update(index_topk_blocks=k, index_init_blocks=init, index_local_blocks=local)
        name = to / f"{k}-{init}-{local}"
        name.mkdir(exist_ok=True)
        (name / "config.json").write_text(json.dumps(model))
        bundle = name / "bundle.sluice"
        subprocess.run([sluice, "compile", name / "config.json", "--dtype=float32", "--target=h100", "-o", bundle,
                        "--save-temps", name], check=True, stderr=subprocess.DEVNULL)
        text = subprocess.run([sluice, "inspect", bundle, "--json"], check=True, stdout=subprocess.PIPE).stdout
        [target] = json.loads(text)["targets"]
        [kernel] = [k for k in target["kernels"] if k["family"] == "topk_blocks"]
        a = kernel["attributes"]
        assert (a["k"], a["init"], a["local"], a["block"]) == (k, init, local, BLOCK), a
        (name / "kernel.json").write_text(json.dumps(kernel))
        bundle.unlink()


def expected(scores, k, init, local):
    n = len(scores)
    taken = list(range(min(n, init, k)))
    for b in range(max(0, n - local), n):
        if b not in taken and len(taken) < k:
            taken.append(b)
    forced = set(taken)
    rest = sorted((b for b in range(n) if b not in forced),
                  key=lambda b: (math.isnan(scores[b]), 0 if math.isnan(scores[b]) else -scores[b], b))
    taken += rest[:k - len(taken)]
    return sorted(taken) + [-1] * (k - len(taken))


def cases(rng):
    f32 = lambda x: ctypes.c_float(x).value
    for n in [1, 2, 15, 16, 17, 18, 31, 33, 41, 65, 255, 256, 257, 258, 300, 1024, 2049, 4096, 8192, 9000]:
        normal = [f32(rng.gauss(0, 1)) for _ in range(n)]
        yield "normal", normal
        yield "equal", [1.0] * n
        yield "zeros of both signs", [rng.choice([0.0, -0.0]) for _ in range(n)]
        yield "few values", [float(rng.randrange(-3, 4)) for _ in range(n)]
        yield "rising", [float(b) for b in range(n)]
        yield "falling", [float(-b) for b in range(n)]
        yield "NaN", [math.nan] * n
        yield "some NaN", [math.nan if rng.random() < 0.3 else s for s in normal]
        yield "infinite", [rng.choice([math.inf, -math.inf, s]) for s in normal]
        yield "best in one group", [100 + s if b % 32 == 5 else s for b, s in enumerate(normal)]
        yield "best together", [100 + s if n // 2 <= b < n // 2 + 40 else s for b, s in enumerate(normal)]
        yield "denormal", [f32(s * 1e-44) for s in normal]
        yield "one large", [3e38 if b == n // 3 else -3e38 for b in range(n)]


def check(folder):
    cuda = ctypes.CDLL("libcuda.so.1")

    def call(name, *arguments):
        result = getattr(cuda, name)(*arguments)
        if result:
            sys.exit(f"{name}: error {result}")

    call("cuInit", 0)
    context = ctypes.c_void_p()
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    call("cuCtxSetCurrent", context)

    def upload(data):
        pointer = ctypes.c_uint64()
        call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(ctypes.sizeof(data), 16)))
        call("cuMemcpyHtoD_v2", pointer, data, ctypes.c_size_t(ctypes.sizeof(data)))
        return pointer

    done = 0
    for k, init, local in WAYS:
        name = folder / f"{k}-{init}-{local}"
        kernel = json.loads((name / "kernel.json").read_text())
        heads = kernel["attributes"]["heads"]
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        call("cuModuleLoadData", ctypes.byref(module), (name / "cuda-sm_90a" / "kernels.cubin").read_bytes())
        call("cuModuleGetFunction", ctypes.byref(function), module, kernel["name"].encode())
        for what, scores in cases(random.Random(7)):
            n = len(scores)
            # Every head's row is the same but for a rotation.
            rows = [scores[h * 7 % n:] + scores[:h * 7 % n] for h in range(heads)]
            memory = [upload((ctypes.c_float * (heads * n))(*[s for row in rows for s in row])),
                      upload((ctypes.c_int32 * 1)(n * BLOCK - 1)), upload((ctypes.c_int32 * (heads * k))()),
                      upload((ctypes.c_int32 * SIZES)(*([n] * SIZES)))]
            pointers = (ctypes.c_void_p * 4)(*[ctypes.addressof(p) for p in memory])
            found = (ctypes.c_int32 * (heads * k))()
            call("cuLaunchKernel", function, 1, heads, 1, kernel["lanes"], 1, 1, kernel["workgroup_bytes"], None,
                 pointers, None)
            call("cuCtxSynchronize")
            call("cuMemcpyDtoH_v2", found, memory[2], ctypes.c_size_t(ctypes.sizeof(found)))
            for h, row in enumerate(rows):
                want, got = expected(row, k, init, local), list(found[h * k:(h + 1) * k])
                if want != got:
                    sys.exit(f"k {k}, init {init}, local {local}, {n} blocks, {what}, head {h}:\n{want}\n{got}")
            for pointer in memory:
                call("cuMemFree_v2", pointer)
            done += 1
    print(f"{done} choices are right")


if len(sys.argv) == 5 and sys.argv[1] == "prepare":
    prepare(sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4]))
elif len(sys.argv) == 3 and sys.argv[1] == "check":
    check(pathlib.Path(sys.argv[2]))
else:
    sys.exit(__doc__)

"""The one-row step's kernel, run by an emulator of a GPU's threads on a CPU, against the same step in float64."""

import ctypes
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from workbench.engine import one_row
from workbench.engine.attention import AttentionOptions, LayerShape
from workbench.engine.device_step import DeviceStep
from workbench.engine.fused_weights import FusedLayer, FusedWeights
from workbench.engine.low_bit_weight import LowBitKind, LowBitWeight
from workbench.engine.native.compiler import find_compiler
from workbench.engine.one_row.step import OneRowShape, OneRowStep, StepArguments
from workbench.engine.paged_step import KVPool

EPS, TOKEN, BLOCK_SIZE = 1e-5, 7, 16


def make_weights(kind, dtype, *, hidden, heads, kv_heads, dim, inner, vocab, extras, window):
    torch.manual_seed(1)

    def random(*shape: int, std: float = 1.0) -> torch.Tensor:
        return (torch.randn(*shape) * std).to(dtype)

    def linear(rows: int, columns: int, kind=kind):
        weight = random(rows, columns, std=columns**-0.5)
        return weight if kind is None else LowBitWeight.pack(weight, kind)

    def norm(size: int) -> torch.Tensor:
        return 1 + random(size, std=0.2)

    layers = tuple(
        FusedLayer(
            qkv=linear((heads + 2 * kv_heads) * dim, hidden),
            qkv_bias=random((heads + 2 * kv_heads) * dim) if extras else None,
            output=linear(hidden, heads * dim),
            gate_up=linear(2 * inner, hidden),
            down=linear(hidden, inner),
            input_norm=norm(hidden),
            output_norm=norm(hidden),
            query_norm=norm(dim) if extras else None,
            key_norm=norm(dim) if extras else None,
            eps=EPS,
            attention=AttentionOptions(scale=dim**-0.5, sliding_window=window),
        )
        for _ in range(2)
    )
    head_kind = LowBitKind.INT8 if kind in (LowBitKind.INT8, LowBitKind.INT4) else None
    return FusedWeights(random(vocab, hidden), layers, norm(hidden), EPS, linear(vocab, hidden, head_kind))


def dense(weight) -> torch.Tensor:
    return (weight.dense(torch.float32) if isinstance(weight, LowBitWeight) else weight).double()


def reference(weights, shape, past, position, cos, sin, window) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits, and each layer's new key, rounded where the model's own code rounds; `past` are keys and values."""

    def rounded(t: torch.Tensor) -> torch.Tensor:
        return t.to(shape.dtype).double()

    def norm(t: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return rounded(rounded(t * torch.rsqrt((t * t).mean(-1, keepdim=True) + EPS)) * weight.double())

    def rotated(heads: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        heads = heads if weight is None else norm(heads, weight)
        first, second = heads.chunk(2, dim=1)
        return rounded(heads * cos[position].double() + torch.cat([-second, first], 1) * sin[position].double())

    x, new_keys = weights.embedding[TOKEN].double(), []
    for layer, (keys, values) in zip(weights.layers, past, strict=True):
        qkv = dense(layer.qkv) @ norm(x, layer.input_norm)
        qkv = rounded(qkv if layer.qkv_bias is None else qkv + layer.qkv_bias.double()).view(-1, shape.dim)
        query, key, value = qkv.split([shape.heads, shape.kv_heads, shape.kv_heads])
        query, key = rotated(query, layer.query_norm), rotated(key, layer.key_norm)
        new_keys.append(key)
        keys, values = torch.cat([keys.double(), key[None]]), torch.cat([values.double(), value[None]])
        keys, values = keys[-(window or len(keys)) :], values[-(window or len(values)) :]
        keys, values = (t.repeat_interleave(shape.heads // shape.kv_heads, 1) for t in (keys, values))
        shares = (torch.einsum("hd,lhd->hl", query, keys) * layer.attention.scale).softmax(-1)
        attended = rounded(torch.einsum("hl,lhd->hd", shares, values).flatten())
        x = rounded(rounded(dense(layer.output) @ attended) + x)
        gate, up = (dense(layer.gate_up) @ norm(x, layer.output_norm)).chunk(2)
        x = rounded(rounded(dense(layer.down) @ rounded(gate * torch.sigmoid(gate) * up)) + x)
    return dense(weights.head) @ norm(x, weights.norm), new_keys


def emulate(folder: Path, shape: OneRowShape, num_blocks: int):
    """A launch of the kernel, compiled for the CPU with few threads and little shared memory."""
    defines = shape.defines() | {"WARPS": 4, "BLOCKS": num_blocks, "SHARED_LIMIT": 60_000}
    library = folder / "step.so"
    sources = Path(one_row.__file__).parent
    command = [find_compiler().path, "-std=c++17", "-O1", "-w", "-fPIC", "-shared", f"-I{sources}"]
    command += [f"-D{name}={value}" for name, value in defines.items()]
    command += [str(Path(__file__).parent / "emulate.cpp"), "-o", str(library)]
    subprocess.run(command, check=True, timeout=300)
    emulator = ctypes.CDLL(str(library))
    assert emulator.step_bytes() == ctypes.sizeof(StepArguments)

    def launch(arguments: StepArguments) -> None:
        assert emulator.run(ctypes.byref(arguments)) == 0, "every thread waits for another"

    return launch


CASES = {
    "fp16, all extras, several parts": dict(
        kind=None, dtype=torch.float16, heads=7, kv_heads=1, inner=1288, length=90, num_blocks=5, extras=True, window=70
    ),
    "int4": dict(kind=LowBitKind.INT4, dtype=torch.bfloat16, kv_heads=2, inner=640, length=37, num_blocks=3),
}


@pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("name", CASES)
def test_a_step_is_what_it_is_in_float64(tmp_path, name):
    case = SimpleNamespace(**{"heads": 8, "extras": False, "window": None} | CASES[name])
    dim, position = 64, case.length - 1
    weights = make_weights(
        case.kind, case.dtype, hidden=256, heads=case.heads, kv_heads=case.kv_heads, dim=dim, inner=case.inner,
        vocab=301, extras=case.extras, window=case.window,
    )  # fmt: skip
    layers = {n: LayerShape(num_kv_heads=case.kv_heads, key_dim=dim, value_dim=dim) for n in range(2)}
    blocks = torch.randperm(-(-case.length // BLOCK_SIZE) + 1)
    pool = KVPool(layers, len(blocks), BLOCK_SIZE, case.dtype, "cpu")
    for n in range(2):
        pool.keys[n].normal_()
        pool.values[n].normal_()
    past = [
        (pool.keys[n][blocks].flatten(0, 1)[:position], pool.values[n][blocks].flatten(0, 1)[:position])
        for n in range(2)
    ]
    angles = torch.randn(case.length, dim // 2).repeat(1, 2)
    cos, sin = angles.cos().to(case.dtype), angles.sin().to(case.dtype)
    shape = OneRowShape.of(weights, pool)
    assert shape.obstacle(weights, pool) is None
    expected, new_keys = reference(weights, shape, past, position, cos, sin, case.window)

    def ints(*values: int) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32)

    slot = int(blocks[position // BLOCK_SIZE]) * BLOCK_SIZE + position % BLOCK_SIZE
    step = DeviceStep(
        ids=ints(TOKEN), positions=ints(position), slots=ints(slot), num_decodes=1, lengths=ints(case.length),
        table=torch.cat([ints(0, 0), blocks.int()]), table_starts=ints(2), tiles=None, kept=None, splits=1,
    )  # fmt: skip
    kernel = OneRowStep(weights, pool, shape, cos, sin, case.num_blocks, emulate(tmp_path, shape, case.num_blocks))
    for _ in range(2):  # a second step finds what the first one left
        logits = kernel.run(step, weights.embedding[TOKEN])[0].double()
        assert (logits - expected).norm() / expected.norm() < 0.01
        for n in range(2):
            torch.testing.assert_close(pool.keys[n].flatten(0, 1)[slot].double(), new_keys[n], rtol=0.03, atol=0.05)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": torch.float32}, "the model computes in float32"),
        ({"dim": 80}, "heads have 80 dims, not 64, 128 or 256"),
        ({"inner": 300}, "rows of 300 columns are no multiple of 16 bytes"),
        ({"inner": 400_000}, "rows of 400000 columns are too long"),
        ({"layers": 500}, "500 layers are more than 160"),
    ],
)
def test_what_the_kernel_cannot_take_is_said(change, words):
    dtype = change.get("dtype", torch.bfloat16)
    weights = make_weights(
        None, dtype, hidden=64, heads=1, kv_heads=1, dim=64, inner=64, vocab=64, extras=False, window=None
    )
    pool = KVPool({n: LayerShape(num_kv_heads=1, key_dim=64, value_dim=64) for n in range(2)}, 2, 16, dtype, "cpu")
    shape = OneRowShape.of(weights, pool)
    assert OneRowShape(**vars(shape) | change).obstacle(weights, pool) == words

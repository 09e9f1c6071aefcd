"""Times the kernel of a one-row step by itself, over all weights of a model's shape: made of random bits, so that it
starts in seconds. With another version of step.cu both are timed by turns, and their logits compared.

    python benchmarks/gpu_one_row.py 1b:bf16 8b:bf16 8b:int8 8b:fp8 8b:int4 --context 256
    python benchmarks/gpu_one_row.py 8b:fp8 --against other/step.cu
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from gpu_kernels import relative_error, time_graph

from workbench.engine.attention import AttentionOptions, LayerShape
from workbench.engine.device_step import DeviceStep
from workbench.engine.fused_weights import FusedLayer, FusedWeights, Weight
from workbench.engine.low_bit_weight import GROUP_COLUMNS, LowBitKind, LowBitWeight
from workbench.engine.one_row import program
from workbench.engine.one_row.choice import choose_one_row
from workbench.engine.one_row.step import OneRowStep
from workbench.engine.paged_step import KVPool

BLOCK_SIZE, TOKEN, STEPS_OF_A_GRAPH = 16, 7, 4
KINDS = {"bf16": None, "int8": LowBitKind.INT8, "fp8": LowBitKind.FP8, "int4": LowBitKind.INT4}


@dataclass(frozen=True)
class Shape:
    hidden: int
    dim: int
    inner: int
    layers: int
    heads: int = 32
    kv_heads: int = 8
    vocab: int = 128_256


SHAPES = {"8b": Shape(4096, 128, 14_336, 32), "1b": Shape(2048, 64, 8192, 16)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="a shape and a type, as in 8b:int4")
    parser.add_argument("--context", type=int, default=256, help="tokens that are attended to")
    parser.add_argument("--against", type=Path, help="another step.cu")
    options = parser.parse_args()
    data = torch.ones(2**30, dtype=torch.float32, device="cuda")
    read_gb_s = data.nbytes / time_graph(data.sum) / 1e3
    print(f"read bandwidth {read_gb_s:.0f} GB/s on {torch.cuda.get_device_name()}", flush=True)
    del data
    for model in options.models:
        shape_name, kind_name = model.split(":")
        time_model(model, SHAPES[shape_name], KINDS[kind_name], options.context, options.against, read_gb_s)
        torch.cuda.empty_cache()


def time_model(
    name: str, shape: Shape, kind: LowBitKind | None, context: int, against: Path | None, read_gb_s: float
) -> None:
    """Microseconds a step, twice by turns, with the share of the floor: the bytes of the weights over the bandwidth."""
    weights = make_weights(shape, kind)
    read_bytes = weights.num_bytes - (0 if weights.embedding is weights.head else weights.embedding.nbytes)
    pool, cos, sin, step = make_step(shape, context)
    steps = {"this": make_kernel(weights, pool, cos, sin, None)}
    if against is not None:
        steps["other"] = make_kernel(weights, pool, cos, sin, against)
    embedded = weights.embedding[TOKEN]
    logits = {version: one.run(step, embedded).clone() for version, one in steps.items()}
    times: dict[str, list[float]] = {version: [] for version in steps}
    for _ in range(2):
        for version, one in steps.items():

            def run(one: OneRowStep = one) -> None:
                for _ in range(STEPS_OF_A_GRAPH):
                    one.run(step, embedded)

            times[version].append(time_graph(run) / STEPS_OF_A_GRAPH)
    for version, found in times.items():
        share = read_bytes / read_gb_s / 1e3 / min(found)
        steady = all(torch.equal(steps[version].run(step, embedded), logits[version]) for _ in range(20))
        error = relative_error(logits[version], logits["this"].double())
        us = ", ".join(f"{one:.1f}" for one in found)
        print(f"{name} {version}: {us} us, {share:.3f} of the floor, off {error:.1e}, steady {steady}", flush=True)


def make_kernel(
    weights: FusedWeights, pool: KVPool, cos: torch.Tensor, sin: torch.Tensor, source: Path | None
) -> OneRowStep:
    """The kernel as it is, or of another step.cu beside this device.cuh."""
    replaced = nullcontext()
    if source is not None:
        text = (Path(program.__file__).parent / "device.cuh").read_text() + "\n" + source.read_text()
        replaced = patch.object(program, "_source_text", lambda: text)
    with replaced:
        choice = choose_one_row(weights, pool, cos, sin)
    if choice.step is None:
        raise SystemExit(f"no one-row kernel: {choice.why_not}")
    return choice.step


def make_weights(shape: Shape, kind: LowBitKind | None) -> FusedWeights:
    """A model whose numbers are random, of about the size that keeps vectors as large as they are."""

    def norm() -> torch.Tensor:
        return 1 + 0.2 * torch.randn(shape.hidden, device="cuda").bfloat16()

    options = AttentionOptions(scale=shape.dim**-0.5)
    layers = tuple(
        FusedLayer(
            qkv=make_weight((shape.heads + 2 * shape.kv_heads) * shape.dim, shape.hidden, kind),
            qkv_bias=None,
            output=make_weight(shape.hidden, shape.heads * shape.dim, kind),
            gate_up=make_weight(2 * shape.inner, shape.hidden, kind),
            down=make_weight(shape.hidden, shape.inner, kind),
            input_norm=norm(),
            output_norm=norm(),
            query_norm=None,
            key_norm=None,
            eps=1e-5,
            attention=options,
        )
        for _ in range(shape.layers)
    )
    head_kind = LowBitKind.INT8 if kind in (LowBitKind.INT8, LowBitKind.INT4) else None
    embedding = torch.randn(shape.vocab, shape.hidden, device="cuda").bfloat16()
    return FusedWeights(embedding, layers, norm(), 1e-5, make_weight(shape.vocab, shape.hidden, head_kind))


def make_weight(rows: int, columns: int, kind: LowBitKind | None) -> Weight:
    size = columns**-0.5
    if kind is None:
        return torch.empty(rows, columns, dtype=torch.bfloat16, device="cuda").normal_(std=size)
    if kind is LowBitKind.INT4:
        data = torch.randint(-(2**31), 2**31, (rows, columns // 8), dtype=torch.int32, device="cuda")
        scales = (torch.rand(rows, columns // GROUP_COLUMNS, device="cuda") * 0.4 * size).half()
        return LowBitWeight(kind, data, scales, columns)
    if kind is LowBitKind.INT8:
        data, spread = torch.randint(-127, 128, (rows, columns), dtype=torch.int8, device="cuda"), 73
    else:
        data = torch.empty(rows, columns, dtype=torch.bfloat16, device="cuda").normal_(std=60).to(torch.float8_e4m3fn)
        spread = 60
    return LowBitWeight(kind, data, (0.5 + torch.rand(rows, device="cuda")) * size / spread, columns)


def make_step(shape: Shape, context: int) -> tuple[KVPool, torch.Tensor, torch.Tensor, DeviceStep]:
    """A pool with random keys and values, the rotary tables, and a step at the last of `context` positions."""
    num_blocks = -(-context // BLOCK_SIZE) + 1
    layer = LayerShape(num_kv_heads=shape.kv_heads, key_dim=shape.dim, value_dim=shape.dim)
    pool = KVPool({n: layer for n in range(shape.layers)}, num_blocks, BLOCK_SIZE, torch.bfloat16, "cuda")
    for n in range(shape.layers):
        pool.keys[n].normal_()
        pool.values[n].normal_()
    angles = torch.randn(context, shape.dim // 2, device="cuda").repeat(1, 2)
    blocks = torch.randperm(num_blocks, device="cuda").int()

    def ints(*values: int) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device="cuda")

    position = context - 1
    slot = int(blocks[position // BLOCK_SIZE]) * BLOCK_SIZE + position % BLOCK_SIZE
    step = DeviceStep(
        ids=ints(TOKEN), positions=ints(position), slots=ints(slot), num_decodes=1, lengths=ints(context),
        table=blocks, table_starts=ints(0), tiles=None, kept=None, splits=1,
    )  # fmt: skip
    return pool, angles.cos().bfloat16(), angles.sin().bfloat16(), step


if __name__ == "__main__":
    main()

"""Sweeps the tile sizes of the GPU's kernels at the shapes of an 8B model: which is fastest where.

    for i in 0 1 2 3; do python benchmarks/gpu_tiles.py --compile $i/4 & done; wait    # fill Triton's cache
    python benchmarks/gpu_tiles.py --json tiles.json

Times are replayed graphs over weights that rotate, so that no cache holds them.
"""

from __future__ import annotations

import argparse
import itertools
import json

import torch
from gpu_kernels import SHAPES, product, relative_error, time_graph

from workbench.engine.attention import AttentionOptions
from workbench.engine.kernels.gemv import GemvTile
from workbench.engine.kernels.low_bit_gemv import Int4Tile
from workbench.engine.kernels.low_bit_matmul import LowBitWorkspace
from workbench.engine.kernels.paged_chunk import ChunkShape, attend_chunks
from workbench.engine.kernels.paged_decode import DecodeTile, DecodeWorkspace, NewTokens, attend_decodes
from workbench.engine.kernels.rounded_matmul import RoundedTile, rounded_linear
from workbench.engine.kernels.rounding import round_rows
from workbench.engine.kernels.tiles import CHUNK_QUERIES
from workbench.engine.low_bit_weight import LowBitKind, LowBitWeight

GEMV_TILES = {
    "bytes": [
        GemvTile(rows, columns, warps, 3)
        for rows, columns, warps in (
            (1, 4096, 8), (1, 2048, 4), (2, 2048, 4), (2, 2048, 8), (2, 1024, 4), (4, 1024, 4), (4, 1024, 8),
            (4, 512, 4), (8, 512, 4), (8, 512, 8), (8, 1024, 8), (16, 512, 8),
        )
    ],
    "int4": [
        Int4Tile(*sizes)
        for sizes in (
            (1, 512, 4), (2, 512, 4), (2, 256, 4), (2, 256, 2), (4, 512, 8), (4, 512, 4), (4, 128, 4), (4, 256, 4),
            (8, 128, 4), (8, 256, 8), (8, 256, 4), (8, 512, 8), (16, 128, 4), (16, 128, 8), (4, 64, 2), (8, 64, 2),
        )
    ],
}  # fmt: skip
PRODUCT_TILES = [
    RoundedTile(*sizes)
    for sizes in itertools.product((64, 128), (16, 32, 64, 128), (128, 256), (4, 8), (3, 4))
]  # fmt: skip
WIDTHS = (8, 32, 64, 128, 256)
NAMES = ("qkv", "o", "gate_up", "down")


def cases():
    """Every (what, kind, shape, rows, tile) of the sweep."""
    for name, tile in itertools.product(NAMES, GEMV_TILES["bytes"]):
        yield "gemv", None, name, 1, tile
    for kind, name in itertools.product(LowBitKind, NAMES):
        for tile in GEMV_TILES["int4" if kind is LowBitKind.INT4 else "bytes"]:
            yield "gemv", kind, name, 1, tile
        for rows, tile in itertools.product(WIDTHS, PRODUCT_TILES):
            fits = tile.rows <= max(16, rows) and tile.rows >= min(64, rows)
            if fits and (kind is not LowBitKind.INT4 or tile.columns == 128):
                yield "product", kind, name, rows, tile


class Bench:
    """Weights of one shape and kind, several of them in rotation."""

    def __init__(self, kind: LowBitKind | None, name: str, copies_bytes: float) -> None:
        rows, columns = SHAPES[name]
        plain = torch.randn(rows, columns, dtype=torch.bfloat16, device="cuda") * 0.02
        self.name = name
        if kind is None:
            self.weights = [plain.clone() for _ in range(max(1, int(copies_bytes / plain.nbytes)))]
        else:
            first = LowBitWeight.pack(plain, kind)
            copies = range(max(1, int(copies_bytes / first.num_bytes)))
            self.weights = [LowBitWeight(kind, first.data.clone(), first.scales.clone(), columns) for _ in copies]
            self.workspace = LowBitWorkspace.allocate([first], torch.bfloat16)
            self.exact = first.dense(torch.float32)
        self.norm = torch.randn(columns, dtype=torch.bfloat16, device="cuda")
        self.out = torch.zeros(rows, dtype=torch.bfloat16, device="cuda")

    def runs(self, what: str, rows: int, tile):
        x = torch.randn(rows, self.norm.shape[0], dtype=torch.bfloat16, device="cuda")
        rounded = None if what == "gemv" else round_rows(x, self.weights[0].kind)

        def run() -> None:
            for weight in self.weights:
                if what == "gemv":
                    product(self.name, weight, x[0], self.out, self.norm, tile=tile, pdl=True)
                else:
                    rounded_linear(rounded, weight, None, self.workspace, x.dtype, pdl=True, tile=tile)

        return x, run

    def error(self, x: torch.Tensor, tile) -> float:
        weight = self.weights[0]
        out = rounded_linear(round_rows(x, weight.kind), weight, None, self.workspace, x.dtype, tile=tile)
        return relative_error(out, (x.float() @ self.exact.T).double())


def sweep(part: tuple[int, int] | None, only: str | None = None) -> list[dict[str, object]]:
    found, bench, key = [], None, None
    for index, (what, kind, name, rows, tile) in enumerate(cases()):
        if part is not None and index % part[1] != part[0] or only not in (None, what):
            continue
        if key != (kind, name):
            key, bench = (kind, name), None
            bench = Bench(kind, name, 1.0 if part else 4e8)
        x, run = bench.runs(what, rows, tile)
        try:
            run()
            if part is None:
                error = bench.error(x, tile) if what == "product" else 0.0
                took_us = time_graph(run, 8) / len(bench.weights)
                case = {
                    "what": what,
                    "kind": "bf16" if kind is None else kind.value,
                    "shape": name,
                    "rows": rows,
                    "tile": str(tile),
                }
                found.append(case | {"us": round(took_us, 1), "error": error})
        except Exception as failure:  # a tile that does not fit the device is no result
            if part is None:
                print("failed", what, kind, name, rows, tile, str(failure)[:80], flush=True)
    return found


def decodes() -> None:
    """Decode attention over rows, context and parts: us, and the share of reading keys and values at 4.3 TB/s."""
    tiles = [DecodeTile(*sizes) for sizes in itertools.product((64, 128), (2, 4, 8), (1, 2, 3, 4))]
    for rows, length in ((1, 300), (8, 300), (32, 300), (64, 200), (64, 1000), (256, 200), (256, 700)):
        floor_us = rows * length * 8 * 128 * 4 / 4.3e6
        found = []
        for splits, tile in itertools.product((1, 2, 4, 8, 16), tiles):
            # Twice as many programs as fill the device at most; what does not fit its shared memory is left out.
            if rows * splits <= max(512, rows) and tile.tokens * tile.num_stages * 256 * 2 <= 200_000:
                found.append((_decode_us(rows, length, splits, tile), splits, tile))
        cells = [f"{us:.1f} {splits} parts {tile}" for us, splits, tile in sorted(found, key=lambda one: one[0])[:4]]
        print("decode", rows, "rows of", length, f"at least {floor_us:.1f} us", " | ".join(cells), flush=True)


def _decode_us(rows: int, length: int, splits: int, tile: DecodeTile) -> float:
    heads, kv_heads, dim, block = 32, 8, 128, 16
    blocks = -(-length // block)
    shape = (rows * blocks * 2, block, kv_heads, dim)
    keys, values = (torch.randn(shape, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    table = torch.randperm(rows * blocks * 2)[: rows * blocks].int().cuda()
    starts, lengths = torch.arange(rows).int().cuda() * blocks, torch.full((rows,), length).int().cuda()
    qkv = torch.randn(rows, (heads + 2 * kv_heads) * dim, dtype=torch.bfloat16, device="cuda")
    cos = torch.randn(2048, dim, dtype=torch.bfloat16, device="cuda")
    slots = table[(starts + blocks - 1).long()] * block + (length - 1) % block
    new = NewTokens(cos, cos, slots.int())
    out = torch.empty(rows, heads, dim, dtype=torch.bfloat16, device="cuda")
    query = qkv[:, : heads * dim].unflatten(1, (heads, dim))
    workspace = DecodeWorkspace.allocate(rows * splits, heads, kv_heads, dim, "cuda")
    options = AttentionOptions(dim**-0.5)

    def run() -> None:
        for _ in range(8):
            attend_decodes(
                query, keys, values, table, starts, lengths, options, out, workspace, splits, new, pdl=True, tile=tile
            )

    return time_graph(run) / 8


def chunks() -> None:
    """Attention of prompts over the shapes of a program: us, and the rate of its products."""
    shapes = [ChunkShape(*sizes) for sizes in itertools.product((16, 32), (64, 128), (4, 8), (1, 2, 3))]
    for prompts, length, start in ((16, 512, 0), (1, 4096, 0), (1, 1024, 3072)):
        found = []
        for shape in shapes:
            try:
                found.append((_chunk_us(prompts, length, start, shape), shape))
            except Exception as failure:  # a shape that does not fit the device is no result
                print("failed", shape, str(failure)[:80], flush=True)
        flop = 4 * 32 * 128 * prompts * length * (start + length / 2)
        found.sort(key=lambda one: one[0])
        cells = [f"{us:.0f} us, {flop / us / 1e6:.0f} TFLOP/s {shape}" for us, shape in found[:4]]
        print("chunks", prompts, "x", length, "behind", start, " | ".join(cells), flush=True)


def _chunk_us(prompts: int, length: int, start: int, shape: ChunkShape) -> float:
    heads, kv_heads, dim, block = 32, 8, 128, 16
    blocks = (start + length) // block
    pool = (prompts * blocks, block, kv_heads, dim)
    keys, values = (torch.randn(pool, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    table = torch.randperm(prompts * blocks).int().cuda()
    tiles = [
        (p * length + at, CHUNK_QUERIES, p * blocks, start + at)
        for p in range(prompts)
        for at in range(0, length, CHUNK_QUERIES)
    ]
    query = torch.randn(prompts * length, heads, dim, dtype=torch.bfloat16, device="cuda")
    out, on_device = torch.empty_like(query), torch.tensor(tiles, dtype=torch.int32, device="cuda")
    options = AttentionOptions(dim**-0.5)
    return time_graph(lambda: attend_chunks(query, keys, values, table, on_device, options, out, shape), 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compile", metavar="I/N", help="only compile, every Nth case from the Ith on")
    parser.add_argument("--only", choices=("attention", "gemv", "product"))
    parser.add_argument("--json")
    options = parser.parse_args()
    if options.compile:
        first, step = options.compile.split("/")
        sweep((int(first), int(step)), options.only)
        return
    if options.only in (None, "attention"):
        decodes()
        chunks()
    found = [] if options.only == "attention" else sweep(None, options.only)
    for key, group in itertools.groupby(found, key=lambda case: [case[n] for n in ("what", "kind", "shape", "rows")]):
        best = sorted((case for case in group if case["error"] < 0.03), key=lambda case: case["us"])[:3]
        print(*key, *(f"{case['us']} {case['tile'].split('(')[1]}" for case in best), sep=" | ", flush=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(found, file, indent=0)


if __name__ == "__main__":
    main()

"""Checks the GPU kernels against float64 on this machine, and times them against what they replace.

    python benchmarks/gpu_kernels.py

Attention runs over random block tables, lengths from 1 to 8,192, group sizes 1 to 8, head sizes 64 to 256, with and
without a window. Matrix-vector products are timed as replayed graphs over weights that rotate, so that no cache holds
them; the share is of the read bandwidth measured here.
"""

from __future__ import annotations

import argparse
import itertools

import torch

from workbench.engine.attention import AttentionOptions
from workbench.engine.kernels.gemv import GemvTile, gemv, gemv_gated
from workbench.engine.kernels.low_bit_matmul import LowBitWorkspace, low_bit_linear
from workbench.engine.kernels.paged_chunk import attend_chunks
from workbench.engine.kernels.paged_decode import DecodeWorkspace, attend_decodes, num_splits
from workbench.engine.kernels.tiles import CHUNK_QUERIES
from workbench.engine.low_bit_weight import LowBitKind, LowBitWeight


def reference(query, keys, values, positions, options):
    """Float64 attention of [n, heads, dim] over [length, kv_heads, dim]."""
    group = query.shape[1] // keys.shape[1]
    keys, values = (t.repeat_interleave(group, 1).double() for t in (keys, values))
    scores = torch.einsum("nhd,lhd->hnl", query.double(), keys) * options.scale
    at = torch.arange(keys.shape[0], device=query.device)
    allowed = at[None] <= positions[:, None]
    if options.sliding_window:
        allowed &= at[None] > positions[:, None] - options.sliding_window
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
    return torch.einsum("hnl,lhd->nhd", weights, values)


def relative_error(out: torch.Tensor, expected: torch.Tensor) -> float:
    return ((out.double() - expected).norm() / expected.norm()).item()


def check_attention(dtype: torch.dtype) -> dict[str, float]:
    """Largest relative error over the grid."""
    worst = {"decode": 0.0, "chunk": 0.0}
    block_size, num_blocks = 16, 4096
    shapes = ((8, 8, 64, None), (8, 2, 128, 100), (8, 1, 256, None), (32, 8, 128, None), (6, 2, 80, 37))
    for heads, kv_heads, dim, window in shapes if dtype == torch.bfloat16 else shapes[1:3]:
        keys, values = (
            torch.randn(num_blocks, block_size, kv_heads, dim, dtype=dtype, device="cuda") for _ in range(2)
        )
        options = AttentionOptions(dim**-0.5, sliding_window=window)
        lengths = [1, 15, 16, 17, 100, 1000, 4097, 8192]
        order = torch.randperm(num_blocks).int()
        counts = [-(-n // block_size) for n in lengths]
        starts = list(itertools.accumulate([0, *counts]))[:-1]
        table = order[: sum(counts)].cuda()
        known = [table[s : s + c].long() for s, c in zip(starts, counts, strict=True)]
        rows = len(lengths)
        query = torch.randn(rows, heads, dim, dtype=dtype, device="cuda")
        workspace = DecodeWorkspace.allocate(rows, heads, kv_heads, dim, "cuda")
        for splits in (1, num_splits(rows, kv_heads, 8192), 32):
            if splits * rows * kv_heads > workspace.maxima.shape[0] * kv_heads:
                continue
            out = torch.full_like(query, float("nan"))
            attend_decodes(
                query, keys, values, table, torch.tensor(starts).int().cuda(), torch.tensor(lengths).int().cuda(),
                options, out, workspace, splits,
            )  # fmt: skip
            for i, n in enumerate(lengths):
                k, v = keys[known[i]].flatten(0, 1)[:n], values[known[i]].flatten(0, 1)[:n]
                expected = reference(query[i : i + 1], k, v, torch.tensor([n - 1], device="cuda"), options)
                worst["decode"] = max(worst["decode"], relative_error(out[i : i + 1], expected))
        new = [min(n, 200) for n in lengths]
        firsts = list(itertools.accumulate([0, *new]))[:-1]
        tiles = [
            (first + offset, min(CHUNK_QUERIES, count - offset), start, n - count + offset)
            for first, count, start, n in zip(firsts, new, starts, lengths, strict=True)
            for offset in range(0, count, CHUNK_QUERIES)
        ]
        query = torch.randn(sum(new), heads, dim, dtype=dtype, device="cuda")
        out = torch.full_like(query, float("nan"))
        attend_chunks(query, keys, values, table, torch.tensor(tiles).int().cuda(), options, out)
        for i, (first, count, n) in enumerate(zip(firsts, new, lengths, strict=True)):
            k, v = keys[known[i]].flatten(0, 1)[:n], values[known[i]].flatten(0, 1)[:n]
            at = torch.arange(n - count, n, device="cuda")
            error = relative_error(
                out[first : first + count], reference(query[first : first + count], k, v, at, options)
            )
            worst["chunk"] = max(worst["chunk"], error)
    return worst


def time_graph(run, repeats: int = 20) -> float:
    """Median microseconds of `run`, captured and replayed."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return sorted(times)[len(times) // 2]


SHAPES = {
    "qkv": (6144, 4096),
    "o": (4096, 4096),
    "gate_up": (28672, 4096),
    "down": (4096, 14336),
    "head": (128256, 4096),
}


def product(name: str, weight: torch.Tensor, x: torch.Tensor, out: torch.Tensor, norm: torch.Tensor, **how) -> None:
    """One of the decoder's matrix-vector products, with what is fused into it."""
    if name == "gate_up":
        gemv_gated(x, weight, out[: out.shape[0] // 2], norm=norm, eps=1e-5, **how)
    elif name in ("qkv", "head"):
        gemv(x, weight, out, norm=norm, eps=1e-5, **how)
    else:
        gemv(x, weight, out, add_to=out, **how)


def time_products(read_gb_s: float, tiles: list[GemvTile]) -> None:
    """Matrix times vector at the shapes of an 8B model, each tile, against cuBLAS; then cuBLAS over batch sizes."""
    for name, (rows, columns) in SHAPES.items():
        weights = _rotating(rows, columns)
        x, norm = (torch.randn(columns, dtype=torch.bfloat16, device="cuda") for _ in range(2))
        out = torch.empty(rows, dtype=torch.bfloat16, device="cuda")
        results = {"cublas": _time_each(weights, lambda w, x=x: torch.mv(w, x)), "default": 0.0}
        for tile in (None, *tiles):
            label = "default" if tile is None else f"{tile.rows}x{tile.columns} w{tile.num_warps} s{tile.num_stages}"
            results[label] = _time_each(
                weights, lambda w, n=name, t=tile, x=x, o=out, m=norm: product(n, w, x, o, m, tile=t)
            )
        best = sorted(results, key=results.get)[:4]
        for label in dict.fromkeys(("cublas", "default", *best)):
            share = rows * columns * 2 / results[label] / 1e3 / read_gb_s
            print(name, label, f"{results[label]:.1f} us, {share:.3f} of read bandwidth", flush=True)


def time_chain(num_layers: int = 8) -> None:
    """A decoder's products one after the other, with and without programmatic dependent launch, us per layer."""
    layers = [
        {name: torch.randn(*SHAPES[name], dtype=torch.bfloat16, device="cuda") for name in SHAPES if name != "head"}
        for _ in range(num_layers)
    ]
    vectors = {n: torch.randn(n, dtype=torch.bfloat16, device="cuda") * 1e-3 for n in (4096, 6144, 14336, 28672)}
    for pdl in (False, True, False, True):

        def run(pdl: bool = pdl) -> None:
            for layer in layers:
                for name, weight in layer.items():
                    product(name, weight, vectors[weight.shape[1]], vectors[weight.shape[0]], vectors[4096], pdl=pdl)

        print("chain of products, pdl", pdl, f"{time_graph(run) / num_layers:.1f} us per layer", flush=True)


def time_low_bit(read_gb_s: float, kinds: list[LowBitKind], only_compile: bool) -> None:
    """Products with low-bit weights over numbers of rows, against cuBLAS in bf16, each as replayed graphs; errors are
    against float64 products with what the weights stand for."""
    for name, (rows, columns) in SHAPES.items():
        if name == "head":
            continue
        dense = _rotating(rows, columns) if not only_compile else []
        norm = torch.randn(columns, dtype=torch.bfloat16, device="cuda")
        for kind in kinds:
            first = LowBitWeight.pack(torch.randn(rows, columns, dtype=torch.bfloat16, device="cuda") * 0.02, kind)
            copies = 1 if only_compile else max(2, int(6e8 / first.num_bytes))
            weights = [LowBitWeight(kind, first.data.clone(), first.scales.clone(), columns) for _ in range(copies)]
            workspace = LowBitWorkspace.allocate([first], torch.bfloat16)
            exact = first.dense(torch.float32).double()
            cells = []
            for count in (1, 8, 16, 32, 64, 128, 256, 512):
                x = torch.randn(count, columns, dtype=torch.bfloat16, device="cuda")
                out = torch.empty(rows, dtype=torch.bfloat16, device="cuda")

                def run(w, x=x, out=out, count=count, name=name, norm=norm, workspace=workspace):
                    if count == 1:
                        product(name, w, x[0], out, norm)
                    else:
                        low_bit_linear(x, w, None, workspace)

                result = low_bit_linear(x, first, None, workspace)
                error = relative_error(result, x.double() @ exact.T)
                if only_compile:
                    run(first)
                    continue
                low = _time_each(weights, run)
                full = _time_each(dense, lambda w, x=x: torch.nn.functional.linear(x, w))
                share = first.num_bytes / low / 1e3 / read_gb_s
                cells.append(f"{count}: {low:.1f} us ({share:.2f}) bf16 {full:.1f} err {error:.0e}")
            print(kind.value, name, " | ".join(cells), flush=True)


def _rotating(rows: int, columns: int) -> list[torch.Tensor]:
    copies = max(2, int(1e9 / (rows * columns * 2)))
    return [torch.randn(rows, columns, dtype=torch.bfloat16, device="cuda") for _ in range(copies)]


def _time_each(weights: list[torch.Tensor], run) -> float:
    return time_graph(lambda: [run(weight) for weight in weights]) / len(weights)


def measure_read() -> float:
    """Read bandwidth in GB/s: a sum over 4 GiB."""
    data = torch.ones(2**30, dtype=torch.float32, device="cuda")
    return data.numel() * 4 / (time_graph(data.sum) * 1e-6) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("chain", "products", "attention", "low-bit"))
    parser.add_argument("--kind", choices=[kind.value for kind in LowBitKind], help="one of the low-bit kinds")
    parser.add_argument("--only-compile", action="store_true", help="fill Triton's cache with the low-bit kernels")
    options = parser.parse_args()
    only = options.only
    kinds = [LowBitKind(options.kind)] if options.kind else list(LowBitKind)
    if options.only_compile:
        time_low_bit(1.0, kinds, only_compile=True)
        return
    read_gb_s = measure_read()
    print("read GB/s", read_gb_s)
    wide = [GemvTile(r, c, w, 3) for r, c, w in ((1, 2048, 8), (1, 1024, 4), (2, 2048, 8), (4, 512, 8), (8, 512, 8))]
    if only in (None, "chain"):
        time_chain()
    if only in (None, "products"):
        time_products(read_gb_s, [*wide, *(GemvTile(r, c, 4, 3) for r, c in ((1, 512), (2, 512), (2, 1024)))])
    if only in (None, "low-bit"):
        time_low_bit(read_gb_s, kinds, only_compile=False)
    if only in (None, "attention"):
        for dtype in (torch.float32, torch.bfloat16):
            print("attention", dtype, check_attention(dtype), flush=True)


if __name__ == "__main__":
    main()

"""Checks the GPU kernels against float64 on this machine, and times them against what they replace.

    python benchmarks/kernels.py

Attention runs over random block tables, lengths from 1 to 8,192, group sizes 1 to 8, head sizes 64 to 256, with and
without a window. Matrix-vector products are timed as replayed graphs over weights that rotate, so that no cache holds
them; the share is of the read bandwidth measured here.
"""

from __future__ import annotations

import itertools

import torch

from workbench.engine.attention import AttentionOptions
from workbench.engine.kernels.gemv import GemvTile, gemv, gemv_gated
from workbench.engine.kernels.paged_attention import DecodeWorkspace, attend_chunks, attend_decodes, num_splits
from workbench.engine.kernels.tiles import CHUNK_QUERIES


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


def time_products(read_gb_s: float) -> None:
    """Matrix times vector at the shapes of an 8B model, each tile, against cuBLAS."""
    tiles = [
        GemvTile(r, c, w, s) for r in (1, 2, 4, 8) for c in (512, 1024, 2048, 4096) for w in (4, 8) for s in (3,)
        if r * c / (w * 32) <= 64 and r * c / (w * 32) >= 4
    ]  # fmt: skip
    for name, rows, columns in (
        ("qkv", 6144, 4096), ("o", 4096, 4096), ("gate_up", 28672, 4096), ("down", 4096, 14336), ("head", 128256, 4096),
    ):  # fmt: skip
        copies = max(2, int(1e9 / (rows * columns * 2)))
        weights = [torch.randn(rows, columns, dtype=torch.bfloat16, device="cuda") for _ in range(copies)]
        x = torch.randn(columns, dtype=torch.bfloat16, device="cuda")
        norm = torch.ones(columns, dtype=torch.bfloat16, device="cuda")
        out = torch.empty(rows, dtype=torch.bfloat16, device="cuda")
        results = {"cublas": time_graph(lambda w=weights: [torch.mv(m, x) for m in w]) / copies}
        for tile in tiles:
            if name == "gate_up":
                run = lambda t=tile, w=weights: [
                    gemv_gated(x, m, out[: rows // 2], norm=norm, eps=1e-5, tile=t) for m in w
                ]
            elif name in ("qkv", "head"):
                run = lambda t=tile, w=weights: [gemv(x, m, out, norm=norm, eps=1e-5, tile=t) for m in w]
            else:
                run = lambda t=tile, w=weights: [gemv(x, m, out, add_to=out, tile=t) for m in w]
            results[str((tile.rows, tile.columns, tile.num_warps, tile.num_stages))] = time_graph(run) / copies
        share = {k: round(rows * columns * 2 / (us * 1e-6) / 1e9 / read_gb_s, 3) for k, us in results.items()}
        best = sorted(results, key=results.get)[:5]
        print(
            name,
            "cublas",
            round(results["cublas"], 2),
            share["cublas"],
            [(k, round(results[k], 2), share[k]) for k in best],
            flush=True,
        )
        for rows_in_batch in (2, 4, 8, 16, 32, 64, 128, 256):
            xs = torch.randn(rows_in_batch, columns, dtype=torch.bfloat16, device="cuda")
            us = time_graph(lambda w=weights, b=xs: [torch.nn.functional.linear(b, m) for m in w]) / copies
            print(
                "   cublas batch",
                rows_in_batch,
                round(us, 1),
                round(rows * columns * 2 / us / 1e3 / read_gb_s, 3),
                flush=True,
            )
        del weights


def main() -> None:
    data = torch.ones(2**30, dtype=torch.float32, device="cuda")
    read_gb_s = data.numel() * 4 / (time_graph(lambda: data.sum()) * 1e-6) / 1e9
    print("read GB/s", read_gb_s)
    del data
    for dtype in (torch.float32, torch.bfloat16):
        print("attention", dtype, check_attention(dtype), flush=True)
    time_products(read_gb_s)


if __name__ == "__main__":
    main()

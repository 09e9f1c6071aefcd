"""Attention of prompt chunks over the paged KV pool, in tiles of queries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from workbench.engine.attention import AttentionOptions
from workbench.engine.kernels.attention_tiles import load_tile, online, scores
from workbench.engine.kernels.tiles import CHUNK_QUERIES

__all__ = ["ChunkShape", "attend_chunks"]

# Tokens of keys and values read at once.
_TILE = 64


def attend_chunks(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    table: torch.Tensor,
    tiles: torch.Tensor,
    options: AttentionOptions,
    out: torch.Tensor,
    shape: ChunkShape | None = None,
) -> None:
    """Prompt chunks. `tiles` [n, 4] int32 holds for each tile of at most CHUNK_QUERIES queries: its first row in
    `query`, its number of rows, where its blocks start in `table`, and the position of its first query.
    """
    heads, dim = query.shape[1], query.shape[2]
    block_size, num_kv_heads = keys.shape[1], keys.shape[2]
    group = heads // num_kv_heads
    shape = shape or ChunkShape.of(group, triton.next_power_of_2(dim), query.element_size())
    _chunk[(tiles.shape[0] * (CHUNK_QUERIES // shape.queries), num_kv_heads)](
        query,
        keys,
        values,
        table,
        tiles,
        out,
        out if options.sinks is None else options.sinks,
        options.scale,
        options.softcap or 0.0,
        query.stride(0),
        KV_HEADS=num_kv_heads,
        GROUP=group,
        QUERIES=shape.queries,
        PARTS=CHUNK_QUERIES // shape.queries,
        ROWS=triton.next_power_of_2(shape.queries * group),
        DIM=dim,
        DIM_PADDED=triton.next_power_of_2(dim),
        BLOCK_SIZE=block_size,
        TILE=shape.tile,
        WINDOW=options.sliding_window or 0,
        SOFTCAP=options.softcap is not None,
        SINKS=options.sinks is not None,
        num_warps=shape.num_warps,
        num_stages=shape.num_stages,
    )


@dataclass(frozen=True)
class ChunkShape:
    """Queries of one program, tokens of keys and values that it reads at once, its warps, and reads in flight."""

    queries: int
    tile: int
    num_warps: int
    num_stages: int

    @classmethod
    def of(cls, group: int, dim: int, element_size: int) -> ChunkShape:
        """The fastest of those timed on an H200 (benchmarks/gpu_tiles.py) for heads of 256 bytes; for others what fits
        in the shared memory of any supported GPU."""
        row_bytes = dim * element_size
        most_bytes = (16 if row_bytes == 256 else 32) * 1024
        queries = CHUNK_QUERIES
        while queries > 1 and triton.next_power_of_2(queries * group) * row_bytes > most_bytes:
            queries //= 2
        if row_bytes == 256:
            return cls(queries, _TILE, 4, 2)
        num_warps = 8 if dim * group >= 256 else 4
        return cls(queries, _TILE, num_warps, 2) if row_bytes < 256 else cls(queries, 32, num_warps, 1)


@triton.jit
def _chunk(
    query, keys, values, table, tiles, out, sinks, scale, softcap, query_stride,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, QUERIES: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr,
    DIM: tl.constexpr, DIM_PADDED: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr, WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr, SINKS: tl.constexpr,
):  # fmt: skip
    # A tile of the host's is cut into PARTS programs.
    tile = tl.program_id(0) // PARTS
    skipped = tl.program_id(0) % PARTS * QUERIES
    kv_head = tl.program_id(1)
    first_row = tl.load(tiles + tile * 4).to(tl.int64) + skipped
    num_rows = tl.minimum(tl.load(tiles + tile * 4 + 1) - skipped, QUERIES)
    if num_rows <= 0:
        return
    table += tl.load(tiles + tile * 4 + 2)
    first_position = tl.load(tiles + tile * 4 + 3) + skipped

    # Row r of the product is query r // GROUP, head r % GROUP of this group.
    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, DIM_PADDED)
    queries = rows // GROUP
    heads = kv_head * GROUP + rows % GROUP
    inside = (queries < num_rows)[:, None] & (dims < DIM)[None, :]
    q = tl.load(
        query + (first_row + queries)[:, None] * query_stride + heads[:, None] * DIM + dims[None, :],
        mask=inside,
        other=0.0,
    )
    query_positions = first_position + queries
    end = first_position + num_rows
    begin = 0
    if WINDOW > 0:
        begin = tl.maximum(0, first_position - WINDOW + 1) // TILE * TILE
    maximum = tl.full([ROWS], float("-inf"), tl.float32)
    weight = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS, DIM_PADDED], tl.float32)
    # What every query sees whole needs no masks.
    whole_end = begin
    if WINDOW == 0:
        whole_end = (first_position + 1) // TILE * TILE
    for start in range(begin, whole_end, TILE):
        positions = start + tl.arange(0, TILE)
        visible = positions >= 0
        k = load_tile(
            keys, table, positions, visible, kv_head, KV_HEADS, DIM, DIM_PADDED, BLOCK_SIZE, DIM == DIM_PADDED
        ).to(q.dtype)
        v = load_tile(
            values, table, positions, visible, kv_head, KV_HEADS, DIM, DIM_PADDED, BLOCK_SIZE, DIM == DIM_PADDED
        ).to(q.dtype)
        s = scores(q, k, True, scale, softcap, SOFTCAP, True)
        maximum, weight, total = online(s, v, maximum, weight, total)
    for start in range(whole_end, end, TILE):
        positions = start + tl.arange(0, TILE)
        visible = positions < end
        k = load_tile(keys, table, positions, visible, kv_head, KV_HEADS, DIM, DIM_PADDED, BLOCK_SIZE).to(q.dtype)
        v = load_tile(values, table, positions, visible, kv_head, KV_HEADS, DIM, DIM_PADDED, BLOCK_SIZE).to(q.dtype)
        allowed = positions[None, :] <= query_positions[:, None]
        if WINDOW > 0:
            allowed = allowed & (positions[None, :] > query_positions[:, None] - WINDOW)
        s = scores(q, k, allowed, scale, softcap, SOFTCAP)
        maximum, weight, total = online(s, v, maximum, weight, total)
    if SINKS:
        weight += tl.exp(tl.load(sinks + heads).to(tl.float32) - maximum)
    total = total / tl.where(weight == 0.0, 1.0, weight)[:, None]
    target = out + ((first_row + queries)[:, None] * KV_HEADS * GROUP + heads[:, None]) * DIM + dims[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=inside)

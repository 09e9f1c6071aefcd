"""Attention over the paged KV pool: split-KV for decodes, tiles of queries for prompt chunks.

In both, the query heads that share a KV head are the rows of one matrix product, so every key and value is read once.
Scores and sums are float32; softmax is computed online (Milakov and Gimelshein 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from workbench.engine.attention import AttentionOptions
from workbench.engine.kernels.tiles import CHUNK_QUERIES

__all__ = ["DecodeWorkspace", "attend_chunks", "attend_decodes", "num_splits"]

# Tokens of keys and values read at once.
_TILE = 64
# Programs that keep a large GPU busy: about four for each of 132 multiprocessors.
_WANTED_PROGRAMS = 528
_MAX_SPLITS = 32


def num_splits(rows: int, num_kv_heads: int, max_length: int) -> int:
    """Into how many parts each row's keys are cut, so that the device is filled; a power of two."""
    useful = max(1, min(_MAX_SPLITS, max_length // _TILE, _WANTED_PROGRAMS // max(1, rows * num_kv_heads)))
    return 1 << (useful.bit_length() - 1)


@dataclass(frozen=True)
class DecodeWorkspace:
    """Partial results of split decodes: `sums` [rows * splits, heads, dim], `maxima` and `weights` [rows * splits,
    heads] in float32, and `counters` [rows * kv_heads] that are zero between launches."""

    sums: torch.Tensor
    maxima: torch.Tensor
    weights: torch.Tensor
    counters: torch.Tensor

    @classmethod
    def allocate(cls, max_rows: int, num_heads: int, num_kv_heads: int, dim: int, device: str) -> DecodeWorkspace:
        """Enough for any batch of up to `max_rows`: see `num_splits` for what rows times splits can come to."""
        parts = max(max_rows, _WANTED_PROGRAMS // num_kv_heads, _MAX_SPLITS)

        def new(*shape: int) -> torch.Tensor:
            return torch.empty(shape, dtype=torch.float32, device=device)

        return cls(
            new(parts, num_heads, dim),
            new(parts, num_heads),
            new(parts, num_heads),
            torch.zeros(parts * num_kv_heads, dtype=torch.int32, device=device),
        )


def attend_decodes(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    table: torch.Tensor,
    table_starts: torch.Tensor,
    lengths: torch.Tensor,
    options: AttentionOptions,
    out: torch.Tensor,
    workspace: DecodeWorkspace,
    splits: int,
) -> None:
    """One query token per row. `query` [rows, heads, dim] with any row stride, `out` [rows, heads, dim].

    Row r's blocks are `table[table_starts[r]:]`, and it sees its first `lengths[r]` tokens (0: a padding row); all
    three are int32.
    """
    rows, heads, dim = query.shape
    block_size, num_kv_heads = keys.shape[1], keys.shape[2]
    group = heads // num_kv_heads
    _decode[(rows, num_kv_heads, splits)](
        query,
        keys,
        values,
        table,
        table_starts,
        lengths,
        out,
        workspace.sums,
        workspace.maxima,
        workspace.weights,
        workspace.counters,
        out if options.sinks is None else options.sinks,
        options.scale,
        options.softcap or 0.0,
        query.stride(0),
        KV_HEADS=num_kv_heads,
        GROUP=group,
        GROUP_PADDED=max(16, triton.next_power_of_2(group)),
        DIM=dim,
        DIM_PADDED=triton.next_power_of_2(dim),
        BLOCK_SIZE=block_size,
        TILE=_TILE if triton.next_power_of_2(dim) * query.element_size() <= 256 else 32,
        SPLITS=splits,
        WINDOW=options.sliding_window or 0,
        SOFTCAP=options.softcap is not None,
        SINKS=options.sinks is not None,
        num_warps=4,
        num_stages=3 if dim * query.element_size() <= 256 else 2,
    )


def attend_chunks(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    table: torch.Tensor,
    tiles: torch.Tensor,
    options: AttentionOptions,
    out: torch.Tensor,
) -> None:
    """Prompt chunks. `tiles` [n, 4] int32 holds for each tile of at most CHUNK_QUERIES queries: its first row in
    `query`, its number of rows, where its blocks start in `table`, and the position of its first query.
    """
    heads, dim = query.shape[1], query.shape[2]
    block_size, num_kv_heads = keys.shape[1], keys.shape[2]
    group = heads // num_kv_heads
    shape = _chunk_shape(group, triton.next_power_of_2(dim), query.element_size())
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
        num_warps=8 if dim * group >= 256 else 4,
        num_stages=shape.num_stages,
    )


@dataclass(frozen=True)
class _ChunkShape:
    queries: int
    tile: int
    num_stages: int


def _chunk_shape(group: int, dim: int, element_size: int) -> _ChunkShape:
    """Queries of one program and tokens of one tile, so that both fit in the shared memory of any supported GPU."""
    row_bytes = dim * element_size
    queries = CHUNK_QUERIES
    while queries > 1 and triton.next_power_of_2(queries * group) * row_bytes > 32 * 1024:
        queries //= 2
    wide = row_bytes <= 256
    return _ChunkShape(queries, _TILE if wide else 32, 2 if wide else 1)


@triton.jit
def _load_tile(
    pool, table, positions, visible, head, KV_HEADS: tl.constexpr, DIM: tl.constexpr, DIM_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    """Rows [TILE, DIM_PADDED] of keys or values at `positions`, by way of the block table."""
    dims = tl.arange(0, DIM_PADDED)
    block = tl.load(table + positions // BLOCK_SIZE, mask=visible, other=0).to(tl.int64)
    row = (block * BLOCK_SIZE + positions % BLOCK_SIZE) * KV_HEADS + head
    return tl.load(pool + row[:, None] * DIM + dims[None, :], mask=visible[:, None] & (dims < DIM)[None, :], other=0.0)


@triton.jit
def _scores(q, k, allowed, scale, softcap, SOFTCAP: tl.constexpr):
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    if SOFTCAP:
        # tanh by exp of a negative number, which cannot overflow
        t = tl.exp(-2.0 * tl.abs(scores / softcap))
        scores = softcap * (1.0 - t) / (1.0 + t) * tl.where(scores < 0, -1.0, 1.0)
    return tl.where(allowed, scores, float("-inf"))


@triton.jit
def _online(scores, v, maximum, weight, total):
    """One tile of online softmax: new row maximum, row weight and weighted sum of values."""
    new_maximum = tl.maximum(maximum, tl.max(scores, axis=1))
    # A row that sees nothing yet has maximum -inf; 0 keeps exp() from making NaN of it.
    base = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
    p = tl.exp(scores - base[:, None])
    shrink = tl.exp(maximum - base)
    weight = weight * shrink + tl.sum(p, axis=1)
    total = total * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
    return new_maximum, weight, total


@triton.jit
def _decode(
    query, keys, values, table, table_starts, lengths, out, sums, maxima, weights, counters, sinks,
    scale, softcap, query_stride,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_PADDED: tl.constexpr, DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr, SPLITS: tl.constexpr,
    WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, SINKS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    length = tl.load(lengths + row)
    begin = 0
    if WINDOW > 0:
        begin = tl.maximum(0, length - WINDOW)
    # Parts are whole tiles, so that no tile is read twice.
    part = tl.cdiv(tl.cdiv(length - begin, SPLITS), TILE) * TILE
    first = begin + split * part
    last = tl.minimum(first + part, length)

    members = tl.arange(0, GROUP_PADDED)
    dims = tl.arange(0, DIM_PADDED)
    heads = kv_head * GROUP + members
    inside = (members < GROUP)[:, None] & (dims < DIM)[None, :]
    q = tl.load(query + row * query_stride + heads[:, None] * DIM + dims[None, :], mask=inside, other=0.0)
    maximum = tl.full([GROUP_PADDED], float("-inf"), tl.float32)
    weight = tl.zeros([GROUP_PADDED], tl.float32)
    total = tl.zeros([GROUP_PADDED, DIM_PADDED], tl.float32)
    table += tl.load(table_starts + row)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        visible = positions < last
        k = _load_tile(keys, table, positions, visible, kv_head, KV_HEADS, DIM, DIM_PADDED, BLOCK_SIZE)
        v = _load_tile(values, table, positions, visible, kv_head, KV_HEADS, DIM, DIM_PADDED, BLOCK_SIZE)
        scores = _scores(q, k, visible[None, :], scale, softcap, SOFTCAP)
        maximum, weight, total = _online(scores, v, maximum, weight, total)

    target = out + row * KV_HEADS * GROUP * DIM + heads[:, None] * DIM + dims[None, :]
    if SPLITS == 1:
        if SINKS:
            weight += tl.exp(tl.load(sinks + heads, mask=members < GROUP, other=0.0).to(tl.float32) - maximum)
        total = total / tl.where(weight == 0.0, 1.0, weight)[:, None]
        tl.store(target, total.to(out.dtype.element_ty), mask=inside)
    else:
        slot = (row * SPLITS + split) * KV_HEADS * GROUP + heads
        tl.store(maxima + slot, maximum, mask=members < GROUP)
        tl.store(weights + slot, weight, mask=members < GROUP)
        tl.store(sums + slot[:, None] * DIM + dims[None, :], total, mask=inside)
        # Every thread's stores must be out before the counter says so; the last part to arrive joins them all.
        tl.debug_barrier()
        arrived = tl.atomic_add(counters + row * KV_HEADS + kv_head, 1, sem="acq_rel", scope="gpu")
        if arrived == SPLITS - 1:
            maximum = tl.full([GROUP_PADDED], float("-inf"), tl.float32)
            weight = tl.zeros([GROUP_PADDED], tl.float32)
            total = tl.zeros([GROUP_PADDED, DIM_PADDED], tl.float32)
            for other in range(SPLITS):
                slot = (row * SPLITS + other) * KV_HEADS * GROUP + heads
                m = tl.load(maxima + slot, mask=members < GROUP, other=float("-inf"), cache_modifier=".cg")
                w = tl.load(weights + slot, mask=members < GROUP, other=0.0, cache_modifier=".cg")
                t = tl.load(sums + slot[:, None] * DIM + dims[None, :], mask=inside, other=0.0, cache_modifier=".cg")
                new_maximum = tl.maximum(maximum, m)
                base = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
                old, new = tl.exp(maximum - base), tl.exp(m - base)
                weight = weight * old + w * new
                total = total * old[:, None] + t * new[:, None]
                maximum = new_maximum
            if SINKS:
                weight += tl.exp(tl.load(sinks + heads, mask=members < GROUP, other=0.0).to(tl.float32) - maximum)
            total = total / tl.where(weight == 0.0, 1.0, weight)[:, None]
            tl.store(target, total.to(out.dtype.element_ty), mask=inside)
            tl.store(counters + row * KV_HEADS + kv_head, 0)


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
    for start in range(begin, end, TILE):
        positions = start + tl.arange(0, TILE)
        visible = positions < end
        k = _load_tile(keys, table, positions, visible, kv_head, KV_HEADS, DIM, DIM_PADDED, BLOCK_SIZE)
        v = _load_tile(values, table, positions, visible, kv_head, KV_HEADS, DIM, DIM_PADDED, BLOCK_SIZE)
        allowed = positions[None, :] <= query_positions[:, None]
        if WINDOW > 0:
            allowed = allowed & (positions[None, :] > query_positions[:, None] - WINDOW)
        scores = _scores(q, k, allowed, scale, softcap, SOFTCAP)
        maximum, weight, total = _online(scores, v, maximum, weight, total)
    if SINKS:
        weight += tl.exp(tl.load(sinks + heads).to(tl.float32) - maximum)
    total = total / tl.where(weight == 0.0, 1.0, weight)[:, None]
    target = out + ((first_row + queries)[:, None] * KV_HEADS * GROUP + heads[:, None]) * DIM + dims[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=inside)

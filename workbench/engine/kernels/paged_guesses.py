"""Attention of answers' next tokens and the guesses after them over the paged KV pool: a few queries of each sequence,
whose keys and values are cut into parts that fill the device, as for decodes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from workbench.engine.attention import AttentionOptions
from workbench.engine.kernels.attention_tiles import joined, load_tile, online, scores
from workbench.engine.kernels.paged_decode import DecodeWorkspace
from workbench.engine.kernels.tiles import GUESS_QUERIES

__all__ = ["attend_guesses"]

# Tokens of keys and values read at once.
_TILE = 64


def attend_guesses(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    table: torch.Tensor,
    tiles: torch.Tensor,
    options: AttentionOptions,
    out: torch.Tensor,
    workspace: DecodeWorkspace,
    splits: int,
) -> None:
    """Consecutive tokens of sequences, whose keys and values are stored already. `query` [rows, heads, dim] with any
    row stride, `out` [rows, heads, dim].

    `tiles` [n, 4] int32 holds for each tile of at most GUESS_QUERIES queries: its first row in `query`, its number of
    rows (0: it is there to fill up), where its blocks start in `table`, and the position of its first query. The
    workspace has room for rows * splits parts.
    """
    heads, dim = query.shape[1], query.shape[2]
    block_size, num_kv_heads = keys.shape[1], keys.shape[2]
    group = heads // num_kv_heads
    wide = triton.next_power_of_2(dim) * query.element_size() > 256
    _guesses[(tiles.shape[0], num_kv_heads, splits)](
        query,
        keys,
        values,
        table,
        tiles,
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
        ROWS=max(16, triton.next_power_of_2(GUESS_QUERIES * group)),
        DIM=dim,
        DIM_PADDED=triton.next_power_of_2(dim),
        BLOCK_SIZE=block_size,
        TILE=32 if wide else _TILE,
        SPLITS=splits,
        WINDOW=options.sliding_window or 0,
        SOFTCAP=options.softcap is not None,
        SINKS=options.sinks is not None,
        num_warps=4,
        num_stages=1 if wide else 2,
    )


@triton.jit
def _guesses(
    query, keys, values, table, tiles, out, sums, maxima, weights, counters, sinks, scale, softcap, query_stride,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, DIM_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr, SPLITS: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr,
    SINKS: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    num_rows = tl.load(tiles + tile * 4 + 1)
    if num_rows <= 0:
        return
    first_row = tl.load(tiles + tile * 4).to(tl.int64)
    first_position = tl.load(tiles + tile * 4 + 3)
    begin = 0
    if WINDOW > 0:
        begin = tl.maximum(0, first_position - WINDOW + 1)
    end = first_position + num_rows
    # Parts are whole tiles, so that no tile is read twice; of a short sequence there are fewer than programs.
    part = tl.maximum(tl.cdiv(tl.cdiv(end - begin, SPLITS), TILE), 1) * TILE
    num_parts = tl.cdiv(end - begin, part)
    if split >= num_parts:
        return
    first = begin + split * part
    last = tl.minimum(first + part, end)

    # Row r of the product is query r // GROUP, head r % GROUP of this group.
    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, DIM_PADDED)
    queries = rows // GROUP
    heads = kv_head * GROUP + rows % GROUP
    mine = queries < num_rows
    inside = mine[:, None] & (dims < DIM)[None, :]
    q = tl.load(
        query + (first_row + queries)[:, None] * query_stride + heads[:, None] * DIM + dims[None, :],
        mask=inside,
        other=0.0,
    )
    query_positions = first_position + queries
    table += tl.load(tiles + tile * 4 + 2)
    maximum = tl.full([ROWS], float("-inf"), tl.float32)
    weight = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS, DIM_PADDED], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        visible = positions < last
        k = load_tile(keys, table, positions, visible, kv_head, KV_HEADS, DIM, DIM_PADDED, BLOCK_SIZE).to(q.dtype)
        v = load_tile(values, table, positions, visible, kv_head, KV_HEADS, DIM, DIM_PADDED, BLOCK_SIZE).to(q.dtype)
        allowed = visible[None, :] & (positions[None, :] <= query_positions[:, None])
        if WINDOW > 0:
            allowed = allowed & (positions[None, :] > query_positions[:, None] - WINDOW)
        s = scores(q, k, allowed, scale, softcap, SOFTCAP)
        maximum, weight, total = online(s, v, maximum, weight, total)

    is_last = True
    if SPLITS > 1:
        slot = (first_row + queries) * SPLITS * KV_HEADS * GROUP + heads
        own = slot + split * KV_HEADS * GROUP
        tl.store(maxima + own, maximum, mask=mine)
        tl.store(weights + own, weight, mask=mine)
        tl.store(sums + own[:, None] * DIM + dims[None, :], total, mask=inside)
        # Every thread's stores must be out before the counter says so; the last part to arrive joins them all.
        tl.debug_barrier()
        arrived = tl.atomic_add(counters + tile * KV_HEADS + kv_head, 1, sem="acq_rel", scope="gpu")
        is_last = arrived == num_parts - 1
        if is_last:
            maximum, weight, total = joined(
                sums, maxima, weights, slot, KV_HEADS * GROUP, num_parts, mine, ROWS, DIM, DIM_PADDED
            )
            tl.store(counters + tile * KV_HEADS + kv_head, 0)
    if is_last:
        if SINKS:
            weight += tl.exp(tl.load(sinks + heads, mask=mine, other=0.0).to(tl.float32) - maximum)
        total = total / tl.where(weight == 0.0, 1.0, weight)[:, None]
        target = out + ((first_row + queries)[:, None] * KV_HEADS * GROUP + heads[:, None]) * DIM + dims[None, :]
        tl.store(target, total.to(out.dtype.element_ty), mask=inside)

"""Attention of decodes, one query token a row, over the paged KV pool; rows are cut into parts that fill the device.

A decoder's own rows come as they leave its projection: the kernel then rotates query and key, stores key and value,
and attends to them without reading them back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from workbench.engine.attention import AttentionOptions
from workbench.engine.kernels.attention_tiles import cap, joined, load_tile, online, scores

__all__ = ["DecodeTile", "DecodeWorkspace", "NewTokens", "attend_decodes", "num_splits"]

# Tokens of keys and values that a part has at least.
_TILE = 64
# Programs that keep a large GPU busy: two for each of 132 multiprocessors.
_WANTED_PROGRAMS = 264
_MAX_SPLITS = 32
# So many programs hide each other's beginnings and ends: then small tiles, many in flight, read the fastest.
_MANY_PROGRAMS = 1024


def num_splits(rows: int, num_kv_heads: int, max_length: int) -> int:
    """Into how many parts each row's keys are cut, so that the device is filled; a power of two."""
    programs = max(1, rows * num_kv_heads)
    # Where whole rows leave the device half full or just fill it, halves of rows balance better.
    wanted = 2 * _WANTED_PROGRAMS if _WANTED_PROGRAMS // 2 < programs <= _WANTED_PROGRAMS else _WANTED_PROGRAMS
    useful = max(1, min(_MAX_SPLITS, max_length // _TILE, wanted // programs))
    return 1 << (useful.bit_length() - 1)


@dataclass(frozen=True)
class DecodeTile:
    """Tokens of keys and values that one program reads at once, its warps, and reads in flight."""

    tokens: int
    num_warps: int
    num_stages: int

    @classmethod
    def of(cls, dim: int, element_size: int, num_programs: int) -> DecodeTile:
        """The fastest of those timed on an H200 (benchmarks/gpu_tiles.py) that any supported GPU's shared memory holds:
        many programs want few warps, so that more of them run side by side, and very many want one."""
        if triton.next_power_of_2(dim) * element_size > 256:
            return cls(32, 4, 2)
        if num_programs >= _MANY_PROGRAMS:
            return cls(16, 1, 6)
        return cls(64, 2 if num_programs > _WANTED_PROGRAMS else 8, 3)


@dataclass(frozen=True)
class DecodeWorkspace:
    """Partial results of split decodes: `sums` [rows * splits, heads, dim], `maxima` and `weights` [rows * splits,
    heads] in float32, and `counters` [rows * kv_heads] that are zero between launches."""

    sums: torch.Tensor
    maxima: torch.Tensor
    weights: torch.Tensor
    counters: torch.Tensor

    @classmethod
    def allocate(
        cls, max_rows: int, num_heads: int, num_kv_heads: int, dim: int, device: str, *, rows_at_once: int = 1
    ) -> DecodeWorkspace:
        """Enough for any batch of up to `max_rows`: see `num_splits` for what rows times splits can come to. So many
        rows of a batch may be computed at once, and are then cut together."""
        parts = max(max_rows, rows_at_once * max(2 * _WANTED_PROGRAMS // num_kv_heads, _MAX_SPLITS))

        def new(*shape: int) -> torch.Tensor:
            return torch.empty(shape, dtype=torch.float32, device=device)

        return cls(
            new(parts, num_heads, dim),
            new(parts, num_heads),
            new(parts, num_heads),
            torch.zeros(parts * num_kv_heads, dtype=torch.int32, device=device),
        )


@dataclass(frozen=True)
class NewTokens:
    """What turns a projection's output into queries, keys and values, and where the latter two go.

    `cos`, `sin` are tables [positions, dim] whose halves are equal; `slots` [rows] int32 are block * block_size +
    offset. With `query_norm`, `key_norm` [dim] every head is RMS-normalised first (Qwen 3).
    """

    cos: torch.Tensor
    sin: torch.Tensor
    slots: torch.Tensor
    query_norm: torch.Tensor | None = None
    key_norm: torch.Tensor | None = None
    eps: float = 0.0


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
    new: NewTokens | None = None,
    *,
    pdl: bool = False,
    tile: DecodeTile | None = None,
) -> None:
    """One query token per row. `query` [rows, heads, dim] with any row stride, `out` [rows, heads, dim].

    Row r's blocks are `table[table_starts[r]:]`, and it sees its first `lengths[r]` tokens (0: a padding row); all
    three are int32. With `new`, `query` is the head of rows that go on with KV heads of keys and as many of values,
    none of them rotated: they are the row's last token, which is stored here. `pdl`: see gemv.
    """
    rows, heads, dim = query.shape
    normed = new if new is not None and new.query_norm is not None else None
    block_size, num_kv_heads = keys.shape[1], keys.shape[2]
    group = heads // num_kv_heads
    tile = tile or DecodeTile.of(dim, query.element_size(), rows * num_kv_heads * splits)
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
        lengths if new is None else new.slots,
        out if new is None else new.cos,
        out if new is None else new.sin,
        out if normed is None else normed.query_norm,
        out if normed is None else normed.key_norm,
        0.0 if normed is None else normed.eps,
        options.scale,
        options.softcap or 0.0,
        query.stride(0),
        KV_HEADS=num_kv_heads,
        GROUP=group,
        GROUP_PADDED=max(16, triton.next_power_of_2(group)),
        DIM=dim,
        DIM_PADDED=triton.next_power_of_2(dim),
        BLOCK_SIZE=block_size,
        TILE=tile.tokens,
        SPLITS=splits,
        WINDOW=options.sliding_window or 0,
        SOFTCAP=options.softcap is not None,
        SINKS=options.sinks is not None,
        NEW=new is not None,
        NORM=normed is not None,
        PDL=pdl,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        **({"launch_pdl": True} if pdl else {}),
    )


@triton.jit
def _rotated(
    source, cos, sin, norm, eps, position, rows_inside, DIM: tl.constexpr, DIM_PADDED: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """Heads [rows, DIM_PADDED] at `source` [rows, 1], rotated to a position, rounded where the model's code does."""
    dims = tl.arange(0, DIM_PADDED)[None, :]
    inside = rows_inside & (dims < DIM)
    partner = tl.where(dims < DIM // 2, dims + DIM // 2, dims - DIM // 2)
    raw = tl.load(source + dims, mask=inside, other=0.0)
    x = raw.to(tl.float32)
    y = tl.load(source + partner, mask=inside, other=0.0).to(tl.float32)
    if NORM:
        factor = tl.rsqrt(tl.sum(x * x, axis=1) / DIM + eps)[:, None]
        x = (x * factor).to(raw.dtype).to(tl.float32)
        y = (y * factor).to(raw.dtype).to(tl.float32)
        x = (x * tl.load(norm + dims, mask=dims < DIM, other=0.0).to(tl.float32)).to(raw.dtype).to(tl.float32)
        y = (y * tl.load(norm + partner, mask=dims < DIM, other=0.0).to(tl.float32)).to(raw.dtype).to(tl.float32)
    c = tl.load(cos + position * DIM + dims, mask=dims < DIM, other=0.0).to(tl.float32)
    s = tl.load(sin + position * DIM + dims, mask=dims < DIM, other=0.0).to(tl.float32)
    return (x * c + tl.where(dims < DIM // 2, -y, y) * s).to(raw.dtype)


@triton.jit
def _decode(
    query, keys, values, table, table_starts, lengths, out, sums, maxima, weights, counters, sinks,
    slots, cos, sin, query_norm, key_norm, eps, scale, softcap, query_stride,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_PADDED: tl.constexpr, DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr, SPLITS: tl.constexpr,
    WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, SINKS: tl.constexpr, NEW: tl.constexpr, NORM: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    length = tl.load(lengths + row)
    begin = 0
    if WINDOW > 0:
        begin = tl.maximum(0, length - WINDOW)
    # The new token is no part of the pool yet.
    end = length - 1 if NEW else length
    # Parts are whole tiles, so that no tile is read twice; of a short row there are fewer than programs.
    part = tl.maximum(tl.cdiv(tl.cdiv(end - begin, SPLITS), TILE), 1) * TILE
    num_parts = tl.maximum(tl.cdiv(end - begin, part), 1)
    if split >= num_parts:
        return
    first = begin + split * part
    last = tl.minimum(first + part, end)

    members = tl.arange(0, GROUP_PADDED)
    dims = tl.arange(0, DIM_PADDED)
    heads = kv_head * GROUP + members
    inside = (members < GROUP)[:, None] & (dims < DIM)[None, :]
    position = tl.maximum(length - 1, 0).to(tl.int64)
    source = query + row * query_stride
    if NEW:
        in_group = (members < GROUP)[:, None]
        q = _rotated(
            source + heads[:, None] * DIM, cos, sin, query_norm, eps, position, in_group, DIM, DIM_PADDED, NORM
        )
    else:
        q = tl.load(source + heads[:, None] * DIM + dims[None, :], mask=inside, other=0.0)
    maximum = tl.full([GROUP_PADDED], float("-inf"), tl.float32)
    weight = tl.zeros([GROUP_PADDED], tl.float32)
    total = tl.zeros([GROUP_PADDED, DIM_PADDED], tl.float32)
    table += tl.load(table_starts + row)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        visible = positions < last
        k = load_tile(keys, table, positions, visible, kv_head, KV_HEADS, DIM, DIM_PADDED, BLOCK_SIZE).to(q.dtype)
        v = load_tile(values, table, positions, visible, kv_head, KV_HEADS, DIM, DIM_PADDED, BLOCK_SIZE).to(q.dtype)
        s = scores(q, k, visible[None, :], scale, softcap, SOFTCAP)
        maximum, weight, total = online(s, v, maximum, weight, total)
    if NEW:
        if split == 0:
            own = source + KV_HEADS * GROUP * DIM + kv_head * DIM
            one = tl.zeros([1, 1], tl.int32)
            k = _rotated(own + one, cos, sin, key_norm, eps, position, one == 0, DIM, DIM_PADDED, NORM)
            v = tl.load(own + KV_HEADS * DIM + one + dims[None, :], mask=(dims < DIM)[None, :], other=0.0)
            k, v = k.to(keys.dtype.element_ty), v.to(values.dtype.element_ty)
            place = (tl.load(slots + row).to(tl.int64) * KV_HEADS + kv_head) * DIM + one + dims[None, :]
            tl.store(keys + place, k, mask=(dims < DIM)[None, :])
            tl.store(values + place, v, mask=(dims < DIM)[None, :])
            s = tl.sum(q.to(tl.float32) * k.to(q.dtype).to(tl.float32), axis=1) * scale
            if SOFTCAP:
                s = cap(s, softcap)
            s = tl.where(length > 0, s, float("-inf"))
            new_maximum = tl.maximum(maximum, s)
            base = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
            p, shrink = tl.exp(s - base), tl.exp(maximum - base)
            weight = weight * shrink + p
            p = p.to(q.dtype).to(tl.float32)
            total = total * shrink[:, None] + p[:, None] * v.to(q.dtype).to(tl.float32)
            maximum = new_maximum

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
        if arrived == num_parts - 1:
            maximum, weight, total = joined(
                sums, maxima, weights, row * SPLITS * KV_HEADS * GROUP + heads, KV_HEADS * GROUP, num_parts,
                members < GROUP, GROUP_PADDED, DIM, DIM_PADDED,
            )  # fmt: skip
            if SINKS:
                weight += tl.exp(tl.load(sinks + heads, mask=members < GROUP, other=0.0).to(tl.float32) - maximum)
            total = total / tl.where(weight == 0.0, 1.0, weight)[:, None]
            tl.store(target, total.to(out.dtype.element_ty), mask=inside)
            tl.store(counters + row * KV_HEADS + kv_head, 0)

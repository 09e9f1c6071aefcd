"""Rotary position embedding of new queries and keys, and storing keys and values in their blocks, in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["rope_and_store"]


def rope_and_store(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    num_heads: int,
    *,
    query_norm: torch.Tensor | None = None,
    key_norm: torch.Tensor | None = None,
    eps: float = 0.0,
) -> None:
    """Rotate the queries of `qkv` [rows, (heads + 2 * kv_heads) * dim] in place, and store rotated keys and values.

    `cos`, `sin` are tables [max_positions, dim]; `positions`, `slots` [rows]; `keys`, `values` [blocks, block_size,
    kv_heads, dim]. With `query_norm`, `key_norm` [dim] every head is
    RMS-normalised first (Qwen 3).
    """
    rows = qkv.shape[0]
    num_kv_heads, dim = keys.shape[2], keys.shape[3]
    _rope_and_store[(rows, num_heads + 2 * num_kv_heads)](
        qkv,
        cos,
        sin,
        positions,
        slots,
        keys,
        values,
        cos if query_norm is None else query_norm,
        cos if key_norm is None else key_norm,
        eps,
        HEADS=num_heads,
        KV_HEADS=num_kv_heads,
        DIM=dim,
        HALF=triton.next_power_of_2(dim // 2),
        NORM=query_norm is not None,
        num_warps=1,
    )


@triton.jit
def _rope_and_store(
    qkv,
    cos,
    sin,
    positions,
    slots,
    keys,
    values,
    query_norm,
    key_norm,
    eps,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    HALF: tl.constexpr,
    NORM: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    half = tl.arange(0, HALF)
    inside = half < DIM // 2
    source = qkv + row * (HEADS + 2 * KV_HEADS) * DIM + head * DIM
    low = tl.load(source + half, mask=inside, other=0.0)
    high = tl.load(source + DIM // 2 + half, mask=inside, other=0.0)
    slot = tl.load(slots + row).to(tl.int64)
    if head >= HEADS + KV_HEADS:
        target = values + (slot * KV_HEADS + head - HEADS - KV_HEADS) * DIM
        tl.store(target + half, low, mask=inside)
        tl.store(target + DIM // 2 + half, high, mask=inside)
    else:
        x, y = low.to(tl.float32), high.to(tl.float32)
        if NORM:
            scale = tl.rsqrt((tl.sum(x * x, axis=0) + tl.sum(y * y, axis=0)) / DIM + eps)
            norm = query_norm
            if head >= HEADS:
                norm = key_norm
            x = (x * scale).to(low.dtype).to(tl.float32) * tl.load(norm + half, mask=inside, other=0.0).to(tl.float32)
            y = (y * scale).to(low.dtype).to(tl.float32) * tl.load(norm + DIM // 2 + half, mask=inside, other=0.0).to(
                tl.float32
            )
            x, y = x.to(low.dtype).to(tl.float32), y.to(low.dtype).to(tl.float32)
        # Both halves of the tables are equal, so the first is enough.
        angle = tl.load(positions + row).to(tl.int64) * DIM + half
        c = tl.load(cos + angle, mask=inside, other=0.0).to(tl.float32)
        s = tl.load(sin + angle, mask=inside, other=0.0).to(tl.float32)
        new_low = (x * c - y * s).to(low.dtype)
        new_high = (y * c + x * s).to(low.dtype)
        if head < HEADS:
            tl.store(source + half, new_low, mask=inside)
            tl.store(source + DIM // 2 + half, new_high, mask=inside)
        else:
            target = keys + (slot * KV_HEADS + head - HEADS) * DIM
            tl.store(target + half, new_low, mask=inside)
            tl.store(target + DIM // 2 + half, new_high, mask=inside)

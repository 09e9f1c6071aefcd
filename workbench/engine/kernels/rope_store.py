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
    total_heads = num_heads + 2 * num_kv_heads
    heads = min(8, triton.next_power_of_2(total_heads))
    _rope_and_store[(rows, triton.cdiv(total_heads, heads))](
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
        QUERY_HEADS=num_heads,
        KV_HEADS=num_kv_heads,
        DIM=dim,
        HALF=triton.next_power_of_2(dim // 2),
        HEADS=heads,
        NORM=query_norm is not None,
        num_warps=2,
    )


@triton.jit
def _rope_and_store(
    qkv, cos, sin, positions, slots, keys, values, query_norm, key_norm, eps,
    QUERY_HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, HALF: tl.constexpr, HEADS: tl.constexpr,
    NORM: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = (tl.program_id(1) * HEADS + tl.arange(0, HEADS))[:, None]
    half = tl.arange(0, HALF)[None, :]
    is_query = head < QUERY_HEADS
    is_key = (head >= QUERY_HEADS) & (head < QUERY_HEADS + KV_HEADS)
    is_value = (head >= QUERY_HEADS + KV_HEADS) & (head < QUERY_HEADS + 2 * KV_HEADS)
    inside = (half < DIM // 2) & (head < QUERY_HEADS + 2 * KV_HEADS)
    source = qkv + row * (QUERY_HEADS + 2 * KV_HEADS) * DIM + head * DIM + half
    low = tl.load(source, mask=inside, other=0.0)
    high = tl.load(source + DIM // 2, mask=inside, other=0.0)
    slot = tl.load(slots + row).to(tl.int64)
    key_target = keys + (slot * KV_HEADS + head - QUERY_HEADS) * DIM + half
    value_target = values + (slot * KV_HEADS + head - QUERY_HEADS - KV_HEADS) * DIM + half
    kept = values.dtype.element_ty
    tl.store(value_target, low.to(kept), mask=inside & is_value)
    tl.store(value_target + DIM // 2, high.to(kept), mask=inside & is_value)

    x, y = low.to(tl.float32), high.to(tl.float32)
    if NORM:
        scale = tl.rsqrt((tl.sum(x * x, axis=1) + tl.sum(y * y, axis=1)) / DIM + eps)[:, None]
        x, y = (x * scale).to(low.dtype).to(tl.float32), (y * scale).to(low.dtype).to(tl.float32)
        x *= _head_norm(query_norm, key_norm, half, is_query, DIM)
        y *= _head_norm(query_norm, key_norm, half + DIM // 2, is_query, DIM)
        x, y = x.to(low.dtype).to(tl.float32), y.to(low.dtype).to(tl.float32)
    # Both halves of the tables are equal, so the first is enough.
    angle = tl.load(positions + row).to(tl.int64) * DIM + half
    c = tl.load(cos + angle, mask=half < DIM // 2, other=0.0).to(tl.float32)
    s = tl.load(sin + angle, mask=half < DIM // 2, other=0.0).to(tl.float32)
    new_low = (x * c - y * s).to(low.dtype)
    new_high = (y * c + x * s).to(low.dtype)
    tl.store(source, new_low, mask=inside & is_query)
    tl.store(source + DIM // 2, new_high, mask=inside & is_query)
    tl.store(key_target, new_low.to(kept), mask=inside & is_key)
    tl.store(key_target + DIM // 2, new_high.to(kept), mask=inside & is_key)


@triton.jit
def _head_norm(query_norm, key_norm, at, is_query, DIM: tl.constexpr):
    """The weight that a head's element is scaled by: queries and keys have one each."""
    query = tl.load(query_norm + at, mask=at < DIM, other=0.0).to(tl.float32)
    key = tl.load(key_norm + at, mask=at < DIM, other=0.0).to(tl.float32)
    return tl.where(is_query, query, key)

"""What the attention kernels share: tiles of the paged pool, scores, and softmax computed online.

In all of them the query heads that share a KV head are the rows of one matrix product, so every key and value is read
once. Scores and sums are float32 (online softmax: Milakov and Gimelshein 2018).
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["cap", "joined", "load_tile", "online", "scores"]


@triton.jit
def load_tile(
    pool, table, positions, visible, head, KV_HEADS: tl.constexpr, DIM: tl.constexpr, DIM_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, WHOLE: tl.constexpr = False,
):  # fmt: skip
    """Rows [TILE, DIM_PADDED] of keys or values at `positions`, by way of the block table; WHOLE: none is masked."""
    dims = tl.arange(0, DIM_PADDED)
    if WHOLE:
        block = tl.load(table + positions // BLOCK_SIZE).to(tl.int64)
        row = (block * BLOCK_SIZE + positions % BLOCK_SIZE) * KV_HEADS + head
        rows = tl.load(pool + row[:, None] * DIM + dims[None, :])
    else:
        block = tl.load(table + positions // BLOCK_SIZE, mask=visible, other=0).to(tl.int64)
        row = (block * BLOCK_SIZE + positions % BLOCK_SIZE) * KV_HEADS + head
        mask = visible[:, None] & (dims < DIM)[None, :]
        rows = tl.load(pool + row[:, None] * DIM + dims[None, :], mask=mask, other=0.0)
    return rows


@triton.jit
def cap(s, softcap):
    """Scores drawn into -softcap .. softcap: tanh by exp of a negative number, which cannot overflow."""
    t = tl.exp(-2.0 * tl.abs(s / softcap))
    return softcap * (1.0 - t) / (1.0 + t) * tl.where(s < 0, -1.0, 1.0)


@triton.jit
def scores(q, k, allowed, scale, softcap, SOFTCAP: tl.constexpr, ALL: tl.constexpr = False):
    """Scores [queries, keys] of `q` and `k`; -inf where they are not allowed, unless ALL are."""
    s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    if SOFTCAP:
        s = cap(s, softcap)
    if not ALL:
        s = tl.where(allowed, s, float("-inf"))
    return s


@triton.jit
def online(s, v, maximum, weight, total):
    """One tile of online softmax: new row maximum, row weight and weighted sum of values."""
    new_maximum = tl.maximum(maximum, tl.max(s, axis=1))
    # A row that sees nothing yet has maximum -inf; 0 keeps exp() from making NaN of it.
    base = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
    p = tl.exp(s - base[:, None])
    shrink = tl.exp(maximum - base)
    weight = weight * shrink + tl.sum(p, axis=1)
    total = total * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
    return new_maximum, weight, total


@triton.jit
def joined(
    sums, maxima, weights, slot, step, num_parts, mine, ROWS: tl.constexpr, DIM: tl.constexpr, DIM_PADDED: tl.constexpr,
):  # fmt: skip
    """Maximum, weight and weighted sum over all parts of rows. Theirs lie at `slot` [ROWS] for the first part, and
    `step` further for each next one; other multiprocessors wrote them."""
    dims = tl.arange(0, DIM_PADDED)
    inside = mine[:, None] & (dims < DIM)[None, :]
    maximum = tl.full([ROWS], float("-inf"), tl.float32)
    weight = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS, DIM_PADDED], tl.float32)
    for part in range(num_parts):
        at = slot + part * step
        m = tl.load(maxima + at, mask=mine, other=float("-inf"), cache_modifier=".cg")
        w = tl.load(weights + at, mask=mine, other=0.0, cache_modifier=".cg")
        t = tl.load(sums + at[:, None] * DIM + dims[None, :], mask=inside, other=0.0, cache_modifier=".cg")
        new_maximum = tl.maximum(maximum, m)
        base = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
        old, new = tl.exp(maximum - base), tl.exp(m - base)
        weight = weight * old + w * new
        total = total * old[:, None] + t * new[:, None]
        maximum = new_maximum
    return maximum, weight, total

"""4-bit matrix times one vector, unpacked in registers; the 8-bit kinds go through gemv's own kernels.

Four bits become a float without a conversion: set into the mantissa of 1.0 they make 1 + number / 16, whose products
are summed, and what the 1 and the zero point of 8 added is taken off once a word by way of the vector's own sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from workbench.engine.low_bit_weight import GROUP_COLUMNS, LowBitWeight

__all__ = ["Int4Tile", "gemv_gated_int4", "gemv_int4"]

_WORD_COLUMNS = 8


@dataclass(frozen=True)
class Int4Tile:
    """Rows and 32-bit words of the weight that one program reads at a time, and its warps."""

    rows: int
    words: int
    num_warps: int


# The fastest of those timed on an H100 (benchmarks/gpu_tiles.py), at every shape of an 8B model.
_TILE = Int4Tile(4, 512, 4)


def gemv_int4(
    x: torch.Tensor,
    weight: LowBitWeight,
    out: torch.Tensor,
    *,
    bias: torch.Tensor | None,
    norm: torch.Tensor | None,
    eps: float,
    add_to: torch.Tensor | None,
    pdl: bool,
    tile: Int4Tile | None = None,
) -> torch.Tensor:
    """See gemv."""
    tile = tile or _TILE
    num_words = weight.columns // _WORD_COLUMNS
    _gemv_int4[(triton.cdiv(weight.rows, tile.rows),)](
        x,
        weight.data,
        weight.scales,
        out,
        x if bias is None else bias,
        x if norm is None else norm,
        x if add_to is None else add_to,
        eps,
        weight.rows,
        NUM_WORDS=num_words,
        ROWS=tile.rows,
        WORDS=min(tile.words, triton.next_power_of_2(num_words)),
        GROUP=GROUP_COLUMNS,
        BIAS=bias is not None,
        NORM=norm is not None,
        ADD=add_to is not None,
        PDL=pdl,
        num_warps=tile.num_warps,
        **({"launch_pdl": True} if pdl else {}),
    )
    return out


def gemv_gated_int4(
    x: torch.Tensor,
    gate_up: LowBitWeight,
    out: torch.Tensor,
    *,
    norm: torch.Tensor,
    eps: float,
    pdl: bool,
    tile: Int4Tile | None = None,
) -> torch.Tensor:
    """See gemv_gated."""
    tile = tile or _TILE
    num_words = gate_up.columns // _WORD_COLUMNS
    _gemv_gated_int4[(triton.cdiv(gate_up.rows // 2, tile.rows),)](
        x,
        gate_up.data,
        gate_up.scales,
        out,
        norm,
        eps,
        gate_up.rows // 2,
        NUM_WORDS=num_words,
        ROWS=tile.rows,
        WORDS=min(tile.words, triton.next_power_of_2(num_words)),
        GROUP=GROUP_COLUMNS,
        PDL=pdl,
        num_warps=tile.num_warps,
        **({"launch_pdl": True} if pdl else {}),
    )
    return out


@triton.jit
def _words_tile(data, rows, row_inside, start, NUM_WORDS: tl.constexpr, WORDS: tl.constexpr):
    at = start + tl.arange(0, WORDS)
    mask = row_inside[:, None] & (at < NUM_WORDS)[None, :]
    return tl.load(data + rows[:, None] * NUM_WORDS + at[None, :], mask=mask, other=0, eviction_policy="evict_first")


@triton.jit
def _scale_tile(scales, rows, row_inside, start, NUM_WORDS: tl.constexpr, WORDS: tl.constexpr, GROUP: tl.constexpr):
    at = start + tl.arange(0, WORDS)
    mask = row_inside[:, None] & (at < NUM_WORDS)[None, :]
    groups: tl.constexpr = NUM_WORDS * 8 // GROUP
    return tl.load(scales + rows[:, None] * groups + at[None, :] // (GROUP // 8), mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _nibble(words, SHIFT: tl.constexpr):
    """1 + number / 16 of one nibble of every word."""
    if SHIFT < 19:
        bits = (words << (19 - SHIFT)) & 0x00780000
    else:
        bits = (words >> (SHIFT - 19)) & 0x00780000
    return (bits | 0x3F800000).to(tl.float32, bitcast=True)


@triton.jit
def _vector(x, norm, columns, inside, NORM: tl.constexpr):
    """Part of the vector times the norm's weight, and its squares before that."""
    v = tl.load(x + columns, mask=inside, other=0.0).to(tl.float32)
    squares = v * v
    if NORM:
        v *= tl.load(norm + columns, mask=inside, other=0.0).to(tl.float32)
    return v, squares


@triton.jit
def _gemv_int4(
    x, data, scales, out, bias, norm, add_to, eps, num_rows,
    NUM_WORDS: tl.constexpr, ROWS: tl.constexpr, WORDS: tl.constexpr, GROUP: tl.constexpr,
    BIAS: tl.constexpr, NORM: tl.constexpr, ADD: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    row_inside = rows < num_rows
    ahead = _words_tile(data, rows, row_inside, 0, NUM_WORDS, WORDS)
    scale_ahead = _scale_tile(scales, rows, row_inside, 0, NUM_WORDS, WORDS, GROUP)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    total = tl.zeros([ROWS, WORDS], tl.float32)
    squares = tl.zeros([WORDS], tl.float32)
    for start in range(0, NUM_WORDS, WORDS):
        at = start + tl.arange(0, WORDS)
        inside = at < NUM_WORDS
        columns = at // 16 * GROUP + at % 16
        w, scale = ahead, scale_ahead
        ahead = _words_tile(data, rows, row_inside, start + WORDS, NUM_WORDS, WORDS)
        scale_ahead = _scale_tile(scales, rows, row_inside, start + WORDS, NUM_WORDS, WORDS, GROUP)
        products = tl.zeros([ROWS, WORDS], tl.float32)
        sums = tl.zeros([WORDS], tl.float32)
        for k in tl.static_range(8):
            v, square = _vector(x, norm, columns + 16 * k, inside, NORM)
            squares += square
            sums += v
            products += _nibble(w, 4 * k) * v[None, :]
        total += scale * (products * 16.0 - sums[None, :] * 24.0)
    result = tl.sum(total, axis=1)
    if NORM:
        result *= tl.rsqrt(tl.sum(squares, axis=0) / (NUM_WORDS * 8) + eps)
    if BIAS:
        result += tl.load(bias + rows, mask=row_inside, other=0.0).to(tl.float32)
    if ADD:
        result = result.to(out.dtype.element_ty).to(tl.float32)
        result += tl.load(add_to + rows, mask=row_inside, other=0.0).to(tl.float32)
    tl.store(out + rows, result.to(out.dtype.element_ty), mask=row_inside)


@triton.jit
def _gemv_gated_int4(
    x, data, scales, out, norm, eps, num_rows,
    NUM_WORDS: tl.constexpr, ROWS: tl.constexpr, WORDS: tl.constexpr, GROUP: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    row_inside = rows < num_rows
    gate_ahead = _words_tile(data, rows, row_inside, 0, NUM_WORDS, WORDS)
    up_ahead = _words_tile(data, rows + num_rows, row_inside, 0, NUM_WORDS, WORDS)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    gates = tl.zeros([ROWS, WORDS], tl.float32)
    ups = tl.zeros([ROWS, WORDS], tl.float32)
    squares = tl.zeros([WORDS], tl.float32)
    for start in range(0, NUM_WORDS, WORDS):
        at = start + tl.arange(0, WORDS)
        inside = at < NUM_WORDS
        columns = at // 16 * GROUP + at % 16
        g, u = gate_ahead, up_ahead
        gate_ahead = _words_tile(data, rows, row_inside, start + WORDS, NUM_WORDS, WORDS)
        up_ahead = _words_tile(data, rows + num_rows, row_inside, start + WORDS, NUM_WORDS, WORDS)
        gate_products = tl.zeros([ROWS, WORDS], tl.float32)
        up_products = tl.zeros([ROWS, WORDS], tl.float32)
        sums = tl.zeros([WORDS], tl.float32)
        for k in tl.static_range(8):
            v, square = _vector(x, norm, columns + 16 * k, inside, True)
            squares += square
            sums += v
            gate_products += _nibble(g, 4 * k) * v[None, :]
            up_products += _nibble(u, 4 * k) * v[None, :]
        gate_scale = _scale_tile(scales, rows, row_inside, start, NUM_WORDS, WORDS, GROUP)
        up_scale = _scale_tile(scales, rows + num_rows, row_inside, start, NUM_WORDS, WORDS, GROUP)
        gates += gate_scale * (gate_products * 16.0 - sums[None, :] * 24.0)
        ups += up_scale * (up_products * 16.0 - sums[None, :] * 24.0)
    scale = tl.rsqrt(tl.sum(squares, axis=0) / (NUM_WORDS * 8) + eps)
    gate = tl.sum(gates, axis=1) * scale
    up = tl.sum(ups, axis=1) * scale
    tl.store(out + rows, (gate / (1.0 + tl.exp(-gate)) * up).to(out.dtype.element_ty), mask=row_inside)

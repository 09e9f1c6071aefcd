"""Matrix times one vector, at memory speed: what a decode step of a single request mostly is.

The vector's RMS normalisation, the residual addition and the gated activation around it are part of the kernel, so
that a decoder layer is a handful of launches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from workbench.engine.kernels.low_bit_gemv import Int4Tile, gemv_gated_int4, gemv_int4
from workbench.engine.low_bit_weight import LowBitKind, LowBitWeight

__all__ = ["GemvTile", "gemv", "gemv_gated"]


@dataclass(frozen=True)
class GemvTile:
    """Rows and columns of the weight that one program reads at a time, and its warps."""

    rows: int
    columns: int
    num_warps: int
    num_stages: int = 4


def gemv(
    x: torch.Tensor,
    weight: torch.Tensor | LowBitWeight,
    out: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    norm: torch.Tensor | None = None,
    eps: float = 0.0,
    add_to: torch.Tensor | None = None,
    tile: GemvTile | Int4Tile | None = None,
    pdl: bool = False,
) -> torch.Tensor:
    """`out = weight @ x (+ bias)` for `x` [columns], `weight` [rows, columns], `out` [rows].

    With `norm` [columns], x is RMS-normalised first. With `add_to` [rows], the product is added to it (rounded
    before, as two separate operations would) and `out` receives the sum; `out` may be `add_to`. `pdl` (NVIDIA,
    compute capability 9.0 and later) lets this kernel start while the one before it ends.
    """
    if isinstance(weight, LowBitWeight) and weight.kind is LowBitKind.INT4:
        assert tile is None or isinstance(tile, Int4Tile)
        return gemv_int4(x, weight, out, bias=bias, norm=norm, eps=eps, add_to=add_to, pdl=pdl, tile=tile)
    numbers, scales = _parts(weight)
    num_rows, num_columns = numbers.shape
    tile = tile or _plain_tile(num_rows, num_columns, numbers.dtype)
    assert isinstance(tile, GemvTile)
    _gemv[(triton.cdiv(num_rows, tile.rows),)](
        x,
        numbers,
        x if scales is None else scales,
        out,
        x if bias is None else bias,
        x if norm is None else norm,
        x if add_to is None else add_to,
        eps,
        num_rows,
        COLUMNS=num_columns,
        ROWS=tile.rows,
        TILE=tile.columns,
        SCALE=scales is not None,
        BIAS=bias is not None,
        NORM=norm is not None,
        ADD=add_to is not None,
        PDL=pdl,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        **({"launch_pdl": True} if pdl else {}),
    )
    return out


def gemv_gated(
    x: torch.Tensor,
    gate_up: torch.Tensor | LowBitWeight,
    out: torch.Tensor,
    *,
    norm: torch.Tensor,
    eps: float,
    tile: GemvTile | Int4Tile | None = None,
    pdl: bool = False,
) -> torch.Tensor:
    """`out = silu(gate @ h) * (up @ h)` with `h = rms_norm(x) * norm`; `gate_up` [2 * rows, columns], gates first."""
    if isinstance(gate_up, LowBitWeight) and gate_up.kind is LowBitKind.INT4:
        assert tile is None or isinstance(tile, Int4Tile)
        return gemv_gated_int4(x, gate_up, out, norm=norm, eps=eps, pdl=pdl, tile=tile)
    numbers, scales = _parts(gate_up)
    num_rows, num_columns = numbers.shape[0] // 2, numbers.shape[1]
    tile = tile or _gated_tile(num_columns, numbers.dtype)
    assert isinstance(tile, GemvTile)
    _gemv_gated[(triton.cdiv(num_rows, tile.rows),)](
        x,
        numbers,
        x if scales is None else scales,
        out,
        norm,
        eps,
        num_rows,
        COLUMNS=num_columns,
        ROWS=tile.rows,
        TILE=tile.columns,
        SCALE=scales is not None,
        PDL=pdl,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        **({"launch_pdl": True} if pdl else {}),
    )
    return out


def _parts(weight: torch.Tensor | LowBitWeight) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A weight's numbers, and the rows' scales where they have some."""
    return (weight.data, weight.scales) if isinstance(weight, LowBitWeight) else (weight, None)


# The fastest of those timed (benchmarks/gpu_kernels.py on an H200, benchmarks/gpu_tiles.py on an H100): few rows want
# more of them per program.
def _plain_tile(num_rows: int, num_columns: int, dtype: torch.dtype) -> GemvTile:
    widest = triton.next_power_of_2(num_columns)
    if dtype == torch.int8 and (num_rows > 4096 or num_columns > 4096):
        return GemvTile(4, min(1024, widest), 4, num_stages=3)
    if dtype == torch.float8_e4m3fn or num_rows <= 4096:
        return GemvTile(8, min(512, widest), 8, num_stages=3)
    return GemvTile(2, min(2048, widest), 8, num_stages=3)


def _gated_tile(num_columns: int, dtype: torch.dtype) -> GemvTile:
    widest = triton.next_power_of_2(num_columns)
    if dtype == torch.float8_e4m3fn:
        return GemvTile(4, min(512, widest), 4, num_stages=3)
    return GemvTile(2 if dtype == torch.int8 else 1, min(2048, widest), 8, num_stages=3)


@triton.jit
def _weight_tile(base, start, row_inside, COLUMNS: tl.constexpr, TILE: tl.constexpr):
    columns = start + tl.arange(0, TILE)
    mask = row_inside[:, None] & (columns < COLUMNS)[None, :]
    return tl.load(base + columns[None, :], mask=mask, other=0.0, eviction_policy="evict_first")


@triton.jit
def _gemv(
    x, weight, scales, out, bias, norm, add_to, eps, num_rows,
    COLUMNS: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
    SCALE: tl.constexpr, BIAS: tl.constexpr, NORM: tl.constexpr, ADD: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    row_inside = rows < num_rows
    base = weight + rows[:, None] * COLUMNS
    # Weights depend on no other kernel: the first tile is on its way before the vector is waited for.
    ahead = _weight_tile(base, 0, row_inside, COLUMNS, TILE)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    total = tl.zeros([ROWS, TILE], tl.float32)
    squares = tl.zeros([TILE], tl.float32)
    for start in range(0, COLUMNS, TILE):
        columns = start + tl.arange(0, TILE)
        inside = columns < COLUMNS
        w = ahead.to(tl.float32)
        ahead = _weight_tile(base, start + TILE, row_inside, COLUMNS, TILE)
        v = tl.load(x + columns, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            squares += v * v
            v *= tl.load(norm + columns, mask=inside, other=0.0).to(tl.float32)
        total += w * v[None, :]
    result = tl.sum(total, axis=1)
    if SCALE:
        result *= tl.load(scales + rows, mask=row_inside, other=0.0)
    if NORM:
        result *= tl.rsqrt(tl.sum(squares, axis=0) / COLUMNS + eps)
    if BIAS:
        result += tl.load(bias + rows, mask=row_inside, other=0.0).to(tl.float32)
    if ADD:
        result = result.to(out.dtype.element_ty).to(tl.float32)
        result += tl.load(add_to + rows, mask=row_inside, other=0.0).to(tl.float32)
    tl.store(out + rows, result.to(out.dtype.element_ty), mask=row_inside)


@triton.jit
def _gemv_gated(
    x, gate_up, scales, out, norm, eps, num_rows,
    COLUMNS: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, SCALE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    row_inside = rows < num_rows
    gate_base = gate_up + rows[:, None] * COLUMNS
    up_base = gate_up + (rows + num_rows)[:, None] * COLUMNS
    gate_ahead = _weight_tile(gate_base, 0, row_inside, COLUMNS, TILE)
    up_ahead = _weight_tile(up_base, 0, row_inside, COLUMNS, TILE)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    gates = tl.zeros([ROWS, TILE], tl.float32)
    ups = tl.zeros([ROWS, TILE], tl.float32)
    squares = tl.zeros([TILE], tl.float32)
    for start in range(0, COLUMNS, TILE):
        columns = start + tl.arange(0, TILE)
        inside = columns < COLUMNS
        g, u = gate_ahead.to(tl.float32), up_ahead.to(tl.float32)
        gate_ahead = _weight_tile(gate_base, start + TILE, row_inside, COLUMNS, TILE)
        up_ahead = _weight_tile(up_base, start + TILE, row_inside, COLUMNS, TILE)
        v = tl.load(x + columns, mask=inside, other=0.0).to(tl.float32)
        squares += v * v
        v *= tl.load(norm + columns, mask=inside, other=0.0).to(tl.float32)
        gates += g * v[None, :]
        ups += u * v[None, :]
    scale = tl.rsqrt(tl.sum(squares, axis=0) / COLUMNS + eps)
    gate = tl.sum(gates, axis=1) * scale
    up = tl.sum(ups, axis=1) * scale
    if SCALE:
        gate *= tl.load(scales + rows, mask=row_inside, other=0.0)
        up *= tl.load(scales + num_rows + rows, mask=row_inside, other=0.0)
    result = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out + rows, result.to(out.dtype.element_ty), mask=row_inside)

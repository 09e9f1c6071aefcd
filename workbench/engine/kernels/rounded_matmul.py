"""Products of up to a few hundred rounded rows with low-bit weights: 8-bit tensor cores take the weights as they lie in
memory, or 4-bit ones after one operation for four of them.

Narrow products are cut along their columns too, to fill the device; the last part to arrive adds the others in their
order, so that the result does not depend on who came when.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from workbench.engine.kernels.column_parts import num_parts, store_part
from workbench.engine.kernels.low_bit_matmul import LowBitWorkspace
from workbench.engine.kernels.rounding import RoundedRows
from workbench.engine.low_bit_weight import GROUP_COLUMNS, LowBitKind, LowBitWeight

__all__ = ["MAX_ROUNDED_ROWS", "RoundedTile", "nibbles", "rounded_linear"]

# Up to so many rows; beyond, integer weights are unpacked once for a plain product.
MAX_ROUNDED_ROWS = 256
# From so many rows on torch's product of fp8 is the faster one where a weight has many rows.
_LIBRARY_ROWS, _WIDE = 64, 8192
_WANTED_PROGRAMS = 396


@dataclass(frozen=True)
class RoundedTile:
    """Weight rows, input rows and columns that one program reads at a time, its warps, and reads in flight."""

    weight_rows: int
    rows: int
    columns: int
    num_warps: int
    num_stages: int


def rounded_linear(
    x: RoundedRows,
    weight: LowBitWeight,
    bias: torch.Tensor | None,
    workspace: LowBitWorkspace,
    dtype: torch.dtype,
    *,
    pdl: bool = False,
    tile: RoundedTile | None = None,
) -> torch.Tensor:
    """`x @ weight.T (+ bias)` [rows, weight.rows] in `dtype`. Of FP8 any number of rows, else MAX_ROUNDED_ROWS at most.
    `pdl`: see gemv."""
    rows = x.high.shape[0]
    if weight.kind is LowBitKind.FP8 and tile is None and _is_for_library(rows, weight):
        return torch._scaled_mm(
            x.high,
            weight.data.t(),
            scale_a=x.scales[:, None],
            scale_b=weight.scales[None, :],
            bias=bias,
            out_dtype=dtype,
            use_fast_accum=True,
        )
    out = torch.empty(rows, weight.rows, dtype=dtype, device=x.high.device)
    _product(x, weight, out, workspace, tile or _default_tile(weight, rows), pdl)
    return out if bias is None else out.add_(bias)


def _is_for_library(rows: int, weight: LowBitWeight) -> bool:
    return rows > MAX_ROUNDED_ROWS or rows > _LIBRARY_ROWS and (weight.rows > _WIDE or rows > 2 * _LIBRARY_ROWS)


def _product(
    x: RoundedRows, weight: LowBitWeight, out: torch.Tensor, workspace: LowBitWorkspace, tile: RoundedTile, pdl: bool
) -> None:
    num_tiles = triton.cdiv(weight.rows, tile.weight_rows)
    row_tiles = triton.cdiv(out.shape[0], tile.rows)
    step = GROUP_COLUMNS if weight.kind is LowBitKind.INT4 else tile.columns
    parts = num_parts(num_tiles * row_tiles, triton.cdiv(weight.columns, step), _WANTED_PROGRAMS)
    _rounded_product[(num_tiles, row_tiles, parts)](
        weight.data, weight.scales, x.high, x.low, x.scales, out, workspace.sums, workspace.counters,
        out.shape[0], weight.rows,
        COLUMNS=weight.columns, TILE_ROWS=tile.weight_rows, TILE=tile.rows, STEP=step, PARTS=parts,
        KIND=weight.kind.value, GROUP=GROUP_COLUMNS, ASM=_has_asm(out.device), PDL=pdl,
        num_warps=tile.num_warps, num_stages=tile.num_stages, **({"launch_pdl": True} if pdl else {}),
    )  # fmt: skip


def _has_asm(device: torch.device) -> bool:
    """NVIDIA's assembly takes four nibbles at once; elsewhere they go one by one."""
    return device.type == "cuda" and torch.version.hip is None


def _default_tile(weight: LowBitWeight, rows: int) -> RoundedTile:
    """The fastest of those timed on an H200 (benchmarks/gpu_tiles.py)."""
    is_wide = weight.rows > _WIDE
    tile_rows = min(64, max(16, triton.next_power_of_2(rows)))
    if weight.kind is LowBitKind.INT4:
        if rows > 64:
            return RoundedTile(64, 128, 128, 4, 3)
        if rows > 32:
            return RoundedTile(128, 64, 128, 4, 4) if is_wide else RoundedTile(64, 64, 128, 4, 3)
        return RoundedTile(128, tile_rows, 128, 8, 4 if is_wide else 3)
    if rows <= 16:
        return RoundedTile(64, 16, 128 if is_wide else 256, 4, 3)
    if weight.kind is LowBitKind.FP8:
        if rows > 64:
            return RoundedTile(64, 128, 128, 4, 4)
        return RoundedTile(64, tile_rows, 128 if is_wide else 256, 4, 3)
    if is_wide:
        return RoundedTile(128, 128, 128, 8, 4) if rows > 64 else RoundedTile(128, tile_rows, 128, 8, 3)
    return RoundedTile(64, tile_rows, 128, 4, 4 if weight.rows <= 4096 else 3)


@triton.jit
def _rounded_product(
    data, scales, high, low, row_scales, out, sums, counters, num_rows, num_weight_rows,
    COLUMNS: tl.constexpr, TILE_ROWS: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr, PARTS: tl.constexpr,
    KIND: tl.constexpr, GROUP: tl.constexpr, ASM: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    weight_rows = tl.program_id(0) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    rows = tl.program_id(1) * TILE + tl.arange(0, TILE)
    part = tl.program_id(2)
    inside = rows < num_rows
    columns_of_part: tl.constexpr = (COLUMNS + STEP * PARTS - 1) // (STEP * PARTS) * STEP
    first = part * columns_of_part
    last = tl.minimum(first + columns_of_part, COLUMNS)
    # What lies beyond the last row is computed along and not stored.
    known_rows = tl.minimum(weight_rows, num_weight_rows - 1).to(tl.int64)
    x_start = rows[:, None].to(tl.int64) * COLUMNS
    if KIND == "int4":
        total = _int4_sum(
            data, scales, high + x_start, low + x_start, known_rows, inside, first, last,
            COLUMNS, TILE_ROWS, TILE, GROUP, ASM,
        )  # fmt: skip
    else:
        total = _byte_sum(
            data + known_rows[:, None] * COLUMNS, high + x_start, low + x_start, inside, first, last,
            COLUMNS, TILE_ROWS, TILE, STEP, KIND,
        )  # fmt: skip
        total *= tl.load(scales + known_rows)[:, None]
    total *= tl.load(row_scales + rows, mask=inside, other=0.0)[None, :]
    mask = (weight_rows < num_weight_rows)[:, None] & inside[None, :]
    store_part(total, part, out, sums, counters, rows, weight_rows, mask, num_weight_rows, PARTS, TILE_ROWS, TILE)


@triton.jit
def _byte_sum(
    data, high, low, inside, first, last,
    COLUMNS: tl.constexpr, TILE_ROWS: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """Sums [TILE_ROWS, TILE] over columns, without scales."""
    # Only where the last step is not whole, columns are masked.
    EVEN: tl.constexpr = COLUMNS % STEP == 0
    if KIND == "fp8":
        total = tl.zeros([TILE_ROWS, TILE], tl.float32)
        for start in range(first, last, STEP):
            columns = start + tl.arange(0, STEP)
            known = (columns >= 0) if EVEN else (columns < COLUMNS)
            w = tl.load(data + columns[None, :], mask=known[None, :], other=0.0)
            v = tl.load(high + columns[None, :], mask=inside[:, None] & known[None, :], other=0.0)
            total = tl.dot(w, tl.trans(v), total)
    else:
        highs = tl.zeros([TILE_ROWS, TILE], tl.int32)
        lows = tl.zeros([TILE_ROWS, TILE], tl.int32)
        for start in range(first, last, STEP):
            columns = start + tl.arange(0, STEP)
            known = (columns >= 0) if EVEN else (columns < COLUMNS)
            w = tl.load(data + columns[None, :], mask=known[None, :], other=0)
            v = tl.load(high + columns[None, :], mask=inside[:, None] & known[None, :], other=0)
            u = tl.load(low + columns[None, :], mask=inside[:, None] & known[None, :], other=0)
            highs = tl.dot(w, tl.trans(v), highs, out_dtype=tl.int32)
            lows = tl.dot(w, tl.trans(u), lows, out_dtype=tl.int32)
        # In floats: the high part alone may need all 32 bits.
        total = highs.to(tl.float32) * 128.0 + lows.to(tl.float32)
    return total


@triton.jit
def _int4_sum(
    data, scales, high, low, weight_rows, inside, first, last,
    COLUMNS: tl.constexpr, TILE_ROWS: tl.constexpr, TILE: tl.constexpr, GROUP: tl.constexpr, ASM: tl.constexpr,
):  # fmt: skip
    """Sums [TILE_ROWS, TILE] over groups of columns, each with its scale."""
    HALF: tl.constexpr = GROUP // 2
    places = tl.arange(0, HALF)[None, :]
    packed = data.to(tl.pointer_type(tl.int8)) + weight_rows[:, None] * (COLUMNS // 2) + places
    total = tl.zeros([TILE_ROWS, TILE], tl.float32)
    for start in range(first, last, GROUP):
        w = tl.load(packed + start // 2)
        scale = tl.load(scales + weight_rows * (COLUMNS // GROUP) + start // GROUP).to(tl.float32)
        h_even = tl.load(high + start + places, mask=inside[:, None], other=0)
        h_odd = tl.load(high + start + HALF + places, mask=inside[:, None], other=0)
        l_even = tl.load(low + start + places, mask=inside[:, None], other=0)
        l_odd = tl.load(low + start + HALF + places, mask=inside[:, None], other=0)
        even = nibbles(w, False, ASM)
        odd = nibbles(w, True, ASM)
        highs = tl.dot(even, tl.trans(h_even), out_dtype=tl.int32)
        highs = tl.dot(odd, tl.trans(h_odd), highs, out_dtype=tl.int32)
        lows = tl.dot(even, tl.trans(l_even), out_dtype=tl.int32)
        lows = tl.dot(odd, tl.trans(l_odd), lows, out_dtype=tl.int32)
        # 128 columns of 4 times 15 bits fit in 32.
        total += (highs * 128 + lows).to(tl.float32) * scale[:, None]
    return total


@triton.jit
def nibbles(w, ODD: tl.constexpr, ASM: tl.constexpr):
    """The low or the high nibble of every byte, less 8, as int8."""
    if ASM:
        # Four bytes at once: with their highest bits set no subtraction borrows from a neighbour.
        if ODD:
            numbers = tl.inline_asm_elementwise(
                "{ .reg .b32 t; shr.u32 t, $1, 4; and.b32 t, t, 0x0F0F0F0F; or.b32 t, t, 0x80808080;"
                " sub.u32 t, t, 0x08080808; xor.b32 $0, t, 0x80808080; }",
                "=r,r", [w], dtype=tl.int8, is_pure=True, pack=4,
            )  # fmt: skip
        else:
            numbers = tl.inline_asm_elementwise(
                "{ .reg .b32 t; and.b32 t, $1, 0x0F0F0F0F; or.b32 t, t, 0x80808080;"
                " sub.u32 t, t, 0x08080808; xor.b32 $0, t, 0x80808080; }",
                "=r,r", [w], dtype=tl.int8, is_pure=True, pack=4,
            )  # fmt: skip
    else:
        wide = w.to(tl.int32)
        numbers = (((wide >> 4 if ODD else wide) & 15) - 8).to(tl.int8)
    return numbers

"""Products of some rows with low-bit weights on tensor cores: weights are unpacked in registers and read once.

The weights are the first operand, so that what was unpacked goes into the matrix unit from registers. Narrow products
are cut along their columns too, to fill the device; the last part to arrive adds the others in their order, so that
the result does not depend on who came when.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from workbench.engine.kernels.column_parts import num_parts, store_part
from workbench.engine.low_bit_weight import GROUP_COLUMNS, LowBitKind, LowBitWeight

__all__ = ["LowBitWorkspace", "ProductTile", "low_bit_linear"]


@dataclass(frozen=True)
class ProductTile:
    """Weight rows and columns that one program reads at a time, its warps, and steps in flight.

    `by_word` unpacks INT4 nibble by nibble, as eight narrow products; else byte by byte, as two.
    """

    weight_rows: int
    step: int
    num_warps: int
    num_stages: int
    by_word: bool = False


# Up to so many rows weights are unpacked inside the product; beyond, once into memory for a plain product.
_MAX_ROWS = 256
_WANTED_PROGRAMS = 264
_LARGEST_TILE = 128 * _MAX_ROWS


@dataclass(frozen=True)
class LowBitWorkspace:
    """`dense` has room for the largest weight in full precision, `sums` float32 for parts of a product, `counters`
    int32 zeros, one for each tile of weight rows and of input rows."""

    dense: torch.Tensor
    sums: torch.Tensor
    counters: torch.Tensor

    @classmethod
    def allocate(cls, weights: list[LowBitWeight], dtype: torch.dtype) -> LowBitWorkspace:
        """Enough for any of these weights and any number of input rows."""
        device = weights[0].data.device
        elements = max((w.rows * w.columns for w in weights if w.kind is not LowBitKind.FP8), default=0)
        # Only as many tiles are cut into parts as leave some of the wanted programs.
        tiles = _WANTED_PROGRAMS * 2
        return cls(
            torch.empty(elements, dtype=dtype, device=device),
            torch.empty(tiles * _LARGEST_TILE, dtype=torch.float32, device=device),
            torch.zeros(tiles * (_MAX_ROWS // 16), dtype=torch.int32, device=device),
        )


def low_bit_linear(
    x: torch.Tensor,
    weight: LowBitWeight,
    bias: torch.Tensor | None,
    workspace: LowBitWorkspace,
    tile: ProductTile | None = None,
) -> torch.Tensor:
    """`x @ weight.T (+ bias)` for `x` [rows, columns], computed in x's own precision (see rounded_linear)."""
    rows = x.shape[0]
    if rows > _MAX_ROWS:
        return F.linear(x, _unpack(weight, x.dtype, workspace), bias)
    out = x.new_empty(rows, weight.rows)
    _product(x, weight, out, workspace, tile)
    return out if bias is None else out.add_(bias)


def _unpack(weight: LowBitWeight, dtype: torch.dtype, workspace: LowBitWorkspace) -> torch.Tensor:
    if weight.kind is LowBitKind.FP8:
        return weight.dense(dtype)
    dense = workspace.dense[: weight.rows * weight.columns].view(weight.rows, weight.columns)
    block = min(1024, triton.next_power_of_2(weight.columns))
    _unpack_rows[(weight.rows, triton.cdiv(weight.columns, block))](
        weight.data,
        weight.scales,
        dense,
        weight.columns,
        BLOCK=block,
        INT4=weight.kind is LowBitKind.INT4,
        GROUP=GROUP_COLUMNS,
        num_warps=4,
    )
    return dense


def _product(
    x: torch.Tensor, weight: LowBitWeight, out: torch.Tensor, workspace: LowBitWorkspace, tile: ProductTile | None
) -> None:
    rows = x.shape[0]
    width = max(16, min(_MAX_ROWS if x.element_size() == 2 else 32, triton.next_power_of_2(rows)))
    int4 = weight.kind is LowBitKind.INT4
    tile = tile or _default_tile(int4, width)
    step = GROUP_COLUMNS if int4 else tile.step
    num_tiles = triton.cdiv(weight.rows, tile.weight_rows)
    parts = num_parts(num_tiles, triton.cdiv(weight.columns, step), _WANTED_PROGRAMS * 3 // 2)
    _low_bit_product[(num_tiles, triton.cdiv(rows, width), parts)](
        x,
        weight.data,
        weight.scales,
        out,
        workspace.sums,
        workspace.counters,
        rows,
        weight.rows,
        x.stride(0),
        COLUMNS=weight.columns,
        TILE_ROWS=tile.weight_rows,
        TILE=width,
        STEP=step,
        PARTS=parts,
        INT4=int4,
        BY_WORD=tile.by_word,
        GROUP=GROUP_COLUMNS,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )


def _default_tile(int4: bool, width: int) -> ProductTile:
    """The fastest of those timed on an H100 (benchmarks/gpu_tiles.py); `width` is in rows of the input."""
    if int4:
        return ProductTile(128, 128, 4 if width <= 64 else 8, 3, by_word=True)
    if width > 128:
        return ProductTile(128, 64, 8, 3)
    return ProductTile(64, 128, 4, 4 if width == 64 else 3)


@triton.jit
def _low_bit_product(
    x, data, scales, out, sums, counters, num_rows, num_weight_rows, x_stride,
    COLUMNS: tl.constexpr, TILE_ROWS: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr, PARTS: tl.constexpr,
    INT4: tl.constexpr, BY_WORD: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    weight_rows = tl.program_id(0) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    rows = tl.program_id(1) * TILE + tl.arange(0, TILE)
    part = tl.program_id(2)
    weight_inside, inside = weight_rows < num_weight_rows, rows < num_rows
    columns_of_part: tl.constexpr = (COLUMNS + STEP * PARTS - 1) // (STEP * PARTS) * STEP
    first = part * columns_of_part
    last = tl.minimum(first + columns_of_part, COLUMNS)
    total = tl.zeros([TILE_ROWS, TILE], tl.float32)
    wide_rows = weight_rows.to(tl.int64)[:, None]
    for start in range(first, last, STEP):
        if INT4:
            scale = tl.load(
                scales + wide_rows * (COLUMNS // GROUP) + start // GROUP, mask=weight_inside[:, None], other=0.0
            ).to(tl.float32)
            step_x = x + rows[:, None].to(tl.int64) * x_stride + start
            if BY_WORD:
                step = _step_by_word(step_x, data, start, wide_rows, weight_inside, inside, COLUMNS, TILE, TILE_ROWS)
            else:
                step = _step_by_byte(step_x, data, start, wide_rows, weight_inside, inside, COLUMNS, TILE, GROUP)
            total += step * scale
        else:
            columns = start + tl.arange(0, STEP)
            w = tl.load(
                data + wide_rows * COLUMNS + columns[None, :],
                mask=weight_inside[:, None] & (columns < COLUMNS)[None, :],
                other=0.0,
            ).to(x.dtype.element_ty)
            v = tl.load(
                x + rows[:, None].to(tl.int64) * x_stride + columns[None, :],
                mask=inside[:, None] & (columns < COLUMNS)[None, :],
                other=0.0,
            )
            total = tl.dot(w, tl.trans(v), total, input_precision="ieee")
    if not INT4:
        total *= tl.load(scales + weight_rows, mask=weight_inside, other=0.0)[:, None]
    mask = weight_inside[:, None] & inside[None, :]
    store_part(total, part, out, sums, counters, rows, weight_rows, mask, num_weight_rows, PARTS, TILE_ROWS, TILE)


@triton.jit
def _step_by_word(
    x, data, start, weight_rows, weight_inside, inside,
    COLUMNS: tl.constexpr, TILE: tl.constexpr, TILE_ROWS: tl.constexpr,
):  # fmt: skip
    """One group of columns: nibble k of its 16 words are 16 neighbouring columns."""
    places = start // 8 + tl.arange(0, 16)
    w = tl.load(data + weight_rows * (COLUMNS // 8) + places[None, :], mask=weight_inside[:, None], other=0)
    total = tl.zeros([TILE_ROWS, TILE], tl.float32)
    for k in tl.static_range(8):
        v = tl.load(x + 16 * k + tl.arange(0, 16)[None, :], mask=inside[:, None], other=0.0)
        numbers = (((w >> (4 * k)) & 15).to(tl.float32) - 8.0).to(v.dtype)
        total = tl.dot(numbers, tl.trans(v), total, input_precision="ieee")
    return total


@triton.jit
def _step_by_byte(
    x, data, start, weight_rows, weight_inside, inside, COLUMNS: tl.constexpr, TILE: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """One group of columns: bytes [TILE_ROWS, 64] hold columns of even nibbles low and odd nibbles high."""
    places = start // 2 + tl.arange(0, GROUP // 2)
    packed = data.to(tl.pointer_type(tl.uint8))
    w = tl.load(packed + weight_rows * (COLUMNS // 2) + places[None, :], mask=weight_inside[:, None], other=0)
    v = tl.load(x + tl.arange(0, GROUP)[None, :], mask=inside[:, None], other=0.0)
    # Column 32 * byte + 16 * high + word of the group, in the bytes' order: byte of a word fastest.
    ordered = tl.permute(tl.reshape(v, [TILE, 4, 2, 16]), [0, 3, 1, 2])
    even, odd = tl.split(ordered)
    even, odd = tl.reshape(even, [TILE, GROUP // 2]), tl.reshape(odd, [TILE, GROUP // 2])
    low = ((w & 15).to(tl.float32) - 8.0).to(v.dtype)
    high = ((w >> 4).to(tl.float32) - 8.0).to(v.dtype)
    product = tl.dot(low, tl.trans(even), input_precision="ieee")
    return tl.dot(high, tl.trans(odd), product, input_precision="ieee")


@triton.jit
def _unpack_rows(data, scales, out, columns, BLOCK: tl.constexpr, INT4: tl.constexpr, GROUP: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < columns
    if INT4:
        word = at // GROUP * 16 + at % 16
        bits = tl.load(data + row * (columns // 8) + word, mask=inside, other=0)
        number = ((bits >> (at % GROUP // 16 * 4)) & 15).to(tl.float32) - 8.0
        scale = tl.load(scales + row * (columns // GROUP) + at // GROUP, mask=inside, other=0.0).to(tl.float32)
    else:
        number = tl.load(data + row * columns + at, mask=inside, other=0).to(tl.float32)
        scale = tl.load(scales + row)
    tl.store(out + row * columns + at, (number * scale).to(out.dtype.element_ty), mask=inside)

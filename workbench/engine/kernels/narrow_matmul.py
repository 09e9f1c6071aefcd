"""Products of some rows with weights of 16, 8 or 4 bits on NVIDIA GPUs whose copy engine brings tiles of the weights to
shared memory (compute capability 9.0 and later), several of them ahead of the tensor cores.

The weights are the first operand, so that few rows waste little of the matrix unit. Narrow products are cut along their
columns too, to fill the device; the last part to arrive adds the others in their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from workbench.engine.kernels.column_parts import num_parts, store_part
from workbench.engine.kernels.rounded_matmul import nibbles
from workbench.engine.kernels.rounding import RoundedRows
from workbench.engine.low_bit_weight import GROUP_COLUMNS, LowBitKind, LowBitWeight

__all__ = ["NarrowTile", "NarrowWorkspace", "narrow_linear", "narrow_tile"]

_MOST_ROWS = 128
# Parts of a product, all of them together, and tiles of a product that is cut into parts.
_MOST_SUMS = 256 * 64 * _MOST_ROWS
_MOST_TILES = 1024


@dataclass(frozen=True)
class NarrowTile:
    """Weight rows and columns that one program reads at a time, how many programs to cut a product into at most, warps,
    and reads in flight."""

    weight_rows: int
    columns: int
    programs: int
    num_warps: int
    num_stages: int


@dataclass(frozen=True)
class NarrowWorkspace:
    """`sums` float32 for parts of a product, `counters` int32 zeros, one for each tile of weight rows."""

    sums: torch.Tensor
    counters: torch.Tensor

    @classmethod
    def allocate(cls, device: torch.device) -> NarrowWorkspace:
        """Enough for any product."""
        return cls(
            torch.empty(_MOST_SUMS, dtype=torch.float32, device=device),
            torch.zeros(_MOST_TILES, dtype=torch.int32, device=device),
        )


def narrow_tile(weight: torch.Tensor | LowBitWeight, rows: int) -> NarrowTile | None:
    """The tile for `rows` rows; None where other products are as fast (timed on an H200 at the shapes of an 8B
    model)."""
    if not 2 <= rows <= _MOST_ROWS or not _is_aligned(weight):
        return None
    if not isinstance(weight, LowBitWeight):
        return _tile_of_16_bits(weight.shape[0], weight.shape[1], rows)
    if weight.kind is LowBitKind.FP8:
        return _tile_of_fp8(weight.rows, weight.columns, rows)
    if weight.kind is LowBitKind.INT8:
        return _tile_of_int8(weight.rows, weight.columns, rows)
    return _tile_of_int4(weight.rows, rows)


def _tile_of_16_bits(num_weight_rows: int, columns: int, rows: int) -> NarrowTile | None:
    if num_weight_rows > 4096 or rows > 64 or 8 < rows <= 16:
        return None
    if rows <= 8:
        return NarrowTile(64, 256, 128, 4, 3)
    # cuBLASLt is as fast for more rows where there is less to read.
    return NarrowTile(64, 128, 128, 4, 5) if rows <= 32 or columns > 8192 else None


def _tile_of_fp8(num_weight_rows: int, columns: int, rows: int) -> NarrowTile | None:
    if rows <= 16:
        return None
    if num_weight_rows > 8192:
        return NarrowTile(128, 128, 128, 8, 3) if rows <= 64 else None
    if rows > 64:
        return NarrowTile(64, 128, 256 if max(num_weight_rows, columns) > 4096 else 128, 4, 4)
    if num_weight_rows <= 4096:
        return NarrowTile(64, 256, 128, 4, 5)
    return NarrowTile(64, 256, 256, 4, 3) if rows > 32 else None


def _tile_of_int8(num_weight_rows: int, columns: int, rows: int) -> NarrowTile | None:
    if rows <= 8:
        return NarrowTile(64, 256, 128, 4, 5) if num_weight_rows <= 4096 else None
    if rows <= 16 or rows > 32 or max(num_weight_rows, columns) > 8192:
        return None
    return NarrowTile(64, 256, 128, 4, 3) if num_weight_rows <= 4096 else NarrowTile(64, 128, 384, 4, 3)


def _tile_of_int4(num_weight_rows: int, rows: int) -> NarrowTile | None:
    if rows <= 8:
        return NarrowTile(64, GROUP_COLUMNS, 896, 4, 3) if num_weight_rows > 8192 else None
    if rows <= 32 or rows > 64 or num_weight_rows > 8192:
        return None
    return NarrowTile(64, GROUP_COLUMNS, 384, 4, 5 if num_weight_rows <= 4096 else 3)


def _is_aligned(weight: torch.Tensor | LowBitWeight) -> bool:
    """Whether the copy engine can take it: rows of whole 16 bytes."""
    data = weight.data if isinstance(weight, LowBitWeight) else weight
    return data.is_contiguous() and data.shape[1] * data.element_size() % 16 == 0 and data.data_ptr() % 16 == 0


def narrow_linear(
    x: torch.Tensor | RoundedRows,
    weight: torch.Tensor | LowBitWeight,
    dtype: torch.dtype,
    workspace: NarrowWorkspace,
    tile: NarrowTile,
    *,
    pdl: bool = False,
) -> torch.Tensor:
    """`x @ weight.T` [rows, weight rows] in `dtype`, for up to 128 contiguous rows; those of a low-bit weight come
    rounded. `pdl`: see gemv."""
    high, low, row_scales = (x.high, x.low, x.scales) if isinstance(x, RoundedRows) else (x, x, None)
    data, scales = (weight.data, weight.scales) if isinstance(weight, LowBitWeight) else (weight, None)
    kind, box = (weight.kind.value if isinstance(weight, LowBitWeight) else "dense"), tile.columns
    if kind == "int4":
        # Half a group is multiplied at a time: its even columns, then its odd ones.
        data, box = data.view(torch.int8), GROUP_COLUMNS // 2
    (rows, columns), num_weight_rows = high.shape, data.shape[0]
    width = max(16, triton.next_power_of_2(rows))
    num_tiles = triton.cdiv(num_weight_rows, tile.weight_rows)
    parts = num_parts(num_tiles, triton.cdiv(columns, tile.columns), tile.programs)
    out = torch.empty(rows, num_weight_rows, dtype=dtype, device=high.device)
    _narrow_product[(num_tiles, 1, parts)](
        TensorDescriptor.from_tensor(data, [tile.weight_rows, box]),
        TensorDescriptor.from_tensor(high, [width, box]), TensorDescriptor.from_tensor(low, [width, box]),
        data, out if scales is None else scales, out if row_scales is None else row_scales,
        out, workspace.sums, workspace.counters, rows, num_weight_rows,
        COLUMNS=columns, TILE_ROWS=tile.weight_rows, TILE=width, STEP=tile.columns, PARTS=parts, KIND=kind,
        GROUP=GROUP_COLUMNS, ASM=high.device.type == "cuda", PDL=pdl, AHEAD=tile.num_stages,
        num_warps=tile.num_warps, num_stages=tile.num_stages, **({"launch_pdl": True} if pdl else {}),
    )  # fmt: skip
    return out


@triton.jit
def _narrow_product(
    weights, highs, lows, data, scales, row_scales, out, sums, counters, num_rows, num_weight_rows,
    COLUMNS: tl.constexpr, TILE_ROWS: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr, PARTS: tl.constexpr,
    KIND: tl.constexpr, GROUP: tl.constexpr, ASM: tl.constexpr, PDL: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    first_row = tl.program_id(0) * TILE_ROWS
    weight_rows = first_row + tl.arange(0, TILE_ROWS)
    part = tl.program_id(2)
    columns_of_part: tl.constexpr = (COLUMNS + STEP * PARTS - 1) // (STEP * PARTS) * STEP
    first = part * columns_of_part
    last = tl.minimum(first + columns_of_part, COLUMNS)
    # What lies beyond the last row is computed along and not stored.
    known_rows = tl.minimum(weight_rows, num_weight_rows - 1).to(tl.int64)
    if PDL:
        # Weights depend on no other kernel: the first of them are on their way before the rows are waited for.
        BITS: tl.constexpr = 4 if KIND == "int4" else data.dtype.element_ty.primitive_bitwidth
        _ask_ahead(data.to(tl.int64) + known_rows * (COLUMNS * BITS // 8) + first * BITS // 8, STEP * AHEAD * BITS // 8)
        tl.extra.cuda.gdc_wait()
    if KIND == "int8":
        upper = tl.zeros([TILE_ROWS, TILE], tl.int32)
        lower = tl.zeros([TILE_ROWS, TILE], tl.int32)
        for start in range(first, last, STEP):
            w = weights.load([first_row, start])
            upper = tl.dot(w, highs.load([0, start]).T, upper, out_dtype=tl.int32)
            lower = tl.dot(w, lows.load([0, start]).T, lower, out_dtype=tl.int32)
        # In floats: the high part alone may need all 32 bits.
        total = (upper.to(tl.float32) * 128.0 + lower.to(tl.float32)) * tl.load(scales + known_rows)[:, None]
    elif KIND == "int4":
        HALF: tl.constexpr = GROUP // 2
        total = tl.zeros([TILE_ROWS, TILE], tl.float32)
        for start in range(first, last, GROUP):
            w = weights.load([first_row, start // 2])
            scale = tl.load(scales + known_rows * (COLUMNS // GROUP) + start // GROUP).to(tl.float32)
            even = nibbles(w, False, ASM)
            odd = nibbles(w, True, ASM)
            upper = tl.dot(even, highs.load([0, start]).T, out_dtype=tl.int32)
            upper = tl.dot(odd, highs.load([0, start + HALF]).T, upper, out_dtype=tl.int32)
            lower = tl.dot(even, lows.load([0, start]).T, out_dtype=tl.int32)
            lower = tl.dot(odd, lows.load([0, start + HALF]).T, lower, out_dtype=tl.int32)
            # 128 columns of 4 times 15 bits fit in 32.
            total += (upper * 128 + lower).to(tl.float32) * scale[:, None]
    else:
        total = tl.zeros([TILE_ROWS, TILE], tl.float32)
        for start in range(first, last, STEP):
            total = tl.dot(weights.load([first_row, start]), highs.load([0, start]).T, total)
        if KIND == "fp8":
            total *= tl.load(scales + known_rows)[:, None]
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    rows = tl.arange(0, TILE)
    if KIND != "dense":
        total *= tl.load(row_scales + rows, mask=rows < num_rows, other=0.0)[None, :]
    mask = (weight_rows < num_weight_rows)[:, None] & (rows < num_rows)[None, :]
    store_part(total, part, out, sums, counters, rows, weight_rows, mask, num_weight_rows, PARTS, TILE_ROWS, TILE)


@triton.jit
def _ask_ahead(addresses, BYTES: tl.constexpr):
    """So many bytes at each of the addresses, into the L2 cache."""
    tl.inline_asm_elementwise(
        "cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0;",
        "=r,l,r", [addresses, tl.full([], BYTES, tl.int32)], dtype=tl.int32, is_pure=False, pack=1,
    )  # fmt: skip

"""Where torch's packed int4 layouts put each number: learnt from the operators, since it differs by CPU and device."""

from __future__ import annotations

import torch

__all__ = ["BLOCK_ROWS", "nibble_places", "pack_levels", "unpack_levels"]

# The CPU packs rows in blocks whose bytes lie together; every CPU's block divides this many rows.
BLOCK_ROWS = 64
# Tiles of 16 columns that a GPU thread reads at once: as many as the columns allow.
_CUDA_TILES = (8, 4, 2)
_CUDA_TILE_COLUMNS = 16


def pack_levels(levels: torch.Tensor) -> torch.Tensor:
    """uint8 [rows, columns] from 0 to 15 in the layout of the kernel on their device."""
    packed: torch.Tensor
    if not levels.is_cuda:
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels.to(torch.int32), 1)
        return packed
    tiles = next(count for count in _CUDA_TILES if levels.shape[1] % (count * _CUDA_TILE_COLUMNS) == 0)
    packed = torch.ops.aten._convert_weight_to_int4pack((levels[:, ::2] << 4 | levels[:, 1::2]).contiguous(), tiles)
    return packed


def unpack_levels(packed: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """The inverse of `pack_levels`: uint8 [rows, columns]."""
    rows, columns = shape
    if packed.is_cuda or rows % BLOCK_ROWS:
        return _read_by_multiplying(packed, rows, columns)
    places = nibble_places(columns).view(-1).long()
    halves = torch.stack([packed & 15, packed >> 4], dim=-1).view(-1, BLOCK_ROWS * columns)
    return halves.index_select(1, places).view(rows, columns)


def nibble_places(num_columns: int) -> torch.Tensor:
    """int32 [BLOCK_ROWS, num_columns]: the half-byte of a CPU's block, low half first, that holds each number.

    The numbers 0, 1, 2, ... of a block are packed digit by digit in base 16, and read back in storage order.
    """
    numbers = torch.arange(BLOCK_ROWS * num_columns, dtype=torch.int32).view(BLOCK_ROWS, num_columns)
    stored = torch.zeros(numbers.numel(), dtype=torch.int64)
    shift = 0
    while numbers.numel() >> shift:
        digits = ((numbers >> shift) & 15).contiguous()
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(digits, 1).view(-1)
        stored += torch.stack([packed & 15, packed >> 4], dim=1).view(-1).to(torch.int64) << shift
        shift += 4
    places = torch.empty(numbers.numel(), dtype=torch.int32)
    places[stored] = torch.arange(numbers.numel(), dtype=torch.int32)
    return places.view(BLOCK_ROWS, num_columns)


def _read_by_multiplying(packed: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """With a scale of one and a zero point of eight the kernel's products with the unit rows are the levels."""
    group_size = 32
    ones = torch.tensor([1.0, 8.0], dtype=torch.bfloat16, device=packed.device)
    scales_and_zeros = ones.expand(columns // group_size, rows, 2).contiguous()
    unit_rows = torch.eye(columns, dtype=torch.bfloat16, device=packed.device)
    multiply = torch.ops.aten._weight_int4pack_mm if packed.is_cuda else torch.ops.aten._weight_int4pack_mm_for_cpu
    levels: torch.Tensor = multiply(unit_rows, packed, group_size, scales_and_zeros)
    return levels.t().round().to(torch.uint8).contiguous()

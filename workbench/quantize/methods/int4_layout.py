"""Where torch's packed CPU int4 layout puts each number: learnt by packing known numbers, since it differs by CPU."""

from __future__ import annotations

import torch

__all__ = ["BLOCK_ROWS", "nibble_places"]

# Rows are packed in blocks whose bytes lie together; every CPU's block divides this many rows.
BLOCK_ROWS = 64


def nibble_places(num_columns: int) -> torch.Tensor:
    """int32 [BLOCK_ROWS, num_columns]: the half-byte of a block, low half first, that holds each number.

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

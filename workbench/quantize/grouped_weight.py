"""Weights in groups of 32 as .gguf files hold them (Q4_0, Q4_1, Q4_K, Q8_0), and the modules that use them as they are.

The CPU's native decoder reads these tensors without rounding them again. Elsewhere torch's own operators compute with
them, for which 4-bit scales are rounded to bf16.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

__all__ = ["GROUP", "GroupedEmbedding", "GroupedLinear", "GroupedWeight"]

GROUP = 32
_HALF = GROUP // 2
# torch's packed 4-bit kernel reads level q as (q - 8) * scale + zero, and takes rows in sixteens.
_MIDDLE_LEVEL = 8
_ROW_MULTIPLE = 16


@dataclass(frozen=True)
class GroupedWeight:
    """A matrix [rows, columns] whose weights are scale * level + minimum.

    With `minima`: 4 bits, `levels` uint8 [rows, columns / 2]; byte c of a group's 16 holds its columns c (low half) and
    16 + c. Without: `levels` int8 [rows, columns]. `scales` and `minima` [rows, columns / 32], fp16 or fp32.
    """

    levels: torch.Tensor
    scales: torch.Tensor
    minima: torch.Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.scales.shape[0], self.scales.shape[1] * GROUP

    def linear(self, bias: torch.Tensor | None) -> GroupedLinear:
        """See PackedWeight."""
        return GroupedLinear(self, bias)

    def embedding(self, dtype: torch.dtype) -> GroupedEmbedding:
        """See PackedWeight."""
        return GroupedEmbedding(self, dtype)

    def level_bytes(self) -> torch.Tensor:
        """One byte a weight, [rows, columns]: 0..15 as uint8, or -128..127 as int8."""
        return self.levels if self.minima is None else _split_halves(self.levels).flatten(1)

    def rows(self, index: torch.Tensor | slice) -> torch.Tensor:
        """The picked rows as float32 [n, columns], exactly."""
        scales = self.scales[index].float().unsqueeze(-1)
        levels: torch.Tensor
        if self.minima is None:
            levels = self.levels[index].unflatten(1, (-1, GROUP))
            return (levels * scales).flatten(1)
        levels = _split_halves(self.levels[index]).unflatten(1, (-1, GROUP))
        return (levels * scales + self.minima[index].float().unsqueeze(-1)).flatten(1)


def _split_halves(levels: torch.Tensor) -> torch.Tensor:
    pairs = levels.unflatten(1, (-1, _HALF))
    return torch.cat([pairs & 15, pairs >> 4], dim=-1).flatten(1)


class _Grouped(nn.Module):
    """Holds `levels`, `scales`, `minima` of a GroupedWeight."""

    levels: torch.Tensor
    scales: torch.Tensor
    minima: torch.Tensor | None

    def __init__(self, weight: GroupedWeight) -> None:
        super().__init__()
        self.register_buffer("levels", weight.levels)
        self.register_buffer("scales", weight.scales)
        self.register_buffer("minima", weight.minima)

    @property
    def weight_groups(self) -> GroupedWeight:
        """The weight that this module holds."""
        return GroupedWeight(self.levels, self.scales, self.minima)


class GroupedLinear(_Grouped):
    """Multiplies on torch's operators. What they need is made on the first call; `forget` frees it."""

    bias: torch.Tensor | None

    def __init__(self, weight: GroupedWeight, bias: torch.Tensor | None) -> None:
        super().__init__(weight)
        self.out_features, self.in_features = weight.shape
        self.register_buffer("bias", bias)
        self._operands: tuple[torch.Tensor, ...] = ()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, self.in_features)
        if not self._operands:
            self._operands = self._make_operands(x.dtype)
        if len(self._operands) == 1:
            out = functional.linear(rows, self._operands[0])
        else:
            packed, scales_and_zeros = self._operands
            rows = rows.to(torch.bfloat16).contiguous()
            out = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, packed, GROUP, scales_and_zeros).to(x.dtype)
        if self.bias is not None:
            out = out + self.bias
        return out.view(*x.shape[:-1], self.out_features)

    def forget(self) -> None:
        """Free what was made for torch's operators."""
        self._operands = ()

    def _make_operands(self, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        """Packed levels with scales and zeros for 4 bits, else the weight itself in `dtype`."""
        weight = self.weight_groups
        if weight.minima is None or self.out_features % _ROW_MULTIPLE or self.levels.device.type != "cpu":
            return (weight.rows(slice(None)).to(dtype),)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(weight.level_bytes().to(torch.int32), 1)
        scales = weight.scales.float()
        zeros = weight.minima.float() + _MIDDLE_LEVEL * scales
        pairs = torch.stack([scales, zeros], dim=-1).transpose(0, 1)
        return packed, pairs.to(torch.bfloat16).contiguous()

    def extra_repr(self) -> str:
        bits = 8 if self.minima is None else 4
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={bits}"


class GroupedEmbedding(_Grouped):
    """Looks rows up, in `dtype`."""

    def __init__(self, weight: GroupedWeight, dtype: torch.dtype) -> None:
        super().__init__(weight)
        self.num_embeddings, self.embedding_dim = weight.shape
        self.dtype = dtype

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.weight_groups.rows(ids.reshape(-1)).to(self.dtype).view(*ids.shape, self.embedding_dim)

"""int8 weights and int8 activations: each activation row is rounded by its own range at run time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from workbench.quantize.config import QuantizationConfig
from workbench.quantize.methods.base import Method
from workbench.quantize.methods.int8 import Int8Linear, Int8Weight
from workbench.quantize.packed_weight import PackedWeight
from workbench.quantize.weight_use import WeightUse

__all__ = ["DynamicInt8", "DynamicInt8Linear", "DynamicInt8Weight", "multiply_int8"]

# cuBLAS takes integer products of more than 16 rows, and sizes in multiples of 8.
_MIN_CUDA_ROWS = 32
_CUDA_MULTIPLE = 8


def multiply_int8(levels: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """int8 [rows, in] times int8 [out, in] transposed, as exact int32 [rows, out]."""
    num_rows = levels.shape[0]
    if levels.is_cuda and (num_rows < _MIN_CUDA_ROWS or num_rows % _CUDA_MULTIPLE):
        padded_rows = max(_MIN_CUDA_ROWS, -(-num_rows // _CUDA_MULTIPLE) * _CUDA_MULTIPLE)
        padded = levels.new_zeros(padded_rows, levels.shape[1])
        padded[:num_rows] = levels
        return torch._int_mm(padded, values.t())[:num_rows]
    return torch._int_mm(levels, values.t())


class DynamicInt8Linear(Int8Linear):
    """The tensors of Int8Linear; products are integers, added in 32 bits."""

    @property
    def packed_weight(self) -> PackedWeight:
        return DynamicInt8Weight(self.values, self.scales)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, self.in_features).float()
        row_scales = rows.abs().amax(dim=1, keepdim=True).div_(127).clamp_min_(torch.finfo(torch.float32).tiny)
        levels = (rows / row_scales).round_().clamp_(-127, 127).to(torch.int8)
        out = multiply_int8(levels, self.values).float().mul_(row_scales).mul_(self.scales.float())
        if self.bias is not None:
            out += self.bias
        return out.to(x.dtype).view(*x.shape[:-1], self.out_features)


@dataclass(frozen=True)
class DynamicInt8Weight(Int8Weight):
    """Int8Weight for layers that round their activations."""

    kind: ClassVar[str] = "dynamic"

    def linear(self, bias: torch.Tensor | None) -> nn.Module:
        """See PackedWeight."""
        return DynamicInt8Linear(self.values, self.scales, bias)


class DynamicInt8(Method):
    """int8 weights, int8 activations at run time."""

    def unavailable_reason(self, device_type: str) -> str | None:
        return None

    def pack(self, weight: torch.Tensor, config: QuantizationConfig, use: WeightUse) -> PackedWeight | None:
        if weight.is_cuda and (weight.shape[0] % _CUDA_MULTIPLE or weight.shape[1] % _CUDA_MULTIPLE):
            return None
        return DynamicInt8Weight.pack(weight, config)

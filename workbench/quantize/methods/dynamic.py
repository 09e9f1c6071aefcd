"""int8 weights and int8 activations: each activation row is rounded by its own range at run time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from workbench.quantize.config import QuantizationConfig
from workbench.quantize.layers import quantize_layers
from workbench.quantize.methods.base import Method
from workbench.quantize.methods.int8 import Int8Linear, Int8Weight
from workbench.quantize.packed_weight import PackedWeight

__all__ = ["DynamicInt8", "DynamicInt8Linear"]


class DynamicInt8Linear(Int8Linear):
    """The tensors of Int8Linear; products are integers, added in 32 bits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, self.in_features).float()
        row_scales = rows.abs().amax(dim=1, keepdim=True).div_(127).clamp_min_(torch.finfo(torch.float32).tiny)
        levels = (rows / row_scales).round_().clamp_(-127, 127).to(torch.int8)
        sums = torch._int_mm(levels, self.values.t())
        out = sums.float().mul_(row_scales).mul_(self.scales.float())
        if self.bias is not None:
            out += self.bias
        return out.to(x.dtype).view(*x.shape[:-1], self.out_features)


@dataclass(frozen=True)
class _DynamicWeight(Int8Weight):
    def linear(self, bias: torch.Tensor | None) -> nn.Module:
        return DynamicInt8Linear(self.values, self.scales, bias)


class DynamicInt8(Method):
    """int8 weights, int8 activations at run time."""

    def unavailable_reason(self, device_type: str) -> str | None:
        return None if device_type == "cpu" else "its kernel is the CPU's"

    def apply(self, model: nn.Module, config: QuantizationConfig, samples: Sequence[torch.Tensor]) -> tuple[str, ...]:
        return quantize_layers(model, config, _pack, None, samples)


def _pack(weight: torch.Tensor, config: QuantizationConfig, is_table: bool) -> PackedWeight:
    return _DynamicWeight.pack(weight, config)

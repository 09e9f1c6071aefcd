"""int8 weights with one scale a row on torch's packed kernel; activations stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from workbench.quantize.config import QuantizationConfig
from workbench.quantize.methods.base import Method
from workbench.quantize.packed_weight import PackedModule, PackedWeight
from workbench.quantize.weight_use import WeightUse

__all__ = ["Int8", "Int8Embedding", "Int8Linear", "Int8Weight"]

# More rows than this go through a matrix product with the weight widened for the moment: the packed kernel is made
# for few rows and takes about twice as long at 64. The two round differently, so all that an engine computes in one
# pass on a CPU (at most 32 rows, engine/pass_shape.py) goes the same way: else a text would depend on its neighbours.
_MAX_KERNEL_ROWS = 32
_ROWS_AT_ONCE = 8192


class Int8Linear(PackedModule):
    """Holds `values` int8 [out, in] and `scales` [out]; weight = values * scales."""

    values: torch.Tensor
    scales: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, values: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = values.shape
        self.register_buffer("values", values)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", bias)

    @property
    def packed_weight(self) -> PackedWeight:
        return Int8Weight(self.values, self.scales)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, self.in_features)
        if rows.shape[0] > _MAX_KERNEL_ROWS or rows.is_cuda:
            # Scaled before the product: scaling its result would round that a second time in half precision.
            out = functional.linear(rows, self.values.to(x.dtype) * self.scales.to(x.dtype).unsqueeze(1))
        else:
            out = torch.ops.aten._weight_int8pack_mm(rows.contiguous(), self.values, self.scales.to(x.dtype))
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Int8Embedding(PackedModule):
    """Rows of the same two tensors, looked up."""

    values: torch.Tensor
    scales: torch.Tensor

    def __init__(self, values: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = values.shape
        self.dtype = dtype
        self.register_buffer("values", values)
        self.register_buffer("scales", scales)

    @property
    def packed_weight(self) -> PackedWeight:
        return Int8Weight(self.values, self.scales)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return (self.values[ids].to(self.scales.dtype) * self.scales[ids].unsqueeze(-1)).to(self.dtype)


@dataclass(frozen=True)
class Int8Weight:
    """`values` int8 [rows, columns], `scales` [rows] in the model's precision."""

    kind: ClassVar[str] = "int8"

    values: torch.Tensor
    scales: torch.Tensor

    @classmethod
    def pack(cls, weight: torch.Tensor, config: QuantizationConfig) -> Int8Weight:
        """Round `weight` to 8 bits, or 7 with `reduce_range`; by row, or as a whole without `per_channel`."""
        largest_level = 63 if config.reduce_range else 127
        largest = weight.abs().amax(dim=1) if config.per_channel else weight.abs().max().expand(weight.shape[0])
        # Rounded to the precision that the kernel reads before it is used, so that its own rounding costs nothing.
        tiny = torch.finfo(weight.dtype).tiny
        scales = (largest.float() / largest_level).clamp_min(tiny).to(weight.dtype).contiguous()
        values = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        for start in range(0, weight.shape[0], _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            levels = weight[rows].float() / scales[rows].float().unsqueeze(1)
            values[rows] = levels.round_().clamp_(-largest_level, largest_level)
        return cls(values, scales)

    def linear(self, bias: torch.Tensor | None) -> nn.Module:
        """See PackedWeight."""
        return Int8Linear(self.values, self.scales, bias)

    def embedding(self, dtype: torch.dtype) -> nn.Module:
        """See PackedWeight."""
        return Int8Embedding(self.values, self.scales, dtype)

    def tensors(self) -> dict[str, torch.Tensor]:
        """See PackedWeight."""
        return {"values": self.values, "scales": self.scales}

    def facts(self) -> dict[str, int | bool]:
        """See PackedWeight."""
        return {}

    @classmethod
    def from_file(cls, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, int | bool], device: str) -> Int8Weight:
        """See PackedWeight."""
        return cls(tensors["values"].to(device), tensors["scales"].to(device))


class Int8(Method):
    """Weight-only int8."""

    def unavailable_reason(self, device_type: str) -> str | None:
        return None

    def pack(self, weight: torch.Tensor, config: QuantizationConfig, use: WeightUse) -> PackedWeight:
        return Int8Weight.pack(weight, config)

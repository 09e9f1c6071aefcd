"""fp8 (e4m3) weights with one scale a row; `dynamic` rounds activations to fp8 as well, each row by its own range.

On GPUs from compute capability 8.9 products are made in fp8. Elsewhere the same numbers are widened first.
"""

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

__all__ = ["Fp8", "Fp8Embedding", "Fp8Linear", "Fp8Weight"]

_FP8 = torch.float8_e4m3fn
_LARGEST = torch.finfo(_FP8).max
_TINY = torch.finfo(torch.float32).tiny
_KERNEL_MULTIPLE = 16
_MIN_CUDA_CAPABILITY = (8, 9)


class Fp8Linear(PackedModule):
    """Holds `values` fp8 [out, in] and `scales` fp32 [out]; weight = values * scales."""

    values: torch.Tensor
    scales: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: Fp8Weight, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.values.shape
        self.is_dynamic = weight.is_dynamic
        self.register_buffer("values", weight.values)
        self.register_buffer("scales", weight.scales)
        self.register_buffer("bias", bias)

    @property
    def packed_weight(self) -> PackedWeight:
        return Fp8Weight(self.values, self.scales, self.is_dynamic)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, self.in_features)
        if self.is_dynamic:
            largest = rows.abs().amax(dim=1, keepdim=True).float()
            row_scales = (largest / _LARGEST).clamp_min(_TINY)
            rounded = (rows.float() / row_scales).clamp(-_LARGEST, _LARGEST).to(_FP8)
            if self._multiplies_in_fp8:
                out = torch._scaled_mm(
                    rounded, self.values.t(), row_scales, self.scales.unsqueeze(0), out_dtype=torch.bfloat16
                ).to(x.dtype)
            else:
                out = self._widened(rounded.to(x.dtype) * row_scales.to(x.dtype))
        else:
            out = self._widened(rows)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], self.out_features)

    @property
    def _multiplies_in_fp8(self) -> bool:
        if not self.values.is_cuda or self.out_features % _KERNEL_MULTIPLE or self.in_features % _KERNEL_MULTIPLE:
            return False
        return torch.cuda.get_device_capability(self.values.device) >= _MIN_CUDA_CAPABILITY

    def _widened(self, rows: torch.Tensor) -> torch.Tensor:
        return functional.linear(rows, self.values.to(rows.dtype) * self.scales.to(rows.dtype).unsqueeze(1))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, dynamic={self.is_dynamic}"


class Fp8Embedding(PackedModule):
    """Rows of the same two tensors, looked up."""

    values: torch.Tensor
    scales: torch.Tensor

    def __init__(self, weight: Fp8Weight, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.values.shape
        self.is_dynamic = weight.is_dynamic
        self.dtype = dtype
        self.register_buffer("values", weight.values)
        self.register_buffer("scales", weight.scales)

    @property
    def packed_weight(self) -> PackedWeight:
        return Fp8Weight(self.values, self.scales, self.is_dynamic)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        # Read as bytes, since rows of fp8 cannot be picked everywhere.
        rows = self.values.view(torch.uint8)[ids].view(_FP8)
        return (rows.float() * self.scales[ids].unsqueeze(-1)).to(self.dtype)


@dataclass(frozen=True)
class Fp8Weight:
    """`values` fp8 [rows, columns], `scales` fp32 [rows], and whether its layers round activations."""

    kind: ClassVar[str] = "fp8"

    values: torch.Tensor
    scales: torch.Tensor
    is_dynamic: bool

    @classmethod
    def pack(cls, weight: torch.Tensor, config: QuantizationConfig) -> Fp8Weight:
        """Scale each row, or the whole without `per_channel`, to the range of fp8 and round."""
        largest = weight.abs().amax(dim=1) if config.per_channel else weight.abs().max().expand(weight.shape[0])
        scales = (largest.float() / _LARGEST).clamp_min(_TINY).contiguous()
        values = torch.empty(weight.shape, dtype=_FP8, device=weight.device)
        for row, scale, part in zip(values.split(8192), scales.split(8192), weight.split(8192), strict=True):
            row.copy_((part.float() / scale.unsqueeze(1)).clamp_(-_LARGEST, _LARGEST))
        return cls(values, scales, bool(config.dynamic))

    def linear(self, bias: torch.Tensor | None) -> nn.Module:
        """See PackedWeight."""
        return Fp8Linear(self, bias)

    def embedding(self, dtype: torch.dtype) -> nn.Module:
        """See PackedWeight."""
        return Fp8Embedding(self, dtype)

    def tensors(self) -> dict[str, torch.Tensor]:
        """See PackedWeight."""
        return {"values": self.values, "scales": self.scales}

    def facts(self) -> dict[str, int | bool]:
        """See PackedWeight."""
        return {"is_dynamic": self.is_dynamic}

    @classmethod
    def from_file(cls, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, int | bool], device: str) -> Fp8Weight:
        """See PackedWeight."""
        return cls(tensors["values"].to(device), tensors["scales"].to(device), bool(facts["is_dynamic"]))


class Fp8(Method):
    """fp8 weights, and by default fp8 activations."""

    def unavailable_reason(self, device_type: str) -> str | None:
        return None

    def pack(self, weight: torch.Tensor, config: QuantizationConfig, use: WeightUse) -> PackedWeight:
        return Fp8Weight.pack(weight, config)

"""nf4: 4-bit levels spaced as normal numbers are, a scale for each 64, by bitsandbytes' operators."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

import torch
from torch import nn

from workbench.quantize.config import QuantizationConfig
from workbench.quantize.methods.base import Method
from workbench.quantize.methods.int8 import Int8Weight
from workbench.quantize.packed_weight import PackedModule, PackedWeight
from workbench.quantize.quantization_type import QuantizationType
from workbench.quantize.weight_bytes import NF4_BLOCK_SIZE, stored_type
from workbench.quantize.weight_use import WeightUse

__all__ = ["Nf4", "Nf4Linear", "Nf4Weight"]


def _load_operators() -> None:
    """Register bitsandbytes' operators with torch; without its notice that an optional kernel package is missing."""
    if "bitsandbytes" not in sys.modules:
        logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
        import bitsandbytes  # noqa: F401


class Nf4Linear(PackedModule):
    """Holds `packed` uint8 [out, in / 2] and `absmax` fp32 [out, in / 64]."""

    packed: torch.Tensor
    absmax: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: Nf4Weight, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("packed", weight.packed)
        self.register_buffer("absmax", weight.absmax)
        self.register_buffer("bias", bias)

    @property
    def packed_weight(self) -> PackedWeight:
        return Nf4Weight(self.packed, self.absmax)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _load_operators()
        rows = x.reshape(-1, self.in_features)
        out: torch.Tensor = torch.ops.bitsandbytes.gemm_4bit(
            rows, self.packed.view(-1, 1), [self.out_features, self.in_features], self.absmax.view(-1), NF4_BLOCK_SIZE,
            "nf4", self.bias,
        )  # fmt: skip
        return out.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


@dataclass(frozen=True)
class Nf4Weight:
    """A matrix of `shape` (rows, columns), the columns a multiple of 64."""

    kind: ClassVar[str] = "nf4"

    packed: torch.Tensor
    absmax: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.packed.shape[0], self.packed.shape[1] * 2

    @classmethod
    def pack(cls, weight: torch.Tensor) -> Nf4Weight:
        """Round each 64 numbers of a row to 16 levels between minus and plus their largest."""
        _load_operators()
        from bitsandbytes.functional import quantize_4bit

        packed, state = quantize_4bit(weight.contiguous(), blocksize=NF4_BLOCK_SIZE, quant_type="nf4")
        rows, columns = weight.shape
        return cls(packed.view(rows, columns // 2), state.absmax.view(rows, columns // NF4_BLOCK_SIZE))

    def linear(self, bias: torch.Tensor | None) -> nn.Module:
        """See PackedWeight."""
        return Nf4Linear(self, bias)

    def embedding(self, dtype: torch.dtype) -> nn.Module:
        """Tables are int8: see `Nf4.pack`."""
        raise NotImplementedError

    def tensors(self) -> dict[str, torch.Tensor]:
        """See PackedWeight."""
        return {"packed": self.packed, "absmax": self.absmax}

    def facts(self) -> dict[str, int | bool]:
        """See PackedWeight."""
        return {}

    @classmethod
    def from_file(cls, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, int | bool], device: str) -> Nf4Weight:
        """See PackedWeight."""
        return cls(tensors["packed"].to(device), tensors["absmax"].to(device))


class Nf4(Method):
    """nf4 layers; the embedding table, and rows that are no multiple of 64, become int8."""

    def unavailable_reason(self, device_type: str) -> str | None:
        return None if find_spec("bitsandbytes") else "bitsandbytes is not installed"

    def pack(self, weight: torch.Tensor, config: QuantizationConfig, use: WeightUse) -> PackedWeight | None:
        kind = stored_type(config, *weight.shape, is_embedding=use.is_table)
        return Nf4Weight.pack(weight) if kind is QuantizationType.NF4 else None

    def pack_higher(self, weight: torch.Tensor, config: QuantizationConfig, use: WeightUse) -> PackedWeight:
        return Int8Weight.pack(weight, QuantizationConfig("int8", dynamic=False))

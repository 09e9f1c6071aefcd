"""Packs a model's matrices for the GPU's own kernels while they are read, and keeps them so on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from workbench.engine.low_bit_weight import GROUP_COLUMNS, LowBitKind, LowBitWeight
from workbench.quantize.config import QuantizationConfig
from workbench.quantize.methods.base import Method
from workbench.quantize.packed_weight import PackedModule, PackedWeight
from workbench.quantize.weight_use import WeightUse

__all__ = ["LowBitEmbedding", "LowBitLinear", "LowBitMethod", "PackedLowBit"]

_CONFIGS = {
    LowBitKind.INT8: QuantizationConfig("int8", dynamic=False, preserve_accuracy=False),
    LowBitKind.INT4: QuantizationConfig("int4", symmetric=True, preserve_accuracy=False, group_size=GROUP_COLUMNS),
    LowBitKind.FP8: QuantizationConfig("fp8", memory_efficient=False, preserve_accuracy=False),
}
_KINDS = {torch.int8: LowBitKind.INT8, torch.int32: LowBitKind.INT4, torch.float8_e4m3fn: LowBitKind.FP8}
# Numbers widened at a time where torch's operators compute with such weights.
_ELEMENTS_AT_ONCE = 1 << 24


class _LowBitModule(PackedModule):
    """Holds a weight as buffers until the fused decoder takes it."""

    data: torch.Tensor
    scales: torch.Tensor

    def __init__(self, weight: LowBitWeight) -> None:
        super().__init__()
        self.register_buffer("data", weight.data)
        self.register_buffer("scales", weight.scales)
        self._kind, self._columns = weight.kind, weight.columns

    @property
    def low_bit(self) -> LowBitWeight:
        """The weight that this module holds."""
        return LowBitWeight(self._kind, self.data, self.scales, self._columns)

    @property
    def packed_weight(self) -> PackedWeight:
        return PackedLowBit(self.low_bit)

    def leave_empty(self) -> None:
        """Hold nothing: somebody else has it now."""
        self.data, self.scales = self.data.new_empty(0), self.scales.new_empty(0)

    def _parts(self, dtype: torch.dtype) -> list[torch.Tensor]:
        step = max(1, _ELEMENTS_AT_ONCE // self._columns)
        split = zip(self.data.split(step), self.scales.split(step), strict=True)
        return [LowBitWeight(self._kind, data, scales, self._columns).dense(dtype) for data, scales in split]


class LowBitLinear(_LowBitModule):
    """Multiplies on torch's operators, some rows of the weight at a time: slow, and used only to try a model out."""

    bias: torch.Tensor | None

    def __init__(self, weight: LowBitWeight, bias: torch.Tensor | None) -> None:
        super().__init__(weight)
        self.out_features, self.in_features = weight.rows, weight.columns
        self.register_buffer("bias", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.cat([functional.linear(x, part) for part in self._parts(x.dtype)], dim=-1)
        return out if self.bias is None else out + self.bias


class LowBitEmbedding(_LowBitModule):
    """Looks rows up, in `dtype`."""

    def __init__(self, weight: LowBitWeight, dtype: torch.dtype) -> None:
        super().__init__(weight)
        self.num_embeddings, self.embedding_dim, self.dtype = weight.rows, weight.columns, dtype

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        flat = ids.reshape(-1)
        rows = LowBitWeight(self._kind, self.data[flat], self.scales[flat], self._columns).dense(self.dtype)
        return rows.view(*ids.shape, self.embedding_dim)


@dataclass(frozen=True)
class PackedLowBit:
    """A `LowBitWeight` on its way into modules and files."""

    kind: ClassVar[str] = "engine"

    weight: LowBitWeight

    def linear(self, bias: torch.Tensor | None) -> nn.Module:
        """See PackedWeight."""
        return LowBitLinear(self.weight, bias)

    def embedding(self, dtype: torch.dtype) -> nn.Module:
        """See PackedWeight."""
        return LowBitEmbedding(self.weight, dtype)

    def tensors(self) -> dict[str, torch.Tensor]:
        """See PackedWeight."""
        return {"data": self.weight.data, "scales": self.weight.scales}

    def facts(self) -> dict[str, int | bool]:
        """See PackedWeight."""
        return {"columns": self.weight.columns}

    @classmethod
    def from_file(
        cls, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, int | bool], device: str
    ) -> PackedLowBit:
        """See PackedWeight."""
        data = tensors["data"].to(device)
        return cls(LowBitWeight(_KINDS[data.dtype], data, tensors["scales"].to(device), int(facts["columns"])))


class LowBitMethod(Method):
    """Matrices as the fused decoder reads them: embedding and head in 8 bits, and with FP8 as they are."""

    weight_kinds = MappingProxyType({PackedLowBit.kind: PackedLowBit})
    cache_name = "engine"

    def __init__(self, kind: LowBitKind) -> None:
        self._kind = kind

    @property
    def config(self) -> QuantizationConfig:
        """What it does, in the words of a config."""
        return _CONFIGS[self._kind]

    def unavailable_reason(self, device_type: str) -> str | None:
        return None

    def obstacle(self, shell: nn.Module) -> str | None:
        """Why a model whose linears are plain ones cannot be packed so, in words; None if it can."""
        if self._kind is not LowBitKind.INT4:
            return None
        vocabulary = _vocabulary(shell)
        for name, module in shell.named_modules():
            if type(module) is nn.Linear and module not in vocabulary and module.in_features % GROUP_COLUMNS:
                return f"{name} has {module.in_features} columns, which groups of {GROUP_COLUMNS} do not divide"
        return None

    def pack(self, weight: torch.Tensor, config: QuantizationConfig, use: WeightUse) -> PackedWeight | None:
        is_vocabulary = use.is_table or use.is_head
        if is_vocabulary and self._kind is LowBitKind.FP8:
            return None
        return PackedLowBit(LowBitWeight.pack(weight, LowBitKind.INT8 if is_vocabulary else self._kind))


def _vocabulary(shell: Any) -> tuple[nn.Module, ...]:
    found = (shell.get_input_embeddings(), shell.get_output_embeddings())
    return tuple(module for module in found if module is not None)

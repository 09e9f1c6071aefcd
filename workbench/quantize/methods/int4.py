"""int4 weights in groups, each with a scale and a zero point, on torch's packed kernels, which compute in bf16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from workbench.quantize.config import QuantizationConfig
from workbench.quantize.methods.base import Method
from workbench.quantize.methods.int4_layout import BLOCK_ROWS, nibble_places, pack_levels, unpack_levels
from workbench.quantize.methods.int4_rounding import MIDDLE_LEVEL, round_groups
from workbench.quantize.methods.int8 import Int8Weight
from workbench.quantize.packed_weight import PackedModule, PackedWeight
from workbench.quantize.quantization_type import QuantizationType
from workbench.quantize.weight_bytes import stored_type
from workbench.quantize.weight_use import WeightUse

__all__ = ["Int4", "Int4Embedding", "Int4Linear", "Int4Weight", "multiply_int4"]

# The kernel's fast form exists for bf16 only; in fp32 and fp16 torch runs a plain loop, up to 70 times slower.
_KERNEL_DTYPE = torch.bfloat16
# Numbers rounded at a time; the search holds about ten float32 copies of them.
_ELEMENTS_AT_ONCE = 1 << 21
_MIN_CUDA_CAPABILITY = (8, 0)


def multiply_int4(
    rows: torch.Tensor, packed: torch.Tensor, group_size: int, scales_and_zeros: torch.Tensor
) -> torch.Tensor:
    """bf16 [rows, in] times the packed weight transposed, as bf16 [rows, out]."""
    multiply = torch.ops.aten._weight_int4pack_mm if rows.is_cuda else torch.ops.aten._weight_int4pack_mm_for_cpu
    out: torch.Tensor = multiply(rows, packed, group_size, scales_and_zeros)
    return out


class Int4Linear(PackedModule):
    """Holds `packed`, in the device's layout (on the CPU uint8 [out, in / 2]), and `scales_and_zeros` bf16
    [in / group_size, out, 2]."""

    packed: torch.Tensor
    scales_and_zeros: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: Int4Weight, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.group_size = weight.group_size
        self.register_buffer("packed", weight.packed)
        self.register_buffer("scales_and_zeros", weight.scales_and_zeros)
        self.register_buffer("bias", bias)

    @property
    def packed_weight(self) -> PackedWeight:
        return Int4Weight(self.packed, self.scales_and_zeros, self.group_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, self.in_features).to(_KERNEL_DTYPE).contiguous()
        out = multiply_int4(rows, self.packed, self.group_size, self.scales_and_zeros).to(x.dtype)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, group_size={self.group_size}"


class Int4Embedding(PackedModule):
    """Rows of the same two tensors, looked up in the CPU's packed layout."""

    packed: torch.Tensor
    scales_and_zeros: torch.Tensor
    places: torch.Tensor

    def __init__(self, weight: Int4Weight, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.group_size = weight.group_size
        self.dtype = dtype
        self.register_buffer("packed", weight.packed)
        self.register_buffer("scales_and_zeros", weight.scales_and_zeros)
        self.register_buffer("places", nibble_places(self.embedding_dim), persistent=False)

    @property
    def packed_weight(self) -> PackedWeight:
        return Int4Weight(self.packed, self.scales_and_zeros, self.group_size)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        flat = ids.reshape(-1)
        places = self.places[flat % BLOCK_ROWS].long()
        blocks = self.packed.view(-1, BLOCK_ROWS * self.embedding_dim // 2)
        pairs = blocks[(flat // BLOCK_ROWS).unsqueeze(1), places >> 1]
        levels = ((pairs >> ((places & 1) * 4)) & 15).float() - MIDDLE_LEVEL
        # [groups, ids, 2] -> [ids, groups, 1] each
        scales, zeros = self.scales_and_zeros[:, flat].float().transpose(0, 1).split(1, dim=-1)
        rows: torch.Tensor = levels.view(flat.shape[0], -1, self.group_size) * scales + zeros
        return rows.to(self.dtype).view(*ids.shape, self.embedding_dim)


@dataclass(frozen=True)
class Int4Weight:
    """A packed matrix of `shape` (rows, columns). In a file its levels are plain: uint8 [rows, columns / 2], the even
    column in the high half of each byte."""

    kind: ClassVar[str] = "int4"

    packed: torch.Tensor
    scales_and_zeros: torch.Tensor
    group_size: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.scales_and_zeros.shape[1], self.scales_and_zeros.shape[0] * self.group_size

    @classmethod
    def pack(
        cls, weight: torch.Tensor, config: QuantizationConfig, column_weights: torch.Tensor | None = None
    ) -> Int4Weight:
        """Round by groups of `config.group_size`. `preserve_accuracy` searches for the ranges that lose least, where an
        error counts by its column's weight."""
        assert config.group_size is not None  # int4 always has one
        packed, pairs = [], []
        for part in weight.split(_rows_at_once(weight)):
            rounded = round_groups(
                part,
                config.group_size,
                symmetric=bool(config.symmetric),
                search=bool(config.preserve_accuracy),
                column_weights=column_weights,
            )
            packed.append(pack_levels(rounded.levels))
            pairs.append(torch.stack([rounded.scales, rounded.zeros], dim=-1).transpose(0, 1))
        return cls(torch.cat(packed), torch.cat(pairs, dim=1).contiguous(), config.group_size)

    def linear(self, bias: torch.Tensor | None) -> nn.Module:
        """See PackedWeight."""
        return Int4Linear(self, bias)

    def embedding(self, dtype: torch.dtype) -> nn.Module:
        """See PackedWeight. On the CPU only, of a multiple of BLOCK_ROWS rows."""
        return Int4Embedding(self, dtype)

    def tensors(self) -> dict[str, torch.Tensor]:
        """See PackedWeight."""
        levels = unpack_levels(self.packed, self.shape)
        return {"nibbles": levels[:, ::2] << 4 | levels[:, 1::2], "scales_and_zeros": self.scales_and_zeros}

    def facts(self) -> dict[str, int | bool]:
        """See PackedWeight."""
        return {"group_size": self.group_size}

    @classmethod
    def from_file(cls, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, int | bool], device: str) -> Int4Weight:
        """See PackedWeight."""
        nibbles = tensors["nibbles"]
        parts = []
        for part in nibbles.split(_rows_at_once(nibbles)):
            part = part.to(device)
            parts.append(pack_levels(torch.stack([part >> 4, part & 15], dim=-1).flatten(1)))
        return cls(torch.cat(parts), tensors["scales_and_zeros"].to(device), int(facts["group_size"]))


class Int4(Method):
    """Weight-only int4; what its layout cannot hold becomes int8."""

    weighs_columns = True

    def unavailable_reason(self, device_type: str) -> str | None:
        if device_type == "cuda" and torch.cuda.is_available():
            capability = torch.cuda.get_device_capability()
            if torch.version.hip is None and capability < _MIN_CUDA_CAPABILITY:
                return f"its kernel needs compute capability 8.0, and this GPU has {capability[0]}.{capability[1]}"
        return None

    def pack(self, weight: torch.Tensor, config: QuantizationConfig, use: WeightUse) -> PackedWeight | None:
        rows, columns = weight.shape
        kind = stored_type(config, rows, columns, is_embedding=use.is_table, device_type=weight.device.type)
        return Int4Weight.pack(weight, config, use.column_weights) if kind is QuantizationType.INT4 else None

    def pack_higher(self, weight: torch.Tensor, config: QuantizationConfig, use: WeightUse) -> PackedWeight:
        return Int8Weight.pack(weight, QuantizationConfig("int8", dynamic=False))


def _rows_at_once(weight: torch.Tensor) -> int:
    """A multiple of BLOCK_ROWS, so that parts packed one by one lie as the whole would."""
    return max(1, _ELEMENTS_AT_ONCE // weight.shape[1] // BLOCK_ROWS) * BLOCK_ROWS

"""int4 weights in groups, each with a scale and a zero point, on torch's packed CPU kernel, which computes in bf16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from workbench.quantize.config import QuantizationConfig
from workbench.quantize.layers import quantize_layers
from workbench.quantize.methods.base import Method
from workbench.quantize.methods.int4_layout import BLOCK_ROWS, nibble_places
from workbench.quantize.methods.int8 import Int8Weight
from workbench.quantize.packed_weight import PackedWeight

__all__ = ["Int4", "Int4Embedding", "Int4Linear", "Int4Weight"]

# The kernel's fast form exists for bf16 only; in fp32 and fp16 torch runs a plain loop, up to 70 times slower.
_KERNEL_DTYPE = torch.bfloat16
# The kernel reads level q as (q - 8) * scale + zero.
_MIDDLE_LEVEL = 8
_ROW_MULTIPLE = 16
# A multiple of BLOCK_ROWS, so that parts packed one by one lie as the whole would.
_ROWS_AT_ONCE = 8192


class Int4Linear(nn.Module):
    """Holds `packed` uint8 [out, in / 2] and `scales_and_zeros` bf16 [in / group_size, out, 2]."""

    def __init__(self, weight: Int4Weight, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.group_size = weight.group_size
        self.register_buffer("packed", weight.packed)
        self.register_buffer("scales_and_zeros", weight.scales_and_zeros)
        self.register_buffer("bias", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, self.in_features).to(_KERNEL_DTYPE).contiguous()
        out = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, self.group_size, self.scales_and_zeros)
        out = out.to(x.dtype)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, group_size={self.group_size}"


class Int4Embedding(nn.Module):
    """Rows of the same two tensors, looked up in the packed layout."""

    def __init__(self, weight: Int4Weight, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.group_size = weight.group_size
        self.dtype = dtype
        self.register_buffer("packed", weight.packed)
        self.register_buffer("scales_and_zeros", weight.scales_and_zeros)
        self.register_buffer("places", nibble_places(self.embedding_dim), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        flat = ids.reshape(-1)
        places = self.places[flat % BLOCK_ROWS].long()
        blocks = self.packed.view(-1, BLOCK_ROWS * self.embedding_dim // 2)
        pairs = blocks[(flat // BLOCK_ROWS).unsqueeze(1), places >> 1]
        levels = ((pairs >> ((places & 1) * 4)) & 15).float() - _MIDDLE_LEVEL
        # [groups, ids, 2] -> [ids, groups, 1] each
        scales, zeros = self.scales_and_zeros[:, flat].float().transpose(0, 1).split(1, dim=-1)
        rows = levels.view(flat.shape[0], -1, self.group_size) * scales + zeros
        return rows.to(self.dtype).view(*ids.shape, self.embedding_dim)


@dataclass(frozen=True)
class Int4Weight:
    """A packed matrix of `shape` (rows, columns)."""

    packed: torch.Tensor
    scales_and_zeros: torch.Tensor
    group_size: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.packed.shape[0], self.packed.shape[1] * 2

    @classmethod
    def pack(cls, weight: torch.Tensor, config: QuantizationConfig) -> Int4Weight:
        """Round each group of a row to 16 levels between its ends, or to 15 around zero when symmetric."""
        parts = [_pack_rows(part, config) for part in weight.split(_ROWS_AT_ONCE)]
        packed = torch.cat([part.packed for part in parts])
        return cls(packed, torch.cat([part.scales_and_zeros for part in parts], dim=1), config.group_size)

    def linear(self, bias: torch.Tensor | None) -> nn.Module:
        """See PackedWeight."""
        return Int4Linear(self, bias)

    def embedding(self, dtype: torch.dtype) -> nn.Module:
        """See PackedWeight. Needs a multiple of BLOCK_ROWS rows."""
        return Int4Embedding(self, dtype)


class Int4(Method):
    """Weight-only int4; what its layout cannot hold becomes int8."""

    def unavailable_reason(self, device_type: str) -> str | None:
        return None if device_type == "cpu" else "its kernel is the CPU's"

    def apply(self, model: nn.Module, config: QuantizationConfig, samples: Sequence[torch.Tensor]) -> tuple[str, ...]:
        return quantize_layers(model, config, _pack, _pack_higher, samples)


def _pack(weight: torch.Tensor, config: QuantizationConfig, is_table: bool) -> PackedWeight | None:
    rows, columns = weight.shape
    fits = columns % config.group_size == 0 and rows % (BLOCK_ROWS if is_table else _ROW_MULTIPLE) == 0
    return Int4Weight.pack(weight, config) if fits else None


def _pack_higher(weight: torch.Tensor, config: QuantizationConfig, is_table: bool) -> PackedWeight:
    return Int8Weight.pack(weight, QuantizationConfig("int8", dynamic=False))


def _pack_rows(weight: torch.Tensor, config: QuantizationConfig) -> Int4Weight:
    rows, columns = weight.shape
    groups = weight.float().view(rows, columns // config.group_size, config.group_size)
    tiny = torch.finfo(_KERNEL_DTYPE).tiny
    if config.symmetric:
        largest_level = _MIDDLE_LEVEL - 1
        scales = (groups.abs().amax(-1) / largest_level).clamp_min(tiny).to(_KERNEL_DTYPE)
        zeros = torch.zeros_like(scales)
        lowest = 1
    else:
        low, high = groups.amin(-1), groups.amax(-1)
        scales = ((high - low) / 15).clamp_min(tiny).to(_KERNEL_DTYPE)
        zeros = (low + _MIDDLE_LEVEL * scales.float()).to(_KERNEL_DTYPE)
        lowest = 0
    # Levels are chosen for the rounded scales and zeros, the ones that the kernel reads.
    levels = (groups - zeros.float().unsqueeze(-1)) / scales.float().unsqueeze(-1)
    levels = levels.round_().add_(_MIDDLE_LEVEL).clamp_(lowest, 15).to(torch.int32).view(rows, columns)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)
    scales_and_zeros = torch.stack([scales, zeros], dim=-1).transpose(0, 1).contiguous()
    return Int4Weight(packed, scales_and_zeros, config.group_size)

"""Weights of a linear layer in 8 or 4 bits with scales, as the GPU's own kernels read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch

from workbench.errors import ConfigError
from workbench.quantize.quant_type import ENGINE_GROUP_COLUMNS

__all__ = ["GROUP_COLUMNS", "LowBitKind", "LowBitWeight"]

GROUP_COLUMNS = ENGINE_GROUP_COLUMNS
# A group is 16 words of 32 bits: nibble k of word i is column 16 * k + i, so that one nibble of neighbouring words
# meets neighbouring columns.
_WORDS = 16
_NIBBLES = 8
_LARGEST_FP8 = 448.0


class LowBitKind(Enum):
    """INT8: a signed byte and a scale a row. FP8: e4m3 and a scale a row. INT4: 4 bits and a scale a group."""

    INT8 = "int8"
    FP8 = "fp8"
    INT4 = "int4"

    @classmethod
    def parse(cls, name: str) -> LowBitKind:
        """The kind of that name. Raises ConfigError listing them."""
        try:
            return cls(name)
        except ValueError:
            raise ConfigError(f"{name!r}: use one of {', '.join(kind.value for kind in cls)}") from None


@dataclass(frozen=True)
class LowBitWeight:
    """`rows` x `columns` weights.

    `data` is int8 or float8_e4m3fn [rows, columns], or for INT4 int32 words [rows, columns / 8]; `scales` float32
    [rows], or for INT4 float16 [rows, columns / 128]. A weight is its number (for INT4 less 8) times its scale.
    """

    kind: LowBitKind
    data: torch.Tensor
    scales: torch.Tensor
    columns: int

    @property
    def rows(self) -> int:
        return self.data.shape[0]

    @property
    def num_bytes(self) -> int:
        return self.data.nbytes + self.scales.nbytes

    @classmethod
    def pack(cls, weight: torch.Tensor, kind: LowBitKind) -> LowBitWeight:
        """Round `weight` [rows, columns] to the nearest. Raises ConfigError if INT4's groups do not divide it."""
        if kind is LowBitKind.INT4:
            return _pack_int4(weight)
        largest = 127.0 if kind is LowBitKind.INT8 else _LARGEST_FP8
        data = torch.empty(weight.shape, dtype=_DTYPES[kind], device=weight.device)
        scales = torch.empty(weight.shape[0], dtype=torch.float32, device=weight.device)
        # Some rows at a time: their float32 copies are larger than the result.
        for part in _row_parts(weight):
            wide = weight[part].to(torch.float32, copy=True)
            scales[part] = wide.abs().amax(dim=1).clamp_(min=1e-12).div_(largest)
            wide /= scales[part, None]
            data[part] = wide.round_().to(torch.int8) if kind is LowBitKind.INT8 else wide.to(data.dtype)
        return cls(kind, data, scales, weight.shape[1])

    @classmethod
    def joined(cls, weights: Sequence[LowBitWeight]) -> LowBitWeight:
        """One weight with the rows of all, in their order: what packing them together would give."""
        first = weights[0]
        if len(weights) == 1:
            return first
        # As bytes: not every device joins 8-bit floats.
        data = torch.cat([weight.data.view(torch.uint8) for weight in weights]).view(first.data.dtype)
        return cls(first.kind, data, torch.cat([weight.scales for weight in weights]), first.columns)

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """The weights [rows, columns] that the numbers stand for."""
        if self.kind is not LowBitKind.INT4:
            return (self.data.float() * self.scales[:, None]).to(dtype)
        words = self.data.view(self.rows, -1, 1, _WORDS)
        shifts = torch.arange(0, 4 * _NIBBLES, 4, dtype=torch.int32, device=words.device)[:, None]
        numbers = ((words >> shifts) & 15).view(self.rows, -1, GROUP_COLUMNS).float() - 8
        return (numbers * self.scales.float()[..., None]).view(self.rows, self.columns).to(dtype)


_DTYPES = {LowBitKind.INT8: torch.int8, LowBitKind.FP8: torch.float8_e4m3fn}


def _pack_int4(weight: torch.Tensor) -> LowBitWeight:
    rows, columns = weight.shape
    if columns % GROUP_COLUMNS:
        raise ConfigError(f"int4: a layer has {columns} columns, which groups of {GROUP_COLUMNS} do not divide")
    data = torch.empty(rows, columns // _NIBBLES, dtype=torch.int32, device=weight.device)
    scales = torch.empty(rows, columns // GROUP_COLUMNS, dtype=torch.float16, device=weight.device)
    shifts = torch.arange(0, 4 * _NIBBLES, 4, dtype=torch.int64, device=weight.device)[:, None]
    for part in _row_parts(weight):
        groups = weight[part].float().unflatten(1, (-1, GROUP_COLUMNS))
        # The number furthest from zero becomes -8 exactly, so that all 16 numbers are used.
        furthest = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))
        scale = (furthest / -8.0).to(torch.float16)
        scales[part] = scale.squeeze(2)
        inverse = torch.where(scale == 0, 0.0, 1.0 / scale.float())
        numbers = (groups * inverse).round_().clamp_(-8, 7).add_(8).long()
        words = (numbers.unflatten(2, (_NIBBLES, _WORDS)) << shifts).sum(dim=2)
        # Above 2**31 the same 32 bits are a negative number.
        data[part] = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32).flatten(1)
    return LowBitWeight(LowBitKind.INT4, data, scales, columns)


def _row_parts(weight: torch.Tensor, max_elements: int = 2**25) -> list[slice]:
    step = max(1, max_elements // weight.shape[1])
    return [slice(at, at + step) for at in range(0, weight.shape[0], step)]

"""Weights of a transformers model in the native kernels' layout, one after the other in one piece of memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from workbench.engine.native.library import NativeLibrary
from workbench.engine.native.structs import GROUP, MatrixStruct, WeightKind
from workbench.models.bare_decoder import BareEmbedding, BareLinear
from workbench.quantize.grouped_weight import GroupedEmbedding, GroupedLinear
from workbench.quantize.methods.int4 import Int4Embedding, Int4Linear
from workbench.quantize.methods.int4_layout import BLOCK_ROWS, nibble_places
from workbench.quantize.methods.int8 import Int8Embedding, Int8Linear

__all__ = ["Arena", "holder_obstacle"]

_ALIGNMENT = 64
_PLAIN = (torch.nn.Linear, torch.nn.Embedding, BareLinear, BareEmbedding)
_PLAIN_KINDS = {torch.bfloat16: WeightKind.BF16, torch.float32: WeightKind.FLOAT}
_HOLDERS = (*_PLAIN, GroupedLinear, GroupedEmbedding)
_CONVERTED = (Int8Linear, Int8Embedding, Int4Linear, Int4Embedding)


def holder_obstacle(holder: torch.nn.Module) -> str | None:
    """Why the weights of a linear layer or an embedding cannot be packed, in words; None if they can."""
    if type(holder) not in (*_HOLDERS, *_CONVERTED):
        return f"its weights are held by {type(holder).__name__}"
    if type(holder) in _PLAIN and holder.weight.dtype not in _PLAIN_KINDS:
        return f"its weights are {str(holder.weight.dtype).removeprefix('torch.')}, not fp32, bf16 or quantised"
    if isinstance(holder, Int4Linear) and holder.out_features % BLOCK_ROWS:
        return f"a 4-bit weight has {holder.out_features} rows, no multiple of {BLOCK_ROWS}"
    if _shape(holder)[1] % GROUP:
        return f"a weight has {_shape(holder)[1]} columns, no multiple of {GROUP}"
    return None


class Arena:
    """Packs matrices in the order in which a step reads them. What it was given may be freed afterwards."""

    def __init__(self, library: NativeLibrary, holders: list[torch.nn.Module]) -> None:
        self._library = library
        sizes = [library.packed_bytes(_kind(holder), *_shape(holder)) for holder in holders]
        total_bytes = sum(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)
        # Pages are touched as matrices come in, so the peak is one matrix more than the weights.
        self._memory = torch.empty(total_bytes + _ALIGNMENT, dtype=torch.uint8)
        library.advise(self._memory.data_ptr(), self._memory.nbytes)
        self._end = -self._memory.data_ptr() % _ALIGNMENT
        self._biases: list[torch.Tensor] = []

    @property
    def num_bytes(self) -> int:
        """Bytes of all packed weights and biases."""
        return self._memory.nbytes + sum(bias.nbytes for bias in self._biases)

    def pack(self, holder: torch.nn.Module) -> MatrixStruct:
        """The packed weights, and the bias where there is one, of a linear layer or an embedding."""
        kind, (rows, columns) = _kind(holder), _shape(holder)
        data = self._memory.data_ptr() + self._end
        size = self._library.packed_bytes(kind, rows, columns)
        if kind in _PLAIN_KINDS.values():
            plain: Any = holder
            weight = plain.weight.detach().contiguous()
            self._library.pack(kind, weight.data_ptr(), None, None, rows, columns, data)
        else:
            source = _levels(holder)
            minima = None if source.minima is None else source.minima.data_ptr()
            self._library.pack(kind, source.levels.data_ptr(), source.scales.data_ptr(), minima, rows, columns, data)
        self._end += -(-size // _ALIGNMENT) * _ALIGNMENT
        return MatrixStruct(data, self._bias(holder, rows), rows, columns, kind)

    def _bias(self, holder: torch.nn.Module, rows: int) -> int | None:
        bias = getattr(holder, "bias", None)
        if bias is None:
            return None
        padded = torch.zeros(-(-rows // 16) * 16)
        padded[:rows] = bias.detach().float()
        self._biases.append(padded)
        return padded.data_ptr()


def _shape(holder: torch.nn.Module) -> tuple[int, int]:
    if isinstance(holder, torch.nn.Embedding | GroupedEmbedding | Int8Embedding | Int4Embedding):
        return holder.num_embeddings, holder.embedding_dim
    linear: Any = holder
    return linear.out_features, linear.in_features


def _kind(holder: torch.nn.Module) -> WeightKind:
    match holder:
        case GroupedLinear() | GroupedEmbedding():
            is_half, is_int4 = holder.scales.dtype is torch.float16, holder.minima is not None
            if is_int4:
                return WeightKind.INT4_HALF if is_half else WeightKind.INT4_FLOAT
            return WeightKind.INT8_HALF if is_half else WeightKind.INT8_FLOAT
        case Int8Linear() | Int8Embedding():
            return WeightKind.INT8_ROW
        case Int4Linear() | Int4Embedding():
            return WeightKind.INT4_HALF if _fits_halves(holder.scales_and_zeros) else WeightKind.INT4_FLOAT
    plain: Any = holder
    return _PLAIN_KINDS[plain.weight.dtype]


def _fits_halves(scales_and_zeros: torch.Tensor) -> bool:
    """Whether scales are as exact in half precision, and minima small enough for it: they are of all but odd models."""
    scales, zeros = scales_and_zeros.float().unbind(-1)
    minima = zeros - 8 * scales
    return torch.equal(scales.half().float(), scales) and bool(minima.half().isfinite().all())


@dataclass(frozen=True)
class _Levels:
    """One byte a weight [rows, columns]; scales and minima float32 [rows, columns / 32], minima for 4 bits only."""

    levels: torch.Tensor
    scales: torch.Tensor
    minima: torch.Tensor | None


def _levels(holder: torch.nn.Module) -> _Levels:
    match holder:
        case Int8Linear() | Int8Embedding():
            num_groups = holder.values.shape[1] // GROUP
            scales = holder.scales.float().unsqueeze(1).expand(-1, num_groups)
            return _Levels(holder.values.contiguous(), scales.contiguous(), None)
        case Int4Linear() | Int4Embedding():
            return _int4_levels(holder)
    assert isinstance(holder, GroupedLinear | GroupedEmbedding)
    weight = holder.weight_groups
    minima = None if weight.minima is None else weight.minima.float().contiguous()
    return _Levels(weight.level_bytes().contiguous(), weight.scales.float().contiguous(), minima)


def _int4_levels(holder: Int4Linear | Int4Embedding) -> _Levels:
    """Out of torch's packed layout; a group there is one or more of ours."""
    rows, columns = _shape(holder)
    places = nibble_places(columns).long().flatten()
    blocks = holder.packed.view(-1, BLOCK_ROWS * columns // 2)
    levels = (blocks[:, places >> 1] >> ((places & 1) * 4).to(torch.uint8)) & 15
    # [groups, rows, 2] -> two of [rows, groups]
    scales, zeros = (
        holder.scales_and_zeros.float().permute(2, 1, 0).repeat_interleave(holder.group_size // GROUP, dim=2)
    )
    return _Levels(levels.view(rows, columns), scales.contiguous(), (zeros - 8 * scales).contiguous())

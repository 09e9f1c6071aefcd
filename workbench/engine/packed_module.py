"""Lets a transformers model compute with weights that were packed for a GPU's kernels, by torch's own operators.

Slower than those kernels, which it stands in for until they are compiled: weights are unpacked at each use.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from workbench.engine.fused_weights import FusedWeights, Weight
from workbench.engine.low_bit_weight import LowBitWeight

__all__ = ["compute_with"]

# So few are unpacked at a time, for which float32 copies are made.
_MOST_ELEMENTS = 2**24


def compute_with(module: torch.nn.Module, weights: FusedWeights) -> None:
    """Put the weights taken from a module in place of those it was left without."""
    model: Any = module.model
    for layer, fused in zip(model.layers, weights.layers, strict=True):
        attention, mlp = layer.self_attn, layer.mlp
        _replace(attention, ("q_proj", "k_proj", "v_proj"), fused.qkv)
        _replace(attention, ("o_proj",), fused.output)
        _replace(mlp, ("gate_proj", "up_proj"), fused.gate_up)
        _replace(mlp, ("down_proj",), fused.down)
    if isinstance(weights.embedding, LowBitWeight):
        model.embed_tokens = _PackedEmbedding(weights.embedding, weights.layers[0].input_norm.dtype)
    _replace(module, ("lm_head",), weights.head)


def _replace(parent: Any, names: tuple[str, ...], weight: Weight | None) -> None:
    """Linears of the same input by their parts of the rows; those that were not packed stay."""
    if not isinstance(weight, LowBitWeight):
        return
    first = 0
    for name in names:
        linear = getattr(parent, name)
        rows = slice(first, first + linear.out_features)
        setattr(parent, name, _PackedLinear(_part(weight, rows), linear.bias))
        first = rows.stop


def _part(weight: LowBitWeight, rows: slice) -> LowBitWeight:
    return LowBitWeight(weight.kind, weight.data[rows], weight.scales[rows], weight.columns)


class _PackedLinear(torch.nn.Module):
    def __init__(self, weight: LowBitWeight, bias: torch.nn.Parameter | None) -> None:
        super().__init__()
        self._weight = weight
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self._weight.rows
        step = max(1, _MOST_ELEMENTS // self._weight.columns)
        out = x.new_empty(*x.shape[:-1], rows)
        for first in range(0, rows, step):
            part = slice(first, min(first + step, rows))
            bias = None if self.bias is None else self.bias[part]
            out[..., part] = F.linear(x, _part(self._weight, part).dense(x.dtype), bias)
        return out


class _PackedEmbedding(torch.nn.Module):
    def __init__(self, table: LowBitWeight, dtype: torch.dtype) -> None:
        super().__init__()
        self._table = table
        self._dtype = dtype

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        flat = ids.flatten()
        rows = LowBitWeight(self._table.kind, self._table.data[flat], self._table.scales[flat], self._table.columns)
        return rows.dense(self._dtype).view(*ids.shape, -1)

"""Bytes that weights take in memory once loaded and quantised, and bytes that one decode step reads of them."""

from __future__ import annotations

from collections.abc import Iterable

from workbench.backends import dtype_bytes
from workbench.planner.model_shape import ModelShape
from workbench.planner.weight_shape import WeightRole, WeightShape
from workbench.quantize import QuantizationConfig, QuantizationType, QuantType

__all__ = ["bytes_read", "loaded_bytes", "total_bytes"]

_Q = QuantizationType
# Rows that the int4 kernel takes at once; a lookup table needs whole blocks of them.
_INT4_ROWS, _INT4_TABLE_ROWS = 16, 64
# A scale and a zero point in bfloat16 for each group.
_INT4_GROUP_BYTES = 4


def loaded_bytes(weight: WeightShape, quant: QuantType, dtype: str) -> int:
    """Bytes of one such weight; `dtype` is the precision of what is not quantised."""
    plain = weight.num_elements * dtype_bytes(dtype)
    config = quant.config
    if config is None or not _is_quantized(weight, config):
        return plain
    rows, columns = weight.shape[0], weight.num_elements // weight.shape[0]
    as_int8 = weight.num_elements + rows * dtype_bytes(dtype)
    if config.quantization_type in (_Q.INT8, _Q.DYNAMIC):
        return as_int8
    if config.quantization_type is _Q.INT4:
        is_table = weight.role is WeightRole.TABLE
        if is_table and config.preserve_accuracy:
            return as_int8
        if columns % config.group_size or rows % (_INT4_TABLE_ROWS if is_table else _INT4_ROWS):
            return as_int8
        return weight.num_elements // 2 + weight.num_elements // config.group_size * _INT4_GROUP_BYTES
    if config.quantization_type.is_cast:
        return weight.num_elements * dtype_bytes(config.quantization_type.value)
    return plain


def total_bytes(shape: ModelShape, quant: QuantType, dtype: str, weights: Iterable[WeightShape] | None = None) -> int:
    """Bytes of all weights, or of some. Files that are quantised themselves stay as they are."""
    chosen = shape.weights if weights is None else weights
    if shape.packing is not None:
        return sum(weight.count * (weight.stored_bytes or loaded_bytes(weight, quant, dtype)) for weight in chosen)
    return sum(weight.count * loaded_bytes(weight, quant, dtype) for weight in chosen)


def bytes_read(
    shape: ModelShape, quant: QuantType, dtype: str, batch: int, weights: Iterable[WeightShape] | None = None
) -> float:
    """Bytes of weights that a step of `batch` tokens reads: a table of its own is only looked up, and of experts only
    those are read that some token takes."""
    chosen = shape.weights if weights is None else tuple(weights)
    read = 0.0
    for weight in chosen:
        if weight.role is WeightRole.TABLE and shape.has_own_head:
            continue
        share = _expert_share(shape, batch) if weight.role is WeightRole.EXPERT else 1.0
        read += share * total_bytes(shape, quant, dtype, (weight,))
    return read


def _expert_share(shape: ModelShape, batch: int) -> float:
    if not shape.num_experts or not shape.experts_per_token:
        return 1.0
    return 1 - (1 - shape.experts_per_token / shape.num_experts) ** batch


def _is_quantized(weight: WeightShape, config: QuantizationConfig) -> bool:
    if config.quantization_type.is_cast:
        return True
    # Experts are one tensor for all of them, which no method takes; small ones stay as they are.
    if weight.role in (WeightRole.SMALL, WeightRole.EXPERT) or len(weight.shape) != 2:
        return False
    return weight.role is not WeightRole.TABLE or bool(config.memory_efficient)

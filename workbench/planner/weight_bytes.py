"""Bytes that a model's weights take in memory once loaded and quantised, and bytes that one step reads of them."""

from __future__ import annotations

from collections.abc import Iterable

from workbench.backends import dtype_bytes
from workbench.planner.model_shape import ModelShape
from workbench.planner.weight_shape import WeightRole, WeightShape
from workbench.quantize import QuantizationType, QuantType
from workbench.quantize.quant_type import ENGINE_FAMILIES, ENGINE_GROUP_COLUMNS
from workbench.quantize.weight_bytes import weight_bytes

__all__ = ["bytes_read", "loaded_bytes", "total_bytes"]


# What the GPU's own kernels read: a float32 scale a row, or for int4 a half-precision one for each 128 columns.
_ROW_SCALE_BYTES, _GROUP_SCALE_BYTES = 4, 2
_VOCABULARY = (WeightRole.TABLE, WeightRole.HEAD)


def loaded_bytes(
    weight: WeightShape, quant: QuantType, dtype: str, *, on_gpu: bool = False, packed: str | None = None
) -> int:
    """Bytes of one such weight; `dtype` is the precision of what is not quantised, `packed` how a GPU's engine packs
    the model, None where torch's operators run it."""
    element_bytes = dtype_bytes(dtype)
    config = quant.config
    # Experts are one tensor for all of them, which no method takes; vectors stay as they are.
    is_matrix = weight.role not in (WeightRole.SMALL, WeightRole.EXPERT) and len(weight.shape) == 2
    if packed is not None and is_matrix:
        return _engine_packed_bytes(weight, packed, element_bytes)
    if config is None or not (is_matrix or config.quantization_type.is_cast):
        return weight.num_elements * element_bytes
    if config.quantization_type is QuantizationType.GGUF:
        return weight.stored_bytes or weight.num_elements * element_bytes
    rows, columns = weight.shape[0], weight.num_elements // weight.shape[0]
    is_table = weight.role is WeightRole.TABLE
    return weight_bytes(
        config,
        rows,
        columns,
        is_embedding=is_table,
        element_bytes=element_bytes,
        device_type="cuda" if on_gpu else "cpu",
    )


def _engine_packed_bytes(weight: WeightShape, packed: str, element_bytes: int) -> int:
    """As `engine/fused_weights.py` has it: embedding and head in 8 bits, and for fp8 as they were."""
    is_vocabulary = weight.role in _VOCABULARY
    if is_vocabulary and packed == "fp8":
        return weight.num_elements * element_bytes
    if packed == "int4" and not is_vocabulary:
        return weight.num_elements // 2 + weight.num_elements // ENGINE_GROUP_COLUMNS * _GROUP_SCALE_BYTES
    return weight.num_elements + weight.shape[0] * _ROW_SCALE_BYTES


def _engine_packing(shape: ModelShape, quant: QuantType) -> str | None:
    """How a GPU's engine packs the model; None for families that its kernels do not know, and where int4's groups do
    not divide the columns."""
    packed = quant.engine_packed_name("cuda")
    if packed is None or shape.spec.model_type not in ENGINE_FAMILIES:
        return None
    matrices = (one for one in shape.weights if one.role is WeightRole.MATRIX and len(one.shape) == 2)
    if packed == "int4" and any(one.shape[1] % ENGINE_GROUP_COLUMNS for one in matrices):
        return None
    return packed


def total_bytes(
    shape: ModelShape,
    quant: QuantType,
    dtype: str,
    weights: Iterable[WeightShape] | None = None,
    *,
    on_gpu: bool = False,
) -> int:
    """Bytes of all weights, or of some. Files that are quantised themselves stay as they are."""
    chosen = shape.weights if weights is None else weights
    keeps_files = shape.packing is not None
    packed = _engine_packing(shape, quant) if on_gpu else None
    return sum(
        weight.count
        * (
            (weight.stored_bytes if keeps_files else None)
            or loaded_bytes(weight, quant, dtype, on_gpu=on_gpu, packed=packed)
        )
        for weight in chosen
    )


def bytes_read(
    shape: ModelShape,
    quant: QuantType,
    dtype: str,
    batch: int,
    weights: Iterable[WeightShape] | None = None,
    *,
    on_gpu: bool = False,
) -> float:
    """Bytes of weights that a step of `batch` tokens reads: a table of its own is only looked up, and of experts only
    those are read that some token takes."""
    read = 0.0
    for weight in shape.weights if weights is None else weights:
        if weight.role is WeightRole.TABLE and shape.has_own_head:
            continue
        share = _expert_share(shape, batch) if weight.role is WeightRole.EXPERT else 1.0
        read += share * total_bytes(shape, quant, dtype, (weight,), on_gpu=on_gpu)
    return read


def _expert_share(shape: ModelShape, batch: int) -> float:
    if not shape.num_experts or not shape.experts_per_token:
        return 1.0
    return 1 - (1 - shape.experts_per_token / shape.num_experts) ** batch

"""Bytes that a matrix takes in each type, by arithmetic on its shape. What is held in memory is `memory`'s job."""

from __future__ import annotations

from workbench.errors import ConfigError
from workbench.quantize.config import QuantizationConfig
from workbench.quantize.quantization_type import ExtensionType, QuantizationType

__all__ = ["NF4_BLOCK_SIZE", "bytes_per_weight", "stored_type", "weight_bytes"]

_TYPE = QuantizationType

NF4_BLOCK_SIZE = 64
# A bf16 scale and a bf16 zero point for each int4 group.
_INT4_GROUP_BYTES = 4
_FLOAT32_BYTES = 4
# Rows of an int4 layer come in multiples of the kernels' tile; a table's in whole blocks of the packed layout.
_INT4_ROW_MULTIPLE = 16
_INT4_TABLE_ROW_MULTIPLE = 64


def stored_type(
    config: QuantizationConfig, rows: int, columns: int, *, is_embedding: bool = False, device_type: str = "cpu"
) -> QuantizationType | ExtensionType | None:
    """How a matrix of that shape (an `nn.Linear`: out_features, in_features) is kept; None: in the model's precision.

    `is_embedding` says that the input embedding uses it, alone or tied to the output layer; `device_type` is "cpu" or
    "cuda" (ROCm too). What `preserve_accuracy` keeps because of a measured error, at most 5 % of all weights, is known
    only afterwards and not counted here.
    """
    kind = config.quantization_type
    if kind.is_cast:
        return kind
    if kind is _TYPE.GGUF:
        raise ConfigError("gguf: the file's own header says what each tensor takes")
    if is_embedding and not config.memory_efficient:
        return None
    if kind is _TYPE.INT4:
        # Rows can be looked up in the CPU's packed layout only.
        is_lost = is_embedding and device_type != "cpu"
        assert config.group_size is not None  # int4 always has one
        multiple = _INT4_TABLE_ROW_MULTIPLE if is_embedding else _INT4_ROW_MULTIPLE
        return _TYPE.INT8 if is_lost or columns % config.group_size or rows % multiple else kind
    if kind is _TYPE.NF4:
        return _TYPE.INT8 if is_embedding or columns % NF4_BLOCK_SIZE else kind
    return kind


def weight_bytes(
    config: QuantizationConfig,
    rows: int,
    columns: int,
    *,
    is_embedding: bool = False,
    element_bytes: int = 2,
    device_type: str = "cpu",
) -> int:
    """Bytes of the matrix and its scales; `element_bytes` is the size of a number in the model's own precision.

    Biases, norms and other vectors are not quantised. Raises ConfigError for gguf, whose sizes its file states.
    """
    kind = stored_type(config, rows, columns, is_embedding=is_embedding, device_type=device_type)
    num_weights = rows * columns
    if kind is None:
        return num_weights * element_bytes
    if kind.is_cast:
        return num_weights * 2
    if kind is _TYPE.INT4:
        assert config.group_size is not None  # int4 always has one
        return num_weights // 2 + num_weights // config.group_size * _INT4_GROUP_BYTES
    if kind is _TYPE.NF4:
        return num_weights // 2 + num_weights // NF4_BLOCK_SIZE * _FLOAT32_BYTES
    if kind is _TYPE.FP8:
        return num_weights + rows * _FLOAT32_BYTES
    return num_weights + rows * element_bytes


def bytes_per_weight(
    config: QuantizationConfig,
    rows: int,
    columns: int,
    *,
    is_embedding: bool = False,
    element_bytes: int = 2,
    device_type: str = "cpu",
) -> float:
    """`weight_bytes` by weight."""
    num_bytes = weight_bytes(
        config, rows, columns, is_embedding=is_embedding, element_bytes=element_bytes, device_type=device_type
    )
    return num_bytes / (rows * columns)

"""The C interface's structs: twins of those in packed_matrix.h and decoder.h."""

from __future__ import annotations

from ctypes import Structure, c_float, c_int32, c_void_p
from enum import IntEnum

__all__ = ["GROUP", "LayerStruct", "MatrixStruct", "ShapeStruct", "StepStruct", "WeightKind"]

# Columns that share a scale.
GROUP = 32


class WeightKind(IntEnum):
    """How a packed matrix keeps its numbers: bits, and the type of scales and minima; INT8_ROW has a float a row."""

    INT4_HALF = 0
    INT4_FLOAT = 1
    INT8_HALF = 2
    INT8_FLOAT = 3
    BF16 = 4
    FLOAT = 5
    INT8_ROW = 6


class MatrixStruct(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("bias", c_void_p),
        ("rows", c_int32),
        ("columns", c_int32),
        ("kind", c_int32),
        ("unused", c_int32),
    ]


class LayerStruct(Structure):
    _fields_ = [
        *((name, MatrixStruct) for name in ("query", "key", "value", "output", "gate", "up", "down")),
        *((name, c_void_p) for name in ("input_norm", "output_norm", "query_norm", "key_norm", "keys", "values")),
        ("window", c_int32),
        ("unused", c_int32),
    ]


class ShapeStruct(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("hidden", "inter", "num_heads", "num_kv_heads", "dim", "vocab", "num_layers")),
        *((name, c_int32) for name in ("block_size", "kv_is_bf16", "max_rows", "max_context", "num_threads")),
        ("eps", c_float),
        ("attention_scale", c_float),
        ("layers", c_void_p),
        ("head", MatrixStruct),
        ("embedding", MatrixStruct),
        ("norm", c_void_p),
        ("cosines", c_void_p),
        ("sines", c_void_p),
    ]


class StepStruct(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("num_rows", "num_kept", "each_its_own_sequence", "unused")),
        *((name, c_void_p) for name in ("ids", "positions", "table_starts", "tables", "kept", "logits", "likeliest")),
    ]

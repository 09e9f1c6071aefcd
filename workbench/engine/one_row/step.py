"""A decode step of one row as a single kernel: the shapes it takes, and what it is given. The kernel is step.cu."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import torch

from workbench.engine.device_step import DeviceStep
from workbench.engine.fused_weights import FusedWeights, Weight
from workbench.engine.low_bit_weight import LowBitKind, LowBitWeight
from workbench.engine.paged_step import KVPool

__all__ = ["OneRowShape", "OneRowStep", "StepArguments"]

_KINDS = {None: 0, LowBitKind.INT8: 1, LowBitKind.FP8: 2, LowBitKind.INT4: 3}
_LAYER_FIELDS = 16
# Of the layers' pointers in shared memory, beside the ring.
_MOST_LAYERS = 160
# The vector's part in a thread's registers, in passes of 16 bytes.
_MOST_PASSES = 8
# Query heads of one KV head that one block attends for.
_BUNCH = 4


class StepArguments(ctypes.Structure):
    """`Step` of step.cu."""

    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in (
                "layers", "head", "head_scales", "norm", "embedding", "ids", "slots", "lengths", "table",
                "table_starts", "cos", "sin", "x", "qkv", "attended", "gated", "logits", "sums", "weights", "counters",
            )
        ),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),
    ]  # fmt: skip


@dataclass(frozen=True)
class OneRowShape:
    """What a kernel is compiled for."""

    hidden: int
    heads: int
    kv_heads: int
    dim: int
    inner: int
    vocab: int
    layers: int
    kind: LowBitKind | None
    head_kind: LowBitKind | None
    dtype: torch.dtype
    has_bias: bool
    has_head_norms: bool
    block_size: int

    @classmethod
    def of(cls, weights: FusedWeights, pool: KVPool) -> OneRowShape:
        layer = weights.layers[0]
        kv_heads, dim = pool.keys[weights.first_layer].shape[2:]
        assert weights.head is not None  # else the kernel is not asked for
        return cls(
            hidden=layer.input_norm.shape[0],
            heads=_rows(layer.qkv) // dim - 2 * kv_heads,
            kv_heads=kv_heads,
            dim=dim,
            inner=_rows(layer.gate_up) // 2,
            vocab=_rows(weights.head),
            layers=len(weights.layers),
            kind=_kind(layer.qkv),
            head_kind=_kind(weights.head),
            dtype=layer.input_norm.dtype,
            has_bias=layer.qkv_bias is not None,
            has_head_norms=layer.query_norm is not None,
            block_size=pool.block_size,
        )

    def obstacle(self, weights: FusedWeights, pool: KVPool) -> str | None:
        """What the kernel cannot take of a model, in words; None if it can."""
        first = weights.layers[0]
        if self.dtype not in (torch.bfloat16, torch.float16):
            return f"the model computes in {_name(self.dtype)}"
        kv_dtype = pool.keys[weights.first_layer].dtype
        if kv_dtype != self.dtype:
            return f"keys and values are kept in {_name(kv_dtype)}"
        if self.dim not in (64, 128, 256):
            return f"heads have {self.dim} dims, not 64, 128 or 256"
        if self.layers > _MOST_LAYERS:
            return f"{self.layers} layers are more than {_MOST_LAYERS}"
        if any(layer.eps != weights.eps or layer.attention.scale != first.attention.scale for layer in weights.layers):
            return "layers differ in their constants"
        for columns, kind in (
            (self.hidden, self.kind), (self.heads * self.dim, self.kind), (self.inner, self.kind),
            (self.hidden, self.head_kind),
        ):  # fmt: skip
            row_bytes = columns * 2 if kind is None else columns // 2 if kind is LowBitKind.INT4 else columns
            if row_bytes % 16:
                return f"rows of {columns} columns are no multiple of 16 bytes"
            if row_bytes > _MOST_PASSES * self.num_warps * 512:
                return f"rows of {columns} columns are too long"
        return None

    @property
    def num_warps(self) -> int:
        """Warps that multiply; one more streams."""
        return 8

    @property
    def num_threads(self) -> int:
        """One warp more streams."""
        return 32 * (self.num_warps + 1)

    def defines(self) -> dict[str, int]:
        """The kernel's constants, without the device's."""
        return {
            "WARPS": self.num_warps,
            "HIDDEN": self.hidden,
            "HEADS": self.heads,
            "KV_HEADS": self.kv_heads,
            "DIM": self.dim,
            "INNER": self.inner,
            "VOCAB": self.vocab,
            "LAYERS": self.layers,
            "KIND": _KINDS[self.kind],
            "HEAD_KIND": _KINDS[self.head_kind],
            "BF16": int(self.dtype == torch.bfloat16),
            "QKV_BIAS": int(self.has_bias),
            "HEAD_NORMS": int(self.has_head_norms),
            "KV_BLOCK": self.block_size,
        }


class OneRowStep:
    """Runs steps of one row. `launch` puts the kernel of `shape` with its arguments on the device's queue, with
    `num_blocks` blocks. `cos`, `sin` are tables [positions, dim].
    """

    def __init__(
        self,
        weights: FusedWeights,
        pool: KVPool,
        shape: OneRowShape,
        cos: torch.Tensor,
        sin: torch.Tensor,
        num_blocks: int,
        launch: Callable[[StepArguments], None],
    ) -> None:
        self._launch = launch
        assert weights.norm is not None and weights.head is not None  # else the kernel is not asked for
        like = weights.norm
        bunches = -(-shape.heads // shape.kv_heads // _BUNCH) * shape.kv_heads
        bunch = min(_BUNCH, shape.heads // shape.kv_heads)
        parts = bunches * max(1, num_blocks // bunches) * bunch
        self._logits = like.new_empty(1, shape.vocab)

        def told(count: int) -> torch.Tensor:
            # No step's tag is 0.
            return torch.zeros(count, dtype=torch.int32, device=like.device)

        # What the arguments point to.
        self._held = {
            "layers": _layer_table(weights, pool),
            "head": _data(weights.head),
            "head_scales": _scales(weights.head),
            "norm": weights.norm,
            # The step's row comes embedded: it is row 0 of a table.
            "ids": told(1),
            "cos": cos,
            "sin": sin,
            "x": told(shape.hidden),
            "qkv": told((shape.heads + 2 * shape.kv_heads) * shape.dim),
            "attended": told(shape.heads * shape.dim),
            "gated": told(shape.inner),
            "logits": self._logits,
            "sums": told(parts * shape.dim * 2),
            "weights": told(parts * 2),
            "counters": told(2),
        }
        self._constants = {"eps": weights.eps, "scale": weights.layers[0].attention.scale}

    def run(self, step: DeviceStep, embedded: torch.Tensor) -> torch.Tensor:
        """Logits [1, vocab] of a step of one decode whose token is `embedded` [hidden]; the same tensor each time."""
        inputs = {
            "embedding": embedded,
            "slots": step.slots,
            "lengths": step.lengths,
            "table": step.table,
            "table_starts": step.table_starts,
        }
        pointers = {
            name: None if tensor is None else tensor.data_ptr() for name, tensor in (self._held | inputs).items()
        }
        self._launch(StepArguments(**pointers, **self._constants))
        return self._logits


def _layer_table(weights: FusedWeights, pool: KVPool) -> torch.Tensor:
    """`Layer` of step.cu for each layer, as int64 [layers, 16]."""
    rows = []
    for index, layer in enumerate(weights.layers, weights.first_layer):
        linears = (layer.qkv, layer.output, layer.gate_up, layer.down)
        tensors = [
            *map(_data, linears), *map(_scales, linears), layer.input_norm, layer.output_norm, layer.query_norm,
            layer.key_norm, layer.qkv_bias, pool.keys[index], pool.values[index],
        ]  # fmt: skip
        pointers = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        rows.append([*pointers, layer.attention.sliding_window or 0])
    assert all(len(row) == _LAYER_FIELDS for row in rows)
    return torch.tensor(rows, dtype=torch.int64, device=weights.layers[0].input_norm.device)


def _kind(weight: Weight) -> LowBitKind | None:
    return weight.kind if isinstance(weight, LowBitWeight) else None


def _rows(weight: Weight) -> int:
    return weight.rows if isinstance(weight, LowBitWeight) else weight.shape[0]


def _data(weight: Weight) -> torch.Tensor:
    return weight.data if isinstance(weight, LowBitWeight) else weight


def _scales(weight: Weight) -> torch.Tensor | None:
    return weight.scales if isinstance(weight, LowBitWeight) else None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

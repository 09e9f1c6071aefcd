"""Products of 2 to 16 rows at the speed of reading the weights, on Hopper GPUs; the kernel is few_rows.cu.

It starts before the kernel whose rows it multiplies has ended, and has tens of kilobytes of weights on each
multiprocessor by then: the memory is never idle between two products.
"""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import dataclass
from pathlib import Path

import torch

from workbench.engine.kernels.cuda_function import CudaFunction, cuda_obstacle
from workbench.engine.kernels.rounding import RoundedRows
from workbench.engine.low_bit_weight import LowBitKind, LowBitWeight
from workbench.errors import BackendUnavailableError

__all__ = ["FewRowsProducts", "FewRowsTile"]

_KINDS = {None: 0, LowBitKind.FP8: 1, LowBitKind.INT8: 2, LowBitKind.INT4: 3}
_ROWS_OF_TILE = 8
# With weights of so few bits the rows themselves take the time beyond a tile of them.
_MOST_TILES = {None: 2, LowBitKind.FP8: 1, LowBitKind.INT8: 1, LowBitKind.INT4: 1}
# A head's rows are so many that libraries read them as fast.
_MOST_WEIGHT_ROWS = 65536
_CHUNK_BYTES = 1024
_NUM_THREADS = 9 * 32


@dataclass(frozen=True)
class FewRowsTile:
    """Chunks of 16 weight rows that a block has in flight, chunks that rows are asked for ahead, and blocks on a
    multiprocessor."""

    stages: int
    ahead: int
    blocks: int

    @property
    def shared_bytes(self) -> int:
        """Of shared memory, a block's: rows lie a little apart."""
        return self.stages * 16 * (_CHUNK_BYTES + 64)


# The fastest of those timed on an H200.
_TILES = {
    None: FewRowsTile(5, 2, 2),
    LowBitKind.FP8: FewRowsTile(3, 2, 2),
    LowBitKind.INT8: FewRowsTile(5, 2, 2),
    LowBitKind.INT4: FewRowsTile(5, 2, 1),
}


class FewRowsProducts:
    """The products of one kind of weights on a device; results have `dtype`, of 16 bits."""

    def __init__(
        self, kind: LowBitKind | None, dtype: torch.dtype, device: torch.device, tile: FewRowsTile | None = None
    ) -> None:
        """Raises BackendUnavailableError with the reason where there are none."""
        obstacle = cuda_obstacle(device)
        if obstacle is not None:
            raise BackendUnavailableError(obstacle)
        self._kind, self._dtype = kind, dtype
        self._tile = tile or _TILES[kind]
        multiprocessors: int = torch.cuda.get_device_properties(device).multi_processor_count
        self._most_blocks = multiprocessors * self._tile.blocks
        self._functions = {
            (tiles, gated): self._build(tiles, gated, device)
            for tiles, gated in itertools.product(range(1, _MOST_TILES[kind] + 1), (False, True))
        }

    @classmethod
    def where_possible(
        cls, weight: torch.Tensor | LowBitWeight, dtype: torch.dtype, device: torch.device
    ) -> FewRowsProducts | None:
        """Those for weights like this one; None where there are none."""
        try:
            return cls(weight.kind if isinstance(weight, LowBitWeight) else None, dtype, device)
        except BackendUnavailableError:
            return None

    def _build(self, tiles: int, gated: bool, device: torch.device) -> CudaFunction:
        defines = {
            "KIND": _KINDS[self._kind],
            "BF16": int(self._dtype == torch.bfloat16),
            "TILES": tiles,
            "GATED": int(gated),
            "CHUNK": _CHUNK_BYTES,
            "STAGES": self._tile.stages,
            "AHEAD": self._tile.ahead,
        }
        return CudaFunction(Path(__file__).parent / "few_rows.cu", defines, device, self._tile.shared_bytes)

    def take(self, x: torch.Tensor | RoundedRows, weight: torch.Tensor | LowBitWeight) -> bool:
        """Whether these rows, rounded for low-bit weights, can be multiplied with that weight and should be."""
        kind = x.kind if isinstance(x, RoundedRows) else None
        if kind is not self._kind or kind is not (weight.kind if isinstance(weight, LowBitWeight) else None):
            return False
        data = weight.data if isinstance(weight, LowBitWeight) else weight
        rows = (x.high if isinstance(x, RoundedRows) else x).shape[0]
        return (
            2 <= rows <= _ROWS_OF_TILE * _MOST_TILES[kind]
            and data.shape[0] <= _MOST_WEIGHT_ROWS
            and data.shape[1] * data.element_size() % _CHUNK_BYTES == 0
            and data.is_contiguous()
        )

    def linear(
        self, x: torch.Tensor | RoundedRows, weight: torch.Tensor | LowBitWeight, *, gated: bool = False
    ) -> torch.Tensor:
        """`x @ weight.T` [rows, weight rows]. With `gated` the weight's first half are gates, and `silu(gate) * up` is
        given, with half as many columns."""
        high, low, row_scales = (x.high, x.low, x.scales) if isinstance(x, RoundedRows) else (x, x, None)
        data, scales = (weight.data, weight.scales) if isinstance(weight, LowBitWeight) else (weight, None)
        rows, num_weight_rows = high.shape[0], data.shape[0]
        out = high.new_empty(rows, num_weight_rows // 2 if gated else num_weight_rows, dtype=self._dtype)
        arguments = (
            *(
                ctypes.c_void_p(0 if one is None else one.data_ptr())
                for one in (data, scales, high, low, row_scales, out)
            ),
            ctypes.c_int(rows),
            ctypes.c_int(num_weight_rows),
            ctypes.c_int(data.shape[1] * data.element_size()),
            ctypes.c_int(high.stride(0) * high.element_size()),
        )
        function = self._functions[-(-rows // _ROWS_OF_TILE), gated]
        function.launch(min(self._most_blocks, -(-num_weight_rows // 16)), _NUM_THREADS, arguments)
        return out

"""Stream tensors from safetensors files into fresh memory of the wanted precision. Holds one chunk, never a file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from workbench.errors import ModelFormatError
from workbench.safetensors_header import TensorEntry
from workbench.shell import allocate

if TYPE_CHECKING:
    import torch

__all__ = ["READABLE_DTYPES", "WeightReader"]

# Names in the file to names in torch; packed and 8-bit floats belong to a quantiser and are not read here.
READABLE_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_CHUNK_BYTES = 16 << 20
# torch runs elementwise work of at most this many elements on one thread (at::internal::GRAIN_SIZE).
_SERIAL_ELEMENTS = 32_768


class WeightReader:
    """Reads tensors one by one. Use as a context manager: files stay open in between."""

    def __init__(self, device: str, on_bytes: Callable[[int], None] = lambda num_bytes: None) -> None:
        self._device = device
        self._on_bytes = on_bytes
        self._files: dict[Path, FileIO] = {}
        self._stack = ExitStack()
        self._staging: torch.Tensor | None = None

    def __enter__(self) -> WeightReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._staging = None

    def read(self, entry: TensorEntry, dtype: torch.dtype) -> torch.Tensor:
        """The tensor as `dtype` on the reader's device, of the entry's shape.

        `on_bytes` is told the bytes read, chunk by chunk. Raises `OutOfMemoryError`, or `ModelFormatError` when the
        file ends early.
        """
        import torch

        stored_dtype = getattr(torch, READABLE_DTYPES[entry.dtype])
        target = allocate(entry.shape, dtype, self._device)
        flat = target.view(-1)
        stream = self._open(entry.file)
        stream.seek(entry.offset)
        step = _CHUNK_BYTES // stored_dtype.itemsize
        for start in range(0, flat.numel(), step):
            part = flat[start : start + step]
            if part.device.type == "cpu" and stored_dtype == dtype:
                self._fill(stream, part, entry)
            else:
                staging = self._staged(part.numel(), stored_dtype)
                self._fill(stream, staging, entry)
                _convert(staging, part)
            self._on_bytes(part.numel() * stored_dtype.itemsize)
        return target

    def _open(self, file: Path) -> FileIO:
        if file not in self._files:
            self._files[file] = self._stack.enter_context(open(file, "rb", buffering=0))
        return self._files[file]

    def _staged(self, num_elements: int, dtype: torch.dtype) -> torch.Tensor:
        """A view of the staging chunk, of `num_elements` in `dtype`."""
        import torch

        if self._staging is None:
            self._staging = torch.empty(_CHUNK_BYTES, dtype=torch.uint8, pin_memory=self._device.startswith("cuda"))
        return self._staging[: num_elements * dtype.itemsize].view(dtype)

    def _fill(self, stream: FileIO, part: torch.Tensor, entry: TensorEntry) -> None:
        import torch

        view = part.view(torch.uint8).numpy().data
        filled = 0
        while filled < len(view):
            count = stream.readinto(view[filled:])
            if not count:
                raise ModelFormatError(f"{entry.file} ended while tensor {entry.name!r} was read: is it being written?")
            filled += count


def _convert(source: torch.Tensor, target: torch.Tensor) -> None:
    """Copy with a change of precision or device."""
    if target.device.type != "cpu":
        target.copy_(source)
        return
    # Pieces too small for torch to share out among threads: on busy cores waiting for those takes ten times longer.
    for source_piece, target_piece in zip(source.split(_SERIAL_ELEMENTS), target.split(_SERIAL_ELEMENTS), strict=True):
        target_piece.copy_(source_piece)

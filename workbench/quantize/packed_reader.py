"""Reads all tensors of a file at once: every core takes pieces, sums them up on the way, and puts them where they stay.

On a CPU the bytes go from the system straight into the tensors' own memory; to a GPU they go through a page-locked
piece a thread. No byte is read twice, and what reads goes on beside whatever its user does meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from workbench.errors import ModelFormatError
from workbench.quantize.checksum import PieceChecksum, has_checksum, num_threads
from workbench.safetensors_header import TensorEntry, read_header
from workbench.shell import allocate

if TYPE_CHECKING:
    import torch

__all__ = ["PackedReader"]

# Of a file whose checksum says nothing of pieces.
_PIECE_BYTES = 16 << 20
# Page-locked memory is a piece for each thread that reads for a GPU; so many hide the time that sums take.
_MOST_GPU_THREADS = 8
# The system's limit for one call is 1024.
_MOST_VIEWS = 512


class PackedReader:
    """The tensors of a safetensors file on `device`, whose bytes must have the checksum `wanted`.

    A context manager: reading begins when it is entered, `tensors` waits for its end. Raises ModelFormatError for a
    file that is damaged, OutOfMemoryError where the device has no room.
    """

    def __init__(self, path: Path, wanted: str, device: str) -> None:
        self._path = path
        self._wanted = wanted
        self._device = device
        self._by_pieces = PieceChecksum.parse(wanted)
        self._piece_bytes = _PIECE_BYTES if self._by_pieces is None else self._by_pieces.piece_bytes
        self._tensors: dict[str, torch.Tensor] = {}
        # Beside each other, in the file's order: where a tensor begins there, and its memory as bytes.
        self._begins: list[int] = []
        self._bytes: list[torch.Tensor] = []
        self._pieces: list[Future[tuple[int, bytes]]] = []
        self._is_ended = threading.Event()
        self._local = threading.local()

    def __enter__(self) -> PackedReader:
        entries = sorted(read_header(self._path).values(), key=lambda entry: entry.offset)
        try:
            self._file = os.open(self._path, os.O_RDONLY)
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            self._tensors = {entry.name: self._allocated(entry) for entry in entries}
            self._begin(entries)
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_ended.set()
        self._pool.shutdown(cancel_futures=True)
        os.close(self._file)
        self._tensors, self._bytes = {}, []

    def tensors(self, on_bytes: Callable[[int], None] = lambda num_bytes: None) -> dict[str, torch.Tensor]:
        """All of them by name, each in memory of its own. Call once; `on_bytes` is told what was read, by pieces."""
        digests = []
        try:
            for piece in self._pieces:
                num_bytes, digest = piece.result()
                on_bytes(num_bytes)
                digests.append(digest)
            is_whole = (
                has_checksum(self._path, self._wanted)
                if self._by_pieces is None
                else PieceChecksum.of(digests, self._piece_bytes) == self._by_pieces
            )
        except OSError as error:
            raise self._unreadable(error) from error
        if not is_whole:
            raise ModelFormatError(f"{self._path} is damaged: its checksum is not the one that was written")
        tensors, self._tensors, self._bytes = self._tensors, {}, []
        return tensors

    def _begin(self, entries: list[TensorEntry]) -> None:
        import torch

        filled = [entry for entry in entries if entry.num_bytes]
        self._begins = [entry.offset for entry in filled]
        self._bytes = [self._tensors[entry.name].view(-1).view(torch.uint8) for entry in filled]
        size_bytes = os.fstat(self._file).st_size
        if not self._is_on_cpu:
            # What was there before may still be at work in memory that is handed out again.
            torch.cuda.current_stream(self._device).synchronize()
        count = num_threads() if self._is_on_cpu else min(num_threads(), _MOST_GPU_THREADS)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="workbench-read")
        self._pieces = [
            self._pool.submit(self._read_piece, begin, min(begin + self._piece_bytes, size_bytes))
            for begin in range(0, size_bytes, self._piece_bytes)
        ]

    def _allocated(self, entry: TensorEntry) -> torch.Tensor:
        return allocate(entry.shape, _torch_dtype(entry), self._device)

    @property
    def _is_on_cpu(self) -> bool:
        return self._device == "cpu"

    def _read_piece(self, begin: int, end: int) -> tuple[int, bytes]:
        """The bytes from `begin` to `end`: their number and SHA-256."""
        digest = hashlib.sha256()
        read = self._read_to_host if self._is_on_cpu else self._read_through_staging
        read(begin, end, digest.update)
        return end - begin, digest.digest()

    def _read_to_host(self, begin: int, end: int, sum_up: Callable[[memoryview], None]) -> None:
        views = [
            memoryview(bytearray(stop - start)) if tensor is None else tensor[at : at + stop - start].numpy().data
            for start, stop, tensor, at in self._spans(begin, end)
        ]
        self._fill(views, begin)
        for view in views:
            sum_up(view)

    def _read_through_staging(self, begin: int, end: int, sum_up: Callable[[memoryview], None]) -> None:
        import torch

        if not hasattr(self._local, "staging"):
            self._local.staging = _page_locked(self._piece_bytes)
            self._local.stream = torch.cuda.Stream(self._device)
        staging: torch.Tensor = self._local.staging
        view = staging.numpy().data[: end - begin]
        self._fill([view], begin)
        with torch.cuda.stream(self._local.stream):
            for start, stop, tensor, at in self._spans(begin, end):
                if tensor is not None:
                    part = staging[start - begin : stop - begin]
                    tensor[at : at + stop - start].copy_(part, non_blocking=True)
        # While the device copies.
        sum_up(view)
        self._local.stream.synchronize()

    def _spans(self, begin: int, end: int) -> Iterator[tuple[int, int, torch.Tensor | None, int]]:
        """Parts of the file from `begin` to `end`: where each begins and ends, the bytes of its tensor (None: of the
        header), and where in those it begins."""
        at = begin
        while at < end:
            index = bisect_right(self._begins, at) - 1
            if index < 0:
                stop = min(end, self._begins[0]) if self._begins else end
                yield at, stop, None, 0
            else:
                tensor = self._bytes[index]
                stop = min(end, self._begins[index] + tensor.numel())
                yield at, stop, tensor, at - self._begins[index]
            at = stop

    def _fill(self, views: list[memoryview], at: int) -> None:
        """Read into all of them, one after the other: in few calls, since after each a thread waits for its turn to run
        Python beside whoever reads the config and builds the model meanwhile."""
        for first in range(0, len(views), _MOST_VIEWS):
            some = views[first : first + _MOST_VIEWS]
            while some:
                count = 0 if self._is_ended.is_set() else os.preadv(self._file, some, at)
                if not count:
                    raise ModelFormatError(f"{self._path} ended while it was read")
                at += count
                while some and count >= len(some[0]):
                    count -= len(some.pop(0))
                if some and count:
                    some[0] = some[0][count:]

    def _unreadable(self, error: OSError) -> ModelFormatError:
        return ModelFormatError(f"{self._path} cannot be read: {error.strerror or error}")


def _page_locked(num_bytes: int) -> torch.Tensor:
    import torch

    return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)


def _torch_dtype(entry: TensorEntry) -> torch.dtype:
    import torch

    name = _DTYPES.get(entry.dtype)
    if name is None:
        raise ModelFormatError(f"{entry.file}: tensor {entry.name!r} is in {entry.dtype}, which is not read here")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


# Names in the file to names in torch.
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn",
}  # fmt: skip

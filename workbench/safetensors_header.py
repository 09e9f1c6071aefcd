"""Read and check the header of a safetensors file: 8 bytes of length, JSON, data. Never reads the data itself."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import ModelFormatError

__all__ = ["INDEX_NAME", "TensorEntry", "read_folder_headers", "read_header", "weight_files"]

INDEX_NAME = "model.safetensors.index.json"
_SINGLE_NAME = "model.safetensors"
# The limit that the format's own reader sets.
_MAX_HEADER_BYTES = 100_000_000
_LENGTH_BYTES = 8

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: `offset` and `num_bytes` count bytes from the start of the file."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int

    @property
    def num_elements(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)


def read_header(file: Path) -> dict[str, TensorEntry]:
    """Every tensor of one file, in file order.

    Raises `ModelFormatError` naming the file, and the tensor where one is at fault, when the file is shorter than
    its header says, an offset points outside it, or a shape does not fill its bytes.
    """
    try:
        size_bytes = file.stat().st_size
        with file.open("rb") as stream:
            header_bytes = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            if size_bytes < _LENGTH_BYTES or header_bytes > min(size_bytes - _LENGTH_BYTES, _MAX_HEADER_BYTES):
                raise ModelFormatError(
                    f"{file} is truncated or not safetensors: it has {size_bytes:,} bytes and its header claims "
                    f"{header_bytes:,}"
                )
            header = _parse(file, stream.read(header_bytes))
    except OSError as error:
        raise ModelFormatError(f"{file} cannot be read: {error.strerror or error}") from error
    header.pop("__metadata__", None)
    start = _LENGTH_BYTES + header_bytes
    entries = [_entry(file, name, fields, start) for name, fields in header.items()]
    for entry in entries:
        _check_entry(entry, size_bytes)
    _check_layout(file, entries, start, size_bytes)
    return {entry.name: entry for entry in entries}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: one, or the shards its index names; empty when it has none.

    Raises `ModelFormatError` for an index that does not parse or names a shard that is not there.
    """
    index = folder / INDEX_NAME
    if not index.is_file():
        single = folder / _SINGLE_NAME
        return [single] if single.is_file() else []
    return [folder / name for name in sorted(set(_weight_map(folder).values()))]


def read_folder_headers(folder: Path) -> dict[str, TensorEntry]:
    """Every tensor of a folder's safetensors files, checked against the index; empty when it has none."""
    tensors: dict[str, TensorEntry] = {}
    for file in weight_files(folder):
        tensors |= read_header(file)
    if (folder / INDEX_NAME).is_file():
        for name, shard in _weight_map(folder).items():
            if name not in tensors or tensors[name].file.name != shard:
                raise ModelFormatError(f"{folder / INDEX_NAME} says tensor {name!r} is in {shard}, and it is not")
    return tensors


def _weight_map(folder: Path) -> dict[str, str]:
    index = folder / INDEX_NAME
    try:
        weight_map: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
        shards = set(weight_map.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFormatError(f"{index} is not a weight index: {type(error).__name__}: {error}") from error
    for shard in sorted(map(str, shards)):
        if Path(shard).name != shard:
            raise ModelFormatError(f"{index} names the shard {shard!r}, which is not a plain file name")
        if not (folder / shard).is_file():
            raise ModelFormatError(f"{index} names the shard {shard}, and {folder} has no such file")
    return weight_map


def _parse(file: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except ValueError as error:
        raise ModelFormatError(f"{file} has a damaged header: {error}") from error
    if not isinstance(header, dict):
        raise ModelFormatError(f"{file} has a damaged header: it holds a {type(header).__name__}")
    return header


def _entry(file: Path, name: str, fields: Any, start: int) -> TensorEntry:
    try:
        begin, end = fields["data_offsets"]
        shape = tuple(fields["shape"])
        if any(type(number) is not int or number < 0 for number in (*shape, begin, end)) or end < begin:
            raise ValueError("shape and data_offsets must be whole numbers from 0 on")
        return TensorEntry(name, file, str(fields["dtype"]), shape, start + begin, end - begin)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(f"{file}: the header entry of tensor {name!r} is damaged: {error}") from error


def _check_entry(entry: TensorEntry, size_bytes: int) -> None:
    if entry.dtype not in _BITS:
        raise ModelFormatError(f"{entry.file}: tensor {entry.name!r} has the unknown dtype {entry.dtype!r}")
    end = entry.offset + entry.num_bytes
    if end > size_bytes:
        raise ModelFormatError(
            f"{entry.file} is truncated: tensor {entry.name!r} ends at byte {end:,} and the file at {size_bytes:,}"
        )
    expected_bytes = -(-entry.num_elements * _BITS[entry.dtype] // 8)
    if expected_bytes != entry.num_bytes:
        raise ModelFormatError(
            f"{entry.file}: tensor {entry.name!r} of shape {list(entry.shape)} in {entry.dtype} takes "
            f"{expected_bytes:,} bytes, and its offsets span {entry.num_bytes:,}"
        )


def _check_layout(file: Path, entries: list[TensorEntry], start: int, size_bytes: int) -> None:
    """The format wants the data filled without gaps or overlaps."""
    position = start
    for entry in sorted(entries, key=lambda entry: (entry.offset, entry.num_bytes)):
        if entry.offset != position:
            raise ModelFormatError(
                f"{file}: tensor {entry.name!r} starts at byte {entry.offset:,}, and the one before ends at "
                f"{position:,}"
            )
        position = entry.offset + entry.num_bytes
    if position != size_bytes:
        raise ModelFormatError(f"{file}: the last tensor ends at byte {position:,} and the file at {size_bytes:,}")

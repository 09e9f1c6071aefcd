"""Read and check the header of a .gguf file against its real size. Never reads weights, never trusts a count.

magic "GGUF" | version u32 | number of tensors u64 | number of metadata pairs u64
metadata pairs: key, type u32, value | tensor table: name, shape, type u32, offset u64 | padding | data
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from workbench.errors import ModelFormatError

__all__ = ["GgufHeader", "GgufTensor", "read_gguf_header"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = 4
_STRING, _ARRAY = 8, 9
# Metadata types of fixed size: struct code of each.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True)
class GgufTensor:
    """One row of the tensor table. `shape` is in the file's order, fastest first; `offset` counts from the data."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int

    @property
    def num_elements(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class GgufHeader:
    """What a .gguf file says about itself. `metadata` holds strings and numbers; arrays appear as their length.

    `data_start` is the byte of the file that the tensors' offsets count from.
    """

    metadata: dict[str, Any]
    tensors: tuple[GgufTensor, ...]
    data_start: int

    @property
    def architecture(self) -> str:
        """The model family in llama.cpp's spelling."""
        return str(self.metadata["general.architecture"])

    @property
    def num_parameters(self) -> int:
        """Weights in the file; tied ones are stored once."""
        return sum(tensor.num_elements for tensor in self.tensors)


def read_gguf_header(path: Path) -> GgufHeader:
    """The checked header of `path`.

    Raises `ModelFormatError` naming the file, and the tensor where one is at fault, when it is not GGUF, truncated,
    of an unknown version, one part of a split model, or holds a tensor outside the file.
    """
    try:
        with path.open("rb") as stream:
            return _Reader(path, stream).header()
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror or error}") from error


class _Reader:
    """A cursor that never reads past the end of the file nor allocates more than the file holds."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path = path
        self._stream = stream
        self._size_bytes = path.stat().st_size

    def header(self) -> GgufHeader:
        if self._stream.read(len(_MAGIC)) != _MAGIC:
            raise ModelFormatError(f"{self._path} is not a GGUF file: it does not start with 'GGUF'")
        version = self._number("I")
        if version not in _VERSIONS:
            raise ModelFormatError(f"{self._path} has GGUF version {version}; versions 2 and 3 can be read")
        num_tensors, num_pairs = self._number("Q"), self._number("Q")
        metadata = dict(self._pair() for _ in range(num_pairs))
        table = [self._row() for _ in range(num_tensors)]
        self._check_metadata(metadata)
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ModelFormatError(f"{self._path}: general.alignment is {alignment!r}")
        data_start = -(-self._stream.tell() // alignment) * alignment
        for tensor in table:
            self._check_end(tensor, data_start)
        return GgufHeader(metadata, tuple(table), data_start)

    def _check_metadata(self, metadata: dict[str, Any]) -> None:
        if not isinstance(metadata.get("general.architecture"), str):
            raise ModelFormatError(f"{self._path} does not say its general.architecture")
        num_parts = metadata.get("split.count", 0)
        if num_parts > 1:
            raise ModelFormatError(
                f"{self._path} is one of {num_parts} parts of a split model; join them with llama-gguf-split --merge"
            )

    def _check_end(self, tensor: GgufTensor, data_start: int) -> None:
        end = data_start + tensor.offset + tensor.num_bytes
        if end > self._size_bytes:
            raise ModelFormatError(
                f"{self._path} is truncated: tensor {tensor.name!r} ends at byte {end:,} and the file at "
                f"{self._size_bytes:,}"
            )

    def _pair(self) -> tuple[str, Any]:
        key = self._text()
        return key, self._value(self._number("I"))

    def _value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._skip_array()
        raise self._damaged(f"a metadata value of type {kind}")

    def _skip_array(self) -> int:
        kind, length = self._number("I"), self._number("Q")
        if kind in _SCALARS:
            self._skip(length * struct.calcsize("<" + _SCALARS[kind]))
        elif kind == _STRING:
            for _ in range(length):
                self._skip(self._number("Q"))
        else:
            raise self._damaged(f"a metadata array of type {kind}")
        return int(length)

    def _row(self) -> GgufTensor:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self._text()
        num_dimensions = self._number("I")
        if num_dimensions > _MAX_DIMENSIONS:
            raise self._damaged(f"tensor {name!r} with {num_dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(num_dimensions))
        kind, offset = self._number("I"), self._number("Q")
        if kind not in GGML_QUANT_SIZES:
            raise self._damaged(f"tensor {name!r} of the unknown type {kind}")
        block_elements, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        num_elements = math.prod(shape)
        if shape and shape[0] % block_elements:
            raise self._damaged(f"tensor {name!r} whose rows of {shape[0]} do not fill blocks of {block_elements}")
        num_bytes = num_elements // block_elements * block_bytes
        return GgufTensor(name, GGMLQuantizationType(kind).name, shape, offset, num_bytes)

    def _text(self) -> str:
        try:
            return self._read(self._number("Q")).decode("utf-8")
        except UnicodeDecodeError:
            raise self._damaged("text that is not UTF-8") from None

    def _number(self, code: str) -> Any:
        code = "<" + code
        return struct.unpack(code, self._read(struct.calcsize(code)))[0]

    def _read(self, num_bytes: int) -> bytes:
        self._require(num_bytes)
        return self._stream.read(num_bytes)

    def _skip(self, num_bytes: int) -> None:
        self._require(num_bytes)
        self._stream.seek(num_bytes, 1)

    def _require(self, num_bytes: int) -> None:
        if num_bytes > self._size_bytes - self._stream.tell():
            raise ModelFormatError(
                f"{self._path} is truncated or damaged: its header goes on past the end of the file at byte "
                f"{self._size_bytes:,}"
            )

    def _damaged(self, what: str) -> ModelFormatError:
        return ModelFormatError(f"{self._path} has a damaged header: {what} at byte {self._stream.tell():,}")

"""Checksums of large files: by pieces, which several cores compute at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PieceChecksum", "file_checksum", "has_checksum", "num_threads"]

_PIECE_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20
_MOST_THREADS = 16
# One that says nothing of how it was made is SHA-256 of the whole file.
_BY_PIECES = "pieces:"


@dataclass(frozen=True)
class PieceChecksum:
    """SHA-256 over the SHA-256 of each `piece_bytes` of a file, as text."""

    text: str
    piece_bytes: int

    @classmethod
    def parse(cls, text: str) -> PieceChecksum | None:
        """None for what is no checksum by pieces."""
        size = text.removeprefix(_BY_PIECES).partition(":")[0]
        is_one = text.startswith(_BY_PIECES) and size.isdigit() and int(size) > 0
        return cls(text, int(size)) if is_one else None

    @classmethod
    def of(cls, digests: Sequence[bytes], piece_bytes: int) -> PieceChecksum:
        """That of a file whose pieces have these SHA-256."""
        digest = hashlib.sha256(b"".join(digests)).hexdigest()
        return cls(f"{_BY_PIECES}{piece_bytes}:{digest}", piece_bytes)


def num_threads() -> int:
    """How many threads read or sum up a file at once."""
    return min(_MOST_THREADS, os.cpu_count() or 1)


def file_checksum(path: Path, piece_bytes: int = _PIECE_BYTES) -> str:
    """The text of its `PieceChecksum`. Raises OSError."""
    begins = range(0, path.stat().st_size, piece_bytes)
    with ThreadPoolExecutor(num_threads(), thread_name_prefix="workbench-checksum") as pool:
        digests = list(pool.map(lambda begin: _digest(path, begin, piece_bytes), begins))
    return PieceChecksum.of(digests, piece_bytes).text


def has_checksum(path: Path, wanted: str) -> bool:
    """Whether `wanted` is what `file_checksum` gave for this file, or its SHA-256. Raises OSError."""
    by_pieces = PieceChecksum.parse(wanted)
    if by_pieces is not None:
        return file_checksum(path, by_pieces.piece_bytes) == wanted
    return _digest(path, 0, path.stat().st_size).hex() == wanted


def _digest(path: Path, begin: int, num_bytes: int) -> bytes:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as stream:
        stream.seek(begin)
        while num_bytes > 0 and (count := stream.readinto(buffer[: min(num_bytes, _CHUNK_BYTES)])):
            digest.update(buffer[:count])
            num_bytes -= count
    return digest.digest()

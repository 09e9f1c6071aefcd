"""Checksums of large files: by pieces, which several cores compute at once."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["file_checksum", "has_checksum"]

_PIECE_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20
_MOST_THREADS = 8
# One that says nothing of how it was made is SHA-256 of the whole file.
_BY_PIECES = "pieces:"


def file_checksum(path: Path, piece_bytes: int = _PIECE_BYTES) -> str:
    """SHA-256 over the SHA-256 of each piece, with the piece's size. Raises OSError."""
    begins = range(0, path.stat().st_size, piece_bytes)
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="workbench-checksum") as pool:
        digests = pool.map(lambda begin: _digest(path, begin, piece_bytes), begins)
        return f"{_BY_PIECES}{piece_bytes}:{hashlib.sha256(b''.join(digests)).hexdigest()}"


def has_checksum(path: Path, wanted: str) -> bool:
    """Whether `wanted` is what `file_checksum` gave for this file, or its SHA-256. Raises OSError."""
    if not wanted.startswith(_BY_PIECES):
        return _digest(path, 0, path.stat().st_size).hex() == wanted
    size = wanted.removeprefix(_BY_PIECES).partition(":")[0]
    return size.isdigit() and int(size) > 0 and file_checksum(path, int(size)) == wanted


def _digest(path: Path, begin: int, num_bytes: int) -> bytes:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as stream:
        stream.seek(begin)
        while num_bytes > 0 and (count := stream.readinto(buffer[: min(num_bytes, _CHUNK_BYTES)])):
            digest.update(buffer[:count])
            num_bytes -= count
    return digest.digest()

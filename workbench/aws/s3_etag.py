"""ETags as checksums. An ETag is an MD5 where S3 made it from the bytes, and only an opaque name where it encrypted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

__all__ = ["EtagCheck", "Verification", "check_etag", "md5_etag", "part_sizes"]

_CHUNK_BYTES = 1 << 20
# More parts than this are only asked for where all but the last have one size.
_MAX_UNEVEN_PARTS = 1000


class Verification(Enum):
    """What a file was held against."""

    MD5 = "MD5 of the object"
    PARTS = "MD5 of the object's parts"
    SIZE = "size only: the ETag is not a checksum"


@dataclass(frozen=True)
class EtagCheck:
    """Whether a file is the object, and how that was found out."""

    is_good: bool
    verification: Verification


def md5_etag(path: Path, sizes: Sequence[int], on_bytes: Callable[[int], None] = lambda count: None) -> str:
    """The ETag that S3 gives to this file uploaded in parts of these sizes; one part makes a plain MD5 only if `sizes`
    is empty, as S3 marks even a single part of a multipart upload with "-1"."""
    with path.open("rb") as file:
        if not sizes:
            return _digest(file, None, on_bytes).hexdigest()
        digests = b"".join(_digest(file, size, on_bytes).digest() for size in sizes)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(sizes)}"


def part_sizes(size_bytes: int, part_bytes: int) -> list[int]:
    """Sizes of the parts when `size_bytes` are cut every `part_bytes`."""
    return [min(part_bytes, size_bytes - start) for start in range(0, size_bytes, part_bytes)] or [0]


def check_etag(
    client: Any, bucket: str, key: str, etag: str, path: Path, on_bytes: Callable[[int], None] = lambda count: None
) -> EtagCheck:
    """Hold the file at `path` against the object's ETag; reads the whole file. Lets botocore's errors through."""
    if "-" not in etag:
        if md5_etag(path, [], on_bytes) == etag:
            return EtagCheck(True, Verification.MD5)
        head = client.head_object(Bucket=bucket, Key=key)
        if _is_opaque(head):
            return EtagCheck(path.stat().st_size == head["ContentLength"], Verification.SIZE)
        return EtagCheck(False, Verification.MD5)
    return _check_parts(client, bucket, key, etag, path, on_bytes)


def _check_parts(
    client: Any, bucket: str, key: str, etag: str, path: Path, on_bytes: Callable[[int], None]
) -> EtagCheck:
    num_parts = int(etag.rpartition("-")[2])
    head = client.head_object(Bucket=bucket, Key=key, PartNumber=1)
    size_bytes = path.stat().st_size
    sizes = part_sizes(size_bytes, max(1, head["ContentLength"]))
    is_even = len(sizes) == num_parts
    if _is_opaque(head) or (not is_even and num_parts > _MAX_UNEVEN_PARTS):
        # This answer describes one part; every range's length was checked on its way.
        return EtagCheck(True, Verification.SIZE)
    if not is_even:
        numbers = range(1, num_parts + 1)
        sizes = [client.head_object(Bucket=bucket, Key=key, PartNumber=each)["ContentLength"] for each in numbers]
    is_good = sum(sizes) == size_bytes and md5_etag(path, sizes, on_bytes) == etag
    return EtagCheck(is_good, Verification.PARTS)


def _is_opaque(head: dict[str, Any]) -> bool:
    """Whether S3 encrypted the object with a key of its own, which makes the ETag no checksum."""
    return bool(head.get("SSECustomerAlgorithm")) or str(head.get("ServerSideEncryption", "")).startswith("aws:kms")


def _digest(file: Any, limit: int | None, on_bytes: Callable[[int], None]) -> hashlib._Hash:
    digest = hashlib.md5(usedforsecurity=False)
    left = limit
    while left is None or left > 0:
        block = file.read(_CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left))
        if not block:
            break
        digest.update(block)
        on_bytes(len(block))
        left = None if left is None else left - len(block)
    return digest

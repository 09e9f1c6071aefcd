"""A file or folder to `s3://bucket/prefix`: quantised models, run history. Sends only what is not there already."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from workbench.aws.clients import make_client
from workbench.aws.s3_errors import writing_s3
from workbench.aws.s3_etag import md5_etag, part_sizes
from workbench.aws.s3_url import S3Url
from workbench.aws.transfer_pool import Meter, count_progress, run_jobs
from workbench.errors import ConfigError, WorkbenchError
from workbench.progress import ProgressCallback, no_progress

__all__ = ["S3Upload", "upload_s3"]

_MIB = 1024**2
# S3 takes parts of 5 MiB to 5 GiB, at most 10,000 of them.
_SMALLEST_PART_BYTES = 5 * _MIB
_MOST_PARTS = 10_000


@dataclass(frozen=True)
class S3Upload:
    """A finished upload. Of `total_bytes`, `skipped_bytes` were in S3 already with the same checksum."""

    url: S3Url
    keys: tuple[str, ...]
    total_bytes: int
    skipped_bytes: int


@dataclass(frozen=True)
class _Piece:
    """One file on its way. `sizes` are those of a multipart upload, empty for a single request."""

    path: Path
    key: str
    size_bytes: int
    sizes: tuple[int, ...]


def upload_s3(
    source: Path,
    url: str | S3Url,
    *,
    client: Any = None,
    progress: ProgressCallback = no_progress,
    num_workers: int = 8,
    part_bytes: int = 16 * _MIB,
) -> S3Upload:
    """Send a file to the key `url`, or a folder's files to keys below it.

    Objects that have the same bytes are skipped, so calling again after a stop goes on with the next file. Large files
    go in parts, and an upload that fails or is cancelled leaves no parts behind. Raises ConfigError, WorkbenchError
    when S3 refuses or cannot be reached, or what `progress` raises.
    """
    url = S3Url.parse(url) if isinstance(url, str) else url
    if part_bytes < _SMALLEST_PART_BYTES:
        raise ConfigError(f"part_bytes={part_bytes!r}: must be at least {_SMALLEST_PART_BYTES}")
    pieces = _pieces(source, url, part_bytes)
    with writing_s3(str(url)):
        upload = _Upload(client or make_client("s3", max_connections=num_workers), url.bucket, pieces)
        upload.send(num_workers, progress)
    return S3Upload(url, tuple(piece.key for piece in pieces), upload.total_bytes, upload.skipped_bytes)


class _Upload:
    """One attempt at a list of files."""

    def __init__(self, client: Any, bucket: str, pieces: list[_Piece]) -> None:
        self._client = client
        self._bucket = bucket
        self._pieces = pieces
        self.total_bytes = sum(piece.size_bytes for piece in pieces)
        self.skipped_bytes = 0

    def send(self, num_workers: int, progress: ProgressCallback) -> None:
        etags: dict[str, str] = {}
        run_jobs(
            [partial(self._hash, piece, etags) for piece in self._pieces],
            num_workers,
            count_progress(progress, "checksum", 0, self.total_bytes),
        )
        waiting = [piece for piece in self._pieces if not self._is_there(piece, etags[piece.key])]
        self.skipped_bytes = self.total_bytes - sum(piece.size_bytes for piece in waiting)
        report = count_progress(progress, "upload", self.skipped_bytes, self.total_bytes)
        small = [piece for piece in waiting if not piece.sizes]
        run_jobs([partial(self._put, piece) for piece in small], num_workers, report)
        for piece in waiting:
            if piece.sizes:
                self._put_parts(piece, num_workers, report)
        for piece in waiting:
            self._check(piece, etags[piece.key])

    def _hash(self, piece: _Piece, etags: dict[str, str], meter: Meter) -> None:
        etags[piece.key] = md5_etag(piece.path, piece.sizes, meter.add)

    def _is_there(self, piece: _Piece, etag: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            head = self._client.head_object(Bucket=self._bucket, Key=piece.key)
        except ClientError as error:
            # Without permission to list, S3 answers 403 for what is absent.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404):
                return False
            raise
        return bool(head["ContentLength"] == piece.size_bytes and head["ETag"].strip('"') == etag)

    def _put(self, piece: _Piece, meter: Meter) -> None:
        if meter.should_stop():
            return
        body = piece.path.read_bytes()
        self._client.put_object(Bucket=self._bucket, Key=piece.key, Body=body, ContentMD5=_md5(body))
        meter.add(len(body))

    def _put_parts(self, piece: _Piece, num_workers: int, report: Callable[[int], None]) -> None:
        with self._multipart(piece.key) as upload_id:
            etags: dict[int, str] = {}
            starts = [sum(piece.sizes[:index]) for index in range(len(piece.sizes))]

            def put(index: int, meter: Meter) -> None:
                if meter.should_stop():
                    return
                body = _read(piece.path, starts[index], piece.sizes[index])
                answer = self._client.upload_part(
                    Bucket=self._bucket,
                    Key=piece.key,
                    UploadId=upload_id,
                    PartNumber=index + 1,
                    Body=body,
                    ContentMD5=_md5(body),
                )
                etags[index] = answer["ETag"]
                meter.add(len(body))

            run_jobs([partial(put, index) for index in range(len(piece.sizes))], num_workers, report, wait_at_stop=True)
            self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=piece.key,
                UploadId=upload_id,
                MultipartUpload={
                    "Parts": [{"ETag": etags[index], "PartNumber": index + 1} for index in range(len(piece.sizes))]
                },
            )

    @contextmanager
    def _multipart(self, key: str) -> Iterator[str]:
        """An upload in parts that is either completed inside the block or leaves nothing."""
        upload_id = self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]
        try:
            yield upload_id
        except BaseException:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
            raise

    def _check(self, piece: _Piece, etag: str) -> None:
        """S3 checked every part's MD5 on arrival; this catches parts put together wrongly."""
        head = self._client.head_object(Bucket=self._bucket, Key=piece.key)
        is_opaque = str(head.get("ServerSideEncryption", "")).startswith("aws:kms")
        if head["ContentLength"] != piece.size_bytes or (not is_opaque and head["ETag"].strip('"') != etag):
            raise WorkbenchError(f"s3://{self._bucket}/{piece.key} is not what was sent: upload it again")


def _pieces(source: Path, url: S3Url, part_bytes: int) -> list[_Piece]:
    if source.is_file():
        if not url.prefix:
            raise ConfigError(f"{url} names a bucket: a file needs a key, like {url}{source.name}")
        return [_piece(source, url.prefix, part_bytes)]
    if not source.is_dir():
        raise ConfigError(f"source={str(source)!r}: there is no such file or folder")
    found = sorted(Path(folder) / name for folder, _, names in os.walk(source) for name in names)
    files = [path for path in found if path.is_file()]
    if not files:
        raise ConfigError(f"source={str(source)!r}: the folder has no files")
    return [_piece(path, url.key(path.relative_to(source).as_posix()), part_bytes) for path in files]


def _piece(path: Path, key: str, part_bytes: int) -> _Piece:
    size_bytes = path.stat().st_size
    while size_bytes > part_bytes * _MOST_PARTS:
        part_bytes *= 2
    sizes = part_sizes(size_bytes, part_bytes) if size_bytes > part_bytes else []
    return _Piece(path, key, size_bytes, tuple(sizes))


def _read(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode("ascii")

"""Everything under `s3://bucket/prefix` into a folder: parallel ranges, resumed where stopped, checked by ETag."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from workbench.aws.clients import make_client
from workbench.aws.part_file import Part, PartFile
from workbench.aws.s3_errors import reading_s3
from workbench.aws.s3_etag import EtagCheck, Verification, check_etag
from workbench.aws.s3_listing import S3Object, list_objects
from workbench.aws.s3_url import S3Url
from workbench.aws.transfer_pool import Job, Meter, count_progress, run_jobs
from workbench.errors import ConfigError, DownloadError
from workbench.progress import Progress, ProgressCallback, no_progress

__all__ = ["DownloadOptions", "S3Download", "S3File", "download_s3"]

_MIB = 1024**2
_CHUNK_BYTES = 256 * 1024
_LOCK_POLL_S = 0.2


@dataclass(frozen=True)
class DownloadOptions:
    """How to fetch.

    Attributes:
        num_workers: requests at once; one S3 connection gives about 100 MB/s.
        part_bytes: bytes of one request, and what is fetched again at most after a stop.
        num_attempts: tries for a part that is cut or stalls; each goes on where the last one ended.
        retry_delay_s: wait before the second try, doubled each time.
    """

    num_workers: int = 8
    part_bytes: int = 32 * _MIB
    num_attempts: int = 5
    retry_delay_s: float = 0.5

    def __post_init__(self) -> None:
        for name in ("num_workers", "part_bytes", "num_attempts"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}={value!r}: must be an integer of at least 1")
        if self.retry_delay_s < 0:
            raise ConfigError(f"retry_delay_s={self.retry_delay_s!r}: must be 0 or more")


@dataclass(frozen=True)
class S3File:
    """One file that arrived, and what it was held against."""

    path: Path
    size_bytes: int
    etag: str
    verification: Verification


@dataclass(frozen=True)
class S3Download:
    """A finished download. `resumed_bytes` of `total_bytes` were there from an earlier attempt."""

    url: S3Url
    folder: Path
    files: tuple[S3File, ...]
    total_bytes: int
    resumed_bytes: int


def download_s3(
    url: str | S3Url,
    folder: Path,
    *,
    client: Any = None,
    progress: ProgressCallback = no_progress,
    parts_folder: Path | None = None,
    options: DownloadOptions | None = None,
) -> S3Download:
    """Fetch all objects below `url` into `folder`; a url of one object gives one file.

    Files come into `folder` only when all of them are complete and checked. Until then they lie in `parts_folder` (by
    default beside `folder`), from where a later call goes on after a cancel, a crash or a lost connection. Two
    processes do not fetch the same twice at once: the second waits. Raises ConfigError, ModelNotFoundError,
    ModelFormatError, DownloadError, or what `progress` raises (LoadCancelled).
    """
    url = S3Url.parse(url) if isinstance(url, str) else url
    options = options or DownloadOptions()
    digest = hashlib.sha256(str(url).encode()).hexdigest()[:16]
    parts_folder = parts_folder or folder.absolute().parent / ".s3-parts"
    with reading_s3(str(url)):
        client = client or make_client("s3", max_connections=options.num_workers)
        with _locked(parts_folder / f"{digest}.lock", progress):
            objects = list_objects(client, url)
            download = _Download(client, url, objects, parts_folder / digest, options)
            files = download.fetch(folder, progress)
    return S3Download(url, folder, files, download.total_bytes, download.resumed_bytes)


class _Download:
    """One attempt at a list of objects."""

    def __init__(
        self, client: Any, url: S3Url, objects: list[S3Object], parts_folder: Path, options: DownloadOptions
    ) -> None:
        self._client = client
        self._url = url
        self._objects = objects
        self._parts_folder = parts_folder
        self._options = options
        self._files = {each.key: self._part_file(each) for each in objects}
        self.total_bytes = sum(each.size_bytes for each in objects)
        self.resumed_bytes = 0

    def fetch(self, folder: Path, progress: ProgressCallback) -> tuple[S3File, ...]:
        missing = {each.key: self._files[each.key].open() for each in self._objects}
        missing_bytes = sum(part.size_bytes for parts in missing.values() for part in parts)
        self.resumed_bytes = self.total_bytes - missing_bytes
        self._check_space(missing_bytes)
        jobs = [partial(self._fetch_part, each, part) for each in self._objects for part in missing[each.key]]
        run_jobs(
            jobs, self._options.num_workers, count_progress(progress, "download", self.resumed_bytes, self.total_bytes)
        )
        checks = self._verify(progress)
        files = tuple(self._place(each, folder, checks[each.key].verification) for each in self._objects)
        # Parts of objects that are no longer in S3 may lie there still.
        shutil.rmtree(self._parts_folder, ignore_errors=True)
        return files

    def _fetch_part(self, entry: S3Object, part: Part, meter: Meter) -> None:
        """All bytes of a part; a connection that ends early is taken up where it ended."""
        from botocore.exceptions import BotoCoreError

        file = self._files[entry.key]
        offset = part.start
        for attempt in range(self._options.num_attempts):
            if meter.should_stop():
                return
            try:
                for block in self._read(entry, offset, part.end):
                    if meter.should_stop():
                        return
                    file.write(offset, block)
                    offset += len(block)
                    meter.add(len(block))
                if offset == part.end:
                    return file.finish(part)
            except BotoCoreError:
                if attempt + 1 == self._options.num_attempts:
                    raise
            except OSError as error:
                raise DownloadError(f"{self._url}: cannot write {file.path} ({error.strerror or error})") from error
            meter.pause(self._options.retry_delay_s * 2**attempt)
        raise DownloadError(
            f"{self._url}: {entry.path} was cut {self._options.num_attempts} times "
            f"({offset} of {entry.size_bytes} bytes); start again to go on from there"
        )

    def _read(self, entry: S3Object, start: int, end: int) -> Iterator[bytes]:
        answer = self._client.get_object(
            Bucket=self._url.bucket, Key=entry.key, Range=f"bytes={start}-{end - 1}", IfMatch=f'"{entry.etag}"'
        )
        is_range = answer["ResponseMetadata"]["HTTPStatusCode"] == 206
        if not is_range and (start, end) != (0, entry.size_bytes):
            raise DownloadError(f"{self._url}: the server does not serve ranges")
        with answer["Body"] as body:
            left = end - start
            while left and (block := body.read(min(_CHUNK_BYTES, left))):
                left -= len(block)
                yield block

    def _verify(self, progress: ProgressCallback) -> dict[str, EtagCheck]:
        checks: dict[str, EtagCheck] = {}

        def check(entry: S3Object, meter: Meter) -> None:
            path = self._files[entry.key].path
            checks[entry.key] = check_etag(self._client, self._url.bucket, entry.key, entry.etag, path, meter.add)

        jobs: list[Job] = [partial(check, each) for each in self._objects]
        run_jobs(jobs, self._options.num_workers, count_progress(progress, "check", 0, self.total_bytes))
        wrong = [each for each in self._objects if not checks[each.key].is_good]
        for each in wrong:
            self._files[each.key].discard()
        if wrong:
            names = ", ".join(str(each.path) for each in wrong)
            raise DownloadError(f"{self._url}: {names} did not arrive as S3 has it (wrong ETag) and was thrown away")
        return checks

    def _place(self, entry: S3Object, folder: Path, verification: Verification) -> S3File:
        target = folder / entry.path
        self._files[entry.key].move_to(target)
        return S3File(target, entry.size_bytes, entry.etag, verification)

    def _part_file(self, entry: S3Object) -> PartFile:
        name = hashlib.sha256(entry.key.encode()).hexdigest()[:32]
        return PartFile(self._parts_folder / name, entry.etag, entry.size_bytes, self._options.part_bytes)

    def _check_space(self, missing_bytes: int) -> None:
        free_bytes = shutil.disk_usage(self._parts_folder.parent).free
        if missing_bytes > free_bytes:
            raise DownloadError(
                f"{self._url}: {missing_bytes / _MIB:,.0f} MiB are still to come and {self._parts_folder.parent} "
                f"has {free_bytes / _MIB:,.0f} MiB free"
            )


@contextmanager
def _locked(path: Path, progress: ProgressCallback) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        while True:
            try:
                lock.acquire(timeout=_LOCK_POLL_S)
                break
            except Timeout:
                progress(Progress("wait for another process", 0))
    except OSError as error:
        raise DownloadError(f"cannot write to {path.parent} ({error.strerror or error})") from error
    try:
        yield
    finally:
        lock.release()

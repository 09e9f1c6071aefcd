"""A cache folder that is built once and seen whole or not at all. Knows locks and renames, nothing about models.

models/
  <name>/                 complete, with a manifest of its key and file sizes
  .building/<name>/<id>/  under construction; swept by the next holder of the lock
  .locks/<name>.lock
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from workbench.errors import ModelLoadError
from workbench.progress import Progress, ProgressCallback, no_progress

__all__ = ["MANIFEST_NAME", "CachedFolder", "folder_bytes", "read_manifest"]

MANIFEST_NAME = "workbench-manifest.json"
_LOCK_POLL_S = 0.5


@dataclass(frozen=True)
class CachedFolder:
    """One entry of a cache: `parent/name`, valid for `key` (what it was made from, and by which recipe).

    `label` is what a list shows for it.
    """

    parent: Path
    name: str
    key: str
    label: str = ""

    @property
    def path(self) -> Path:
        """Where the finished folder lies."""
        return self.parent / self.name

    def is_ready(self) -> bool:
        """Whether the folder is there, was made for this key, and every file still has its size."""
        manifest = read_manifest(self.path)
        if manifest is None or manifest.get("key") != self.key:
            return False
        sizes: dict[str, int] = manifest.get("files", {})
        return all(_file_size(self.path / file) == size for file, size in sizes.items())

    def ensure(self, build: Callable[[Path], object], progress: ProgressCallback = no_progress) -> Path:
        """The finished folder; `build(temporary_folder)` fills it when it is not there yet.

        Several processes may call this at once: one builds, the others wait for it. Whatever `build` raises
        passes through, and nothing of its work stays.
        """
        if self.is_ready():
            return self.path
        with self._locked(progress):
            self._sweep()
            if not self.is_ready():
                self._build(build)
        return self.path

    def remove(self) -> int:
        """Delete the folder and anything half-made; gives the bytes freed (0 when there was nothing)."""
        with self._locked(no_progress):
            self._sweep()
            freed_bytes = folder_bytes(self.path)
            self._discard(self.path)
        return freed_bytes

    def _build(self, build: Callable[[Path], object]) -> None:
        temporary = self._building / uuid.uuid4().hex
        temporary.mkdir(parents=True)
        try:
            build(temporary)
            _write_manifest(temporary, self.key, self.label)
            # A folder that is there but not ready is damaged or made by an older recipe.
            self._discard(self.path)
            temporary.rename(self.path)
        finally:
            self._sweep()

    def _discard(self, folder: Path) -> None:
        """Take the folder out of sight in one step, then delete it."""
        if folder.is_symlink():
            # Somebody keeps the files elsewhere: they are theirs.
            folder.unlink()
        elif folder.exists():
            self._building.mkdir(parents=True, exist_ok=True)
            doomed = self._building / uuid.uuid4().hex
            folder.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def _sweep(self) -> None:
        """Delete what a killed process left behind. Only the holder of the lock may call this."""
        shutil.rmtree(self._building, ignore_errors=True)

    @property
    def _building(self) -> Path:
        return self.parent / ".building" / self.name

    @contextmanager
    def _locked(self, progress: ProgressCallback) -> Iterator[None]:
        lock_path = self.parent / ".locks" / f"{self.name}.lock"
        try:
            lock_path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(lock_path)
            while True:
                try:
                    lock.acquire(timeout=_LOCK_POLL_S)
                    break
                except Timeout:
                    progress(Progress("wait for another process", 0))
        except OSError as error:
            raise ModelLoadError(
                f"cannot write to the model cache {self.parent} ({error.strerror or error}); "
                "set WORKBENCH_HOME to a folder you may write to"
            ) from error
        try:
            yield
        finally:
            lock.release()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished cache folder, or None where there is none that parses."""
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def folder_bytes(folder: Path) -> int:
    """Sum of the sizes of all files below `folder`; 0 when it is not there."""
    return sum(_file_size(path) or 0 for path in folder.rglob("*"))


def _write_manifest(folder: Path, key: str, label: str) -> None:
    files = {str(path.relative_to(folder)): _file_size(path) for path in folder.rglob("*") if path.is_file()}
    (folder / MANIFEST_NAME).write_text(json.dumps({"key": key, "label": label, "files": files}, indent=2), "utf-8")


def _file_size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None

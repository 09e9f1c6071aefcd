"""Quantised models on disk: found by what they were made of and how, whole or not at all, the oldest given up first.

<folder>/
  <name>-<type>-<key>/   one model, with the manifest of `packed_folder`
  .building/             under construction; swept by the next holder of the lock
  .lock
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from workbench.errors import CacheError, ConfigError, ModelFormatError
from workbench.paths import home
from workbench.quantize.cache_entry import BYTES_PER_MB, CacheEntry, folder_bytes, folder_name
from workbench.quantize.config import QuantizationConfig
from workbench.quantize.packed_folder import (
    MANIFEST_NAME,
    PackedManifest,
    load_packed,
    packed_reader,
    read_manifest,
    save_packed,
    verify_packed,
)
from workbench.quantize.quantization_type import QuantizationType

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DEFAULT_MAX_BYTES", "QuantizationCache"]

DEFAULT_MAX_BYTES = 50 * 10**9
_LOCK_TIMEOUT_S = 600.0


class QuantizationCache:
    """Quantised models in a folder.

    Args:
        cache_dir: the folder; None is `quantized` below the workbench's home.
        max_bytes: what all entries together may take; the least recently used make room.

    Nothing is created before something is stored. Several processes may use one folder.
    """

    def __init__(
        self,
        cache_dir: str | Path | None = None,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_bytes < 1:
            raise ConfigError(f"max_bytes={max_bytes}: must be at least 1")
        self.cache_dir = home() / "quantized" if cache_dir is None else Path(cache_dir).expanduser().absolute()
        self.max_bytes = max_bytes
        self._clock = clock

    @property
    def cache_index(self) -> dict[str, dict[str, Any]]:
        """By entry a dict of `path`, `quantization_type`, `cached_at` (ISO) and `config` (the flags), read now."""
        return {entry.folder.name: entry.as_index() for entry in self.entries()}

    def entries(self) -> list[CacheEntry]:
        """What is there, the least recently used first. Entries that cannot be read are left out."""
        found = []
        for path in self.cache_dir.glob(f"*/{MANIFEST_NAME}"):
            try:
                found.append(CacheEntry.of(path.parent, read_manifest(path.parent)))
            except (ModelFormatError, OSError):
                continue
        return sorted(found, key=lambda entry: (entry.last_used_s, entry.folder.name))

    def cache_model(self, name: str, model: nn.Module, config: QuantizationConfig) -> Path:
        """Keep a quantised transformers model under `name` in place of an earlier one of that name and config.

        Raises ConfigError for a model that cannot be built again from its config, CacheError where the folder or the
        limit does not take it.
        """
        if not hasattr(getattr(model, "config", None), "save_pretrained"):
            raise ConfigError(f"{type(model).__name__} has no transformers config to build it again from")
        dtype = _dtype_of(model)
        manifest = PackedManifest(config=config, dtype=dtype, records=(), source={"model": name})
        return self.store(name, model, manifest, None)

    def load_cached_model(
        self, name: str, quantization_type: str | QuantizationType, *, device: str = "cpu"
    ) -> nn.Module | None:
        """The model that was kept under `name` last; None if there is none. A damaged one is removed."""
        kind = QuantizationType.parse(quantization_type).value
        for entry in reversed(self.entries()):
            # What a method keeps apart, only its own loads can read.
            if entry.name != name or entry.quantization_type != kind or entry.manifest.source.get("kept_by"):
                continue
            try:
                with packed_reader(entry.folder, entry.manifest, device) as reader:
                    model = load_packed(entry.folder, entry.manifest, reader, device=device)
            except ModelFormatError:
                self.remove(entry.folder.name)
                continue
            self._touch(entry.folder)
            return model
        return None

    def find(
        self, name: str, config: QuantizationConfig, *, dtype: str, source: Mapping[str, Any], verify: bool = True
    ) -> CacheEntry | None:
        """The entry made of the same files in the same way by the same libraries; None if there is none.

        Its bytes are checked, and a damaged one is removed. Who passes `verify=False` checks them while reading.
        """
        folder = self.cache_dir / folder_name(name, config, dtype, source)
        if not folder.is_dir():
            return None
        try:
            manifest = read_manifest(folder)
            if verify:
                verify_packed(folder, manifest)
        except ModelFormatError:
            self.remove(folder.name)
            return None
        self._touch(folder)
        return CacheEntry.of(folder, manifest)

    def store(self, name: str, model: nn.Module, manifest: PackedManifest, source_folder: Path | None) -> Path:
        """Write a quantised model; it is there whole or not at all. Raises CacheError."""
        folder = self.cache_dir / folder_name(name, manifest.config, manifest.dtype, manifest.source)
        with self._locked():
            temporary = self._building / uuid.uuid4().hex
            try:
                temporary.mkdir(parents=True)
                _check_space(temporary, model)
                save_packed(model, _named(manifest, name, self._clock()), temporary, source_folder)
                num_bytes = folder_bytes(temporary)
                if num_bytes > self.max_bytes:
                    raise CacheError(f"it takes {num_bytes:,} bytes and the cache's limit is {self.max_bytes:,}")
                self._make_room(num_bytes, folder)
                _discard(folder, self._building)
                temporary.rename(folder)
            except OSError as error:
                raise self._unwritable(error) from error
            finally:
                shutil.rmtree(self._building, ignore_errors=True)
        return folder

    def stats(self) -> dict[str, Any]:
        """`total_models`, `cache_size` (MB of 1024 * 1024 bytes), `max_size` (MB) and `models`, a list of dicts."""
        entries = self.entries()
        return {
            "total_models": len(entries),
            "cache_size": sum(entry.num_bytes for entry in entries) / BYTES_PER_MB,
            "max_size": self.max_bytes / BYTES_PER_MB,
            "models": [entry.as_row() for entry in entries],
        }

    # The documented name.
    get_cache_stats = stats

    def remove(self, name: str, quantization_type: str | QuantizationType | None = None) -> int:
        """Delete the entries of a model (of one type only, if given), or the entry of that folder name.

        Gives the bytes freed, 0 when there was nothing. Raises CacheError where the folder cannot be written.
        """
        kind = None if quantization_type is None else QuantizationType.parse(quantization_type).value
        doomed = [
            entry.folder
            for entry in self.entries()
            if entry.folder.name == name or (entry.name == name and kind in (None, entry.quantization_type))
        ]
        # A damaged entry is in no list, but its folder has a name.
        if not doomed and re.fullmatch(r"[\w.-]+", name) and not name.startswith("."):
            doomed = [self.cache_dir / name] if (self.cache_dir / name).is_dir() else []
        return self._delete(doomed)

    def clear(self) -> int:
        """Delete everything. Gives the bytes freed."""
        folders = [path for path in self.cache_dir.glob("*") if path.is_dir() and not path.name.startswith(".")]
        return self._delete(folders)

    def _delete(self, folders: list[Path]) -> int:
        if not folders:
            return 0
        freed_bytes = 0
        with self._locked():
            for folder in folders:
                num_bytes = folder_bytes(folder)
                try:
                    _discard(folder, self._building)
                except OSError as error:
                    raise self._unwritable(error) from error
                freed_bytes += num_bytes
            shutil.rmtree(self._building, ignore_errors=True)
        return freed_bytes

    def _make_room(self, num_bytes: int, replaced: Path) -> None:
        entries = [entry for entry in self.entries() if entry.folder != replaced]
        total_bytes = num_bytes + sum(entry.num_bytes for entry in entries)
        for entry in entries:
            if total_bytes <= self.max_bytes:
                return
            _discard(entry.folder, self._building)
            total_bytes -= entry.num_bytes

    def _touch(self, folder: Path) -> None:
        """Mark as used now. A folder that is not ours to write stays usable."""
        try:
            os.utime(folder / MANIFEST_NAME, (self._clock(), self._clock()))
        except OSError:
            pass

    @property
    def _building(self) -> Path:
        return self.cache_dir / ".building"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self.cache_dir / ".lock")
        try:
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_LOCK_TIMEOUT_S)
        except Timeout:
            raise CacheError(f"another process has held {self.cache_dir} for {_LOCK_TIMEOUT_S:.0f} s") from None
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield
        finally:
            lock.release()

    def _unwritable(self, error: OSError) -> CacheError:
        return CacheError(
            f"cannot write to the cache {self.cache_dir} ({error.strerror or error}): make room or set WORKBENCH_HOME "
            "to a folder you may write to"
        )


def _named(manifest: PackedManifest, name: str, now_s: float) -> PackedManifest:
    facts = {**vars(manifest), "source": {**manifest.source, "name": name, "cached_at_s": now_s}}
    return PackedManifest(**facts)


def _dtype_of(model: nn.Module) -> str:
    from workbench.backends import parse_dtype

    return parse_dtype(str(getattr(model.config, "dtype", None) or next(model.parameters()).dtype))


def _check_space(folder: Path, model: nn.Module) -> None:
    from workbench.quantize.memory import storage_bytes

    needed_bytes = storage_bytes(model)
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise CacheError(f"it takes {needed_bytes:,} bytes and {free_bytes:,} are free on the disk of {folder.parent}")


def _discard(folder: Path, building: Path) -> None:
    """Take a folder out of sight in one step, then delete it."""
    if folder.exists():
        building.mkdir(parents=True, exist_ok=True)
        doomed = building / uuid.uuid4().hex
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

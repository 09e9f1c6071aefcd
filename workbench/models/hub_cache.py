"""What the hub's cache on this machine holds. Reads its folders only: models--org--name/snapshots/<commit>/files."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CachedRepo", "cached_repos", "hub_cache_folder", "remove_repo"]

_PREFIX = "models--"
_WEIGHT_SUFFIXES = (".safetensors", ".bin")


@dataclass(frozen=True)
class CachedRepo:
    """A model in the hub's cache, which other tools share. `path` is its newest snapshot."""

    repo: str
    size_bytes: int
    path: Path
    has_weights: bool


def hub_cache_folder() -> Path:
    """Where huggingface_hub keeps its cache, by the same variables."""
    if configured := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(configured).expanduser()
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("HF_HOME") or cache_home / "huggingface").expanduser() / "hub"


def cached_repos() -> list[CachedRepo]:
    """Every model repository that has a snapshot, by name."""
    found = (_read(folder) for folder in sorted(hub_cache_folder().glob(f"{_PREFIX}*--*")))
    return [repo for repo in found if repo is not None]


def remove_repo(repo: str) -> int:
    """Delete a repository with all its revisions; gives the bytes freed, 0 when it is not there."""
    folder = hub_cache_folder() / (_PREFIX + repo.replace("/", "--"))
    freed_bytes = _blob_bytes(folder)
    if folder.is_dir():
        shutil.rmtree(folder)
    return freed_bytes


def _read(folder: Path) -> CachedRepo | None:
    snapshots = [path for path in folder.glob("snapshots/*") if path.is_dir()]
    if not snapshots:
        return None
    newest = max(snapshots, key=lambda path: path.stat().st_mtime)
    has_weights = any(path.suffix in _WEIGHT_SUFFIXES for path in newest.iterdir())
    repo = folder.name.removeprefix(_PREFIX).replace("--", "/", 1)
    return CachedRepo(repo, _blob_bytes(folder), newest, has_weights)


def _blob_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())

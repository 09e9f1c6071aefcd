"""A .gguf file of the user's, converted once: the cache entry that belongs to it."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

from workbench.errors import ModelLoadError
from workbench.models.cached_folder import CachedFolder
from workbench.models.conversion import CONVERSION_VERSION, convert_gguf
from workbench.models.gguf_header import GgufHeader, read_gguf_header
from workbench.models.load_memory import check_memory
from workbench.paths import models_cache
from workbench.progress import ProgressCallback

__all__ = ["GGUF_PREFIX", "fetch_gguf", "gguf_folder"]

GGUF_PREFIX = "gguf-"


def gguf_folder(path: Path) -> CachedFolder:
    """The cache entry of the file at `path`. One entry a path; the key changes when the file does."""
    stem = re.sub(r"[^\w.-]+", "-", path.stem)[:60]
    path_digest = hashlib.sha256(str(path).encode()).hexdigest()[:10]
    stat = path.stat() if path.exists() else None
    identity = f"{stat.st_size}:{stat.st_mtime_ns}" if stat else "gone"
    key = f"{path}:{identity}:{CONVERSION_VERSION}"
    return CachedFolder(models_cache(), f"{GGUF_PREFIX}{stem}-{path_digest}", key, label=str(path))


def fetch_gguf(path: Path, progress: ProgressCallback) -> Path:
    """Folder in transformers' form made from the .gguf file at `path`, converted on the first call.

    Raises `ModelFormatError` for a damaged file, `OutOfMemoryError` or `ModelLoadError` when memory or disk are too
    small for the unpacked weights.
    """
    folder = gguf_folder(path)
    if not folder.is_ready():
        header = read_gguf_header(path)
        needed_bytes = header.num_parameters * _bytes_per_weight(header)
        check_memory(needed_bytes, "cpu", "fp32")
        folder.ensure(lambda temporary: _build(path, needed_bytes, temporary, progress), progress)
    return folder.path


def _build(path: Path, needed_bytes: int, temporary: Path, progress: ProgressCallback) -> None:
    free_bytes = shutil.disk_usage(temporary).free
    if free_bytes < needed_bytes:
        raise ModelLoadError(
            f"unpacking {path.name} takes {needed_bytes / 1e9:.2f} GB below {models_cache()} and "
            f"{free_bytes / 1e9:.2f} GB are free; make room or set WORKBENCH_HOME to a larger disk"
        )
    convert_gguf(path, temporary, progress)


def _bytes_per_weight(header: GgufHeader) -> int:
    # Files in one half precision stay so; everything else unpacks to float32.
    types = {tensor.type_name for tensor in header.tensors} - {"F32"}
    return 2 if types in ({"F16"}, {"BF16"}) else 4

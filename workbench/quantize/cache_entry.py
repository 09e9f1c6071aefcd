"""One quantised model that is kept on disk: what its folder is called, what it holds, when it was used last."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from workbench.quantize.config import QuantizationConfig
from workbench.quantize.packed_folder import MANIFEST_NAME, PackedManifest

__all__ = ["BYTES_PER_MB", "CacheEntry", "folder_bytes", "folder_name"]

BYTES_PER_MB = 1024**2
# Libraries that decide what the rounded numbers are.
_VERSIONED = ("torch", "transformers", "bitsandbytes")


@dataclass(frozen=True)
class CacheEntry:
    """One model in the cache. `last_used_s` counts from the epoch; `name` is that of the model."""

    folder: Path
    name: str
    manifest: PackedManifest
    num_bytes: int
    cached_at: str
    last_used_s: float

    @property
    def quantization_type(self) -> str:
        """The type's name."""
        return self.manifest.config.quantization_type.value

    @classmethod
    def of(cls, folder: Path, manifest: PackedManifest) -> CacheEntry:
        """The entry in a folder. Raises OSError where it cannot be read."""
        cached_at = datetime.fromtimestamp(manifest.source.get("cached_at_s", 0), UTC).isoformat(timespec="seconds")
        last_used_s = (folder / MANIFEST_NAME).stat().st_mtime
        name = str(manifest.source.get("name", folder.name))
        return cls(folder, name, manifest, folder_bytes(folder), cached_at, last_used_s)

    def as_index(self) -> dict[str, Any]:
        """`path`, `quantization_type`, `cached_at` and `config`, the flags."""
        config = asdict(self.manifest.config)
        del config["quantization_type"]
        return {
            "path": str(self.folder),
            "quantization_type": self.quantization_type,
            "cached_at": self.cached_at,
            "config": config,
        }

    def as_row(self) -> dict[str, Any]:
        """What a list of models shows: `entry`, `model_name`, type, `size` in MB, and when it was made and used."""
        return {
            "entry": self.folder.name,
            "model_name": self.name,
            "quantization_type": self.quantization_type,
            "size": self.num_bytes / BYTES_PER_MB,
            "cached_at": self.cached_at,
            "last_used": datetime.fromtimestamp(self.last_used_s, UTC).isoformat(timespec="seconds"),
        }


def folder_name(name: str, config: QuantizationConfig, dtype: str, source: Mapping[str, Any]) -> str:
    """The folder of a model that was made of `source` in this way by these libraries: the same for the same."""
    key = {
        "name": name,
        "config": {**asdict(config), "quantization_type": config.quantization_type.value},
        "dtype": dtype,
        "source": source,
        "versions": {package: _version(package) for package in _VERSIONED},
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:16]
    stem = re.sub(r"[^\w.-]+", "-", name).strip(".-")[:60] or "model"
    return f"{stem}-{config.quantization_type.value}-{digest}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())

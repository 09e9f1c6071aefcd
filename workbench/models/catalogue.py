"""Every model this machine can name: resolve a name to files, list what is cached, fetch, remove."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import ConfigError
from workbench.models.cached_folder import folder_bytes
from workbench.models.embedded import EMBEDDED_GGUF, EMBEDDED_NAME, embedded_folder, fetch_embedded
from workbench.models.files import ModelFiles
from workbench.models.folder import check_folder
from workbench.models.source import ModelSource, SourceKind, parse_source
from workbench.progress import ProgressCallback, no_progress

__all__ = ["Catalogue", "CatalogueEntry"]


@dataclass(frozen=True)
class CatalogueEntry:
    """One line of the list. `size_bytes` is what it takes on disk, None while it is not here."""

    name: str
    kind: SourceKind
    size_bytes: int | None
    path: Path | None
    ready: bool


class Catalogue:
    """The one place that knows all kinds of model sources. Holds no state: the disk is the truth."""

    def resolve(
        self,
        name: str | os.PathLike[str],
        *,
        progress: ProgressCallback = no_progress,
        allow_pickle: bool = False,
        trust_remote_code: bool = False,
    ) -> ModelFiles:
        """The checked files that `name` stands for, downloaded and converted first where needed.

        Raises `ConfigError`, `ModelNotFoundError`, `ModelFormatError`, `UnsafeModelError`, `DownloadError`, or what
        `progress` raises.
        """
        source = parse_source(name)
        files = self._locate(source, progress, allow_pickle, trust_remote_code)
        if files.path is not None:
            check_folder(files.path, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
        return files

    def list(self) -> list[CatalogueEntry]:
        """The embedded model and everything cached, whether ready or not."""
        folder = embedded_folder()
        ready = folder.is_ready()
        size_bytes = folder_bytes(folder.path) if ready else None
        return [CatalogueEntry("default", "embedded", size_bytes, folder.path if ready else None, ready)]

    def fetch(self, name: str | os.PathLike[str], progress: ProgressCallback = no_progress) -> ModelFiles:
        """Make sure that `name` is on this machine; the same errors as `resolve`."""
        return self.resolve(name, progress=progress)

    def remove(self, name: str | os.PathLike[str]) -> int:
        """Delete what this package cached for `name`; gives the bytes freed. The user's own files are never deleted."""
        source = parse_source(name)
        if source.kind == "embedded":
            return embedded_folder().remove()
        raise ConfigError(f"{name} is not in this package's cache, so it cannot be removed from it")

    def path(self, name: str | os.PathLike[str], progress: ProgressCallback = no_progress) -> Path:
        """Folder that transformers can load for `name`, fetched first where needed."""
        files = self.resolve(name, progress=progress)
        if files.path is None:
            raise ConfigError(f"{name} has no files: its weights are made in memory")
        return files.path

    def _locate(
        self, source: ModelSource, progress: ProgressCallback, allow_pickle: bool, trust_remote_code: bool
    ) -> ModelFiles:
        permissions = {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
        match source.kind:
            case "embedded":
                path = fetch_embedded(progress)
                return ModelFiles(source, EMBEDDED_NAME, path, gguf_path=path / EMBEDDED_GGUF.name, **permissions)
            case "folder":
                path = Path(source.location)
                return ModelFiles(source, path.name, path, **permissions)
        raise ConfigError(f"{source.kind} sources are not available")

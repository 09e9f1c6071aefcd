"""Every model this machine can name: resolve a name to files, list what is cached, fetch, remove."""

from __future__ import annotations

import builtins
import difflib
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from workbench.aws import S3Url
from workbench.errors import ConfigError, ModelNotFoundError
from workbench.models.cached_folder import folder_bytes, read_manifest
from workbench.models.embedded import EMBEDDED_GGUF, EMBEDDED_NAME, embedded_folder, fetch_embedded
from workbench.models.files import ModelFiles
from workbench.models.folder import check_folder
from workbench.models.gguf_model import GGUF_PREFIX, fetch_gguf, gguf_folder
from workbench.models.hub import fetch_hub
from workbench.models.hub_cache import cached_repos, remove_repo
from workbench.models.model_sources import fetch_from
from workbench.models.presets import PRESETS, get_preset
from workbench.models.s3_model import S3_PREFIX, s3_folder
from workbench.models.source import ModelSource, SourceKind, parse_source
from workbench.paths import models_cache
from workbench.progress import ProgressCallback, no_progress
from workbench.twin import HasTwin, Twin

__all__ = ["Catalogue", "CatalogueEntry"]


@dataclass(frozen=True)
class CatalogueEntry:
    """One line of the list. `size_bytes` is what it takes on disk, None while it is not here."""

    name: str
    kind: SourceKind
    size_bytes: int | None
    path: Path | None
    ready: bool


class Catalogue(HasTwin):
    """The one place that knows all kinds of model sources. Holds no state: the disk is the truth."""

    def twin(self) -> Twin:
        """The models by name, and whether each is here."""
        return Twin(
            "Catalogue", tuple((entry.name, "here" if entry.ready else "to be fetched") for entry in self.list())
        )

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
        source = self._parse(name)
        files = _locate(source, progress, allow_pickle, trust_remote_code)
        if files.path is not None:
            check_folder(files.path, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
        return files

    def list(self) -> builtins.list[CatalogueEntry]:
        """The embedded model, converted .gguf files and cached models of S3 and the hub, whether ready or not."""
        return [_embedded_entry(), *_gguf_entries(), *_s3_entries(), *_hub_entries()]

    def fetch(self, name: str | os.PathLike[str], progress: ProgressCallback = no_progress) -> ModelFiles:
        """Make sure that `name` is on this machine; the same errors as `resolve`."""
        return self.resolve(name, progress=progress)

    def remove(self, name: str | os.PathLike[str]) -> int:
        """Delete what was cached for `name`; gives the bytes freed. The user's own files are never deleted.

        A hub model goes from the hub's shared cache, with all its revisions. Raises `ConfigError` for what no cache
        holds and `ModelNotFoundError` when nothing is cached for it.
        """
        source = _removable_source(name)
        match source.kind:
            case "embedded":
                freed_bytes = embedded_folder().remove()
            case "gguf":
                freed_bytes = gguf_folder(Path(source.location)).remove()
            case "s3":
                freed_bytes = s3_folder(S3Url.parse(source.text)).remove()
            case _:
                freed_bytes = remove_repo(source.location)
        if not freed_bytes:
            raise ModelNotFoundError(f"nothing is cached for {source.text}; cached are: {self._cached_names()}")
        return freed_bytes

    def path(self, name: str | os.PathLike[str], progress: ProgressCallback = no_progress) -> Path:
        """Folder that transformers can load for `name`, fetched first where needed."""
        files = self.resolve(name, progress=progress)
        if files.path is None:
            raise ConfigError(f"{name} has no files: its weights are made in memory")
        return files.path

    def _parse(self, name: str | os.PathLike[str]) -> ModelSource:
        try:
            return parse_source(name)
        except ModelNotFoundError as error:
            message = str(error)
        near = self._near_names(str(name))
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ModelNotFoundError(f"{message}. {hint}Here now: {self._cached_names()}")

    def _near_names(self, name: str) -> builtins.list[str]:
        path = Path(name).expanduser()
        siblings = {str(path.with_name(entry.name)): entry for entry in path.parent.glob("*") if path.parent != path}
        candidates = ["default", *PRESETS, *(f"random:{preset}" for preset in PRESETS), *siblings]
        candidates += [entry.name for entry in self.list()]
        near = difflib.get_close_matches(name, candidates, n=3, cutoff=0.7)
        return list(dict.fromkeys(f"'random:{match}'" if match in PRESETS else f"'{match}'" for match in near))

    def _cached_names(self) -> str:
        return ", ".join(entry.name for entry in self.list() if entry.ready) or "nothing yet"


def _locate(source: ModelSource, progress: ProgressCallback, allow_pickle: bool, trust_remote_code: bool) -> ModelFiles:
    found = partial(ModelFiles, source, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    match source.kind:
        case "embedded":
            path = fetch_embedded(progress)
            return found(EMBEDDED_NAME, path, gguf_path=path / EMBEDDED_GGUF.name)
        case "folder":
            path = Path(source.location)
            return found(path.name, path)
        case "hub":
            path = fetch_hub(source, progress, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
            return found(source.text, path)
        case "gguf":
            gguf = Path(source.location)
            return found(gguf.stem, fetch_gguf(gguf, progress), gguf_path=gguf)
        case "s3":
            name = S3Url.parse(source.text).name
            return found(name, fetch_from("s3", source.location, progress))
        case "plugin":
            scheme, _, location = source.location.partition(":")
            return found(source.text, fetch_from(scheme, location, progress))
        case "random":
            get_preset(source.location)
            return found(source.text, None)


def _removable_source(name: str | os.PathLike[str]) -> ModelSource:
    text = str(name)
    if text.endswith(".gguf"):
        # The file itself may be gone while its conversion is still there.
        return ModelSource("gguf", str(Path(text).expanduser().absolute()), None, text)
    source = parse_source(name)
    if source.kind not in ("embedded", "hub", "s3"):
        raise ConfigError(f"{name} is not in a cache, so it cannot be removed from one")
    if source.revision:
        raise ConfigError(f"{name}: a hub model is removed with all its revisions; leave out '@{source.revision}'")
    return source


def _embedded_entry() -> CatalogueEntry:
    folder = embedded_folder()
    if not folder.is_ready():
        return CatalogueEntry("default", "embedded", None, None, False)
    return CatalogueEntry("default", "embedded", folder_bytes(folder.path), folder.path, True)


def _gguf_entries() -> list[CatalogueEntry]:
    entries = []
    for path in sorted(models_cache().glob(f"{GGUF_PREFIX}*")):
        label = (read_manifest(path) or {}).get("label")
        if label:
            ready = gguf_folder(Path(label)).is_ready()
            entries.append(CatalogueEntry(label, "gguf", folder_bytes(path), path, ready))
    return entries


def _s3_entries() -> list[CatalogueEntry]:
    entries = []
    for path in sorted(models_cache().glob(f"{S3_PREFIX}*")):
        label = (read_manifest(path) or {}).get("label")
        if label:
            ready = s3_folder(S3Url.parse(label)).is_ready()
            entries.append(CatalogueEntry(label, "s3", folder_bytes(path), path, ready))
    return entries


def _hub_entries() -> list[CatalogueEntry]:
    return [CatalogueEntry(repo.repo, "hub", repo.size_bytes, repo.path, repo.has_weights) for repo in cached_repos()]

"""What a model name means. Turns text into a `ModelSource`; looks at the disk only to see whether a path exists."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workbench.errors import ConfigError, ModelNotFoundError
from workbench.models.model_sources import find_source

__all__ = ["NAME_FORMS", "ModelSource", "SourceKind", "parse_source"]

SourceKind = Literal["embedded", "folder", "hub", "gguf", "random", "s3", "plugin"]

NAME_FORMS = (
    "'default' (the embedded model), a local folder, a .gguf file, "
    "a hub id 'org/name' or 'org/name@revision', 's3://bucket/prefix', or 'random:<preset>'"
)

# The hub's own rule: letters, digits, "-", "_" and ".", at most 96 characters a part.
_HUB_ID = re.compile(r"(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})(@(?P<revision>[^\s@]+))?", re.ASCII)
_EMBEDDED_NAMES = frozenset({"default", "embedded"})


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    `location` is the absolute path, the hub id without revision, the preset name, "default", "bucket/prefix" in S3, or
    "scheme:location" of a source that a plugin brings;
    `revision` is given only for hub ids; `text` is what the caller wrote.
    """

    kind: SourceKind
    location: str
    revision: str | None
    text: str


def parse_source(text: str | os.PathLike[str]) -> ModelSource:
    """The source that `text` names.

    What exists on disk wins over a hub id of the same spelling. Raises `ConfigError` when nothing was named and
    `ModelNotFoundError` when the text has no known form or names a path that is not there.
    """
    name = os.fspath(text) if isinstance(text, (str, os.PathLike)) else text
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise ConfigError(f"model_path must name a model, got {text!r}; allowed: {NAME_FORMS}")
    name = name.strip()
    if name in _EMBEDDED_NAMES:
        return ModelSource("embedded", "default", None, name)
    if name.startswith("random:"):
        return ModelSource("random", name.removeprefix("random:"), None, name)
    elsewhere = find_source(name)
    if elsewhere is not None:
        scheme, location = elsewhere
        return ModelSource(*(("s3", location) if scheme == "s3" else ("plugin", f"{scheme}:{location}")), None, name)
    path = Path(name).expanduser().absolute()
    # Unlike the methods of Path these say no to a name that is too long for the system.
    if os.path.isdir(path):
        return ModelSource("folder", str(path), None, name)
    if os.path.isfile(path):
        return _file_source(path, name)
    hub_id = _HUB_ID.fullmatch(name)
    if hub_id and not _looks_like_path(name):
        return ModelSource("hub", hub_id["repo"], hub_id["revision"], name)
    raise ModelNotFoundError(_not_found_text(name, path))


def _file_source(path: Path, name: str) -> ModelSource:
    if path.suffix.lower() == ".gguf":
        return ModelSource("gguf", str(path), None, name)
    hint = f"; for a safetensors model name its folder: {path.parent}" if path.suffix == ".safetensors" else ""
    raise ConfigError(f"model_path names the file {path}, and of files only .gguf can be loaded{hint}")


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or "\\" in name or name.lower().endswith((".gguf", ".safetensors"))


def _not_found_text(name: str, path: Path) -> str:
    if _looks_like_path(name) or "/" in name:
        return f"no file or folder at {path}; a model name is {NAME_FORMS}"
    return f"no model is called {name!r}; a model name is {NAME_FORMS}"

"""Which models a request may have loaded. Says the same of what is forbidden and of what is not there."""

from __future__ import annotations

import re
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.models import Catalogue
from workbench.server.errors import ApiError, invalid, load_error
from workbench.server.settings import LoadSettings

__all__ = ["ModelPolicy"]

_EMBEDDED = frozenset({"default", "embedded"})
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_REVISION = re.compile(r"[\w./-]{1,128}", re.ASCII)
_RANDOM = re.compile(r"random:[\w.-]{1,64}", re.ASCII)
# Path separators of other systems, drive letters, URLs, home folders: none of these is a path below a folder.
_NOT_A_RELATIVE_PATH = re.compile(r"[\\:\x00-\x1f]|^[/~]|(^|/)\.\.(/|$)")


class ModelPolicy:
    """Turns names from requests into model sources. `known` are sources chosen when the server was started."""

    def __init__(self, load: LoadSettings, known: tuple[str, ...] = ()) -> None:
        self._load = load
        self._known = frozenset(known)
        self._roots = tuple(Path(root).expanduser().resolve() for root in load.model_roots)

    def source(self, name: str, revision: str | None = None) -> str:
        """What to load for this name. Raises a 403 unless it is allowed and there."""
        if _HUB_ID.fullmatch(name) and self._load.allow_hub and self._below_roots(name) is None:
            return f"{name}@{self._revision(revision)}" if revision else name
        if revision is not None:
            raise invalid("revision is only known for models of a hub", param="revision")
        if name in _EMBEDDED or name in self._known or (self._load.allow_random and _RANDOM.fullmatch(name)):
            return name
        path = self._below_roots(name)
        if path is None:
            raise ApiError(
                403, "that is not a model that this server may load", param="model", code="model_not_allowed"
            )
        return str(path)

    @staticmethod
    def check(source: str) -> None:
        """Look at the model's files: they are fetched where needed, and nothing in them is run. Takes its time."""
        try:
            Catalogue().resolve(source)
        except WorkbenchError as error:
            raise load_error(type(error).__name__) from error

    def _below_roots(self, name: str) -> Path | None:
        """The model of that name in one of the folders, with every link followed."""
        if not name or _NOT_A_RELATIVE_PATH.search(name):
            return None
        for root in self._roots:
            try:
                path = (root / name).resolve()
                is_model = path.is_dir() or path.suffix.lower() == ".gguf" and path.is_file()
            except OSError:
                continue
            if is_model and path != root and path.is_relative_to(root):
                return path
        return None

    @staticmethod
    def _revision(revision: str) -> str:
        if not _REVISION.fullmatch(revision):
            raise invalid("revision must be a branch, a tag or a commit", param="revision")
        return revision

"""A plugin's modules in and out of this process. Knows import paths, nothing of what plugins do."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from workbench.errors import PluginError
from workbench.plugins.candidates import Candidate

__all__ = ["PluginModule"]


class PluginModule:
    """A plugin that was imported.

    Attributes:
        module: the module of its path.
        plugin: what the path's attribute names, else a `plugin` of the module, else the module; a class is made into
            an object.

    An installed plugin is found in its own folder only, and cannot take the place of a module that is there without
    it. Raises PluginError.
    """

    def __init__(self, candidate: Candidate) -> None:
        self._candidate = candidate
        name, _, attribute = candidate.path.partition(":")
        if not all(part.isidentifier() for part in name.split(".")) or (attribute and not attribute.isidentifier()):
            raise PluginError(f"plugin {candidate.name}: {candidate.path!r} is no path like 'package.module:plugin'")
        # What others have imported too is not ours to take out.
        self._was_here = name in sys.modules
        if candidate.folder is not None:
            _enter(candidate)
        try:
            self.module: ModuleType = importlib.import_module(name)
            found = getattr(self.module, attribute) if attribute else getattr(self.module, "plugin", self.module)
            self.plugin: Any = found() if isinstance(found, type) else found
        except Exception as error:
            self.forget()
            raise PluginError(f"plugin {candidate.name} cannot be imported: {type(error).__name__}: {error}") from error

    def forget(self) -> None:
        """Take its modules out, so that a later import reads its files again."""
        candidate = self._candidate
        if not self._was_here:
            for name, module in list(sys.modules.items()):
                is_own = name == candidate.module or name.startswith(f"{candidate.module}.")
                if is_own or _is_in(getattr(module, "__file__", None), candidate.folder):
                    del sys.modules[name]
        if candidate.folder is not None and str(candidate.folder) in sys.path:
            sys.path.remove(str(candidate.folder))
        importlib.invalidate_caches()


def _enter(candidate: Candidate) -> None:
    top = candidate.module.partition(".")[0]
    if top in sys.modules or importlib.util.find_spec(top) is not None:
        raise PluginError(f"plugin {candidate.name}: its module {top} is called like one that is here already")
    # At the end: whatever else lies in the folder must not hide modules of this environment.
    sys.path.append(str(candidate.folder))
    importlib.invalidate_caches()


def _is_in(file: str | None, folder: Path | None) -> bool:
    return file is not None and folder is not None and Path(file).is_relative_to(folder)

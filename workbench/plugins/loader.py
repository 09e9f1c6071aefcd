"""Brings a plugin's code into this process through every check, starts it and ends it. Keeps no plugin."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from workbench.errors import PluginError
from workbench.plugins.base import PluginContext
from workbench.plugins.candidates import Candidate, find_candidates
from workbench.plugins.loaded_plugin import LoadedPlugin, validated_metadata
from workbench.plugins.metadata import PluginMetadata, check_plugin_name, has_method
from workbench.plugins.modules import PluginModule
from workbench.plugins.registry import Contribution, collect
from workbench.plugins.requirements import require_fit
from workbench.plugins.store import PluginStore
from workbench.plugins.time_limit import within
from workbench.plugins.trial_import import fingerprint, try_import

__all__ = ["PluginLoader"]

_NUM_TRIED_KEPT = 200


class PluginLoader:
    """Imports, starts and ends plugins, each step within `time_limit_s` seconds.

    `allow`, if given, names the only plugins that are loaded, beside the allow-list of the store.
    """

    def __init__(self, store: PluginStore, allow: Iterable[str] | None, time_limit_s: float) -> None:
        self._store = store
        self._allow = None if allow is None else frozenset(map(check_plugin_name, allow))
        self._time_limit_s = time_limit_s

    def require_allowed(self, name: str) -> None:
        """Raise PluginError for a plugin outside of either allow-list."""
        if self._allow is not None and name not in self._allow:
            raise PluginError(f"plugin {name} is not on the allow-list ({', '.join(sorted(self._allow)) or 'empty'})")
        self._store.read().require_allowed(name)

    def bring_in(self, name: str, path: str | None) -> LoadedPlugin:
        """The plugin of that name, or the one at an import path, imported and found in order. Raises PluginError."""
        self.require_allowed(name)
        candidate = self._candidate(name, path)
        self._try_import(candidate)
        code = within(self._time_limit_s, f"plugin {name}: its import", partial(PluginModule, candidate))
        try:
            metadata = validated_metadata(candidate, code.plugin)
            self._require_as_installed(candidate, metadata)
            require_fit(name, metadata.requires_workbench, metadata.dependencies)
        except PluginError:
            code.forget()
            raise
        return LoadedPlugin(candidate, code, metadata)

    def start(self, loaded: LoadedPlugin) -> list[Contribution]:
        """Initialize it; gives what it registers. Raises PluginError with the reason."""
        name, plugin = loaded.metadata.name, loaded.code.plugin
        context = PluginContext(name, self._store.data_folder(name), dict(self._store.read().settings.get(name, {})))
        try:
            within(self._time_limit_s, f"plugin {name}: initialize", partial(plugin.initialize, context))
            return within(
                self._time_limit_s,
                f"plugin {name}: registering",
                partial(collect, name, plugin, loaded.metadata.permissions),
            )
        except PluginError:
            raise
        except Exception as error:  # boundary: it is the plugin's own code
            raise PluginError(f"plugin {name} cannot start: {type(error).__name__}: {error}") from error

    def end(self, loaded: LoadedPlugin) -> None:
        """Have it let go of everything. Raises whatever its `shutdown` raises, PluginError when that does not end."""
        if has_method(loaded.code.plugin, "shutdown"):
            within(self._time_limit_s, f"plugin {loaded.metadata.name}: shutdown", loaded.code.plugin.shutdown)

    def _candidate(self, name: str, path: str | None) -> Candidate:
        if path:
            return Candidate(name, path, "path")
        candidates = find_candidates(self._store)
        if name not in candidates:
            raise PluginError(f"there is no plugin {name!r}; there are {', '.join(sorted(candidates))}")
        return candidates[name]

    def _try_import(self, candidate: Candidate) -> None:
        """Try the import outside, unless the same files were tried before."""
        if candidate.origin == "shipped":
            return
        mark = fingerprint(candidate)
        if mark is not None and mark in self._store.read().tried:
            return
        try_import(candidate, self._time_limit_s)
        if mark is not None:
            with self._store.changing() as change:
                change.update(tried=(*change.state.tried[-_NUM_TRIED_KEPT:], mark))

    def _require_as_installed(self, candidate: Candidate, metadata: PluginMetadata) -> None:
        """Raise PluginError when an installed plugin is or wants something else than its index said."""
        record = self._store.read().installed.get(candidate.name)
        if candidate.origin != "installed" or record is None:
            return
        if metadata.version != record.version:
            raise PluginError(
                f"plugin {candidate.name}: it says version {metadata.version}, its index {record.version}"
            )
        more = sorted(set(metadata.permissions) - set(record.permissions))
        if more:
            raise PluginError(f"plugin {candidate.name} wants {', '.join(more)}, which its index did not say")

"""`PluginManager`: loads plugins, keeps what they register, calls their hooks, and shuts out those that fail."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

from workbench.errors import ConfigError, PluginError, WorkbenchError
from workbench.plugins.candidates import find_candidates
from workbench.plugins.events import EVENTS, PluginEventManager
from workbench.plugins.failures import FailureGuard, FailureRecord
from workbench.plugins.hook_table import HookTable
from workbench.plugins.loaded_plugin import LoadedPlugin, PluginStatus
from workbench.plugins.loader import PluginLoader
from workbench.plugins.metadata import check_plugin_name
from workbench.plugins.registry import BUILT_IN, Contribution, Registry, collect
from workbench.plugins.requests import FinishedRequest
from workbench.plugins.requirements import allows_version, missing_dependencies
from workbench.plugins.store import PluginStore
from workbench.plugins.worker import BackgroundWorker

__all__ = ["PluginManager"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class PluginManager:
    """The plugins of this process. Every method may be called from any thread.

    Args:
        store: where installed and enabled plugins are noted (default: below WORKBENCH_HOME).
        allow: if given, no other plugin is loaded; beside the allow-list of the store.
        max_failures: how often a plugin may raise before it is disabled.
        time_limit_s: longest an import, `initialize` or `shutdown` may take.

    A plugin that raises is reported (log, `failure`), what it was asked is done without it, and after `max_failures` it
    is shut down, disabled, and stays so until it is enabled again. Only PluginRefusal reaches callers.
    """

    def __init__(
        self,
        store: PluginStore | None = None,
        *,
        allow: Iterable[str] | None = None,
        max_failures: int = 3,
        time_limit_s: float = 20.0,
    ) -> None:
        self.store = store or PluginStore()
        self.events = PluginEventManager()
        self.worker = BackgroundWorker()
        # Of these no plugin needs to be looked for while a request is on its way.
        self.pre_request_hooks: tuple[tuple[str, Callable[..., Any]], ...] = ()
        self.post_request_hooks: tuple[tuple[str, Callable[..., Any]], ...] = ()
        self._loader = PluginLoader(self.store, allow, time_limit_s)
        self._hooks = HookTable()
        self._registry = Registry()
        self._built_ins: dict[int, object] = {}
        self._loaded: dict[str, LoadedPlugin] = {}
        self._guard = FailureGuard(max_failures, self._shut_out)
        self._problems: dict[str, str] = {}
        self._has_loaded_enabled = False
        self._lock = threading.RLock()
        for event in EVENTS:
            self.events.register_hook(event, partial(self._call_hooks, event))

    # The documented surface

    @property
    def plugins(self) -> dict[str, ModuleType]:
        """The modules of the loaded plugins, by name."""
        return {name: loaded.code.module for name, loaded in self._loaded.items()}

    def load_plugin(self, name: str, path: str) -> ModuleType | None:
        """Load the plugin at an import path ("module" or "module:attribute") under this name.

        None when that fails; `get_plugin_status` says why. `load` raises instead.
        """
        try:
            return self.load(name, path)
        except PluginError as error:
            _log.warning("plugin %s is not loaded: %s", name, error)
            return None

    def get_plugin(self, name: str) -> ModuleType | None:
        """The module of a loaded plugin, or None."""
        loaded = self._loaded.get(name)
        return None if loaded is None else loaded.code.module

    def unload_plugin(self, name: str) -> bool:
        """Shut a plugin down and take out all it registered and imported. False when it is not loaded."""
        with self._lock:
            loaded = self._loaded.get(name)
            if loaded is None:
                return False
            self.events.dispatch("pre_unload", name=name)
            problem = self._take_out(loaded)
        if problem is None:
            self.events.dispatch("post_unload", name=name)
        else:
            self.events.dispatch("failed_unload", name=name, error=problem)
        return True

    def reload_plugin(self, name: str) -> bool:
        """Load a plugin's files afresh. False, with the old one shut down, when it is not loaded or fails now."""
        with self._lock:
            loaded = self._loaded.get(name)
            if loaded is None:
                return False
            self.events.dispatch("pre_reload", name=name)
            self.unload_plugin(name)
            try:
                self.load(name, None if loaded.candidate.origin != "path" else loaded.candidate.path)
            except PluginError as error:
                self.events.dispatch("failed_reload", name=name, error=error)
                return False
        self.events.dispatch("post_reload", name=name)
        return True

    def list_plugins(self) -> list[str]:
        """Names of the loaded plugins, in the order they were loaded."""
        return list(self._loaded)

    def get_plugin_metadata(self, name: str) -> dict[str, Any]:
        """A loaded plugin's metadata; {} for one that is not loaded."""
        loaded = self._loaded.get(name)
        return loaded.metadata.as_dict() if loaded else {}

    def validate_plugin(self, name: str) -> bool:
        """Whether a loaded plugin has what a plugin needs: `initialize`, and metadata that can be read."""
        loaded = self._loaded.get(name)
        return loaded is not None and loaded.is_valid

    def get_plugin_status(self, name: str) -> str:
        """ "loaded | valid: True | dependencies: ok" and the like, or "not loaded" with the reason if one is known."""
        loaded = self._loaded.get(name)
        if loaded is None:
            reason = self._problems.get(name) or self.store.read().disabled.get(name)
            return f"not loaded | {reason}" if reason else "not loaded"
        dependencies = "missing" if missing_dependencies(loaded.metadata.dependencies) else "ok"
        status = f"loaded | valid: {loaded.is_valid} | dependencies: {dependencies}"
        failures = self._guard.failures.of(name)
        return f"{status} | failures: {failures.count} ({failures.message})" if failures.count else status

    def scan_available_plugins(self) -> list[str]:
        """Names of all plugins that could be loaded. Nothing of them is run."""
        return sorted(find_candidates(self.store))

    def is_plugin_compatible(self, name: str, required_version: str) -> bool:
        """Whether a loaded plugin's version is in a range like ">=1.2,<2", or is exactly the one given."""
        loaded = self._loaded.get(name)
        return loaded is not None and allows_version(loaded.metadata.version, required_version)

    # Beyond it

    def load(self, name: str, path: str | None = None) -> ModuleType:
        """Load a plugin that is there by its name, or the one at an import path. Raises PluginError with the reason.

        Its import is tried in a process of its own first, so that one that loops or crashes never gets in here.
        """
        check_plugin_name(name)
        with self._lock:
            self.events.dispatch("pre_load", name=name, path=path or "")
            try:
                loaded = self._bring_in(name, path)
            except PluginError as error:
                self._problems[name] = str(error)
                self.events.dispatch("failed_load", name=name, path=path or "", error=error)
                raise
            self._problems.pop(name, None)
        self.events.dispatch("post_load", name=name, path=loaded.candidate.path, module=loaded.code.module)
        return loaded.code.module

    def load_enabled(self) -> None:
        """Load every plugin that the user has enabled, once. What cannot be loaded is logged and left out."""
        if self._has_loaded_enabled:
            return
        with self._lock:
            if self._has_loaded_enabled:
                return
            self._has_loaded_enabled = True
            try:
                enabled = self.store.read().enabled
            except PluginError as error:
                _log.error("no plugin is loaded: %s", error)
                return
            for name in enabled:
                if name not in self._loaded:
                    try:
                        self.load(name)
                    except PluginError as error:
                        _log.error("plugin %s is enabled and cannot be loaded: %s", name, error)

    def enable(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        """Have a plugin loaded from now on, here and in later processes. Raises PluginError; then nothing changes.

        Failures so far are forgotten. `settings` take the place of earlier ones if given.
        """
        check_plugin_name(name)
        with self._lock:
            self._loader.require_allowed(name)
            before = self.store.read().settings.get(name)
            if settings is not None:
                self.store.keep_settings(name, settings)
            self._guard.failures.forget(name)
            try:
                if name in self._loaded and settings is not None:
                    self.unload_plugin(name)
                if name not in self._loaded:
                    self.load(name)
            except PluginError:
                if settings is not None:
                    self.store.keep_settings(name, before)
                raise
            with self.store.changing() as change:
                change.disable(name)
                change.update(enabled=(*change.state.enabled, name))

    def disable(self, name: str, reason: str | None = None) -> None:
        """Unload a plugin and do not load it again by itself."""
        with self.store.changing() as change:
            change.disable(check_plugin_name(name), reason)
        self.unload_plugin(name)

    def status(self, name: str) -> PluginStatus | None:
        """Where a plugin stands; None when it is not loaded."""
        loaded = self._loaded.get(name)
        return None if loaded is None else loaded.status

    def is_active(self, name: str) -> bool:
        """Whether a plugin is loaded and in service. Our own packages always are."""
        loaded = self._loaded.get(name)
        return name == BUILT_IN or (loaded is not None and loaded.status is PluginStatus.ACTIVE)

    def failure(self, name: str) -> FailureRecord:
        """How often a plugin has raised, and the last of it."""
        return self._guard.failures.of(name)

    def problem(self, name: str) -> str | None:
        """Why a plugin could not be loaded, or was disabled; None where nothing is wrong."""
        return self._problems.get(name)

    def object_of(self, name: str) -> object:
        """The plugin itself. Raises PluginError when it is not loaded."""
        loaded = self._loaded.get(name)
        if loaded is None:
            raise PluginError(f"plugin {name} is not loaded; loaded are: {', '.join(self._loaded) or 'none'}")
        return loaded.code.plugin

    def at(self, point: str, built_in: object | None = None) -> Mapping[str, Contribution]:
        """What is registered at an extension point, by name.

        `built_in` holds the hooks of the package that owns the point; they are asked once, before anybody else's.
        """
        if built_in is not None and id(built_in) not in self._built_ins:
            self._add_built_in(built_in)
        return self._registry.at(point)

    def lookup(self, point: str, name: str, built_in: object | None = None) -> Contribution | None:
        """What is registered at a point under a name; None when nothing is, also once the enabled plugins are loaded.

        For names that may be said before anything has loaded plugins, as in a config.
        """
        found = self.at(point, built_in).get(name)
        if found is None:
            self.load_enabled()
            found = self.at(point, built_in).get(name)
        return found

    def find(self, point: str, name: str, built_in: object | None = None) -> Contribution:
        """What `lookup` gives. Raises ConfigError that lists the names when there is nothing."""
        found = self.lookup(point, name, built_in)
        if found is None:
            names = ", ".join(sorted(self.at(point, built_in)))
            raise ConfigError(f"{point}: there is no {name!r}; there are {names or 'none'}")
        return found

    def attempt(self, plugin: str, what: str, function: Callable[[], _T], fallback: _T) -> _T:
        """What `function` of a plugin gives; `fallback` when the plugin is not active or raises, which is counted."""
        if plugin == BUILT_IN:
            return function()
        return self._guard.attempt(plugin, what, function, fallback) if self.is_active(plugin) else fallback

    def report_failure(self, plugin: str, what: str, error: BaseException) -> None:
        """Count a failure of a plugin; the one too many disables it."""
        self._guard.report(plugin, what, error)

    def after_request(self, finished: FinishedRequest) -> None:
        """Tell plugins of an answer that has ended, on the worker's thread."""
        for plugin, hook in self.post_request_hooks:
            self.worker.put(partial(self.attempt, plugin, "post_request", partial(hook, finished), None))

    def shutdown(self) -> None:
        """Shut every plugin down, the last loaded first, and end the worker."""
        self.worker.stop()
        for name in reversed(self.list_plugins()):
            self.unload_plugin(name)

    def __enter__(self) -> PluginManager:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()

    def _bring_in(self, name: str, path: str | None) -> LoadedPlugin:
        self._loader.require_allowed(name)
        if name in self._loaded:
            raise PluginError(f"plugin {name} is loaded already (version {self._loaded[name].metadata.version})")
        loaded = self._loader.bring_in(name, path)
        try:
            self._hooks.add(loaded.code.plugin, loaded.metadata)
        except PluginError:
            loaded.code.forget()
            raise
        self._loaded[name] = loaded
        try:
            self._registry.add(self._loader.start(loaded))
        except PluginError:
            self._take_out(loaded)
            raise
        loaded.status = PluginStatus.ACTIVE
        self._find_request_hooks()
        return loaded

    def _take_out(self, loaded: LoadedPlugin) -> Exception | None:
        """Unload; gives what `shutdown` raised."""
        name = loaded.metadata.name
        loaded.status = PluginStatus.SHUT_DOWN
        self._registry.remove(name)
        self._find_request_hooks()
        problem: Exception | None = None
        try:
            self._loader.end(loaded)
        except Exception as error:  # boundary: it is the plugin's own code
            self._guard.failures.note(name, "shutdown", error)
            problem = error
        self._hooks.remove(name)
        self._loaded.pop(name, None)
        loaded.code.forget()
        return problem

    def _find_request_hooks(self) -> None:
        self.pre_request_hooks = self._implementations("pre_request")
        self.post_request_hooks = self._implementations("post_request")

    def _implementations(self, hook: str) -> tuple[tuple[str, Callable[..., Any]], ...]:
        """Plugin and function of each implementation of a request's hook, in the order of loading."""
        found = self._hooks.of(hook)
        return tuple(
            (name, partial(_ask, found[name])) for name in self._loaded if name in found and self.is_active(name)
        )

    def _call_hooks(self, hook: str, **arguments: Any) -> None:
        """Pass an event on to the plugins that implement its hook."""
        for name, function in self._hooks.of(hook).items():
            self.attempt(name, hook, partial(function, **arguments), None)

    def _add_built_in(self, built_in: object) -> None:
        with self._lock:
            if id(built_in) in self._built_ins:
                return
            contributions = collect(BUILT_IN, built_in, None)
            for each in self._registry.clashes(contributions):
                reason = f"{each.point}: the name {each.name!r} is the workbench's own"
                self._problems[each.plugin] = reason
                _log.error("plugin %s is unloaded: %s", each.plugin, reason)
                self.unload_plugin(each.plugin)
            self._registry.add(contributions)
            self._built_ins[id(built_in)] = built_in

    def _shut_out(self, name: str, record: FailureRecord) -> None:
        """Take a plugin that failed too often out of service at once."""
        loaded = self._loaded.get(name)
        if loaded is None or loaded.status is PluginStatus.SHUT_DOWN:
            return
        loaded.status = PluginStatus.SHUT_DOWN
        reason = f"disabled after {record.count} failures, the last in {record.message}"
        self._problems[name] = reason
        _log.error("plugin %s is %s", name, reason)
        # The rest may take its time, which the engine's thread does not have.
        self.worker.put(partial(self._disable_quietly, name, reason))

    def _disable_quietly(self, name: str, reason: str) -> None:
        try:
            self.disable(name, reason)
        except WorkbenchError:
            _log.exception("plugin %s could not be disabled for later processes", name)


def _ask(function: Callable[..., Any], request: object) -> Any:
    return function(request=request)

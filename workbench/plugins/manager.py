"""`PluginManager`: loads plugins, keeps what they register, calls their hooks, and shuts out those that fail."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from workbench.errors import ConfigError, PluginError, WorkbenchError
from workbench.plugins.base import PluginContext, PluginRefusal
from workbench.plugins.candidates import Candidate, find_candidates
from workbench.plugins.events import EVENTS, PluginEventManager
from workbench.plugins.failures import FailureBook, FailureRecord
from workbench.plugins.hookspecs import PROJECT, HookSpecs
from workbench.plugins.metadata import PluginMetadata, check_plugin_name, get_metadata, has_method
from workbench.plugins.modules import PluginModule
from workbench.plugins.points import CALLED_HOOKS
from workbench.plugins.registry import BUILT_IN, Contribution, Registry, collect, is_hook
from workbench.plugins.requests import FinishedRequest
from workbench.plugins.requirements import allows_version, missing_dependencies, require_fit
from workbench.plugins.store import PluginStore
from workbench.plugins.time_limit import within
from workbench.plugins.trial_import import fingerprint, try_import
from workbench.plugins.worker import BackgroundWorker

__all__ = ["PluginManager", "PluginStatus"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_NUM_TRIED_KEPT = 200


class PluginStatus(Enum):
    """Where a loaded plugin stands in its life."""

    INITIALIZING = "initializing"
    ACTIVE = "active"
    SHUT_DOWN = "shut down"


@dataclass
class _Loaded:
    """A plugin in this process."""

    candidate: Candidate
    code: PluginModule
    metadata: PluginMetadata
    status: PluginStatus = PluginStatus.INITIALIZING


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
        if max_failures < 1:
            raise ConfigError(f"max_failures={max_failures!r}: must be at least 1")
        self.store = store or PluginStore()
        self.events = PluginEventManager()
        self.worker = BackgroundWorker()
        # Of these no plugin needs to be looked for while a request is on its way.
        self.pre_request_hooks: tuple[tuple[str, Callable[..., Any]], ...] = ()
        self.post_request_hooks: tuple[tuple[str, Callable[..., Any]], ...] = ()
        self._allow = None if allow is None else frozenset(map(check_plugin_name, allow))
        self._max_failures = max_failures
        self._time_limit_s = time_limit_s
        self._hooks = pluggy.PluginManager(PROJECT)
        self._hooks.add_hookspecs(HookSpecs)
        self._registry = Registry()
        self._built_ins: dict[int, object] = {}
        self._loaded: dict[str, _Loaded] = {}
        self._failures = FailureBook()
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
        return loaded and loaded.code.module

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

    def get_plugin_metadata(self, name: str) -> dict[str, object]:
        """A loaded plugin's metadata; {} for one that is not loaded."""
        loaded = self._loaded.get(name)
        return loaded.metadata.as_dict() if loaded else {}

    def validate_plugin(self, name: str) -> bool:
        """Whether a loaded plugin has what a plugin needs: `initialize`, and metadata that can be read."""
        loaded = self._loaded.get(name)
        if loaded is None:
            return False
        try:
            _validated(loaded.candidate, loaded.code.plugin)
        except PluginError:
            return False
        return True

    def get_plugin_status(self, name: str) -> str:
        """ "loaded | valid: True | dependencies: ok" and the like, or "not loaded" with the reason if one is known."""
        loaded = self._loaded.get(name)
        if loaded is None:
            reason = self._problems.get(name) or self.store.read().disabled.get(name)
            return f"not loaded | {reason}" if reason else "not loaded"
        dependencies = "missing" if missing_dependencies(loaded.metadata.dependencies) else "ok"
        status = f"loaded | valid: {self.validate_plugin(name)} | dependencies: {dependencies}"
        failures = self._failures.of(name)
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
            self._require_allowed(name)
            before = self.store.read().settings.get(name)
            if settings is not None:
                self._keep_settings(name, settings)
            self._failures.forget(name)
            try:
                if name in self._loaded and settings is not None:
                    self.unload_plugin(name)
                if name not in self._loaded:
                    self.load(name)
            except PluginError:
                if settings is not None:
                    self._keep_settings(name, before)
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
        return loaded and loaded.status

    def is_active(self, name: str) -> bool:
        """Whether a plugin is loaded and in service. Our own packages always are."""
        loaded = self._loaded.get(name)
        return name == BUILT_IN or (loaded is not None and loaded.status is PluginStatus.ACTIVE)

    def failure(self, name: str) -> FailureRecord:
        """How often a plugin has raised, and the last of it."""
        return self._failures.of(name)

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

    def find(self, point: str, name: str, built_in: object | None = None) -> Contribution:
        """What is registered at a point under a name. Raises ConfigError that lists the names."""
        table = self.at(point, built_in)
        if name not in table:
            raise ConfigError(f"{point}: there is no {name!r}; there are {', '.join(sorted(table)) or 'none'}")
        return table[name]

    def attempt(self, plugin: str, what: str, function: Callable[[], _T], fallback: _T) -> _T:
        """What `function` of a plugin gives; `fallback` when the plugin is not active or raises, which is counted."""
        if plugin == BUILT_IN:
            return function()
        if not self.is_active(plugin):
            return fallback
        try:
            return function()
        except PluginRefusal:
            raise
        except Exception as error:
            self.report_failure(plugin, what, error)
            return fallback

    def report_failure(self, plugin: str, what: str, error: BaseException) -> None:
        """Count a failure of a plugin; the one too many disables it."""
        record = self._failures.note(plugin, what, error)
        if record.count < self._max_failures:
            return
        loaded = self._loaded.get(plugin)
        if loaded is None or loaded.status is PluginStatus.SHUT_DOWN:
            return
        # Out of service at once; the rest may take its time, which the engine's thread does not have.
        loaded.status = PluginStatus.SHUT_DOWN
        reason = f"disabled after {record.count} failures, the last in {record.message}"
        self._problems[plugin] = reason
        _log.error("plugin %s is %s", plugin, reason)
        self.worker.put(partial(self._disable_quietly, plugin, reason))

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

    def _bring_in(self, name: str, path: str | None) -> _Loaded:
        self._require_allowed(name)
        if name in self._loaded:
            raise PluginError(f"plugin {name} is loaded already (version {self._loaded[name].metadata.version})")
        candidate = self._candidate(name, path)
        self._try_import(candidate)
        limit_s = self._time_limit_s
        code = within(limit_s, f"plugin {name}: its import", partial(PluginModule, candidate))
        try:
            metadata = _validated(candidate, code.plugin)
            self._require_as_installed(candidate, metadata)
            require_fit(name, metadata.requires_workbench, metadata.dependencies)
            self._register_hooks(name, code.plugin, metadata)
        except PluginError:
            code.forget()
            raise
        loaded = _Loaded(candidate, code, metadata)
        self._loaded[name] = loaded
        try:
            within(limit_s, f"plugin {name}: initialize", partial(code.plugin.initialize, self._context(name)))
            contributions = within(
                limit_s, f"plugin {name}: registering", partial(collect, name, code.plugin, metadata.permissions)
            )
            self._registry.add(contributions)
        except Exception as error:
            self._take_out(loaded)
            if isinstance(error, PluginError):
                raise
            raise PluginError(f"plugin {name} cannot start: {type(error).__name__}: {error}") from error
        loaded.status = PluginStatus.ACTIVE
        self._find_request_hooks()
        return loaded

    def _candidate(self, name: str, path: str | None) -> Candidate:
        if path:
            return Candidate(name, path, "path")
        candidates = find_candidates(self.store)
        if name not in candidates:
            raise PluginError(f"there is no plugin {name!r}; there are {', '.join(sorted(candidates))}")
        return candidates[name]

    def _try_import(self, candidate: Candidate) -> None:
        """Try the import outside, unless the same files were tried before."""
        if candidate.origin == "shipped":
            return
        mark = fingerprint(candidate)
        if mark is not None and mark in self.store.read().tried:
            return
        try_import(candidate, self._time_limit_s)
        if mark is not None:
            with self.store.changing() as change:
                change.update(tried=(*change.state.tried[-_NUM_TRIED_KEPT:], mark))

    def _register_hooks(self, name: str, plugin: object, metadata: PluginMetadata) -> None:
        for hook, permission in CALLED_HOOKS.items():
            if is_hook(getattr(plugin, hook, None)) and permission not in metadata.permissions:
                raise PluginError(f"plugin {name} implements {hook}, and its permissions do not list {permission!r}")
        try:
            self._hooks.register(plugin, name)
            self._hooks.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            if self._hooks.has_plugin(name):
                self._hooks.unregister(name=name)
            raise PluginError(f"plugin {name}: {error}") from error

    def _require_as_installed(self, candidate: Candidate, metadata: PluginMetadata) -> None:
        """Raise PluginError when an installed plugin is or wants something else than its index said."""
        record = self.store.read().installed.get(candidate.name)
        if candidate.origin != "installed" or record is None:
            return
        if metadata.version != record.version:
            raise PluginError(
                f"plugin {candidate.name}: it says version {metadata.version}, its index {record.version}"
            )
        more = sorted(set(metadata.permissions) - set(record.permissions))
        if more:
            raise PluginError(f"plugin {candidate.name} wants {', '.join(more)}, which its index did not say")

    def _context(self, name: str) -> PluginContext:
        return PluginContext(name, self.store.data_folder(name), dict(self.store.read().settings.get(name, {})))

    def _take_out(self, loaded: _Loaded) -> Exception | None:
        """Unload; gives what `shutdown` raised."""
        name = loaded.metadata.name
        loaded.status = PluginStatus.SHUT_DOWN
        self._registry.remove(name)
        self._find_request_hooks()
        problem: Exception | None = None
        if has_method(loaded.code.plugin, "shutdown"):
            try:
                within(self._time_limit_s, f"plugin {name}: shutdown", loaded.code.plugin.shutdown)
            except Exception as error:
                self._failures.note(name, "shutdown", error)
                problem = error
        if self._hooks.has_plugin(name):
            self._hooks.unregister(name=name)
        self._find_request_hooks()
        self._loaded.pop(name, None)
        loaded.code.forget()
        return problem

    def _find_request_hooks(self) -> None:
        self.pre_request_hooks = self._implementations("pre_request")
        self.post_request_hooks = self._implementations("post_request")

    def _implementations(self, hook: str) -> tuple[tuple[str, Callable[..., Any]], ...]:
        """Plugin and function of each implementation, in the order of loading; functions take what they name."""
        found = {impl.plugin_name: impl for impl in getattr(self._hooks.hook, hook).get_hookimpls()}
        return tuple(
            (name, partial(_call, found[name].function, bool(found[name].argnames)))
            for name in self._loaded
            if name in found and self.is_active(name)
        )

    def _call_hooks(self, hook: str, **arguments: Any) -> None:
        """Pass an event on to the plugins that implement its hook."""
        impls = {impl.plugin_name: impl for impl in getattr(self._hooks.hook, hook).get_hookimpls()}
        for name, impl in impls.items():
            wanted = {key: arguments.get(key) for key in impl.argnames}
            self.attempt(name, hook, partial(impl.function, **wanted), None)

    def _add_built_in(self, built_in: object) -> None:
        with self._lock:
            if id(built_in) in self._built_ins:
                return
            contributions = collect(BUILT_IN, built_in, None)
            for each in contributions:
                clash = self._registry.at(each.point).get(each.name)
                if clash is not None:
                    reason = f"{each.point}: the name {each.name!r} is the workbench's own"
                    self._problems[clash.plugin] = reason
                    _log.error("plugin %s is unloaded: %s", clash.plugin, reason)
                    self.unload_plugin(clash.plugin)
            self._registry.add(contributions)
            self._built_ins[id(built_in)] = built_in

    def _require_allowed(self, name: str) -> None:
        if self._allow is not None and name not in self._allow:
            raise PluginError(f"plugin {name} is not on the allow-list ({', '.join(sorted(self._allow)) or 'empty'})")
        self.store.read().require_allowed(name)

    def _keep_settings(self, name: str, settings: Mapping[str, Any] | None) -> None:
        with self.store.changing() as change:
            kept = {key: value for key, value in change.state.settings.items() if key != name}
            change.update(settings={**kept, name: dict(settings)} if settings is not None else kept)

    def _disable_quietly(self, name: str, reason: str) -> None:
        try:
            self.disable(name, reason)
        except WorkbenchError:
            _log.exception("plugin %s could not be disabled for later processes", name)


def _call(function: Callable[..., Any], takes_value: bool, value: object) -> Any:
    """A hook may leave out the argument that it does not need."""
    return function(value) if takes_value else function()


def _validated(candidate: Candidate, plugin: object) -> PluginMetadata:
    """The metadata of something that is a plugin. Raises PluginError with what it lacks."""
    if not has_method(plugin, "initialize"):
        raise PluginError(f"plugin {candidate.name}: {candidate.path} has no initialize(), so it is no plugin")
    try:
        metadata = PluginMetadata.parse(get_metadata(plugin))
    except TypeError as error:
        raise PluginError(f"plugin {candidate.name}: {error}") from error
    if metadata.name != candidate.name:
        raise PluginError(f"plugin {candidate.name}: it calls itself {metadata.name!r}")
    return metadata

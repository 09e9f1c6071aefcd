"""Which plugin implements which hook that is called when something happens. Finds the functions and calls none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pluggy

from workbench.errors import PluginError
from workbench.plugins.hookspecs import PROJECT, HookSpecs
from workbench.plugins.metadata import PluginMetadata
from workbench.plugins.points import CALLED_HOOKS
from workbench.plugins.registry import is_hook

__all__ = ["HookTable"]


class HookTable:
    """Plugins by name, with their implementations of the documented hooks, held against `HookSpecs`."""

    def __init__(self) -> None:
        self._pluggy = pluggy.PluginManager(PROJECT)
        self._pluggy.add_hookspecs(HookSpecs)

    def add(self, plugin: object, metadata: PluginMetadata) -> None:
        """Raise PluginError for hooks that there are not, or that its permissions do not list."""
        name = metadata.name
        for hook, permission in CALLED_HOOKS.items():
            if is_hook(getattr(plugin, hook, None)) and permission not in metadata.permissions:
                raise PluginError(f"plugin {name} implements {hook}, and its permissions do not list {permission!r}")
        try:
            self._pluggy.register(plugin, name)
            self._pluggy.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            self.remove(name)
            raise PluginError(f"plugin {name}: {error}") from error

    def remove(self, name: str) -> None:
        """Forget a plugin; one that is not here is none the worse."""
        if self._pluggy.has_plugin(name):
            self._pluggy.unregister(name=name)

    def of(self, hook: str) -> dict[str, Callable[..., Any]]:
        """Plugin -> its implementation, which takes the hook's arguments as keywords and drops those it does not name.

        In the order in which pluggy would call them.
        """
        found = getattr(self._pluggy.hook, hook).get_hookimpls()
        return {each.plugin_name: partial(_call, each.function, each.argnames) for each in found}


def _call(function: Callable[..., Any], wanted: tuple[str, ...], **arguments: Any) -> Any:
    return function(**{name: arguments.get(name) for name in wanted})

"""What plugins and our own packages have registered, by extension point and name. Knows no life cycles."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from workbench.errors import PluginError
from workbench.plugins.metadata import check_plugin_name
from workbench.plugins.points import POINTS

__all__ = ["BUILT_IN", "Contribution", "Registry", "collect"]

BUILT_IN = "workbench"
# Names of our own are Python words, like round_robin.
_MAX_NAME_CHARS = 64


@dataclass(frozen=True)
class Contribution:
    """One thing that was registered; `plugin` is who did, `BUILT_IN` for our own."""

    point: str
    name: str
    value: Any
    plugin: str
    description: str = ""

    @property
    def is_built_in(self) -> bool:
        return self.plugin == BUILT_IN


class Registry:
    """Contributions in the order they came; a name is taken once at a point."""

    def __init__(self) -> None:
        self._by_point: dict[str, dict[str, Contribution]] = {point: {} for point in POINTS}

    def add(self, contributions: Iterable[Contribution]) -> None:
        """Add all or, when a name is taken, none of them: PluginError."""
        contributions = tuple(contributions)
        seen: set[tuple[str, str]] = set()
        for each in contributions:
            other = self._by_point[each.point].get(each.name)
            if other is not None or (each.point, each.name) in seen:
                owner = other.plugin if other else each.plugin
                raise PluginError(f"{each.point}: the name {each.name!r} is taken already, by {owner}")
            seen.add((each.point, each.name))
        for each in contributions:
            # A new table each time, since others may be reading the old one.
            self._by_point[each.point] = {**self._by_point[each.point], each.name: each}

    def clashes(self, contributions: Iterable[Contribution]) -> list[Contribution]:
        """What is here already under names of these."""
        taken = (self._by_point[each.point].get(each.name) for each in contributions)
        return [each for each in taken if each is not None]

    def remove(self, plugin: str) -> None:
        """Take out whatever `plugin` registered."""
        for point, table in self._by_point.items():
            if any(each.plugin == plugin for each in table.values()):
                self._by_point[point] = {name: each for name, each in table.items() if each.plugin != plugin}

    def at(self, point: str) -> Mapping[str, Contribution]:
        """What is registered at a point, by name."""
        return MappingProxyType(self._by_point[point])


def collect(plugin_name: str, plugin: object, allowed: Iterable[str] | None) -> list[Contribution]:
    """Ask a plugin's `register_...` hooks what it brings.

    Raises PluginError for a point that is not among `allowed` (None: all are), and for a name or value that is no use.
    What a hook itself raises passes through.
    """
    found: list[Contribution] = []
    for point, hook in POINTS.items():
        function = getattr(plugin, hook, None)
        if function is None or not is_hook(function):
            continue
        if allowed is not None and point not in allowed:
            raise PluginError(f"plugin {plugin_name} registers {point}, which its permissions do not list")
        function(_register(found, point, plugin_name))
    return found


def is_hook(function: object) -> bool:
    """Whether it is marked with `hookimpl`."""
    return callable(function) and hasattr(getattr(function, "__func__", function), "workbench_impl")


def _register(found: list[Contribution], point: str, plugin_name: str) -> Callable[..., None]:
    def register(name: str, value: Any, description: str = "") -> None:
        if plugin_name == BUILT_IN:
            assert isinstance(name, str) and len(name) <= _MAX_NAME_CHARS, name
        else:
            _check_name(plugin_name, point, name)
        if value is None or (
            point != "routes" and not (callable(value) or inspect.ismodule(value) or _is_method(value))
        ):
            raise PluginError(f"plugin {plugin_name}: {point} {name!r} is {value!r}, which cannot be used there")
        found.append(Contribution(point, name, value, plugin_name, str(description)))

    return register


def _check_name(plugin_name: str, point: str, name: object) -> None:
    try:
        check_plugin_name(name.replace("_", "-") if isinstance(name, str) else name)
    except PluginError as error:
        raise PluginError(f"plugin {plugin_name}, {point}: {error}") from None


def _is_method(value: object) -> bool:
    """A quantisation method is an object, not something to call."""
    return callable(getattr(value, "apply", None))

"""All plugins as rows of plain values, for a list on any surface: terminal, widget, dashboard tab, HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from workbench.plugins.candidates import Candidate, find_candidates
from workbench.plugins.manager import PluginManager
from workbench.plugins.points import POINTS

__all__ = ["PluginRow", "get_plugin_health", "plugin_rows"]


@dataclass(frozen=True)
class PluginRow:
    """One plugin.

    `origin` is "shipped", "package", "installed" or "path". `status` is "active", "enabled" (loaded when needed),
    "off", "failed" (enabled, but cannot be loaded) or "disabled" (it failed too often); `problem` says why.
    `provides` lists "point: name" of what it registered in this process.
    """

    name: str
    version: str
    origin: str
    status: str
    description: str
    permissions: tuple[str, ...]
    signed_by: str
    provides: tuple[str, ...]
    num_failures: int
    problem: str

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def plugin_rows(manager: PluginManager) -> list[PluginRow]:
    """Every plugin that is loaded or could be, by name. Runs nothing of those that are not loaded."""
    candidates = find_candidates(manager.store)
    return [_row(manager, name, candidates) for name in sorted({*candidates, *manager.list_plugins()})]


def get_plugin_health(plugin_manager: PluginManager) -> dict[str, str]:
    """Name -> status, in the manager's words, of every loaded plugin."""
    return {name: plugin_manager.get_plugin_status(name) for name in plugin_manager.list_plugins()}


def _row(manager: PluginManager, name: str, candidates: Mapping[str, Candidate]) -> PluginRow:
    state = manager.store.read()
    record, metadata = state.installed.get(name), manager.get_plugin_metadata(name)
    candidate = candidates.get(name)
    problem = manager.problem(name) or state.disabled.get(name) or manager.failure(name).message
    return PluginRow(
        name=name,
        version=str(metadata.get("version") or (record.version if record else "")),
        origin=candidate.origin if candidate else "path",
        status=_status(manager, name, name in state.enabled, name in state.disabled),
        description=str(metadata.get("description") or (candidate.description if candidate else "")),
        permissions=tuple(metadata.get("permissions") or (record.permissions if record else ())),
        signed_by=record.signed_by if record else "",
        provides=tuple(
            f"{point}: {each.name}" for point in POINTS for each in manager.at(point).values() if each.plugin == name
        ),
        num_failures=manager.failure(name).count,
        problem=problem or "",
    )


def _status(manager: PluginManager, name: str, is_enabled: bool, is_disabled: bool) -> str:
    if manager.is_active(name):
        return "active"
    if is_disabled or name in manager.list_plugins():
        return "disabled"
    if manager.problem(name):
        return "failed"
    return "enabled" if is_enabled else "off"

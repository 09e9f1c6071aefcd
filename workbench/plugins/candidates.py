"""Which plugins are there to be loaded: shipped ones, installed packages, folders of the marketplace. Imports none."""

from __future__ import annotations

import configparser
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from workbench.errors import PluginError
from workbench.plugins.metadata import check_plugin_name
from workbench.plugins.store import PluginStore

__all__ = ["ENTRY_POINT_GROUP", "SHIPPED", "Candidate", "discover_plugins", "find_candidates", "folder_entry_point"]

ENTRY_POINT_GROUP = "workbench.plugins"
_EXAMPLES = f"{__name__.rpartition('.')[0]}.examples"


@dataclass(frozen=True)
class Candidate:
    """A plugin that can be loaded.

    `path` is "module" or "module:attribute"; `origin` is "shipped", "package" (of this environment), "installed" (from
    an index, in `folder`) or "path" (named by a caller).
    """

    name: str
    path: str
    origin: str
    folder: Path | None = None
    description: str = ""

    @property
    def module(self) -> str:
        """The module to import."""
        return self.path.partition(":")[0]


def _shipped(name: str, module: str, description: str) -> Candidate:
    return Candidate(name, f"{_EXAMPLES}.{module}:plugin", "shipped", description=description)


# Useful examples that come with the package and are off until they are enabled.
SHIPPED = (
    _shipped("request-logger", "request_logger", "Writes one JSON line for every answer that ends."),
    _shipped("stop-phrases", "stop_phrases", "Ends an answer at a phrase, replaces phrases, marks what was generated."),
    _shipped("min-p-floor", "min_p_floor", "min-p that cuts more where the model is sure."),
)


def find_candidates(store: PluginStore) -> dict[str, Candidate]:
    """All by name. Of one name a shipped plugin comes first, then this environment's, then an installed one."""
    found = {each.name: each for each in SHIPPED}
    for point in _own_entry_points(store.folder):
        found.setdefault(point.name, Candidate(point.name, point.value, "package"))
    for record in store.read().installed.values():
        folder = store.version_folder(record.name, record.folder)
        if record.name not in found and folder.is_dir():
            found[record.name] = Candidate(record.name, record.entry_point, "installed", folder, record.description)
    return found


def _own_entry_points(store_folder: Path) -> list[EntryPoint]:
    """Those of this environment's packages. A loaded plugin's folder is on the import path too, and is not one."""
    found = entry_points(group=ENTRY_POINT_GROUP)
    return [
        point
        for point in found
        if point.dist is None or not Path(str(point.dist.locate_file(""))).is_relative_to(store_folder)
    ]


def discover_plugins(store: PluginStore | None = None) -> list[str]:
    """Names of all plugins that can be loaded here, sorted. Nothing of them is run."""
    return sorted(find_candidates(store or PluginStore()))


def folder_entry_point(folder: Path, name: str) -> str:
    """The "module:attribute" that the package in `folder` gives as the plugin `name`.

    Raises PluginError when it gives none, or other plugins too.
    """
    points: dict[str, str] = {}
    for file in folder.glob("*.dist-info/entry_points.txt"):
        points |= _parse_entry_points(file.read_text("utf-8").splitlines())
    if set(points) != {check_plugin_name(name)}:
        given = ", ".join(sorted(points)) or "none"
        raise PluginError(f"plugin {name}: its package must give exactly this plugin (entry point), and gives {given}")
    return points[name]


def _parse_entry_points(lines: Iterable[str]) -> dict[str, str]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    # Names keep their capitals. The way that configparser documents for it, which type checkers take for a mistake.
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_file(lines)
    except configparser.Error as error:
        raise PluginError(f"entry_points.txt cannot be read: {error}") from error
    return dict(parser[ENTRY_POINT_GROUP]) if parser.has_section(ENTRY_POINT_GROUP) else {}

"""Commands that plugins add to `workbench`. One that fails is the plugin's failure, and ends with 1 like any other."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from workbench.cli.lazy_group import Entry
from workbench.errors import PluginError, WorkbenchError
from workbench.paths import home

if TYPE_CHECKING:
    from workbench.plugins import Contribution, PluginManager

__all__ = ["plugin_entries"]


def plugin_entries() -> dict[str, Entry]:
    """The commands of the plugins that are switched on, which are loaded for it."""
    # Without this file nothing was ever switched on, and help need not wait for the import of all that plugins need.
    if not (home() / "plugins" / "state.json").is_file():
        return {}
    from workbench.plugins import default_plugins

    manager = default_plugins()
    manager.load_enabled()
    return {
        name: Entry(_reporting(manager, found), found.description or f"From the plugin {found.plugin}.")
        for name, found in manager.at("cli_commands").items()
    }


def _reporting(manager: PluginManager, found: Contribution) -> Callable[..., Any]:
    @functools.wraps(found.value)
    def command(*args: Any, **values: Any) -> Any:
        try:
            return found.value(*args, **values)
        except (WorkbenchError, typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            manager.report_failure(found.plugin, f"command {found.name}", error)
            raise PluginError(f"the plugin {found.plugin} failed: {type(error).__name__}: {error}") from error

    return command

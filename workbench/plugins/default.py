"""The plugin manager that the doors of this process share."""

from __future__ import annotations

import atexit
import functools
from pathlib import Path

from workbench.paths import home
from workbench.plugins.manager import PluginManager
from workbench.plugins.store import PluginStore

__all__ = ["default_plugins"]


def default_plugins() -> PluginManager:
    """The process's manager for the present WORKBENCH_HOME. Made when first asked for; loads nothing by itself."""
    return _manager_below(home())


@functools.cache
def _manager_below(folder: Path) -> PluginManager:
    manager = PluginManager(PluginStore(folder / "plugins"))
    atexit.register(manager.shutdown)
    return manager

"""Plugins: how they are written, found, installed and run. Importing this imports no plugin and no torch."""

from workbench.plugins.actions import PluginActions
from workbench.plugins.base import (
    BasePlugin,
    Filtered,
    LogitsProcessor,
    PluginContext,
    PluginRefusal,
    StreamFilter,
    TokenSampler,
)
from workbench.plugins.candidates import Candidate, discover_plugins
from workbench.plugins.default import default_plugins
from workbench.plugins.events import EVENTS, PluginEventManager
from workbench.plugins.hookspecs import HookSpecs, hookimpl
from workbench.plugins.index_writer import write_index
from workbench.plugins.loaded_plugin import PluginStatus
from workbench.plugins.manager import PluginManager
from workbench.plugins.marketplace import PluginMarketplace
from workbench.plugins.metadata import PluginMetadata, get_metadata, has_method
from workbench.plugins.overview import PluginRow, get_plugin_health, plugin_rows
from workbench.plugins.points import PERMISSIONS, POINTS
from workbench.plugins.registry import Contribution
from workbench.plugins.requests import FinishedRequest, RequestInfo
from workbench.plugins.requirements import check_dependencies, check_version
from workbench.plugins.signing import KeyRing, SigningKey
from workbench.plugins.store import PluginStore

__all__ = [
    "EVENTS",
    "PERMISSIONS",
    "POINTS",
    "BasePlugin",
    "Candidate",
    "Contribution",
    "Filtered",
    "FinishedRequest",
    "HookSpecs",
    "KeyRing",
    "LogitsProcessor",
    "PluginActions",
    "PluginContext",
    "PluginEventManager",
    "PluginManager",
    "PluginMarketplace",
    "PluginMetadata",
    "PluginRefusal",
    "PluginRow",
    "PluginStatus",
    "PluginStore",
    "RequestInfo",
    "SigningKey",
    "StreamFilter",
    "TokenSampler",
    "check_dependencies",
    "check_version",
    "default_plugins",
    "discover_plugins",
    "get_metadata",
    "get_plugin_health",
    "has_method",
    "hookimpl",
    "plugin_rows",
    "write_index",
]

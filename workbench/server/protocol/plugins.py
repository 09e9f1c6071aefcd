"""Plugins on the wire."""

from __future__ import annotations

from pydantic import Field

from workbench.server.protocol.wire import WireReply, WireRequest

__all__ = ["MarketplaceReply", "PluginEntry", "PluginName", "PluginRequest", "PluginsReply", "PluginSwitch"]


class PluginEntry(WireReply):
    """One plugin as it is here."""

    name: str
    version: str
    origin: str
    status: str
    description: str
    permissions: list[str]
    signed_by: str
    provides: list[str]
    num_failures: int
    problem: str


class PluginsReply(WireReply):
    """Every plugin that is here."""

    plugins: list[PluginEntry]


class MarketplaceReply(WireReply):
    """Names that the index of this server offers."""

    plugins: list[str]
    installed: list[str]


class PluginName(WireRequest):
    """Which plugin."""

    name: str = Field(min_length=1, max_length=64)


class PluginRequest(PluginName):
    """Which plugin to load; `path` may repeat where it is, and nothing else."""

    path: str | None = Field(None, max_length=256)


class PluginSwitch(WireReply):
    """What became of it. `changed` is false where there was nothing to do."""

    name: str
    status: str
    changed: bool

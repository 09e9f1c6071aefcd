"""Plugins over HTTP: /dashboard/plugins (list, load, unload) and /marketplace/plugins (list, install, update)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fastapi import APIRouter, Depends

from workbench.errors import ConfigError, PluginError
from workbench.plugins import PluginManager, PluginMarketplace, default_plugins, plugin_rows
from workbench.plugins.candidates import find_candidates
from workbench.server.auth import require_admin
from workbench.server.errors import ApiError, invalid
from workbench.server.json_body import JsonRoute
from workbench.server.protocol.plugins import (
    MarketplaceReply,
    PluginEntry,
    PluginName,
    PluginRequest,
    PluginsReply,
    PluginSwitch,
)

__all__ = ["router"]

_T = TypeVar("_T")

router = APIRouter(route_class=JsonRoute, tags=["plugins"], dependencies=[Depends(require_admin)])


@router.get("/dashboard/plugins", response_model=PluginsReply)
async def list_plugins() -> PluginsReply:
    """Every plugin that is here, with its state."""
    rows = await asyncio.to_thread(plugin_rows, default_plugins())
    return PluginsReply(plugins=[PluginEntry(**row.as_dict()) for row in rows])


@router.post("/dashboard/plugins/load", response_model=PluginSwitch)
async def load_plugin(body: PluginRequest) -> PluginSwitch:
    """Switch a plugin on that is installed here. Nothing is loaded from a path that a caller makes up."""
    manager = default_plugins()

    def load() -> bool:
        candidate = find_candidates(manager.store).get(body.name)
        if body.path is not None and (candidate is None or body.path != candidate.path):
            raise invalid("path: is not where that plugin is; leave it out", param="path")
        was_active = manager.is_active(body.name)
        manager.enable(body.name)
        return not was_active

    return await _switched(manager, body.name, load)


@router.post("/dashboard/plugins/unload", response_model=PluginSwitch)
async def unload_plugin(body: PluginName) -> PluginSwitch:
    """Switch a plugin off."""
    manager = default_plugins()

    def unload() -> bool:
        was_on = body.name in (*manager.list_plugins(), *manager.store.read().enabled)
        manager.disable(body.name)
        return was_on

    return await _switched(manager, body.name, unload)


@router.get("/marketplace/plugins", response_model=MarketplaceReply)
async def list_marketplace() -> MarketplaceReply:
    """What the index of this server (WORKBENCH_PLUGIN_INDEX) offers."""
    market = PluginMarketplace()
    names = await _tried(market.discover_plugins)
    return MarketplaceReply(plugins=names, installed=market.list_installed_plugins())


@router.post("/marketplace/plugins/install", response_model=PluginSwitch)
async def install_plugin(body: PluginName) -> PluginSwitch:
    """Install a signed plugin from this server's index; it is not switched on by that."""
    market, manager = PluginMarketplace(), default_plugins()

    def install() -> bool:
        before = body.name in market.list_installed_plugins()
        market.install_plugin(body.name)
        return not before

    return await _switched(manager, body.name, install)


@router.post("/marketplace/plugins/update", response_model=PluginSwitch)
async def update_plugin(body: PluginName) -> PluginSwitch:
    """Install a newer version, if the index has one; it is in use after the next load."""
    market = PluginMarketplace()
    return await _switched(default_plugins(), body.name, lambda: market.update_plugin(body.name))


async def _switched(manager: PluginManager, name: str, work: Callable[[], bool]) -> PluginSwitch:
    changed = await _tried(work)
    status = await asyncio.to_thread(manager.get_plugin_status, name)
    return PluginSwitch(name=name, status=status, changed=changed)


async def _tried(work: Callable[[], _T]) -> _T:
    """What the work gives, done in a thread. A plugin that cannot be is a 400 with the reason."""
    try:
        return await asyncio.to_thread(work)
    except ConfigError as error:
        raise ApiError(400, str(error), code="no_index") from error
    except PluginError as error:
        raise invalid(str(error), param="name", code="plugin_refused") from error

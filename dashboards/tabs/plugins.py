"""The Plugins tab: what is there, what it may do, how it fares, and its switch."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr

from dashboards.parts import AppParts, shown_error
from workbench.errors import ConfigError, WorkbenchError
from workbench.plugins import PluginRow, default_plugins, plugin_rows

__all__ = ["PluginsTab"]

_HEADERS = ["Name", "Version", "State", "May", "Adds", "Failures", "What it is"]
_OPTIONS = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 1, "concurrency_id": "plugins"}


class PluginsTab:
    """Builds the tab into the Blocks that is open. Enabling runs the plugin's code, so it takes an admin."""

    def __init__(self, parts: AppParts) -> None:
        self._parts = parts
        gr.Markdown("Plugins run with this program's rights. `workbench plugins install` adds further ones.")
        self.table = gr.Dataframe(
            headers=_HEADERS, value=[], interactive=False, show_label=False, wrap=True, elem_id="wb-plugins"
        )
        self.name = gr.Dropdown([], label="Plugin", elem_id="wb-plugin")
        with gr.Row(elem_classes="wb-bar-of-buttons"):
            self.enable = gr.Button("Enable", size="sm", variant="primary", elem_id="wb-plugin-enable")
            self.disable = gr.Button("Disable", size="sm", elem_id="wb-plugin-disable")
        shown = [self.table, self.name]
        self._shown = shown
        self.enable.click(self._enable, [self.name], shown, **_OPTIONS)
        self.disable.click(self._disable, [self.name], shown, **_OPTIONS)

    def show_on(self, tab: gr.Tab) -> None:
        """Show how things are when the tab is opened."""
        tab.select(self._show, None, self._shown, **_OPTIONS)

    async def _show(self) -> list[Any]:
        rows = await asyncio.to_thread(plugin_rows, default_plugins())
        return [[_cells(row) for row in rows], gr.Dropdown(choices=[row.name for row in rows])]

    async def _enable(self, request: gr.Request, name: str | None) -> list[Any]:
        return await self._switch(request, name, default_plugins().enable)

    async def _disable(self, request: gr.Request, name: str | None) -> list[Any]:
        return await self._switch(request, name, default_plugins().disable)

    async def _switch(self, request: gr.Request, name: str | None, switch: Any) -> list[Any]:
        try:
            self._parts.require_admin(request)
            if not name:
                raise ConfigError("choose a plugin")
            await asyncio.to_thread(switch, name)
        except WorkbenchError as error:
            raise shown_error(error) from None
        return await self._show()


def _cells(row: PluginRow) -> list[Any]:
    about = f"{row.description} ({row.problem})" if row.problem else row.description
    may, adds = ", ".join(row.permissions) or "nothing special", ", ".join(row.provides)
    return [row.name, row.version, row.status, may, adds, row.num_failures, about]

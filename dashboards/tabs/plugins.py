"""The Plugins tab: what is there and how it fares, switched on and off, installed, updated and removed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import gradio as gr

from dashboards.parts import AppParts, shown_error
from workbench.errors import WorkbenchError
from workbench.plugins import PluginActions, PluginRow, plugin_rows

__all__ = ["PluginsTab"]

# Headers and widths: a narrow page scrolls the table, and squeezes no column to letters.
_COLUMNS = {"Name": 150, "Version": 80, "State": 90, "May": 150, "Adds": 180, "Failures": 90, "What it is": 340}
_OPTIONS = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 1, "concurrency_id": "plugins"}


class PluginsTab:
    """Builds the tab into the Blocks that is open. Plugins run with the app's rights: changing them takes an admin."""

    def __init__(self, parts: AppParts) -> None:
        self._parts = parts
        self._actions = PluginActions(parts.plugins)
        gr.Markdown("A plugin that is switched on runs with this program's rights. Install what you trust.")
        self.table = gr.Dataframe(
            headers=list(_COLUMNS),
            column_widths=list(_COLUMNS.values()),
            value=[],
            interactive=False,
            show_label=False,
            wrap=True,
            elem_id="wb-plugins",
        )
        self.said = gr.Markdown("", elem_id="wb-plugins-said")
        with gr.Row():
            with gr.Column(min_width=300):
                self._build_switches()
            with gr.Column(min_width=300):
                self._build_market()
        self._shown = [self.table, self.name, self.said]
        self._wire()

    def _build_switches(self) -> None:
        self.name = gr.Dropdown([], label="Plugin", elem_id="wb-plugin")
        self.settings = gr.Textbox(
            "", label="Its settings", info="a JSON object; empty: as they are", elem_id="wb-plugin-settings"
        )
        with gr.Row(elem_classes="wb-bar-of-buttons"):
            self.enable = _button("Enable", "enable", variant="primary")
            self.disable = _button("Disable", "disable")
            self.info = _button("All about it", "info")
            self.remove = _button("Remove", "remove", variant="stop")
            self.roll_back = _button("Back to the version before", "rollback")
        self.facts = gr.JSON(label="All about it", visible=False, elem_id="wb-plugin-facts")

    def _build_market(self) -> None:
        self.index = gr.Textbox(
            "", label="Index", info="a folder, a file or an address; empty: WORKBENCH_PLUGIN_INDEX", elem_id="wb-index"
        )
        self.look = _button("What does it offer?", "look")
        self.offered = gr.Dataframe(
            headers=["Name", "Version", "What it is"], value=[], interactive=False, show_label=False, wrap=True,
            visible=False, elem_id="wb-offered",
        )  # fmt: skip
        self.wanted = gr.Dropdown([], label="Name in the index", allow_custom_value=True, elem_id="wb-plugin-wanted")
        self.version = gr.Textbox("", label="Version", info="empty: the newest that fits", elem_id="wb-plugin-version")
        self.unsigned = gr.Checkbox(False, label="Also take what nobody has signed", elem_id="wb-plugin-unsigned")
        self.downgrade = gr.Checkbox(False, label="Also take an older version", elem_id="wb-plugin-downgrade")
        with gr.Row(elem_classes="wb-bar-of-buttons"):
            self.install = _button("Install", "install", variant="primary")
            self.update = _button("Update it", "update")
            self.update_all = _button("Update all", "update-all")

    def _wire(self) -> None:
        actions = self._actions
        market = [self.wanted, self.index, self.unsigned]

        def install(name: str, index: str, unsigned: bool, version: str, downgrade: bool) -> str:
            return actions.install(name, index, version=version, allow_unsigned=unsigned, allow_downgrade=downgrade)

        def update(name: str, index: str, unsigned: bool) -> str:
            return actions.update(name, index, allow_unsigned=unsigned)

        for button, action, inputs in (
            (self.enable, actions.enable, [self.name, self.settings]),
            (self.disable, actions.disable, [self.name]),
            (self.remove, actions.remove, [self.name]),
            (self.roll_back, actions.roll_back, [self.name]),
            (self.install, install, [*market, self.version, self.downgrade]),
            (self.update, update, market),
            (self.update_all, lambda index, unsigned: update("", index, unsigned), [self.index, self.unsigned]),
        ):
            button.click(self._guarded(action), inputs, self._shown, **_OPTIONS)
        self.info.click(self._tell, [self.name], [self.facts], **_OPTIONS)
        self.look.click(self._look, [self.index], [self.offered, self.wanted], **_OPTIONS)

    def show_on(self, tab: gr.Tab) -> None:
        """Show how things are when the tab is opened."""
        tab.select(self._show, None, self._shown, **_OPTIONS)

    async def _show(self, said: str = "") -> list[Any]:
        rows = await asyncio.to_thread(plugin_rows, self._actions.manager)
        return [[_cells(row) for row in rows], gr.Dropdown(choices=[row.name for row in rows]), said]

    def _guarded(self, action: Callable[..., str]) -> Callable[..., Any]:
        async def act(request: gr.Request, *values: Any) -> list[Any]:
            return await self._show(await self._done(request, action, *values))

        return act

    async def _done(self, request: gr.Request, action: Callable[..., Any], *values: Any) -> Any:
        try:
            self._parts.require_admin(request)
            return await asyncio.to_thread(action, *values)
        except WorkbenchError as error:
            raise shown_error(error) from None

    async def _tell(self, request: gr.Request, name: str | None) -> Any:
        return gr.JSON(await self._done(request, self._actions.info, name), visible=True)

    async def _look(self, request: gr.Request, index: str) -> list[Any]:
        offered = await self._done(request, self._actions.offered, index)
        names = sorted({name for name, *_ in offered})
        return [
            gr.Dataframe([list(one) for one in offered], visible=True),
            gr.Dropdown(choices=names, value=names[0] if names else None),
        ]


def _button(label: str, name: str, **options: Any) -> gr.Button:
    return gr.Button(label, size="sm", elem_id=f"wb-plugin-{name}", **options)


def _cells(row: PluginRow) -> list[Any]:
    about = f"{row.description} ({row.problem})" if row.problem else row.description
    # What a plugin wants is known once it has been installed from an index, or is on.
    may = ", ".join(row.permissions) or ("nothing special" if row.version else "told once it is on")
    adds = ", ".join(row.provides)
    return [row.name, row.version, row.status, may, adds, row.num_failures, about]

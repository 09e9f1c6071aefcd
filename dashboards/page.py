"""The page: header, tabs, and the functions that other programs may call. Composes; each tab does its own work."""

from __future__ import annotations

from typing import Any

import gradio as gr

from dashboards.contributed_tab import ContributedTab
from dashboards.parts import AppParts
from dashboards.programs import add_programs
from dashboards.tabs.chat import ChatTab
from dashboards.tabs.cluster import ClusterTab
from dashboards.tabs.compare import CompareTab
from dashboards.tabs.endpoint import EndpointTab
from dashboards.tabs.header import Header
from dashboards.tabs.inside import InsideTab
from dashboards.tabs.models import ModelsTab
from dashboards.tabs.monitor import MonitorTab
from dashboards.tabs.plugins import PluginsTab
from widgets.chart_rows import memory_rows, owners_row, throughput_rows, utilisation_row
from widgets.menu import Menu
from workbench.models import Catalogue

__all__ = ["build_page"]

TITLE = "Workbench"
# Each open page has one event that follows the model, and one for each reply that it shows.
_MAX_RUNNING_EVENTS = 512


def build_page(parts: AppParts) -> gr.Blocks:
    """The app's Blocks: chats run side by side in the engine's batch, loading one at a time."""
    contributed = [] if parts.plugins is None else ContributedTab.build_all(parts.plugins, parts.require_session())
    with gr.Blocks(analytics_enabled=False, title=TITLE, fill_width=True, delete_cache=(600, 600)) as demo:
        header = Header(parts)
        with gr.Tabs(elem_id="wb-tabs") as tabs:
            with gr.Tab("Chat", id="chat"):
                chat = ChatTab(parts)
            with gr.Tab("Compare", id="compare") as tab:
                CompareTab(parts, _models_to_compare(parts)).show_on(tab)
            with gr.Tab("Inside", id="inside"):
                InsideTab(parts, chat, tabs)
            timers = {} if parts.session is None else _add_tabs_of_the_engine(parts)
            with gr.Tab("Cluster", id="cluster") as tab:
                cluster = ClusterTab(parts)
                cluster.show_on(tab)
            for one in contributed:
                with gr.Tab(one.name, id=f"plugin-{one.name}"):
                    one.render()
        _run_while_shown(tabs, {**timers, "Cluster": cluster.timer})
        header.watch_on(demo)
        chat.restore_on(demo)
        add_programs(parts)

        def leave(request: gr.Request) -> None:
            parts.desks.close(request.session_hash)

        demo.unload(leave)
    demo.max_threads = _MAX_RUNNING_EVENTS
    demo.queue(default_concurrency_limit=None, api_open=False)
    return demo


def _add_tabs_of_the_engine(parts: AppParts) -> dict[str, gr.Timer]:
    """What can be watched and changed only where the engine is in this process; gives the timers by tab."""
    menu = Menu.of_this_machine()
    statuses = menu.statuses
    rows = (*memory_rows(statuses), owners_row(statuses), utilisation_row(statuses), *throughput_rows())
    with gr.Tab("Monitor", id="monitor") as tab:
        monitor = MonitorTab(parts, rows)
        monitor.show_on(tab)
    with gr.Tab("Models", id="models") as tab:
        models = ModelsTab(parts, menu)
        models.plan_on(tab)
    with gr.Tab("Endpoint", id="endpoint") as tab:
        EndpointTab(parts).show_on(tab)
    with gr.Tab("Plugins", id="plugins") as tab:
        PluginsTab(parts).show_on(tab)
    return {"Monitor": monitor.timer, "Models": models.timer}


def _run_while_shown(tabs: gr.Tabs, timers: dict[str, gr.Timer]) -> None:
    """A timer costs requests, so each runs while its tab is shown."""

    def switch(event: gr.SelectData) -> Any:
        switched = [gr.Timer(active=event.value == name) for name in timers]
        return switched if len(switched) > 1 else switched[0]

    tabs.select(
        switch,
        None,
        list(timers.values()),
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=None,
    )


def _models_to_compare(parts: AppParts) -> list[str]:
    if parts.session is None:
        return []
    return [entry.name for entry in Catalogue().list()]

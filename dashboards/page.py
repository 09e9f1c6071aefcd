"""The page: header, tabs, and the functions that other programs may call. Composes; each tab does its own work."""

from __future__ import annotations

import gradio as gr

from dashboards.parts import AppParts
from dashboards.programs import add_programs
from dashboards.tabs.chat import ChatTab
from dashboards.tabs.compare import CompareTab
from dashboards.tabs.endpoint import EndpointTab
from dashboards.tabs.header import Header
from dashboards.tabs.inside import InsideTab
from dashboards.tabs.models import ModelsTab
from dashboards.tabs.monitor import MonitorTab
from dashboards.tabs.plugins import PluginsTab
from widgets.chart_rows import memory_rows, throughput_rows, utilisation_row
from widgets.menu import Menu
from workbench.models import Catalogue

__all__ = ["build_page"]

TITLE = "Workbench"
# Each open page has one event that follows the model, and one for each reply that it shows.
_MAX_RUNNING_EVENTS = 512


def build_page(parts: AppParts) -> gr.Blocks:
    """The app's Blocks: chats run side by side in the engine's batch, loading one at a time."""
    with gr.Blocks(analytics_enabled=False, title=TITLE, fill_width=True, delete_cache=(600, 600)) as demo:
        header = Header(parts)
        with gr.Tabs(elem_id="wb-tabs") as tabs:
            with gr.Tab("Chat", id="chat"):
                chat = ChatTab(parts)
            with gr.Tab("Compare", id="compare"):
                CompareTab(parts, _models_to_compare(parts))
            with gr.Tab("Inside", id="inside"):
                InsideTab(parts, chat, tabs)
            if parts.session is not None:
                _add_tabs_of_the_engine(parts, tabs)
        header.watch_on(demo)
        chat.restore_on(demo)
        add_programs(parts)

        def leave(request: gr.Request) -> None:
            parts.desks.close(request.session_hash)

        demo.unload(leave)
    demo.max_threads = _MAX_RUNNING_EVENTS
    demo.queue(default_concurrency_limit=None, api_open=False)
    return demo


def _add_tabs_of_the_engine(parts: AppParts, tabs: gr.Tabs) -> None:
    """What can be watched and changed only where the engine is in this process."""
    menu = Menu.of_this_machine()
    rows = (*memory_rows(menu.statuses), utilisation_row(menu.statuses), *throughput_rows())
    with gr.Tab("Monitor", id="monitor"):
        monitor = MonitorTab(parts, rows)
    with gr.Tab("Models", id="models") as tab:
        models = ModelsTab(parts, menu)
        models.plan_on(tab)
    with gr.Tab("Endpoint", id="endpoint") as tab:
        EndpointTab(parts).show_on(tab)
    with gr.Tab("Plugins", id="plugins") as tab:
        PluginsTab(parts).show_on(tab)

    def run_while_shown(event: gr.SelectData) -> tuple[gr.Timer, gr.Timer]:
        # A timer costs requests, so each runs while its tab is shown.
        return gr.Timer(active=event.value == "Monitor"), gr.Timer(active=event.value == "Models")

    tabs.select(
        run_while_shown,
        None,
        [monitor.timer, models.timer],
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=None,
    )


def _models_to_compare(parts: AppParts) -> list[str]:
    if parts.session is None:
        return []
    return [entry.name for entry in Catalogue().list()]

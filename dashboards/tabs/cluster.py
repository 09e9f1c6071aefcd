"""The Cluster tab: which devices and engines there are, what each does now, and how requests are shared out."""

from __future__ import annotations

from typing import Any

import gradio as gr

from dashboards.cluster import ClusterWatch
from dashboards.cluster_html import cluster_html
from dashboards.parts import AppParts, shown_error
from dashboards.sources import SessionCluster
from workbench.errors import WorkbenchError

__all__ = ["ClusterTab"]

_BEAT_S = 2.0
_OPTIONS: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


class ClusterTab:
    """Builds the tab into the Blocks that is open. `timer` is to run while it is shown."""

    def __init__(self, parts: AppParts) -> None:
        self._parts = parts
        self._watch = ClusterWatch(parts.cluster)
        self.cards = gr.HTML("", elem_id="wb-cluster", padding=False)
        restart = gr.Button("Start stopped replicas anew", size="sm", visible=False, elem_id="wb-replicas-restart")
        self.shown = [self.cards, restart]
        # Whose engine it is can start them.
        self._can_restart = isinstance(parts.cluster, SessionCluster)
        if self._can_restart:
            restart.click(self._restart, None, self.shown, **_OPTIONS, concurrency_limit=1, concurrency_id="model")
        self.timer = gr.Timer(_BEAT_S, active=False)
        self.timer.tick(self._look, None, self.shown, **_OPTIONS, concurrency_limit=None)

    def show_on(self, tab: gr.Tab) -> None:
        """Show how things are when the tab is opened."""
        tab.select(self._look, None, self.shown, **_OPTIONS, concurrency_limit=None)

    async def _look(self) -> tuple[str, Any]:
        view = await self._watch.look()
        has_stopped = len(view.engines) > 1 and not all(engine.is_alive for engine in view.engines)
        return cluster_html(view), gr.Button(visible=self._can_restart and has_stopped)

    async def _restart(self, request: gr.Request) -> tuple[str, Any]:
        try:
            self._parts.require_admin(request)
            restarted = await self._parts.cluster.restart_stopped()
        except WorkbenchError as error:
            raise shown_error(error) from None
        gr.Info(f"Started anew: replicas {', '.join(map(str, restarted))}." if restarted else "All replicas run.")
        return await self._look()

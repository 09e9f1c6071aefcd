"""The Monitor tab: memory and throughput as they are, what is in flight, and a way to cancel it."""

from __future__ import annotations

import asyncio
import html
import time
from typing import Any

import gradio as gr

from dashboards.parts import AppParts, shown_error
from widgets.chart_rows import ChartRow
from widgets.figures import live_figure, live_summary, live_view
from workbench.errors import EngineStoppedError, WorkbenchError

__all__ = ["MonitorTab"]

_WINDOW_S = 120.0
# A browser without a GPU draws the plot for half a second.
_BEAT_S = 2.0
_HEADERS = ["Request", "Prompt tokens", "Tokens so far", "Most tokens", "Seconds"]
_OPTIONS = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
_TILES = (
    ("requests_running", "running", "{:.0f}"),
    ("requests_waiting", "waiting", "{:.0f}"),
    ("generated_tokens_per_s", "tokens/s", "{:.1f}"),
    ("prompt_tokens_per_s", "prompt tokens/s", "{:.1f}"),
    ("kv_used_fraction", "of the KV pool in use", "{:.0%}"),
    ("process_memory_bytes", "GB in this process", "{:.2f}"),
)


class MonitorTab:
    """Builds the tab into the Blocks that is open. Draws what the app's sampler measures, while it is shown."""

    def __init__(self, parts: AppParts, rows: tuple[ChartRow, ...]) -> None:
        self._parts = parts
        self._rows_shown = rows
        self.tiles = gr.HTML("", elem_id="wb-tiles", padding=False)
        self.plot = gr.Plot(label="Memory and throughput", show_label=False, elem_id="wb-live-plot")
        self.summary = gr.Markdown("", elem_id="wb-live-summary", elem_classes="wb-figures")
        gr.Markdown("#### Requests in flight")
        self.table = gr.Dataframe(
            headers=_HEADERS, value=[], interactive=False, elem_id="wb-requests", show_label=False, max_height=260
        )
        self.request = gr.Dropdown([], label="Request to cancel", elem_id="wb-request")
        with gr.Row(elem_classes="wb-bar-of-buttons"):
            self.cancel = gr.Button("Cancel it", variant="stop", size="sm", elem_id="wb-cancel-request")
            self.cancel_all = gr.Button("Cancel all", size="sm", elem_id="wb-cancel-all")
        self.timer = gr.Timer(_BEAT_S, active=False)
        self._shown = [self.tiles, self.plot, self.summary, self.table, self.request]
        self.timer.tick(self._look, None, self._shown, **_OPTIONS)
        self.cancel.click(self._cancel, [self.request], None, **_OPTIONS)
        self.cancel_all.click(self._cancel_all, None, None, **_OPTIONS)

    def show_on(self, tab: gr.Tab) -> None:
        """Show how things are when the tab is opened."""
        tab.select(self._look, None, self._shown, **_OPTIONS)

    async def _look(self, request: gr.Request) -> list[Any]:
        # A figure takes tens of milliseconds, which replies that run on other pages need not wait for.
        return await asyncio.to_thread(self._seen)

    def _seen(self) -> list[Any]:
        sampler = self._parts.sampler
        series = sampler.series
        view = live_view(series, self._rows_shown, sampler.now_s(), _WINDOW_S)
        rows = self._rows()
        return [
            _tiles_html({name: one.last for name, one in series.items()}),
            live_figure(view),
            live_summary(view),
            rows,
            gr.Dropdown(choices=[row[0] for row in rows]),
        ]

    def _rows(self) -> list[list[Any]]:
        try:
            requests = self._parts.require_session().llm.requests()
        except EngineStoppedError:
            return []
        now_s = time.monotonic()
        return [
            [
                request.request_id,
                request.num_prompt_tokens,
                request.num_generated_tokens,
                "until it ends" if request.max_tokens is None else str(request.max_tokens),
                round(now_s - request.submitted_s, 1),
            ]
            for request in requests
        ]

    async def _cancel(self, request: gr.Request, request_id: str | None) -> None:
        self._abort(request, [request_id] if request_id else [])

    async def _cancel_all(self, request: gr.Request) -> None:
        self._abort(request, [row[0] for row in self._rows()])

    def _abort(self, request: gr.Request, ids: list[str]) -> None:
        try:
            self._parts.require_admin(request)
            for request_id in ids:
                self._parts.require_session().llm.abort(request_id)
        except WorkbenchError as error:
            raise shown_error(error) from None
        gr.Info(f"{len(ids)} request{'' if len(ids) == 1 else 's'} cancelled.")


def _tiles_html(values: dict[str, float | None]) -> str:
    tiles = []
    for name, words, form in _TILES:
        value = values.get(name)
        if value is not None:
            shown = form.format(value / 1e9 if name.endswith("_bytes") else value)
            tiles.append(f'<div class="wb-tile"><b>{html.escape(shown)}</b>{html.escape(words)}</div>')
    return f'<div class="wb-tiles">{"".join(tiles)}</div>'

"""The Endpoint tab: serve the loaded model to OpenAI clients, with keys and ready-made calls."""

from __future__ import annotations

import asyncio
import html
from datetime import datetime
from typing import Any

import gradio as gr

from dashboards.outside_address import outside_host, outside_url
from dashboards.parts import AppParts, shown_error
from workbench.errors import ConfigError, WorkbenchError
from workbench.server import Endpoint, serve
from workbench.server.client_snippets import client_snippets
from workbench.server.endpoints import PROCESS_ENDPOINTS
from workbench.server.keys import Scope, default_key_file

__all__ = ["EndpointTab"]

_NAME = "default"
_OPTIONS = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "concurrency_limit": 1,
    "concurrency_id": "endpoint",
}


class EndpointTab:
    """Builds the tab into the Blocks that is open."""

    def __init__(self, parts: AppParts) -> None:
        self._parts = parts
        with gr.Row():
            with gr.Column(min_width=300):
                self.state = gr.HTML("", elem_id="wb-endpoint-state", padding=False)
                self.port = gr.Number(0, label="Port", precision=0, minimum=0, maximum=65535, info="0: a free one")
                with gr.Row(elem_classes="wb-bar-of-buttons"):
                    self.start = gr.Button("Start", variant="primary", size="sm", elem_id="wb-endpoint-start")
                    self.stop = gr.Button("Stop", size="sm", elem_id="wb-endpoint-stop")
                self.key = gr.Textbox(
                    label="Its key", type="password", interactive=False, buttons=["copy"], elem_id="wb-endpoint-key"
                )
                gr.Markdown("#### Stored keys\nThey work for every endpoint of this user, and for this app.")
                self.keys = gr.Dataframe(
                    headers=["Id", "Name", "Scope", "Made"],
                    value=[],
                    interactive=False,
                    show_label=False,
                    elem_id="wb-keys",
                )
                self.name = gr.Textbox(label="Name of a new key", max_length=64, elem_id="wb-key-name")
                self.scope = gr.Radio([s.value for s in Scope], value=Scope.USE.value, label="It may")
                self.create = gr.Button("Make a key", size="sm", elem_id="wb-key-create")
                self.new_key = gr.Textbox(
                    label="The new key, shown this once", visible=False, buttons=["copy"], elem_id="wb-new-key"
                )
                self.revoked = gr.Dropdown([], label="A key to revoke", elem_id="wb-key-id")
                self.revoke = gr.Button("Revoke it", size="sm", variant="stop", elem_id="wb-key-revoke")
            with gr.Column(min_width=320):
                self.curl = gr.Code("", label="curl", language="shell", elem_id="wb-snippet-curl", wrap_lines=True)
                self.openai = gr.Code(
                    "", label="openai", language="python", elem_id="wb-snippet-openai", wrap_lines=True
                )
                self.langchain = gr.Code(
                    "", label="LangChain", language="python", elem_id="wb-snippet-langchain", wrap_lines=True
                )
        shown = [self.state, self.key, self.keys, self.revoked, self.curl, self.openai, self.langchain]
        self._shown = shown
        self.start.click(self._start, [self.port], shown, **_OPTIONS)
        self.stop.click(self._stop, None, shown, **_OPTIONS)
        self.create.click(self._create, [self.name, self.scope], [*shown, self.new_key], **_OPTIONS)
        self.revoke.click(self._revoke, [self.revoked], shown, **_OPTIONS)

    def show_on(self, tab: gr.Tab) -> None:
        """Show how things are when the tab is opened."""
        tab.select(self._show, None, self._shown, **_OPTIONS)

    async def _show(self, request: gr.Request) -> list[Any]:
        is_admin = self._parts.is_admin(request)
        endpoint = PROCESS_ENDPOINTS.get(_NAME)
        keys = default_key_file().list() if is_admin else []
        rows = [[key.key_id, key.name, key.scope.value, _day(key.created_s)] for key in keys]
        url = endpoint.url if endpoint else "http://127.0.0.1:PORT/v1"
        outside = outside_url(request.request.scope, request.headers, endpoint.port) if endpoint else None
        snippets = client_snippets(url, self._parts.source.state().model or "MODEL")
        return [
            _state_html(endpoint, outside),
            (endpoint.api_key or "") if endpoint and is_admin else "",
            rows,
            gr.Dropdown(choices=[(f"{key.name} ({key.key_id})", key.key_id) for key in keys], value=None),
            snippets["curl"],
            snippets["openai"],
            snippets["langchain"],
        ]

    async def _start(self, request: gr.Request, port: float | None) -> list[Any]:
        try:
            self._parts.require_admin(request)
            llm = self._parts.require_session().llm
            # Behind a proxy calls come under the name of this page.
            host = outside_host(request.headers)
            options = {"allowed_hosts": (host,)} if host else {}
            await asyncio.to_thread(serve, llm, name=_NAME, port=int(port or 0), **options)
        except WorkbenchError as error:
            raise shown_error(error) from None
        return await self._show(request)

    async def _stop(self, request: gr.Request) -> list[Any]:
        try:
            self._parts.require_admin(request)
        except WorkbenchError as error:
            raise shown_error(error) from None
        endpoint = PROCESS_ENDPOINTS.get(_NAME)
        if endpoint is not None:
            await asyncio.to_thread(endpoint.stop, 2.0)
        return await self._show(request)

    async def _create(self, request: gr.Request, name: str, scope: str) -> list[Any]:
        try:
            self._parts.require_admin(request)
            made = await asyncio.to_thread(default_key_file().create, name, Scope(scope))
        except WorkbenchError as error:
            raise shown_error(error) from None
        return [*await self._show(request), gr.Textbox(value=made.secret, visible=True)]

    async def _revoke(self, request: gr.Request, key_id: str | None) -> list[Any]:
        try:
            self._parts.require_admin(request)
            if not key_id:
                raise ConfigError("choose a key")
            await asyncio.to_thread(default_key_file().revoke, key_id)
        except WorkbenchError as error:
            raise shown_error(error) from None
        return await self._show(request)


def _state_html(endpoint: Endpoint | None, outside: str | None) -> str:
    if endpoint is None:
        return "<p>The endpoint is stopped.</p>"
    here = f"<p>The endpoint answers at <b>{html.escape(endpoint.url)}</b></p>"
    if outside is None:
        return here
    words = "through the proxy, which may ask for a key of its own:"
    return f"{here}<p>From outside, {words} <b>{html.escape(outside)}</b></p>"


def _day(created_s: float) -> str:
    return datetime.fromtimestamp(created_s).strftime("%Y-%m-%d")

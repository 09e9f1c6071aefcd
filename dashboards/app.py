"""A running app: the page, the gate before it and the server under it. Starts when it answers, stops when told to."""

from __future__ import annotations

import asyncio
import contextlib
import html
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp

from dashboards.farewell import Farewell
from dashboards.gate import Gate
from dashboards.parts import AppParts
from workbench.errors import ConfigError
from workbench.server.host_check import HostCheck
from workbench.server.server_thread import ServerThread
from workbench.server.settings import ListenSettings

__all__ = ["App"]

_STOP_TIMEOUT_S = 10.0


class App:
    """Serves `parts` until `stop()`; also a context manager.

    Raises ConfigError for an address that needs a key and has none of your own, or cannot be listened on.
    """

    def __init__(self, parts: AppParts, listen: ListenSettings, *, root_path: str = "") -> None:
        if root_path and not root_path.startswith(("/", "http://", "https://")):
            raise ConfigError(f"root_path={root_path!r}: must begin with / (a path) or http(s):// (a whole address)")
        self.parts = parts
        self.listen = listen
        self.root_path = root_path.rstrip("/")
        self._farewell: Farewell | None = None
        self._server = ServerThread(self._open, listen.host, listen.port, name="workbench-app", what="the app")

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.port

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        return f"{self._server.url}/"

    @property
    def proxied_path(self) -> str | None:
        """The path under which a hub's proxy shows it; None where there is no hub."""
        prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
        return f"{prefix.rstrip('/')}/proxy/{self.port}/" if prefix else None

    @property
    def is_running(self) -> bool:
        """Whether it answers."""
        return self._server.is_running

    def start(self) -> App:
        """Serve, and return once requests are answered."""
        self._server.start()
        if self.parts.sampler is not None:
            self.parts.sampler.start()
        return self

    def stop(self) -> None:
        """Stop the replies of its pages, and close. The loaded model stays, if it is not the app's own."""
        loop = self._server.loop
        if loop is not None and self._farewell is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended by itself
                loop.call_soon_threadsafe(self._farewell.say)
        self._server.stop(_STOP_TIMEOUT_S)
        if self.parts.sampler is not None:
            self.parts.sampler.stop()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until it has ended."""
        self._server.join(timeout_s)

    def __enter__(self) -> App:
        return self if self.is_running else self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"App({self.url!r}, {'running' if self.is_running else 'stopped'})"

    def _repr_html_(self) -> str:
        url = html.escape(self.proxied_path or self.url)
        return f'<p>The app is at <a href="{url}" target="_blank">{url}</a></p>'

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[uvicorn.Config]:
        self._farewell = Farewell(self._make())
        following = asyncio.create_task(self._follow_remote())
        try:
            yield uvicorn.Config(
                self._farewell,
                log_config=None,
                access_log=False,
                server_header=False,
                # Whatever else is installed: ray brings another.
                http="h11",
                proxy_headers=False,
                timeout_graceful_shutdown=2,
            )
        finally:
            following.cancel()
            self.parts.desks.close_all()
            # A connection that does not close is no reason to keep the app.
            with contextlib.suppress(Exception):
                await self.parts.source.close()

    def _make(self) -> ASGIApp:
        # Gradio takes a second to import, and pandas with it.
        import gradio as gr
        from fastapi import FastAPI
        from starlette.middleware import Middleware

        from dashboards.page import TITLE, build_page
        from dashboards.page_head import ICON_PATH, PageHead
        from dashboards.theme import CSS_PATHS, head, theme

        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        gr.mount_gradio_app(
            app,
            build_page(self.parts),
            path="/",
            root_path=self.root_path or None,
            footer_links=["api", "settings"],
            run_history=False,
            show_error=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            max_file_size="20mb",
            theme=theme(),
            css_paths=CSS_PATHS,
            head=head(),
            favicon_path=str(ICON_PATH),
            # Gradio's own layers, compression among them, go around this one.
            app_kwargs={"middleware": [Middleware(PageHead)]},
        )
        return HostCheck(Gate(app, self.parts.ring, title=TITLE), listen=self.listen)

    async def _follow_remote(self) -> None:
        """Ask a remote endpoint now and again what it serves."""
        while self.parts.source.is_remote:
            await self.parts.source.refresh()
            await asyncio.sleep(10.0)

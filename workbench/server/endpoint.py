"""A running endpoint: the app on a thread and an event loop of its own. Starts when healthy, stops when drained."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn

from workbench.errors import ConfigError
from workbench.server.access import Access
from workbench.server.app import create_app
from workbench.server.errors import ApiError
from workbench.server.http_protocol import HttpProtocol
from workbench.server.key_watch import watch_keys
from workbench.server.model_host import ModelHost
from workbench.server.server_thread import ServerThread
from workbench.server.services import Services
from workbench.server.settings import ServerSettings
from workbench.server.socket_protocol import SocketProtocol
from workbench.twin import HasTwin, Twin

__all__ = ["Endpoint"]

_SEND_BUFFER_BYTES = 256 * 1024
# After the time for running requests is over: what it takes to tell them so.
_FAREWELL_S = 1.0


class Endpoint(HasTwin):
    """Serves one model host until `stop()`; also a context manager.

    `host` makes the model host, on the endpoint's loop. Raises ConfigError for an address that needs a key and has
    none, or cannot be listened on.
    """

    def __init__(self, host: Callable[[], ModelHost], settings: ServerSettings, access: Access) -> None:
        _check_access(settings, access)
        self.settings = settings
        self.access = access
        self._make_host = host
        self._services: Services | None = None
        self._server = ServerThread(
            self._open,
            settings.listen.host,
            settings.listen.port,
            name="workbench-server",
            what="the endpoint",
            send_buffer_bytes=_SEND_BUFFER_BYTES,
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.port

    @property
    def url(self) -> str:
        """Base URL for OpenAI clients."""
        return f"{self._server.url}/v1"

    @property
    def api_key(self) -> str | None:
        """A key that clients may use, where it was given or made up for this endpoint. Never in its repr."""
        return self.access.use_key.secret if self.access.use_key else None

    @property
    def is_running(self) -> bool:
        """Whether it answers."""
        return self._server.is_running

    def start(self) -> Endpoint:
        """Serve, and return once requests are answered."""
        self._server.start()
        return self

    def stop(self, drain_s: float | None = None) -> None:
        """Refuse what is new, give running requests `drain_s` (default: as set) to end, and close. Harmless twice."""
        drain_s = self.settings.queue.drain_s if drain_s is None else drain_s
        loop = self._server.loop
        if loop is None:
            self._server.stop()
            return
        with contextlib.suppress(RuntimeError):  # the loop has just ended by itself
            asyncio.run_coroutine_threadsafe(self._drain(drain_s), loop)
        self.join(drain_s + _FAREWELL_S + 10.0)

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until it has ended."""
        self._server.join(timeout_s)

    def __enter__(self) -> Endpoint:
        return self if self.is_running else self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def twin(self) -> Twin:
        """Whether it runs and who may call it; neither its port nor its key, which differ from run to run."""
        who = "every call needs a key" if self.access.ring is not None else "whoever reaches it may call it"
        rows = (("state", "running" if self.is_running else "stopped"), ("access", who))
        return Twin("Endpoint", rows)

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, {'running' if self.is_running else 'stopped'})"

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[uvicorn.Config]:
        self._services = Services.build(self.settings, self._make_host(), self.access.ring)
        watching = asyncio.create_task(watch_keys(self._services))
        try:
            yield _config(self._services, self.settings)
        finally:
            watching.cancel()
            self._services.stop()

    async def _drain(self, drain_s: float) -> None:
        services = self._services
        if services is None:
            # It has not begun.
            return
        services.is_draining = True
        await _until(lambda: not services.servings, drain_s)
        for serving in tuple(services.servings):
            serving.fail(ApiError(503, "the server is stopping", code="server_stopping"))
        await _until(lambda: not services.servings, _FAREWELL_S)
        self._server.ask_to_end()


async def _until(is_done: Callable[[], bool], timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while not is_done():
                await asyncio.sleep(0.02)


def _config(services: Services, settings: ServerSettings) -> uvicorn.Config:
    wire = settings.wire
    return uvicorn.Config(
        create_app(services),
        http=functools.partial(HttpProtocol, wire=wire),  # type: ignore[arg-type]  # is called as the class would be
        ws=SocketProtocol,
        ws_max_size=wire.max_frame_bytes,
        # A few kilobytes can stand for gigabytes in a compressed frame.
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # The address of a caller is what the socket says: a header can be made up.
        proxy_headers=False,
        h11_max_incomplete_event_size=wire.max_header_bytes,
        timeout_keep_alive=int(max(1, wire.idle_timeout_s)),
        timeout_graceful_shutdown=2,
    )


def _check_access(settings: ServerSettings, access: Access) -> None:
    listen = settings.listen
    if access.ring is None and not listen.no_auth:
        raise ConfigError("no_auth is not set, so keys are needed")
    if not (listen.no_auth or listen.is_loopback or access.has_own_keys):
        raise ConfigError(
            f"host={listen.host!r} can be reached from other machines, so a key of your own is needed: give one, make "
            "one with `workbench keys create`, or set no_auth to serve everybody"
        )

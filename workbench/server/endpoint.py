"""A running endpoint: the app on a thread and an event loop of its own. Starts when healthy, stops when drained."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import threading
from collections.abc import Callable

import uvicorn

from workbench.errors import BackendError, ConfigError
from workbench.server.access import Access
from workbench.server.app import create_app
from workbench.server.errors import ApiError
from workbench.server.http_protocol import HttpProtocol
from workbench.server.model_host import ModelHost
from workbench.server.services import Services
from workbench.server.settings import ServerSettings
from workbench.twin import HasTwin, Twin

__all__ = ["Endpoint"]

_log = logging.getLogger(__name__)
_START_TIMEOUT_S = 30.0
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
        self._socket = _listening_socket(settings.listen.host, settings.listen.port)
        self._port = self._socket.getsockname()[1]
        self._services: Services | None = None
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="workbench-server", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """Base URL for OpenAI clients."""
        host = self.settings.listen.host
        if host in ("0.0.0.0", "::"):
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    @property
    def api_key(self) -> str | None:
        """A key that clients may use, where it was given or made up for this endpoint. Never in its repr."""
        return self.access.use_key.secret if self.access.use_key else None

    @property
    def is_running(self) -> bool:
        """Whether it answers."""
        return self._ready.is_set() and self._thread.is_alive()

    def start(self) -> Endpoint:
        """Serve, and return once requests are answered."""
        self._thread.start()
        self._ready.wait(_START_TIMEOUT_S)
        if self._failure is not None:
            self._thread.join()
            raise BackendError(f"the endpoint could not start: {self._failure}") from self._failure
        return self

    def stop(self, drain_s: float | None = None) -> None:
        """Refuse what is new, give running requests `drain_s` (default: as set) to end, and close. Harmless twice."""
        if not self._thread.is_alive() or self._loop is None:
            return
        drain_s = self.settings.queue.drain_s if drain_s is None else drain_s
        with contextlib.suppress(RuntimeError):  # the loop has just ended by itself
            asyncio.run_coroutine_threadsafe(self._drain(drain_s), self._loop)
        self._thread.join(drain_s + _FAREWELL_S + 10.0)

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until it has ended."""
        self._thread.join(timeout_s)

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

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve())
        except BaseException as error:  # top of the thread: whoever waits in `start` must hear of it
            self._failure = error
            _log.exception("the endpoint ended with an error")
        finally:
            self._socket.close()
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._services = Services.build(self.settings, self._make_host(), self.access.ring)
        try:
            server = uvicorn.Server(_config(self._services, self.settings))
            self._server = server
            serving = asyncio.create_task(server.serve(sockets=[self._socket]))
            while not server.started and not serving.done():
                await asyncio.sleep(0.005)
            self._ready.set()
            await serving
        finally:
            self._services.stop()

    async def _drain(self, drain_s: float) -> None:
        services, server = self._services, self._server
        services.is_draining = True
        await _until(lambda: not services.servings, drain_s)
        for serving in tuple(services.servings):
            serving.fail(ApiError(503, "the server is stopping", code="server_stopping"))
        await _until(lambda: not services.servings, _FAREWELL_S)
        server.should_exit = True


async def _until(is_done: Callable[[], bool], timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while not is_done():
                await asyncio.sleep(0.02)


def _config(services: Services, settings: ServerSettings) -> uvicorn.Config:
    wire = settings.wire
    return uvicorn.Config(
        create_app(services),
        http=functools.partial(HttpProtocol, wire=wire),
        ws="websockets-sansio",
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


def _listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it. Bounds what the system keeps for a client that does not read.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        listener.bind((host.strip("[]"), port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigError(f"host={host!r}, port={port}: cannot listen there: {error.strerror or error}") from error
    return listener

"""The app on a thread and an event loop of its own: starts when it answers, stops when told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from workbench.errors import BackendError, ConfigError

__all__ = ["AppServer"]

_log = logging.getLogger(__name__)
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0


class AppServer:
    """Serves the ASGI app that `make` gives. `make` is called on the server's loop; `on_stop` too, at the end.

    Raises ConfigError for an address that cannot be listened on.
    """

    def __init__(self, make: Callable[[], ASGIApp], host: str, port: int, on_stop: Callable[[], object]) -> None:
        self._make = make
        self._on_stop = on_stop
        self._socket = _listening_socket(host, port)
        self.host = host
        self.port = self._socket.getsockname()[1]
        self._server: uvicorn.Server | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="workbench-app", daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether it answers."""
        return self._ready.is_set() and self._thread.is_alive()

    def start(self) -> None:
        """Serve, and return once requests are answered. Raises BackendError if it can't."""
        self._thread.start()
        self._ready.wait(_START_TIMEOUT_S)
        if self._failure is not None:
            self._thread.join()
            raise BackendError(f"the app could not start: {self._failure}") from self._failure

    def stop(self) -> None:
        """Close; open pages lose their connection. Harmless twice."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_STOP_TIMEOUT_S)

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until it has ended."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve())
        except BaseException as error:  # top of the thread: whoever waits in `start` must hear of it
            self._failure = error
            _log.exception("the app ended with an error")
        finally:
            self._socket.close()
            self._ready.set()

    async def _serve(self) -> None:
        config = uvicorn.Config(
            self._make(),
            log_config=None,
            access_log=False,
            server_header=False,
            # Whatever else is installed: ray brings another.
            http="h11",
            proxy_headers=False,
            # Pages keep streams open as long as they are shown.
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.005)
        self._ready.set()
        try:
            await serving
        finally:
            result = self._on_stop()
            if asyncio.iscoroutine(result):
                with contextlib.suppress(Exception):
                    await result


def _listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigError(f"host={host!r}, port={port}: cannot listen there: {error.strerror or error}") from error
    return listener

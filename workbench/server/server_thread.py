"""An ASGI app on a thread and an event loop of its own: listens at once, answers once started. Knows no app."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import uvicorn

from workbench.errors import BackendError, ConfigError

__all__ = ["ServerThread"]

_log = logging.getLogger(__name__)
_START_TIMEOUT_S = 60.0


class ServerThread:
    """Listens on `host` and `port` (0: a free one) from the start, and serves after `start()`.

    `open_app` is entered on the thread's loop and gives what uvicorn is to serve; it is left, on the same loop, when
    serving has ended. `name` is the thread's; `what` names the whole in messages. `send_buffer_bytes` bounds what the
    system keeps for a client that does not read. Raises ConfigError for an address that cannot be listened on.
    """

    def __init__(
        self,
        open_app: Callable[[], AbstractAsyncContextManager[uvicorn.Config]],
        host: str,
        port: int,
        *,
        name: str,
        what: str,
        send_buffer_bytes: int | None = None,
    ) -> None:
        self._open_app = open_app
        self._host = host
        self._what = what
        self._socket = _listening_socket(host, port, send_buffer_bytes)
        self.port: int = self._socket.getsockname()[1]
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def url(self) -> str:
        """Where this machine finds it, without a slash at the end."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether it answers."""
        return self._ready.is_set() and self._thread.is_alive()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that it serves on; None before it has begun and after its end."""
        return self._loop if self._thread.is_alive() else None

    def start(self) -> None:
        """Serve, and return once requests are answered. Raises BackendError if it can't."""
        self._thread.start()
        self._ready.wait(_START_TIMEOUT_S)
        if self._failure is not None:
            self._thread.join()
            raise BackendError(f"{self._what} could not start: {self._failure}") from self._failure

    def stop(self, timeout_s: float | None = None) -> None:
        """Take no more connections, end those that are open, and wait for the end. Harmless twice."""
        self.ask_to_end()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        else:
            # Where it was never started.
            self._socket.close()

    def ask_to_end(self) -> None:
        """`stop`, for callers on the loop itself, who cannot wait."""
        if self._server is not None:
            self._server.should_exit = True

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until it has ended."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve())
        except BaseException as error:  # top of the thread: whoever waits in `start` must hear of it
            self._failure = error
            _log.exception("%s ended with an error", self._what)
        finally:
            self._socket.close()
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self._open_app() as config:
            self._server = uvicorn.Server(config)
            serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
            while not self._server.started and not serving.done():
                await asyncio.sleep(0.005)
            self._ready.set()
            await serving


def _listening_socket(host: str, port: int, send_buffer_bytes: int | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named for asyncio: else it lets small writes wait for the receipt of the last one, 40 ms each.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if send_buffer_bytes is not None:
            # Connections inherit it.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        listener.bind((host.strip("[]"), port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigError(f"host={host!r}, port={port}: cannot listen there: {error.strerror or error}") from error
    return listener

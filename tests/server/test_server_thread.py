"""What endpoint and app have in common: an app on a thread, listening, answering, and gone when told to."""

from __future__ import annotations

import socket
import threading
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from workbench.errors import BackendError, ConfigError
from workbench.server.server_thread import ServerThread


def _server(
    events: list[str], port: int = 0, problem: Exception | None = None, protocol: type[H11Protocol] = H11Protocol
) -> ServerThread:
    @asynccontextmanager
    async def open_app():
        if problem is not None:
            raise problem
        events.append("opened")
        yield uvicorn.Config(PlainTextResponse("here"), http=protocol, lifespan="off", log_config=None)
        events.append("closed")

    return ServerThread(open_app, "127.0.0.1", port, name="a-test-server", what="the test")


def test_it_answers_from_start_to_stop_and_leaves_no_thread():
    events: list[str] = []
    server = _server(events)
    assert not server.is_running and server.loop is None
    server.start()
    assert httpx.get(server.url, trust_env=False).text == "here" and server.is_running
    with pytest.raises(ConfigError, match="cannot listen there"):
        _server([], server.port)
    server.stop()
    server.stop()
    assert events == ["opened", "closed"] and not server.is_running
    assert "a-test-server" not in [thread.name for thread in threading.enumerate()]


def test_a_small_write_does_not_wait_for_the_receipt_of_the_last_one():
    """Else each answer on a connection that is used again comes 40 ms later."""
    is_off = []

    class Noting(H11Protocol):
        def connection_made(self, transport):
            is_off.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            super().connection_made(transport)

    server = _server([], protocol=Noting)
    server.start()
    assert httpx.get(server.url, trust_env=False).text == "here"
    server.stop()
    assert is_off and all(is_off)


def test_what_keeps_it_from_starting_is_said():
    server = _server([], problem=ValueError("no app today"))
    with pytest.raises(BackendError, match="the test could not start: no app today"):
        server.start()
    assert not server.is_running


def test_one_that_never_started_gives_its_port_back():
    server = _server([])
    server.stop()
    _server([], server.port).stop()

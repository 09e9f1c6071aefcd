"""An app with open streams stops in good order."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import asynccontextmanager

import httpx
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse

from dashboards.farewell import Farewell
from workbench.server.server_thread import ServerThread


async def _app(scope, receive, send):
    """Answers POST with its body, and anything else with a stream that has no end of its own."""
    request = Request(scope, receive)
    if request.method == "POST":
        await PlainTextResponse(await request.body())(scope, receive, send)
        return

    async def pieces():
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    await StreamingResponse(pieces())(scope, receive, send)


def test_open_streams_end_when_the_app_does_and_nothing_is_called_an_error(caplog):
    made: list[Farewell] = []

    @asynccontextmanager
    async def open_app():
        made.append(Farewell(_app))
        yield uvicorn.Config(made[0], lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=60)

    server = ServerThread(open_app, "127.0.0.1", 0, name="a-test-server", what="the test")
    server.start()
    assert httpx.post(server.url, content=b"in full", trust_env=False).text == "in full"
    has_begun, texts = threading.Event(), []

    def read() -> None:
        with httpx.stream("GET", server.url, trust_env=False) as reply:
            for text in reply.iter_text():
                texts.append(text)
                has_begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert has_begun.wait(60)
    server.loop.call_soon_threadsafe(made[0].say)
    server.stop()
    reader.join(60)
    assert not reader.is_alive() and not server.is_running and set("".join(texts)) == {"x"}
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []

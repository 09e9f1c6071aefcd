"""Server-sent events that survive proxies, and end with their client: heartbeats, and no patience for slow readers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi.sse import format_sse_event
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from workbench.server.client_watch import client_left
from workbench.server.errors import ApiError, api_error
from workbench.server.settings import WireLimits

__all__ = ["DONE", "EventStream", "error_event", "event", "until_done"]

_log = logging.getLogger(__name__)

DONE = format_sse_event(data_str="[DONE]")
_HEARTBEAT = format_sse_event(comment="still here")
_TICK_S = 1.0


def event(body: BaseModel, name: str | None = None) -> bytes:
    """One event with a JSON body."""
    return format_sse_event(data_str=body.model_dump_json(), event=name)


def error_event(error: ApiError, name: str | None = None) -> bytes:
    """The event that an error becomes once the stream has begun."""
    return format_sse_event(data_str=to_json(error.body).decode(), event=name)


async def until_done(events: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The events, an error as one more of them, and the mark that says there are no more."""
    try:
        async for data in events:
            yield data
    except ApiError as error:
        yield error_event(error)
    except Exception as error:  # the response has begun: the client can only be told here
        _log.exception("a stream failed")
        yield error_event(api_error(error))
    yield DONE


class EventStream(Response):
    """Sends what `events` yields, each one or more whole events. `close` is called at the end, whatever happens."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], wire: WireLimits, close: Callable[[], Awaitable[None]]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._wire = wire
        self._close = close
        self._sent_s = 0.0
        self._is_sending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tasks = {
            asyncio.create_task(self._send_events(send)),
            asyncio.create_task(client_left(receive)),
            stalled := asyncio.create_task(self._watch(send)),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._events.aclose()
            await self._close()
        if stalled in done:
            # Closing politely would wait for the client to read the rest.
            abort = scope["state"].get("abort_connection")
            if abort is not None:
                abort()
        for task in done:
            task.result()

    async def _send_events(self, send: Send) -> None:
        await self._send(send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for data in self._events:
            await self._send(send, {"type": "http.response.body", "body": data, "more_body": True})
        await self._send(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, message: dict[str, Any]) -> None:
        self._is_sending, self._sent_s = True, asyncio.get_running_loop().time()
        await send(message)
        self._is_sending, self._sent_s = False, asyncio.get_running_loop().time()

    async def _watch(self, send: Send) -> None:
        """Send heartbeats into silence; return when the client has not read for too long."""
        tick_s = min(_TICK_S, self._wire.heartbeat_s, self._wire.send_timeout_s)
        while True:
            await asyncio.sleep(tick_s)
            silent_s = asyncio.get_running_loop().time() - self._sent_s
            if self._is_sending and silent_s > self._wire.send_timeout_s:
                return
            if not self._is_sending and silent_s >= self._wire.heartbeat_s:
                with contextlib.suppress(OSError):
                    await self._send(send, {"type": "http.response.body", "body": _HEARTBEAT, "more_body": True})

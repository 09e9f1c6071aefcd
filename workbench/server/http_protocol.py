"""uvicorn's HTTP/1.1 with what an open port needs besides: a time for headers, a bound on connections, JSON errors."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from workbench.server.errors import ApiError, invalid
from workbench.server.reply import refuse
from workbench.server.settings import WireLimits
from workbench.server.unread_body import UnreadBody

__all__ = ["HttpProtocol"]

_MAX_HEADERS = 256
_TOO_MANY_HEADERS = ApiError(
    431, "the headers are too many or too long", code="headers_too_large", headers={"connection": "close"}
)


class HttpProtocol(H11Protocol):
    """One connection.

    Not the faster httptools, which does not bound the headers. The app finds `abort_connection` in the scope's state.
    """

    def __init__(self, *args: Any, wire: WireLimits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._wire = wire
        self._header_timer: asyncio.TimerHandle | None = None
        app = self.app

        async def guarded_app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"]["abort_connection"] = self.transport.abort
            # The parser's own bound only counts while the end of the headers has not come.
            headers = scope["headers"]
            num_bytes = sum(len(name) + len(value) for name, value in headers)
            body = UnreadBody(scope, receive, send)
            if len(headers) > _MAX_HEADERS or num_bytes > wire.max_header_bytes:
                await refuse(_TOO_MANY_HEADERS, scope, body.receive, body.send)
            else:
                await app(scope, body.receive, body.send)

        self.app = guarded_app

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        if len(self.connections) > self._wire.max_connections:
            transport.abort()
            return
        self._wait_for_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_header_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Between two requests the keep-alive timer runs, until the next one begins.
        if self.conn.their_state is not h11.IDLE:
            self._forget_header_timer()
        elif self._header_timer is None and self.timeout_keep_alive_task is None:
            self._wait_for_header()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._forget_header_timer()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """See the base class; in the API's form, and only where an answer is still possible."""
        self._forget_header_timer()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        body = to_json(invalid("this is not a valid HTTP request", code="invalid_http").body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        response = h11.Response(status_code=400, headers=headers, reason=STATUS_PHRASES[400])
        for part in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(part))
        self.transport.close()

    def _wait_for_header(self) -> None:
        self._header_timer = self.loop.call_later(self._wire.header_timeout_s, self._give_up)

    def _forget_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            self.transport.abort()

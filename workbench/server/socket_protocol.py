"""uvicorn's WebSockets, whose refused handshakes are answered in the API's form and logged as no error."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request, Response

from workbench.server.errors import ApiError

__all__ = ["SocketProtocol"]


class SocketProtocol(WebSocketsSansIOProtocol):
    """One connection that asked for a WebSocket."""

    def handle_connect(self, event: Request) -> None:
        """See the base class, which has websockets judge the handshake."""
        accept = self.conn.accept
        self.conn.accept = lambda request: _in_our_form(accept(request))  # type: ignore[method-assign]  # no other way in
        super().handle_connect(event)

    async def send(self, message: Any) -> None:
        """See the base class, to which an HTTP answer is no end of the handshake."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True


def _in_our_form(response: Response) -> Response:
    """A refused handshake's answer, with our kind of body in place of plain text."""
    if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
        return response
    words = (response.body or b"").decode("utf-8", "replace").split("\n", 1)[0].rstrip(".")
    error = ApiError(response.status_code, words[:1].lower() + words[1:], code="invalid_handshake")
    response.body = to_json(error.body)
    for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(response.body)))):
        del response.headers[name]
        response.headers[name] = value
    return response

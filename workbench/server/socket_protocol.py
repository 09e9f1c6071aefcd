"""uvicorn's WebSockets, without the error that it logs for every one that was refused with an answer."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

__all__ = ["SocketProtocol"]


class SocketProtocol(WebSocketsSansIOProtocol):
    """One connection that asked for a WebSocket."""

    async def send(self, message: Any) -> None:
        """See the base class, to which an HTTP answer is no end of the handshake."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True

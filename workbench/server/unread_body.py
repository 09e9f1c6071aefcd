"""An answer that comes before the request was read: the rest is thrown away, or the client may never see the answer.

A connection that is closed with unread data is reset, and a reset discards what the client has not read yet.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import Message, Receive, Scope, Send

__all__ = ["UnreadBody"]

# How long a client that was answered may go on sending.
_LINGER_S = 3.0


class UnreadBody:
    """The two directions of one HTTP request, watched: the answer ends once the body has, or after a while."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._is_unread = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])

    async def receive(self) -> Message:
        """The next message from the client."""
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._is_unread = False
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on; before the last one, throw away what is still coming."""
        if self._is_unread and message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_S):
                    while self._is_unread:
                        await self.receive()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

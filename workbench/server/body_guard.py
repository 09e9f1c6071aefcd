"""Bounds what a request's body may cost before anybody looks at it: its size, and how long it may take to come."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workbench.server.errors import ApiError
from workbench.server.reply import refuse
from workbench.server.settings import WireLimits

__all__ = ["BodyGuard"]


class BodyGuard:
    """Refuses bodies that are too large, announced or not, and clients that stop sending.

    Not FastAPI's own limit: that one knows no time, and answers in plain text.
    """

    def __init__(self, app: ASGIApp, *, wire: WireLimits) -> None:
        self._app = app
        self._wire = wire

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced[:20]) > self._wire.max_body_bytes:
            await refuse(self._too_large(), scope, receive, send)
            return
        body = _GuardedBody(receive, self._wire.max_body_bytes, self._wire.body_timeout_s, self._too_large())
        await self._app(scope, body.receive, send)

    def _too_large(self) -> ApiError:
        # What is still on its way would be taken for the next request.
        return ApiError(
            413,
            f"the body is larger than the {self._wire.max_body_bytes} bytes allowed",
            code="body_too_large",
            headers={"connection": "close"},
        )


class _GuardedBody:
    """The receiving side of one request."""

    def __init__(self, receive: Receive, max_bytes: int, timeout_s: float, too_large: ApiError) -> None:
        self._receive = receive
        self._left = max_bytes
        self._timeout_s = timeout_s
        self._too_large = too_large
        self._is_complete = False

    async def receive(self) -> Message:
        if self._is_complete:
            return await self._receive()
        try:
            async with asyncio.timeout(self._timeout_s):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408, "the body did not come in time", code="body_timeout", headers={"connection": "close"}
            ) from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise self._too_large
        self._is_complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

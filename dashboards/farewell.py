"""The layer that ends an app's open answers when it stops, as if their clients had gone. Knows no app."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Farewell"]


class Farewell:
    """Pages keep streams open as long as they are shown. `say()`, on the loop, ends all of them in good order."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._said: asyncio.Future[None] | None = None
        self._is_said = False

    def say(self) -> None:
        """End what is open now, and what comes yet."""
        self._is_said = True
        if self._said is not None and not self._said.done():
            self._said.set_result(None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._said is None:
            self._said = asyncio.get_running_loop().create_future()
            if self._is_said:
                self._said.set_result(None)
        over = self._said
        is_open = False
        coming: asyncio.Future[Message] | None = None

        async def sending(message: Message) -> None:
            nonlocal is_open
            await send(message)
            is_open = message["type"] == "http.response.start" or bool(message.get("more_body"))

        async def receiving() -> Message:
            # Whoever looks now and again whether the client is still there breaks this off each time, so what is waited
            # for stays, and the next one goes on waiting for it.
            nonlocal coming
            mine = coming = coming or asyncio.ensure_future(receive())
            if not mine.done():
                await asyncio.wait({mine, over}, return_when=asyncio.FIRST_COMPLETED)
            if not mine.done():
                return {"type": "http.disconnect"}
            if coming is mine:
                coming = None
            return mine.result()

        try:
            await self._app(scope, receiving, sending)
        finally:
            if coming is not None:
                coming.cancel()
        if is_open and self._is_said:
            # A stream that is left half-way: without its end the server would call it an error.
            await send({"type": "http.response.body", "body": b"", "more_body": False})

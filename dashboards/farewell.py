"""The layer that ends an app's open answers when it stops, as if their clients had gone. Knows no app."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Farewell"]


class Farewell:
    """Pages keep streams open as long as they are shown. `say()`, on the loop, ends all of them in good order."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._is_said = asyncio.Event()

    def say(self) -> None:
        """End what is open now, and what comes yet."""
        self._is_said.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_open = False

        async def sending(message: Message) -> None:
            nonlocal is_open
            await send(message)
            is_open = message["type"] == "http.response.start" or bool(message.get("more_body"))

        async def receiving() -> Message:
            coming = asyncio.ensure_future(receive())
            over = asyncio.ensure_future(self._is_said.wait())
            try:
                await asyncio.wait({coming, over}, return_when=asyncio.FIRST_COMPLETED)
                return await coming if coming.done() else {"type": "http.disconnect"}
            finally:
                coming.cancel()
                over.cancel()

        await self._app(scope, receiving, sending)
        if is_open and self._is_said.is_set():
            # A stream that is left half-way: without its end the server would call it an error.
            await send({"type": "http.response.body", "body": b"", "more_body": False})

"""The layer that mends the head of the page: what Gradio links to lies with the page, wherever a proxy put that."""

from __future__ import annotations

import base64
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["ICON_PATH", "PageHead", "icon_link"]

ICON_PATH = Path(__file__).parent / "assets" / "icon.svg"
# At the root of the host, which on a hub is somebody else's; the app is not offered for installation.
_MANIFEST = b'<link rel="manifest" href="/manifest.json" />'
_END_OF_HEAD = b"</head>"


def icon_link() -> str:
    """The icon as part of the page itself. Browsers ask a page without one for /favicon.ico, outside of any prefix."""
    icon = base64.b64encode(ICON_PATH.read_bytes()).decode()
    return f'<link rel="icon" href="data:image/svg+xml;base64,{icon}">'


class PageHead:
    """Gives every HTML page an icon, and takes Gradio's link to a manifest out. Belongs inside of compression."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._links = icon_link().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held: Message | None = None

        async def sending(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and _is_html(message):
                # Its length is known when the page has come.
                held = message
                return
            if held is not None and message["type"] == "http.response.body":
                page = message.get("body", b"")
                mended = page.replace(_MANIFEST, b"", 1).replace(_END_OF_HEAD, self._links + _END_OF_HEAD, 1)
                headers = MutableHeaders(scope=held)
                if "content-length" in headers:
                    headers["content-length"] = str(int(headers["content-length"]) + len(mended) - len(page))
                await send(held)
                held, message = None, {**message, "body": mended}
            await send(message)

        await self._app(scope, receive, sending)


def _is_html(start: Message) -> bool:
    return MutableHeaders(scope=start).get("content-type", "").startswith("text/html")

"""The layer that answers HEAD, which probes of load balancers like to send, wherever GET is answered."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["HeadRequests"]


class HeadRequests:
    """Has a HEAD handled as the GET that it stands for. The server, which knows it as a HEAD, leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        inner = {**scope, "method": "GET"}
        try:
            await self._app(inner, receive, send)
        finally:
            # Which route was met is for the layers outside to know.
            scope.update({**inner, "method": "HEAD"})

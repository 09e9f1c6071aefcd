"""Answers sent by the layers around the app: JSON through the ASGI interface, for HTTP and for refused WebSockets."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from workbench.server.errors import ApiError

__all__ = ["json_error", "refuse"]


def json_error(error: ApiError) -> JSONResponse:
    """The error as a response."""
    return JSONResponse(error.body, error.status_code, error.headers)


async def refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error instead of handing the request on; a WebSocket is refused before it is accepted."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
    else:
        await json_error(error)(scope, receive, send)

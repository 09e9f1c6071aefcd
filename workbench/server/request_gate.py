"""Counts requests for the model against their key's limits, and turns everything away while the server stops."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workbench.server.caller import call_of
from workbench.server.errors import ApiError
from workbench.server.reply import refuse
from workbench.server.services import Services

__all__ = ["COUNTED_PATHS", "RequestGate"]

# What makes the model or the tokenizer work.
COUNTED_PATHS = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/tokenize", "/detokenize"}
)
_OPEN_WHILE_DRAINING = frozenset({"/health", "/ready", "/metrics"})


class RequestGate:
    """For HTTP; a WebSocket's prompts are counted where they come in."""

    def __init__(self, app: ASGIApp, *, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif self._services.is_draining and scope["path"] not in _OPEN_WHILE_DRAINING:
            self._services.metrics.refused("draining")
            error = ApiError(
                503,
                "the server is stopping",
                code="server_stopping",
                headers={"retry-after": "10", "connection": "close"},
            )
            await refuse(error, scope, receive, send)
        elif scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in COUNTED_PATHS:
            await self._count(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        rates, call = self._services.rates, call_of(scope)

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(await rates.headers(call))
            await send(message)

        try:
            await rates.count_request(call)
        except ApiError as error:
            self._services.metrics.refused("rate_limit")
            await refuse(error, scope, receive, send_with_limits)
            return
        await self._app(scope, receive, send_with_limits)

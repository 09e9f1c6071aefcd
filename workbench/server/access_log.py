"""The outermost layer: gives every request an id, answers what nobody else caught, and writes one line at the end."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workbench.server.caller import Call
from workbench.server.errors import api_error
from workbench.server.reply import refuse

__all__ = ["ACCESS_LOGGER", "AccessLog"]

ACCESS_LOGGER = "workbench.server.access"
_log = logging.getLogger(ACCESS_LOGGER)
_failures = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class AccessLog:
    """Writes JSON lines without prompts, answers, keys or query strings.

    `answered(method, handler, status)` hears of every HTTP answer; `handler` is the route's pattern.
    """

    def __init__(self, app: ASGIApp, *, answered: Callable[[str, str, int], None]) -> None:
        self._app = app
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        call = Call(_request_id(Headers(scope=scope)), scope["client"][0] if scope.get("client") else "")
        scope.setdefault("state", {})["call"] = call
        answer = _Answer(send, call.request_id)
        try:
            await self._app(scope, receive, answer.send)
        except Exception as error:  # the top of a request: it must not end without an answer
            _failures.exception("request %s failed", call.request_id)
            if not answer.has_begun:
                await refuse(api_error(error), scope, receive, answer.send)
            else:
                raise
        finally:
            self._note(scope, call, answer.status)

    def _note(self, scope: Scope, call: Call, status: int) -> None:
        handler = _handler(scope)
        method = scope.get("method", "WEBSOCKET")
        if scope["type"] == "http":
            self._answered(method if method in _METHODS else "other", handler or "none", status)
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request_id": call.request_id,
            "client": call.client,
            "method": method[:16],
            "path": handler or scope["path"][:128],
            "status": status,
            "seconds": round(time.monotonic() - call.started_s, 4),
            "key_id": call.key.key_id if call.key else None,
            "model": call.model,
            "prompt_tokens": call.num_prompt_tokens,
            "generated_tokens": call.num_generated_tokens,
        }
        _log.info("%s", json.dumps(line))


def _handler(scope: Scope) -> str | None:
    """The route's pattern, None where no route was met."""
    path = getattr(scope.get("route"), "path", None)
    # A plugin's route knows its path below the plugin's own address only.
    place = scope.get("root_path", "").removeprefix(scope.get("app_root_path", ""))
    return None if path is None else f"{place}{path}"


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Answer:
    """The sending side of one request: adds the id, and notes the status. 499 stands for a client that left."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 499
        self.has_begun = False

    async def send(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            self.status, self.has_begun = message["status"], True
            MutableHeaders(scope=message)["x-request-id"] = self._request_id
        elif message["type"] in ("websocket.accept", "websocket.close"):
            self.status, self.has_begun = 101 if message["type"] == "websocket.accept" else self.status, True
        await self._send(message)


def _request_id(headers: Headers) -> str:
    """The caller's own id if it is a harmless word, a new one otherwise."""
    given = headers.getlist("x-request-id")
    if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
        return given[0]
    return f"req-{uuid.uuid4().hex}"

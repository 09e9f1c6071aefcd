"""The one layer that decides who may come in, for HTTP and WebSockets alike: without a key only to the public paths."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from workbench.server.caller import call_of
from workbench.server.errors import ApiError
from workbench.server.keys import KeyRing
from workbench.server.keys import Scope as KeyScope
from workbench.server.reply import refuse

__all__ = ["Authentication", "FailureLimit", "require_admin"]

_WINDOW_S = 60.0


class FailureLimit:
    """Counts failed tries by network address, so that guessing is slowed down and logs stay short.

    Remembers at most `max_addresses`; the one that failed first is forgotten first.
    """

    def __init__(
        self, per_minute: int = 60, max_addresses: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_minute = per_minute
        self._max_addresses = max_addresses
        self._clock = clock
        # Address -> when its minute began, and failures in it.
        self._windows: dict[str, tuple[float, int]] = {}

    def count(self, address: str) -> bool:
        """Note one more failure; False when there were too many in this minute."""
        now_s = self._clock()
        began_s, count = self._windows.pop(address, (now_s, 0))
        if now_s - began_s >= _WINDOW_S:
            began_s, count = now_s, 0
        self._windows[address] = (began_s, count + 1)
        if len(self._windows) > self._max_addresses:
            del self._windows[next(iter(self._windows))]
        return count < self._per_minute


class Authentication:
    """Finds the caller's key and refuses who has none. `ring` None serves everybody."""

    def __init__(
        self, app: ASGIApp, *, ring: KeyRing | None, public_paths: Iterable[str], failures: FailureLimit
    ) -> None:
        self._app = app
        self._ring = ring
        self._public_paths = frozenset(public_paths)
        self._failures = failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and self._ring is not None:
            try:
                self._admit(scope, self._ring)
            except ApiError as error:
                await refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope, ring: KeyRing) -> None:
        """Note the caller's key; raises the refusal."""
        call = call_of(scope)
        secret = _secret(Headers(scope=scope))
        call.key = ring.find(secret) if secret else None
        if call.key is not None or (scope["type"] == "http" and scope["path"] in self._public_paths):
            return
        if secret is not None and not self._failures.count(call.client):
            raise ApiError(
                429,
                "too many failed attempts from this address",
                code="too_many_failures",
                headers={"retry-after": "60"},
            )
        raise ApiError(
            401,
            "an API key is needed: send it as 'Authorization: Bearer <key>'",
            code="invalid_api_key" if secret is not None else "missing_api_key",
            headers={"www-authenticate": 'Bearer realm="workbench"'},
        )


def require_admin(request: Request) -> None:
    """Route dependency: refuse a key that may only use the model."""
    key = call_of(request.scope).key
    if key is not None and not key.allows(KeyScope.ADMIN):
        raise ApiError(403, "this needs a key with the admin scope", code="admin_key_required")


def _secret(headers: Headers) -> bytes | None:
    """The secret as it was sent, b"" for one in a wrong form, None where there is none.

    Bytes, since the comparison takes no text outside ASCII.
    """
    given = headers.getlist("authorization")
    keys = headers.getlist("x-api-key")
    if not given and not keys:
        return None
    if len(given) + len(keys) != 1:
        return b""
    if keys:
        return keys[0].encode("latin-1")
    kind, _, secret = given[0].partition(" ")
    return secret.encode("latin-1") if kind.lower() == "bearer" and secret and secret == secret.strip() else b""

"""The layer around the app: who may come in, through which name, and what a page may load. Keys are the endpoint's."""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import re
import secrets
import time
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboards.page_head import icon_link
from workbench.server.auth import FailureLimit
from workbench.server.keys import ApiKey, KeyRing

__all__ = ["Gate", "key_of"]

_COOKIE = "workbench-app"
_PREFIX = re.compile(r"(/[\w.~@%+-]+)+/?")
_MAX_AGE_S = 7 * 24 * 3600.0
_MAX_FORM_BYTES = 4096
_PAGE = Path(__file__).parent / "assets" / "login.html"
# Everything comes from this server: no CDN, no fonts, and no picture that a model's answer points to.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "connect-src 'self' data: blob:; img-src 'self' data: blob:; form-action 'self'; base-uri 'self'; "
    "frame-ancestors 'self' http://localhost:* http://127.0.0.1:*"
)


def key_of(scope: Scope) -> ApiKey | None:
    """The key that a request came with; None where the app asks for none."""
    return scope.get("state", {}).get("app_key")


class Gate:
    """Lets in who has a key: as `Authorization: Bearer`, or after the login page by a cookie. `ring` None lets in all.

    The cookie holds the key's id and a signature made with a secret of this process: no key is stored in a browser,
    and what was revoked is refused at once.
    """

    def __init__(
        self,
        app: ASGIApp,
        ring: KeyRing | None,
        *,
        title: str = "Workbench",
        clock: Callable[[], float] = time.time,
        failures: FailureLimit | None = None,
    ) -> None:
        self._app = app
        self._ring = ring
        self._title = title
        self._clock = clock
        self._failures = failures or FailureLimit(per_minute=30)
        self._secret = secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # The app uses no WebSockets; lifespan events pass.
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        send = _with_policy(send)
        _take_prefix(scope)
        if self._ring is None:
            await self._app(scope, receive, send)
            return
        if scope["path"] == "/gate/login" and scope["method"] == "POST":
            await (await self._log_in(scope, receive))(scope, receive, send)
            return
        if scope["path"] == "/gate/logout":
            await self._log_out(scope)(scope, receive, send)
            return
        key = self._key(Headers(scope=scope))
        if key is None:
            await self._refusal(scope)(scope, receive, send)
            return
        scope.setdefault("state", {})["app_key"] = key
        await self._app(scope, receive, send)

    def _key(self, headers: Headers) -> ApiKey | None:
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and secret:
            return self._ring.find(secret.encode("latin-1", "replace"))
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        except CookieError:
            return None
        return None if cookie is None else self._key_of_cookie(cookie.value)

    def _key_of_cookie(self, value: str) -> ApiKey | None:
        try:
            expires, digest, signature = base64.urlsafe_b64decode(value.encode()).decode().split(".")
        except ValueError:
            return None
        if not hmac.compare_digest(signature, self._sign(f"{expires}.{digest}")) or float(expires) < self._clock():
            return None
        return next((key for key in self._ring.keys if hmac.compare_digest(key.digest, digest)), None)

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()

    async def _log_in(self, scope: Scope, receive: Receive) -> Response:
        address = (scope.get("client") or ("?",))[0]
        form = parse_qs((await _body(receive)).decode("utf-8", "replace"))
        key = self._ring.find(form.get("key", [""])[0].strip().encode())
        if key is None:
            if not self._failures.count(address):
                return PlainTextResponse("too many failed attempts from this address", 429, {"retry-after": "60"})
            return self._login_page("That key is not known here.", status=401)
        response = Response(status_code=303, headers={"location": "../"})
        response.set_cookie(
            _COOKIE,
            self._cookie(key),
            max_age=int(_MAX_AGE_S),
            httponly=True,
            # On a hub, not for whoever else is served below the same name.
            path=_cookie_path(scope),
            # A notebook may show the app in a frame of its own page.
            samesite="lax",
            secure=scope.get("scheme") == "https",
        )
        return response

    def _cookie(self, key: ApiKey) -> str:
        text = f"{int(self._clock() + _MAX_AGE_S)}.{key.digest}"
        return base64.urlsafe_b64encode(f"{text}.{self._sign(text)}".encode()).decode()

    def _log_out(self, scope: Scope) -> Response:
        response = Response(status_code=303, headers={"location": "../"})
        response.delete_cookie(_COOKIE, path=_cookie_path(scope))
        return response

    def _refusal(self, scope: Scope) -> Response:
        if scope["method"] in ("GET", "HEAD") and "text/html" in Headers(scope=scope).get("accept", ""):
            return self._login_page("", status=401)
        return JSONResponse(
            {"error": "a key is needed: log in, or send it as 'Authorization: Bearer <key>'"},
            401,
            {"www-authenticate": 'Bearer realm="workbench"'},
        )

    def _login_page(self, message: str, status: int) -> Response:
        page = _PAGE.read_text("utf-8").replace("{title}", html.escape(self._title)).replace("{icon}", icon_link())
        return HTMLResponse(page.replace("{message}", html.escape(message)), status, {"cache-control": "no-store"})


def _cookie_path(scope: Scope) -> str:
    return scope.get("root_path", "").rstrip("/") or "/"


def _take_prefix(scope: Scope) -> None:
    """Note the path under which a proxy shows the app, where it says so (jupyter-server-proxy does)."""
    headers = Headers(scope=scope)
    prefix = headers.get("x-forwarded-context") or headers.get("x-forwarded-prefix") or ""
    if _PREFIX.fullmatch(prefix):
        scope["root_path"] = prefix.rstrip("/")


def _with_policy(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["content-security-policy"] = _POLICY
            headers["x-content-type-options"] = "nosniff"
            headers["referrer-policy"] = "same-origin"
            # Some proxies hold back what comes piece by piece.
            headers["x-accel-buffering"] = "no"
        await send(message)

    return sending


async def _body(receive: Receive) -> bytes:
    """A small request body; what is longer than a form can be is cut off."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += message.get("body", b"")
        if not message.get("more_body") or len(body) > _MAX_FORM_BYTES:
            return body[:_MAX_FORM_BYTES]

"""Refuses requests that came through a name which is not this server's, the mark of a DNS rebinding attack."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from workbench.server.errors import ApiError
from workbench.server.reply import refuse
from workbench.server.settings import ListenSettings, machine_names

__all__ = ["HostCheck", "is_allowed_host"]


class HostCheck:
    """Looks at the Host header, and for WebSockets also at the Origin that a browser adds."""

    def __init__(self, app: ASGIApp, *, listen: ListenSettings) -> None:
        self._app = app
        names = {listen.host.lower(), *(name.lower() for name in listen.allowed_hosts)}
        self._names = frozenset(names if listen.is_loopback else names | machine_names())
        self._origins = frozenset(listen.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            hosts = headers.getlist("host")
            if len(hosts) != 1 or not is_allowed_host(hosts[0], self._names):
                error = ApiError(421, "this server does not answer under that host name", code="wrong_host")
                await refuse(error, scope, receive, send)
                return
            # Browsers let any page open a WebSocket anywhere, without asking the server first.
            origin = headers.get("origin")
            if scope["type"] == "websocket" and origin is not None and not self._is_own(origin, hosts[0]):
                await refuse(ApiError(403, "pages of that origin may not connect"), scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_own(self, origin: str, host: str) -> bool:
        return origin in self._origins or origin in (f"http://{host}", f"https://{host}")


def is_allowed_host(header: str, names: Iterable[str]) -> bool:
    """Whether a Host header is an address, "localhost" or one of `names`. An address cannot be rebound to another."""
    name = _without_port(header.strip().lower())
    if name == "localhost" or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host

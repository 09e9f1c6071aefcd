"""The endpoint's knobs, checked once. Knows addresses and numbers, no sockets."""

from __future__ import annotations

import ipaddress
import math
import socket
from dataclasses import dataclass, field, fields
from pathlib import Path

from workbench.errors import ConfigError

__all__ = [
    "AppSettings",
    "ListenSettings",
    "LoadSettings",
    "QueueSettings",
    "RateLimits",
    "ServerSettings",
    "WireLimits",
]

PUBLIC_PATHS = ("/health", "/ready", "/docs", "/openapi.json")


@dataclass(frozen=True)
class ListenSettings:
    """Where the endpoint listens and who may call it.

    Attributes:
        host: address to listen on. Anything but a loopback address needs a key of your own.
        port: 0 takes a free one.
        allowed_hosts: further names that callers may use for this server (the Host header); an address or "localhost"
            is always allowed. This keeps a web page from reaching a local server through a name of its own.
        cors_origins: origins (such as https://app.example) whose pages may call this server from a browser.
        public_paths: paths that need no key.
        no_auth: serve everybody who can reach the address, with every right.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    public_paths: tuple[str, ...] = PUBLIC_PATHS
    no_auth: bool = False

    def __post_init__(self) -> None:
        _check_type("host", self.host, str, "an address or a name")
        _check_int("port", self.port, 0, 65535)
        for origin in self.cors_origins:
            scheme, _, rest = origin.partition("://")
            if scheme not in ("http", "https") or not rest or "/" in rest or "*" in rest:
                raise ConfigError(f"cors_origins: {origin!r} must be an origin such as https://app.example, without *")
        for path in self.public_paths:
            if not path.startswith("/"):
                raise ConfigError(f"public_paths: {path!r} must begin with /")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        return is_loopback(self.host)


@dataclass(frozen=True)
class RateLimits:
    """What one key may use; None is unlimited.

    Attributes:
        requests_per_minute: requests that ask something of the model, also those that are refused, in any 60 seconds.
        tokens_per_minute: tokens of prompts and answers.
        concurrent_requests: requests in flight at once.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None

    def __post_init__(self) -> None:
        for limit in fields(self):
            if getattr(self, limit.name) is not None:
                _check_int(limit.name, getattr(self, limit.name), 1, None)


@dataclass(frozen=True)
class QueueSettings:
    """What happens when more is asked than the engine can run at once.

    Attributes:
        max_queued: requests that may wait for the engine; the next one is told to come back later (503).
        queue_timeout_s: longest wait, in seconds.
        drain_s: when the server stops or changes its model, how long running requests may go on, in seconds.
        share_prefixes: let keys use each other's cached beginnings of prompts. That saves time where all begin alike,
            and lets a caller find out by timing whether another key has sent a text.
    """

    max_queued: int = 256
    queue_timeout_s: float = 120.0
    drain_s: float = 30.0
    share_prefixes: bool = False

    def __post_init__(self) -> None:
        _check_int("max_queued", self.max_queued, 0, None)
        _check_seconds("queue_timeout_s", self.queue_timeout_s)
        _check_seconds("drain_s", self.drain_s, low=0.0)


@dataclass(frozen=True)
class WireLimits:
    """Sizes and times that bound what one client can hold.

    Attributes:
        max_body_bytes: largest request body.
        max_header_bytes: largest block of request line and headers.
        max_frame_bytes: largest WebSocket message.
        max_connections: open connections; further ones are closed at once.
        max_prompts: prompts of one request.
        max_answers: answers of one request: prompts times n (or best_of).
        max_answer_tokens: tokens that one request may have generated in all its answers together.
        header_timeout_s: time to send the request line and headers.
        body_timeout_s: longest pause while the body is sent.
        send_timeout_s: how long a client may leave its answer unread before the connection is dropped.
        idle_timeout_s: how long a kept-alive connection may be silent.
        socket_idle_timeout_s: how long a WebSocket may be silent between prompts.
        heartbeat_s: pause after which a stream sends a comment, so that proxies keep it open.
    """

    max_body_bytes: int = 8 * 1024**2
    max_header_bytes: int = 64 * 1024
    max_frame_bytes: int = 1024**2
    max_connections: int = 2048
    max_prompts: int = 1024
    max_answers: int = 1024
    max_answer_tokens: int = 2**20
    header_timeout_s: float = 15.0
    body_timeout_s: float = 30.0
    send_timeout_s: float = 60.0
    idle_timeout_s: float = 75.0
    socket_idle_timeout_s: float = 300.0
    heartbeat_s: float = 15.0

    def __post_init__(self) -> None:
        for limit in fields(self):
            if limit.name.endswith("_s"):
                _check_seconds(limit.name, getattr(self, limit.name))
            else:
                _check_int(limit.name, getattr(self, limit.name), 1, None)


@dataclass(frozen=True)
class LoadSettings:
    """Which models a caller with an admin key may have loaded, beside the embedded one and the one served at the start.

    Attributes:
        model_roots: folders whose models may be loaded, by their path below that folder.
        allow_hub: allow models by hub id, downloaded where they are not here yet.
        allow_random: allow random:<preset> models, which have a real shape and random weights.
    """

    model_roots: tuple[str, ...] = ()
    allow_hub: bool = False
    allow_random: bool = False

    def __post_init__(self) -> None:
        for root in self.model_roots:
            if not Path(root).expanduser().is_dir():
                raise ConfigError(f"model_roots: {root!r} is not a folder")


@dataclass(frozen=True)
class AppSettings:
    """How the web app is served.

    Attributes:
        root_path: the path under which a proxy shows the app, such as /user/ada/proxy/7860, for one that does not say.
        require_key: ask for a key on a loopback address too.
    """

    root_path: str = ""
    require_key: bool = False


@dataclass(frozen=True)
class ServerSettings:
    """All of the endpoint's knobs."""

    listen: ListenSettings = field(default_factory=ListenSettings)
    rates: RateLimits = field(default_factory=RateLimits)
    queue: QueueSettings = field(default_factory=QueueSettings)
    wire: WireLimits = field(default_factory=WireLimits)
    load: LoadSettings = field(default_factory=LoadSettings)


def is_loopback(host: str) -> bool:
    """Whether a name or address stands for this machine only."""
    name = host.strip("[]").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def machine_names() -> frozenset[str]:
    """The names that this machine gives itself, in lower case."""
    name = socket.gethostname().lower()
    return frozenset({name, name.partition(".")[0]})


def _check_type(name: str, value: object, kind: type, wanted: str) -> None:
    if not isinstance(value, kind) or not value:
        raise ConfigError(f"{name}={value!r}: must be {wanted}")


def _check_int(name: str, value: object, low: int, high: int | None) -> None:
    wanted = f"of at least {low}" if high is None else f"from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        raise ConfigError(f"{name}={value!r}: must be an integer {wanted}")


def _check_seconds(name: str, value: object, low: float = 0.001) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < math.inf:
        raise ConfigError(f"{name}={value!r}: must be a number of seconds, at least {low:g}")

"""HTTP over a bare socket, for what no client library would send."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from live_endpoint import USE_KEY


@dataclass(frozen=True)
class Reply:
    """A raw answer; `status` 0 stands for a connection that was closed without one."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error object."""
        return json.loads(self.body)["error"]


def address(endpoint: Any) -> tuple[str, int]:
    """Host and port of an endpoint."""
    parts = urlsplit(endpoint.url)
    return parts.hostname, parts.port


def open_socket(endpoint: Any, timeout_s: float = 60.0) -> socket.socket:
    """A new connection."""
    return socket.create_connection(address(endpoint), timeout=timeout_s)


def head(method: str, path: str, *headers: str, host: str = "localhost", key: str | None = USE_KEY) -> bytes:
    """Request line and headers, up to and with the empty line."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"Authorization: Bearer {key}"] if key else []
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1")


def read_reply(connection: socket.socket) -> Reply:
    """The answer, read until the other side closes or the announced body is complete."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return Reply(0, {}, data)
            data += piece
        block, _, body = data.partition(b"\r\n\r\n")
        first, *lines = block.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", "0")):
            piece = connection.recv(65536)
            if not piece:
                break
            body += piece
        return Reply(int(first.split()[1]), headers, body)
    except ConnectionError:
        return Reply(0, {}, data)


def send(endpoint: Any, data: bytes) -> Reply:
    """What comes back for these bytes on a new connection."""
    with open_socket(endpoint) as connection:
        try:
            connection.sendall(data)
        except ConnectionError:
            # It may have answered and closed before all was sent.
            pass
        return read_reply(connection)


def post_json(endpoint: Any, path: str, body: bytes, *headers: str, key: str | None = USE_KEY) -> Reply:
    """POST with these exact bytes as a JSON body."""
    own = ("Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close")
    return send(endpoint, head("POST", path, *own, *headers, key=key) + body)

"""A client of the EC2 instance metadata service, version 2 only: a token first, then reads. Knows no paths' meaning.

Every call has one time limit over connecting, sending and all of the answer, so a server that hangs or drips
cannot hold the caller longer than that.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from workbench.errors import ConfigError

__all__ = ["DEFAULT_BUDGET_S", "Deadline", "IMDSClient", "MetadataAnswer", "is_metadata_disabled"]

DEFAULT_BUDGET_S = 1.0
_DEFAULT_ENDPOINT = "http://169.254.169.254"
_ENDPOINT_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
_DISABLED_VARIABLE = "AWS_EC2_METADATA_DISABLED"
_TOKEN_PATH = "/latest/api/token"
# Six hours is the longest the service allows.
_TOKEN_LIFETIME_S = 21600
_MAX_ANSWER_BYTES = 64 * 1024


def is_metadata_disabled(environ: Mapping[str, str] | None = None) -> bool:
    """Whether the user switched the service off with `AWS_EC2_METADATA_DISABLED=true`."""
    return (os.environ if environ is None else environ).get(_DISABLED_VARIABLE, "").strip().lower() == "true"


@dataclass(frozen=True)
class MetadataAnswer:
    """What came back. `status` is the HTTP status, None when there was no usable answer; then `reason` says why."""

    status: int | None
    text: str = ""
    reason: str = ""

    @property
    def is_found(self) -> bool:
        """Whether `text` is the value that was asked for."""
        return self.status == 200


class Deadline:
    """A moment on the monotonic clock that several network steps share."""

    def __init__(self, budget_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget_s = budget_s
        self._clock = clock
        self._end = clock() + budget_s

    def remaining_s(self) -> float:
        """Seconds left, more than 0. Raises TimeoutError when there are none."""
        remaining = self._end - self._clock()
        if remaining <= 0:
            raise TimeoutError
        return remaining


class IMDSClient:
    """Reads metadata with a session token, which it asks for once and renews when the service refuses it.

    `endpoint` is an http address with a bare IP (default: `AWS_EC2_METADATA_SERVICE_ENDPOINT`, else the link-local
    address); `budget_s` limits each `get`, unless the caller brings a `Deadline` for several. No proxy is ever used and
    no redirect followed. Safe to share between threads. Raises ConfigError for an endpoint that cannot be one.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        budget_s: float = DEFAULT_BUDGET_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if budget_s <= 0:
            raise ConfigError(f"budget_s={budget_s!r}: must be more than 0")
        self.budget_s = budget_s
        self._host, self._port = _parse_endpoint(endpoint or os.environ.get(_ENDPOINT_VARIABLE) or _DEFAULT_ENDPOINT)
        self._clock = clock
        self._token: str | None = None
        self._lock = threading.Lock()

    def start_deadline(self) -> Deadline:
        """A budget that starts now, to be shared by several `get` calls."""
        return Deadline(self.budget_s, self._clock)

    def get(self, path: str, deadline: Deadline | None = None) -> MetadataAnswer:
        """The value at `path` ("/latest/meta-data/..."); never raises for anything the network does.

        A status of 404 means that the service works and has no such value.
        """
        deadline = deadline or self.start_deadline()
        with self._lock:
            for _ in range(2):
                if self._token is None:
                    refusal = self._renew_token(deadline)
                    if refusal is not None:
                        return refusal
                answer = self._exchange("GET", path, {"X-aws-ec2-metadata-token": self._token or ""}, deadline)
                if answer.status != 401:
                    return answer
                self._token = None
            return MetadataAnswer(None, reason="the metadata service refuses its own session token")

    def _renew_token(self, deadline: Deadline) -> MetadataAnswer | None:
        """Store a fresh token; gives the failure, or None when it worked."""
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_LIFETIME_S), "Content-Length": "0"}
        answer = self._exchange("PUT", _TOKEN_PATH, headers, deadline)
        if answer.status is None:
            return answer
        if not answer.is_found:
            return MetadataAnswer(None, reason=f"the metadata service gives no session token (HTTP {answer.status})")
        token = answer.text.strip()
        if not token or len(token) > 1024 or not all("!" <= character <= "~" for character in token):
            return MetadataAnswer(None, reason="what answers is not the metadata service: its session token is garbage")
        self._token = token
        return None

    def _exchange(self, method: str, path: str, headers: Mapping[str, str], deadline: Deadline) -> MetadataAnswer:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", "Connection: close", "Accept: */*"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        request = "\r\n".join([*lines, "", ""]).encode("ascii")
        try:
            with socket.create_connection((self._host, self._port), timeout=deadline.remaining_s()) as connection:
                connection.settimeout(deadline.remaining_s())
                connection.sendall(request)
                return _read_answer(connection, deadline)
        except TimeoutError:
            return MetadataAnswer(None, reason=f"no metadata service answered within {deadline.budget_s:g} s")
        except OSError as error:
            return MetadataAnswer(None, reason=f"no metadata service can be reached ({error.strerror or error})")
        except (http.client.HTTPException, ValueError) as error:
            return MetadataAnswer(None, reason=f"what answers is not the metadata service ({type(error).__name__})")


def _read_answer(connection: socket.socket, deadline: Deadline) -> MetadataAnswer:
    # All that it wants of a socket is `makefile`.
    response = http.client.HTTPResponse(_DeadlineSocket(connection, deadline))  # type: ignore[arg-type]
    response.begin()
    body = response.read(_MAX_ANSWER_BYTES + 1)
    if len(body) > _MAX_ANSWER_BYTES:
        return MetadataAnswer(None, reason="what answers is not the metadata service: the answer is far too long")
    return MetadataAnswer(response.status, body.decode("utf-8"))


class _DeadlineSocket(io.RawIOBase):
    """A socket as the file that HTTPResponse reads, each read limited by what is left of the deadline."""

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self._connection = connection
        self._deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(self._deadline.remaining_s())
        return self._connection.recv_into(buffer)


def _parse_endpoint(endpoint: str) -> tuple[str, int]:
    parts = urlsplit(endpoint)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
    try:
        # A name would have to be looked up, and no time limit holds there.
        ipaddress.ip_address(host)
        port = parts.port or 80
    except ValueError:
        host = ""
    if parts.scheme != "http" or not host or parts.path.strip("/"):
        raise ConfigError(
            f"metadata endpoint {endpoint!r} ({_ENDPOINT_VARIABLE}): must be http://IP or http://IP:PORT, "
            f"like {_DEFAULT_ENDPOINT}"
        )
    return host, port

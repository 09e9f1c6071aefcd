"""Where another port of this machine is reached from outside, seen from a page that came through a proxy. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

__all__ = ["outside_host", "outside_url"]

# As jupyter-server-proxy shows a port.
_PROXIED = re.compile(r"(?P<base>.*)/proxy/\d+/?")


def outside_url(scope: Mapping[str, Any], headers: Mapping[str, str], port: int) -> str | None:
    """The OpenAI base URL of an endpoint on `port`, beside the app's own address; None where there is no such proxy."""
    found = _PROXIED.fullmatch(str(scope.get("root_path", "")))
    origin = headers.get("origin")
    return f"{origin}{found['base']}/proxy/{port}/v1" if found and origin else None


def outside_host(headers: Mapping[str, str]) -> str | None:
    """The name under which the page was reached, and under which calls through the same proxy come."""
    return urlsplit(headers.get("origin") or "").hostname

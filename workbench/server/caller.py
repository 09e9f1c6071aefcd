"""Who is calling, and what is known of the request while it is served. Travels in the request's scope."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.server.keys import ApiKey

__all__ = ["Call", "call_of"]


@dataclass
class Call:
    """One HTTP request or WebSocket: filled in on its way in, and read by the access log at its end.

    `started_s` is on the monotonic clock. Holds no text that a caller sent.
    """

    request_id: str
    client: str
    started_s: float = field(default_factory=time.monotonic)
    key: ApiKey | None = None
    model: str | None = None
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    error_code: str | None = None

    @property
    def key_id(self) -> str:
        """The key's id; "anonymous" for a server without keys."""
        return self.key.key_id if self.key else "anonymous"


def call_of(scope: Mapping[str, Any]) -> Call:
    """The call that this scope belongs to."""
    call: Call = scope["state"]["call"]
    return call

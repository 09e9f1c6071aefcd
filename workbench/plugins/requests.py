"""What plugins see of requests, before and after. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FinishedRequest", "RequestInfo"]


@dataclass(frozen=True)
class RequestInfo:
    """A request before it goes to the engine. `sampling` are the fields of its SamplingParams, to read."""

    prompt_token_ids: tuple[int, ...]
    sampling: Mapping[str, Any]


@dataclass(frozen=True)
class FinishedRequest:
    """One answer that has ended.

    `text` and `token_ids` are what the model gave, before any stream filter. Times are in seconds; `ttft_s` is the time
    to the first token, None if there was none. `error` says in words why it failed, None if it did not.
    """

    request_id: str
    index: int
    prompt_token_ids: tuple[int, ...]
    sampling: Mapping[str, Any]
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    num_cached_tokens: int
    ttft_s: float | None
    total_s: float | None
    error: str | None

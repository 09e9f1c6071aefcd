"""A request that waits or runs, as whoever watches the engine sees it. Holds no text."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RequestInFlight"]


@dataclass
class RequestInFlight:
    """`submitted_s` is on the monotonic clock; `max_tokens` None has no limit of its own. Tokens of all its answers
    are counted."""

    request_id: str
    num_prompt_tokens: int
    max_tokens: int | None
    submitted_s: float
    num_generated_tokens: int = 0

"""How likely a token was, as reported to the caller. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TokenLogprobs"]


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural log-probability of a token, and of the likeliest ones at its position, likeliest first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()

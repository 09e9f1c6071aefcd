"""What a reply cost: tokens, times and how full the context was. Knows no engine."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ReplyFigures"]


@dataclass(frozen=True)
class ReplyFigures:
    """Figures of a finished reply; None where they are not known. Times in seconds, speed in tokens per second.

    `ttft_s` is the time to the first token with any waiting. `context_tokens` counts prompt and reply together, of
    the `max_context` that fit. `model` says who wrote it.
    """

    model: str = ""
    finish_reason: str | None = None
    num_prompt_tokens: int | None = None
    num_cached_tokens: int | None = None
    num_generated_tokens: int | None = None
    ttft_s: float | None = None
    total_s: float | None = None
    tokens_per_s: float | None = None
    max_context: int | None = None
    seed: int | None = None

    @property
    def context_tokens(self) -> int | None:
        """Tokens of the context that are taken after the reply."""
        if self.num_prompt_tokens is None or self.num_generated_tokens is None:
            return None
        return self.num_prompt_tokens + self.num_generated_tokens

    def line(self) -> str:
        """The figures in words, those that are known."""
        parts = []
        if self.num_generated_tokens is not None:
            parts.append("1 token" if self.num_generated_tokens == 1 else f"{self.num_generated_tokens:,} tokens")
        if self.tokens_per_s is not None:
            parts.append(f"{self.tokens_per_s:.1f} tokens/s")
        if self.ttft_s is not None:
            parts.append(f"first token after {self.ttft_s:.2f} s")
        if self.context_tokens is not None and self.max_context:
            parts.append(f"context {self.context_tokens:,} of {self.max_context:,}")
        return ", ".join(parts)

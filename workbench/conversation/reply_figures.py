"""What a reply cost: tokens, times and how full the context was. Knows no engine."""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    def going_on_from(self, before: ReplyFigures | None) -> ReplyFigures:
        """These figures, of a piece, as those of the whole reply whose first piece `before` tells of."""
        if before is None or self.num_generated_tokens is None or before.num_generated_tokens is None:
            return self
        first, second = before.num_generated_tokens, self.num_generated_tokens
        pieces = [(one.num_generated_tokens or 0, one.tokens_per_s) for one in (before, self)]
        timed = [(count, count / rate) for count, rate in pieces if rate]
        seconds = sum(one[1] for one in timed)
        return replace(
            self,
            # The first piece is part of the second one's prompt.
            num_prompt_tokens=None if self.num_prompt_tokens is None else self.num_prompt_tokens - first,
            num_cached_tokens=before.num_cached_tokens,
            num_generated_tokens=first + second,
            ttft_s=before.ttft_s,
            total_s=None if None in (before.total_s, self.total_s) else (before.total_s or 0) + (self.total_s or 0),
            tokens_per_s=sum(one[0] for one in timed) / seconds if seconds else None,
        )

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

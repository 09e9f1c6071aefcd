"""Token counts on the wire."""

from __future__ import annotations

from workbench.server.protocol.wire import WireReply

__all__ = ["CachedTokens", "ReasoningTokens", "Usage"]


class CachedTokens(WireReply):
    """How much of the prompt did not have to be computed again."""

    cached_tokens: int = 0


class ReasoningTokens(WireReply):
    """How much of the answer was thinking: always 0, since it is not told apart."""

    reasoning_tokens: int = 0


class Usage(WireReply):
    """Token counts of a request. Every prompt counts once, however many answers it has."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: ReasoningTokens

    @classmethod
    def of(cls, num_prompt_tokens: int, num_generated_tokens: int, num_cached_tokens: int) -> Usage:
        return cls(
            prompt_tokens=num_prompt_tokens,
            completion_tokens=num_generated_tokens,
            total_tokens=num_prompt_tokens + num_generated_tokens,
            prompt_tokens_details=CachedTokens(cached_tokens=num_cached_tokens),
            completion_tokens_details=ReasoningTokens(),
        )

"""How full the context is, and with what. Counts through a function; knows no tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["ContextUse", "CountTokens", "measure_context"]

CountTokens = Callable[[Sequence[Mapping[str, object]]], int]


@dataclass(frozen=True)
class ContextUse:
    """Tokens of the next prompt by what they are, and how many fit.

    `system_tokens` are the system prompt and what the template writes around every conversation, `history_tokens` the
    messages so far, `draft_tokens` what is being typed.
    """

    system_tokens: int
    history_tokens: int
    draft_tokens: int
    max_context: int

    @property
    def used_tokens(self) -> int:
        """Everything that the prompt would hold."""
        return self.system_tokens + self.history_tokens + self.draft_tokens

    @property
    def free_tokens(self) -> int:
        """What is left for the reply; negative when the prompt is too long by so many."""
        return self.max_context - self.used_tokens

    @property
    def fits(self) -> bool:
        """Whether the prompt leaves room for a reply of one token at least."""
        return self.free_tokens >= 1

    def line(self) -> str:
        """The figures in words."""
        rest = f"{self.free_tokens:,} free" if self.fits else f"{1 - self.free_tokens:,} too many"
        return (
            f"{self.used_tokens:,} of {self.max_context:,} tokens: system {self.system_tokens:,}, "
            f"history {self.history_tokens:,}, draft {self.draft_tokens:,}; {rest}"
        )


def measure_context(
    count: CountTokens, prompt: Sequence[Mapping[str, object]], draft: str, max_context: int
) -> ContextUse:
    """Split the next prompt's tokens into system, history and draft.

    `count` gives the tokens of messages as the model's template writes them, `prompt` is what the conversation sends,
    `draft` the text that would be added to it. Costs two or three counts.
    """
    system = [message for message in prompt[:1] if message.get("role") == "system"]
    empty = {"role": "user", "content": ""}
    system_tokens = count([*system, empty])
    before = count(prompt) if len(prompt) > len(system) else system_tokens
    with_draft = count([*prompt, {"role": "user", "content": draft}]) if draft else before
    return ContextUse(
        system_tokens=min(system_tokens, before),
        history_tokens=max(0, before - system_tokens),
        draft_tokens=max(0, with_draft - before),
        max_context=max_context,
    )

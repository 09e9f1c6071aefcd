"""What a chat asks of an engine's tokenizer: count, go on with a reply, spell scored tokens. Knows no widget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.conversation import ScoredToken, scored_tokens

if TYPE_CHECKING:
    from workbench.engine import Generation
    from workbench.engine.logprobs import TokenLogprobs
    from workbench.llm import LlamaGPU
    from workbench.session import Session

__all__ = ["ChatPrompt", "count_tokens", "heat_of", "token_bytes"]


@dataclass(frozen=True)
class ChatPrompt:
    """What a reply is asked for with: messages, whether the last one is a reply to go on with, keywords of submit."""

    messages: Sequence[Mapping[str, Any]]
    continues: bool
    sampling: Mapping[str, Any]

    def submit(self, session: Session) -> Generation:
        """Ask what the session has loaded. Raises what its `submit` does."""
        if self.continues:
            return session.submit(_continue_tokens(session.llm, self.messages), **self.sampling)
        return session.submit(messages=self.messages, **self.sampling)


def count_tokens(llm: LlamaGPU, messages: Sequence[Mapping[str, Any]]) -> int:
    """Tokens of messages as the model's template writes them."""
    return len(llm.tokenizer.apply_chat_template(messages))


def _continue_tokens(llm: LlamaGPU, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """The prompt whose last message, a reply, is left open for the model to go on with."""
    return llm.tokenizer.apply_chat_template(messages, continue_final_message=True)


def token_bytes(llm: LlamaGPU) -> Any:
    """A function from a token's id to its bytes."""
    from workbench.server.token_text import TokenText

    return TokenText(llm.tokenizer).bytes_of


def heat_of(llm: LlamaGPU, scores: Sequence[TokenLogprobs]) -> tuple[ScoredToken, ...]:
    """The tokens of a reply with how likely they were."""
    return scored_tokens(scores, token_bytes(llm))

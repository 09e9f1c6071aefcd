"""What a chat asks of an engine's tokenizer: count, go on with a reply, spell scored tokens. Knows no widget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.conversation import ScoredToken, scored_tokens

if TYPE_CHECKING:
    from workbench.engine.logprobs import TokenLogprobs
    from workbench.llm import LlamaGPU

__all__ = ["continue_tokens", "count_tokens", "heat_of", "token_bytes"]


def count_tokens(llm: LlamaGPU, messages: Sequence[Mapping[str, Any]]) -> int:
    """Tokens of messages as the model's template writes them."""
    return len(llm.tokenizer.apply_chat_template(messages))


def continue_tokens(llm: LlamaGPU, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """The prompt whose last message, a reply, is left open for the model to go on with."""
    return llm.tokenizer.apply_chat_template(messages, continue_final_message=True)


def token_bytes(llm: LlamaGPU) -> Any:
    """A function from a token's id to its bytes."""
    from workbench.server.token_text import TokenText

    return TokenText(llm.tokenizer).bytes_of


def heat_of(llm: LlamaGPU, scores: Sequence[TokenLogprobs]) -> tuple[ScoredToken, ...]:
    """The tokens of a reply with how likely they were."""
    return scored_tokens(scores, token_bytes(llm))

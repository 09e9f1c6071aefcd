"""How likely a given text is to a model, token by token: a heat map of what somebody else wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.conversation.token_heat import ScoredToken, scored_tokens
from workbench.engine import SamplingParams
from workbench.errors import RequestError

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["score_text"]


def score_text(
    llm: LlamaGPU, text: str, bytes_of: Callable[[int], bytes], *, num_alternatives: int = 5
) -> tuple[ScoredToken, ...]:
    """The tokens of a text as the model reads it; nothing is generated.

    Where the model begins texts with a special token, that comes first. Without one the first token has no
    log-probability. Raises RequestError for an empty text, PromptTooLongError for one that does not fit.
    """
    if not text:
        raise RequestError("the text is empty: give some text to score")
    token_ids = llm.tokenizer.encode(text)
    params = SamplingParams(max_tokens=0, prompt_logprobs=num_alternatives)
    completion = llm.submit(token_ids, params=params).result()
    return scored_tokens(completion.prompt_logprobs or (), bytes_of, token_ids=token_ids)

"""What a model is asked: text, token ids or chat messages, and the ids they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.errors import RequestError
from workbench.models import Tokenizer

__all__ = ["Messages", "Prompt", "encode_prompt"]

Prompt = str | Sequence[int]
Messages = str | Sequence[Mapping[str, object]]


def encode_prompt(tokenizer: Tokenizer, prompt: Prompt | None, messages: Messages | None) -> Sequence[int]:
    """Token ids of a prompt, or of a conversation in the model's chat template. RequestError for anything else."""
    if (prompt is None) == (messages is None):
        raise RequestError("give either a prompt or messages")
    if messages is not None:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return tokenizer.apply_chat_template(list(messages))
    if isinstance(prompt, str):
        if not prompt:
            raise RequestError("the prompt is empty: give some text")
        return tokenizer.encode(prompt)
    # An array or a tensor becomes a list.
    as_list = getattr(prompt, "tolist", None)
    ids: object = prompt if as_list is None else as_list()
    if not isinstance(ids, Sequence) or isinstance(ids, str | bytes | bytearray):
        raise RequestError(f"a prompt is text or a sequence of token ids, not {type(ids).__name__}")
    return ids

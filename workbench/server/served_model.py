"""The loaded model as the routes use it: under which names, and how texts and conversations become its token ids."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import PromptTooLongError
from workbench.server.chat_messages import ChatEncoder, Conversation
from workbench.server.token_text import TokenText

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["ServedModel"]


@dataclass(frozen=True)
class ServedModel:
    """The loaded model with what the routes need around it. `created_s` counts from the epoch."""

    llm: LlamaGPU
    names: tuple[str, ...]
    chat: ChatEncoder
    tokens: TokenText
    created_s: int

    @classmethod
    def of(cls, llm: LlamaGPU, aliases: Iterable[str] = ()) -> ServedModel:
        """A model under its aliases, its name, its path and that of the model it stands in for; the first is its id."""
        others = () if llm.stands_in_for is None else (llm.stands_in_for,)
        names = tuple(dict.fromkeys((*aliases, llm.model_name, str(llm.model_path), *others)))
        return cls(llm, names, ChatEncoder(llm.tokenizer), TokenText(llm.tokenizer), int(time.time()))

    @property
    def model_id(self) -> str:
        """The id under which it is listed."""
        return self.names[0]

    @property
    def revision(self) -> str | None:
        """The revision that was asked for with the model's name; None for whichever its source has."""
        return str(self.llm.model_path).partition("@")[2] or None

    @property
    def fingerprint(self) -> str:
        """Another one where the same seed may give the same model another answer: by backend and precision."""
        return f"fp_{self.llm.backend.name}_{self.llm.precision}"

    def encode_chat(self, conversation: Conversation) -> list[int]:
        """Token ids of a conversation. Raises RequestError for one that cannot be rendered, or is far too long."""
        self._check_length(sum(len(message.content) for message in conversation.messages))
        return self.chat.encode(conversation)

    def encode_text(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text, with the special tokens that it spells and those this model begins with."""
        self._check_length(len(text))
        return self.llm.tokenizer.encode(text, add_special_tokens)

    def _check_length(self, num_chars: int) -> None:
        """Refuse by its length a text that cannot fit, before time is spent on it."""
        num_tokens = num_chars // self.tokens.longest_bytes
        if num_tokens > self.llm.max_context:
            raise PromptTooLongError(num_tokens, self.llm.max_context)

"""Where each token of one answer begins in its text. Knows bytes and characters, no likelihoods."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from workbench.server.token_text import TokenText

__all__ = ["TextOffsets"]

_REPLACEMENT = "\ufffd"


class TextOffsets:
    """Counts characters through one answer, its echoed prompt first. Tokens that share a character begin where it does.

    `silent_ids` are tokens that add no text to the answer.
    """

    def __init__(self, tokens: TokenText, silent_ids: frozenset[int]) -> None:
        self._tokens = tokens
        self._silent_ids = silent_ids
        self._num_chars = 0
        self._new_decoder = codecs.getincrementaldecoder("utf-8")
        self._decoder = self._new_decoder("replace")

    def of_prompt(self, token_ids: Sequence[int], text: str) -> list[int]:
        """For the tokens of a prompt that is given back as `text`."""
        spelled = [self._tokens.bytes_of(token_id) for token_id in token_ids]
        if spelled and token_ids[0] in self._tokens.special_ids and not text.encode().startswith(spelled[0]):
            # The tokenizer has put it before the text.
            spelled[0] = b""
        begins = [self._advance(one) for one in spelled]
        self._num_chars = len(text)
        self._decoder = self._new_decoder("replace")
        return begins

    def of_answer(self, token_ids: Iterable[int]) -> list[int]:
        """For the next tokens of the answer."""
        return [self._advance(b"" if i in self._silent_ids else self._tokens.bytes_of(i)) for i in token_ids]

    def _advance(self, spelled: bytes) -> int:
        begin = self._num_chars
        waits = bool(self._decoder.getstate()[0])
        text = self._decoder.decode(spelled)
        self._num_chars += len(text)
        # Bytes before it that this token does not complete are a character of their own.
        is_of_it = not spelled or spelled[0] & 0xC0 == 0x80
        return begin + (waits and not is_of_it and text.startswith(_REPLACEMENT))

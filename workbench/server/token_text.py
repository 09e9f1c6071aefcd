"""The bytes and the text of single tokens, for log-probabilities and for bounds on how long a text can be."""

from __future__ import annotations

import functools

from workbench.models import Tokenizer

__all__ = ["TokenText"]


class TokenText:
    """What each token of one model spells. May be used by several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._byte_of = _byte_alphabet()

    def bytes_of(self, token_id: int) -> bytes:
        """The token's bytes; several tokens may share one character, so they need not be valid UTF-8."""
        if token_id >= self._tokenizer.vocab_size:
            return b""
        spelling = self._tokenizer.id_to_token(token_id)
        if self._is_byte_level and token_id not in self._added:
            return bytes(self._byte_of[c] for c in spelling)
        if len(spelling) == 6 and spelling.startswith("<0x"):
            return bytes([int(spelling[3:5], 16)])
        return spelling.replace("\u2581", " ").encode()

    def text_of(self, token_id: int) -> str:
        """The token as the API shows it: its text, or its bytes where these are not text."""
        spelled = self.bytes_of(token_id)
        try:
            return spelled.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)

    @functools.cached_property
    def longest_bytes(self) -> int:
        """Bytes of the longest token: a text of more than so many times `n` bytes has more than `n` tokens."""
        return max((len(token.encode()) for token in self._tokenizer.hf.get_vocab()), default=1)

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        """Control tokens, which are no text."""
        return frozenset(i for i, token in self._tokenizer.hf.added_tokens_decoder.items() if token.special)

    @functools.cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self._tokenizer.hf.added_tokens_decoder)

    @functools.cached_property
    def _is_byte_level(self) -> bool:
        """Whether every ordinary token is written in the byte alphabet of GPT-2."""
        vocabulary = self._tokenizer.hf.get_vocab().items()
        return all(set(token) <= self._byte_of.keys() for token, i in vocabulary if i not in self._added)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's letters for the 256 bytes: printable ones stand for themselves, the others come after U+0100."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}

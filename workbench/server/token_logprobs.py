"""Log-probabilities as the API reports them, given out together with the text they belong to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from workbench.engine import Chunk, FinishReason, TokenLogprobs
from workbench.server.protocol.chat import ChatLogprobs, ChatTokenLogprob, ChatTopLogprob
from workbench.server.protocol.completions import CompletionLogprobs
from workbench.server.token_text import TokenText

__all__ = ["LogprobAligner", "chat_logprobs", "completion_logprobs"]


class LogprobAligner:
    """Holds entries back until the whole text of their tokens is given, so that a stop string stays unsaid here too.

    `end_ids` are tokens that end an answer, `silent_ids` tokens that add no text to it.
    """

    def __init__(self, tokens: TokenText, end_ids: frozenset[int], silent_ids: frozenset[int]) -> None:
        self._tokens = tokens
        self._end_ids = end_ids
        self._silent_ids = silent_ids
        self._held: deque[TokenLogprobs] = deque()
        # Bytes of text that were given, and bytes of the tokens whose entries were.
        self._num_text_bytes = 0
        self._num_token_bytes = 0

    def take(self, chunk: Chunk) -> list[TokenLogprobs]:
        """The entries that go with this chunk's text."""
        self._held.extend(chunk.logprobs)
        if chunk.finish_reason is FinishReason.STOP and self._held and self._held[-1].token_id in self._end_ids:
            self._held.pop()
        self._num_text_bytes += len(chunk.text.encode())
        is_whole = chunk.finish_reason is not None and not isinstance(chunk.stop_reason, str)
        given = []
        while self._held:
            end = self._num_token_bytes + self._num_bytes(self._held[0])
            if end > self._num_text_bytes and not is_whole:
                break
            self._num_token_bytes = end
            given.append(self._held.popleft())
        return given

    def _num_bytes(self, entry: TokenLogprobs) -> int:
        return 0 if entry.token_id in self._silent_ids else len(self._tokens.bytes_of(entry.token_id))


def chat_logprobs(entries: Iterable[TokenLogprobs], tokens: TokenText) -> ChatLogprobs:
    """Entries in the form of chat completions."""
    return ChatLogprobs(
        content=[
            ChatTokenLogprob(
                **_named(entry.token_id, entry.logprob, tokens),
                top_logprobs=[ChatTopLogprob(**_named(token_id, logprob, tokens)) for token_id, logprob in entry.top],
            )
            for entry in entries
        ]
    )


def completion_logprobs(
    entries: Sequence[TokenLogprobs | int], tokens: TokenText, *, with_top: bool, offsets: list[int]
) -> CompletionLogprobs:
    """Entries in the form of text completions; a bare token id stands for a token whose likelihood nobody knows.

    `offsets` are where the tokens begin in the text, in characters.
    """
    reply = CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[] if with_top else None, text_offset=offsets)
    for entry in entries:
        token_id = entry if isinstance(entry, int) else entry.token_id
        text = tokens.text_of(token_id)
        reply.tokens.append(text)
        reply.token_logprobs.append(None if isinstance(entry, int) else entry.logprob)
        if reply.top_logprobs is not None:
            reply.top_logprobs.append(None if isinstance(entry, int) else _top(entry, tokens))
    return reply


def _top(entry: TokenLogprobs, tokens: TokenText) -> dict[str, float]:
    # The chosen token is always among them, as the API has it.
    return {tokens.text_of(i): logprob for i, logprob in (*entry.top, (entry.token_id, entry.logprob))}


def _named(token_id: int, logprob: float, tokens: TokenText) -> dict[str, Any]:
    return {
        "token": tokens.text_of(token_id),
        "logprob": max(logprob, -9999.0),
        "bytes": list(tokens.bytes_of(token_id)),
    }

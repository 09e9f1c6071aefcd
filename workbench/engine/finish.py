"""From token ids to text, piece by piece, and when an answer ends. Knows no tensors and no batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workbench.engine.sequence import FinishReason, Sequence

__all__ = ["AnswerText", "Piece", "StopMatch"]

# Tokens before the first new one that are decoded along, so that spaces between words come out right.
_NUM_CONTEXT_TOKENS = 6
# How far decoding looks back before it starts afresh from the last few tokens.
_MAX_WINDOW_TOKENS = 24
# A character has at most four bytes: what is no character after this many tokens will never be one.
_MAX_TOKENS_PER_CHARACTER = 5
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class StopMatch:
    """Why an answer ended; `stop` is the stop string or the stop token's id where one was the cause."""

    reason: FinishReason
    stop: str | int | None = None


@dataclass(frozen=True)
class Piece:
    """Text that can be shown now, and the end if this was it."""

    text: str
    finished: StopMatch | None


class AnswerText:
    """Decodes one sequence's answer as it grows.

    Text is held back while it may be part of a character (bytes still missing) or of a stop string, so a piece that
    was given is never taken back; and the pieces together are what decoding all tokens at once gives.
    """

    def __init__(self, sequence: Sequence, decode: Callable[[list[int]], str]) -> None:
        self._sequence = sequence
        self._decode = decode
        # Everything before _read is in _pending or already given. Decoding starts at _prefix, a few tokens earlier,
        # to see its neighbours; _known is the text from there to _read.
        self._read = sequence.num_prompt_tokens
        self._prefix = max(0, self._read - _NUM_CONTEXT_TOKENS)
        self._known = decode(sequence.token_ids[self._prefix : self._read])
        self._pending = ""

    def advance(self) -> Piece:
        """Take in the sequence's newest token. A token that ends the answer adds no text."""
        sequence = self._sequence
        may_stop = sequence.num_generated_tokens >= sequence.params.min_tokens
        token_id = sequence.token_ids[-1]
        if may_stop and token_id in sequence.stop_token_ids:
            own = token_id in sequence.params.stop_token_ids
            return self._end(sequence.token_ids[:-1], StopMatch(FinishReason.STOP, token_id if own else None))
        self._pending += self._decode_new(sequence.token_ids, flush=False)
        stopped = self._find_stop() if may_stop else None
        if stopped is not None:
            return stopped
        if sequence.is_full and sequence.num_pending_tokens == 0:
            return self._end(sequence.token_ids, StopMatch(FinishReason.LENGTH))
        return Piece(self._take(len(self._pending) - self._num_held_back()), None)

    def flush(self) -> str:
        """What is still held back, for an answer that was cut short."""
        self._pending += self._decode_new(self._sequence.token_ids, flush=True)
        return self._take(len(self._pending))

    def _decode_new(self, ids: list[int], flush: bool) -> str:
        text = self._decode(ids[self._prefix :])
        is_open = text.endswith(_REPLACEMENT) and not flush
        if is_open and len(ids) - self._read < _MAX_TOKENS_PER_CHARACTER:
            return ""
        # Of what will never be a character the last part is kept back, since the next one may begin there.
        known = text[:-1] if is_open else text
        new = known[len(self._known) :]
        self._read, self._known = len(ids), known
        if len(ids) - self._prefix > _MAX_WINDOW_TOKENS:
            self._move_window(ids, is_open)
        return new

    def _move_window(self, ids: list[int], is_open: bool) -> None:
        """Decode from nearer on, unless the last character that shows, whole or open, would be cut off."""
        near = self._decode(ids[-_NUM_CONTEXT_TOKENS:])
        if near.endswith(_REPLACEMENT) == is_open:
            self._prefix = len(ids) - _NUM_CONTEXT_TOKENS
            self._known = near[:-1] if is_open else near

    def _find_stop(self) -> Piece | None:
        found = [(self._pending.find(s), s) for s in self._sequence.params.stop]
        found = [(at, s) for at, s in found if at >= 0]
        if not found:
            return None
        at, string = min(found, key=lambda pair: (pair[0], -len(pair[1])))
        return Piece(self._pending[:at], StopMatch(FinishReason.STOP, string))

    def _end(self, ids: list[int], why: StopMatch) -> Piece:
        self._pending += self._decode_new(ids, flush=True)
        # A flush can complete a stop string.
        stopped = self._find_stop() if self._sequence.num_generated_tokens >= self._sequence.params.min_tokens else None
        return stopped or Piece(self._take(len(self._pending)), why)

    def _num_held_back(self) -> int:
        """Length of the longest end of the pending text that begins a stop string."""
        longest = 0
        for stop in self._sequence.params.stop:
            for length in range(min(len(stop) - 1, len(self._pending)), longest, -1):
                if self._pending.endswith(stop[:length]):
                    longest = length
                    break
        return longest

    def _take(self, length: int) -> str:
        text, self._pending = self._pending[:length], self._pending[length:]
        return text

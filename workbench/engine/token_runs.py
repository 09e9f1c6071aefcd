"""Where each short run of an answer's tokens ended last, to find what followed. Knows no torch, no model."""

from __future__ import annotations

__all__ = ["TokenRuns"]

# Tokens that must agree, more first: a longer run is followed by the same tokens more often.
_RUN_LENGTHS = (4, 2)


class TokenRuns:
    """Of one answer. Looks back over the last `most_tokens` before the first look, and all that come after it."""

    def __init__(self, most_tokens: int | None = None) -> None:
        self._most_tokens = most_tokens
        self._num_indexed = 0
        self._ends: dict[tuple[int, ...], int] = {}

    def extend(self, token_ids: list[int], at_once: int | None = None) -> None:
        """Note the runs that end before the newest token, whose own run would only find itself; at most `at_once`
        tokens further than before."""
        begin, end = max(1, self._num_indexed), len(token_ids)
        if not self._num_indexed and self._most_tokens is not None:
            begin = max(1, end - self._most_tokens)
        if at_once is not None:
            end = min(end, begin + at_once)
        for place in range(begin, end):
            for length in _RUN_LENGTHS:
                if place >= length:
                    self._ends[tuple(token_ids[place - length : place])] = place
        self._num_indexed = max(self._num_indexed, end)

    def followers(self, token_ids: list[int], count: int) -> tuple[int, ...]:
        """What came after the latest earlier run like the one at the end. It may reach into that very run and
        repeat."""
        for length in _RUN_LENGTHS:
            end = self._ends.get(tuple(token_ids[-length:])) if len(token_ids) >= length else None
            if end is not None:
                # Past the newest token the guesses themselves go on: "abcabcabc" from "abcab".
                period = len(token_ids) - end
                return tuple(token_ids[end + i % period] for i in range(count))
        return ()

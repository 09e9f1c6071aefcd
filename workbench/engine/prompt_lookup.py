"""Guesses the next tokens of an answer by looking up what followed the same tokens before. Knows no torch, no model.

After "prompt lookup decoding", A. Saxena 2023; see `drafter.py` for what becomes of a guess.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from workbench.engine.drafter import may_be_guessed
from workbench.engine.sequence import Sequence
from workbench.engine.step_plan import StepPlan
from workbench.engine.token_runs import TokenRuns

__all__ = ["PromptLookup"]

# Where guesses go wrong, an answer does without for this many tokens, then for twice as many, at most for the last.
_FIRST_PAUSE_TOKENS, _LAST_PAUSE_TOKENS = 4, 64


@dataclass
class _History:
    """Of one answer: where each run of tokens ended last, and how its guesses fared."""

    runs: TokenRuns = field(default_factory=TokenRuns)
    length: int = 2
    pause_tokens: int = _FIRST_PAUSE_TOKENS
    resumes_at: int = 0


class PromptLookup:
    """See Drafter. Guesses up to `max_tokens` tokens an answer and step; holds no memory of a device."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.num_drafted = 0
        self.num_accepted = 0
        self._histories: weakref.WeakKeyDictionary[Sequence, _History] = weakref.WeakKeyDictionary()

    def wants(self, sequences: Iterable[Sequence]) -> bool:
        """See Drafter. It knows no price of waiting: `MeasuredLookup` is for steps that overlap."""
        return False

    def draft(self, room: Mapping[Sequence, int]) -> dict[Sequence, tuple[int, ...]]:
        """None for an answer where nothing alike came before, or guesses went wrong lately."""
        guesses = {sequence: self._draft_one(sequence, most) for sequence, most in room.items()}
        return {sequence: drafts for sequence, drafts in guesses.items() if drafts}

    def learn(self, sequence: Sequence, num_drafted: int, num_accepted: int) -> None:
        """Guess further ahead after guesses that were all right, less far or not at all for a while after others."""
        self.num_drafted += num_drafted
        self.num_accepted += num_accepted
        history = self._histories.get(sequence)
        if history is None:
            return
        if num_accepted == num_drafted:
            history.length = min(2 * history.length, self.max_tokens)
            history.pause_tokens = _FIRST_PAUSE_TOKENS
        elif num_accepted:
            history.length = max(2, num_accepted)
        else:
            history.length = 2
            history.resumes_at = sequence.num_tokens + history.pause_tokens
            history.pause_tokens = min(2 * history.pause_tokens, _LAST_PAUSE_TOKENS)

    def forget(self, sequence: Sequence) -> None:
        """Its history goes with the answer, and is still good for one that was preempted."""

    def note_step(self, plan: StepPlan, num_tokens: int, seconds: float) -> None:
        """Looking up takes no time to speak of."""

    def check_integrity(self) -> None:
        """There is nothing that could leak."""

    def _draft_one(self, sequence: Sequence, most: int) -> tuple[int, ...]:
        if min(most, self.max_tokens) < 1 or not may_be_guessed(sequence):
            return ()
        history = self._histories.setdefault(sequence, _History())
        if sequence.num_tokens < history.resumes_at:
            return ()
        history.runs.extend(sequence.token_ids)
        return history.runs.followers(sequence.token_ids, min(most, history.length, self.max_tokens))

"""Guesses as prompt lookup does, where that saves time by what was measured: for steps that overlap.

A guess needs the tokens before it, so the device waits for the host before and after each step with guesses. That is
worth it where enough of them will be right. Whether looking up would have been right is seen without guessing too, by
what comes. Knows no torch, no model.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from workbench.engine.drafter import may_be_guessed
from workbench.engine.guess_price import GuessPrice
from workbench.engine.sequence import Sequence
from workbench.engine.step_plan import StepPlan
from workbench.engine.token_runs import TokenRuns

__all__ = ["MeasuredLookup"]

# Tokens that an answer is looked up in, before its first look: their runs take some 300 bytes each.
_MOST_TOKENS = 16_384
# Of them at once, so that a long prompt holds up no step: about 1 ms.
_AT_ONCE = 1024
_FIRST_HIT_RATE = 0.5
_HIT_RATE_WEIGHT = 0.2
# A guess is made if it will be reached, with all before it right, at least this often.
_LEAST_REACHED = 0.15


@dataclass
class _Record:
    """Of one answer: its runs, how often what they say comes next, and what they say of the next token."""

    runs: TokenRuns = field(default_factory=lambda: TokenRuns(_MOST_TOKENS))
    hit_rate: float = _FIRST_HIT_RATE
    expected: int | None = None
    expected_at: int = 0

    def look(self, token_ids: list[int]) -> None:
        """Take in what came, and look up what will come next."""
        if self.expected is not None and len(token_ids) > self.expected_at:
            self.learn(self.expected == token_ids[self.expected_at])
        self.runs.extend(token_ids, _AT_ONCE)
        self.expected_at = len(token_ids)
        self.expected = next(iter(self.runs.followers(token_ids, 1)), None)

    def learn(self, is_hit: bool) -> None:
        self.hit_rate += _HIT_RATE_WEIGHT * (is_hit - self.hit_rate)
        self.expected = None

    def reach(self, most: int) -> int:
        """How many tokens to guess."""
        if self.expected is None or most < 1:
            return 0
        # A rate of 1 would reach anywhere.
        return min(most, max(1, int(math.log(_LEAST_REACHED) / math.log(min(max(self.hit_rate, 0.01), 0.99)))))

    def gain(self, length: int) -> float:
        """How many of so many guesses will be right."""
        return sum(self.hit_rate**count for count in range(1, length + 1))


class MeasuredLookup:
    """See Drafter. Guesses up to `max_tokens` tokens an answer and step; holds no memory of a device. `price` is what
    they must bring; None: as measured."""

    def __init__(self, max_tokens: int, price: GuessPrice | None = None) -> None:
        self.max_tokens = max_tokens
        self.num_drafted = 0
        self.num_accepted = 0
        self._price = price or GuessPrice()
        self._records: weakref.WeakKeyDictionary[Sequence, _Record] = weakref.WeakKeyDictionary()

    def wants(self, sequences: Iterable[Sequence]) -> bool:
        """See Drafter."""
        gain, num_answers = 0.0, 0
        for sequence in sequences:
            num_answers += 1
            record = self._look(sequence)
            if record is not None:
                # The token in flight must be the one that is expected.
                gain += record.hit_rate * record.gain(record.reach(self._most(sequence, self.max_tokens)))
        return gain > self._price.of(num_answers)

    def draft(self, room: Mapping[Sequence, int]) -> dict[Sequence, tuple[int, ...]]:
        """See Drafter. None for anybody where too few would be right to be worth it."""
        guesses: dict[Sequence, tuple[int, ...]] = {}
        gain = 0.0
        for sequence, most in room.items():
            record = self._look(sequence)
            reach = 0 if record is None else record.reach(self._most(sequence, most))
            if record is not None and reach:
                guesses[sequence] = record.runs.followers(sequence.token_ids, reach)
                gain += record.gain(reach)
        return guesses if gain > self._price.of(len(room)) else {}

    def learn(self, sequence: Sequence, num_drafted: int, num_accepted: int) -> None:
        """See Drafter."""
        self.num_drafted += num_drafted
        self.num_accepted += num_accepted
        record = self._records.get(sequence)
        if record is None:
            return
        for number in range(min(num_accepted + 1, num_drafted)):
            record.learn(number < num_accepted)

    def forget(self, sequence: Sequence) -> None:
        """Its record goes with the answer, and is still good for one that was preempted."""

    def note_step(self, plan: StepPlan, num_tokens: int, seconds: float) -> None:
        """See Drafter. The time of steps with pieces of prompts says nothing about guesses."""
        if plan.num_decodes and plan.num_tokens == plan.num_decodes + plan.num_drafts:
            self._price.note(plan.num_decodes, seconds, guessed=plan.was_awaited or plan.num_drafts > 0)

    def check_integrity(self) -> None:
        """There is nothing that could leak."""

    def _look(self, sequence: Sequence) -> _Record | None:
        if not may_be_guessed(sequence):
            return None
        record = self._records.setdefault(sequence, _Record())
        if record.expected is None or record.expected_at != sequence.num_tokens:
            record.look(sequence.token_ids)
        return record

    def _most(self, sequence: Sequence, room: int) -> int:
        return min(room, self.max_tokens, sequence.num_tokens_to_go - 1)

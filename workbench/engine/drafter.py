"""Who guesses the next tokens of answers, as the scheduler sees it. Knows no torch, no model.

A guess is checked by computing it beside the token that is due, in one pass: what would have been chosen anyway is
kept, so a guess never changes a text, it only saves passes over the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from workbench.engine.sequence import Sequence
    from workbench.engine.step_plan import StepPlan

__all__ = ["Drafter", "may_be_guessed"]


class Drafter(Protocol):
    """Guesses for the answers of one engine; counts tokens guessed, and those that were right."""

    num_drafted: int
    num_accepted: int

    def wants(self, sequences: Iterable[Sequence]) -> bool:
        """Whether to wait for the tokens in flight of these answers, which all are about to decode, so that the next
        can be guessed; only asked where steps overlap."""
        ...

    def draft(self, room: Mapping[Sequence, int]) -> dict[Sequence, tuple[int, ...]]:
        """Tokens that may follow, for all answers that are about to decode; each has room for so many at most, or none
        where that is below 1. Answers without a guess may be left out."""
        ...

    def learn(self, sequence: Sequence, num_drafted: int, num_accepted: int) -> None:
        """So many of an answer's guesses were right."""
        ...

    def forget(self, sequence: Sequence) -> None:
        """The answer ended or gave its blocks back: hold no memory for it. Harmless for one that is not known."""
        ...

    def note_step(self, plan: StepPlan, num_tokens: int, seconds: float) -> None:
        """A step of `plan`, guessing included, took `seconds` and chose `num_tokens` tokens. Where steps overlap it is
        told after the next one was planned, unless that one was to have guesses."""
        ...

    def check_integrity(self) -> None:
        """Raise AssertionError if memory is held for an answer that does not run."""
        ...


def may_be_guessed(sequence: Sequence) -> bool:
    """Not where tokens are chosen by more than numbers and history: structures and plugins."""
    return sequence.matcher is None and sequence.plugins is None

"""What a step with guesses takes beyond one without, as measured while both are computed. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["GuessPrice"]

# In steps without guesses, as long as nothing is known: on an H200 8 rows take a tenth longer than one, and the host's
# work that nothing hides as much again.
_UNKNOWN_EXTRA = 0.3
_WEIGHT = 0.1
# What takes many times as long as usual was held up by something else.
_MOST_TIMES = 3.0
# What is not known is taken for as many steps with guesses.
_UNKNOWN_WEIGHT = 4
# What steps with guesses took is forgotten after so many without: it may have been the machine's first, or a busy hour.
_MOST_PLAIN_STEPS = 512


@dataclass
class _Mean:
    """Seconds of a step of one kind. The first of them takes longer than any other and does not count."""

    seconds: float = 0.0
    num_noted: int = 0

    def note(self, seconds: float) -> None:
        self.num_noted += 1
        if self.num_noted <= 2:
            self.seconds = seconds
            return
        seconds = min(seconds, _MOST_TIMES * self.seconds)
        self.seconds += max(_WEIGHT, 1 / (self.num_noted - 1)) * (seconds - self.seconds)


@dataclass
class _Steps:
    """Of batches of about one size."""

    plain: _Mean = field(default_factory=_Mean)
    guessed: _Mean = field(default_factory=_Mean)
    num_plain_since: int = 0


@dataclass
class GuessPrice:
    """For batches of each power of two by itself."""

    _steps: dict[int, _Steps] = field(default_factory=dict)

    def note(self, num_answers: int, seconds: float, *, guessed: bool) -> None:
        """A step of so many answers took so long, from the end of the one before it on."""
        steps = self._of(num_answers)
        (steps.guessed if guessed else steps.plain).note(seconds)
        steps.num_plain_since = 0 if guessed else steps.num_plain_since + 1
        if steps.num_plain_since > _MOST_PLAIN_STEPS:
            steps.guessed, steps.num_plain_since = _Mean(), 0

    def of(self, num_answers: int) -> float:
        """How many tokens guesses must bring a step of so many answers, at least, to be worth it."""
        steps = self._of(num_answers)
        extra = _UNKNOWN_EXTRA
        num_known = steps.guessed.num_noted - 1
        if steps.plain.num_noted > 1 and num_known > 0:
            measured = max(0.0, steps.guessed.seconds / max(steps.plain.seconds, 1e-9) - 1)
            extra += (measured - extra) * num_known / (num_known + _UNKNOWN_WEIGHT)
        return extra * num_answers

    def _of(self, num_answers: int) -> _Steps:
        return self._steps.setdefault(num_answers.bit_length(), _Steps())

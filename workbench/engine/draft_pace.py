"""How far a draft model guesses ahead in one answer, and whether guessing pays for the batch. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["DraftPace", "DraftPayoff"]

# An answer whose guesses are wrong more often than this does without for a while.
_LEAST_HIT_RATE = 0.25
_FIRST_HIT_RATE = 0.7
_HIT_RATE_WEIGHT = 0.3
_FIRST_PAUSE_TOKENS, _LAST_PAUSE_TOKENS = 4, 64
# Guessing is judged over so many steps; where it does not pay it rests for the first number of steps, then for twice
# as many, at most for the last. Three times the time in 16 of 2,064 steps is 1.6 %.
_TRIAL_STEPS = 16
_FIRST_REST_STEPS, _LAST_REST_STEPS = 32, 2048
# What a step without guesses takes is looked at anew once in so many trials that pay.
_TRIALS_BETWEEN_PLAIN_STEPS = 2
_FIRST_PLAIN_STEPS = 4
_PLAIN_WEIGHT = 0.3


@dataclass
class DraftPace:
    """Of one answer. Two tokens further after guesses that were all right and one less after others, as transformers'
    assisted generation does; a pause, doubled each time, after several answers in a row to none of them."""

    most: int
    length: int = 2
    hit_rate: float = _FIRST_HIT_RATE
    pause_tokens: int = _FIRST_PAUSE_TOKENS
    resumes_at: int = 0

    def reach(self, num_tokens: int) -> int:
        """Tokens to guess for an answer of `num_tokens` so far."""
        return 0 if num_tokens < self.resumes_at else min(self.length, self.most)

    def learn(self, num_tokens: int, num_drafted: int, num_accepted: int) -> None:
        """So many of the guesses were right, and the answer has `num_tokens` now."""
        self.hit_rate += _HIT_RATE_WEIGHT * ((num_accepted > 0) - self.hit_rate)
        if num_accepted == num_drafted:
            self.length = min(self.length + 2, self.most)
        else:
            self.length = max(1, min(self.length, self.most) - 1)
        if num_accepted:
            self.pause_tokens = _FIRST_PAUSE_TOKENS
        elif self.hit_rate < _LEAST_HIT_RATE:
            self.resumes_at = num_tokens + self.pause_tokens
            self.pause_tokens = min(2 * self.pause_tokens, _LAST_PAUSE_TOKENS)


@dataclass
class _Trials:
    """Of batches of about one size."""

    num_plain: int = 0
    plain_token_s: float = 0.0
    num_steps: int = 0
    num_tokens: int = 0
    seconds: float = 0.0
    num_trials: int = 0
    steps_to_rest: int = _FIRST_PLAIN_STEPS
    next_rest_steps: int = _FIRST_REST_STEPS

    def note_plain(self, token_s: float) -> None:
        # The first step of a kind takes longer than any other.
        weight = _PLAIN_WEIGHT if self.num_plain > 1 else 1.0
        self.plain_token_s += weight * (token_s - self.plain_token_s)
        self.num_plain += 1

    def rest(self) -> None:
        self.steps_to_rest = max(0, self.steps_to_rest - 1)

    def note_guessed(self, num_tokens: int, seconds: float) -> None:
        self.num_steps += 1
        self.num_tokens += num_tokens
        self.seconds += seconds
        if self.num_steps == _TRIAL_STEPS:
            self._judge()

    def _judge(self) -> None:
        if not self.num_plain:
            # There were prompts beside every step: nothing to compare with yet.
            self.steps_to_rest = _FIRST_PLAIN_STEPS
        elif self.seconds > self.plain_token_s * self.num_tokens:
            self.steps_to_rest = self.next_rest_steps
            self.next_rest_steps = min(2 * self.next_rest_steps, _LAST_REST_STEPS)
        else:
            self.next_rest_steps = _FIRST_REST_STEPS
            self.num_trials += 1
            self.steps_to_rest = self.num_trials % _TRIALS_BETWEEN_PLAIN_STEPS == 0
        self.num_steps = self.num_tokens = 0
        self.seconds = 0.0


@dataclass
class DraftPayoff:
    """Compares the time that a token takes with and without guesses, for batches of each power of two by itself."""

    _trials: dict[int, _Trials] = field(default_factory=dict)

    def pays(self, num_answers: int) -> bool:
        """Whether to guess in the next step, as far as is known; the first steps are measured without."""
        return not self._of(num_answers).steps_to_rest

    def note(self, num_answers: int, num_tokens: int, seconds: float | None, *, guessed: bool) -> None:
        """A step for `num_answers` chose `num_tokens` tokens; `seconds` with the guessing, None where they say nothing
        about it."""
        trials = self._of(num_answers)
        if not guessed:
            trials.rest()
        if seconds is None or not num_tokens:
            return
        if guessed:
            trials.note_guessed(num_tokens, seconds)
        else:
            trials.note_plain(seconds / num_tokens)

    def _of(self, num_answers: int) -> _Trials:
        return self._trials.setdefault(num_answers.bit_length(), _Trials())

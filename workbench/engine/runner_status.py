"""How a model is being computed, in words, for people who ask while it changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["MEANWHILE", "RunnerStatus"]

# How the words begin while a faster way is being prepared.
MEANWHILE = "torch's operators, while "


class RunnerStatus:
    """Holds the words and nothing of the model, so that whoever reads them keeps no weights alive.

    `on_change` is called with new words, in the thread that sets them. `final_at` is the Unix time since which a way
    that stays has computed, if `is_provisional` is false. `has_ended` is true where nothing computes any more.
    """

    def __init__(self, words: str, clock: Callable[[], float] = time.time) -> None:
        self._words = words
        self._clock = clock
        self.final_at = clock()
        self.has_ended = False
        self._changed = threading.Condition()
        self.on_change: Callable[[str], None] | None = None

    @property
    def words(self) -> str:
        return self._words

    @words.setter
    def words(self, words: str) -> None:
        with self._changed:
            if self.is_provisional:
                self.final_at = self._clock()
            self._words, self.has_ended = words, False
            self._changed.notify_all()
        if self.on_change is not None:
            self.on_change(words)

    def end(self) -> None:
        """The engine is gone: a faster way does not come any more, and nobody must wait for it."""
        with self._changed:
            if self.is_provisional:
                self.final_at = self._clock()
            self.has_ended = True
            self._changed.notify_all()
        if self.on_change is not None:
            self.on_change(self._words)

    @property
    def is_provisional(self) -> bool:
        """Whether a faster way to compute is being prepared."""
        return self._words.startswith(MEANWHILE) and not self.has_ended

    def wait_until_final(self, timeout_s: float | None = None) -> bool:
        """Wait for the way that stays; whether it is there. False too where the engine ended before."""
        with self._changed:
            self._changed.wait_for(lambda: not self.is_provisional, timeout_s)
            return not self._words.startswith(MEANWHILE)

    def __str__(self) -> str:
        return self._words

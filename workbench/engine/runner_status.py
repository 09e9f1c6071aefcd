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
    that stays has computed, if `is_provisional` is false.
    """

    def __init__(self, words: str, clock: Callable[[], float] = time.time) -> None:
        self._words = words
        self._clock = clock
        self.final_at = clock()
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
            self._words = words
            self._changed.notify_all()
        if self.on_change is not None:
            self.on_change(words)

    @property
    def is_provisional(self) -> bool:
        """Whether a faster way to compute is being prepared."""
        return self._words.startswith(MEANWHILE)

    def wait_until_final(self, timeout_s: float | None = None) -> bool:
        """Wait for the way that stays; whether it is there."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.is_provisional, timeout_s)

    def __str__(self) -> str:
        return self._words

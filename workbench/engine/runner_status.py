"""How a model is being computed, in words, for people who ask while it changes."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["RunnerStatus"]


class RunnerStatus:
    """Holds the words and nothing of the model, so that whoever reads them keeps no weights alive.

    `on_change` is called with new words, in the thread that sets them.
    """

    def __init__(self, words: str) -> None:
        self._words = words
        self.on_change: Callable[[str], None] | None = None

    @property
    def words(self) -> str:
        return self._words

    @words.setter
    def words(self, words: str) -> None:
        self._words = words
        if self.on_change is not None:
            self.on_change(words)

    def __str__(self) -> str:
        return self._words

"""How a model is being computed, in words, for people who ask while it changes."""

from __future__ import annotations

__all__ = ["RunnerStatus"]


class RunnerStatus:
    """Holds the words and nothing of the model, so that whoever reads them keeps no weights alive."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __str__(self) -> str:
        return self.words

"""Reads a model's facts in the background: a config may be on the network. Knows no widget."""

from __future__ import annotations

from collections.abc import Callable

from widgets.latest_job import LatestJob
from widgets.model_facts import ModelFacts

__all__ = ["FactsFinder"]


class FactsFinder:
    """`find(model)` returns at once; `show(model, facts)` is called when they are read, of the newest model only.

    `model` is the one that was asked for last.
    """

    def __init__(self, read: Callable[[str], ModelFacts], show: Callable[[str, ModelFacts], object]) -> None:
        self._read = read
        self._show = show
        self.model: str | None = None
        self.job = LatestJob("workbench-model-facts")

    def find(self, model: str) -> None:
        """Read the facts of that model."""
        self.model = model
        self.job.ask(lambda: self._show(model, self._read(model)))

"""The requests that a GPU works on, with the questions that are asked of a queue."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["InFlight"]


class InFlight:
    """A live view on a count; it grows and falls with the requests themselves."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count

    def qsize(self) -> int:
        """How many there are."""
        return self._count()

    def empty(self) -> bool:
        """Whether there are none."""
        return self.qsize() == 0

    __len__ = qsize

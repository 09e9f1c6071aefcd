"""The requests that a GPU works on, with the questions that are asked of a queue."""

from __future__ import annotations

from workbench.parallel.load_book import LoadBook

__all__ = ["InFlight"]


class InFlight:
    """A live view on one worker's count; it grows and falls with the requests themselves."""

    def __init__(self, book: LoadBook, worker_id: int | str) -> None:
        self._book = book
        self._worker_id = worker_id

    def qsize(self) -> int:
        """How many there are."""
        return self._book.num_in_flight(self._worker_id)

    def empty(self) -> bool:
        """Whether there are none."""
        return self.qsize() == 0

    __len__ = qsize

"""Progress of long work as a value. Who shows it (terminal, widget, log) is decided by the caller's callback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "ProgressCallback", "no_progress"]


@dataclass(frozen=True)
class Progress:
    """Where a long job stands.

    `stage` says in words what is going on ("download", "convert", "load weights"); `completed` of `total`
    are in `unit` ("B" for bytes, "tensors", ..., "" while something is waited for). `total` is None while unknown.
    """

    stage: str
    completed: int
    total: int | None = None
    unit: str = "B"

    @property
    def fraction(self) -> float | None:
        """Done share between 0 and 1, or None while the total is unknown."""
        if not self.total:
            return None
        return min(1.0, self.completed / self.total)


# A callback cancels the work by raising `LoadCancelled`; whoever reports progress lets it through and cleans up.
ProgressCallback = Callable[[Progress], None]


def no_progress(progress: Progress) -> None:
    """The callback that shows nothing."""
